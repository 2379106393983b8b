//! Which tables of a source are asked for: by `--tables`, by a part of the app
//! that names tables, or all of them, when the rows of a database are merged.

use lifeboat_format::record::{Head, Source};

use super::{LiveRequest, NOTHING, find_configured};
use crate::config::{self, AppConfig};
use crate::restore::live::terms::Mode;
use crate::sqlite::{Wanted, no_such_table};
use crate::{Error, ErrorKind, Result, tables};

const SQLITE: &str = "sqlite";

/// What is wanted of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    All,
    /// A pattern of files, or of databases of a server.
    Glob(String),
    /// A pattern of tables of a SQLite database.
    Table(String),
}

impl Part {
    pub(super) fn glob(&self) -> Option<String> {
        if let Self::Glob(glob) = self { Some(glob.clone()) } else { None }
    }

    fn table(&self) -> Option<String> {
        if let Self::Table(table) = self { Some(table.clone()) } else { None }
    }
}

/// `--tables`, and the mode that it is for.
pub(super) struct Tables<'a> {
    mode: Mode,
    asked: &'a [String],
    /// The names of the snapshot's sources.
    sources: Vec<&'a str>,
}

impl<'a> Tables<'a> {
    pub(super) fn of(request: &'a LiveRequest, head: &'a Head, only: &[(String, Part)]) -> Result<Self> {
        let sources = head.sources.iter().map(|source| source.name.as_str()).collect();
        let tables = Self { mode: request.mode, asked: &request.tables, sources };
        // Of a part, which may name files too, the tables are replaced in full as in overwrite mode.
        if request.mode == Mode::Full && !tables.asked.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "--mode full cannot restore single tables")
                .state(NOTHING)
                .next("use --mode overwrite, which replaces them, or --mode merge, which adds what they lack"));
        }
        let is_asked = |source: &&Source| only.is_empty() || only.iter().any(|(name, _)| *name == source.name);
        let sources: Vec<&Source> = head.sources.iter().filter(is_asked).collect();
        for text in tables.asked {
            tables.check(text, &sources)?;
        }
        Ok(tables)
    }

    /// Refuses what means no table of any SQLite database among `sources`.
    fn check(&self, text: &str, sources: &[&Source]) -> Result<()> {
        let meant = sources.iter().filter_map(|source| Some((*source, self.pattern(source, text)?)));
        let meant: Vec<(&Source, String)> = meant.collect();
        let databases: Vec<&(&Source, String)> = meant.iter().filter(|(source, _)| source.kind == SQLITE).collect();
        if databases.is_empty() {
            let of = meant.first().map_or("the snapshot", |(source, _)| source.name.as_str());
            return Err(refused(&format!("--tables {text}"), of));
        }
        let mut known = Vec::new();
        for (source, pattern) in databases {
            // A database that comes without a manifest says later what it holds.
            let Some(facts) = &source.details.database else { return Ok(()) };
            let names = || facts.tables.keys().chain(&facts.excluded_tables);
            if facts.tables.is_empty() || names().any(|name| tables::matches(pattern, name)) {
                return Ok(());
            }
            known.extend(names().cloned());
        }
        Err(no_such_table(text, &known).state(NOTHING))
    }

    /// The pattern that `[SOURCE.][main.]TABLE` is for `source`.
    fn pattern(&self, source: &Source, text: &str) -> Option<String> {
        let of = |name: &str| text.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
        let rest = match (of(&source.name), self.sources.iter().any(|name| of(name).is_some())) {
            (Some(rest), _) => rest,
            (None, true) => return None,
            (None, false) => text,
        };
        Some(rest.strip_prefix("main.").unwrap_or(rest).to_owned())
    }

    fn patterns(&self, source: &Source) -> Vec<String> {
        self.asked.iter().filter_map(|text| self.pattern(source, text)).collect()
    }

    /// Whether `source` is restored where nothing says so by its name.
    pub(super) fn choose(&self, source: &Source) -> bool {
        self.asked.is_empty() || source.kind == SQLITE && !self.patterns(source).is_empty()
    }

    /// What is wanted of the rows of `source`; `None`: it is replaced as a whole.
    pub(super) fn rows(&self, source: &Source, parts: &[&Part], app: Option<&AppConfig>) -> Option<Wanted> {
        if source.kind != SQLITE {
            return None;
        }
        let mut tables: Vec<String> = parts.iter().filter_map(|part| part.table()).collect();
        let whole = parts.contains(&&Part::All) || tables.is_empty();
        let asked = self.patterns(source);
        if whole {
            tables.clear();
        }
        tables.extend(asked);
        if tables.is_empty() && self.mode != Mode::Merge {
            return None;
        }
        let root = source.root_bytes().ok().flatten();
        let root = root
            .map(|root| std::path::PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&root)));
        let configured = app.and_then(|app| find_configured(app, source, root.as_deref()));
        let keys = match configured {
            Some(config::Source::Sqlite(sqlite)) => sqlite.merge_key.clone(),
            _ => Default::default(),
        };
        let left_out = source.details.database.iter().flat_map(|facts| facts.excluded_tables.clone());
        Some(Wanted { tables, replaces: self.mode != Mode::Merge, keys, left_out: left_out.collect() })
    }
}

/// Tables of anything but a SQLite database.
pub(super) fn refused(asked: &str, source: &str) -> Error {
    let what = format!("{asked}: {source} has no SQLite database, and of others single tables cannot be restored");
    Error::new(ErrorKind::Usage, what).state(NOTHING).next("restore the whole database with --only SOURCE")
}
