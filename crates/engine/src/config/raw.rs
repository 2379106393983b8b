//! The shape of `lifeboat.yaml`, as it stands there: every value that a rule
//! looks at knows its line and column. What the values mean is the business of
//! `check`; here is found only what has the wrong shape.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_saphyr::{DefaultMessageFormatter, Location, MessageFormatter as _, Spanned};

use super::nearest;
use lifeboat_format::path::shown;

/// A mistake, and where it stands.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) what: String,
}

impl Wrong {
    pub(super) fn at(place: Location, what: impl Into<String>) -> Self {
        Self { line: place.line(), column: place.column(), what: what.into() }
    }
}

/// Reads `text`, or says where it has the wrong shape.
pub(super) fn parse(text: &str) -> Result<File, Wrong> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |place| (place.line(), place.column()));
        Wrong { line, column, what: explain(&error) }
    })
}

/// The mistakes that people make, in their words; of the rest, those of the parser.
fn explain(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as Yaml;
    match error.without_snippet() {
        Yaml::AliasError { error, .. } => explain(error),
        Yaml::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Yaml::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        Yaml::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Yaml::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{}` stands twice", shown(key.as_bytes())),
        Yaml::MultipleDocuments { .. } => "a second document begins, expected only one".to_owned(),
        Yaml::Eof { .. } => "the file ends too early, expected `apps:` and at least one app".to_owned(),
        Yaml::NullIntoString { .. } => "nothing stands here, expected a text".to_owned(),
        Yaml::InvalidScalar { ty: "u16", .. } => "wrong type, expected a whole number".to_owned(),
        Yaml::Unexpected { expected, .. } => {
            let expected = match *expected {
                "mapping start" => "a mapping, such as `key: value`",
                "sequence start" => "a list, such as `[one, two]`",
                "string scalar" => "a text",
                other => other,
            };
            format!("wrong type, expected {expected}")
        }
        other => shown(DefaultMessageFormatter.format_message(other).as_bytes()),
    }
}

/// For a word that is not one of `known`.
pub(super) fn unknown(thing: &str, word: &str, known: &[&str]) -> String {
    let meant = nearest(word, known).map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("unknown {thing} `{}`{meant}, expected one of: {known}", shown(word.as_bytes()))
}

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) data_dir: Option<Spanned<String>>,
    pub(super) apps: Spanned<Named<App>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct App {
    pub(super) sources: Spanned<Named<Source>>,
    #[serde(default)]
    pub(super) services: Services,
    #[serde(default)]
    pub(super) health: Vec<Spanned<Health>>,
    pub(super) keep_replaced: Option<Spanned<String>>,
}

/// A source is a mapping whose one key says what kind it is. No enum: that
/// would place some mistakes in the line behind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) files: Files,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Files {
    pub(super) root: Spanned<String>,
    #[serde(default)]
    pub(super) include: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) exclude: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Services {
    pub(super) units: Vec<Spanned<String>>,
    pub(super) commands: Named<Commands>,
    pub(super) restore_stop: Option<Vec<Spanned<String>>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) reload: Option<Reload>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Commands {
    pub(super) stop: Spanned<Vec<String>>,
    pub(super) start: Spanned<Vec<String>>,
    pub(super) status: Option<Spanned<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reload {
    pub(super) run: Spanned<Vec<String>>,
    #[serde(default)]
    pub(super) on_failure: OnFailure,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnFailure {
    #[default]
    Fail,
    Warn,
}

/// Both kinds in one: which it is, `check` finds by what is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    pub(super) http: Option<Spanned<String>>,
    pub(super) command: Option<Spanned<Vec<String>>>,
    pub(super) status: Option<Spanned<u16>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) every: Option<Spanned<String>>,
}

/// A mapping whose keys are names that the user chose, in the order of the file.
pub(super) struct Named<T>(pub(super) Vec<(Spanned<String>, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Names<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut named = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    named.push(entry);
                }
                Ok(Named(named))
            }
        }

        deserializer.deserialize_map(Names(PhantomData))
    }
}
