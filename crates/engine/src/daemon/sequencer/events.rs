//! Events, one after the other, as the kernel told them.

use std::time::Duration;

use keepwatch_journal::{Facts, Op, Seq, Via};

use super::{More, ObjectNo, Origin, Result, Sequencer, Spot, is_dir, is_file};
use crate::daemon::compare::differs;
use crate::daemon::dirs::{At, DirNo, Place, RootNo};
use crate::daemon::ledger::Ledger;
use crate::daemon::rules::locked_by;
use crate::daemon::tree::{DirAt, Look, Tree};
use crate::watch::{self, DirKey, Event, Notice, What};

/// A contradiction is looked at again after this time: events that explain it are on their way.
pub(super) const DOUBT_WAIT: Duration = Duration::from_millis(30);
/// The facts of a directory whose entries changed are told of this much later, once for all changes until then.
const REFRESH_WAIT: Duration = Duration::from_secs(1);
/// Writes to a file that stays open are told of at most this often.
const WRITE_WAIT: Duration = Duration::from_secs(1);
/// A new file that nobody closes is asked about after this time.
pub(super) const NEW_WAIT: Duration = Duration::from_secs(2);
/// How far ahead it is looked for what became of an object.
const FATE_AHEAD: usize = 64;

impl<T: Tree, L: Ledger> Sequencer<T, L> {
    /// Takes a notice; `ahead` are those that follow it.
    pub fn on_event(&mut self, event: &Event, ahead: &[Notice]) -> Result<()> {
        if event.what.has(What::UNMOUNT) {
            self.asked.check_roots = true;
            return Ok(());
        }
        if event.what.has(What::RENAME)
            && let Some(to) = &event.to
        {
            let from = self.place_of(&event.place.dir)?;
            let into = self.place_of(&to.dir)?;
            return self.renamed(event, from, into, ahead);
        }
        if event.place.name.is_empty() && !event.is_dir {
            return self.nameless(event, ahead);
        }
        let Some(at) = self.place_of(&event.place.dir)? else {
            self.outside(event);
            return Ok(());
        };
        let name = &event.place.name;
        if name.is_empty() {
            return self.itself(&at, event);
        }
        if self.left_out(&at, name, event.is_dir) {
            return Ok(());
        }
        if event.what.has(What::MOVED_OUT) {
            return self.left(&at, event);
        }
        if event.what.has(What::MOVED_IN) {
            return self.arrived(&at, name, event);
        }
        let made = event.is_dir && event.what.has(What::CREATE) && !event.what.has(What::DELETE);
        if self.is_overtaken(&at, name, event.object.as_ref())?
            || (made && self.is_ahead(&at, name, event.object.as_ref())?)
        {
            self.disbelieve(&at, name);
            return Ok(());
        }
        self.plain(&at, event, ahead)
    }

    /// What an event tells of a name is past, or contradicts what was met before: the name is looked at when all is quiet.
    pub(super) fn disbelieve(&mut self, at: &At, name: &[u8]) {
        self.contradict(at.root);
        let via = self.root(at.root).via;
        self.refresh_soon(at.no, via);
        self.doubt(Spot { dir: at.no, name: name.into() }, Origin::scan(via).merged(), DOUBT_WAIT);
    }

    /// Whether the table has another directory at this name than the event is about, and that one is there. A scan, or
    /// a search by identity, met it before its own events came: what they tell of the name's former holder is past, and
    /// would be taken for news of this one and of all below it. One that is not there any more is told of as moved, if it
    /// has another name: what is told of this name next would end it.
    pub(super) fn is_overtaken(&mut self, at: &At, name: &[u8], object: Option<&DirKey>) -> Result<bool> {
        let (Some(object), Some(no)) = (object, self.dirs.child(at.no, name)?) else { return Ok(false) };
        let (Some(holder), Some(key)) = (self.dirs.key(no)?, self.dirs.key(at.no)?) else { return Ok(false) };
        if holder == *object {
            return Ok(false);
        }
        let dir = DirAt { key: &key, root: at.root, path: &at.path };
        let is_there = self.tree.is_object(dir, name, &holder) == Some(true);
        if !is_there {
            let spot = Spot { dir: at.no, name: name.into() };
            self.moved_elsewhere(at, &spot, None, &Origin::scan(self.root(at.root).via).merged())?;
        }
        Ok(is_there)
    }

