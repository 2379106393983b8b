//! The shape of `lifeboat.yaml`, as it stands there: every value that a rule
//! looks at knows its line and column. What the values mean is the business of
//! `check`; here is found only what has the wrong shape. The comments of the
//! keys are what `lifeboat config schema` prints.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_saphyr::{DefaultMessageFormatter, Location, MessageFormatter as _, Spanned};

use super::nearest;
use lifeboat_format::path::shown;

mod encryption;
mod printed;

pub(super) use encryption::Encryption;
pub(super) use printed::{Command, Mariadb};

/// A mistake, and where it stands.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) what: String,
}

impl Wrong {
    pub(super) fn at(place: Location, what: impl Into<String>) -> Self {
        Self { line: place.line(), column: place.column(), what: what.into() }
    }
}

/// Reads `text`, or says where it has the wrong shape.
pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Wrong> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |place| (place.line(), place.column()));
        Wrong { line, column, what: explain(&error) }
    })
}

/// The mistakes that people make, in their words; of the rest, those of the parser.
fn explain(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as Yaml;
    match error.without_snippet() {
        Yaml::AliasError { error, .. } => explain(error),
        Yaml::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Yaml::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        Yaml::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Yaml::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{}` stands twice", shown(key.as_bytes())),
        Yaml::MultipleDocuments { .. } => "a second document begins, expected only one".to_owned(),
        Yaml::Eof { .. } => "the file ends too early, expected `apps:` and at least one app".to_owned(),
        Yaml::NullIntoString { .. } => "nothing stands here, expected a text".to_owned(),
        Yaml::InvalidScalar { ty: "u16", .. } => "wrong type, expected a whole number".to_owned(),
        Yaml::InvalidScalar { ty: "boolean", .. } => "wrong type, expected true or false".to_owned(),
        Yaml::Unexpected { expected, .. } => {
            let expected = match *expected {
                "mapping start" => "a mapping, such as `key: value`",
                "sequence start" => "a list, such as `[one, two]`",
                "string scalar" => "a text",
                other => other,
            };
            format!("wrong type, expected {expected}")
        }
        other => shown(DefaultMessageFormatter.format_message(other).as_bytes()),
    }
}

/// For a word that is not one of `known`.
pub(super) fn unknown(thing: &str, word: &str, known: &[&str]) -> String {
    let meant = nearest(word, known).map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("unknown {thing} `{}`{meant}, expected one of: {known}", shown(word.as_bytes()))
}

/// The configuration of Lifeboat: what is backed up, and how it is put back.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "lifeboat.yaml")]
pub(super) struct File {
    /// Where Lifeboat keeps its journals and locks; absolute. By default
    /// `/var/lib/lifeboat`, or `~/.local/share/lifeboat` for an ordinary user.
    pub(super) data_dir: Option<At<String>>,
    /// The apps, by name.
    pub(super) apps: At<Named<App>>,
    /// Where archives of apps without destinations go, unless the app says
    /// otherwise; absolute, or `.` for the current directory.
    pub(super) backup_dir: Option<At<String>>,
    /// Places for archives, by name. An app names those that it uses.
    #[serde(default)]
    pub(super) destinations: Named<Destination>,
}

/// One application: what belongs to it, and how it is stopped, started and asked.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct App {
    /// What is backed up, by name; at least one.
    pub(super) sources: At<Named<At<Source>>>,
    /// What runs and uses the data.
    #[serde(default)]
    pub(super) services: Services,
    /// What must pass before a restore is done: each is `http` or `command`.
    #[serde(default)]
    pub(super) health: Vec<At<Health>>,
    /// What must hold after a restore, besides `health`: each is `http`, `command` or `sql`.
    #[serde(default)]
    pub(super) after_restore: Vec<At<AfterRestore>>,
    /// How to find out which version of the app runs: `command`, `sql` or `file`.
    pub(super) version: Option<At<Version>>,
    /// What a snapshot must hold to be good: names of sources, or
    /// `SOURCE/PATTERN` for files of a source. By default every source.
    #[serde(default)]
    pub(super) required: Vec<At<String>>,
    /// Named parts of the app, for `--only PART`: for each source, tables or
    /// patterns of files.
    #[serde(default)]
    pub(super) parts: Named<Named<At<Vec<At<String>>>>>,
    /// What archives are called, without suffix. May hold `{app}`, `{host}`,
    /// `{date}` (2026-02-24), `{yyyymmdd}` (20260224) and `{time}` (030000).
    /// By default `{app}-backup-{date}`.
    pub(super) name: Option<At<String>>,
    /// How archives are compressed. By default `zstd`.
    pub(super) compression: Option<Compression>,
    /// How hard: 1 to 19 for zstd (by default 3), 1 to 9 for gzip (by default 6).
    pub(super) compression_level: Option<At<u16>>,
    /// How archives are encrypted. By default they are not.
    pub(super) encryption: Option<At<Encryption>>,
    /// Where archives go when the app has no destinations; absolute, or `.`
    /// for the current directory.
    pub(super) backup_dir: Option<At<String>>,
    /// Tables of databases whose rows are left out; their structure is kept.
    /// `*` stands for any letters.
    #[serde(default)]
    pub(super) exclude_tables: Vec<At<String>>,
    /// Patterns that are added to `exclude` of each `files` source.
    #[serde(default)]
    pub(super) exclude_patterns: Vec<At<String>>,
    /// Queries of databases, by name, whose answers stand in a snapshot as CSV.
    #[serde(default)]
    pub(super) exports: Named<Export>,
    /// Columns that must not get into `exports`: `TABLE.COLUMN` or
    /// `SCHEMA.TABLE.COLUMN`; with `DATABASE/` before it, of that one only.
    #[serde(default)]
    pub(super) secret_columns: Vec<At<String>>,
    /// Where archives go: names of `destinations`.
    #[serde(default)]
    pub(super) destinations: Vec<At<String>>,
    /// How a new archive is checked.
    #[serde(default)]
    pub(super) verification: Verification,
    /// How long what a restore replaced is kept: a time such as `7d` (the
    /// default), or `forever`.
    pub(super) keep_replaced: Option<At<String>>,
    /// Whether the app is backed up when no app is named. By default true.
    pub(super) enabled: Option<bool>,
}

/// One thing with state: a mapping whose one key says what kind it is.
// No enum: that would place some mistakes in the line behind.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    /// A directory tree, or a single file.
    pub(super) files: Option<Files>,
    /// A SQLite database. It is copied as of one moment, also while it is written to.
    pub(super) sqlite: Option<Sqlite>,
    /// Databases of a PostgreSQL server, all as of one moment, also while they are written to.
    pub(super) postgres: Option<Postgres>,
    /// Databases of a MariaDB or MySQL server, each as of one moment, also while they are written to.
    pub(super) mariadb: Option<Mariadb>,
    /// What a program prints.
    pub(super) command: Option<Command>,
}

/// A directory tree, or a single file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Files {
    /// The directory or file; absolute.
    pub(super) root: At<String>,
    /// Patterns of what is taken, in the syntax of gitignore, relative to
    /// `root`. By default everything.
    #[serde(default)]
    pub(super) include: Vec<At<String>>,
    /// Patterns of what is left out; they win over `include`.
    #[serde(default)]
    pub(super) exclude: Vec<At<String>>,
    /// The directory of the snapshot that holds what is in `root`, or the file
    /// itself; `.` is the top. By default `files/NAME` is the root itself.
    pub(super) at: Option<At<String>>,
    /// Services that are stopped while this source is read, in this order.
    #[serde(default)]
    pub(super) stop: Vec<At<String>>,
}

/// A SQLite database.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sqlite {
    /// The database file; absolute.
    pub(super) path: At<String>,
    /// How long a lock on the database is waited for. By default `60s`.
    pub(super) busy_timeout: Option<At<String>>,
    /// Columns by which rows of a table are known in a merge, where its ids
    /// mean nothing: for each table at least one. By default the primary key.
    #[serde(default)]
    pub(super) merge_key: Named<At<Vec<At<String>>>>,
}

/// Databases of a PostgreSQL server.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Postgres {
    /// The server, such as `postgres://user@host:5432/database`; without a
    /// host the one on this machine, by its socket. Holds no password.
    pub(super) url: Option<At<String>>,
    /// The server as a service of `~/.pg_service.conf`, instead of `url`.
    pub(super) service: Option<At<String>>,
    /// A file whose first line is the password; absolute. Without it,
    /// `~/.pgpass` is looked at.
    pub(super) password_file: Option<At<String>>,
    /// The databases. By default the one that `url` names.
    pub(super) databases: Vec<At<String>>,
    /// How they are dumped: `custom` (the default), or `plain` SQL.
    pub(super) format: Option<DumpFormat>,
    /// Which roles are backed up, without their passwords: those that the
    /// databases `named` (the default), or `none`.
    pub(super) globals: Option<At<String>>,
    /// The database from which others are created and renamed in a restore.
    /// By default `postgres`.
    pub(super) maintenance_db: Option<At<String>>,
    /// The directory of pg_dump and pg_restore; absolute. By default the
    /// installed ones that fit the server.
    pub(super) bin_dir: Option<At<String>>,
    /// How long a lock on a table is waited for. By default `60s`.
    pub(super) lock_timeout: Option<At<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum DumpFormat {
    Custom,
    Plain,
}

/// What runs and uses the data.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Services {
    /// Units of systemd, by their full names, such as `web.service`.
    pub(super) units: Vec<At<String>>,
    /// Services that are stopped and started by commands, by name.
    pub(super) commands: Named<Commands>,
    /// The services that a restore stops, in this order. By default all:
    /// the units first, then the others, in the order of the file.
    pub(super) restore_stop: Option<Vec<At<String>>>,
    /// The services that a backup freezes, in this order. By default none.
    pub(super) freeze: Vec<At<String>>,
    /// How long they may be frozen at most. By default `5m`.
    pub(super) freeze_max: Option<At<String>>,
    /// How long each command may take. By default `90s`.
    pub(super) timeout: Option<At<String>>,
    /// What is run after a restore, once the services run again.
    pub(super) reload: Option<Reload>,
}

/// A service by its commands: each a program and its arguments, no shell.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Commands {
    /// Stops it.
    pub(super) stop: At<Vec<String>>,
    /// Starts it.
    pub(super) start: At<Vec<String>>,
    /// Ends with exit code 0 where it runs.
    pub(super) status: Option<At<Vec<String>>>,
    /// Makes it write nothing until it is thawed. Without it, a frozen service is stopped.
    pub(super) freeze: Option<At<Vec<String>>>,
    /// Lets it write again; needed where there is `freeze`.
    pub(super) thaw: Option<At<Vec<String>>>,
}

