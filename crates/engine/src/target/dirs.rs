//! Where only objects are stored, a directory is there as long as something is below it: a listing tells of it when the first
//! of that comes by.

use std::ops::ControlFlow;

use super::Found;
use crate::model::{FileType, RelPath};

/// Who is told of what is found.
pub(super) type Each<'e> = dyn FnMut(&RelPath, Found) -> ControlFlow<()> + 'e;

/// A directory, of which a store of objects knows nothing more.
pub(super) fn a_dir() -> Found {
    Found { kind: FileType::Dir, size: 0, mtime_ns: 0, target: None }
}

/// Tells of objects, which come in the order of their paths, and of the directories that hold them.
pub(super) struct Dirs {
    below: RelPath,
    last: RelPath,
    last_is_dir: bool,
}

impl Dirs {
    /// Of what lies below this directory, which is not told of itself.
    pub(super) fn new(below: &RelPath) -> Self {
        Dirs { below: below.clone(), last: below.clone(), last_is_dir: true }
    }

    /// Tells of the next.
    pub(super) fn tell(&mut self, path: &RelPath, found: Found, each: &mut Each<'_>) -> ControlFlow<()> {
        let mut above = RelPath::ROOT;
        let depth = path.components().count();
        for name in path.components().take(depth.saturating_sub(1)) {
            above = above.join(name);
            let is_told = self.below.is_within(&above)
                || (self.last.is_within(&above) && (self.last != above || self.last_is_dir));
            if !is_told {
                each(&above, a_dir())?;
            }
        }
        let is_dir = found.kind == FileType::Dir;
        if is_dir && self.last_is_dir && self.last == *path {
            return ControlFlow::Continue(());
        }
        (self.last, self.last_is_dir) = (path.clone(), is_dir);
        each(path, found)
    }
}
