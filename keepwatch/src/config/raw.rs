//! What was written, as it was written: every setting optional, with its place. No defaults and no checks across
//! settings yet; those are [`super::settings`]'.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keepwatch_engine::model::Algorithm;
use keepwatch_engine::target::{TargetUrl, Timetable};
use toml::de::DeTable;

use super::Overrides;
use super::packs::RawPack;
use super::postgres::{PASSWORD_VARIABLE, RawPostgres};
use super::problem::{Origin, Problem, Sourced};
use super::reader::{SourceFile, Table, nearest};
use super::replicas::HTTP_VARIABLE;
use super::replicas::RawReplica;
use super::settings::{LogFormat, Poll, WatchMethod};
use super::triggers::RawTrigger;
use crate::units;

/// Sections of features that this version does not have. They are refused: what is configured and does not run
/// is worse than an error.
const LATER_SECTIONS: [&str; 1] = ["server"];

/// The same within a root.
const LATER_ROOT_KEYS: [&str; 1] = ["open_files"];

/// Variables that triggers set for the commands they run, and that those commands hand on to us.
const TRIGGER_VARIABLES: [&str; 6] =
    ["KEEPWATCH_PATH", "KEEPWATCH_ROOT", "KEEPWATCH_SEQ", "KEEPWATCH_TRIGGER", "KEEPWATCH_KEY", "KEEPWATCH_SHA256"];

/// Variables that set something.
const VARIABLES: [&str; 11] = [
    "KEEPWATCH_CONFIG",
    "KEEPWATCH_STATE_DIR",
    "KEEPWATCH_HOST",
    "KEEPWATCH_CONTROL_GROUP",
    "KEEPWATCH_LOG",
    "KEEPWATCH_BACKLOG_MAX",
    "KEEPWATCH_JOURNAL_ROLL_SIZE",
    "KEEPWATCH_JOURNAL_COMMIT_INTERVAL",
    "KEEPWATCH_JOURNAL_COMMIT_RECORDS",
    PASSWORD_VARIABLE,
    HTTP_VARIABLE,
];

/// All that was written, later sources over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct RawConfig {
    /// `state_dir`.
    pub state_dir: Option<Sourced<PathBuf>>,
    /// `host`.
    pub host: Option<Sourced<String>>,
    /// `control_group`.
    pub control_group: Option<Sourced<String>>,
    /// `log`.
    pub log: Option<Sourced<LogFormat>>,
    /// `backlog_max`.
    pub backlog_max: Option<Sourced<u64>>,
    /// `journal.roll_size`.
    pub roll_size: Option<Sourced<u64>>,
    /// `journal.commit_interval`.
    pub commit_interval: Option<Sourced<Duration>>,
    /// `journal.commit_records`.
    pub commit_records: Option<Sourced<u64>>,
    /// `digest`.
    pub digest: Option<Sourced<Algorithm>>,
    /// `[postgres]`.
    pub postgres: Option<RawPostgres>,
    /// `[roots.NAME]`.
    pub roots: BTreeMap<String, RawRoot>,
    /// `[replicas.NAME]`.
    pub replicas: BTreeMap<String, RawReplica>,
    /// `[packs.NAME]`.
    pub packs: BTreeMap<String, RawPack>,
    /// `[[triggers]]`.
    pub triggers: Vec<RawTrigger>,
    /// `--root DIR`, absolute.
    pub flag_roots: Vec<PathBuf>,
    /// `--replica URL`, its places absolute.
    pub flag_replicas: Vec<TargetUrl>,
}

/// One `[roots.NAME]`.
#[derive(Clone, Debug)]
pub struct RawRoot {
    /// Where its section begins.
    pub origin: Origin,
    /// `path`.
    pub path: Option<Sourced<PathBuf>>,
    /// `ignore`.
    pub ignore: Option<Sourced<Vec<String>>>,
    /// `unfinished`.
    pub unfinished: Option<Sourced<Vec<String>>>,
    /// `watch`.
    pub watch: Option<Sourced<WatchMethod>>,
    /// `poll`.
    pub poll: Option<Sourced<Poll>>,
    /// `settle`; `None` within: by the kind of file system.
    pub settle: Option<Sourced<Option<Duration>>>,
    /// `settle_min`.
    pub settle_min: Option<Sourced<Duration>>,
    /// `open_max`.
    pub open_max: Option<Sourced<Duration>>,
    /// `lease`.
    pub lease: Option<Sourced<bool>>,
    /// `verify_every`.
    pub verify_every: Option<Sourced<Duration>>,
    /// `verify_bwlimit`.
    pub verify_bwlimit: Option<Sourced<Timetable>>,
    /// `copies_min`.
    pub copies_min: Option<Sourced<u64>>,
}

