//! Names to be looked at again: what the inventory knows against what is there.

use std::time::{Duration, Instant};

use keepwatch_journal::{Facts, FileType, Op, RelPath, Via};

use super::events::{DOUBT_WAIT, NEW_WAIT};
use super::{More, ObjectNo, Origin, Result, Root, Sequencer, Spot, is_dir, is_file};
use crate::daemon::compare::{Differs, differs, same_object};
use crate::daemon::dirs::{At, DirNo, Place, RootNo};
use crate::daemon::ledger::{Knowledge, Known, Ledger};
use crate::daemon::tree::{DirAt, Located, Look, Tree};
use crate::watch::DirKey;

/// Doubts resolved in one go.
const DOUBTS_AT_ONCE: usize = 2_000;
/// Absences of a scan that are kept until its end, so that what moved is found in its new place first.
pub(super) const ABSENCES_MAX: usize = 200_000;
/// Rounds of doubts that a flush resolves: more would be a tree that never rests.
const FLUSH_ROUNDS: usize = 64;
/// When the inventory cannot be asked, again after this time.
const NO_INVENTORY_WAIT: Duration = Duration::from_secs(1);

impl<T: Tree, L: Ledger> Sequencer<T, L> {
    /// Resolves doubts that are due.
    pub fn resolve_doubts(&mut self) -> Result<()> {
        let now = self.clock.instant();
        self.resolve_strays(now)?;
        let due = self.due_doubts(now);
        self.resolve_all(due)
    }

    /// Resolves doubts that are due until then, new ones included unless the inventory cannot be asked.
    pub(super) fn resolve_doubts_until(&mut self, until: Instant) -> Result<()> {
        for _ in 0..FLUSH_ROUNDS {
            self.resolve_strays(until)?;
            let due = self.due_doubts(until);
            if due.is_empty() {
                break;
            }
            self.resolve_all(due)?;
        }
        Ok(())
    }

    /// Looks at every known name of objects that changed under one of their names.
    pub(super) fn resolve_strays(&mut self, until: Instant) -> Result<()> {
        let mut due = Vec::new();
        while due.len() < DOUBTS_AT_ONCE
            && let Some(stray) = self.strays.pop(until)
        {
            due.push(stray);
        }
        if due.is_empty() {
            return Ok(());
        }
        if !self.catch_up() {
            let again = self.clock.instant() + NO_INVENTORY_WAIT;
            for (object, ()) in due {
                self.strays.add(object, (), again);
            }
            return Ok(());
        }
        for (object, ()) in due {
            // It may have names in several roots of one file system.
            for root in 0..self.roots.len() {
                self.look_at_all(object, RootNo(u16::try_from(root).unwrap_or(u16::MAX)))?;
            }
        }
        Ok(())
    }

    /// Looks at every name that is known of an object in a root.
    fn look_at_all(&mut self, object: ObjectNo, root: RootNo) -> Result<()> {
        let Some(top) = self.dirs.top(root)? else { return Ok(()) };
        let Root { name, via, .. } = self.root(root).clone();
        for (path, known) in self.ledger.by_inode(&name, object.1) {
            if known.facts.is_some_and(|known| known.dev == object.0)
                && let (Some(dir), Some((_, name))) = (self.dir_at(&top, &path)?, path.split())
            {
                self.resolve(&Spot { dir: dir.no, name: name.into() }, Origin::scan(via).merged())?;
            }
        }
        Ok(())
    }

    fn due_doubts(&mut self, now: Instant) -> Vec<(Spot, Origin)> {
        let mut due = Vec::new();
        while due.len() < DOUBTS_AT_ONCE
            && let Some(doubt) = self.doubts.pop(now)
        {
            due.push(doubt);
        }
        due
    }

    /// Resolves the absences that a scan met, now that all that it found present is journaled.
    pub fn resolve_absences(&mut self) -> Result<()> {
        // What moved is told before its old name is found empty.
        for waiting in [std::mem::take(&mut self.arrivals), std::mem::take(&mut self.absences)] {
            for chunk in waiting.chunks(DOUBTS_AT_ONCE) {
                self.resolve_all(chunk.iter().map(|(spot, via)| (spot.clone(), Origin::scan(*via))).collect())?;
            }
        }
        self.claimed.clear();
        Ok(())
    }

