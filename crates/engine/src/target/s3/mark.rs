//! The mark at a target's top: whose it is, and which.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::bucket::Bucket;
use super::wire::WireError;
use crate::model::JournalId;
use crate::target::{Claim, MARK, Result, TargetError};

/// The format of the mark.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    keepwatch_replica: u32,
    id: String,
    owner: String,
    host: String,
}

fn key(bucket: &Bucket) -> String {
    format!("{}{}", bucket.prefix, String::from_utf8_lossy(MARK))
}

fn failed(bucket: &Bucket, error: &WireError) -> TargetError {
    match super::error::why_away(&bucket.name, error) {
        Some(why) => bucket.away(why),
        None => bucket.away(format!("its mark is out of reach: {error}")),
    }
}

/// The mark's id, if it is there and the one that is expected; `None` if there is none and none is expected.
pub(super) fn check(bucket: &Bucket, claim: &Claim) -> Result<Option<String>> {
    let text = bucket.wait(bucket.wire.get(&key(bucket))).map_err(|error| failed(bucket, &error))?;
    let Some(text) = text else {
        return match claim.identity {
            None => Ok(None),
            Some(_) => {
                Err(bucket.away("what is there is not the replica (its mark is missing); nothing was written to it"))
            }
        };
    };
    let mark: Mark =
        serde_json::from_slice(&text).map_err(|error| bucket.away(format!("its mark is damaged: {error}")))?;
    if mark.owner != claim.owner {
        return Err(TargetError::Owned { place: bucket.place.clone(), host: mark.host, mark: key(bucket) });
    }
    match &claim.identity {
        Some(identity) if *identity != mark.id => {
            Err(bucket.away("another replica of this host is there; nothing was written to it"))
        }
        _ => Ok(Some(mark.id)),
    }
}

/// Marks a place that was never used.
pub(super) fn make(bucket: &Bucket, claim: &Claim) -> Result<String> {
    let id = JournalId::random().to_string();
    if put(bucket, claim, &id)? {
        return Ok(id);
    }
    // Somebody else marked it just now, or this did and the reply was lost.
    check(bucket, claim)?.ok_or_else(|| bucket.away("its mark comes and goes: does something else clean up there?"))
}

/// Whether the store keeps an object that it is told not to overwrite; shown at the mark, which stays the same either way.
pub(super) fn is_kept(bucket: &Bucket, claim: &Claim, identity: &str) -> Result<bool> {
    Ok(!put(bucket, claim, identity)?)
}

/// Puts the mark where none is. `false`: one is.
fn put(bucket: &Bucket, claim: &Claim, id: &str) -> Result<bool> {
    let (owner, host) = (claim.owner.clone(), claim.host.clone());
    let mark = Mark { keepwatch_replica: FORMAT, id: id.to_owned(), owner, host };
    let text = serde_json::to_vec_pretty(&mark).map_err(|source| TargetError::Io {
        doing: "write",
        path: key(bucket),
        source: source.into(),
    })?;
    let digest = Sha256::digest(&text).into();
    let text = bytes::Bytes::from(text);
    let mut result = bucket.wait(bucket.wire.put(&key(bucket), &[], text.clone(), digest, true));
    if matches!(result, Err(WireError::Refused { status: 501, .. })) {
        // A store that knows no such condition.
        result = bucket.wait(bucket.wire.put(&key(bucket), &[], text, digest, false));
    }
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.is_condition() => Ok(false),
        Err(error) => Err(failed(bucket, &error)),
    }
}
