//! A key on a page of plain text, in groups that a person can type back, and a
//! key as somebody brings it: the copy of a file, or the page.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_format::envelope::{Envelope, Identity, Secret};
use lifeboat_format::model::Sha256;
use zeroize::Zeroizing;

use super::Material;
use super::material::IDENTITY;
use crate::{Error, ErrorKind, Result};

/// Letters in a group, and groups in a line.
const GROUP: usize = 4;
const GROUPS: usize = 8;
/// What stands before the groups, and before the check value.
const KEY: &str = "key:";
const CHECK: &str = "check:";
/// The random bytes of a key that Lifeboat or `openssl rand -base64 32` made.
const KEY_BYTES: usize = 32;

/// What a page says besides the key.
pub(super) struct About<'a> {
    pub(super) app: Option<&'a str>,
    pub(super) host: &'a str,
    pub(super) date: &'a str,
    /// Iterations of PBKDF2 of its archives.
    pub(super) iterations: u32,
}

/// The page.
///
/// # Errors
/// When the key has characters that cannot be typed back from groups.
pub(super) fn page(about: &About<'_>, material: &Material) -> Result<Zeroizing<String>> {
    let mut page = Zeroizing::new(String::with_capacity(4 << 10));
    let mut line = |text: &str| {
        page.push_str(text);
        page.push('\n');
    };
    let is_age = material.envelope == Envelope::Age;
    line("Lifeboat key. Keep this page away from the machine and from the backups.");
    line("Who has it opens the backups; when the machine and every copy of it are lost, nobody does.");
    line("");
    line(&format!("App:    {}", about.app.unwrap_or("-")));
    line(&format!("Host:   {}", about.host));
    line(&format!("Date:   {}", about.date));
    line(if is_age { "What:   identity of age" } else { "What:   the line of a key file of openssl" });
    for recipient in material.recipients() {
        line(&format!("Opens:  what is encrypted to {recipient}"));
    }
    for secret in material.lines() {
        line("Key:");
        groups(&secret)?.iter().for_each(|text| line(text));
        line(&format!("Check:  {}", check_value(secret.expose())));
    }
    line("(Spaces and ends of lines mean nothing; upper and lower case differ.)");
    line("");
    line("To open a backup without Lifeboat, write the key into a file key.txt, on one line and without");
    line("spaces, then:");
    if is_age {
        line("    age -d -i key.txt -o BACKUP.tar.zst BACKUP.tar.zst.age");
    } else {
        let iterations = about.iterations;
        line(&format!("    openssl enc -d -aes-256-cbc -pbkdf2 -iter {iterations} -pass file:key.txt \\"));
        line("        -in BACKUP.tar.zst.enc -out BACKUP.tar.zst");
    }
    line("    tar -xf BACKUP.tar.zst");
    line("");
    line("To bring the key back, type the lines from \"Key:\" to \"Check:\" into a file, then:");
    line(&format!("    lifeboat key import FILE {}", about.app.unwrap_or("APP")));
    Ok(page)
}

/// The lines of groups of a secret.
fn groups(secret: &Secret) -> Result<Vec<Zeroizing<String>>> {
    let text = secret.expose();
    if !text.iter().all(u8::is_ascii_graphic) {
        let what = "the key has spaces or other characters that are not safely typed back";
        return Err(super::usage(what, "export a copy of its file instead: --output FILE"));
    }
    let (prefix, rest) = text.split_at(if text.starts_with(IDENTITY.as_bytes()) { IDENTITY.len() } else { 0 });
    let mut all: Vec<&[u8]> = Vec::new();
    all.extend((!prefix.is_empty()).then_some(prefix));
    all.extend(rest.chunks(GROUP));
    let line = |groups: &[&[u8]]| {
        let mut line = Zeroizing::new(String::with_capacity(64));
        for group in groups {
            let gap = if line.is_empty() { "    " } else { " " };
            line.push_str(gap);
            line.extend(group.iter().map(|byte| char::from(*byte)));
        }
        line
    };
    Ok(all.chunks(GROUPS).map(line).collect())
}

/// Shows a slip of whoever types the key. It stands beside the key only.
fn check_value(secret: &[u8]) -> String {
    Sha256::of(secret).to_string()[..8].to_owned()
}

/// The key in `raw`, which came from the file at `path`: the copy of a file, or a page, or what was typed of one.
///
/// # Errors
/// [`ErrorKind::WrongKey`] when it holds none, or its check value differs.
pub(super) fn parse(raw: &[u8], path: &Path) -> Result<Material> {
    let wrong = |what: &str| Error::new(ErrorKind::WrongKey, format!("{}: {what}", path.display()));
    let text = std::str::from_utf8(raw).map_err(|_| wrong("it is no text, and no key"))?;
    if let Ok(identities) = Identity::parse_all(text) {
        return Ok(Material::of_identities(identities));
    }
    let is_page = text.lines().any(|line| after(line, KEY).is_some() || after(line, CHECK).is_some());
    let blocks = if is_page { blocks(text) } else { vec![(squeezed(text.lines()), None)] };
    let blocks: Vec<_> = blocks.into_iter().filter(|(key, _)| !key.is_empty()).collect();
    if blocks.is_empty() {
        return Err(wrong("it holds no key"));
    }
    let mut identities = Vec::new();
    for (key, check) in &blocks {
        let upper = Zeroizing::new(key.to_ascii_uppercase());
        let is_identity = upper.starts_with(IDENTITY);
        let key = if is_identity { &upper } else { key };
        if check.as_ref().is_some_and(|check| !check.eq_ignore_ascii_case(&check_value(key.as_bytes()))) {
            let what = "the check value is not that of the key: a letter is wrong, missing, or there twice";
            return Err(wrong(what).next("compare the groups with the page, then import it again"));
        }
        if is_identity {
            let parsed = Identity::parse_all(key);
            let slip = "a letter of the identity is wrong, missing, or there twice";
            identities.extend(parsed.map_err(|_| wrong(slip).next("compare the groups with the page"))?);
        }
    }
    match (identities.len(), blocks.as_slice()) {
        (0, [(key, _)]) if is_page || is_usual(key) => Ok(Material::of_line(Secret::new(key.as_bytes().to_vec()))),
        // Somebody's own words are taken as openssl takes them.
        (0, [_]) => {
            let line = raw.split(|byte| *byte == b'\n').next().unwrap_or_default();
            if line.is_empty() {
                return Err(wrong("its first line, which should be the key, is empty"));
            }
            Ok(Material::of_line(Secret::new(line.to_vec())))
        }
        (count, blocks) if count == blocks.len() => Ok(Material::of_identities(identities)),
        _ => Err(wrong("it holds several keys of different kinds, expected one")),
    }
}

