//! What a scan found to differ from the inventory. It only proposes: where an event was heard since, and for every
//! absence, the name is looked at again.

use keepwatch_journal::{Facts, FileType, RelPath, Seq, Via};

use super::{More, Origin, Result, Sequencer, Spot, is_dir, is_file};
use crate::daemon::compare::{Differs, differs};
use crate::daemon::dirs::{At, Place, RootNo};
use crate::daemon::ledger::Ledger;
use crate::daemon::tree::{Look, Tree};
use crate::watch::DirKey;

/// The differences in (a part of) one directory.
#[derive(Clone, Debug)]
pub struct Found {
    /// In which root.
    pub root: RootNo,
    /// Who looked.
    pub via: Via,
    /// The directory's identity.
    pub key: DirKey,
    /// Where the scan met it, for people.
    pub path: RelPath,
    /// Its parent's identity and its name there; `None` for a root's top directory.
    pub parent: Option<(DirKey, Box<[u8]>)>,
    /// Up to which record the inventory had come before it was compared.
    pub base: Seq,
    /// Whether the root was new to the inventory: nothing can have moved.
    pub first: bool,
    /// Whether a name may be there that says of another file that it is being worked on.
    pub may_be_locked: bool,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// One name that differs.
#[derive(Clone, Debug)]
pub enum Difference {
    /// It is not known.
    New {
        /// The name.
        name: Box<[u8]>,
        /// What the scan saw; `None` where it has to be looked at for more, as a symbolic link has.
        seen: Option<Box<Facts>>,
        /// A directory that the scan took for one known under another name: what it holds was compared with that one.
        taken_for_moved: bool,
    },
    /// It is known otherwise.
    Changed {
        /// The name.
        name: Box<[u8]>,
        /// What was known.
        known: Box<Facts>,
        /// What the scan saw, as for what is new.
        seen: Option<Box<Facts>>,
    },
    /// It is known and was not met.
    Absent {
        /// The name.
        name: Box<[u8]>,
    },
}

/// What a scan compared with.
#[derive(Clone, Copy)]
struct Compared {
    base: Seq,
    first: bool,
    via: Via,
    may_be_locked: bool,
}

impl<T: Tree, L: Ledger> Sequencer<T, L> {
    /// Takes what a scan found in a directory. Also without differences it tells where the directory is.
    pub fn on_found(&mut self, found: Found) -> Result<()> {
        let Some(at) = self.place_found(&found)? else { return Ok(()) };
        self.unentered.remove(&at.no);
        let via = self.root(at.root).via;
        if via == Via::Inotify {
            // What was done in it before it was watched left its traces in its own facts only.
            self.refresh_soon(at.no, via);
        }
        let stale = self.touched_since(at.no, found.base);
        for difference in found.differences {
            let (name, absent) = match &difference {
                Difference::New { name, .. } | Difference::Changed { name, .. } => (name, false),
                Difference::Absent { name } => (name, true),
            };
            let spot = Spot { dir: at.no, name: name.clone() };
            if absent {
                self.absent_later(spot, found.via)?;
            } else if stale {
                self.doubt(spot, Origin::scan(found.via), super::events::DOUBT_WAIT);
            } else {
                let Found { base, first, via, may_be_locked, .. } = found;
                let since = Compared { base, first, via, may_be_locked };
                self.on_present(&at, &spot, difference, since)?;
            }
        }
        Ok(())
    }

    /// Where the directory is. What is known of it by events counts more than where the scan met it.
    fn place_found(&mut self, found: &Found) -> Result<Option<At>> {
        match self.dirs.find(&found.key)? {
            Place::In(at) => return Ok(Some(at)),
            Place::Outside | Place::Unknown => {}
        }
        let no = match &found.parent {
            None => self.dirs.set_root(&found.key, found.root)?,
            Some((parent, name)) => match self.dirs.find(parent)? {
                // Another one took its name since the scan met it.
                Place::In(parent) if self.is_overtaken(&parent, name, Some(&found.key))? => {
                    self.contradict(parent.root);
                    return Ok(None);
                }
                // It may have gone since, and that may have been told.
                Place::In(parent)
                    if self.touched_since(parent.no, found.base)
                        && !self.is_itself(&parent, name, Some(&found.key))? =>
                {
                    return Ok(None);
                }
                Place::In(parent) => self.dirs.set(&found.key, parent.no, name)?,
                // Its parent went meanwhile; where it is now is told by the events that moved it.
                Place::Outside | Place::Unknown => return Ok(None),
            },
        };
        self.dirs.at(no)
    }

