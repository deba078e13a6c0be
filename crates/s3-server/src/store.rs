//! What the server holds: buckets of objects and unfinished uploads, in memory, in the order of their keys' bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use sha2::Sha256;

/// An object, or a part of one that is on its way.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its content, in the pieces in which it came.
    pub pieces: Vec<Bytes>,
    /// Bytes in all.
    pub size: u64,
    /// Metadata of the user's, without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// What kind of content it is said to be.
    pub content_type: Option<String>,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// Its SHA-256 in base64; with `-N` behind it that of N parts' checksums.
    pub sha256: Option<String>,
    /// When it came.
    pub modified: SystemTime,
}

impl Object {
    /// All of its bytes, in one piece.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// An upload in parts that is not complete.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) key: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) content_type: Option<String>,
    /// Whether each part must come with its SHA-256.
    pub(crate) is_checked: bool,
    pub(crate) began: SystemTime,
    pub(crate) parts: BTreeMap<u32, Object>,
}

#[derive(Debug, Default)]
pub(crate) struct Bucket {
    pub(crate) objects: BTreeMap<String, Arc<Object>>,
    pub(crate) uploads: BTreeMap<String, Upload>,
    /// Azure's blocks by key and id: the number of each among its upload's parts.
    pub(crate) blocks: BTreeMap<(String, String), u32>,
    /// The keys of Azure's copies that nobody has looked at yet: the first who does sees them going on.
    pub(crate) copying: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) buckets: BTreeMap<String, Bucket>,
    pub(crate) next_upload: u64,
}

/// All that the server holds. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<State>>);

impl Store {
    /// Makes a bucket, if it is not there.
    pub fn make_bucket(&self, name: &str) {
        self.state().buckets.entry(name.to_owned()).or_default();
    }

    /// Takes a bucket away, with all it holds.
    pub fn drop_bucket(&self, name: &str) {
        self.state().buckets.remove(name);
    }

    /// The keys of a bucket's objects, in order.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.state().buckets.get(bucket).map(|bucket| bucket.objects.keys().cloned().collect()).unwrap_or_default()
    }

    /// An object, as it stands.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<Arc<Object>> {
        self.state().buckets.get(bucket)?.objects.get(key).cloned()
    }

    /// Puts an object there, past the wire.
    pub fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let piece = Bytes::copy_from_slice(bytes);
        let object = Object {
            etag: hex(&Md5::digest(&piece)),
            sha256: None,
            size: piece.len() as u64,
            pieces: vec![piece],
            metadata: BTreeMap::new(),
            content_type: None,
            modified: SystemTime::now(),
        };
        let mut state = self.state();
        state.buckets.entry(bucket.to_owned()).or_default().objects.insert(key.to_owned(), Arc::new(object));
    }

    /// Takes an object away, past the wire.
    pub fn drop_object(&self, bucket: &str, key: &str) {
        if let Some(bucket) = self.state().buckets.get_mut(bucket) {
            bucket.objects.remove(key);
        }
    }

    /// The keys that have an unfinished upload, and the parts of each that are there.
    #[must_use]
    pub fn uploads(&self, bucket: &str) -> Vec<(String, Vec<u32>)> {
        let state = self.state();
        let uploads = state.buckets.get(bucket).map(|bucket| bucket.uploads.values());
        let told = |upload: &Upload| (upload.key.clone(), upload.parts.keys().copied().collect());
        uploads.map(|uploads| uploads.map(told).collect()).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Content as it arrives, hashed on the way.
pub(crate) struct Arriving {
    pieces: Vec<Bytes>,
    size: u64,
    md5: Md5,
    sha256: Sha256,
}

impl Arriving {
    pub(crate) fn new() -> Self {
        Arriving { pieces: Vec::new(), size: 0, md5: Md5::new(), sha256: Sha256::new() }
    }

    pub(crate) fn push(&mut self, piece: Bytes, hash: bool) {
        self.size += piece.len() as u64;
        self.md5.update(&piece);
        if hash {
            self.sha256.update(&piece);
        }
        self.pieces.push(piece);
    }

    pub(crate) fn finish(self) -> Object {
        // The pieces are slices of the connection's buffers: many small ones would hold those for ever.
        let content =
            if self.pieces.len() == 1 && self.size > 4096 { self.pieces } else { vec![self.pieces.concat().into()] };
        Object {
            pieces: content,
            size: self.size,
            metadata: BTreeMap::new(),
            content_type: None,
            etag: hex(&self.md5.finalize()),
            sha256: Some(STANDARD.encode(self.sha256.finalize())),
            modified: SystemTime::now(),
        }
    }
}

/// An object put together from parts, as S3 reckons its entity tag and checksum.
pub(crate) fn joined(upload: &Upload, parts: &[&Object]) -> Object {
    let (mut md5, mut sha256) = (Md5::new(), Sha256::new());
    for part in parts {
        md5.update(unhex(&part.etag));
        sha256.update(part.sha256.as_ref().and_then(|sum| STANDARD.decode(sum).ok()).unwrap_or_default());
    }
    Object {
        pieces: parts.iter().flat_map(|part| part.pieces.iter().cloned()).collect(),
        size: parts.iter().map(|part| part.size).sum(),
        metadata: upload.metadata.clone(),
        content_type: upload.content_type.clone(),
        etag: format!("{}-{}", hex(&md5.finalize()), parts.len()),
        sha256: upload.is_checked.then(|| format!("{}-{}", STANDARD.encode(sha256.finalize()), parts.len())),
        modified: SystemTime::now(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).filter_map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect()
}
