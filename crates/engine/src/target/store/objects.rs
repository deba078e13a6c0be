//! What single objects go through: moves where a store cannot rename, and what is overwritten.

use super::doubts::{Doubt, Doubts};
use super::{Entry, Spool, Spooled, Store, not_there};
use crate::model::RelPath;
use crate::target::{Found, Meta, Result, SAME_NAMES_MAX, TargetError, numbered, shown};

/// Renames an object; where the store cannot, its content is fetched and put again.
pub(super) fn rename_one(store: &dyn Store, spool: &Spool, from: &RelPath, to: &RelPath) -> Result<()> {
    if store.abilities().rename {
        return store.rename(from, to);
    }
    copy(store, spool, from, to)?;
    store.delete(from)
}

/// Puts an object's content at another path as well.
pub(super) fn copy(store: &dyn Store, spool: &Spool, from: &RelPath, to: &RelPath) -> Result<()> {
    let entry = store.look(from)?.ok_or_else(|| not_there("copy", from))?;
    let what = fetched(store, spool, from, &entry.found)?;
    store.put(to, &kept_meta(&entry), &what)
}

/// An object as it is to be put again.
fn fetched(store: &dyn Store, spool: &Spool, path: &RelPath, found: &Found) -> Result<Spooled> {
    if let Some(to) = &found.target {
        return Ok(Spooled::Symlink(to.clone()));
    }
    if !store.abilities().read {
        return Err(unable(store));
    }
    let mut bytes = store.read(path, spool)?;
    spool.take(path, &mut *bytes, found.size, found.mtime_ns)
}

/// Neither renamed nor fetched.
pub(super) fn unable(store: &dyn Store) -> TargetError {
    TargetError::Unable {
        place: store.place(),
        why: "it can neither rename nor read, so nothing can be moved there, nor kept in a trash: \
              use on_delete = \"delete\" or \"keep\""
            .to_owned(),
    }
}

/// What is known of an object's metadata.
fn kept_meta(entry: &Entry) -> Meta {
    Meta {
        mode: entry.mode.unwrap_or(0o644),
        uid: entry.uid.unwrap_or(0),
        gid: entry.gid.unwrap_or(0),
        mtime_ns: entry.found.mtime_ns,
        xattrs: Vec::new(),
    }
}

/// Moves what stands at a path below a directory of the trash, under a name that is free there.
pub(super) fn keep_old(
    store: &dyn Store,
    spool: &Spool,
    doubts: &Doubts,
    path: &RelPath,
    keep: &RelPath,
) -> Result<()> {
    if store.look(path)?.is_none() {
        return Ok(());
    }
    let wanted = path.components().fold(keep.clone(), |at, name| at.join(name));
    for number in 1..=SAME_NAMES_MAX {
        let place = if number == 1 { wanted.clone() } else { numbered(&wanted, number) };
        if store.look(&place)?.is_none() {
            let renamed = rename_one(store, spool, path, &place);
            return doubts.note(renamed, || Doubt::Rename { from: path.clone(), to: place });
        }
    }
    Err(TargetError::Refused { path: shown(path), why: "the trash holds too many of this name".to_owned() })
}
