//! What is done when its time has come: files that settle, directories whose own facts changed, writes to open files.

use std::time::{Duration, Instant};

use keepwatch_journal::{Evidence, Facts, Via};

use super::events::DOUBT_WAIT;
use super::{More, ObjectNo, Origin, Result, Sequencer, Spot, is_dir, is_file};
use crate::daemon::compare::differs;
use crate::daemon::dirs::{At, DirNo, RootNo};
use crate::daemon::ledger::{Knowledge, Ledger};
use crate::daemon::rules::lock_of;
use crate::daemon::tree::{DirAt, Look, Tree, Writers};
use crate::watch::settle::{AGAIN, Seen, Shape, Verdict};

/// Appointments kept in one go, so that events are heard in between: some milliseconds of work.
const AT_ONCE: usize = 200;
/// How often a scan is asked for that enters a directory: one that may not be read is never entered.
const ENTER_TRIES: u8 = 4;
/// Exchanges of which the second half was not heard yet; more than these are forgotten.
const EXCHANGED_MAX: usize = 64;
/// A flush keeps all appointments of this time to come; none is made further ahead but for settling.
const FLUSH_AHEAD: Duration = Duration::from_secs(60);

impl<T: Tree, L: Ledger> Sequencer<T, L> {
    /// Does what is due. `quiet`: all events that were told have been heard; only then does a look at a name say
    /// anything about what was journaled of it.
    pub fn upkeep(&mut self, quiet: bool) -> Result<()> {
        let now = self.clock.instant();
        for _ in 0..AT_ONCE {
            let Some((object, spot)) = self.settle.due(now) else { break };
            self.settle_one(object, &spot, now)?;
        }
        for _ in 0..AT_ONCE {
            let Some((_, (spot, origin))) = self.writes.pop(now) else { break };
            self.write_one(&spot, origin, now)?;
        }
        for _ in 0..AT_ONCE {
            let Some((dir, via)) = self.refresh.pop(now) else { break };
            self.refresh_one(dir, Origin::scan(via).merged())?;
        }
        self.offer_unsettled()?;
        if !quiet {
            return Ok(());
        }
        self.resolve_doubts()?;
        self.ask_for_uncertain()
    }

