//! Copies: read again from their target, in threads, judged, and looked at again where something seems wrong.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::mend::Mender;
use super::place::{Place, PlacedRoot};
use super::{Event, FixityError, Job, Sum, Surroundings, seen_of};
use crate::clock::{Clock as _, SystemClock};
use crate::fixity::hash::{Hasher, Hashes, Wanted};
use crate::fixity::read::BUFFER_BYTES;
use crate::fixity::verdict::{Expected, Look, Seen, Verdict, is_version, judge};
use crate::inventory::{CopyRow, View, copy_key, range_end};
use crate::model::{
    Body, Digest, Drift, FileType, Hashed, RelPath, ReplicaName, Seq, Timestamp, Unsound, Unsoundness, Verified,
};
use crate::target::{Found, Limit, TargetError};
use crate::watch::priority::give_way;

/// Rows read at once, and copies that are read before the next are looked up.
const PAGE: usize = 1_024;
/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Names of foreign things that are told of.
const FOREIGN_MAX: usize = 100_000;

/// A copy that is to be read: all its names at the target, because a store keeps each for itself.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) paths: Vec<RelPath>,
    pub(super) file: i64,
    pub(super) of: Seq,
    pub(super) expected: Expected,
    /// The copy's own hash is not known: the original's is expected.
    is_presumed: bool,
}

pub(super) fn verify(
    name: &ReplicaName,
    job: &Job,
    around: &Surroundings<'_>,
    each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
) -> Result<Sum, FixityError> {
    let view = View::open(&around.inventory)?;
    let place = Place::open(around, &view, name)?;
    let now = SystemClock.now();
    let ago = |age: Duration| Timestamp(now.0.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)));
    let fresh_since = job.max_age.map(ago);
    let mut mender = job.repair.then(|| Mender::new(around, &view));
    let mut checker = Checker { around, view: &view, place: &place, each, sum: Sum::default(), told: Instant::now() };
    for (root, paths) in place.scopes(&job.scopes) {
        if job.is_scrubbing {
            checker.check_new(&root)?;
            checker.check_oldest(&root, fresh_since.unwrap_or_default())?;
            continue;
        }
        for path in paths {
            checker.check_below(&root, &path, fresh_since, mender.as_mut())?;
            if path.is_root() {
                checker.look_for_foreign(&root)?;
            }
        }
    }
    Ok(checker.sum)
}

/// Reads copies and has journaled what that came to.
pub(super) struct Checker<'c, 's> {
    pub(super) around: &'c Surroundings<'s>,
    pub(super) view: &'c View,
    pub(super) place: &'c Place<'s>,
    pub(super) each: &'c mut dyn FnMut(Event) -> Result<(), FixityError>,
    pub(super) sum: Sum,
    pub(super) told: Instant,
}

