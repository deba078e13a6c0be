//! How the service is: what `keepwatch status` prints, and what the service answers when it is asked.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::safe::Safe;
use crate::error::CommandError;
use crate::units::{count, human_size};

/// How everything is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This host's name in records.
    pub host: String,
    /// The state directory.
    pub state_dir: String,
    /// The service; `None`: it is not running, and all below is what its inventory says.
    pub service: Option<Service>,
    /// What is watched.
    pub roots: Vec<Root>,
    /// What holds copies.
    #[serde(default)]
    pub replicas: Vec<Replica>,
    /// What is run for finished files.
    #[serde(default)]
    pub triggers: Vec<Trigger>,
    /// Bases whose staged members are brought into archives. The service does not tell of them: whoever asks looks.
    #[serde(default)]
    pub packs: Vec<Pack>,
    /// The journal's end.
    pub journal: Journal,
    /// What reads the journal.
    pub followers: Vec<Follower>,
    /// What is wrong, oldest first.
    pub problems: Vec<Problem>,
    /// What a person has to decide, each with the command that does it.
    pub needs: Vec<String>,
}

/// The running service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it started, RFC 3339.
    pub since: String,
    /// How long ago that was, by the monotonic clock.
    pub uptime_s: u64,
    /// The capabilities it runs with.
    pub capabilities: Vec<String>,
}

/// A root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its name.
    pub name: String,
    /// Its path, readable.
    pub path: String,
    /// How it is.
    pub state: RootState,
    /// How changes are noticed: `fanotify`, `inotify`, `poll`, or two of them with a `+` between.
    pub method: String,
    /// What that cannot see.
    pub blind_to: Vec<String>,
    /// Files in the inventory, of whatever type but directories.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Stretches in which changes may have been missed and that are not scanned yet.
    pub open_gaps: u64,
    /// Files held open for writing for longer than `open_max`.
    pub open_long: u64,
    /// How many replicas have to be proved to hold each file, and how many files fewer do; `None`: nothing is asked for.
    #[serde(default)]
    pub copies: Option<Copies>,
}

/// How many copies there have to be, and where there are fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// Replicas that have to be proved to hold each file.
    pub min: u64,
    /// Files that fewer do.
    pub under_copied: u64,
}

/// A replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// Its URL, without secrets.
    pub url: String,
    /// The roots it holds.
    pub roots: Vec<String>,
    /// `trash`, `keep` or `delete`.
    pub on_delete: String,
    /// `waiting comparing following paused away refused ended stopped`.
    pub state: String,
    /// Regular files it holds.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What waits to be copied, tried again or deleted.
    pub pending: u64,
    /// Originals that are given up for now.
    pub failed: u64,
    /// The age of the oldest change that is not there yet.
    pub lag_s: u64,
    /// Bytes a second, lately.
    pub rate: u64,
    /// Objects copied since the service started.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// When and what went wrong last.
    pub last_error: Option<String>,
    /// Why it does not get on, or deletes nothing.
    pub paused: Option<String>,
    /// Some of what failed, and why.
    pub failures: std::collections::BTreeMap<String, String>,
}

/// A trigger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// The roots it is about.
    pub roots: Vec<String>,
    /// Its command.
    pub command: String,
    /// `waiting following stuck stopped`.
    pub state: String,
    /// Versions that wait for a run.
    pub queued: u64,
    /// Versions for which a command runs.
    pub running: u64,
    /// Versions that are done, in all.
    pub done: u64,
    /// Files whose version was given up.
    pub dead: u64,
    /// Attempts that failed since the service started.
    pub failed: u64,
    /// Why it does not get on.
    pub trouble: Option<String>,
    /// When and what went wrong last.
    pub last_error: Option<String>,
}

/// What waits to be packed below a base.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// Its name.
    pub name: String,
    /// The directory, readable.
    pub base: String,
    /// Staging files, whoever has them.
    pub staged: u64,
    /// Their bytes.
    pub staged_bytes: u64,
    /// Those whose writers are proved dead; they may be torn off.
    pub torn: u64,
    /// Staging files that could not be read in full, kept in quarantine.
    pub quarantined: u64,
    /// How long ago the oldest staging file last changed.
    pub oldest_s: Option<u64>,
    /// Why it cannot be looked at.
    pub error: Option<String>,
}