    /// Directories of which something uncertain was told are scanned.
    fn ask_for_uncertain(&mut self) -> Result<()> {
        let mut numbers: Vec<DirNo> = self.uncertain.drain().collect();
        numbers.sort_unstable();
        for no in numbers {
            if let Some(at) = self.dirs.at(no)? {
                self.want_scan(&at);
            }
        }
        Ok(())
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<Instant> {
        let now = (!self.uncertain.is_empty()).then(|| self.clock.instant());
        [
            now,
            self.offer_due(),
            self.settle.next_due(),
            self.writes.next(),
            self.refresh.next(),
            self.doubts.next(),
            self.strays.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What was journaled is durable.
    pub fn committed(&mut self) {
        self.renamed.clear();
        let surplus = self.exchanged.len().saturating_sub(EXCHANGED_MAX);
        self.exchanged.drain(..surplus);
    }

    /// Does everything that waits, due or not, but for files that settle.
    pub fn flush(&mut self) -> Result<()> {
        let far = self.clock.instant() + FLUSH_AHEAD;
        while let Some((_, (spot, origin))) = self.writes.pop(far) {
            self.write_one(&spot, origin, self.clock.instant())?;
        }
        self.resolve_doubts_until(far)?;
        self.ask_for_uncertain()?;
        while let Some((dir, via)) = self.refresh.pop(far) {
            self.refresh_one(dir, Origin::scan(via).merged())?;
        }
        Ok(())
    }

    /// Whether a name is to be looked at again.
    pub fn has_doubts(&self) -> bool {
        !self.doubts.is_empty() || !self.strays.is_empty() || !self.uncertain.is_empty()
    }

    /// Whether a directory was not entered by a scan that has to be.
    pub fn has_unentered(&self) -> bool {
        !self.unentered.is_empty()
    }

    /// Scans are over: directories that none of them entered, because they moved meanwhile, are asked for again.
    pub fn ask_for_unentered(&mut self) -> Result<()> {
        let mut numbers: Vec<DirNo> = self.unentered.keys().copied().collect();
        numbers.sort_unstable();
        for no in numbers {
            let asked = self.unentered.get_mut(&no).map_or(ENTER_TRIES, |asked| {
                *asked += 1;
                *asked
            });
            match self.dirs.at(no)? {
                Some(at) if asked <= ENTER_TRIES => self.want_scan(&at),
                _ => {
                    self.unentered.remove(&no);
                }
            }
        }
        Ok(())
    }

    /// A scan did not come to its end: what it missed proves nothing.
    pub fn forget_absences(&mut self) {
        self.absences.clear();
        for (spot, via) in std::mem::take(&mut self.arrivals) {
            self.doubt(spot, Origin::scan(via), DOUBT_WAIT);
        }
        self.claimed.clear();
    }

    /// How changes of a root are told from now on.
    pub fn set_method(&mut self, root: RootNo, via: Via, shared: bool) {
        let root = &mut self.roots[usize::from(root.0)];
        root.via = via;
        root.shared = shared;
        if shared {
            root.patience.settle_closed = root.patience.settle;
        }
    }

    /// Records were lost because the journal could not be written: nothing that is remembered of them counts.
    pub fn forget_told(&mut self) {
        self.recent.clear();
        self.holders.clear();
        self.ended.clear();
        self.taken.clear();
        self.touches.clear();
        self.touch_floor = self.last;
    }

    fn settle_one(&mut self, object: ObjectNo, spot: &Spot, now: Instant) -> Result<()> {
        let Some(at) = self.dirs.at(spot.dir)? else {
            // The directory may be known anew, with what it holds: then the inventory has the file.
            self.settle.gone(object);
            self.settle.refuse();
            return Ok(());
        };
        let patience = self.root(at.root).patience.clone();
        let facts = match self.look(&at, &spot.name)? {
            Look::There(facts) if (facts.dev, facts.inode) == object && is_file(&facts) => facts,
            Look::There(_) | Look::Gone | Look::Unavailable => {
                self.settle.gone(object);
                // It may have other names, under which it is not followed.
                if self.recent.get(&object).is_none_or(|told| told.facts.nlink > 1) {
                    self.stray(object);
                }
                return Ok(());
            }
        };
        let before = match self.recent.get(&object) {
            Some(told) => Some(told.facts.clone()),
            None => self.known_object(&at, &facts),
        };
        if let Some(before) = before
            && differs(&before, &facts).op().is_some()
        {
            // An event of it is on its way, or it is being written without one.
            let origin = Origin::scan(self.root(at.root).via).merged();
            self.changed(&at, &spot.name, facts.clone(), origin)?;
        }
        if self.has_ended(spot, &facts) {
            // A reader of the journal may hold that nothing has this name: what is there now is told of first.
            self.doubt(spot.clone(), Origin::scan(self.root(at.root).via).merged(), Duration::ZERO);
            self.settle.again(object, now);
            return Ok(());
        }
        let (seen, is_same) = self.seen(&at, spot, &facts, true)?;
        let evidence = match self.settle.seen(object, seen, now, &patience) {
            Verdict::ByLease => Evidence::Lease,
            Verdict::ByQuiet => Evidence::Quiet,
            Verdict::Wait | Verdict::Dropped => return Ok(()),
        };
        if is_same {
            self.tell_complete(&at, spot, &facts, evidence);
            return Ok(());
        }
        self.complete(&at, spot, &facts, evidence)
    }

    /// Tells that a version settled, unless that was told.
    fn tell_complete(&mut self, at: &At, spot: &Spot, facts: &Facts, evidence: Evidence) {
        if self.recent.get(&(facts.dev, facts.inode)).is_none_or(|told| !told.settled) {
            self.tell_settled(at, &spot.name, facts, evidence);
        }
    }

    /// Tells that a version which was looked at just now settled, if it has rested, nothing else was told of it, and it surely
    /// has no writer: then it need not be followed. `may_be_locked`: a file beside it may say that it is being worked on.
    pub(super) fn complete_at_once(
        &mut self,
        at: &At,
        spot: &Spot,
        facts: &Facts,
        may_be_locked: bool,
    ) -> Result<bool> {
        let is_told_otherwise = match self.recent.get(&(facts.dev, facts.inode)) {
            Some(told) => differs(&told.facts, facts).op().is_some(),
            None => false,
        };
        if is_told_otherwise || self.has_ended(spot, facts) || !self.wait_to_settle(at, facts).is_zero() {
            return Ok(false);
        }
        let is_complete = matches!(self.seen(at, spot, facts, may_be_locked)?, (Seen::NoWriter(_), true));
        if is_complete {
            self.tell_complete(at, spot, facts, Evidence::Lease);
        }
        Ok(is_complete)
    }

    /// Tells that a version settled, if it is still the one that was looked at; else it is looked at again.
    fn complete(&mut self, at: &At, spot: &Spot, facts: &Facts, evidence: Evidence) -> Result<()> {
        let object = (facts.dev, facts.inode);
        match self.look(at, &spot.name)? {
            Look::There(after) if after == *facts => self.tell_complete(at, spot, facts, evidence),
            Look::There(_) => {
                let (now, wait) = (self.clock.instant(), self.rest_closed(at.root, &spot.name).max(AGAIN));
                self.settle.closed(object, spot.clone(), now, wait);
            }
            Look::Gone | Look::Unavailable => {}
        }
        Ok(())
    }

    /// Who writes to it, as far as can be known; and whether it was this version while nobody could.
    fn seen(&mut self, at: &At, spot: &Spot, facts: &Facts, may_be_locked: bool) -> Result<(Seen, bool)> {
        let root = self.root(at.root);
        let (lease, shared) = (root.patience.lease, root.shared);
        let is_unfinished = root.rules.unfinished(&spot.name);
        if is_unfinished || (may_be_locked && matches!(self.look(at, &lock_of(&spot.name))?, Look::There(_))) {
            return Ok((Seen::Leave, false));
        }
        let shape = Shape { size: facts.size, mtime_ns: facts.mtime_ns };
        if !lease || shared {
            return Ok((Seen::NoLease(shape), false));
        }
        let Some(key) = self.dirs.key(at.no)? else { return Ok((Seen::Leave, false)) };
        let dir = DirAt { key: &key, root: at.root, path: &at.path };
        Ok(match self.tree.writers(dir, &spot.name, facts.inode) {
            Writers::None(then) => (Seen::NoWriter(shape), then == *facts),
            Writers::Some => (Seen::Writer, false),
            Writers::Unknown => (Seen::NoLease(shape), false),
        })
    }

    fn write_one(&mut self, spot: &Spot, origin: Origin, now: Instant) -> Result<()> {
        let Some(at) = self.dirs.at(spot.dir)? else { return Ok(()) };
        if let Look::There(facts) = self.look(&at, &spot.name)? {
            let object = (facts.dev, facts.inode);
            self.changed(&at, &spot.name, facts, origin)?;
            if let Some(told) = self.recent.get(&object) {
                told.written = Some(now);
            }
        }
        Ok(())
    }

    /// Journals a directory's own facts if they differ from what is known.
    fn refresh_one(&mut self, dir: DirNo, origin: Origin) -> Result<()> {
        let Some(at) = self.dirs.at(dir)? else { return Ok(()) };
        let Look::There(facts) = self.look(&at, b"")? else { return Ok(()) };
        if facts.nlink == 0 {
            // It was removed, and is only held open. Of a root nobody else may tell.
            self.asked.check_roots = true;
        }
        if facts.nlink == 0 || !is_dir(&facts) {
            return Ok(());
        }
        // A directory is told of as a name in its parent, the top directory as itself.
        let (at, name) = match self.dirs.parent(dir)? {
            Some((parent, name)) => match self.dirs.at(parent)? {
                Some(at) => (at, name),
                None => return Ok(()),
            },
            None => (at, Vec::new().into()),
        };
        if self.left_out(&at, &name, true) {
            return Ok(());
        }
        let told = self.recent.get(&(facts.dev, facts.inode)).map(|told| (told.facts.clone(), told.spot.clone()));
        let spot = Spot { dir: at.no, name: (*name).into() };
        if told.as_ref().is_some_and(|(told, at)| is_dir(told) && *at != spot) {
            // Its last record says that it has another name: what brought it to this one is told first.
            self.doubt(spot, origin, DOUBT_WAIT);
            return Ok(());
        }
        let before = match told.map(|(facts, _)| facts) {
            Some(told) => Some(told),
            None => {
                let root = self.root(at.root).name.clone();
                match self.ledger.child(&root, &at.path, &name) {
                    Knowledge::Yes(known) => known.facts,
                    Knowledge::No | Knowledge::Unknown => None,
                }
            }
        };
        let op = match before {
            Some(before) => differs(&before, &facts).op(),
            None => Some(keepwatch_journal::Op::Modify),
        };
        if let Some(op) = op {
            self.tell(op, &at, &name, Some(facts), origin, More::default());
        }
        Ok(())
    }
}
