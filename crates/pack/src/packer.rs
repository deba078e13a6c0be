//! What worker programs use: [`Packer`].

use std::fmt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{During, PackError};
use crate::files::{Files, RealFiles};
use crate::handle::Handle;
use crate::name::MemberName;
use crate::owner::Owner;
use crate::place;
use crate::staged::StagingFile;
use crate::zip::local::{Attributes, Content};

/// How often a member is written again because its staging file was taken away, before it gets a file of its own.
const TAKEN_MAX: u32 = 4;

/// How a [`Packer`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A staging file is closed, and so given to scavengers, when it is this old. Unless said otherwise: 5 minutes.
    pub rotation: Duration,
    /// And when it has this many bytes. Unless said otherwise: 1 GiB.
    pub rotation_bytes: u64,
    /// And when it has this many members, of each of which about 100 bytes are kept in memory. Unless said otherwise:
    /// 65 536.
    pub rotation_members: u64,
    /// When what was written is made durable.
    pub sync: Sync,
    /// How members are stored.
    pub method: Method,
    /// What becomes of a handle that is dropped without [`Handle::finish`].
    pub on_drop: OnDrop,
    /// Of a member that grows larger than this, in bytes, nothing is kept in memory. Unless said otherwise: 1 MiB.
    pub spill_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            rotation: Duration::from_secs(300),
            rotation_bytes: 1 << 30,
            rotation_members: 65_536,
            sync: Sync::Rotation,
            method: Method::Stored,
            on_drop: OnDrop::Discard,
            spill_bytes: 1 << 20,
        }
    }
}

/// When what was written is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// When a staging file is closed. A member whose `finish` returned survives the death of the process.
    Rotation,
    /// Before `finish` returns. It survives a power cut too.
    Each,
}

/// How members are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As they are.
    Stored,
    /// Deflated, at this level, 1 to 9; as they are where that is smaller.
    Deflated(u32),
}

/// What becomes of a handle that is dropped without [`Handle::finish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrop {
    /// What was written to it is thrown away.
    Discard,
    /// It is stored as if it had been finished; a failure to do so goes unheard.
    Store,
}

/// Packs files into archives below a base, beside any number of others that do so. Cheap to clone; threads can share one.
///
/// A process that forks can use it in both processes: the child begins staging files of its own.
#[derive(Clone)]
pub struct Packer {
    shared: Arc<Shared>,
}

/// What all clones and handles share.
pub(crate) struct Shared {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) options: Options,
    state: Mutex<State>,
}

/// What changes.
#[derive(Default)]
struct State {
    staging: Option<Aged>,
    /// The process that all of this belongs to; a fork has the same memory and is another one.
    pid: u32,
    /// Ends the thread that rotates, when it is dropped.
    ticker: Option<Sender<()>>,
    /// What the thread that rotates could not tell anybody yet.
    failed: Option<PackError>,
}

struct Aged {
    file: StagingFile,
    born: Instant,
    /// Whether its name is durable.
    is_named: bool,
}

impl Aged {
    fn sync_name(&mut self, files: &dyn Files) -> Result<(), PackError> {
        if !self.is_named {
            files.sync_dir(place::staging_dir()).during("sync", place::staging_dir())?;
            self.is_named = true;
        }
        Ok(())
    }
}

impl Packer {
    /// Begins to pack below a base, which must be there. Nothing is written before the first member.
    ///
    /// # Errors
    /// If the base is no directory, or the packer's own directory cannot be made there.
    pub fn open(base: &Path, options: Options) -> Result<Self, PackError> {
        let files = RealFiles::open(base).during("open the base", base)?;
        Self::open_on(Arc::new(files), options)
    }

    /// The same, on any files.
    ///
    /// # Errors
    /// As [`Packer::open`].
    pub fn open_on(files: Arc<dyn Files>, options: Options) -> Result<Self, PackError> {
        let dir = place::staging_dir();
        files.create_dir(dir).during("create", dir)?;
        Ok(Packer { shared: Arc::new(Shared { files, options, state: Mutex::default() }) })
    }

    /// Begins a member, as `logs.zip/run1/out.txt`: a file to write to, read from and seek in, that is stored by
    /// [`Handle::finish`].
    ///
    /// # Errors
    /// If the name is refused.
    pub fn create(&self, name: impl AsRef<[u8]>) -> Result<Handle, PackError> {
        Ok(Handle::new(Arc::clone(&self.shared), member_name(name.as_ref())?))
    }

    /// Takes a finished file over: packs it with its mode and time, durably, and then removes it. It stays where it is if
    /// any of that fails.
    ///
    /// # Errors
    /// If the name is refused; if there is no such file, it is none, or it changes meanwhile; if it cannot be packed, or
    /// not be removed afterwards.
    pub fn pickup(&self, source: &Path, name: impl AsRef<[u8]>) -> Result<(), PackError> {
        crate::pickup::pickup(&self.shared, source, &member_name(name.as_ref())?)
    }

    /// Closes the staging file, so that scavengers take it.
    ///
    /// # Errors
    /// If it cannot be made durable, now or at an earlier rotation.
    pub fn rotate(&self) -> Result<(), PackError> {
        self.shared.rotate()
    }

