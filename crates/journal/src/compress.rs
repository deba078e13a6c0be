//! Compresses the files that are closed, and the setting aside of a whole journal.
//!
//! Every step leaves a journal that reads the same: the compressed file gets its name only after it was read back and
//! compared, and as long as the plain file is there, the plain file counts.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::disk::{Access, Disk, DiskError, DiskFile, During as _};
use crate::files::{self, Chain, Entry, Placed};
use crate::frames::{Frames, Step};
use crate::value::{Cursor, Seq};

const LEVEL: i32 = 3;
const CHUNK_BYTES: usize = 1 << 20;

/// Why a closed file was not compressed. It stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file is not sound.
    #[error("{} is not compressed: record {seq}: {what}; `keepwatch journal verify` lists all damage", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// The record where it stops being sound.
        seq: Seq,
        /// What is wrong.
        what: String,
    },
    /// What was read back was not what was written.
    #[error("{} did not read back as it was written; the plain file stays; check the disk", file.display())]
    NotTheSame {
        /// The compressed file.
        file: PathBuf,
    },
}

/// Compresses every plain file that is closed: a later file holds the head, or a commit before it. Returns the
/// compressed ones. What stands void behind a file's valid end is left out.
///
/// May run beside the writer, from one thread at a time.
///
/// # Errors
/// [`CompressError`] at the first file that cannot be compressed.
pub fn compress_closed(disk: &dyn Disk, dir: &Path, head: Cursor) -> Result<Vec<PathBuf>, CompressError> {
    let chain = Chain::load(disk, dir)?;
    let mut compressed = Vec::new();
    for pair in chain.files.windows(2) {
        let [file, next] = pair else { continue };
        if !file.entry.packed && next.header.first_seq <= head.seq {
            compressed.push(compress(disk, dir, file, next)?);
        }
    }
    Ok(compressed)
}

fn compress(disk: &dyn Disk, dir: &Path, file: &Placed, next: &Placed) -> Result<PathBuf, CompressError> {
    let plain_path = file.entry.path(dir);
    let len = valid_len(disk, dir, file, next)?;
    let packed = Entry { packed: true, ..file.entry.clone() };
    let packed_path = packed.path(dir);
    let made_path = dir.join(format!("{}.tmp", packed.name()));
    match disk.remove(&made_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).during("remove", &made_path)?,
        _ => {}
    }
    let plain = disk.open(&plain_path, Access::Read).during("open", &plain_path)?;
    let made = disk.create_new(&made_path).during("create", &made_path)?;
    write_packed(plain.as_ref(), len, made.as_ref()).during("compress", &plain_path)?;
    made.sync().during("sync", &made_path)?;
    if !is_same(disk, dir, plain.as_ref(), len, &made_path)? {
        return Err(CompressError::NotTheSame { file: made_path });
    }
    disk.rename(&made_path, &packed_path).during("rename", &made_path)?;
    disk.sync_dir(dir).during("sync", dir)?;
    disk.remove(&plain_path).during("remove", &plain_path)?;
    disk.sync_dir(dir).during("sync", dir)?;
    Ok(packed_path)
}

/// Where the file validly ends: where the next one begins.
fn valid_len(disk: &dyn Disk, dir: &Path, file: &Placed, next: &Placed) -> Result<u64, CompressError> {
    let damaged = |seq, what| CompressError::Damaged { file: file.entry.path(dir), seq, what };
    let mut frames = match Frames::open(disk, dir, &file.entry)? {
        Ok(frames) => frames,
        Err((error, _)) => return Err(damaged(file.header.first_seq, error.to_string())),
    };
    while frames.place() != (next.header.first_seq, next.header.prev) {
        match frames.step()? {
            Step::Batch(_) => {}
            Step::Flawed(flaw) => return Err(damaged(flaw.seq, flaw.what.to_string())),
            Step::Free => return Err(damaged(frames.place().0, "the file ends before the next one begins".to_owned())),
        }
    }
    Ok(frames.position())
}

fn write_packed(plain: &dyn DiskFile, len: u64, made: &dyn DiskFile) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(FileWriter { file: made, offset: 0 }, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(len))?;
    copy_prefix(plain, len, |chunk| encoder.write_all(chunk))?;
    encoder.finish()?.flush()
}

fn copy_prefix(file: &dyn DiskFile, len: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < len {
        let wanted = usize::try_from(len - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        match file.read_at(&mut chunk[..wanted], offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                each(&chunk[..read])?;
                offset += read as u64;
            }
        }
    }
    Ok(())
}

/// Reads the compressed file back and compares.
fn is_same(disk: &dyn Disk, dir: &Path, plain: &dyn DiskFile, len: u64, made: &Path) -> Result<bool, DiskError> {
    let file = disk.open(made, Access::Read).during("open", made)?;
    let mut source = files::Source::packed(file).during("decompress", made)?;
    let mut theirs = vec![0; CHUNK_BYTES];
    let mut same = true;
    let compared = copy_prefix(plain, len, |chunk| {
        let read = source.read(&mut theirs[..chunk.len()], 0)?;
        same &= theirs[..read] == *chunk;
        Ok(())
    });
    compared.during("compare", dir)?;
    let beyond = source.read(&mut theirs[..1], 0).during("decompress", made)?;
    Ok(same && beyond == 0)
}

struct FileWriter<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
}

impl Write for FileWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
