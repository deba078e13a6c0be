//! Verifying: reading originals and copies again, holding them against what is recorded, and journaling what that came to.
//!
//! Reading goes on in threads, everything else in the one that asked. What looks wrong is looked at a second time, after all that
//! had happened is in the inventory: what was changed honestly meanwhile is no finding.

mod copies;
pub mod import;
mod mend;
mod originals;
mod origins;
mod place;
pub mod release;
pub mod restore;
pub mod scrub;
mod walk;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::daemon::replicate::SettingsError;
use crate::daemon::settings::Settings;
use crate::daemon::tell::{Tell, TellError};
use crate::fixity::verdict;
use crate::inventory::{InventoryError, Verdict, View};
use crate::model::{RelPath, Repaired, ReplicaName, RootName, Unsound, Unsoundness};
use crate::sync::origin::{Map, MapError};
use crate::target::{Limit, TargetError};

/// What is verified, and how.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Of each root the object at this path and all below it; none: all roots.
    pub scopes: Vec<(RootName, RelPath)>,
    /// The copies at this replica; `None`: originals.
    pub replica: Option<ReplicaName>,
    /// What is not what it was is mended. Originals are only where paths are named.
    pub repair: bool,
    /// What was verified within this time is left out.
    pub max_age: Option<Duration>,
    /// Copies that are not known yet are looked for first, and taken for what they are.
    pub import: Option<import::How>,
    /// And what lies there of other hosts is taken for their originals, by these maps.
    pub origins: Option<Vec<Map>>,
    /// It goes on by itself: the oldest first, and nothing is looked for that is not known.
    pub is_scrubbing: bool,
    /// The medium is read, not the page cache.
    pub from_medium: bool,
    /// No service follows the roots: an original that nobody writes to is told to be complete when it is read.
    pub is_alone: bool,
}

/// What verifying came to, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Files read whole.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Files whose content is what was recorded.
    pub verified: u64,
    /// Files whose content was not known, and is now.
    pub hashed: u64,
    /// Findings, by what they are.
    pub rot: u64,
    /// Changed, and no record told.
    pub changed: u64,
    /// Gone, and no record told.
    pub missing: u64,
    /// There, and nothing is known of it.
    pub foreign: u64,
    /// Could not be read.
    pub unreadable: u64,
    /// Files that are being written, or changed while they were read: nothing was said about them.
    pub busy: u64,
    /// Findings that were mended.
    pub repaired: u64,
    /// Findings that could not be.
    pub unmended: u64,
    /// Things at a replica that were taken for copies because their size and mtime fit.
    pub presumed: u64,
    /// Files that were taken for originals of other hosts.
    #[serde(default)]
    pub enrolled: u64,
    /// Copies of which no hash is known to hold them against.
    pub unknown: u64,
}

impl Sum {
    /// How many findings there are.
    #[must_use]
    pub fn findings(&self) -> u64 {
        self.rot + self.changed + self.missing + self.foreign + self.unreadable
    }

    fn count(&mut self, what: &Unsoundness) {
        *match Verdict::of(what) {
            Verdict::Rot => &mut self.rot,
            Verdict::Missing => &mut self.missing,
            Verdict::Foreign => &mut self.foreign,
            Verdict::Unreadable => &mut self.unreadable,
            Verdict::Changed | Verdict::Verified => &mut self.changed,
        } += 1;
    }
}

/// What is told on the way.
#[derive(Clone, Debug)]
pub enum Event {
    /// How far it is.
    Progress(Sum),
    /// Something is not what was recorded. It is journaled.
    Finding(Box<Unsound>),
    /// It was mended. It is journaled.
    Repaired(Box<Repaired>),
    /// It could not be mended.
    NotRepaired {
        /// The copy there; `None`: the original.
        replica: Option<ReplicaName>,
        /// The original's root.
        root: RootName,
        /// Its path there.
        path: RelPath,
        /// Why, for people.
        why: String,
    },
}

/// What it takes.
pub struct Surroundings<'s> {
    /// The service's settings.
    pub settings: &'s Settings,
    /// The inventory's file.
    pub inventory: PathBuf,
    /// The host's name, as it was fixed at first start.
    pub host: String,
    /// The id of the state.
    pub state: String,
    /// What this is, in letters: who looks at a target at the same time for something else drops nothing of ours.
    pub tag: &'static str,
    /// Who journals.
    pub tell: &'s dyn Tell,
    /// Ends it.
    pub stop: &'s AtomicBool,
    /// What reading is held to.
    pub limit: Option<&'s Limit>,
}

