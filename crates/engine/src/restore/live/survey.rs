//! Looking at the archive's list and at what is live, for a plan. Changes nothing.

mod removals;
mod rows;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lifeboat_format::archive::Archive;
use lifeboat_format::model::{EntryKind, Summer};
use lifeboat_format::path::{EntryPath, shown};
use lifeboat_format::record::Record;
use lifeboat_store::{self as store, durable};
use rustix::fs::{Access, OFlags, Stat};
use rustix::io::Errno;

use super::database::{base_of_log, has_state_in_logs, is_foreign_log};
use super::fitness::{Required, check_version};
use super::ground::Ground;
use super::name::{Name, join, split};
use super::plan::{Known, LivePlan, PlannedService, PlannedSpace, Present, action};
use super::servers;
use super::target::{self, Targets};
use super::terms::{Mode, Place, RootKind, Rules, Terms};
use super::tree::{Tree, is_dir, is_file};
use super::{Host, LiveRequest};
use crate::exec::command_line;
use crate::report::{Action, PlanLine, Watch};
use crate::restore::inspect;
use crate::services::{Found, Service};
use crate::{Cancel, Error, ErrorKind, Result, beneath, checks, ours};

/// Who is told of the lines of a plan.
pub(super) type EachLine<'a> = &'a mut dyn FnMut(PlanLine) -> Result<()>;

/// Overlay file systems cannot move a directory of their lower layer.
const OVERLAY_MAGIC: i64 = 0x794c_7630;

/// Makes the plan for `archive`; tells `each` of every line.
pub(super) fn plan(
    archive: &Archive,
    request: &LiveRequest,
    host: &Host<'_>,
    watch: Watch<'_>,
    each: EachLine<'_>,
) -> Result<LivePlan> {
    let targets = target::find(archive, request, host)?;
    let mut survey = Survey::new(archive, &targets, request, host, watch, each)?;
    check_version(&targets, request.ignore_version, watch.cancel, &mut survey.plan)?;
    let accepts_partial = request.accepts_partial || !request.only.is_empty() || !request.tables.is_empty();
    let mut required = Required::of(&targets, &mut survey.plan, accepts_partial)?;
    if !request.only.is_empty() {
        survey.find_needed()?;
    }
    let mut found = 0;
    inspect::records(archive, watch.cancel, &mut |path, record| {
        if let Some((_, root, inner)) = survey.plan.terms.root_of(path) {
            required.see(&root.source.0, inner, record.kind() == EntryKind::Dir);
        }
        found += u64::from(survey.visit(path, record)?);
        Ok(())
    })?;
    required.finish(&mut survey.plan);
    servers::survey(&targets, request, &host.id, &mut survey.plan, watch.cancel)?;
    survey.rehearse(request, host)?;
    survey.settle_links()?;
    survey.keep_empty_borders()?;
    if found == 0 {
        return Err(Error::new(ErrorKind::Usage, "nothing in the snapshot is what --only asks for")
            .state("nothing was written, and nothing was stopped")
            .next("`lifeboat backup list` shows what is in it"));
    }
    if request.mode == Mode::Full {
        survey.find_deletes()?;
    }
    survey.finish()
}

/// A look at one entry's place.
struct Spot<'a> {
    number: usize,
    inner: &'a [u8],
    place: usize,
    path: Vec<u8>,
}

struct Survey<'a> {
    archive: &'a Archive,
    watch: Watch<'a>,
    each: EachLine<'a>,
    plan: LivePlan,
    rules: Rules,
    ground: Ground,
    /// One tree for each place.
    trees: Vec<Tree>,
    /// Bytes and inodes that staging takes in each place.
    needs: Vec<(u64, u64)>,
    /// A directory that is swapped as one: all below it is.
    one: Option<EntryPath>,
    /// A directory of the snapshot at whose place something else stays.
    conflict: Option<EntryPath>,
    /// Databases whose rows are merged: the number of the root, and the entry.
    rows: Vec<(usize, EntryPath)>,
    /// Other names of files, with the file's own place.
    links: Vec<(EntryPath, EntryPath)>,
}

