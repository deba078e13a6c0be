//! An archive as a whole: its newest generation and its parts, open.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use uuid::Uuid;

use crate::error::{During, PackError};
use crate::files::{File, Files, Kind, if_there, is_absent};
use crate::generation::{self, Placed};
use crate::index::{self, Found};
use crate::manifest::{Manifest, PartLine};
use crate::name::ArchiveName;
use crate::part::{OpenError, Part, is_of_another};
use crate::zip::FLAG_ENCRYPTED;
use crate::zip::method::Unpacker;
use crate::zip::window::Window;

/// An archive, with its parts open.
pub(crate) struct Archive {
    pub(crate) name: ArchiveName,
    /// The newest generation; 0 where there is none.
    pub(crate) generation: u64,
    /// The number for the next new part.
    pub(crate) next: u32,
    /// All that can be read, by number.
    pub(crate) parts: Vec<Part>,
    /// Parts that the newest generation has and that are nowhere: somebody took them away.
    pub(crate) missing: Vec<PartLine>,
    /// Parts whose list of members is damaged: they are left as they are.
    pub(crate) damaged: Vec<PartLine>,
    /// Files under names of parts that are none, and why.
    pub(crate) strange: Vec<(u32, String)>,
}

impl Archive {
    /// Opens an archive as it is, changing nothing.
    pub(crate) fn open(files: &dyn Files, name: &ArchiveName) -> Result<Self, PackError> {
        let newest = generation::newest(files, name)?;
        let mut archive = Archive {
            name: name.clone(),
            generation: newest.number,
            next: 0,
            parts: Vec::new(),
            missing: Vec::new(),
            damaged: Vec::new(),
            strange: Vec::new(),
        };
        match newest.manifest {
            Some(manifest) => archive.open_parts(files, &manifest)?,
            None => archive.discover(files)?,
        }
        archive.adopt(files, 0, true)?;
        archive.parts.sort_by_key(|part| part.number);
        archive.next = archive.parts.iter().map(|part| part.number + 1).chain([archive.next]).max().unwrap_or(0);
        Ok(archive)
    }

