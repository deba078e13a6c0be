//! The directory of one round of a scavenger: what it has claimed and what it builds. Whoever dies leaves it behind, and
//! another one takes it over.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Report;
use crate::archive::Archive;
use crate::error::{During, PackError};
use crate::files::{File, Files, if_there, is_absent};
use crate::generation;
use crate::manifest::Manifest;
use crate::owner::Owner;
use crate::place::{self, Staging, staging_kind};

/// The file that tells others that the round goes on.
const BEAT: &str = "beat";
/// Its content changes at most so often.
const BEAT_MIN: Duration = Duration::from_millis(100);
/// And at least so often within the time after which others believe that it ended.
const BEATS: u32 = 8;

/// How often a directory is made that others take over at once.
const CREATIONS_MAX: u32 = 5;

/// The directory of this round.
pub(super) struct WorkDir<'a> {
    files: &'a dyn Files,
    owner: Owner,
    path: PathBuf,
    beat: Box<dyn File>,
    beaten: Instant,
    stale_after: Duration,
}

impl<'a> WorkDir<'a> {
    /// Makes it, and the packer's other directories.
    pub(super) fn create(files: &'a dyn Files, stale_after: Duration) -> Result<Self, PackError> {
        for dir in [place::work_dir(), place::new_dir(), place::archives_dir(), place::quarantine_dir()] {
            files.create_dir(&dir).during("create", &dir)?;
        }
        let mut tries = 0;
        loop {
            let owner = Owner::of_process();
            let path = place::work_dir().join(owner.to_string());
            files.create_dir(&path).during("create", &path)?;
            let beat_path = path.join(BEAT);
            tries += 1;
            let beat = match files.create_new(&beat_path) {
                // Taken over before anything was in it.
                Err(error) if is_absent(&error) && tries < CREATIONS_MAX => continue,
                created => created.during("create", &beat_path)?,
            };
            beat.write_at(b"-", 0).during("write", &beat_path)?;
            return Ok(WorkDir { files, owner, path, beat, beaten: Instant::now(), stale_after });
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Says that the round goes on.
    pub(super) fn beat(&mut self) -> Result<(), PackError> {
        if self.beaten.elapsed() < (self.stale_after / BEATS).max(BEAT_MIN) {
            return Ok(());
        }
        self.write_beat().map(drop)
    }

    /// Writes, so that the time is told by whoever keeps the file system; what time that is.
    fn write_beat(&mut self) -> Result<i128, PackError> {
        self.beaten = Instant::now();
        self.beat.write_at(b"-", 0).during("write", &self.path)?;
        Ok(self.beat.facts().during("look at", &self.path)?.mtime_ns)
    }

    /// Whether a file has not changed for so long that its writer is taken for dead, by the file system's own clock.
    pub(super) fn is_stale(&mut self, path: &Path) -> Result<bool, PackError> {
        let Some(facts) = if_there(self.files.stat(path)).during("look at", path)? else { return Ok(false) };
        let now = self.write_beat()?;
        Ok(now - facts.mtime_ns > i128::try_from(self.stale_after.as_nanos()).unwrap_or(i128::MAX))
    }

    /// Takes over the directories of those that died, with what they claimed.
    pub(super) fn take_over(&mut self, report: &mut Report) -> Result<(), PackError> {
        let dir = place::work_dir();
        for name in self.files.list(&dir).during("read", &dir)? {
            let Some(owner) = name.to_str().and_then(Owner::parse) else { continue };
            let path = dir.join(&name);
            let is_own = owner.uuid == self.owner.uuid;
            if is_own || !(owner.is_dead() || self.is_abandoned(&path)?) {
                continue;
            }
            // From here on nothing that its owner does, if it lives after all, finds its directory.
            let taken = dir.join(self.owner.renewed().to_string());
            match self.files.rename(&path, &taken) {
                Ok(()) => {}
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(error).during("take over", &path),
            }
            if let Err(error) = clear(self.files, &taken, Some(&self.path)) {
                report.errors.push(error);
            }
        }
        Ok(())
    }

    /// Whether the owner of a directory has not been heard of for long. One without a beat is only just being made, or
    /// cleared: its own time tells.
    fn is_abandoned(&mut self, path: &Path) -> Result<bool, PackError> {
        let beat = path.join(BEAT);
        let has_beat = if_there(self.files.stat(&beat)).during("look at", &beat)?.is_some();
        self.is_stale(if has_beat { &beat } else { path })
    }

    /// Whether others have this directory now.
    pub(super) fn is_taken_over(&self) -> bool {
        // Opened, not only looked at: on NFS that asks the server (close-to-open consistency, nfs(5)).
        self.files.open(&self.path.join(BEAT)).is_err_and(|error| is_absent(&error))
    }

    /// Puts back what is not packed, and removes the directory.
    pub(super) fn end(self) -> Result<(), PackError> {
        let WorkDir { files, path, beat, .. } = self;
        // On NFS and FUSE a file that is open stays in its directory under another name when it is removed.
        drop(beat);
        clear(files, &path, None)
    }
}

/// Brings to an end what was going on in a work directory, moves its claims and removes it.
///
/// No owner may be at work there. What cannot be brought to an end stays, and so does the directory then.
fn clear(files: &dyn Files, dir: &Path, to: Option<&Path>) -> Result<(), PackError> {
    let names = if_there(files.list(dir)).during("read", dir)?.unwrap_or_default();
    let mut failed = None;
    for name in names {
        let path = dir.join(&name);
        let done = match staging_kind(&name) {
            Staging::Closed | Staging::Open(_) => {
                let back = name.to_string_lossy().replace(".open", ".closed");
                let to = to.map_or_else(|| place::own(&back), |to| to.join(&name));
                if_there(files.rename(&path, &to)).during("put back", &path).map(drop)
            }
            _ if path.extension().is_some_and(|ending| ending == "gen") => finish_generation(files, dir, &path),
            _ => if_there(files.remove(&path)).during("remove", &path).map(drop),
        };
        failed = done.err().or(failed);
    }
    match failed {
        Some(error) => Err(error),
        None => if_there(files.remove_dir(dir)).during("remove", dir).map(drop),
    }
}

/// Finishes the publication of a generation, or makes an end of it: what was about to be published cannot be any more once
/// its text is removed, so a part that no generation has can go then.
fn finish_generation(files: &dyn Files, dir: &Path, candidate: &Path) -> Result<(), PackError> {
    let manifest = generation::read_small(files, candidate)?.and_then(|bytes| Manifest::parse(&bytes));
    if let Some(manifest) = &manifest {
        Archive::open_settled(files, &manifest.archive, dir)?;
    }
    if_there(files.remove(candidate)).during("remove", candidate)?;
    if let Some(manifest) = manifest {
        let newest = generation::newest(files, &manifest.archive)?.manifest;
        for line in manifest.parts.iter().filter(|line| !generation::has(newest.as_ref(), line.id)) {
            let waiting = place::new_part(line.id);
            if_there(files.remove(&waiting)).during("remove", &waiting)?;
        }
    }
    Ok(())
}
