//! PostgreSQL: how a server is reached, what is asked of it, and which of its
//! programs are run.
