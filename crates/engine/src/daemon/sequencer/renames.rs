//! Renames: within a root, between roots, in, out, and two names exchanged.
use keepwatch_journal::{Facts, Op};

use super::events::{DOUBT_WAIT, leaves};
use super::{More, Origin, Result, Sequencer, Spot, is_dir, is_file};
use crate::daemon::dirs::{At, Dirs, Place};
use crate::daemon::ledger::{Knowledge, Ledger};
use crate::daemon::tree::{DirAt, Look, Tree};
use crate::watch::{Event, Notice, What};

/// How far ahead the second half of an exchange is looked for.
const EXCHANGE_AHEAD: usize = 8;

impl<T: Tree, L: Ledger> Sequencer<T, L> {
    pub(super) fn renamed(
        &mut self,
        event: &Event,
        from: Option<At>,
        into: Option<At>,
        ahead: &[Notice],
    ) -> Result<()> {
        let Some(to) = &event.to else { return Ok(()) };
        let from = from.filter(|at| !self.left_out(at, &event.place.name, event.is_dir));
        let into = into.filter(|at| !self.left_out(at, &to.name, event.is_dir));
        match (from, into) {
            (None, None) => Ok(()),
            (Some(from), None) => self.left(&from, event),
            (None, Some(into)) => self.arrived(&into, &to.name, event),
            (Some(from), Some(into)) => self.moved(event, &from, &into, &to.name, ahead),
        }
    }

