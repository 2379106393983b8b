//! Tar archives made byte by byte, and ways to pack them.

use aws_lc_rs::digest::{SHA256, digest};

/// An archive in the making.
#[derive(Clone, Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    field[..width].copy_from_slice(format!("{number:0width$o}").as_bytes());
}

/// A header block; what `change` does is done before it is summed.
pub(super) fn header(kind: u8, name: &[u8], link: &[u8], size: u64, change: impl FnOnce(&mut [u8; 512])) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    octal(&mut block[100..108], if kind == b'5' { 0o755 } else { 0o644 });
    octal(&mut block[108..116], 0);
    octal(&mut block[116..124], 0);
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], 0);
    block[156] = kind;
    block[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], 0);
    octal(&mut block[337..345], 0);
    change(&mut block);
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

impl Tar {
    /// An entry that says it has `size` bytes of content, with `content` after it.
    pub(super) fn sized(
        mut self,
        kind: u8,
        name: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
        size: u64,
        content: &[u8],
    ) -> Self {
        self.0.extend(header(kind, name.as_ref(), link.as_ref(), size, |_| {}));
        self.padded(content)
    }

    /// An entry whose header is changed by hand.
    pub(super) fn changed(mut self, kind: u8, name: &str, content: &[u8], change: impl FnOnce(&mut [u8; 512])) -> Self {
        self.0.extend(header(kind, name.as_bytes(), b"", content.len() as u64, change));
        self.padded(content)
    }

    fn padded(mut self, content: &[u8]) -> Self {
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, name: impl AsRef<[u8]>) -> Self {
        self.sized(b'0', name, "", 4, b"evil")
    }

    pub(super) fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.sized(b'5', name, "", 0, b"")
    }

    pub(super) fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.sized(b'2', name, target, 0, b"")
    }

    pub(super) fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.sized(b'1', name, target, 0, b"")
    }

    /// A PAX header with data that may be no PAX data.
    pub(super) fn raw_pax(self, data: impl AsRef<[u8]>) -> Self {
        let data = data.as_ref();
        self.sized(b'x', "PaxHeaders/x", "", data.len() as u64, data)
    }

    pub(super) fn pax(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.raw_pax(record(key, value.as_ref()))
    }

    /// A long name (`L`) or a long target of a link (`K`), as GNU tar writes them.
    pub(super) fn long(self, kind: u8, name: impl AsRef<[u8]>) -> Self {
        let name = [name.as_ref(), b"\0"].concat();
        self.sized(kind, "././@LongLink", "", name.len() as u64, &name)
    }

    /// A PAX header that is for all entries after it.
    pub(super) fn global(self, data: impl AsRef<[u8]>) -> Self {
        let data = data.as_ref();
        self.sized(b'g', "g", "", data.len() as u64, data)
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

pub(super) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let len = (1..).map(|digits| rest + digits).find(|len| rest + len.to_string().len() == *len).expect("one fits");
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}

/// The manifest's record of an entry as [`Tar`] makes them; `target` of links.
pub(super) fn listed(kind: &str, path: &str, content: &[u8], target: &str) -> String {
    let mode = if kind == "dir" { "0755" } else { "0644" };
    let file = format!(r#""size":{},"sha256":"{}","#, content.len(), hex::encode(digest(&SHA256, content)));
    let file = if kind == "file" { file } else { String::new() };
    let target = if target.is_empty() { String::new() } else { format!(r#","target":"{target}""#) };
    format!(
        r#"{{"path":"{path}","type":"{kind}",{file}"mode":"{mode}","uid":0,"gid":0,"mtime":"0.000000000"{target}}}"#
    )
}

/// A manifest that lists `records`.
pub(super) fn manifest(format: &str, records: &[String]) -> String {
    format!(
        r#"{{"format":"{format}","tool":{{"name":"t","version":"1"}},"app":"a","host":"h","id":"{}",
"created":"2026-02-24T03:00:00Z","window_ms":0,"outcome":"good","sources":[],"files":[{}]}}"#,
        "0".repeat(32),
        records.join(",\n")
    )
}

/// An archive like ours: a manifest of `records`, then `body`.
pub(super) fn ours(records: &[String], body: Tar) -> Vec<u8> {
    with_manifest(&manifest("lifeboat/1", records), body)
}

pub(super) fn with_manifest(text: &str, body: Tar) -> Vec<u8> {
    let start = Tar::default().sized(b'0', "manifest.json", "", text.len() as u64, text.as_bytes());
    start.raw(&body.0).end()
}

/// The archive as one zstd frame of stored blocks, and of blocks that stand for a byte many times.
pub(super) fn zstd(tar: &[u8]) -> Vec<u8> {
    let mut frame = b"\x28\xb5\x2f\xfd\xe0".to_vec();
    frame.extend((tar.len() as u64).to_le_bytes());
    let mut chunks = tar.chunks(128 << 10).peekable();
    while let Some(chunk) = chunks.next() {
        let is_one_byte = chunk.len() > 1 && chunk.iter().all(|byte| *byte == chunk[0]);
        let len = u32::try_from(chunk.len()).expect("a block") << 3;
        let header = len | u32::from(is_one_byte) << 1 | u32::from(chunks.peek().is_none());
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(if is_one_byte { &chunk[..1] } else { chunk });
    }
    frame
}

/// The archive as one gzip member of stored blocks.
pub(super) fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut member = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
    let mut chunks = tar.chunks(65_535).peekable();
    while let Some(chunk) = chunks.next() {
        let len = u16::try_from(chunk.len()).expect("a block");
        member.push(u8::from(chunks.peek().is_none()));
        member.extend(len.to_le_bytes());
        member.extend((!len).to_le_bytes());
        member.extend(chunk);
    }
    if tar.is_empty() {
        member.extend(b"\x01\0\0\xff\xff");
    }
    let mut crc = !0_u32;
    for byte in tar {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0xedb8_8320 });
    }
    member.extend((!crc).to_le_bytes());
    member.extend(u32::try_from(tar.len()).expect("small").to_le_bytes());
    member
}

/// A number as GNU tar writes those that are too large for octal digits.
pub(super) fn base_256(number: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[0] = 0x80;
    field[4..].copy_from_slice(&number.to_be_bytes());
    field
}
