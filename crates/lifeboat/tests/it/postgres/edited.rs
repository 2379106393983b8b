//! Archives that say something else than what was backed up, with sums that agree.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::env::TestEnv;

const BLOCK: usize = 512;
const MANIFEST: &str = "manifest.json";

/// What an archive holds: its manifest, and its files by path.
pub(crate) struct Edited {
    pub(crate) manifest: Value,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Edited {
    /// What the manifest records of the database `number` of the only source.
    pub(crate) fn database(&mut self, number: usize) -> &mut Value {
        &mut self.postgres()["databases"][number]
    }

    /// What the manifest records of the only source of databases.
    pub(crate) fn postgres(&mut self) -> &mut Value {
        &mut self.manifest["sources"][0]["details"]["postgres"]
    }

    /// The dump of the database `number`.
    pub(crate) fn dump(&mut self, number: usize) -> &mut Vec<u8> {
        let path = self.database(number)["path"].as_str().unwrap().to_owned();
        self.files.get_mut(&path).expect("the manifest names it")
    }
}

/// Writes `to`, which is `from` after `edit`.
pub(crate) fn edit(env: &TestEnv, from: &str, to: &str, edit: impl FnOnce(&mut Edited)) {
    let tar = env.run("zstd", ["-dc", from]).ok().bytes;
    let entries = read(&tar);
    let is_file = |header: &[u8]| matches!(header[156], b'0' | 0);
    let files = entries.iter().filter(|(header, name, _)| is_file(header) && name != MANIFEST);
    let files = files.map(|(_, name, content)| (name.clone(), content.to_vec())).collect();
    let manifest = entries.iter().find(|(_, name, _)| name == MANIFEST).expect("ours have one").2;
    let mut edited = Edited { manifest: serde_json::from_slice(manifest).unwrap(), files };
    edit(&mut edited);
    let Edited { mut manifest, files } = edited;
    for record in manifest["files"].as_array_mut().unwrap() {
        if let Some(content) = record["path"].as_str().and_then(|path| files.get(path)) {
            record["size"] = json!(content.len());
            record["sha256"] = json!(hex::encode(digest(&SHA256, content)));
        }
    }
    manifest["totals"]["bytes"] = json!(files.values().map(Vec::len).sum::<usize>());
    let manifest = in_order(&manifest);
    let mut tar = Vec::new();
    for number in 0..entries.len() {
        let (header, name, content) = &entries[number];
        let of_next = entries.get(number + 1).filter(|_| header[156] == b'x').and_then(|(_, next, _)| files.get(next));
        if let Some(next) = of_next {
            write(&mut tar, header, &with_size(content, next.len()));
            continue;
        }
        let content = match files.get(name).filter(|_| is_file(header)) {
            _ if name == MANIFEST => manifest.as_bytes(),
            Some(content) => content,
            None => content,
        };
        write(&mut tar, header, content);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    env.write("edited.tar", tar);
    env.run("zstd", ["-q", "-f", "edited.tar", "-o", to]).ok();
    std::fs::remove_file(env.path("edited.tar")).unwrap();
}

/// `format` stands first, and the list of files last.
fn in_order(manifest: &Value) -> String {
    let own = manifest.as_object().unwrap();
    let others = own.iter().filter(|(key, _)| *key != "format" && *key != "files");
    let others: String = others.map(|(key, value)| format!("{}:{value},", json!(key))).collect();
    let records: Vec<String> = own["files"].as_array().unwrap().iter().map(Value::to_string).collect();
    format!("{{\"format\":{},{others}\"files\":[\n{}\n]}}", own["format"], records.join(",\n"))
}

/// The entries: header, name, content. Those of PAX are entries too.
fn read(tar: &[u8]) -> Vec<(&[u8], String, &[u8])> {
    let mut entries = Vec::new();
    let mut at = 0;
    while tar[at..at + BLOCK].iter().any(|byte| *byte != 0) {
        let header = &tar[at..at + BLOCK];
        let text = |from: usize, len: usize| {
            let field = &header[from..from + len];
            String::from_utf8(field.split(|byte| *byte == 0).next().unwrap().to_vec()).unwrap()
        };
        let (prefix, name) = (text(345, 155), text(0, 100));
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let size = usize::from_str_radix(text(124, 12).trim(), 8).unwrap();
        at += BLOCK;
        entries.push((header, name, &tar[at..at + size]));
        at += size.next_multiple_of(BLOCK);
    }
    entries
}

/// PAX records that say a size of as many digits, with zeros before it.
fn with_size(records: &[u8], size: usize) -> Vec<u8> {
    let mut records = records.to_vec();
    if let Some(at) = records.windows(6).position(|part| part == b" size=") {
        let width = records[at + 6..].iter().position(|byte| *byte == b'\n').unwrap();
        records[at + 6..at + 6 + width].copy_from_slice(format!("{size:0width$}").as_bytes());
    }
    records
}

fn write(tar: &mut Vec<u8>, header: &[u8], content: &[u8]) {
    let mut header = header.to_vec();
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(header);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}
