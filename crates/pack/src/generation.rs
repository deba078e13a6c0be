//! The generations of an archive: finding the newest, publishing the next, and putting parts under their names.
//!
//! What makes any number of scavengers safe, whatever of them stops where for however long:
//! - A generation is published by link(2) under its number: one succeeds. Whoever fails looks again.
//! - A part goes from `new/` to its name by a step that uses up its source, so that it happens once and never late.
//! - Before generation N + 1 is published, all of N's parts are under their names, and those that N retired are gone.
//! - The number of a retired part is never used again, so that removing it late removes nothing else.

use std::io;
use std::path::Path;

use crate::error::{During, PackError};
use crate::files::{Files, create_dirs, if_there, read_exact_at};
use crate::manifest::{Manifest, PartLine};
use crate::name::ArchiveName;
use crate::part::{PartId, id_at};
use crate::place;

/// A generation's text is not longer. In bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// How often the newest generation is looked for again when it vanishes under the look.
const LOOKS_MAX: u32 = 100;

/// The newest generation of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Newest {
    /// 0 where there is none.
    pub(crate) number: u64,
    /// `None` where there is none, or what is there is damaged.
    pub(crate) manifest: Option<Manifest>,
}

/// How putting parts under their names came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// All are there, or are nowhere.
    Fine,
    /// Somebody else's file has the name of this part.
    Taken(u32),
}

/// Finds the newest generation.
pub(crate) fn newest(files: &dyn Files, archive: &ArchiveName) -> Result<Newest, PackError> {
    let dir = place::generations_dir(archive);
    for _ in 0..LOOKS_MAX {
        let Some(number) = numbers(files, &dir)?.into_iter().max() else {
            return Ok(Newest { number: 0, manifest: None });
        };
        let path = dir.join(number.to_string());
        // One that has vanished was removed because there is a newer one.
        if let Some(bytes) = read_small(files, &path)? {
            let manifest = Manifest::parse(&bytes);
            let manifest = manifest.filter(|found| found.number == number && found.archive == *archive);
            return Ok(Newest { number, manifest });
        }
    }
    Err(PackError::Contended { archive: archive.to_string(), tries: LOOKS_MAX })
}

