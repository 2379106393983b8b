//! Streams, sinks, and what a child alone sees.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::sh;
use crate::exec::{Secret, Sink, Stream, Tool};
use crate::{Cancel, Error, ErrorKind};

const LONG: Duration = Duration::from_secs(60);
/// Sooner than what waits for [`LONG`], on a machine that is very busy.
const SOON: Duration = Duration::from_secs(20);

fn stream(script: &str) -> Stream {
    Tool::new(&sh(script), LONG).stream(&Cancel::new()).unwrap()
}

fn sink(script: &str) -> Sink {
    Tool::new(&sh(script), LONG).sink(&Cancel::new()).unwrap()
}

/// How many bytes came, and how it ended.
fn read(mut stream: Stream) -> (usize, Result<(), Error>) {
    let (mut bytes, mut buffer) = (0, vec![0; 100_000]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (bytes, Ok(())),
            Ok(read) => bytes += read,
            Err(error) => {
                assert!(stream.read(&mut buffer).is_err(), "it does not end well after all");
                return (bytes, Err(ours(error)));
            }
        }
    }
}

fn ours(error: std::io::Error) -> Error {
    error.downcast::<Error>().unwrap()
}

/// Sets `cancel` after a while, and runs `wait`, which must not take long then.
fn cancelled<T: Send>(cancel: &Cancel, wait: impl FnOnce() -> T + Send) -> T {
    let began = Instant::now();
    let done = std::thread::scope(|scope| {
        let waits = scope.spawn(wait);
        std::thread::sleep(Duration::from_millis(200));
        cancel.set();
        waits.join().unwrap()
    });
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    done
}

fn is_gone(pid: &str) -> bool {
    // A zombie that nobody has waited for yet is as good as gone.
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    state.is_empty() || state.contains(") Z ")
}

/// Shows D2.
#[test]
fn a_stream_ends_with_exit_status_0_and_with_nothing_else() {
    assert!(matches!(read(stream("head -c 3000000 /dev/zero")), (3_000_000, Ok(()))));
    let (bytes, ended) = read(stream("head -c 3000000 /dev/zero; echo one >&2; printf 'two\\033\\n' >&2; exit 3"));
    assert_eq!((bytes, ended.unwrap_err().what()), (3_000_000, "exit code 3: one; two\\x1b"));
    let (bytes, ended) = read(stream("exit 1"));
    assert_eq!((bytes, ended.unwrap_err().what()), (0, "exit code 1"));
}

/// Shows D2.
#[test]
fn a_stream_whose_program_is_killed_at_any_byte_does_not_end_well() {
    for bytes in [0, 1, 4096, 65_536, 65_537, 1_000_000] {
        let (came, ended) = read(stream(&format!("head -c {bytes} /dev/zero; kill -9 $$")));
        assert_eq!((came, ended.unwrap_err().what()), (bytes, "killed by signal 9"));
    }
}

/// Shows D2.
#[test]
fn a_program_that_closes_its_output_is_waited_for() {
    let began = Instant::now();
    assert!(matches!(read(stream("echo x; exec >&-; sleep 0.4")), (2, Ok(()))));
    assert!(began.elapsed() >= Duration::from_millis(400));
    let (bytes, ended) = read(stream("echo x; exec >&-; sleep 0.2; exit 5"));
    assert_eq!((bytes, ended.unwrap_err().what()), (2, "exit code 5"));
}

#[test]
fn cancel_ends_a_stream_that_is_silent_or_was_closed() {
    for script in ["sleep 60", "exec >&-; sleep 60"] {
        let cancel = Cancel::new();
        let stream = Tool::new(&sh(script), LONG).stream(&cancel).unwrap();
        let (_, ended) = cancelled(&cancel, || read(stream));
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}

#[test]
fn a_stream_that_is_too_slow_is_ended() {
    let argv = sh("echo x; echo waits >&2; sleep 60");
    let tool = Tool::new(&argv, Duration::from_millis(500));
    let (bytes, ended) = read(tool.stream(&Cancel::new()).unwrap());
    assert_eq!(bytes, 2);
    let what = ended.unwrap_err().to_string();
    assert!(what.ends_with("did not end within 500ms: waits"), "{what}");
}

#[test]
fn a_stream_that_something_else_keeps_open_fails_and_that_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let began = Instant::now();
    let (bytes, ended) = read(stream(&format!("sleep 60 & echo $! > {}; echo x", pid_file.display())));
    assert!(began.elapsed() < SOON);
    assert_eq!(bytes, 2);
    assert_eq!(ended.unwrap_err().what(), "it ended, and something that it left behind kept its pipe open");
    assert!(is_gone(&std::fs::read_to_string(pid_file).unwrap()));
    // A program that failed is not asked what it left behind.
    let (_, ended) = read(stream("sleep 60 & exit 7"));
    assert_eq!(ended.unwrap_err().what(), "exit code 7");
}