impl RawConfig {
    /// Lays one file over what is there.
    pub fn read_file(&mut self, path: &Path, text: &str, problems: &mut Vec<Problem>) {
        let file = SourceFile { path, text };
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What stands behind a syntax error may mean anything, so the rest of this file is not judged.
            problems.extend(
                errors
                    .iter()
                    .map(|error| Problem::new(file.origin(error.span().map_or(0, |span| span.start)), error.message())),
            );
            return;
        }
        let mut top = Table::top(file, document.get_ref());
        set(&mut self.state_dir, top.string("state_dir", problems).map(|dir| dir.map(PathBuf::from)));
        set(&mut self.host, top.string("host", problems));
        set(&mut self.control_group, top.string("control_group", problems));
        set(&mut self.log, top.parsed("log", problems, LogFormat::parse));
        set(&mut self.backlog_max, top.count("backlog_max", problems));
        set(&mut self.digest, top.parsed("digest", problems, parse_digest));
        if let Some(mut journal) = top.table("journal", problems) {
            set(&mut self.roll_size, journal.size("roll_size", problems));
            set(&mut self.commit_interval, journal.duration("commit_interval", problems));
            set(&mut self.commit_records, journal.count("commit_records", problems));
            journal.finish(&[], problems);
        }
        if let Some((postgres, origin)) = top.table_with_origin("postgres", problems) {
            self.postgres = Some(RawPostgres::read(origin, postgres, problems));
        }
        if let Some(roots) = top.table("roots", problems) {
            for (name, table) in roots.children(problems) {
                self.add_root(name, table, problems);
            }
        }
        if let Some(replicas) = top.table("replicas", problems) {
            for (name, table) in replicas.children(problems) {
                let replica = RawReplica::read(name.origin.clone(), table, problems);
                if let Some(first) = self.replicas.get(&name.value) {
                    let message = format!("replica `{}` is defined twice, first at {}", name.value, first.origin);
                    problems.push(Problem::new(name.origin, message).hint("give one of them another name"));
                    continue;
                }
                self.replicas.insert(name.value, replica);
            }
        }
        if let Some(packs) = top.table("packs", problems) {
            for (name, table) in packs.children(problems) {
                let pack = RawPack::read(name.origin.clone(), table, problems);
                if let Some(first) = self.packs.get(&name.value) {
                    let message = format!("pack `{}` is defined twice, first at {}", name.value, first.origin);
                    problems.push(Problem::new(name.origin, message).hint("give one of them another name"));
                    continue;
                }
                self.packs.insert(name.value, pack);
            }
        }
        for (trigger, origin) in top.tables("triggers", problems) {
            self.triggers.push(RawTrigger::read(origin, trigger, problems));
        }
        top.finish(&LATER_SECTIONS, problems);
    }

    fn add_root(&mut self, name: Sourced<String>, mut table: Table<'_>, problems: &mut Vec<Problem>) {
        let root = RawRoot {
            origin: name.origin,
            path: table.string("path", problems).map(|path| path.map(PathBuf::from)),
            ignore: table.strings("ignore", problems),
            unfinished: table.strings("unfinished", problems),
            watch: table.parsed("watch", problems, WatchMethod::parse),
            poll: table.parsed("poll", problems, Poll::parse),
            settle: table.parsed("settle", problems, |text| match text {
                "auto" => Ok(None),
                text => units::parse_duration(text).map(Some),
            }),
            settle_min: table.duration("settle_min", problems),
            open_max: table.duration("open_max", problems),
            lease: table.boolean("lease", problems),
            verify_every: table.duration("verify_every", problems),
            verify_bwlimit: table.parsed("verify_bwlimit", problems, Timetable::parse),
            copies_min: table.count("copies_min", problems),
        };
        table.finish(&LATER_ROOT_KEYS, problems);
        // Two files that each define the root would otherwise win or lose by their names.
        if let Some(first) = self.roots.get(&name.value) {
            let message = format!("root `{}` is defined twice, first at {}", name.value, first.origin);
            problems.push(Problem::new(root.origin, message).hint("give one of them another name"));
            return;
        }
        self.roots.insert(name.value, root);
    }

    /// Lays the `KEEPWATCH_*` variables over what is there. An unknown one is a problem, as a key in a file is.
    pub fn read_environment(&mut self, vars: &BTreeMap<String, OsString>, problems: &mut Vec<Problem>) {
        for (name, value) in vars {
            let origin = Origin::Variable(name.clone());
            let Some(text) = value.to_str() else {
                problems.push(Problem::new(origin, "the value is not UTF-8"));
                continue;
            };
            let set = match name.as_str() {
                "KEEPWATCH_CONFIG" => Ok(()),
                "KEEPWATCH_STATE_DIR" => parse_into(&mut self.state_dir, &origin, text, |t| Ok(PathBuf::from(t))),
                "KEEPWATCH_HOST" => parse_into(&mut self.host, &origin, text, |t| Ok(t.to_owned())),
                "KEEPWATCH_CONTROL_GROUP" => parse_into(&mut self.control_group, &origin, text, |t| Ok(t.to_owned())),
                "KEEPWATCH_LOG" => parse_into(&mut self.log, &origin, text, LogFormat::parse),
                "KEEPWATCH_BACKLOG_MAX" => parse_into(&mut self.backlog_max, &origin, text, parse_count),
                "KEEPWATCH_JOURNAL_ROLL_SIZE" => parse_into(&mut self.roll_size, &origin, text, parse_size),
                "KEEPWATCH_JOURNAL_COMMIT_INTERVAL" => parse_into(&mut self.commit_interval, &origin, text, |t| {
                    units::parse_duration(t).map_err(|error| error.to_string())
                }),
                "KEEPWATCH_JOURNAL_COMMIT_RECORDS" => parse_into(&mut self.commit_records, &origin, text, parse_count),
                // Read where it is needed; it is kept nowhere else.
                PASSWORD_VARIABLE | HTTP_VARIABLE => Ok(()),
                other if TRIGGER_VARIABLES.contains(&other) => Ok(()),
                other => {
                    let problem = Problem::new(origin.clone(), "no setting has this name");
                    problems.push(match nearest(other, VARIABLES.into_iter()) {
                        Some(known) => problem.hint(format!("did you mean `{known}`?")),
                        None => problem.hint(format!("known variables: {}", VARIABLES.join(", "))),
                    });
                    Ok(())
                }
            };
            if let Err(message) = set {
                problems.push(Problem::new(origin, message));
            }
        }
    }

    /// Lays the flags over what is there.
    pub fn read_flags(&mut self, overrides: &Overrides, problems: &mut Vec<Problem>) {
        let state_dir = overrides.state_dir.as_ref().and_then(|dir| absolute(dir, "--state-dir", problems));
        set(&mut self.state_dir, state_dir.map(|value| Sourced { value, origin: Origin::Flag("--state-dir") }));
        set(&mut self.log, overrides.log.map(|value| Sourced { value, origin: Origin::Flag("--log") }));
        self.flag_roots = overrides.roots.iter().filter_map(|dir| absolute(dir, "--root", problems)).collect();
        for text in &overrides.replicas {
            let here = std::path::absolute(".").unwrap_or_else(|_| PathBuf::from("/"));
            match TargetUrl::parse(OsStr::new(text), &here) {
                Ok(url) => self.flag_replicas.push(url),
                Err(error) => problems.push(Problem::new(Origin::Flag("--replica"), error.to_string())),
            }
        }
    }
}

/// A path of the command line, made absolute without a look at the disk.
fn absolute(path: &Path, flag: &'static str, problems: &mut Vec<Problem>) -> Option<PathBuf> {
    match std::path::absolute(path) {
        Ok(path) => Some(path),
        Err(error) => {
            problems.push(Problem::new(Origin::Flag(flag), format!("`{}`: {error}", path.display())));
            None
        }
    }
}

fn set<T>(slot: &mut Option<Sourced<T>>, value: Option<Sourced<T>>) {
    if value.is_some() {
        *slot = value;
    }
}

fn parse_into<T>(
    slot: &mut Option<Sourced<T>>,
    origin: &Origin,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(), String> {
    *slot = Some(Sourced { value: parse(text)?, origin: origin.clone() });
    Ok(())
}

fn parse_digest(text: &str) -> Result<Algorithm, String> {
    Algorithm::from_word(text).ok_or_else(|| format!("`{text}` is no digest: use \"sha256\" or \"blake3\""))
}

fn parse_count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is no whole number"))
}

fn parse_size(text: &str) -> Result<u64, String> {
    units::parse_size(text).map_err(|error| error.to_string())
}
