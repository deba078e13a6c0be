//! A member while it is written: in memory as long as it is small, then in a staging file of its own.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::error::{During, PackError};
use crate::files::{File, read_exact_at};
use crate::name::MemberName;
use crate::owner::Owner;
use crate::packer::{Method, OnDrop, Shared};
use crate::staged::StagingFile;
use crate::zip::local::{Attributes, Content};
use crate::zip::{DEFLATED, STORED};

/// What is read and compressed at a time, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// A member that is being written: read, write and seek in it like in a file. [`Handle::finish`] stores it. Dropped
/// without that, it is thrown away, unless [`crate::Options::on_drop`] says otherwise.
pub struct Handle {
    shared: Arc<Shared>,
    name: MemberName,
    body: Body,
    position: u64,
    mode: u32,
    mtime: Option<(i64, u32)>,
    is_done: bool,
}

enum Body {
    Memory(Vec<u8>),
    Spilled(Box<Spill>),
}

/// A large member, in a staging file that holds nothing else.
struct Spill {
    staging: StagingFile,
    data_at: u64,
    len: u64,
    /// The sum of the first so many bytes, as long as nothing but appending happened.
    sum: Option<(crc32fast::Hasher, u64)>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>, name: MemberName) -> Self {
        Handle { shared, name, body: Body::Memory(Vec::new()), position: 0, mode: 0o644, mtime: None, is_done: false }
    }

    /// Its permissions, as of chmod(2). Unless they are set: 0644.
    pub fn set_mode(&mut self, mode: u32) {
        self.mode = mode & 0o7777;
    }

    /// Its modification time: seconds since 1970, and nanoseconds. Unless it is set: when it is finished.
    pub fn set_mtime(&mut self, secs: i64, nanos: u32) {
        self.mtime = Some((secs, nanos));
    }

    /// How long it is, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.body {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::Spilled(spill) => spill.len,
        }
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts it to this length, or fills it with NUL bytes up to there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len > self.shared.options.spill_bytes as u64 {
            self.spill()?;
        }
        match &mut self.body {
            Body::Memory(bytes) => bytes.resize(usize::try_from(len).unwrap_or(usize::MAX), 0),
            Body::Spilled(spill) => {
                spill.staging.file().set_len(spill.data_at + len)?;
                (spill.len, spill.sum) = (len, None);
            }
        }
        Ok(())
    }

    /// Stores it. When this returns, it survives the death of this process, and with [`crate::Sync::Each`] a power cut.
    ///
    /// # Errors
    /// If it could not be stored. It is thrown away then.
    pub fn finish(mut self) -> Result<(), PackError> {
        self.store()
    }

    /// Throws away what was written, whatever the options say.
    pub fn discard(mut self) {
        self.throw_away();
    }

    fn store(&mut self) -> Result<(), PackError> {
        self.is_done = true;
        let attributes = self.attributes();
        match std::mem::replace(&mut self.body, Body::Memory(Vec::new())) {
            Body::Memory(bytes) => {
                let options = &self.shared.options;
                let (content, data) = pack(&bytes, options.method);
                let data = data.as_deref().unwrap_or(&bytes);
                self.shared.store(&self.name, &content, &attributes, data, options.sync)
            }
            Body::Spilled(spill) => self.store_spilled(*spill, &attributes),
        }
    }

    fn store_spilled(&self, mut spill: Spill, attributes: &Attributes) -> Result<(), PackError> {
        let files = &*self.shared.files;
        let crc = match spill.crc() {
            Ok(crc) => crc,
            Err(error) => {
                let path = spill.staging.path().to_owned();
                spill.staging.discard(files);
                return Err(error).during("read", &path);
            }
        };
        let plain = Content { method: STORED, crc, packed: spill.len, size: spill.len };
        if let Method::Deflated(level) = self.shared.options.method {
            let packed = StagingFile::create(files, Owner::of_process(), "spill")?;
            let data_at = packed.large_data_at(&self.name);
            match deflate_file(spill.staging.file(), spill.data_at, spill.len, packed.file(), data_at, level) {
                Ok(Some(len)) => {
                    spill.staging.discard(files);
                    let content = Content { method: DEFLATED, packed: len, ..plain };
                    return close_large(packed, files, &self.name, &content, attributes);
                }
                Ok(None) => packed.discard(files),
                Err(error) => {
                    let path = packed.path().to_owned();
                    packed.discard(files);
                    spill.staging.discard(files);
                    return Err(error).during("write", &path);
                }
            }
        }
        // What was cut off, or never written, behind the end of the data goes.
        if let Err(error) = spill.staging.file().set_len(spill.data_at + spill.len) {
            let path = spill.staging.path().to_owned();
            spill.staging.discard(files);
            return Err(error).during("write", &path);
        }
        close_large(spill.staging, files, &self.name, &plain, attributes)
    }

    fn attributes(&self) -> Attributes {
        let (mtime_secs, mtime_nanos) = self.mtime.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
        });
        Attributes { mode: self.mode, mtime_secs, mtime_nanos }
    }

    /// Moves what is in memory to a file.
    fn spill(&mut self) -> io::Result<()> {
        let Body::Memory(bytes) = &self.body else { return Ok(()) };
        let files = &*self.shared.files;
        let staging = StagingFile::create(files, Owner::of_process(), "spill").map_err(|error| {
            let kind = error.io().map_or(io::ErrorKind::Other, io::Error::kind);
            io::Error::new(kind, error)
        })?;
        let data_at = staging.large_data_at(&self.name);
        if let Err(error) = staging.file().write_at(bytes, data_at) {
            staging.discard(files);
            return Err(error);
        }
        let len = bytes.len() as u64;
        let mut sum = crc32fast::Hasher::new();
        sum.update(bytes);
        self.body = Body::Spilled(Box::new(Spill { staging, data_at, len, sum: Some((sum, len)) }));
        Ok(())
    }

    fn throw_away(&mut self) {
        self.is_done = true;
        if let Body::Spilled(spill) = std::mem::replace(&mut self.body, Body::Memory(Vec::new())) {
            spill.staging.discard(&*self.shared.files);
        }
    }
}

