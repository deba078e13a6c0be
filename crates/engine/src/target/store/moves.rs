//! Renames. A directory's takes a request or more for each object below it and may be interrupted in the middle. So what is
//! intended is written down before, as an object in the staging directory. A rename that finds its own intention there goes on
//! instead of taking what it moved itself for something in the way; one that is found when a store is opened was interrupted
//! and not journaled: what it moved is moved back.

use std::io::Read as _;
use std::ops::ControlFlow;

use sha2::{Digest as _, Sha256};

use super::doubts::{Doubt, Doubts};
use super::objects::{rename_one, unable};
use super::{Spool, Store, not_there};
use crate::model::RelPath;
use crate::target::{Meta, Result, STAGING, TargetError, shown};

/// The longest intention: two paths.
const TEXT_MAX: u64 = 1 << 20;
/// Objects of a directory that are moved before it is listed again.
const TOGETHER: usize = 4096;

fn in_the_way(to: &RelPath) -> TargetError {
    TargetError::Refused { path: shown(to), why: "something else stands in its way".to_owned() }
}

/// Renames an object, or all below a directory.
pub(super) fn rename(
    store: &dyn Store,
    spool: &Spool,
    doubts: &Doubts,
    (from, to): (&RelPath, &RelPath),
    state: &str,
) -> Result<()> {
    if to.is_within(from) || from.is_within(to) {
        return Err(in_the_way(to));
    }
    let abilities = store.abilities();
    if !abilities.rename && !abilities.read {
        return Err(unable(store));
    }
    let is_free = store.look(to)?.is_none() && !store.holds(to)?;
    if store.look(from)?.is_some() {
        if !is_free {
            return Err(in_the_way(to));
        }
        let renamed = rename_one(store, spool, from, to);
        return doubts.note(renamed, || Doubt::Rename { from: from.clone(), to: to.clone() });
    }
    let intention = intention(from, to, state);
    let is_begun = || store.look(&intention).map(|found| found.is_some());
    if !is_free && !is_begun()? {
        return Err(in_the_way(to));
    }
    if !store.holds(from)? && (is_free || !is_begun()?) {
        return Err(not_there("rename", from));
    }
    let text = [from.as_bytes(), b"\0", to.as_bytes()].concat();
    let what = spool.take(&intention, &mut &text[..], text.len() as u64, 0)?;
    store.put(&intention, &Meta { mode: 0o644, ..Meta::default() }, &what)?;
    let moved = move_all(store, spool, from, to).and_then(|()| {
        store.tidy(from);
        store.delete(&intention)
    });
    doubts.note(moved, || Doubt::Rename { from: from.clone(), to: to.clone() })
}

/// Where it is written down that this is to become that.
fn intention(from: &RelPath, to: &RelPath, state: &str) -> RelPath {
    let hash = Sha256::digest([from.as_bytes(), b"\0", to.as_bytes()].concat());
    let name: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    intentions(state).join(format!("rename-{name}").as_bytes())
}

/// Where a state's intentions are: none touches those of another.
fn intentions(state: &str) -> RelPath {
    let name: String = state.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    RelPath::ROOT.join(STAGING).join(format!("of-{name}").as_bytes())
}

/// Moves back what interrupted renames of a state have moved.
pub(super) fn undo(store: &dyn Store, spool: &Spool, state: &str) -> Result<()> {
    if !store.abilities().read {
        return Ok(());
    }
    let (dir, mut found) = (intentions(state), Vec::new());
    store.list(&dir, &mut |item| {
        if item.path.is_within(&dir) && item.path != dir {
            found.push(item.path);
        }
        ControlFlow::Continue(())
    })?;
    for intention in found {
        let mut text = Vec::new();
        let failed = |source| TargetError::Io { doing: "read", path: shown(&intention), source };
        store.read(&intention, spool)?.take(TEXT_MAX).read_to_end(&mut text).map_err(failed)?;
        let mut paths = text.split(|byte| *byte == 0).map(RelPath::new);
        if let (Some(Ok(from)), Some(Ok(to))) = (paths.next(), paths.next())
            && !from.is_root()
            && !to.is_root()
        {
            tracing::info!(from = shown(&from), to = shown(&to), "a rename that was interrupted is taken back");
            move_all(store, spool, &to, &from)?;
            store.tidy(&to);
        }
        store.delete(&intention)?;
    }
    Ok(())
}

/// Moves all objects below a directory, many at a time.
fn move_all(store: &dyn Store, spool: &Spool, from: &RelPath, to: &RelPath) -> Result<()> {
    loop {
        let mut paths = Vec::new();
        store.list(from, &mut |item| {
            if item.path != *from && item.path.is_within(from) {
                paths.push(item.path);
            }
            if paths.len() < TOGETHER { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if paths.is_empty() {
            return Ok(());
        }
        super::session::at_once(store.abilities().at_once, &paths, |path| {
            let rest = RelPath::new(&path.as_bytes()[from.as_bytes().len() + 1..]).unwrap_or_default();
            let place = rest.components().fold(to.clone(), |at, name| at.join(name));
            rename_one(store, spool, path, &place)
        })
        .into_iter()
        .collect::<Result<()>>()?;
    }
}
