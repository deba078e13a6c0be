//! What start-up does before the first write: finds where the journal validly ends, sets a torn tail aside, and makes
//! sure that the end really is on the disk. Damage it reports, and then it has changed nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Access, Disk, DiskError, DiskFile, During as _};
use crate::files::{Chain, Entry, Headless, Place, Placed};
use crate::format::{Header, HeaderError};
use crate::frames::{Flaw, FlawKind, Found, Frames, Step};
use crate::reader::{ReadError, Reader};
use crate::record::Record;
use crate::value::{ChainHash, Cursor, JournalId, Seq, Timestamp};

/// The folder below the journal's that keeps torn tails.
pub(crate) const TORN: &str = "torn";

const CHUNK_BYTES: usize = 1 << 20;

/// What start-up found.
#[derive(Debug)]
pub struct Recovery {
    /// Where the journal ends.
    pub head: Cursor,
    /// No record was ever committed: a new journal, or a new epoch.
    pub is_new: bool,
    /// The host's name as the journal has it; `None` for a new journal.
    pub host: Option<String>,
    /// When the last record was journaled.
    pub last_at: Option<Timestamp>,
    /// Bytes that a crash or a failed write left behind the end. A gap is due for them.
    pub torn: Vec<Torn>,
}

/// A torn tail that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file that it stood in.
    pub file: PathBuf,
    /// Where in that file.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where it is kept now.
    pub kept: PathBuf,
}

/// Why a journal cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Something other than its end is wrong.
    #[error(
        "the journal is damaged: {}, line {line}, record {seq}: {what}; nothing was changed. \
        `keepwatch journal verify` lists all damage, `keepwatch init --new-epoch` sets the journal aside and starts anew",
        file.display()
    )]
    Damaged {
        /// In which file.
        file: PathBuf,
        /// At which line of it, from 1.
        line: u64,
        /// The record that should stand there.
        seq: Seq,
        /// What is wrong.
        what: String,
    },
    /// It does not hold what somebody has followed of it.
    #[error("{} does not hold {cursor}; it was rolled back or cloned, or is another journal", dir.display())]
    Forked {
        /// The journal's directory.
        dir: PathBuf,
        /// What it should hold.
        cursor: Cursor,
    },
    /// There is none, though somebody has followed one here.
    #[error("there is no journal in {}, and one there held {cursor}", dir.display())]
    Missing {
        /// Where it should be.
        dir: PathBuf,
        /// What it should hold.
        cursor: Cursor,
    },
    /// A later version wrote it.
    #[error("{} has journal format {format}, and this version knows only {}; use a newer keepwatch", file.display(), crate::format::FORMAT)]
    Newer {
        /// Which file.
        file: PathBuf,
        /// The format that its header names.
        format: u64,
    },
}

/// What the writer goes on from.
pub(crate) struct Ground {
    pub(crate) recovery: Recovery,
    /// The last file, to be written on, where it is plain.
    pub(crate) last: Option<Resume>,
    /// The highest number of a file so far.
    pub(crate) number: u64,
    /// Files that hold nothing any more; to be removed once the journal's id is safe elsewhere.
    pub(crate) hollow: Vec<PathBuf>,
}

/// An open file with room behind its end.
pub(crate) struct Resume {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) entry: Entry,
    pub(crate) header: Header,
    pub(crate) end: u64,
    pub(crate) allocated: u64,
}

/// The sound part of the last file.
struct LastFile {
    placed: Placed,
    end: u64,
    torn: bool,
    last: Found,
    text: Vec<u8>,
    /// The hash of the batch that ends where was asked for.
    held: Option<ChainHash>,
}

