//! What a reconciliation would journal, without journaling it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crossbeam_channel::bounded;
use keepwatch_journal::{RelPath, Via};

use crate::daemon::dirs::RootNo;
use crate::daemon::rules::Rules;
use crate::daemon::scanner::{self, Job, Message, Report, ScanError};
use crate::daemon::sequencer::Difference;
use crate::daemon::service::look_at_top;
use crate::daemon::settings::{RootSettings, Settings};
use crate::daemon::state::inventory_of;
use crate::inventory::View;

/// Messages that may wait.
const MESSAGES_MAX: usize = 8;

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The root is not there.
    #[error("root `{root}` is absent: {why}")]
    Absent {
        /// The root.
        root: String,
        /// Why.
        why: String,
    },
    /// The scan failed.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// Walks a directory of a root, or all of it, beside the inventory and tells of each name that differs: the directory, and
/// the difference in it.
///
/// # Errors
/// [`PreviewError`]. Nothing is changed in any case.
pub fn preview(
    settings: &Settings,
    root: &RootSettings,
    at: &RelPath,
    mut each: impl FnMut(&RelPath, Difference),
) -> Result<Report, PreviewError> {
    let top = look_at_top(&root.path).map_err(|why| PreviewError::Absent { root: root.name.to_string(), why })?;
    let absent =
        |why: &dyn std::fmt::Display| PreviewError::Absent { root: root.name.to_string(), why: why.to_string() };
    let rules = Rules::new(&root.ignore, Vec::new(), &root.unfinished).map_err(|error| absent(&error))?;
    let job = Job {
        no: 0,
        root: RootNo(0),
        name: root.name.clone(),
        top: root.path.clone(),
        object: top.object,
        at: at.clone(),
        via: Via::Scan,
        rules,
        inotify: None,
        doubt_empty: true,
        silent: false,
        threads: settings.scan_threads,
        looked: Arc::default(),
    };
    let (tell, heard) = bounded(MESSAGES_MAX);
    let inventory = Arc::new(inventory_of(&settings.state_dir));
    let (applied, cancel) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let open = Arc::clone(&inventory);
            scanner::run(&job, &move || View::open(&open), &applied, &cancel, &tell);
        });
        loop {
            match heard.recv() {
                Ok(Message::Found(found)) => {
                    for difference in found.differences {
                        each(&found.path, difference);
                    }
                }
                Ok(Message::Done { result, .. }) => return Ok(result?),
                Err(_) => return Err(absent(&"the scan ended without a word")),
            }
        }
    })
}
