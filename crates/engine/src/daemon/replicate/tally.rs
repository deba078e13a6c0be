//! How many copies were taken away in the last hour, kept beside the inventory so that a restart does not begin to count anew.
//!
//! Working state: what is lost with the machine is counted from nothing again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::model::ReplicaName;
use crate::sync::guards::{Deletes, WINDOW};

/// Bytes of one entry: seconds since 1970 UTC and a count, each a `u64`, little-endian.
const ENTRY: usize = 16;

/// The count of one replica, and its file.
#[derive(Debug)]
pub(super) struct Tally {
    path: PathBuf,
    pub(super) deletes: Deletes,
}

impl Tally {
    /// Beside the inventory, as it was left.
    pub(super) fn of(replica: &ReplicaName, inventory: &Path) -> Self {
        let path = super::state_file(replica, inventory, "deletes");
        let (now, wall_s) = (Instant::now(), since_1970_s());
        let mut deletes = Deletes::default();
        let bytes = fs::read(&path).unwrap_or_default();
        for entry in bytes.chunks_exact(ENTRY) {
            let (at, count) = entry.split_at(ENTRY / 2);
            let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
            // What seems to lie ahead, by a clock that was set back, is as if it were of now.
            let age = Duration::from_secs(wall_s.saturating_sub(number(at)));
            if let Some(at) = now.checked_sub(age).filter(|_| age <= WINDOW) {
                deletes.done(number(count), at);
            }
        }
        Tally { path, deletes }
    }

    /// So many went.
    pub(super) fn done(&mut self, count: u64) {
        let now = Instant::now();
        self.deletes.done(count, now);
        let wall_s = since_1970_s();
        let mut bytes = Vec::new();
        for (at, count) in self.deletes.within_the_hour(now) {
            let age_s = now.saturating_duration_since(at).as_secs();
            bytes.extend_from_slice(&wall_s.saturating_sub(age_s).to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        let fresh = self.path.with_extension("fresh");
        if let Err(error) = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, &self.path)) {
            tracing::debug!(%error, "the count of deletes was not kept");
        }
    }
}

fn since_1970_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_goes_on_counting() {
        let dir = tempfile::tempdir().unwrap();
        let (name, inventory) = (ReplicaName::new("vault"), dir.path().join("inventory.db"));
        let mut tally = Tally::of(&name, &inventory);
        assert!(tally.deletes.are_few(100));
        tally.done(60);
        tally.done(30);
        let again = Tally::of(&name, &inventory);
        assert!(again.deletes.are_few(10) && !again.deletes.are_few(11));
        // Of an hour ago, and torn.
        let old = (since_1970_s() - 3_700).to_le_bytes();
        fs::write(&again.path, [&old[..], &77_u64.to_le_bytes(), &[1, 2, 3]].concat()).unwrap();
        assert!(Tally::of(&name, &inventory).deletes.are_few(100));
        let other = Tally::of(&ReplicaName::new("other"), &inventory);
        assert!(other.deletes.are_few(100));
    }
}
