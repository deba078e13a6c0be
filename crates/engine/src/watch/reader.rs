//! The thread that empties a kernel queue, as soon as anything is in it, into a [`Feed`].
//!
//! It does nothing else: a stall of a tenth of a second overflows inotify's queue at full write rate. It ends when
//! its [`Reader`] is dropped; if it fails or panics, [`Loss::ReaderDied`](super::Loss::ReaderDied) is its last word.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::retry_on_intr;

use super::Notice;
use super::feed::Feed;

/// How many bytes of events are read at once. A buffer's worth of process descriptors (one an event, of 80 bytes
/// and more) stays well below the usual limit of 1 024 open files.
pub(crate) const READ_MAX: usize = 32 * 1024;

/// So many notices from one read are a storm, and after them the queue is left alone for [`NAP`]: to be woken for every few
/// events would cost their writers, and us, more than the events do.
const STORM: usize = 16;
const NAP: Duration = Duration::from_millis(1);

/// A kernel queue that can be polled and read.
pub(crate) trait Queue: Send + 'static {
    /// What to poll.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Reads one buffer; whether the queue was empty then. `WouldBlock` is no error: it was empty before.
    fn read(&mut self, out: &mut Vec<Notice>) -> io::Result<bool>;
    /// Called when the queue is found empty: lets go of what was held back for what might have come.
    fn drained(&mut self, _now: Instant, _out: &mut Vec<Notice>) {}
    /// When [`Queue::drained`] has something to let go of, even if nothing more comes.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// A running reader thread.
#[derive(Debug)]
pub(crate) struct Reader {
    wishes: Arc<Wishes>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is asked for meanwhile.
#[derive(Debug)]
struct Wishes {
    /// An eventfd that wakes the thread.
    wake: OwnedFd,
    stop: AtomicBool,
    /// The last mark that was asked for.
    mark: AtomicU64,
}

impl Wishes {
    fn wake(&self) {
        // An eventfd takes a one unless its counter is full, which also wakes the thread.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn woken(&self) {
        // There is nothing to read if another wish was heard with the last one.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}

impl Reader {
    /// Starts a thread that moves what comes in `queue` to `feed`.
    pub(crate) fn spawn(name: &str, queue: impl Queue, feed: Feed) -> io::Result<Reader> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let wishes = Arc::new(Wishes { wake, stop: AtomicBool::new(false), mark: AtomicU64::new(0) });
        let heard = Arc::clone(&wishes);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(queue, feed, &heard))?;
        Ok(Reader { wishes, thread: Some(thread) })
    }

    /// Asks for a [`Notice::Reached`] with this number, higher than any before, behind all that has happened by now.
    pub(crate) fn mark(&self, number: u64) {
        self.wishes.mark.fetch_max(number, Ordering::AcqRel);
        self.wishes.wake();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.wishes.stop.store(true, Ordering::Release);
        self.wishes.wake();
        if let Some(thread) = self.thread.take() {
            // Its panics are caught and reported through the feed.
            let _ = thread.join();
        }
    }
}

fn run(mut queue: impl Queue, feed: Feed, wishes: &Wishes) {
    let ended = catch_unwind(AssertUnwindSafe(|| pump(&mut queue, &feed, wishes)));
    let why = match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("it panicked: {}", panic_text(&*panic)),
    };
    // Whether anybody still listens does not matter to a thread that ends here.
    let _ = feed.fail(why);
}

