//! `[packs.NAME]`: bases whose staged members the service brings into archives.

use std::path::PathBuf;
use std::time::Duration;

use keepwatch_pack::{Limits, ScavengeOptions};

use super::problem::{Origin, Problem, Sourced};
use super::reader::Table;
use super::settings::{Taker, is_plain_absolute};

/// A round begins so long after the last one ended.
const EVERY: Duration = Duration::from_secs(300);

/// One `[packs.NAME]` as it was written.
#[derive(Clone, Debug)]
pub struct RawPack {
    /// Where its section begins.
    pub origin: Origin,
    /// `base`.
    pub base: Option<Sourced<PathBuf>>,
    /// `every`.
    pub every: Option<Sourced<Duration>>,
    /// `rotation`.
    pub rotation: Option<Sourced<Duration>>,
    /// `stale_after`.
    pub stale_after: Option<Sourced<Duration>>,
    /// `part_size`.
    pub part_size: Option<Sourced<u64>>,
    /// `part_members`.
    pub part_members: Option<Sourced<u64>>,
}

/// A base whose staged members are brought into archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSettings {
    /// Its name in the log.
    pub name: String,
    /// The directory that the archives are in.
    pub base: PathBuf,
    /// The time between two rounds.
    pub every: Duration,
    /// The rotation of the workers.
    pub rotation: Duration,
    /// What has not changed for so long is taken from writers that cannot be asked; `None`: by the rotation.
    pub stale_after: Option<Duration>,
    /// A part of an archive has at most so many bytes.
    pub part_bytes: u64,
    /// And at most so many members.
    pub part_members: u64,
}

impl RawPack {
    /// Reads the section.
    #[must_use]
    pub fn read(origin: Origin, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Self {
        let raw = RawPack {
            origin,
            base: table.string("base", problems).map(|path| path.map(PathBuf::from)),
            every: table.duration("every", problems),
            rotation: table.duration("rotation", problems),
            stale_after: table.duration("stale_after", problems),
            part_size: table.size("part_size", problems),
            part_members: table.count("part_members", problems),
        };
        table.finish(&[], problems);
        raw
    }

    /// Fills in the defaults and checks the section.
    pub(super) fn validate(
        self,
        name: &str,
        take: &mut Taker<'_>,
        problems: &mut Vec<Problem>,
    ) -> Option<PackSettings> {
        let Some(base) = self.base else {
            let hint = format!("add to [packs.{name}]: base = \"/…\"");
            problems.push(Problem::new(self.origin, format!("pack `{name}` has no base")).hint(hint));
            return None;
        };
        if !is_plain_absolute(&base.value) {
            let shown = base.value.display();
            let message = format!("the base of pack `{name}` must be absolute and without `..`, not `{shown}`");
            problems.push(Problem::new(base.origin.clone(), message));
        }
        for (key, value) in [("part_size", &self.part_size), ("part_members", &self.part_members)] {
            if let Some(zero) = value.as_ref().filter(|value| value.value == 0) {
                problems.push(Problem::new(zero.origin.clone(), format!("`packs.{name}.{key}` must be at least 1")));
            }
        }
        if let Some(every) = self.every.as_ref().filter(|every| every.value.is_zero()) {
            problems
                .push(Problem::new(every.origin.clone(), format!("`packs.{name}.every` must be more than nothing")));
        }
        let key = |key: &str| format!("packs.{name}.{key}");
        let (defaults, limits) = (ScavengeOptions::default(), Limits::default());
        Some(PackSettings {
            name: name.to_owned(),
            base: take.or(&key("base"), Some(base), PathBuf::new()),
            every: take.or(&key("every"), self.every, EVERY),
            rotation: take.or(&key("rotation"), self.rotation, defaults.rotation),
            stale_after: take.or(&key("stale_after"), self.stale_after.map(|after| after.map(Some)), None),
            part_bytes: take.or(&key("part_size"), self.part_size, limits.bytes),
            part_members: take.or(&key("part_members"), self.part_members, limits.members),
        })
    }
}

impl PackSettings {
    /// What the scavenger is told.
    #[must_use]
    pub fn options(&self) -> ScavengeOptions {
        ScavengeOptions {
            rotation: self.rotation,
            stale_after: self.stale_after,
            limits: Limits { bytes: self.part_bytes, members: self.part_members, ..Limits::default() },
            ..ScavengeOptions::default()
        }
    }
}
