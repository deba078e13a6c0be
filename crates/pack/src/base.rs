//! Looking at a base: what is packed and what is staged, for those who read. Changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::{self, Archive, content};
use crate::error::{During, PackError};
use crate::files::{Files, Kind, RealFiles, if_there};
use crate::index::Found;
use crate::name::ArchiveName;
use crate::place::{self, Staging, staging_kind};
use crate::scan::{Look, StagedMember, scan};
use crate::zip::central;

/// How deep directories of archives are looked into.
const DEPTH_MAX: usize = 64;

/// A base, for reading. Workers and scavengers may go on meanwhile.
pub struct Base {
    pub(crate) files: Arc<dyn Files>,
}

/// A member, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What it is called in its archive.
    pub name: Vec<u8>,
    /// The length of its content, in bytes.
    pub size: u64,
    /// The bytes that it takes up.
    pub packed: u64,
    /// CRC-32 of the content.
    pub crc: u32,
    /// Permissions, where they are known.
    pub mode: Option<u32>,
    /// In seconds since 1970.
    pub mtime_secs: i64,
    /// The part that it is in; `None` while it is staged.
    pub part: Option<PathBuf>,
}

impl Base {
    /// Opens a base, which must be there.
    ///
    /// # Errors
    /// If it is no directory.
    pub fn open(base: &Path) -> Result<Self, PackError> {
        let files = RealFiles::open(base).during("open the base", base)?;
        Ok(Base { files: Arc::new(files) })
    }

