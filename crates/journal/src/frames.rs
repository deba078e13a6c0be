//! Walks through a file batch by batch and holds each against the chain, without parsing its records.
//!
//! This is the one place that decides whether bytes are a batch. The reader, recovery, compression and verification
//! all stand on it.

use std::path::Path;

use bstr::ByteSlice as _;

use crate::disk::{Disk, DiskError};
use crate::files::Entry;
use crate::format::{COMMIT, Commit, Header, HeaderError, RECORD};
use crate::json::text::push_u64;
use crate::value::{ChainHash, Seq};
use crate::window::{CHUNK_BYTES, Window};

/// No batch is longer; the writer closes one long before.
pub(crate) const BATCH_BYTES_MAX: usize = 64 << 20;

/// No header is longer.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// What stands next in a file.
pub(crate) enum Step {
    /// A sound batch; [`Frames::text`] has its bytes until the next step.
    Batch(Found),
    /// The text ends at a batch's edge, or a NUL byte follows: free space, unless [`Frames::rest_is_free`] says no.
    Free,
    /// Anything else.
    Flawed(Flaw),
}

/// A sound batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Its first record.
    pub(crate) first: Seq,
    /// Its last record.
    pub(crate) last: Seq,
    /// The hash of its commit line.
    pub(crate) hash: ChainHash,
    /// Where its text begins in the file: at the header, for the first one.
    pub(crate) offset: u64,
    /// How long its text is, commit line included.
    pub(crate) len: usize,
    /// How much of that is the file's header.
    pub(crate) header_len: usize,
    /// The line number of its first line.
    pub(crate) line: u64,
}

/// What is wrong with a batch, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) line: u64,
    pub(crate) seq: Seq,
    pub(crate) what: FlawKind,
}

