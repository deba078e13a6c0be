//! Originals: read in threads, judged, and looked at again where something seems wrong.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::{AtFlags, statat};

use super::mend::Mender;
use super::walk::{Item, Passed, Unit, Walk};
use super::{Event, FixityError, Job, Sum, Surroundings, seen_of};
use crate::clock::{Clock as _, SystemClock};
use crate::daemon::preview::preview;
use crate::daemon::rules::{Rules, lock_of};
use crate::daemon::sequencer::Difference;
use crate::daemon::service::{check_identity, look_at_top};
use crate::daemon::settings::RootSettings;
use crate::fixity::hash::{Hashes, Wanted};
use crate::fixity::read::{self, Manner, Readers};
use crate::fixity::verdict::{Expected, Look, Verdict, judge};
use crate::inventory::{DirId, FileId, RootRow, View};
use crate::model::{
    Algorithm, Body, Drift, Evidence, Hashed, RelPath, RootName, Seq, Settled, Timestamp, Unsound, Unsoundness,
    Verified,
};
use crate::watch::lease::{self, no_writer};
use crate::watch::magic::FsMagic;
use crate::watch::priority::give_way;

/// Units that may wait to be read, and results that may wait to be judged, for each thread.
const UNITS_MAX: usize = 4;
/// Versions that one record says are verified.
const VERIFIED_MAX: usize = 4_096;
/// Acts that are journaled together.
const ACTS_MAX: usize = 1_024;
/// Suspects that wait to be looked at again.
const SUSPECTS_MAX: usize = 1_024;
/// What is known is journaled at least this often, so that little is done again after a crash.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// A root that is there, open.
struct OpenRoot<'s> {
    settings: &'s RootSettings,
    name: RootName,
    dir: DirId,
    top: OwnedFd,
    /// Which names say that a file is not finished.
    rules: Rules,
    /// Whether a lease tells that nobody writes to a file: on a network file system it knows nothing of other machines.
    may_lease: bool,
    scopes: Vec<RelPath>,
}

/// What came of reading one file.
struct Reading {
    root: usize,
    path: RelPath,
    item: Item,
    look: Look,
    /// Why a version that was not known to be complete is.
    complete: Option<Evidence>,
}

