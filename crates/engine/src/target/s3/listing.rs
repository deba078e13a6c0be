//! What a bucket holds, in the order of paths.
//!
//! S3 lists keys in the order of their bytes. Only encoded names stand at another place than their paths do, and always before
//! it ([`crate::target::keys`]): they are held back until it is reached. A listing tells neither times nor links, so each object is
//! asked for them, many at once.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use futures_util::StreamExt as _;

use super::bucket::{Bucket, REQUESTS_MAX};
use super::meta::Head;
use super::reply::Listed;
use super::wire::WireError;
use crate::model::{FileType, RelPath};
use crate::target::dirs::{Dirs, Each, a_dir};
use crate::target::{Found, MARK, Result, STAGING, TRASH, TargetError, is_own, keys};

/// Keys in a page.
const PAGE: u32 = 1000;
/// Encoded names that are held back.
const HELD_MAX: usize = 500_000;
/// The longest target of a link (`PATH_MAX`).
const LINK_MAX: u64 = 4096;

/// Lists all below a directory.
pub(super) fn list(bucket: &Bucket, below: &RelPath, each: &mut Each<'_>) -> Result<()> {
    let prefix = bucket.below(below)?;
    let failed = bucket.error("list", below);
    let mut order = Order::new(below);
    let (mut after, mut token) = (String::new(), None);
    let mut last = String::new();
    loop {
        let page = bucket.wait(bucket.wire.list(&prefix, &after, token.as_deref(), PAGE)).map_err(&failed)?;
        for pair in std::iter::once(&last).chain(page.objects.iter().map(|one| &one.key)).collect::<Vec<_>>().windows(2)
        {
            if pair[0] > pair[1] {
                return Err(bucket.away("it does not list its keys in the order of their bytes, as S3 does"));
            }
        }
        if let Some(listed) = page.objects.last() {
            last.clone_from(&listed.key);
        }
        let (found, jump) = ours(bucket, below, page.objects);
        let found = bucket.wait(look_at_all(bucket, found)).map_err(&failed)?;
        for (path, is_odd, found) in found {
            if !order.feed(path, is_odd, found, each).map_err(|()| too_many(bucket))?.is_continue() {
                return Ok(());
            }
        }
        token = page.next;
        if token.is_none() {
            let _ = order.finish(each);
            return Ok(());
        }
        if let Some(jump) = jump {
            (after, token) = (jump, None);
        }
    }
}

fn too_many(bucket: &Bucket) -> TargetError {
    bucket.away(format!(
        "more than {HELD_MAX} names in one directory there cannot be written as keys: give them other names"
    ))
}

/// A path that a key stands for, and whether a name in it is encoded.
type Ours = (RelPath, bool, Listed);

/// The copies on a page, and where to go on if its end is of no use.
fn ours(bucket: &Bucket, below: &RelPath, listed: Vec<Listed>) -> (Vec<Ours>, Option<String>) {
    let mut found = Vec::with_capacity(listed.len());
    let mut jump = None;
    for one in listed {
        jump = None;
        let Some(rest) = one.key.strip_prefix(&bucket.prefix) else { continue };
        let path = keys::decode(rest.strip_suffix('/').unwrap_or(rest));
        let Some(path) = path.filter(|path| !path.is_root()) else { continue };
        if is_own(&path) && !is_own(below) {
            jump = past_own(bucket, &path);
            continue;
        }
        let is_odd = keys::encode(&path).as_bytes() != path.as_bytes();
        found.push((path, is_odd, one));
    }
    (found, jump)
}

/// Behind all of our own that stands in the same directory.
fn past_own(bucket: &Bucket, path: &RelPath) -> Option<String> {
    let first = path.components().next()?;
    let dir = [MARK, STAGING, TRASH].into_iter().find(|own| *own == first)?;
    // No key holds a character behind this one.
    Some(format!("{}{}/{}", bucket.prefix, String::from_utf8_lossy(dir), char::MAX))
}

async fn look_at_all(bucket: &Bucket, ours: Vec<Ours>) -> Result<Vec<(RelPath, bool, Found)>, WireError> {
    let looks = ours.into_iter().map(|(path, is_odd, listed)| async move {
        let found = if listed.key.ends_with('/') { Some(a_dir()) } else { look_at(bucket, &listed.key).await? };
        Ok(found.map(|found| (path, is_odd, found)))
    });
    let mut looks = futures_util::stream::iter(looks).buffered(REQUESTS_MAX);
    let mut all = Vec::new();
    while let Some(found) = looks.next().await {
        // What went meanwhile is not there.
        all.extend(found?);
    }
    Ok(all)
}

