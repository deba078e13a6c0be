//! Getting files back: from what a replica holds, or its trash held at a time, to a directory. What is written was verified on the
//! way; what is there already is not fetched again, so that an interrupted restore goes on.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::copies::look_at_one;
use super::place::{Place, PlacedRoot};
use super::{FixityError, Surroundings};
use crate::fixity::hash::{Hasher, Hashes, Wanted};
use crate::fixity::read::BUFFER_BYTES;
use crate::fixity::verdict::{Expected, Look, Seen, Verdict, judge};
use crate::inventory::{FileId, ListQuery, Listed, View, copy_key, range_end};
use crate::model::{Body, Digest, Facts, FileType, RelPath, ReplicaName, Restored, RootName, Timestamp};
use crate::target::{Content, LocalTarget, Meta, Session, TRASH, TargetError};

/// Rows read at once, and files that are published together.
const PAGE: usize = 512;
/// Bytes of files that are published together.
const BATCH_BYTES_MAX: u64 = 256 << 20;
/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Versions of one name that a day's trash is looked through for.
const TRASHED_MAX: u32 = 100;

/// What is restored.
#[derive(Clone, Debug)]
pub struct Job {
    /// Of each root the object at this path and all below it.
    pub scopes: Vec<(RootName, RelPath)>,
    /// From which replica.
    pub from: ReplicaName,
    /// As it was then; `None`: as the replica holds it.
    pub at: Option<Timestamp>,
    /// Where to.
    pub to: Aim,
}

/// Where restored files go.
#[derive(Clone, Debug)]
pub enum Aim {
    /// Below this directory, which is there: what a root holds directly, anything else under its own name.
    Dir(PathBuf),
    /// Nowhere: so many files, chosen by chance, are fetched, verified and thrown away.
    Drill(usize),
}

/// What restoring came to, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Files restored and verified.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories, links and other things restored.
    pub others: u64,
    /// Files that were there already.
    pub there: u64,
    /// Files restored of which no hash is known.
    pub unverified: u64,
    /// What could not be restored.
    pub failed: u64,
}

/// What is told on the way.
#[derive(Clone, Debug)]
pub enum Event {
    /// How far it is.
    Progress(Sum),
    /// Something could not be restored.
    Failed {
        /// Its root.
        root: RootName,
        /// Its path there.
        path: RelPath,
        /// Why, for people.
        why: String,
    },
}

/// Something that is to be restored.
struct Item {
    /// The path in the root.
    path: RelPath,
    kind: FileType,
    file: FileId,
    size: u64,
    mtime_ns: i64,
    sha256: Option<Digest>,
    /// What is known of its attributes.
    facts: Option<Facts>,
    /// Where it lies at the target.
    at: RelPath,
    /// Where it goes.
    to: RelPath,
}

/// Restores.
///
/// # Errors
/// [`FixityError`]; what was restored until then is there.
pub fn restore(
    job: &Job,
    around: &Surroundings<'_>,
    each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
) -> Result<Sum, FixityError> {
    let view = View::open(&around.inventory)?;
    let place = Place::open(around, &view, &job.from)?;
    let plain = match &job.to {
        Aim::Dir(dir) => Some(LocalTarget::new(dir).plain(around.tag)?),
        Aim::Drill(_) => None,
    };
    let mut restorer = Restorer {
        around,
        view: &view,
        place: &place,
        to: plain.as_deref(),
        each,
        sum: Sum::default(),
        linked: HashMap::new(),
        dirs: Vec::new(),
        batch: Vec::new(),
        told: Instant::now(),
    };
    for (root, paths) in place.scopes(&job.scopes) {
        for path in paths {
            let before = restorer.sum;
            match (&job.to, job.at) {
                (Aim::Drill(count), _) => restorer.drill(&root, &path, *count)?,
                (Aim::Dir(_), Some(at)) => restorer.past(&root, &path, at)?,
                (Aim::Dir(_), None) => restorer.present(&root, &path)?,
            }
            restorer.finish(&root)?;
            let sum = restorer.sum;
            if sum == before {
                continue;
            }
            let to = match &job.to {
                Aim::Dir(dir) => Some(dir.as_os_str().as_bytes().into()),
                Aim::Drill(_) => None,
            };
            around.tell.tell(vec![Body::Restored(Box::new(Restored {
                replica: job.from.clone(),
                root: root.name.clone(),
                path,
                to,
                files: sum.files + sum.there - before.files - before.there,
                bytes: sum.bytes - before.bytes,
                failed: sum.failed - before.failed,
            }))])?;
        }
    }
    let sum = restorer.sum;
    if sum == Sum::default() {
        return Err(FixityError::Nothing(format!("replica `{}` holds nothing of that", job.from)));
    }
    Ok(sum)
}

