//! What a scavenger did.

use std::collections::BTreeSet;

use crate::build::NewMember;
use crate::error::PackError;
use crate::name::{ArchiveName, escape};

/// Of so many renamed members the names are kept.
const RENAMED_MAX: usize = 1000;

/// What one round did.
#[derive(Debug, Default)]
pub struct Report {
    /// Staging files that were claimed.
    pub claimed: u64,
    /// Members that were packed.
    pub members: u64,
    /// Their bytes, as packed.
    pub bytes: u64,
    /// Members that were in their archive already, with the same bytes.
    pub known: u64,
    /// Members whose name was taken by other bytes: the archive, and what they are called there. The first 1000.
    pub renamed: Vec<(String, String)>,
    /// How many of these there were.
    pub renamed_count: u64,
    /// Archives that were changed.
    pub archives: BTreeSet<ArchiveName>,
    /// Bytes that were written to archives, with what was merged.
    pub bytes_written: u64,
    /// What was put into quarantine: the file's name there, and why.
    pub quarantined: Vec<(String, String)>,
    /// Staging files that were left to their writers, who may be alive.
    pub left_open: u64,
    /// What went wrong. What it was about stays staged and is tried again in the next round.
    pub errors: Vec<PackError>,
}

impl Report {
    pub(super) fn packed(&mut self, archive: &ArchiveName, batch: &[NewMember]) {
        self.archives.insert(archive.clone());
        for NewMember { staged, stored_as, .. } in batch {
            self.members += 1;
            self.bytes += staged.content.packed;
            if stored_as != staged.name.member() {
                self.renamed_count += 1;
                if self.renamed.len() < RENAMED_MAX {
                    self.renamed.push((archive.to_string(), escape(stored_as)));
                }
            }
        }
    }

    /// Whether there was nothing to do and nothing went wrong.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.claimed == 0 && self.errors.is_empty() && self.quarantined.is_empty()
    }
}
