//! PostgreSQL: how a server is reached (`reach`), what is asked of it
//! (`session`), and which of its programs are run (`tools`).

pub(crate) mod facts;
pub(crate) mod inplace;
mod reach;
mod script;
mod session;
pub(crate) mod stage;
pub(crate) mod swap;
mod tls;
mod tools;

pub use reach::Server;
pub(crate) use reach::{Route, parse_url};
pub(crate) use session::{Session, ident, literal, quoted};
pub(crate) use tools::Tools;
