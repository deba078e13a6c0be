//! The rows of a batch in memory, over those of the database: what a batch changes is gathered here, each row once,
//! and written together. Nothing here speaks to a server; what is not known is asked of a [`Source`].

use std::collections::{HashMap, HashSet};

use crate::apply::{Delta, Dir, FileId, Known, NewDir, Place, Store};
use crate::model::{Config, Facts, FileType, RootName, Seq};

/// A name that was found in the database.
pub(super) struct FoundName {
    pub(super) place: Place,
    pub(super) known: Known,
}

/// The database, as it is with all that was handed to [`Source::write`].
pub(super) trait Source {
    /// What can go wrong in it.
    type Error;

    /// What stands under a name.
    fn find(&mut self, dir: i64, name: &[u8]) -> Result<Option<Known>, Self::Error>;
    /// Every name whose object has this inode number, on whatever device and in whatever root.
    fn with_inode(&mut self, inode: u64) -> Result<Vec<FoundName>, Self::Error>;
    /// The root of this name.
    fn root(&mut self, name: &RootName) -> Result<Option<i64>, Self::Error>;
    /// The live directory at a path below its root.
    fn dir_at(&mut self, root: i64, path: &[u8]) -> Result<Option<i64>, Self::Error>;
    /// Where a live directory is.
    fn dir(&mut self, id: i64) -> Result<Option<Dir>, Self::Error>;
    /// Writes what is gathered, and empties it.
    fn write(&mut self, gathered: &mut Gathered) -> Result<(), Self::Error>;
    /// Moves a directory and the paths of all below it; see [`Store::move_dir`].
    fn move_dir(&mut self, dir: &Dir, root: i64, to: &Place, path: &[u8], seq: Seq) -> Result<(), Self::Error>;
    /// Ends all below a directory; see [`Store::end_below`].
    fn end_below(&mut self, dir: &Dir, seq: Seq) -> Result<(), Self::Error>;
    /// Counts what stands below a directory.
    fn sum_below(&mut self, dir: &Dir) -> Result<Delta, Self::Error>;
}

/// A name: as the database has it, and as it shall be.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) before: Option<Known>,
    pub(super) now: Option<Known>,
}

/// A name that ended.
#[derive(Clone, Debug)]
pub(super) struct PastName {
    pub(super) place: Place,
    pub(super) to_seq: Seq,
    pub(super) file_id: FileId,
    pub(super) from_seq: Seq,
    pub(super) kind: Option<FileType>,
}

/// A place where a directory stands or, if it ended in the same batch, stood.
#[derive(Clone, Debug)]
pub(super) struct DirName {
    pub(super) dir: i64,
    pub(super) from_seq: Seq,
    pub(super) to_seq: Option<Seq>,
    pub(super) place: Place,
}

/// A root's configuration.
#[derive(Clone, Debug)]
pub(super) struct Configured {
    pub(super) root: i64,
    pub(super) dir: Option<Box<[u8]>>,
    pub(super) identity: Option<String>,
}

/// A live directory's row.
#[derive(Clone, Debug)]
pub(super) struct DirRow {
    pub(super) root: i64,
    pub(super) parent: i64,
    pub(super) name: Vec<u8>,
    pub(super) path: Vec<u8>,
}

/// Rows that wait to be written, each once, whatever a batch did to it.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) roots: Vec<(i64, RootName)>,
    pub(super) configured: Vec<Configured>,
    pub(super) counts: HashMap<i64, Delta>,
    /// Only those whose `now` is not `before` are written; the others are what was read.
    pub(super) names: HashMap<Place, Entry>,
    pub(super) past_names: Vec<PastName>,
    pub(super) new_dirs: HashMap<i64, DirRow>,
    pub(super) gone_dirs: Vec<i64>,
    pub(super) dir_names: HashMap<i64, DirName>,
    pub(super) left_dir_names: Vec<(i64, Seq)>,
}

/// Rows over a source.
pub(super) struct Overlay<S> {
    pub(super) source: S,
    gathered: Gathered,
    roots: HashMap<RootName, Option<i64>>,
    paths: HashMap<(i64, Vec<u8>), Option<i64>>,
    dirs: HashMap<i64, Option<Dir>>,
    /// How many names a directory holds, where that is known.
    held: HashMap<i64, i64>,
    /// Directories of which the database has no name.
    fresh: HashSet<i64>,
    /// Inode numbers of which all names in the database are in `names`.
    inodes: HashSet<u64>,
    inode_names: HashMap<u64, Vec<Place>>,
    /// Whether something was thrown away that had been read ahead.
    stale: bool,
}

impl<S: Source> Overlay<S> {
    pub(super) fn new(source: S) -> Self {
        Overlay {
            source,
            gathered: Gathered::default(),
            roots: HashMap::new(),
            paths: HashMap::new(),
            dirs: HashMap::new(),
            held: HashMap::new(),
            fresh: HashSet::new(),
            inodes: HashSet::new(),
            inode_names: HashMap::new(),
            stale: false,
        }
    }

    // What was read ahead.

