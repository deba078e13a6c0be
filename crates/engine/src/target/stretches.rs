//! An object's bytes, read in stretches: one that breaks off is asked for again, not all of it.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};

/// Bytes that are asked for at once.
pub(super) const STRETCH: u64 = 8 << 20;

/// An object of this size; `fetch` is asked for so many bytes from an offset on.
pub(super) struct Stretches<F> {
    fetch: F,
    size: u64,
    at: u64,
    here: Bytes,
}

impl<F: FnMut(u64, u64) -> io::Result<Bytes>> Stretches<F> {
    pub(super) fn new(size: u64, fetch: F) -> Self {
        Stretches { fetch, size, at: 0, here: Bytes::new() }
    }
}

impl<F: FnMut(u64, u64) -> io::Result<Bytes>> Read for Stretches<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.here.is_empty() && self.at < self.size {
            let length = STRETCH.min(self.size - self.at);
            self.here = (self.fetch)(self.at, length)?;
            if self.here.len() as u64 != length {
                return Err(io::Error::other("the store sent more or less than was asked for"));
            }
            self.at += length;
        }
        let length = buffer.len().min(self.here.len());
        self.here.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
