//! The engine as this process runs it: its clock, its directories, its
//! configuration. The only place that asks the environment for them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_engine::app::{App, Config, GuardProgram, load_config};
use lifeboat_engine::clock::SystemClock;
use lifeboat_engine::{Cancel, Result};

use crate::cli::{self, Cli, Command, Console};

/// What a configuration file is called.
pub(crate) const CONFIG_NAME: &str = "lifeboat.yaml";
/// Where systemd looks for what the host's administrator adds to units.
const SYSTEMD_DIR: &str = "/etc/systemd/system";

/// Builds it. Commands that need no configuration do not read one.
pub(crate) fn app(cli: &Cli, console: &Arc<Console>, cancel: &Cancel) -> Result<App<'static>> {
    let needs_config = match &cli.command {
        Command::Completions(_) | Command::Man(_) | Command::Init(_) | Command::Presets(_) => false,
        Command::Config(args) => args.needs_config(),
        _ => true,
    };
    let mut config = if needs_config { config(cli.options.config.as_deref())? } else { None };
    config.iter_mut().for_each(|config| config.set_home(home().as_deref()));
    if let Some(dir) = variable("LIFEBOAT_BACKUP_DIR").or_else(|| variable("BACKUP_PATH")) {
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        config.iter_mut().for_each(|config| config.set_backup_dir(&dir));
    }
    let configured = config.as_ref().and_then(|config| config.data_dir.clone());
    let data_dir = cli.options.data_dir.clone().or(configured).unwrap_or_else(default_data_dir);
    let app = App {
        clock: &SystemClock,
        data_dir: std::path::absolute(&data_dir).unwrap_or(data_dir),
        config,
        systemd_dir: cli.options.systemd_dir.clone().unwrap_or_else(|| SYSTEMD_DIR.into()),
        temp_dir: variable("TMPDIR").filter(|dir| dir.is_absolute()).unwrap_or_else(|| "/tmp".into()),
        guard: GuardProgram {
            // Where this program was found; without /proc, its name has to do.
            program: std::env::current_exe().unwrap_or_else(|_| "lifeboat".into()),
            arguments: vec![cli::GUARD.to_owned()],
        },
        keys: cli.options.secrets.keyring(console, cancel, secret)?,
    };
    app.misplaced_keys().iter().for_each(|line| console.warning(line));
    Ok(app)
}

/// The file that was named, else the first that exists.
fn config(named: Option<&Path>) -> Result<Option<Config>> {
    let home = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let usual = [Some(PathBuf::new()), home.map(|home| home.join("lifeboat")), Some("/etc/lifeboat".into())];
    let found = usual.into_iter().flatten().map(|dir| dir.join(CONFIG_NAME)).find(|path| path.exists());
    named.map(Path::to_owned).or(found).map(|path| load_config(&path)).transpose()
}

/// The home of whoever calls.
pub(crate) fn home() -> Option<PathBuf> {
    variable("HOME")
}

/// Where programs are looked for.
pub(crate) fn programs() -> Vec<PathBuf> {
    variable("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

fn default_data_dir() -> PathBuf {
    let of_user = || {
        let share = || variable("HOME").map(|home| home.join(".local/share"));
        variable("XDG_DATA_HOME").or_else(share).map(|dir| dir.join("lifeboat"))
    };
    let is_root = rustix::process::geteuid().is_root();
    let of_user = if is_root { None } else { of_user() };
    of_user.unwrap_or_else(|| "/var/lib/lifeboat".into())
}

fn variable(name: &str) -> Option<PathBuf> {
    secret(name).map(PathBuf::from)
}

#[expect(clippy::disallowed_methods, reason = "this is the surface that reads the environment")]
fn secret(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
