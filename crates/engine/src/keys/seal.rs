//! What a new archive is encrypted with: what is asked for, else what is
//! configured. A key that is missing is made only where it locks nobody out.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_format::envelope::{Envelope, Key, OPENSSL_ITERATIONS, PASSWORD_ITERATIONS, Recipient, Seal, Secret};
use lifeboat_store::durable::Unnamed;
use zeroize::Zeroizing;

use super::{Keys, Question, care, secret};
use crate::config::{AppConfig, Encryption};
use crate::{Error, ErrorKind, Result};

/// The random bytes of a key that is made.
const KEY_BYTES: usize = 32;
/// Its mode.
const KEY_MODE: u32 = 0o600;

/// How an archive is to be encrypted, where that is not as configured.
#[derive(Clone, Debug, Default)]
pub struct SealRequest {
    /// Whether at all.
    pub is_wanted: Option<bool>,
    /// In which envelope.
    pub envelope: Option<Envelope>,
    /// To whom, in `age`.
    pub recipients: Vec<String>,
    /// With a password, whomever the configuration names as recipients.
    pub by_password: bool,
}

/// What is encrypted.
#[derive(Clone, Copy)]
pub(crate) struct Sealing<'a> {
    pub(crate) app: Option<&'a AppConfig>,
    /// An encrypted archive that is known of the app.
    pub(crate) known: &'a dyn Fn() -> Option<PathBuf>,
    /// Is told of a key that was made.
    pub(crate) made: &'a dyn Fn(&Path),
    /// Whether nothing may be written, and nobody asked.
    pub(crate) is_rehearsal: bool,
}

impl SealRequest {
    /// Whether an archive of `app` is encrypted.
    pub(crate) fn is_wanted(&self, app: Option<&AppConfig>) -> bool {
        let configured = || app.and_then(|app| app.encryption.as_ref()).is_some_and(|found| found.is_enabled);
        self.is_wanted.unwrap_or_else(|| self.envelope.is_some() || !self.recipients.is_empty() || configured())
    }

    /// The envelope of an archive of `app`, if it is encrypted.
    pub(crate) fn envelope(&self, app: Option<&AppConfig>) -> Option<Envelope> {
        let configured = || app.and_then(|app| app.encryption.as_ref()).map(|found| found.envelope);
        let asked = self.envelope.or((!self.recipients.is_empty()).then_some(Envelope::Age));
        self.is_wanted(app).then(|| asked.or_else(configured).unwrap_or(Envelope::Age))
    }
}

pub(super) fn seal(keys: Keys<'_>, request: &SealRequest, job: Sealing<'_>) -> Result<Option<Seal>> {
    let Some(envelope) = request.envelope(job.app) else { return Ok(None) };
    // What is configured for another envelope does not fit this one.
    let configured = job.app.and_then(|app| app.encryption.as_ref()).filter(|found| found.envelope == envelope);
    if !request.recipients.is_empty() && envelope != Envelope::Age {
        return Err(usage(format!("--recipient belongs to the envelope `age`, not to `{}`", envelope.name())));
    }
    let iterations = configured.and_then(|found| found.iterations);
    let seal = match envelope {
        Envelope::Age => {
            let recipients = recipients(keys, request, configured)?;
            if recipients.is_empty() {
                Seal::AgePassphrase(password(keys, configured, job.is_rehearsal)?)
            } else {
                Seal::Age(recipients)
            }
        }
        Envelope::Openssl => {
            Seal::Openssl { key: key(keys, configured, job)?, iterations: iterations.unwrap_or(OPENSSL_ITERATIONS) }
        }
        Envelope::Gcm => Seal::Gcm {
            password: password(keys, configured, job.is_rehearsal)?,
            iterations: iterations.unwrap_or(PASSWORD_ITERATIONS),
        },
    };
    Ok(Some(seal))
}

fn usage(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, what)
}

fn recipients(keys: Keys<'_>, request: &SealRequest, configured: Option<&Encryption>) -> Result<Vec<Recipient>> {
    let mut all = Vec::new();
    for text in &request.recipients {
        if text.starts_with("AGE-SECRET-KEY-") {
            return Err(usage("--recipient was given an identity, which is secret")
                .next("give its recipient (age1…); the identity is known to others now: make a new one"));
        }
        all.push(text.parse().map_err(|error| usage(format!("--recipient {text}: {error}")))?);
    }
    let is_given = request.by_password || keys.ring.password.is_some() || !all.is_empty();
    if let Some(found) = configured.filter(|_| !is_given) {
        all.extend(configured_recipients(found)?);
    }
    Ok(all)
}