/// Ends with `Ok` when asked to stop or when nobody listens any more.
fn pump(queue: &mut impl Queue, feed: &Feed, wishes: &Wishes) -> io::Result<()> {
    let mut is_storm = false;
    let mut marked = 0;
    loop {
        if is_storm {
            thread::sleep(NAP);
        }
        let timeout = queue.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut polled = [
            PollFd::from_borrowed_fd(wishes.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(queue.fd(), PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut polled, timeout.as_ref()))?;
        let (woken, readable) = (!polled[0].revents().is_empty(), !polled[1].revents().is_empty());
        if woken {
            wishes.woken();
            if wishes.stop.load(Ordering::Acquire) {
                return Ok(());
            }
        }
        // What was asked for by now is behind whatever the queue holds by now.
        let mark = wishes.mark.load(Ordering::Acquire);
        let mut notices = Vec::new();
        let mut is_empty = true;
        if readable || mark > marked {
            match queue.read(&mut notices) {
                Ok(emptied) => is_empty = emptied,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // What was read before it broke is sound.
                    let _ = feed.send(notices);
                    return Err(error);
                }
            }
        } else {
            queue.drained(Instant::now(), &mut notices);
        }
        is_storm = is_empty && notices.len() >= STORM;
        if feed.send(notices).is_err() {
            return Ok(());
        }
        if mark > marked && is_empty && queue.deadline().is_none() {
            marked = mark;
            if feed.mark(mark).is_err() {
                return Ok(());
            }
        } else if mark > marked {
            // Again at once, or when what is held back for its other half is let go of.
            is_storm = false;
            if is_empty {
                thread::sleep(NAP);
                let mut late = Vec::new();
                queue.drained(Instant::now(), &mut late);
                if feed.send(late).is_err() {
                    return Ok(());
                }
            }
            wishes.wake();
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::Loss;
    use crate::watch::feed::{Closed, feed};

    /// A queue that is an eventfd, and does this when there is something to read.
    struct Fake {
        fd: OwnedFd,
        read: fn() -> io::Result<()>,
    }

    impl Queue for Fake {
        fn fd(&self) -> BorrowedFd<'_> {
            self.fd.as_fd()
        }

        fn read(&mut self, out: &mut Vec<Notice>) -> io::Result<bool> {
            rustix::io::read(&self.fd, &mut [0; 8])?;
            out.push(Notice::Lost(Loss::KernelQueue));
            (self.read)().map(|()| true)
        }
    }

    fn notices_of(read: fn() -> io::Result<()>) -> Vec<Notice> {
        let (feed, receiver) = feed(10);
        let fd = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let _reader = Reader::spawn("fake", Fake { fd, read }, feed).unwrap();
        let mut notices = Vec::new();
        while let Ok(more) = receiver.recv() {
            notices.extend(more);
        }
        notices
    }

    #[test]
    fn an_error_is_the_last_word_behind_what_was_read() {
        let died = Loss::ReaderDied("broken".to_owned());
        let expected = [Notice::Lost(Loss::KernelQueue), Notice::Lost(died)];
        assert_eq!(notices_of(|| Err(io::Error::other("broken"))), expected);
    }

    #[test]
    fn a_panic_is_the_last_word() {
        let died = Loss::ReaderDied("it panicked: number 7".to_owned());
        assert_eq!(notices_of(|| panic!("number {}", 7)), [Notice::Lost(died)]);
    }

    #[test]
    fn a_reader_that_is_dropped_ends_without_a_word() {
        let (feed, receiver) = feed(10);
        let fd = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let reader = Reader::spawn("fake", Fake { fd, read: || Ok(()) }, feed).unwrap();
        assert_eq!(receiver.recv().unwrap(), [Notice::Lost(Loss::KernelQueue)]);
        drop(reader);
        assert_eq!(receiver.recv(), Err(Closed));
    }

    #[test]
    fn a_mark_stands_behind_what_happened_before_it_was_asked_for() {
        let (feed, receiver) = feed(10);
        let fd = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let reader = Reader::spawn("fake", Fake { fd, read: || Ok(()) }, feed).unwrap();
        for number in 1..4 {
            reader.mark(number);
            let mut heard = Vec::new();
            while heard.last() != Some(&Notice::Reached(number)) {
                heard.extend(receiver.recv().unwrap());
            }
            assert_eq!(heard.contains(&Notice::Lost(Loss::KernelQueue)), number == 1);
        }
    }
}
