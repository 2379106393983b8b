//! The schema, what is shown, the presets, and that no text is too much.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::presets::PRESETS;
use crate::report::CompressionKind;

/// Every key that the schema has for the mappings of a file.
fn keys_of_schema(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            for (name, inner) in object {
                if name == "properties" {
                    keys.extend(inner.as_object().unwrap().keys().cloned());
                }
                keys_of_schema(inner, keys);
            }
        }
        Value::Array(all) => all.iter().for_each(|inner| keys_of_schema(inner, keys)),
        _ => {}
    }
}

/// What `value` breaks of `schema`, for as much of JSON Schema as ours uses.
fn broken(schema: &Value, value: &Value, root: &Value, at: &str) -> Vec<String> {
    if let Some(target) = schema.get("$ref") {
        let target = root.pointer(target.as_str().unwrap().trim_start_matches('#')).expect("the schema is whole");
        return broken(target, value, root, at);
    }
    if let Some(any) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
        let all: Vec<_> = any.as_array().unwrap().iter().map(|one| broken(one, value, root, at)).collect();
        return if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() };
    }
    let mut found = Vec::new();
    let is_type = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("a type that is not known: {other}"),
    };
    match schema.get("type") {
        Some(Value::Array(types)) if !types.iter().any(is_type) => found.push(format!("{at}: type")),
        Some(one @ Value::String(_)) if !is_type(one) => found.push(format!("{at}: type")),
        _ => {}
    }
    if schema.get("enum").is_some_and(|known| !known.as_array().unwrap().contains(value)) {
        found.push(format!("{at}: enum"));
    }
    if schema.get("const").is_some_and(|known| known != value) {
        found.push(format!("{at}: const"));
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{key}");
        match (schema.pointer(&format!("/properties/{key}")), schema.get("additionalProperties")) {
            (Some(schema), _) => found.extend(broken(schema, inner, root, &at)),
            (None, Some(schema @ Value::Object(_))) => found.extend(broken(schema, inner, root, &at)),
            _ => found.push(format!("{at}: unknown")),
        }
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    if let Some(object) = value.as_object() {
        found.extend(
            required
                .filter(|key| !object.contains_key(key.as_str().unwrap()))
                .map(|key| format!("{at}: {}", key.as_str().unwrap())),
        );
    }
    if let (Some(items), Some(all)) = (schema.get("items"), value.as_array()) {
        found.extend(all.iter().flat_map(|inner| broken(items, inner, root, at)));
    }
    found
}

fn broken_by(yaml: &str) -> Vec<String> {
    let (schema, value) = (schema(), serde_saphyr::from_str::<Value>(yaml).unwrap());
    broken(&schema, &value, &schema, "")
}

/// Shows P1.
#[test]
fn the_schema_takes_what_is_read_and_refuses_what_is_not() {
    for text in [FULL, &app("")] {
        assert_eq!(broken_by(text), Vec::<String>::new());
    }
    for preset in PRESETS {
        assert_eq!(broken_by(&preset.text(Some(Path::new("/srv/x")), None).unwrap()), Vec::<String>::new());
    }
    for (text, expected) in [
        ("app: {}\n".to_owned(), "/app: unknown"),
        ("data_dir: /x\n".to_owned(), ": apps"),
        (app("    helth: []\n"), "/apps/web/helth: unknown"),
        (app("    compression: zip\n"), "/apps/web/compression: enum"),
        (app("    health: {}\n"), "/apps/web/health: type"),
        ("apps: { web: { sources: { a: { files: {} } } } }".to_owned(), "/apps/web/sources/a/files: root"),
    ] {
        let found = broken_by(&text);
        assert!(found.iter().any(|what| what == expected), "{text}: {found:?}");
    }
}

/// The blocks of YAML in a page.
fn blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