impl Flaw {
    /// NUL bytes where a batch should begin, with more behind them.
    pub(crate) fn hole(line: u64, seq: Seq) -> Flaw {
        Flaw { line, seq, what: FlawKind::Unfinished }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlawKind {
    #[error("the file ends, or is empty space, before a commit line closes the batch")]
    Unfinished,
    #[error("a line is neither this record nor a commit line")]
    NotTheRecord,
    #[error("the commit line is not of a commit line's shape")]
    CommitShape,
    #[error("the commit line says that it covers up to seq {0}")]
    CommitSeq(Seq),
    #[error("the commit line says that it closes {0} records, and {1} stand before it")]
    CommitCount(u64, u64),
    #[error("the commit line follows another one than the one before it")]
    CommitPrev,
    #[error("the bytes of the batch do not have the hash that its commit line says")]
    Hash,
    #[error("more than {BATCH_BYTES_MAX} bytes without a commit line")]
    TooLong,
    #[error("the file cannot be decompressed: {0}")]
    Undecodable(String),
}

/// A place in a file, always between two batches.
pub(crate) struct Frames {
    window: Window,
    header: Header,
    /// The batch that was found last and how many lines it has, to be passed over by the next step.
    taken: Option<(Found, u64)>,
    /// How much of the next batch is the header.
    header_len: usize,
    prev: ChainHash,
    expected: Expected,
}

impl Frames {
    /// Opens a file and reads its header. Without a header there is still a [`Window`] for a look at what else the
    /// file holds.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        entry: &Entry,
    ) -> Result<Result<Frames, (HeaderError, Window)>, DiskError> {
        let mut window = Window::open(disk, dir, entry)?;
        let mut end = None;
        while end.is_none() && window.buffer.len() < HEADER_BYTES_MAX && window.fill(HEADER_BYTES_MAX)? {
            end = window.buffer.find_byte(b'\n');
        }
        let parsed = match (end, &window.undecodable) {
            (Some(end), _) => Header::parse(&window.buffer[..end]).map(|header| (header, end + 1)),
            (None, Some(why)) => Err(HeaderError::Malformed(why.clone())),
            (None, None) => Err(HeaderError::Malformed("its first line has no end".to_owned())),
        };
        Ok(match parsed {
            Ok((header, header_len)) => {
                let (prev, expected) = (header.prev, Expected::new(header.first_seq));
                Ok(Frames { window, header, taken: None, header_len, prev, expected })
            }
            Err(error) => Err((error, window)),
        })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The place: the seq that comes next, and the hash of the commit line before it.
    pub(crate) fn place(&self) -> (Seq, ChainHash) {
        match &self.taken {
            Some((found, _)) => (found.last.next(), found.hash),
            None => (self.expected.seq, self.prev),
        }
    }

    /// The number of the line that comes next.
    pub(crate) fn line(&self) -> u64 {
        self.window.line + self.taken.as_ref().map_or(0, |(_, lines)| *lines) + u64::from(self.header_len > 0) + 1
    }

    /// Where in the text the next record or commit line begins: behind the header, and behind what was found.
    pub(crate) fn position(&self) -> u64 {
        let taken = self.taken.as_ref().map_or(self.header_len, |(found, _)| found.len);
        self.window.offset + (self.window.start + taken) as u64
    }

    /// The bytes of the batch that the last step found.
    pub(crate) fn text(&self, found: &Found) -> &[u8] {
        &self.window.buffer[self.window.start..self.window.start + found.len]
    }

    /// Looks at what comes next.
    pub(crate) fn step(&mut self) -> Result<Step, DiskError> {
        self.pass();
        let first = self.expected.seq;
        // Counted from the window's place, which stays where it is in the text while the window is filled.
        let mut at = self.header_len;
        let mut lines = u64::from(self.header_len > 0);
        loop {
            let Some(len) = self.line_len(at)? else {
                return Ok(self.no_line(at, lines, first));
            };
            let start = self.window.start + at;
            let text = &self.window.buffer[start..start + len];
            at += len + 1;
            lines += 1;
            if self.expected.is_start_of(text) && text.last() == Some(&b'}') {
                self.expected.advance();
                continue;
            }
            let what = match Commit::parse(text) {
                Some(commit) => match self.check(commit, first, at) {
                    Ok(()) => return Ok(Step::Batch(self.found(commit, first, at, lines))),
                    Err(what) => what,
                },
                None if text.starts_with(COMMIT) => FlawKind::CommitShape,
                None => FlawKind::NotTheRecord,
            };
            return Ok(self.flawed(lines, what, first));
        }
    }

    /// The length of the line at `at`, without its newline; `None` where there is none: NUL bytes, the end, or too
    /// long a batch.
    fn line_len(&mut self, at: usize) -> Result<Option<usize>, DiskError> {
        let mut searched = at;
        loop {
            let ahead = &self.window.buffer[self.window.start..];
            if ahead.get(at) == Some(&0) {
                return Ok(None);
            }
            if let Some(distance) = ahead[searched..].find_byte(b'\n') {
                return Ok(Some(searched + distance - at));
            }
            searched = ahead.len();
            if searched > BATCH_BYTES_MAX || !self.window.fill(CHUNK_BYTES)? {
                return Ok(None);
            }
        }
    }

    fn no_line(&mut self, at: usize, lines: u64, first: Seq) -> Step {
        let ahead = &self.window.buffer[self.window.start..];
        let free = self.expected.seq == first && ahead.get(at).is_none_or(|byte| *byte == 0);
        let what = match self.window.undecodable.take() {
            Some(why) => FlawKind::Undecodable(why),
            None if free => return Step::Free,
            None if ahead.len() > BATCH_BYTES_MAX => FlawKind::TooLong,
            None => FlawKind::Unfinished,
        };
        self.flawed(lines + 1, what, first)
    }

    fn check(&self, commit: Commit, first: Seq, len: usize) -> Result<(), FlawKind> {
        let records = self.expected.seq.0 - first.0;
        if commit.seq.next() != self.expected.seq {
            Err(FlawKind::CommitSeq(commit.seq))
        } else if commit.records != records || records == 0 {
            Err(FlawKind::CommitCount(commit.records, records))
        } else if commit.prev != self.prev {
            Err(FlawKind::CommitPrev)
        } else if commit.hash != Commit::expected_hash(&self.window.buffer[self.window.start..][..len]) {
            Err(FlawKind::Hash)
        } else {
            Ok(())
        }
    }

    fn found(&mut self, commit: Commit, first: Seq, len: usize, lines: u64) -> Found {
        let found = Found {
            first,
            last: commit.seq,
            hash: commit.hash,
            offset: self.window.offset + self.window.start as u64,
            len,
            header_len: self.header_len,
            line: self.window.line + 1,
        };
        self.taken = Some((found, lines));
        found
    }

    /// The flaw in the batch's line number `line`, with the walk set back to the start of the batch.
    fn flawed(&mut self, line: u64, what: FlawKind, first: Seq) -> Step {
        let seq = self.expected.seq;
        self.expected = Expected::new(first);
        Step::Flawed(Flaw { line: self.window.line + line, seq, what })
    }

    /// Passes over the batch that was found last.
    fn pass(&mut self) {
        if let Some((found, lines)) = self.taken.take() {
            self.window.start += found.len;
            self.window.line += lines;
            self.prev = found.hash;
            self.header_len = 0;
        }
    }

    /// Forgets what was read beyond this place: a file that is being written to holds something else by now.
    pub(crate) fn forget(&mut self) {
        self.pass();
        self.window.forget_behind(self.header_len);
    }

    /// Whether nothing but NUL bytes follows. Passes over those and over the header.
    pub(crate) fn rest_is_free(&mut self) -> Result<bool, DiskError> {
        self.pass();
        if self.header_len > 0 {
            self.window.start += self.header_len;
            self.window.line += 1;
            self.header_len = 0;
        }
        self.window.rest_is_free()
    }

    /// Whether what follows is what a crash leaves: no commit line, or only the one that should come next, as the
    /// very last thing. A write that was once made durable always has another state: its commit line is sound, or
    /// something stands behind it. The walk has moved on afterwards.
    pub(crate) fn is_torn(&mut self) -> Result<bool, DiskError> {
        let (_, prev) = self.place();
        if self.rest_is_free()? {
            return Ok(true);
        }
        Ok(match self.skip_to_commit()? {
            None => true,
            Some(commit) => commit.prev == prev && self.rest_is_free()?,
        })
    }

    /// Passes over everything up to and with the next line of a commit line's shape, and goes on from what that
    /// line says.
    pub(crate) fn skip_to_commit(&mut self) -> Result<Option<Commit>, DiskError> {
        self.pass();
        self.header_len = 0;
        let commit = self.window.skip_to_commit()?;
        if let Some(commit) = &commit {
            self.expected = Expected::new(commit.seq.next());
            self.prev = commit.hash;
        }
        Ok(commit)
    }
}

/// How the next record has to begin: `{"seq":N,"at":"`. Counted up in place.
struct Expected {
    seq: Seq,
    text: Vec<u8>,
}

const AFTER_SEQ: &[u8] = b",\"at\":\"";

impl Expected {
    fn new(seq: Seq) -> Expected {
        let mut text = RECORD.to_vec();
        push_u64(&mut text, seq.0);
        text.extend_from_slice(AFTER_SEQ);
        Expected { seq, text }
    }

    fn is_start_of(&self, line: &[u8]) -> bool {
        line.starts_with(&self.text)
    }

    fn advance(&mut self) {
        self.seq = self.seq.next();
        let last = self.text.len() - AFTER_SEQ.len();
        for digit in self.text[RECORD.len()..last].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
        *self = Expected::new(self.seq);
    }
}