    /// What a scan found, and may have moved, is told at the scan's end, when the place where it was is known.
    pub(super) fn arrived_later(&mut self, spot: Spot, via: Via) -> Result<()> {
        self.arrivals.push((spot, via));
        if self.arrivals.len() >= ABSENCES_MAX {
            self.resolve_absences()?;
        }
        Ok(())
    }

    /// Whether the object is known under a name in a directory that was not met yet since the start.
    pub(super) fn may_have_moved(&mut self, at: &At, name: &[u8], facts: &Facts) -> Result<bool> {
        let root = self.root(at.root).name.clone();
        for (path, known) in self.ledger.by_inode(&root, facts.inode) {
            let is_it = known.facts.is_some_and(|known| self.is_same_object(&known, (at, name), facts));
            if is_it && self.dir_at(at, &path)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An absence that a scan met is resolved at the scan's end.
    pub(super) fn absent_later(&mut self, spot: Spot, via: Via) -> Result<()> {
        self.absences.push((spot, via));
        if self.absences.len() >= ABSENCES_MAX {
            self.resolve_absences()?;
        }
        Ok(())
    }

    fn resolve_all(&mut self, due: Vec<(Spot, Origin)>) -> Result<()> {
        if due.is_empty() {
            return Ok(());
        }
        if !self.catch_up() {
            for (spot, origin) in due {
                self.doubt(spot, origin, NO_INVENTORY_WAIT);
            }
            return Ok(());
        }
        // What is present first: an object that moved is found in its new place before its old one is found empty.
        let mut gone = Vec::new();
        for (spot, origin) in due {
            let Some(at) = self.dirs.at(spot.dir)? else { continue };
            match self.look(&at, &spot.name)? {
                there @ Look::There(_) => self.resolve_as(&spot, origin, Some(there))?,
                Look::Gone => gone.push((spot, origin)),
                Look::Unavailable => self.asked.check_roots = true,
            }
        }
        for (spot, origin) in gone {
            self.resolve(&spot, origin)?;
        }
        Ok(())
    }

    fn catch_up(&mut self) -> bool {
        let done = self.ledger.catch_up();
        if done {
            self.resolved.clear();
            self.claimed.clear();
            self.shifted = false;
        }
        done
    }

    /// Looks at a name and journals what differs from what is known.
    fn resolve(&mut self, spot: &Spot, origin: Origin) -> Result<()> {
        self.resolve_as(spot, origin, None)
    }

    /// The same with what a look has just shown.
    fn resolve_as(&mut self, spot: &Spot, origin: Origin, mut seen: Option<Look>) -> Result<()> {
        if self.shifted || self.resolved.contains(spot) {
            seen = None;
            if !self.catch_up() {
                self.doubt(spot.clone(), origin, NO_INVENTORY_WAIT);
                return Ok(());
            }
        }
        let Some(at) = self.dirs.at(spot.dir)? else { return Ok(()) };
        let look = match seen {
            Some(look) => look,
            None => self.look(&at, &spot.name)?,
        };
        let kind = match &look {
            Look::There(facts) => Some(facts.kind),
            _ => None,
        };
        if self.left_out(&at, &spot.name, kind == Some(FileType::Dir)) {
            return Ok(());
        }
        let root = self.root(at.root).name.clone();
        let known = self.ledger.child(&root, &at.path, &spot.name);
        match (look, known) {
            (Look::Unavailable, _) => self.asked.check_roots = true,
            (Look::Gone, Knowledge::No | Knowledge::Unknown) => {}
            (Look::Gone, Knowledge::Yes(known)) => self.vanished(&at, spot, &known, origin)?,
            (Look::There(_), Knowledge::Unknown) => {}
            (Look::There(facts), Knowledge::No) => self.appeared(&at, spot, facts, origin)?,
            (Look::There(facts), Knowledge::Yes(Known { facts: None, .. })) => {
                self.appeared(&at, spot, facts, origin)?;
            }
            (Look::There(facts), Knowledge::Yes(Known { facts: Some(known), settled })) => {
                match differs(&known, &facts) {
                    Differs::Object => self.replaced(&at, spot, &known, facts, origin)?,
                    other => {
                        if is_dir(&facts) {
                            self.recognise(&at, spot, false)?;
                        }
                        if other == Differs::Not {
                            // Whoever reads the journal has it under this name, whatever was told before.
                            self.ended.remove(spot);
                        }
                        if !settled && other != Differs::Content {
                            self.settle_again(&at, spot, &facts);
                        }
                        if let Some(op) = other.op() {
                            self.resolved.insert(spot.clone());
                            self.follow_up(&at, spot, &facts);
                            self.tell(op, &at, &spot.name, Some(facts), origin, More::default());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// That the version settled was told under another name, or of what is another object for who reads the journal.
    fn settle_again(&mut self, at: &At, spot: &Spot, facts: &Facts) {
        let object = (facts.dev, facts.inode);
        let told = self.recent.get(&object).is_some_and(|told| std::mem::take(&mut told.settled));
        if told || !self.settle.follows(object) {
            self.follow_up(at, spot, facts);
        }
    }

    /// A known name is not there any more.
    fn vanished(&mut self, at: &At, spot: &Spot, known: &Known, origin: Origin) -> Result<()> {
        // What was gone before it could be read may have been a directory, too.
        let dir = match &known.facts {
            Some(facts) => is_dir(facts),
            None => self.dirs.child(at.no, &spot.name)?.is_some(),
        };
        if dir {
            match self.moved_elsewhere(at, spot, known.facts.as_ref(), &origin)? {
                Whereabouts::Told => return Ok(()),
                Whereabouts::Moving => {
                    self.doubt(spot.clone(), origin, DOUBT_WAIT);
                    return Ok(());
                }
                Whereabouts::NotFound => {}
            }

            self.forget_dir(at, &spot.name, None)?;
            self.shifted = true;
        }
        self.resolved.insert(spot.clone());
        self.tell(Op::Delete, at, &spot.name, None, origin, More { subtree: dir, ..More::default() });
        Ok(())
    }

    /// A directory that has another name now was not deleted: finds it by its identity and journals the move.
    pub(super) fn moved_elsewhere(
        &mut self,
        at: &At,
        spot: &Spot,
        known: Option<&Facts>,
        origin: &Origin,
    ) -> Result<Whereabouts> {
        let listed = match self.dirs.child(at.no, &spot.name)? {
            Some(no) => self.dirs.key(no)?,
            None => None,
        };
        // The table may have it where it was met, of which nothing was told.
        let told = known.and_then(|known| self.keys.get(&(known.dev, known.inode)).cloned());
        let is_listed = told.is_none() || told == listed;
        let Some(key) = told.or(listed) else { return Ok(Whereabouts::NotFound) };
        let dirs = &mut self.dirs;
        let located =
            self.tree.locate(&key, &mut |above| *above != key && matches!(dirs.find(above), Ok(Place::In(_))));
        let Located::Below(parent, chain) = located else { return Ok(Whereabouts::NotFound) };
        let (Place::In(into), [(found, name)]) = (self.dirs.find(&parent)?, &chain[..]) else {
            // Below directories that are not known yet: the scan gets there.
            return Ok(Whereabouts::NotFound);
        };
        let Look::There(facts) = self.look(&into, name)? else { return Ok(Whereabouts::Moving) };
        if *found != key || !self.is_itself(&into, name, Some(&key))? {
            return Ok(Whereabouts::Moving);
        }
        if known.is_some_and(|known| (known.dev, known.inode) != (facts.dev, facts.inode)) {
            // The table has another directory at the name than was told of.
            return Ok(Whereabouts::NotFound);
        }
        if into.no == at.no && **name == *spot.name {
            return Ok(Whereabouts::Moving);
        }
        let new = Spot { dir: into.no, name: name.clone() };
        if self.is_told(&into, &new, &facts) {
            // As new, by an event that came before the scan of where it was: a move now would end what was told below it.
            return Ok(Whereabouts::NotFound);
        }
        self.tell_move(&RelPathOf { at, name: &spot.name }, &into, &new, facts, origin.clone(), !is_listed)?;
        self.resolved.insert(spot.clone());
        Ok(Whereabouts::Told)
    }

    /// A name is there that was not known: new, or another name of something known.
    pub(super) fn appeared(&mut self, at: &At, spot: &Spot, facts: Facts, origin: Origin) -> Result<()> {
        self.resolved.insert(spot.clone());
        if let Some(from) = self.former_place(at, &spot.name, &facts)? {
            return self.tell_move(&from.borrow(), at, spot, facts, origin, true);
        }
        if is_dir(&facts) && self.key_of(at, &spot.name)?.is_none() {
            // It has left again since the look: where it went is told, by an event or at another look.
            self.doubt(spot.clone(), origin, DOUBT_WAIT);
            return Ok(());
        }
        self.tell_new(at, spot, facts, origin, true)
    }

    pub(super) fn tell_new(
        &mut self,
        at: &At,
        spot: &Spot,
        facts: Facts,
        origin: Origin,
        scan_below: bool,
    ) -> Result<()> {
        // What was told below another directory of this name, or below this one in another place, has ended.
        let is_evicting = self.dirs.child(at.no, &spot.name)?.is_some();
        if is_dir(&facts) {
            let is_elsewhere = self.is_elsewhere(at, spot)?;
            if let Some(key) = &is_elsewhere {
                self.dirs.forget_key(key)?;
            }
            self.recognise(at, spot, scan_below || is_evicting || is_elsewhere.is_some())?;
        } else if is_evicting {
            self.forget_dir(at, &spot.name, None)?;
        }
        self.follow_up(at, spot, &facts);
        self.tell(Op::Create, at, &spot.name, Some(facts), origin, More::default());
        Ok(())
    }

    /// Where the object was known before, if it is surely gone from there.
    pub(super) fn former_place(&mut self, at: &At, name: &[u8], facts: &Facts) -> Result<Option<Former>> {
        if is_dir(facts)
            && let Some(from) = self.dir_elsewhere(at, name, facts)?
        {
            return Ok(Some(from));
        }
        if self.claimed.contains(&(at.root, facts.inode)) {
            return Ok(None);
        }
        let root = self.root(at.root).name.clone();
        let mut known = self.ledger.by_inode(&root, facts.inode);
        if self.shifted && !known.is_empty() && self.catch_up() {
            known = self.ledger.by_inode(&root, facts.inode);
        }
        for (path, known) in known {
            if !known.facts.is_some_and(|known| self.is_same_object(&known, (at, name), facts)) {
                continue;
            }
            let Some(dir) = self.dir_at(at, &path)? else { continue };
            let Some((_, name)) = path.split() else { continue };
            let spot = Spot { dir: dir.no, name: name.into() };
            if self.ended.get(&spot).is_some_and(|ended| *ended > self.ledger.applied()) {
                // Its end is journaled already; the inventory does not have that yet.
                continue;
            }
            if self.look(&dir, name)? == Look::Gone {
                return Ok(Some(Former { at: dir, name: name.into() }));
            }
        }
        Ok(None)
    }

    /// Where a directory was last told of, if that is elsewhere and has not been told to have ended. It has one name only:
    /// whoever reads the journal would have it twice.
    fn told_elsewhere(&mut self, at: &At, name: &[u8], facts: &Facts) -> Result<Option<Former>> {
        let Some(told) = self.recent.get(&(facts.dev, facts.inode)).filter(|told| is_dir(&told.facts)) else {
            return Ok(None);
        };
        let (spot, seq, known) = (told.spot.clone(), told.seq, told.facts.clone());
        let is_here = spot.dir == at.no && *spot.name == *name;
        if is_here || self.has_ended_since(&spot, seq)? || !self.is_same_object(&known, (at, name), facts) {
            return Ok(None);
        }
        Ok(self.dirs.at(spot.dir)?.map(|at| Former { at, name: spot.name }))
    }

    /// The same of a directory that an event brought here, if it can have come from there.
    pub(super) fn told_apart(&mut self, at: &At, name: &[u8], facts: &Facts) -> Result<Option<Former>> {
        let told = self.told_elsewhere(at, name, facts)?;
        Ok(told.filter(|told| told.at.root != at.root || !at.path.is_within(&told.at.path.join(&told.name))))
    }

    /// Whether what was found at a name is surely what was known under another: nothing but the rename has happened to it,
    /// or it came to be before it was last known to be what it was.
    fn is_same_object(&mut self, known: &Facts, (at, name): (&At, &[u8]), facts: &Facts) -> bool {
        let number = |facts: &Facts| (facts.kind, facts.dev, facts.inode);
        if same_object(known, facts) {
            return true;
        }
        if number(known) != number(facts) || known.ctime_ns > facts.ctime_ns {
            return false;
        }
        let Ok(Some(key)) = self.dirs.key(at.no) else { return false };
        let born = self.tree.born(DirAt { key: &key, root: at.root, path: &at.path }, name);
        born.is_some_and(|born| born <= known.ctime_ns)
    }

    /// The key of the directory that has a name, if the table has it under another.
    fn is_elsewhere(&mut self, at: &At, spot: &Spot) -> Result<Option<DirKey>> {
        let Some(key) = self.key_of(at, &spot.name)? else { return Ok(None) };
        let here = match self.dirs.child(at.no, &spot.name)? {
            Some(no) => self.dirs.key(no)?.is_some_and(|there| there == key),
            None => false,
        };
        Ok((!here && self.dirs.knows(&key)?).then_some(key))
    }

    /// Where a directory was last told of, or is held to be, if that is elsewhere.
    pub(super) fn dir_elsewhere(&mut self, at: &At, name: &[u8], facts: &Facts) -> Result<Option<Former>> {
        match self.told_elsewhere(at, name, facts)? {
            None => self.listed_elsewhere(at, name),
            from => Ok(from),
        }
    }

    /// Where a directory is held to be, if that is elsewhere: it was renamed, and no event told of that yet.
    fn listed_elsewhere(&mut self, at: &At, name: &[u8]) -> Result<Option<Former>> {
        let Some(key) = self.key_of(at, name)?.filter(DirKey::is_lasting) else { return Ok(None) };
        let Place::In(known) = self.dirs.find(&key)? else { return Ok(None) };
        let Some((parent, old_name)) = self.dirs.parent(known.no)? else { return Ok(None) };
        if parent == at.no && *old_name == *name {
            return Ok(None);
        }
        let Some(at) = self.dirs.at(parent)? else { return Ok(None) };
        let has_left = self.key_of(&at, &old_name)? != Some(key);
        Ok(has_left.then(|| Former { at, name: (*old_name).into() }))
    }

    /// The directory that holds `path`, found by going down from the top of the root.
    pub(super) fn dir_at(&mut self, within: &At, path: &RelPath) -> Result<Option<At>> {
        let Some((dir, _)) = path.split() else { return Ok(None) };
        let mut no = self.top_of(within)?;
        for name in dir.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            match self.dirs.child(no, name)? {
                Some(below) => no = below,
                None => return Ok(None),
            }
        }
        self.dirs.at(no)
    }

    /// Looks at a name again, of which no event tells: a file system was mounted there.
    pub fn look_again(&mut self, top: &DirKey, path: &RelPath) -> Result<()> {
        let Place::In(top) = self.dirs.find(top)? else { return Ok(()) };
        if let Some(at) = self.dir_at(&top, path)?
            && let Some((_, name)) = path.split()
        {
            let via = self.root(at.root).via;
            self.doubt(Spot { dir: at.no, name: name.into() }, Origin::scan(via), DOUBT_WAIT);
        }
        Ok(())
    }

    fn top_of(&mut self, at: &At) -> Result<DirNo> {
        let mut no = at.no;
        while let Some((parent, _)) = self.dirs.parent(no)? {
            no = parent;
        }
        Ok(no)
    }

    pub(super) fn tell_move(
        &mut self,
        from: &RelPathOf<'_>,
        into: &At,
        new: &Spot,
        facts: Facts,
        origin: Origin,
        scan_below: bool,
    ) -> Result<()> {
        if is_dir(&facts) && into.root == from.at.root && into.path.is_within(&from.at.path.join(from.name)) {
            // What holds it is known below it, and has moved, too: that is told first.
            self.disbelieve(from.at, from.name);
            self.disbelieve(into, &new.name);
            return Ok(());
        }
        let old = self.old_place(from.at, from.name, into);
        self.claimed.insert((into.root, facts.inode));
        self.resolved.insert(Spot { dir: from.at.no, name: from.name.into() });
        self.resolved.insert(new.clone());
        if is_dir(&facts) {
            self.shifted = true;
            let was = self.dirs.child(from.at.no, from.name)?;
            self.recognise(into, new, scan_below)?;
            if let (Some(was), None) = (was, self.dirs.child(into.no, &new.name)?)
                && let Some(key) = self.dirs.key(was)?
            {
                // It has left the new name already: where it went is told next, from there.
                self.dirs.set(&key, into.no, &new.name)?;
            }
        }
        self.follow_up(into, new, &facts);
        let via = origin.via;
        self.tell(Op::Move, into, &new.name, Some(facts), origin, More { old: Some(old), ..More::default() });
        self.refresh_soon(from.at.no, via);
        let old = Spot { dir: from.at.no, name: from.name.into() };
        self.ended.insert(old.clone(), self.last);
        if let Look::There(_) = self.look(from.at, from.name)? {
            // Something else has the old name already, and may have been told of under it: that has ended now.
            self.doubt(old, Origin::scan(via).merged(), DOUBT_WAIT);
        }
        Ok(())
    }

    /// Another object has a known name.
    pub(super) fn replaced(&mut self, at: &At, spot: &Spot, known: &Facts, facts: Facts, origin: Origin) -> Result<()> {
        if is_dir(known) && self.unmounted(at, known, &facts) {
            self.asked.unmounted.push((at.root, at.path.join(&spot.name)));
            return Ok(());
        }
        let was = Known { facts: Some(known.clone()), settled: false };
        self.vanished(at, spot, &was, origin.clone().merged())?;
        if is_dir(known) {
            // What is told next stands on the removal.
            self.doubt(spot.clone(), origin, DOUBT_WAIT);
            return Ok(());
        }
        self.appeared(at, spot, facts, origin.merged())
    }

    /// Whether a file system was mounted on the directory when it was last looked at, and is not now: then what was
    /// known below it is absent, not deleted.
    fn unmounted(&mut self, at: &At, known: &Facts, now: &Facts) -> bool {
        let Ok(Look::There(parent)) = self.look(at, b"") else {
            // It may just have been removed, with what it held: that alone is no unmount.
            return known.dev != now.dev;
        };
        let root = self.root(at.root).name.clone();
        let parent_known = match self.ledger.child(&root, &at.path, b"") {
            Knowledge::Yes(Known { facts: Some(facts), .. }) => facts.dev,
            _ => parent.dev,
        };
        known.dev != parent_known && now.dev == parent.dev
    }

    /// Puts a directory into the table; what it holds is scanned where that is not known.
    fn recognise(&mut self, at: &At, spot: &Spot, scan_below: bool) -> Result<()> {
        if scan_below && self.root(at.root).via == Via::Inotify {
            self.contradict(at.root);
        }
        if let Some(key) = self.key_of(at, &spot.name)? {
            if scan_below {
                self.dirs.forget_outside();
            }
            let known = self.dirs.child(at.no, &spot.name)?;
            let no = self.dirs.set(&key, at.no, &spot.name)?;
            if known != Some(no) {
                self.must_enter(at, no);
            }
            if scan_below && let Some(below) = self.dirs.at(no)? {
                self.want_scan(&below);
            }
        }
        Ok(())
    }

    /// A version that was found by looking settles like any other. While a scan runs, that waits for the scan's end: there
    /// may be millions of them, and the inventory offers them then.
    pub(super) fn follow_up(&mut self, at: &At, spot: &Spot, facts: &Facts) {
        if !is_file(facts) {
            return;
        }
        let object = (facts.dev, facts.inode);
        if self.scan_end.is_none() && !self.settle.follows(object) {
            self.settle.refuse();
        } else {
            let wait = self.wait_to_settle(at, facts);
            self.settle.touched(object, spot.clone(), self.clock.instant(), wait);
        }
    }

    /// How long what was found by looking is to rest yet before it may be complete.
    pub(super) fn wait_to_settle(&self, at: &At, facts: &Facts) -> Duration {
        // A time to come, after a step of the clock, says nothing.
        let rested = self.clock.now().0.checked_sub(facts.mtime_ns.max(facts.ctime_ns));
        let rested = rested.and_then(|rested| u64::try_from(rested).ok()).map_or(Duration::ZERO, Duration::from_nanos);
        self.root(at.root).patience.settle_min.max(NEW_WAIT).saturating_sub(rested)
    }
}

/// What became of a directory that is not under its name any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// It has another name, and that is told.
    Told,
    /// It is there, and had yet another name when it was looked at under the one that it was found by.
    Moving,
    /// It is gone, or nobody knows.
    NotFound,
}

/// Where something was.
pub(super) struct Former {
    pub(super) at: At,
    pub(super) name: Box<[u8]>,
}

impl Former {
    pub(super) fn spot(&self) -> Spot {
        Spot { dir: self.at.no, name: self.name.clone() }
    }

    pub(super) fn borrow(&self) -> RelPathOf<'_> {
        RelPathOf { at: &self.at, name: &self.name }
    }
}

/// A name in a directory, borrowed.
pub(super) struct RelPathOf<'a> {
    at: &'a At,
    name: &'a [u8],
}
