//! Renames. S3 knows none: each object is copied by the store, then deleted; nothing is sent.
//!
//! A directory's rename takes a request or two for each object below it and may be interrupted in the middle. So what is
//! intended is written down before, as an object in the staging directory, and a rename that finds its own intention there
//! goes on instead of taking what it moved itself for something in the way.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::bucket::{Bucket, REQUESTS_MAX};
use super::objects::Metadata;
use super::wire::WireError;
use crate::model::RelPath;
use crate::target::{Result, STAGING, TargetError, shown};

/// Keys in a page.
const PAGE: u32 = 1000;

fn in_the_way(to: &RelPath) -> TargetError {
    TargetError::Refused { path: shown(to), why: "something else stands in its way".to_owned() }
}

/// Renames an object, or all below a directory.
pub(super) fn rename(bucket: &Arc<Bucket>, from: &RelPath, to: &RelPath) -> Result<()> {
    if to.is_within(from) || from.is_within(to) {
        return Err(in_the_way(to));
    }
    let failed = bucket.error("rename", from);
    let (from_key, to_key) = (bucket.key(from)?, bucket.key(to)?);
    let head = bucket.wait(bucket.wire.head(&from_key)).map_err(&failed)?;
    let is_free = bucket.wait(is_free(bucket, &to_key)).map_err(&failed)?;
    if let Some(head) = head {
        if !is_free {
            return Err(in_the_way(to));
        }
        return bucket.wait(move_one(bucket, &from_key, &to_key, head.size)).map_err(failed);
    }
    let intention = intention(bucket, &from_key, &to_key);
    let is_begun = || bucket.wait(bucket.wire.head(&intention)).map(|head| head.is_some()).map_err(&failed);
    if !is_free && !is_begun()? {
        return Err(in_the_way(to));
    }
    let (from_dir, to_dir) = (format!("{from_key}/"), format!("{to_key}/"));
    let is_empty = bucket.wait(bucket.wire.list(&from_dir, "", None, 1)).map_err(&failed)?.objects.is_empty();
    if is_empty && (is_free || !is_begun()?) {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such object");
        return Err(TargetError::Io { doing: "rename", path: shown(from), source });
    }
    let text = format!("{from_key}\n{to_key}\n");
    let digest = Sha256::digest(&text).into();
    bucket.wait(bucket.wire.put(&intention, &[], text.into(), digest, false)).map_err(&failed)?;
    move_all(bucket, &from_dir, &to_dir).map_err(&failed)?;
    bucket.wait(bucket.wire.delete(&intention)).map_err(failed)
}

/// Where it is written down that this is to become that.
fn intention(bucket: &Bucket, from: &str, to: &str) -> String {
    let hash = Sha256::digest(format!("{from}\n{to}"));
    let name: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}{}/rename-{name}", bucket.prefix, String::from_utf8_lossy(STAGING))
}

async fn is_free(bucket: &Bucket, key: &str) -> Result<bool, WireError> {
    let below = format!("{key}/");
    let (head, below) = tokio::join!(bucket.wire.head(key), bucket.wire.list(&below, "", None, 1));
    Ok(head?.is_none() && below?.objects.is_empty())
}

async fn move_one(bucket: &Bucket, from: &str, to: &str, size: u64) -> Result<(), WireError> {
    bucket.copy(from, to, size, &Metadata::Same).await?;
    bucket.wire.delete(from).await
}

/// Moves all objects whose keys begin so, many at a time.
fn move_all(bucket: &Arc<Bucket>, from: &str, to: &str) -> Result<(), WireError> {
    let (handle, at_once) = (bucket.handle(), Arc::new(Semaphore::new(REQUESTS_MAX)));
    let (mut after, mut is_more) = (String::new(), true);
    while is_more {
        // What was moved is not listed again: so by the last key, not by a token.
        let page = bucket.wait(bucket.wire.list(from, &after, None, PAGE))?;
        is_more = page.next.is_some();
        if let Some(last) = page.objects.last() {
            after.clone_from(&last.key);
        }
        let mut moves = JoinSet::new();
        for one in page.objects {
            let Some(rest) = one.key.strip_prefix(from) else { continue };
            let (bucket, new, at_once) = (Arc::clone(bucket), format!("{to}{rest}"), Arc::clone(&at_once));
            let work = async move {
                let _turn = at_once.acquire().await;
                match move_one(&bucket, &one.key, &new, one.size).await {
                    // Gone since it was listed.
                    Err(error) if error.is_missing() => Ok(()),
                    moved => moved,
                }
            };
            moves.spawn_on(work, &handle);
        }
        let all = bucket.wait(moves.join_all());
        all.into_iter().collect::<Result<(), WireError>>()?;
    }
    Ok(())
}
