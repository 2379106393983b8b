//! What archives are called: templates such as `{app}-backup-{date}`, without
//! the suffix that says the form.

use jiff::Zoned;
use lifeboat_format::envelope::Envelope;
use lifeboat_format::path::shown;

/// The template of an app that has none.
pub(crate) const DEFAULT: &str = "{app}-backup-{date}";
/// What a template may hold, and how many bytes that becomes at most for a configured app.
const PLACEHOLDERS: &[(&str, usize)] =
    &[("{app}", 64), ("{date}", 10), ("{yyyymmdd}", 8), ("{time}", 6), ("{host}", 64)];
/// How long a name may become: with a time of day, a number and a suffix, it is still one of a file.
const NAME_MAX_BYTES: usize = 200;
/// How much of a host's or an app's name goes into a file name.
const PART_MAX_BYTES: usize = 150;

/// How the name of an archive ends that is packed as `packed` says: `.age` and
/// `.enc` follow on that, `.tomo-backup` stands in its place.
pub(crate) fn suffix(packed: &str, envelope: Option<Envelope>) -> String {
    match envelope {
        None => packed.to_owned(),
        Some(Envelope::Gcm) => Envelope::Gcm.suffix().to_owned(),
        Some(envelope) => format!("{packed}{}", envelope.suffix()),
    }
}

/// Says what is wrong with `template`, and what was expected.
pub(crate) fn check(template: &str) -> Result<(), String> {
    if template.is_empty() {
        return Err(format!("the name is empty, expected a text such as `{DEFAULT}`"));
    }
    if template.contains('/') || template.chars().any(char::is_control) {
        return Err("the name holds `/` or a control character, expected the name of a file".to_owned());
    }
    if template.starts_with(['.', '-']) {
        return Err("the name begins with `.` or `-`, expected a letter or digit first".to_owned());
    }
    let mut rest = template;
    let mut longest = template.len();
    while let Some(at) = rest.find(['{', '}']) {
        let Some((found, becomes)) = PLACEHOLDERS.iter().find(|(known, _)| rest[at..].starts_with(known)) else {
            let end = rest[at..].find('}').map_or(rest.len(), |len| at + len + 1);
            let what = shown(&rest.as_bytes()[at..end]);
            let known: Vec<&str> = PLACEHOLDERS.iter().map(|(known, _)| *known).collect();
            return Err(format!("unknown placeholder `{what}`, expected one of: {}", known.join(", ")));
        };
        rest = &rest[at + found.len()..];
        longest += becomes;
    }
    if longest > NAME_MAX_BYTES {
        return Err(format!("the name can become too long, expected one of at most {NAME_MAX_BYTES} bytes"));
    }
    Ok(())
}

/// The name that `template`, which passes [`check`], stands for at the moment `now`.
pub(crate) fn expand(template: &str, app: &str, host: &str, now: &Zoned) -> String {
    let value = |placeholder: &str| match placeholder {
        "{app}" => part(app),
        "{host}" => part(host),
        "{date}" => now.strftime("%Y-%m-%d").to_string(),
        "{yyyymmdd}" => now.strftime("%Y%m%d").to_string(),
        _ => now.strftime("%H%M%S").to_string(),
    };
    let mut name = String::new();
    let mut rest = template;
    // One pass, so that a brace in a value stays as it is.
    while let Some(at) = rest.find('{') {
        name.push_str(&rest[..at]);
        let found = PLACEHOLDERS.iter().map(|(known, _)| known).find(|known| rest[at..].starts_with(**known));
        match found {
            Some(found) => name.push_str(&value(found)),
            None => name.push('{'),
        }
        rest = &rest[at + found.map_or(1, |found| found.len())..];
    }
    name + rest
}

/// A name as a part of a file name.
fn part(name: &str) -> String {
    let mut part = String::new();
    for c in name.chars() {
        let c = if c == '/' || c.is_control() { '_' } else { c };
        if part.len() + c.len_utf8() > PART_MAX_BYTES {
            break;
        }
        part.push(c);
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(template: &str, app: &str, host: &str) -> String {
        let now: Zoned = "2026-02-24T03:04:05+01:00[Europe/Berlin]".parse().unwrap();
        expand(template, app, host, &now)
    }

    #[test]
    fn each_placeholder_becomes_what_it_stands_for() {
        for (template, expected) in [
            (DEFAULT, "web-backup-2026-02-24"),
            ("sting_backup_{yyyymmdd}", "sting_backup_20260224"),
            ("{host}-{app}-{yyyymmdd}_{time}", "h1-web-20260224_030405"),
            ("plain", "plain"),
            ("{app}{app}", "webweb"),
        ] {
            assert_eq!(check(template), Ok(()), "{template}");
            assert_eq!(expanded(template, "web", "h1"), expected);
        }
    }

    #[test]
    fn what_a_name_holds_is_not_taken_for_a_placeholder_or_a_folder() {
        assert_eq!(expanded("{app}-{host}", "{date}", "a/b\n"), "{date}-a_b_");
        assert_eq!(expanded("{app}", &"ö".repeat(100), "h").len(), PART_MAX_BYTES);
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_was_expected() {
        for (template, expected) in [
            ("", "the name is empty"),
            ("a/b", "the name holds `/`"),
            ("a\nb", "the name holds `/` or a control character"),
            (".hidden", "the name begins with `.` or `-`"),
            ("-x", "the name begins with"),
            ("{app}-{day}", "unknown placeholder `{day}`, expected one of: {app}, {date}, {yyyymmdd}, {time}, {host}"),
            ("{app", "unknown placeholder `{app`"),
            ("app}", "unknown placeholder `}`"),
            (&"a".repeat(201), "the name can become too long, expected one of at most 200 bytes"),
            ("{app}{host}{app}", "the name can become too long"),
        ] {
            let what = check(template).unwrap_err();
            assert!(what.starts_with(expected), "{template}: {what}");
        }
    }
}
