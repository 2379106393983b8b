//! A path or name as bytes, in a journal that is text: a string where it is
//! UTF-8, `{"base64": …}` where it is not.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lifeboat_format::path::shown;
use serde::{Deserialize, Serialize};

/// Bytes that name something.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub(super) struct Name(pub(super) Vec<u8>);

impl Name {
    pub(super) fn of(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }

    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Other { base64: String },
}

impl From<Name> for Written {
    fn from(name: Name) -> Self {
        match String::from_utf8(name.0) {
            Ok(text) => Self::Text(text),
            Err(other) => Self::Other { base64: BASE64.encode(other.as_bytes()) },
        }
    }
}

impl TryFrom<Written> for Name {
    type Error = base64::DecodeError;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Text(text) => Ok(Self(text.into_bytes())),
            Written::Other { base64 } => BASE64.decode(base64).map(Self),
        }
    }
}

/// `dir` and `name` joined; an empty `dir` is the top.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => dir.to_vec(),
        _ => [dir, b"/", name].concat(),
    }
}

/// The directory that `path` stands in (empty: the top), and its last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    }
}

/// What of `path` lies below `dir`: empty for `dir` itself, `None` elsewhere.
pub(super) fn below<'a>(path: &'a [u8], dir: &[u8]) -> Option<&'a [u8]> {
    if dir.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(dir)? {
        [] => Some(&path[..0]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_json_whatever_its_bytes() {
        for name in [&b"a/b"[..], b"", b"\xff\n\"", "\u{fc}".as_bytes()] {
            let name = Name(name.to_vec());
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name, "{json}");
        }
    }

    #[test]
    fn below_goes_by_components() {
        assert_eq!(below(b"a/b/c", b"a"), Some(&b"b/c"[..]));
        assert_eq!(below(b"a", b"a"), Some(&b""[..]));
        assert_eq!(below(b"ab", b"a"), None);
        assert_eq!(below(b"ab", b""), Some(&b"ab"[..]));
        assert_eq!((split(b"a/b"), split(b"a")), ((&b"a"[..], &b"b"[..]), (&b""[..], &b"a"[..])));
        assert_eq!(
            (join(b"", b"a"), join(b"a", b"b"), join(b"a", b"")),
            (b"a".to_vec(), b"a/b".to_vec(), b"a".to_vec())
        );
    }
}