/// The services that would be stopped, as they are now. An app that is down as
/// a whole runs afterwards where it is to be asked.
fn planned(services: &[Service], targets: &Targets<'_>, cancel: &Cancel) -> Result<Vec<PlannedService>> {
    let mut planned = Vec::with_capacity(services.len());
    for service in services {
        let found = service.found(Some(cancel))?;
        planned.push(PlannedService { name: service.name.clone(), found, runs_then: found != Found::Stopped });
    }
    let is_down = planned.iter().all(|service| !service.runs_then);
    let is_asked = targets.app.is_some_and(|app| checks::ask_the_app(&app.health, &app.after_restore));
    planned.iter_mut().for_each(|service| service.runs_then |= is_down && is_asked);
    Ok(planned)
}

impl<'a> Survey<'a> {
    fn new(
        archive: &'a Archive,
        targets: &Targets<'a>,
        request: &LiveRequest,
        host: &Host<'_>,
        watch: Watch<'a>,
        each: EachLine<'a>,
    ) -> Result<Self> {
        let services = targets.app.map(|app| app.services.clone()).unwrap_or_default();
        let identity = archive.path().metadata().map_or((0, 0), |metadata| (metadata.dev(), metadata.ino()));
        let terms = Terms { mode: request.mode, roots: targets.roots.clone(), archive: identity, ..Terms::default() };
        let planned = planned(&services, targets, watch.cancel)?;
        let keep = request.keep_replaced.or(targets.app.map(|app| app.keep_replaced)).unwrap_or_default();
        let carried = if targets.is_configured { None } else { target::carried(targets.head)? };
        let mut lacks = targets.lacks.clone();
        lacks.extend(carried.iter().flat_map(|carried| carried.lacks()));
        let plan = LivePlan {
            archive: archive.path().to_owned(),
            snapshot: targets.head.id.clone(),
            app: targets.head.app.clone(),
            created: targets.head.created,
            outcome: targets.head.outcome,
            lacks_hmac: crate::restore::lacks_hmac(archive),
            is_genuine: archive.is_genuine(),
            mode: request.mode,
            databases: Vec::new(),
            merges: Vec::new(),
            roles: Vec::new(),
            scripts: Vec::new(),
            roots: targets.planned.clone(),
            lacks,
            exports: targets.exports.clone(),
            not_restored: targets.apart.clone(),
            counts: super::plan::Counts::default(),
            overwritten: Vec::new(),
            deleted: Vec::new(),
            conflicts: Vec::new(),
            space: Vec::new(),
            services: planned,
            health_checks: targets.app.map_or(0, |app| app.health.len()),
            checks: targets.app.map_or(0, |app| app.after_restore.len()),
            reload: targets.app.and_then(|app| app.reload.as_ref()).map(|reload| command_line(&reload.run)),
            acts: carried.map(|carried| carried.acts()).unwrap_or_default(),
            is_trusted: !targets.is_configured && targets.app.is_some(),
            version: None,
            users: Vec::new(),
            unseen: Vec::new(),
            keep_replaced: keep,
            refusals: Vec::new(),
            known: Known::default(),
            stages: Vec::new(),
            terms,
        };
        let mut survey = Self {
            archive,
            watch,
            each,
            rules: Rules::of(&plan.terms)?,
            plan,
            ground: Ground::look(&services)?,
            trees: Vec::new(),
            needs: Vec::new(),
            one: None,
            conflict: None,
            rows: Vec::new(),
            links: Vec::new(),
        };
        for number in 0..survey.plan.terms.roots.len() {
            survey.add_outer(number, host)?;
        }
        survey.refuse_unlisted_losses(targets);
        Ok(survey)
    }

    /// A full restore has to know everything that the backup could not read.
    fn refuse_unlisted_losses(&mut self, targets: &Targets<'_>) {
        let counted = targets.head.problem_counts.get("unreadable").copied().unwrap_or(0);
        let listed = targets.lacks.iter().filter(|line| line.starts_with("unreadable: ")).count() as u64;
        if self.plan.mode == Mode::Full && counted > listed {
            self.plan.refuse(
                ErrorKind::ConfirmationNeeded,
                format!("the backup could not read {counted} entries and names only {listed}, so that a full restore would delete what nobody has"),
                "restore without --mode full",
            );
        }
    }

