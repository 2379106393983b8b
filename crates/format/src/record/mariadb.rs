//! What the manifest records of sources of the kind `mariadb`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Rows;

/// What is recorded of databases of one MariaDB or MySQL server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mariadb {
    /// The server's version, as it writes it, such as `10.11.6-MariaDB`.
    pub server_version: String,
    /// The databases.
    pub databases: Vec<MariadbDatabase>,
}

/// A database of a [`Mariadb`] source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MariadbDatabase {
    /// Its name.
    pub name: String,
    /// The entry that is its dump.
    pub path: String,
    /// When its dump began, whose one transaction holds the state of then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<jiff::Timestamp>,
    /// Its default character set.
    pub charset: String,
    /// Its default collation.
    pub collation: String,
    /// Bytes that it took on the server's disk, by the server's estimate.
    #[serde(default)]
    pub size_bytes: u64,
    /// Rows of each table.
    #[serde(default)]
    pub tables: BTreeMap<String, Rows>,
    /// Tables whose rows were left out on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_tables: Vec<String>,
    /// Tables that take no part in transactions: they are as they stood when they were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loose_tables: Vec<String>,
}
