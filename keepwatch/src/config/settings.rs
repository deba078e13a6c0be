//! The settings as the rest of the program sees them: complete, with defaults, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use keepwatch_engine::daemon::settings::Scrubbing;
use keepwatch_engine::model::Algorithm;

use super::overlap;
use super::packs::PackSettings;
use super::postgres::PostgresSettings;
use super::problem::{Origin, Problem, Sourced};
use super::raw::{RawConfig, RawRoot};
use super::replicas::{self, ReplicaSpec};
use super::sources::Environment;
use super::triggers::{self, TriggerSpec};
use crate::units;

/// Where each setting came from, by its dotted key.
pub type Origins = BTreeMap<String, Origin>;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Journal, inventory, lock and control socket are kept here.
    pub state_dir: PathBuf,
    /// This host's name in records; `None`: the machine's own name, fixed at the first start.
    pub host: Option<String>,
    /// Members of this group (a name or a number) may use the control socket, besides the owner and root.
    pub control_group: Option<String>,
    /// How the service logs.
    pub log: LogFormat,
    /// So many notices of the kernel may wait in memory before they become a gap.
    pub backlog_max: u64,
    /// The journal's own.
    pub journal: JournalSettings,
    /// How contents are verified.
    pub digest: Algorithm,
    /// The shared index, if there is one.
    pub postgres: Option<PostgresSettings>,
    /// What is watched, by name.
    pub roots: Vec<RootSettings>,
    /// What holds copies, by name.
    pub replicas: Vec<ReplicaSpec>,
    /// Bases whose staged members are brought into archives, by name.
    pub packs: Vec<PackSettings>,
    /// What is run for finished files, in the order in which it was written.
    pub triggers: Vec<TriggerSpec>,
}

/// How the journal is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// A file is closed at this many bytes, and at the end of each UTC day.
    pub roll_bytes: u64,
    /// A batch waits at most so long for its `fdatasync`.
    pub commit_interval: Duration,
    /// A batch holds at most so many records.
    pub commit_records: u64,
}

/// One watched tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSettings {
    /// Its name in records and on the command line.
    pub name: String,
    /// Its absolute path.
    pub path: PathBuf,
    /// What is seen and counted but not recorded, in `.gitignore` syntax.
    pub ignore: Vec<String>,
    /// Names that say "not complete yet", in `.gitignore` syntax, besides the built-in ones.
    pub unfinished: Vec<String>,
    /// How changes are noticed.
    pub watch: WatchMethod,
    /// Scans at intervals, in addition.
    pub poll: Poll,
    /// A file is complete when it has been quiet for so long; `None`: by the kind of file system.
    pub settle: Option<Duration>,
    /// It is never held to be complete earlier than this after its last change.
    pub settle_min: Duration,
    /// A file held open for longer is listed in `status`.
    pub open_max: Duration,
    /// Whether a read lease may be taken for an instant to see that no writer is left.
    pub lease: bool,
    /// How old the last check of a file may grow before it is read again, and how fast.
    pub scrubbing: Scrubbing,
    /// How many replicas have to be proved to hold each file; 0: nothing is said about that.
    pub copies_min: u64,
}

/// How changes of a root are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchMethod {
    /// The best that works.
    Auto,
    /// Marks on whole file systems.
    Fanotify,
    /// A watch for each directory.
    Inotify,
    /// Scans alone.
    Poll,
}

/// Whether a root is scanned at intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Where others write over a network, every ten minutes; elsewhere not.
    Auto,
    /// Never.
    Off,
    /// At this interval.
    Every(Duration),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl WatchMethod {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            WatchMethod::Auto => "auto",
            WatchMethod::Fanotify => "fanotify",
            WatchMethod::Inotify => "inotify",
            WatchMethod::Poll => "poll",
        }
    }

    /// The method with this name.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        [WatchMethod::Auto, WatchMethod::Fanotify, WatchMethod::Inotify, WatchMethod::Poll]
            .into_iter()
            .find(|method| method.as_str() == text)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::named(text)
            .ok_or_else(|| format!("`{text}` is no way to watch: use \"auto\", \"fanotify\", \"inotify\" or \"poll\""))
    }
}

impl Poll {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Poll::Auto),
            "off" => Ok(Poll::Off),
            text => match units::parse_duration(text) {
                Ok(interval) if interval < POLL_MIN => {
                    Err(format!("`{text}` is too often: one second at least, or \"off\""))
                }
                Ok(interval) => Ok(Poll::Every(interval)),
                Err(error) => Err(format!("{error}; or \"auto\", or \"off\"")),
            },
        }
    }
}

