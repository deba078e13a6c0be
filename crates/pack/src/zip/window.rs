//! Reading a file from front to back through a buffer of bounded size.

use std::io;

use crate::files::File;

/// What is read at a time, in bytes.
pub(crate) const WINDOW_BYTES: usize = 256 * 1024;

/// A piece of a file in memory, that moves forward.
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    /// Nothing from here on is read.
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    /// Over a file, up to `end`.
    pub(crate) fn new(file: &'a dyn File, end: u64) -> Self {
        Window { file, end, start: 0, bytes: Vec::new() }
    }

    /// The bytes at a place: `wanted` of them, or as many as there are before the end.
    pub(crate) fn at(&mut self, place: u64, wanted: usize) -> io::Result<&[u8]> {
        let available = usize::try_from(self.end.saturating_sub(place)).unwrap_or(usize::MAX);
        let wanted = wanted.min(available);
        let has = |start: u64, len: usize| {
            place >= start && place.saturating_add(wanted as u64) <= start.saturating_add(len as u64)
        };
        if !has(self.start, self.bytes.len()) {
            self.fill(place, wanted.max(WINDOW_BYTES).min(available))?;
        }
        let from = usize::try_from(place - self.start).unwrap_or(0).min(self.bytes.len());
        let to = (from + wanted).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }

    /// The bytes at a place: as many as are in memory, at least one unless the file ends there.
    pub(crate) fn some_at(&mut self, place: u64, most: u64) -> io::Result<&[u8]> {
        self.at(place, 1)?;
        let from = usize::try_from(place - self.start).unwrap_or(0).min(self.bytes.len());
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Ok(&self.bytes[from..from + most.min(self.bytes.len() - from)])
    }

    fn fill(&mut self, place: u64, wanted: usize) -> io::Result<()> {
        // What is in memory already, at the front of what is wanted, is kept.
        let known = usize::try_from(place.saturating_sub(self.start)).unwrap_or(usize::MAX);
        if place >= self.start && known < self.bytes.len() {
            self.bytes.drain(..known);
        } else {
            self.bytes.clear();
        }
        self.start = place;
        let mut filled = self.bytes.len();
        self.bytes.resize(wanted.max(filled), 0);
        while filled < self.bytes.len() {
            match self.file.read_at(&mut self.bytes[filled..], place + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => {
                    self.bytes.truncate(filled);
                    return Err(error);
                }
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }
}