/// What is run after a restore, once the services run again.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reload {
    /// The program and its arguments, no shell.
    pub(super) run: At<Vec<String>>,
    /// What happens when it fails: `fail` (the default) rolls the restore back,
    /// `warn` only says so.
    #[serde(default)]
    pub(super) on_failure: OnFailure,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum OnFailure {
    #[default]
    Fail,
    Warn,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Compression {
    Zstd,
    Gzip,
}

/// One way to see that the app is up: `http` or `command`.
// Both kinds in one: which it is, `check` finds by what is there.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    /// A URL that must answer a GET; redirects are not followed.
    pub(super) http: Option<At<String>>,
    /// A program and its arguments, no shell; must end with exit code 0.
    pub(super) command: Option<At<Vec<String>>>,
    /// The status that means healthy. By default 200.
    pub(super) status: Option<At<u16>>,
    /// A file whose first line is sent as a bearer token; absolute.
    pub(super) token_file: Option<At<String>>,
    /// How long it is tried. By default `60s`.
    pub(super) timeout: Option<At<String>>,
    /// The pause between two attempts. By default `1s`.
    pub(super) every: Option<At<String>>,
}

/// What must hold after a restore: `http`, `command` or `sql`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AfterRestore {
    /// A URL that is asked.
    pub(super) http: Option<At<String>>,
    /// A program and its arguments, no shell; must end with exit code 0.
    pub(super) command: Option<At<Vec<String>>>,
    /// A query of a database.
    pub(super) sql: Option<At<Asked>>,
    /// How the URL is asked. By default `GET`.
    pub(super) method: Option<At<Method>>,
    /// The status that the answer must have. By default 200.
    pub(super) status: Option<At<u16>>,
    /// A file whose first line is sent as a bearer token; absolute.
    pub(super) token_file: Option<At<String>>,
    /// What the answer must be: `> 0`, `>= 1`, `= 5`, `!= 0`, `< 9`, `<= 9`,
    /// `contains TEXT`, or the whole answer itself. By default anything.
    pub(super) expect: Option<At<String>>,
    /// How long it may take. By default `60s`.
    pub(super) timeout: Option<At<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub(super) enum Method {
    Get,
    Post,
}

