//! An object's bytes, read in stretches: one that breaks off is asked for again, not all of it.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};

use super::bucket::Bucket;

/// Bytes that are asked for at once.
const STRETCH: u64 = 8 << 20;

pub(super) struct Reader {
    pub(super) bucket: Arc<Bucket>,
    pub(super) key: String,
    /// What is read is the object with this tag, from its first byte to its last.
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) at: u64,
    pub(super) here: Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.here.is_empty() && self.at < self.size {
            let length = STRETCH.min(self.size - self.at);
            let wire = &self.bucket.wire;
            let stretch = self.bucket.wait(wire.get_range(&self.key, &self.etag, self.at, length));
            self.here = stretch.map_err(io::Error::other)?;
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
