//! MariaDB: databases that are dumped, restored under another name, and named
//! where a restore in place leaves them alone.

mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use server::{PASSWORD, Server, ident};

use crate::env::TestEnv;

const ODD: &str = include_str!("mariadb/odd.sql");
const ALL: &str = "ALL ON *.*";

/// An environment with one app: a source `my` of MariaDB, and what `more` says.
fn configured(server: &Server, user: &str, databases: &[&str], more: &str) -> TestEnv {
    let env = TestEnv::new();
    env.write("password", format!("{PASSWORD}\nsecond line"));
    env.set_mode("password", 0o600);
    configure(&env, &server.url(user), databases, more);
    env
}

fn configure(env: &TestEnv, url: &str, databases: &[&str], more: &str) {
    let databases = serde_json::to_string(databases).expect("texts are JSON");
    let password = env.path("password");
    let yaml = format!(
        "apps:\n  app:\n    backup_dir: .\n    name: a\n    sources:\n      my:\n        mariadb:\n          url: \"{url}\"\n          \
         databases: {databases}\n          password_file: {}\n{more}",
        password.display()
    );
    env.write("lifeboat.yaml", yaml);
}

fn odd(server: &Server, stem: &str) -> String {
    let name = server.create_db(stem);
    server.sql(&name, ODD);
    // What is made from here on is of another character set than what was made before.
    server.sql("", &format!("ALTER DATABASE {} CHARACTER SET latin1", ident(&name)));
    name
}

/// What is recorded of the first source of an archive.
fn source(env: &TestEnv, archive: &str) -> Value {
    let lines = env.lifeboat(["backup", "list", archive, "--json"]).ok().json_lines();
    lines[0]["sources"][0].clone()
}

/// The entries of an archive.
fn entries(env: &TestEnv, archive: &str) -> Vec<String> {
    let lines = env.lifeboat(["backup", "list", archive, "--json"]).ok().json_lines();
    lines.iter().filter_map(|line| line["path"].as_str().map(str::to_owned)).collect()
}

/// A `bin_dir` whose dumper is a script around the real one, which is `"$real" "$@"` in it.
fn wrapped(env: &TestEnv, script: &str) -> PathBuf {
    let help = "case \"$*\" in *--help*) exec mariadb-dump \"$@\";; esac";
    env.write("bin/mariadb-dump", format!("#!/bin/sh\nreal=mariadb-dump\n{help}\n{script}\n"));
    env.write("bin/mariadb", "#!/bin/sh\nexec mariadb \"$@\"\n");
    ["mariadb-dump", "mariadb"].iter().for_each(|name| env.set_mode(Path::new("bin").join(name), 0o755));
    env.path("bin")
}

/// Shows D15.
#[test]
fn an_odd_database_comes_back_as_it_was_under_another_name() {
    let Some(server) = Server::shared("an_odd_database_comes_back_as_it_was_under_another_name") else { return };
    let (name, copy) = (odd(server, "odd `x` 表"), server.unique("copy"));
    let user = server.user("all", ALL);
    let env = configured(server, &user, &[&name], "");
    let said = env.lifeboat(["backup"]).ok();
    assert!(said.stdout.contains("source my") || said.stdout.contains("database my"), "{}", said.stdout);
    assert!(said.stderr.contains("take no part in transactions") && said.stderr.contains("loose"), "{}", said.stderr);
    let before = server.fingerprint(&name);
    let restored =
        env.lifeboat(["restore", "a.tar.zst", "--to-database", &copy, "--allow-unauthenticated"]).ok().stdout;
    let after = server.fingerprint(&copy);
    // The copy runs nothing.
    assert_eq!(before.replace("ON COMPLETION NOT PRESERVE ENABLE DO", "ON COMPLETION NOT PRESERVE DISABLE DO"), after);
    assert_ne!(before, after);
    assert!(restored.contains("note: 1 event is disabled"), "{restored}");
    assert!(restored.contains("        5000  parts") && restored.contains("           0  empty"), "{restored}");
    assert!(restored.contains("2  versions"), "{restored}");
    assert!(restored.contains(&format!("DROP DATABASE {}", ident(&copy))), "{restored}");
    assert_eq!(server.fingerprint(&name), before, "the live one is as it was");
    let recorded = source(&env, "a.tar.zst");
    let database = &recorded["details"]["mariadb"]["databases"][0];
    assert_eq!(recorded["point"], database["point"]);
    assert_eq!((&database["tables"]["parts"]["rows"], &database["tables"]["child"]["rows"]), (&5000.into(), &3.into()));
    assert_eq!(database["charset"], "latin1");
    assert_eq!(database["loose_tables"], serde_json::json!(["loose"]));
    env.lifeboat(["backup", "verify", "a.tar.zst"]).ok();
    // By its own name where there is none of it, it is itself again.
    server.sql("", &format!("DROP DATABASE {}", ident(&name)));
    env.lifeboat(["restore", "a.tar.zst", "--to-database", &name, "--allow-unauthenticated"]).ok();
    assert_eq!(server.fingerprint(&name), before);
}