    /// The place that the root itself stands in.
    fn add_outer(&mut self, number: usize, host: &Host<'_>) -> Result<()> {
        let path = self.plan.terms.roots[number].path.as_path().to_owned();
        let mut base = path.parent().unwrap_or(&path);
        // Something else than a directory gives way, if the snapshot has one there.
        while !base.is_dir() {
            base = base.parent().ok_or_else(|| store::Error::io("look at", &path, Errno::NOENT))?;
        }
        let stat = path.symlink_metadata().ok();
        let is_dir = stat.as_ref().is_some_and(std::fs::Metadata::is_dir);
        let parent = base.metadata().map_err(|error| store::Error::io("look at", base, error))?;
        let is_border = stat.as_ref().is_some_and(|stat| stat.is_dir() && stat.dev() != parent.dev())
            || self.ground.mounts.is_mount_point(&path)
            // Who may not write beside the root stages in it.
            || is_dir && rustix::fs::access(base, Access::WRITE_OK).is_err() && path.parent() == Some(base);
        if is_border && is_dir {
            let place = self.add_place(&path, host.id.as_str(), b"")?;
            self.plan.terms.roots[number].borders.push((Name::default(), place));
            return Ok(());
        }
        if is_border && stat.is_some() {
            self.refuse_mounted(&path);
        }
        let below_base = path.strip_prefix(base).unwrap_or(&path);
        let first = below_base.components().next().map_or(&b""[..], |first| first.as_os_str().as_encoded_bytes());
        let place = self.add_place(base, host.id.as_str(), first)?;
        self.plan.terms.roots[number].outer = Some(place);
        Ok(())
    }

    fn refuse_mounted(&mut self, path: &Path) {
        self.plan.refuse(
            ErrorKind::InUse,
            format!("something is mounted on {}, so that it cannot be replaced", path.display()),
            "unmount it first, or restore beside with --to DIR",
        );
    }

    /// A place with its stage beside `name` (in the base itself, where that is empty).
    fn add_place(&mut self, base: &Path, id: &str, name: &[u8]) -> Result<usize> {
        let tree = Tree::open(base)?;
        let look = || Ok((rustix::fs::fstat(tree.top())?, rustix::fs::fstatfs(tree.top())?));
        let (stat, system) = look().map_err(|error: rustix::io::Errno| store::Error::io("look at", base, error))?;
        let mtime = super::tree::mtime(&stat);
        let stage = join(base.as_os_str().as_encoded_bytes(), &ours::stage_name(name, id));
        let stage = if base == Path::new("/") { [b"/", &ours::stage_name(name, id)[..]].concat() } else { stage };
        // Sources that stand in one directory which is missing are staged in one.
        if let Some(place) = self.plan.terms.places.iter().position(|place| place.stage.0 == stage) {
            return Ok(place);
        }
        self.plan.terms.places.push(Place {
            base: Name::of(base),
            stage: Name(stage),
            inode: stat.st_ino,
            mtime: (mtime.seconds, mtime.nanos),
            moves_dirs: system.f_type != OVERLAY_MAGIC,
        });
        self.trees.push(tree);
        self.needs.push((0, 0));
        Ok(self.trees.len() - 1)
    }

    /// With `--only SOURCE/GLOB`: the directories above what is restored, and the files it is another name of.
    fn find_needed(&mut self) -> Result<()> {
        let (terms, rules) = (&mut self.plan.terms, &self.rules);
        let mut needed = std::collections::HashSet::new();
        inspect::records(self.archive, self.watch.cancel, &mut |path, record| {
            let is_dir = record.kind() == EntryKind::Dir;
            let Some((number, _, inner)) = terms.root_of(path) else { return Ok(()) };
            if rules.selects_all(number) || !rules.selects(number, inner, is_dir) {
                return Ok(());
            }
            let mut at = path.parent();
            while let Some(dir) = at.filter(|dir| terms.root_of(dir).is_some_and(|(of, ..)| of == number)) {
                at = dir.parent();
                if !needed.insert(Name(dir.as_bytes().to_vec())) {
                    break;
                }
            }
            if record.kind() == EntryKind::Hardlink {
                needed.extend(record.target()?.map(Name));
            }
            Ok(())
        })?;
        terms.needed = needed;
        Ok(())
    }