    /// The directory at a path, or that there is none, is known from now on.
    pub(super) fn learn_path(&mut self, root: i64, path: Vec<u8>, dir: Option<i64>) {
        if let Some(id) = dir {
            self.dirs.entry(id).or_insert_with(|| Some(Dir { id, root, path: path.clone() }));
        }
        self.paths.entry((root, path)).or_insert(dir);
    }

    /// What stands under a name, or that nothing does, is known from now on.
    pub(super) fn learn_name(&mut self, place: Place, known: Option<Known>) {
        if !self.gathered.names.contains_key(&place) {
            self.index_inode(&place, known.as_ref());
            self.gathered.names.insert(place, Entry { before: known.clone(), now: known });
        }
    }

    /// Every name with this inode number is known from now on.
    pub(super) fn learn_inode(&mut self, inode: u64, names: Vec<FoundName>) {
        for found in names {
            self.learn_name(found.place, Some(found.known));
        }
        self.inodes.insert(inode);
    }

    /// How many names a directory holds in the database, before anything of this batch.
    pub(super) fn learn_held(&mut self, dir: i64, names: i64) {
        self.held.entry(dir).or_insert(names);
    }

    /// Whether that is known.
    pub(super) fn knows_held(&self, dir: i64) -> bool {
        self.held.contains_key(&dir)
    }

    /// Whether what stands under a name is known without asking.
    pub(super) fn knows(&self, place: &Place) -> bool {
        self.fresh.contains(&place.dir) || self.gathered.names.contains_key(place)
    }

    /// Whether the path is known without asking; and the directory there.
    pub(super) fn path(&self, root: i64, path: &[u8]) -> Option<Option<i64>> {
        self.paths.get(&(root, path.to_vec())).copied()
    }

    /// Whether reading ahead has to be done again.
    pub(super) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// Writes all that is gathered.
    pub(super) fn write(&mut self) -> Result<(), S::Error> {
        self.source.write(&mut self.gathered)?;
        for entry in self.gathered.names.values_mut() {
            entry.before.clone_from(&entry.now);
        }
        Ok(())
    }

    /// A root is watched, at this place; or no longer.
    pub(super) fn configure(&mut self, root: i64, config: &Config) {
        self.gathered.configured.push(Configured { root, dir: config.dir.clone(), identity: config.identity.clone() });
    }

    fn index_inode(&mut self, place: &Place, known: Option<&Known>) {
        if let Some(facts) = known.and_then(|known| known.facts.as_ref()) {
            self.inode_names.entry(facts.inode).or_default().push(place.clone());
        }
    }

    fn set(&mut self, dir: i64, name: &[u8], before: Option<&Known>, now: Option<&Known>) {
        let place = Place { dir, name: name.to_vec() };
        self.index_inode(&place, now);
        let fresh = self.fresh.contains(&dir);
        let entry = self
            .gathered
            .names
            .entry(place)
            .or_insert_with(|| Entry { before: before.filter(|_| !fresh).cloned(), now: before.cloned() });
        let more = i64::from(now.is_some()) - i64::from(entry.now.is_some());
        entry.now = now.cloned();
        if let Some(held) = self.held.get_mut(&dir) {
            *held += more;
        }
    }

    fn load_inode(&mut self, inode: u64) -> Result<(), S::Error> {
        if !self.inodes.contains(&inode) {
            let names = self.source.with_inode(inode)?;
            self.learn_inode(inode, names);
        }
        Ok(())
    }

    /// The names that have an object with this inode now.
    fn now_with_inode(&mut self, inode: u64) -> Result<Vec<(Place, Known)>, S::Error> {
        self.load_inode(inode)?;
        let mut places = self.inode_names.get(&inode).cloned().unwrap_or_default();
        places.sort_unstable_by(|one, other| (one.dir, &one.name).cmp(&(other.dir, &other.name)));
        places.dedup();
        let now = |place: Place| {
            let known = self.gathered.names.get(&place)?.now.clone()?;
            let is_it = known.facts.as_ref().is_some_and(|facts| facts.inode == inode);
            is_it.then_some((place, known))
        };
        Ok(places.into_iter().filter_map(now).collect())
    }

    fn is_empty(&self, dir: &Dir) -> bool {
        self.held.get(&dir.id) == Some(&0) && dir.id != dir.root
    }
}

impl<S: Source> Store for Overlay<S> {
    type Error = S::Error;

    fn find(&mut self, dir: i64, name: &[u8]) -> Result<Option<Known>, S::Error> {
        let place = Place { dir, name: name.to_vec() };
        if let Some(entry) = self.gathered.names.get(&place) {
            return Ok(entry.now.clone());
        }
        if self.fresh.contains(&dir) {
            return Ok(None);
        }
        let found = self.source.find(dir, name)?;
        self.learn_name(place, found.clone());
        Ok(found)
    }

    fn insert_name(&mut self, dir: i64, name: &[u8], known: &Known) -> Result<(), S::Error> {
        self.set(dir, name, None, Some(known));
        Ok(())
    }

    fn write_name(&mut self, dir: i64, name: &[u8], old: &Known, known: &Known) -> Result<(), S::Error> {
        self.set(dir, name, Some(old), Some(known));
        Ok(())
    }

