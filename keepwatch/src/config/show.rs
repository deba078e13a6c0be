//! The effective settings, as TOML with the origin of each behind it, or as JSON.

use std::fmt::Write as _;

use keepwatch_engine::daemon::settings::Scrubbing;
use keepwatch_engine::daemon::triggers::Then;
use keepwatch_engine::target::TargetUrl;
use serde::Serialize;

use super::Loaded;
use super::packs::PackSettings;
use super::problem::Origin;
use super::replicas::{LayoutKind, ReplicaSpec};
use super::secret::SecretFrom;
use super::settings::{Poll, RootSettings};
use super::triggers::TriggerSpec;
use crate::units::{format_duration, format_size};

/// One setting that is in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// The table it stands in; empty at the top.
    pub section: String,
    /// Its key there.
    pub key: &'static str,
    /// Its value, as it would be written.
    pub value: toml::Value,
    /// Where it came from.
    pub origin: String,
}

/// All settings that are in force, table by table.
#[must_use]
pub fn entries(loaded: &Loaded) -> Vec<Entry> {
    let settings = &loaded.settings;
    let mut list = Lister { loaded, entries: Vec::new() };
    list.add("", "state_dir", settings.state_dir.to_string_lossy().as_ref());
    if let Some(host) = &settings.host {
        list.add("", "host", host.as_str());
    }
    if let Some(group) = &settings.control_group {
        list.add("", "control_group", group.as_str());
    }
    list.add("", "log", settings.log.as_str());
    list.add("", "backlog_max", integer(settings.backlog_max));
    list.add("", "digest", settings.digest.as_str());
    list.add("journal", "roll_size", format_size(settings.journal.roll_bytes));
    list.add("journal", "commit_interval", format_duration(settings.journal.commit_interval));
    list.add("journal", "commit_records", integer(settings.journal.commit_records));
    if let Some(postgres) = &settings.postgres {
        list.add("postgres", "url", postgres.url.as_str());
        if let SecretFrom::File(path) = &postgres.password {
            list.add("postgres", "password_file", path.to_string_lossy().as_ref());
        }
        if let Some(path) = &postgres.ca_file {
            list.add("postgres", "ca_file", path.to_string_lossy().as_ref());
        }
        list.add("postgres", "tls", postgres.tls);
        list.add("postgres", "timeout", format_duration(postgres.timeout));
    }
    for root in &settings.roots {
        list.add_root(root);
    }
    for replica in &settings.replicas {
        list.add_replica(replica);
    }
    for pack in &settings.packs {
        list.add_pack(pack);
    }
    for trigger in &settings.triggers {
        list.add_trigger(trigger);
    }
    list.entries
}

/// As TOML that could be read back, each line with its origin.
#[must_use]
pub fn to_toml(loaded: &Loaded) -> String {
    let entries = entries(loaded);
    let lines: Vec<String> = entries.iter().map(|entry| format!("{} = {}", entry.key, entry.value)).collect();
    let width = lines.iter().map(|line| line.chars().count()).filter(|width| *width <= 48).max().unwrap_or(0);
    let mut text = String::new();
    let mut section = "";
    for (entry, line) in entries.iter().zip(&lines) {
        if entry.section != section {
            section = &entry.section;
            // A list of tables has no names: each has its own in it.
            let _ = match section.strip_prefix("triggers.") {
                Some(_) => writeln!(text, "\n[[triggers]]"),
                None => writeln!(text, "\n[{section}]"),
            };
        }
        let _ = writeln!(text, "{line:width$}  # {}", entry.origin);
    }
    text
}

struct Lister<'a> {
    loaded: &'a Loaded,
    entries: Vec<Entry>,
}

