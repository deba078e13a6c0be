//! A directory of this machine as a target.
//!
//! All is done by the descriptor of the directory that was found to be the right one, so that a mount that goes away meanwhile
//! leads to errors and never to files in the bare mount point. No link on the way is followed.

mod mark;
mod meta;
mod session;
mod stage;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Claim, Found, Nature, Result, Session, Target, TargetError};
use crate::model::{Proof, RelPath};

/// The longest name that Linux has.
const NAME_MAX: usize = 255;
/// Objects that share one sync.
const BATCH_MAX: usize = 8192;

/// A directory of this machine.
#[derive(Clone, Debug)]
pub struct LocalTarget {
    top: PathBuf,
}

impl LocalTarget {
    /// The directory at this absolute path.
    #[must_use]
    pub fn new(top: &Path) -> Self {
        LocalTarget { top: top.to_owned() }
    }

    /// Goes to work without a mark, in a directory that is no target: to put things there for good. What this is called by
    /// keeps what is staged apart.
    ///
    /// # Errors
    /// [`TargetError::Away`].
    pub fn plain(&self, by: &str) -> Result<Box<dyn Session>> {
        Ok(Box::new(session::LocalSession::begin(self, self.open_top()?, by)?))
    }

    fn away(&self, why: impl Into<String>) -> TargetError {
        TargetError::Away { place: self.top.display().to_string(), why: why.into() }
    }

    fn open_top(&self) -> Result<std::os::fd::OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.top, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOENT => self.away("there is no such directory; make it, or mount what belongs there"),
            Errno::NOTDIR => self.away("it is not a directory"),
            error => self.away(format!("it cannot be opened: {error}")),
        })
    }
}

impl Target for LocalTarget {
    fn nature(&self) -> Nature {
        Nature {
            mtime_step_ns: 1,
            name_max: NAME_MAX,
            is_filesystem: true,
            batch_max: BATCH_MAX,
            proof: Proof::Written,
        }
    }

    fn open(&self, claim: &Claim) -> Result<(Box<dyn Session>, String)> {
        let top = self.open_top()?;
        let identity = match mark::check(self, &top, claim)? {
            Some(identity) => identity,
            None => mark::make(self, &top, claim)?,
        };
        Ok((Box::new(session::LocalSession::begin(self, top, &claim.state)?), identity))
    }

    fn probe(&self, claim: &Claim) -> Result<Option<String>> {
        mark::check(self, &self.open_top()?, claim)
    }

    fn survey(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        session::list_below(&self.open_top()?, below, each)
    }
}
