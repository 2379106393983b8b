use std::io::Read;

use lifeboat_store::Cancel;
use proptest::prelude::*;

use super::splitter::{Piece, Splitter};
use super::*;

/// Reads that return as many bytes as it says, in turn.
struct Dribble<'a> {
    bytes: &'a [u8],
    sizes: Vec<usize>,
    next: usize,
}

impl<'a> Dribble<'a> {
    fn new(bytes: &'a [u8], sizes: &[usize]) -> Self {
        Self { bytes, sizes: sizes.to_vec(), next: 0 }
    }
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = self.sizes[self.next % self.sizes.len()].min(buffer.len()).min(self.bytes.len());
        self.next += 1;
        buffer[..size].copy_from_slice(&self.bytes[..size]);
        self.bytes = &self.bytes[size..];
        Ok(size)
    }
}

/// A piece, with the data of one COPY together.
#[derive(Debug, PartialEq, Eq)]
enum Whole {
    Statement(u64, Vec<u8>),
    Copy(u64, Vec<u8>, Vec<u8>),
}

/// What a script is split into, and why it went no further.
fn split_reading(script: &mut dyn Read) -> (Vec<Whole>, Outline, Option<Error>) {
    let cancel = Cancel::new();
    let mut splitter = Splitter::new(script, "app", &cancel);
    let mut wholes = Vec::new();
    let mut data = None;
    loop {
        match splitter.next() {
            Ok(Some(Piece::Statement(it))) => wholes.push(Whole::Statement(it.line(), it.text().to_vec())),
            Ok(Some(Piece::Copy(it))) => data = Some((it.line(), it.text().to_vec(), Vec::new())),
            Ok(Some(Piece::Data(bytes))) => data.as_mut().unwrap().2.extend_from_slice(bytes),
            Ok(Some(Piece::End)) => {
                let (line, text, data) = data.take().unwrap();
                wholes.push(Whole::Copy(line, text, data));
            }
            Ok(None) => return (wholes, splitter.outline(), None),
            Err(error) => return (wholes, splitter.outline(), Some(error)),
        }
    }
}

fn split(script: &[u8]) -> Vec<Whole> {
    let (wholes, _, error) = split_reading(&mut &script[..]);
    assert!(error.is_none(), "{}: {error:?}", shown(script));
    wholes
}

fn statements(script: &str) -> Vec<String> {
    let text = |whole| match whole {
        Whole::Statement(_, text) => String::from_utf8(text).unwrap(),
        Whole::Copy(_, text, data) => String::from_utf8([text, b"|".to_vec(), data].concat()).unwrap(),
    };
    split(script.as_bytes()).into_iter().map(text).collect()
}

fn error(script: &[u8]) -> Error {
    split_reading(&mut &script[..]).2.unwrap_or_else(|| panic!("{} is accepted", shown(script)))
}

/// Each is one statement.
const WHOLE: &[&str] = &[
    "SELECT 'a;b';",
    "SELECT 'it''s; \\';",
    "SELECT E'it\\'s;';",
    "SELECT e'\\\\';",
    "SELECT E'a\\'' ';';",
    "SELECT E'a'\n'\\'; ';",
    "SELECT E'a' -- it's\n \n'\\'; ';",
    "SELECT E'a' '\\' || ';';",
    "SELECT E'a' /* no line */ '\\';",
    "SELECT E'a' /*\n*/ '\\';",
    "SELECT E'a' || 'b' \n, '\\';",
    "SELECT somee'\\';",
    "SELECT 1e'\\';",
    "SELECT n'\\';",
    "SELECT b'01\\', X'0\\', U&'d\\0061t\\+000061' UESCAPE '!', u&'\\';",
    "SELECT \"a;b\", \"a\"\";\\\", U&\"d\\0061\", \"it's\";",
    "SELECT \"E'\" || E'\\'\";';",
    "SELECT $$it's; \\ \"$$;",
    "SELECT $a$ $$ ; $b$ ; $A$ ; $aa$ ; $ $a $a$;",
    "SELECT $a$$b$ ; $$a$;",
    "SELECT $é$ ; $e$ ; $é$;",
    "SELECT $_1$ ; $_2$ $_1$;",
    "SELECT '$$', \"$$\" -- $$\n;",
    "SELECT a$b$c, a$$;",
    "SELECT $1, $2$$;$$;",
    "SELECT $, $a;",
    "SELECT 1 -- ; '\n;",
    "SELECT 1 -- ; '\r;",
    "SELECT 1 /* ; ' /* \" ; */ $$ */;",
    "SELECT 1 /*/ ; */;",
    "SELECT 1 /*/*/ ; */ */;",
    "SELECT 1 /** ; **/;",
    "SELECT 1 */* ; */ 2;",
    "SELECT 1 - -1, 2 --;\n;",
    "SELECT 1--;\n;",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v;);",
    "SELECT ')' , (\"(\" /* ( */), (';');",
    "SELECT 1);",
    "INSERT INTO \"täble\" VALUES ('žluťoučký; kůň', '\u{1f40e}');",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $_$SELECT 1; SELECT $1;$_$;",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN a THEN 1 END; END;",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE CASE 1 WHEN 2 THEN 3 END WHEN 1 THEN 2 END; SELECT 2; END;",
    "create or replace procedure p(a int) begin atomic; insert into t values (case when a then 1 end); end;",
    "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN /* ; */ ATOMIC SELECT 1; END;",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT t.end, 1 AS end, \"end\", a.case; SELECT 1; END;",
    "CREATE FUNCTION public.begin() RETURNS int LANGUAGE sql AS 'SELECT 1';",
    "CREATE FUNCTION begin(atomic int) RETURNS int LANGUAGE sql AS 'SELECT 1';",
    "CREATE VIEW v AS SELECT CASE WHEN a THEN 1 END FROM begin;",
    "CREATE TABLE t (x text DEFAULT 'BEGIN ATOMIC');",
    "SELECT a[1:2], b::text, :x, :'y', :\"z\";",
    "SELECT 1\u{a0};",
];