    /// Whether the table has the directory that an event is about at another place in a root: it was met there before
    /// the events came that brought it there.
    pub(super) fn is_ahead(&mut self, at: &At, name: &[u8], object: Option<&DirKey>) -> Result<bool> {
        let Some(object) = object else { return Ok(false) };
        let Place::In(there) = self.dirs.find(object)? else { return Ok(false) };
        Ok(self.dirs.parent(there.no)?.is_some_and(|(parent, other)| parent != at.no || *other != *name))
    }

    /// A file's attributes changed and no name was told: one of its names was linked or unlinked.
    fn nameless(&mut self, event: &Event, ahead: &[Notice]) -> Result<()> {
        if self.is_own_link(event, ahead)? {
            return Ok(());
        }
        if let Some((object, _)) = self.tree.object_of(&event.place.dir) {
            self.stray(object);
        }
        Ok(())
    }

    /// Whether this program itself gave a file a name that lies in no root, as it does with each that it copies to a place
    /// on the same file system: it gives no such name to what has one in a root.
    fn is_own_link(&mut self, event: &Event, ahead: &[Notice]) -> Result<bool> {
        let is_own = |event: &Event| event.by.as_ref().is_some_and(|by| Some(by.pid) == self.own_pid);
        if !is_own(event) {
            return Ok(false);
        }
        let linked = ahead.iter().take(FATE_AHEAD).find_map(|notice| match notice {
            Notice::Event(next) if next.object.as_ref() == Some(&event.place.dir) && is_own(next) => Some(next),
            _ => None,
        });
        match linked {
            Some(next) if next.what.has(What::CREATE) => Ok(self.place_of(&next.place.dir)?.is_none()),
            _ => Ok(false),
        }
    }

    /// A file was changed under a name that lies in no root, but it may have another that does.
    fn outside(&mut self, event: &Event) {
        if !event.is_dir && event.what.has(What::MODIFY.with(What::CLOSE_WRITE).with(What::ATTRIB)) {
            self.elsewhere(event, 2);
        }
    }

    /// An event about a watched directory itself.
    fn itself(&mut self, at: &At, event: &Event) -> Result<()> {
        if at.path.is_root() && event.what.has(What::DELETE_SELF.with(What::MOVE_SELF)) {
            self.asked.check_roots = true;
        }
        if event.what.has(What::ATTRIB) {
            let now = self.clock.instant();
            self.refresh.add(at.no, self.root(at.root).via, now);
        }
        Ok(())
    }

    pub(super) fn origin(&self, at: &At, event: &Event, merged: bool) -> Origin {
        Origin { via: self.root(at.root).via, by: event.by.clone(), merged }
    }

