//! What a replica's thread is told at its start, and what it can be asked later.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::meter::{Meter, Reading};
use crate::daemon::settings::Scrubbing;
use crate::model::{ReplicaName, RootName};
use crate::sync::filter::{FilterError, FilterText};
use crate::sync::guards::Limits;
use crate::sync::layout::{Layout, LayoutError};
use crate::target::Target;

/// What happens at a replica to a copy whose original is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDelete {
    /// It goes to the trash, and so do versions that are overwritten.
    #[default]
    Trash,
    /// It stays.
    Keep,
    /// It is deleted.
    Delete,
}

impl OnDelete {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OnDelete::Trash => "trash",
            OnDelete::Keep => "keep",
            OnDelete::Delete => "delete",
        }
    }
}

/// A replica.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// Its name.
    pub name: ReplicaName,
    /// Its URL, without secrets.
    pub url: String,
    /// The place.
    pub target: Arc<dyn Target>,
    /// Which roots, and their absolute paths.
    pub roots: Vec<(RootName, PathBuf)>,
    /// Where each goes. The host's name is the state's own, whatever stands here.
    pub layout: Layout,
    /// What of them is held.
    pub filter: FilterText,
    /// What happens when an original is gone.
    pub on_delete: OnDelete,
    /// How long after.
    pub delete_delay: Duration,
    /// How long the trash is kept.
    pub trash_keep: Duration,
    /// What deletes are held to.
    pub limits: Limits,
    /// Files copied at the same time.
    pub transfers: usize,
    /// Whether every file is read and hashed while it is copied. If not, a directory lets the kernel copy it; such a copy is `presumed`
    /// until it is verified.
    pub hash: bool,
    /// How its copies are verified.
    pub scrubbing: Scrubbing,
    /// End when all is there, rather than follow.
    pub once: bool,
    /// To whom the target belongs; `None`: to this state alone.
    pub owner: Option<String>,
    /// Where it says how it gets on.
    pub meter: Arc<Meter>,
}

/// Why a replica cannot be kept as it was written.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Its layout and a root do not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A filter cannot be understood.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Two roots would go to the same place.
    #[error("`{one}` and `{other}` would mix at the target; a shorter source prefix keeps them apart")]
    Mixed {
        /// A root.
        one: RootName,
        /// Another.
        other: RootName,
    },
}

impl ReplicaSettings {
    /// Whether it can be kept, as far as can be told without a look at the target.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn check(&self) -> Result<(), SettingsError> {
        super::kept_roots(self, &self.layout).map(|_| ())
    }
}

/// What a replica can be asked while it is kept.
#[derive(Debug)]
pub enum Wish {
    /// List the target, hold all against all, and try again what failed.
    Sync,
    /// Go on: deletes that wait are judged again, or just meant.
    Resume {
        /// A person said that they are meant.
        allow_deletes: bool,
    },
    /// Take what is at the target's place now for the target.
    Accept,
}

/// A wish, and where its answer goes: how it got on, or why it did not.
#[derive(Debug)]
pub struct Asked {
    /// What.
    pub wish: Wish,
    /// To whom.
    pub done: Sender<Result<Box<Reading>, String>>,
}