/// Shows D15 and D2.
#[test]
fn a_dump_made_while_somebody_writes_is_of_one_moment() {
    let Some(server) = Server::shared("a_dump_made_while_somebody_writes_is_of_one_moment") else { return };
    let bank = server.create_db("bank");
    server.sql(
        &bank,
        "CREATE TABLE a (id int PRIMARY KEY, n bigint); CREATE TABLE pad (t text); CREATE TABLE z (id int PRIMARY KEY, n bigint);
         CREATE TABLE steps (id int AUTO_INCREMENT PRIMARY KEY);
         INSERT INTO a VALUES (1, 0); INSERT INTO z VALUES (1, 0); INSERT INTO pad SELECT REPEAT('x', 500) FROM seq_1_to_20000;",
    );
    let writing = "DELIMITER ;;\nCREATE PROCEDURE go() BEGIN\n LOOP START TRANSACTION; UPDATE a SET n = n + 1; \
                   INSERT INTO steps VALUES (NULL); UPDATE z SET n = n - 1; COMMIT; END LOOP; END;;\nCALL go();;\n";
    let writer = server.client(&bank, writing).start();
    let steps =
        |database: &str| -> u64 { server.sql(database, "SELECT COUNT(*) FROM steps").parse().expect("a number") };
    while steps(&bank) == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let user = server.user("bank", ALL);
    let env = configured(server, &user, &[&bank], "");
    let copy = server.unique("bank copy");
    let mut before = 0;
    for round in 0..3 {
        env.lifeboat(["backup", "-o", &format!("{round}.tar.zst")]).ok();
        let archive = format!("{round}.tar.zst");
        env.lifeboat(["restore", &archive, "--to-database", &copy, "--allow-unauthenticated", "--force"]).ok();
        let sums = server.sql(&copy, "SELECT (SELECT n FROM a), -(SELECT n FROM z), (SELECT COUNT(*) FROM steps)");
        let sums: Vec<&str> = sums.split('\t').collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
        let now = steps(&copy);
        assert!(now > before, "{before} {now}");
        before = now;
    }
    writer.signal(Signal::KILL);
    writer.wait().code(137);
    let id = server.sql("", &format!("SELECT id FROM information_schema.PROCESSLIST WHERE db = '{bank}'"));
    id.lines().for_each(|id| drop(server.sql("", &format!("KILL {id}"))));
}

/// Shows D15 and D2.
#[test]
fn whatever_ends_a_dump_early_fails_the_source_as_a_whole() {
    let Some(server) = Server::shared("whatever_ends_a_dump_early_fails_the_source_as_a_whole") else { return };
    let (first, second) = (server.create_db("first"), odd(server, "second"));
    server.sql(&first, "CREATE TABLE t (x int)");
    let user = server.user("early", ALL);
    let more = "      conf: { files: { root: ROOT } }\n";
    let size = server.fingerprint(&second).len();
    for (script, why) in [
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "killed by signal 9"),
        ("echo 'it went wrong' >&2; \"$real\" \"$@\"; exit 1", "it went wrong"),
        ("\"$real\" \"$@\" | grep -v '^-- Dump completed'", "does not end with"),
        ("case \"$*\" in *second*) \"$real\" \"$@\" | head -c 1; kill -9 $$;; *) \"$real\" \"$@\";; esac", "signal 9"),
        (
            "case \"$*\" in *second*) \"$real\" \"$@\" | head -c HALF; kill -9 $$;; *) \"$real\" \"$@\";; esac",
            "signal 9",
        ),
        ("case \"$*\" in *second*) \"$real\" \"$@\" | head -c HALF;; *) \"$real\" \"$@\";; esac", "does not end with"),
        ("case \"$*\" in *second*) \"$real\" \"$@\"; kill -9 $$;; *) \"$real\" \"$@\";; esac", "signal 9"),
    ] {
        let env = configured(server, &user, &[&first, &second], "");
        env.write("conf/a", "kept");
        let bin = wrapped(&env, &script.replace("HALF", &(size / 2).to_string()));
        let more = format!(
            "          bin_dir: {}\n{}",
            bin.display(),
            more.replace("ROOT", env.path("conf").to_str().unwrap())
        );
        configure(&env, &server.url(&user), &[&first, &second], &more);
        let said = env.lifeboat(["backup"]).code(18);
        let all = format!("{}{}", said.stdout, said.stderr);
        assert!(all.contains(why) && all.contains("source failed"), "{script}: {all}");
        assert!(!all.contains("canary"), "{all}");
        assert_eq!(entries(&env, "a.tar.zst"), ["files/conf", "files/conf/a"], "{script}");
        let alone = env.lifeboat(["backup", "--only", "my", "-o", "b.tar.zst"]).code(18);
        assert!(alone.stderr.contains(why) && !env.path("b.tar.zst").exists(), "{}", alone.stderr);
    }
}