type Block = (Zeroizing<String>, Option<String>);

/// The keys of a page with the check values that follow them. Where `Key:` was
/// not typed, all that stands before `Check:` is the key.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let has_key = text.lines().any(|line| after(line, KEY).is_some());
    let mut open = (!has_key).then(Vec::new);
    for line in text.lines() {
        if let Some(rest) = after(line, KEY) {
            blocks.extend(open.take().map(|lines: Vec<&str>| (squeezed(lines), None)));
            open = Some(vec![rest]);
        } else if let Some(check) = after(line, CHECK) {
            let check = check.split_whitespace().collect::<String>();
            blocks.extend(open.take().map(|lines| (squeezed(lines), Some(check))));
        } else if let Some(lines) = &mut open {
            lines.push(line);
        }
    }
    blocks.extend(open.map(|lines| (squeezed(lines), None)));
    blocks
}

/// What follows `word` at the beginning of a line.
fn after<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let (start, rest) = line.trim_start().split_at_checked(word.len())?;
    start.eq_ignore_ascii_case(word).then_some(rest)
}

/// All letters, without what stands between them.
fn squeezed<'a>(lines: impl IntoIterator<Item = &'a str>) -> Zeroizing<String> {
    let mut whole = Zeroizing::new(String::with_capacity(1 << 10));
    lines.into_iter().flat_map(str::split_whitespace).for_each(|part| whole.push_str(part));
    whole
}

/// Whether it is a key as Lifeboat and `openssl rand` make it.
fn is_usual(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| Zeroizing::new(bytes).len() == KEY_BYTES)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const ABOUT: About<'_> = About { app: Some("web"), host: "h", date: "2026-02-24", iterations: 100_000 };

    fn made(envelope: Envelope) -> Material {
        Material::generate(envelope, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn read(text: &str) -> Result<Material> {
        parse(text.as_bytes(), Path::new("typed"))
    }

    /// Shows E7.
    #[test]
    fn a_page_reads_back_however_it_is_typed() {
        for envelope in [Envelope::Age, Envelope::Openssl] {
            let material = made(envelope);
            let page = page(&ABOUT, &material).unwrap();
            let (start, end) = (page.find("Key:").unwrap(), page.find("(Spaces").unwrap());
            let block = &page[start..end];
            let groups = block.lines().skip(1).take_while(|line| !line.starts_with("Check")).collect::<Vec<_>>();
            let typed = [
                page.to_string(),
                block.to_owned(),
                block.replace("\n    ", " ").replace("Key", " KEY"),
                groups.join("\n") + "\n" + block.lines().last().unwrap(),
                groups.join("\r\n   "),
                groups.join("").replace(' ', "\t"),
                String::from_utf8(material.raw.to_vec()).unwrap(),
            ];
            for typed in &typed {
                assert!(read(typed).unwrap().is_same(&material), "{typed}");
            }
            if envelope == Envelope::Age {
                assert!(read(&page.to_lowercase()).unwrap().is_same(&material));
            }
        }
    }

    /// Shows E7.
    #[test]
    fn every_wrong_letter_of_a_page_is_found() {
        for envelope in [Envelope::Age, Envelope::Openssl] {
            let material = made(envelope);
            let page = page(&ABOUT, &material).unwrap();
            let (start, end) = (page.find("Key:").unwrap() + 4, page.find("Check:").unwrap());
            for at in (start..end).filter(|at| !page.as_bytes()[*at].is_ascii_whitespace()) {
                let other = if page.as_bytes()[at] == b'Q' { "R" } else { "Q" };
                let mut slipped = page.to_string();
                slipped.replace_range(at..=at, other);
                assert_eq!(read(&slipped).err().unwrap().kind(), ErrorKind::WrongKey, "{slipped}");
            }
        }
    }

    #[test]
    fn several_identities_stand_on_one_page_and_words_are_a_key_as_they_are() {
        let lines = [made(Envelope::Age), made(Envelope::Age)].map(|one| one.raw.to_vec()).concat();
        let both = parse(&lines, Path::new("both")).unwrap();
        assert!(read(&page(&ABOUT, &both).unwrap()).unwrap().is_same(&both));
        let words = read("four words of somebody\n").unwrap();
        assert_eq!(words.lines()[0].expose(), b"four words of somebody");
        assert_eq!(page(&ABOUT, &words).unwrap_err().kind(), ErrorKind::Usage);
        for nothing in ["", "\n\n", "Key:\nCheck: 00000000\n"] {
            assert_eq!(read(nothing).err().unwrap().kind(), ErrorKind::WrongKey);
        }
    }
}
