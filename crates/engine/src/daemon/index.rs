//! The follower that keeps the shared index: reads the journal from the index's cursor, applies, and tries again for as
//! long as it takes. Nothing waits for it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keepwatch_journal::{Batch, Cursor, Disk, ReadError, Reader, Record, Seq, Tail};

use crate::daemon::replay::is_epoch;
use crate::index::{Index, IndexError, IndexSettings, Stop, Writer};

/// After a failure it is tried again after this time, doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A conflict with another transaction is over soon.
const RETRY_PASSING: Duration = Duration::from_millis(20);
/// Records of a transaction; a commit of the journal is never cut.
const BATCH_RECORDS_MAX: usize = 5_000;
/// So long records wait for others to share a transaction. Longer would save a server with many quiet hosts a few commits a
/// second, and make what people ask older; full batches do not wait at all.
const GATHER: Duration = Duration::from_millis(500);
/// So long it goes on after the journal was closed, if the server answers; the next start catches up.
const FINISH_MAX: Duration = Duration::from_secs(5);
/// Without anything to do it waits this long at once; the journal's end wakes it.
const WAIT_MAX: Duration = Duration::from_secs(3600 * 24);

/// How the index is, for those who ask.
#[derive(Debug, Default)]
pub struct IndexState {
    applied: AtomicU64,
    problems: AtomicU64,
    trouble: RwLock<Option<String>>,
    closing: AtomicBool,
}

impl IndexState {
    /// The last record that the index is known to have.
    #[must_use]
    pub fn applied(&self) -> Seq {
        Seq(self.applied.load(Ordering::Acquire))
    }

    /// Records of which a part was set aside.
    #[must_use]
    pub fn problems(&self) -> u64 {
        self.problems.load(Ordering::Acquire)
    }

    /// Why it does not get on.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, trouble: Option<String>) {
        *self.trouble.write().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// What it takes to follow.
pub struct IndexFollower {
    /// The journal's disk.
    pub disk: Arc<dyn Disk>,
    /// The journal's directory.
    pub journal: PathBuf,
    /// Where the journal ends.
    pub tail: Arc<Tail>,
    /// Where the index is.
    pub settings: IndexSettings,
    /// Who writes.
    pub writer: Writer,
}

/// A follower that runs in a thread of its own.
pub struct IndexThread {
    thread: JoinHandle<()>,
    state: Arc<IndexState>,
    stop: Stop,
}

impl IndexThread {
    /// How it is.
    #[must_use]
    pub fn state(&self) -> &IndexState {
        &self.state
    }

    /// Lets it finish what the server takes at once, then ends it.
    pub fn finish(self) {
        self.state.closing.store(true, Ordering::Release);
        let until = Instant::now() + FINISH_MAX;
        while !self.thread.is_finished() && Instant::now() < until && self.state.trouble().is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.stop.stop();
        let _ = self.thread.join();
    }
}

/// Why the index did not get on.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl IndexFollower {
    /// Starts it.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(self) -> std::io::Result<IndexThread> {
        let state = Arc::new(IndexState::default());
        let stop = Stop::default();
        let run = Run { follower: self, state: Arc::clone(&state), stop: stop.clone() };
        let thread = std::thread::Builder::new().name("index".to_owned()).spawn(|| run.run())?;
        Ok(IndexThread { thread, state, stop })
    }
}

struct Run {
    follower: IndexFollower,
    state: Arc<IndexState>,
    stop: Stop,
}