/// Shows P1.
#[test]
fn every_example_of_the_documentation_is_read() {
    let sources = "conf: { files: { root: /srv/shop/conf } }\n      db: { sqlite: { path: /srv/shop/shop.db } }";
    let page = include_str!("../../../../../doc/configuration.md");
    let readme = include_str!("../../../../../README.md");
    let mut read = 0;
    for block in blocks(page).chain(blocks(readme)) {
        // Whole, or the keys of an app, or its sources.
        let text = match block.find(|c: char| c != ' ') {
            Some(0) => block.to_owned(),
            Some(4) => format!("apps:\n  shop:\n    sources:\n      {sources}\n{block}"),
            _ => format!("apps:\n  shop:\n    services: {{ units: [shop-worker.service] }}\n    sources:\n{block}"),
        };
        load(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(broken_by(&text), Vec::<String>::new(), "{text}");
        read += 1;
    }
    assert!(read >= 5, "{read}");
}

/// Shows P1.
#[test]
fn every_key_has_a_description_in_the_schema_and_a_line_in_the_documentation() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let page = include_str!("../../../../../doc/configuration.md");
    let mut keys = BTreeSet::new();
    keys_of_schema(&schema, &mut keys);
    assert!(keys.len() > 50, "{keys:?}");
    for key in &keys {
        let row = format!("| `{key}` |");
        assert!(page.lines().any(|line| line.starts_with(&row)), "doc/configuration.md has no row for {key}");
    }
    fn undescribed(schema: &Value, found: &mut Vec<String>) {
        let object = schema.as_object().into_iter().flatten();
        for (name, inner) in object {
            if name == "properties" {
                let keys = inner.as_object().unwrap().iter();
                found.extend(keys.filter(|(_, key)| key.get("description").is_none()).map(|(name, _)| name.clone()));
            }
            undescribed(inner, found);
        }
    }
    let mut found = Vec::new();
    undescribed(&schema, &mut found);
    assert_eq!(found, Vec::<String>::new());
}

