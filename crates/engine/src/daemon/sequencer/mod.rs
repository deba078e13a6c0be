//! The one writer of records: it hears events and scans, looks, decides and journals, in one order.
//!
//! An event that is plain is journaled as told. Whatever is not — a name touched again before the look, a scan's
//! difference, an absence — becomes a *doubt*: a little later, when the inventory has all that was journaled, the name
//! is looked at again and what differs is journaled. So no old observation overwrites a newer event, and the last
//! record of every name agrees with the file system once it is quiet.

mod doubts;
mod events;
mod found;
mod renames;
mod unsettled;
mod upkeep;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keepwatch_journal::{
    Body, By, Change, Evidence, Facts, FileType, OldPlace, Op, RelPath, RootName, Seq, Settled, Via,
};

use crate::clock::Clock;
use crate::daemon::cache::Cache;
use crate::daemon::dirs::{At, DirNo, Dirs, DirsError, Place, RootNo};
use crate::daemon::due::Due;
use crate::daemon::ledger::Ledger;
use crate::daemon::rules::Rules;
use crate::daemon::tree::{DirAt, Located, Look, Tree};
use crate::watch::DirKey;
use crate::watch::settle::{Patience, Settle};

pub use found::{Difference, Found};

/// Objects of which the last journaled facts are remembered, per generation.
const RECENT_ENTRIES: usize = 8 * 1024;
/// Directories whose last live record is remembered, per generation.
const TOUCH_ENTRIES: usize = 16 * 1024;
/// Events of what happened during a scan are heard this much later at the latest.
const SCAN_ECHO: Duration = Duration::from_secs(1);
/// A scan that runs for longer than this does not keep the versions waiting that have not settled.
const LONG_SCAN: Duration = Duration::from_secs(5);
/// Names waiting to be looked at again.
const DOUBTS_MAX: usize = 50_000;
/// Directories waiting to have their own facts refreshed.
const REFRESH_MAX: usize = 20_000;
/// Open files whose writes are told of once a second.
const WRITES_MAX: usize = 20_000;

/// A file's identity while it exists: device and inode.
pub type ObjectNo = (u64, u64);

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    /// The directory.
    pub dir: DirNo,
    /// The name in it.
    pub name: Box<[u8]>,
}

/// A root as the sequencer sees it.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its name.
    pub name: RootName,
    /// Its absolute path.
    pub dir: PathBuf,
    /// Who tells of its changes.
    pub via: Via,
    /// Whether other machines may write there unseen.
    pub shared: bool,
    /// How long to wait for what.
    pub patience: Patience,
    /// What is left out.
    pub rules: Rules,
    /// Notices about what is left out.
    pub left_out: u64,
}

/// A directory whose content is not known and has to be scanned.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanWanted {
    /// In which root.
    pub root: RootNo,
    /// Its path, as journaled.
    pub path: RelPath,
    /// The directory itself, which may have another path by the time it is scanned.
    pub dir: Option<DirNo>,
}

impl ScanWanted {
    /// Whether a scan of this is one of the other, too. Another directory that came to have the same path is not covered:
    /// this one may be elsewhere by the time it is scanned.
    #[must_use]
    pub fn covers(&self, other: &ScanWanted) -> bool {
        let within = other.path.is_within(&self.path);
        self.root == other.root && within && (self.path != other.path || self.dir.is_none() || self.dir == other.dir)
    }
}

/// What the sequencer did since it was last asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Directories to scan.
    pub scans: Vec<ScanWanted>,
    /// A root's own top directory was touched: it may be gone.
    pub check_roots: bool,
    /// Roots in which events and what was met before they came contradict each other: what was journaled meanwhile is
    /// to be held against the tree once more.
    pub contradicted: Vec<RootNo>,
    /// Directories on which a file system was mounted when they were known, and is not now.
    pub unmounted: Vec<(RootNo, RelPath)>,
}

/// The last that was journaled of an object.
#[derive(Clone, Debug)]
struct Told {
    facts: Facts,
    spot: Spot,
    seq: Seq,
    settled: bool,
    /// When a write to it, while open, was last journaled.
    written: Option<Instant>,
}

/// Who and how of a record.
#[derive(Clone, Debug)]
struct Origin {
    via: Via,
    by: Option<Arc<By>>,
    merged: bool,
}

impl Origin {
    fn scan(via: Via) -> Self {
        Origin { via, by: None, merged: false }
    }

    fn merged(self) -> Self {
        Origin { merged: true, ..self }
    }
}