/// Shows D9. Each statement is sent as it stands, whatever is in quotes and comments.
#[test]
fn statements_are_split_where_the_server_ends_them() {
    for text in WHOLE {
        assert_eq!(statements(text), [*text], "alone");
        let twice = format!("SELECT 0;{text}\n-- x\n{text}SELECT 9;");
        assert_eq!(statements(&twice), ["SELECT 0;", text, text, "SELECT 9;"], "{text}");
    }
    assert_eq!(statements("\u{feff}SELECT 1;"), ["SELECT 1;"]);
    assert_eq!(statements(" ;\r\n;; SELECT 1 ; /* ; /* */ ' */ -- '\nSELECT 2;;"), ["SELECT 1 ;", "SELECT 2;"]);
    assert_eq!(statements("/**/"), [""; 0]);
    assert_eq!(statements(""), [""; 0]);
    assert_eq!(statements("CREATE FUNCTION f() AS 'x'; BEGIN; SELECT 1; END;").len(), 4);
    assert_eq!(statements("CREATE TABLE function (begin int); BEGIN; END;").len(), 3);
    assert_eq!(statements("SELECT CREATE FUNCTION BEGIN ATOMIC; SELECT 1;").len(), 2);
}

#[test]
fn strings_are_read_as_the_script_has_set_it() {
    let off = ["SET standard_conforming_strings = off;", "set session STANDARD_conforming_strings to 'OFF';"];
    for off in off {
        let script =
            format!("{off}SELECT 'it\\'s; \\\\', b'\\', $$\\$$;SET standard_conforming_strings TO on;SELECT '\\';");
        let expected =
            [off, "SELECT 'it\\'s; \\\\', b'\\', $$\\$$;", "SET standard_conforming_strings TO on;", "SELECT '\\';"];
        assert_eq!(statements(&script), expected);
        assert_eq!(statements(&format!("{off}SELECT 'a'\n'\\'; ', N'\\';';")).len(), 2);
    }
    for same in ["SET standard_conforming_strings = true;", "SET x = 'off';", "SET TIME ZONE 'off';", "SET x;"] {
        assert_eq!(statements(&format!("{same}SELECT '\\';")), [same, "SELECT '\\';"]);
    }
}

