//! The reading of one directory: names from `getdents64`, looked at and delivered by the chunk.

use std::mem::MaybeUninit;

use rustix::fs::RawDir;

use super::chunk::{Entries, Seen};
use super::pending::Pending;
use super::visit::{Descend, OpenDir, Outcome, Visitor};
use super::{Options, Summary};

/// A directory that is being read, and what that takes.
pub(super) struct Listing<'r, 'a, V: Visitor> {
    pub(super) visitor: &'r V,
    pub(super) options: &'r Options<'a>,
    pub(super) pending: &'r Pending<'a, V::Token>,
    pub(super) entries: &'r mut Entries,
    pub(super) summary: &'r mut Summary,
    pub(super) dir: OpenDir<'r>,
    pub(super) token: &'r mut V::Token,
    /// Chunks of this directory delivered so far.
    pub(super) chunks: &'r mut u64,
    pub(super) descend: &'r mut Descend<V::Token>,
}

/// How the reading of a directory stopped.
pub(super) enum Stop {
    /// For good.
    Ended(Outcome),
    /// Enough sub-directories wait.
    Paused,
}

/// The walk was cancelled.
struct Cancelled;

impl<V: Visitor> Listing<'_, '_, V> {
    /// Delivers the entries from where the directory's position stands.
    pub(super) fn read(mut self, buffer: &mut [MaybeUninit<u8>]) -> Stop {
        self.entries.clear();
        let (last, stop) = match self.fill(buffer) {
            Ok(Stop::Ended(Outcome::Complete)) => (true, Stop::Ended(Outcome::Complete)),
            Ok(stop) => (false, stop),
            Err(Cancelled) => return Stop::Ended(Outcome::Cancelled),
        };
        let left = !self.entries.is_empty() || (last && *self.chunks == 0);
        if left && self.deliver(last).is_err() {
            return Stop::Ended(Outcome::Cancelled);
        }
        stop
    }

    /// Reads names, delivers full chunks, and leaves those of the last one to be delivered.
    fn fill(&mut self, buffer: &mut [MaybeUninit<u8>]) -> Result<Stop, Cancelled> {
        let mut listed = RawDir::new(self.dir.fd, buffer);
        loop {
            if listed.is_buffer_empty() {
                if self.pending.cancelled() {
                    return Err(Cancelled);
                }
                // Only here: what is left in the buffer would be lost.
                if self.descend.len() >= self.options.subdirs_max.get() {
                    return Ok(Stop::Paused);
                }
            }
            let entry = match listed.next() {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => return Ok(Stop::Ended(Outcome::Failed(error.into()))),
                None => return Ok(Stop::Ended(Outcome::Complete)),
            };
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            if self.entries.len() == self.options.chunk_max.get() {
                self.deliver(false)?;
            }
            self.entries.push(&entry);
        }
    }

    /// Looks at what is in the chunk, and tells the visitor.
    fn deliver(&mut self, last: bool) -> Result<(), Cancelled> {
        if !self.entries.look(self.dir.fd, || self.pending.cancelled()) {
            return Err(Cancelled);
        }
        let chunk = self.entries.chunk(last && *self.chunks == 0);
        for entry in chunk.iter() {
            match entry.seen {
                Seen::There(_) => self.summary.entries += 1,
                Seen::Vanished => self.summary.vanished += 1,
                Seen::Failed(_) => self.summary.failed += 1,
            }
        }
        self.visitor.entries(&self.dir, self.token, &chunk, self.descend);
        *self.chunks += 1;
        self.entries.clear();
        Ok(())
    }
}
