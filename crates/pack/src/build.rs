//! Building a part: old parts copied as they are, new members behind them, then the list of members; and reading all of
//! it back.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{During, PackError};
use crate::files::{File, Files};
use crate::index::{Place, name_digest};
use crate::name::ArchiveName;
use crate::part::{Part, PartId, comment};
use crate::scan::StagedMember;
use crate::zip::central::{self, End, Unreadable};
use crate::zip::local;
use crate::zip::method::Unpacker;
use crate::zip::window::Window;

/// What is gathered before it is written, in bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// The system is asked to begin writing to the disk after so many bytes.
const WRITE_BACK_BYTES: u64 = 16 << 20;

/// A member that is to be packed.
#[derive(Clone, Debug)]
pub(crate) struct NewMember {
    /// Which of the sources it comes from.
    pub(crate) source: usize,
    pub(crate) staged: StagedMember,
    /// What it will be called: its name, or `NAME~2` where another one has that.
    pub(crate) stored_as: Vec<u8>,
}

/// Where new members come from.
pub(crate) trait Sources {
    /// Opens a source.
    fn open(&self, source: usize) -> Result<Box<dyn File>, PackError>;
}

/// A part that was built and read back.
pub(crate) struct Built {
    pub(crate) path: PathBuf,
    pub(crate) id: PartId,
    /// For its index; ordered.
    pub(crate) places: Vec<Place>,
}

/// Called now and then while something takes long.
pub(crate) type Beat<'a> = &'a mut dyn FnMut() -> Result<(), PackError>;

/// Builds a part from `merged` and `members` at `path`, durably, and reads it back.
pub(crate) fn build(
    files: &dyn Files,
    archive: &ArchiveName,
    merged: &[&Part],
    members: &[NewMember],
    sources: &dyn Sources,
    path: &Path,
    beat: Beat<'_>,
) -> Result<Built, PackError> {
    let file = files.create_new(path).during("create", path)?;
    let mut out = Out::new(&*file, path);
    let mut shifts = Vec::with_capacity(merged.len());
    for part in merged {
        shifts.push(out.at());
        copy_members(part, &mut out, beat)?;
    }
    let new_at = out.at();
    let offsets = write_members(members, sources, &mut out, beat)?;
    let end = write_directory(archive, merged, &shifts, members, &offsets, &mut out)?;
    let (size, sum) = out.finish()?;
    file.sync().during("sync", path)?;
    drop(file);
    read_back(files, path, &Expected { size, sum, end, new_at, members, offsets: &offsets }, beat)
}

/// Writes from front to back, and sums up what it writes.
struct Out<'a> {
    file: &'a dyn File,
    path: &'a Path,
    buffer: Vec<u8>,
    written: u64,
    started: u64,
    sum: crc32fast::Hasher,
}

impl<'a> Out<'a> {
    fn new(file: &'a dyn File, path: &'a Path) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES + (BUFFER_BYTES >> 2));
        Out { file, path, buffer, written: 0, started: 0, sum: crc32fast::Hasher::new() }
    }

    fn at(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.buffer.extend_from_slice(bytes);
        self.spill()
    }

    /// Writes what has been gathered, if it is enough.
    fn spill(&mut self) -> Result<(), PackError> {
        if self.buffer.len() >= BUFFER_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), PackError> {
        self.file.write_at(&self.buffer, self.written).during("write", self.path)?;
        self.sum.update(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        if self.written - self.started >= WRITE_BACK_BYTES {
            self.file.start_sync(self.started, self.written - self.started);
            self.started = self.written;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(u64, u32), PackError> {
        self.write()?;
        Ok((self.written, self.sum.finalize()))
    }
}

/// Copies everything before the list of members, whatever it is.
fn copy_members(part: &Part, out: &mut Out<'_>, beat: Beat<'_>) -> Result<(), PackError> {
    let mut window = Window::new(&*part.file, part.end.directory_at);
    let (mut at, end) = (0, part.end.directory_at);
    while at < end {
        let piece = window.some_at(at, end - at).during("read", &part.path)?;
        if piece.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).during("read", &part.path);
        }
        at += piece.len() as u64;
        out.put(piece)?;
        beat()?;
    }
    Ok(())
}

/// Writes new members; where the header of each is.
fn write_members(
    members: &[NewMember],
    sources: &dyn Sources,
    out: &mut Out<'_>,
    beat: Beat<'_>,
) -> Result<Vec<u64>, PackError> {
    let mut offsets = Vec::with_capacity(members.len());
    // Members of one source stand together.
    for group in members.chunk_by(|one, other| one.source == other.source) {
        let source = sources.open(group[0].source)?;
        let size = source.facts().during("read", out.path)?.size;
        let mut window = Window::new(&*source, size);
        for NewMember { staged, stored_as, .. } in group {
            offsets.push(out.at());
            local::encode(stored_as, &staged.content, staged.attributes.mtime_secs, &mut out.buffer);
            let (mut at, end) = (staged.data_at, staged.data_at + staged.content.packed);
            while at < end {
                let piece = window.some_at(at, end - at).during("read", out.path)?;
                if piece.is_empty() {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).during("read", out.path);
                }
                at += piece.len() as u64;
                out.put(piece)?;
            }
            out.spill()?;
            beat()?;
        }
    }
    Ok(offsets)
}

