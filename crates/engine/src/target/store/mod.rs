//! What stores of objects have in common that know little: how they become targets.
//!
//! A [`Store`] lists, takes, gives back, renames and deletes single objects, as far as it can. The mark, the trash, renames of
//! directories, the order of a listing and content that waits to be published are made of that here, once for all of them.

mod doubts;
pub(super) mod item;
mod listing;
mod mark;
mod moves;
pub(super) mod names;
mod objects;
mod session;
mod sort;
mod spool;

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Claim, Found, Meta, Nature, Result, Session, Target, TargetError, shown};
use crate::model::{Proof, RelPath};
use doubts::Doubts;
pub(super) use spool::{Spool, SpoolFile, Spooled};

/// Objects that are published together.
const BATCH_MAX: usize = 1024;

/// What a store can do besides listing, taking and deleting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    /// It gives content back.
    pub(super) read: bool,
    /// It renames objects by itself.
    pub(super) rename: bool,
    /// It lists in the order of the paths' bytes.
    pub(super) is_sorted: bool,
    /// How far a copy is proved once it was taken.
    pub(super) proof: Proof,
    /// As [`Nature`] has it.
    pub(super) mtime_step_ns: i64,
    /// As [`Nature`] has it.
    pub(super) name_max: usize,
    /// Requests that it takes at once.
    pub(super) at_once: usize,
}

/// What a store tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// A file or a symbolic link.
    pub(super) found: Found,
    /// Permission bits, owner and group, where it keeps them.
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// An object that a store tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) path: RelPath,
    pub(super) entry: Entry,
}

/// Who is told of objects.
pub(super) type Told<'t> = dyn FnMut(Item) -> ControlFlow<()> + 't;

/// A store at work. Many threads use it.
pub(super) trait Store: Send + Sync {
    /// For people.
    fn place(&self) -> String;
    fn abilities(&self) -> Abilities;
    /// Whether nothing more can be had from it: it is made anew then.
    fn is_lost(&self) -> bool;
    /// Tells of all objects below a directory. What is not below it may come too, and is not heard.
    fn list(&self, below: &RelPath, told: &mut Told<'_>) -> Result<()>;
    /// The object at a path.
    fn look(&self, path: &RelPath) -> Result<Option<Entry>>;
    /// Whether any object lies below a directory.
    fn holds(&self, dir: &RelPath) -> Result<bool>;
    /// Takes an object in, whole or not at all, in place of what stands there.
    fn put(&self, path: &RelPath, meta: &Meta, what: &Spooled) -> Result<()>;
    /// An object's content.
    fn read(&self, path: &RelPath, spool: &Spool) -> Result<Box<dyn Read + Send>>;
    /// Renames an object; nothing stands at `to`.
    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()>;
    /// Deletes an object. One that is not there is fine.
    fn delete(&self, path: &RelPath) -> Result<()>;
    /// Takes a directory away that holds nothing, where the store has such things.
    fn tidy(&self, _dir: &RelPath) {}
}

/// How a store is reached.
pub(super) trait Connect: std::fmt::Debug + Send + Sync {
    type Store: Store + 'static;
    /// For people.
    fn place(&self) -> String;
    /// What it can do, as far as that is known before it was reached.
    fn expected(&self) -> Abilities;
    /// Goes there. `spool` is where content waits.
    fn connect(&self, spool: &Arc<Spool>) -> Result<Self::Store>;
}

/// A store as a target.
pub(super) struct StoreTarget<C: Connect> {
    connect: C,
    spool: Arc<Spool>,
    doubts: Arc<Doubts>,
    state: Mutex<State<C::Store>>,
}

struct State<S> {
    store: Option<Arc<S>>,
    known: Option<Abilities>,
    /// Nothing was done by it yet.
    is_fresh: bool,
}

impl<C: Connect> std::fmt::Debug for StoreTarget<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoreTarget").field(&self.connect).finish()
    }
}

impl<C: Connect> StoreTarget<C> {
    /// A store whose content waits in a directory of its own below `spool`. Nothing is done yet.
    pub(super) fn new(connect: C, spool: &Path) -> Self {
        let spool = Arc::new(Spool::new(spool, &connect.place()));
        let state = State { store: None, known: None, is_fresh: false };
        StoreTarget { connect, spool, doubts: Arc::default(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State<C::Store>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store at work, or one that is made now.
    fn store(&self) -> Result<Arc<C::Store>> {
        let mut state = self.state();
        if let Some(store) = state.store.as_ref().filter(|store| !store.is_lost()) {
            return Ok(Arc::clone(store));
        }
        state.store = None;
        let store = Arc::new(self.connect.connect(&self.spool)?);
        state.known = Some(store.abilities());
        state.is_fresh = true;
        Ok(Arc::clone(state.store.insert(store)))
    }

    /// Does something with the store. One that could not be reached is made anew the next time.
    fn with<T>(&self, work: impl FnOnce(&Arc<C::Store>) -> Result<T>) -> Result<T> {
        let store = self.store()?;
        let result = work(&store);
        if matches!(result, Err(TargetError::Away { .. })) {
            self.state().store = None;
        }
        result
    }
}

impl<C: Connect> Target for StoreTarget<C> {
    fn nature(&self) -> Nature {
        let known = self.state().known;
        let abilities = known.unwrap_or_else(|| self.connect.expected());
        Nature {
            mtime_step_ns: abilities.mtime_step_ns,
            name_max: abilities.name_max,
            is_filesystem: false,
            batch_max: BATCH_MAX,
            proof: abilities.proof,
        }
    }

    fn open(&self, claim: &Claim) -> Result<(Box<dyn Session>, String)> {
        self.with(|store| {
            let identity = match mark::check(&**store, &self.spool, claim)? {
                Some(identity) => identity,
                None => mark::make(&**store, &self.spool, claim)?,
            };
            if self.state().is_fresh || self.doubts.are_any() {
                self.doubts.settle(&**store, &self.spool, &claim.state)?;
                self.state().is_fresh = false;
            }
            let (store, spool, doubts) = (Arc::clone(store), Arc::clone(&self.spool), Arc::clone(&self.doubts));
            let session = session::StoreSession::new(store, spool, doubts, &claim.state);
            Ok((Box::new(session) as Box<dyn Session>, identity))
        })
    }

    fn probe(&self, claim: &Claim) -> Result<Option<String>> {
        self.with(|store| mark::check(&**store, &self.spool, claim))
    }

    fn survey(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        self.with(|store| listing::list(&**store, &self.spool, below, each))
    }
}

/// That a path holds nothing.
pub(super) fn not_there(doing: &'static str, path: &RelPath) -> TargetError {
    let source = io::Error::new(io::ErrorKind::NotFound, "there is no such object");
    TargetError::Io { doing, path: shown(path), source }
}

fn away(store: &dyn Store, why: impl Into<String>) -> TargetError {
    TargetError::Away { place: store.place(), why: why.into() }
}
