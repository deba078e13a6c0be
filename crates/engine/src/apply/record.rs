//! What a change means for the live tree. Every record is the observed state of a name.

use super::dirs::is_within;
use super::known::{FileId, Known, ROOTS, signed};
use super::store::{Fault, Place, Stamp, Store};
use super::tree::{Tree, size};
use crate::model::{Change, Enrolled, Facts, FileType, Op, RelPath, Settled};

/// A path, taken apart: where it leads in the live tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot<'r> {
    pub(crate) root: i64,
    pub(crate) dir: i64,
    pub(crate) name: &'r [u8],
    pub(crate) path: &'r RelPath,
}

impl<S: Store> Tree<'_, S> {
    /// Applies a change; returns the object it was about, where one is known. The first half of an exchange `parks` what
    /// is in its way; what is in the way of the second half is not the exchange's, for something was missed before.
    pub(crate) fn change(
        &mut self,
        change: &Change,
        root: i64,
        old_root: i64,
        stamp: Stamp,
        parks: bool,
    ) -> Result<Option<FileId>, Fault<S::Error>> {
        match (change.op, &change.old) {
            (Op::Move, Some(old)) => self.moved(change, root, (old_root, &old.path), stamp, parks).map(Some),
            (Op::Delete, _) => self.deleted(root, &change.path, stamp),
            (Op::Create | Op::Modify | Op::Attrib | Op::Move, _) => {
                let facts = change.facts.as_ref();
                let Some((parent, name)) = change.path.split() else {
                    return self.root_observed(change, root, stamp).map(Some);
                };
                let dir = self.dir_or_make(root, parent, stamp)?;
                self.observed(Spot { root, dir, name, path: &change.path }, facts, stamp).map(Some)
            }
        }
    }

    /// The root's own directory keeps its identity whatever disk is mounted there: that is `config`'s business.
    fn root_observed(&mut self, change: &Change, root: i64, stamp: Stamp) -> Result<FileId, Fault<S::Error>> {
        let name = change.root.as_str().as_bytes();
        let old = self.find(ROOTS, name)?.ok_or(Fault::Contradiction("the root has no name"))?;
        if change.facts.as_ref().is_some_and(|facts| facts.kind != FileType::Dir) {
            return Err(Fault::Contradiction("the root is not a directory"));
        }
        let facts = change.facts.clone().or(old.facts.clone());
        let known = Known { facts, last_seq: stamp.seq, last_change: stamp.at, ..old.clone() };
        self.write_name(ROOTS, name, &old, &known)?;
        Ok(FileId(root))
    }

    /// A name was seen, in this state.
    fn observed(&mut self, spot: Spot<'_>, facts: Option<&Facts>, stamp: Stamp) -> Result<FileId, Fault<S::Error>> {
        let found = self.find(spot.dir, spot.name)?;
        let Some(facts) = facts else { return self.unread(spot, found, stamp) };
        match found {
            Some(known) if is_same(&known, facts) => self.refreshed(spot, &known, facts, stamp),
            Some(other) => {
                self.end(spot.dir, spot.name, &other, stamp.seq)?;
                self.appeared(spot, facts, stamp)
            }
            None => self.appeared(spot, facts, stamp),
        }
    }

    /// A name was told of, but gone before it could be read.
    fn unread(&mut self, spot: Spot<'_>, found: Option<Known>, stamp: Stamp) -> Result<FileId, Fault<S::Error>> {
        if let Some(old) = found {
            let known = Known { last_seq: stamp.seq, last_change: stamp.at, ..old.clone() };
            self.write_name(spot.dir, spot.name, &old, &known)?;
            return Ok(known.file_id);
        }
        let known = first_seen(None, stamp);
        self.insert_name(spot.dir, spot.name, &known)?;
        self.count_in(spot.root, None, 1, 0);
        Ok(known.file_id)
    }

    /// A free name has an object: a new one, or a new name of one that is known.
    pub(crate) fn appeared(&mut self, spot: Spot<'_>, facts: &Facts, stamp: Stamp) -> Result<FileId, Fault<S::Error>> {
        if facts.nlink > 1
            && facts.kind != FileType::Dir
            && let Some(place) = self.by_inode(spot.root, facts)?.into_iter().next()
            && let Some(mut known) = self.find(place.dir, &place.name)?
        {
            known.from_seq = stamp.seq;
            self.insert_name(spot.dir, spot.name, &known)?;
            self.count_in(spot.root, known.kind, 1, size(&known));
            return self.refreshed(spot, &known, facts, stamp);
        }
        let known = first_seen(Some(facts), stamp);
        self.insert_name(spot.dir, spot.name, &known)?;
        self.count_in(spot.root, known.kind, 1, size(&known));
        if facts.kind == FileType::Dir {
            self.add_dir(known.file_id.0, spot.root, spot.dir, spot.name, spot.path.as_bytes(), stamp.seq)?;
        }
        Ok(known.file_id)
    }

    /// A known object was seen again: its facts are written to all its names.
    fn refreshed(
        &mut self,
        spot: Spot<'_>,
        old: &Known,
        facts: &Facts,
        stamp: Stamp,
    ) -> Result<FileId, Fault<S::Error>> {
        let mut known = old.clone();
        update(&mut known, facts, stamp);
        self.store.came_back(old.file_id)?;
        self.write_name(spot.dir, spot.name, old, &known)?;
        self.count_in(spot.root, old.kind, -1, -size(old));
        self.count_in(spot.root, known.kind, 1, size(&known));
        self.spread(spot, old, facts, stamp)?;
        Ok(known.file_id)
    }

    /// What follows where facts were written under a name: a directory holds things, other names of the object have them too.
    fn spread(&mut self, spot: Spot<'_>, old: &Known, facts: &Facts, stamp: Stamp) -> Result<(), Fault<S::Error>> {
        if facts.kind == FileType::Dir {
            if old.kind.is_none() {
                self.add_dir(old.file_id.0, spot.root, spot.dir, spot.name, spot.path.as_bytes(), stamp.seq)?;
            }
            return Ok(());
        }
        let Some(before) = old.facts.as_ref().filter(|before| before.nlink.max(facts.nlink) > 1) else { return Ok(()) };
        for place in self.places(old.file_id, before.inode)? {
            if place.dir == spot.dir && place.name == spot.name {
                continue;
            }
            let Some(old) = self.find(place.dir, &place.name)? else { continue };
            let mut link = old.clone();
            update(&mut link, facts, stamp);
            self.write_name(place.dir, &place.name, &old, &link)?;
            self.count(place.dir, old.kind, -1, -size(&old))?;
            self.count(place.dir, link.kind, 1, size(&link))?;
        }
        Ok(())
    }

    fn deleted(&mut self, root: i64, path: &RelPath, stamp: Stamp) -> Result<Option<FileId>, Fault<S::Error>> {
        let Some((parent, name)) = path.split() else {
            let top = self.dir_row(root)?.ok_or(Fault::Contradiction("the root has no directory"))?;
            self.end_below(&top, stamp.seq)?;
            return Ok(Some(FileId(root)));
        };
        let Some(dir) = self.dir(root, parent)? else { return Ok(None) };
        let Some(known) = self.find(dir, name)? else { return Ok(None) };
        // Its name goes, it does not.
        if !self.store.is_released(known.file_id)? {
            self.end(dir, name, &known, stamp.seq)?;
        }
        Ok(Some(known.file_id))
    }

    fn moved(
        &mut self,
        change: &Change,
        root: i64,
        (old_root, old_path): (i64, &RelPath),
        stamp: Stamp,
        parks: bool,
    ) -> Result<FileId, Fault<S::Error>> {
        let (Some((parent, name)), Some(from)) = (change.path.split(), old_path.split()) else {
            return Err(Fault::Contradiction("a root cannot be moved"));
        };
        let facts = change.facts.as_ref();
        if !change.exchange {
            self.end_other(old_root, from, facts, stamp)?;
        }
        // Before the source is looked for: a file at the new parent's path ends here, and it may be the source.
        let dir = self.dir_or_make(root, parent, stamp)?;
        let spot = Spot { root, dir, name, path: &change.path };
        let parked = match if change.exchange { self.parked(old_root, from)? } else { None } {
            // Another was seen in its place: where it is now is not known.
            Some((place, known)) if facts.is_some_and(|facts| !is_same(&known, facts)) => {
                self.end(place.dir, &place.name, &known, stamp.seq)?;
                None
            }
            parked => parked,
        };
        let source = match parked {
            Some(parked) => Some(parked),
            None => self.source(old_root, from, facts)?,
        };
        let Some((from, old)) = source else {
            if let (None, Some(victim)) = (facts, self.find(dir, name)?) {
                self.end(dir, name, &victim, stamp.seq)?;
            }
            return self.observed(spot, facts, stamp);
        };
        if from.dir == dir && from.name == name {
            return self.observed(spot, facts, stamp);
        }
        let row = if old.kind == Some(FileType::Dir) { self.dir_row(old.file_id.0)? } else { None };
        if let Some(victim) = self.find(dir, name)? {
            if victim.file_id == old.file_id {
                // Two names of one object: the old one is gone, the other is as it was seen.
                self.end(from.dir, &from.name, &old, stamp.seq)?;
                return self.observed(spot, facts, stamp);
            }
            let holder = if victim.kind == Some(FileType::Dir) { self.dir_row(from.dir)? } else { None };
            let held =
                holder.is_some_and(|holder| holder.root == root && is_within(&holder.path, change.path.as_bytes()));
            if parks && !held {
                self.park(root, dir, name, victim, stamp)?;
            } else {
                self.end(dir, name, &victim, stamp.seq)?;
            }
            if held {
                // It ended with the directory it was in: only what was missed before can lead here.
                return self.observed(spot, facts, stamp);
            }
        }
        let mut known = Known { from_seq: stamp.seq, last_seq: stamp.seq, last_change: stamp.at, ..old.clone() };
        self.count_in(old_root, old.kind, -1, -size(&old));
        self.lift(from.dir, &from.name, &old, stamp.seq)?;
        if let Some(facts) = facts {
            update(&mut known, facts, stamp);
        }
        self.insert_name(dir, name, &known)?;
        self.count_in(root, known.kind, 1, size(&known));
        if let Some(row) = row {
            let to = Place { dir, name: name.to_vec() };
            self.move_dir(&row, root, &to, change.path.as_bytes(), stamp.seq)?;
        }
        if let Some(facts) = facts {
            self.spread(spot, &old, facts, stamp)?;
        }
        Ok(known.file_id)
    }

    /// After a move nothing has the old name: another object that was known there has ended.
    fn end_other(
        &mut self,
        root: i64,
        (dir, name): (&[u8], &[u8]),
        facts: Option<&Facts>,
        stamp: Stamp,
    ) -> Result<(), Fault<S::Error>> {
        if let (Some(dir), Some(facts)) = (self.dir(root, dir)?, facts)
            && let Some(known) = self.find(dir, name)?
            && !is_same(&known, facts)
        {
            self.end(dir, name, &known, stamp.seq)?;
        }
        Ok(())
    }

    /// Sets aside what stands at the new name of the first half of an exchange, under a name that no file can have,
    /// until the second half, which follows at once, takes it to its place.
    fn park(
        &mut self,
        root: i64,
        dir: i64,
        name: &[u8],
        mut known: Known,
        stamp: Stamp,
    ) -> Result<(), Fault<S::Error>> {
        let to = Place { dir, name: parking(name) };
        self.lift(dir, name, &known, stamp.seq)?;
        known.from_seq = stamp.seq;
        self.insert_name(dir, &to.name, &known)?;
        if known.kind == Some(FileType::Dir)
            && let Some(row) = self.dir_row(known.file_id.0)?
        {
            let path = [&row.path[..row.path.len() - name.len()], &to.name].concat();
            self.move_dir(&row, root, &to, &path, stamp.seq)?;
        }
        Ok(())
    }

    /// What the first half of an exchange set aside at this place.
    fn parked(&mut self, root: i64, from: (&[u8], &[u8])) -> Result<Option<(Place, Known)>, Fault<S::Error>> {
        let Some(dir) = self.dir(root, from.0)? else { return Ok(None) };
        let name = parking(from.1);
        Ok(self.find(dir, &name)?.map(|known| (Place { dir, name }, known)))
    }

    /// What a move moved: the object at the old name if it fits the facts, else the one that has their inode.
    fn source(
        &mut self,
        root: i64,
        from: (&[u8], &[u8]),
        facts: Option<&Facts>,
    ) -> Result<Option<(Place, Known)>, Fault<S::Error>> {
        if let Some(dir) = self.dir(root, from.0)?
            && let Some(known) = self.find(dir, from.1)?
            && facts.is_none_or(|facts| is_same(&known, facts))
        {
            return Ok(Some((Place { dir, name: from.1.to_vec() }, known)));
        }
        // An object with several names is at those that are known; one more is not a move of any of them.
        let Some(facts) = facts.filter(|facts| facts.nlink <= 1 || facts.kind == FileType::Dir) else {
            return Ok(None);
        };
        let Some(place) = self.by_inode(root, facts)?.into_iter().next() else { return Ok(None) };
        let known = self.find(place.dir, &place.name)?;
        Ok(known.map(|known| (place, known)))
    }

    /// Something in a backup was taken for another host's original: as it lies there it is a whole version. Of the backup's inode
    /// nothing follows for the original, so the object's own number stands in its place.
    pub(crate) fn enrolled(
        &mut self,
        enrolled: &Enrolled,
        root: i64,
        stamp: Stamp,
    ) -> Result<Option<FileId>, Fault<S::Error>> {
        let Some((parent, name)) = enrolled.path.split() else { return Ok(Some(FileId(root))) };
        let dir = self.dir_or_make(root, parent, stamp)?;
        let before = self.find(dir, name)?.and_then(|known| known.facts).filter(|facts| facts.kind == enrolled.kind);
        let facts = Facts {
            kind: enrolled.kind,
            size: enrolled.size,
            mtime_ns: enrolled.mtime_ns,
            ctime_ns: enrolled.mtime_ns,
            dev: 0,
            inode: before.map_or(stamp.seq.0, |facts| facts.inode),
            mode: enrolled.mode,
            uid: enrolled.uid,
            gid: enrolled.gid,
            nlink: 1,
            target: enrolled.target.clone(),
        };
        let id = self.observed(Spot { root, dir, name, path: &enrolled.path }, Some(&facts), stamp)?;
        let Some(known) = self.find(dir, name)? else { return Ok(Some(id)) };
        let first_seen = enrolled.created.filter(|_| known.from_seq == stamp.seq).unwrap_or(known.first_seen);
        self.write_name(dir, name, &known, &Known { first_seen, settled_seq: stamp.seq, ..known.clone() })?;
        Ok(Some(id))
    }

    /// A version is complete, if it still is the current one. Returns the object under the name.
    pub(crate) fn settled(
        &mut self,
        settled: &Settled,
        root: i64,
        stamp: Stamp,
    ) -> Result<Option<FileId>, Fault<S::Error>> {
        let Some((parent, name)) = settled.path.split() else { return Ok(None) };
        let Some(dir) = self.dir(root, parent)? else { return Ok(None) };
        let Some(known) = self.find(dir, name)? else { return Ok(None) };
        let id = known.file_id;
        let seen = (settled.size, settled.mtime_ns, settled.inode);
        let Some(facts) = known.facts.as_ref().filter(|facts| (facts.size, facts.mtime_ns, facts.inode) == seen) else {
            return Ok(Some(id));
        };
        let links = if facts.nlink > 1 { self.places(id, facts.inode)? } else { Vec::new() };
        self.write_name(dir, name, &known, &Known { settled_seq: stamp.seq, ..known.clone() })?;
        for place in links {
            let Some(link) = self.find(place.dir, &place.name)? else { continue };
            self.write_name(place.dir, &place.name, &link, &Known { settled_seq: stamp.seq, ..link.clone() })?;
        }
        Ok(Some(id))
    }
}