/// Whom `lifeboat.yaml` encrypts to: nobody where it names a password.
pub(super) fn configured_recipients(found: &Encryption) -> Result<Vec<Recipient>> {
    let mut all = found.recipients.clone();
    if let Some(path) = &found.recipients_file {
        let text = crate::reach::read_text(path)?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |error| usage(format!("{}: {error}", path.display()));
            all.push(line.parse().map_err(wrong)?);
        }
    }
    if let (true, None, Some(path)) = (all.is_empty(), &found.password, &found.identity_file) {
        all.extend(secret::of_identity_file(path)?.iter().map(lifeboat_format::envelope::Identity::recipient));
    }
    Ok(all)
}

fn password(keys: Keys<'_>, configured: Option<&Encryption>, is_rehearsal: bool) -> Result<Secret> {
    if let Some(given) = keys.ring.given()? {
        return Ok(given);
    }
    if let Some(from) = configured.and_then(|found| found.password.as_ref()) {
        return keys.ring.read(from);
    }
    if is_rehearsal {
        // Nobody is asked for what is not used.
        return Ok(Secret::new(Vec::new()));
    }
    // Several apps in one run are asked for once.
    if let Some(known) = keys.ring.state().asked.first() {
        return Ok(known.clone());
    }
    keys.ring.ask(Question::New)?.ok_or_else(|| {
        Error::new(ErrorKind::WrongKey, "there is no password to encrypt with, and nobody to ask")
            .next("give one with --password-file FILE, or encrypt to a recipient with --recipient age1…")
    })
}

fn key(keys: Keys<'_>, configured: Option<&Encryption>, job: Sealing<'_>) -> Result<Secret> {
    let given = keys.ring.key_files.first();
    let path = given.or_else(|| configured.and_then(|found| found.key_file.as_ref()));
    let Some(path) = path else {
        return Err(usage("the envelope `openssl` needs a key file: a password could be found out")
            .next("name one with --key-file FILE; `openssl rand -base64 32` makes one"));
    };
    if path.symlink_metadata().is_ok() {
        return secret::of_key_file(path);
    }
    if let Some(known) = (job.known)() {
        let what = format!(
            "the key {} is missing, and {} is encrypted with it: a new one would not open that",
            path.display(),
            known.display()
        );
        let command = match job.app {
            Some(app) if given.is_none() => format!("lifeboat key generate {}", app.name),
            _ => format!("lifeboat key generate --envelope openssl --output {}", path.display()),
        };
        return Err(Error::new(ErrorKind::WrongKey, what)
            .next(format!("put the key back; for a new one on purpose: {command}")));
    }
    if job.is_rehearsal {
        return Ok(Secret::new(Vec::new()));
    }
    care::refuse_configured(keys.config, path)?;
    let line = generate(path)?;
    (job.made)(path);
    Ok(line)
}

/// Makes the key file at `path`, which must not exist.
fn generate(path: &Path) -> Result<Secret> {
    let line = new_line()?;
    write(path, &Zeroizing::new([line.expose(), b"\n"].concat()))?;
    Ok(line)
}

/// A new line of a key file.
pub(super) fn new_line() -> Result<Secret> {
    secret::protect();
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(bytes.as_mut())
        .map_err(|error| Error::new(ErrorKind::Failed, format!("the system has no random bytes: {error}")))?;
    Ok(Secret::new(STANDARD.encode(bytes.as_slice()).into_bytes()))
}

/// Writes a file that only its owner reads. One that is there is not touched.
pub(crate) fn write(path: &Path, text: &[u8]) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(|error| lifeboat_store::Error::io("create the directory", dir, error))?;
    let mut file = Unnamed::create(dir)?;
    file.append(text)?;
    file.publish([path.file_name().unwrap_or_default()], KEY_MODE)?;
    Ok(())
}

/// The identities of `recipients` that are here.
pub(super) fn identities(keys: Keys<'_>, recipients: &[Recipient], app: Option<&AppConfig>) -> Option<Key> {
    let configured = app.and_then(|app| app.encryption.as_ref()).and_then(|found| found.identity_file.as_ref());
    // Until `recipients` names the new one, archives are for an identity whose place another took.
    let older: Vec<PathBuf> = configured.map(|file| care::older(file)).unwrap_or_default();
    let files = keys.ring.identity_files.iter().chain(configured).chain(&older).filter(|file| file.exists());
    let all = files.filter_map(|file| secret::of_identity_file(file).ok()).flatten();
    let all: Vec<_> = all.filter(|identity| recipients.contains(&identity.recipient())).collect();
    (!all.is_empty()).then_some(Key::Identities(all))
}