/// Shows D15 and D2.
#[test]
fn a_server_that_does_not_answer_and_a_user_who_does_not_see_all_fail_the_source() {
    const TEST: &str = "a_server_that_does_not_answer_and_a_user_who_does_not_see_all_fail_the_source";
    let Some(server) = Server::shared(TEST) else { return };
    let name = odd(server, "seen");
    let fails = |env: &TestEnv, why: &str| {
        let said = env.lifeboat(["backup"]).code(18).stderr;
        assert!(said.contains(why) && !said.contains("canary"), "{why}: {said}");
        assert!(env.lifeboat(["backup", "--dry-run"]).code(18).stderr.contains(why), "{why}");
        assert!(!env.names("").iter().any(|name| name.ends_with(".zst")), "{:?}", env.names(""));
    };
    let user = server.user("sees", ALL);
    let env = configured(server, &user, &[&name], "");
    env.write("password", "wrong");
    fails(&env, "Access denied");
    let env = configured(server, &user, &["there is none"], "");
    fails(&env, "there is no database `there is none`");
    let env = configured(server, &user, &[&name], "");
    configure(&env, &format!("mariadb://x@/?socket={}", env.path("none").display()), &[&name], "");
    fails(&env, "Can't connect to local server");
    // Without the right to see them, the server would list no routines and no triggers.
    let on = ident(&name);
    for (rights, missing) in [
        ("SELECT, SHOW VIEW, EVENT, EXECUTE", "TRIGGER"),
        ("SELECT, SHOW VIEW, TRIGGER, EVENT", "EXECUTE"),
        ("TRIGGER, EVENT, EXECUTE, SHOW VIEW", "SELECT"),
    ] {
        let user = server.user("blind", &format!("{rights} ON {on}.*"));
        fails(&configured(server, &user, &[&name], ""), &format!("the right to {missing} is missing"));
    }
    let user = server.user("reader", &format!("SELECT, SHOW VIEW, TRIGGER, EVENT ON {on}.*"));
    server.sql("", &format!("GRANT SELECT ON mysql.proc TO '{user}'@localhost"));
    let env = configured(server, &user, &[&name], "");
    env.lifeboat(["backup"]).ok();
    let routines = source(&env, "a.tar.zst");
    assert_eq!(routines["details"]["mariadb"]["databases"][0]["tables"]["parts"]["rows"], 5000);
}

