//! What a manifest says of PostgreSQL: databases, roles, answers to queries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is recorded of the answer to a query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The source that was asked.
    pub source: String,
    /// Its database.
    pub database: String,
    /// Rows, without the line of the columns' names.
    pub rows: u64,
}

/// What is recorded of databases of one PostgreSQL server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postgres {
    /// The server's `server_version_num`, such as 150018.
    pub server_version: u32,
    /// When the last database reached its point; the first did at the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_point: Option<jiff::Timestamp>,
    /// Whether it holds no rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub schema_only: bool,
    /// The databases.
    pub databases: Vec<PostgresDatabase>,
    /// The roles that they name, without passwords.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
}

/// A database of a [`Postgres`] source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresDatabase {
    /// Its name.
    pub name: String,
    /// The entry that is its dump.
    pub path: String,
    /// `custom` or `plain`.
    pub format: String,
    /// What it is made with.
    #[serde(flatten)]
    pub attributes: DatabaseAttributes,
    /// Bytes that it took on the server's disk.
    pub size_bytes: u64,
    /// Rows of each table, by `schema.table`.
    #[serde(default)]
    pub tables: BTreeMap<String, Rows>,
    /// Tables whose rows were left out on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_tables: Vec<String>,
    /// Its extensions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
}

/// How many rows a table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// The number.
    pub rows: u64,
    /// Whether it is the server's estimate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

/// What a database of PostgreSQL is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseAttributes {
    /// Who owns it.
    pub owner: String,
    /// Such as `UTF8`.
    pub encoding: String,
    /// `libc`, `icu` or `builtin`.
    pub locale_provider: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// The locale of the provider, where that is not libc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Rules of its ICU collation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// Its tablespace.
    pub tablespace: String,
    /// How many sessions it may have; -1: any number.
    pub connection_limit: i64,
    /// Who may do what; absent: what is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<Grant>>,
    /// What its sessions begin with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
    /// Its comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A privilege that a role has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The role; absent: everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Such as `CONNECT`.
    pub privilege: String,
    /// Whether the role may give it on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grantable: bool,
}

/// A setting that sessions begin with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Whose sessions; absent: everyone's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Its name.
    pub name: String,
    /// Its value, as the server keeps it.
    pub value: String,
}

/// A role, without its password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// What it may: `LOGIN`, `CREATEDB` and the like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// How many sessions it may have; -1: any number.
    pub connection_limit: i64,
    /// Until when its password would be good, as the server writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// The roles that it is a member of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_of: Vec<String>,
    /// What its sessions begin with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
    /// Its comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}
