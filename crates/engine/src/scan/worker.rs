//! One thread of a walk: claims a directory, opens it, has it read, passes on its sub-directories.

use std::os::fd::{AsFd, BorrowedFd};

use keepwatch_journal::RelPath;

use super::chunk::Entries;
use super::listing::{Listing, Stop};
use super::look::{open_dir, open_dir_beneath, stat_of};
use super::pending::{Dir, Job, Pending, Reading, Visit};
use super::visit::{Descend, OpenDir, Outcome, Step, Visitor};
use super::{Options, Summary};

/// Bytes that one `getdents64` may fill: about two thousand entries.
const BUFFER_BYTES: usize = 64 * 1024;

/// A thread's own part of a walk: its buffers are used for one directory after the other.
pub(super) struct Worker<'w, 'a, V: Visitor> {
    root: BorrowedFd<'w>,
    visitor: &'w V,
    options: &'w Options<'a>,
    pending: &'w Pending<'a, V::Token>,
    buffer: Vec<u8>,
    entries: Entries,
    summary: Summary,
}

impl<'w, 'a, V: Visitor> Worker<'w, 'a, V> {
    pub(super) fn new(
        root: BorrowedFd<'w>,
        visitor: &'w V,
        options: &'w Options<'a>,
        pending: &'w Pending<'a, V::Token>,
    ) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Worker { root, visitor, options, pending, buffer, entries: Entries::default(), summary: Summary::default() }
    }

    /// Works until nothing is left.
    pub(super) fn run(mut self) -> Summary {
        while let Some((job, _claim)) = self.pending.claim() {
            match job {
                Job::Visit(visit) => self.visit(visit),
                Job::Resume(reading) => {
                    let path = reading.node.path();
                    self.read(reading, &path);
                }
            }
        }
        self.summary.cancelled = self.pending.cancelled();
        self.summary
    }

    fn visit(&mut self, visit: Visit<V::Token>) {
        let Visit { node, parent, mut token } = visit;
        let path = node.path();
        let opened = match (&parent, path.split()) {
            (Some(held), Some((_, name))) => open_dir(held.fd.as_fd(), name),
            _ => open_dir_beneath(self.root, &path),
        };
        // It may have been the last to need it.
        drop(parent);
        match opened.and_then(|fd| stat_of(fd.as_fd()).map(|stat| (fd, stat))) {
            Ok((fd, stat)) => {
                let dir = OpenDir { fd: fd.as_fd(), path: &path, stat, depth: node.depth };
                if self.visitor.enter(&dir, &mut token) == Step::Read {
                    self.read(Reading { node, fd, stat, token, chunks: 0 }, &path);
                }
            }
            Err(error) => {
                self.summary.failed += 1;
                self.visitor.failed(&path, token, error.into());
            }
        }
    }

    /// Reads a directory from where it stands, and pushes the sub-directories to walk.
    fn read(&mut self, mut reading: Reading<V::Token>, path: &RelPath) {
        let mut descend = Descend::new();
        let listing = Listing {
            visitor: self.visitor,
            options: self.options,
            pending: self.pending,
            entries: &mut self.entries,
            summary: &mut self.summary,
            dir: OpenDir { fd: reading.fd.as_fd(), path, stat: reading.stat, depth: reading.node.depth },
            token: &mut reading.token,
            chunks: &mut reading.chunks,
            descend: &mut descend,
        };
        let outcome = match listing.read(self.buffer.spare_capacity_mut()) {
            Stop::Paused => return self.pending.push(Dir::Half(reading), descend),
            Stop::Ended(outcome) => outcome,
        };
        match outcome {
            Outcome::Complete => self.summary.directories += 1,
            Outcome::Failed(_) => self.summary.failed += 1,
            Outcome::Cancelled => {}
        }
        let Reading { node, fd, stat, token, .. } = reading;
        let dir = OpenDir { fd: fd.as_fd(), path, stat, depth: node.depth };
        self.visitor.leave(&dir, token, outcome);
        self.pending.push(Dir::Done(node, fd), descend);
    }
}
