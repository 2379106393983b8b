//! Headers of tar entries: ustar, with a PAX header before it for what ustar
//! cannot hold (POSIX.1-2017 pax; attributes as GNU tar's `SCHILY.xattr.*`).

use tar::{EntryType, Header};

use super::{BLOCK, padding};
use crate::model::{Entry, EntryKind, FileTime, Xattrs};
use crate::path::EntryPath;
use crate::{Error, ErrorKind, Result};

/// What a ustar header's size field holds at most: 11 octal digits.
const USTAR_SIZE_MAX: u64 = 0o777_7777_7777;
/// What its owner fields hold at most: 7 octal digits.
const USTAR_ID_MAX: u32 = 0o777_7777;
/// What its device fields hold at most.
const USTAR_DEVICE_MAX: u32 = 0o777_7777;
/// How PAX names an extended attribute.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// The header blocks of `entry`.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    encode_as_long_as(entry, entry.size)
}

/// The header blocks of `entry`, exactly as long as those of the same entry
/// with `first_size` bytes of content, which it was thought to have.
pub(super) fn encode_as_long_as(entry: &Entry, first_size: u64) -> Vec<u8> {
    let mut ustar = Header::new_ustar();
    let mut pax = Vec::new();
    set_names(entry, &mut ustar, &mut pax);
    ustar.set_entry_type(entry_type(entry.kind));
    ustar.set_mode(entry.mode);
    set_id(entry.uid, "uid", &mut pax, |id| ustar.set_uid(id));
    set_id(entry.gid, "gid", &mut pax, |id| ustar.set_gid(id));
    if first_size > USTAR_SIZE_MAX {
        // Leading zeros keep the record's length when the file turns out shorter.
        let width = first_size.to_string().len();
        push_record(&mut pax, b"size", format!("{:0width$}", entry.size).as_bytes());
    }
    // Also beside a PAX record where it fits, for readers that know no PAX.
    ustar.set_size(if entry.size > USTAR_SIZE_MAX { 0 } else { entry.size });
    set_mtime(entry.mtime, &mut ustar, &mut pax);
    if let Some((major, minor)) = entry.rdev {
        set_device(major, minor, &mut ustar, &mut pax);
    }
    for (name, value) in entry.xattrs.iter() {
        push_record(&mut pax, &[XATTR_PREFIX, &escape_key(name)].concat(), value);
    }
    ustar.set_cksum();
    let mut blocks = pax_blocks(entry, &pax);
    blocks.extend_from_slice(ustar.as_bytes());
    blocks
}

fn entry_type(kind: EntryKind) -> EntryType {
    match kind {
        EntryKind::File => EntryType::Regular,
        EntryKind::Dir => EntryType::Directory,
        EntryKind::Symlink => EntryType::Symlink,
        EntryKind::Hardlink => EntryType::Link,
        EntryKind::Fifo => EntryType::Fifo,
        EntryKind::Char => EntryType::Char,
        EntryKind::Block => EntryType::Block,
    }
}

fn set_names(entry: &Entry, ustar: &mut Header, pax: &mut Vec<u8>) {
    let mut path = entry.path.as_bytes().to_vec();
    if entry.kind == EntryKind::Dir {
        path.push(b'/');
    }
    let fields = ustar.as_ustar_mut().expect("made as ustar");
    fill(&mut fields.name, &path, b"path", pax);
    fill(&mut fields.linkname, &entry.target, b"linkpath", pax);
    fill(&mut fields.uname, &entry.user, b"uname", pax);
    fill(&mut fields.gname, &entry.group, b"gname", pax);
}

/// Puts `value` into a field, and what does not fit into a PAX record. User
/// and group fields end with a NUL, the others may be full.
fn fill(field: &mut [u8], value: &[u8], key: &[u8], pax: &mut Vec<u8>) {
    let room = if key.ends_with(b"name") { field.len() - 1 } else { field.len() };
    let fits = value.len().min(room);
    field[..fits].copy_from_slice(&value[..fits]);
    if value.len() > room {
        push_record(pax, key, value);
    }
}

fn set_id(id: u32, key: &str, pax: &mut Vec<u8>, mut set: impl FnMut(u64)) {
    if id > USTAR_ID_MAX {
        push_record(pax, key.as_bytes(), id.to_string().as_bytes());
        set(0);
    } else {
        set(u64::from(id));
    }
}

fn set_mtime(mtime: FileTime, ustar: &mut Header, pax: &mut Vec<u8>) {
    let whole = u64::try_from(mtime.seconds).ok().filter(|seconds| *seconds <= USTAR_SIZE_MAX);
    ustar.set_mtime(whole.unwrap_or(0));
    if whole.is_none() || mtime.nanos != 0 {
        push_record(pax, b"mtime", decimal(mtime).as_bytes());
    }
}