/// Shows D15.
#[test]
fn a_password_is_in_no_argument_no_environment_and_no_file_of_ours() {
    let Some(server) = Server::shared("a_password_is_in_no_argument_no_environment_and_no_file_of_ours") else {
        return;
    };
    let name = server.create_db("secret");
    server.sql(&name, "CREATE TABLE t (x int); INSERT INTO t VALUES (1)");
    let user = server.user("secret", ALL);
    let env = configured(server, &user, &[&name], "");
    let look = "{ tr '\\0' '\\n' </proc/$$/cmdline; tr '\\0' '\\n' </proc/$$/environ; } >>LOG";
    let look = look.replace("LOG", env.path("seen").to_str().unwrap());
    let bin = wrapped(&env, &format!("{look}\nexec \"$real\" \"$@\""));
    env.write("bin/mariadb", format!("#!/bin/sh\n{look}\nexec mariadb \"$@\"\n"));
    configure(&env, &server.url(&user), &[&name], &format!("          bin_dir: {}\n", bin.display()));
    let copy = server.unique("secret copy");
    let run = |args: &[&str]| env.command(args).env("MYSQL_PWD", "of-ours").run().ok();
    let said = run(&["backup", "-v", "--json"]);
    let restored = run(&["restore", "a.tar.zst", "--to-database", &copy, "--allow-unauthenticated"]);
    let shown = run(&["config", "show"]);
    let seen = String::from_utf8(env.read("seen")).unwrap();
    assert!(seen.contains("--single-transaction") && seen.contains("--binary-mode"), "{seen}");
    for text in [&seen, &said.stdout, &said.stderr, &restored.stdout, &restored.stderr, &shown.stdout] {
        assert!(!text.contains("canary") && !text.contains("of-ours"), "{text}");
    }
    env.run("zstd", ["-dq", "a.tar.zst", "-o", "a.tar"]).ok();
    env.run("mv", ["password", "../password"]).ok();
    env.run("grep", ["-rlF", "canary", "."]).code(1);
    env.run("grep", ["-rlF", "canary", "../data", "../home"]).code(1);
}

/// Shows D15.
#[test]
fn rows_of_excluded_tables_are_left_out_and_views_of_them_stay() {
    let Some(server) = Server::shared("rows_of_excluded_tables_are_left_out_and_views_of_them_stay") else { return };
    let name = odd(server, "excluded");
    let user = server.user("excluded", ALL);
    let exclude = "    exclude_tables: [\"metrics_*\", \"BACK*\"]\n";
    // An older program that cannot leave out rows alone.
    let older = "case \"$*\" in *--ignore-table-data*) exit 9;; esac\nexec \"$real\" \"$@\"";
    for is_older in [false, true] {
        let env = configured(server, &user, &[&name], exclude);
        if is_older {
            let bin = wrapped(&env, older);
            let script = String::from_utf8(env.read("bin/mariadb-dump")).unwrap();
            let help = "mariadb-dump \"$@\" | grep -v ignore-table-data; exit;;";
            env.write("bin/mariadb-dump", script.replace("exec mariadb-dump \"$@\";;", help));
            env.set_mode("bin/mariadb-dump", 0o755);
            let more = format!("          bin_dir: {}\n{exclude}", bin.display());
            configure(&env, &server.url(&user), &[&name], &more);
        }
        let said = env.lifeboat(["backup"]).ok().stdout;
        assert!(said.contains("without the rows of back`quote 表, metrics_a"), "{said}");
        let copy = server.unique("excluded copy");
        env.lifeboat(["restore", "a.tar.zst", "--to-database", &copy, "--allow-unauthenticated"]).ok();
        let counts = "SELECT (SELECT COUNT(*) FROM metrics_a), (SELECT COUNT(*) FROM of_metrics), \
                      (SELECT COUNT(*) FROM `back``quote 表`), (SELECT COUNT(*) FROM parts)";
        assert_eq!(server.sql(&copy, counts), "0\t0\t0\t5000", "{is_older}");
        let recorded = &source(&env, "a.tar.zst")["details"]["mariadb"]["databases"][0];
        assert_eq!(recorded["excluded_tables"], serde_json::json!(["back`quote 表", "metrics_a"]));
        assert!(recorded["tables"].get("metrics_a").is_none());
    }
}