/// What an object is.
pub(super) async fn look_at(bucket: &Bucket, key: &str) -> Result<Option<Found>, WireError> {
    let Some(Head { is_symlink, size, mtime_ns, .. }) = bucket.wire.head(key).await? else { return Ok(None) };
    if !is_symlink {
        return Ok(Some(Found { kind: FileType::File, size, mtime_ns, target: None }));
    }
    let target = if size <= LINK_MAX { bucket.wire.get(key).await? } else { None };
    Ok(Some(Found { kind: FileType::Symlink, size, mtime_ns, target: target.map(|target| target.to_vec()) }))
}

/// Brings what comes in the order of keys into the order of paths, and tells of the directories that hold it.
struct Order {
    /// By path, with a `/` behind a directory's.
    held: BTreeMap<Vec<u8>, (RelPath, Found)>,
    dirs: Dirs,
}

impl Order {
    fn new(below: &RelPath) -> Self {
        Order { held: BTreeMap::new(), dirs: Dirs::new(below) }
    }

    /// Takes the next. `Err`: too many are held back.
    fn feed(&mut self, path: RelPath, is_odd: bool, found: Found, each: &mut Each<'_>) -> Result<ControlFlow<()>, ()> {
        let key = path_key(&path, &found);
        if is_odd {
            self.held.insert(key, (path, found));
            return if self.held.len() > HELD_MAX { Err(()) } else { Ok(ControlFlow::Continue(())) };
        }
        let told = self.tell_held(Some(&key), each);
        Ok(if told.is_continue() { self.dirs.tell(&path, found, each) } else { told })
    }

    fn finish(&mut self, each: &mut Each<'_>) -> ControlFlow<()> {
        self.tell_held(None, each)
    }

    fn tell_held(&mut self, before: Option<&Vec<u8>>, each: &mut Each<'_>) -> ControlFlow<()> {
        while let Some(first) = self.held.first_entry() {
            if before.is_some_and(|before| first.key() > before) {
                break;
            }
            let (path, found) = first.remove();
            self.dirs.tell(&path, found, each)?;
        }
        ControlFlow::Continue(())
    }
}

fn path_key(path: &RelPath, found: &Found) -> Vec<u8> {
    let end: &[u8] = if found.kind == FileType::Dir { b"/" } else { b"" };
    [path.as_bytes(), end].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn told(paths: &[RelPath], below: &RelPath) -> Vec<Vec<u8>> {
        let mut by_key: Vec<(String, RelPath)> = paths.iter().map(|path| (keys::encode(path), path.clone())).collect();
        by_key.sort();
        let mut told = Vec::new();
        let mut each = |path: &RelPath, found: Found| {
            told.push(path_key(path, &found));
            ControlFlow::Continue(())
        };
        let mut order = Order::new(below);
        for (key, path) in by_key {
            let is_odd = key.as_bytes() != path.as_bytes();
            let file = Found { kind: FileType::File, size: 0, mtime_ns: 0, target: None };
            assert!(order.feed(path, is_odd, file, &mut each).unwrap().is_continue());
        }
        let _ = order.finish(&mut each);
        told
    }

    #[test]
    fn directories_are_told_of_before_what_they_hold() {
        let paths: Vec<_> =
            ["d-x", "d/a/b", "d/c", "d0", "e"].iter().map(|path| RelPath::new(*path).unwrap()).collect();
        let expected: [&[u8]; 7] = [b"d-x", b"d/", b"d/a/", b"d/a/b", b"d/c", b"d0", b"e"];
        assert_eq!(told(&paths, &RelPath::ROOT), expected);
        let below = RelPath::new("d").unwrap();
        let expected: [&[u8]; 3] = [b"d/a/", b"d/a/b", b"d/c"];
        assert_eq!(told(&paths[1..3], &below), expected);
    }

    proptest! {
        #[test]
        fn paths_come_in_order(names in proptest::collection::btree_set(
            proptest::collection::vec(proptest::sample::select(&b"\x01\n !\"-./0a\xff"[..]), 1..6), 1..30,
        )) {
            let paths: Vec<RelPath> = names.into_iter().filter_map(|name| RelPath::new(name).ok()).collect();
            let told = told(&paths, &RelPath::ROOT);
            let mut expected: BTreeSet<Vec<u8>> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
            for path in &paths {
                let bytes = path.as_bytes();
                expected.extend((0..bytes.len()).filter(|at| bytes[*at] == b'/').map(|at| bytes[..=at].to_vec()));
            }
            prop_assert_eq!(told, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