pub(super) fn verify(
    job: &Job,
    around: &Surroundings<'_>,
    each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
) -> Result<Sum, FixityError> {
    let view = View::open(&around.inventory)?;
    let roots = open_roots(job, around, &view)?;
    let now = SystemClock.now();
    let ago = |age: Duration| Timestamp(now.0.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)));
    let (fresh_since, algorithm) = (job.max_age.map(ago), around.settings.digest);
    let busy = AtomicU64::new(0);
    let count = AtomicUsize::new(0);
    let threads = around.settings.scan_threads.get();
    let readers = Readers { count: &count, most: around.settings.scan_threads };
    let mut collector = Collector {
        around,
        roots: &roots,
        view: &view,
        algorithm,
        is_alone: job.is_alone,
        each,
        sum: Sum::default(),
        verified: roots.iter().map(|_| Vec::new()).collect(),
        acts: Vec::new(),
        suspects: Vec::new(),
        mender: (job.repair && !job.scopes.is_empty()).then(|| Mender::new(around, &view)),
        flushed: Instant::now(),
        told: Instant::now(),
    };
    let (give, units) = bounded::<Unit>(UNITS_MAX * threads);
    let (told, results) = bounded::<Vec<Reading>>(UNITS_MAX * threads);
    let outcome = std::thread::scope(|scope| {
        let (roots, busy) = (&roots, &busy);
        let walker = scope.spawn(move || -> Result<(), FixityError> {
            let view = View::open(&around.inventory)?;
            let every = Walk { view: &view, algorithm, fresh_since, takes_unsettled: job.is_alone };
            // By itself what was checked once comes by its age, the rest by its place.
            let never = Walk { fresh_since: Some(Timestamp(i64::MIN)), ..every };
            let walk = if job.is_scrubbing { never } else { every };
            for (index, root) in roots.iter().enumerate() {
                let mut hand_on = |unit| match give.send(unit) {
                    Ok(()) if !around.stop.load(Ordering::Acquire) => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                };
                if job.is_scrubbing
                    && walk
                        .oldest((index, &root.name, root.dir), fresh_since.unwrap_or_default(), &mut hand_on)?
                        .is_break()
                {
                    return Ok(());
                }
                for scope in &root.scopes {
                    let mut count = || {
                        busy.fetch_add(1, Ordering::Relaxed);
                    };
                    if walk.tree((index, &root.name), scope, &mut count, &mut hand_on)?.is_break() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        for _ in 0..threads {
            let manner = Manner { from_medium: job.from_medium, limit: around.limit, readers: Some(readers) };
            let reader = Reader { roots, algorithm, manner, units: units.clone(), told: told.clone() };
            scope.spawn(move || reader.run());
        }
        drop((units, told));
        let collected = results.iter().try_for_each(|batch| collector.take(batch));
        // Whoever still reads ends when nobody hears it.
        drop(results);
        let walked = walker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        collected.and(walked)
    });
    outcome?;
    around.check_stop()?;
    collector.settle_suspects()?;
    // A scan looks for what is not known.
    if !job.is_scrubbing {
        collector.look_for_foreign()?;
    }
    collector.flush()?;
    collector.sum.busy += busy.into_inner();
    Ok(collector.sum)
}

/// The roots that are asked for, each open and the one that was recorded: a disk that is not mounted has lost nothing.
fn open_roots<'s>(job: &Job, around: &Surroundings<'s>, view: &View) -> Result<Vec<OpenRoot<'s>>, FixityError> {
    let rows = view.roots()?;
    let mut open: Vec<OpenRoot<'_>> = Vec::new();
    let settings = &around.settings.roots;
    if let Some((name, _)) = job.scopes.iter().find(|(name, _)| settings.iter().all(|root| root.name != *name)) {
        return Err(FixityError::NoRoot(name.clone()));
    }
    for root in settings {
        let scopes: Vec<RelPath> = match &job.scopes[..] {
            [] => vec![RelPath::ROOT],
            some => some.iter().filter(|(name, _)| *name == root.name).map(|(_, path)| path.clone()).collect(),
        };
        // Of a root that was never scanned nothing is known.
        let Some(row) = rows.iter().find(|row| row.name == root.name).filter(|_| !scopes.is_empty()) else { continue };
        let top = open_root(root, row).map_err(|why| FixityError::Absent { root: root.name.clone(), why })?;
        let absent =
            |why: &dyn std::fmt::Display| FixityError::Absent { root: root.name.clone(), why: why.to_string() };
        let rules = Rules::new(&[], Vec::new(), &root.unfinished).map_err(|error| absent(&error))?;
        let is_network = FsMagic::of(top.as_fd()).map_err(|error| absent(&error))?.is_network();
        let (name, may_lease) = (root.name.clone(), root.lease && !is_network);
        open.push(OpenRoot { settings: root, name, dir: row.dir_id, top, rules, may_lease, scopes });
    }
    Ok(open)
}

fn open_root(root: &RootSettings, row: &RootRow) -> Result<OwnedFd, String> {
    let top = look_at_top(&root.path)?;
    check_identity(root, row.identity.as_deref(), &top.identity)?;
    read::open_top(&root.path).map_err(|error| format!("{}: {error}", root.path.display()))
}

/// A thread that reads.
struct Reader<'s> {
    roots: &'s [OpenRoot<'s>],
    algorithm: Algorithm,
    manner: Manner<'s>,
    units: Receiver<Unit>,
    told: Sender<Vec<Reading>>,
}

impl Reader<'_> {
    fn run(&self) {
        give_way();
        let mut buffer = Vec::new();
        for unit in &self.units {
            let (root, dir) = (unit.root, unit.dir);
            let open = read::open_dir(self.roots[root].top.as_fd(), &dir);
            let look = |item: &Item, buffer: &mut Vec<u8>| match &open {
                Ok(open) => {
                    let wanted = Wanted::to_check(&item.expected.hashes, self.algorithm);
                    read::read(open.as_fd(), &item.name, &item.expected, wanted, self.manner, buffer)
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Look::Gone,
                Err(error) => Look::Unreadable(error.to_string()),
            };
            let mut results = Vec::with_capacity(unit.items.len());
            for item in unit.items {
                let complete = match &open {
                    Ok(open) if !item.is_settled => complete(open.as_fd(), &item, &self.roots[root]),
                    _ => None,
                };
                let look = if item.is_settled || complete.is_some() { look(&item, &mut buffer) } else { Look::Moving };
                results.push(Reading { root, path: dir.join(&item.name), item, look, complete });
            }
            if self.told.send(results).is_err() {
                return;
            }
        }
    }
}

