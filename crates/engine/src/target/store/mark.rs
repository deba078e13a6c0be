//! The mark at a store's top: whose it is, and which. Where content cannot be read, it is the mark's path that says so.

use std::io::Read as _;
use std::ops::ControlFlow;

use super::{Spool, Store, away};
use crate::model::RelPath;
use crate::target::mark::{BYTES_MAX, fresh, judge, named, names};
use crate::target::{Claim, MARK, Meta, Result};

fn top() -> RelPath {
    RelPath::ROOT.join(MARK)
}

/// The mark's id, if it is there and the one that is expected; `None` if there is none and none is expected.
pub(super) fn check(store: &dyn Store, spool: &Spool, claim: &Claim) -> Result<Option<String>> {
    judge(&store.place(), text(store, spool)?.as_deref(), claim)
}

fn text(store: &dyn Store, spool: &Spool) -> Result<Option<Vec<u8>>> {
    if !store.abilities().read {
        let mut found = None;
        store.list(&top(), &mut |item| {
            found = Some(item.path).filter(|path| path.is_within(&top()));
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        return Ok(found.map(|path| names(&path.components().skip(1).collect::<Vec<_>>())));
    }
    if store.look(&top())?.is_none() {
        return Ok(None);
    }
    let mut text = Vec::new();
    let read = store.read(&top(), spool)?.take(BYTES_MAX).read_to_end(&mut text);
    read.map_err(|error| away(store, format!("its mark cannot be read: {error}")))?;
    Ok(Some(text))
}

/// Marks a place that was never used.
pub(super) fn make(store: &dyn Store, spool: &Spool, claim: &Claim) -> Result<String> {
    let unwritable = |error: String| away(store, format!("its mark cannot be written: {error}"));
    let (id, text) = fresh(claim).map_err(|error| unwritable(error.to_string()))?;
    let path = match store.abilities().read {
        true => top(),
        false => named(claim, &id).iter().fold(top(), |at, name| at.join(name)),
    };
    let mtime_ns = 0;
    let what = spool.take(&path, &mut text.as_bytes(), text.len() as u64, mtime_ns)?;
    let meta = Meta { mode: 0o644, mtime_ns, ..Meta::default() };
    store.put(&path, &meta, &what).map_err(|error| match error {
        error if error.is_of_the_place() => error,
        error => unwritable(error.to_string()),
    })?;
    // Somebody else may have marked it at the same time: the last one's is there.
    match check(store, spool, claim)? {
        Some(found) => Ok(found),
        None => Err(away(store, "its mark is not there though it was taken: does something else clean up there?")),
    }
}
