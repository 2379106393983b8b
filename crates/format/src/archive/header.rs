//! Headers of tar entries: ustar, with a PAX header before it for what ustar
//! cannot hold (POSIX.1-2017 pax; attributes as GNU tar's `SCHILY.xattr.*`).

use tar::{EntryType, Header};

use super::{BLOCK, padding, sparse};
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
/// How GNU tar names what it says of sparse files.
const SPARSE_PREFIX: &[u8] = b"GNU.sparse.";

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

/// The name of an extended attribute in a PAX key; one that no system has is refused.
fn attribute_name(key: &[u8]) -> Result<Vec<u8>> {
    let name = unescape_key(key);
    if name.is_empty() || name.len() > 255 || name.contains(&0) {
        return Err(malformed("an extended attribute has no possible name"));
    }
    Ok(name)
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

/// A header whose checksum is right: the sum of its bytes, or, as some old programs have it, of its bytes as signed ones.
pub(super) fn checked(block: &[u8]) -> Result<&Header> {
    let header = Header::from_byte_slice(block);
    let byte = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
    let unsigned: i128 = block.iter().enumerate().map(byte).map(i128::from).sum();
    let signed: i128 = block.iter().enumerate().map(byte).map(|byte| i128::from(byte.cast_signed())).sum();
    match number_of(&header.as_old().cksum) {
        // A field that was left blank says nothing, also where it would be right.
        Some(stored) if stored > 0 && (stored == unsigned || stored == signed) => Ok(header),
        _ => Err(Error::corrupt("a tar header's checksum is wrong")),
    }
}

/// The number in a field: octal digits, or base 256 as GNU tar and star write
/// what needs more. A blank field is 0. `None` for all else, such as `+1` or
/// `0x1`, which some readers take for numbers.
pub(super) fn number_of(field: &[u8]) -> Option<i128> {
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        // Two's complement in what follows the first bit.
        let first = i128::from(first & 0x7f) - if first & 0x40 == 0 { 0 } else { 0x80 };
        return Some(rest.iter().fold(first, |number, byte| number << 8 | i128::from(*byte)));
    }
    let text = field.trim_ascii_start();
    let len = text.iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
    // Some writers fill the whole field; what follows the first NUL or space is no part of the number.
    let is_ended = text.get(len).is_none_or(|byte| matches!(byte, 0 | b' '));
    let is_blank = || text.iter().all(|byte| matches!(byte, 0 | b' '));
    (is_ended && (len > 0 || is_blank()))
        .then(|| text[..len].iter().fold(0, |number, digit| number << 3 | i128::from(digit - b'0')))
}

/// The name in a header, with its prefix where it has one (POSIX.1-2017 ustar).
pub(super) fn name(header: &Header) -> Vec<u8> {
    let text = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let bytes = header.as_bytes();
    let name = text(&bytes[..100]);
    // Whatever version follows: most readers look at no more.
    let prefix = if &bytes[257..263] == b"ustar\0" { text(&bytes[345..500]) } else { Vec::new() };
    if prefix.is_empty() { name } else { [prefix.as_slice(), b"/", &name].concat() }
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
    pub(super) sparse: sparse::Records,
}

/// What global PAX headers say of every entry after them that does not say it itself.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    uid: Option<u32>,
    gid: Option<u32>,
    uname: Option<Vec<u8>>,
    gname: Option<Vec<u8>>,
    mtime: Option<FileTime>,
}

impl Defaults {
    /// Takes what one global header's data says. No two entries have the same
    /// name, size or attributes, so that it says those is a trick.
    pub(super) fn add_pax(&mut self, data: &[u8]) -> Result<()> {
        let mut said = Extensions::default();
        said.add_pax(data)?;
        let is_of_one = said.path.is_some()
            || said.linkpath.is_some()
            || said.size.is_some()
            || said.device != (None, None)
            || !said.xattrs.is_empty()
            || said.sparse.is_any();
        if is_of_one {
            return Err(Error::new(ErrorKind::Unsafe, "a global PAX header says what can only be said of one entry"));
        }
        self.uid = said.uid.or(self.uid);
        self.gid = said.gid.or(self.gid);
        self.uname = said.uname.or(self.uname.take());
        self.gname = said.gname.or(self.gname.take());
        self.mtime = said.mtime.or(self.mtime);
        Ok(())
    }
}

/// Sets what may be said once only: of two, readers take different ones.
fn once<T>(place: &mut Option<T>, value: T, key: &str) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed(&format!("{key} is there twice"))),
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Unsafe, format!("a PAX header is malformed: {what}"))
}