fn set_device(major: u32, minor: u32, ustar: &mut Header, pax: &mut Vec<u8>) {
    if major <= USTAR_DEVICE_MAX && minor <= USTAR_DEVICE_MAX {
        ustar.set_device_major(major).expect("made as ustar");
        ustar.set_device_minor(minor).expect("made as ustar");
    } else {
        push_record(pax, b"SCHILY.devmajor", major.to_string().as_bytes());
        push_record(pax, b"SCHILY.devminor", minor.to_string().as_bytes());
    }
}

/// A time as a decimal number of seconds, which PAX wants: 1.5 s before 1970
/// is `-1.5`, not `-2` and a half.
fn decimal(time: FileTime) -> String {
    let (sign, seconds, nanos) = match (time.seconds < 0, time.nanos) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", time.seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
    };
    let fraction = format!("{nanos:09}");
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { format!("{sign}{seconds}") } else { format!("{sign}{seconds}.{fraction}") }
}

fn parse_decimal(text: &[u8]) -> Option<FileTime> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || fraction.contains('.') {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let mut nanos_text = fraction.to_owned();
    nanos_text.truncate(9);
    let nanos: u32 = format!("{nanos_text:0<9}").parse().ok()?;
    match (negative, nanos) {
        (false, nanos) => Some(FileTime { seconds: whole, nanos }),
        (true, 0) => Some(FileTime { seconds: -whole, nanos: 0 }),
        (true, nanos) => Some(FileTime { seconds: -whole - 1, nanos: 1_000_000_000 - nanos }),
    }
}

/// An attribute's name as a part of a PAX key, which ends at the first `=`:
/// GNU tar writes `%` and `=` as `%25` and `%3D`.
fn escape_key(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' => key.extend_from_slice(b"%25"),
            b'=' => key.extend_from_slice(b"%3D"),
            byte => key.push(*byte),
        }
    }
    key
}

/// Takes back [`escape_key`].
fn unescape_key(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((byte, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'%', b'2', b'5', after @ ..] => (b'%', after),
            [b'%', b'3', b'D' | b'd', after @ ..] => (b'=', after),
            _ => (*byte, after),
        };
        name.push(byte);
        rest = after;
    }
    name
}

/// `LEN KEY=VALUE\n`, where LEN counts itself.
fn push_record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + rest.to_string().len();
    if rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    pax.extend_from_slice(len.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

/// The header and data blocks of PAX `records`; nothing for none.
fn pax_blocks(entry: &Entry, records: &[u8]) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    let mut header = Header::new_ustar();
    let name = [b"PaxHeaders/", entry.path.name()].concat();
    let field = &mut header.as_ustar_mut().expect("made as ustar").name;
    let fits = name.len().min(field.len());
    field[..fits].copy_from_slice(&name[..fits]);
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(records.len() as u64);
    header.set_cksum();
    let mut blocks = Vec::with_capacity(3 * BLOCK + records.len());
    blocks.extend_from_slice(header.as_bytes());
    blocks.extend_from_slice(records);
    blocks.resize(blocks.len() + padding(records.len() as u64), 0);
    blocks
}

/// A header whose checksum is right.
pub(super) fn checked(block: &[u8]) -> Result<&Header> {
    let header = Header::from_byte_slice(block);
    let sum: u32 =
        block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    match header.cksum() {
        Ok(stored) if stored == sum => Ok(header),
        _ => Err(Error::corrupt("a tar header's checksum is wrong")),
    }
}

/// Whether `block` is what a tar archive begins with: a header, or the zeros of an empty one.
pub(super) fn begins_an_entry(block: &[u8]) -> bool {
    checked(block).is_ok() || block.iter().all(|byte| *byte == 0)
}

/// What extension headers said about the entry that follows them.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    uname: Option<Vec<u8>>,
    gname: Option<Vec<u8>>,
    mtime: Option<FileTime>,
    device: (Option<u32>, Option<u32>),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Unsafe, format!("a PAX header is malformed: {what}"))
}

fn number<T: std::str::FromStr>(value: &[u8], key: &str) -> Result<T> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| malformed(&format!("{key} is no number")))
}

/// A number of a header; a field that was left blank, as in a volume's label, is 0.
pub(super) fn or_blank<T: Default>(field: &[u8], number: std::io::Result<T>) -> std::io::Result<T> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(T::default()) } else { number }
}