impl Checker<'_, '_> {
    /// Copies that were not read again yet, the newest first. What cannot be proved is looked at once in a round.
    fn check_new(&mut self, root: &PlacedRoot) -> Result<(), FixityError> {
        let mut before = None;
        loop {
            self.around.check_stop()?;
            let rows = self.view.unproved(self.place.row.id, root.dir, before, PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            before = Some(*last);
            let mut items = Vec::new();
            for (_, row) in &rows {
                // One that was found bad waits for its turn like all others.
                let check = self.view.check(Some(self.place.row.id), root.dir, row.file_id)?;
                if check.is_none_or(|check| check.of != row.of) {
                    items.extend(self.item(root, row, None)?);
                }
            }
            self.check(root, items)?;
        }
    }

    /// Copies whose last check was before a moment, the oldest first.
    fn check_oldest(&mut self, root: &PlacedRoot, before: Timestamp) -> Result<(), FixityError> {
        let replica = self.place.row.id;
        let mut after = None;
        loop {
            self.around.check_stop()?;
            let checks = self.view.checks_before(Some(replica), root.dir, after, before, PAGE)?;
            let Some(last) = checks.last() else { return Ok(()) };
            after = Some((last.at, last.file_id));
            let mut items = Vec::new();
            for check in checks {
                if let Some(row) = self.view.copies_of(replica, root.dir, check.file_id)?.first() {
                    items.extend(self.item(root, row, None)?);
                }
            }
            self.check(root, items)?;
        }
    }

    fn check_below(
        &mut self,
        root: &PlacedRoot,
        top: &RelPath,
        fresh_since: Option<Timestamp>,
        mut mender: Option<&mut Mender<'_, '_>>,
    ) -> Result<(), FixityError> {
        let replica = self.place.row.id;
        let mut items = Vec::new();
        if let Some(row) = self.view.copy_at(replica, root.dir, top.as_bytes())? {
            items.extend(self.item(root, &row, fresh_since)?);
        }
        let dir_key = copy_key(top, FileType::Dir);
        let (mut after, end) =
            if top.is_root() { (Vec::new(), None) } else { (dir_key.clone(), Some(range_end(&dir_key))) };
        loop {
            self.around.check_stop()?;
            let rows = self.view.copies_after(replica, root.dir, &after, PAGE)?;
            let is_last = rows.len() < PAGE;
            let mut is_over = is_last;
            for row in rows {
                if end.as_ref().is_some_and(|end| row.key >= *end) {
                    is_over = true;
                    break;
                }
                after.clone_from(&row.key);
                items.extend(self.item(root, &row, fresh_since)?);
            }
            if items.len() >= PAGE || is_over {
                let bad = self.check(root, std::mem::take(&mut items))?;
                if let Some(mender) = mender.as_deref_mut() {
                    mender.mend_copies(self.place, root, bad, &mut self.sum, self.each)?;
                }
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// What is to be read of a copy; `None`: nothing, or not under this name.
    pub(super) fn item(
        &mut self,
        root: &PlacedRoot,
        row: &CopyRow,
        fresh_since: Option<Timestamp>,
    ) -> Result<Option<Item>, FixityError> {
        if row.kind != FileType::File {
            return Ok(None);
        }
        let replica = self.place.row.id;
        if let Some(since) = fresh_since
            && let Some(check) = self.view.check(Some(replica), root.dir, row.file_id)?
            && check.of == row.of
            && check.at >= since
        {
            return Ok(None);
        }
        let mut names = self.view.copies_of(replica, root.dir, row.file_id)?;
        names.retain(|name| name.of == row.of && name.kind == FileType::File);
        if names.first().is_some_and(|first| first.key != row.key) {
            return Ok(None);
        }
        let sha256 = match row.sha256 {
            Some(sha256) => Some(sha256),
            None => self.hash_of_original(row)?,
        };
        let Some(sha256) = sha256 else {
            self.sum.unknown += 1;
            return Ok(None);
        };
        let paths = names.into_iter().filter_map(|name| RelPath::new(name.key).ok()).collect();
        Ok(Some(Item {
            paths,
            file: row.file_id.0,
            of: row.of,
            is_presumed: row.sha256.is_none(),
            expected: Expected {
                size: row.size,
                mtime_ns: row.mtime_ns,
                ctime_ns: None,
                inode: None,
                hashes: Hashes { sha256: Some(Digest(sha256)), blake3: None },
            },
        }))
    }

    /// What an adopted copy has to be: its original's content, if that version is known still.
    fn hash_of_original(&self, row: &CopyRow) -> Result<Option<[u8; 32]>, FixityError> {
        let names = self.view.names_of(row.file_id)?;
        let Some(known) = names.into_iter().map(|name| name.known).next() else { return Ok(None) };
        let is_same = known.version_seq <= row.of
            && known.facts.as_ref().is_some_and(|facts| (facts.size, facts.mtime_ns) == (row.size, row.mtime_ns));
        Ok(known.sha256.filter(|_| is_same))
    }

    /// Reads copies of a root, and has journaled what that came to.
    pub(super) fn check(&mut self, root: &PlacedRoot, items: Vec<Item>) -> Result<Vec<Item>, FixityError> {
        let looks = self.look_at_all(root, &items)?;
        let mut acts = Vec::new();
        let mut verified = Vec::new();
        let mut suspects = Vec::new();
        for (item, look) in items.into_iter().zip(looks) {
            if matches!(look, Look::Content(..)) {
                self.sum.files += item.paths.len() as u64;
                self.sum.bytes += item.expected.size * item.paths.len() as u64;
            }
            match judge(&item.expected, &look) {
                Verdict::Sound(_) | Verdict::New(_) => self.sound(root, &item, &mut acts, &mut verified),
                Verdict::Busy => self.sum.busy += 1,
                Verdict::Unsound(_) => suspects.push(item),
            }
        }
        let bad = self.settle(root, suspects, &mut acts, &mut verified)?;
        if !verified.is_empty() {
            let replica = Some(self.place.name().clone());
            acts.push(Body::Verified(Box::new(Verified { replica, root: root.name.clone(), files: verified })));
        }
        self.around.tell.tell(acts)?;
        Ok(bad)
    }

    fn sound(&mut self, root: &PlacedRoot, item: &Item, acts: &mut Vec<Body>, verified: &mut Vec<(i64, Seq)>) {
        self.sum.verified += 1;
        verified.push((item.file, item.of));
        if item.is_presumed {
            acts.push(Body::Hashed(Box::new(Hashed {
                replica: Some(self.place.name().clone()),
                root: root.name.clone(),
                path: item.paths.first().cloned().unwrap_or_default(),
                file: item.file,
                of: item.of,
                size: item.expected.size,
                mtime_ns: item.expected.mtime_ns,
                sha256: item.expected.hashes.sha256,
                blake3: None,
            })));
        }
    }

    /// Looks a second time at what seems wrong. It is a finding if the copy is the same one after that look still.
    fn settle(
        &mut self,
        root: &PlacedRoot,
        suspects: Vec<Item>,
        acts: &mut Vec<Body>,
        verified: &mut Vec<(i64, Seq)>,
    ) -> Result<Vec<Item>, FixityError> {
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let looks = self.look_at_all(root, &suspects)?;
        self.around.tell.catch_up()?;
        let mut bad = Vec::new();
        for (item, look) in suspects.into_iter().zip(looks) {
            let what = match judge(&item.expected, &look) {
                Verdict::Sound(_) | Verdict::New(_) => {
                    self.sound(root, &item, acts, verified);
                    continue;
                }
                Verdict::Busy => {
                    self.sum.busy += 1;
                    continue;
                }
                Verdict::Unsound(what) => what,
            };
            let now = self.view.copies_of(self.place.row.id, root.dir, crate::inventory::FileId(item.file))?;
            let Some(path) = item.paths.first().filter(|_| now.iter().any(|row| row.of == item.of)) else {
                self.sum.busy += 1;
                continue;
            };
            self.find(root, path.clone(), Some((item.file, item.of)), seen_of(&look), what, acts)?;
            bad.push(item);
        }
        Ok(bad)
    }

    fn find(
        &mut self,
        root: &PlacedRoot,
        path: RelPath,
        version: Option<(i64, Seq)>,
        seen: Option<(u64, i64)>,
        what: Unsoundness,
        acts: &mut Vec<Body>,
    ) -> Result<(), FixityError> {
        self.sum.count(&what);
        let replica = Some(self.place.name().clone());
        let found = Unsound { replica, root: root.name.clone(), path, version, seen, what };
        acts.push(Body::Unsound(Box::new(found.clone())));
        (self.each)(Event::Finding(Box::new(found)))
    }

    /// Reads copies in as many threads as the target likes; one that the target is away for stops it all.
    fn look_at_all(&mut self, root: &PlacedRoot, items: &[Item]) -> Result<Vec<Look>, FixityError> {
        let (next, trouble) = (AtomicUsize::new(0), Mutex::new(None));
        let looks: Vec<Mutex<Option<Look>>> = items.iter().map(|_| Mutex::new(None)).collect();
        let (place, around) = (self.place, self.around);
        let work = || {
            give_way();
            let mut buffer = vec![0; BUFFER_BYTES];
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(index) else { return };
                if around.stop.load(Ordering::Acquire) {
                    return;
                }
                match look_at(place, root, item, around.limit, &mut buffer) {
                    Ok(look) => *looks[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(look),
                    Err(error) => {
                        next.store(items.len(), Ordering::Relaxed);
                        trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..place.settings.transfers.min(items.len()) {
                scope.spawn(work);
            }
            if !items.is_empty() {
                scope.spawn(work);
            }
        });
        if let Some(error) = trouble.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error.into());
        }
        around.check_stop()?;
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            (self.each)(Event::Progress(self.sum))?;
        }
        let taken = |look: Mutex<Option<Look>>| look.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(looks.into_iter().map(|look| taken(look).unwrap_or(Look::Moving)).collect())
    }

    /// Lists what lies below a root's place, for what is no copy.
    fn look_for_foreign(&mut self, root: &PlacedRoot) -> Result<(), FixityError> {
        let mut found: Vec<(RelPath, Found)> = Vec::new();
        let mut failed = None;
        let mut is_known =
            |path: &RelPath, kind| match self.view.copy_at(self.place.row.id, root.dir, &copy_key(path, kind)) {
                Ok(row) => row.is_some(),
                Err(error) => {
                    failed.get_or_insert(error);
                    true
                }
            };
        self.place.session.list(&root.placement.dir(), &mut |at, seen| {
            if self.around.stop.load(Ordering::Acquire) || found.len() >= FOREIGN_MAX {
                return ControlFlow::Break(());
            }
            // A directory may be there only for what goes into it.
            if let Some(path) = root.placement.path_of(at).filter(|_| seen.kind != FileType::Dir)
                && !is_known(&path, seen.kind)
            {
                found.push((path, seen));
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if found.is_empty() {
            return Ok(());
        }
        self.around.tell.catch_up()?;
        let mut acts = Vec::new();
        for (path, seen) in found {
            let key = copy_key(&path, seen.kind);
            let place = root.placement.place(&path);
            if self.view.copy_at(self.place.row.id, root.dir, &key)?.is_none()
                && self.place.session.look(&place)?.is_some()
            {
                let seen = Some((seen.size, seen.mtime_ns));
                self.find(root, path, None, seen, Unsoundness::Missed(Drift::Foreign), &mut acts)?;
            }
        }
        self.around.tell.tell(acts)?;
        Ok(())
    }
}

/// Reads a copy under each of its names; the first that is not sound counts.
fn look_at(
    place: &Place<'_>,
    root: &PlacedRoot,
    item: &Item,
    limit: Option<&Limit>,
    buffer: &mut [u8],
) -> Result<Look, TargetError> {
    let mut last = Look::Gone;
    for path in &item.paths {
        last = look_at_one(place, &root.placement.place(path), &item.expected, limit, buffer)?;
        if !matches!(judge(&item.expected, &last), Verdict::Sound(_)) {
            break;
        }
    }
    Ok(last)
}

/// Reads what lies at a place of a target, if it is the version that is expected.
pub(super) fn look_at_one(
    place: &Place<'_>,
    at: &RelPath,
    expected: &Expected,
    limit: Option<&Limit>,
    buffer: &mut [u8],
) -> Result<Look, TargetError> {
    let of_one = |error: TargetError| {
        if error.is_of_the_place() { Err(error) } else { Ok(Look::Unreadable(error.to_string())) }
    };
    let seen = |found: &Found| Seen { size: found.size, mtime_ns: found.mtime_ns, ctime_ns: None, inode: None };
    let before = match place.session.look(at) {
        Ok(Some(found)) if found.kind == FileType::File => seen(&found),
        Ok(Some(_)) => return Ok(Look::Other(None)),
        Ok(None) => return Ok(Look::Gone),
        Err(error) => return of_one(error),
    };
    if !is_version(expected, &before, place.step_ns()) {
        return Ok(Look::Other(Some(before)));
    }
    let mut bytes = match place.session.read(at) {
        Ok(bytes) => bytes,
        Err(error) => return of_one(error),
    };
    let mut hasher = Hasher::new(Wanted { sha256: true, blake3: false });
    let mut length = 0;
    loop {
        let most = limit.and_then(Limit::most);
        let end = most.map_or(buffer.len(), |(_, bytes)| bytes.min(buffer.len()));
        match bytes.read(&mut buffer[..end]) {
            Ok(0) => break,
            Ok(read) => {
                if let (Some(limit), Some((rate, _))) = (limit, most) {
                    limit.take(read, rate);
                }
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Look::Unreadable(error.to_string())),
        }
    }
    let look = Look::Content(before, hasher.finish());
    let is_sound = length == before.size && matches!(judge(expected, &look), Verdict::Sound(_));
    if is_sound {
        return Ok(look);
    }
    // What was replaced while it was read shows now.
    match place.session.look(at) {
        Ok(Some(found)) if found.kind == FileType::File && seen(&found) == before && length == before.size => Ok(look),
        Ok(_) => Ok(Look::Moving),
        Err(error) => of_one(error),
    }
}