#[test]
fn the_data_of_copy_is_not_looked_into() {
    let data = "1\t';--\n\\\\.\n\\.x\n\\N\t$$\n \\.\n\\..\nCOPY t FROM stdin;\n\\! id\n/*\n";
    for end in ["\\.\n", "\\.\r\n", "\\."] {
        let script = format!("COPY public.t (a, \"from\") FROM stdin;\n{data}{end}");
        let expected = format!("COPY public.t (a, \"from\") FROM stdin;|{data}");
        assert_eq!(statements(&script), [expected.as_str()]);
    }
    let after = "COPY t FROM stdin; -- x\n\\.\nCOPY u FROM STDIN WITH (FORMAT csv);\r\na\r\n\\.\r\nSELECT 1;";
    assert_eq!(statements(after), ["COPY t FROM stdin;|", "COPY u FROM STDIN WITH (FORMAT csv);|a\r\n", "SELECT 1;"]);
    assert_eq!(statements("copy \"FROM\" from stdin;\n\\.\n"), ["copy \"FROM\" from stdin;|"]);
    assert_eq!(statements("SELECT '\n\\.\n';"), ["SELECT '\n\\.\n';"]);
    let long = "x".repeat(300_000);
    for tail in ["", "\\.", "\\"] {
        let script = format!("COPY t FROM stdin;\n{long}{tail}\n\\N\n{long}\n\\.\n");
        assert_eq!(statements(&script), [format!("COPY t FROM stdin;|{long}{tail}\n\\N\n{long}\n")]);
    }
}

#[test]
fn bytes_that_are_no_utf_8_stay_as_they_are() {
    let script = b"SELECT 'caf\xe9;\xff', $\xe9$;$\xe9$;COPY t FROM stdin;\n\xff\x80\0\n\\.\n";
    let expected = [
        Whole::Statement(1, b"SELECT 'caf\xe9;\xff', $\xe9$;$\xe9$;".to_vec()),
        Whole::Copy(1, b"COPY t FROM stdin;".to_vec(), b"\xff\x80\0\n".to_vec()),
    ];
    assert_eq!(split(script), expected);
}

#[test]
fn lines_are_counted_through_quotes_comments_and_data() {
    let script = b"-- a\n/*\n*/ SELECT '\n';\r\nCOPY t FROM stdin;\n1\n2\n\\.\n\nSELECT $$\n\n$$\n; SELECT 3;";
    let line = |whole| match whole {
        Whole::Statement(line, _) | Whole::Copy(line, ..) => line,
    };
    assert_eq!(split(script).into_iter().map(line).collect::<Vec<_>>(), [3, 5, 10, 13]);
}

/// Shows D9. Commands for psql are refused, and none but the harmless are skipped.
#[test]
fn commands_for_psql_are_refused_with_their_line() {
    for (script, what) in [
        ("SELECT 1;\n\\! id\n", "line 2: \\! is not allowed in an SQL script"),
        ("  \\copy t from program 'id'\n", "line 1: \\copy is not allowed in an SQL script"),
        ("\\o |sh\n", "line 1: \\o is not allowed in an SQL script"),
        ("-- x\n\n-- Name: a\n\\!id\n", "line 4: \\!id is not allowed in an SQL script"),
        ("\\i x\n", "line 1: \\i is not allowed in an SQL script"),
        ("\\.\n", "line 1: \\. is not allowed in an SQL script"),
        ("COPY t FROM stdin;\n\\.\n\\unrestrict x\n\\g\n", "line 4: \\g is not allowed in an SQL script"),
        ("\\connect other\n", "line 1: \\connect to the database other is not allowed in an SQL script"),
        (
            "SELECT\n1 \\! id\n",
            "line 2: a backslash, which begins a command for psql, in the statement that begins in line 1",
        ),
        ("SELECT 1\\;", "line 1: a backslash, which begins a command for psql, in the statement that begins in line 1"),
        ("\\e\x1b[2J\n", "line 1: \\e\\x1b[2J is not allowed in an SQL script"),
    ] {
        let error = error(script.as_bytes());
        assert_eq!((error.kind(), error.what()), (ErrorKind::Unsafe, what), "{script}");
    }
    let honest = "\\restrict aB1\n\\connect app\n\\c app\n\\connect -reuse-previous=on \"dbname='app'\"\r\nSELECT 1;\n\\unrestrict aB1";
    assert_eq!(statements(honest), ["SELECT 1;"]);
}

/// Shows D9. COPY brings data of the script itself, or is refused.
#[test]
fn copy_from_files_and_programs_is_refused() {
    for (copy, what) in [
        ("COPY t FROM PROGRAM 'id'", "COPY from a program on the server"),
        ("COPY t (a) FROM /* x */ program $$id$$", "COPY from a program on the server"),
        ("COPY t FROM '/etc/passwd'", "COPY from a file of the server"),
        ("COPY t FROM E'/etc/passwd'", "COPY from a file of the server"),
        ("copy binary \"stdin\" from 'x'", "COPY from a file of the server"),
        ("COPY t TO STDOUT", "COPY that reads out of the database"),
        ("COPY (SELECT 1 FROM stdin) TO PROGRAM 'id'", "COPY that reads out of the database"),
        ("COPY t TO 'x' -- FROM stdin\n", "COPY that reads out of the database"),
    ] {
        let error = error(format!("SELECT 1;\n{copy};\n\\.\n").as_bytes());
        assert_eq!(error.kind(), ErrorKind::Unsafe, "{copy}");
        assert_eq!(error.what(), format!("line 2: {what} is not allowed in an SQL script"));
    }
}

