//! A file tree in memory: inodes that are used again, hard links, open writers, and a kernel that tells of it all.

mod perform;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use keepwatch_engine::clock::Clock;
use keepwatch_engine::daemon::dirs::RootNo;
use keepwatch_engine::daemon::tree::{DirAt, Located, Look, Tree, Writers};
use keepwatch_engine::watch::{DirKey, Place, What};
use keepwatch_journal::{Facts, FileType, RelPath};

use crate::clock::SimClock;
use crate::kernel::{Flavour, Kernel, Signal};

/// The file system's own top directory.
const TOP: u64 = 2;
/// The first inode that a file gets.
const FIRST: u64 = 10;
/// Every operation takes this long.
const OPERATION: Duration = Duration::from_micros(50);
/// The device number.
const DEVICE: u64 = 8;

/// Where something is: a top directory by its number (the roots, then one that is in no root), then names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(pub u8, pub Vec<u8>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)?;
        self.1.iter().try_for_each(|name| write!(f, "/{}", char::from(b'a' + name)))
    }
}

/// An operation. One that cannot be done, because something is not there or is in the way, does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes a file of this size, or writes over it.
    Write(Path, u8),
    /// Adds to a file.
    Append(Path),
    /// Opens a file for writing, making it if need be, and leaves it open.
    Open(Path),
    /// Writes to one of the files that are open.
    WriteOpen(u8),
    /// Closes one of the files that are open.
    Close(u8),
    /// Cuts a file, or makes it longer, without opening it.
    Truncate(Path, u8),
    /// Changes permissions.
    Chmod(Path, u8),
    /// Removes a name of something that is no directory.
    Unlink(Path),
    /// Makes a directory.
    Mkdir(Path),
    /// Removes an empty directory.
    Rmdir(Path),
    /// Removes a directory with all it holds, or whatever has that name.
    RemoveAll(Path),
    /// Renames, over what is there if that can be.
    Rename(Path, Path),
    /// Exchanges two names.
    Exchange(Path, Path),
    /// Makes another name.
    Link(Path, Path),
    /// Makes a symbolic link.
    Symlink(Path),
}

#[derive(Debug)]
struct Inode {
    generation: u32,
    facts: Facts,
    born_ns: i64,
    /// What a directory holds.
    names: BTreeMap<Box<[u8]>, u64>,
    /// In which directory a directory is.
    parent: u64,
    writers: u32,
    /// Whether, a directory, it was ever in no root.
    was_outside: bool,
    /// Below which top directory, if it is one, it came to be, and whether it was ever below another.
    home: Option<u64>,
    changed_root: bool,
}

/// A file that is open for writing, and the name that it was opened by.
#[derive(Debug)]
struct Open {
    inode: u64,
    place: Place,
}

/// How a file system behaves.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// An inode that is free is given to the next file, as on ext4.
    pub reuses_inodes: bool,
    /// Directories can be found by handle, and have generations.
    pub has_handles: bool,
    /// The step of its time stamps.
    pub stamp_ns: i64,
}

/// The file system, its kernel, and what is about to be done in it.
#[derive(Debug)]
pub struct World {
    clock: SimClock,
    manners: Manners,
    /// What tells of it.
    pub kernel: Kernel,
    inodes: BTreeMap<u64, Inode>,
    tops: Vec<u64>,
    open: Vec<Open>,
    next: u64,
    generation: u32,
    pid: u32,
    /// Operations that are done behind somebody's back: when so many more looks were taken.
    armed: VecDeque<(u8, u32, Op)>,
    /// Roots that are away.
    away: Vec<bool>,
    /// Inodes for which a lease was granted last.
    leased: Vec<u64>,
}

/// A world that tree, ledger and service share.
pub type Shared = Rc<RefCell<World>>;