/// A query of a database.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sql {
    /// A `sqlite` source of the app, or a database of a `postgres` one:
    /// `DATABASE` or `SOURCE/DATABASE`.
    pub(super) db: At<String>,
    /// The query; its first value counts.
    pub(super) query: At<String>,
}

/// A query of a database, and what its answer must be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// A `sqlite` source of the app, or a database of a `postgres` one:
    /// `DATABASE` or `SOURCE/DATABASE`.
    pub(super) db: At<String>,
    /// The query; its first value counts.
    pub(super) query: At<String>,
    /// What the answer must be; the same as `expect` beside `sql`.
    pub(super) expect: Option<At<String>>,
}

/// A query whose answer is exported as CSV.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Export {
    /// A database of a `postgres` source: `SOURCE`, `DATABASE` or
    /// `SOURCE/DATABASE`.
    pub(super) db: At<String>,
    /// The query: one SELECT.
    pub(super) query: At<String>,
}

/// How to find out the app's version: `command`, `sql` or `file`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Version {
    /// A program and its arguments, no shell: the first thing in what it
    /// prints that looks like a version.
    pub(super) command: Option<At<Vec<String>>>,
    /// A query of a database.
    pub(super) sql: Option<At<Sql>>,
    /// A file: its first line; absolute.
    pub(super) file: Option<At<String>>,
}