    fn moved(&mut self, event: &Event, from: &At, into: &At, to_name: &[u8], ahead: &[Notice]) -> Result<()> {
        let old = Spot { dir: from.no, name: event.place.name.clone() };
        let new = Spot { dir: into.no, name: to_name.into() };
        // Both directories changed, whatever comes to be told of it.
        for at in [from, into] {
            self.refresh_soon(at.no, self.root(at.root).via);
        }
        if let Some(index) = self.exchanged.iter().position(|(a, b)| *a == old && *b == new) {
            self.exchanged.swap_remove(index);
            return Ok(());
        }
        if event.is_dir && self.is_there_already(event, &old, &new)? {
            let origin = self.origin(from, event, true);
            self.doubt(old, origin.clone(), DOUBT_WAIT);
            self.doubt(new, origin, DOUBT_WAIT);
            return Ok(());
        }
        let Some(to) = &event.to else { return Ok(()) };
        let is_past = !event.is_dir && leaves(event, to, What::DELETE, ahead);
        let look = if is_past { Look::Gone } else { self.look(into, to_name)? };
        let former = self.look(from, &old.name)?;
        let exchange = self.is_exchange(event, (from, &former), &look, ahead)?;
        if !exchange {
            let object = event.object.as_ref();
            // What the table has at the new name may be found at the old one, and told of there.
            let is_replaced = self.is_overtaken(into, to_name, object)?;
            let is_past = self.is_overtaken(from, &old.name, object)?
                || (event.is_dir && self.is_ahead(from, &old.name, object)?);
            if is_past || is_replaced {
                self.disbelieve(from, &old.name);
                self.disbelieve(into, to_name);
                // It may have come back to its old name by now, which a later event tells.
                let is_back = matches!(former, Look::There(_)) && self.is_itself(from, &old.name, object)?;
                return if is_past || is_back { Ok(()) } else { self.left(from, event) };
            }
        }
        if exchange && !self.is_as_told(event, (from, &old), (into, &new))? {
            // Later renames came before the look: to tell of this one would say that a directory is gone which is not.
            let origin = self.origin(from, event, true);
            self.doubt(old, origin.clone(), DOUBT_WAIT);
            self.doubt(new, origin, DOUBT_WAIT);
            return Ok(());
        }
        // Is what has the new name now what was renamed, or something that came later?
        let itself = match (&look, &event.object) {
            (Look::There(_), object) => self.is_itself(into, to_name, object.as_ref())?,
            (Look::Gone | Look::Unavailable, _) => false,
        };
        let twice = !self.renamed.insert(old.clone()) | !self.renamed.insert(new.clone());
        let facts = match look {
            Look::There(facts) if itself => Some(facts),
            _ => None,
        };
        if let (Some(facts), false) = (&facts, exchange)
            && (self.was_last_told_at(&new, facts) || self.is_known_there(event, (from, &old), (into, &new), facts))
        {
            if event.is_dir {
                self.adopt_dir(into, to_name, None)?;
            }
            // A scan was ahead of the event: for who reads the journal nothing has the old name any more, or it is
            // something else.
            let origin = self.origin(from, event, true);
            self.changed(into, to_name, facts.clone(), origin.clone())?;
            self.doubt(old, Origin::scan(origin.via).merged(), DOUBT_WAIT);
            self.doubt(new, Origin::scan(origin.via).merged(), DOUBT_WAIT);
            return Ok(());
        }
        let merged = facts.is_none() && !exchange;
        let origin = self.origin(from, event, merged);
        if event.is_dir || exchange {
            self.move_dir(event, &old, &new, exchange)?;
            if event.is_dir && facts.is_some() && self.dirs.child(new.dir, &new.name)?.is_none() {
                // It came and was renamed before anybody looked.
                self.adopt_dir(into, to_name, None)?;
            }
            if (merged || twice)
                && let Some(no) = self.dirs.child(new.dir, &new.name)?
            {
                self.uncertain.insert(no);
            }
        }
        // Whether this directory was told under its old name is not sure: then nor is what it holds.
        let is_unsure = event.is_dir
            && facts.as_ref().is_some_and(|facts| self.doubts.contains(&old) || !self.is_told(from, &old, facts));
        let anew = facts.as_ref().is_some_and(|facts| self.has_ended(&old, facts));
        let settled = !anew && facts.as_ref().is_some_and(|facts| self.has_settled(from, facts));
        let told = match &facts {
            Some(facts) if event.is_dir && !exchange => self.told_apart(into, to_name, facts)?,
            _ => None,
        };
        let place = match &told {
            Some(told) => self.old_place(&told.at, &told.name, into),
            None => self.old_place(from, &old.name, into),
        };
        let more = More { old: Some(place), exchange, settled, anew, ..More::default() };
        let unread = facts.is_none() && event.is_dir && !exchange;
        let file = facts.as_ref().filter(|facts| is_file(facts)).map(|facts| (facts.dev, facts.inode));
        let origin_again = Origin::scan(origin.via).merged();
        let unclear = event.is_dir && event.object.is_none() && (twice || merged);
        if unclear || (event.is_dir && self.may_slip_past(into.root)) {
            self.contradict(from.root);
            self.contradict(into.root);
        }
        let seq = self.tell(Op::Move, into, to_name, facts, origin.clone(), more);
        if let Some(told) = told {
            self.ended.insert(told.spot(), seq);
        }
        if unread {
            self.carry(&old, &new, seq);
        }
        if is_unsure {
            self.ended.insert(new.clone(), seq);
            if let Some(no) = self.dirs.child(new.dir, &new.name)?
                && let Some(below) = self.dirs.at(no)?
            {
                self.want_scan(&below);
            }
        }
        if exchange {
            let facts = match self.look(from, &old.name)? {
                Look::There(facts) => Some(facts),
                Look::Gone | Look::Unavailable => None,
            };
            let anew = facts.as_ref().is_some_and(|facts| self.has_ended(&new, facts));
            let settled = !anew && facts.as_ref().is_some_and(|facts| self.has_settled(into, facts));
            let place = self.old_place(into, to_name, from);
            let more = More { old: Some(place), exchange, settled, anew, ..More::default() };
            let other = facts.as_ref().filter(|facts| is_file(facts)).map(|facts| (facts.dev, facts.inode));
            self.tell(Op::Move, from, &old.name, facts, origin, more);
            if let Some(object) = other {
                self.settles_there(object, from, old.clone(), settled);
            }
        }
        self.touch_again(from);
        if !exchange {
            self.ended.insert(old.clone(), self.last);
        }
        let is_lost = merged && !leaves(event, to, What::RENAME.with(What::DELETE), ahead);
        // For who reads the journal nothing has the old name any more.
        let is_held = matches!(former, Look::There(_));
        if is_lost || twice || event.object.is_none() || is_held {
            self.doubt(old, origin_again.clone(), DOUBT_WAIT);
            self.doubt(new.clone(), origin_again, DOUBT_WAIT);
        }
        if let Some(object) = file {
            self.settles_there(object, into, new, settled);
        }
        Ok(())
    }

    /// Whether a directory was told of under the new name already, and of none under the old one: this rename, folded by
    /// the kernel, came after one that was told before it. To tell of it again would say that all it holds is gone.
    fn is_there_already(&mut self, event: &Event, old: &Spot, new: &Spot) -> Result<bool> {
        if self.dirs.child(old.dir, &old.name)?.is_some() {
            return Ok(false);
        }
        let Some(there) = self.dirs.child(new.dir, &new.name)? else { return Ok(false) };
        Ok(event.object.is_none() || self.dirs.key(there)? == event.object)
    }

