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

    /// Sends a mark; the cap does not hold it back.
    ///
    /// # Errors
    /// [`Closed`] if the receiver is gone.
    pub fn mark(&self, number: u64) -> Result<(), Closed> {
        self.push(vec![Notice::Reached(number)], false)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::{DirKey, Event, Place, What};
    use proptest::prelude::*;

    fn notices(numbers: std::ops::Range<usize>) -> Vec<Notice> {
        numbers.map(notice).collect()
    }

    fn notice(number: usize) -> Notice {
        let place = Place { dir: DirKey(Box::default()), name: number.to_string().into_bytes().into() };
        Notice::Event(Event { place, to: None, what: What::CREATE, is_dir: false, object: None, by: None })
    }

    #[test]
    fn what_fits_comes_through_in_order() {
        let (feed, receiver) = feed(10);
        feed.send(notices(0..6)).unwrap();
        feed.send(notices(6..10)).unwrap();
        assert_eq!(receiver.outstanding(), 10);
        assert_eq!([receiver.recv().unwrap(), receiver.recv().unwrap()].concat(), notices(0..10));
        assert_eq!(receiver.outstanding(), 0);
        assert_eq!(receiver.try_recv(), Ok(None));
        drop(feed);
        assert_eq!(receiver.try_recv(), Err(Closed));
    }

    #[test]
    fn one_loss_stands_where_the_first_was_dropped() {
        let (feed, receiver) = feed(10);
        feed.send(notices(0..8)).unwrap();
        feed.send(notices(8..16)).unwrap();
        feed.send(notices(16..17)).unwrap();
        assert_eq!(receiver.recv().unwrap(), notices(0..8));
        feed.send(notices(17..18)).unwrap();
        let expected = [notices(8..10), vec![Notice::Lost(Loss::Backlog)]].concat();
        assert_eq!(receiver.recv().unwrap(), expected);
        feed.send(notices(18..19)).unwrap();
        assert_eq!(receiver.recv().unwrap(), notices(18..19));
        assert_eq!((receiver.outstanding(), receiver.try_recv()), (0, Ok(None)));
    }

    #[test]
    fn the_last_word_comes_through_a_full_feed() {
        let (feed, receiver) = feed(1);
        feed.send(notices(0..3)).unwrap();
        feed.fail("broken".to_owned()).unwrap();
        assert_eq!(receiver.recv().unwrap(), [notice(0), Notice::Lost(Loss::Backlog)]);
        assert_eq!(receiver.recv().unwrap(), [Notice::Lost(Loss::ReaderDied("broken".to_owned()))]);
        assert_eq!(receiver.recv(), Err(Closed));
    }

    #[test]
    fn a_source_learns_that_nobody_listens() {
        let (feed, receiver) = feed(1);
        drop(receiver);
        assert_eq!(feed.send(notices(0..1)), Err(Closed));
    }

    proptest! {
        /// Sends and receives in any order: what comes out is what went in, in order, with a loss exactly where
        /// something is missing, and never more at once than the cap and that loss.
        #[test]
        fn nothing_is_lost_silently(backlog_max in 1usize..8, steps in prop::collection::vec(0usize..6, 0..60)) {
            let (feed, receiver) = feed(backlog_max);
            let (mut sent, mut heard) = (0, Vec::new());
            for step in steps {
                if step == 0 {
                    heard.extend(receiver.try_recv().unwrap().unwrap_or_default());
                } else {
                    feed.send(notices(sent..sent + step)).unwrap();
                    sent += step;
                }
                prop_assert!(receiver.outstanding() <= backlog_max + 1);
            }
            while let Some(more) = receiver.try_recv().unwrap() {
                heard.extend(more);
            }
            feed.send(vec![notice(sent)]).unwrap();
            heard.extend(receiver.recv().unwrap());
            let mut expected = 0;
            let mut was_loss = false;
            for each in heard {
                if each == Notice::Lost(Loss::Backlog) {
                    prop_assert!(!was_loss);
                    was_loss = true;
                    continue;
                }
                if was_loss {
                    let next = (expected + 1..=sent).find(|number| notice(*number) == each);
                    prop_assert!(next.is_some(), "a loss, but nothing is missing");
                    expected = next.unwrap_or_default();
                }
                prop_assert_eq!(each, notice(expected));
                was_loss = false;
                expected += 1;
            }
            prop_assert_eq!(expected, sent + 1);
        }
    }
}