    fn lift(&mut self, dir: i64, name: &[u8], known: &Known, seq: Seq) -> Result<(), S::Error> {
        self.set(dir, name, Some(known), None);
        self.gathered.past_names.push(PastName {
            place: Place { dir, name: name.to_vec() },
            to_seq: seq,
            file_id: known.file_id,
            from_seq: known.from_seq,
            kind: known.kind,
        });
        Ok(())
    }

    fn places(&mut self, id: FileId, inode: u64) -> Result<Vec<Place>, S::Error> {
        let names = self.now_with_inode(inode)?;
        Ok(names.into_iter().filter(|(_, known)| known.file_id == id).map(|(place, _)| place).collect())
    }

    fn by_inode(&mut self, root: i64, facts: &Facts) -> Result<Vec<Place>, S::Error> {
        let mut found = Vec::new();
        for (place, known) in self.now_with_inode(facts.inode)? {
            let is_it = known.kind == Some(facts.kind) && known.facts.as_ref().is_some_and(|old| old.dev == facts.dev);
            if is_it && self.dir(place.dir)?.is_some_and(|dir| dir.root == root) {
                found.push((place, known.last_seq));
            }
        }
        // The latest first; of equals the first by directory and name, in which order they are.
        found.sort_by_key(|(_, last_seq)| std::cmp::Reverse(*last_seq));
        Ok(found.into_iter().map(|(place, _)| place).collect())
    }

    fn root(&mut self, name: &RootName) -> Result<Option<i64>, S::Error> {
        if let Some(root) = self.roots.get(name) {
            return Ok(*root);
        }
        let root = self.source.root(name)?;
        self.roots.insert(name.clone(), root);
        Ok(root)
    }

    fn insert_root(&mut self, id: i64, name: &RootName) -> Result<(), S::Error> {
        self.roots.insert(name.clone(), Some(id));
        self.gathered.roots.push((id, name.clone()));
        self.dirs.insert(id, Some(Dir { id, root: id, path: Vec::new() }));
        self.fresh.insert(id);
        self.held.insert(id, 0);
        Ok(())
    }

    fn add_counts(&mut self, root: i64, delta: Delta) -> Result<(), S::Error> {
        self.gathered.counts.entry(root).or_default().plus(delta);
        Ok(())
    }

    fn dir_at(&mut self, root: i64, path: &[u8]) -> Result<Option<i64>, S::Error> {
        if let Some(dir) = self.path(root, path) {
            return Ok(dir);
        }
        let dir = self.source.dir_at(root, path)?;
        self.learn_path(root, path.to_vec(), dir);
        Ok(dir)
    }

    fn dir(&mut self, id: i64) -> Result<Option<Dir>, S::Error> {
        if let Some(dir) = self.dirs.get(&id) {
            return Ok(dir.clone());
        }
        let dir = self.source.dir(id)?;
        self.dirs.insert(id, dir.clone());
        Ok(dir)
    }

    fn insert_dir(&mut self, dir: &NewDir<'_>) -> Result<(), S::Error> {
        let NewDir { id, root, parent, name, path, seq } = *dir;
        self.dirs.insert(id, Some(Dir { id, root, path: path.to_vec() }));
        self.paths.insert((root, path.to_vec()), Some(id));
        self.fresh.insert(id);
        self.held.insert(id, 0);
        self.gathered.new_dirs.insert(id, DirRow { root, parent, name: name.to_vec(), path: path.to_vec() });
        let place = Place { dir: parent, name: name.to_vec() };
        self.gathered.dir_names.insert(id, DirName { dir: id, from_seq: seq, to_seq: None, place });
        Ok(())
    }

    fn move_dir(&mut self, dir: &Dir, root: i64, to: &Place, path: &[u8], seq: Seq) -> Result<(), S::Error> {
        self.write()?;
        self.source.move_dir(dir, root, to, path, seq)?;
        self.paths.clear();
        self.dirs.clear();
        self.stale = true;
        Ok(())
    }

    fn end_below(&mut self, dir: &Dir, seq: Seq) -> Result<(), S::Error> {
        if self.is_empty(dir) {
            self.dirs.insert(dir.id, None);
            self.paths.insert((dir.root, dir.path.clone()), None);
            if self.gathered.new_dirs.remove(&dir.id).is_none() {
                self.gathered.gone_dirs.push(dir.id);
            }
            match self.gathered.dir_names.get_mut(&dir.id) {
                Some(name) => name.to_seq = Some(seq),
                None => self.gathered.left_dir_names.push((dir.id, seq)),
            }
            return Ok(());
        }
        self.write()?;
        self.source.end_below(dir, seq)?;
        self.gathered.names.clear();
        self.inode_names.clear();
        self.inodes.clear();
        self.held.clear();
        self.fresh.clear();
        self.paths.clear();
        self.dirs.clear();
        self.stale = true;
        Ok(())
    }

    fn sum_below(&mut self, dir: &Dir) -> Result<Delta, S::Error> {
        if self.is_empty(dir) {
            return Ok(Delta::default());
        }
        self.write()?;
        self.source.sum_below(dir)
    }
}