impl Run {
    fn run(self) {
        let mut wait = RETRY_MIN;
        let mut before = Seq::ZERO;
        let mut told = String::new();
        while let Err(error) = self.follow() {
            if self.is_closing() {
                break;
            }
            let (passing, is_final) = match &error {
                FollowError::Index(error) => (error.is_passing(), error.is_final()),
                FollowError::Read(_) => (false, false),
            };
            let text = error.to_string();
            if is_final {
                tracing::error!(error = %text, "the shared index is not followed any more");
                self.state.tell(Some(text));
                break;
            }
            let applied = self.state.applied();
            if applied > before {
                (wait, before) = (RETRY_MIN, applied);
            }
            if passing && wait < RETRY_MAX {
                tracing::debug!(error = %text, "the shared index is tried again");
                self.pause(RETRY_PASSING);
                wait *= 2;
                continue;
            }
            // The same trouble, again and again, is told once.
            if text == told {
                tracing::debug!(error = %text, "the shared index lags");
            } else {
                tracing::warn!(error = %text, "the shared index lags; it is tried again until it can be reached");
                told.clone_from(&text);
            }
            self.state.tell(Some(text));
            self.pause(wait);
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn follow(&self) -> Result<(), FollowError> {
        let IndexFollower { disk, journal, tail, settings, writer } = &self.follower;
        let mut index = Index::open(settings, writer, |id| is_epoch(journal, id), self.stop.clone())?;
        let mut reader = reader_at(disk, journal, index.cursor())?.following(Arc::clone(tail));
        self.state.applied.store(index.cursor().seq.0, Ordering::Release);
        self.state.problems.store(index.problems()?, Ordering::Release);
        self.state.tell(None);
        let mut next: Option<Batch> = None;
        loop {
            if let Some((records, cursor)) = self.gather(&mut reader, &mut next)? {
                let problems = index.apply(&records, cursor, tail.head().seq)?;
                self.state.applied.store(cursor.seq.0, Ordering::Release);
                self.state.problems.fetch_add(problems, Ordering::AcqRel);
                if self.stop.is_stopped() {
                    return Ok(());
                }
                continue;
            }
            if tail.is_closed() || self.is_closing() {
                return Ok(());
            }
            let _ = tail.wait_past(self.state.applied(), Instant::now() + WAIT_MAX);
        }
    }

    /// The next records, up to some commit of the journal; waits a moment for more where there are few.
    fn gather(&self, reader: &mut Reader, next: &mut Option<Batch>) -> Result<Option<Together>, ReadError> {
        let mut read = |reader: &mut Reader| match next.take() {
            Some(batch) => Ok(Some(batch)),
            None => reader.next_batch(),
        };
        let Some(first) = read(reader)? else { return Ok(None) };
        let until = Instant::now() + GATHER;
        let (mut records, mut cursor) = (Gathered::One(first.records), first.cursor);
        loop {
            let batch = match reader.next_batch()? {
                Some(batch) => batch,
                None if Instant::now() >= until || self.is_closing() || self.follower.tail.is_closed() => break,
                None => {
                    let _ = self.follower.tail.wait_past(cursor.seq, until);
                    continue;
                }
            };
            if records.len() + batch.records.len() > BATCH_RECORDS_MAX {
                *next = Some(batch);
                break;
            }
            cursor = batch.cursor;
            records.add(&batch.records);
        }
        Ok(Some((records.into(), cursor)))
    }

    fn is_closing(&self) -> bool {
        self.state.closing.load(Ordering::Acquire) || self.stop.is_stopped()
    }

    fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.is_closing() {
            std::thread::sleep(Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())));
        }
    }
}

/// A reader of what the index lacks.
fn reader_at(disk: &Arc<dyn Disk>, journal: &std::path::Path, cursor: Cursor) -> Result<Reader, FollowError> {
    if cursor.seq == Seq::ZERO {
        return Ok(Reader::open(Arc::clone(disk), journal, Seq::ZERO)?);
    }
    match Reader::open_at(Arc::clone(disk), journal, cursor) {
        Err(ReadError::Forked { cursor }) => Err(IndexError::Forked { cursor: Box::new(cursor) }.into()),
        opened => Ok(opened?),
    }
}

/// Records of one transaction, and where they end.
type Together = (Arc<Vec<Record>>, Cursor);

/// Records of one commit, shared, or of several, put together.
enum Gathered {
    One(Arc<Vec<Record>>),
    Many(Vec<Record>),
}

impl Gathered {
    fn len(&self) -> usize {
        match self {
            Gathered::One(records) => records.len(),
            Gathered::Many(records) => records.len(),
        }
    }

    fn add(&mut self, more: &[Record]) {
        if let Gathered::One(records) = self {
            *self = Gathered::Many(records.to_vec());
        }
        if let Gathered::Many(records) = self {
            records.extend_from_slice(more);
        }
    }
}

impl From<Gathered> for Arc<Vec<Record>> {
    fn from(gathered: Gathered) -> Self {
        match gathered {
            Gathered::One(records) => records,
            Gathered::Many(records) => Arc::new(records),
        }
    }
}
