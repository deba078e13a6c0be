//! When the journal is synced, and what happens while it cannot be.

use std::time::{Duration, Instant};

use keepwatch_journal::GapReason;

use super::Service;
use crate::daemon::ledger::Ledger;

/// A journal that could not be written is tried again after this time.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Bytes of records that may wait for a disk that is full; beyond it they are dropped and become a gap.
const PENDING_BYTES_MAX: usize = 32 << 20;

/// The state of the group commit.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// Since when the oldest record of the batch waits.
    pub(super) since: Option<Instant>,
    /// Why the journal cannot be written now.
    pub(super) trouble: Option<String>,
    pub(super) retry: Option<Instant>,
    /// Records were dropped: a gap is owed.
    lost: bool,
    /// Somebody waits for what was appended last.
    hurry: bool,
}

impl Commits {
    /// The batch is not to wait for more: whoever asked for its records cannot go on before they are on disk.
    pub(super) fn hurry(&mut self) {
        self.hurry = true;
    }

    /// When the batch is to be synced.
    pub(super) fn due(&self, pending: usize, wait: Duration, now: Instant) -> Option<Instant> {
        if self.trouble.is_some() {
            return self.retry;
        }
        (pending > 0).then(|| self.since.unwrap_or(now) + wait)
    }
}

impl Service {
    /// Syncs the batch if it has waited, or grown, enough.
    pub(super) fn commit_if_due(&mut self, now: Instant) {
        let pending = self.sequencer.ledger.pending();
        if pending == 0 && !self.commits.lost && self.commits.trouble.is_none() {
            self.commits.since = None;
            return;
        }
        let since = *self.commits.since.get_or_insert(now);
        let due = match self.commits.retry {
            Some(retry) => retry <= now,
            None => {
                std::mem::take(&mut self.commits.hurry)
                    || pending >= self.settings.commit_records
                    || now.duration_since(since) >= self.settings.commit_wait
            }
        };
        if due {
            self.commit(now);
        }
        if self.commits.trouble.is_some() && self.sequencer.ledger.writer().pending().1 > PENDING_BYTES_MAX {
            self.drop_pending();
        }
    }

    fn commit(&mut self, now: Instant) {
        if std::mem::take(&mut self.commits.lost) {
            for index in 0..self.roots.len() {
                let note = "records were dropped while the journal could not be written".to_owned();
                let is_there = self.roots[index].present().is_some();
                // What comes back after an absence may be empty without having been emptied.
                let reason = if is_there { GapReason::Journal } else { GapReason::Absent };
                self.open_gap(index, reason, Some(note));
                self.roots[index].scan_wanted = is_there;
            }
        }
        match self.sequencer.ledger.commit() {
            Ok(()) => {
                self.commits.since = None;
                self.commits.retry = None;
                self.sequencer.committed();
                if self.commits.trouble.take().is_some() {
                    tracing::info!("the journal can be written again");
                }
                self.compress_rolled();
            }
            Err(error) => {
                if self.commits.trouble.is_none() {
                    tracing::error!(error = %error, "changes wait in memory until the journal can be written again");
                }
                self.commits.trouble = Some(error.to_string());
                self.commits.retry = Some(now + RETRY_WAIT);
            }
        }
    }

    fn drop_pending(&mut self) {
        tracing::error!("too many records wait for the journal: dropping them; a gap and a scan will follow");
        self.sequencer.ledger.discard();
        self.sequencer.forget_told();
        let head = self.sequencer.ledger.writer().head().seq;
        for root in &mut self.roots {
            root.gap = root.gap.take().filter(|gap| gap.seq <= head);
            for nested in root.nested.values_mut() {
                nested.gap = nested.gap.filter(|gap| *gap <= head);
            }
        }
        self.commits.lost = true;
    }

    /// Compresses journal files that were closed, beside the work.
    pub(super) fn compress_rolled(&mut self) {
        let number = self.sequencer.ledger.writer().file_number();
        if self.compressor.as_ref().is_some_and(|thread| !thread.is_finished()) || self.compressed_up_to == number {
            return;
        }
        if let Some(done) = self.compressor.take() {
            let _ = done.join();
        }
        self.compressed_up_to = number;
        let throw_away = self.mode == super::Mode::Look;
        let (disk, dir) = (std::sync::Arc::clone(&self.disk), self.journal_dir.clone());
        let head = self.sequencer.ledger.writer().head();
        self.compressor = std::thread::Builder::new()
            .name("compress".to_owned())
            .spawn(move || {
                if throw_away {
                    drop_closed(&dir);
                } else if let Err(error) = keepwatch_journal::compress_closed(&*disk, &dir, head) {
                    tracing::warn!(error = %error, "closed journal files stay uncompressed for now");
                }
            })
            .ok();
    }
}

/// Removes all files of a journal that nobody keeps but the newest two.
fn drop_closed(dir: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    for file in files.iter().rev().skip(2) {
        let _ = std::fs::remove_file(file);
    }
}