    /// One entry of the archive. True when it is among what is restored.
    fn visit(&mut self, path: &EntryPath, record: &Record) -> Result<bool> {
        let is_dir = record.kind() == EntryKind::Dir;
        let Some((number, _, inner)) = self.plan.terms.root_of(path) else { return Ok(false) };
        let is_selected = self.rules.selects(number, inner, is_dir);
        if !is_selected && !self.plan.terms.needed.contains(&Name(path.as_bytes().to_vec())) {
            return Ok(false);
        }
        if is_dir && self.plan.terms.roots[number].kind != RootKind::Postgres {
            self.find_border(number, inner)?;
        }
        let Some((place, at)) = self.plan.terms.roots[number].place(inner, &self.plan.terms.places) else {
            return Ok(false);
        };
        let needed = if record.is_sparse() { 0 } else { record.size() };
        // Sizes that an archive claims may add up to anything.
        self.needs[place].0 = self.needs[place].0.saturating_add(needed);
        self.needs[place].1 += 1;
        if !is_selected {
            return Ok(false);
        }
        if self.plan.terms.roots[number].kind == RootKind::Postgres {
            // What becomes of the database stands in the plan; its dump stands nowhere.
            return Ok(true);
        }
        self.plan.counts.entries += 1;
        self.plan.counts.files += u64::from(record.kind() == EntryKind::File);
        self.plan.counts.bytes = self.plan.counts.bytes.saturating_add(record.size());
        let spot = Spot { number, inner, place, path: at };
        let action = self.look(path, record, &spot)?;
        let line = PlanLine { action, path: path.clone(), kind: record.kind(), size: record.size() };
        self.watch.monitor.advanced(1, record.size());
        (self.each)(line)?;
        Ok(true)
    }

    /// Whether another file system begins at the directory at `inner`; then it is a place of its own.
    fn find_border(&mut self, number: usize, inner: &[u8]) -> Result<()> {
        let root = &self.plan.terms.roots[number];
        if root.is_border(inner) {
            return Ok(());
        }
        let Some((place, at)) = root.place(inner, &self.plan.terms.places) else { return Ok(()) };
        let live = root.live(inner);
        let stat = self.stat(place, &at)?.filter(is_dir);
        let top =
            rustix::fs::fstat(self.trees[place].top()).map_err(|error| store::Error::io("look at", &live, error))?;
        if stat.is_some_and(|stat| stat.st_dev != top.st_dev || self.ground.mounts.is_mount_point(&live)) {
            let id = self.id();
            let place = self.add_place(&live, &id, b"")?;
            self.plan.terms.roots[number].borders.push((Name(inner.to_vec()), place));
        }
        Ok(())
    }

    /// A file system of which the snapshot holds only where it is mounted was
    /// left out by `--one-file-system`, or was empty: what is in it now stays.
    fn keep_empty_borders(&mut self) -> Result<()> {
        for root in &mut self.plan.terms.roots {
            let is_empty = |(border, place): &&(Name, usize)| !border.0.is_empty() && self.needs[*place].1 <= 1;
            let empty = root.borders.iter().filter(is_empty).map(|(border, _)| shown(&root.entry_path(&border.0)));
            let empty: Vec<String> = empty.collect();
            root.lost.extend(empty);
        }
        self.rules = Rules::of(&self.plan.terms)?;
        Ok(())
    }

    /// The id of the restore, which all its stages carry.
    fn id(&self) -> String {
        let stage = &self.plan.terms.places[0].stage.0;
        ours::stage_id(split(stage).1).unwrap_or_default().to_owned()
    }

    fn stat(&self, place: usize, path: &[u8]) -> Result<Option<Stat>> {
        let failed = |error| store::Error::io("look at", &self.plan.terms.places[place].live(path), error);
        Ok(self.trees[place].stat(path).map_err(failed)?)
    }

