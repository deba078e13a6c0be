//! Brings a listing of any length into order: in memory while it is short, else in sorted runs on disk that are merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

use super::Spool;
use super::spool::SpoolFile;
use crate::model::{FileType, RelPath};
use crate::target::Found;

/// Bytes of paths and what belongs to them that are sorted in memory.
const RUN_BYTES_MAX: usize = 32 << 20;
/// What an entry takes besides its path.
const ENTRY_BYTES: usize = 120;
/// Runs that are merged: a listing of some 30 GB.
const RUNS_MAX: usize = 1000;

/// Takes a listing in.
pub(super) struct Sorter<'s> {
    spool: &'s Spool,
    run: Vec<(RelPath, Found)>,
    bytes: usize,
    runs: Vec<SpoolFile>,
    run_bytes_max: usize,
}

/// A listing in order.
pub(super) struct Sorted {
    /// What was not written, in order from its end.
    last: Vec<(RelPath, Found)>,
    runs: Vec<Run>,
    /// The next of each run.
    heads: BinaryHeap<Reverse<(RelPath, usize)>>,
    founds: Vec<Option<Found>>,
}

struct Run {
    input: BufReader<File>,
    _file: SpoolFile,
}

impl<'s> Sorter<'s> {
    pub(super) fn new(spool: &'s Spool) -> Self {
        Sorter { spool, run: Vec::new(), bytes: 0, runs: Vec::new(), run_bytes_max: RUN_BYTES_MAX }
    }

    pub(super) fn add(&mut self, path: RelPath, found: Found) -> io::Result<()> {
        self.bytes += path.as_bytes().len() + found.target.as_ref().map_or(0, Vec::len) + ENTRY_BYTES;
        self.run.push((path, found));
        if self.bytes < self.run_bytes_max {
            return Ok(());
        }
        if self.runs.len() == RUNS_MAX {
            return Err(io::Error::other("it is too long"));
        }
        self.run.sort_by(|one, other| one.0.cmp(&other.0));
        let file = self.spool.place()?;
        let mut out = BufWriter::new(File::options().write(true).create_new(true).open(file.path())?);
        for (path, found) in self.run.drain(..) {
            write(&mut out, &path, &found)?;
        }
        out.flush()?;
        self.runs.push(file);
        self.bytes = 0;
        Ok(())
    }

    pub(super) fn sorted(mut self) -> io::Result<Sorted> {
        self.run.sort_by(|one, other| other.0.cmp(&one.0));
        let mut sorted = Sorted { last: self.run, runs: Vec::new(), heads: BinaryHeap::new(), founds: Vec::new() };
        for file in self.runs {
            sorted.runs.push(Run { input: BufReader::new(file.open()?), _file: file });
            sorted.founds.push(None);
        }
        for index in 0..sorted.runs.len() {
            sorted.advance(index)?;
        }
        Ok(sorted)
    }
}

impl Sorted {
    fn advance(&mut self, index: usize) -> io::Result<()> {
        if let Some((path, found)) = read(&mut self.runs[index].input)? {
            self.founds[index] = Some(found);
            self.heads.push(Reverse((path, index)));
        }
        Ok(())
    }
}

impl Iterator for Sorted {
    type Item = io::Result<(RelPath, Found)>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_head_first = match (self.heads.peek(), self.last.last()) {
            (Some(Reverse((head, _))), Some((last, _))) => head <= last,
            (head, _) => head.is_some(),
        };
        if !is_head_first {
            return self.last.pop().map(Ok);
        }
        let Reverse((path, index)) = self.heads.pop()?;
        let found = self.founds[index].take()?;
        Some(self.advance(index).map(|()| (path, found)))
    }
}

fn write(out: &mut impl Write, path: &RelPath, found: &Found) -> io::Result<()> {
    let mut bytes = |bytes: &[u8]| -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(bytes)
    };
    bytes(path.as_bytes())?;
    bytes(found.target.as_deref().unwrap_or_default())?;
    out.write_all(&[u8::from(found.target.is_some())])?;
    out.write_all(&found.size.to_le_bytes())?;
    out.write_all(&found.mtime_ns.to_le_bytes())
}

fn read(input: &mut impl Read) -> io::Result<Option<(RelPath, Found)>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut path = vec![0; u32::from_le_bytes(length) as usize];
    input.read_exact(&mut path)?;
    let path = RelPath::new(path).map_err(io::Error::other)?;
    input.read_exact(&mut length)?;
    let mut target = vec![0; u32::from_le_bytes(length) as usize];
    input.read_exact(&mut target)?;
    let (mut is_link, mut size, mut mtime_ns) = ([0; 1], [0; 8], [0; 8]);
    input.read_exact(&mut is_link)?;
    input.read_exact(&mut size)?;
    input.read_exact(&mut mtime_ns)?;
    let is_link = is_link == [1];
    Ok(Some((
        path,
        Found {
            kind: if is_link { FileType::Symlink } else { FileType::File },
            size: u64::from_le_bytes(size),
            mtime_ns: i64::from_le_bytes(mtime_ns),
            target: is_link.then_some(target),
        },
    )))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_long_listing_is_sorted_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(dir.path(), "x");
        for run_bytes_max in [1, 1000, RUN_BYTES_MAX] {
            let mut sorter = Sorter { run_bytes_max, ..Sorter::new(&spool) };
            let paths = (0..500_u64).map(|number| RelPath::new(format!("a/{}", number * 7919 % 500)).unwrap());
            for (number, path) in paths.enumerate() {
                let target = (number % 3 == 0).then(|| path.as_bytes().to_vec());
                let kind = if target.is_some() { FileType::Symlink } else { FileType::File };
                sorter.add(path, Found { kind, size: number as u64, mtime_ns: -(number as i64), target }).unwrap();
            }
            let sorted: Vec<_> = sorter.sorted().unwrap().map(Result::unwrap).collect();
            assert_eq!(sorted.len(), 500);
            assert!(sorted.windows(2).all(|pair| pair[0].0 < pair[1].0));
            for (path, found) in &sorted {
                let is_link = found.size % 3 == 0;
                assert_eq!(found.target.as_deref(), is_link.then_some(path.as_bytes()));
                assert_eq!(found.mtime_ns, -i64::try_from(found.size).unwrap());
            }
        }
        let left = std::fs::read_dir(dir.path()).unwrap().flatten();
        assert_eq!(left.flat_map(|dir| std::fs::read_dir(dir.path()).unwrap()).count(), 1, "only the lock is left");
    }
}