/// How a new archive is checked.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Verification {
    /// Whether any of it is done. By default true.
    pub(super) enabled: Option<bool>,
    /// Whether a new archive is read back before the run is good. By default true.
    pub(super) on_create: Option<bool>,
}

/// A place for archives.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Destination {
    /// The directory: an absolute path, also as `file:///path`.
    pub(super) url: At<String>,
    /// In which form snapshots lie there. By default `archive`, so far the only one.
    pub(super) form: Option<At<String>>,
    /// Whether a file system other than the root's must be mounted there or
    /// above it. By default false.
    #[serde(default)]
    pub(super) require_mount: bool,
    /// `required`: only encrypted archives are taken. By default all are.
    pub(super) encryption: Option<At<String>>,
    /// Whether it is used. By default true.
    pub(super) enabled: Option<bool>,
}

/// A value, and where it stands.
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Location,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(|found| Self { value: found.value, place: found.referenced })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A mapping whose keys are names that the user chose, in the order of the file.
pub(super) struct Named<T>(pub(super) Vec<(At<String>, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Names<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut named = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    named.push(entry);
                }
                Ok(Named(named))
            }
        }

        deserializer.deserialize_map(Names(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let each = generator.subschema_for::<T>();
        schemars::json_schema!({ "type": "object", "additionalProperties": each })
    }
}