    /// The same as [`Packer::rotate`], at the end of work.
    ///
    /// # Errors
    /// As [`Packer::rotate`].
    pub fn close(self) -> Result<(), PackError> {
        self.shared.rotate()
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

fn member_name(name: &[u8]) -> Result<MemberName, PackError> {
    MemberName::parse(name).map_err(|source| PackError::Name { name: name.to_vec(), source })
}

impl Shared {
    /// Stores a member whose data is in memory.
    pub(crate) fn store(
        self: &Arc<Self>,
        name: &MemberName,
        content: &Content,
        attributes: &Attributes,
        data: &[u8],
        sync: Sync,
    ) -> Result<(), PackError> {
        let mut state = self.state();
        state.hear_failure()?;
        for _ in 0..TAKEN_MAX {
            let aged = self.staging(&mut state)?;
            let file = &mut aged.file;
            file.append(name, content, attributes, data)?;
            if sync == Sync::Each
                && let Err(error) = file.sync().and_then(|()| aged.sync_name(&*self.files))
            {
                // Nothing that is written to it from now on could be trusted.
                let _ = state.close(&*self.files);
                return Err(error);
            }
            if aged.file.is_in_place(&*self.files) {
                let Options { rotation_bytes, rotation_members, .. } = self.options;
                let is_full = aged.file.bytes() >= rotation_bytes || aged.file.members() >= rotation_members;
                return if is_full || state.age() >= self.options.rotation {
                    state.close(&*self.files)
                } else {
                    Ok(())
                };
            }
            // A scavenger took it, and perhaps before this member was in it.
            state.staging = None;
        }
        self.store_alone(name, content, attributes, data)
    }

    /// Stores a member in a file that scavengers may take when it is complete, not before: however much faster than
    /// this process they are, it is done.
    fn store_alone(
        &self,
        name: &MemberName,
        content: &Content,
        attributes: &Attributes,
        data: &[u8],
    ) -> Result<(), PackError> {
        let files = &*self.files;
        let mut alone = StagingFile::create(files, Owner::of_process(), "spill")?;
        let stored = alone.append(name, content, attributes, data).and_then(|()| alone.close(files));
        if stored.is_err() {
            alone.discard(files);
        }
        stored
    }

    /// The staging file at hand, or a new one.
    fn staging<'a>(self: &Arc<Self>, state: &'a mut State) -> Result<&'a mut Aged, PackError> {
        if state.staging.is_none() {
            let file = StagingFile::create(&*self.files, Owner::of_process(), "open")?;
            state.staging = Some(Aged { file, born: Instant::now(), is_named: false });
            self.tick(state);
        }
        match &mut state.staging {
            Some(aged) => Ok(aged),
            None => unreachable!("it was made just now"),
        }
    }

    /// Starts the thread that rotates when nobody writes.
    fn tick(self: &Arc<Self>, state: &mut State) {
        if state.ticker.is_some() {
            return;
        }
        let (ticker, ended) = mpsc::channel::<()>();
        let (shared, rotation) = (Arc::downgrade(self), self.options.rotation);
        let thread = thread::Builder::new().name("pack-rotation".to_owned()).spawn(move || {
            let mut wait = rotation;
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
                let Some(left) = Weak::upgrade(&shared).map(|shared| shared.rotate_if_due()) else { return };
                wait = left;
            }
        });
        // Without it a file is rotated by the next member, or at the end.
        state.ticker = thread.is_ok().then_some(ticker);
    }

    /// Rotates a file that is old enough; how long to wait until the next one can be.
    fn rotate_if_due(&self) -> Duration {
        let mut state = self.state();
        let left = match &state.staging {
            Some(_) => self.options.rotation.saturating_sub(state.age()),
            None => self.options.rotation,
        };
        if !left.is_zero() {
            return left;
        }
        if let Err(error) = state.close(&*self.files) {
            state.failed = Some(error);
        }
        self.options.rotation
    }

    fn rotate(&self) -> Result<(), PackError> {
        let mut state = self.state();
        let closed = state.close(&*self.files);
        state.hear_failure().and(closed)
    }

    /// The state, as this process has it.
    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic elsewhere left behind is whole: every step of a member is one call.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.pid != std::process::id() {
            // The staging file, and the thread, are the parent's.
            *state = State { pid: std::process::id(), ..State::default() };
        }
        state
    }
}

impl State {
    fn age(&self) -> Duration {
        self.staging.as_ref().map_or(Duration::ZERO, |aged| aged.born.elapsed())
    }

    fn close(&mut self, files: &dyn Files) -> Result<(), PackError> {
        let Some(mut aged) = self.staging.take() else { return Ok(()) };
        let closed = aged.file.close(files);
        if closed.is_err() && aged.file.is_in_place(files) {
            // Nobody else may take it while this process lives: it is closed another time.
            self.staging = Some(aged);
        }
        closed
    }

    fn hear_failure(&mut self) -> Result<(), PackError> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whoever wants to know how it went calls `close`.
        let _ = self.rotate();
    }
}