    /// Whether the inventory has a directory under its new name and not under the old one: what was told last of it was
    /// told before it was renamed to and fro.
    fn is_known_there(&mut self, event: &Event, old: (&At, &Spot), new: (&At, &Spot), facts: &Facts) -> bool {
        event.is_dir && !self.is_told(old.0, old.1, facts) && self.is_told(new.0, new.1, facts)
    }

    /// Whether of two names that were exchanged each has the directory now that was known under the other.
    fn is_as_told(&mut self, event: &Event, old: (&At, &Spot), new: (&At, &Spot)) -> Result<bool> {
        let known = |dirs: &mut Dirs, spot: &Spot| match dirs.child(spot.dir, &spot.name)? {
            Some(no) => dirs.key(no),
            None => Ok(None),
        };
        let was_old = match &event.object {
            Some(key) if event.is_dir => Some(key.clone()),
            _ => known(&mut self.dirs, old.1)?,
        };
        let was_new = known(&mut self.dirs, new.1)?;
        Ok(self.dir_there(new)? == was_old && self.dir_there(old)? == was_new)
    }

    /// Whether the name was told to be this object, as far as is remembered or the inventory knows.
    pub(super) fn is_told(&mut self, at: &At, spot: &Spot, facts: &Facts) -> bool {
        let ended = self.ended.get(spot).copied();
        match self.recent.get(&(facts.dev, facts.inode)) {
            Some(told) if told.spot == *spot => return ended.is_none_or(|ended| ended <= told.seq),
            // It has one name only.
            Some(told) if is_dir(&told.facts) && is_dir(facts) => return false,
            _ => {}
        }
        if ended.is_some_and(|ended| ended > self.ledger.applied()) {
            return false;
        }
        let root = self.root(at.root).name.clone();
        match self.ledger.child(&root, &at.path, &spot.name) {
            Knowledge::Yes(known) => {
                known.facts.is_some_and(|known| known.inode == facts.inode && known.kind == facts.kind)
            }
            Knowledge::No | Knowledge::Unknown => false,
        }
    }

    /// Whether this is the first half of `RENAME_EXCHANGE`, which the kernel tells of as two renames.
    fn is_exchange(
        &mut self,
        event: &Event,
        (from, former): (&At, &Look),
        look: &Look,
        ahead: &[Notice],
    ) -> Result<bool> {
        let Some(to) = &event.to else { return Ok(false) };
        if !matches!((look, former), (Look::There(_), Look::There(_))) {
            return Ok(false);
        }
        let back = ahead.iter().take(EXCHANGE_AHEAD).any(|notice| match notice {
            Notice::Event(other) => {
                other.what.has(What::RENAME)
                    && other.place == *to
                    && other.to.as_ref() == Some(&event.place)
                    && (other.object.is_none() || other.object != event.object)
            }
            Notice::Lost(_) | Notice::Reached(_) => false,
        });
        if !back {
            return self.has_swapped(event, (from, former), to);
        }
        let (Some(a), Some(b)) = (self.place_of(&event.place.dir)?, self.place_of(&to.dir)?) else { return Ok(false) };
        self.exchanged
            .push((Spot { dir: b.no, name: to.name.clone() }, Spot { dir: a.no, name: event.place.name.clone() }));
        Ok(true)
    }

    /// Whether the directory that was known under the new name has the old one now: then this is an exchange of which
    /// the other half is yet to be heard, and will be found to hold already.
    fn has_swapped(&mut self, event: &Event, (from, former): (&At, &Look), to: &crate::watch::Place) -> Result<bool> {
        let Some(into) = self.place_of(&to.dir)? else { return Ok(false) };
        if !event.is_dir {
            return Ok(self.has_swapped_file(event, (from, former), Spot { dir: into.no, name: to.name.clone() }));
        }
        let Some(victim) = self.dirs.child(into.no, &to.name)? else { return Ok(false) };
        let (Some(victim), Some(at)) = (self.dirs.key(victim)?, self.dirs.key(from.no)?) else { return Ok(false) };
        let dir = DirAt { key: &at, root: from.root, path: &from.path };
        Ok(event.object.as_ref() != Some(&victim) && self.tree.is_object(dir, &event.place.name, &victim) == Some(true))
    }