impl Extensions {
    /// Adds the records of one PAX header's data.
    pub(super) fn add_pax(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(|| malformed("no length"))?;
            let len: usize = number(&data[..space], "a length")?;
            if len <= space + 1 || len > data.len() || data[len - 1] != b'\n' {
                return Err(malformed("a record's length is wrong"));
            }
            let record = &data[space + 1..len - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(|| malformed("no ="))?;
            self.add(&record[..equals], &record[equals + 1..])?;
            data = &data[len..];
        }
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.linkpath = Some(value.to_vec()),
            b"size" => self.size = Some(number(value, "size")?),
            b"uid" => self.uid = Some(number(value, "uid")?),
            b"gid" => self.gid = Some(number(value, "gid")?),
            b"uname" => self.uname = Some(value.to_vec()),
            b"gname" => self.gname = Some(value.to_vec()),
            b"mtime" => self.mtime = Some(parse_decimal(value).ok_or_else(|| malformed("mtime is no time"))?),
            b"SCHILY.devmajor" => self.device.0 = Some(number(value, "devmajor")?),
            b"SCHILY.devminor" => self.device.1 = Some(number(value, "devminor")?),
            _ if key.starts_with(b"GNU.sparse.") => {
                let message = "the archive holds GNU sparse files; extract it with GNU tar";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    self.xattrs.push((unescape_key(name), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    /// The entry that `header` and these extensions describe, at `path`.
    pub(super) fn entry(self, header: &Header, path: EntryPath, kind: EntryKind, size: u64) -> Result<Entry> {
        let field = |field: std::io::Result<u64>, name: &str| {
            field.map_err(|_| Error::corrupt(format!("the header of \"{path}\" has a bad {name}")))
        };
        let id = |extended: Option<u32>, plain: std::io::Result<u64>, name: &str| match extended {
            Some(id) => Ok(id),
            None => u32::try_from(field(plain, name)?)
                .map_err(|_| Error::corrupt(format!("the header of \"{path}\" has a bad {name}"))),
        };
        let old = header.as_old();
        let mode = or_blank(&old.mode, header.mode());
        let mode = mode.map_err(|_| Error::corrupt(format!("the header of \"{path}\" has a bad mode")))?;
        let uid = id(self.uid, or_blank(&old.uid, header.uid()), "uid")?;
        let gid = id(self.gid, or_blank(&old.gid, header.gid()), "gid")?;
        let mtime = match self.mtime {
            Some(mtime) => mtime,
            // GNU tar writes times before 1970 as a negative base-256 number, which reads as a huge one.
            None => FileTime { seconds: field(or_blank(&old.mtime, header.mtime()), "mtime")?.cast_signed(), nanos: 0 },
        };
        let target = match self.linkpath {
            Some(target) => target,
            None => header.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default(),
        };
        let is_device = matches!(kind, EntryKind::Char | EntryKind::Block);
        let is_link = matches!(kind, EntryKind::Symlink | EntryKind::Hardlink);
        let plain_device = || (header.device_major().ok().flatten(), header.device_minor().ok().flatten());
        let device = if self.device.0.is_some() { self.device } else { plain_device() };
        Ok(Entry {
            kind,
            size,
            mode: mode & 0o7777,
            uid,
            gid,
            user: self.uname.unwrap_or_else(|| header.username_bytes().unwrap_or_default().to_vec()),
            group: self.gname.unwrap_or_else(|| header.groupname_bytes().unwrap_or_default().to_vec()),
            mtime,
            target: if is_link { target } else { Vec::new() },
            rdev: is_device.then(|| (device.0.unwrap_or(0), device.1.unwrap_or(0))),
            xattrs: Xattrs::new(self.xattrs),
            sparse: false,
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_their_decimal_form() {
        for (seconds, nanos, text) in [
            (0, 0, "0"),
            (1, 500_000_000, "1.5"),
            (-2, 500_000_000, "-1.5"),
            (-1, 999_999_999, "-0.000000001"),
            (-3, 0, "-3"),
        ] {
            let time = FileTime { seconds, nanos };
            assert_eq!(decimal(time), text);
            assert_eq!(parse_decimal(text.as_bytes()), Some(time));
        }
        assert_eq!(parse_decimal(b"1.1234567899"), Some(FileTime { seconds: 1, nanos: 123_456_789 }));
        for bad in ["", "-", ".5", "1.2.3", "1e3", "+1", "99999999999999999999"] {
            assert_eq!(parse_decimal(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_record_counts_its_own_length_also_where_a_digit_is_added() {
        for len in [0, 1, 85, 86, 87, 88, 89, 90, 985, 986, 987, 988, 989, 990, 991, 5000] {
            let mut pax = Vec::new();
            push_record(&mut pax, b"path", &vec![b'x'; len]);
            let mut extensions = Extensions::default();
            extensions.add_pax(&pax).unwrap();
            assert_eq!(extensions.path.unwrap().len(), len);
        }
    }

    #[test]
    fn an_attribute_whose_name_holds_an_equals_sign_survives() {
        for name in ["user.a=b", "user.%3D", "user.100%", "user.%25=%", "user.plain"] {
            assert_eq!(unescape_key(&escape_key(name.as_bytes())), name.as_bytes());
            assert!(!escape_key(name.as_bytes()).contains(&b'='));
        }
    }

    #[test]
    fn malformed_pax_data_is_refused() {
        for bad in [
            "x",
            "4 a=\n",
            "7 a=b\n",
            "6 ab\n\n\n",
            "12 size=-100\n",
            "0 a=b\n",
            "99999999999999999999 a=b\n",
            "-6 a=b\n",
        ] {
            assert!(Extensions::default().add_pax(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
