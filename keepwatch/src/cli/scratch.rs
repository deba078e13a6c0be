//! State that nobody keeps: a directory that goes with the command.

use std::path::{Path, PathBuf};

/// A directory of our own that goes with us.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> std::io::Result<Self> {
        let id = keepwatch_journal::JournalId::random();
        let path = std::env::temp_dir().join(format!("keepwatch-{}-{id}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