/// A name that no file can have.
fn parking(name: &[u8]) -> Vec<u8> {
    [b"\0", name].concat()
}

/// Whether what is known under a name can be the object that was found there: same kind and inode, as far as they were read.
/// The device is left out: its number may change with a reboot.
fn is_same(known: &Known, facts: &Facts) -> bool {
    known.kind.is_none_or(|kind| kind == facts.kind) && known.facts.as_ref().is_none_or(|old| old.inode == facts.inode)
}

/// Writes over an object's facts. Another size or mtime is another version, whatever operation told of it.
fn update(known: &mut Known, facts: &Facts, stamp: Stamp) {
    let same_content = known.facts.as_ref().is_some_and(|old| (old.size, old.mtime_ns) == (facts.size, facts.mtime_ns));
    if !same_content && facts.kind != FileType::Dir {
        known.version_seq = stamp.seq;
        known.sha256 = None;
    }
    known.kind = Some(facts.kind);
    known.facts = Some(facts.clone());
    (known.last_seq, known.last_change) = (stamp.seq, stamp.at);
}

/// A new object's first record.
pub(crate) fn first_seen(facts: Option<&Facts>, stamp: Stamp) -> Known {
    Known {
        file_id: FileId(signed(stamp.seq.0)),
        kind: facts.map(|facts| facts.kind),
        facts: facts.cloned(),
        first_seen: stamp.at,
        from_seq: stamp.seq,
        version_seq: stamp.seq,
        last_seq: stamp.seq,
        last_change: stamp.at,
        settled_seq: crate::model::Seq::ZERO,
        sha256: None,
    }
}

/// Tells the first half of an exchange of names, which sets aside what is in its way, from the second, which follows at once.
#[derive(Debug, Default)]
pub(crate) struct Halves<'r> {
    first: Option<&'r Change>,
}

impl<'r> Halves<'r> {
    /// Takes the next change; whether it is a first half, and parks.
    pub(crate) fn parks(&mut self, change: &'r Change) -> bool {
        let is_second = self.first.is_some_and(|first| is_back(first, change));
        self.first = (change.exchange && !is_second).then_some(change);
        self.first.is_some()
    }
}

/// Whether `second` takes to the old place of `first` what was at its new one.
fn is_back(first: &Change, second: &Change) -> bool {
    let old = |change: &Change| {
        change.old.as_ref().map(|old| (old.root.clone().unwrap_or(change.root.clone()), old.path.clone()))
    };
    let new = |change: &Change| Some((change.root.clone(), change.path.clone()));
    second.exchange && old(second) == new(first) && new(second) == old(first)
}
