//! The bucket: where things are in it, and what of this machine its requests may use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::objects::Metadata;
use super::wire::{Wire, WireError};
use super::{Patience, S3Access, S3Place, error, mark};
use crate::clock::{Clock as _, SystemClock};
use crate::model::{RelPath, Timestamp};
use crate::target::{Claim, Result, TargetError, keys, shown};

/// Threads for the network.
const WORKERS: usize = 2;
/// Requests that are under way at once for one call.
pub(super) const REQUESTS_MAX: usize = 64;
/// Bytes of memory are counted in such units.
pub(super) const UNIT: usize = 64 << 10;
/// Memory for content that waits to be published.
const KEPT_MAX: usize = 64 << 20;
/// Memory for parts that are on their way.
pub(super) const PARTS_MAX: usize = 96 << 20;
/// The largest object that a store copies at once.
pub(super) const COPY_MAX: u64 = 5 << 30;
/// The stretches in which larger ones are copied; an object has at most 10 000.
const COPY_PART: u64 = 1 << 30;
/// Unfinished uploads that are remembered.
const UPLOADS_MAX: usize = 10_000;
/// An upload that nobody went on with for so long is given up.
const UPLOAD_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A bucket, or what begins with a prefix in one.
pub(super) struct Bucket {
    /// For people.
    pub(super) place: String,
    pub(super) name: String,
    /// What all keys begin with: nothing, or something with a `/` at its end.
    pub(super) prefix: String,
    pub(super) wire: Wire,
    /// For content that waits to be published, in units.
    pub(super) kept: Arc<Semaphore>,
    /// For parts that are on their way, in units.
    pub(super) parts: Arc<Semaphore>,
    /// Unfinished uploads by key: they are gone on with.
    pub(super) uploads: Mutex<HashMap<String, String>>,
    /// Whether it refuses to overwrite when asked to; not every store does.
    is_conditional: OnceLock<bool>,
    /// `None` only while it is being dropped.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bucket").field(&self.place).finish()
    }
}

impl Drop for Bucket {
    /// Whatever thread drops it: one of its own cannot wait for itself to end.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Bucket {
    pub(super) fn new(place: &S3Place, access: &S3Access, patience: Patience) -> Result<Self> {
        let shown = place.to_string();
        let away = |why: String| TargetError::Away { place: shown.clone(), why };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|error| away(format!("its threads cannot be started: {error}")))?;
        Ok(Bucket {
            wire: Wire::new(place.bucket(), access, patience).map_err(away)?,
            name: place.bucket().to_owned(),
            prefix: place.key_prefix(),
            place: shown,
            kept: Arc::new(Semaphore::new(KEPT_MAX / UNIT)),
            parts: Arc::new(Semaphore::new(PARTS_MAX / UNIT)),
            uploads: Mutex::default(),
            is_conditional: OnceLock::new(),
            runtime: Some(runtime),
        })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken only by drop")
    }

    /// Waits for what goes on in the network.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime().block_on(work)
    }

    /// By which work is given to the threads for the network.
    pub(super) fn handle(&self) -> tokio::runtime::Handle {
        self.runtime().handle().clone()
    }

    /// The key of a path.
    pub(super) fn key(&self, path: &RelPath) -> Result<String> {
        let key = format!("{}{}", self.prefix, keys::encode(path));
        if key.len() > keys::KEY_MAX {
            let why = format!("its key would have {} bytes, and {} is the most", key.len(), keys::KEY_MAX);
            return Err(TargetError::Refused { path: shown(path), why });
        }
        Ok(key)
    }

    /// What the keys of all below a directory begin with.
    pub(super) fn below(&self, dir: &RelPath) -> Result<String> {
        if dir.is_root() { Ok(self.prefix.clone()) } else { Ok(format!("{}/", self.key(dir)?)) }
    }

    pub(super) fn away(&self, why: impl Into<String>) -> TargetError {
        TargetError::Away { place: self.place.clone(), why: why.into() }
    }

    /// An error of the wire as one of the target.
    pub(super) fn error<'s>(
        &'s self,
        doing: &'static str,
        path: &'s RelPath,
    ) -> impl Fn(WireError) -> TargetError + use<'s> {
        move |wire| error::target_error(&self.place, &self.name, doing, path, &wire)
    }

    /// Copies within the bucket; what is larger than a store copies at once in parts.
    pub(super) async fn copy(&self, from: &str, to: &str, size: u64, metadata: &Metadata<'_>) -> Result<(), WireError> {
        if size <= COPY_MAX {
            return self.wire.copy(&self.name, from, to, metadata).await;
        }
        let kept;
        let headers = match metadata {
            Metadata::Other(headers) => *headers,
            Metadata::Same => {
                kept = self.wire.carried(from).await?;
                &kept
            }
        };
        let upload = self.wire.begin_upload(to, headers).await?;
        let copied = self.copy_parts(from, (to, &upload), size).await;
        if copied.is_err() {
            let _ = self.wire.abort_upload(to, &upload).await;
        }
        copied
    }

    async fn copy_parts(&self, from: &str, (to, upload): (&str, &str), size: u64) -> Result<(), WireError> {
        let mut parts = Vec::new();
        let mut at = 0;
        for number in 1.. {
            let end = size.min(at + COPY_PART);
            parts.push(self.wire.copy_part((&self.name, from), (to, upload), number, at..end).await?);
            if end == size {
                break;
            }
            at = end;
        }
        self.wire.complete_upload(to, upload, &parts).await
    }

    /// Whether the store can be asked to put something only where nothing is.
    pub(super) fn is_conditional(&self) -> bool {
        self.is_conditional.get().copied().unwrap_or(false)
    }

    /// Finds out, once, what the store can do, and which uploads an earlier run left unfinished.
    pub(super) fn get_to_know(&self, claim: &Claim, identity: &str) -> Result<()> {
        if self.is_conditional.get().is_some() {
            return Ok(());
        }
        let is_conditional = mark::is_kept(self, claim, identity)?;
        if !is_conditional {
            tracing::info!(place = self.place, "the store overwrites though told not to: each put asks first");
        }
        if let Err(error) = self.wait(self.find_uploads()) {
            tracing::debug!(%error, place = self.place, "unfinished uploads are not known");
        }
        let _ = self.is_conditional.set(is_conditional);
        Ok(())
    }

    /// Unfinished uploads below the prefix: old ones go, the others are gone on with.
    async fn find_uploads(&self) -> Result<(), WireError> {
        let age_max = i64::try_from(UPLOAD_AGE_MAX.as_nanos()).unwrap_or(i64::MAX);
        let oldest = Timestamp(SystemClock.now().0.saturating_sub(age_max));
        let mut after = None;
        loop {
            let page = self.wire.uploads(&self.prefix, after.as_ref()).await?;
            for upload in page.uploads {
                // Ours come with checksums.
                if upload.checksum_algorithm != "SHA256" {
                    continue;
                }
                let began = upload.initiated.parse::<Timestamp>();
                if began.is_ok_and(|began| began < oldest) {
                    self.wire.abort_upload(&upload.key, &upload.upload_id).await?;
                    continue;
                }
                let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
                if uploads.len() < UPLOADS_MAX {
                    uploads.insert(upload.key, upload.upload_id);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}
