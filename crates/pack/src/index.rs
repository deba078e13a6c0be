//! The index of a part: where the member of a name begins, found by reading two pages however many members there are.
//! It stands in a file beside the part, can be made anew from the part at any time, and is believed only when it names
//! the part's own id. Whatever is found by it is compared with the name in the member's own header.
//!
//! All numbers are little-endian. The file is: header, pages, fences.
//! - Header, 64 bytes: "KWPINDEX", version u32 = 1, entries per page u32, part's size u64, part's tail u64, members u64,
//!   pages u64, CRC-32 of the fences u32, 8 bytes 0, CRC-32 of the 60 bytes before u32.
//! - Page, 4096 bytes: 255 times (digest of the name u64, offset of the local header u64), ordered; unused entries are
//!   all ones; then CRC-32 of the 4080 bytes before u32, 12 bytes 0.
//! - Fences: the first digest of each page, u64.

use std::path::Path;

use crate::digest::digest64;
use crate::error::{During, PackError};
use crate::files::{File, Files, read_exact_at};
use crate::name::ArchiveName;
use crate::part::{Part, PartId};
use crate::zip::central::{self, Unreadable};
use crate::zip::local;
use crate::zip::{u32_at, u64_at};

/// Parts with fewer members have no index: their list of members is as fast to read.
pub(crate) const INDEX_MEMBERS_MIN: u64 = 4096;

const MAGIC: &[u8; 8] = b"KWPINDEX";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 64;
const PAGE_LEN: usize = 4096;
const ENTRY_LEN: usize = 16;
const PAGE_ENTRIES: usize = 255;

/// Where a member is: the digest of its name, and the offset of its local header.
pub(crate) type Place = (u64, u64);

/// The digest by which a name is found.
pub(crate) fn name_digest(name: &[u8]) -> u64 {
    digest64(name)
}

/// Finds members by name.
pub(crate) enum Lookup {
    /// Of a part with few members, or one whose index is missing: ordered, in memory.
    Memory(Vec<Place>),
    /// By the file beside the part.
    Index(Index),
}

/// An index that is open.
pub(crate) struct Index {
    file: Box<dyn File>,
    fences: Vec<u64>,
}

impl Lookup {
    /// For a part: its index, if there is a sound one, or its list of members.
    pub(crate) fn open(files: &dyn Files, archive: &ArchiveName, part: &Part) -> Result<Self, PackError> {
        if part.end.members >= INDEX_MEMBERS_MIN
            && let Some(index) = Index::open(files, &archive.index_path(part.number), part.id)
        {
            return Ok(Lookup::Index(index));
        }
        Ok(Lookup::Memory(places(part)?))
    }

    /// The places that have this digest.
    ///
    /// # Errors
    /// If the index cannot be read, or is damaged there.
    fn find(&self, digest: u64) -> Result<Vec<u64>, Unreadable> {
        match self {
            Lookup::Memory(places) => {
                let first = places.partition_point(|(known, _)| *known < digest);
                Ok(places[first..].iter().take_while(|(known, _)| *known == digest).map(|(_, at)| *at).collect())
            }
            Lookup::Index(index) => index.find(digest),
        }
    }
}

/// What the list of a part's members says, ordered by digest.
pub(crate) fn places(part: &Part) -> Result<Vec<Place>, PackError> {
    let mut places = Vec::with_capacity(usize::try_from(part.end.members).unwrap_or(0).min(1 << 20));
    central::each(&*part.file, &part.end, &mut |entry| {
        places.push((name_digest(entry.name), entry.offset));
        Ok(())
    })
    .map_err(|error| part.damaged(error))?;
    places.sort_unstable();
    Ok(places)
}

/// A member that was found by its name.
pub(crate) struct Found {
    pub(crate) content: local::Content,
    pub(crate) flags: u16,
    /// Where its data begins.
    pub(crate) data_at: u64,
}

/// Finds a member in a part.
pub(crate) fn find(
    files: &dyn Files,
    archive: &ArchiveName,
    part: &mut Part,
    name: &[u8],
) -> Result<Option<Found>, PackError> {
    let digest = name_digest(name);
    let offsets = match part.lookup(files, archive)?.find(digest) {
        Ok(offsets) => offsets,
        // The index is damaged: the part itself knows.
        Err(_) => Lookup::Memory(places(part)?).find(digest).map_err(|error| part.damaged(error))?,
    };
    for at in offsets {
        let mut bytes = vec![0; local::FIXED_LEN + name.len() + 256];
        let available = usize::try_from(part.end.directory_at.saturating_sub(at)).unwrap_or(usize::MAX);
        bytes.truncate(available);
        read_exact_at(&*part.file, &mut bytes, at).during("read", &part.path)?;
        let header = match local::parse(&bytes) {
            Err(local::Flaw::Short) => {
                let len = available.min(local::FIXED_LEN + 2 * 65_535);
                bytes.resize(len, 0);
                read_exact_at(&*part.file, &mut bytes, at).during("read", &part.path)?;
                local::parse(&bytes)
            }
            parsed => parsed,
        };
        let Ok(header) = header else { continue };
        if header.name == name {
            let found = Found { content: header.content, flags: header.flags, data_at: at + header.len as u64 };
            let has_sizes = found.flags & crate::zip::FLAG_DESCRIPTOR == 0;
            return Ok(Some(if has_sizes { found } else { by_directory(part, at, found)? }));
        }
    }
    Ok(None)
}

