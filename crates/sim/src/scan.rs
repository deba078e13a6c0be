//! A scan that is made step by step, so that a test can do anything in between: as the daemon's scanner walks a tree
//! beside the inventory and tells of every name that differs.

use keepwatch_engine::daemon::dirs::RootNo;
use keepwatch_engine::daemon::sequencer::{Difference, Found};
use keepwatch_engine::inventory::{DirId, View};
use keepwatch_engine::watch::DirKey;
use keepwatch_journal::{Facts, FileType, RelPath, RootName, Seq, Via};

use crate::kernel::Flavour;
use crate::tree::World;

/// A scan under way.
pub struct Scan {
    root: RootNo,
    name: RootName,
    /// Where it started.
    pub at: RelPath,
    via: Via,
    first: bool,
    view: View,
    /// An empty top directory is not to be believed.
    doubt_empty: bool,
    /// It was empty, and not believed.
    pub empty: bool,
    waiting: Vec<Visit>,
    reading: Option<Reading>,
}

/// A directory to be visited: a name in one that is open.
struct Visit {
    /// With its generation: an open directory's inode is not used again, it only becomes empty.
    above: Option<(u64, u32)>,
    name: Box<[u8]>,
    path: RelPath,
    known: Option<DirId>,
    parent: Option<(DirKey, Box<[u8]>)>,
}

/// A directory that is open.
struct Reading {
    inode: (u64, u32),
    key: DirKey,
    visit: Visit,
    /// How far the inventory had come before it was read.
    base: Seq,
    listed: Option<Vec<Box<[u8]>>>,
    seen: Vec<(Box<[u8]>, Option<Facts>)>,
}

/// What a scan is to look at.
pub struct Job {
    /// Which root.
    pub root: RootNo,
    /// Its name.
    pub name: RootName,
    /// Where to start.
    pub at: RelPath,
    /// Who asks.
    pub via: Via,
    /// An empty top directory is not to be believed.
    pub doubt_empty: bool,
}