fn number<T: std::str::FromStr>(value: &[u8], key: &str) -> Result<T> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| malformed(&format!("{key} is no number")))
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
            if equals == 0 {
                return Err(malformed("no key"));
            }
            self.add(&record[..equals], &record[equals + 1..])?;
            data = &data[len..];
        }
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => once(&mut self.path, value.to_vec(), "path"),
            b"linkpath" => once(&mut self.linkpath, value.to_vec(), "linkpath"),
            b"size" => once(&mut self.size, number(value, "size")?, "size"),
            b"uid" => once(&mut self.uid, number(value, "uid")?, "uid"),
            b"gid" => once(&mut self.gid, number(value, "gid")?, "gid"),
            b"uname" => once(&mut self.uname, value.to_vec(), "uname"),
            b"gname" => once(&mut self.gname, value.to_vec(), "gname"),
            b"mtime" => {
                let mtime = parse_decimal(value).ok_or_else(|| malformed("mtime is no time"))?;
                once(&mut self.mtime, mtime, "mtime")
            }
            b"SCHILY.devmajor" => once(&mut self.device.0, number(value, "devmajor")?, "devmajor"),
            b"SCHILY.devminor" => once(&mut self.device.1, number(value, "devminor")?, "devminor"),
            _ => {
                if let Some(key) = key.strip_prefix(SPARSE_PREFIX) {
                    return self.sparse.add(key, value);
                }
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    self.xattrs.push((attribute_name(name)?, value.to_vec()));
                }
                Ok(())
            }
        }
    }

    /// Takes from global headers what no header of this entry says.
    pub(super) fn add_defaults(&mut self, defaults: &Defaults) {
        self.uid = self.uid.or(defaults.uid);
        self.gid = self.gid.or(defaults.gid);
        self.uname = self.uname.take().or_else(|| defaults.uname.clone());
        self.gname = self.gname.take().or_else(|| defaults.gname.clone());
        self.mtime = self.mtime.or(defaults.mtime);
    }

    /// The entry that `header` and these extensions describe, at `path`.
    pub(super) fn entry(self, header: &Header, path: EntryPath, kind: EntryKind, size: u64) -> Result<Entry> {
        let bad = |what: &str| Error::new(ErrorKind::Unsafe, format!("the header of \"{path}\" has a bad {what}"));
        let old = header.as_old();
        let id = |extended: Option<u32>, field: &[u8], what: &str| match extended {
            Some(id) => Ok(id),
            None => number_of(field).and_then(|id| u32::try_from(id).ok()).ok_or_else(|| bad(what)),
        };
        let mode = number_of(&old.mode).and_then(|mode| u32::try_from(mode).ok()).ok_or_else(|| bad("mode"))?;
        let (uid, gid) = (id(self.uid, &old.uid, "uid")?, id(self.gid, &old.gid, "gid")?);
        let plain_mtime = || number_of(&old.mtime).and_then(|seconds| i64::try_from(seconds).ok());
        let mtime = match self.mtime {
            Some(mtime) => mtime,
            None => FileTime { seconds: plain_mtime().ok_or_else(|| bad("mtime"))?, nanos: 0 },
        };
        let mut xattrs = self.xattrs;
        xattrs.sort();
        if xattrs.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(malformed("an extended attribute is there twice"));
        }
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
            xattrs: Xattrs::new(xattrs),
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
    fn numbers_of_fields_are_read_as_all_readers_read_them() {
        for (field, number) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b" 644 \0\0\0", Some(0o644)),
            (b"77777777777", Some(0o77_777_777_777)),
            (b"12\0 x", Some(0o12)),
            (b"\0\0\0\0", Some(0)),
            (b"    ", Some(0)),
            (b"\x80\0\0\x01\x02", Some(0x102)),
            (b"\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x01\0\0\0\0\0\0\x04", Some(0x0100_0000_0000_0004)),
            (b"\x81\0\0\0\0\0\0\0\0\0\0\x04", Some((1 << 88) + 4)),
            (b"9", None),
            (b"+7", None),
            (b"-7", None),
            (b"0x7", None),
            (b"1_0", None),
            (b"\x007\0", None),
        ] {
            assert_eq!(number_of(field), number, "{}", field.escape_ascii());
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
            "9 uid=1\n\n",
            "8 uid=1\n8 uid=1\n",
            "16 SCHILY.xattr.=x\n",
        ] {
            assert!(Extensions::default().add_pax(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