/// The sequencer. `T` looks at files, `L` keeps records.
pub struct Sequencer<T, L> {
    /// Looks at files.
    pub tree: T,
    /// Keeps records.
    pub ledger: L,
    /// The roots, by [`RootNo`].
    pub roots: Vec<Root>,
    /// Where each directory is.
    pub dirs: Dirs,
    clock: Arc<dyn Clock>,
    asked: Asked,
    recent: Cache<ObjectNo, Told>,
    /// By what a directory that was told of is found wherever it is now.
    keys: Cache<ObjectNo, DirKey>,
    /// Which directory whoever reads the journal has under a name; it may have gone from there since.
    holders: Cache<Spot, ObjectNo>,
    /// Names that were told to have ended, or to be another directory, and when: what was told of them and of what is
    /// below them before counts no more.
    ended: Cache<Spot, Seq>,
    /// When something was last told to have got a name: what had it before has it no more, whatever is there again.
    taken: Cache<Spot, Seq>,
    settle: Settle<ObjectNo, Spot>,
    doubts: Due<Spot, Origin>,
    /// Names whose records are not in the inventory yet though a doubt about them was resolved.
    resolved: HashSet<Spot>,
    /// A directory moved or went since the inventory was last caught up with: its paths below are stale there.
    shifted: bool,
    /// Directories that are known but were not entered by a scan yet, and how often one was asked for. Only where
    /// directories are watched one by one: until then nothing is told of what they hold.
    unentered: HashMap<DirNo, u8>,
    /// Directories of which something was told that need not hold for what is in them: scanned when all is quiet.
    uncertain: HashSet<DirNo>,
    /// Until when events may tell of what happened during a scan; `None`: one runs.
    scan_end: Option<Instant>,
    /// Versions that have not settled are asked for from then on: not while a scan runs, unless it runs for long.
    offers_from: Instant,
    /// Objects of which every known name is to be looked at again.
    strays: Due<ObjectNo, ()>,
    refresh: Due<DirNo, Via>,
    writes: Due<ObjectNo, (Spot, Origin)>,
    /// The last live record about a name in each directory, to tell whether a scan's comparison is stale.
    touches: Cache<DirNo, Seq>,
    /// The newest touch that may have been forgotten.
    touch_floor: Seq,
    touch_count: usize,
    /// The last record.
    last: Seq,
    /// Renames seen since the last commit, by the names they touched.
    renamed: HashSet<Spot>,
    /// The second half of an exchange that has been told of.
    exchanged: Vec<(Spot, Spot)>,
    /// Behind which version the inventory is asked next for those that have not settled, and not before when.
    offering: Option<(Seq, Instant)>,
    /// The inventory is not asked from the start again before it has this record.
    offered_until: Seq,
    /// Inodes that were told moved, of which the inventory does not know yet.
    claimed: HashSet<(RootNo, u64)>,
    absences: Vec<(Spot, Via)>,
    /// What a scan found that may have moved from a directory which it had not met then.
    arrivals: Vec<(Spot, Via)>,
    /// Whether what a scan finds is told to have settled then and there, where that is sure.
    settles_found: bool,
    /// This process.
    own_pid: Option<u32>,
}

/// What stops the sequencer: its directory table.
pub type Result<T> = std::result::Result<T, DirsError>;

impl<T: Tree, L: Ledger> Sequencer<T, L> {
    /// A sequencer of these roots, that has told nothing yet.
    pub fn new(tree: T, ledger: L, roots: Vec<Root>, dirs: Dirs, clock: Arc<dyn Clock>) -> Self {
        let start = clock.instant();
        Sequencer {
            tree,
            ledger,
            roots,
            dirs,
            clock,
            asked: Asked::default(),
            recent: Cache::new(RECENT_ENTRIES),
            keys: Cache::new(RECENT_ENTRIES),
            holders: Cache::new(RECENT_ENTRIES),
            ended: Cache::new(RECENT_ENTRIES),
            taken: Cache::new(RECENT_ENTRIES),
            settle: Settle::default(),
            doubts: Due::new(DOUBTS_MAX),
            resolved: HashSet::new(),
            shifted: false,
            unentered: HashMap::new(),
            uncertain: HashSet::new(),
            scan_end: Some(start),
            offers_from: start,
            strays: Due::new(DOUBTS_MAX),
            refresh: Due::new(REFRESH_MAX),
            writes: Due::new(WRITES_MAX),
            touches: Cache::new(TOUCH_ENTRIES),
            touch_floor: Seq::ZERO,
            touch_count: 0,
            last: Seq::ZERO,
            renamed: HashSet::new(),
            exchanged: Vec::new(),
            offering: None,
            offered_until: Seq::ZERO,
            claimed: HashSet::new(),
            absences: Vec::new(),
            arrivals: Vec::new(),
            settles_found: false,
            own_pid: None,
        }
    }

