//! Reads a journal in order, batch by batch, across its files, from any place in it.
//!
//! Files say in their headers where they begin; a file ends where the next one begins, whatever stands behind that.
//! A reader that follows a live journal never reads further than the writer has committed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskError};
use crate::files::{self, Chain, Place, Placed};
use crate::format::{FORMAT, HeaderError};
use crate::frames::{Found, Frames, Step};
use crate::json::ParseError;
use crate::record::Record;
use crate::tail::{Batch, Tail};
use crate::value::{ChainHash, Cursor, JournalId, Seq};

/// Why reading stops.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The journal does not have the cursor's hash at its seq: one of both was rolled back, cloned or rewritten.
    #[error(
        "the journal does not hold {cursor}: it was rolled back or cloned since, or is another one; \
        what was made from it has to be made anew"
    )]
    Forked {
        /// What was looked for.
        cursor: Cursor,
    },
    /// The files do not continue where they should.
    #[error(
        "the journal is damaged: {}, line {line}, record {seq}: {what}; `keepwatch journal verify` lists all damage",
        file.display()
    )]
    Damaged {
        /// In which file.
        file: PathBuf,
        /// At which line of it, from 1; 0 where no single line is to blame.
        line: u64,
        /// The record that should stand there.
        seq: Seq,
        /// What is wrong.
        what: String,
    },
    /// A sound line is not a record that this version can read.
    #[error("{}, record {seq}: {source}", file.display())]
    Record {
        /// In which file.
        file: PathBuf,
        /// Which record.
        seq: Seq,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A later version wrote it.
    #[error("{} has journal format {format}, and this version knows only {FORMAT}; use a newer keepwatch", file.display())]
    Newer {
        /// Which file.
        file: PathBuf,
        /// The format that its header names.
        format: u64,
    },
}

/// Reads a journal from some record on.
pub struct Reader {
    place: Place,
    tail: Option<Arc<Tail>>,
    files: Vec<Placed>,
    /// The file that is open, by its number, and the place in it.
    open: Option<(u64, Frames)>,
    /// Where the next batch begins: the seq and the hash before it.
    at: (Seq, ChainHash),
    /// Records up to here were asked not to be shown.
    from: Seq,
    journal: Option<JournalId>,
}

