//! Which entries of a source are taken: patterns in gitignore syntax,
//! relative to its root; one without a slash matches at any depth.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::report::Selection;
use crate::{Error, ErrorKind, Result};

/// Compiled patterns of one source.
pub(crate) struct Matcher {
    include: Option<Gitignore>,
    exclude: Gitignore,
}

impl Matcher {
    pub(crate) fn new(selection: &Selection) -> Result<Self> {
        let include = if selection.include.is_empty() { None } else { Some(compile(&selection.include, "--include")?) };
        Ok(Self { include, exclude: compile(&selection.exclude, "--exclude")? })
    }

    /// Whether the entry at `path`, relative to the root, is left out with all below it.
    pub(crate) fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        self.exclude.matched(as_path(path), is_dir).is_ignore()
    }

    /// Whether the entry at `path` is taken for its own sake, with all below it.
    pub(crate) fn includes(&self, path: &[u8], is_dir: bool) -> bool {
        self.include.as_ref().is_none_or(|include| include.matched(as_path(path), is_dir).is_ignore())
    }

    /// As [`Matcher::includes`], or because something that it stands in is.
    pub(crate) fn includes_or_a_parent(&self, path: &[u8], is_dir: bool) -> bool {
        let Some(include) = &self.include else { return true };
        !path.is_empty() && include.matched_path_or_any_parents(as_path(path), is_dir).is_ignore()
    }
}

/// A pattern that matches `path` and nothing else: what means something in
/// gitignore syntax is escaped.
pub(crate) fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for c in path.chars() {
        if "\\*?[]{}! #".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn compile(patterns: &[String], option: &str) -> Result<Gitignore> {
    let bad = |pattern: &str, error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Usage, format!("the pattern \"{pattern}\" of {option} makes no sense: {error}"))
            .state("nothing was read or written")
            .next("use gitignore syntax, for example \"*.log\", \"/cache/\" or \"!keep.log\"")
    };
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|error| bad(pattern, &error))?;
    }
    builder.build().map_err(|error| bad("", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_pattern_matches_its_path_alone() {
        for path in ["a b", "x[1].db", "!x", "#x", "a*b", "a\\b", "{a,b}", "trailing "] {
            let exclude = vec![format!("/{}", literal(path))];
            let matcher = Matcher::new(&Selection { exclude, ..Selection::default() }).unwrap();
            assert!(matcher.excludes(path.as_bytes(), false), "{path}");
            assert!(!matcher.excludes(format!("d/{path}").as_bytes(), false), "{path}");
            assert!(!matcher.excludes(b"a-b", false), "{path}");
        }
    }

    #[test]
    fn patterns_mean_what_gitignore_says() {
        let selection = Selection {
            exclude: ["*.log", "!keep.log", "/top", "a/b", "cache/"].map(str::to_owned).to_vec(),
            ..Selection::default()
        };
        let matcher = Matcher::new(&selection).unwrap();
        for (path, is_dir, excluded) in [
            ("x.log", false, true),
            ("d/x.log", false, true),
            ("keep.log", false, false),
            ("top", false, true),
            ("d/top", false, false),
            ("a/b", true, true),
            ("d/a/b", true, false),
            ("cache", true, true),
            ("cache", false, false),
        ] {
            assert_eq!(matcher.excludes(path.as_bytes(), is_dir), excluded, "{path}");
            assert!(matcher.includes(path.as_bytes(), is_dir));
        }
        let bad = Selection { include: vec!["a{".to_owned()], ..Selection::default() };
        assert!(Matcher::new(&bad).is_err());
    }
}
