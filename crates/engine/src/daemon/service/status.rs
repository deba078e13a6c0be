//! What the service says of itself.

use serde::{Deserialize, Serialize};

/// All that `status` shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// The host's name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// Since when it runs, RFC 3339.
    pub since: String,
    /// Each root.
    pub roots: Vec<RootStatus>,
    /// Each replica.
    #[serde(default)]
    pub replicas: Vec<ReplicaStatus>,
    /// Each trigger.
    #[serde(default)]
    pub triggers: Vec<TriggerStatus>,
    /// The journal's end.
    pub journal: JournalStatus,
    /// Whatever follows it.
    pub followers: Vec<FollowerStatus>,
    /// Events that wait in memory.
    pub backlog: u64,
    /// Files followed until they settle.
    pub settling: u64,
    /// Files that somebody has held open for long, with their root.
    pub held_open: Vec<HeldOpen>,
    /// What a person should look at.
    pub attention: Vec<String>,
}

/// A root.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RootStatus {
    /// Its name.
    pub name: String,
    /// Its path, readable.
    pub path: String,
    /// `watching`, `scanning` or `absent`.
    pub state: String,
    /// Why it is absent.
    pub why: Option<String>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// `fanotify`, `inotify` or `poll`.
    pub method: Option<String>,
    /// The kind of file system.
    pub filesystem: Option<String>,
    /// Seconds between scans, where it is scanned at intervals.
    pub poll_seconds: Option<u64>,
    /// What cannot be seen by this method, and why no better one was chosen.
    pub blind_spots: Vec<String>,
    /// Files, directories and bytes in the inventory.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Other objects.
    pub others: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Notices about what is left out.
    pub left_out: u64,
    /// The seq of the open gap.
    pub gap: Option<u64>,
    /// Why there is one.
    pub gap_reason: Option<String>,
    /// Objects that the running scan has looked at so far.
    pub looked: Option<u64>,
    /// When the last full scan ended, RFC 3339.
    pub last_scan: Option<String>,
    /// Objects it looked at.
    pub last_scanned: u64,
    /// Changes it found.
    pub last_found: u64,
    /// Directories or entries that it could not read.
    pub last_failed: u64,
}

/// A replica.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its name.
    pub name: String,
    /// Its URL, without secrets.
    pub url: String,
    /// The roots it holds.
    pub roots: Vec<String>,
    /// `trash`, `keep` or `delete`.
    pub on_delete: String,
    /// `waiting comparing following paused away refused ended`.
    pub state: String,
    /// Regular files it holds.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What waits to be copied, tried again or deleted.
    pub pending: u64,
    /// Originals that are given up for now.
    pub failed: u64,
    /// The age of the oldest change that is not there yet, in seconds.
    pub lag_s: u64,
    /// Bytes a second, lately.
    pub rate: u64,
    /// Objects copied since the start.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// When and what went wrong last.
    pub last_error: Option<String>,
    /// Why it does not get on, or deletes nothing.
    pub paused: Option<String>,
    /// Some of what failed, by path for people.
    pub failures: std::collections::BTreeMap<String, String>,
}

/// A trigger.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TriggerStatus {
    /// Its name.
    pub name: String,
    /// The roots it is about.
    pub roots: Vec<String>,
    /// Its command, for people.
    pub command: String,
    /// `waiting following stuck`.
    pub state: String,
    /// Versions that wait for a run.
    pub queued: u64,
    /// Versions for which a command runs.
    pub running: u64,
    /// Versions that are done, in all.
    pub done: u64,
    /// Files whose version was given up.
    pub dead: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// Why it does not get on.
    pub trouble: Option<String>,
    /// When and what went wrong last.
    pub last_error: Option<String>,
}

/// The journal's end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Which journal.
    pub id: String,
    /// The last record.
    pub seq: u64,
    /// The hash of the commit line that covers it.
    pub hash: String,
    /// Records that are not on disk yet.
    pub pending: u64,
    /// Why it cannot be written now.
    pub trouble: Option<String>,
}

/// A follower.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FollowerStatus {
    /// Its name.
    pub name: String,
    /// The last record it has.
    pub seq: u64,
    /// How many it lacks.
    pub lag_records: u64,
    /// Why it cannot go on now.
    pub trouble: Option<String>,
    /// Records of which a part was set aside.
    pub problems: u64,
}

/// A file that somebody holds open.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HeldOpen {
    /// Its root.
    pub root: String,
    /// Its path there, readable.
    pub path: String,
}
