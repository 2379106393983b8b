//! Archives that GNU tar, bsdtar, Python and busybox make of trees of many kinds.

use std::os::unix::fs::symlink;

use lifeboat_store::testing::{can_run, is_root};

use crate::env::TestEnv;
use crate::fidelity::{Tree, snapshot};

/// What a program's format can hold.
#[derive(Clone, Copy, PartialEq)]
enum Holds {
    /// Names of up to 100 bytes, and times from 1970 on.
    Little,
    /// Names that can be cut in two.
    Cut,
    /// Everything, but no fractions of a second.
    All,
}

/// A program and a format: what makes `$A` of `source`.
struct Maker {
    name: &'static str,
    command: &'static str,
    holds: Holds,
}

const fn maker(name: &'static str, command: &'static str, holds: Holds) -> Maker {
    Maker { name, command, holds }
}

const PYTHON: &str =
    "import sys,tarfile; t=tarfile.open(sys.argv[1],'w',format=int(sys.argv[2])); t.add('source'); t.close()";

const MAKERS: &[Maker] = &[
    maker("GNU tar, v7", "tar --format=v7 -cf $A source", Holds::Little),
    maker("GNU tar, ustar", "tar --format=ustar -cf $A source", Holds::Cut),
    maker("GNU tar, oldgnu", "tar --format=oldgnu -cf $A source", Holds::All),
    maker("GNU tar, gnu", "tar --format=gnu -cf $A source", Holds::All),
    maker("GNU tar, posix", "tar --format=posix -cf $A source", Holds::All),
    maker("bsdtar, v7", "bsdtar --format=v7 -cf $A source", Holds::Little),
    maker("bsdtar, ustar", "bsdtar --format=ustar -cf $A source", Holds::Cut),
    maker("bsdtar, gnutar", "bsdtar --format=gnutar -cf $A source", Holds::All),
    maker("bsdtar, pax", "bsdtar --format=pax -cf $A source", Holds::All),
    maker("bsdtar, its own choice", "bsdtar -cf $A source", Holds::All),
    maker("Python, ustar", "python3 -c \"$PYTHON\" $A 0", Holds::Cut),
    maker("Python, gnu", "python3 -c \"$PYTHON\" $A 1", Holds::All),
    maker("Python, pax", "python3 -c \"$PYTHON\" $A 2", Holds::All),
    maker("busybox", "busybox tar -cf $A source", Holds::Little),
];

/// A tree, what a format must hold for it, and what it cannot be made by.
struct Kind {
    name: &'static str,
    needs: Holds,
    make: fn(&TestEnv, &str),
    /// Programs, or their formats, that cannot keep it, by the start of their names.
    not_by: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind { name: "files", needs: Holds::Little, make: files, not_by: &[] },
    Kind { name: "names", needs: Holds::Little, make: names, not_by: &[] },
    Kind { name: "links", needs: Holds::Little, make: links, not_by: &[] },
    Kind { name: "pipes", needs: Holds::Little, make: pipes, not_by: &["GNU tar, v7", "bsdtar, v7"] },
    Kind { name: "paths that can be cut", needs: Holds::Cut, make: cut_names, not_by: &[] },
    Kind { name: "long names", needs: Holds::All, make: long_names, not_by: &[] },
    Kind { name: "old and new times", needs: Holds::All, make: times, not_by: &["Python, gnu", "bsdtar, gnutar"] },
    Kind { name: "owners", needs: Holds::All, make: owners, not_by: &[] },
];

fn run(env: &TestEnv, script: &str) {
    env.run("sh", ["-ec", script]).ok();
}

/// Every time in whole seconds, which all formats hold.
fn settle(env: &TestEnv, dir: &str, time: &str) {
    run(env, &format!("find {dir}/source -depth -exec touch -h -d '{time}' {{}} +"));
}

fn files(env: &TestEnv, dir: &str) {
    for len in [0_usize, 1, 511, 512, 513, 10_239, 10_240, 70_000] {
        env.write(format!("{dir}/source/{len}"), vec![b'x'; len]);
    }
    env.mkdir(format!("{dir}/source/empty/inside"));
    for (name, mode) in [("0", 0o400), ("1", 0o777), ("511", 0o4755), ("512", 0o1600)] {
        env.set_mode(format!("{dir}/source/{name}"), mode);
    }
    env.set_mode(format!("{dir}/source/empty"), 0o1777);
}

fn names(env: &TestEnv, dir: &str) {
    let names = [
        "caf\u{e9}",
        "cafe\u{301}",
        "a",
        "A",
        " ",
        "-rf",
        "*",
        "new\nline",
        "\"quoted\"",
        "back\\slash",
        "...",
        "a=b",
        "%41",
    ];
    for name in names {
        env.write(format!("{dir}/source/{name}"), name);
    }
    run(
        env,
        &format!("cd {dir}/source; mkdir \"$(printf 'no-utf8-\\377')\"; touch \"$(printf 'no-utf8-\\377/\\300')\""),
    );
    env.write(format!("{dir}/source/manifest.json"), "{}");
}

