//! The one writer of a journal: batches in memory, made durable with one write and one `fdatasync` each.
//!
//! A file whose write or sync failed is poisoned for ever: what the disk holds of it is not known, and trying again
//! would prove nothing. The next commit opens a new file whose header says where the old one validly ends, and writes
//! the waiting records there.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskError, DiskFile, During as _};
use crate::files::{self, Entry, Place};
use crate::format::{Commit, Header};
use crate::record::{Body, Extra, Record};
use crate::recovery::{self, OpenError, Recovery, Resume};
use crate::tail::{Batch, Tail};
use crate::time::Day;
use crate::value::{ChainHash, Cursor, JournalId, Seq, Timestamp};

/// A batch is closed at this size, so that a reader never has to hold much more.
const BATCH_BYTES: usize = 16 << 20;

/// How a journal is to be written.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// The host's name, for the headers.
    pub host: String,
    /// A file that would grow beyond this is closed first.
    pub roll_bytes: u64,
    /// How much room is reserved at a time, so that a sync need not write the file's length. 0: none.
    pub prealloc_bytes: u64,
    /// How much text of recent batches is kept in memory for followers.
    pub tail_bytes: usize,
    /// What the journal has to hold to be opened: the cursor of somebody who followed it.
    pub holds: Option<Cursor>,
}

impl WriterOptions {
    /// The defaults: 1 GiB a file, 16 MiB of room, 8 MiB of recent batches.
    #[must_use]
    pub fn new(host: impl Into<String>) -> Self {
        WriterOptions {
            host: host.into(),
            roll_bytes: 1 << 30,
            prealloc_bytes: 16 << 20,
            tail_bytes: 8 << 20,
            holds: None,
        }
    }
}

/// Why a commit failed. The records wait; the next commit opens a new file.
#[derive(Debug, thiserror::Error)]
#[error("{0}; the records wait in memory, the next commit begins a new file")]
pub struct CommitError(#[from] pub DiskError);

/// Writes a journal.
pub struct Writer {
    place: Place,
    options: WriterOptions,
    tail: Arc<Tail>,
    head: Cursor,
    /// The seq of the last record that was appended.
    last: Seq,
    /// When the last record was appended.
    last_at: Timestamp,
    pending: VecDeque<Pending>,
    file: Option<OpenFile>,
    /// The number of the last file that was opened, or tried.
    number: u64,
}

/// Records that no commit line closes yet.
#[derive(Default)]
struct Pending {
    text: Vec<u8>,
    records: Vec<Record>,
}

/// The file that is written to.
struct OpenFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    day: Day,
    number: u64,
    end: u64,
    allocated: u64,
    /// The header, as long as no commit line covers it.
    uncovered: Vec<u8>,
    /// It was the only place of the journal's id when it was made, so it stays even if nothing in it counts.
    holds_id: bool,
}

