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
use std::sync::Arc;

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
/// So many are read and written at a time.
const PAGES_TOGETHER: usize = 64;
/// So many pages are read in a row in the time of one lookup, by measurement.
const PAGES_FOR_ONE_LOOKUP: usize = 4;

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
    asked: Option<Asked>,
}

/// What an index says of digests that were asked for together. Both are ordered.
struct Asked {
    digests: Arc<[u64]>,
    places: Vec<Place>,
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

    /// Gets ready to be asked for these digests, which are ordered: where they are many it is faster to read an index from
    /// front to back than two pages for each.
    pub(crate) fn expect(&mut self, digests: &Arc<[u64]>) {
        if let Lookup::Index(index) = self
            && digests.len() >= index.fences.len() / PAGES_FOR_ONE_LOOKUP
        {
            // What is damaged is found out about by the lookup that needs it.
            index.asked = index.ask(digests).ok().map(|places| Asked { digests: Arc::clone(digests), places });
        }
    }

    /// The places that have this digest.
    ///
    /// # Errors
    /// If the index cannot be read, or is damaged there.
    fn find(&self, digest: u64) -> Result<Vec<u64>, Unreadable> {
        match self {
            Lookup::Memory(places) => Ok(with_digest(places, digest)),
            Lookup::Index(index) => index.find(digest),
        }
    }
}

fn with_digest(places: &[Place], digest: u64) -> Vec<u64> {
    let first = places.partition_point(|(known, _)| *known < digest);
    places[first..].iter().take_while(|(known, _)| *known == digest).map(|(_, at)| *at).collect()
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
        Some(Index { file, fences, asked: None })
    }

    /// The places that have one of these digests, which are ordered.
    fn ask(&self, digests: &[u64]) -> Result<Vec<Place>, Unreadable> {
        let mut found = Vec::new();
        let mut wanted = digests.iter().copied().peekable();
        let mut bytes = vec![0; PAGES_TOGETHER * PAGE_LEN];
        for first in (0..self.fences.len()).step_by(PAGES_TOGETHER) {
            let count = PAGES_TOGETHER.min(self.fences.len() - first);
            let at = (HEADER_LEN + first * PAGE_LEN) as u64;
            read_exact_at(&*self.file, &mut bytes[..count * PAGE_LEN], at)?;
            for (number, page) in bytes[..count * PAGE_LEN].chunks_exact(PAGE_LEN).enumerate() {
                for place in page_places(page, at + (number * PAGE_LEN) as u64)? {
                    while wanted.next_if(|digest| *digest < place.0).is_some() {}
                    if wanted.peek() == Some(&place.0) {
                        found.push(place);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The places that have this digest.
    pub(crate) fn find(&self, digest: u64) -> Result<Vec<u64>, Unreadable> {
        if let Some(asked) = &self.asked
            && asked.digests.binary_search(&digest).is_ok()
        {
            return Ok(with_digest(&asked.places, digest));
        }
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
            found.extend(page_places(&bytes, at)?.filter(|(known, _)| *known == digest).map(|(_, at)| at));
        }
        Ok(found)
    }
}

/// What stands on a page that begins at this place.
fn page_places(page: &[u8], at: u64) -> Result<impl Iterator<Item = Place>, Unreadable> {
    let (entries, rest) = page.split_at(PAGE_ENTRIES * ENTRY_LEN);
    if u32_at(rest, 0) != Some(crc32fast::hash(entries)) {
        return Err(Unreadable::Entry(at));
    }
    let places = entries.as_chunks::<ENTRY_LEN>().0.iter();
    let places = places.filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)));
    Ok(places.filter(|(_, at)| *at != u64::MAX))
}

/// Writes the index of a part whose places are these, ordered.
pub(crate) fn write(file: &dyn File, part: PartId, places: &[Place]) -> std::io::Result<()> {
    let pages = places.chunks(PAGE_ENTRIES);
    let (count, mut at) = (pages.len() as u64, HEADER_LEN as u64);
    let mut fences = Vec::with_capacity(pages.len() * 8);
    let mut bytes = Vec::with_capacity(PAGES_TOGETHER * PAGE_LEN);
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
        if bytes.len() >= PAGES_TOGETHER * PAGE_LEN {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::files::RealFiles;

    /// An index of many digests, some of which several members have, also across the end of a page.
    fn made(dir: &Path) -> (RealFiles, PartId, Vec<Place>) {
        let files = RealFiles::open(dir).unwrap();
        let part = PartId { size: 1, tail: 2 };
        let mut places: Vec<Place> = (0..20_000_u64).map(|at| ((at / 3) * 2, at * 100)).collect();
        places.extend((0..600).map(|at| (9_000, 5_000_000 + at)));
        places.sort_unstable();
        write(&*files.create_new(Path::new("index")).unwrap(), part, &places).unwrap();
        (files, part, places)
    }

    #[test]
    fn what_is_asked_for_together_is_found_as_each_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (files, part, places) = made(dir.path());
        let open = || Index::open(&files, Path::new("index"), part).unwrap();
        let (alone, mut together) = (open(), Lookup::Index(open()));
        // Every third of those that there are and are not, from below the first to above the last; one twice.
        let digests: Vec<u64> = [0, 0].into_iter().chain((3..14_000).step_by(3)).collect();
        together.expect(&digests.into());
        let Lookup::Index(Index { asked: Some(asked), .. }) = &together else { panic!("read from front to back") };
        assert!(asked.places.len() < places.len() / 2, "{} of {}", asked.places.len(), places.len());
        for digest in (0..14_000).chain([u64::MAX]) {
            let known = with_digest(&places, digest);
            assert_eq!(alone.find(digest).unwrap(), known, "{digest}");
            assert_eq!(together.find(digest).unwrap(), known, "{digest}, asked for with others");
        }
    }

    #[test]
    fn for_a_few_the_index_is_not_read_from_front_to_back() {
        let dir = tempfile::tempdir().unwrap();
        let (files, part, _) = made(dir.path());
        let mut lookup = Lookup::Index(Index::open(&files, Path::new("index"), part).unwrap());
        lookup.expect(&[4].into());
        assert!(matches!(lookup, Lookup::Index(Index { asked: None, .. })));
        assert_eq!(lookup.find(4).unwrap(), [600, 700, 800]);
    }

    #[test]
    fn a_damaged_page_is_told_by_the_lookup_that_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let (files, part, _) = made(dir.path());
        let mut bytes = std::fs::read(dir.path().join("index")).unwrap();
        bytes[HEADER_LEN + 5 * PAGE_LEN + 100] ^= 1;
        std::fs::write(dir.path().join("index"), bytes).unwrap();
        let mut lookup = Lookup::Index(Index::open(&files, Path::new("index"), part).unwrap());
        lookup.expect(&(0..1000).collect());
        assert_eq!(lookup.find(4).unwrap(), [600, 700, 800]);
        // Three members have each even digest, and 255 places are on a page.
        assert!(lookup.find((5 * 255 + 10) / 3 * 2).is_err());
    }
}