    /// The archives that were packed here, and those that something is staged for.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn archives(&self) -> Result<BTreeSet<ArchiveName>, PackError> {
        let mut found = BTreeSet::new();
        self.each_staged(Look::Headers, &mut |_, member| {
            found.insert(member.name.archive());
            Ok(())
        })?;
        found.extend(self.packed_archives()?);
        Ok(found)
    }

    /// The archives that were packed here.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn packed_archives(&self) -> Result<Vec<ArchiveName>, PackError> {
        let mut found = Vec::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(dir) = pending.pop() {
            let own = place::archives_dir().join(&dir);
            for name in if_there(self.files.list(&own)).during("read", &own)?.unwrap_or_default() {
                let path = dir.join(name);
                match ArchiveName::parse(path.as_os_str().as_encoded_bytes()) {
                    Ok(archive) => found.push(archive),
                    Err(_) if path.components().count() < DEPTH_MAX => pending.push(path),
                    Err(_) => {}
                }
            }
        }
        Ok(found)
    }

    /// Hands each member of an archive to `take`: what is packed, then what is staged and not packed yet. Whether there is
    /// such an archive.
    ///
    /// # Errors
    /// If something cannot be read, or what `take` ends in.
    pub fn list(
        &self,
        archive: &ArchiveName,
        take: &mut dyn FnMut(&Listed) -> io::Result<()>,
    ) -> Result<bool, PackError> {
        // What is staged is looked at first: on its way to the archive it is seen twice rather than never.
        let mut staged: Vec<Listed> = Vec::new();
        self.each_staged(Look::Headers, &mut |_, member| {
            if member.name.archive() == *archive {
                staged.push(listed(member));
            }
            Ok(())
        })?;
        let mut waiting: HashMap<(Vec<u8>, u32, u64), usize> = HashMap::new();
        for (at, member) in staged.iter().enumerate() {
            waiting.insert((member.name.clone(), member.crc, member.size), at);
        }
        let opened = Archive::open(&*self.files, archive)?;
        for part in &opened.parts {
            let mut failed = None;
            central::each(&*part.file, &part.end, &mut |entry| {
                waiting.remove(&(entry.name.to_vec(), entry.content.crc, entry.content.size));
                let member = Listed {
                    name: entry.name.to_vec(),
                    size: entry.content.size,
                    packed: entry.content.packed,
                    crc: entry.content.crc,
                    mode: entry.mode(),
                    mtime_secs: entry.mtime_secs(),
                    part: Some(part.path.clone()),
                };
                take(&member).map_err(|error| {
                    failed = Some(error);
                    central::Unreadable::Directory
                })
            })
            .map_err(|error| match failed.take() {
                Some(source) => PackError::Io { doing: "list", path: part.path.clone(), source },
                None => part.damaged(error),
            })?;
        }
        let mut left: Vec<usize> = waiting.into_values().collect();
        left.sort_unstable();
        for at in &left {
            take(&staged[*at]).during("list", archive.path())?;
        }
        Ok(!staged.is_empty() || archive::is_there(&*self.files, archive)?)
    }

    /// Hands the content of a member to `out`, from where it is packed or from where it is still staged.
    ///
    /// # Errors
    /// [`PackError::Absent`] if there is no such member; if it cannot be read or is damaged; what `out` ends in.
    pub fn read(
        &self,
        archive: &ArchiveName,
        member: &[u8],
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), PackError> {
        // It may be packed between the two looks.
        for _ in 0..2 {
            if self.read_packed(archive, member, out)? || self.read_staged(archive, member, out)? {
                return Ok(());
            }
        }
        Err(PackError::Absent(format!("{archive}/{}", crate::name::escape(member))))
    }

    fn read_packed(
        &self,
        archive: &ArchiveName,
        member: &[u8],
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<bool, PackError> {
        let mut opened = Archive::open(&*self.files, archive)?;
        let Some((part, found)) = opened.find(&*self.files, member)? else { return Ok(false) };
        let part = &opened.parts[part];
        content(&*part.file, &part.path, &found, out)?;
        Ok(true)
    }

    fn read_staged(
        &self,
        archive: &ArchiveName,
        member: &[u8],
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<bool, PackError> {
        let mut place = None;
        self.each_staged(Look::Headers, &mut |path, staged| {
            if place.is_none() && staged.name.member() == member && staged.name.archive() == *archive {
                let file = if_there(self.files.open(path)).during("open", path)?;
                place = file.map(|file| (file, path.to_owned(), staged.clone()));
            }
            Ok(())
        })?;
        let Some((file, path, staged)) = place else { return Ok(false) };
        let found = Found { content: staged.content, flags: 0, data_at: staged.data_at };
        content(&*file, &path, &found, out)?;
        Ok(true)
    }

    /// Hands each staged member to `take`, with the file that it is in.
    pub(crate) fn each_staged(
        &self,
        look: Look,
        take: &mut dyn FnMut(&Path, &StagedMember) -> Result<(), PackError>,
    ) -> Result<(), PackError> {
        for path in self.staged_files()? {
            let Some(file) = if_there(self.files.open(&path)).during("open", &path)? else { continue };
            let salt = path.file_name().and_then(place::owner_of).map(|owner| owner.salt());
            let found = scan(&*file, salt, look).during("read", &path)?;
            for member in &found.members {
                take(&path, member)?;
            }
        }
        Ok(())
    }

    /// The staging files that members can be in, claimed or not, in the order in which they were begun.
    fn staged_files(&self) -> Result<Vec<PathBuf>, PackError> {
        let files = &*self.files;
        let holds = |name: &OsStr| matches!(staging_kind(name), Staging::Closed | Staging::Open(_));
        let list = |dir: &Path| -> Result<Vec<PathBuf>, PackError> {
            let names = if_there(files.list(dir)).during("read", dir)?.unwrap_or_default();
            Ok(names.into_iter().map(|name| dir.join(name)).collect())
        };
        let mut found = list(place::staging_dir())?;
        // A file that is claimed between the looks is seen twice rather than never.
        for dir in list(&place::work_dir())? {
            found.extend(list(&dir)?);
        }
        found.retain(|path| path.file_name().is_some_and(holds));
        found.retain(|path| files.stat(path).is_ok_and(|facts| facts.kind == Kind::File));
        found.sort_by_cached_key(|path| {
            let owner = path.file_name().and_then(place::owner_of);
            (owner.map(|owner| owner.uuid), path.clone())
        });
        Ok(found)
    }
}

fn listed(member: &StagedMember) -> Listed {
    Listed {
        name: member.name.member().to_vec(),
        size: member.content.size,
        packed: member.content.packed,
        crc: member.content.crc,
        mode: Some(member.attributes.mode),
        mtime_secs: member.attributes.mtime_secs,
        part: None,
    }
}