/// Why verifying ended early. What was journaled until then holds.
#[derive(Debug, thiserror::Error)]
pub enum FixityError {
    /// The root is not there.
    #[error("root `{root}` is absent: {why}")]
    Absent {
        /// Which.
        root: RootName,
        /// Why.
        why: String,
    },
    /// There is no such thing.
    #[error("there is no root `{0}`")]
    NoRoot(RootName),
    /// There is no such thing.
    #[error("there is no replica `{0}`")]
    NoReplica(ReplicaName),
    /// It was never reached.
    #[error("replica `{0}` was never reached: there is nothing at it to look at; see `keepwatch replica list`")]
    NeverReached(ReplicaName),
    /// Maps that leave in doubt whose something is.
    #[error(transparent)]
    Map(#[from] MapError),
    /// What is asked for contradicts what is there or configured.
    #[error("{0}")]
    Refused(String),
    /// A replica cannot be used as it is configured.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The journal.
    #[error(transparent)]
    Tell(#[from] TellError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is nothing to restore.
    #[error("{0}")]
    Nothing(String),
    /// A directory could not be listed.
    #[error(transparent)]
    Preview(#[from] crate::daemon::preview::PreviewError),
    /// It was asked to end.
    #[error("stopped")]
    Stopped,
}

/// Why verifying ended early, on its way to who asked.
#[derive(Clone, Debug)]
pub struct FixityTrouble {
    /// What kind.
    pub kind: TroubleKind,
    /// In words.
    pub text: String,
}

/// By which a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// What was asked for is not there to be asked for.
    Asked,
    /// A root, a target or the service is away.
    Away,
    /// It failed.
    Failed,
}

impl From<FixityError> for FixityTrouble {
    fn from(error: FixityError) -> Self {
        let kind = match &error {
            FixityError::NoRoot(_)
            | FixityError::NoReplica(_)
            | FixityError::Nothing(_)
            | FixityError::Map(_)
            | FixityError::Refused(_)
            | FixityError::Settings(_) => TroubleKind::Asked,
            FixityError::Absent { .. }
            | FixityError::NeverReached(_)
            | FixityError::Stopped
            | FixityError::Tell(TellError::Ending) => TroubleKind::Away,
            FixityError::Target(error) if error.is_of_the_place() => TroubleKind::Away,
            _ => TroubleKind::Failed,
        };
        FixityTrouble { kind, text: error.to_string() }
    }
}

/// Verifies.
///
/// # Errors
/// [`FixityError`].
pub fn verify(
    job: &Job,
    around: &Surroundings<'_>,
    each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
) -> Result<Sum, FixityError> {
    // What happened before is known, and what is found is known when it is over.
    around.tell.catch_up()?;
    if let (Some(replica), Some(how)) = (&job.replica, job.import) {
        return match &job.origins {
            Some(maps) => origins::import(replica, how, maps, around, each),
            None => import::import(replica, how, around, each),
        };
    }
    let sum = match &job.replica {
        Some(replica) => copies::verify(replica, job, around, each)?,
        None => originals::verify(job, around, each)?,
    };
    around.tell.catch_up()?;
    Ok(sum)
}

/// Findings that are read for a summary, and paths that it names.
const FINDINGS_MAX: usize = 10_000;
const NAMED_MAX: usize = 3;

/// What a person should know of findings that still hold: a line for each kind at each place.
///
/// # Errors
/// SQLite's.
pub fn attention(view: &View) -> Result<Vec<String>, InventoryError> {
    let mut kinds: BTreeMap<_, (usize, Vec<String>)> = BTreeMap::new();
    for finding in view.findings(FINDINGS_MAX)? {
        let (count, named) = kinds.entry((finding.replica, finding.root, finding.verdict)).or_default();
        *count += 1;
        if named.len() < NAMED_MAX {
            named.push(String::from_utf8_lossy(finding.path.as_bytes()).escape_debug().to_string());
        }
    }
    let line = |((replica, root, verdict), (count, mut named)): (
        (Option<ReplicaName>, RootName, Verdict),
        (usize, Vec<_>),
    )| {
        let what = match verdict {
            Verdict::Rot => "rotten",
            Verdict::Changed => "changed unnoticed",
            other => other.as_str(),
        };
        let (of, at) = match &replica {
            Some(replica) => ("copies of", format!(" at `{replica}`")),
            None => ("files of", String::new()),
        };
        if count > named.len() {
            named.push("…".to_owned());
        }
        let place = replica.map(|replica| format!(" --replica {replica}")).unwrap_or_default();
        format!("{of} `{root}`{at} {what}: {count} ({}); see `keepwatch verify{place}`", named.join(", "))
    };
    Ok(kinds.into_iter().map(line).collect())
}

impl Surroundings<'_> {
    fn check_stop(&self) -> Result<(), FixityError> {
        if self.stop.load(Ordering::Acquire) { Err(FixityError::Stopped) } else { Ok(()) }
    }
}

/// Size and mtime, where something was seen.
fn seen_of(look: &verdict::Look) -> Option<(u64, i64)> {
    match look {
        verdict::Look::Content(seen, _) | verdict::Look::Other(Some(seen)) => Some((seen.size, seen.mtime_ns)),
        _ => None,
    }
}
