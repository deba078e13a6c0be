//! Collecting what workers have staged into archives: [`Scavenger`]. Any number may run at the same time, on any number of
//! hosts; what two of them do twice comes out as once.

mod claim;
mod publish;
mod quarantine;
mod report;
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{During, PackError};
use crate::files::{File, Files, RealFiles, if_there};
use crate::name::ArchiveName;
use crate::place;
use crate::plan::Limits;
use crate::scan::{Look, StagedMember, scan};
use publish::Publisher;
use work::WorkDir;

pub use report::Report;

/// So many members are looked at together; of each about 200 bytes are in memory.
const BATCH_MEMBERS_MAX: usize = 100_000;
/// Without word of its writer, a file is left alone for so many rotations.
const STALE_ROTATIONS: u32 = 12;
/// And at least so long: what a client of a network file system has written is at the server by then.
const STALE_MIN: Duration = Duration::from_secs(120);

/// How a [`Scavenger`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScavengeOptions {
    /// The rotation of the workers. Unless said otherwise: 5 minutes.
    pub rotation: Duration,
    /// What has not changed for so long is taken even from a writer that cannot be proved dead. Unless said otherwise: 12
    /// rotations, and at least 2 minutes.
    pub stale_after: Option<Duration>,
    /// Take staging files from writers on this machine that are alive, too. They notice, and go on in new ones.
    pub flush: bool,
    /// How large parts become.
    pub limits: Limits,
}

impl Default for ScavengeOptions {
    fn default() -> Self {
        ScavengeOptions {
            rotation: Duration::from_secs(300),
            stale_after: None,
            flush: false,
            limits: Limits::default(),
        }
    }
}

impl ScavengeOptions {
    fn stale_after(&self) -> Duration {
        self.stale_after.unwrap_or_else(|| self.rotation.saturating_mul(STALE_ROTATIONS).max(STALE_MIN))
    }
}

/// Collects what workers have staged below a base.
pub struct Scavenger {
    files: Arc<dyn Files>,
    options: ScavengeOptions,
}

impl Scavenger {
    /// Collects below a base, which must be there.
    ///
    /// # Errors
    /// If the base is no directory.
    pub fn open(base: &Path, options: ScavengeOptions) -> Result<Self, PackError> {
        let files = RealFiles::open(base).during("open the base", base)?;
        Ok(Self::open_on(Arc::new(files), options))
    }

    /// The same, on any files.
    #[must_use]
    pub fn open_on(files: Arc<dyn Files>, options: ScavengeOptions) -> Self {
        Scavenger { files, options }
    }

    /// One round: takes what is there and brings it into archives. What fails stays staged and is told in the report.
    ///
    /// # Errors
    /// If nothing could be done at all.
    pub fn scavenge(&self) -> Result<Report, PackError> {
        let files = &*self.files;
        let mut report = Report::default();
        if if_there(files.stat(place::staging_dir())).during("look at", place::staging_dir())?.is_none() {
            return Ok(report);
        }
        let mut work = WorkDir::create(files, self.options.stale_after())?;
        let done = self.round(&mut work, &mut report);
        if work.is_taken_over() {
            // Whatever failed, failed because of that; the others bring it to an end.
            report.errors.push(PackError::TakenOver { stale_after: self.options.stale_after() });
            return Ok(report);
        }
        if let Err(error) = work.end() {
            report.errors.push(error);
        }
        done.map(|()| report)
    }

    fn round(&self, work: &mut WorkDir<'_>, report: &mut Report) -> Result<(), PackError> {
        let files = &*self.files;
        work.take_over(report)?;
        let claims = claim::claim(files, work, &self.options, report)?;
        let mut claims = claims.as_slice();
        while !claims.is_empty() {
            let batch = Batch::gather(files, work, &mut claims, report)?;
            self.pack(batch, work, report)?;
        }
        Ok(())
    }

    /// Packs a batch, archive by archive, and drops what is packed in full.
    fn pack(&self, batch: Batch, work: &mut WorkDir<'_>, report: &mut Report) -> Result<(), PackError> {
        let files = &*self.files;
        let Batch { claims, members } = batch;
        let mut is_whole = vec![true; claims.len()];
        let sources = Claims { files, paths: &claims };
        for (archive, members) in members {
            let touched: Vec<usize> = members.iter().map(|(claim, _)| *claim).collect();
            let path = work.path().to_owned();
            let mut publisher = Publisher {
                files,
                work: &path,
                limits: &self.options.limits,
                sources: &sources,
                report,
                unmergeable: Vec::new(),
            };
            if let Err(error) = publisher.publish(&archive, members, &mut || work.beat()) {
                touched.into_iter().for_each(|claim| is_whole[claim] = false);
                report.errors.push(error);
            }
        }
        for (path, _) in claims.iter().zip(is_whole).filter(|(_, is_whole)| *is_whole) {
            if_there(files.remove(path)).during("remove", path)?;
        }
        Ok(())
    }
}

/// Claimed files whose members are packed together.
struct Batch {
    claims: Vec<PathBuf>,
    members: BTreeMap<ArchiveName, Vec<(usize, StagedMember)>>,
}

impl Batch {
    /// Reads claims until there are members enough. What they hold that is no member goes into quarantine.
    fn gather(
        files: &dyn Files,
        work: &mut WorkDir<'_>,
        left: &mut &[PathBuf],
        report: &mut Report,
    ) -> Result<Self, PackError> {
        let mut batch = Batch { claims: Vec::new(), members: BTreeMap::new() };
        let mut count = 0;
        while let Some((path, rest)) = left.split_first()
            && (count == 0 || count < BATCH_MEMBERS_MAX)
        {
            *left = rest;
            work.beat()?;
            match batch.read(files, path, report) {
                Ok(members) => count += members,
                // It is one of many: the others do not wait for it.
                Err(error) => report.errors.push(error),
            }
        }
        Ok(batch)
    }

    fn read(&mut self, files: &dyn Files, path: &Path, report: &mut Report) -> Result<usize, PackError> {
        let Some(file) = if_there(files.open(path)).during("open", path)? else { return Ok(0) };
        let salt = path.file_name().and_then(place::owner_of).map(|owner| owner.salt());
        let found = scan(&*file, salt, Look::Contents).during("read", path)?;
        if !found.damages.is_empty() {
            quarantine::keep(files, path, &*file, &found, report)?;
            if found.members.is_empty() {
                return Ok(0);
            }
        }
        let claim = self.claims.len();
        self.claims.push(path.to_owned());
        let count = found.members.len();
        for member in found.members {
            self.members.entry(member.name.archive()).or_default().push((claim, member));
        }
        Ok(count)
    }
}

/// Claimed files, as what new members come from.
struct Claims<'a> {
    files: &'a dyn Files,
    paths: &'a [PathBuf],
}

impl crate::build::Sources for Claims<'_> {
    fn open(&self, source: usize) -> Result<Box<dyn File>, PackError> {
        let path = &self.paths[source];
        self.files.open(path).during("open", path)
    }
}