    /// This process is the one that copies to replicas: much of what is told of it is about those.
    pub fn set_own_pid(&mut self, pid: u32) {
        self.own_pid = Some(pid);
    }

    /// From now on what a scan finds is told to have settled then and there, where that is sure: who copies it need not wait,
    /// and the inventory is written once for both.
    pub fn settle_found_at_once(&mut self) {
        self.settles_found = true;
    }

    /// What it wants done, and forgets the wish.
    pub fn take_asked(&mut self) -> Asked {
        std::mem::take(&mut self.asked)
    }

    /// Where a directory that is to be scanned is now: it may have moved, also to another root. If it is in none any more
    /// another one may have its place.
    ///
    /// # Errors
    /// If the directory table fails.
    pub fn place_wanted(&mut self, wanted: ScanWanted) -> Result<(RootNo, RelPath)> {
        let at = match wanted.dir {
            Some(dir) => self.dirs.at(dir)?,
            None => None,
        };
        Ok(at.map_or((wanted.root, wanted.path), |at| (at.root, (*at.path).clone())))
    }

    /// Files in the settling machine that somebody has held open for long.
    pub fn held_open(&mut self) -> Vec<(RootName, RelPath)> {
        let now = self.clock.instant();
        let longest = self.roots.iter().map(|root| root.patience.open_max).max().unwrap_or(Duration::MAX);
        let spots: Vec<Spot> = self.settle.held(now, longest).cloned().collect();
        spots
            .iter()
            .filter_map(|spot| {
                let at = self.dirs.at(spot.dir).ok()??;
                Some((self.root(at.root).name.clone(), at.path.join(&spot.name)))
            })
            .collect()
    }

    /// Files followed until they settle.
    pub fn settling(&self) -> usize {
        self.settle.len()
    }

    /// Names to be looked at again.
    pub fn doubtful(&self) -> usize {
        self.doubts.len() + self.strays.len() + self.writes.len() + self.refresh.len()
    }

    fn root(&self, no: RootNo) -> &Root {
        &self.roots[usize::from(no.0)]
    }

    /// Where a directory is, found by its identity on the disk where the table does not know it.
    fn place_of(&mut self, key: &DirKey) -> Result<Option<At>> {
        match self.dirs.find(key)? {
            Place::In(at) => return Ok(Some(at)),
            Place::Outside => return Ok(None),
            Place::Unknown => {}
        }
        let dirs = &mut self.dirs;
        let mut trouble = None;
        let located = self.tree.locate(key, &mut |above| match dirs.find(above) {
            Ok(place) => matches!(place, Place::In(_)),
            Err(error) => {
                trouble = Some(error);
                false
            }
        });
        if let Some(error) = trouble {
            return Err(error);
        }
        match located {
            Located::Below(known, chain) => {
                let Place::In(mut at) = self.dirs.find(&known)? else { return Ok(None) };
                if !chain.is_empty() {
                    self.contradict(at.root);
                }
                for (key, name) in chain {
                    self.met(&at, &name)?;
                    let no = self.dirs.set(&key, at.no, &name)?;
                    let Some(below) = self.dirs.at(no)? else { return Ok(None) };
                    at = below;
                }
                Ok(Some(at))
            }
            Located::Outside | Located::Gone => {
                self.dirs.set_outside(key);
                Ok(None)
            }
            Located::Unavailable => Ok(None),
        }
    }

    /// A directory that the table does not have was met: that it moved here is told before anything that it holds.
    fn met(&mut self, at: &At, name: &[u8]) -> Result<()> {
        let spot = Spot { dir: at.no, name: name.into() };
        let origin = Origin::scan(self.root(at.root).via);
        if let Look::There(facts) = self.look(at, name)?
            && self.recent.get(&(facts.dev, facts.inode)).is_none_or(|told| told.spot != spot)
            && let Some(from) = self.former_place(at, name, &facts)?
        {
            return self.tell_move(&from.borrow(), at, &spot, facts, origin, true);
        }
        self.doubt(spot, origin, Duration::ZERO);
        Ok(())
    }