    /// Everything but renames.
    fn plain(&mut self, at: &At, event: &Event, ahead: &[Notice]) -> Result<()> {
        let (name, what) = (&*event.place.name, event.what);
        let leaves = !event.is_dir && leaves(event, &event.place, What::RENAME.with(What::DELETE), ahead);
        let is_past = leaves && what.has(What::CREATE) && !what.has(What::DELETE);
        let there = if is_past { Look::Gone } else { self.look(at, name)? };
        if there == Look::Unavailable {
            return self.unseen(at, event);
        }
        let itself = !matches!(there, Look::There(_)) || self.is_itself(at, name, event.object.as_ref())?;
        // Something that came later may have the name: its own events tell of it.
        let look = if itself { there.clone() } else { Look::Gone };
        if look == Look::Gone && what.has(What::CLOSE_WRITE) {
            self.closed_elsewhere(at.root, event);
        }
        if look == Look::Gone && !event.is_dir && !what.has(What::CREATE.with(What::DELETE)) {
            self.elsewhere(event, 1);
        }
        if what.has(What::CREATE) {
            self.created(at, event, &look)?;
        }
        if what.has(What::DELETE) {
            self.deleted(at, event, &there)?;
        }
        if what.has(What::CREATE.with(What::DELETE)) {
            if let (true, Look::There(facts)) = (what.has(What::CLOSE_WRITE), &look) {
                self.finished(at, name, facts, false);
            }
            return Ok(());
        }
        match look {
            Look::There(facts) => self.written(at, event, facts),
            // Its removal, or another name, is told of by an event that follows; a change of attributes is part of that.
            Look::Gone if what.has(What::CLOSE_WRITE) => {
                let spot = Spot { dir: at.no, name: name.into() };
                // A file may be written after its last name went: then nothing has that name.
                if self.ended.get(&spot).is_none() {
                    let origin = self.origin(at, event, false);
                    self.tell(Op::Modify, at, name, None, origin, More::default());
                }
                if !leaves {
                    self.doubt(spot, Origin::scan(self.root(at.root).via).merged(), DOUBT_WAIT);
                }
                Ok(())
            }
            Look::Gone | Look::Unavailable => Ok(()),
        }
    }

    /// The file that an event told of has not this name any more, or it does not count, but it may have others: all that are
    /// known are looked at if it has so many.
    fn elsewhere(&mut self, event: &Event, names_min: u64) {
        if let Some((object, names)) = event.object.as_ref().and_then(|key| self.tree.object_of(key))
            && names >= names_min
        {
            self.stray(object);
        }
    }

    /// A writer closed a file under a name that it has no more: under the one that it has now it may be complete.
    fn closed_elsewhere(&mut self, root: RootNo, event: &Event) {
        if let Some((object, _)) = event.object.as_ref().and_then(|key| self.tree.object_of(key)) {
            let wait = self.root(root).patience.settle_min;
            self.settle.released(object, self.clock.instant(), wait);
        }
    }

    /// What was told of a name that cannot be looked at. The gap that this belongs to is opened elsewhere.
    fn unseen(&mut self, at: &At, event: &Event) -> Result<()> {
        let op = [(What::CREATE, Op::Create), (What::DELETE, Op::Delete), (What::CLOSE_WRITE, Op::Modify)]
            .into_iter()
            .find_map(|(what, op)| event.what.has(what).then_some(op));
        // A removal that cannot be confirmed is left to the scan after the file system is back.
        if let Some(op @ (Op::Create | Op::Modify)) = op {
            let origin = self.origin(at, event, false);
            self.tell(op, at, &event.place.name, None, origin, More::default());
        }
        self.asked.check_roots = true;
        Ok(())
    }

    fn created(&mut self, at: &At, event: &Event, look: &Look) -> Result<()> {
        let name = &*event.place.name;
        let more_bits = What::MODIFY.with(What::CLOSE_WRITE).with(What::DELETE).with(What::ATTRIB);
        let origin = self.origin(at, event, event.what.has(more_bits));
        match look {
            Look::There(facts) => {
                let met_before = match &event.object {
                    Some(key) if is_dir(facts) => matches!(self.dirs.find(key)?, Place::In(_)),
                    _ => false,
                };
                if is_dir(facts) {
                    self.adopt_dir(at, name, event.object.as_ref())?;
                }
                if !self.told_already(at, name, facts)? {
                    self.tell(Op::Create, at, name, Some(facts.clone()), origin, More::default());
                    // What was told of its content by now was told of a former directory of this name.
                    if met_before {
                        self.contradict(at.root);
                    }
                    if met_before
                        && let Some(no) = self.dirs.child(at.no, name)?
                        && let Some(below) = self.dirs.at(no)?
                    {
                        self.want_scan(&below);
                    }
                }
                if is_file(facts) {
                    // Its writer has it open now; a second name of a finished file has no writer at all.
                    let wait = if facts.nlink > 1 { Duration::ZERO } else { NEW_WAIT };
                    let now = self.clock.instant();
                    let spot = Spot { dir: at.no, name: name.into() };
                    self.settle.touched((facts.dev, facts.inode), spot, now, wait);
                }
            }
            Look::Gone | Look::Unavailable => {
                if event.is_dir
                    && let Some(key) = &event.object
                {
                    let no = self.dirs.set(key, at.no, name)?;
                    self.uncertain.insert(no);
                }
                self.tell(Op::Create, at, name, None, origin, More::default());
                if event.object.is_none() {
                    // Where directories are found by their paths it may be there: its directory moved before the look.
                    let spot = Spot { dir: at.no, name: name.into() };
                    self.doubt(spot, Origin::scan(self.root(at.root).via).merged(), DOUBT_WAIT);
                }
            }
        }
        Ok(())
    }