/// Where another program wrote sizes behind the data, the list of members has them too.
fn by_directory(part: &Part, at: u64, mut found: Found) -> Result<Found, PackError> {
    central::each(&*part.file, &part.end, &mut |entry| {
        if entry.offset == at {
            found.content = entry.content;
        }
        Ok(())
    })
    .map_err(|error| part.damaged(error))?;
    Ok(found)
}

impl Index {
    /// Opens the index of a part; `None` if there is none, or not a sound one of this very part.
    pub(crate) fn open(files: &dyn Files, path: &Path, part: PartId) -> Option<Self> {
        let file = files.open(path).ok()?;
        let mut header = [0; HEADER_LEN];
        read_exact_at(&*file, &mut header, 0).ok()?;
        let is_ours = header.starts_with(MAGIC)
            && u32_at(&header, 60) == Some(crc32fast::hash(&header[..60]))
            && u32_at(&header, 8) == Some(VERSION)
            && u32_at(&header, 12) == u32::try_from(PAGE_ENTRIES).ok()
            && (u64_at(&header, 16), u64_at(&header, 24)) == (Some(part.size), Some(part.tail));
        let pages = u64_at(&header, 40).filter(|_| is_ours)?;
        let fences_at = (HEADER_LEN as u64).checked_add(pages.checked_mul(PAGE_LEN as u64)?)?;
        if file.facts().ok()?.size != fences_at + 8 * pages {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(8 * pages).ok()?];
        read_exact_at(&*file, &mut bytes, fences_at).ok()?;
        if u32_at(&header, 48) != Some(crc32fast::hash(&bytes)) {
            return None;
        }
        let fences = bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
        Some(Index { file, fences })
    }

    /// The places that have this digest.
    pub(crate) fn find(&self, digest: u64) -> Result<Vec<u64>, Unreadable> {
        let mut found = Vec::new();
        // Equal digests may begin on the page before the first that begins with it.
        let first = self.fences.partition_point(|fence| *fence < digest).saturating_sub(1);
        for page in first..self.fences.len() {
            if self.fences[page] > digest {
                break;
            }
            let at = (HEADER_LEN + page * PAGE_LEN) as u64;
            let mut bytes = [0; PAGE_LEN];
            read_exact_at(&*self.file, &mut bytes, at)?;
            let (entries, rest) = bytes.split_at(PAGE_ENTRIES * ENTRY_LEN);
            if u32_at(rest, 0) != Some(crc32fast::hash(entries)) {
                return Err(Unreadable::Entry(at));
            }
            let places = entries.as_chunks::<ENTRY_LEN>().0.iter();
            let known = places.filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)));
            found.extend(known.filter(|(known, at)| *known == digest && *at != u64::MAX).map(|(_, at)| at));
        }
        Ok(found)
    }
}

/// Writes the index of a part whose places are these, ordered.
pub(crate) fn write(file: &dyn File, part: PartId, places: &[Place]) -> std::io::Result<()> {
    let pages = places.chunks(PAGE_ENTRIES);
    let (count, mut at) = (pages.len() as u64, HEADER_LEN as u64);
    let mut fences = Vec::with_capacity(pages.len() * 8);
    let mut bytes = Vec::with_capacity(64 * PAGE_LEN);
    for page in pages {
        fences.extend_from_slice(&page[0].0.to_le_bytes());
        let start = bytes.len();
        for (digest, offset) in page {
            bytes.extend_from_slice(&digest.to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        bytes.resize(start + PAGE_ENTRIES * ENTRY_LEN, 0xFF);
        let sum = crc32fast::hash(&bytes[start..]);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.resize(start + PAGE_LEN, 0);
        if bytes.len() >= 64 * PAGE_LEN {
            file.write_at(&bytes, at)?;
            at += bytes.len() as u64;
            bytes.clear();
        }
    }
    bytes.extend_from_slice(&fences);
    file.write_at(&bytes, at)?;
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&u32::try_from(PAGE_ENTRIES).unwrap_or(0).to_le_bytes());
    for number in [part.size, part.tail, places.len() as u64, count] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(&crc32fast::hash(&fences).to_le_bytes());
    header.resize(60, 0);
    let sum = crc32fast::hash(&header);
    header.extend_from_slice(&sum.to_le_bytes());
    file.write_at(&header, 0)
}