/// Shows D15.
#[test]
fn what_is_live_or_not_empty_is_not_replaced_unasked() {
    let Some(server) = Server::shared("what_is_live_or_not_empty_is_not_replaced_unasked") else { return };
    let (live, other, used) = (server.create_db("live"), server.create_db("other"), server.create_db("used"));
    for database in [&live, &other, &used] {
        server.sql(database, "CREATE TABLE t (x int); INSERT INTO t VALUES (1)");
    }
    let user = server.user("live", ALL);
    let env = configured(server, &user, &[&live, &other], "");
    env.lifeboat(["backup"]).ok();
    let only = format!("my/{live}");
    let restore = |more: &[&str]| env.command(["restore", "a.tar.zst", "--only", &only].iter().chain(more)).run();
    let agreed = "--allow-unauthenticated";
    assert!(
        env.lifeboat(["restore", "a.tar.zst", "--to-database", "x", agreed])
            .code(2)
            .stderr
            .contains("takes one database")
    );
    assert!(restore(&["--to-database", "x"]).code(22).stderr.contains("the dump is SQL"));
    for name in [&live, &other] {
        let said = restore(&["--to-database", name, agreed, "--force"]).code(2).stderr;
        assert!(said.contains("that is a live one"), "{said}");
    }
    for name in ["mysql", "SYS", "", "a\nb", &"x".repeat(65)] {
        let said = restore(&["--to-database", name, agreed, "--force"]).code(2).stderr;
        assert!(said.contains("is no name"), "{said}");
    }
    let said = restore(&["--to-database", &used, agreed]).code(22).stderr;
    assert!(said.contains("exists and is not empty"), "{said}");
    server.sql(&used, "DROP TABLE t; CREATE VIEW v AS SELECT 1");
    restore(&["--to-database", &used, agreed]).code(22);
    assert_eq!(server.sql(&used, "SELECT * FROM v"), "1");
    restore(&["--to-database", &used, agreed, "--force"]).ok();
    assert_eq!(server.sql(&used, "SHOW TABLES; SELECT * FROM t"), "t\n1");
    for database in [&live, &other] {
        assert_eq!(server.sql(database, "SELECT * FROM t"), "1");
    }
}

/// A database whose dump is `replace`d by something else on its way into the archive.
fn with_dump(server: &Server, user: &str, script: &str) -> (TestEnv, String) {
    let name = server.create_db("hostile");
    server.sql(&name, "CREATE TABLE t (x int); INSERT INTO t VALUES (1)");
    let env = configured(server, user, &[&name], "");
    let bin = wrapped(&env, script);
    configure(&env, &server.url(user), &[&name], &format!("          bin_dir: {}\n", bin.display()));
    env.lifeboat(["backup"]).ok();
    configure(&env, &server.url(user), &[&name], "");
    (env, name)
}

/// Shows D15.
#[test]
fn commands_of_the_client_in_a_dump_end_the_restore_and_run_nothing() {
    let Some(server) = Server::shared("commands_of_the_client_in_a_dump_end_the_restore_and_run_nothing") else {
        return;
    };
    let user = server.user("hostile", ALL);
    for (number, line) in [
        "\\! touch MARK",
        "system touch MARK",
        "SELECT 1 \\! touch MARK",
        "tee MARK",
        "\\T MARK",
        "pager cat >MARK",
        "source SCRIPT",
        "\\. SCRIPT",
        "edit",
        "DELIMITER \\!\nsystem touch MARK",
        "LOAD DATA LOCAL INFILE 'SCRIPT' INTO TABLE t;",
        "SELEKT 1;",
    ]
    .iter()
    .enumerate()
    {
        let (env, name) = with_dump(
            server,
            &user,
            "cat /dev/null; \"$real\" \"$@\" | sed \"/^-- Dump completed/e cat $(dirname \"$0\")/line\"",
        );
        // The first backup made an archive without the line, as there was none; now there is one.
        env.write("evil.sql", "SELECT 'evil' INTO @x;");
        let (mark, script) = (env.path("mark"), env.path("evil.sql"));
        let line = line.replace("MARK", mark.to_str().unwrap()).replace("SCRIPT", script.to_str().unwrap());
        env.write("bin/line", format!("{line}\n"));
        configure(&env, &server.url(&user), &[&name], &format!("          bin_dir: {}\n", env.path("bin").display()));
        env.lifeboat(["backup", "-o", "evil.tar.zst"]).ok();
        let copy = server.unique(&format!("evil {number}"));
        let said =
            env.lifeboat(["restore", "evil.tar.zst", "--to-database", &copy, "--allow-unauthenticated"]).code(1).stderr;
        assert!(!mark.exists(), "{line}");
        assert!(!server.has(&copy), "{line}: {said}");
        assert!(said.contains("nothing was changed"), "{line}: {said}");
    }
}

