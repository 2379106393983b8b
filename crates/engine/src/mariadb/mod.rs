//! MariaDB, and MySQL where it is the same: how a server is reached (`reach`),
//! which of its programs are run (`tools`), what is asked of it by them
//! (`client`), how a database is dumped (`dump`) and what has to differ where a
//! dump becomes a database of another name (`script`).

pub(crate) mod client;
pub(crate) mod dump;
mod reach;
mod rights;
mod rows;
pub(crate) mod script;
mod tools;

pub(crate) use client::Client;
pub use reach::Server;
pub(crate) use reach::{Route, parse_url};
pub(crate) use tools::Tools;

/// What the programs would take from our environment: it is not looked at, as option files are not.
const ENVIRONMENT: [&str; 4] = ["MYSQL_HOST", "MYSQL_PWD", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT"];

/// `name` as an identifier of SQL.
pub(crate) fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `text` as a string of SQL, whatever `sql_mode` says of backslashes and quotes.
pub(crate) fn literal(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("CONVERT(X'{hex}' USING utf8mb4)")
}
