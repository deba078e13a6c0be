//! Content on its way: small files wait in memory, whole, until they are published; large ones, and small ones when that memory
//! is used up, are sent in parts at once and joined when they are published.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::bucket::{Bucket, UNIT};
use super::meta;
use super::objects::Metadata;
use super::upload::{self, Upload};
use super::wire::WireError;
use crate::model::{FileType, RelPath};
use crate::target::{Content, Meta, Result, TargetError, shown};

/// The largest file that is put in one request, and the size of parts.
pub(super) const WHOLE_MAX: u64 = 8 << 20;

/// Content that was taken in.
pub(super) struct Kept {
    pub(super) key: String,
    pub(super) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// By which it is known again.
    pub(super) token: String,
    pub(super) how: How,
}

pub(super) enum How {
    /// In memory, which is held.
    Whole { body: Bytes, digest: [u8; 32], _memory: OwnedSemaphorePermit },
    /// At the store, in parts.
    Parts(Upload),
}

/// Reads at most so much.
pub(super) fn read(bytes: &mut dyn Read, most: u64, path: &RelPath) -> Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(usize::try_from(most).unwrap_or(0));
    let read = bytes.take(most).read_to_end(&mut buffer);
    read.map_err(|source| TargetError::Source { path: shown(path), source })?;
    Ok(buffer)
}

/// Takes content in.
pub(super) fn stage(bucket: &Arc<Bucket>, path: &RelPath, file: &Meta, content: Content<'_>) -> Result<Kept> {
    let key = bucket.key(path)?;
    let token = Uuid::now_v7().simple().to_string();
    let headers = |kind| meta::headers(kind, file, &token);
    match content {
        Content::Symlink(to) => {
            let memory = bucket.wait(Arc::clone(&bucket.kept).acquire_owned());
            let memory = memory.map_err(|_| bucket.away("it is being closed"))?;
            let how = How::Whole { body: to.to_vec().into(), digest: Sha256::digest(to).into(), _memory: memory };
            Ok(Kept { key, headers: headers(FileType::Symlink), token: token.clone(), how })
        }
        Content::File { bytes, size, .. } => {
            let headers = headers(FileType::File);
            let how = match memory_for(bucket, size) {
                Some(memory) => {
                    // One byte more tells that the file has grown: the caller counts.
                    let body = read(bytes, size + 1, path)?;
                    How::Whole { digest: Sha256::digest(&body).into(), body: body.into(), _memory: memory }
                }
                None => How::Parts(upload::send(bucket, path, &key, &headers, bytes, size)?),
            };
            Ok(Kept { key, headers, token, how })
        }
        Content::Fifo | Content::Device { .. } => Err(TargetError::Refused {
            path: shown(path),
            why: "a store of objects holds files and symbolic links, not pipes and devices".to_owned(),
        }),
    }
}

fn memory_for(bucket: &Bucket, size: u64) -> Option<OwnedSemaphorePermit> {
    let units = u32::try_from(size / UNIT as u64 + 1).ok().filter(|_| size <= WHOLE_MAX)?;
    Arc::clone(&bucket.kept).try_acquire_many_owned(units).ok()
}

impl Kept {
    /// Puts it in its place. What stands there is copied below `keep` first.
    pub(super) async fn publish(&self, bucket: &Bucket, path: &RelPath, keep: Option<&RelPath>) -> Result<()> {
        let failed = bucket.error("write", path);
        match &self.how {
            How::Whole { body, digest, .. } => {
                let put = |only_new| bucket.wire.put(&self.key, &self.headers, body.clone(), *digest, only_new);
                if let Some(keep) = keep {
                    if bucket.is_conditional() {
                        match put(true).await {
                            Err(error) if error.is_condition() => {}
                            result => return result.map_err(failed),
                        }
                        if self.is_there(bucket).await.map_err(&failed)? {
                            return Ok(());
                        }
                    }
                    keep_old(bucket, path, &self.key, keep).await?;
                }
                put(false).await.map_err(failed)
            }
            How::Parts(upload) => {
                if let Some(keep) = keep {
                    keep_old(bucket, path, &self.key, keep).await?;
                }
                match bucket.wire.complete_upload(&self.key, &upload.id, &upload.parts).await {
                    // It was joined already, and the reply lost.
                    Err(error) if error.has_code("NoSuchUpload") && self.is_there(bucket).await.map_err(&failed)? => {}
                    result => result.map_err(&failed)?,
                }
                self.mend(bucket, upload).await.map_err(failed)
            }
        }
    }

    /// Whether what stands there is this.
    async fn is_there(&self, bucket: &Bucket) -> Result<bool, WireError> {
        let head = bucket.wire.head(&self.key).await?;
        Ok(head.and_then(|head| head.put).is_some_and(|put| put == self.token))
    }

    /// An upload that an earlier run began has the metadata of then.
    async fn mend(&self, bucket: &Bucket, upload: &Upload) -> Result<(), WireError> {
        if !upload.is_resumed {
            return Ok(());
        }
        bucket.copy(&self.key, &self.key, upload.size, &Metadata::Other(&self.headers)).await
    }

    /// Gives it up.
    pub(super) fn discard(self, bucket: &Bucket) {
        if let How::Parts(upload) = self.how {
            upload.abort(bucket, &self.key);
        }
    }
}

/// Copies what stands at a path below a directory of the trash, under a name that is free there.
async fn keep_old(bucket: &Bucket, path: &RelPath, key: &str, keep: &RelPath) -> Result<()> {
    let failed = bucket.error("keep the old", path);
    let Some(old) = bucket.wire.head(key).await.map_err(&failed)? else { return Ok(()) };
    let wanted = path.components().fold(keep.clone(), |at, name| at.join(name));
    for number in 1..=crate::target::SAME_NAMES_MAX {
        let place = if number == 1 { wanted.clone() } else { crate::target::numbered(&wanted, number) };
        let to = bucket.key(&place)?;
        if bucket.wire.head(&to).await.map_err(&failed)?.is_some() {
            continue;
        }
        return match bucket.copy(key, &to, old.size, &Metadata::Same).await {
            Err(error) if error.is_missing() => Ok(()),
            result => result.map_err(failed),
        };
    }
    Err(TargetError::Refused { path: shown(path), why: "the trash holds too many of this name".to_owned() })
}