    fn look(&mut self, at: &At, name: &[u8]) -> Result<Look> {
        let Some(key) = self.dirs.key(at.no)? else { return Ok(Look::Gone) };
        Ok(self.tree.look(DirAt { key: &key, root: at.root, path: &at.path }, name))
    }

    fn key_of(&mut self, at: &At, name: &[u8]) -> Result<Option<DirKey>> {
        let Some(key) = self.dirs.key(at.no)? else { return Ok(None) };
        Ok(self.tree.key_of(DirAt { key: &key, root: at.root, path: &at.path }, name))
    }

    /// Whether what has a name now is what an event was about; where that cannot be told it is taken for granted.
    fn is_itself(&mut self, at: &At, name: &[u8], object: Option<&DirKey>) -> Result<bool> {
        let (Some(object), Some(key)) = (object, self.dirs.key(at.no)?) else { return Ok(true) };
        let dir = DirAt { key: &key, root: at.root, path: &at.path };
        Ok(self.tree.is_object(dir, name, object).unwrap_or(true))
    }

    /// An object changed that may have other names than the one that was told of: all that are known are looked at.
    fn stray(&mut self, object: ObjectNo) {
        let at = self.clock.instant() + events::DOUBT_WAIT;
        self.strays.add(object, (), at);
    }

    fn left_out(&mut self, at: &At, name: &[u8], is_dir: bool) -> bool {
        let path = if name.is_empty() { (*at.path).clone() } else { at.path.join(name) };
        let root = &mut self.roots[usize::from(at.root.0)];
        let out = root.rules.leave_out(&path, is_dir);
        root.left_out += u64::from(out);
        out
    }

    /// Appends a change and remembers what follows from it.
    fn tell(&mut self, op: Op, at: &At, name: &[u8], facts: Option<Facts>, origin: Origin, more: More) -> Seq {
        let path = if name.is_empty() { (*at.path).clone() } else { at.path.join(name) };
        let via = origin.via;
        let told = facts.clone();
        let seq = self.ledger.append(Body::Change(Change {
            op,
            root: self.root(at.root).name.clone(),
            path,
            old: more.old,
            facts,
            via,
            by: origin.by,
            merged: origin.merged,
            subtree: more.subtree,
            exchange: more.exchange,
        }));
        if matches!(op, Op::Create | Op::Move) {
            self.taken.insert(Spot { dir: at.no, name: name.into() }, seq);
        }
        if op == Op::Delete || told.as_ref().is_none_or(|facts| op == Op::Create && is_dir(facts)) {
            self.ended.insert(Spot { dir: at.no, name: name.into() }, seq);
        }
        if let Some(facts) = told {
            if self.is_known_otherwise(&facts, via) {
                self.stray((facts.dev, facts.inode));
            }
            if is_dir(&facts)
                && let Ok(Some(no)) = self.dirs.child(at.no, name)
                && let Ok(Some(key)) = self.dirs.key(no)
            {
                self.keys.insert((facts.dev, facts.inode), key);
            }
            // What was created or modified is another version, even if another name told of it before: it settles anew.
            let goes_on = matches!(op, Op::Attrib | Op::Move) && !more.anew;
            self.remember(at, name, facts, seq, more.settled, goes_on);
        }
        self.last = seq;
        if !name.is_empty() {
            if !matches!(via, Via::Scan | Via::Poll) {
                self.touch(at.no, seq);
            }
            if !matches!(op, Op::Attrib | Op::Modify) {
                self.refresh_soon(at.no, self.root(at.root).via);
            }
        }
        seq
    }

    /// Whether what is known of an object under its other names may not hold any more: it may be written under one of
    /// which an event came too late to be looked at, or got or lost a name. A scan looks at the others itself, but maybe
    /// did so before.
    fn is_known_otherwise(&mut self, facts: &Facts, via: Via) -> bool {
        if facts.nlink <= 1 || is_dir(facts) {
            return false;
        }
        let is_scan = matches!(via, Via::Scan | Via::Poll);
        !is_scan || self.recent.get(&(facts.dev, facts.inode)).is_some_and(|told| told.facts.nlink != facts.nlink)
    }

    fn remember(&mut self, at: &At, name: &[u8], facts: Facts, seq: Seq, settled: bool, goes_on: bool) {
        let object = (facts.dev, facts.inode);
        let version = (facts.size, facts.mtime_ns);
        let before = self.recent.get(&object).filter(|_| goes_on);
        let same = before.is_some_and(|told| (told.facts.size, told.facts.mtime_ns) == version && told.settled);
        let spot = Spot { dir: at.no, name: name.into() };
        if is_dir(&facts) {
            self.holders.insert(spot.clone(), object);
        }
        self.recent.insert(object, Told { facts, spot, seq, settled: settled || same, written: None });
    }