#[test]
fn what_is_about_the_database_itself_is_skipped_and_about_others_refused() {
    let about = [
        "CREATE DATABASE # WITH TEMPLATE = template0 ENCODING = 'UTF8'",
        "DROP DATABASE IF EXISTS #",
        "drop database #",
        "ALTER DATABASE # OWNER TO x",
        "ALTER DATABASE # SET search_path TO 'a'",
        "ALTER ROLE x IN DATABASE # SET a TO b",
        "COMMENT ON DATABASE # IS 'x'",
        "GRANT CONNECT, TEMPORARY ON DATABASE # TO x",
        "REVOKE GRANT OPTION FOR ALL ON DATABASE # FROM PUBLIC",
        "SECURITY LABEL FOR p ON DATABASE # IS 'x'",
    ];
    for text in about {
        for name in ["app", "APP", "\"app\""] {
            let script = format!("{};SELECT 1;", text.replace('#', name));
            let (wholes, outline, error) = split_reading(&mut script.as_bytes());
            assert!(error.is_none() && wholes.len() == 1 && outline.skipped == 1, "{script}");
        }
        for name in ["other", "\"App\"", "\"a\"\"b\""] {
            let error = error(format!("{};", text.replace('#', name)).as_bytes());
            assert_eq!(error.kind(), ErrorKind::Unsafe, "{text} {name}");
        }
    }
    assert_eq!(
        error(b"GRANT ALL ON DATABASE app, \"o\" TO x;").what(),
        "line 1: a statement about the database o is not allowed in an SQL script"
    );
    for other in [
        "CREATE TABLE database (a int);",
        "GRANT ALL ON database TO x;",
        "GRANT ALL ON TABLE database TO x;",
        "COMMENT ON TABLE database IS 'ON DATABASE x IS y';",
        "COMMENT ON COLUMN database.x.y IS 'x';",
        "CREATE TABLE t (database text);",
        "ALTER TABLE t OWNER TO database;",
        "SELECT 1 AS a FROM x WHERE y IN (database);",
    ] {
        assert_eq!(statements(other), [other]);
    }
}

#[test]
fn a_dump_is_complete_when_its_closing_comment_is_last() {
    let is_complete = |script: &str| split_reading(&mut script.as_bytes()).1.is_complete;
    let closing = "--\n-- PostgreSQL database dump complete\n--\n\n";
    assert!(is_complete(&format!("SELECT 1;\n{closing}\\unrestrict x\n")));
    assert!(is_complete(&format!("SELECT 1;\r\n{}", closing.replace('\n', "\r\n"))));
    assert!(is_complete("-- PostgreSQL database cluster dump complete"));
    assert!(!is_complete("SELECT 1;\n"));
    assert!(!is_complete(&format!("SELECT '\n{closing}';")));
    assert!(!is_complete(&format!("/*\n{closing}*/")));
    assert!(!is_complete(&format!("COPY t FROM stdin;\n{closing}\\.\n")));
    assert!(!is_complete(&format!("{closing}SELECT 1;")));
}

#[test]
fn a_statement_is_not_read_without_end() {
    let (cancel, mut script) = (Cancel::new(), std::io::repeat(b'x'));
    let mut splitter = Splitter::new(&mut script, "app", &cancel);
    splitter.limit_statements(1 << 20);
    let error = splitter.next().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.what(), "line 1: the statement that begins here is longer than 1048576 bytes");
}

/// No more than a buffer of a comment, a line for psql, or data is kept.
#[test]
fn comments_and_data_are_not_kept() {
    for (beginning, end) in [("-- ", "\n"), ("/* ", "*/"), ("COPY t FROM stdin;\n", "\n\\.\n")] {
        let long = std::io::repeat(b'x').take(64 << 20);
        let mut script = beginning.as_bytes().chain(long).chain(end.as_bytes()).chain(&b"SELECT 1;"[..]);
        let cancel = Cancel::new();
        let mut splitter = Splitter::new(&mut script, "app", &cancel);
        splitter.limit_statements(100);
        let mut data = 0;
        while let Some(piece) = splitter.next().unwrap() {
            data += if let Piece::Data(bytes) = piece { bytes.len() } else { 0 };
        }
        assert_eq!(data, if beginning.starts_with('C') { (64 << 20) + 1 } else { 0 });
    }
}

