//! PostgreSQL: how a server is reached, what is asked of it, and which of its
//! programs are run.

#[expect(dead_code, unused_imports, reason = "restoring plain dumps is wired up next")]
mod script;