impl Writer {
    /// Opens the journal in `dir` (its parent exists), or begins one; `at` is the time now.
    ///
    /// # Errors
    /// [`OpenError::Damaged`], [`OpenError::Newer`], [`OpenError::Forked`] and [`OpenError::Missing`], with nothing changed; [`OpenError::Disk`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        at: Timestamp,
        options: WriterOptions,
    ) -> Result<(Writer, Recovery), OpenError> {
        let place = Place { disk, dir: dir.to_owned() };
        if let Some(cursor) = options.holds
            && place.disk.list(dir).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        {
            return Err(OpenError::Missing { dir: dir.to_owned(), cursor });
        }
        place.disk.create_dir(dir).during("create", dir)?;
        if let Some(parent) = dir.parent() {
            place.disk.sync_dir(parent).during("sync", parent)?;
        }
        let mut ground = recovery::recover(&place, options.holds)?;
        if ground.recovery.is_new && ground.recovery.host.is_none() {
            ground.recovery.head.journal = new_journal_id(at);
        }
        let head = ground.recovery.head;
        let number = ground.number;
        let tail = Arc::new(Tail::new(head, number, options.tail_bytes));
        let mut writer = Writer {
            place,
            options,
            tail,
            head,
            last: head.seq,
            last_at: at,
            pending: VecDeque::new(),
            file: ground.last.map(|last| OpenFile::resume(last, dir)),
            number,
        };
        if ground.recovery.is_new {
            // The journal's id must outlive this process even if nothing is ever journaled.
            writer.file = Some(OpenFile { holds_id: true, ..writer.create_file(at)? });
        }
        for hollow in &ground.hollow {
            writer.place.disk.remove(hollow).during("remove", hollow)?;
        }
        writer.place.disk.sync_dir(dir).during("sync", dir)?;
        Ok((writer, ground.recovery))
    }

    /// Takes a record into the batch in memory and gives it its seq.
    pub fn append(&mut self, at: Timestamp, body: &Body) -> Seq {
        self.append_with(at, body, None)
    }

    /// [`Writer::append`], with fields that this version does not know.
    pub fn append_with(&mut self, at: Timestamp, body: &Body, extra: Extra) -> Seq {
        self.last = self.last.next();
        self.last_at = at;
        let record = Record { seq: self.last, at, body: body.clone(), extra };
        if self.pending.back().is_none_or(|batch| batch.text.len() >= BATCH_BYTES) {
            self.pending.push_back(Pending::default());
        }
        if let Some(batch) = self.pending.back_mut() {
            record.render(&mut batch.text);
            batch.text.push(b'\n');
            batch.records.push(record);
        }
        self.last
    }

    /// Makes all that was appended durable: one write and one sync for each batch, of which there is one unless very
    /// much waited. Without waiting records it does nothing.
    ///
    /// # Errors
    /// [`CommitError`]: what is behind [`Writer::head`] is not durable, and waits.
    pub fn commit(&mut self) -> Result<Cursor, CommitError> {
        while let Some(mut batch) = self.pending.pop_front() {
            match self.commit_batch(&mut batch) {
                Ok((cursor, number)) => {
                    self.head = cursor;
                    let Pending { text, records } = batch;
                    self.tail.publish(Batch { records: Arc::new(records), cursor, text: Arc::new(text) }, number);
                }
                Err(error) => {
                    self.pending.push_front(batch);
                    return Err(error.into());
                }
            }
        }
        Ok(self.head)
    }

    /// Where the journal ends, on disk.
    #[must_use]
    pub fn head(&self) -> Cursor {
        self.head
    }

    /// The number of the file that is written to: it grows with each new file.
    #[must_use]
    pub fn file_number(&self) -> u64 {
        self.number
    }

    /// The journal's end, to be shared with followers in this process.
    #[must_use]
    pub fn tail(&self) -> Arc<Tail> {
        Arc::clone(&self.tail)
    }

    /// How many records wait for a commit, and their bytes.
    #[must_use]
    pub fn pending(&self) -> (usize, usize) {
        self.pending
            .iter()
            .fold((0, 0), |(records, bytes), batch| (records + batch.records.len(), bytes + batch.text.len()))
    }

    /// Gives up what waits; its seqs are used again. The caller owes the journal a gap.
    pub fn discard_pending(&mut self) {
        self.pending.clear();
        self.last = self.head.seq;
    }

    /// Commits, and gives reserved room back. Followers are told that nothing will come any more.
    ///
    /// # Errors
    /// [`CommitError`] if what waited could not be made durable.
    pub fn close(mut self) -> Result<Cursor, CommitError> {
        let head = self.commit()?;
        if let Some(file) = self.file.take() {
            file.finish()?;
        }
        Ok(head)
    }

    fn commit_batch(&mut self, batch: &mut Pending) -> Result<(Cursor, u64), DiskError> {
        let mut file = self.file_for(batch.text.len())?;
        let is_hollow = !file.uncovered.is_empty() && !file.holds_id;
        let records_len = batch.text.len();
        match file.append(batch, &self.options, self.head.hash) {
            Ok((seq, hash)) => {
                let number = file.number;
                self.file = Some(file);
                Ok((Cursor { journal: self.head.journal, seq, hash }, number))
            }
            Err(error) => {
                // The file is dropped here, and with it every way to write to it again. One in which nothing counts
                // goes, or they would pile up on a full disk; if it stays, a later file makes it void.
                batch.text.truncate(records_len);
                if is_hollow {
                    let _ = self.place.disk.remove(&file.path);
                }
                Err(error)
            }
        }
    }

    /// The open file, or a new one where there is none, the day is over, or it is full. Out of its slot, so that a
    /// failure leaves none.
    fn file_for(&mut self, bytes: usize) -> Result<OpenFile, DiskError> {
        let day = self.last_at.day();
        if let Some(file) = self.file.take() {
            let has_batches = file.uncovered.is_empty();
            if !has_batches || (file.day == day && file.end + bytes as u64 <= self.options.roll_bytes) {
                return Ok(file);
            }
            file.finish()?;
        }
        self.create_file(self.last_at)
    }

    fn create_file(&mut self, at: Timestamp) -> Result<OpenFile, DiskError> {
        let Place { disk, dir } = &self.place;
        let stem = files::next_stem(at.day(), &files::list(disk.as_ref(), dir)?);
        let path = Entry::plain(&stem).path(dir);
        self.number += 1;
        let header = Header {
            journal: self.head.journal,
            host: self.options.host.clone(),
            first_seq: self.head.seq.next(),
            prev: self.head.hash,
            number: self.number,
            at,
        };
        let uncovered = header.render();
        let file = disk.create_new(&path).during("create", &path)?;
        let mut file = OpenFile {
            file,
            path,
            day: at.day(),
            number: self.number,
            end: 0,
            allocated: 0,
            uncovered,
            holds_id: false,
        };
        match file.begin(&self.place, &self.options) {
            Ok(()) => Ok(file),
            Err(error) => {
                let _ = disk.remove(&file.path);
                Err(error)
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tail.close();
    }
}

impl OpenFile {
    fn resume(last: Resume, dir: &Path) -> OpenFile {
        OpenFile {
            file: last.file,
            path: last.entry.path(dir),
            day: last.header.day(),
            number: last.header.number,
            end: last.end,
            allocated: last.allocated,
            uncovered: Vec::new(),
            holds_id: false,
        }
    }

    /// Makes header and name durable before the first batch, so that a file with a commit line but no header is
    /// always damage, never a crash.
    fn begin(&mut self, place: &Place, options: &WriterOptions) -> Result<(), DiskError> {
        self.reserve(self.uncovered.len(), options);
        self.file.write_at(&self.uncovered, 0).during("write", &self.path)?;
        self.file.sync().during("sync", &self.path)?;
        place.disk.sync_dir(&place.dir).during("sync", &place.dir)?;
        self.end = self.uncovered.len() as u64;
        Ok(())
    }

    /// Writes and syncs a batch; the last seq and the hash of its commit line.
    fn append(
        &mut self,
        batch: &mut Pending,
        options: &WriterOptions,
        prev: ChainHash,
    ) -> Result<(Seq, ChainHash), DiskError> {
        let records = batch.records.len() as u64;
        let seq = batch.records.last().map_or(Seq::ZERO, |record| record.seq);
        let hash = Commit::append(&self.uncovered, &mut batch.text, seq, records, prev);
        self.reserve(batch.text.len(), options);
        self.file.write_at(&batch.text, self.end).during("write", &self.path)?;
        self.file.sync().during("sync", &self.path)?;
        self.uncovered.clear();
        self.end += batch.text.len() as u64;
        Ok((seq, hash))
    }

    /// Reserves room ahead. Where that is refused the write itself will tell.
    fn reserve(&mut self, bytes: usize, options: &WriterOptions) {
        let needed = self.end + bytes as u64;
        if options.prealloc_bytes == 0 || needed <= self.allocated {
            return;
        }
        let len = needed.next_multiple_of(options.prealloc_bytes);
        if self.file.preallocate(len).is_ok() {
            self.allocated = len;
        }
    }

    /// Gives reserved room back.
    fn finish(self) -> Result<(), DiskError> {
        self.file.truncate(self.end).during("truncate", &self.path)
    }
}

fn new_journal_id(at: Timestamp) -> JournalId {
    let millis = u64::try_from(at.0 / 1_000_000).unwrap_or(0);
    let time = uuid::Timestamp::from_unix(uuid::NoContext, millis / 1_000, (millis % 1_000) as u32 * 1_000_000);
    JournalId(uuid::Uuid::new_v7(time))
}
