//! The runbook of AegisAgent, played with the preset `aegis` against a
//! stand-in of the gateway, which writes all the time.
//!
//! Its step that is not there yet: `POST /v1/admin/backup` answered by
//! Lifeboat itself. What that route writes, a bare database, is made here as
//! the gateway makes it, by `VACUUM INTO`.
#![expect(clippy::unwrap_used, reason = "these are the helpers of tests")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lifeboat_store::testing::can_run;
use serde_json::Value;

use crate::env::{Run, TestEnv};

mod runbook;
mod versions;

const PROGRAMS: [&str; 3] = ["python3", "sqlite3", "setsid"];

/// A gateway of version 0.1.0 that runs in `aegis`, and the preset as `lifeboat.yaml`.
pub(super) struct Gateway {
    pub(super) env: TestEnv,
    port: String,
    /// Python itself: what is found on PATH may look for it first, which takes its time.
    python: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // No test leaves a gateway behind, not even one that fails.
        self.service("stop").exit_code();
    }
}

impl Gateway {
    /// As the preset has it, by a unit of systemd; for that something stands in.
    pub(super) fn new() -> Self {
        let gateway = Self::installed();
        let dir = gateway.env.path("");
        let systemctl = include_str!("aegis/systemctl.sh")
            .replace("ROOT", gateway.root().to_str().unwrap())
            .replace("PORT", &gateway.port)
            .replace("SYSTEMD", dir.join("systemd").to_str().unwrap());
        gateway.env.write("systemctl.sh", systemctl);
        // By another process: a child of another test may hold open what is written here.
        gateway.env.run("install", ["-m", "755", "systemctl.sh", "bin/systemctl"]).ok();
        gateway.env.mkdir("systemd");
        gateway.begin();
        gateway
    }

    /// Stopped and started by commands instead.
    pub(super) fn by_commands() -> Self {
        let gateway = Self::installed();
        let script = gateway.env.path("bin/service.sh");
        let command = |what: &str| {
            format!("{what}: [sh, {}, {}, \"{}\", {what}]", script.display(), gateway.root().display(), gateway.port)
        };
        let commands = ["stop", "start", "status"].map(command).join(", ");
        let commands = format!("commands:\n        aegisagent.service: {{ {commands} }}");
        gateway.configure("units: [aegisagent.service]", &commands);
        gateway.begin();
        gateway
    }

    fn installed() -> Self {
        let env = TestEnv::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let python = env.run("python3", ["-c", "import sys; print(sys.executable)"]).ok().stdout.trim().to_owned();
        env.write("aegis/bin/gateway.py", include_str!("aegis/gateway.py"));
        env.write("aegis/bin/version", "0.1.0");
        env.write("aegis/bin.sh", format!("#!/bin/sh\nexec {python} \"$(dirname \"$0\")/gateway.py\" \"$@\"\n"));
        env.run("install", ["-m", "755", "aegis/bin.sh", "aegis/bin/aegisagent"]).ok();
        env.write("bin/service.sh", include_str!("aegis/service.sh").replace("python3", &python));
        env.write("aegis/lifeboat.token", "CANARY-token\n");
        env.set_mode("aegis/lifeboat.token", 0o600);
        env.mkdir("aegis/db");
        let gateway = Self { env, port, python };
        let root = gateway.root();
        gateway.env.lifeboat(["init", "--preset", "aegis", "--root", root.to_str().unwrap()]).ok();
        gateway.configure("127.0.0.1:8080", &format!("127.0.0.1:{}", gateway.port));
        gateway.configure("timeout: 60s", "timeout: 10s, every: 50ms");
        gateway
    }

