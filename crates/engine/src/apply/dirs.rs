//! Directories of the live tree, by path: made, moved, ended with all they hold. And roots, whose top they are.

use super::known::{FileId, Known, ROOTS, signed};
use super::store::{Dir, Fault, NewDir, Place, Stamp, Store};
use super::tree::Tree;
use crate::model::{FileType, RootName, Seq};

/// Room for the depth of a directory in the id of a placeholder.
pub(crate) const DEPTH_BITS: u32 = 16;
/// The deepest directory that a path may prove; the kernel's own limit on a path's length keeps far below.
const DEPTH_MAX: i64 = (1 << DEPTH_BITS) - 2;

impl<S: Store> Tree<'_, S> {
    /// The root of this name; one that no `config` record declared yet becomes a placeholder.
    pub(crate) fn root(&mut self, name: &RootName, stamp: Stamp) -> Result<i64, S::Error> {
        if let Some(root) = self.memory.roots.get(name) {
            return Ok(*root);
        }
        let root = match self.known_root(name)? {
            Some(root) => root,
            None => {
                // A move between two unknown roots makes two of them: the first takes depth 0, the second the last.
                let first = -(signed(stamp.seq.0) << DEPTH_BITS);
                let taken = self.dir_row(first)?.is_some();
                self.make_root(name, first - if taken { DEPTH_MAX + 1 } else { 0 }, stamp)?
            }
        };
        self.memory.roots.insert(name.clone(), root);
        Ok(root)
    }

    /// Declares a root: its id is this record's seq, unless it is known already.
    pub(crate) fn declare_root(&mut self, name: &RootName, stamp: Stamp) -> Result<i64, S::Error> {
        match self.known_root(name)? {
            Some(root) => Ok(root),
            None => self.make_root(name, signed(stamp.seq.0), stamp),
        }
    }

    fn known_root(&mut self, name: &RootName) -> Result<Option<i64>, S::Error> {
        self.store.root(name)
    }

    fn make_root(&mut self, name: &RootName, id: i64, stamp: Stamp) -> Result<i64, S::Error> {
        self.store.insert_root(id, name)?;
        self.insert_name(ROOTS, name.as_str().as_bytes(), &placeholder(id, stamp))?;
        Ok(id)
    }

    // Directories.

    /// The live directory at a path, if there is one.
    pub(crate) fn dir(&mut self, root: i64, path: &[u8]) -> Result<Option<i64>, S::Error> {
        if path.is_empty() {
            return Ok(Some(root));
        }
        if let Some(dir) = self.memory.path(root, path) {
            return Ok(Some(dir));
        }
        let dir = self.store.dir_at(root, path)?;
        if let Some(dir) = dir {
            self.memory.learn(root, path, dir);
        }
        Ok(dir)
    }

    /// The directory at a path, made with all above it where they are not known: a path is proof of them.
    pub(super) fn dir_or_make(&mut self, root: i64, path: &[u8], stamp: Stamp) -> Result<i64, Fault<S::Error>> {
        if let Some(dir) = self.dir(root, path)? {
            return Ok(dir);
        }
        let mut parent = root;
        let mut end = 0;
        for (depth, name) in (1_i64..).zip(path.split(|byte| *byte == b'/')) {
            if depth > DEPTH_MAX {
                return Err(Fault::Contradiction("the path is deeper than 65534 directories"));
            }
            end += name.len() + usize::from(depth > 1);
            parent = match self.dir(root, &path[..end])? {
                Some(dir) => dir,
                None => self.make_placeholder(root, parent, name, &path[..end], depth, stamp)?,
            };
        }
        Ok(parent)
    }

    fn make_placeholder(
        &mut self,
        root: i64,
        parent: i64,
        name: &[u8],
        path: &[u8],
        depth: i64,
        stamp: Stamp,
    ) -> Result<i64, Fault<S::Error>> {
        let id = match self.find(parent, name)? {
            // A name that was never read turns out to be a directory.
            Some(old) if old.kind.is_none() => {
                let known = Known { kind: Some(FileType::Dir), ..old.clone() };
                self.count_in(root, old.kind, -1, 0);
                self.count_in(root, known.kind, 1, 0);
                self.write_name(parent, name, &old, &known)?;
                known.file_id.0
            }
            found => {
                if let Some(known) = found {
                    self.end(parent, name, &known, stamp.seq)?;
                }
                let id = -((signed(stamp.seq.0) << DEPTH_BITS) | depth);
                self.insert_name(parent, name, &placeholder(id, stamp))?;
                self.count_in(root, Some(FileType::Dir), 1, 0);
                id
            }
        };
        self.add_dir(id, root, parent, name, path, stamp.seq)?;
        Ok(id)
    }

    /// Adds a live directory's own rows; its name stands among the names already.
    pub(super) fn add_dir(
        &mut self,
        id: i64,
        root: i64,
        parent: i64,
        name: &[u8],
        path: &[u8],
        seq: Seq,
    ) -> Result<(), S::Error> {
        self.store.insert_dir(&NewDir { id, root, parent, name, path, seq })?;
        self.memory.learn(root, path, id);
        self.memory.made(id);
        Ok(())
    }

    /// Root and path of a live directory.
    pub(super) fn dir_row(&mut self, id: i64) -> Result<Option<Dir>, S::Error> {
        self.store.dir(id)
    }

    /// Moves a directory with all it holds: rows of directories only, however many files they hold.
    pub(super) fn move_dir(
        &mut self,
        dir: &Dir,
        root: i64,
        to: &Place,
        path: &[u8],
        seq: Seq,
    ) -> Result<(), Fault<S::Error>> {
        if root == dir.root && is_within(path, &dir.path) {
            return Err(Fault::Contradiction("a directory cannot move into itself"));
        }
        if root != dir.root {
            let delta = self.store.sum_below(dir)?;
            self.fresh.entry(root).or_default().plus(delta);
            let old = self.fresh.entry(dir.root).or_default();
            old.plus(delta.minus());
        }
        self.store.move_dir(dir, root, to, path, seq)?;
        self.memory.forget_paths();
        Ok(())
    }

    /// Ends every name below a directory, and the directories themselves; of a root, all but its own directory.
    pub(super) fn end_below(&mut self, dir: &Dir, seq: Seq) -> Result<(), S::Error> {
        let delta = self.store.sum_below(dir)?;
        let counts = self.fresh.entry(dir.root).or_default();
        counts.plus(delta.minus());
        self.store.end_below(dir, seq)?;
        self.memory.forget_paths();
        Ok(())
    }
}

/// What is known of a directory that only a path told of.
fn placeholder(id: i64, stamp: Stamp) -> Known {
    Known {
        file_id: FileId(id),
        kind: Some(FileType::Dir),
        facts: None,
        first_seen: stamp.at,
        from_seq: stamp.seq,
        version_seq: stamp.seq,
        last_seq: stamp.seq,
        last_change: stamp.at,
        settled_seq: Seq::ZERO,
        sha256: None,
    }
}

/// Whether a path is a directory's own or lies below it.
pub(super) fn is_within(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The range of paths strictly below a directory: from its path and `/` up to its path and `0`, the next byte.
pub(crate) fn below(dir: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if dir.is_empty() {
        // No path is empty, a name that is set aside begins with a NUL, and no first name is as long as PATH_MAX.
        return (vec![0], vec![255; 4096]);
    }
    ([dir, b"/"].concat(), [dir, b"0"].concat())
}