/// The directory that is removed when a restore is over, if nothing else is staged in it.
pub const STAGED_IN: &[u8] = crate::target::STAGING;

struct Restorer<'r, 's> {
    around: &'r Surroundings<'s>,
    view: &'r View,
    place: &'r Place<'s>,
    to: Option<&'r dyn Session>,
    each: &'r mut dyn FnMut(Event) -> Result<(), FixityError>,
    sum: Sum,
    /// Where each file with several names was restored first.
    linked: HashMap<i64, RelPath>,
    /// Directories that get their times when all is in them.
    dirs: Vec<Item>,
    batch: Vec<Item>,
    told: Instant,
}

impl Restorer<'_, '_> {
    /// What the replica holds now.
    fn present(&mut self, root: &PlacedRoot, top: &RelPath) -> Result<(), FixityError> {
        let view = self.view;
        let replica = self.place.row.id;
        let dir_key = copy_key(top, FileType::Dir);
        let mut first = Vec::new();
        if !top.is_root() {
            first.extend(view.copy_at(replica, root.dir, top.as_bytes())?);
            first.extend(view.copy_at(replica, root.dir, &dir_key)?);
        }
        let (mut after, end) =
            if top.is_root() { (Vec::new(), None) } else { (dir_key.clone(), Some(range_end(&dir_key))) };
        let mut rows = first;
        loop {
            let page = view.copies_after(replica, root.dir, &after, PAGE)?;
            let is_last = page.len() < PAGE;
            if let Some(last) = page.last() {
                after.clone_from(&last.key);
            }
            let count = page.len();
            rows.extend(page.into_iter().take_while(|row| end.as_ref().is_none_or(|end| row.key < *end)));
            let is_over = is_last || count == 0 || end.as_ref().is_some_and(|end| after >= *end);
            for row in std::mem::take(&mut rows) {
                let Ok(path) = RelPath::new(row.key.strip_suffix(b"/").unwrap_or(&row.key)) else { continue };
                let known = view.names_of(row.file_id)?.into_iter().map(|name| name.known).next();
                let facts = known.as_ref().and_then(|known| known.facts.clone());
                let is_version = |facts: &Facts| {
                    row.kind == FileType::Dir || (facts.size, facts.mtime_ns) == (row.size, row.mtime_ns)
                };
                let facts = facts.filter(is_version);
                let of_original = known.filter(|_| facts.is_some()).and_then(|known| known.sha256);
                self.take(
                    Item {
                        at: root.placement.place(&path),
                        to: destination(top, &path),
                        kind: row.kind,
                        file: row.file_id,
                        size: row.size,
                        mtime_ns: facts.as_ref().map_or(row.mtime_ns, |facts| facts.mtime_ns),
                        sha256: row.sha256.or(of_original).map(Digest),
                        facts,
                        path,
                    },
                    root,
                )?;
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// What the inventory says of then, from copies that are what it was, or from the trash.
    fn past(&mut self, root: &PlacedRoot, top: &RelPath, at: Timestamp) -> Result<(), FixityError> {
        let query = ListQuery { root: Some(root.name.clone()), path: top.clone(), at: Some(at) };
        let mut outcome = Ok(());
        let view = self.view;
        let days = self.days(at)?;
        view.list(&query, |listed| {
            outcome = if listed.path.is_root() { Ok(()) } else { self.take_past(root, top, listed, &days) };
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome
    }

    fn take_past(
        &mut self,
        root: &PlacedRoot,
        top: &RelPath,
        listed: Listed,
        days: &[RelPath],
    ) -> Result<(), FixityError> {
        let Some(facts) = listed.facts else { return Ok(()) };
        let (size, mtime_ns) = (facts.size, facts.mtime_ns);
        let sha256 = match listed.sha256 {
            Some(sha256) => Some(sha256),
            None => self.view.hash_before(listed.file_id, size, mtime_ns)?,
        };
        let mut item = Item {
            at: root.placement.place(&listed.path),
            to: destination(top, &listed.path),
            kind: facts.kind,
            file: listed.file_id,
            size,
            mtime_ns,
            sha256: sha256.map(Digest),
            facts: Some(facts),
            path: listed.path,
        };
        if item.kind == FileType::File {
            let rows = self.view.copies_of(self.place.row.id, root.dir, item.file)?;
            let held = rows.iter().find(|row| (row.size, row.mtime_ns) == (size, mtime_ns));
            match held.and_then(|row| RelPath::new(row.key.clone()).ok()) {
                Some(path) => item.at = root.placement.place(&path),
                None => match self.trashed(&item, days)? {
                    Some(at) => item.at = at,
                    None => {
                        return self.failed(
                            root,
                            &item.path,
                            "the replica and its trash do not have it as it was then".to_owned(),
                        );
                    }
                },
            }
        }
        self.take(item, root)
    }

    /// The days of the trash that may hold what was there at a time.
    fn days(&self, at: Timestamp) -> Result<Vec<RelPath>, FixityError> {
        let Ok(trash) = RelPath::new(TRASH) else { return Ok(Vec::new()) };
        let first = at.to_string().get(..10).unwrap_or_default().as_bytes().to_vec();
        let mut days: Vec<RelPath> = Vec::new();
        self.place.session.list(&trash, &mut |path, _| {
            if let Some(day) = path.components().nth(1)
                && day >= &first[..]
            {
                let day = trash.join(day);
                if days.last() != Some(&day) {
                    days.push(day);
                }
            }
            ControlFlow::Continue(())
        })?;
        days.dedup();
        Ok(days)
    }

    /// Where the trash has a version.
    fn trashed(&self, item: &Item, days: &[RelPath]) -> Result<Option<RelPath>, FixityError> {
        let expected = expected_of(item);
        let step_ns = self.place.step_ns();
        for day in days {
            let wanted = item.at.components().fold(day.clone(), |at, name| at.join(name));
            for number in 1..=TRASHED_MAX {
                let at = crate::target::numbered_place(&wanted, number);
                let Some(found) = self.place.session.look(&at)? else { break };
                let is_it = found.kind == FileType::File
                    && found.size == expected.size
                    && found.mtime_ns.div_euclid(step_ns) == expected.mtime_ns.div_euclid(step_ns);
                if is_it {
                    return Ok(Some(at));
                }
            }
        }
        Ok(None)
    }

    /// Fetches some files, chosen by chance, and throws them away.
    fn drill(&mut self, root: &PlacedRoot, top: &RelPath, count: usize) -> Result<(), FixityError> {
        let dice = std::hash::RandomState::new();
        let mut chosen: Vec<crate::inventory::CopyRow> = Vec::new();
        let (mut after, mut seen) = (Vec::new(), 0_usize);
        loop {
            self.around.check_stop()?;
            let rows = self.view.copies_after(self.place.row.id, root.dir, &after, PAGE)?;
            let Some(last) = rows.last() else { break };
            after.clone_from(&last.key);
            let is_within = |key: &[u8]| RelPath::new(key).is_ok_and(|path| path.is_within(top));
            for row in rows.into_iter().filter(|row| row.kind == FileType::File && is_within(&row.key)) {
                seen += 1;
                // Each of those seen so far is as likely as any other to be among the chosen (reservoir sampling).
                let place = usize::try_from(dice.hash_one(seen) % seen as u64).unwrap_or(usize::MAX);
                if chosen.len() < count {
                    chosen.push(row);
                } else if place < count {
                    chosen[place] = row;
                }
            }
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        for row in chosen {
            self.around.check_stop()?;
            let Ok(path) = RelPath::new(row.key.clone()) else { continue };
            let hash = match row.sha256 {
                Some(sha256) => Some(sha256),
                None => self.view.hash_before(row.file_id, row.size, row.mtime_ns)?,
            };
            let hashes = Hashes { sha256: hash.map(Digest), blake3: None };
            let expected = Expected { size: row.size, mtime_ns: row.mtime_ns, ctime_ns: None, inode: None, hashes };
            let look = look_at_one(self.place, &root.placement.place(&path), &expected, None, &mut buffer)?;
            match judge(&expected, &look) {
                Verdict::Sound(_) => self.count_file(row.size, true),
                Verdict::New(_) => self.count_file(row.size, false),
                verdict => self.failed(root, &path, format!("{verdict:?}"))?,
            }
            self.show()?;
        }
        Ok(())
    }

    fn count_file(&mut self, bytes: u64, is_verified: bool) {
        self.sum.bytes += bytes;
        *if is_verified { &mut self.sum.files } else { &mut self.sum.unverified } += 1;
    }

    fn failed(&mut self, root: &PlacedRoot, path: &RelPath, why: String) -> Result<(), FixityError> {
        self.sum.failed += 1;
        (self.each)(Event::Failed { root: root.name.clone(), path: path.clone(), why })
    }

    fn show(&mut self) -> Result<(), FixityError> {
        if self.told.elapsed() < TELL_EVERY {
            return Ok(());
        }
        self.told = Instant::now();
        (self.each)(Event::Progress(self.sum))
    }

    fn take(&mut self, item: Item, root: &PlacedRoot) -> Result<(), FixityError> {
        self.around.check_stop()?;
        let Some(to) = self.to else { return Ok(()) };
        match item.kind {
            FileType::Dir => {
                match to.make_dir(&item.to) {
                    Ok(()) => self.dirs.push(item),
                    Err(error) => self.of_one(root, &item.path, error)?,
                }
                Ok(())
            }
            FileType::File => {
                self.batch.push(item);
                let bytes: u64 = self.batch.iter().map(|item| item.size).sum();
                if self.batch.len() >= PAGE || bytes >= BATCH_BYTES_MAX { self.fetch(root) } else { Ok(()) }
            }
            FileType::Symlink | FileType::Fifo => self.node(to, &item, root),
            kind => self.failed(root, &item.path, format!("a {} is not restored", kind.as_str())),
        }
    }

    fn of_one(&mut self, root: &PlacedRoot, path: &RelPath, error: TargetError) -> Result<(), FixityError> {
        if error.is_of_the_place() { Err(error.into()) } else { self.failed(root, path, error.to_string()) }
    }

    fn node(&mut self, to: &dyn Session, item: &Item, root: &PlacedRoot) -> Result<(), FixityError> {
        let found = match self.place.session.look(&item.at)? {
            Some(found) if found.kind == item.kind => found,
            _ => return self.failed(root, &item.path, "the replica does not have it".to_owned()),
        };
        if let Some(there) = to.look(&item.to)? {
            if there.kind == found.kind && there.target == found.target {
                self.sum.others += 1;
                return Ok(());
            }
            return self.failed(root, &item.path, IN_THE_WAY.to_owned());
        }
        let meta = meta(self.place, item);
        let content = match &found.target {
            Some(target) => Content::Symlink(target),
            None => Content::Fifo,
        };
        let staged = to.stage(&item.to, &meta, content);
        match staged.map(|staged| to.publish(vec![staged], None).into_iter().next().unwrap_or(Ok(()))) {
            Ok(Ok(())) => self.sum.others += 1,
            Ok(Err(error)) | Err(error) => self.of_one(root, &item.path, error)?,
        }
        Ok(())
    }

    /// Fetches the files of a batch, in threads, and publishes them.
    fn fetch(&mut self, root: &PlacedRoot) -> Result<(), FixityError> {
        let Some(to) = self.to else { return Ok(()) };
        let (mut items, mut links) = (Vec::new(), Vec::new());
        for item in std::mem::take(&mut self.batch) {
            let has_links = item.facts.as_ref().is_some_and(|facts| facts.nlink > 1);
            match self.linked.get(&item.file.0) {
                Some(first) if has_links => links.push((first.clone(), item)),
                _ => {
                    if has_links {
                        self.linked.insert(item.file.0, item.to.clone());
                    }
                    items.push(item);
                }
            }
        }
        let (next, slots): (_, Vec<Mutex<Option<_>>>) =
            (AtomicUsize::new(0), items.iter().map(|_| Mutex::new(None)).collect());
        let fetcher = Fetcher { place: self.place, stop: self.around.stop };
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(index) else { return };
                let fetched = fetcher.fetch(to, item);
                if matches!(&fetched, Err(Trouble::Target(error)) if error.is_of_the_place()) {
                    next.store(items.len(), Ordering::Relaxed);
                }
                *slots[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(fetched);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.place.settings.transfers.min(items.len()) {
                scope.spawn(work);
            }
            work();
        });
        let (mut staged, mut published) = (Vec::new(), Vec::new());
        for (item, slot) in items.into_iter().zip(slots) {
            match slot.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Some(Ok(Fetched::There)) => self.sum.there += 1,
                Some(Ok(Fetched::Staged(one))) => {
                    staged.push(one);
                    published.push(item);
                }
                Some(Err(Trouble::Target(error))) => self.of_one(root, &item.path, error)?,
                Some(Err(Trouble::Other(why))) => self.failed(root, &item.path, why)?,
                None => {}
            }
        }
        for (item, result) in published.iter().zip(to.publish(staged, None)) {
            match result {
                Ok(()) => self.count_file(item.size, item.sha256.is_some()),
                Err(error) => self.of_one(root, &item.path, error)?,
            }
        }
        for (first, item) in links {
            match to.link(&first, &item.to) {
                Ok(()) => self.sum.others += 1,
                Err(error) => self.of_one(root, &item.path, error)?,
            }
        }
        self.show()
    }

    /// Directories get their attributes last, the deepest first.
    fn finish(&mut self, root: &PlacedRoot) -> Result<(), FixityError> {
        self.fetch(root)?;
        let Some(to) = self.to else { return Ok(()) };
        let mut dirs = std::mem::take(&mut self.dirs);
        dirs.sort_by(|one, other| other.to.as_bytes().cmp(one.to.as_bytes()));
        for item in dirs {
            let meta = meta(self.place, &item);
            match to.set_meta(&item.to, FileType::Dir, &meta) {
                Ok(()) => self.sum.others += 1,
                Err(error) => self.of_one(root, &item.path, error)?,
            }
        }
        Ok(to.sync()?)
    }
}

const IN_THE_WAY: &str = "something else is there, and stays; give another directory, or take it away";

/// What became of a file.
enum Fetched {
    /// It was there already, whole.
    There,
    /// It is to be published.
    Staged(crate::target::Staged),
}

/// Why a file was not fetched.
enum Trouble {
    Target(TargetError),
    Other(String),
}

impl From<TargetError> for Trouble {
    fn from(error: TargetError) -> Self {
        Trouble::Target(error)
    }
}

/// What the threads need, which is nothing of the inventory.
struct Fetcher<'f, 's> {
    place: &'f Place<'s>,
    stop: &'f AtomicBool,
}

impl Fetcher<'_, '_> {
    fn fetch(&self, to: &dyn Session, item: &Item) -> Result<Fetched, Trouble> {
        if let Some(there) = to.look(&item.to)? {
            let expected = expected_of(item);
            let is_version = there.kind == FileType::File && (there.size, there.mtime_ns) == (item.size, item.mtime_ns);
            return match is_version && matches!(self.reread(to, item, &expected)?, Verdict::Sound(_) | Verdict::New(_))
            {
                true => Ok(Fetched::There),
                false => Err(Trouble::Other(IN_THE_WAY.to_owned())),
            };
        }
        let meta = meta(self.place, item);
        let mut bytes = Hashing {
            inner: self.place.session.read(&item.at)?,
            hasher: Some(Hasher::new(Wanted { sha256: true, blake3: false })),
            length: 0,
            stop: self.stop,
        };
        let content = Content::File { bytes: &mut bytes, size: item.size, is_sparse: true };
        let staged = to.stage(&item.to, &meta, content)?;
        let found = bytes.hasher.take().and_then(|hasher| hasher.finish().sha256);
        let is_it = bytes.length == item.size && item.sha256.is_none_or(|wanted| found == Some(wanted));
        if is_it {
            return Ok(Fetched::Staged(staged));
        }
        to.discard(staged);
        let replica = &self.place.row.name;
        Err(Trouble::Other(format!(
            "the copy is not what it was; `keepwatch verify --replica {replica} --repair` may mend it"
        )))
    }

    /// What lies at the destination already.
    fn reread(&self, to: &dyn Session, item: &Item, expected: &Expected) -> Result<Verdict, Trouble> {
        let mut bytes = to.read(&item.to)?;
        let mut hasher = Hasher::new(Wanted { sha256: true, blake3: false });
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match bytes.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Trouble::Other(error.to_string())),
            }
        }
        let seen = Seen { size: item.size, mtime_ns: item.mtime_ns, ctime_ns: None, inode: None };
        Ok(judge(expected, &Look::Content(seen, hasher.finish())))
    }
}

/// Reads, and hashes what it reads, until it is to end.
struct Hashing<'h> {
    inner: Box<dyn Read + Send>,
    hasher: Option<Hasher>,
    length: u64,
    stop: &'h AtomicBool,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Acquire) {
            return Err(io::Error::other("stopped"));
        }
        let read = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        self.length += read as u64;
        Ok(read)
    }
}

