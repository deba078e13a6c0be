//! How copies lie in tables, here and in the shared index.

use crate::model::{FileType, RelPath};

/// The key of a copy: the path, with a `/` behind a directory's. So rows come in the order in which an object store lists,
/// everything in a directory is one range, and a directory and a file of one name are two keys.
#[must_use]
pub fn copy_key(path: &RelPath, kind: FileType) -> Vec<u8> {
    let mut key = path.as_bytes().to_vec();
    if kind == FileType::Dir {
        key.push(b'/');
    }
    key
}

/// The first key behind everything in a directory, whose own key this is.
pub(crate) fn range_end(dir_key: &[u8]) -> Vec<u8> {
    let mut end = dir_key.to_vec();
    if let Some(last) = end.last_mut() {
        *last = b'/' + 1;
    }
    end
}
