//! Reading ahead: what the records of a batch will ask for is fetched together, in a handful of queries. Only a matter of
//! speed: what is not fetched here is asked for one by one.

use std::collections::{BTreeMap, HashSet};

use super::database::Database;
use super::error::Result;
use super::overlay::Overlay;
use crate::apply::{Memory, Place, Store as _};
use crate::model::{Body, FileType, Op, Record, RelPath, RootName};

/// Fetches what `records` are about.
pub(super) fn read(overlay: &mut Overlay<Database<'_>>, memory: &Memory, records: &[Record]) -> Result<()> {
    let mut spots = Vec::new();
    for record in records {
        spots_of(&record.body, &mut spots);
    }
    let mut roots: BTreeMap<&RootName, i64> = BTreeMap::new();
    for spot in &spots {
        if !roots.contains_key(spot.root)
            && let Some(root) = overlay.root(spot.root)?
        {
            roots.insert(spot.root, root);
        }
    }
    let mut asked: HashSet<(i64, &[u8])> = HashSet::new();
    for spot in &spots {
        let Some(root) = roots.get(spot.root) else { continue };
        if overlay.path(*root, spot.parent).is_some() || spot.parent.is_empty() {
            continue;
        }
        match memory.path(*root, spot.parent) {
            Some(dir) => overlay.learn_path(*root, spot.parent.to_vec(), Some(dir)),
            None => {
                asked.insert((*root, spot.parent));
            }
        }
    }
    if !asked.is_empty() {
        let paths: Vec<_> = asked.into_iter().collect();
        for (root, path, dir) in overlay.source.dirs_at(&paths)? {
            overlay.learn_path(root, path, Some(dir));
        }
        for (root, path) in paths {
            overlay.learn_path(root, path.to_vec(), None);
        }
    }
    let mut places: HashSet<Place> = HashSet::new();
    let mut ending: Vec<Place> = Vec::new();
    for spot in &spots {
        let Some(root) = roots.get(spot.root) else { continue };
        let dir = if spot.parent.is_empty() { Some(*root) } else { overlay.path(*root, spot.parent).flatten() };
        let Some(dir) = dir else { continue };
        let place = Place { dir, name: spot.name.to_vec() };
        if spot.ends {
            ending.push(place.clone());
        }
        if !overlay.knows(&place) {
            places.insert(place);
        }
    }
    read_names(overlay, places)?;
    read_inodes(overlay, records)?;
    read_held(overlay, &ending)
}

fn read_names(overlay: &mut Overlay<Database<'_>>, places: HashSet<Place>) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let mut places: Vec<Place> = places.into_iter().collect();
    places.sort_unstable_by(|one, other| (one.dir, &one.name).cmp(&(other.dir, &other.name)));
    for found in overlay.source.find_all(&places)? {
        overlay.learn_name(found.place, Some(found.known));
    }
    for place in places {
        overlay.learn_name(place, None);
    }
    Ok(())
}

/// Of files with several names, all names.
fn read_inodes(overlay: &mut Overlay<Database<'_>>, records: &[Record]) -> Result<()> {
    let mut inodes: Vec<u64> = records
        .iter()
        .filter_map(|record| match &record.body {
            Body::Change(change) => change.facts.as_ref(),
            _ => None,
        })
        .filter(|facts| facts.nlink > 1 && facts.kind != FileType::Dir)
        .map(|facts| facts.inode)
        .collect();
    inodes.sort_unstable();
    inodes.dedup();
    if inodes.is_empty() {
        return Ok(());
    }
    let mut found: BTreeMap<u64, Vec<_>> = inodes.iter().map(|inode| (*inode, Vec::new())).collect();
    for name in overlay.source.with_inodes(&inodes)? {
        if let Some(facts) = &name.known.facts
            && let Some(names) = found.get_mut(&facts.inode)
        {
            names.push(name);
        }
    }
    for (inode, names) in found {
        overlay.learn_inode(inode, names);
    }
    Ok(())
}

/// Of directories that end, how much they hold: an empty one ends without a look below it.
fn read_held(overlay: &mut Overlay<Database<'_>>, ending: &[Place]) -> Result<()> {
    let mut dirs = Vec::new();
    for place in ending {
        if overlay.knows(place)
            && let Some(known) = overlay.find(place.dir, &place.name)?
            && known.kind == Some(FileType::Dir)
            && !overlay.knows_held(known.file_id.0)
        {
            dirs.push(known.file_id.0);
        }
    }
    dirs.sort_unstable();
    dirs.dedup();
    if dirs.is_empty() {
        return Ok(());
    }
    for (dir, names) in overlay.source.held(&dirs)? {
        overlay.learn_held(dir, names);
    }
    Ok(())
}

/// A name that a record looks at.
struct Spot<'r> {
    root: &'r RootName,
    parent: &'r [u8],
    name: &'r [u8],
    /// Whether what stands there may end.
    ends: bool,
}

fn spots_of<'r>(body: &'r Body, spots: &mut Vec<Spot<'r>>) {
    let mut add = |root: &'r RootName, path: &'r RelPath, ends: bool| {
        if let Some((parent, name)) = path.split() {
            spots.push(Spot { root, parent, name, ends });
        }
    };
    match body {
        Body::Change(change) => {
            add(&change.root, &change.path, matches!(change.op, Op::Delete | Op::Move));
            if let Some(old) = &change.old {
                add(old.root.as_ref().unwrap_or(&change.root), &old.path, false);
            }
        }
        Body::Settled(settled) => add(&settled.root, &settled.path, false),
        // These look at no name but their root's.
        Body::Gap(_)
        | Body::GapClosed(_)
        | Body::Config(_)
        | Body::Copied(_)
        | Body::Withdrawn(_)
        | Body::Failed(_)
        | Body::Replica(_)
        | Body::Run(_)
        | Body::Trigger(_)
        | Body::Hashed(_)
        | Body::Verified(_)
        | Body::Unsound(_)
        | Body::Repaired(_)
        | Body::Restored(_)
        | Body::Released(_)
        | Body::Enrolled(_)
        | Body::Other(_) => {}
    }
}