/// What the target tells of its attributes, or the inventory of the original's.
fn meta(place: &Place<'_>, item: &Item) -> Meta {
    let told = place.session.meta(&item.at).ok().flatten().unwrap_or_else(|| Meta {
        mode: if item.kind == FileType::Dir { 0o755 } else { 0o644 },
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..Meta::default()
    });
    match &item.facts {
        Some(facts) => {
            Meta { mode: facts.mode, uid: facts.uid, gid: facts.gid, mtime_ns: item.mtime_ns, xattrs: told.xattrs }
        }
        None => Meta { mtime_ns: item.mtime_ns, ..told },
    }
}

fn expected_of(item: &Item) -> Expected {
    let hashes = Hashes { sha256: item.sha256, blake3: None };
    Expected { size: item.size, mtime_ns: item.mtime_ns, ctime_ns: None, inode: None, hashes }
}

/// What is asked for goes under its own name, what a root holds directly below.
fn destination(top: &RelPath, path: &RelPath) -> RelPath {
    let above = top.split().map_or(0, |(above, _)| if above.is_empty() { 0 } else { above.len() + 1 });
    RelPath::new(&path.as_bytes()[above.min(path.as_bytes().len())..]).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_keeps_its_own_name() {
        let rel = |path: &str| RelPath::new(path).unwrap();
        assert_eq!(destination(&rel(""), &rel("a/b/c")), rel("a/b/c"));
        assert_eq!(destination(&rel("a"), &rel("a/b/c")), rel("a/b/c"));
        assert_eq!(destination(&rel("a/b"), &rel("a/b/c")), rel("b/c"));
        assert_eq!(destination(&rel("a/b/c"), &rel("a/b/c")), rel("c"));
    }
}