    /// A directory that came to be: known by its identity from now on. Where the kernel does not report what is done
    /// in it before it is watched, what it holds by now is scanned.
    pub(super) fn adopt_dir(&mut self, at: &At, name: &[u8], object: Option<&DirKey>) -> Result<()> {
        let (key, told) = match object {
            Some(key) => (Some(key.clone()), true),
            None => (self.key_of(at, name)?, false),
        };
        let Some(key) = key else { return Ok(()) };
        let no = self.dirs.set(&key, at.no, name)?;
        self.must_enter(at, no);
        if !told && let Some(below) = self.dirs.at(no)? {
            self.want_scan(&below);
        }
        Ok(())
    }

    /// Whether just this was told of the name, and neither its end nor that of a directory above it since.
    pub(super) fn told_already(&mut self, at: &At, name: &[u8], facts: &Facts) -> Result<bool> {
        let Some(told) = self.recent.get(&(facts.dev, facts.inode)) else { return Ok(false) };
        let seq = told.seq;
        if told.spot.dir != at.no || *told.spot.name != *name || told.facts != *facts {
            return Ok(false);
        }
        let spot = told.spot.clone();
        Ok(!self.has_ended_since(&spot, seq)?)
    }

    /// Whether a name, or that of a directory above it, was told to have ended, or to have become another's, after that
    /// record.
    pub(super) fn has_ended_since(&mut self, spot: &Spot, seq: Seq) -> Result<bool> {
        if self.taken.get(spot).is_some_and(|taken| *taken > seq) {
            return Ok(true);
        }
        let mut spot = spot.clone();
        loop {
            if self.ended.get(&spot).is_some_and(|ended| *ended > seq) {
                return Ok(true);
            }
            let Some((parent, name)) = self.dirs.parent(spot.dir)? else { return Ok(false) };
            spot = Spot { dir: parent, name: (*name).into() };
        }
    }

    fn deleted(&mut self, at: &At, event: &Event, look: &Look) -> Result<()> {
        let name = &*event.place.name;
        if event.is_dir {
            if self.is_taken_over(at, name, event.object.as_ref())? {
                // Another directory has been told of under this name, which ended this one.
                return Ok(());
            }
            self.forget_dir(at, name, event.object.as_ref())?;
        }
        let merged = event.what.has(What::CREATE);
        let itself = matches!(look, Look::There(_)) && self.is_itself(at, name, event.object.as_ref())?;
        if merged && itself && event.object.is_some() {
            // Made and removed and made again in one notice: what is there has been told.
            return Ok(());
        }
        if let Look::There(_) = look {
            self.doubt(
                Spot { dir: at.no, name: name.into() },
                Origin::scan(self.root(at.root).via).merged(),
                DOUBT_WAIT,
            );
        }
        let origin = self.origin(at, event, merged);
        self.tell(Op::Delete, at, name, None, origin, More::default());
        if let Some(file) = locked_by(name) {
            self.unlocked(at, file)?;
        }
        Ok(())
    }

