//! A new epoch: the whole journal is set aside, and the next start begins another with a new id.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskError, During as _};
use crate::files::{self, Entry};
use crate::format::Header;
use crate::frames::Frames;

/// What was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The folder that keeps it, `epoch-` and the old journal's id below the journal's own.
    pub kept: PathBuf,
    /// How many files.
    pub files: usize,
}

/// Moves all files of the journal in `dir` into a folder below it; `None` if there are none. The caller holds the
/// state directory's lock, and reconciles in full afterwards. Interrupted, it can be called again: until then the
/// journal does not open, since its beginning is missing.
///
/// # Errors
/// [`DiskError`].
pub fn new_epoch(disk: &dyn Disk, dir: &Path) -> Result<Option<SetAside>, DiskError> {
    let mut files: Vec<(Entry, Option<Header>)> = Vec::new();
    for entry in files::list(disk, dir)? {
        let header = Frames::open(disk, dir, &entry)?.ok().map(|frames| frames.header().clone());
        files.push((entry, header));
    }
    if files.is_empty() {
        return Ok(None);
    }
    // The oldest goes first. Those that do not say where they belong go before it.
    files.sort_by_key(|(_, header)| header.as_ref().map_or(0, |header| header.number));
    let id = files.iter().rev().find_map(|(_, header)| header.as_ref().map(|header| header.journal.to_string()));
    let kept = dir.join(format!("epoch-{}", id.as_deref().unwrap_or("unknown")));
    disk.create_dir(&kept).during("create", &kept)?;
    disk.sync_dir(dir).during("sync", dir)?;
    let mut moved = 0;
    for (entry, _) in &files {
        // A file that is there both plain and compressed goes as both.
        for packed in [false, true] {
            let entry = Entry { packed, ..entry.clone() };
            let from = entry.path(dir);
            match disk.rename(&from, &free_name(disk, &kept, &entry)?) {
                Ok(()) => moved += 1,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(DiskError { doing: "move aside", path: from, source }),
            }
        }
    }
    disk.sync_dir(&kept).during("sync", &kept)?;
    disk.sync_dir(dir).during("sync", dir)?;
    Ok(Some(SetAside { kept, files: moved }))
}

/// The file's own name in the folder, or one with a number where an earlier file has it.
fn free_name(disk: &dyn Disk, kept: &Path, entry: &Entry) -> Result<PathBuf, DiskError> {
    let taken = disk.list(kept).during("list", kept)?;
    let name = entry.name();
    let numbered = (2..).map(|number| format!("{number}.{name}"));
    let free =
        std::iter::once(name.clone()).chain(numbered).find(|name| !taken.iter().any(|other| other == name.as_str()));
    Ok(kept.join(free.unwrap_or(name)))
}
