//! Where the packer keeps what below a base.
//!
//! ```text
//! BASE/DIR/AR.zip, AR-1.zip, …           the parts of an archive, and beside them the index of each large one
//! BASE/.keepwatch-pack/OWNER.open         a staging file that a worker appends to
//! BASE/.keepwatch-pack/OWNER.closed       one that is complete
//! BASE/.keepwatch-pack/OWNER.spill        one large member that is still being written
//! within that: work/OWNER/…                what a scavenger has claimed, and what it builds
//! BASE/.keepwatch-pack/new/…              parts that are complete and not under their names yet
//! BASE/.keepwatch-pack/archives/DIR/AR.zip/N   which parts an archive has, by generation
//! BASE/.keepwatch-pack/quarantine/…       what could not be read, each with a reason beside it
//! ```

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::name::{ArchiveName, STAGING_DIR};
use crate::owner::Owner;
use crate::part::PartId;

/// A file within the packer's own directory.
pub(crate) fn own(name: &str) -> PathBuf {
    Path::new(STAGING_DIR).join(name)
}

/// The packer's own directory.
pub(crate) fn staging_dir() -> &'static Path {
    Path::new(STAGING_DIR)
}

/// The directory of each scavenger.
pub(crate) fn work_dir() -> PathBuf {
    own("work")
}

/// Parts on their way to their names.
pub(crate) fn new_dir() -> PathBuf {
    own("new")
}

/// The directories of generations.
pub(crate) fn archives_dir() -> PathBuf {
    own("archives")
}

/// What could not be read.
pub(crate) fn quarantine_dir() -> PathBuf {
    own("quarantine")
}

/// The generations of an archive.
pub(crate) fn generations_dir(archive: &ArchiveName) -> PathBuf {
    archives_dir().join(archive.path())
}

/// A part that is not under its name yet.
pub(crate) fn new_part(id: PartId) -> PathBuf {
    new_dir().join(format!("{id}.zip"))
}

/// What a file in the staging directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Staging {
    /// Complete: anybody may claim it.
    Closed,
    /// Somebody appends to it. Who, if its name tells.
    Open(Option<Owner>),
    /// Somebody writes one large member.
    Spill(Option<Owner>),
    /// A directory of the packer's own.
    Own,
    /// Not the packer's.
    Stray,
}

/// What a name in the staging directory stands for.
pub(crate) fn staging_kind(name: &OsStr) -> Staging {
    let bytes = name.as_bytes();
    let owner = |stem: &[u8]| std::str::from_utf8(stem).ok().and_then(Owner::parse);
    if let Some(stem) = bytes.strip_suffix(b".open") {
        return Staging::Open(owner(stem));
    }
    if let Some(stem) = bytes.strip_suffix(b".spill") {
        return Staging::Spill(owner(stem));
    }
    match bytes {
        _ if bytes.ends_with(b".closed") => Staging::Closed,
        b"work" | b"new" | b"archives" | b"quarantine" => Staging::Own,
        _ => Staging::Stray,
    }
}

/// The owner that the name of a staging file tells, whatever it ends in.
pub(crate) fn owner_of(name: &OsStr) -> Option<Owner> {
    let text = std::str::from_utf8(name.as_bytes()).ok()?;
    Owner::parse(text.rsplit_once('.')?.0)
}
