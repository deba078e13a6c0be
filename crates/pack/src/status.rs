//! What is going on below a base, and what needs a person.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::base::Base;
use crate::error::{During, PackError};
use crate::files::if_there;
use crate::generation::read_small;
use crate::name::ArchiveName;
use crate::owner::Owner;
use crate::place::{self, Staging, staging_kind};

/// Files, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub files: u64,
    /// In all.
    pub bytes: u64,
}

/// What is going on below a base.
#[derive(Debug, Default)]
pub struct Status {
    /// Staging files that wait for a scavenger.
    pub closed: Count,
    /// Staging files that somebody may be writing to.
    pub open: Count,
    /// Staging files whose writers are proved dead: the next scavenger takes them.
    pub dead: Count,
    /// Staging files that a scavenger has.
    pub claimed: Count,
    /// Large members that are being written.
    pub unfinished: Count,
    /// When the oldest of all these last changed, in nanoseconds since 1970, by the file system's clock.
    pub oldest_ns: Option<i128>,
    /// What could not be read: its name in the quarantine, and the reason.
    pub quarantined: Vec<(String, String)>,
    /// What is in the staging directory and not the packer's.
    pub strays: Vec<String>,
    /// The archives.
    pub archives: Vec<ArchiveStatus>,
}

/// How an archive is.
#[derive(Debug)]
pub struct ArchiveStatus {
    /// Which one.
    pub name: ArchiveName,
    /// How often it was written.
    pub generation: u64,
    /// Its files, in order.
    pub parts: Vec<PartStatus>,
    /// Files that it had and that are gone.
    pub missing: Vec<PathBuf>,
    /// Files that have the name of a part and are none, and why.
    pub strange: Vec<(PathBuf, String)>,
    /// Why it cannot be read at all.
    pub error: Option<String>,
}

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartStatus {
    /// Below the base.
    pub path: PathBuf,
    /// How many there are.
    pub members: u64,
    /// Its length.
    pub bytes: u64,
}

impl Status {
    /// Whether something needs a person.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        let is_odd = |archive: &ArchiveStatus| {
            !archive.missing.is_empty() || !archive.strange.is_empty() || archive.error.is_some()
        };
        !self.quarantined.is_empty() || !self.strays.is_empty() || self.archives.iter().any(is_odd)
    }
}

impl Base {
    /// Looks at everything. Members are not read.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn status(&self) -> Result<Status, PackError> {
        let mut status = self.staging_status()?;
        for name in self.packed_archives()? {
            status.archives.push(self.archive_status(name));
        }
        status.archives.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(status)
    }

    /// Looks at what is staged and what is in quarantine, and at no archive: it takes no longer where there are many.
    ///
    /// # Errors
    /// As [`Base::status`].
    pub fn staging_status(&self) -> Result<Status, PackError> {
        let mut status = Status::default();
        self.look_at_staging(&mut status)?;
        self.look_at_quarantine(&mut status)?;
        Ok(status)
    }

    fn look_at_staging(&self, status: &mut Status) -> Result<(), PackError> {
        let dir = place::staging_dir();
        for name in if_there(self.files.list(dir)).during("read", dir)?.unwrap_or_default() {
            let path = dir.join(&name);
            match staging_kind(&name) {
                Staging::Closed => self.count(&path, |status| &mut status.closed, status)?,
                Staging::Open(owner) if owner.as_ref().is_some_and(Owner::is_dead) => {
                    self.count(&path, |status| &mut status.dead, status)?;
                }
                Staging::Open(_) => self.count(&path, |status| &mut status.open, status)?,
                Staging::Spill(_) => self.count(&path, |status| &mut status.unfinished, status)?,
                Staging::Own => {}
                Staging::Stray => status.strays.push(name.to_string_lossy().into_owned()),
            }
        }
        let work = place::work_dir();
        for scavenger in if_there(self.files.list(&work)).during("read", &work)?.unwrap_or_default() {
            let dir = work.join(scavenger);
            for name in if_there(self.files.list(&dir)).during("read", &dir)?.unwrap_or_default() {
                if matches!(staging_kind(&name), Staging::Closed | Staging::Open(_)) {
                    self.count(&dir.join(name), |status| &mut status.claimed, status)?;
                }
            }
        }
        Ok(())
    }

    fn count(
        &self,
        path: &Path,
        which: impl Fn(&mut Status) -> &mut Count,
        status: &mut Status,
    ) -> Result<(), PackError> {
        if let Some(facts) = if_there(self.files.stat(path)).during("look at", path)? {
            let count = which(status);
            count.files += 1;
            count.bytes += facts.size;
            status.oldest_ns = Some(status.oldest_ns.map_or(facts.mtime_ns, |oldest| oldest.min(facts.mtime_ns)));
        }
        Ok(())
    }

    fn look_at_quarantine(&self, status: &mut Status) -> Result<(), PackError> {
        let dir = place::quarantine_dir();
        let mut names = if_there(self.files.list(&dir)).during("read", &dir)?.unwrap_or_default();
        names.sort();
        for name in names.iter().filter(|name| Path::new(name).extension() != Some(OsStr::new("reason"))) {
            let text = name.to_string_lossy().into_owned();
            let reason = read_small(&*self.files, &dir.join(format!("{text}.reason")))?.unwrap_or_default();
            status.quarantined.push((text, String::from_utf8_lossy(&reason).trim_end().to_owned()));
        }
        Ok(())
    }

    fn archive_status(&self, name: ArchiveName) -> ArchiveStatus {
        let mut status = ArchiveStatus {
            name,
            generation: 0,
            parts: Vec::new(),
            missing: Vec::new(),
            strange: Vec::new(),
            error: None,
        };
        match Archive::open(&*self.files, &status.name) {
            Err(error) => status.error = Some(error.to_string()),
            Ok(archive) => {
                status.generation = archive.generation;
                let parts = archive.parts.iter().map(|part| PartStatus {
                    path: part.path.clone(),
                    members: part.end.members,
                    bytes: part.id.size,
                });
                status.parts = parts.collect();
                status.missing = archive.missing.iter().map(|line| archive.name.part_path(line.number)).collect();
                status.strange =
                    archive.strange.into_iter().map(|(number, why)| (archive.name.part_path(number), why)).collect();
            }
        }
        status
    }
}
