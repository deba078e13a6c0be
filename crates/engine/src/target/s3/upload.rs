//! A large file, sent in parts. A run that ends leaves its parts at the store: the next one asks which are there, and sends only
//! those whose checksums are not those of what it reads now.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::bucket::{Bucket, PARTS_MAX, UNIT};
use super::objects::Headers;
use super::reply::Part;
use super::stage::{WHOLE_MAX, read};
use super::wire::WireError;
use crate::model::RelPath;
use crate::target::{Result, TargetError, shown};

/// Parts that an upload may have.
const COUNT_MAX: u64 = 10_000;
/// Parts of one file that are under way at once.
const AT_ONCE: usize = 4;
/// The largest object.
const SIZE_MAX: u64 = 5 << 40;

/// A file that is at the store in parts.
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) parts: Vec<Part>,
    pub(super) size: u64,
    /// Whether an earlier run began it.
    pub(super) is_resumed: bool,
}

impl Upload {
    /// Gives it up. What cannot be given up now is when it is old.
    pub(super) fn abort(&self, bucket: &Bucket, key: &str) {
        if let Err(error) = bucket.wait(bucket.wire.abort_upload(key, &self.id)) {
            tracing::debug!(%error, key, "an upload was not given up");
        }
    }
}

/// Bytes of a part: as few as go into the most parts there may be, in whole MiB.
fn part_size(size: u64) -> u64 {
    size.div_ceil(COUNT_MAX).next_multiple_of(1 << 20).max(WHOLE_MAX)
}

/// Sends a file's content.
pub(super) fn send(
    bucket: &Arc<Bucket>,
    path: &RelPath,
    key: &str,
    headers: &Headers,
    bytes: &mut dyn Read,
    size: u64,
) -> Result<Upload> {
    if size > SIZE_MAX {
        return Err(TargetError::Refused { path: shown(path), why: "it is larger than 5 TiB".to_owned() });
    }
    let failed = bucket.error("write", path);
    let (mut upload, there) = begin(bucket, key, headers, size).map_err(&failed)?;
    let sent = send_parts(bucket, path, key, &mut upload, &there, bytes);
    match sent {
        Ok(()) => Ok(upload),
        Err(error) if error.is_of_the_place() => {
            // The parts that arrived are not sent again.
            remember(bucket, key, upload.id);
            Err(error)
        }
        Err(error) => {
            upload.abort(bucket, key);
            Err(error)
        }
    }
}

/// Has an upload gone on with when the file is sent the next time.
pub(super) fn remember(bucket: &Bucket, key: &str, id: String) {
    bucket.uploads.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), id);
}

/// Begins an upload, or goes on with one; and the parts that are there.
fn begin(bucket: &Bucket, key: &str, headers: &Headers, size: u64) -> Result<(Upload, BTreeMap<u32, Part>), WireError> {
    let unfinished = bucket.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    let upload = |id, is_resumed| Upload { id, parts: Vec::new(), size, is_resumed };
    if let Some(id) = unfinished {
        match bucket.wait(parts_there(bucket, key, &id)) {
            Ok(there) => return Ok((upload(id, true), there)),
            Err(error) if error.has_code("NoSuchUpload") || error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    let id = bucket.wait(bucket.wire.begin_upload(key, headers))?;
    Ok((upload(id, false), BTreeMap::new()))
}

async fn parts_there(bucket: &Bucket, key: &str, id: &str) -> Result<BTreeMap<u32, Part>, WireError> {
    let (mut there, mut after) = (BTreeMap::new(), 0);
    loop {
        let page = bucket.wire.parts(key, id, after).await?;
        there.extend(page.parts.into_iter().map(|part| (part.number, part)));
        match page.next {
            Some(next) if next > after => after = next,
            _ => return Ok(there),
        }
    }
}

fn send_parts(
    bucket: &Arc<Bucket>,
    path: &RelPath,
    key: &str,
    upload: &mut Upload,
    there: &BTreeMap<u32, Part>,
    bytes: &mut dyn Read,
) -> Result<()> {
    let failed = bucket.error("write", path);
    let part_size = part_size(upload.size);
    let units = u32::try_from((part_size / UNIT as u64).min((PARTS_MAX / UNIT) as u64)).unwrap_or(1);
    let handle = bucket.handle();
    let mut under_way: JoinSet<Result<Part, WireError>> = JoinSet::new();
    let joined = |under_way: &mut JoinSet<Result<Part, WireError>>, parts: &mut Vec<Part>| -> Result<()> {
        match bucket.wait(under_way.join_next()) {
            Some(Ok(part)) => {
                parts.push(part.map_err(&failed)?);
                Ok(())
            }
            Some(Err(error)) => Err(bucket.away(format!("a part was not sent: {error}"))),
            None => Ok(()),
        }
    };
    // One byte more tells that the file has grown: the caller counts.
    let mut left = upload.size + 1;
    for number in 1.. {
        let memory = bucket.wait(Arc::clone(&bucket.parts).acquire_many_owned(units));
        let memory = memory.map_err(|_| bucket.away("it is being closed"))?;
        let body = read(bytes, part_size.min(left), path)?;
        let is_last = (body.len() as u64) < part_size || body.len() as u64 == left;
        left -= body.len() as u64;
        // Only an empty file has an empty part.
        if body.is_empty() && number > 1 {
            break;
        }
        let digest: [u8; 32] = Sha256::digest(&body).into();
        let known = there
            .get(&number)
            .filter(|part| part.size == body.len() as u64 && part.sha256.as_deref() == Some(&*STANDARD.encode(digest)));
        if let Some(part) = known {
            upload.parts.push(part.clone());
        } else {
            let (bucket, key, id) = (Arc::clone(bucket), key.to_owned(), upload.id.clone());
            let send = async move {
                let _memory = memory;
                bucket.wire.put_part(&key, &id, number, body.into(), digest).await
            };
            under_way.spawn_on(send, &handle);
        }
        if under_way.len() >= AT_ONCE {
            joined(&mut under_way, &mut upload.parts)?;
        }
        if is_last {
            break;
        }
    }
    while !under_way.is_empty() {
        joined(&mut under_way, &mut upload.parts)?;
    }
    upload.parts.sort_by_key(|part| part.number);
    Ok(())
}