    /// Runs it, and lets it work.
    fn begin(&self) {
        self.work(true);
        self.service("start").ok();
        self.wait_until_ready();
        while self.sql("db/aegisagent.db", "SELECT count(*) > 9 FROM receipts") == "0" {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Replaces text in `lifeboat.yaml`.
    pub(super) fn configure(&self, old: &str, new: &str) {
        let text = String::from_utf8(self.env.read("lifeboat.yaml")).unwrap();
        assert!(text.contains(old), "{old}");
        self.env.write("lifeboat.yaml", text.replace(old, new));
    }

    pub(super) fn root(&self) -> PathBuf {
        self.env.path("aegis")
    }

    pub(super) fn lifeboat(&self, args: &[&str]) -> Run {
        let cmd = self.env.command(args).with_programs(&self.env.path("bin"));
        cmd.env("LIFEBOAT_SYSTEMD_DIR", self.env.path("systemd")).run()
    }

    /// What whoever looks after it does by hand.
    pub(super) fn service(&self, what: &str) -> Run {
        let (script, root) = (self.env.path("bin/service.sh"), self.root());
        self.env.run("sh", [script.to_str().unwrap(), root.to_str().unwrap(), &self.port, what])
    }

    pub(super) fn runs(&self) -> bool {
        self.service("status").exit_code() == 0
    }

    /// Whether it appends receipts.
    pub(super) fn work(&self, works: bool) {
        let load = self.env.path("aegis/load");
        if works {
            self.env.write(load, "");
        } else {
            std::fs::remove_file(load).unwrap();
            // What it was at is done by then.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How often it was stopped and started.
    pub(super) fn calls(&self) -> String {
        std::fs::read_to_string(self.env.path("aegis/calls")).unwrap_or_default().replace('\n', " ")
    }

    /// Another version is deployed.
    pub(super) fn deploy(&self, version: &str) {
        self.env.write("aegis/bin/version", version);
    }

    fn gateway(&self, args: &[&str]) -> Run {
        let program = self.env.path("aegis/bin/gateway.py");
        self.env.run(&self.python, [&[program.to_str().unwrap()], args].concat())
    }

    /// What it answers, if anything, with the token: the status, and the body.
    fn ask(&self, method: &str, path: &str) -> Option<(String, String)> {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{}", self.port)).ok()?;
        let request = format!("{method} {path} HTTP/1.0\r\nAuthorization: Bearer CANARY-token\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()))
    }

    fn answers(&self, method: &str, path: &str) -> Value {
        let (status, body) = self.ask(method, path).expect("an answer");
        assert_eq!(status, "200", "{method} {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(super) fn wait_until_ready(&self) {
        let began = Instant::now();
        while self.ask("GET", "/readyz").is_none_or(|(status, _)| status != "200") {
            let log = String::from_utf8_lossy(&self.env.read("aegis/log")).into_owned();
            assert!(began.elapsed() < Duration::from_secs(20), "it never gets ready: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// "Verification" of the runbook; `agents` is what it should know.
    pub(super) fn assert_well(&self, agents: &[&str], what: &str) {
        assert_eq!(self.answers("GET", "/health")["status"], "ok", "{what}");
        assert_eq!(self.answers("GET", "/readyz")["status"], "ready", "{what}");
        assert_eq!(self.answers("GET", "/v1/agents")["agents"], serde_json::json!(agents), "{what}");
        assert!(self.answers("GET", "/v1/decisions?limit=5")["decisions"].as_array().unwrap().len() <= 5, "{what}");
        assert_eq!(self.answers("POST", "/v1/receipts/verify-chain")["valid"], true, "{what}");
    }

    /// Runs SQL in a database below `aegis`, by SQLite's own program.
    pub(super) fn sql(&self, database: &str, sql: &str) -> String {
        let path = self.root().join(database);
        self.env.run("sqlite3", ["-cmd", ".timeout 10000", path.to_str().unwrap(), sql]).ok().stdout.trim().to_owned()
    }

    /// How long the chain of receipts in a database is, which has to be whole.
    pub(super) fn chain(&self, path: &str) -> u64 {
        self.gateway(&["chain", self.env.path(path).to_str().unwrap()]).ok().stdout.trim().parse().unwrap()
    }

    /// What restores set aside, without the numbers.
    pub(super) fn set_aside(&self) -> Vec<String> {
        let names = self.env.names("aegis/db").into_iter().filter(|name| name.contains(".bad-"));
        names.map(|name| name.chars().filter(|c| !c.is_ascii_digit()).collect()).collect()
    }

    /// The archives in `aegis/backups`, the oldest first.
    pub(super) fn archives(&self) -> Vec<String> {
        let names = self.env.names("aegis/backups").into_iter().filter(|name| name.ends_with(".tar.gz"));
        names.map(|name| format!("aegis/backups/{name}")).collect()
    }
}

pub(super) fn can_run_gateway(test: &str) -> bool {
    can_run(test, &PROGRAMS)
}