    /// The same of a file: its other half is told of now, and not again when it is heard.
    fn has_swapped_file(&mut self, event: &Event, (from, former): (&At, &Look), new: Spot) -> bool {
        let Look::There(there) = former else { return false };
        let was_new = self.recent.get(&(there.dev, there.inode)).is_some_and(|told| told.spot == new);
        if was_new && there.nlink == 1 {
            self.exchanged.push((new, Spot { dir: from.no, name: event.place.name.clone() }));
        }
        was_new && there.nlink == 1
    }

    fn move_dir(&mut self, event: &Event, old: &Spot, new: &Spot, exchange: bool) -> Result<()> {
        self.shifted = true;
        let moved = self.dirs.child(old.dir, &old.name)?;
        let other = self.dirs.child(new.dir, &new.name)?;
        let key = match (&event.object, moved) {
            (Some(key), _) if event.is_dir => Some(key.clone()),
            (_, Some(no)) => self.dirs.key(no)?,
            (_, None) => None,
        };
        let other_key = match other {
            Some(no) if exchange => self.dirs.key(no)?,
            _ => None,
        };
        if let Some(key) = &other_key {
            self.dirs.move_out(key)?;
        }
        if let Some(key) = &key {
            let known = matches!(self.dirs.find(key)?, Place::In(_));
            let no = self.dirs.set(key, new.dir, &new.name)?;
            if let Some(at) = self.dirs.at(new.dir)?
                && !known
            {
                self.must_enter(&at, no);
            }
            if !known
                && event.is_dir
                && let Some(below) = self.dirs.at(no)?
            {
                self.dirs.forget_outside();
                self.want_scan(&below);
            }
        }
        if let Some(key) = &other_key {
            self.dirs.set(key, old.dir, &old.name)?;
        }
        Ok(())
    }

    /// Moved to where nobody watches: for the root it is gone.
    pub(super) fn left(&mut self, at: &At, event: &Event) -> Result<()> {
        let name = &*event.place.name;
        if self.is_overtaken(at, name, event.object.as_ref())? {
            self.disbelieve(at, name);
            return Ok(());
        }
        match (&event.object, event.is_dir) {
            (Some(key), true) => self.dirs.move_out(key)?,
            (None, true) => {
                if let Some(no) = self.dirs.child(at.no, name)?
                    && let Some(key) = self.dirs.key(no)?
                {
                    self.dirs.move_out(&key)?;
                }
            }
            (_, false) => {}
        }
        let origin = self.origin(at, event, false);
        self.tell(Op::Delete, at, name, None, origin.clone(), More { subtree: event.is_dir, ..More::default() });
        if let Look::There(_) = self.look(at, name)? {
            // It came back, or something else has its name; the event of that may have been folded into an earlier one.
            self.doubt(Spot { dir: at.no, name: name.into() }, Origin::scan(origin.via).merged(), DOUBT_WAIT);
        }
        Ok(())
    }

    /// Moved in from where nobody watches: new, with all it holds.
    pub(super) fn arrived(&mut self, at: &At, name: &[u8], event: &Event) -> Result<()> {
        let look = self.look(at, name)?;
        let spot = Spot { dir: at.no, name: name.into() };
        let itself = self.is_itself(at, name, event.object.as_ref())?;
        let (Look::There(facts), true) = (look, itself) else {
            self.doubt(spot, Origin::scan(self.root(at.root).via).merged(), DOUBT_WAIT);
            return Ok(());
        };
        if is_dir(&facts) {
            let key = match &event.object {
                Some(key) => Some(key.clone()),
                None => self.key_of(at, name)?,
            };
            let is_told = self.told_already(at, name, &facts)?;
            if let Some(key) = key {
                self.dirs.forget_outside();
                let no =
                    if is_told { self.dirs.set(&key, at.no, name)? } else { self.dirs.set_anew(&key, at.no, name)? };
                if let Some(below) = self.dirs.at(no)? {
                    self.want_scan(&below);
                }
            }
            if is_told {
                return Ok(());
            }
        }
        let origin = self.origin(at, event, false);
        self.tell(Op::Create, at, name, Some(facts.clone()), origin, More::default());
        if is_file(&facts) {
            self.settles_there((facts.dev, facts.inode), at, spot, false);
        }
        Ok(())
    }

    fn touch_again(&mut self, at: &At) {
        self.touch(at.no, self.last);
    }
}