/// How a root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootState {
    /// Changes are noticed and everything is known.
    Watching,
    /// Changes are noticed, and what is there is being looked through.
    Scanning,
    /// Its file system is not there, or another is in its place.
    Absent,
    /// It cannot be watched.
    Failed,
    /// No service watches it.
    Stopped,
}

/// The journal's end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Its id.
    pub id: String,
    /// The last record that is on disk.
    pub seq: u64,
    /// The hash over all up to there.
    pub hash: String,
    /// What all its files take on disk.
    pub bytes: u64,
    /// Records that wait to be written.
    pub pending: u64,
}

/// What reads the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    /// Its name.
    pub name: String,
    /// The last record it has applied.
    pub seq: u64,
    /// Records it has yet to apply.
    pub lag_records: u64,
    /// The age of the oldest of these.
    pub lag_s: u64,
    /// Why it has stopped, if it has.
    pub stopped: Option<String>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Since when, RFC 3339.
    pub since: String,
    /// In which root, if in one.
    pub root: Option<String>,
    /// What.
    pub message: String,
}

impl RootState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RootState::Watching => "watching",
            RootState::Scanning => "scanning",
            RootState::Absent => "absent",
            RootState::Failed => "failed",
            RootState::Stopped => "stopped",
        }
    }
}

impl Status {
    /// What the service has answered.
    ///
    /// # Errors
    /// If it speaks of a status that this version does not know.
    pub fn from_answer(answer: Value) -> Result<Self, CommandError> {
        serde_json::from_value(answer).map_err(|error| {
            CommandError::failed(format!("the service's status cannot be understood: {error}"))
                .hint("is it of another version? restart it after an upgrade")
        })
    }

    /// Whether anything asks for attention: then the command ends with findings.
    #[must_use]
    pub fn has_findings(&self) -> bool {
        let is_ill = |root: &Root| matches!(root.state, RootState::Absent | RootState::Failed);
        let has_stopped = |follower: &Follower| follower.stopped.is_some();
        let is_odd = |pack: &Pack| pack.quarantined > 0 || pack.error.is_some();
        !self.problems.is_empty()
            || !self.needs.is_empty()
            || self.roots.iter().any(is_ill)
            || self.followers.iter().any(has_stopped)
            || self.packs.iter().any(is_odd)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_service(f)?;
        self.roots.iter().try_for_each(|root| root.fmt(f))?;
        self.replicas.iter().try_for_each(|replica| replica.fmt(f))?;
        self.triggers.iter().try_for_each(|trigger| trigger.fmt(f))?;
        self.packs.iter().try_for_each(|pack| pack.fmt(f))?;
        self.show_journal(f)?;
        if !self.problems.is_empty() {
            writeln!(f, "\nproblems")?;
        }
        for problem in &self.problems {
            let root = problem.root.as_ref().map(|root| format!("{root}: ")).unwrap_or_default();
            writeln!(f, "  {}  {root}{}", problem.since, Safe::text(&problem.message))?;
        }
        if !self.needs.is_empty() {
            writeln!(f, "\nneeds you")?;
        }
        self.needs.iter().try_for_each(|need| writeln!(f, "  {}", Safe::text(need)))
    }
}