#[test]
fn cancelling_ends_the_reading() {
    let cancel = Cancel::new();
    cancel.set();
    let error = inspect(&mut std::io::repeat(b' '), "app", &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict aB1\nSET client_encoding = 'UTF8';\n\
    /* a /* b */ */CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 'é;', E'\\''; END;\n\
    CREATE FUNCTION g() AS $a$ ; $b$ $a$;\nCOPY \"a;\"\"b\" (x) FROM stdin;\n1\t\\N\n\\\\.\n\\.\n\n\
    ALTER TABLE ONLY t ADD CONSTRAINT c CHECK ((x <> ';'));\n\
    --\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict aB1\n\n";

/// A script that is cut anywhere is an error or not complete, and what was found before is as in the whole.
#[test]
fn a_script_that_is_cut_is_never_taken_for_whole() {
    let whole = split(DUMP.as_bytes());
    let closed = DUMP.find("complete").unwrap() + "complete".len();
    for cut in 0..DUMP.len() {
        let (wholes, outline, error) = split_reading(&mut &DUMP.as_bytes()[..cut]);
        assert_eq!(wholes, whole[..wholes.len()], "{cut}");
        if let Some(error) = &error {
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsafe), "{cut}: {error}");
        }
        assert!(cut >= closed || error.is_some() || !outline.is_complete, "{cut}");
    }
    for text in WHOLE {
        for cut in (1..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let (wholes, _, error) = split_reading(&mut &text.as_bytes()[..cut]);
            assert!(wholes.is_empty() && error.is_some_and(|error| error.kind() == ErrorKind::Corrupt), "{text} {cut}");
        }
    }
}

/// Parts of scripts, valid and not.
fn scripts() -> impl Strategy<Value = Vec<u8>> {
    let parts = [
        "'",
        "\"",
        "\\",
        "\\.",
        "\n",
        "\r\n",
        "$",
        "$$",
        "$a$",
        "a",
        "E'",
        "U&'",
        "--",
        "/*",
        "*/",
        "(",
        ")",
        ";",
        ";\n",
        " ",
        "COPY t FROM stdin;\n",
        "\n\\.\n",
        "CREATE FUNCTION f() BEGIN ATOMIC ",
        " END",
        " CASE ",
        "é",
        "1",
        ".",
        "SET standard_conforming_strings = off;",
        "\\restrict x\n",
        "\n\\connect app\n",
        "DROP DATABASE app;",
        "-- PostgreSQL database dump complete\n",
        "\u{feff}",
    ];
    let whole = prop::sample::select(WHOLE).prop_map(|text| text.as_bytes().to_vec());
    let part = prop::sample::select(parts.to_vec()).prop_map(|text| text.as_bytes().to_vec());
    let piece = prop_oneof![1 => whole, 6 => part, 1 => prop::collection::vec(any::<u8>(), 0..4)];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// How a script comes in makes no difference.
    #[test]
    fn any_split_into_reads_gives_the_same_pieces(
        script in scripts(),
        sizes in prop::collection::vec(1_usize..9, 1..8),
    ) {
        let (whole, whole_outline, whole_error) = split_reading(&mut &script[..]);
        let (wholes, outline, error) = split_reading(&mut Dribble::new(&script, &sizes));
        prop_assert_eq!(whole, wholes);
        prop_assert_eq!(whole_outline, outline);
        let said = |error: Option<Error>| error.map(|error| (error.kind(), error.what().to_owned()));
        prop_assert_eq!(said(whole_error), said(error));
    }

    /// What is split is all there: pieces follow each other in the script.
    #[test]
    fn nothing_of_a_statement_is_lost(script in scripts()) {
        let (wholes, ..) = split_reading(&mut &script[..]);
        let mut rest = &script[..];
        for whole in wholes {
            let (text, data) = match whole {
                Whole::Statement(_, text) => (text, Vec::new()),
                Whole::Copy(_, text, data) => (text, data),
            };
            for part in [text, data] {
                let at = rest.windows(part.len().max(1)).position(|window| window == part || part.is_empty());
                prop_assert!(at.is_some() || part.is_empty());
                rest = &rest[at.unwrap_or(0) + part.len()..];
            }
        }
    }
}
