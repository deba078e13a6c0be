//! The sources of events: one fanotify group and one inotify instance at most, started when a root needs them.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Receiver;
use rustix::fs::{Mode, OFlags, open};

use super::root::with_source;
use crate::watch::fanotify::Fanotify;
use crate::watch::feed::{Batch, FeedReceiver, feed};
use crate::watch::inotify::Inotify;
use crate::watch::process::Groups;
use crate::watch::{Loss, Notice};

/// The sources.
#[derive(Default)]
pub(super) struct Sources {
    fanotify: Option<(Fanotify, FeedReceiver)>,
    inotify: Option<(Arc<Inotify>, FeedReceiver)>,
    backlog_max: usize,
    own: Vec<PathBuf>,
    groups: Arc<Groups>,
    /// The last mark that was asked of fanotify. Those of inotify are odd.
    marks: u64,
}

impl Sources {
    /// None started. What is done in the directories `own` is ours.
    pub(super) fn new(backlog_max: usize, own: Vec<PathBuf>) -> Self {
        Sources { backlog_max, own, ..Sources::default() }
    }

    /// In which process groups those are who are told of.
    pub(super) fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups)
    }

    /// Marks the file system that `dir` lies on, and `dir` itself.
    pub(super) fn mark(&mut self, dir: BorrowedFd<'_>) -> Result<(), String> {
        if self.fanotify.is_none() {
            let (sender, receiver) = feed(self.backlog_max);
            let fanotify = Fanotify::start(sender, Arc::clone(&self.groups)).map_err(|error| with_source(&error))?;
            self.fanotify = Some((fanotify, receiver));
            self.ignore_own();
        }
        match &self.fanotify {
            Some((fanotify, _)) => fanotify
                .mark_filesystem(dir)
                .and_then(|()| fanotify.mark_itself(dir))
                .map_err(|error| with_source(&error)),
            None => Ok(()),
        }
    }

    /// Without this every record would make events that make records.
    fn ignore_own(&self) {
        let Some((fanotify, _)) = &self.fanotify else { return };
        for path in &self.own {
            let ignored = open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| error.to_string())
                .and_then(|dir| fanotify.ignore_dir(dir.as_fd()).map_err(|error| with_source(&error)));
            if let Err(error) = ignored {
                tracing::debug!(path = %path.display(), error, "own directory is filtered by path instead");
            }
        }
    }

    /// Nobody need hear of what is done in this directory. Where that cannot be, it is heard, and lies in no root.
    pub(super) fn ignore(&self, dir: BorrowedFd<'_>) {
        if let Some((fanotify, _)) = &self.fanotify
            && let Err(error) = fanotify.ignore_dir(dir)
        {
            tracing::debug!(error = with_source(&error), "what a replica takes in is heard of");
        }
    }

    pub(super) fn start_inotify(&mut self) -> Result<(), String> {
        if self.inotify.is_none() {
            let (sender, receiver) = feed(self.backlog_max);
            let inotify = Inotify::start(sender).map_err(|error| with_source(&error))?;
            self.inotify = Some((Arc::new(inotify), receiver));
        }
        Ok(())
    }

    pub(super) fn inotify(&self) -> Option<Arc<Inotify>> {
        self.inotify.as_ref().map(|(inotify, _)| Arc::clone(inotify))
    }

    pub(super) fn fanotify_events(&self) -> Option<&Receiver<Batch>> {
        self.fanotify.as_ref().map(|(_, receiver)| receiver.receiver())
    }

    pub(super) fn inotify_events(&self) -> Option<&Receiver<Batch>> {
        self.inotify.as_ref().map(|(_, receiver)| receiver.receiver())
    }

    /// Asks every source for a mark behind all that has happened by now; gives their numbers.
    pub(super) fn mark_now(&mut self) -> Vec<u64> {
        self.marks += 2;
        let (of_fanotify, of_inotify) = (self.marks, self.marks + 1);
        let mut numbers = Vec::new();
        if let Some((fanotify, _)) = &self.fanotify {
            fanotify.mark_now(of_fanotify);
            numbers.push(of_fanotify);
        }
        if let Some((inotify, _)) = &self.inotify {
            inotify.mark_now(of_inotify);
            numbers.push(of_inotify);
        }
        numbers
    }

    /// Whether a mark is reached with another: it is of the same source, and not later.
    pub(super) fn is_reached(mark: u64, reached: u64) -> bool {
        mark % 2 == reached % 2 && mark <= reached
    }

    /// Events that wait.
    pub(super) fn outstanding(&self) -> usize {
        let fanotify = self.fanotify.as_ref().map_or(0, |(_, receiver)| receiver.outstanding());
        fanotify + self.inotify.as_ref().map_or(0, |(_, receiver)| receiver.outstanding())
    }

    /// What waits, all of it.
    pub(super) fn drain(&self) -> Vec<Vec<Notice>> {
        let receivers = [self.fanotify_events(), self.inotify_events()];
        receivers.into_iter().flatten().flat_map(|receiver| receiver.try_iter().map(Batch::open)).collect()
    }

    /// Ends those whose reader died; the roots start them again.
    pub(super) fn restart(&mut self) {
        self.fanotify = None;
        self.inotify = None;
    }

    pub(super) fn stop(&mut self) {
        self.restart();
    }

    /// A source whose channel closed without a word has lost its reader.
    pub(super) fn closed() -> Notice {
        Notice::Lost(Loss::ReaderDied("the reader ended".to_owned()))
    }
}

/// The directories of a state directory in which files change while it works.
pub(super) fn own_dirs(state: &Path) -> Vec<PathBuf> {
    vec![state.to_owned(), state.join("journal")]
}