impl LogFormat {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{text}` is no log format: use \"text\" or \"json\"")),
        }
    }
}

/// A tree cannot sensibly be walked more often.
const POLL_MIN: Duration = Duration::from_secs(1);
/// Less would roll at every batch.
const ROLL_BYTES_MIN: u64 = 1 << 20;
/// A longer wait would put more changes at risk than a batch saves.
const COMMIT_INTERVAL_MAX: Duration = Duration::from_secs(1);

const BACKLOG_MAX: u64 = 1_000_000;
const ROLL_BYTES: u64 = 1 << 30;
const COMMIT_INTERVAL: Duration = Duration::from_millis(5);
const COMMIT_RECORDS: u64 = 4096;
const OPEN_MAX: Duration = Duration::from_secs(3600);

/// Fills in the defaults and checks the whole. What it returns is to be used only if no problem was found.
pub fn validate(raw: RawConfig, environment: &Environment, problems: &mut Vec<Problem>) -> (Settings, Origins) {
    let mut origins = Origins::new();
    let mut take = Taker { origins: &mut origins };
    let default_state_dir = environment.default_state_dir();
    if raw.state_dir.is_none() && default_state_dir.is_none() {
        problems.push(
            Problem::new(Origin::Default, "there is no place to keep state: HOME is not set")
                .hint("say where: `--state-dir DIR`, or `state_dir` in the configuration"),
        );
    }
    let state_dir = take.or("state_dir", raw.state_dir, default_state_dir.unwrap_or_default());
    let host = take.or("host", raw.host.map(|host| host.map(Some)), None);
    let control_group = take.or("control_group", raw.control_group.map(|group| group.map(Some)), None);
    let log = take.or("log", raw.log, LogFormat::Text);
    let backlog_max = take.or("backlog_max", raw.backlog_max, BACKLOG_MAX);
    let journal = JournalSettings {
        roll_bytes: take.or("journal.roll_size", raw.roll_size, ROLL_BYTES),
        commit_interval: take.or("journal.commit_interval", raw.commit_interval, COMMIT_INTERVAL),
        commit_records: take.or("journal.commit_records", raw.commit_records, COMMIT_RECORDS),
    };
    let digest = take.or("digest", raw.digest, Algorithm::default());
    let postgres = raw.postgres.and_then(|postgres| postgres.validate(environment, &mut take, problems));
    let mut roots = Vec::new();
    for (name, root) in raw.roots {
        roots.extend(validate_root(&name, root, &mut take, problems));
    }
    for path in raw.flag_roots {
        let name = name_for(&path, &roots);
        let value = Sourced { value: path, origin: Origin::Flag("--root") };
        let root = RawRoot { path: Some(value), ..RawRoot::empty(Origin::Flag("--root")) };
        roots.extend(validate_root(&name, root, &mut take, problems));
    }
    let mut replicas = Vec::new();
    for (name, replica) in raw.replicas {
        replicas.extend(replica.validate(&name, &mut take, problems));
    }
    for url in raw.flag_replicas {
        replicas.push(ReplicaSpec::new(url.to_string(), url));
    }
    let mut packs = Vec::new();
    for (name, pack) in raw.packs {
        packs.extend(pack.validate(&name, &mut take, problems));
    }
    let mut triggers: Vec<TriggerSpec> = Vec::new();
    for trigger in raw.triggers {
        let origin = trigger.origin.clone();
        let Some(spec) = trigger.validate(environment, &mut take, problems) else { continue };
        if triggers.iter().any(|other| other.name == spec.name) {
            let problem = Problem::new(origin, format!("there are two triggers `{}`", spec.name));
            problems.push(problem.hint("give one of them another name"));
            continue;
        }
        triggers.push(spec);
    }
    let settings = Settings {
        state_dir,
        host,
        control_group,
        log,
        backlog_max,
        journal,
        digest,
        postgres,
        roots,
        replicas,
        packs,
        triggers,
    };
    check(&settings, &origins, problems);
    (settings, origins)
}

/// Takes each setting with its default and notes where it came from.
pub(super) struct Taker<'a> {
    origins: &'a mut Origins,
}

impl Taker<'_> {
    pub(super) fn or<T>(&mut self, key: &str, found: Option<Sourced<T>>, default: T) -> T {
        let Sourced { value, origin } = found.unwrap_or(Sourced { value: default, origin: Origin::Default });
        self.origins.insert(key.to_owned(), origin);
        value
    }
}

fn validate_root(name: &str, raw: RawRoot, take: &mut Taker<'_>, problems: &mut Vec<Problem>) -> Option<RootSettings> {
    let key = |key: &str| format!("roots.{name}.{key}");
    if !is_root_name(name) {
        let message =
            format!("`{name}` is no name for a root: use letters, digits, `-`, `_` and `.`, a letter or digit first");
        problems.push(Problem::new(raw.origin.clone(), message));
    }
    let Some(path) = raw.path else {
        let hint = format!("add to [roots.{name}]: path = \"/…\"");
        problems.push(Problem::new(raw.origin, format!("root `{name}` has no path")).hint(hint));
        return None;
    };
    Some(RootSettings {
        name: name.to_owned(),
        path: take.or(&key("path"), Some(path), PathBuf::new()),
        ignore: take.or(&key("ignore"), raw.ignore, Vec::new()),
        unfinished: take.or(&key("unfinished"), raw.unfinished, Vec::new()),
        watch: take.or(&key("watch"), raw.watch, WatchMethod::Auto),
        poll: take.or(&key("poll"), raw.poll, Poll::Auto),
        settle: take.or(&key("settle"), raw.settle, None),
        settle_min: take.or(&key("settle_min"), raw.settle_min, Duration::ZERO),
        open_max: take.or(&key("open_max"), raw.open_max, OPEN_MAX),
        lease: take.or(&key("lease"), raw.lease, true),
        scrubbing: Scrubbing {
            every: take.or(&key("verify_every"), raw.verify_every.map(|every| every.map(Some)), None),
            bwlimit: take.or(&key("verify_bwlimit"), raw.verify_bwlimit.map(|table| table.map(Some)), None),
        },
        copies_min: take.or(&key("copies_min"), raw.copies_min, 0),
    })
}

/// The checks that need more than one value at a time, or the whole of one.
fn check(settings: &Settings, origins: &Origins, problems: &mut Vec<Problem>) {
    let mut wrong = |key: &str, message: String| {
        problems.push(Problem::new(origins.get(key).cloned().unwrap_or(Origin::Default), message));
    };
    if !settings.state_dir.as_os_str().is_empty() && !is_plain_absolute(&settings.state_dir) {
        wrong(
            "state_dir",
            format!("`state_dir` must be an absolute path without `..`, not `{}`", settings.state_dir.display()),
        );
    }
    if settings.host.as_deref().is_some_and(|host| host.is_empty() || host.contains(['/', '\0', '\n'])) {
        wrong("host", "`host` must be a name without `/` or line breaks".to_owned());
    }
    if settings.backlog_max == 0 {
        wrong("backlog_max", "`backlog_max` must be at least 1".to_owned());
    }
    if settings.journal.roll_bytes < ROLL_BYTES_MIN {
        wrong("journal.roll_size", "`journal.roll_size` must be at least 1Mi".to_owned());
    }
    if settings.journal.commit_interval > COMMIT_INTERVAL_MAX {
        wrong(
            "journal.commit_interval",
            "`journal.commit_interval` must be at most 1s: until then changes are only in memory".to_owned(),
        );
    }
    if settings.journal.commit_records == 0 {
        wrong("journal.commit_records", "`journal.commit_records` must be at least 1".to_owned());
    }
    for root in &settings.roots {
        let key = |key: &str| format!("roots.{}.{key}", root.name);
        if !is_plain_absolute(&root.path) {
            let message = format!(
                "the path of root `{}` must be absolute and without `..`, not `{}`",
                root.name,
                root.path.display()
            );
            wrong(&key("path"), message);
        }
        for (name, patterns) in [("ignore", &root.ignore), ("unfinished", &root.unfinished)] {
            if let Err(error) = pattern_set(&root.path, patterns) {
                wrong(&key(name), format!("`roots.{}.{name}`: {error}", root.name));
            }
        }
        let holds = |replica: &&ReplicaSpec| replica.roots.is_empty() || replica.roots.contains(&root.name);
        let replicas = settings.replicas.iter().filter(holds).count() as u64;
        if root.copies_min > replicas {
            let message = format!(
                "`roots.{}.copies_min` is {}, and {replicas} replicas hold that root: add replicas, or ask for fewer copies",
                root.name, root.copies_min
            );
            wrong(&key("copies_min"), message);
        }
        if root.watch == WatchMethod::Poll && root.poll == Poll::Off {
            wrong(
                &key("poll"),
                format!("root `{}` would never be looked at: `watch = \"poll\"` with `poll = \"off\"`", root.name),
            );
        }
    }
    overlap::check(&settings.roots, origins, problems);
    replicas::check(&settings.replicas, &settings.roots, origins, problems);
    triggers::check(&settings.triggers, &settings.roots, &settings.replicas, origins, problems);
}