fn write_directory(
    archive: &ArchiveName,
    merged: &[&Part],
    shifts: &[u64],
    members: &[NewMember],
    offsets: &[u64],
    out: &mut Out<'_>,
) -> Result<End, PackError> {
    let directory_at = out.at();
    let mut count = members.len() as u64;
    for (part, shift) in merged.iter().zip(shifts) {
        count += part.end.members;
        let mut failed = None;
        let listed = central::each(&*part.file, &part.end, &mut |entry| {
            let mut entry = *entry;
            entry.offset = entry.offset.checked_add(*shift).ok_or(Unreadable::Directory)?;
            entry.encode(&mut out.buffer);
            out.spill().map_err(|error| {
                failed = Some(error);
                Unreadable::Directory
            })
        });
        match (listed, failed) {
            (_, Some(error)) => return Err(error),
            (listed, None) => listed.map_err(|error| part.damaged(error))?,
        }
    }
    for (NewMember { staged, stored_as, .. }, offset) in members.iter().zip(offsets) {
        let attributes = &staged.attributes;
        let content = &staged.content;
        central::encode(stored_as, content, attributes.mode, attributes.mtime_secs, *offset, &mut out.buffer);
        out.spill()?;
    }
    let directory_len = out.at() - directory_at;
    let end = End { directory_at, directory_len, members: count, comment: comment(archive, Uuid::now_v7()) };
    central::encode_end(&end, &mut out.buffer);
    Ok(end)
}

/// What was meant to be written.
struct Expected<'a> {
    size: u64,
    sum: u32,
    end: End,
    new_at: u64,
    members: &'a [NewMember],
    offsets: &'a [u64],
}

/// Reads a part that was just written, by its name, as anybody would: all its bytes against their sum, then every new
/// member by the list, its header and its content.
fn read_back(files: &dyn Files, path: &Path, expected: &Expected<'_>, beat: Beat<'_>) -> Result<Built, PackError> {
    let differs = |what: &str| PackError::Damaged { path: path.to_owned(), what: format!("read back, {what}") };
    let part = Part::open(files, path, 0).map_err(|error| differs(&error.to_string()))?;
    if part.id.size != expected.size || part.end != expected.end {
        return Err(differs("its end is not what was written"));
    }
    let mut sum = crc32fast::Hasher::new();
    let mut window = Window::new(&*part.file, expected.size);
    let mut at = 0;
    // What follows is read once, member by member, and summed up on the way.
    let mut pass = |window: &mut Window<'_>, to: u64, unpacker: &mut Option<Unpacker>| -> Result<(), PackError> {
        while at < to {
            let piece = window.some_at(at, to - at).during("read", path)?;
            if piece.is_empty() {
                return Err(differs("it is too short"));
            }
            sum.update(piece);
            at += piece.len() as u64;
            if let Some(unpacker) = unpacker {
                let fed = unpacker.feed(piece, &mut |_| Ok(())).during("read", path)?;
                fed.map_err(|mismatch| differs(&mismatch.to_string()))?;
            }
        }
        beat()
    };
    pass(&mut window, expected.new_at, &mut None)?;
    for (NewMember { staged, stored_as, .. }, offset) in expected.members.iter().zip(expected.offsets) {
        let len = local::encoded_len(stored_as, &staged.content, staged.attributes.mtime_secs);
        let header = window.at(*offset, len).during("read", path)?;
        let is_same =
            local::parse(header).is_ok_and(|header| header.name == stored_as && header.content == staged.content);
        if !is_same {
            return Err(differs("a header is not what was written"));
        }
        pass(&mut window, offset + len as u64, &mut None)?;
        let unpacker = Unpacker::new(staged.content).map_err(|mismatch| differs(&mismatch.to_string()))?;
        let mut unpacker = Some(unpacker);
        pass(&mut window, offset + len as u64 + staged.content.packed, &mut unpacker)?;
        if let Some(Err(mismatch)) = unpacker.map(Unpacker::finish) {
            return Err(differs(&mismatch.to_string()));
        }
    }
    pass(&mut window, expected.size, &mut None)?;
    if sum.finalize() != expected.sum {
        return Err(differs("it is not what was written"));
    }
    let places = listed(&part, expected)?;
    Ok(Built { path: path.to_owned(), id: part.id, places })
}

/// Reads the list of members, in which the new ones come last.
fn listed(part: &Part, expected: &Expected<'_>) -> Result<Vec<Place>, PackError> {
    let mut places = Vec::with_capacity(usize::try_from(part.end.members).unwrap_or(0));
    let mut new = expected.members.iter().zip(expected.offsets);
    let old = part.end.members - expected.members.len() as u64;
    central::each(&*part.file, &part.end, &mut |entry| {
        if places.len() as u64 >= old {
            let is_same = new.next().is_some_and(|(member, offset)| {
                let content = member.staged.content;
                (entry.name, entry.content, entry.offset) == (&member.stored_as[..], content, *offset)
            });
            if !is_same {
                return Err(Unreadable::Directory);
            }
        }
        places.push((name_digest(entry.name), entry.offset));
        Ok(())
    })
    .map_err(|error| part.damaged(error))?;
    places.sort_unstable();
    Ok(places)
}