    fn open_parts(&mut self, files: &dyn Files, manifest: &Manifest) -> Result<(), PackError> {
        self.next = manifest.next;
        for line in &manifest.parts {
            match Part::find(files, &self.name, line.number, line.id) {
                Ok(Some(part)) => self.parts.push(part),
                Ok(None) => self.missing.push(*line),
                Err(PackError::Damaged { what, .. }) => self.strange.push((line.number, what)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Without a generation to go by, what is there tells: the archive's own name, and every part that says in its
    /// comment that it is one of this archive.
    fn discover(&mut self, files: &dyn Files) -> Result<(), PackError> {
        let dir = self.name.path().parent().unwrap_or(Path::new("")).to_owned();
        let names = if_there(files.list(&dir)).during("read", &dir)?.unwrap_or_default();
        let numbers = names.iter().filter_map(|name| self.name.part_number(name.as_encoded_bytes()));
        for number in numbers.collect::<Vec<_>>() {
            self.adopt(files, number, false)?;
            self.next = self.next.max(number + 1);
        }
        Ok(())
    }

    /// Takes a file that is under the name of a part, and that no generation tells of, as a part: any zip file under the
    /// archive's own name, and under another one what says that it is part of this archive.
    fn adopt(&mut self, files: &dyn Files, number: u32, any: bool) -> Result<(), PackError> {
        if self.parts.iter().any(|part| part.number == number) {
            return Ok(());
        }
        let path = self.name.part_path(number);
        match Part::open(files, &path, number) {
            Ok(part) if is_of_another(&part.end, &self.name) => {
                self.strange.push((number, "it is a part of another archive".to_owned()));
            }
            Ok(part) if any || part.end.comment.starts_with(b"keepwatch-pack ") => self.parts.push(part),
            Ok(_) => {}
            Err(error) if error.is_absent() => {}
            Err(OpenError::Unreadable(error)) if any => self.strange.push((number, error.to_string())),
            Err(_) => {}
        }
        Ok(())
    }

    /// Opens an archive after putting its newest generation in order.
    pub(crate) fn open_settled(files: &dyn Files, name: &ArchiveName, work: &Path) -> Result<Self, PackError> {
        loop {
            let newest = generation::newest(files, name)?;
            let Some(manifest) = newest.manifest else { break };
            match generation::settle(files, &manifest)? {
                Placed::Fine => break,
                Placed::Taken(number) => renumber(files, &manifest, number, work)?,
            }
        }
        Self::open(files, name)
    }

    /// Whether a file that is no part of this archive has the name of this part.
    pub(crate) fn is_taken(&self, files: &dyn Files, number: u32) -> Result<bool, PackError> {
        let path = self.name.part_path(number);
        Ok(if_there(files.stat(&path)).during("look at", &path)?.is_some())
    }

    /// Gets ready to find many members.
    pub(crate) fn expect<'a>(&mut self, files: &dyn Files, names: impl Iterator<Item = &'a [u8]>) {
        let mut digests: Vec<u64> = names.map(index::name_digest).collect();
        digests.sort_unstable();
        let digests = digests.into();
        for part in &mut self.parts {
            // What is wrong with a part is found out about by whoever finds nothing in it.
            if let Ok(lookup) = part.lookup(files, &self.name) {
                lookup.expect(&digests);
            }
        }
    }

    /// Finds a member: which part has it, and where.
    pub(crate) fn find(&mut self, files: &dyn Files, name: &[u8]) -> Result<Option<(usize, Found)>, PackError> {
        let mut at = 0;
        while let Some(part) = self.parts.get_mut(at) {
            match index::find(files, &self.name, part, name) {
                Ok(Some(found)) => return Ok(Some((at, found))),
                Ok(None) => at += 1,
                // What is in the other parts is as good as before.
                Err(PackError::Damaged { what, .. }) => self.set_aside(at, what),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Goes on without a part that cannot be read.
    fn set_aside(&mut self, at: usize, what: String) {
        let part = self.parts.remove(at);
        self.strange.push((part.number, what));
        self.damaged.push(PartLine { number: part.number, id: part.id, over: Some(part.id) });
    }

    /// Its parts as a generation tells of them.
    pub(crate) fn lines(&self) -> BTreeMap<u32, PartLine> {
        let open = self.parts.iter().map(|part| PartLine { number: part.number, id: part.id, over: Some(part.id) });
        // What was taken away may come back.
        self.missing.iter().chain(&self.damaged).copied().chain(open).map(|line| (line.number, line)).collect()
    }
}

/// Gives a part whose name somebody else's file has another number.
fn renumber(files: &dyn Files, manifest: &Manifest, number: u32, work: &Path) -> Result<(), PackError> {
    let mut next = manifest.clone();
    next.number += 1;
    next.token = Uuid::now_v7();
    next.retired.clear();
    for line in next.parts.iter_mut().filter(|line| line.number == number) {
        let mut free = manifest.next.max(1);
        while if_there(files.stat(&manifest.archive.part_path(free))).during("look at", work)?.is_some() {
            free += 1;
        }
        (line.number, line.over, next.next) = (free, None, free + 1);
    }
    next.parts.sort_by_key(|line| line.number);
    let candidate = generation::candidate_path(work, &next);
    generation::write_small(files, &candidate, next.encode().as_bytes())?;
    let published = generation::publish(files, &candidate, &next);
    if_there(files.remove(&candidate)).during("remove", &candidate)?;
    published.map(|_| ())
}

/// Hands the content of a member to `out`, and holds it against its header.
pub(crate) fn content(
    file: &dyn File,
    path: &Path,
    found: &Found,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), PackError> {
    let damaged = |what: String| PackError::Damaged { path: path.to_owned(), what };
    if found.flags & FLAG_ENCRYPTED != 0 {
        return Err(damaged("the member is encrypted".to_owned()));
    }
    let mut unpacker = Unpacker::new(found.content).map_err(|mismatch| damaged(mismatch.to_string()))?;
    let end =
        found.data_at.checked_add(found.content.packed).ok_or_else(|| damaged("a size is too large".to_owned()))?;
    let mut window = Window::new(file, end);
    let mut at = found.data_at;
    while at < end {
        let piece = window.some_at(at, end - at).during("read", path)?;
        if piece.is_empty() {
            return Err(damaged("it ends within a member".to_owned()));
        }
        at += piece.len() as u64;
        let fed = unpacker.feed(piece, out).during("hand on what was read from", path)?;
        fed.map_err(|mismatch| damaged(mismatch.to_string()))?;
    }
    unpacker.finish().map_err(|mismatch| damaged(mismatch.to_string()))
}

/// Whether there is a file at all under the archive's name or one of its parts'.
pub(crate) fn is_there(files: &dyn Files, name: &ArchiveName) -> Result<bool, PackError> {
    if generation::newest(files, name)?.number > 0 {
        return Ok(true);
    }
    match files.stat(name.path()) {
        Ok(facts) => Ok(facts.kind == Kind::File),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error).during("look at", name.path()),
    }
}
