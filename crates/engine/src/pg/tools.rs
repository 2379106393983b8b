//! The programs of PostgreSQL: which of those installed fit a server, and how
//! they are run. Later they may run elsewhere; so nothing else names one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Route;
use crate::exec::{NO_TIMEOUT, Secret, Tool};
use crate::{Cancel, Error, ErrorKind, Result};

/// Where packages put them, each major version in a directory of its own: Debian's, Red Hat's.
const VERSIONED: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];
/// Directories that hold one version.
const PLAIN_DIRS: [&str; 3] = ["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"];
const TIMEOUT: Duration = Duration::from_secs(20);
/// What programs of PostgreSQL take from the environment (its manual,
/// "Environment Variables"). They are told all that they are to know.
const ENVIRONMENT: [&str; 38] = [
    "PGAPPNAME",
    "PGCHANNELBINDING",
    "PGCLIENTENCODING",
    "PGCONNECT_TIMEOUT",
    "PGDATABASE",
    "PGDATESTYLE",
    "PGGEQO",
    "PGGSSDELEGATION",
    "PGGSSENCMODE",
    "PGGSSLIB",
    "PGHOST",
    "PGHOSTADDR",
    "PGKRBSRVNAME",
    "PGLOADBALANCEHOSTS",
    "PGOPTIONS",
    "PGPASSFILE",
    "PGPASSWORD",
    "PGPORT",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGREQUIRESSL",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSSLCERT",
    "PGSSLCERTMODE",
    "PGSSLCOMPRESSION",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLKEY",
    "PGSSLMAXPROTOCOLVERSION",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMODE",
    "PGSSLNEGOTIATION",
    "PGSSLROOTCERT",
    "PGSSLSNI",
    "PGTARGETSESSIONATTRS",
    "PGTZ",
    "PGUSER",
];

/// What a program is started with beside its arguments: nothing that we were
/// started with counts, and what it says is in English, for it is looked at.
pub(crate) struct Access {
    passfile: Option<String>,
    env: Vec<(String, String)>,
}

impl Access {
    /// For one that reads a dump.
    pub(crate) fn none() -> Self {
        Self { passfile: None, env: vec![("LC_ALL".to_owned(), "C".to_owned())] }
    }

    /// For one that takes [`Route::conninfo`]. The password is on its stdin.
    pub(crate) fn by(route: &Route) -> Self {
        let mut access = Self { passfile: route.passfile(), ..Self::none() };
        let named = access.passfile.as_ref().map(|_| ("PGPASSFILE".to_owned(), Secret::AS_STDIN.to_owned()));
        access.env.extend(named);
        access
    }

    /// The program of `argv`, which takes as long as it takes.
    pub(crate) fn tool<'a>(&'a self, argv: &'a [String]) -> Tool<'a> {
        let tool = Tool::new(argv, NO_TIMEOUT).without(&ENVIRONMENT).env(&self.env);
        match &self.passfile {
            Some(text) => tool.secret(text.as_bytes()),
            None => tool,
        }
    }
}

/// The programs of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tools {
    dir: PathBuf,
    /// Their major version.
    pub(crate) major: u32,
}

impl Tools {
    /// Those that fit a server of the major version `server`: of the same one,
    /// else the next newer. `dir` is the only place where they may be, if given.
    ///
    /// # Errors
    /// [`ErrorKind::Failed`] when there are none, or all are older.
    pub(crate) fn find(server: u32, dir: Option<&Path>, cancel: &Cancel) -> Result<Self> {
        let dirs = dir.map_or_else(candidates, |dir| vec![dir.to_owned()]);
        let mut found: Vec<Self> = Vec::new();
        for dir in dirs {
            match major_of(&dir, cancel)? {
                // Nothing fits better, and each that is asked takes its time.
                Some(major) if major == server => return Ok(Self { dir, major }),
                Some(major) => found.push(Self { dir, major }),
                None => {}
            }
        }
        let newest = found.iter().map(|tools| tools.major).max();
        // Of several of one version the first: packages come before what the PATH would find.
        let fitting = found.into_iter().filter(|tools| tools.major >= server).min_by_key(|tools| tools.major);
        fitting.ok_or_else(|| {
            let what = match newest {
                Some(newest) => format!("pg_dump is of version {newest}, and the server of version {server}, which is newer"),
                None => {
                    let place = dir.map_or("on this host".to_owned(), |dir| format!("in {}", dir.display()));
                    format!("there is no pg_dump {place}, and the server is of version {server}")
                }
            };
            Error::new(ErrorKind::Failed, what).next(format!(
                "install the client programs of PostgreSQL {server} (Debian: postgresql-client-{server}), or name their directory as `bin_dir`"
            ))
        })
    }

