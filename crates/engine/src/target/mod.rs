//! Where copies are kept. A target knows nothing of originals, versions or the journal: it lists, takes, renames and gives up
//! objects by path.
//!
//! A [`Target`] is the place; a [`Session`] is the place at work, found to be the right one. Content is *staged*, in many threads
//! at once, and then *published*, many objects together: so that a local file system syncs once for all of them, and a store
//! may upload while others are read. What was staged and not published leaves nothing behind.

pub(crate) mod attributes;
mod cloud;
mod dirs;
mod exec;
mod http;
mod keys;
mod local;
mod mark;
mod process;
mod rclone;
mod s3;
mod secret;
mod ssh;
mod store;
mod stretches;
mod web;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod memory;
mod throttle;
mod url;

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;

pub use cloud::{
    AzureAccess, AzureCredentials, Cloud, CloudAccess, CloudPlace, CloudSource, GoogleAccess, GoogleCredentials,
    is_account,
};
pub use exec::{ExecCommand, ExecPatience};
pub use http::HttpPlace;
pub use local::LocalTarget;
pub use rclone::{RcloneAccess, RclonePlace};
pub use s3::{Credentials, S3Access, S3Place, S3Source, S3Target};
pub use secret::Secret;
pub use ssh::{BadAddress, FarDir, Places, SshAddress, SshOptions, SshTarget, Way, serve};
pub use throttle::{BadTimetable, Limit, MinuteOfWeek, Throttled, Timetable};
pub use url::{Access, TargetUrl, UrlError};
pub use web::Patience;

use crate::model::{FileType, Proof, RelPath};

/// The name of the mark at a target's top, by which it is told from another place.
pub const MARK: &[u8] = b".keepwatch-replica.json";
/// The name of the directory at a target's top where things are staged.
pub const STAGING: &[u8] = b".keepwatch-tmp";
/// The name of the directory at a target's top that holds what was deleted or overwritten.
pub const TRASH: &[u8] = b".keepwatch-trash";

/// Whether a path at a target is not a copy but Keepwatch's own.
#[must_use]
pub fn is_own(path: &RelPath) -> bool {
    path.components().next().is_some_and(|first| [MARK, STAGING, TRASH].contains(&first))
}

/// What a target can and cannot keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    /// Times are kept in steps of so many nanoseconds.
    pub mtime_step_ns: i64,
    /// The longest name of one component, in bytes.
    pub name_max: usize,
    /// Whether it holds directories, links and modes; a store of objects does not.
    pub is_filesystem: bool,
    /// Objects that are best published together.
    pub batch_max: usize,
    /// How far a file's copy is proved when it is published.
    pub proof: Proof,
}

/// Who owns a target, and whether it is the one that is expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The id of whom the target belongs to.
    pub owner: String,
    /// The id of the state that works on it now: several states may have one owner, and none touches what another stages.
    pub state: String,
    /// Its host's name, for people.
    pub host: String,
    /// The id that the target's mark must have; `None`: it was never used, and is marked now.
    pub identity: Option<String>,
}

/// Metadata that is kept as far as the target can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Nanoseconds since 1970 UTC.
    pub mtime_ns: i64,
    /// Extended attributes, with access control lists among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is put at a path.
pub enum Content<'a> {
    /// A file's bytes. Where `is_sparse`, runs of zeros may become holes.
    File {
        /// What to read, to its end.
        bytes: &'a mut dyn Read,
        /// How many bytes are expected.
        size: u64,
        /// Whether the original has holes.
        is_sparse: bool,
    },
    /// A symbolic link that points there.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A device, by its number.
    Device {
        /// Whether it is a block device.
        is_block: bool,
        /// `st_rdev`.
        number: u64,
    },
}

/// Something staged under a name of its own. It is published, or discarded.
#[derive(Debug, PartialEq, Eq)]
pub struct Staged {
    /// Where it will be.
    pub path: RelPath,
    /// Which, among those of its session.
    pub(crate) number: u64,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What kind.
    pub kind: FileType,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// As far as the target keeps it.
    pub mtime_ns: i64,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
}

/// What a file system says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it came to be, in nanoseconds since 1970 UTC, where that is kept.
    pub born_ns: Option<i64>,
}