impl Status {
    fn show_service(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, dir) = (Safe::text(&self.host), Safe::text(&self.state_dir));
        match &self.service {
            None => writeln!(f, "{host}: not running; this is what the inventory in {dir} says"),
            Some(service) => {
                let uptime = age(service.uptime_s);
                writeln!(
                    f,
                    "{host}: keepwatch {}, running for {uptime} as process {}, state in {dir}",
                    service.version, service.pid
                )?;
                if service.capabilities.is_empty() {
                    return Ok(());
                }
                writeln!(f, "  with {}", service.capabilities.join(" "))
            }
        }
    }

    fn show_journal(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let journal = &self.journal;
        writeln!(f, "\njournal {}", journal.id)?;
        write!(f, "  seq {}, {}", journal.seq, human_size(journal.bytes))?;
        if journal.pending > 0 {
            write!(f, ", {} waiting to be written", count(journal.pending, "record"))?;
        }
        writeln!(f, "\n  head {}", journal.hash)?;
        for follower in &self.followers {
            write!(f, "  {} at {}", follower.name, follower.seq)?;
            match (&follower.stopped, follower.lag_records) {
                (Some(reason), _) => writeln!(f, ", stopped: {}", Safe::text(reason))?,
                (None, 0) => writeln!(f, ", up to date")?,
                (None, behind) => writeln!(f, ", {} and {} behind", count(behind, "record"), age(follower.lag_s))?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nroot {}  {}", self.name, Safe::text(&self.path))?;
        write!(f, "  {}", self.state.as_str())?;
        if !self.method.is_empty() {
            write!(f, " by {}", self.method)?;
        }
        let (files, dirs) = (count(self.files, "file"), count(self.dirs, "directory"));
        writeln!(f, ", {files} in {dirs}, {}", human_size(self.bytes))?;
        for blind in &self.blind_to {
            writeln!(f, "  cannot see: {}", Safe::text(blind))?;
        }
        if self.open_gaps > 0 {
            writeln!(f, "  gaps not scanned yet: {}", self.open_gaps)?;
        }
        if self.open_long > 0 {
            writeln!(f, "  held open for long: {}", count(self.open_long, "file"))?;
        }
        if let Some(Copies { min, under_copied }) = self.copies {
            let files = count(under_copied, "file");
            match under_copied {
                0 => writeln!(f, "  copies: every file is proved to be at {} or more", count(min, "replica"))?,
                _ => writeln!(
                    f,
                    "  copies: {files} proved at fewer than {}; see `keepwatch ls --under-copied`",
                    count(min, "replica")
                )?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\ntrigger {}", Safe::text(&self.name))?;
        write!(f, "  {}, {} done", self.state, self.done)?;
        for (number, what) in [(self.queued, "waiting"), (self.running, "running"), (self.dead, "given up")] {
            if number > 0 {
                write!(f, ", {number} {what}")?;
            }
        }
        writeln!(f)?;
        if let Some(why) = &self.trouble {
            writeln!(f, "  stuck: {}", Safe::text(why))?;
        }
        if let Some(error) = &self.last_error {
            writeln!(f, "  last error: {}", Safe::text(error))?;
        }
        Ok(())
    }
}

impl fmt::Display for Pack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = Safe::text(&self.base);
        writeln!(f, "\npack {}  {base}", Safe::text(&self.name))?;
        if let Some(error) = &self.error {
            return writeln!(f, "  cannot be looked at: {}", Safe::text(error));
        }
        match self.oldest_s {
            None => write!(f, "  nothing is staged")?,
            Some(oldest) => {
                write!(f, "  staged: {}, {}", count(self.staged, "file"), human_size(self.staged_bytes))?;
                if self.torn > 0 {
                    write!(f, ", {} of writers that died", self.torn)?;
                }
                write!(f, ", the oldest changed {} ago", age(oldest))?;
            }
        }
        writeln!(f)?;
        if self.quarantined > 0 {
            let kept = count(self.quarantined, "file");
            writeln!(f, "  in quarantine: {kept}; see keepwatch pack status -d {base}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nreplica {}  {}", Safe::text(&self.name), Safe::text(&self.url))?;
        write!(f, "  {}, {}, {}", self.state, count(self.files, "file"), human_size(self.bytes))?;
        for (number, what) in [(self.pending, "pending"), (self.failed, "failed")] {
            if number > 0 {
                write!(f, ", {number} {what}")?;
            }
        }
        if self.lag_s > 0 {
            write!(f, ", {} behind", age(self.lag_s))?;
        }
        if self.rate > 0 {
            write!(f, ", {}/s", human_size(self.rate))?;
        }
        writeln!(f)?;
        match (&self.paused, &self.last_error) {
            (Some(why), _) => writeln!(f, "  waits: {}", Safe::text(why)),
            (None, Some(error)) => writeln!(f, "  last error: {}", Safe::text(error)),
            (None, None) => Ok(()),
        }
    }
}

/// A stretch of time for people: its two largest units.
pub fn age(seconds: u64) -> String {
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let mut text = String::new();
    for (count, unit) in parts.iter().skip(first).take(2).filter(|(count, _)| *count > 0) {
        let space = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{space}{count} {unit}");
    }
    if text.is_empty() { "0 s".to_owned() } else { text }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn busy() -> Status {
        Status {
            host: "preserve-1".to_owned(),
            state_dir: "/var/lib/keepwatch".to_owned(),
            service: Some(Service {
                pid: 812,
                version: "0.1.0".to_owned(),
                since: "2026-11-17T08:00:00Z".to_owned(),
                uptime_s: 3 * 86_400 + 2 * 3600 + 59,
                capabilities: vec!["CAP_SYS_ADMIN".to_owned(), "CAP_LEASE".to_owned()],
            }),
            roots: vec![
                Root {
                    name: "records".to_owned(),
                    path: "/srv/records".to_owned(),
                    state: RootState::Watching,
                    method: "inotify+poll".to_owned(),
                    blind_to: vec!["which process made a change".to_owned()],
                    files: 1_204_113,
                    dirs: 18_220,
                    bytes: 41_200_000_000_000,
                    open_gaps: 1,
                    open_long: 2,
                    copies: Some(Copies { min: 2, under_copied: 3 }),
                },
                Root {
                    name: "scans".to_owned(),
                    path: "/mnt/sc\u{1b}ans".to_owned(),
                    state: RootState::Absent,
                    method: String::new(),
                    blind_to: Vec::new(),
                    files: 12,
                    dirs: 3,
                    bytes: 4096,
                    open_gaps: 0,
                    open_long: 0,
                    copies: None,
                },
            ],
            triggers: Vec::new(),
            packs: vec![
                Pack {
                    name: "logs".to_owned(),
                    base: "/srv/lo\u{1b}gs".to_owned(),
                    staged: 12,
                    staged_bytes: 3_400_000,
                    torn: 2,
                    quarantined: 1,
                    oldest_s: Some(250),
                    error: None,
                },
                Pack { name: "quiet".to_owned(), base: "/srv/quiet".to_owned(), ..Pack::default() },
                Pack {
                    name: "away".to_owned(),
                    base: "/mnt/away".to_owned(),
                    error: Some("no such directory".to_owned()),
                    ..Pack::default()
                },
            ],
            replicas: vec![Replica {
                name: "vault".to_owned(),
                url: "/mnt/va\u{1b}ult".to_owned(),
                state: "paused".to_owned(),
                files: 7,
                bytes: 4096,
                pending: 3,
                failed: 1,
                lag_s: 61,
                rate: 20_000_000,
                paused: Some("too many deletes".to_owned()),
                ..Replica::default()
            }],
            journal: Journal {
                id: "01939d2c-0000-7000-8000-000000000000".to_owned(),
                seq: 48_211_903,
                hash: "9f2c".repeat(16),
                bytes: 12_884_901_888,
                pending: 17,
            },
            followers: vec![
                Follower { name: "inventory".to_owned(), seq: 48_211_903, lag_records: 0, lag_s: 0, stopped: None },
                Follower { name: "index".to_owned(), seq: 48_200_000, lag_records: 11_903, lag_s: 95, stopped: None },
                Follower {
                    name: "audit".to_owned(),
                    seq: 5,
                    lag_records: 48_211_898,
                    lag_s: 9,
                    stopped: Some("forked".to_owned()),
                },
            ],
            problems: vec![Problem {
                since: "2026-11-20T10:00:00Z".to_owned(),
                root: Some("scans".to_owned()),
                message: "its file system is not there".to_owned(),
            }],
            needs: vec!["mount the disk of `scans`, or accept the new one: keepwatch root accept scans".to_owned()],
        }
    }

    #[test]
    fn a_busy_service_is_laid_out_for_people() {
        insta::assert_snapshot!(busy().to_string());
    }

    #[test]
    fn without_a_service_the_inventory_speaks() {
        let status = Status { service: None, ..busy() };
        assert!(status.to_string().starts_with("preserve-1: not running;"), "{status}");
    }

    #[test]
    fn the_answer_reads_back_and_a_stranger_is_an_error() {
        let answer = serde_json::to_value(busy()).unwrap();
        assert_eq!(Status::from_answer(answer).unwrap(), busy());
        assert!(Status::from_answer(serde_json::json!({"roots": 1})).is_err());
    }

    #[test]
    fn what_is_ill_is_a_finding() {
        let healthy = || Status {
            problems: vec![],
            needs: vec![],
            roots: vec![],
            followers: vec![],
            packs: vec![busy().packs[1].clone()],
            ..busy()
        };
        assert!(!healthy().has_findings());
        assert!(Status { roots: vec![busy().roots[1].clone()], ..healthy() }.has_findings());
        assert!(Status { followers: vec![busy().followers[2].clone()], ..healthy() }.has_findings());
        assert!(!Status { followers: vec![busy().followers[1].clone()], ..healthy() }.has_findings());
        for at in [0, 2] {
            assert!(Status { packs: vec![busy().packs[at].clone()], ..healthy() }.has_findings());
        }
    }
}
