//! Whether a place at the target can be built on. The inventory may be ahead of the records that were read: where a directory
//! lies elsewhere at the target its rename is yet to be read of, and what was put there meanwhile would be in its way.

use std::collections::HashMap;

use super::perform::{Job, What};
use super::{AtWork, Keeper, Trouble};
use crate::inventory::{FileId, copy_key};
use crate::model::{FileType, RelPath};
use crate::sync::plan::Original;

/// Directories that stand at the target, or will before what is planned next: each with its original.
pub(super) type Standing = HashMap<(usize, RelPath), i64>;

/// What a path is to stand on.
pub(super) enum Ground {
    /// All directories above are there.
    Firm,
    /// These have to be made first.
    Missing(Vec<Job>),
    /// A directory is to move yet. All below is looked at when that was read of.
    Shifting,
}

/// How a directory stands at its place.
enum Stand {
    There,
    Vacant,
    Shifting,
}

impl Keeper {
    /// Whether an original can be put at a path, which is the place of no other directory, nor is it at another.
    pub(super) fn ground(
        &mut self,
        work: &AtWork<'_>,
        root: usize,
        path: &RelPath,
        original: &Original,
    ) -> Result<Ground, Trouble> {
        let is_dir = original.kind == FileType::Dir;
        if is_dir && matches!(self.stand(work, root, path, original.file)?, Stand::Shifting) {
            return Ok(Ground::Shifting);
        }
        let ground = self.ground_above(work, root, path)?;
        if is_dir && !matches!(ground, Ground::Shifting) {
            self.standing.insert((root, path.clone()), original.file);
        }
        Ok(ground)
    }

    /// The same for what is at the target already, and gets to this path.
    pub(super) fn ground_above(&mut self, work: &AtWork<'_>, root: usize, path: &RelPath) -> Result<Ground, Trouble> {
        let mut missing = Vec::new();
        let mut at = path.clone();
        while let Some((above, _)) = at.split() {
            at = RelPath::new(above).unwrap_or_default();
            if at.is_root() {
                break;
            }
            if !work.roots[root].keeps(&at, true) {
                continue;
            }
            let Some(original) = self.original_at(work, root, &at)? else { return Ok(Ground::Shifting) };
            if original.kind != FileType::Dir {
                return Ok(Ground::Shifting);
            }
            match self.stand(work, root, &at, original.file)? {
                Stand::There => break,
                Stand::Shifting => return Ok(Ground::Shifting),
                Stand::Vacant => missing.push(Job { root, path: at.clone(), original, what: What::Put }),
            }
        }
        for job in &missing {
            self.standing.insert((root, job.path.clone()), job.original.file);
        }
        missing.reverse();
        Ok(if missing.is_empty() { Ground::Firm } else { Ground::Missing(missing) })
    }

    fn stand(&mut self, work: &AtWork<'_>, root: usize, path: &RelPath, file: i64) -> Result<Stand, Trouble> {
        let place = (root, path.clone());
        match self.standing.get(&place) {
            Some(known) if *known == file => return Ok(Stand::There),
            Some(_) => return Ok(Stand::Shifting),
            None => {}
        }
        let row = self.view.copy_at(work.replica, work.dirs[root], &copy_key(path, FileType::Dir))?;
        if row.as_ref().is_some_and(|row| row.file_id.0 == file) {
            self.standing.insert(place, file);
            return Ok(Stand::There);
        }
        if let Some(row) = &row
            && self.view.is_live_dir(work.dirs[root], row.file_id)?
        {
            return Ok(Stand::Shifting);
        }
        let copies = self.view.copies_of(work.replica, work.dirs[root], FileId(file))?;
        if copies.iter().any(|copy| copy.kind == FileType::Dir) {
            return Ok(Stand::Shifting);
        }
        if row.is_some() {
            self.replaced.insert(place);
        }
        Ok(Stand::Vacant)
    }
}
