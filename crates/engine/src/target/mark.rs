//! The mark at a target's top: whose it is, and which. A disk that is not mounted has none.

use serde::{Deserialize, Serialize};

use super::{Claim, MARK, Result, TargetError};
use crate::model::JournalId;

/// The format of the mark.
const FORMAT: u32 = 1;
/// No mark is longer.
pub(super) const BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    keepwatch_replica: u32,
    id: String,
    owner: String,
    host: String,
}

/// The id in a mark, if it is the one that is expected; `None` if there is no mark and none is expected.
///
/// # Errors
/// [`TargetError::Away`] and [`TargetError::Owned`], for the place of this name.
pub(super) fn judge(place: &str, text: Option<&[u8]>, claim: &Claim) -> Result<Option<String>> {
    let away = |why: String| TargetError::Away { place: place.to_owned(), why };
    let Some(text) = text else {
        return match claim.identity {
            None => Ok(None),
            Some(_) => Err(away(
                "what is there is not the replica (its mark is missing): is it mounted? Nothing was written to it"
                    .to_owned(),
            )),
        };
    };
    let mark: Mark = serde_json::from_slice(text).map_err(|error| away(format!("its mark is damaged: {error}")))?;
    if mark.owner != claim.owner {
        let mark_path = String::from_utf8_lossy(MARK).into_owned();
        return Err(TargetError::Owned { place: place.to_owned(), host: mark.host, mark: mark_path });
    }
    match &claim.identity {
        Some(identity) if *identity != mark.id => Err(away(
            "another replica of this host is there: is the right disk mounted? Nothing was written to it".to_owned(),
        )),
        _ => Ok(Some(mark.id)),
    }
}

/// A new mark for a place that was never used: its id, and its text.
pub(super) fn fresh(claim: &Claim) -> serde_json::Result<(String, String)> {
    let id = JournalId::random().to_string();
    let mark = Mark { keepwatch_replica: FORMAT, id: id.clone(), owner: claim.owner.clone(), host: claim.host.clone() };
    Ok((id, format!("{}\n", serde_json::to_string_pretty(&mark)?)))
}

/// What stands in a mark, as the names of a path: where content cannot be read, that path is the mark.
pub(super) fn named(claim: &Claim, id: &str) -> [Vec<u8>; 3] {
    let name = |text: &str| if text.is_empty() { b"-".to_vec() } else { text.replace('/', "-").into_bytes() };
    [name(id), name(&claim.owner), name(&claim.host)]
}

/// The text of a mark whose path has these names. What is none is damaged text.
pub(super) fn names(names: &[&[u8]]) -> Vec<u8> {
    let text = |at: usize| names.get(at).map(|name| String::from_utf8_lossy(name).into_owned());
    let mark = || Some(Mark { keepwatch_replica: FORMAT, id: text(0)?, owner: text(1)?, host: text(2)? });
    mark().and_then(|mark| serde_json::to_vec(&mark).ok()).unwrap_or_default()
}
