//! Secrets, and the keys that are made of them.

use std::fmt;

use aws_lc_rs::{hmac, pbkdf2};
use zeroize::Zeroizing;

use super::age::Identity;
use crate::{Error, ErrorKind, Result};

/// What the id of a key is the HMAC of, under the key for HMACs.
const ID_TEXT: &[u8] = b"lifeboat key id";
/// How much of that is the id.
const ID_BYTES: usize = 8;

/// A password, or the line of a key file. Never shown, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes `bytes` for one.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The first line of `text`, without its end, where there is anything in it.
    #[must_use]
    pub fn first_line(text: &[u8]) -> Option<Self> {
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (!line.is_empty()).then(|| Self::new(line.to_vec()))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What may open an envelope.
#[derive(Clone, Debug)]
pub enum Key {
    /// A password, or the line of a key file.
    Password(Secret),
    /// Identities of `age`.
    Identities(Vec<Identity>),
}

impl Key {
    pub(super) fn password(&self) -> Result<&Secret> {
        match self {
            Self::Password(secret) => Ok(secret),
            Self::Identities(_) => {
                Err(Error::new(ErrorKind::WrongKey, "an age identity does not open it; it needs its password or key"))
            }
        }
    }
}

/// `N` bytes of PBKDF2-HMAC-SHA256.
#[cfg(not(any(test, feature = "testing")))]
pub(super) fn derive<const N: usize>(secret: &Secret, salt: &[u8], iterations: u32) -> Result<Zeroizing<[u8; N]>> {
    pbkdf2::<N>(secret, salt, iterations)
}

/// The same for tests, which open the same file thousands of times.
#[cfg(any(test, feature = "testing"))]
pub(super) fn derive<const N: usize>(secret: &Secret, salt: &[u8], iterations: u32) -> Result<Zeroizing<[u8; N]>> {
    type Asked = (Vec<u8>, Vec<u8>, u32, usize);
    static KNOWN: std::sync::Mutex<Vec<(Asked, Vec<u8>)>> = std::sync::Mutex::new(Vec::new());
    let known = || KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let asked = (secret.expose().to_vec(), salt.to_vec(), iterations, N);
    let found = known().iter().find(|(one, _)| *one == asked).map(|(_, derived)| derived.clone());
    if let Some(found) = found {
        return Ok(Zeroizing::new(found.try_into().expect("it is as long as it was asked for")));
    }
    let derived = pbkdf2::<N>(secret, salt, iterations)?;
    let mut known = known();
    if known.len() == 256 {
        known.remove(0);
    }
    known.push((asked, derived.to_vec()));
    Ok(derived)
}

fn pbkdf2<const N: usize>(secret: &Secret, salt: &[u8], iterations: u32) -> Result<Zeroizing<[u8; N]>> {
    let mut out = Zeroizing::new([0; N]);
    let iterations = iterations.try_into().map_err(|_| Error::new(ErrorKind::Invalid, "no iterations"))?;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, secret.expose(), out.as_mut());
    Ok(out)
}

/// What tells a key for HMACs from others, in hex. It is as hard to find the
/// secret by it as by the file itself.
pub(super) fn id(mac_key: &hmac::Key) -> String {
    hex::encode(&hmac::sign(mac_key, ID_TEXT).as_ref()[..ID_BYTES])
}

/// What tells `secret` from others on the one host that has `salt`, in hex: as
/// hard to find the secret by it as by an archive.
///
/// # Errors
/// Never with a salt that is not empty.
pub fn fingerprint(secret: &Secret, salt: &[u8]) -> Result<String> {
    let derived = derive::<32>(secret, salt, super::OPENSSL_ITERATIONS)?;
    Ok(id(&hmac::Key::new(hmac::HMAC_SHA256, derived.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Key::Password(Secret::new(b"hidden".to_vec()))), "Password(***)");
    }
}