impl Lister<'_> {
    fn add(&mut self, section: &str, key: &'static str, value: impl Into<toml::Value>) {
        let dotted = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        let origin = self.loaded.origins.get(&dotted).unwrap_or(&Origin::Default).to_string();
        // A path with a line break in it must not end the comment that names it.
        let origin = origin.replace(char::is_control, "?");
        self.entries.push(Entry { section: section.to_owned(), key, value: value.into(), origin });
    }

    fn add_replica(&mut self, replica: &ReplicaSpec) {
        let section = format!("replicas.{}", replica.name);
        let first = self.entries.len();
        self.add(&section, "url", replica.url.to_string());
        self.add(&section, "roots", replica.roots.clone());
        self.add(&section, "layout", replica.layout.as_str());
        if replica.layout == LayoutKind::Mirror {
            self.add(&section, "source_prefix", replica.source_prefix.to_string_lossy().as_ref());
            self.add(&section, "target_prefix", replica.target_prefix.to_string_lossy().as_ref());
        }
        let filter = &replica.filter;
        for (key, texts) in [("source_filter", &filter.source_filter), ("source_exclude", &filter.source_exclude)] {
            texts.iter().for_each(|text| self.add(&section, key, text.as_str()));
        }
        if !filter.rules.is_empty() {
            self.add(&section, "filter", filter.rules.clone());
        }
        self.add(&section, "on_delete", replica.on_delete.as_str());
        self.add(&section, "delete_delay", format_duration(replica.delete_delay));
        self.add(&section, "max_delete", format!("{}%", replica.limits.delete_percent_max));
        self.add(&section, "may_empty", replica.limits.may_empty);
        self.add(&section, "trash_keep", format_duration(replica.trash_keep));
        self.add(&section, "transfers", integer(replica.transfers.unwrap_or(replica.url.transfers() as u64)));
        if !replica.hash {
            self.add(&section, "hash", replica.hash);
        }
        if let Some(table) = &replica.bwlimit {
            self.add(&section, "bwlimit", table.to_string());
        }
        if let Some(timeout) = replica.timeout {
            self.add(&section, "timeout", format_duration(timeout));
        }
        if let SecretFrom::File(path) = &replica.secret {
            self.add(&section, "secret_file", path.to_string_lossy().as_ref());
        }
        self.add_ssh(&section, replica);
        self.add_scrubbing(&section, &replica.scrubbing);
        let asked = &replica.aws.asked;
        for (key, text) in [("endpoint", &asked.endpoint), ("region", &asked.region), ("profile", &asked.profile)] {
            text.iter().for_each(|text| self.add(&section, key, text.as_str()));
        }
        if let Some(file) = &asked.credentials_file {
            self.add(&section, "credentials_file", file.to_string_lossy().as_ref());
        }
        self.quote(first, "replicas", &replica.name);
    }

    fn add_ssh(&mut self, section: &str, replica: &ReplicaSpec) {
        let ssh = &replica.ssh;
        if let Some(command) = &replica.ssh_command {
            self.add(section, "ssh_command", command.as_written().to_string_lossy().as_ref());
        }
        for (key, path) in [("ssh_config", &ssh.config), ("identity_file", &ssh.identity)] {
            path.iter().for_each(|path| self.add(section, key, path.to_string_lossy().as_ref()));
        }
        if matches!(replica.url, TargetUrl::Ssh(_)) {
            self.add(section, "far_side", ssh.way.as_str());
        }
    }

    fn add_pack(&mut self, pack: &PackSettings) {
        let section = format!("packs.{}", pack.name);
        let first = self.entries.len();
        self.add(&section, "base", pack.base.to_string_lossy().as_ref());
        self.add(&section, "every", format_duration(pack.every));
        self.add(&section, "rotation", format_duration(pack.rotation));
        if let Some(after) = pack.stale_after {
            self.add(&section, "stale_after", format_duration(after));
        }
        self.add(&section, "part_size", format_size(pack.part_bytes));
        self.add(&section, "part_members", integer(pack.part_members));
        self.quote(first, "packs", &pack.name);
    }

    /// A name that is no bare key of TOML is quoted in its section; the origins are filed under the name itself.
    fn quote(&mut self, first: usize, table: &str, name: &str) {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !name.chars().all(is_bare) {
            let section = format!("{table}.{}", quoted(name));
            self.entries[first..].iter_mut().for_each(|entry| entry.section.clone_from(&section));
        }
    }

    fn add_trigger(&mut self, trigger: &TriggerSpec) {
        let section = format!("triggers.{}", trigger.name);
        let texts = |texts: &[String]| toml::Value::from(texts.to_vec());
        let words: Vec<String> = trigger.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let (rules, pace) = (&trigger.rules, &trigger.pace);
        self.add(&section, "name", trigger.name.as_str());
        self.add(&section, "roots", trigger.roots.clone());
        self.add(&section, "match", texts(&rules.matches));
        self.add(&section, "exclude", texts(&rules.exclude));
        for (key, size) in [("size_min", rules.size_min), ("size_max", rules.size_max)] {
            size.into_iter().for_each(|size| self.add(&section, key, format_size(size)));
        }
        for (key, age) in [("age_min", rules.age_min), ("age_max", rules.age_max)] {
            age.into_iter().for_each(|age| self.add(&section, key, format_duration(age)));
        }
        if !rules.kinds.is_empty() {
            let kinds: Vec<String> = rules.kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
            self.add(&section, "on", kinds);
        }
        self.add(&section, "command", words);
        self.add(&section, "dir", trigger.run_as.dir.to_string_lossy().as_ref());
        for (key, number) in [("user", trigger.run_as.user), ("group", trigger.run_as.group)] {
            number.into_iter().for_each(|number| self.add(&section, key, number.to_string()));
        }
        self.add(&section, "retries", integer(pace.retries.into()));
        self.add(&section, "retry_delay", format_duration(pace.retry_delay));
        self.add(&section, "timeout", format_duration(pace.timeout));
        self.add(&section, "concurrency", integer(pace.concurrency as u64));
        self.add(&section, "ordered", pace.ordered);
        pace.batch.into_iter().for_each(|batch| self.add(&section, "batch", integer(batch as u64)));
        self.add(&section, "existing", trigger.existing.as_str());
        trigger.after.iter().for_each(|name| self.add(&section, "after", format!("copied:{name}")));
        match &trigger.then {
            Some(Then::Move(dir)) => self.add(&section, "then", format!("move:{}", dir.display())),
            Some(Then::Delete) => self.add(&section, "then", "delete"),
            None => {}
        }
        self.add(&section, "claim", trigger.claim);
        if trigger.claim {
            self.add(&section, "claim_timeout", format_duration(trigger.claim_timeout));
        }
        self.add(&section, "ignore_own", trigger.ignore_own);
        self.add(&section, "hash", trigger.hash);
    }

    fn add_scrubbing(&mut self, section: &str, scrubbing: &Scrubbing) {
        if let Some(every) = scrubbing.every {
            self.add(section, "verify_every", format_duration(every));
        }
        if let Some(table) = &scrubbing.bwlimit {
            self.add(section, "verify_bwlimit", table.to_string());
        }
    }

    fn add_root(&mut self, root: &RootSettings) {
        // A name with a dot in it has to be quoted to stay one key; the origins are filed under the bare name.
        let section = format!("roots.{}", root.name);
        let first = self.entries.len();
        self.add(&section, "path", root.path.to_string_lossy().as_ref());
        self.add(&section, "ignore", root.ignore.clone());
        self.add(&section, "unfinished", root.unfinished.clone());
        self.add(&section, "watch", root.watch.as_str());
        let poll = match root.poll {
            Poll::Auto => "auto".to_owned(),
            Poll::Off => "off".to_owned(),
            Poll::Every(interval) => format_duration(interval),
        };
        self.add(&section, "poll", poll);
        self.add(&section, "settle", root.settle.map_or_else(|| "auto".to_owned(), format_duration));
        self.add(&section, "settle_min", format_duration(root.settle_min));
        self.add(&section, "open_max", format_duration(root.open_max));
        self.add(&section, "lease", root.lease);
        self.add_scrubbing(&section, &root.scrubbing);
        self.add(&section, "copies_min", integer(root.copies_min));
        if root.name.contains('.') {
            self.entries[first..].iter_mut().for_each(|entry| entry.section = format!("roots.\"{}\"", root.name));
        }
    }
}

fn quoted(name: &str) -> String {
    toml::Value::from(name).to_string()
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