impl Reader {
    /// A reader of the records behind `from`. With [`Seq::ZERO`]: of all.
    ///
    /// # Errors
    /// [`ReadError`] where the files do not make a journal.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, from: Seq) -> Result<Reader, ReadError> {
        let place = Place { disk, dir: dir.to_owned() };
        let mut reader = Reader {
            place,
            tail: None,
            files: Vec::new(),
            open: None,
            at: (Seq(1), ChainHash::ZERO),
            from,
            journal: None,
        };
        reader.list_files()?;
        // The last file that does not begin behind the place. Of those that begin at one place, only the last counts.
        if let Some(file) = reader.files.iter().rev().find(|file| file.header.first_seq <= from.next()) {
            reader.at = (file.header.first_seq, file.header.prev);
        }
        Ok(reader)
    }

    /// A reader of the records behind a cursor, if the journal holds it.
    ///
    /// # Errors
    /// [`ReadError::Forked`] if it does not; else as [`Reader::open`].
    pub fn open_at(disk: Arc<dyn Disk>, dir: &Path, cursor: Cursor) -> Result<Reader, ReadError> {
        let mut reader = Reader::open(disk, dir, cursor.seq)?;
        let forked = ReadError::Forked { cursor };
        if reader.journal != Some(cursor.journal) {
            return Err(forked);
        }
        loop {
            match reader.at {
                (next, hash) if next == cursor.seq.next() && hash == cursor.hash => return Ok(reader),
                (next, _) if next > cursor.seq => return Err(forked),
                _ => {
                    if reader.step()?.is_none() {
                        return Err(forked);
                    }
                }
            }
        }
    }

    /// A reader of the records behind a cursor that follows a live journal: it reads no further than the journal's head,
    /// and takes recent batches from memory. A cursor at the head is not looked for in the files.
    ///
    /// # Errors
    /// As [`Reader::open_at`].
    pub fn follow(
        disk: Arc<dyn Disk>,
        dir: &Path,
        tail: Arc<Tail>,
        cursor: Option<Cursor>,
    ) -> Result<Reader, ReadError> {
        let reader = match cursor {
            None => Reader::open(disk, dir, Seq::ZERO)?,
            Some(cursor) if cursor == tail.head() => {
                let at = (cursor.seq.next(), cursor.hash);
                Reader { at, ..Reader::open(disk, dir, cursor.seq)? }
            }
            Some(cursor) => Reader::open_at(disk, dir, cursor)?,
        };
        Ok(reader.following(tail))
    }

    /// As [`Reader::follow`], from wherever it is.
    #[must_use]
    pub fn following(mut self, tail: Arc<Tail>) -> Reader {
        self.tail = Some(tail);
        self
    }

    /// Which journal; `None` if there is none yet.
    #[must_use]
    pub fn journal(&self) -> Option<JournalId> {
        self.journal
    }

    /// The next committed batch; `None` at the end, for now.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_batch(&mut self) -> Result<Option<Batch>, ReadError> {
        loop {
            let last = Seq(self.at.0.0 - 1);
            if let Some(tail) = &self.tail {
                let (head, _) = tail.position();
                if last >= head.seq {
                    return Ok(None);
                }
                if let Some(batch) = tail.batch_after(self.from.max(last)) {
                    self.at = (batch.cursor.seq.next(), batch.cursor.hash);
                    return Ok(Some(batch.after(self.from)));
                }
            }
            let Some(found) = self.step()? else { return Ok(None) };
            if found.last > self.from {
                return self.read(&found).map(Some);
            }
        }
    }

    /// Parses a batch that was found.
    fn read(&self, found: &Found) -> Result<Batch, ReadError> {
        let Some((number, frames)) = &self.open else { unreachable!("a batch was found in an open file") };
        let text = frames.text(found);
        let mut records = Vec::new();
        let lines = text[found.header_len..].split(|byte| *byte == b'\n');
        for (seq, line) in (found.first.0..=found.last.0).zip(lines) {
            if seq > self.from.0 {
                records.push(Record::parse(line).map_err(|source| ReadError::Record {
                    file: self.path_of(*number),
                    seq: Seq(seq),
                    source,
                })?);
            }
        }
        let cursor = Cursor { journal: frames.header().journal, seq: found.last, hash: found.hash };
        Ok(Batch { records: Arc::new(records), cursor, text: Arc::new(text.to_vec()) })
    }

    /// Finds the next batch in the files, and moves behind it.
    fn step(&mut self) -> Result<Option<Found>, ReadError> {
        let listed = self.files.last().map(|file| file.header.number);
        if self.tail.as_ref().is_some_and(|tail| listed < Some(tail.position().1)) {
            self.list_files()?;
        }
        for attempt in 0..2 {
            if attempt > 0 {
                self.list_files()?;
            }
            if self.go_there()?
                && let Some(found) = self.step_in_file()?
            {
                self.at = (found.last.next(), found.hash);
                return Ok(Some(found));
            }
        }
        self.at_the_end()
    }

    /// Opens the file that holds the next batch, at that batch. Where several files begin there, all but the last are
    /// void; a file that begins there ends the one before it.
    fn go_there(&mut self) -> Result<bool, ReadError> {
        let begins_here = |file: &&Placed| (file.header.first_seq, file.header.prev) == self.at;
        let begins_before = |file: &&Placed| file.header.first_seq < self.at.0;
        let file = self.files.iter().rev().find(begins_here).or_else(|| self.files.iter().rev().find(begins_before));
        let Some(file) = file else { return Ok(false) };
        let number = file.header.number;
        let fits = |(open, frames): &(u64, Frames)| *open == number && frames.place().0 <= self.at.0;
        if !self.open.as_ref().is_some_and(fits) {
            self.open = Some((number, self.open_file(file)?));
        }
        loop {
            match self.open.as_ref().map(|(_, frames)| frames.place()) {
                Some(place) if place == self.at => return Ok(true),
                Some((next, _)) if next < self.at.0 && self.step_in_file()?.is_some() => continue,
                _ => {}
            }
            let what = "it no longer holds what was read from it".to_owned();
            return Err(ReadError::Damaged { file: self.path_of(number), line: 0, seq: self.at.0, what });
        }
    }

    fn step_in_file(&mut self) -> Result<Option<Found>, ReadError> {
        let Some((number, frames)) = &mut self.open else { return Ok(None) };
        // What was read may be older than the last commit: look once more before judging.
        for attempt in 0..2 {
            match frames.step()? {
                Step::Batch(found) => return Ok(Some(found)),
                Step::Flawed(flaw) if attempt > 0 => {
                    let number = *number;
                    let is_last = self.files.last().is_none_or(|file| file.header.number <= number);
                    // Without a live writer's word, the last file may end in a batch that is just being written.
                    if is_last && self.tail.is_none() {
                        return Ok(None);
                    }
                    return Err(ReadError::Damaged {
                        file: self.path_of(number),
                        line: flaw.line,
                        seq: flaw.seq,
                        what: flaw.what.to_string(),
                    });
                }
                Step::Flawed(_) | Step::Free => frames.forget(),
            }
        }
        Ok(None)
    }

    /// Nothing more in the open file, and no file begins here.
    fn at_the_end(&mut self) -> Result<Option<Found>, ReadError> {
        let number = self.open.as_ref().map_or(0, |(number, _)| *number);
        if self.files.last().is_none_or(|file| file.header.number <= number) {
            return Ok(None);
        }
        let what = "the file ends, and no other begins where it ends".to_owned();
        Err(ReadError::Damaged { file: self.path_of(number), line: 0, seq: self.at.0, what })
    }

    fn open_file(&self, file: &Placed) -> Result<Frames, ReadError> {
        let Place { disk, dir } = &self.place;
        // It may have been compressed since it was listed.
        let mut packed = file.entry.clone();
        packed.packed = true;
        let opened = match Frames::open(disk.as_ref(), dir, &file.entry) {
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => {
                Frames::open(disk.as_ref(), dir, &packed)?
            }
            opened => opened?,
        };
        opened.map_err(|(error, _)| ReadError::Damaged {
            file: file.entry.path(dir),
            line: 1,
            seq: file.header.first_seq,
            what: error.to_string(),
        })
    }

    fn list_files(&mut self) -> Result<(), ReadError> {
        let Place { disk, dir } = &self.place;
        match &self.tail {
            // Every file up to the head's counts; one behind it may be half-made.
            Some(tail) => {
                let last = tail.position().1;
                let known = self.files.last().map_or(0, |file| file.header.number);
                for entry in files::list(disk.as_ref(), dir)? {
                    if self.files.iter().any(|file| file.entry.stem == entry.stem) {
                        continue;
                    }
                    let opened = match Frames::open(disk.as_ref(), dir, &entry) {
                        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => continue,
                        opened => opened?,
                    };
                    if let Ok(frames) = opened {
                        let header = frames.header().clone();
                        if header.number > known && header.number <= last {
                            self.files.push(Placed { entry, header });
                        }
                    }
                }
                self.files.sort_by_key(|file| file.header.number);
            }
            None => {
                let chain = Chain::load(disk.as_ref(), dir)?;
                for file in &chain.headless {
                    if let HeaderError::Newer(format) = file.error {
                        return Err(ReadError::Newer { file: file.entry.path(dir), format });
                    }
                }
                if let Some((entry, what)) = chain.header_flaw() {
                    return Err(ReadError::Damaged { file: entry.path(dir), line: 1, seq: Seq::ZERO, what });
                }
                let any = chain.files.first().or(chain.uncommitted.first());
                self.journal = any.map(|file| file.header.journal);
                self.files = chain.files;
            }
        }
        Ok(())
    }

    fn path_of(&self, number: u64) -> PathBuf {
        let file = self.files.iter().find(|file| file.header.number == number);
        file.map_or_else(|| self.place.dir.clone(), |file| file.entry.path(&self.place.dir))
    }
}