pub(crate) fn recover(place: &Place, holds: Option<Cursor>) -> Result<Ground, OpenError> {
    let Place { disk, dir } = place;
    let mut chain = Chain::load(disk.as_ref(), dir)?;
    refuse_newer(dir, &chain.headless)?;
    if let Some((entry, what)) = chain.header_flaw() {
        return Err(OpenError::Damaged { file: entry.path(dir), line: 1, seq: Seq::ZERO, what });
    }
    let last = match chain.files.pop() {
        Some(placed) => Some(read_last(disk.as_ref(), dir, placed, holds)?),
        None => None,
    };
    if let Some(cursor) = holds
        && !is_held(place, last.as_ref(), cursor)
    {
        return Err(OpenError::Forked { dir: dir.clone(), cursor });
    }

    // From here on the disk is changed: everything was looked at.
    let mut torn = Vec::new();
    let mut hollow = Vec::new();
    for file in &chain.uncommitted {
        let mut beyond_header = false;
        if let Ok(mut frames) = Frames::open(disk.as_ref(), dir, &file.entry)? {
            beyond_header = !frames.rest_is_free()?;
        }
        let path = file.entry.path(dir);
        if beyond_header {
            torn.push(set_aside(disk.as_ref(), dir, &file.entry, 0)?);
        }
        hollow.push(path);
    }
    for file in &chain.headless {
        if file.written {
            torn.push(set_aside(disk.as_ref(), dir, &file.entry, 0)?);
        }
        hollow.push(file.entry.path(dir));
    }
    let header = match (&last, chain.uncommitted.last()) {
        (Some(last), _) => Some(last.placed.header.clone()),
        (None, Some(file)) => Some(file.header.clone()),
        (None, None) => None,
    };
    let number = chain.uncommitted.iter().map(|file| file.header.number).chain(header.iter().map(|h| h.number)).max();
    let mut recovery = Recovery {
        head: Cursor {
            journal: header.as_ref().map_or(JournalId(uuid::Uuid::nil()), |header| header.journal),
            seq: Seq::ZERO,
            hash: ChainHash::ZERO,
        },
        is_new: last.is_none(),
        host: header.map(|header| header.host),
        last_at: None,
        torn,
    };
    let mut resume = None;
    if let Some(last) = last {
        recovery.head.seq = last.last.last;
        recovery.head.hash = last.last.hash;
        recovery.last_at = last_record_at(&last.text);
        if last.torn {
            recovery.torn.push(set_aside(disk.as_ref(), dir, &last.placed.entry, last.end)?);
        }
        if !last.placed.entry.packed {
            resume = Some(prove(disk.as_ref(), dir, last)?);
        }
        disk.sync_dir(dir).during("sync", dir)?;
    }
    Ok(Ground { recovery, last: resume, number: number.unwrap_or(0), hollow })
}

/// Reads the last file through to its end.
fn read_last(disk: &dyn Disk, dir: &Path, placed: Placed, holds: Option<Cursor>) -> Result<LastFile, OpenError> {
    let damaged = |flaw: Flaw| OpenError::Damaged {
        file: placed.entry.path(dir),
        line: flaw.line,
        seq: flaw.seq,
        what: flaw.what.to_string(),
    };
    let unreadable =
        |error: HeaderError| damaged(Flaw { line: 1, seq: Seq::ZERO, what: FlawKind::Undecodable(error.to_string()) });
    let mut frames = match Frames::open(disk, dir, &placed.entry)? {
        Ok(frames) => frames,
        Err((error, _)) => return Err(unreadable(error)),
    };
    let mut last = None;
    let mut held = None;
    loop {
        let end = frames.position();
        let flaw = match frames.step()? {
            Step::Batch(found) => {
                let mut text = last.take().map_or_else(Vec::new, |(_, text): (Found, Vec<u8>)| text);
                text.clear();
                text.extend_from_slice(frames.text(&found));
                if holds.is_some_and(|cursor| cursor.seq == found.last) {
                    held = Some(found.hash);
                }
                last = Some((found, text));
                continue;
            }
            Step::Flawed(flaw) => Some(flaw),
            Step::Free => None,
        };
        let hole = Flaw::hole(frames.line(), frames.place().0);
        let free = flaw.is_none() && frames.rest_is_free()?;
        let flaw = flaw.unwrap_or(hole);
        let torn = !free && !placed.entry.packed && frames.is_torn()?;
        return match last {
            Some((last, text)) if free || torn => Ok(LastFile { placed, end, torn, last, text, held }),
            Some(_) | None => Err(damaged(flaw)),
        };
    }
}

