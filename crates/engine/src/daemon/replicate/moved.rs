//! Directories that were renamed at the target and below which not all was looked at since: while one was on its way, those below it
//! may have got no attributes, or those of what had taken its place. Kept beside the inventory, so that a start knows them.
//!
//! Like the note of what is on its way this outlives the process, not the machine.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::note::{field, put_field};
use super::round::Paths;
use super::{AtWork, state_file};
use crate::model::{RelPath, ReplicaName};

#[derive(Debug)]
pub(super) struct Moved {
    path: PathBuf,
    trees: Paths,
}

impl Moved {
    /// None so far.
    pub(super) fn of(replica: &ReplicaName, inventory: &Path) -> Self {
        Moved { path: state_file(replica, inventory, "moved"), trees: Paths::new() }
    }

    /// Those that an earlier process left.
    pub(super) fn read(&mut self, work: &AtWork<'_>) {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let mut rest = &bytes[..];
        while let (Some(root), Some(path)) = (field(&mut rest), field(&mut rest)) {
            let root = work.roots.iter().position(|one| one.name.as_str().as_bytes() == root);
            self.trees.extend(root.zip(RelPath::new(path).ok()));
        }
    }

    /// One is about to be renamed to this path.
    pub(super) fn add(&mut self, work: &AtWork<'_>, root: usize, path: &RelPath) {
        if !self.trees.insert((root, path.clone())) {
            return;
        }
        let mut bytes = Vec::new();
        put_field(&mut bytes, work.roots[root].name.as_str().as_bytes());
        put_field(&mut bytes, path.as_bytes());
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path);
        if let Err(error) = file.and_then(|mut file| file.write_all(&bytes)) {
            tracing::debug!(%error, "a renamed directory was not noted");
        }
    }

    /// Whether all below this directory is to be looked at, because one above was renamed.
    pub(super) fn holds(&self, root: usize, path: &RelPath) -> bool {
        if self.trees.is_empty() {
            return false;
        }
        let mut at = path.clone();
        while let Some((above, _)) = at.split() {
            at = RelPath::new(above).unwrap_or_default();
            if self.trees.contains(&(root, at.clone())) {
                return true;
            }
        }
        false
    }

    pub(super) fn trees(&self) -> &Paths {
        &self.trees
    }

    /// All below them was looked at.
    pub(super) fn clear(&mut self) {
        if self.trees.is_empty() {
            return;
        }
        self.trees.clear();
        match OpenOptions::new().write(true).truncate(true).open(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, "the note of renamed directories was not cleared");
            }
            _ => {}
        }
    }
}