impl World {
    /// A world with so many roots, and one directory beside them.
    #[must_use]
    pub fn new(clock: SimClock, manners: Manners, kernel: Kernel, roots: usize) -> Self {
        let mut world = World {
            clock,
            manners,
            kernel,
            inodes: BTreeMap::new(),
            tops: Vec::new(),
            open: Vec::new(),
            next: FIRST,
            generation: 0,
            pid: 1,
            armed: VecDeque::new(),
            away: vec![false; roots],
            leased: Vec::new(),
        };
        let top = world.inode(TOP, FileType::Dir);
        world.inodes.insert(TOP, top);
        for number in 0..=roots {
            let inode = world.make(FileType::Dir);
            world.put(TOP, format!("t{number}").as_bytes(), inode);
            world.tops.push(inode);
        }
        world
    }

    /// A top directory's inode.
    #[must_use]
    pub fn top(&self, number: usize) -> u64 {
        self.tops[number]
    }

    /// An inode's identity.
    #[must_use]
    pub fn key(&self, inode: u64) -> DirKey {
        let mut key = Vec::new();
        if self.manners.has_handles {
            key.push(b'h');
            key.extend([1; 8]);
            key.extend(1u32.to_ne_bytes());
            key.extend(inode.to_ne_bytes());
            key.extend(self.inodes.get(&inode).map_or(0, |inode| inode.generation).to_ne_bytes());
        } else {
            key.push(b'i');
            key.extend(DEVICE.to_ne_bytes());
            key.extend(inode.to_ne_bytes());
        }
        DirKey(key.into())
    }

    /// An inode with its generation; zero if it is free.
    #[must_use]
    pub fn identity(&self, inode: u64) -> (u64, u32) {
        (inode, self.inodes.get(&inode).map_or(0, |inode| inode.generation))
    }

    /// What `statx` would say of an inode.
    #[must_use]
    pub fn facts(&self, inode: u64) -> Option<&Facts> {
        self.inodes.get(&inode).map(|inode| &inode.facts)
    }

    /// What a directory holds; nothing if it is none.
    #[must_use]
    pub fn names(&self, dir: u64) -> Vec<(Box<[u8]>, u64)> {
        let Some(dir) = self.inodes.get(&dir) else { return Vec::new() };
        dir.names.iter().map(|(name, inode)| (name.clone(), *inode)).collect()
    }

    /// What has this name in a directory.
    #[must_use]
    pub fn child(&self, dir: u64, name: &[u8]) -> Option<u64> {
        self.inodes.get(&dir)?.names.get(name).copied()
    }

    /// Everything below a top directory, and itself, by path.
    #[must_use]
    pub fn walk(&self, top: usize) -> BTreeMap<RelPath, Facts> {
        let mut all = BTreeMap::new();
        let mut dirs = vec![(RelPath::ROOT, self.tops[top])];
        while let Some((path, inode)) = dirs.pop() {
            if let Some(facts) = self.facts(inode) {
                all.insert(path.clone(), facts.clone());
            }
            dirs.extend(self.names(inode).into_iter().map(|(name, inode)| (path.join(&name), inode)));
        }
        all
    }

    /// Whether an inode is a directory that is there, and never was in no root.
    #[must_use]
    pub fn always_stayed(&self, inode: u64) -> bool {
        self.inodes
            .get(&inode)
            .is_some_and(|inode| inode.facts.kind == FileType::Dir && inode.facts.nlink > 0 && !inode.was_outside)
    }

    /// Whether an inode is a directory that was in more than one root, or in none.
    #[must_use]
    pub fn changed_root(&self, inode: u64) -> bool {
        self.inodes.get(&inode).is_some_and(|inode| inode.changed_root)
    }

    /// Whether a lease was granted for an inode when that was asked last.
    #[must_use]
    pub fn was_leased(&self, inode: u64) -> bool {
        self.leased.contains(&inode)
    }

    /// How many files are open for writing.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.open.len()
    }

    /// Has an operation done when somebody has looked so many times more.
    pub fn arm(&mut self, looks: u8, pid: u32, op: Op) {
        self.armed.push_back((looks, pid, op));
    }

    /// Takes back what was to be done later.
    pub fn disarm(&mut self) {
        self.armed.clear();
    }

    /// A root's file system goes, or comes back.
    pub fn set_away(&mut self, root: usize, away: bool) {
        self.away[root] = away;
    }

    /// Whether a root's file system is away.
    #[must_use]
    pub fn is_away(&self, root: usize) -> bool {
        self.away[root]
    }

    fn looked(&mut self) {
        let Some((looks, ..)) = self.armed.front_mut() else { return };
        if *looks > 0 {
            *looks -= 1;
        } else if let Some((_, pid, op)) = self.armed.pop_front() {
            self.perform(pid, &op);
        }
    }
}

