//! An object's bytes, read in stretches: one that breaks off is asked for again, not all of it.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use tokio::runtime::Runtime;

use super::wire::RANGE_MAX;
use crate::target::web::innermost;

pub(super) struct Reader {
    /// `None` only while it is being dropped.
    runtime: Option<Arc<Runtime>>,
    objects: Arc<dyn ObjectStore>,
    key: Key,
    /// What is read is the object with this tag, from its first byte to its last.
    etag: Option<String>,
    size: u64,
    at: u64,
    here: Bytes,
}

impl Reader {
    pub(super) fn new(runtime: Arc<Runtime>, objects: Arc<dyn ObjectStore>, key: Key, meta: &ObjectMeta) -> Self {
        let (etag, size) = (meta.e_tag.clone(), meta.size);
        Reader { runtime: Some(runtime), objects, key, etag, size, at: 0, here: Bytes::new() }
    }

    fn stretch(&self, length: u64) -> object_store::Result<Bytes> {
        let range = Some(GetRange::Bounded(self.at..self.at + length));
        let options = GetOptions { range, if_match: self.etag.clone(), ..GetOptions::default() };
        let runtime = self.runtime.as_ref().expect("it is taken only by drop");
        runtime.block_on(async { self.objects.get_opts(&self.key, options).await?.bytes().await })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take().and_then(Arc::into_inner) {
            runtime.shutdown_background();
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.here.is_empty() && self.at < self.size {
            let length = RANGE_MAX.min(self.size - self.at);
            self.here = self.stretch(length).map_err(|error| io::Error::other(innermost(&error)))?;
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