/// Why a target did not do something.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is not there, or something else is there: nothing was written, and all of it is tried again.
    #[error("{place}: {why}")]
    Away {
        /// The target.
        place: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// It belongs to another Keepwatch.
    #[error("{place} belongs to another keepwatch (host `{host}`); if that one is gone for good, remove {mark} there")]
    Owned {
        /// The target.
        place: String,
        /// Whose it is.
        host: String,
        /// The mark's path.
        mark: String,
    },
    /// This object cannot be there; another try makes no difference.
    #[error("`{path}` cannot be kept there: {why}")]
    Refused {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// There is no room.
    #[error("no room is left for `{path}`")]
    Full {
        /// What did not fit.
        path: String,
    },
    /// The original could not be read while it was staged.
    #[error("cannot read the original of `{path}`: {source}")]
    Source {
        /// Which.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing of this kind can be done there: the caller finds another way.
    #[error("{place} cannot do this: {why}")]
    Unable {
        /// The target.
        place: String,
        /// What it cannot do, and what to do.
        why: String,
    },
    /// Anything else that the system says.
    #[error("cannot {doing} `{path}`: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// What a target's method returns.
pub type Result<T, E = TargetError> = std::result::Result<T, E>;

impl TargetError {
    /// Whether all of the target is concerned, not one object.
    #[must_use]
    pub fn is_of_the_place(&self) -> bool {
        matches!(self, TargetError::Away { .. } | TargetError::Owned { .. } | TargetError::Full { .. })
    }
}

/// A place that can hold copies.
pub trait Target: std::fmt::Debug + Send + Sync {
    /// What it can keep.
    fn nature(&self) -> Nature;
    /// Goes to work: looks whether it is the place that is meant, and marks it where it was never used. Returns the id in its
    /// mark too.
    ///
    /// # Errors
    /// [`TargetError::Away`] and [`TargetError::Owned`]; nothing was written then.
    fn open(&self, claim: &Claim) -> Result<(Box<dyn Session>, String)>;
    /// Looks whether it could be opened, and changes nothing. Returns the id in its mark, if it has one.
    ///
    /// # Errors
    /// As [`Target::open`].
    fn probe(&self, claim: &Claim) -> Result<Option<String>>;
    /// Makes the way there, as far as that takes time and touches nothing: whoever is to open it soon may call this while it
    /// waits for something else.
    ///
    /// # Errors
    /// [`TargetError::Away`].
    fn reach(&self) -> Result<()> {
        Ok(())
    }
    /// Tells of all objects below a directory, as [`Session::list`] does, whether it is anybody's target or not. Nothing is
    /// written.
    ///
    /// # Errors
    /// [`TargetError::Away`], and what [`Session::list`] ends in.
    fn survey(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()>;
}

/// A target at work. Every path is relative to its top.
pub trait Session: Send + Sync {
    /// Tells of all objects below a directory but Keepwatch's own, in the order of their paths' bytes, a directory's with a
    /// `/` at its end. A directory that does not exist holds nothing. What lies below one of Keepwatch's own directories is
    /// told of if just that is asked for.
    ///
    /// # Errors
    /// [`TargetError`], as for every method here.
    fn list(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()>;
    /// What stands at a path.
    ///
    /// # Errors
    /// [`TargetError`].
    fn look(&self, path: &RelPath) -> Result<Option<Found>>;
    /// A file's bytes.
    ///
    /// # Errors
    /// [`TargetError`].
    fn read(&self, path: &RelPath) -> Result<Box<dyn Read + Send>>;
    /// The metadata of what stands at a path, if the target can tell it.
    ///
    /// # Errors
    /// [`TargetError`].
    fn meta(&self, _path: &RelPath) -> Result<Option<Meta>> {
        Ok(None)
    }
    /// What the file system of a target on this machine says of an object besides; `None`: there is none.
    ///
    /// # Errors
    /// [`TargetError`].
    fn stat(&self, _path: &RelPath) -> Result<Option<Stated>> {
        Ok(None)
    }
    /// The directory of this machine in which it takes objects in, if there is one: nobody need hear of what is done there.
    fn staging(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Takes an object in under a temporary name, whole, with its metadata.
    ///
    /// # Errors
    /// [`TargetError`]; nothing is left of it then.
    fn stage(&self, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<Staged>;
    /// The same for a file that lies open at its beginning, if the kernel can copy it there without its being read here; and the bytes
    /// that it had. `None`: that cannot be, and nothing was read.
    ///
    /// # Errors
    /// [`TargetError`]; nothing is left of it then.
    fn stage_open(&self, _path: &RelPath, _meta: &Meta, _file: &File) -> Result<Option<(Staged, u64)>> {
        Ok(None)
    }
    /// Gives up what was staged.
    fn discard(&self, staged: Staged);
    /// Makes objects durable and puts each at its path, one answer for each. What stood there is replaced; if `keep` is a
    /// directory, it is kept below it. Missing directories above are made.
    fn publish(&self, staged: Vec<Staged>, keep: Option<&RelPath>) -> Vec<Result<()>>;
    /// Makes a directory, with those above it. One that is there already is fine.
    ///
    /// # Errors
    /// [`TargetError::Refused`] where something else is in the way.
    fn make_dir(&self, path: &RelPath) -> Result<()>;
    /// Sets metadata of what stands at a path.
    ///
    /// # Errors
    /// [`TargetError`].
    fn set_meta(&self, path: &RelPath, kind: FileType, meta: &Meta) -> Result<()>;
    /// Gives the file at `from` another name as well, in place of what stands at `to`.
    ///
    /// # Errors
    /// [`TargetError::Refused`] where the target knows no such names.
    fn link(&self, from: &RelPath, to: &RelPath) -> Result<()>;
    /// Renames, a directory with all it holds; missing directories above `to` are made. Nothing may stand at `to`.
    ///
    /// # Errors
    /// [`TargetError::Refused`] if something stands at `to`.
    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()>;
    /// Deletes a file, or a directory that is empty. `false`: it was not there.
    ///
    /// # Errors
    /// [`TargetError`]; of a directory that is not empty [`TargetError::Refused`].
    fn remove(&self, path: &RelPath) -> Result<bool>;
    /// Whether it can keep a trash: whether anything there can be moved, or fetched and put elsewhere.
    ///
    /// # Errors
    /// [`TargetError::Unable`].
    fn can_set_aside(&self) -> Result<()> {
        Ok(())
    }
    /// Makes renames and removals durable.
    ///
    /// # Errors
    /// [`TargetError`].
    fn sync(&self) -> Result<()>;
}

/// Moves what stands at a path into the trash of a day, under a name that is free there. `false`: it was not there.
///
/// # Errors
/// [`TargetError`].
pub fn set_aside(session: &dyn Session, path: &RelPath, trash: &RelPath) -> Result<bool> {
    if session.look(path)?.is_none() {
        return Ok(false);
    }
    let wanted = path.components().fold(trash.clone(), |at, name| at.join(name));
    for attempt in 1..=SAME_NAMES_MAX {
        let place = numbered_place(&wanted, attempt);
        if session.look(&place)?.is_some() {
            continue;
        }
        session.rename(path, &place)?;
        return Ok(true);
    }
    Err(TargetError::Refused { path: shown(path), why: "the trash holds too many of this name".to_owned() })
}

/// Things of one name that a day's trash holds.
const SAME_NAMES_MAX: u32 = 10_000;

/// Where in a day's trash the Nth thing of a name lies.
pub(crate) fn numbered_place(wanted: &RelPath, number: u32) -> RelPath {
    if number == 1 { wanted.clone() } else { numbered(wanted, number) }
}

/// A path with `~N` behind it.
fn numbered(path: &RelPath, number: u32) -> RelPath {
    let Some((above, name)) = path.split() else { return path.clone() };
    RelPath::new(above).unwrap_or_default().join(&numbered_name(name, number))
}

/// A name with `~N` behind it, cut so that it stays a name.
fn numbered_name(name: &[u8], number: u32) -> Vec<u8> {
    let end = format!("~{number}");
    let length = name.len().min(NUMBERED_NAME_MAX.saturating_sub(end.len()));
    [&name[..length], end.as_bytes()].concat()
}

/// The longest name that nearly every file system takes.
const NUMBERED_NAME_MAX: usize = 255;

/// A path for people.
pub(crate) fn shown(path: &RelPath) -> String {
    String::from_utf8_lossy(path.as_bytes()).escape_debug().to_string()
}