/// Shows D15.
#[test]
fn a_restore_that_fails_or_is_stopped_leaves_nothing_of_ours() {
    let Some(server) = Server::shared("a_restore_that_fails_or_is_stopped_leaves_nothing_of_ours") else { return };
    let user = server.user("fails", ALL);
    // As many statements as before, of which one loses a row.
    let lossy = "\"$real\" \"$@\" | sed 's/^-- Dump completed/DELETE FROM t;\\n-- Dump completed/'";
    let (env, _) = with_dump(server, &user, lossy);
    let empty = server.create_db("was empty");
    server.sql("", &format!("ALTER DATABASE {} CHARACTER SET ascii", ident(&empty)));
    let before = server.fingerprint(&empty);
    let said =
        env.lifeboat(["restore", "a.tar.zst", "--to-database", &empty, "--allow-unauthenticated"]).code(19).stderr;
    assert!(said.contains("t has 0 rows, and 1 were backed up"), "{said}");
    assert_eq!(server.fingerprint(&empty), before);
    let slow = "\"$real\" \"$@\" | sed 's/^-- Dump completed/DO SLEEP(600);\\n-- Dump completed/'";
    let (env, _) = with_dump(server, &user, slow);
    let copy = server.unique("stopped");
    let running = env.command(["restore", "a.tar.zst", "--to-database", &copy, "--allow-unauthenticated"]).start();
    while !server.sql("", "SHOW FULL PROCESSLIST").contains("SLEEP(600)") {
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal(Signal::TERM);
    let said = running.wait().code(143).stderr;
    assert!(said.contains("nothing was changed") && !server.has(&copy), "{said}");
    let scratch = std::fs::read_dir(env.data_dir()).unwrap().flatten();
    let left = scratch.filter(|entry| entry.file_name().to_string_lossy().starts_with(".lifeboat-"));
    assert_eq!(left.count(), 0);
}

/// Shows D15, E9.
#[test]
fn in_place_it_is_refused_and_named_with_the_commands_that_do_it_by_hand() {
    const TEST: &str = "in_place_it_is_refused_and_named_with_the_commands_that_do_it_by_hand";
    let Some(server) = Server::shared(TEST) else { return };
    let name = server.create_db("in place");
    server.sql(&name, "CREATE TABLE t (x int); INSERT INTO t VALUES (1)");
    let user = server.user("in place", ALL);
    let env = configured(server, &user, &[&name], "");
    env.write("conf/a", "old");
    let more = format!("      conf: {{ files: {{ root: {} }} }}\n", env.path("conf").display());
    configure(&env, &server.url(&user), &[&name], &more);
    env.lifeboat(["backup"]).ok();
    env.write("conf/a", "new");
    server.sql(&name, "INSERT INTO t VALUES (2)");
    for args in [&["--only", "my"][..], &["--only", "my", "--only", "conf"], &["--only", "my", "--dry-run"]] {
        let said = env.command(["restore", "a.tar.zst", "--force"].iter().chain(args)).run().code(2).stderr;
        assert!(
            said.contains("the source my is not restored in place") && said.contains("mariadb --binary-mode"),
            "{said}"
        );
        assert_eq!(env.read("conf/a"), b"new");
    }
    let merge = env.lifeboat(["restore", "a.tar.zst", "--force", "--mode", "merge"]).code(2).stderr;
    assert!(merge.contains("the source my: databases of a server cannot be merged"), "{merge}");
    let dry = env.lifeboat(["restore", "a.tar.zst", "--dry-run"]).ok().stdout;
    let whole = env.lifeboat(["restore", "a.tar.zst", "--force"]).ok().stdout;
    for said in [&dry, &whole] {
        assert!(said.contains("not restored: my (databases of MariaDB cannot"), "{said}");
        assert!(said.contains("\n  lifeboat restore ") && said.contains(" --to DIR\n"), "{said}");
    }
    assert_eq!(env.read("conf/a"), b"old");
    assert_eq!(server.sql(&name, "SELECT COUNT(*) FROM t"), "2");
    // They do it.
    let by_hand: Vec<&str> =
        whole.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| line.contains("DIR")).collect();
    env.lifeboat(["restore", "a.tar.zst", "--to", "DIR"]).ok();
    let plain = by_hand[1].replace(" -p ", &format!(" --password='{}' ", PASSWORD.replace('\'', "'\\''")));
    env.run("sh", ["-c", &plain]).ok();
    assert_eq!(server.sql(&name, "SELECT COUNT(*) FROM t"), "1");
    let json = env.lifeboat(["restore", "a.tar.zst", "--dry-run", "--json"]).ok().json_lines();
    assert_eq!(json.last().unwrap()["not_restored"][0]["source"], "my");
    // Nothing else is in it.
    env.lifeboat(["backup", "--only", "my", "-o", "my.tar.zst"]).ok();
    env.lifeboat(["restore", "my.tar.zst", "--force"]).code(2);
}