    /// What becomes of an entry, and what that means for what stands there.
    fn look(&mut self, path: &EntryPath, record: &Record, spot: &Spot<'_>) -> Result<Action> {
        if self.conflict.as_ref().is_some_and(|dir| path.is_below(dir)) {
            self.plan.count(Action::Conflict, path, 0);
            return Ok(Action::Conflict);
        }
        let stat = self.stat(spot.place, &spot.path)?;
        if self.one.as_ref().is_some_and(|dir| path != dir && !path.is_below(dir)) {
            self.one = None;
        }
        let mode = self.plan.mode;
        // What the snapshot has of a database comes before what it has of its logs.
        let comes = |base: &[u8]| mode != Mode::Merge && self.plan.known.knows(spot.place, base);
        let comes = base_of_log(&spot.path).is_some_and(comes);
        if is_foreign_log(&self.trees[spot.place], &spot.path, comes) {
            self.plan.count(Action::Conflict, path, 0);
            return Ok(Action::Conflict);
        }
        let is_dir_now = stat.as_ref().is_some_and(is_dir);
        if let Some(stat) = &stat
            && record.kind() == EntryKind::Dir
            && is_dir_now
        {
            self.look_at_dir(path, record, spot, stat)?;
            return Ok(Action::Merge);
        }
        let is_same = match &stat {
            Some(stat) => self.is_same(record, spot, stat),
            None => false,
        };
        if let Some(stat) = &stat {
            self.plan.known.add(spot.place, &spot.path, stamp(stat), is_same);
        }
        if !is_same && self.has_rows(path, spot, stat.as_ref())? {
            return Ok(Action::Merge);
        }
        let present = match &stat {
            None => Present::Nothing,
            Some(_) if is_same => Present::Same,
            Some(_) => Present::Other,
        };
        let action = action(mode, present);
        if record.kind() == EntryKind::Hardlink {
            self.links
                .extend(record.target()?.and_then(|target| EntryPath::new(target).ok()).map(|to| (path.clone(), to)));
        }
        self.plan.count(action, path, 0);
        if action == Action::New || action == Action::Overwrite {
            self.replace_logs(record, spot, stat.as_ref())?;
        }
        if action == Action::Conflict && record.kind() == EntryKind::Dir {
            self.conflict = Some(path.clone());
        }
        if let Some(stat) = stat.filter(|_| action == Action::Overwrite || action == Action::Same && self.one.is_some())
        {
            self.replace(spot, &stat, is_dir_now)?;
        }
        Ok(action)
    }

    fn look_at_dir(&mut self, path: &EntryPath, record: &Record, spot: &Spot<'_>, stat: &Stat) -> Result<()> {
        self.plan.known.add(spot.place, &spot.path, stamp(stat), false);
        self.find_stages(spot);
        if self.one.is_none() && self.ground.is_one(&self.plan.terms, &self.rules, spot.number, spot.inner) {
            self.one = Some(path.clone());
            self.ground.note_mounts(&self.plan.terms.roots[spot.number].live(spot.inner));
        }
        if self.one.is_some() {
            self.ground.note(&self.plan.terms.roots[spot.number].live(spot.inner), stat);
        }
        let entry = self.trees[spot.place].entry(&spot.path, stat).ok().flatten();
        let Some(mut entry) = entry.filter(|_| self.plan.mode != Mode::Merge) else { return Ok(()) };
        // Its time changes whenever something in it does; that alone replaces nothing.
        entry.mtime = record.modified().unwrap_or(entry.mtime);
        self.plan.counts.attributes += u64::from(!record.is_as_on_disk(&entry));
        Ok(())
    }

    /// Another restore may be under way, or wait, in what is restored here.
    fn find_stages(&mut self, spot: &Spot<'_>) {
        let live = self.plan.terms.roots[spot.number].live(spot.inner);
        let stages = self.trees[spot.place].stages(&spot.path);
        self.plan.stages.extend(stages.iter().map(|name| live.join(OsStr::from_bytes(name))));
    }

    /// Whether all of what is live is as recorded, its content too.
    fn is_same(&self, record: &Record, spot: &Spot<'_>, stat: &Stat) -> bool {
        let tree = &self.trees[spot.place];
        if record.kind() == EntryKind::Hardlink {
            // Decided with its file, when all are known.
            return is_file(stat);
        }
        let Ok(Some(entry)) = tree.entry(&spot.path, stat) else { return false };
        record.is_as_on_disk(&entry)
            && !has_state_in_logs(tree, &spot.path, stat)
            && (record.kind() != EntryKind::File
                || self.sum(tree, &spot.path).is_some_and(|sum| Some(sum) == record.sha256()))
    }

