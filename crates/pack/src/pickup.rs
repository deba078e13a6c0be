//! Taking over a file that somebody else has finished.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::error::{During, PackError};
use crate::handle::{close_large, pack};
use crate::name::MemberName;
use crate::owner::Owner;
use crate::packer::{Shared, Sync};
use crate::staged::StagingFile;
use crate::zip::STORED;
use crate::zip::local::{Attributes, Content};

/// What is copied at a time, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// Packs a file durably, then removes it.
pub(crate) fn pickup(shared: &Arc<Shared>, source: &Path, name: &MemberName) -> Result<(), PackError> {
    let mut file = open(source)?;
    let before = file.metadata().during("read", source)?;
    let attributes = Attributes {
        mode: before.mode() & 0o7777,
        mtime_secs: before.mtime(),
        mtime_nanos: u32::try_from(before.mtime_nsec()).unwrap_or(0),
    };
    let is_same = |file: &fs::File| {
        let after = file.metadata().during("read", source)?;
        let told =
            |meta: &fs::Metadata| (meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        if told(&before) == told(&after) { Ok(()) } else { Err(PackError::Changed { path: source.to_owned() }) }
    };
    if before.size() <= shared.options.spill_bytes as u64 {
        let mut bytes = Vec::with_capacity(usize::try_from(before.size()).unwrap_or(0));
        (&mut file).take(before.size() + 1).read_to_end(&mut bytes).during("read", source)?;
        is_same(&file)?;
        let (content, data) = pack(&bytes, shared.options.method);
        shared.store(name, &content, &attributes, data.as_deref().unwrap_or(&bytes), Sync::Each)?;
    } else {
        store_large(shared, &mut file, source, name, &attributes, is_same)?;
    }
    remove(source, &before)
}

fn open(source: &Path) -> Result<fs::File, PackError> {
    let not_a_file = || PackError::NotAFile { path: source.to_owned() };
    // Looked at before it is opened: opening a device may do things.
    if !fs::symlink_metadata(source).during("pick up", source)?.is_file() {
        return Err(not_a_file());
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(source).during("pick up", source)?;
    if file.metadata().during("pick up", source)?.is_file() { Ok(file) } else { Err(not_a_file()) }
}

/// A large one goes into a staging file of its own, as it is.
fn store_large(
    shared: &Arc<Shared>,
    file: &mut fs::File,
    source: &Path,
    name: &MemberName,
    attributes: &Attributes,
    is_same: impl Fn(&fs::File) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let files = &*shared.files;
    let staging = StagingFile::create(files, Owner::of_process(), "spill")?;
    let copied = copy(file, source, &staging, name).and_then(|content| is_same(file).map(|()| content));
    match copied {
        Ok(content) => close_large(staging, files, name, &content, attributes),
        Err(error) => {
            staging.discard(files);
            Err(error)
        }
    }
}

fn copy(file: &mut fs::File, source: &Path, staging: &StagingFile, name: &MemberName) -> Result<Content, PackError> {
    let data_at = staging.large_data_at(name);
    let (mut piece, mut len) = (vec![0; PIECE_BYTES], 0);
    let mut sum = crc32fast::Hasher::new();
    loop {
        let count = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).during("read", source),
        };
        sum.update(&piece[..count]);
        staging.file().write_at(&piece[..count], data_at + len).during("write", staging.path())?;
        len += count as u64;
    }
    Ok(Content { method: STORED, crc: sum.finalize(), packed: len, size: len })
}

/// Removes what was packed, unless another file is under its name by now.
fn remove(source: &Path, packed: &fs::Metadata) -> Result<(), PackError> {
    match fs::symlink_metadata(source) {
        Ok(now) if (now.dev(), now.ino()) == (packed.dev(), packed.ino()) => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).during("remove", source),
    }
    match fs::remove_file(source) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).during("remove", source),
        _ => Ok(()),
    }
}