/// Shows P1.
#[test]
fn what_is_shown_has_every_default_and_no_password() {
    let text = app("    health: [ { http: \"http://me:CANARY@h/?k=CANARY\", token_file: /etc/t } ]\n")
        .replace(", token_file: /etc/t", "");
    let config = load(&format!("destinations: {{ d: {{ url: /d }} }}\n{text}")).unwrap();
    let effective = EffectiveConfig::of(&config, Path::new("/data"));
    let yaml = effective.to_yaml().unwrap();
    assert!(!yaml.contains("CANARY"), "{yaml}");
    let shown: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(shown, serde_json::to_value(&effective).unwrap());
    let web = &shown["apps"]["web"];
    for (pointer, expected) in [
        ("/enabled", Value::from(true)),
        ("/health/0/http", "http://h/?...".into()),
        ("/health/0/timeout", "60s".into()),
        ("/health/0/every", "1s".into()),
        ("/name", "{app}-backup-{date}".into()),
        ("/compression", "zstd".into()),
        ("/compression_level", 3.into()),
        ("/backup_dir", ".".into()),
        ("/required/0", "a".into()),
        ("/keep_replaced", "7d".into()),
        ("/verification/on_create", true.into()),
        ("/services/freeze_max", "5m".into()),
        ("/sources/a/files/root", "/srv".into()),
    ] {
        assert_eq!(web.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert_eq!(shown["data_dir"], "/data");
    assert_eq!(shown["destinations"]["d"]["form"], "archive");
}

/// Shows P1.
#[test]
fn what_is_shown_can_be_read_again() {
    let config = load(super::FULL).unwrap();
    let yaml = EffectiveConfig::of(&config, Path::new("/data")).to_yaml().unwrap();
    let again = load(&yaml).unwrap();
    assert_eq!(EffectiveConfig::of(&again, Path::new("/data")).to_yaml().unwrap(), yaml);
    assert_eq!(again.apps["web"].services, config.apps["web"].services);
    assert_eq!(again.apps["web"].sources, config.apps["web"].sources);
}

fn preset(name: &str, root: &str) -> AppConfig {
    let preset = PRESETS.iter().find(|preset| preset.name == name).unwrap();
    load(&preset.text(Some(Path::new(root)), None).unwrap()).unwrap().apps[name].clone()
}

/// Shows P10.
#[test]
fn the_preset_nefia_holds_what_its_document_lists_and_nothing_else() {
    let nefia = preset("nefia", "/home/me/.nefia");
    let Source::Files(files) = &nefia.sources["operator"] else { panic!("a database") };
    assert_eq!((nefia.sources.len(), files.root.as_path()), (1, Path::new("/home/me/.nefia")));
    assert_eq!((files.at.as_deref(), files.exclude.len(), files.stop.len()), (Some(""), 0, 0));
    let selection = crate::report::Selection { include: files.include.clone(), ..Default::default() };
    let matcher = crate::source::matcher::Matcher::new(&selection).unwrap();
    for (path, is_taken) in [
        ("nefia.yaml", true),
        ("state/audit/2026-02-22.jsonl", true),
        ("state/sessions.json", true),
        ("state/schedules/daily-sync.json", true),
        ("state/schedules/weekly-report.yaml", true),
        ("state/recordings/rec-2026-02-24.json", true),
        ("other/nefia.yaml", false),
        ("keys/operator.key", false),
        ("state/audit/2026-02-22.jsonl.gz", false),
        ("state/audit/old/2025.jsonl", false),
        ("state/other.json", false),
        ("state/recordings/rec-2026-02-24.cast", false),
        ("state/recordings/keys/a.json", false),
        ("state/schedules/notes.txt", false),
    ] {
        assert_eq!(matcher.includes(path.as_bytes(), false), is_taken, "{path}");
    }
    assert_eq!(
        (nefia.compression, nefia.archive_name.as_deref()),
        (Some(CompressionKind::Gzip), Some("{app}-backup-{date}"))
    );
    assert_eq!(nefia.backup_dir.as_deref(), Some(Path::new(".")));
    assert_eq!(nefia.version, Some(VersionFrom::Command(words("nefia --version"))));
    assert!(nefia.reload.as_ref().unwrap().warn_only && nefia.freeze.is_empty() && nefia.services.is_empty());
    assert_eq!(nefia.required, ["operator", "operator/nefia.yaml"]);
}

/// Shows P11.
#[test]
fn the_preset_aegis_does_what_its_runbook_says() {
    let aegis = preset("aegis", "/opt/aegisagent");
    let Source::Sqlite(db) = &aegis.sources["db"] else { panic!("files") };
    assert_eq!((aegis.sources.len(), db.path.as_path()), (1, Path::new("/opt/aegisagent/db/aegisagent.db")));
    assert_eq!(aegis.services.len(), 1);
    assert_eq!(aegis.services[0].name, "aegisagent.service");
    assert!(aegis.freeze.is_empty(), "a backup needs no downtime");
    let urls: Vec<String> = aegis.health.iter().map(HealthCheck::name).collect();
    assert_eq!(urls, ["http://127.0.0.1:8080/health", "http://127.0.0.1:8080/readyz"]);
    let asked = aegis.after_restore.iter().filter_map(|check| match &check.ask {
        Ask::Http { url, method, token_file, .. } => Some((method.as_str(), url.as_str(), token_file.is_some())),
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    let expected = [
        ("GET", "http://127.0.0.1:8080/v1/agents", true),
        ("POST", "http://127.0.0.1:8080/v1/receipts/verify-chain", true),
    ];
    assert_eq!(asked, expected);
    let version = ["/opt/aegisagent/bin/aegisagent", "--version"].map(str::to_owned).to_vec();
    assert_eq!(aegis.version, Some(VersionFrom::Command(version)));
    assert_eq!((aegis.keep_replaced, aegis.compression), (Keep::Forever, Some(CompressionKind::Gzip)));
    assert_eq!(aegis.backup_dir.as_deref(), Some(Path::new("/opt/aegisagent/backups")));
}

/// Bytes are changed, cut out and doubled, by numbers that are always the same.
#[test]
fn no_text_makes_the_reader_panic() {
    let samples: Vec<String> = PRESETS
        .iter()
        .map(|preset| preset.text(Some(Path::new("/srv/x")), None).unwrap())
        .chain([FULL.to_owned()])
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let marks: Vec<char> = "{}[]:,&*!|>'\"%@`#-?\n\t \\~0ü\u{7}\u{feff}.<".chars().collect();
    let (mut read, mut refused) = (0, 0);
    for _ in 0..3000 {
        let mut chars: Vec<char> = samples[next(samples.len())].chars().collect();
        for _ in 0..=next(4) {
            let at = next(chars.len());
            match next(4) {
                0 => chars[at] = marks[next(marks.len())],
                1 => chars.insert(at, marks[next(marks.len())]),
                2 => drop(chars.drain(at..(at + next(20)).min(chars.len()))),
                _ => {
                    let part: Vec<char> = chars[at..(at + next(60)).min(chars.len())].to_vec();
                    chars.splice(at..at, part);
                }
            }
        }
        let text: String = chars.into_iter().collect();
        match raw::parse(&text).and_then(check::config) {
            Ok(found) => {
                read += 1;
                // And what was read can be carried and taken back.
                for app in found.apps.values() {
                    app.carried().into_app(&app.name).unwrap_or_else(|error| panic!("{error}\n{text}"));
                }
            }
            Err(wrong) => {
                refused += 1;
                assert!(wrong.line >= 1 && wrong.column >= 1 && !wrong.what.is_empty(), "{text}");
            }
        }
    }
    assert!(read > 100 && refused > 100, "{read} {refused}");
}
