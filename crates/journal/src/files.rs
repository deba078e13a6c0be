//! The files of a journal: their names, their headers, their order, and which of them count.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Access, Disk, DiskError, DiskFile, During as _};
use crate::format::{Header, HeaderError};
use crate::frames::{Frames, Step};
use crate::time::Day;

const PLAIN: &str = ".jsonl";
const PACKED: &str = ".jsonl.zst";

/// A file of the journal's directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// Its name without `.jsonl` or `.jsonl.zst`.
    pub(crate) stem: String,
    /// Whether it is compressed.
    pub(crate) packed: bool,
}

impl Entry {
    pub(crate) fn plain(stem: &str) -> Entry {
        Entry { stem: stem.to_owned(), packed: false }
    }

    pub(crate) fn name(&self) -> String {
        format!("{}{}", self.stem, if self.packed { PACKED } else { PLAIN })
    }

    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.name())
    }

    /// Opens it for reading from its start.
    pub(crate) fn open(&self, disk: &dyn Disk, dir: &Path) -> Result<Source, DiskError> {
        let path = self.path(dir);
        let file = disk.open(&path, Access::Read).during("open", &path)?;
        if !self.packed {
            return Ok(Source::Plain(file));
        }
        Source::packed(file).during("decompress", &path)
    }
}

/// The name of the next file of a day, given those that are there.
pub(crate) fn next_stem(day: Day, entries: &[Entry]) -> String {
    let day = format!("{day}.");
    let taken = entries.iter().filter_map(|entry| entry.stem.strip_prefix(&day)?.parse::<u32>().ok()).max();
    format!("{day}{:04}", taken.unwrap_or(0) + 1)
}

/// The journal's files by name. Where a file is there both plain and compressed, a compression was interrupted and
/// the plain one counts.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Entry>, DiskError> {
    let names = disk.list(dir).during("list", dir)?;
    let mut entries: Vec<Entry> = names
        .iter()
        .filter_map(|name| {
            let name = name.to_str()?;
            let (stem, packed) = match (name.strip_suffix(PACKED), name.strip_suffix(PLAIN)) {
                (Some(stem), _) => (stem, true),
                (_, Some(stem)) => (stem, false),
                _ => return None,
            };
            Some(Entry { stem: stem.to_owned(), packed })
        })
        .collect();
    entries.sort();
    entries.dedup_by(|later, earlier| later.stem == earlier.stem);
    Ok(entries)
}

/// Where the text of a file comes from.
pub(crate) enum Source {
    Plain(Box<dyn DiskFile>),
    Packed(Box<zstd::Decoder<'static, io::BufReader<FileReader>>>),
}

impl Source {
    pub(crate) fn packed(file: Box<dyn DiskFile>) -> io::Result<Source> {
        Ok(Source::Packed(Box::new(zstd::Decoder::new(FileReader { file, offset: 0 })?)))
    }

    /// Reads on, into the whole of `into` unless the text ends. `offset` is where that is in the text; a compressed
    /// file only goes forward.
    pub(crate) fn read(&mut self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            let read = match self {
                Source::Plain(file) => file.read_at(&mut into[filled..], offset + filled as u64)?,
                Source::Packed(decoder) => match decoder.read(&mut into[filled..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read?,
                },
            };
            if read == 0 {
                break;
            }
            filled += read;
        }
        Ok(filled)
    }
}

/// A [`DiskFile`] as a stream.
pub(crate) struct FileReader {
    file: Box<dyn DiskFile>,
    offset: u64,
}

impl Read for FileReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// A file with a header that was read.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) entry: Entry,
    pub(crate) header: Header,
}

/// A file without a header that can be read.
#[derive(Debug)]
pub(crate) struct Headless {
    pub(crate) entry: Entry,
    pub(crate) error: HeaderError,
    /// It holds a line of a commit line's shape, so it once had a header.
    pub(crate) committed: bool,
    /// It holds something beside NUL bytes.
    pub(crate) written: bool,
}

/// All files of a journal, in order.
#[derive(Default)]
pub(crate) struct Chain {
    /// Those that count, by their numbers.
    pub(crate) files: Vec<Placed>,
    /// Those at the end that hold no batch that was ever committed: a crash or a failure came first. They say nothing.
    pub(crate) uncommitted: Vec<Placed>,
    /// Those without a header.
    pub(crate) headless: Vec<Headless>,
}

impl Chain {
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Chain, DiskError> {
        let mut chain = Chain::default();
        for entry in list(disk, dir)? {
            match Frames::open(disk, dir, &entry)? {
                Ok(frames) => chain.files.push(Placed { entry, header: frames.header().clone() }),
                Err((error, mut headless)) => {
                    let written = !headless.rest_is_free()?;
                    // Only what was whole is ever compressed.
                    let committed = entry.packed || (written && headless.skip_to_commit()?.is_some());
                    chain.headless.push(Headless { entry, error, committed, written });
                }
            }
        }
        chain.files.sort_by_key(|file| file.header.number);
        while let Some(last) = chain.files.last() {
            if holds_commit(disk, dir, last)? {
                break;
            }
            chain.uncommitted.extend(chain.files.pop());
        }
        chain.uncommitted.reverse();
        Ok(chain)
    }

    /// The first damage that the headers alone show.
    pub(crate) fn header_flaw(&self) -> Option<(&Entry, String)> {
        if let Some(lost) = self.headless.iter().find(|file| file.committed) {
            return Some((&lost.entry, lost.error.to_string()));
        }
        let mut before: Option<&Placed> = None;
        for file in self.files.iter().chain(&self.uncommitted) {
            let header = &file.header;
            let flaw = match before {
                None if header.first_seq.0 != 1 || header.prev != crate::ChainHash::ZERO => {
                    format!("the journal begins with seq {}: what stood before is missing", header.first_seq)
                }
                Some(before) if header.journal != before.header.journal => {
                    format!("it belongs to another journal, {}", header.journal)
                }
                Some(before) if header.first_seq < before.header.first_seq => {
                    format!("it begins with seq {}, before the file that it follows", header.first_seq)
                }
                _ => {
                    before = Some(file);
                    continue;
                }
            };
            return Some((&file.entry, flaw));
        }
        None
    }
}

/// Whether anything in the file was ever committed: its first batch is sound, or is damaged and not merely torn.
fn holds_commit(disk: &dyn Disk, dir: &Path, file: &Placed) -> Result<bool, DiskError> {
    if file.entry.packed {
        return Ok(true);
    }
    let Ok(mut frames) = Frames::open(disk, dir, &file.entry)? else { return Ok(false) };
    Ok(match frames.step()? {
        Step::Batch(_) => true,
        Step::Free | Step::Flawed(_) => !frames.is_torn()?,
    })
}

/// A shared directory of a disk.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
}
