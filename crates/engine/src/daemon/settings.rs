//! What the engine is told to do: validated values, no defaults looked up here.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use keepwatch_journal::{Algorithm, RootName};

use crate::daemon::replicate::ReplicaSettings;
use crate::daemon::triggers::TriggerSettings;
use crate::index::IndexSettings;
use crate::target::{MinuteOfWeek, Timetable};
use crate::watch::probe::Forced;

/// When a root is scanned at intervals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PollEvery {
    /// Where others' changes are invisible, every ten minutes.
    #[default]
    WhereNeeded,
    /// Never.
    Never,
    /// At this interval.
    Every(Duration),
}

/// How what is at a place is verified by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbing {
    /// How old the last check of a file may grow; `None`: nothing is verified by itself.
    pub every: Option<Duration>,
    /// Bytes a second that may be read for it; `None`: as many as there are.
    pub bwlimit: Option<Timetable>,
}

/// A root.
#[derive(Clone, Debug)]
pub struct RootSettings {
    /// Its name.
    pub name: RootName,
    /// Its absolute path.
    pub path: PathBuf,
    /// Patterns in `.gitignore` syntax of what is not recorded.
    pub ignore: Vec<String>,
    /// Further patterns of names of files that are not finished.
    pub unfinished: Vec<String>,
    /// How to watch.
    pub method: Forced,
    /// Whether to scan at intervals.
    pub poll: PollEvery,
    /// How long size and mtime must stay the same where nothing better is known.
    pub settle: Duration,
    /// How long after the last close a file settles at the earliest.
    pub settle_min: Duration,
    /// From when on a file that is held open is shown.
    pub open_max: Duration,
    /// Whether leases may be asked for.
    pub lease: bool,
    /// How many replicas have to be proved to hold each file; 0: nothing is said about that.
    pub copies_min: u64,
    /// How its originals are verified.
    pub scrubbing: Scrubbing,
}

/// The whole.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where journal, inventory and the rest lie.
    pub state_dir: PathBuf,
    /// The host's name; fixed at first start.
    pub host: String,
    /// What tells this machine from others, where the system has such a thing.
    pub machine_id: Option<String>,
    /// The roots.
    pub roots: Vec<RootSettings>,
    /// Events that may wait in memory.
    pub backlog_max: usize,
    /// Bytes of a journal file.
    pub roll_bytes: u64,
    /// How long records may wait for others to share a sync.
    pub commit_wait: Duration,
    /// How many may.
    pub commit_records: usize,
    /// The replicas.
    pub replicas: Vec<ReplicaSettings>,
    /// The triggers.
    pub triggers: Vec<TriggerSettings>,
    /// How contents are verified.
    pub digest: Algorithm,
    /// Which minute of the week it is where people read the clock.
    pub minute_of_week: MinuteOfWeek,
    /// Threads that scan.
    pub scan_threads: NonZeroUsize,
    /// Where the shared index is, if there is one.
    pub index: Option<IndexSettings>,
}
