//! What a trigger's thread is told at its start, and what it can be asked later.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::meter::Meter;
use crate::model::{RelPath, ReplicaName, RootName, Seq, TriggerName};
use crate::trigger::{RuleError, RuleText, Rules, Subject, Template, WordError};

/// What is done about files that were there before the trigger was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The command runs for them, too.
    #[default]
    Run,
    /// They are left alone until they change.
    Skip,
}

impl Existing {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Existing::Run => "run",
            Existing::Skip => "skip",
        }
    }

    /// The one with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Existing::Run, Existing::Skip].into_iter().find(|existing| existing.as_str() == word)
    }
}

/// What becomes of a file when its command was fine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// It goes to this directory, on the same file system, under its name; where that is taken with `~2` and so on behind it.
    Move(PathBuf),
    /// It is deleted.
    Delete,
}

/// As what and where a command runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunAs {
    /// User; `None`: as the service.
    pub user: Option<u32>,
    /// Group; `None`: as the service.
    pub group: Option<u32>,
    /// Working directory.
    pub dir: PathBuf,
    /// What stands in its environment besides what tells of the file.
    pub environment: Vec<(OsString, OsString)>,
}

/// When and how often it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Further attempts after one that failed.
    pub retries: u32,
    /// After the first of them; doubled each time, up to [`Pace::RETRY_DELAY_MAX`].
    pub retry_delay: Duration,
    /// How long a run may take.
    pub timeout: Duration,
    /// Runs at the same time.
    pub concurrency: usize,
    /// One at a time, in the order in which the files became complete; one that fails holds up the others.
    pub ordered: bool,
    /// Files handed to one run, by their paths on its standard input, each ended by a NUL; `None`: one, by its arguments.
    pub batch: Option<usize>,
}

impl Pace {
    /// No attempt waits longer for the next.
    pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(600);

    /// How long to wait after so many attempts failed.
    #[must_use]
    pub fn wait_after(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        self.retry_delay.saturating_mul(1 << doublings).min(Self::RETRY_DELAY_MAX.max(self.retry_delay))
    }
}

/// A trigger.
#[derive(Clone, Debug)]
pub struct TriggerSettings {
    /// Its name.
    pub name: TriggerName,
    /// Which roots, and their absolute paths.
    pub roots: Vec<(RootName, PathBuf)>,
    /// Which files of them.
    pub rules: RuleText,
    /// The program, by its path, and its arguments with placeholders.
    pub command: Vec<OsString>,
    /// As what and where.
    pub run_as: RunAs,
    /// When and how often.
    pub pace: Pace,
    /// What was there before.
    pub existing: Existing,
    /// Run only when this replica holds the version, by its bytes.
    pub after: Option<ReplicaName>,
    /// What becomes of the file afterwards.
    pub then: Option<Then>,
    /// Whether other hosts watch the same folders, and of all of them one runs: after how long a silence one is held to be over.
    pub claim: Option<Duration>,
    /// Whether what its own commands write is left alone.
    pub ignore_own: bool,
    /// Whether the command is told the SHA-256, even if no argument asks for it.
    pub hash: bool,
    /// A program and its arguments that leads a process group: it waits until its standard input ends, and then ends the group.
    pub holder: Vec<OsString>,
    /// Where it says how it gets on.
    pub meter: Arc<Meter>,
    /// Who hears what each command said, its standard output and its standard error, as far as that is kept.
    pub hears: Option<Sender<(Vec<u8>, Vec<u8>)>>,
}

/// Why a trigger cannot run as it was written.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    /// A pattern cannot be understood.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// An argument cannot be understood.
    #[error(transparent)]
    Word(#[from] WordError),
    /// There is nothing to run.
    #[error("there is no command")]
    NoCommand,
    /// An argument is about one file, and a run is about many.
    #[error("with `batch` the paths come on standard input: no argument can have a placeholder")]
    Batch,
}

/// The settings, understood.
#[derive(Debug)]
pub(super) struct Understood {
    pub(super) rules: Rules,
    pub(super) words: Vec<Template>,
    pub(super) wants_hash: bool,
}

impl TriggerSettings {
    /// Whether it can run, as far as can be told without a look at the world.
    ///
    /// # Errors
    /// [`TriggerError`].
    pub fn check(&self) -> Result<(), TriggerError> {
        self.understand().map(|_| ())
    }

    /// Whether it is about a path of one of its roots, by its name alone.
    ///
    /// # Errors
    /// [`TriggerError`].
    pub fn is_about(&self, root: &RootName, path: &RelPath) -> Result<bool, TriggerError> {
        Ok(self.roots.iter().any(|(name, _)| name == root) && Rules::new(&self.rules)?.match_path(path))
    }

    /// The command for a path of one of its roots, as far as it can be told now: what follows from a version stays open.
    ///
    /// # Errors
    /// [`TriggerError`].
    pub fn filled(&self, root: &RootName, path: &RelPath) -> Result<Vec<OsString>, TriggerError> {
        let top = self.roots.iter().find(|(name, _)| name == root).map(|(_, top)| top.as_path());
        let subject = Subject {
            top: top.unwrap_or(Path::new("/")),
            root: root.as_str(),
            path,
            version: Seq::ZERO,
            key: "KEY",
            sha256: "SHA256",
        };
        Ok(self.understand()?.words.iter().map(|word| word.fill(&subject)).collect())
    }

    pub(super) fn understand(&self) -> Result<Understood, TriggerError> {
        let rules = Rules::new(&self.rules)?;
        let words: Vec<Template> = self.command.iter().map(|word| Template::new(word)).collect::<Result<_, _>>()?;
        if words.is_empty() {
            return Err(TriggerError::NoCommand);
        }
        if self.pace.batch.is_some() && words.iter().any(Template::is_about_a_file) {
            return Err(TriggerError::Batch);
        }
        let wants_hash = self.hash || words.iter().any(|word| word.asks_for("sha256"));
        Ok(Understood { rules, words, wants_hash })
    }
}

/// What a trigger can be asked while it runs. A path may be a directory's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Try again what was given up, or waits for another attempt: at a path, or all.
    Retry(Option<(RootName, RelPath)>),
    /// Do not run for what waits or was given up: at a path, or all.
    Skip(Option<(RootName, RelPath)>),
}

/// A wish, and where its answer goes: how many files it was about.
#[derive(Debug)]
pub struct Asked {
    /// What.
    pub wish: Wish,
    /// To whom.
    pub done: Sender<Result<u64, String>>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_doubled_up_to_a_bound() {
        let pace = Pace {
            retries: 5,
            retry_delay: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            concurrency: 1,
            ordered: false,
            batch: None,
        };
        let waits: Vec<u64> = [1, 2, 3, 10, 11, 99].map(|attempts| pace.wait_after(attempts).as_secs()).into();
        assert_eq!(waits, [1, 2, 4, 512, 600, 600]);
    }
}
