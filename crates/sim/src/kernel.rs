//! What the kernel's two ways of telling make of what is done in a tree.
//!
//! fanotify folds an undrained event into an earlier one of the same process, object, directory and name, so that what
//! was done last may stand before what was done in between; a rename is one event with both names. inotify tells of
//! watched directories only, knows no objects, and drops an event that repeats the last one in the queue.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use keepwatch_engine::watch::{DirKey, Event, Loss, Notice, Place, What};
use keepwatch_journal::By;

/// How a kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// A mark on the whole file system.
    Fanotify,
    /// A watch on each directory; the halves of a rename are paired already.
    Inotify,
    /// Not at all.
    Silent,
}

/// Something that was done, as the file system tells the kernel's notifiers.
#[derive(Clone, Debug)]
pub struct Signal {
    /// The name it was done to; `None`: to an object as such.
    pub place: Option<Place>,
    /// Where a rename led.
    pub to: Option<Place>,
    /// What was done.
    pub what: What,
    /// To a directory.
    pub is_dir: bool,
    /// To this object.
    pub object: DirKey,
    /// By this process.
    pub pid: u32,
}

/// The kernel's queue.
#[derive(Debug)]
pub struct Kernel {
    flavour: Flavour,
    queue: VecDeque<Event>,
    lost: bool,
    watched: BTreeSet<DirKey>,
}

impl Kernel {
    /// A kernel that nobody has asked to tell of anything but, by fanotify, of all.
    #[must_use]
    pub fn new(flavour: Flavour) -> Self {
        Kernel { flavour, queue: VecDeque::new(), lost: false, watched: BTreeSet::new() }
    }

    /// How it tells.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Sets an inotify watch.
    pub fn watch(&mut self, dir: &DirKey) {
        self.watched.insert(dir.clone());
    }

    /// Forgets all that waits, and all watches: the one who asked is gone.
    pub fn reset(&mut self) {
        self.queue.clear();
        self.watched.clear();
        self.lost = false;
    }

    /// The queue runs over: what comes from now on until it is drained is dropped.
    pub fn overflow(&mut self) {
        if self.flavour != Flavour::Silent {
            self.lost = true;
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.lost
    }

    /// What one read of at most this many events gives.
    pub fn drain(&mut self, max: usize) -> Vec<Notice> {
        let count = self.queue.len().min(max);
        let mut notices: Vec<Notice> = self.queue.drain(..count).map(Notice::Event).collect();
        if self.queue.is_empty() && std::mem::take(&mut self.lost) {
            notices.push(Notice::Lost(Loss::KernelQueue));
        }
        notices
    }

    /// Hears of something that was done.
    pub fn hear(&mut self, signal: Signal) {
        if self.lost {
            return;
        }
        match self.flavour {
            Flavour::Fanotify => self.fanotify(signal),
            Flavour::Inotify => self.inotify(signal),
            Flavour::Silent => {}
        }
    }

    fn fanotify(&mut self, signal: Signal) {
        let Signal { place, to, what, is_dir, object, pid } = signal;
        let of_itself = what.has(What::DELETE_SELF.with(What::MOVE_SELF));
        if place.is_none() && !is_dir && of_itself {
            return;
        }
        // A directory is told of as itself, not as a name in its parent, unless a name came or went.
        let names = What::CREATE.with(What::DELETE).with(What::RENAME);
        let place = match place {
            Some(place) if !is_dir || what.has(names) => place,
            _ => Place { dir: object.clone(), name: Box::default() },
        };
        let by = Some(Arc::new(By { pid, uid: Some(0), exe: None }));
        let event = Event { place, to, what, is_dir, object: Some(object), by };
        let folds = |old: &&mut Event| {
            (&old.place, &old.to, old.is_dir, &old.object, &old.by)
                == (&event.place, &event.to, event.is_dir, &event.object, &event.by)
                && old.what.has(What::RENAME) == event.what.has(What::RENAME)
        };
        match self.queue.iter_mut().find(folds) {
            Some(old) => old.what = old.what.with(event.what),
            None => self.queue.push_back(event),
        }
    }

    fn inotify(&mut self, signal: Signal) {
        let Signal { place, to, what, is_dir, object, .. } = signal;
        let watched = |place: &Place| self.watched.contains(&place.dir);
        let mut told: Vec<(Place, Option<Place>, What, bool)> = Vec::new();
        match (place, to) {
            (Some(from), Some(to)) => match (watched(&from), watched(&to)) {
                (true, true) => told.push((from, Some(to), What::RENAME, is_dir)),
                (true, false) => told.push((from, None, What::MOVED_OUT, is_dir)),
                (false, true) => told.push((to, None, What::MOVED_IN, is_dir)),
                (false, false) => {}
            },
            (Some(place), None) if watched(&place) => told.push((place, None, what, is_dir)),
            _ => {}
        }
        let on_itself = What::ATTRIB.with(What::DELETE_SELF).with(What::MOVE_SELF);
        if is_dir && what.has(on_itself) && self.watched.contains(&object) {
            told.push((Place { dir: object.clone(), name: Box::default() }, None, what, true));
        }
        if what.has(What::DELETE_SELF) {
            self.watched.remove(&object);
        }
        for (place, to, what, is_dir) in told {
            let event = Event { place, to, what, is_dir, object: None, by: None };
            if self.queue.back() != Some(&event) {
                self.queue.push_back(event);
            }
        }
    }
}
