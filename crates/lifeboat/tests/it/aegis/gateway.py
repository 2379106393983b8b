"""What stands in for the gateway of AegisAgent: a SQLite database in WAL mode,
migrations when it starts, receipts in a chain of hashes, and the routes that
its runbook asks.

    gateway.py --version             what is deployed: the file `version` beside it, 0.N.0
    gateway.py serve ROOT PORT       knows migrations 1 to N, and refuses a newer database
    gateway.py chain FILE            verifies the chain in a database; prints its length
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
VERSION = open(os.path.join(HERE, "version")).read().strip()
if sys.argv[1] == "--version":
    print("aegisagent " + VERSION)
    sys.exit(0)

import hashlib
import json
import signal
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

KNOWN = int(VERSION.split(".")[1])
MIGRATIONS = [
    "CREATE TABLE agents(name TEXT PRIMARY KEY);"
    "CREATE TABLE decisions(id INTEGER PRIMARY KEY, verdict TEXT);"
    "CREATE TABLE receipts(seq INTEGER PRIMARY KEY, prev TEXT, body TEXT, hash TEXT);"
    "INSERT INTO agents VALUES ('first');",
    "ALTER TABLE agents ADD COLUMN note TEXT DEFAULT 'migrated';",
    "CREATE TABLE policies(name TEXT PRIMARY KEY);",
]


def sha(prev, body):
    return hashlib.sha256((prev + body).encode()).hexdigest()


def chain(db):
    """The length of the chain, or where it breaks."""
    prev, count = "", 0
    for seq, was, body, found in db.execute("SELECT seq, prev, body, hash FROM receipts ORDER BY seq"):
        if seq != count + 1 or was != prev or found != sha(prev, body):
            return None, seq
        prev, count = found, count + 1
    return count, None


class Gateway:
    def __init__(self, root):
        self.root, self.is_ready = root, False
        self.token = open(os.path.join(root, "lifeboat.token")).readline().strip()

    def open(self):
        # A gateway without its database makes a new one.
        db = sqlite3.connect(os.path.join(self.root, "db/aegisagent.db"), timeout=10, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        return db

    def migrate(self):
        db = self.open()
        if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            sys.exit("the database is damaged")
        db.execute("CREATE TABLE IF NOT EXISTS _migrations(version INTEGER PRIMARY KEY)")
        done = db.execute("SELECT coalesce(max(version), 0) FROM _migrations").fetchone()[0]
        if done > KNOWN:
            sys.exit("the database has migration %d, and this gateway knows %d" % (done, KNOWN))
        for number in range(done + 1, KNOWN + 1):
            db.executescript("BEGIN;%sINSERT INTO _migrations VALUES (%d);COMMIT" % (MIGRATIONS[number - 1], number))
        db.close()

    def work(self, db):
        """Appends a receipt every few milliseconds, as long as the file `load` is there."""
        while True:
            time.sleep(0.004)
            if not os.path.exists(os.path.join(self.root, "load")):
                continue
            try:
                db.execute("BEGIN IMMEDIATE")
                last = db.execute("SELECT seq, hash FROM receipts ORDER BY seq DESC LIMIT 1").fetchone() or (0, "")
                body = "receipt %d" % (last[0] + 1)
                db.execute("INSERT INTO decisions(verdict) VALUES ('allow')")
                db.execute("INSERT INTO receipts VALUES (?, ?, ?, ?)", (last[0] + 1, last[1], body, sha(last[1], body)))
                db.execute("COMMIT")
            except sqlite3.Error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                time.sleep(0.05)

    def answer(self, method, path, authorization):
        if path == "/health":
            return 200, {"status": "ok"}
        if path == "/readyz":
            return (200, {"status": "ready"}) if self.is_ready else (503, {"status": "starting"})
        if authorization != "Bearer " + self.token:
            return 401, {"error": "no token"}
        path, _, query = path.partition("?")
        db = self.open()
        try:
            if (method, path) == ("GET", "/v1/agents"):
                return 200, {"agents": [row[0] for row in db.execute("SELECT name FROM agents ORDER BY name")]}
            if (method, path) == ("GET", "/v1/decisions"):
                limit = int(query.partition("limit=")[2] or 100)
                rows = db.execute("SELECT id, verdict FROM decisions ORDER BY id DESC LIMIT ?", (limit,))
                return 200, {"decisions": [list(row) for row in rows]}
            if (method, path) == ("POST", "/v1/receipts/verify-chain"):
                count, broken = chain(db)
                return (200, {"valid": True, "count": count}) if broken is None else (409, {"valid": False, "at": broken})
            return 404, {"error": "no such route"}
        except sqlite3.Error as error:
            return 500, {"error": str(error)}
        finally:
            db.close()

    def serve(self, port):
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self):
                status, body = gateway.answer(self.command, self.path, self.headers.get("Authorization"))
                body = json.dumps(body, separators=(",", ":")).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = reply

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True

            def server_bind(self):
                # Its own asks the name service who 127.0.0.1 is.
                TCPServer.server_bind(self)
                self.server_name, self.server_port = self.server_address

        server = Server(("127.0.0.1", port), Handler)
        # It leaves its log beside the database, as a crash does.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.migrate()
        # Its log is there from now on.
        db = self.open()
        self.is_ready = True
        self.work(db)


if sys.argv[1] == "serve":
    Gateway(sys.argv[2]).serve(int(sys.argv[3]))
else:
    count, broken = chain(sqlite3.connect("file:%s?mode=ro" % sys.argv[2], uri=True))
    sys.exit("broken at %d" % broken) if broken else print(count)
