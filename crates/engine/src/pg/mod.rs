//! PostgreSQL: how a server is reached (`reach`), what is asked of it
//! (`session`, `facts`), and which of its programs are run (`tools`). A backup
//! pins the state of databases (`pin`), has it dumped (`dump`) and counts the rows
//! of custom dumps as they pass (`rows`), those of others in the same state
//! (`count`); `globals` writes down roles, `probe` looks into dumps that were
//! written. A restore makes a database beside the live one (`stage`, by
//! pg_restore or, for SQL, `script`) and exchanges the two (`swap`), or restores
//! over the live one (`inplace`). `export` asks a query and gives its answer as CSV.

mod blame;
pub(crate) mod count;
mod csv;
pub(crate) mod dump;
pub(crate) mod export;
pub(crate) mod facts;
pub(crate) mod globals;
pub(crate) mod inplace;
pub(crate) mod pin;
pub(crate) mod probe;
mod reach;
pub(crate) mod rows;
mod script;
mod secrets;
mod session;
pub(crate) mod stage;
pub(crate) mod swap;
mod tls;
mod tools;

pub use reach::Server;
pub(crate) use reach::{Route, parse_url};
pub(crate) use session::{Session, ident, literal, quoted};
pub(crate) use tools::{Access, Tools};
