//! The bounded way from a source to the sequencer.
//!
//! A source sends batches of notices; the sequencer opens them. The number of notices in between is capped. Beyond
//! the cap notices are dropped, and exactly one [`Loss::Backlog`] stands where the first of them was. Until the
//! sequencer has come to it nothing more is taken in: all that is dropped meanwhile happened before the scan that
//! the sequencer then starts, so that scan finds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use super::{Loss, Notice};

/// Makes a way that holds at most `backlog_max` notices that have not been opened yet.
#[must_use]
pub fn feed(backlog_max: usize) -> (Feed, FeedReceiver) {
    let state = Arc::new(State::default());
    // The cap on notices bounds the channel, too: no batch in it is empty.
    let (sender, receiver) = crossbeam_channel::unbounded();
    let feed = Feed { sender, state: Arc::clone(&state), backlog_max: backlog_max.max(1) };
    (feed, FeedReceiver { receiver, state })
}

/// What both ends know.
#[derive(Debug, Default)]
struct State {
    /// How many notices are in batches that nobody has opened.
    outstanding: AtomicUsize,
    /// Whether a [`Loss::Backlog`] waits to be opened.
    losing: AtomicBool,
}

/// The other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end of the feed is gone")]
pub struct Closed;

/// The source's end. One source has one feed, so that a loss tells whose notices were lost.
#[derive(Debug)]
pub struct Feed {
    sender: Sender<Batch>,
    state: Arc<State>,
    backlog_max: usize,
}

impl Feed {
    /// Sends what there is room for; what there is no room for becomes one [`Loss::Backlog`].
    ///
    /// # Errors
    /// [`Closed`] if the receiver is gone: the source may end.
    pub fn send(&self, mut notices: Vec<Notice>) -> Result<(), Closed> {
        if notices.is_empty() || self.state.losing.load(Ordering::Acquire) {
            return Ok(());
        }
        let room = self.backlog_max.saturating_sub(self.state.outstanding.load(Ordering::Acquire));
        if notices.len() <= room {
            return self.push(notices, false);
        }
        notices.truncate(room);
        notices.push(Notice::Lost(Loss::Backlog));
        self.state.losing.store(true, Ordering::Release);
        self.push(notices, true)
    }

    /// Sends the last word of a source that cannot go on; the cap does not hold it back.
    ///
    /// # Errors
    /// [`Closed`] if the receiver is gone.
    pub fn fail(self, why: String) -> Result<(), Closed> {
        self.push(vec![Notice::Lost(Loss::ReaderDied(why))], false)
    }

    fn push(&self, notices: Vec<Notice>, ends_in_loss: bool) -> Result<(), Closed> {
        self.state.outstanding.fetch_add(notices.len(), Ordering::AcqRel);
        let batch = Batch { notices, ends_in_loss, state: Arc::clone(&self.state) };
        self.sender.send(batch).map_err(|_| Closed)
    }
}

/// Notices that came together. They count as outstanding until it is opened or dropped.
#[derive(Debug)]
pub struct Batch {
    notices: Vec<Notice>,
    ends_in_loss: bool,
    state: Arc<State>,
}

impl Batch {
    /// Takes the notices out. Room is made before any of them can be acted upon: a scan that answers a loss thus
    /// starts after the feed takes notices in again.
    #[must_use]
    pub fn open(mut self) -> Vec<Notice> {
        self.settle()
    }

    fn settle(&mut self) -> Vec<Notice> {
        let notices = std::mem::take(&mut self.notices);
        self.state.outstanding.fetch_sub(notices.len(), Ordering::AcqRel);
        if std::mem::take(&mut self.ends_in_loss) {
            self.state.losing.store(false, Ordering::Release);
        }
        notices
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        drop(self.settle());
    }
}

/// The sequencer's end.
#[derive(Debug)]
pub struct FeedReceiver {
    receiver: Receiver<Batch>,
    state: Arc<State>,
}

impl FeedReceiver {
    /// Waits for the next notices.
    ///
    /// # Errors
    /// [`Closed`] if the source is gone and all it sent was taken.
    pub fn recv(&self) -> Result<Vec<Notice>, Closed> {
        self.receiver.recv().map(Batch::open).map_err(|_| Closed)
    }

    /// Waits for the next notices, but no longer than `timeout`; then `None`.
    ///
    /// # Errors
    /// [`Closed`] if the source is gone and all it sent was taken.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Vec<Notice>>, Closed> {
        match self.receiver.recv_timeout(timeout) {
            Ok(batch) => Ok(Some(batch.open())),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Closed),
        }
    }

    /// The notices that are there already, if any.
    ///
    /// # Errors
    /// [`Closed`] if the source is gone and all it sent was taken.
    pub fn try_recv(&self) -> Result<Option<Vec<Notice>>, Closed> {
        match self.receiver.try_recv() {
            Ok(batch) => Ok(Some(batch.open())),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Closed),
        }
    }

    /// The channel itself, for `crossbeam_channel::select!`; each batch has to be opened.
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Batch> {
        &self.receiver
    }

    /// How many notices wait to be opened.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.state.outstanding.load(Ordering::Acquire)
    }
}
