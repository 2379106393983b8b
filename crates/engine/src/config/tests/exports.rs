//! Exports, and what must not get into them.

use super::*;

/// An app with these keys, whose sources begin in line 4.
fn shop(more: &str) -> String {
    format!(
        "apps:\n  shop:\n    sources:\n      one: {{ postgres: {{ databases: [app] }} }}\n      \
         two: {{ postgres: {{ url: \"postgres://h\", databases: [app, \"a/b\", one] }} }}\n      \
         lite: {{ sqlite: {{ path: /srv/x.db }} }}\n{more}"
    )
}

/// Shows D10.
#[test]
fn an_export_names_a_database_as_a_query_does() {
    for (db, source, database) in [
        ("one", "one", "app"),
        ("one/app", "one", "app"),
        ("two/app", "two", "app"),
        ("a/b", "two", "a/b"),
        ("two/a/b", "two", "a/b"),
        ("two/one", "two", "one"),
    ] {
        let config = load(&shop(&format!("    exports: {{ e: {{ db: {db}, query: select 1 }} }}\n"))).unwrap();
        let export = &config.apps["shop"].exports["e"];
        assert_eq!((export.source.as_str(), export.database.as_str()), (source, database), "{db}");
    }
    let secret = "    secret_columns: [Users.Token, two/app/public.\"My.Keys\".k, \"a/b/t.\\\"x/y\\\"\"]\n";
    let config = load(&shop(secret)).unwrap();
    let names = config.apps["shop"].secret_columns.iter().map(|column| {
        let names = [column.schema.as_deref().unwrap_or("-"), &column.table, &column.column];
        let database = column.database.as_ref().map(|(source, database)| format!("{source}:{database}"));
        format!("{} {}", database.unwrap_or_default(), names.join(" "))
    });
    assert_eq!(names.collect::<Vec<_>>(), [" - users token", "two:app public My.Keys k", "two:a/b - t x/y"]);
}

/// Shows D10.
#[test]
fn a_mistake_in_exports_is_an_error_with_its_place() {
    for (more, expected) in [
        ("exports: { e: { db: app, query: select 1 } }", "7:25: unknown database `app`, expected one of: "),
        ("exports: { e: { db: two, query: select 1 } }", "7:25: unknown database `two`"),
        (
            "exports: { e: { db: two/ap, query: select 1 } }",
            "7:25: unknown database `two/ap` (did you mean `two/app`?)",
        ),
        ("exports: { e: { db: lite, query: select 1 } }", "7:25: `lite` is a SQLite database"),
        ("exports: { e: { db: one, query: \" \" } }", "7:37: there is no query, expected one SELECT"),
        ("exports: { e: { db: one } }", "7:21: the key `query` is missing"),
        ("exports: { e/f: { db: one, query: select 1 } }", "7:16: the name `e/f` cannot be used"),
        ("secret_columns: [config]", "7:22: `config` is no column, expected TABLE.COLUMN or SCHEMA.TABLE.COLUMN"),
        ("secret_columns: [a.b.c.d]", "7:22: `a.b.c.d` is no column"),
        ("secret_columns: [a.b, a.b]", "7:27: `a.b` stands twice"),
        ("secret_columns: [three/a.b]", "7:22: unknown database `three`"),
    ] {
        let error = load(&shop(&format!("    {more}\n"))).unwrap_err();
        assert!(error.what().contains(&format!("lifeboat.yaml:{expected}")), "{more}: {error}");
    }
}

/// Shows D10.
#[test]
fn exports_are_shown_to_who_owns_them_and_are_not_in_a_snapshot() {
    let more = "    exports: { e: { db: one, query: select 'CANARY' } }\n    secret_columns: [users.canary]\n";
    let config = load(&shop(more)).unwrap();
    let yaml = EffectiveConfig::of(&config, Path::new("/data")).to_yaml().unwrap();
    let again = load(&yaml).unwrap();
    let parts = |config: &Config| {
        let shop = &config.apps["shop"];
        (shop.exports.clone(), shop.secret_columns.clone())
    };
    assert_eq!(parts(&again), parts(&config));
    let mut carried = serde_json::to_value(config.apps["shop"].carried()).unwrap();
    assert!(!carried.to_string().to_lowercase().contains("canary"), "{carried}");
    carried["exports"] = serde_json::json!({ "e": { "db": "one", "query": "select 1" } });
    let carried: Carried = serde_json::from_value(carried).unwrap();
    assert!(carried.into_app("shop").unwrap().exports.is_empty());
}
