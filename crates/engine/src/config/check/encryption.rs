//! The rules of `encryption`: what each envelope needs, and that no key lies
//! where the backups do.

use std::path::{Path, PathBuf};

use lifeboat_format::envelope::{Envelope, ITERATIONS, Recipient};
use serde_saphyr::Location;

use super::values::{absolute, argv, quoted};
use super::{Checked, raw};
use crate::config::raw::{At, Encryption as Raw, Wrong};
use crate::config::{Encryption, SecretFrom};

/// `places` are the directories that archives go to.
pub(super) fn encryption(place: Location, found: Raw, places: &[&Path]) -> Checked<Encryption> {
    let envelope = match &found.envelope {
        None => Envelope::Age,
        Some(name) => {
            let known = Envelope::ALL.map(Envelope::name);
            let named = Envelope::named(&name.value);
            named.ok_or_else(|| Wrong::at(name.place, raw::unknown("envelope", &name.value, &known)))?
        }
    };
    only_of(envelope, Envelope::Age, "recipients", found.recipients.first().map(|one| one.place))?;
    only_of(envelope, Envelope::Age, "recipients_file", found.recipients_file.as_ref().map(|file| file.place))?;
    only_of(envelope, Envelope::Age, "identity_file", found.identity_file.as_ref().map(|file| file.place))?;
    only_of(envelope, Envelope::Openssl, "key_file", found.key_file.as_ref().map(|file| file.place))?;
    let has_recipients = !found.recipients.is_empty() || found.recipients_file.is_some();
    let iterations = found.iterations.map(|count| iterations(&count, envelope)).transpose()?;
    let away = |file: At<String>| away(file, places);
    let password = password(found.password_file, found.password_command, found.password_env, found.password_credential);
    let password = match password? {
        Some((place, _)) if envelope == Envelope::Openssl => {
            let what = "`openssl` takes no password, which could be found out, expected `key_file`";
            return Err(Wrong::at(place, what));
        }
        Some((place, _)) if has_recipients => {
            return Err(Wrong::at(place, "there are recipients too, expected either them or a password"));
        }
        Some((_, (place, SecretFrom::File(path)))) => {
            Some(SecretFrom::File(self::away(At { place, value: path.to_string_lossy().into_owned() }, places)?))
        }
        Some((_, (_, from))) => Some(from),
        None => None,
    };
    if envelope == Envelope::Openssl && found.key_file.is_none() {
        return Err(Wrong::at(place, "the key `key_file` is missing, expected it for the envelope `openssl`"));
    }
    Ok(Encryption {
        is_enabled: found.enabled.unwrap_or(true),
        envelope,
        recipients: found.recipients.into_iter().map(recipient).collect::<Checked<_>>()?,
        recipients_file: found.recipients_file.map(absolute).transpose()?,
        identity_file: found.identity_file.map(away).transpose()?,
        key_file: found.key_file.map(away).transpose()?,
        old_key_files: found.old_key_files.into_iter().map(away).collect::<Checked<_>>()?,
        password,
        iterations,
        wants_keychain: found.keychain,
    })
}

fn only_of(envelope: Envelope, of: Envelope, key: &str, place: Option<Location>) -> Checked<()> {
    match place {
        Some(place) if envelope != of => {
            let what = format!("`{key}` belongs to the envelope `{}`, not to `{}`", of.name(), envelope.name());
            Err(Wrong::at(place, what))
        }
        _ => Ok(()),
    }
}

/// A backup that lies beside its key protects nobody, and is lost with it.
fn away(file: At<String>, places: &[&Path]) -> Checked<PathBuf> {
    let place = file.place;
    let path = absolute(file)?;
    match places.iter().find(|dir| dir.is_absolute() && path.starts_with(dir)) {
        None => Ok(path),
        Some(dir) => {
            let what = format!(
                "{} lies where the backups do ({}), expected a place away from them",
                quoted(&path.to_string_lossy()),
                dir.display()
            );
            Err(Wrong::at(place, what))
        }
    }
}

fn recipient(text: At<String>) -> Checked<Recipient> {
    if text.value.starts_with("AGE-SECRET-KEY-") {
        // Not shown: it is a secret.
        return Err(Wrong::at(text.place, "this is an identity, which is secret; expected its recipient (age1…)"));
    }
    text.value
        .parse()
        .map_err(|_| Wrong::at(text.place, format!("{} is no recipient of age, expected `age1…`", quoted(&text.value))))
}

fn iterations(count: &At<u32>, envelope: Envelope) -> Checked<u32> {
    if envelope == Envelope::Age {
        return Err(Wrong::at(count.place, "`age` has none, expected them of `openssl` or `aes-256-gcm`"));
    }
    if ITERATIONS.contains(&count.value) {
        return Ok(count.value);
    }
    let what = format!("{} is out of range, expected {} to {}", count.value, ITERATIONS.start(), ITERATIONS.end());
    Err(Wrong::at(count.place, what))
}

type Found = Option<(Location, (Location, SecretFrom))>;

/// The one way to the password that is given; two are a mistake.
fn password(
    file: Option<At<String>>,
    command: Option<At<Vec<String>>>,
    env: Option<At<String>>,
    credential: Option<At<String>>,
) -> Checked<Found> {
    let mut found: Vec<(Location, SecretFrom)> = Vec::new();
    if let Some(file) = file {
        found.push((file.place, SecretFrom::File(absolute(file)?)));
    }
    if let Some(command) = command {
        found.push((command.place, SecretFrom::Command(argv(command)?)));
    }
    if let Some(env) = env {
        found.push((env.place, SecretFrom::Env(env.value)));
    }
    if let Some(credential) = credential {
        found.push((credential.place, SecretFrom::Credential(credential.value)));
    }
    match found.len() {
        0 | 1 => Ok(found.pop().map(|one| (one.0, one))),
        _ => Err(Wrong::at(found[1].0, "the password is given twice, expected one of the ways to it")),
    }
}
