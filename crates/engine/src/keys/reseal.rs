//! Another password for an archive: the same content is encrypted anew beside
//! it, read back, and only then takes its place.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use lifeboat_format::envelope::{self, Beside, Envelope, Facts, PASSWORD_ITERATIONS, Seal, Sealed, Secret};
use lifeboat_format::model::Summer;
use lifeboat_store as store;
use lifeboat_store::durable::Unnamed;

use super::{Keys, Question, open, secret};
use crate::destination::sidecar::{self, Sidecar};
use crate::{Cancel, Error, ErrorKind, Result};

/// How much is read in one step.
const STEP_BYTES: usize = 1 << 20;
const AS_IT_WAS: &str = "the archive is as it was, under its old password";

/// Gives the archive at `path` another password: the first line of `file`, else
/// one that a person types.
pub(crate) fn change(keys: Keys<'_>, path: &Path, file: Option<&Path>) -> Result<()> {
    let (sealed, old) = open::sealed(keys, path)?;
    let wanted = match file {
        Some(file) => secret::of_password_file(file)?,
        None => keys.ring.ask(Question::New)?.ok_or_else(|| {
            Error::new(ErrorKind::Usage, "there is no new password, and nobody to ask")
                .state(AS_IT_WAS)
                .next("give one with --new-password-file FILE")
        })?,
    };
    replace(&sealed, &old, path, wanted, &keys.ring.cancel).map_err(|error| error.state(AS_IT_WAS))
}

fn replace(sealed: &Arc<Sealed>, old: &std::fs::File, path: &Path, password: Secret, cancel: &Cancel) -> Result<()> {
    let seal = match sealed.envelope() {
        Envelope::Age => Seal::AgePassphrase(password),
        Envelope::Gcm => Seal::Gcm { password, iterations: PASSWORD_ITERATIONS },
        Envelope::Openssl => {
            return Err(Error::new(ErrorKind::Usage, "it is encrypted with a key file, and has no password")
                .next("`lifeboat key rotate` makes another key for what is backed up from now on"));
        }
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut writer = seal.begin(Unnamed::create(dir)?)?;
    let failed = |error: std::io::Error| Error::from(store::Error::io("write in", dir, error));
    let sum = pass(sealed, cancel, &mut |step| writer.write_all(step).map_err(failed))?;
    let (file, facts) = writer.finish().map_err(failed)?;
    check(&file, &seal, &facts, path, &sum, cancel)?;
    let mode = old.metadata().map_or(0o600, |metadata| metadata.permissions().mode() & 0o7777);
    let described = Sidecar::read(path);
    // As when an archive is removed: what describes it goes first.
    if described.is_some() {
        let described = sidecar::path_of(path);
        std::fs::remove_file(&described).map_err(|error| store::Error::io("replace", &described, error))?;
    }
    file.publish_over(Path::new(path.file_name().unwrap_or_default()), mode)?;
    if let Some(described) = described {
        let (size, sha256) = sidecar::sum(path, cancel)?;
        Sidecar { size, sha256, iterations: facts.iterations, key_id: facts.key_id, ..described }.write(path)?;
    }
    Ok(())
}

/// Hands on the whole plain text, and sums it.
fn pass(sealed: &Arc<Sealed>, cancel: &Cancel, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<String> {
    let damaged = |error: std::io::Error| match error.raw_os_error() {
        Some(_) => Error::from(store::Error::io("read", Path::new("the archive"), error)),
        None => Error::new(ErrorKind::Corrupt, format!("the archive is damaged: {error}")),
    };
    let mut reader = sealed.reader().map_err(damaged)?;
    let (mut summer, mut step) = (Summer::new(), vec![0; STEP_BYTES]);
    loop {
        cancel.check()?;
        match reader.read(&mut step).map_err(damaged)? {
            0 => return Ok(summer.finish().to_string()),
            read => {
                summer.update(&step[..read]);
                each(&step[..read])?;
            }
        }
    }
}

/// What was written opens with the new password, and holds the same.
fn check(file: &Unnamed, seal: &Seal, facts: &Facts, path: &Path, sum: &str, cancel: &Cancel) -> Result<()> {
    let file = file.file().try_clone().map_err(|error| store::Error::io("open", path, error))?;
    let beside = Beside { hmac: None, iterations: facts.iterations, key_id: facts.key_id.clone() };
    let keys: Vec<_> = seal.key().into_iter().collect();
    let reopened = Arc::new(envelope::open(Arc::new(file), path, &keys, &beside, cancel)?);
    if pass(&reopened, cancel, &mut |_| Ok(()))? == sum {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, "what was encrypted anew did not read back as it was written"))
}