    /// The newest that are installed, at least of the version `server`: they
    /// read what any older ones wrote.
    ///
    /// # Errors
    /// As of [`Tools::find`].
    pub(crate) fn newest_from(server: u32, dir: Option<&Path>, cancel: &Cancel) -> Result<Self> {
        match Self::readers(&[], cancel)?.filter(|newest| dir.is_none() && newest.major >= server) {
            Some(newest) => Ok(newest),
            None => Self::find(server, dir, cancel),
        }
    }

    /// The newest that read dumps, in the usual places or one of `dirs`.
    ///
    /// # Errors
    /// On cancel.
    pub(crate) fn readers(dirs: &[PathBuf], cancel: &Cancel) -> Result<Option<Self>> {
        let mut newest: Option<Self> = None;
        for dir in candidates().iter().chain(dirs).filter(|dir| dir.join("pg_restore").is_file()) {
            if let Some(major) = major_of(dir, cancel)?
                && newest.as_ref().is_none_or(|newest| newest.major < major)
            {
                newest = Some(Self { dir: dir.clone(), major });
            }
        }
        Ok(newest)
    }

    /// Whether dumps can be read by them too.
    pub(crate) fn can_read(&self) -> bool {
        self.dir.join("pg_restore").is_file()
    }

    /// The program `name` with its arguments.
    pub(crate) fn command(&self, name: &str, arguments: &[&str]) -> Vec<String> {
        let program = self.dir.join(name).to_string_lossy().into_owned();
        std::iter::once(program).chain(arguments.iter().map(|argument| (*argument).to_owned())).collect()
    }
}

/// The directories that may hold them, those of packages first.
fn candidates() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for (dir, prefix) in VERSIONED {
        let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(std::io::Result::ok);
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        dirs.extend(named.map(|entry| entry.path().join("bin")));
    }
    dirs.sort();
    dirs.extend(PLAIN_DIRS.iter().map(PathBuf::from));
    // Debian has a script on the PATH that only looks for the ones that were found already.
    let is_script = |program: &Path| program.canonicalize().is_ok_and(|real| real.ends_with("pg_wrapper"));
    dirs.retain(|dir| {
        let program = dir.join("pg_dump");
        program.is_file() && !is_script(&program)
    });
    dirs
}

/// The major version of the programs in `dir`; `None` where there are none.
fn major_of(dir: &Path, cancel: &Cancel) -> Result<Option<u32>> {
    let argv = [dir.join("pg_dump").to_string_lossy().into_owned(), "--version".to_owned()];
    match Tool::new(&argv, TIMEOUT).run(Some(cancel)) {
        Ok(ended) if ended.is_success() => Ok(parse_version(ended.said())),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15.
fn parse_version(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what tests write need not be durable")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_version_is_what_the_program_says() {
        assert_eq!(parse_version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(parse_version("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_version("something else 15"), None);
    }

    /// Shows D1.
    #[test]
    fn older_programs_than_the_server_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("pg_dump");
        std::fs::write(&program, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 14.3'\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let find = |server| Tools::find(server, Some(dir.path()), &Cancel::new());
        assert_eq!(find(13).unwrap().major, 14);
        assert_eq!(find(14).unwrap().command("pg_dump", &["-Fc"]), [program.to_str().unwrap(), "-Fc"]);
        let error = find(15).unwrap_err();
        assert!(error.what().contains("version 14") && error.next_step().unwrap().contains("postgresql-client-15"));
        std::fs::remove_file(&program).unwrap();
        assert!(find(15).unwrap_err().what().contains("there is no pg_dump"));
    }
}
