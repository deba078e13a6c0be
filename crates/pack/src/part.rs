//! A part of an archive: a zip file that is never changed once it has its name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::digest::digest64;
use crate::error::{During, PackError};
use crate::files::{File, Files, if_there, read_exact_at};
use crate::index::Lookup;
use crate::name::{ArchiveName, escape};
use crate::place;
use crate::zip::central::{self, End, Unreadable};

/// How much of its end a part is known by, in bytes.
const TAIL_BYTES: u64 = 4096;
/// What the comment of every part begins with.
const COMMENT: &str = "keepwatch-pack ";

/// What a part is known by: its length, and the digest of its last 4096 bytes. These hold the end of the list of members
/// and the comment, in which every part of ours has a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PartId {
    pub(crate) size: u64,
    pub(crate) tail: u64,
}

impl PartId {
    /// Of a file that is there.
    pub(crate) fn of(file: &dyn File) -> std::io::Result<Self> {
        let size = file.facts()?.size;
        let len = size.min(TAIL_BYTES);
        let mut tail = vec![0; usize::try_from(len).unwrap_or(0)];
        read_exact_at(file, &mut tail, size - len)?;
        Ok(PartId { size, tail: digest64(&tail) })
    }
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.tail, self.size)
    }
}

impl FromStr for PartId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (tail, size) = text.split_once('-').ok_or(())?;
        let tail = u64::from_str_radix(tail, 16).map_err(|_| ())?;
        Ok(PartId { tail, size: size.parse().map_err(|_| ())? })
    }
}

/// The comment of a part: which it is, and of which archive.
pub(crate) fn comment(archive: &ArchiveName, uuid: uuid::Uuid) -> Vec<u8> {
    let name = archive.path().file_name().unwrap_or_default();
    format!("{COMMENT}{uuid} of {}", escape(name.as_encoded_bytes())).into_bytes()
}

/// A part that is open for reading.
pub(crate) struct Part {
    /// Its number within the archive.
    pub(crate) number: u32,
    pub(crate) id: PartId,
    pub(crate) file: Box<dyn File>,
    pub(crate) end: End,
    /// Where it was opened.
    pub(crate) path: PathBuf,
    lookup: Option<Lookup>,
}

impl Part {
    /// Opens a zip file as a part.
    pub(crate) fn open(files: &dyn Files, path: &Path, number: u32) -> Result<Self, OpenError> {
        let file = files.open(path).map_err(|error| OpenError::Unreadable(error.into()))?;
        Self::of_file(file, path, number).map_err(OpenError::Unreadable)
    }

    fn of_file(file: Box<dyn File>, path: &Path, number: u32) -> Result<Self, Unreadable> {
        let id = PartId::of(&*file)?;
        let end = central::find_end(&*file, id.size)?;
        Ok(Part { number, id, file, end, path: path.to_owned(), lookup: None })
    }

    /// Finds a part that an archive is said to have: under its name, or on its way there.
    pub(crate) fn find(
        files: &dyn Files,
        archive: &ArchiveName,
        number: u32,
        id: PartId,
    ) -> Result<Option<Self>, PackError> {
        let (placed, waiting) = (archive.part_path(number), place::new_part(id));
        // It goes from the one to the other, never back: whoever finds it at neither looks once more where it has gone,
        // for a part that is overlooked is one whose members are packed a second time.
        for path in [placed.clone(), waiting, placed] {
            let opened = match files.open(&path) {
                Ok(file) => file,
                Err(error) if crate::files::is_absent(&error) => continue,
                // A directory or link in its place is somebody else's.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => continue,
                Err(error) => return Err(error).during("open", &path),
            };
            if PartId::of(&*opened).during("read", &path)? != id {
                continue;
            }
            return match Self::of_file(opened, &path, number) {
                Ok(part) => Ok(Some(part)),
                Err(Unreadable::Io(error)) => Err(error).during("read", &path),
                Err(error) => Err(PackError::Damaged { path, what: error.to_string() }),
            };
        }
        Ok(None)
    }

    /// Where members called this begin: their local headers, checked against the name.
    pub(crate) fn lookup(&mut self, files: &dyn Files, archive: &ArchiveName) -> Result<&mut Lookup, PackError> {
        if self.lookup.is_none() {
            self.lookup = Some(Lookup::open(files, archive, self)?);
        }
        match &mut self.lookup {
            Some(lookup) => Ok(lookup),
            None => unreachable!("it was opened just now"),
        }
    }

    /// An error about this part.
    pub(crate) fn damaged(&self, error: Unreadable) -> PackError {
        match error {
            Unreadable::Io(source) => PackError::Io { doing: "read", path: self.path.clone(), source },
            other => PackError::Damaged { path: self.path.clone(), what: other.to_string() },
        }
    }
}

/// Why a file is no part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{0}")]
    Unreadable(Unreadable),
}

impl OpenError {
    /// Whether there is nothing at all.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, OpenError::Unreadable(Unreadable::Io(error)) if crate::files::is_absent(error))
    }
}

/// What is known of a file that may be a part.
pub(crate) fn id_at(files: &dyn Files, path: &Path) -> Result<Option<PartId>, PackError> {
    let file = match files.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return Ok(None),
        other => if_there(other).during("open", path)?,
    };
    file.map(|file| PartId::of(&*file).during("read", path)).transpose()
}

/// Whether a comment says that a file is a part of another archive.
pub(crate) fn is_of_another(end: &End, archive: &ArchiveName) -> bool {
    let own = escape(archive.path().file_name().unwrap_or_default().as_encoded_bytes());
    let Ok(text) = std::str::from_utf8(&end.comment) else { return false };
    text.strip_prefix(COMMENT).and_then(|rest| rest.split_once(" of ")).is_some_and(|(_, name)| name != own)
}
