//! Renames. A directory's takes a request or more for each object below it and may be interrupted in the middle. So what is
//! intended is written down before, as an object in the staging directory, and a rename that finds its own intention there
//! goes on instead of taking what it moved itself for something in the way.

use std::ops::ControlFlow;

use sha2::{Digest as _, Sha256};

use super::objects::{rename_one, unable};
use super::{Spool, Store, not_there};
use crate::model::RelPath;
use crate::target::{Meta, Result, STAGING, TargetError, shown};

/// Objects of a directory that are moved before it is listed again.
const TOGETHER: usize = 4096;

fn in_the_way(to: &RelPath) -> TargetError {
    TargetError::Refused { path: shown(to), why: "something else stands in its way".to_owned() }
}

/// Renames an object, or all below a directory.
pub(super) fn rename(store: &dyn Store, spool: &Spool, from: &RelPath, to: &RelPath) -> Result<()> {
    if to.is_within(from) || from.is_within(to) {
        return Err(in_the_way(to));
    }
    let abilities = store.abilities();
    if !abilities.rename && !abilities.read {
        return Err(unable(store));
    }
    let is_free = store.look(to)?.is_none() && !store.holds(to)?;
    if store.look(from)?.is_some() {
        return if is_free { rename_one(store, spool, from, to) } else { Err(in_the_way(to)) };
    }
    let intention = intention(from, to);
    let is_begun = || store.look(&intention).map(|found| found.is_some());
    if !is_free && !is_begun()? {
        return Err(in_the_way(to));
    }
    if !store.holds(from)? && (is_free || !is_begun()?) {
        return Err(not_there("rename", from));
    }
    let text = [from.as_bytes(), b"\n", to.as_bytes(), b"\n"].concat();
    let what = spool.take(&intention, &mut &text[..], text.len() as u64, 0)?;
    store.put(&intention, &Meta { mode: 0o644, ..Meta::default() }, &what)?;
    move_all(store, spool, from, to)?;
    store.tidy(from);
    store.delete(&intention)
}

/// Where it is written down that this is to become that.
fn intention(from: &RelPath, to: &RelPath) -> RelPath {
    let hash = Sha256::digest([from.as_bytes(), b"\n", to.as_bytes()].concat());
    let name: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    RelPath::ROOT.join(STAGING).join(format!("rename-{name}").as_bytes())
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