    /// A lock file is gone: what it locked may have settled.
    fn unlocked(&mut self, at: &At, file: &[u8]) -> Result<()> {
        if let Look::There(facts) = self.look(at, file)?
            && is_file(&facts)
        {
            let now = self.clock.instant();
            let wait = self.root(at.root).patience.settle_min;
            self.settle.closed((facts.dev, facts.inode), Spot { dir: at.no, name: file.into() }, now, wait);
        }
        Ok(())
    }

    /// Whether another directory than this is known to have the name.
    fn is_taken_over(&mut self, at: &At, name: &[u8], object: Option<&DirKey>) -> Result<bool> {
        let (Some(object), Some(there)) = (object, self.dirs.child(at.no, name)?) else { return Ok(false) };
        Ok(self.dirs.key(there)?.is_some_and(|key| key != *object))
    }

    pub(super) fn forget_dir(&mut self, at: &At, name: &[u8], object: Option<&DirKey>) -> Result<()> {
        let Some(there) = self.dirs.child(at.no, name)? else { return Ok(()) };
        // Another directory may have the name by now.
        let same = match object {
            Some(key) => self.dirs.key(there)?.as_ref() == Some(key),
            None => true,
        };
        if same {
            self.dirs.forget(there)?;
        }
        Ok(())
    }

    /// Modify, close and attribute events of what is there.
    fn written(&mut self, at: &At, event: &Event, facts: Facts) -> Result<()> {
        let (name, what) = (&*event.place.name, event.what);
        let object = (facts.dev, facts.inode);
        let now = self.clock.instant();
        let spot = Spot { dir: at.no, name: name.into() };
        if is_dir(&facts) {
            return self.changed(at, name, facts, self.origin(at, event, false));
        }
        let closed = what.has(What::CLOSE_WRITE);
        if what.has(What::MODIFY) && !closed {
            let wait = self.root(at.root).patience.settle_min.max(NEW_WAIT);
            self.settle.touched(object, spot.clone(), now, wait);
            let told = self.recent.get(&object).and_then(|told| told.written);
            if let Some(before) = told
                && now.duration_since(before) < WRITE_WAIT
            {
                let origin = self.origin(at, event, true);
                self.writes.add(object, (spot, origin), before + WRITE_WAIT);
                return Ok(());
            }
        }
        self.writes.cancel(&object);
        let merged = closed && what.has(What::MODIFY);
        let origin = self.origin(at, event, merged);
        self.changed(at, name, facts.clone(), origin)?;
        if what.has(What::MODIFY)
            && !closed
            && let Some(told) = self.recent.get(&object)
        {
            told.written = Some(now);
        }
        if closed && is_file(&facts) {
            self.finished(at, name, &facts, true);
        }
        Ok(())
    }

    /// Journals a change of something that was known, if there is one.
    pub(super) fn changed(&mut self, at: &At, name: &[u8], facts: Facts, origin: Origin) -> Result<()> {
        let spot = Spot { dir: at.no, name: name.into() };
        let before = match self.recent.get(&(facts.dev, facts.inode)) {
            Some(told) if told.spot != spot && (facts.nlink == 1 || is_dir(&facts)) => {
                // Its last record says that it has another name: what brought it to this one is told first.
                self.doubt(spot, origin, DOUBT_WAIT);
                return Ok(());
            }
            Some(told) => Some(told.facts.clone()),
            None => self.known_object(at, &facts),
        };
        let op = match before {
            Some(before) => differs(&before, &facts).op(),
            None => Some(Op::Modify),
        };
        if let Some(op) = op {
            self.tell(op, at, name, Some(facts), origin, More::default());
        }
        Ok(())
    }

    /// Whether this version of the object is known to have settled.
    pub(super) fn has_settled(&mut self, at: &At, facts: &Facts) -> bool {
        if let Some(told) = self.recent.get(&(facts.dev, facts.inode)) {
            return told.settled && (told.facts.size, told.facts.mtime_ns) == (facts.size, facts.mtime_ns);
        }
        let root = self.root(at.root).name.clone();
        self.ledger.by_inode(&root, facts.inode).into_iter().any(|(_, known)| {
            known.settled
                && known.facts.is_some_and(|known| (known.size, known.mtime_ns) == (facts.size, facts.mtime_ns))
        })
    }