#[test]
fn a_stream_or_a_sink_that_is_dropped_ends_its_whole_group() {
    for is_sink in [false, true] {
        let mut stream = stream("sleep 60 & echo $!; wait");
        let mut pid = [0; 20];
        let read = stream.read(&mut pid).unwrap();
        drop(stream);
        assert!(is_gone(&String::from_utf8_lossy(&pid[..read])));
        if is_sink {
            let began = Instant::now();
            drop(sink("sleep 60"));
            assert!(began.elapsed() < SOON);
        }
    }
}

/// What a child sees of a secret that is its stdin: it reads it, opens it, and
/// finds a file that is closed to others.
#[test]
fn a_secret_is_read_and_opened_as_stdin_and_stands_nowhere_else() {
    let script = "cat; cat /dev/stdin; cat /dev/stdin; stat -L -c '%a %F' /dev/stdin; \
        tr '\\0' '\\n' < /proc/$$/cmdline; tr '\\0' '\\n' < /proc/$$/environ";
    let (argv, env) = (sh(script), [("PGPASSFILE".to_owned(), Secret::AS_STDIN.to_owned())]);
    let tool = Tool::new(&argv, LONG).env(&env).secret(b"open sesame\n");
    let mut seen = String::new();
    tool.stream(&Cancel::new()).unwrap().read_to_string(&mut seen).unwrap();
    assert!(seen.starts_with("open sesame\nopen sesame\nopen sesame\n600 regular file\nsh\n-c\n"), "{seen}");
    assert!(seen.contains("\nPGPASSFILE=/dev/stdin\n"), "{seen}");
    assert_eq!(seen.matches("sesame").count(), 3);

    let ended = tool.run(None).unwrap();
    assert!(ended.is_success() && ended.said().starts_with("open sesame\nopen"), "{}", ended.said());
    let ended = Tool::new(&sh("cat; cat /dev/stdin"), LONG).run(None).unwrap();
    assert_eq!(ended.said(), "", "without a secret there is no input");
}

#[test]
fn a_secret_is_there_beside_an_input_too() {
    let secret = Secret::new(b"sesame").unwrap();
    let env = [("SECRET_FILE".to_owned(), secret.path())];
    let argv = sh("[ \"$(cat \"$SECRET_FILE\")$(cat)\" = sesame-street ]");
    let mut sink = Tool::new(&argv, LONG).env(&env).sink(&Cancel::new()).unwrap();
    sink.write_all(b"-street").unwrap();
    sink.finish().unwrap();
}

#[test]
fn a_sink_takes_all_and_says_so_with_exit_status_0_only() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut good = sink(&format!("sleep 0.1; cat > {}", to.display()));
    good.write_all(&bytes).unwrap();
    good.finish().unwrap();
    assert!(std::fs::read(to).unwrap() == bytes);

    let mut bad = sink("cat > /dev/null; echo out; echo no >&2; exit 3");
    bad.write_all(&bytes).unwrap();
    assert_eq!(bad.finish().unwrap_err().what(), "exit code 3: out; no");
}

#[test]
fn a_sink_whose_program_ends_early_fails_with_its_words() {
    let fill = |mut sink: Sink| ours(sink.write_all(&vec![0; 3_000_000]).unwrap_err());
    assert_eq!(fill(sink("head -c 10 > /dev/null; echo no >&2; exit 4")).what(), "exit code 4: no");
    assert_eq!(fill(sink("head -c 10 > /dev/null")).what(), "it ended before it had read all that it was given");
    // One that closes its input and goes on to fail is waited for.
    assert_eq!(fill(sink("exec <&-; sleep 0.2; exit 6")).what(), "exit code 6");
    // Its input is held open by something that does not read it.
    assert_eq!(fill(sink("sleep 60 <&0 & exit 7")).what(), "exit code 7");
}

#[test]
fn cancel_ends_a_sink_that_does_not_read_or_does_not_end() {
    let cancel = Cancel::new();
    let mut sink = Tool::new(&sh("sleep 60"), LONG).sink(&cancel).unwrap();
    let error = cancelled(&cancel, || ours(sink.write_all(&vec![0; 3_000_000]).unwrap_err()));
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let cancel = Cancel::new();
    let sink = Tool::new(&sh("cat; sleep 60"), LONG).sink(&cancel).unwrap();
    assert_eq!(cancelled(&cancel, || sink.finish().unwrap_err()).kind(), ErrorKind::Cancelled);
}