    fn sum(&self, tree: &Tree, path: &[u8]) -> Option<lifeboat_format::model::Sha256> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let open = |flags| beneath::open(tree.top(), path, flags);
        let mut file = File::from(open(flags | OFlags::NOATIME).or_else(|_| open(flags)).ok()?);
        let mut summer = Summer::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            self.watch.cancel.check().ok()?;
            match file.read(&mut buffer).ok()? {
                0 => return Some(summer.finish()),
                read => summer.update(&buffer[..read]),
            }
        }
    }

    /// Another name of a file is the same only if it is one of the live file, and that one is the same.
    fn settle_links(&mut self) -> Result<()> {
        let links = std::mem::take(&mut self.links);
        let mut differing = std::collections::BTreeSet::new();
        for (link, target) in &links {
            let inode = |path: &EntryPath| -> Result<Option<(u64, bool)>> {
                let Some((place, at)) = self.locate(path) else { return Ok(None) };
                let stat = self.stat(place, &at)?;
                Ok(stat.map(|stat| (stat.st_ino, self.plan.known.is_same_still(place, &at, stamp(&stat)))))
            };
            let is_same = match (inode(link)?, inode(target)?) {
                (Some((link, _)), Some((target, is_same))) => link == target && is_same,
                _ => false,
            };
            if !is_same {
                differing.insert(target);
            }
        }
        for path in
            links.iter().filter(|(_, target)| differing.contains(target)).flat_map(|(link, target)| [link, target])
        {
            let Some((place, at)) = self.locate(path) else { continue };
            let Some(stat) = self.stat(place, &at)? else { continue };
            if self.plan.known.is_same_still(place, &at, stamp(&stat)) {
                self.plan.known.differs(place, &at);
                self.plan.counts.same -= 1;
                let action = action(self.plan.mode, Present::Other);
                self.plan.count(action, path, 0);
                let live = self.plan.terms.places[place].live(&at);
                self.ground.note(&live, &stat);
                (self.each)(PlanLine { action, path: path.clone(), kind: EntryKind::Hardlink, size: 0 })?;
            }
        }
        Ok(())
    }

    fn locate(&self, path: &EntryPath) -> Option<(usize, Vec<u8>)> {
        let (_, root, inner) = self.plan.terms.root_of(path)?;
        root.place(inner, &self.plan.terms.places)
    }

    fn finish(mut self) -> Result<LivePlan> {
        for (place, (needed_bytes, needed_inodes)) in self.plan.terms.places.iter().zip(&self.needs) {
            let (free_bytes, free_inodes) = durable::free_space(place.base.as_path())?;
            self.plan.space.push(PlannedSpace {
                path: place.base.to_string(),
                needed_bytes: *needed_bytes,
                free_bytes,
                needed_inodes: *needed_inodes,
                free_inodes,
            });
        }
        self.plan.users = self.ground.users();
        self.plan.unseen = self.ground.unseen();
        Ok(self.plan)
    }
}

/// What changes whenever somebody touches it.
pub(super) fn stamp(stat: &Stat) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    let times = (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
    (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mode, times).hash(&mut hasher);
    hasher.finish()
}

/// Whether what the plan rests on is still as it was: the archive, the places, what is mounted.
pub(super) fn still_holds(plan: &LivePlan) -> Result<()> {
    let changed = |what: String| {
        Err(Error::new(ErrorKind::Failed, format!("{what} since the plan was made"))
            .state("nothing was written, and nothing was stopped")
            .next("run the same command again, and look at the new plan"))
    };
    let identity = plan.archive.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    if identity.ok() != Some(plan.terms.archive) {
        return changed(format!("{} was replaced", plan.archive.display()));
    }
    let mounts = crate::mounts::Mounts::own()?;
    for place in &plan.terms.places {
        let base = place.base.as_path();
        let inode = base.metadata().map(|metadata| metadata.ino()).ok();
        if inode != Some(place.inode) {
            return changed(format!("{} was replaced", base.display()));
        }
    }
    for (root, planned) in plan.terms.roots.iter().zip(&plan.roots) {
        if root.kind == RootKind::Postgres {
            // Nothing stands there; what is on the server is looked at again when it is staged.
            continue;
        }
        let path: PathBuf = root.path.as_path().to_owned();
        if path.symlink_metadata().is_ok() != planned.exists {
            return changed(format!("{} appeared or went away", path.display()));
        }
        let is_new = root.outer.is_some() && mounts.is_mount_point(&path);
        if is_new {
            return changed(format!("something was mounted on {}", path.display()));
        }
    }
    Ok(())
}
