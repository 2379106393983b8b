//! Whether a snapshot may be restored here at all: it holds what it must, and
//! is not newer than the application.

use lifeboat_format::record::Head;

use super::plan::{LivePlan, PlannedVersion};
use super::target::Targets;
use super::terms::parse_only;
use crate::report::Selection;
use crate::source::matcher::Matcher;
use crate::{Cancel, ErrorKind, Result, version};

/// A newer snapshot never goes under an older application.
pub(super) fn check_version(targets: &Targets<'_>, ignore: bool, cancel: &Cancel, plan: &mut LivePlan) -> Result<()> {
    let found = targets.app.map(|app| version::of(app, cancel));
    cancel.check()?;
    let (here, unknown) = match found {
        None | Some(Ok(None)) => (None, None),
        Some(Ok(here)) => (here, None),
        Some(Err(error)) => (None, Some(error.to_string())),
    };
    let snapshot = targets.head.app_version.clone();
    if let (Some(snapshot), Some(here)) = (&snapshot, &here)
        && version::compare(here, snapshot).is_lt()
        && !ignore
    {
        let app = &targets.head.app;
        plan.refuse(
            ErrorKind::Unsupported,
            format!("the snapshot was made by {app} {snapshot}, and {app} {here} is installed here, which is older"),
            format!("update {app} first; --ignore-version restores it all the same"),
        );
    }
    if snapshot.is_some() || here.is_some() || unknown.is_some() {
        plan.version = Some(PlannedVersion { snapshot, here, unknown });
    }
    Ok(())
}

/// What a snapshot must hold and was not seen yet.
pub(super) struct Required {
    parts: Vec<(String, String, Matcher)>,
}

impl Required {
    /// The parts of sources that the app requires. Whole sources are decided
    /// by what the manifest says of them.
    pub(super) fn of(targets: &Targets<'_>, plan: &mut LivePlan, accepts_partial: bool) -> Result<Self> {
        let mut parts = Vec::new();
        let required = targets.app.map(|app| app.required.as_slice()).unwrap_or_default();
        for text in required.iter().filter(|_| !accepts_partial) {
            let (name, glob) = parse_only(text)?;
            if !holds(targets.head, name) {
                lacks(plan, text);
            } else if let Some(glob) = glob {
                let selection = Selection { include: vec![glob], ..Selection::default() };
                parts.push((text.clone(), name.to_owned(), Matcher::new(&selection)?));
            }
        }
        Ok(Self { parts })
    }

    /// An entry of `source` is in the snapshot.
    pub(super) fn see(&mut self, source: &[u8], inner: &[u8], is_dir: bool) {
        self.parts.retain(|(_, name, matcher)| {
            name.as_bytes() != source || is_dir || !matcher.includes_or_a_parent(inner, false)
        });
    }

    /// What was not seen is missing.
    pub(super) fn finish(self, plan: &mut LivePlan) {
        self.parts.iter().for_each(|(text, ..)| lacks(plan, text));
    }
}

fn holds(head: &Head, name: &str) -> bool {
    head.sources.iter().any(|source| source.name == name && source.details.failed.is_none())
}

fn lacks(plan: &mut LivePlan, part: &str) {
    plan.refuse(
        ErrorKind::Corrupt,
        format!("the snapshot lacks {part}, which `required` in lifeboat.yaml names"),
        "restore another snapshot; or restore this one by its id, or what it has with --only SOURCE",
    );
}