fn numbers(files: &dyn Files, dir: &Path) -> Result<Vec<u64>, PackError> {
    let names = if_there(files.list(dir)).during("read", dir)?.unwrap_or_default();
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

/// Reads a small file; `None` if there is none.
pub(crate) fn read_small(files: &dyn Files, path: &Path) -> Result<Option<Vec<u8>>, PackError> {
    let Some(file) = if_there(files.open(path)).during("open", path)? else { return Ok(None) };
    let size = file.facts().during("read", path)?.size;
    if size > MANIFEST_BYTES_MAX {
        return Err(PackError::Damaged { path: path.to_owned(), what: "it is too long".to_owned() });
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    read_exact_at(&*file, &mut bytes, 0).during("read", path)?;
    Ok(Some(bytes))
}

/// Writes a small file durably, under a name that nobody has.
pub(crate) fn write_small(files: &dyn Files, path: &Path, bytes: &[u8]) -> Result<(), PackError> {
    let file = files.create_new(path).during("create", path)?;
    file.write_at(bytes, 0).and_then(|()| file.sync()).during("write", path)
}

/// Where the text of a generation waits to be published.
pub(crate) fn candidate_path(work: &Path, manifest: &Manifest) -> std::path::PathBuf {
    work.join(format!("{}.gen", manifest.token))
}

/// Publishes a generation, whose text stands at `candidate`. `false` if somebody else has published that number, or a
/// higher one: then nothing is known of what there is now.
pub(crate) fn publish(files: &dyn Files, candidate: &Path, manifest: &Manifest) -> Result<bool, PackError> {
    let dir = place::generations_dir(&manifest.archive);
    create_dirs(files, &dir).during("create", &dir)?;
    let path = dir.join(manifest.number.to_string());
    if let Err(error) = files.link(candidate, &path) {
        // What a network file system calls a failure may have been a success: the token tells.
        let there = read_small(files, &path)?.and_then(|bytes| Manifest::parse(&bytes));
        match there {
            Some(there) if there.token == manifest.token => {}
            Some(_) => return Ok(false),
            None if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            None => return Err(error).during("publish", &path),
        }
    }
    files.sync_dir(&dir).during("sync", &dir)?;
    // A number that was used and removed again could be linked once more; then there is a higher one.
    Ok(numbers(files, &dir)?.into_iter().max() == Some(manifest.number))
}

/// Puts every part of a generation under its name, and removes what it retired. Anybody may do this, any number of times.
pub(crate) fn settle(files: &dyn Files, manifest: &Manifest) -> Result<Placed, PackError> {
    let archive = &manifest.archive;
    for line in &manifest.parts {
        if put(files, archive, line)? == Placed::Taken(line.number) {
            return Ok(Placed::Taken(line.number));
        }
    }
    for (number, id) in &manifest.retired {
        let path = archive.part_path(*number);
        // What was changed since it was read is not what was merged: it stays.
        if id_at(files, &path)? == Some(*id) {
            if_there(files.remove(&path)).during("remove", &path)?;
        }
        let index = archive.index_path(*number);
        if_there(files.remove(&index)).during("remove", &index)?;
    }
    Ok(Placed::Fine)
}

/// Puts one part under its name.
fn put(files: &dyn Files, archive: &ArchiveName, line: &PartLine) -> Result<Placed, PackError> {
    let (path, waiting) = (archive.part_path(line.number), place::new_part(line.id));
    let dir = path.parent().unwrap_or(Path::new("")).to_owned();
    for _ in 0..LOOKS_MAX {
        let there = files.stat(&path);
        let id = if matches!(&there, Ok(facts) if facts.kind == crate::files::Kind::File) {
            id_at(files, &path)?
        } else {
            None
        };
        if id == Some(line.id) {
            // Left over where it was given its name by a link.
            if_there(files.remove(&waiting)).during("remove", &waiting)?;
            return Ok(Placed::Fine);
        }
        if if_there(files.stat(&waiting)).during("look at", &waiting)?.is_none() {
            // Somebody put it there just now, or somebody took it away since.
            if id_at(files, &path)? == Some(line.id)
                || if_there(files.stat(&waiting)).during("look at", &waiting)?.is_none()
            {
                return Ok(Placed::Fine);
            }
            continue;
        }
        let moved = match there {
            Err(error) if crate::files::is_absent(&error) => {
                create_dirs(files, &dir).during("create", &dir)?;
                files.link(&waiting, &path)
            }
            Err(error) => return Err(error).during("look at", &path),
            Ok(_) if id.is_some() && id == line.over => files.rename(&waiting, &path),
            Ok(_) => return Ok(Placed::Taken(line.number)),
        };
        match moved {
            Ok(()) => {
                if_there(files.remove(&waiting)).during("remove", &waiting)?;
                files.sync_dir(&dir).during("sync", &dir)?;
                return Ok(Placed::Fine);
            }
            // Somebody was faster, with this part or with another file: look again.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists || crate::files::is_absent(&error) => {}
            // It may have happened all the same.
            Err(_) if id_at(files, &path)? == Some(line.id) => {}
            Err(error) => return Err(error).during("publish", &path),
        }
    }
    Err(PackError::Contended { archive: archive.to_string(), tries: LOOKS_MAX })
}

/// Removes the generations before this one.
pub(crate) fn prune(files: &dyn Files, archive: &ArchiveName, newest: u64) -> Result<(), PackError> {
    let dir = place::generations_dir(archive);
    for number in numbers(files, &dir)?.into_iter().filter(|number| *number < newest) {
        let path = dir.join(number.to_string());
        if_there(files.remove(&path)).during("remove", &path)?;
    }
    Ok(())
}

/// Whether a generation has this part.
pub(crate) fn has(manifest: Option<&Manifest>, id: PartId) -> bool {
    manifest.is_some_and(|manifest| manifest.parts.iter().any(|line| line.id == id))
}
