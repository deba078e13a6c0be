//! What a store holds, in the order of paths, with the directories that hold it.

use std::ops::ControlFlow;

use super::sort::Sorter;
use super::{Item, Spool, Store, away};
use crate::model::RelPath;
use crate::target::dirs::{Dirs, Each};
use crate::target::{Result, TargetError, is_own, shown};

/// Lists all below a directory. From a store that lists in order the first is told of at once.
pub(super) fn list(store: &dyn Store, spool: &Spool, below: &RelPath, each: &mut Each<'_>) -> Result<()> {
    let is_asked = |path: &RelPath| path != below && path.is_within(below) && (is_own(below) || !is_own(path));
    let mut dirs = Dirs::new(below);
    if store.abilities().is_sorted {
        let mut last: Option<RelPath> = None;
        let mut broken = None;
        store.list(below, &mut |Item { path, entry }| {
            if !is_asked(&path) {
                return ControlFlow::Continue(());
            }
            if let Some(last) = last.as_ref().filter(|last| **last >= path) {
                broken = Some(format!(
                    "its listing is not in order as it says: `{}` before `{}`",
                    shown(last),
                    shown(&path)
                ));
                return ControlFlow::Break(());
            }
            let told = dirs.tell(&path, entry.found, each);
            last = Some(path);
            told
        })?;
        return broken.map_or(Ok(()), |why| Err(away(store, why)));
    }
    let failed = |source| TargetError::Io { doing: "sort the listing of", path: shown(below), source };
    let mut sorter = Sorter::new(spool);
    let mut fault = None;
    store.list(below, &mut |Item { path, entry }| {
        if !is_asked(&path) {
            return ControlFlow::Continue(());
        }
        match sorter.add(path, entry.found) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    fault.map_or(Ok(()), |error| Err(failed(error)))?;
    let mut last = None;
    for one in sorter.sorted().map_err(failed)? {
        let (path, found) = one.map_err(failed)?;
        if last.as_ref() == Some(&path) {
            continue;
        }
        if dirs.tell(&path, found, each).is_break() {
            return Ok(());
        }
        last = Some(path);
    }
    Ok(())
}
