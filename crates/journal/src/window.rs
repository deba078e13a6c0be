//! The text of a file, read piece by piece, and the two looks at it that need no chain.

use std::io;
use std::path::{Path, PathBuf};

use bstr::ByteSlice as _;

use crate::disk::{Disk, DiskError, During as _};
use crate::files::{Entry, Source};
use crate::format::Commit;

/// How much is read at a time.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Bytes that are held to be free, or not, together.
const PIECE_BYTES: usize = 4096;

/// A piece of a file's text, with the place in it up to which it was looked at.
pub(crate) struct Window {
    source: Source,
    path: PathBuf,
    /// The text from `offset` on.
    pub(crate) buffer: Vec<u8>,
    /// Where in the text the buffer begins.
    pub(crate) offset: u64,
    /// Where in the buffer lies what was not yet passed over.
    pub(crate) start: usize,
    /// Lines before `start`.
    pub(crate) line: u64,
    /// Why a compressed file could not be read further.
    pub(crate) undecodable: Option<String>,
}

impl Window {
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, entry: &Entry) -> Result<Window, DiskError> {
        Ok(Window {
            source: entry.open(disk, dir)?,
            path: entry.path(dir),
            buffer: Vec::new(),
            offset: 0,
            start: 0,
            line: 0,
            undecodable: None,
        })
    }

    /// Forgets what was read at `keep` bytes behind the place and further: a file that is being written to holds
    /// something else by now.
    pub(crate) fn forget_behind(&mut self, keep: usize) {
        if matches!(self.source, Source::Plain(_)) {
            self.buffer.truncate(self.start + keep);
        }
    }

    /// Whether nothing but NUL bytes follows. Passes over those.
    pub(crate) fn rest_is_free(&mut self) -> Result<bool, DiskError> {
        loop {
            // All of a piece at once: room for many megabytes was made beforehand.
            let is_free = |piece: &[u8]| piece.iter().fold(0, |any, byte| any | byte) == 0;
            let free: usize =
                self.buffer[self.start..].chunks(PIECE_BYTES).take_while(|piece| is_free(piece)).map(<[u8]>::len).sum();
            self.start += free;
            if let Some(used) = self.buffer[self.start..].iter().position(|byte| *byte != 0) {
                self.start += used;
                return Ok(false);
            }
            if !self.fill(CHUNK_BYTES)? {
                return Ok(self.undecodable.is_none());
            }
        }
    }

    /// Passes over everything up to and with the next line of a commit line's shape.
    pub(crate) fn skip_to_commit(&mut self) -> Result<Option<Commit>, DiskError> {
        let mut inside_line = false;
        loop {
            while let Some(len) = self.buffer[self.start..].find_byte(b'\n') {
                let commit = Commit::parse(&self.buffer[self.start..self.start + len]);
                self.start += len + 1;
                self.line += 1;
                if commit.is_some() && !inside_line {
                    return Ok(commit);
                }
                inside_line = false;
            }
            if self.buffer.len() - self.start > CHUNK_BYTES {
                self.start = self.buffer.len();
                inside_line = true;
            }
            if !self.fill(CHUNK_BYTES)? {
                return Ok(None);
            }
        }
    }

    /// Reads on behind the buffer, after dropping what stands before `start`; false at the end of the text.
    pub(crate) fn fill(&mut self, bytes: usize) -> Result<bool, DiskError> {
        self.buffer.drain(..self.start);
        self.offset += self.start as u64;
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + bytes, 0);
        let read = match self.source.read(&mut self.buffer[filled..], self.offset + filled as u64) {
            Err(error) if self.is_undecodable(&error) => {
                self.undecodable = Some(error.to_string());
                Ok(0)
            }
            read => read,
        };
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        Ok(read.during("read", &self.path)? > 0)
    }

    /// Errors that the system did not give come from the decompressor.
    fn is_undecodable(&self, error: &io::Error) -> bool {
        matches!(self.source, Source::Packed(_)) && error.raw_os_error().is_none()
    }
}