    /// What the inventory knows of an object; it may lag, but facts with the same ctime are the same facts.
    pub(super) fn known_object(&mut self, at: &At, facts: &Facts) -> Option<Facts> {
        let root = self.root(at.root).name.clone();
        self.ledger.by_inode(&root, facts.inode).into_iter().find_map(|(_, known)| known.facts)
    }

    /// A writer closed the file: it may be complete.
    fn finished(&mut self, at: &At, name: &[u8], facts: &Facts, known_version: bool) {
        let object = (facts.dev, facts.inode);
        if known_version && self.recent.get(&object).is_some_and(|told| told.settled) {
            return;
        }
        let wait = self.rest_closed(at.root, name);
        let now = self.clock.instant();
        self.settle.closed(object, Spot { dir: at.no, name: name.into() }, now, wait);
    }

    /// How long a file is to rest under this name after its writer closed it. A hidden one may be about to get its proper
    /// name: `rsync` closes `.NAME.XXXXXX` a moment before it renames it.
    pub(super) fn rest_closed(&self, root: RootNo, name: &[u8]) -> Duration {
        let settle_min = self.root(root).patience.settle_min;
        if name.starts_with(b".") { settle_min.max(NEW_WAIT) } else { settle_min }
    }

    pub(super) fn dir_there(&mut self, (at, spot): (&At, &Spot)) -> Result<Option<DirKey>> {
        match self.look(at, &spot.name)? {
            Look::There(facts) if is_dir(&facts) => self.key_of(at, &spot.name),
            _ => Ok(None),
        }
    }

    /// A file has another name now, under which it settles if it has not done so.
    pub(super) fn settles_there(&mut self, object: ObjectNo, at: &At, spot: Spot, settled: bool) {
        let (now, wait) = (self.clock.instant(), self.rest_closed(at.root, &spot.name));
        if self.settle.follows(object) {
            self.settle.renamed(object, spot, now, wait);
        } else if !settled {
            self.settle.closed(object, spot, now, wait);
        }
    }

    /// Whether the object's last record says that it has this name, and none after it says otherwise.
    pub(super) fn was_last_told_at(&mut self, spot: &Spot, facts: &Facts) -> bool {
        let told = self.recent.get(&(facts.dev, facts.inode));
        let there = told.is_some_and(|told| told.spot == *spot && told.facts.kind == facts.kind);
        there && !self.has_ended(spot, facts)
    }

    /// Whether the name was told to have ended after this object was last told of: then whoever reads the journal has
    /// lost it, and what is told of it next is a beginning.
    pub(super) fn has_ended(&mut self, spot: &Spot, facts: &Facts) -> bool {
        let told = self.recent.get(&(facts.dev, facts.inode)).map(|told| told.seq);
        let ended = self.ended.get(spot).copied();
        told.zip(ended).is_some_and(|(told, ended)| told <= ended)
    }

    pub(super) fn refresh_soon(&mut self, dir: DirNo, via: Via) {
        let at = self.clock.instant() + REFRESH_WAIT;
        self.refresh.add(dir, via, at);
    }
}

/// Whether a notice that waits tells that the object of this one leaves a name again, by one of these: then what is there
/// now is something else or nothing, and need not be looked at.
pub(super) fn leaves(event: &Event, place: &watch::Place, by: What, ahead: &[Notice]) -> bool {
    event.object.is_some()
        && ahead.iter().take(FATE_AHEAD).any(|notice| match notice {
            Notice::Event(next) => {
                next.object == event.object && next.what.has(by) && !next.what.has(What::CREATE) && next.place == *place
            }
            Notice::Lost(_) | Notice::Reached(_) => false,
        })
}
