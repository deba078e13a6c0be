//! A store at work.

use std::collections::HashMap;
use std::io::Read;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::doubts::{Doubt, Doubts};
use super::objects::{copy, keep_old, unable};
use super::{Entry, Spool, Spooled, Store, away, listing, moves, not_there};
use crate::model::{FileType, RelPath};
use crate::target::dirs::a_dir;
use crate::target::{Content, Found, Meta, Result, Session, Staged, TargetError, shown};

pub(super) struct StoreSession<S> {
    store: Arc<S>,
    spool: Arc<Spool>,
    doubts: Arc<Doubts>,
    /// The id of the state that is at work.
    state: String,
    next: AtomicU64,
    staged: Mutex<HashMap<u64, (Meta, Spooled)>>,
}

impl<S: Store> StoreSession<S> {
    pub(super) fn new(store: Arc<S>, spool: Arc<Spool>, doubts: Arc<Doubts>, state: &str) -> Self {
        let state = state.to_owned();
        StoreSession { store, spool, doubts, state, next: AtomicU64::new(1), staged: Mutex::default() }
    }

    fn taken(&self, number: u64) -> Option<(Meta, Spooled)> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }

    /// Puts what was staged in its place. What stands there goes below `keep` first.
    fn publish_one(&self, staged: &Staged, keep: Option<&RelPath>) -> Result<()> {
        let (meta, what) =
            self.taken(staged.number).ok_or_else(|| away(&*self.store, "what was staged is not there any more"))?;
        if let Some(keep) = keep {
            keep_old(&*self.store, &self.spool, &self.doubts, &staged.path, keep)?;
        }
        let size = match &what {
            Spooled::File { size, .. } => *size,
            Spooled::Symlink(to) => to.len() as u64,
        };
        let put = self.store.put(&staged.path, &meta, &what);
        self.doubts.note(put, || Doubt::Put { path: staged.path.clone(), size, mtime_ns: meta.mtime_ns })
    }
}

/// Does something with each, so many at once; one answer for each.
pub(super) fn at_once<T: Sync, R: Send>(most: usize, all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<R>>> = all.iter().map(|_| Mutex::new(None)).collect();
    let turn = || {
        while let Some((one, slot)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            all.get(index).zip(done.get(index))
        } {
            let result = work(one);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..most.min(all.len()) {
            scope.spawn(turn);
        }
        turn();
    });
    done.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// Whether an object has these attributes already, as far as its store keeps them.
fn fits(entry: &Entry, meta: &Meta, step_ns: i64) -> bool {
    let step = step_ns.max(1);
    let is_same = |kept: Option<u32>, wanted| kept.is_none_or(|kept| kept == wanted);
    entry.found.mtime_ns.div_euclid(step) == meta.mtime_ns.div_euclid(step)
        && is_same(entry.mode, meta.mode)
        && is_same(entry.uid, meta.uid)
        && is_same(entry.gid, meta.gid)
}

impl<S: Store> Session for StoreSession<S> {
    fn list(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        listing::list(&*self.store, &self.spool, below, each)
    }

    fn look(&self, path: &RelPath) -> Result<Option<Found>> {
        if path.is_root() {
            return Ok(Some(a_dir()));
        }
        Ok(match self.store.look(path)? {
            Some(entry) => Some(entry.found),
            None => self.store.holds(path)?.then(a_dir),
        })
    }

    fn read(&self, path: &RelPath) -> Result<Box<dyn Read + Send>> {
        match self.store.abilities().read {
            true => self.store.read(path, &self.spool),
            false => Err(TargetError::Unable {
                place: self.store.place(),
                why: "it gives no content back, so nothing can be verified or restored from it".to_owned(),
            }),
        }
    }

    fn stage(&self, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<Staged> {
        let what = match content {
            Content::Symlink(to) => Spooled::Symlink(to.to_vec()),
            Content::File { bytes, size, .. } => self.spool.take(path, bytes, size, meta.mtime_ns)?,
            Content::Fifo | Content::Device { .. } => {
                let why = "a store of objects holds files and symbolic links, not pipes and devices".to_owned();
                return Err(TargetError::Refused { path: shown(path), why });
            }
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (meta.clone(), what));
        Ok(Staged { path: path.clone(), number })
    }

    fn discard(&self, staged: Staged) {
        self.taken(staged.number);
    }

    fn publish(&self, staged: Vec<Staged>, keep: Option<&RelPath>) -> Vec<Result<()>> {
        at_once(self.store.abilities().at_once, &staged, |one| self.publish_one(one, keep))
    }

    /// Nothing: a directory is there when something is in it.
    fn make_dir(&self, _: &RelPath) -> Result<()> {
        Ok(())
    }

    /// Nothing, if it has them: else the object has to be put again.
    fn set_meta(&self, path: &RelPath, kind: FileType, meta: &Meta) -> Result<()> {
        if !matches!(kind, FileType::File | FileType::Symlink) {
            return Ok(());
        }
        let entry = self.store.look(path)?.ok_or_else(|| not_there("set the attributes of", path))?;
        if kind == FileType::Symlink || fits(&entry, meta, self.store.abilities().mtime_step_ns) {
            return Ok(());
        }
        let why = "attributes are set only when an object is put".to_owned();
        Err(TargetError::Unable { place: self.store.place(), why })
    }

    fn link(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        if self.store.abilities().read { copy(&*self.store, &self.spool, from, to) } else { Err(unable(&*self.store)) }
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        moves::rename(&*self.store, &self.spool, &self.doubts, (from, to), &self.state)
    }

    fn remove(&self, path: &RelPath) -> Result<bool> {
        match self.look(path)? {
            None => {
                self.store.tidy(path);
                Ok(false)
            }
            Some(Found { kind: FileType::Dir, .. }) => {
                Err(TargetError::Refused { path: shown(path), why: "the directory is not empty".to_owned() })
            }
            Some(_) => self.store.delete(path).map(|()| true),
        }
    }

    fn can_set_aside(&self) -> Result<()> {
        let abilities = self.store.abilities();
        if abilities.rename || abilities.read { Ok(()) } else { Err(unable(&*self.store)) }
    }

    /// Nothing: what a store has acknowledged is durable.
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
