//! Configurations for applications that people host: the files of `presets/`,
//! to be written as `lifeboat.yaml` with the place where the app stands.

use std::path::{Path, PathBuf};

use lifeboat_format::path::shown;
use lifeboat_store as store;
use lifeboat_store::durable::Unnamed;
use serde::Serialize;

use crate::{Error, ErrorKind, Result};

/// What stands in a preset for the place where the app stands.
const ROOT: &str = "{root}";
/// It names commands to run.
const MODE: u32 = 0o600;

/// A configuration for one application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Preset {
    /// What it is called.
    pub name: &'static str,
    /// What it is for, on one line.
    pub about: &'static str,
    /// What to look at once it is written, one line each.
    pub next: &'static [&'static str],
    /// Where the app stands, unless another place is named.
    #[serde(skip)]
    root: Root,
    #[serde(skip)]
    text: &'static str,
}

/// Where an app usually stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    /// In the home of whoever calls.
    Home(&'static str),
    Fixed(&'static str),
}

/// All of them, by name.
pub(crate) const PRESETS: &[Preset] = &[
    Preset {
        name: "aegis",
        about: "AegisAgent: the gateway's SQLite database, restored as its runbook says",
        next: &[
            "write a token that may read agents and verify receipts into the token_file of after_restore, mode 600",
            "see that the unit, the port and the program that prints the version are those of your installation",
        ],
        root: Root::Fixed("/opt/aegisagent"),
        text: include_str!("../../../presets/aegis.yaml"),
    },
    Preset {
        name: "nefia",
        about: "Nefia: configuration, sessions, schedules, audit logs and recordings of an operator",
        next: &[
            "keys are left out: they are not in the layout of Nefia's archives, so keep a copy of them elsewhere",
            "see that the command of services.reload is the one of your version of Nefia",
        ],
        root: Root::Home(".nefia"),
        text: include_str!("../../../presets/nefia.yaml"),
    },
    Preset {
        name: "tomo",
        about: "Tomo: servers, credentials, settings and audit logs, as one file under a password",
        next: &[
            "see that the database and the folders are those of your installation",
            "for backups without a person, name a password_file under `encryption`, and keep a copy of it elsewhere",
        ],
        root: Root::Fixed("/var/lib/tomo"),
        text: include_str!("../../../presets/tomo.yaml"),
    },
];

/// Write the configuration of a preset.
#[derive(Clone, Debug)]
pub struct InitRequest {
    /// The preset's name.
    pub preset: String,
    /// Where the app stands; by default where it usually does.
    pub root: Option<PathBuf>,
    /// The home of whoever calls, if there is one.
    pub home: Option<PathBuf>,
    /// The file to write, with its directory; must not exist.
    pub output: PathBuf,
    /// Whether it is only shown.
    pub dry_run: bool,
}

/// What came of an [`InitRequest`].
#[derive(Clone, Debug, Serialize)]
pub struct InitReport {
    /// The preset.
    pub preset: Preset,
    /// The file, which was written unless that was not asked for.
    #[serde(serialize_with = "crate::report::as_shown")]
    pub path: PathBuf,
    /// What stands in it.
    pub text: String,
}

/// The preset called `name`.
pub(crate) fn find(name: &str) -> Result<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        let meant = crate::config::nearest(name, &known).map(|meant| format!(" (did you mean {meant}?)"));
        let what = format!("there is no preset {}{}", shown(name.as_bytes()), meant.unwrap_or_default());
        Error::new(ErrorKind::Usage, what)
            .state("nothing was written")
            .next(format!("use one of: {}", known.join(", ")))
    })
}

impl Preset {
    /// Its YAML, for an app that stands at `root` or, by default, where it usually does.
    ///
    /// # Errors
    /// When that place is no absolute path, or is not known.
    pub fn text(&self, root: Option<&Path>, home: Option<&Path>) -> Result<String> {
        let usual = match self.root {
            Root::Fixed(path) => Some(PathBuf::from(path)),
            Root::Home(name) => home.map(|home| home.join(name)),
        };
        let root = root.map(Path::to_owned).or(usual);
        let wrong = |what: String| {
            Error::new(ErrorKind::Usage, what)
                .state("nothing was written")
                .next("say where the app stands, with --root and an absolute path")
        };
        let root = root.ok_or_else(|| wrong(format!("it is not known where {} stands", self.name)))?;
        let text = root.to_str().filter(|text| root.is_absolute() && !text.chars().any(char::is_control));
        let place = || format!("{} is no absolute path of plain text", shown(root.as_os_str().as_encoded_bytes()));
        let text = text.ok_or_else(|| wrong(place()))?.trim_end_matches('/');
        // It stands in double quotes.
        Ok(self.text.replace(ROOT, &text.replace('\\', "\\\\").replace('"', "\\\"")))
    }
}

/// Writes the configuration, readable by its owner only. Never overwrites.
pub(crate) fn init(request: &InitRequest) -> Result<InitReport> {
    let preset = *find(&request.preset)?;
    let text = preset.text(request.root.as_deref(), request.home.as_deref())?;
    let path = request.output.clone();
    if request.dry_run {
        return Ok(InitReport { preset, path, text });
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        let what = format!("{} is no name for a file", path.display());
        return Err(Error::new(ErrorKind::Usage, what).state("nothing was written"));
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let exists = || {
        Error::new(ErrorKind::Failed, format!("{} exists already", path.display()))
            .state("it was not touched")
            .next("choose another name with --output, or compare it with what --dry-run shows")
    };
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let write = || -> store::Result<PathBuf> {
        let mut file = Unnamed::create(dir)?;
        file.append(text.as_bytes())?;
        file.publish([name], MODE)
    };
    write().map_err(|error| match error.kind() {
        store::ErrorKind::Exists => exists(),
        _ => Error::from(error).state("nothing was written"),
    })?;
    Ok(InitReport { preset, path, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_presets_are_in_order_and_found() {
        assert!(PRESETS.is_sorted_by_key(|preset| preset.name));
        assert_eq!(find("nefia").unwrap().name, "nefia");
        let error = find("nefa").unwrap_err();
        assert_eq!(error.what(), "there is no preset nefa (did you mean nefia?)");
        assert_eq!(error.next_step(), Some("use one of: aegis, nefia, tomo"));
    }

    #[test]
    fn the_place_of_the_app_is_asked_for_where_it_is_not_known() {
        let nefia = find("nefia").unwrap();
        assert!(nefia.text(None, Some(Path::new("/home/me"))).unwrap().contains("root: \"/home/me/.nefia\""));
        assert!(nefia.text(Some(Path::new("/srv/a b")), None).unwrap().contains("root: \"/srv/a b\""));
        assert_eq!(nefia.text(None, None).unwrap_err().what(), "it is not known where nefia stands");
        for root in ["here", "/a\nb", ""] {
            let error = nefia.text(Some(Path::new(root)), None).unwrap_err();
            assert!(error.what().ends_with("is no absolute path of plain text"), "{error}");
        }
        for preset in PRESETS {
            assert!(!preset.text(Some(Path::new("/srv")), None).unwrap().contains(ROOT));
        }
    }
}