/// Why a version that has rested is complete, if it is: nobody has it open for writing, or that cannot be told and it has
/// rested for long.
fn complete(dir: BorrowedFd<'_>, item: &Item, root: &OpenRoot<'_>) -> Option<Evidence> {
    let changed = item.expected.mtime_ns.max(item.expected.ctime_ns.unwrap_or(i64::MIN));
    let rested = u64::try_from(SystemClock.now().0.checked_sub(changed)?).map(Duration::from_nanos).ok()?;
    let is_locked = || statat(dir, lock_of(&item.name), AtFlags::SYMLINK_NOFOLLOW).is_ok();
    if rested < root.settings.settle_min || root.rules.unfinished(&item.name) || is_locked() {
        return None;
    }
    let writer = if root.may_lease { no_writer(dir, &item.name).ok()?.verdict } else { lease::Verdict::Unsupported };
    match writer {
        lease::Verdict::NoWriter => Some(Evidence::Lease),
        lease::Verdict::Unsupported => (rested >= root.settings.settle).then_some(Evidence::Quiet),
        lease::Verdict::Busy => None,
    }
}

/// Something that seems wrong.
struct Suspect {
    root: usize,
    path: RelPath,
}

/// Whether an original is not what it was, and was not changed by anybody who meant to.
fn is_to_be_mended(reading: &Reading) -> bool {
    let verdict = judge(&reading.item.expected, &reading.look);
    let Verdict::Unsound(what) = verdict else { return false };
    !matches!(what, Unsoundness::Missed(Drift::Changed | Drift::Foreign))
}

/// Judges results, and has them journaled.
struct Collector<'c, 's> {
    around: &'c Surroundings<'s>,
    roots: &'c [OpenRoot<'s>],
    view: &'c View,
    algorithm: Algorithm,
    is_alone: bool,
    each: &'c mut dyn FnMut(Event) -> Result<(), FixityError>,
    sum: Sum,
    /// By root.
    verified: Vec<Vec<(i64, Seq)>>,
    acts: Vec<Body>,
    suspects: Vec<Suspect>,
    mender: Option<Mender<'c, 's>>,
    flushed: Instant,
    told: Instant,
}