fn links(env: &TestEnv, dir: &str) {
    env.write(format!("{dir}/source/a"), "several names");
    run(env, &format!("cd {dir}/source; mkdir d; ln a b; ln a d/c; ln -s a s; ln s t; ln s d/t"));
    let long = "x".repeat(99);
    for (number, target) in ["/etc/passwd", "../../../..", "nowhere", ".", "/", &long].into_iter().enumerate() {
        symlink(target, env.path(format!("{dir}/source/link-{number}"))).expect("links can be made");
    }
}

fn pipes(env: &TestEnv, dir: &str) {
    env.write(format!("{dir}/source/a"), "a");
    run(env, &format!("mkfifo -m 600 {dir}/source/pipe {dir}/source/other"));
}

fn cut_names(env: &TestEnv, dir: &str) {
    let (a, b, f) = ("a".repeat(60), "b".repeat(60), "f".repeat(92));
    for path in [format!("{}/{f}", "d".repeat(30)), format!("{}/{f}", "d".repeat(92)), format!("{a}/{b}/{f}"), f] {
        env.write(format!("{dir}/source/{path}"), "x");
    }
}

fn long_names(env: &TestEnv, dir: &str) {
    for len in [91, 92, 93, 94, 100, 101, 155, 156, 200, 254, 255] {
        env.write(format!("{dir}/source/{}", "n".repeat(len)), len.to_string());
        env.mkdir(format!("{dir}/source/{}/below", "m".repeat(len)));
    }
    env.write(format!("{dir}/source/{}/bottom", "deep/".repeat(150)), "found");
    for len in [99, 100, 101, 300, 4000] {
        symlink("t".repeat(len), env.path(format!("{dir}/source/link-{len}"))).expect("links can be made");
    }
    run(env, &format!("cd {dir}/source; ln {0} linked; ln {0} {1}", "n".repeat(255), "z".repeat(200)));
}

fn times(env: &TestEnv, dir: &str) {
    env.write(format!("{dir}/source/a"), "a");
    run(
        env,
        &format!(
            "cd {dir}/source; touch -d 2001-02-03 a; touch -d 1960-01-02 old; touch -d @0 zero; touch -d @-1 before; touch -d @8589934591 last; touch -d 2400-01-01 new"
        ),
    );
}

fn owners(env: &TestEnv, dir: &str) {
    env.write(format!("{dir}/source/a"), "a");
    if is_root() {
        run(
            env,
            &format!(
                "cd {dir}/source; touch b c d; chown 2097151:2097152 b; chown 3000000:4000000000 c; chown 65534:65534 d"
            ),
        );
    }
}

/// Sparse files, which only some make sparse, and how they are told to.
const SPARSE: &[(&str, &str)] = &[
    ("GNU tar, oldgnu", "tar --format=oldgnu -S -cf $A source"),
    ("GNU tar, gnu", "tar --format=gnu --sparse -cf $A source"),
    ("GNU tar, 0.0", "tar --format=posix --sparse-version=0.0 -S -cf $A source"),
    ("GNU tar, 0.1", "tar --format=posix --sparse-version=0.1 -S -cf $A source"),
    ("GNU tar, 1.0", "tar --format=posix --sparse-version=1.0 -S -cf $A source"),
    ("GNU tar, 1.0, by reading", "tar --format=posix -S --hole-detection=raw -cf $A source"),
    ("bsdtar, pax", "bsdtar --format=pax -cf $A source"),
    ("bsdtar, its own choice", "bsdtar -cf $A source"),
];

const HOLES: &[(&str, &str)] = &[
    (
        "holes",
        "truncate -s 300000 all; truncate -s 200000 first; printf x | dd of=first bs=1 seek=150000 conv=notrunc; \
        printf x > last; truncate -s 3M last; for n in $(seq 0 40); do printf $n | dd of=many bs=1 seek=$((n*65536)) conv=notrunc; done",
    ),
    (
        "long holes",
        "printf x | dd of=large bs=1 seek=40M; truncate -s 30M empty; printf end >> empty; \
        mkdir dddddddddd; truncate -s 1M dddddddddd/$(printf %0150d 0)",
    ),
];

