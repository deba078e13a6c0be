//! What is about to be published, noted beside the inventory until it is journaled: after a crash in between the target may hold
//! what no record tells of. If its original is there still it is found to be due again; if not, it is taken away. What was renamed is
//! told of.
//!
//! The note outlives the process, not the machine: it is not synced, which would cost each batch as much as the batch itself.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::perform::{Job, Touched, What};
use super::round::as_held;
use super::streams::held;
use super::{AtWork, Keeper, OnDelete, Trouble};
use crate::inventory::copy_key;
use crate::model::{Digest, FileType, RelPath, ReplicaName, RootName};
use crate::sync::copy::CopyError;

/// The file of one replica.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
}

/// One object that may be at the target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: Vec<u8>,
    root: String,
    /// Where it was before; empty: nowhere.
    from: Vec<u8>,
    size: u64,
    mtime_ns: i64,
    is_dir: bool,
}

impl Note {
    pub(super) fn of(replica: &ReplicaName, inventory: &Path) -> Self {
        Note { path: super::state_file(replica, inventory, "note") }
    }

    /// Where it cannot be written, the journal soon cannot either, and that is told.
    fn write(&self, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path);
        if let Err(error) = file.and_then(|mut file| file.write_all(bytes)) {
            tracing::debug!(%error, "what is on its way was not noted");
        }
    }

    fn clear(&self) -> io::Result<()> {
        match OpenOptions::new().write(true).truncate(true).open(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read(&self) -> Vec<Entry> {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let mut rest = &bytes[..];
        std::iter::from_fn(|| entry(&mut rest)).collect()
    }
}

/// The next entry; one that was cut off was not begun on.
fn entry(rest: &mut &[u8]) -> Option<Entry> {
    let (path, root, from) = (field(rest)?, String::from_utf8(field(rest)?).ok()?, field(rest)?);
    let (size, mtime_ns) = (number(rest)?, number(rest)?.cast_signed());
    Some(Entry { path, root, from, size, mtime_ns, is_dir: number(rest)? != 0 })
}

fn put_entry(bytes: &mut Vec<u8>, [path, root, from]: [&[u8]; 3], size: u64, mtime_ns: i64, is_dir: bool) {
    [path, root, from].iter().for_each(|field| put_field(bytes, field));
    for number in [size, mtime_ns.cast_unsigned(), u64::from(is_dir)] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, behind) = rest.split_first_chunk::<8>()?;
    *rest = behind;
    Some(u64::from_le_bytes(*number))
}

/// The next bytes that [`put_field`] wrote.
pub(super) fn field(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut at = *rest;
    let length = usize::try_from(number(&mut at)?).ok()?;
    let (field, behind) = at.split_at_checked(length)?;
    *rest = behind;
    Some(field.to_vec())
}

/// Bytes behind their number.
pub(super) fn put_field(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
    bytes.extend_from_slice(field);
}

impl Keeper {
    /// From now on these may be at the target. What was noted before is forgotten, once what was told of it is on disk.
    pub(super) fn note<'j>(&self, work: &AtWork<'_>, jobs: impl Iterator<Item = &'j Job>) -> Result<(), Trouble> {
        self.acting.durable()?;
        let mut bytes = Vec::new();
        for job in jobs {
            let original = &job.original;
            let from = if let What::Move(from, _) = &job.what { from.as_bytes() } else { b"" };
            let fields = [job.path.as_bytes(), work.roots[job.root].name.as_str().as_bytes(), from];
            put_entry(&mut bytes, fields, original.size, original.mtime_ns, original.kind == FileType::Dir);
        }
        self.note.write(&bytes);
        Ok(())
    }

    /// They were told of.
    pub(super) fn noted(&self) -> Result<(), Trouble> {
        self.acting.durable()?;
        if let Err(error) = self.note.clear() {
            tracing::debug!(%error, "the note of what was on its way was not cleared");
        }
        Ok(())
    }

    /// Takes away what was published before a crash or while the target went away, was never journaled, and has no original
    /// any more. Directories in which something may have been published get the times of their originals back.
    pub(super) fn take_back(&mut self, work: &AtWork<'_>) -> Result<(), Trouble> {
        let mut entries = self.note.read();
        let dirs = touched(work, &entries);
        self.tell_moved(work, &entries)?;
        if self.settings.on_delete == OnDelete::Keep {
            entries.clear();
        }
        // What a directory holds goes before it.
        entries.sort_unstable_by(|one, other| other.cmp(one));
        let name = self.settings.name.clone();
        let worker = work.worker(&name, 1);
        let step_ns = self.settings.target.nature().mtime_step_ns.max(1);
        for entry in entries {
            let (Some(root), Ok(path)) = (root_of(work, &entry), RelPath::new(entry.path)) else { continue };
            let is_known = |kind| -> Result<bool, Trouble> {
                Ok(self.view.copy_at(work.replica, work.dirs[root], &copy_key(&path, kind))?.is_some())
            };
            if self.original_at(work, root, &path)?.is_some() || is_known(FileType::File)? || is_known(FileType::Dir)? {
                continue;
            }
            let place = work.roots[root].placement.place(&path);
            let Some(found) = work.session.look(&place)? else { continue };
            match found.kind {
                FileType::Dir if entry.is_dir => {
                    // One that holds what is not ours stays.
                    let _ = work.session.remove(&place);
                }
                FileType::File
                    if found.size == entry.size && found.mtime_ns.abs_diff(entry.mtime_ns) < step_ns.unsigned_abs() =>
                {
                    worker.set_aside(&place)?;
                }
                FileType::File | FileType::Dir => {}
                _ if !entry.is_dir => {
                    worker.set_aside(&place)?;
                }
                _ => {}
            }
        }
        // Deepest first: what was taken away has changed the times of what held it.
        let mut bare = Touched::new();
        for (root, dir) in dirs.into_iter().rev() {
            let original = self.original_at(work, root, &dir)?;
            let row = self.view.copy_at(work.replica, work.dirs[root], &copy_key(&dir, FileType::Dir))?;
            let is_another = row.as_ref().is_some_and(|row| original.is_none_or(|one| one.file != row.file_id.0));
            match worker.set_dir(root, &dir) {
                Err(CopyError::Target(error)) if error.is_of_the_place() => return Err(error.into()),
                Ok(()) if !is_another => {}
                _ => {
                    bare.insert((root, dir));
                }
            }
        }
        self.tell_bare(work, &bare)?;
        self.noted()
    }
}