impl Collector<'_, '_> {
    fn take(&mut self, results: Vec<Reading>) -> Result<(), FixityError> {
        self.around.check_stop()?;
        for result in results {
            self.take_one(result, false)?;
        }
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            (self.each)(Event::Progress(self.sum))?;
        }
        if self.suspects.len() >= SUSPECTS_MAX {
            self.settle_suspects()?;
        }
        let waiting = self.verified.iter().map(Vec::len).max().unwrap_or(0);
        if waiting >= VERIFIED_MAX || self.acts.len() >= ACTS_MAX || self.flushed.elapsed() >= FLUSH_EVERY {
            self.flush()?;
        }
        Ok(())
    }

    /// `is_sure`: it was looked at a second time.
    fn take_one(&mut self, result: Reading, is_sure: bool) -> Result<(), FixityError> {
        let Reading { root, path, item, look, complete } = result;
        if matches!(look, Look::Content(..)) && !is_sure {
            self.sum.files += 1;
            self.sum.bytes += item.expected.size;
        }
        let verdict = judge(&item.expected, &look);
        if let (Some(evidence), Verdict::Sound(_) | Verdict::New(_)) = (complete, &verdict) {
            self.acts.push(self.settled(root, &path, &item, evidence));
        }
        match verdict {
            Verdict::Sound(learnt) => {
                self.sum.verified += 1;
                let again = match &look {
                    Look::Content(_, hashes) if item.is_recalled => Some(*hashes),
                    _ => None,
                };
                if let Some(hashes) = learnt.or(again) {
                    self.acts.push(self.hashed(root, &path, &item, hashes));
                }
                self.verified[root].push((item.file, item.version));
            }
            Verdict::New(hashes) => {
                self.sum.hashed += 1;
                self.acts.push(self.hashed(root, &path, &item, hashes));
                self.verified[root].push((item.file, item.version));
            }
            Verdict::Busy => self.sum.busy += 1,
            Verdict::Unsound(what) if is_sure => self.find(root, path, Some(&item), seen_of(&look), what)?,
            Verdict::Unsound(_) => self.suspects.push(Suspect { root, path }),
        }
        Ok(())
    }

    fn settled(&self, root: usize, path: &RelPath, item: &Item, evidence: Evidence) -> Body {
        let Expected { size, mtime_ns, inode, .. } = item.expected;
        let (root, path, inode) = (self.roots[root].name.clone(), path.clone(), inode.unwrap_or_default());
        Body::Settled(Settled { root, path, evidence, size, mtime_ns, inode })
    }

    fn hashed(&self, root: usize, path: &RelPath, item: &Item, hashes: Hashes) -> Body {
        Body::Hashed(Box::new(Hashed {
            replica: None,
            root: self.roots[root].name.clone(),
            path: path.clone(),
            file: item.file,
            of: item.version,
            size: item.expected.size,
            mtime_ns: item.expected.mtime_ns,
            sha256: hashes.sha256,
            blake3: hashes.blake3,
        }))
    }

    fn find(
        &mut self,
        root: usize,
        path: RelPath,
        item: Option<&Item>,
        seen: Option<(u64, i64)>,
        what: Unsoundness,
    ) -> Result<(), FixityError> {
        self.sum.count(&what);
        let version = item.map(|item| (item.file, item.version));
        let found = Unsound { replica: None, root: self.roots[root].name.clone(), path, version, seen, what };
        self.acts.push(Body::Unsound(Box::new(found.clone())));
        (self.each)(Event::Finding(Box::new(found)))
    }

    /// Looks a second time at what seems wrong, once all that had happened is known. What seems wrong still is a finding if no
    /// record tells of it after that look either.
    fn settle_suspects(&mut self) -> Result<(), FixityError> {
        if self.suspects.is_empty() {
            return Ok(());
        }
        self.flush()?;
        self.around.tell.catch_up()?;
        let mut buffer = Vec::new();
        let mut unsound = Vec::new();
        for suspect in std::mem::take(&mut self.suspects) {
            self.around.check_stop()?;
            let Suspect { root, path } = suspect;
            // It was deleted, or renamed, as records told meanwhile.
            let Some(item) = self.item_now(root, &path)? else { continue };
            let Ok(item) = item else {
                self.sum.busy += 1;
                continue;
            };
            let look = self.look_again(root, &path, &item, &mut buffer);
            let result = Reading { root, path, item, look, complete: None };
            match judge(&result.item.expected, &result.look) {
                Verdict::Unsound(_) => unsound.push(result),
                _ => self.take_one(result, true)?,
            }
        }
        if !unsound.is_empty() {
            self.around.tell.catch_up()?;
        }
        let (mut missed, mut bad) = (BTreeSet::new(), Vec::new());
        for result in unsound {
            match self.item_now(result.root, &result.path)? {
                Some(Ok(now)) if (now.file, now.version) == (result.item.file, result.item.version) => {
                    if matches!(result.look, Look::Gone | Look::Other(_))
                        && let Some((above, _)) = result.path.split()
                    {
                        missed.insert((result.root, RelPath::new(above).unwrap_or_default()));
                    }
                    if is_to_be_mended(&result) {
                        bad.push((result.root, result.path.clone(), result.item.clone()));
                    }
                    self.take_one(result, true)?;
                }
                Some(_) => self.sum.busy += 1,
                None => {}
            }
        }
        self.flush()?;
        self.mend(&bad)?;
        for (root, dir) in missed {
            self.around.tell.look_again(&self.roots[root].name, &dir);
        }
        Ok(())
    }

    /// Mends originals, if that was asked for by naming paths.
    fn mend(&mut self, bad: &[(usize, RelPath, Item)]) -> Result<(), FixityError> {
        let Some(mender) = &mut self.mender else { return Ok(()) };
        for (root, path, item) in bad {
            self.around.check_stop()?;
            let open = &self.roots[*root];
            let names = self.view.names_of(FileId(item.file))?;
            let Some(named) = names.into_iter().find(|name| name.root == open.name && name.path == *path) else {
                continue;
            };
            let place = (&open.name, &*open.settings.path);
            mender.mend_original(place, path, item, &named.known, &mut self.sum, self.each)?;
        }
        Ok(())
    }

    /// What is recorded under a name now; `None`: nothing.
    fn item_now(&self, root: usize, path: &RelPath) -> Result<Option<Result<Item, Passed>>, FixityError> {
        let open = &self.roots[root];
        let Some((above, name)) = path.split() else { return Ok(None) };
        let above = RelPath::new(above).unwrap_or_default();
        let Some(parent) = self.view.dir_by_path(&open.name, &above)? else { return Ok(None) };
        let Some(known) = self.view.child(parent, name)? else { return Ok(None) };
        let (view, algorithm, takes_unsettled) = (self.view, self.algorithm, self.is_alone);
        let walk = Walk { view, algorithm, fresh_since: None, takes_unsettled };
        Ok(Some(walk.item(open.dir, name.to_vec(), &known)?))
    }

    fn look_again(&self, root: usize, path: &RelPath, item: &Item, buffer: &mut Vec<u8>) -> Look {
        let above = path.split().and_then(|(above, _)| RelPath::new(above).ok()).unwrap_or_default();
        match read::open_dir(self.roots[root].top.as_fd(), &above) {
            Ok(dir) => {
                let wanted = Wanted::to_check(&item.expected.hashes, self.algorithm);
                let manner = Manner { from_medium: true, limit: self.around.limit, ..Manner::default() };
                read::read(dir.as_fd(), &item.name, &item.expected, wanted, manner, buffer)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Look::Gone,
            Err(error) => Look::Unreadable(error.to_string()),
        }
    }

    /// Lists what was asked for, for what is there and not known.
    fn look_for_foreign(&mut self) -> Result<(), FixityError> {
        let mut candidates: Vec<(usize, RelPath)> = Vec::new();
        for (index, root) in self.roots.iter().enumerate() {
            for scope in &root.scopes {
                if self.view.dir_by_path(&root.name, scope)?.is_none() {
                    continue;
                }
                preview(self.around.settings, root.settings, scope, |dir, difference| {
                    if let Difference::New { name, .. } = difference {
                        candidates.push((index, dir.join(&name)));
                    }
                })?;
            }
        }
        if candidates.is_empty() {
            return Ok(());
        }
        self.around.tell.catch_up()?;
        let mut missed = BTreeSet::new();
        for (index, path) in candidates {
            self.around.check_stop()?;
            let root = &self.roots[index];
            let Some((above, name)) = path.split() else { continue };
            let absolute = PathBuf::from(&root.settings.path).join(std::ffi::OsStr::from_bytes(path.as_bytes()));
            if absolute.starts_with(&self.around.settings.state_dir) {
                continue;
            }
            let above = RelPath::new(above).unwrap_or_default();
            let is_known = match self.view.dir_by_path(&root.name, &above)? {
                Some(parent) => self.view.child(parent, name)?.is_some(),
                None => false,
            };
            // What came and went is no finding either.
            let stat = std::fs::symlink_metadata(&absolute);
            let Ok(stat) = stat else { continue };
            if is_known {
                continue;
            }
            let seen = {
                use std::os::unix::fs::MetadataExt as _;
                let mtime_ns = stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec());
                (if stat.is_dir() { 0 } else { stat.size() }, mtime_ns)
            };
            self.find(index, path, None, Some(seen), Unsoundness::Missed(Drift::Foreign))?;
            missed.insert((index, above));
        }
        self.flush()?;
        for (root, dir) in missed {
            self.around.tell.look_again(&self.roots[root].name, &dir);
        }
        Ok(())
    }

    /// Has journaled what is known by now.
    fn flush(&mut self) -> Result<(), FixityError> {
        let mut acts = std::mem::take(&mut self.acts);
        for (root, verified) in self.roots.iter().zip(&mut self.verified) {
            if !verified.is_empty() {
                let files = std::mem::take(verified);
                acts.push(Body::Verified(Box::new(Verified { replica: None, root: root.name.clone(), files })));
            }
        }
        self.around.tell.tell(acts)?;
        self.flushed = Instant::now();
        Ok(())
    }
}