    fn on_present(&mut self, at: &At, spot: &Spot, difference: Difference, compared: Compared) -> Result<()> {
        let Compared { base, first, via, may_be_locked } = compared;
        // No event in this directory was heard since the scan listed it. Had one happened since, it is yet to be heard,
        // and will tell what changed: what the scan saw stands until then.
        let seen = match &difference {
            Difference::New { seen, .. } | Difference::Changed { seen, .. } => seen.clone(),
            Difference::Absent { .. } => None,
        };
        let newer = |told: &Facts, seen: &Facts| told.ctime_ns > seen.ctime_ns;
        let is_new = matches!(difference, Difference::New { .. });
        let seen = seen.filter(|seen| {
            let told = self.recent.get(&(seen.dev, seen.inode)).map(|told| &*told);
            // Where a directory is has to be known before it is told of: with it goes all that it holds.
            let may_have_moved = is_new && is_dir(seen) && (!first || told.is_some());
            !may_have_moved && !told.is_some_and(|told| newer(&told.facts, seen))
        });
        let facts = match seen {
            Some(facts) => *facts,
            None => match self.look(at, &spot.name)? {
                Look::There(facts) => facts,
                Look::Gone => {
                    self.doubt(spot.clone(), Origin::scan(via), super::events::DOUBT_WAIT);
                    return Ok(());
                }
                Look::Unavailable => {
                    self.asked.check_roots = true;
                    return Ok(());
                }
            },
        };
        if self.left_out(at, &spot.name, facts.kind == FileType::Dir) {
            return Ok(());
        }
        let told = self.recent.get(&(facts.dev, facts.inode));
        if !is_new && is_dir(&facts) && told.is_some_and(|told| told.spot != *spot) {
            // Its last record says that it has another name: what brought it to this one is told first.
            self.doubt(spot.clone(), Origin::scan(via), super::events::DOUBT_WAIT);
            return Ok(());
        }
        // What was told before the comparison, and was not in the inventory then, has been lost from it: tell it again.
        let told_since = self.recent.get(&(facts.dev, facts.inode)).is_some_and(|told| told.seq > base);
        if is_new && told_since && self.told_already(at, &spot.name, &facts)? {
            return Ok(());
        }
        match difference {
            Difference::New { .. } if first => {
                let from = if is_dir(&facts) { self.dir_elsewhere(at, &spot.name, &facts)? } else { None };
                match from {
                    Some(from) => self.tell_move(&from.borrow(), at, spot, facts, Origin::scan(via), true),
                    None => {
                        self.tell_new(at, spot, facts.clone(), Origin::scan(via), false)?;
                        self.settle_found(at, spot, &facts, may_be_locked)
                    }
                }
            }
            Difference::New { taken_for_moved, .. } => {
                let directory = is_dir(&facts);
                match self.former_place(at, &spot.name, &facts)? {
                    Some(from) if !directory || taken_for_moved => {
                        self.tell_move(&from.borrow(), at, spot, facts, Origin::scan(via), false)
                    }
                    // The scan compared the directory with another one than this is: all again, below it.
                    Some(_) => self.appeared(at, spot, facts, Origin::scan(via)),
                    // It may have come from a directory that this scan has not met yet.
                    None if !directory && self.may_have_moved(at, &spot.name, &facts)? => {
                        self.arrived_later(spot.clone(), via)
                    }
                    None => {
                        self.tell_new(at, spot, facts.clone(), Origin::scan(via), taken_for_moved)?;
                        self.settle_found(at, spot, &facts, may_be_locked)
                    }
                }
            }
            Difference::Changed { known, .. } => match differs(&known, &facts) {
                Differs::Object => self.replaced(at, spot, &known, facts, Origin::scan(via)),
                other => {
                    if let Some(op) = other.op() {
                        self.follow_up(at, spot, &facts);
                        self.tell(op, at, &spot.name, Some(facts.clone()), Origin::scan(via), More::default());
                        return self.settle_found(at, spot, &facts, may_be_locked);
                    }
                    Ok(())
                }
            },
            Difference::Absent { .. } => Ok(()),
        }
    }

    /// What a scan has found, and was told of, may be complete: most files have rested for long. Else it settles like any other.
    fn settle_found(&mut self, at: &At, spot: &Spot, facts: &Facts, may_be_locked: bool) -> Result<()> {
        let is_followed = self.settle.follows((facts.dev, facts.inode));
        // One with several names settles under each of them at once.
        if self.settles_found && is_file(facts) && facts.nlink == 1 && !is_followed {
            self.complete_at_once(at, spot, facts, may_be_locked)?;
        }
        Ok(())
    }
}