    /// A directory was told to have moved that could not be looked at: whoever reads the journal has under the new name
    /// what it had under the old one.
    fn carry(&mut self, old: &Spot, new: &Spot, seq: Seq) {
        let ended = self.ended.get(old).copied();
        if let Some(object) = self.holders.remove(old)
            && let Some(told) = self.recent.get(&object)
            && told.spot == *old
            && ended.is_none_or(|ended| ended <= told.seq)
        {
            (told.spot, told.seq) = (new.clone(), seq);
            self.holders.insert(new.clone(), object);
        }
    }

    fn tell_settled(&mut self, at: &At, name: &[u8], facts: &Facts, evidence: Evidence) {
        if let Some(told) = self.recent.get(&(facts.dev, facts.inode)) {
            told.settled = true;
        }
        if facts.nlink > 1 {
            self.stray((facts.dev, facts.inode));
        }
        self.ledger.append(Body::Settled(Settled {
            root: self.root(at.root).name.clone(),
            path: at.path.join(name),
            evidence,
            size: facts.size,
            mtime_ns: facts.mtime_ns,
            inode: facts.inode,
        }));
    }

    /// Remembers that a live record about a name in this directory was made.
    fn touch(&mut self, dir: DirNo, seq: Seq) {
        if self.touches.get(&dir).is_none() {
            self.touch_count += 1;
            if self.touch_count >= TOUCH_ENTRIES {
                // A generation may be dropped from here on: what it held is not newer than this.
                self.touch_floor = seq;
                self.touch_count = 0;
            }
        }
        self.touches.insert(dir, seq);
    }

    /// Whether a live record about a name in this directory was made after `base`.
    fn touched_since(&mut self, dir: DirNo, base: Seq) -> bool {
        self.touches.get(&dir).map_or(self.touch_floor, |seq| *seq) > base
    }

    /// Looks at a name again after `wait`, and journals what differs then.
    fn doubt(&mut self, spot: Spot, origin: Origin, wait: Duration) {
        let at = self.clock.instant() + wait;
        self.doubts.add(spot, origin, at);
    }

    /// A scan begins (`true`) or is over. Renames of directories that happen meanwhile may take what they hold past it.
    pub fn set_scanning(&mut self, scanning: bool) {
        let now = self.clock.instant();
        self.scan_end = if scanning { None } else { Some(now + SCAN_ECHO) };
        self.offers_from = if scanning { now + LONG_SCAN } else { now };
    }

    /// Whether a directory of this root may have moved past a scan: where directories are watched one by one, only a
    /// scan tells of what was there before the watch.
    fn may_slip_past(&self, root: RootNo) -> bool {
        let now = self.clock.instant();
        self.root(root).via == Via::Inotify && self.scan_end.is_none_or(|end| now < end)
    }

    fn contradict(&mut self, root: RootNo) {
        if !self.asked.contradicted.contains(&root) {
            self.asked.contradicted.push(root);
        }
    }

    fn want_scan(&mut self, at: &At) {
        let wanted = ScanWanted { root: at.root, path: (*at.path).clone(), dir: Some(at.no) };
        if self.asked.scans.last() != Some(&wanted) {
            self.asked.scans.push(wanted);
        }
    }

    /// A directory was put into the table without a scan having entered it.
    fn must_enter(&mut self, at: &At, no: DirNo) {
        if self.root(at.root).via == Via::Inotify {
            self.unentered.entry(no).or_insert(0);
        }
    }

    fn old_place(&self, from: &At, name: &[u8], to: &At) -> OldPlace {
        OldPlace { root: (from.root != to.root).then(|| self.root(from.root).name.clone()), path: from.path.join(name) }
    }
}

/// What a record says beyond the usual.
#[derive(Debug, Default)]
struct More {
    old: Option<OldPlace>,
    subtree: bool,
    exchange: bool,
    /// The version had settled before, under another name.
    settled: bool,
    /// Whatever was known of the object, a reader of the journal has lost it.
    anew: bool,
}

fn is_file(facts: &Facts) -> bool {
    facts.kind == FileType::File
}

fn is_dir(facts: &Facts) -> bool {
    facts.kind == FileType::Dir
}
