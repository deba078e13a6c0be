//! A new epoch: the whole journal is set aside, and the next start begins another with a new id.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskError, During as _};
use crate::files::{self, Entry};
use crate::format::Header;
use crate::frames::Frames;
use crate::value::JournalId;

/// What was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The folder that keeps it, `epoch-` and the old journal's id below the journal's own.
    pub kept: PathBuf,
    /// How many files.
    pub files: usize,
    /// The id of that journal, where a header says it.
    pub journal: Option<JournalId>,
}

/// What [`new_epoch`] would set aside; nothing is changed. `None`: there is no journal.
///
/// # Errors
/// [`DiskError`].
pub fn survey_epoch(disk: &dyn Disk, dir: &Path) -> Result<Option<SetAside>, DiskError> {
    Ok(survey(disk, dir)?.map(|(aside, _)| aside))
}

/// Moves all files of the journal in `dir` into a folder below it; `None` if there are none. The caller holds the
/// state directory's lock, and reconciles in full afterwards. Interrupted, it can be called again: until then the
/// journal does not open, since its beginning is missing.
///
/// # Errors
/// [`DiskError`].
pub fn new_epoch(disk: &dyn Disk, dir: &Path) -> Result<Option<SetAside>, DiskError> {
    let Some((mut aside, files)) = survey(disk, dir)? else { return Ok(None) };
    let kept = &aside.kept;
    disk.create_dir(kept).during("create", kept)?;
    disk.sync_dir(dir).during("sync", dir)?;
    let mut moved = 0;
    for entry in &files {
        // A file that is there both plain and compressed goes as both.
        for packed in [false, true] {
            let entry = Entry { packed, ..entry.clone() };
            let from = entry.path(dir);
            match disk.rename(&from, &free_name(disk, kept, &entry)?) {
                Ok(()) => moved += 1,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(DiskError { doing: "move aside", path: from, source }),
            }
        }
    }
    disk.sync_dir(kept).during("sync", kept)?;
    disk.sync_dir(dir).during("sync", dir)?;
    aside.files = moved;
    Ok(Some(aside))
}

/// What is there, in the order in which it has to go.
fn survey(disk: &dyn Disk, dir: &Path) -> Result<Option<(SetAside, Vec<Entry>)>, DiskError> {
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
    let journal = files.iter().rev().find_map(|(_, header)| header.as_ref().map(|header| header.journal));
    let id = journal.map_or_else(|| "unknown".to_owned(), |journal| journal.to_string());
    let aside = SetAside { kept: dir.join(format!("epoch-{id}")), files: files.len(), journal };
    Ok(Some((aside, files.into_iter().map(|(entry, _)| entry).collect())))
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
