//! What can go wrong, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::name::{NameError, escape};

/// An operation of the packer failed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The name cannot be a member's.
    #[error("cannot pack as `{}`: {source}", escape(name))]
    Name {
        /// As it was given.
        name: Vec<u8>,
        /// What is wrong with it.
        source: NameError,
    },
    /// A file or directory could not be used.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what; below the base unless it is absolute.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What should be picked up is no regular file.
    #[error("cannot pick up {}: it is not a regular file; pack a directory file by file", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// What should be picked up was changed meanwhile. It is where it was.
    #[error("cannot pick up {}: it was changed while it was read; pick it up when its writer is done", path.display())]
    Changed {
        /// What was given.
        path: PathBuf,
    },
    /// A file that the packer itself keeps is not as it should be.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Below the base.
        path: PathBuf,
        /// In words.
        what: String,
    },
    /// Others were faster, more often than can be.
    #[error("cannot update `{archive}`: others updated it {tries} times meanwhile; what is staged is kept, try again")]
    Contended {
        /// The archive.
        archive: String,
        /// How often it was tried.
        tries: u32,
    },
    /// Others took a scavenger for dead and took over what it had claimed.
    #[error(
        "others took this round over, because nothing was heard of it for {} s; what is staged is kept; if it happens often, \
        collect with a longer --stale-after", stale_after.as_secs_f64()
    )]
    TakenOver {
        /// For how long it may be silent.
        stale_after: Duration,
    },
    /// There is no such archive or member.
    #[error("there is no `{0}`, neither packed nor staged")]
    Absent(String),
}

/// Puts verb and path to an [`io::Error`].
pub(crate) trait During<T> {
    fn during(self, doing: &'static str, path: &Path) -> Result<T, PackError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, doing: &'static str, path: &Path) -> Result<T, PackError> {
        self.map_err(|source| PackError::Io { doing, path: path.to_owned(), source })
    }
}

impl PackError {
    /// What the system said, if it was the system that refused.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            PackError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