/// Compiles patterns in `.gitignore` syntax.
///
/// # Errors
/// The pattern that cannot be understood, and why.
pub fn pattern_set(root: &Path, patterns: &[String]) -> Result<Gitignore, String> {
    let mut builder = GitignoreBuilder::new(root);
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|error| format!("pattern `{pattern}`: {error}"))?;
    }
    builder.build().map_err(|error| error.to_string())
}

pub(super) fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| part != Component::ParentDir)
}

pub(super) fn is_root_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A name for a root that was given as a directory: its last component, made fit, and numbered if it is taken.
fn name_for(path: &Path, taken: &[RootSettings]) -> String {
    let last = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let fit: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let fit = fit.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let base = if fit.is_empty() { "root" } else { fit };
    let taken: BTreeSet<&str> = taken.iter().map(|root| root.name.as_str()).collect();
    let numbered = (2_u64..).map(|number| format!("{base}-{number}"));
    std::iter::once(base.to_owned()).chain(numbered).find(|name| !taken.contains(name.as_str())).unwrap_or_default()
}

impl RawRoot {
    fn empty(origin: Origin) -> Self {
        RawRoot {
            origin,
            path: None,
            ignore: None,
            unfinished: None,
            watch: None,
            poll: None,
            settle: None,
            settle_min: None,
            open_max: None,
            lease: None,
            verify_every: None,
            verify_bwlimit: None,
            copies_min: None,
        }
    }
}