impl Scan {
    /// Starts; `None`: the place to start from is not there.
    ///
    /// # Panics
    /// If the inventory cannot be read.
    #[must_use]
    pub fn start(job: Job, world: &World, view: View) -> Option<Scan> {
        let Job { root, name, at, via, doubt_empty } = job;
        let top = world.top(usize::from(root.0));
        let known = view.dir_by_path(&name, &at).expect("the inventory can be read");
        let root_dir = view.dir_by_path(&name, &RelPath::ROOT).expect("the inventory can be read");
        let first = root_dir.is_none_or(|dir| view.children_after(dir, b"", 1).is_ok_and(|found| found.is_empty()));
        let (above, own, parent) = match at.split() {
            None => (None, Box::default(), None),
            Some((dir, own)) => {
                let mut here = top;
                for name in dir.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                    here = world.child(here, name)?;
                }
                (Some(world.identity(here)), Box::from(own), Some((world.key(here), Box::from(own))))
            }
        };
        let visit = Visit { above, name: own, path: at.clone(), known, parent };
        let scan =
            Scan { root, name, at, via, first, view, doubt_empty, empty: false, waiting: vec![visit], reading: None };
        Some(scan)
    }

    /// In which root.
    #[must_use]
    pub fn root(&self) -> RootNo {
        self.root
    }

    /// Whether it has come to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_none()
    }

    /// Goes on by one system call or so. `base` is how far the inventory has come.
    ///
    /// # Panics
    /// If the inventory cannot be read.
    pub fn step(&mut self, world: &mut World, base: Seq) -> Option<Found> {
        let Some(mut reading) = self.reading.take() else {
            let visit = self.waiting.pop()?;
            return self.enter(world, base, visit);
        };
        match &mut reading.listed {
            None => {
                let names = held(world, reading.inode).map(|inode| world.names(inode)).unwrap_or_default();
                reading.listed = Some(names.into_iter().map(|(name, _)| name).collect());
            }
            Some(listed) => match listed.pop() {
                Some(name) => {
                    let inode = held(world, reading.inode).and_then(|dir| world.child(dir, &name));
                    let facts = inode.and_then(|inode| world.facts(inode).cloned());
                    // A scan does not read where links point.
                    let facts = facts.map(|facts| Facts { target: None, ..facts });
                    reading.seen.push((name, facts));
                }
                None => return Some(self.compare(reading)),
            },
        }
        self.reading = Some(reading);
        None
    }

    fn enter(&mut self, world: &mut World, base: Seq, visit: Visit) -> Option<Found> {
        let inode = match visit.above {
            None => Some(world.top(usize::from(self.root.0))),
            Some(above) => held(world, above).and_then(|above| world.child(above, &visit.name)),
        };
        let is_dir = |inode: &u64| world.facts(*inode).is_some_and(|facts| facts.kind == FileType::Dir);
        let inode = inode.filter(is_dir)?;
        let key = world.key(inode);
        let reading =
            Reading { inode: world.identity(inode), key: key.clone(), visit, base, listed: None, seen: Vec::new() };
        let mut found = None;
        if world.kernel.flavour() == Flavour::Inotify {
            found = Some(self.found(&reading, Vec::new()));
            world.kernel.watch(&key);
        }
        self.reading = Some(reading);
        found
    }

    fn found(&self, reading: &Reading, differences: Vec<Difference>) -> Found {
        Found {
            root: self.root,
            via: self.via,
            key: reading.key.clone(),
            path: reading.visit.path.clone(),
            parent: reading.visit.parent.clone(),
            base: reading.base,
            first: self.first,
            may_be_locked: true,
            differences,
        }
    }

    fn compare(&mut self, mut reading: Reading) -> Found {
        reading.seen.sort_by(|one, other| one.0.cmp(&other.0));
        let mut known: Vec<(Vec<u8>, Option<DirId>, Option<Facts>)> = Vec::new();
        if let Some(dir) = reading.visit.known {
            let children =
                self.view.children(dir, |child| known.push((child.name.to_vec(), child.dir, child.facts.clone())));
            children.expect("the inventory can be read");
        }
        let mut differences = Vec::new();
        let mut below = Vec::new();
        let hide = self.doubt_empty && reading.visit.path.is_root() && reading.seen.is_empty();
        for (name, ..) in &known {
            let there = reading.seen.iter().any(|(seen, facts)| **seen == **name && facts.is_some());
            if !there && hide {
                self.empty = true;
            } else if !there {
                differences.push(Difference::Absent { name: name.as_slice().into() });
            }
        }
        for (name, facts) in &reading.seen {
            let Some(facts) = facts else { continue };
            let found = known.iter().find(|(known, ..)| **known == **name);
            let mut dir = found.and_then(|(_, dir, _)| *dir);
            match found.and_then(|(_, _, facts)| facts.clone()) {
                Some(known) if is_same(&known, facts) => {}
                Some(known) => {
                    if known.inode != facts.inode {
                        dir = None;
                    }
                    differences.push(Difference::Changed {
                        name: name.clone(),
                        known: Box::new(known),
                        seen: seen(facts),
                    });
                }
                None => {
                    let mut taken_for_moved = false;
                    if facts.kind == FileType::Dir && !self.first && found.is_none() {
                        dir = self.moved_dir(facts);
                        taken_for_moved = dir.is_some();
                    }
                    differences.push(Difference::New { name: name.clone(), seen: seen(facts), taken_for_moved });
                }
            }
            if facts.kind == FileType::Dir {
                below.push((name.clone(), dir));
            }
        }
        for (name, known) in below {
            let path = reading.visit.path.join(&name);
            let parent = Some((reading.key.clone(), name.clone()));
            self.waiting.push(Visit { above: Some(reading.inode), name, path, known, parent });
        }
        self.found(&reading, differences)
    }

    fn moved_dir(&self, facts: &Facts) -> Option<DirId> {
        let known = self.view.by_inode(&self.name, facts.inode).ok()?;
        known.into_iter().find_map(|(_, _, known)| {
            let dir = known.dir_id()?;
            (known.facts?.mtime_ns == facts.mtime_ns).then_some(dir)
        })
    }
}

/// An open directory, if it still is in the tree.
fn held(world: &World, (inode, generation): (u64, u32)) -> Option<u64> {
    (world.identity(inode) == (inode, generation)).then_some(inode)
}

/// What is told of what was seen: not of a link, which has to be read.
fn seen(facts: &Facts) -> Option<Box<Facts>> {
    (facts.kind != FileType::Symlink).then(|| Box::new(facts.clone()))
}

fn is_same(known: &Facts, seen: &Facts) -> bool {
    let all = |facts: &Facts| {
        let times = (facts.mtime_ns, facts.ctime_ns);
        (facts.kind, facts.inode, facts.size, times, facts.mode, facts.uid, facts.gid, facts.nlink)
    };
    all(known) == all(seen)
}