/// The tree, as the sequencer looks at it.
#[derive(Clone, Debug)]
pub struct SimTree(pub Shared);

impl Tree for SimTree {
    fn look(&mut self, dir: DirAt<'_>, name: &[u8]) -> Look {
        let mut world = self.0.borrow_mut();
        world.looked();
        let inode = match world.enter(dir) {
            Ok(dir) if name.is_empty() => Some(dir),
            Ok(dir) => world.child(dir, name),
            Err(look) => return look,
        };
        match inode.and_then(|inode| world.facts(inode)) {
            Some(facts) => Look::There(facts.clone()),
            None => Look::Gone,
        }
    }

    fn key_of(&mut self, dir: DirAt<'_>, name: &[u8]) -> Option<DirKey> {
        let mut world = self.0.borrow_mut();
        world.looked();
        let dir = world.enter(dir).ok()?;
        let inode = world.child(dir, name)?;
        Some(world.key(inode))
    }

    fn is_object(&mut self, dir: DirAt<'_>, name: &[u8], object: &DirKey) -> Option<bool> {
        let mut world = self.0.borrow_mut();
        world.looked();
        if !world.manners.has_handles {
            return None;
        }
        let dir = world.enter(dir).ok()?;
        Some(world.child(dir, name).is_some_and(|inode| world.key(inode) == *object))
    }

    fn born(&mut self, dir: DirAt<'_>, name: &[u8]) -> Option<i64> {
        let mut world = self.0.borrow_mut();
        world.looked();
        let dir = world.enter(dir).ok()?;
        let inode = world.child(dir, name)?;
        Some(world.inodes[&inode].born_ns)
    }

    fn object_of(&mut self, object: &DirKey) -> Option<((u64, u64), u64)> {
        let mut world = self.0.borrow_mut();
        world.looked();
        if !world.manners.has_handles {
            return None;
        }
        let inode = world.by_key(object)?;
        Some(((DEVICE, inode), world.inodes[&inode].facts.nlink.into()))
    }

    fn locate(&mut self, key: &DirKey, known: &mut dyn FnMut(&DirKey) -> bool) -> Located {
        let mut world = self.0.borrow_mut();
        world.looked();
        if !world.manners.has_handles {
            return Located::Unavailable;
        }
        let Some(mut here) = world.by_key(key) else { return Located::Gone };
        if !world.is_dir(here) {
            return Located::Unavailable;
        }
        let mut chain = Vec::new();
        loop {
            let key = world.key(here);
            if known(&key) {
                chain.reverse();
                return Located::Below(key, chain);
            }
            if here == TOP {
                return Located::Outside;
            }
            let above = world.inodes[&here].parent;
            let name = world.names(above).into_iter().find_map(|(name, inode)| (inode == here).then_some(name));
            let Some(name) = name else { return Located::Gone };
            chain.push((key, name));
            here = above;
        }
    }

    fn writers(&mut self, dir: DirAt<'_>, name: &[u8], inode: u64) -> Writers {
        let mut world = self.0.borrow_mut();
        world.looked();
        let Ok(dir) = world.enter(dir) else { return Writers::Unknown };
        if world.child(dir, name) != Some(inode) {
            return Writers::Unknown;
        }
        world.leased.retain(|leased| *leased != inode);
        if world.inodes[&inode].writers > 0 {
            return Writers::Some;
        }
        world.leased.push(inode);
        Writers::None(world.inodes[&inode].facts.clone())
    }

    fn rest(&mut self) {}
}

/// A root's number.
#[must_use]
pub fn root_no(root: usize) -> RootNo {
    RootNo(u16::try_from(root).unwrap_or(u16::MAX))
}