impl Keeper {
    /// Tells of what was renamed, but not told of: what it holds is known at its old place only.
    fn tell_moved(&mut self, work: &AtWork<'_>, entries: &[Entry]) -> Result<(), Trouble> {
        let name = self.settings.name.clone();
        let worker = work.worker(&name, 1);
        for entry in entries.iter().filter(|entry| !entry.from.is_empty()) {
            let (Some(root), Ok(path), Ok(from)) =
                (root_of(work, entry), RelPath::new(entry.path.as_slice()), RelPath::new(entry.from.as_slice()))
            else {
                continue;
            };
            let kind = if entry.is_dir { FileType::Dir } else { FileType::File };
            let row = self.view.copy_at(work.replica, work.dirs[root], &copy_key(&from, kind))?;
            let Some(row) = row else { continue };
            let place = |path| work.roots[root].placement.place(path);
            let is_moved = work.session.look(&place(&from))?.is_none()
                && work.session.look(&place(&path))?.is_some_and(|found| found.kind == row.kind);
            if is_moved {
                let copy = held(&row);
                let (sha256, proof) = (copy.sha256.map(Digest), copy.proof);
                let job = Job { root, path, original: as_held(&copy), what: What::Adopt };
                self.tell(vec![worker.copied(&job, Some(&from), sha256, proof)])?;
                self.all_applied()?;
            }
        }
        Ok(())
    }
}

fn root_of(work: &AtWork<'_>, entry: &Entry) -> Option<usize> {
    let root = RootName::new(entry.root.as_str());
    work.roots.iter().position(|one| one.name == root)
}

/// The directories that a batch makes and puts things into, or takes them from.
fn touched(work: &AtWork<'_>, entries: &[Entry]) -> Touched {
    let mut dirs = Touched::new();
    for entry in entries {
        let (Some(root), Ok(path)) = (root_of(work, entry), RelPath::new(entry.path.as_slice())) else { continue };
        let from = RelPath::new(entry.from.as_slice()).unwrap_or_default();
        // Of those that something was taken from some may have gone after it, each out of the one above.
        let mut left = from;
        while let Some((above, _)) = left.split() {
            left = RelPath::new(above).unwrap_or_default();
            dirs.insert((root, left.clone()));
        }
        dirs.extend(super::round::dir_of(root, &path));
        if entry.is_dir {
            dirs.insert((root, path));
        }
    }
    dirs
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_left_out() {
        let mut bytes = Vec::new();
        put_entry(&mut bytes, [b"a\nb", b"root", b"c"], 5, -7, false);
        let whole = Entry {
            path: b"a\nb".to_vec(),
            root: "root".to_owned(),
            from: b"c".to_vec(),
            size: 5,
            mtime_ns: -7,
            is_dir: false,
        };
        assert_eq!(entry(&mut &bytes[..]), Some(whole));
        for length in 0..bytes.len() {
            assert_eq!(entry(&mut &bytes[..length]), None, "{length}");
        }
    }
}
