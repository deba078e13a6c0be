//! Stretches of an object's content.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use tokio::runtime::Runtime;

use crate::target::web::innermost;

/// An object that is read.
pub(super) struct Object {
    /// `None` only while it is being dropped.
    runtime: Option<Arc<Runtime>>,
    objects: Arc<dyn ObjectStore>,
    key: Key,
    /// What is read is the object with this tag, from its first byte to its last.
    etag: Option<String>,
}

impl Object {
    pub(super) fn new(runtime: Arc<Runtime>, objects: Arc<dyn ObjectStore>, key: Key, meta: &ObjectMeta) -> Self {
        Object { runtime: Some(runtime), objects, key, etag: meta.e_tag.clone() }
    }

    pub(super) fn stretch(&self, at: u64, length: u64) -> io::Result<Bytes> {
        let range = Some(GetRange::Bounded(at..at + length));
        let options = GetOptions { range, if_match: self.etag.clone(), ..GetOptions::default() };
        let runtime = self.runtime.as_ref().expect("it is taken only by drop");
        let bytes = runtime.block_on(async { self.objects.get_opts(&self.key, options).await?.bytes().await });
        bytes.map_err(|error| io::Error::other(innermost(&error)))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take().and_then(Arc::into_inner) {
            runtime.shutdown_background();
        }
    }
}
