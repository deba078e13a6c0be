//! A bucket at work.

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::bucket::{Bucket, REQUESTS_MAX};
use super::objects::Metadata;
use super::stage::{self, How, Kept};
use super::{listing, meta, moves, upload};
use crate::model::{FileType, RelPath};
use crate::target::dirs::a_dir;
use crate::target::stretches::Stretches;
use crate::target::{Content, Found, Meta, Result, Session, Staged, TargetError, shown};

pub(super) struct S3Session {
    bucket: Arc<Bucket>,
    next: AtomicU64,
    staged: Mutex<HashMap<u64, Kept>>,
}

impl S3Session {
    pub(super) fn new(bucket: Arc<Bucket>) -> Self {
        S3Session { bucket, next: AtomicU64::new(1), staged: Mutex::default() }
    }

    fn take(&self, number: u64) -> Option<Kept> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }
}

impl Drop for S3Session {
    /// What is at the store in parts is gone on with.
    fn drop(&mut self) {
        for (_, kept) in self.staged.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
            if let How::Parts(upload) = kept.how {
                upload::remember(&self.bucket, &kept.key, upload.id);
            }
        }
    }
}

fn not_there(doing: &'static str, path: &RelPath) -> TargetError {
    let source = io::Error::new(io::ErrorKind::NotFound, "there is no such object");
    TargetError::Io { doing, path: shown(path), source }
}

impl Session for S3Session {
    fn list(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        listing::list(&self.bucket, below, each)
    }

    fn look(&self, path: &RelPath) -> Result<Option<Found>> {
        if path.is_root() {
            return Ok(Some(a_dir()));
        }
        let (key, below) = (self.bucket.key(path)?, self.bucket.below(path)?);
        let looks =
            async { tokio::join!(listing::look_at(&self.bucket, &key), self.bucket.wire.list(&below, "", None, 1)) };
        let (object, below) = self.bucket.wait(looks);
        let failed = self.bucket.error("look at", path);
        let is_dir = !below.map_err(&failed)?.objects.is_empty();
        Ok(object.map_err(&failed)?.or_else(|| is_dir.then(a_dir)))
    }

    fn read(&self, path: &RelPath) -> Result<Box<dyn Read + Send>> {
        let key = self.bucket.key(path)?;
        let head = self.bucket.wait(self.bucket.wire.head(&key)).map_err(self.bucket.error("read", path))?;
        let head = head.ok_or_else(|| not_there("read", path))?;
        let bucket = Arc::clone(&self.bucket);
        // With this tag, from its first byte to its last.
        let fetch = move |at, length| {
            let stretch = bucket.wait(bucket.wire.get_range(&key, &head.etag, at, length));
            stretch.map_err(io::Error::other)
        };
        Ok(Box::new(Stretches::new(head.size, fetch)))
    }

    fn stage(&self, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<Staged> {
        let kept = stage::stage(&self.bucket, path, meta, content)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).insert(number, kept);
        Ok(Staged { path: path.clone(), number })
    }

    fn discard(&self, staged: Staged) {
        if let Some(kept) = self.take(staged.number) {
            kept.discard(&self.bucket);
        }
    }

    fn publish(&self, staged: Vec<Staged>, keep: Option<&RelPath>) -> Vec<Result<()>> {
        let (handle, at_once) = (self.bucket.handle(), Arc::new(Semaphore::new(REQUESTS_MAX)));
        let mut results: Vec<Option<Result<()>>> = staged.iter().map(|_| None).collect();
        let mut puts = JoinSet::new();
        for (index, one) in staged.into_iter().enumerate() {
            let Some(kept) = self.take(one.number) else { continue };
            let (bucket, at_once, keep) = (Arc::clone(&self.bucket), Arc::clone(&at_once), keep.cloned());
            let work = async move {
                let _turn = at_once.acquire().await;
                let result = kept.publish(&bucket, &one.path, keep.as_ref()).await;
                (index, result.is_err().then_some(kept), result)
            };
            puts.spawn_on(work, &handle);
        }
        while let Some(put) = self.bucket.wait(puts.join_next()) {
            let Ok((index, failed, result)) = put else { continue };
            if let Some(Kept { key, how: How::Parts(upload), .. }) = failed {
                upload::remember(&self.bucket, &key, upload.id);
            }
            results[index] = Some(result);
        }
        let lost = || Err(self.bucket.away("it was not put there: its thread ended"));
        results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }

    /// Nothing: a directory is there when something is in it.
    fn make_dir(&self, path: &RelPath) -> Result<()> {
        self.bucket.key(path).map(|_| ())
    }

    fn set_meta(&self, path: &RelPath, kind: FileType, meta: &Meta) -> Result<()> {
        if !matches!(kind, FileType::File | FileType::Symlink) {
            return Ok(());
        }
        let key = self.bucket.key(path)?;
        let failed = self.bucket.error("set the attributes of", path);
        let set = async {
            let Some(head) = self.bucket.wire.head(&key).await? else { return Ok(false) };
            let headers = meta::headers(kind, meta, head.put.as_deref().unwrap_or_default());
            self.bucket.copy(&key, &key, head.size, &Metadata::Other(&headers)).await.map(|()| true)
        };
        match self.bucket.wait(set).map_err(failed)? {
            true => Ok(()),
            false => Err(not_there("set the attributes of", path)),
        }
    }

    /// By a copy that the store makes.
    fn link(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let (from_key, to_key) = (self.bucket.key(from)?, self.bucket.key(to)?);
        let copy = async {
            let Some(head) = self.bucket.wire.head(&from_key).await? else { return Ok(false) };
            self.bucket.copy(&from_key, &to_key, head.size, &Metadata::Same).await.map(|()| true)
        };
        match self.bucket.wait(copy).map_err(self.bucket.error("copy", from))? {
            true => Ok(()),
            false => Err(not_there("copy", from)),
        }
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        moves::rename(&self.bucket, from, to)
    }

    fn remove(&self, path: &RelPath) -> Result<bool> {
        match self.look(path)? {
            None => Ok(false),
            Some(Found { kind: FileType::Dir, .. }) => {
                Err(TargetError::Refused { path: shown(path), why: "the directory is not empty".to_owned() })
            }
            Some(_) => {
                let key = self.bucket.key(path)?;
                self.bucket.wait(self.bucket.wire.delete(&key)).map_err(self.bucket.error("remove", path))?;
                Ok(true)
            }
        }
    }

    /// Nothing: what a store has acknowledged is durable.
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