/// Seals a large member and gives it to the scavengers.
pub(crate) fn close_large(
    mut staging: StagingFile,
    files: &dyn crate::files::Files,
    name: &MemberName,
    content: &Content,
    attributes: &Attributes,
) -> Result<(), PackError> {
    let closed = staging.seal_large(name, content, attributes).and_then(|()| staging.close(files));
    if closed.is_err() {
        // If it was given away all the same, nothing is under this name.
        staging.discard(files);
    }
    closed
}

impl Spill {
    fn crc(&mut self) -> io::Result<u32> {
        if let Some((sum, len)) = self.sum.take()
            && len == self.len
        {
            return Ok(sum.finalize());
        }
        let mut sum = crc32fast::Hasher::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < self.len {
            let len = usize::try_from(self.len - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            match read_exact_at(self.staging.file(), &mut piece[..len], self.data_at + at) {
                // A hole at the end that nobody wrote to.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.staging.file().set_len(self.data_at + self.len)?;
                    continue;
                }
                result => result?,
            }
            sum.update(&piece[..len]);
            at += len as u64;
        }
        Ok(sum.finalize())
    }
}

/// What a header says of these bytes, and the bytes to store if they are others.
pub(crate) fn pack(bytes: &[u8], method: Method) -> (Content, Option<Vec<u8>>) {
    let size = bytes.len() as u64;
    let plain = Content { method: STORED, crc: crc32fast::hash(bytes), packed: size, size };
    let Method::Deflated(level) = method else { return (plain, None) };
    let mut packed = Vec::with_capacity(bytes.len());
    let done = Compress::new(Compression::new(level.clamp(1, 9)), false).compress_vec(
        bytes,
        &mut packed,
        FlushCompress::Finish,
    );
    // Only what is no longer than the original fits, and is worth it.
    match done {
        Ok(Status::StreamEnd) if packed.len() < bytes.len() => {
            (Content { method: DEFLATED, packed: packed.len() as u64, ..plain }, Some(packed))
        }
        _ => (plain, None),
    }
}

/// Deflates a piece of a file into another one; the length, or `None` if it does not become shorter.
fn deflate_file(
    from: &dyn File,
    from_at: u64,
    len: u64,
    to: &dyn File,
    to_at: u64,
    level: u32,
) -> io::Result<Option<u64>> {
    let mut state = Compress::new(Compression::new(level.clamp(1, 9)), false);
    let (mut input, mut output) = (vec![0; PIECE_BYTES], Vec::with_capacity(PIECE_BYTES));
    let (mut read, mut written) = (0, 0);
    loop {
        let count = usize::try_from(len - read).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        read_exact_at(from, &mut input[..count], from_at + read)?;
        read += count as u64;
        let flush = if read == len { FlushCompress::Finish } else { FlushCompress::None };
        let mut rest = &input[..count];
        loop {
            output.clear();
            let before = state.total_in();
            let status = state.compress_vec(rest, &mut output, flush).map_err(io::Error::other)?;
            rest = &rest[usize::try_from(state.total_in() - before).unwrap_or(rest.len())..];
            to.write_at(&output, to_at + written)?;
            written += output.len() as u64;
            if written >= len {
                return Ok(None);
            }
            match status {
                Status::StreamEnd => return Ok(Some(written)),
                _ if rest.is_empty() && read < len => break,
                _ => {}
            }
        }
    }
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.position.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        if end > self.shared.options.spill_bytes as u64 {
            self.spill()?;
        }
        match &mut self.body {
            Body::Memory(memory) => {
                // It fits into memory, for it is not beyond `spill_bytes`.
                let (from, to) = (usize::try_from(self.position).unwrap_or(0), usize::try_from(end).unwrap_or(0));
                if memory.len() < to {
                    memory.resize(to, 0);
                }
                memory[from..to].copy_from_slice(bytes);
            }
            Body::Spilled(spill) => {
                spill.staging.file().write_at(bytes, spill.data_at + self.position)?;
                spill.sum = spill.sum.take().filter(|(_, len)| *len == self.position).map(|(mut sum, _)| {
                    sum.update(bytes);
                    (sum, end)
                });
                spill.len = spill.len.max(end);
            }
        }
        self.position = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Handle {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len().saturating_sub(self.position)).unwrap_or(usize::MAX);
        let len = into.len().min(left);
        if len == 0 {
            return Ok(0);
        }
        let count = match &self.body {
            Body::Memory(memory) => {
                let from = usize::try_from(self.position).unwrap_or(usize::MAX);
                into[..len].copy_from_slice(&memory[from..from + len]);
                len
            }
            Body::Spilled(spill) => {
                match spill.staging.file().read_at(&mut into[..len], spill.data_at + self.position)? {
                    // Behind the last byte that was written, within the length that was set.
                    0 => {
                        into[..len].fill(0);
                        len
                    }
                    count => count,
                }
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Handle {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = place.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the beginning"))?;
        Ok(self.position)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        match self.shared.options.on_drop {
            OnDrop::Discard => self.throw_away(),
            // Whoever wants to know how it went calls `finish`.
            OnDrop::Store => drop(self.store()),
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("name", &self.name).field("len", &self.len()).finish_non_exhaustive()
    }
}