/// Whether the journal has this cursor: in the last file, which was read, or in one before it.
fn is_held(place: &Place, last: Option<&LastFile>, cursor: Cursor) -> bool {
    let Some(last) = last else { return cursor.seq == Seq::ZERO };
    let header = &last.placed.header;
    if header.journal != cursor.journal {
        false
    } else if header.first_seq <= cursor.seq {
        last.held == Some(cursor.hash)
    } else {
        // Damage there is no fork; whoever reads that file says so.
        let opened = Reader::open_at(Arc::clone(&place.disk), &place.dir, cursor);
        !matches!(opened, Err(ReadError::Forked { .. }))
    }
}

fn refuse_newer(dir: &Path, headless: &[Headless]) -> Result<(), OpenError> {
    headless.iter().try_for_each(|file| match file.error {
        HeaderError::Newer(format) => Err(OpenError::Newer { file: file.entry.path(dir), format }),
        HeaderError::Malformed(_) => Ok(()),
    })
}

fn last_record_at(text: &[u8]) -> Option<Timestamp> {
    let mut lines = text.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n');
    lines.next(); // the commit line
    Some(Record::parse(lines.next()?).ok()?.at)
}

/// Copies what stands at `offset` and behind, up to the last byte that is not NUL, into the folder for torn tails.
fn set_aside(disk: &dyn Disk, dir: &Path, entry: &Entry, offset: u64) -> Result<Torn, DiskError> {
    let torn_dir = dir.join(TORN);
    let from_path = entry.path(dir);
    disk.create_dir(&torn_dir).during("create", &torn_dir)?;
    disk.sync_dir(dir).during("sync", dir)?;
    let from = disk.open(&from_path, Access::Read).during("open", &from_path)?;
    let (kept, to) = create_unique(disk, &torn_dir, &format!("{}.at-{offset}", entry.name()))?;
    let mut bytes = 0;
    let mut copied = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read_at(&mut chunk, offset + copied).during("read", &from_path)?;
        if read == 0 {
            break;
        }
        let used = chunk[..read].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        to.write_at(&chunk[..used], copied).during("write", &kept)?;
        bytes = if used > 0 { copied + used as u64 } else { bytes };
        copied += read as u64;
    }
    to.sync().during("sync", &kept)?;
    disk.sync_dir(&torn_dir).during("sync", &torn_dir)?;
    Ok(Torn { file: from_path, offset, bytes, kept })
}

fn create_unique(disk: &dyn Disk, dir: &Path, name: &str) -> Result<(PathBuf, Box<dyn DiskFile>), DiskError> {
    let mut path = dir.join(name);
    let mut attempt = 1;
    loop {
        match disk.create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                attempt += 1;
                path = dir.join(format!("{name}.{attempt}"));
            }
            file => return Ok((path.clone(), file.during("create", &path)?)),
        }
    }
}

/// Cuts the torn tail off, writes the last batch once more and syncs it. A sync that failed before a restart may have
/// left that batch in the page cache alone, marked clean: only a new write followed by a sync that succeeds shows
/// that it is on the disk (<https://wiki.postgresql.org/wiki/Fsync_Errors>). Older batches were synced before it.
fn prove(disk: &dyn Disk, dir: &Path, last: LastFile) -> Result<Resume, DiskError> {
    let path = last.placed.entry.path(dir);
    let file = disk.open(&path, Access::ReadWrite).during("open", &path)?;
    if last.torn {
        file.truncate(last.end).during("truncate", &path)?;
    }
    file.write_at(&last.text, last.last.offset).during("write", &path)?;
    file.sync().during("sync", &path)?;
    let allocated = file.size().during("look at", &path)?;
    Ok(Resume { file, entry: last.placed.entry, header: last.placed.header, end: last.end, allocated })
}