/// Other ways to make an archive of the first tree.
const WAYS: &[(&str, &str)] = &[
    ("gzip", "tar -czf $A source"),
    ("gzip -1", "tar -cf - source | gzip -1 > $A"),
    ("gzip in many members", "tar -cf t source; split -b 5120 t part-; for p in part-*; do gzip -c $p; done > $A"),
    ("zstd", "tar --zstd -cf $A source"),
    ("zstd with a long window", "tar -cf - source | zstd -q --long=27 > $A"),
    ("zstd without a checksum", "tar -cf - source | zstd -q --no-check > $A"),
    ("zstd at its best", "tar -cf - source | zstd -q -19 > $A"),
    ("zstd in many frames", "tar -cf t source; split -b 5120 t part-; for p in part-*; do zstd -qc $p; done > $A"),
    ("bsdtar with gzip", "bsdtar -czf $A source"),
    ("bsdtar with zstd", "bsdtar --zstd -cf $A source"),
    ("Python with gzip", "python3 -c \"import tarfile; t=tarfile.open('$A','w:gz'); t.add('source'); t.close()\""),
    ("busybox with gzip", "busybox tar -czf $A source"),
    ("one block at a time", "tar -b 1 -cf $A source"),
    ("large blocks", "tar -b 1000 -cf $A source"),
    ("a label", "tar -V label -cf $A source"),
    ("a label in posix", "tar --format=posix -V label -cf $A source"),
    ("a dot before", "tar -cf $A ./source"),
    ("the whole directory", "mkdir t; cp -a source t; tar -C t -cf $A ."),
    ("a comment for all", "tar --format=posix --pax-option=comment=x,globexthdr.name=g -cf $A source"),
    (
        "a name for all headers",
        "tar --format=posix --pax-option=exthdr.name=%d/h/%f,delete=atime,delete=ctime -cf $A source",
    ),
    ("added to", "tar -cf $A source/0 source/1; tar -rf $A source"),
    ("updated", "tar -cf $A source; tar -uf $A source"),
    ("put together", "tar -cf $A source; tar -cf t source/0; tar -Af $A t"),
    ("without directories of its own", "find source -type f | tar --no-recursion -T - -cf $A; tar -rf $A source"),
    ("sorted the other way", "find source | sort -r | tar --no-recursion -T - -cf $A"),
    ("numbers for owners", "tar --numeric-owner -cf $A source"),
    ("files found by cpio's order", "find source -depth | tar --no-recursion -T - -cf $A"),
    ("bsdtar, mtree before", "bsdtar --format=mtree -cf m source; bsdtar -cf $A @m"),
    ("bsdtar of an archive", "tar -cf t source; bsdtar -cf $A @t"),
];

/// Makes each of them and tells `play` what it is, its bytes, and what `source` must come back as.
pub(super) fn each(env: &TestEnv, test: &str, play: &mut dyn FnMut(&str, &[u8], &Tree)) {
    if !can_run(test, &["tar", "bsdtar", "busybox", "python3", "gzip", "zstd"]) {
        return;
    }
    let make = |dir: &str, command: &str| {
        let script = format!("cd {dir}; export A=../made.tar PYTHON=\"{PYTHON}\"; {command}");
        let clean = format!("rm -rf made.tar {dir}/t {dir}/m {dir}/part-*");
        let made = env.run("sh", ["-ec", &format!("{clean}; {script}")]);
        let code = made.exit_code();
        let said = made.code(code).stderr;
        // No archive at all is not taken for one, so that it is told which could not be made.
        if code == 0 { env.read("made.tar") } else { said.into_bytes() }
    };
    for Kind { name, needs, make: grow, not_by } in KINDS {
        let dir = name.replace(' ', "-");
        env.mkdir(format!("{dir}/source"));
        grow(env, &dir);
        if *name != "old and new times" {
            settle(env, &dir, "2020-05-05 01:02:03");
        } else {
            run(env, &format!("touch -d 1969-12-31 {dir}/source"));
        }
        let expected = snapshot(&env.path(format!("{dir}/source")));
        for maker in MAKERS {
            let holds = match needs {
                Holds::Little => true,
                Holds::Cut => maker.holds != Holds::Little,
                Holds::All => maker.holds == Holds::All,
            };
            if holds && !not_by.contains(&maker.name) {
                play(&format!("{name} by {}", maker.name), &make(&dir, maker.command), &expected);
            }
        }
        if *name == "files" {
            for (how, command) in WAYS {
                play(how, &make(&dir, command), &expected);
            }
        }
    }
    for (holes, grow) in HOLES {
        let dir = holes.replace(' ', "-");
        env.mkdir(format!("{dir}/source"));
        run(env, &format!("cd {dir}/source; ({grow}) 2>/dev/null"));
        settle(env, &dir, "2020-05-05 01:02:03");
        for (maker, command) in SPARSE {
            let expected = snapshot(&env.path(format!("{dir}/source")));
            play(&format!("{holes} by {maker}"), &make(&dir, command), &expected);
        }
    }
}
