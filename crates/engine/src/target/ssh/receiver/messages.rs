//! What is said between a keepwatch that sends and a `keepwatch receive`. Version 1 of the protocol.
//!
//! Either side begins with its greeting: 16 bytes and the newest version it speaks (`u32`). Then frames, as [`wire`] has them.
//! Requests are answered in any order, by their ids; what is staged in one frame is answered only when it is published.
//!
//! [`wire`]: super::super::wire

use std::io;

use super::super::address::FarDir;
use super::super::wire::{Garbled, In, Out};
use crate::model::{FileType, RelPath};
use crate::target::{Claim, Found, Meta, TargetError};

/// The newest version of the protocol.
pub(super) const VERSION: u32 = 1;
/// How the one that sends begins.
pub(super) const SENDER: &[u8; 16] = b"keepwatch sends\n";
/// How the one that receives begins.
pub(super) const RECEIVER: &[u8; 16] = b"keepwatch takes\n";

/// Files up to so many bytes travel in one frame.
pub(super) const SMALL_MAX: usize = 64 * 1024;
/// Bytes of a larger file that travel in one frame.
pub(super) const CHUNK: usize = 128 * 1024;
/// Frames of a listing, or of a file that is read, that may be under way.
pub(super) const AHEAD: usize = 4;
/// The shortest page of a listing but its last, in bytes.
pub(super) const PAGE: usize = 64 * 1024;
/// The most objects that are staged and not yet published.
pub(super) const STAGED_MAX: usize = 64 * 1024;

/// Requests.
pub(super) mod ask {
    /// A directory and a claim → `OPENED`.
    pub(crate) const OPEN: u8 = 1;
    /// The same → `PROBED`.
    pub(crate) const PROBE: u8 = 2;
    /// A path → `FOUND`.
    pub(crate) const LOOK: u8 = 3;
    /// Number, path, attributes, kind and all of the content. No answer.
    pub(crate) const PUT: u8 = 4;
    /// The same without content, which follows in `DATA` and `END` of this id → `DONE`.
    pub(crate) const STAGE: u8 = 5;
    /// Bytes.
    pub(crate) const DATA: u8 = 6;
    /// Whether it is whole.
    pub(crate) const END: u8 = 7;
    /// Number. No answer.
    pub(crate) const DISCARD: u8 = 8;
    /// Where to keep what is replaced, and numbers → `RESULTS`.
    pub(crate) const PUBLISH: u8 = 9;
    /// A path → `DONE`.
    pub(crate) const MAKE_DIR: u8 = 10;
    /// A path, a kind, attributes → `DONE`.
    pub(crate) const SET_META: u8 = 11;
    /// Two paths → `DONE`.
    pub(crate) const LINK: u8 = 12;
    /// Two paths → `DONE`.
    pub(crate) const RENAME: u8 = 13;
    /// A path → `WAS_THERE`.
    pub(crate) const REMOVE: u8 = 14;
    /// → `DONE`.
    pub(crate) const SYNC: u8 = 15;
    /// A path → `DONE`, then for each `MORE` of this id `BYTES`, empty at the end, until `ENOUGH`.
    pub(crate) const READ: u8 = 16;
    /// A path → for each `MORE` of this id a `PAGE`, then `DONE`, until `ENOUGH`.
    pub(crate) const LIST: u8 = 17;
    /// One more frame of a listing or a file.
    pub(crate) const MORE: u8 = 18;
    /// No more of them.
    pub(crate) const ENOUGH: u8 = 19;
    /// A directory, a claim that is not looked at, a path → as `LIST`, whosever target it is.
    pub(crate) const SURVEY: u8 = 20;
}

/// Answers.
pub(super) mod answer {
    /// It is done.
    pub(crate) const DONE: u8 = 101;
    /// It was not done: an error.
    pub(crate) const FAILED: u8 = 102;
    /// The id in the target's mark, then its nature.
    pub(crate) const OPENED: u8 = 103;
    /// The id in the target's mark, if there is one.
    pub(crate) const PROBED: u8 = 104;
    /// What stands at a path, if anything does.
    pub(crate) const FOUND: u8 = 105;
    /// For each object whether it is in place, or an error.
    pub(crate) const RESULTS: u8 = 106;
    /// Whether it was there.
    pub(crate) const WAS_THERE: u8 = 107;
    /// Bytes of a file.
    pub(crate) const BYTES: u8 = 108;
    /// Paths and what was found there.
    pub(crate) const PAGE: u8 = 109;
}

/// What content follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File { size: u64, is_sparse: bool },
    Symlink(Vec<u8>),
    Fifo,
    Device { is_block: bool, number: u64 },
}

pub(super) fn put_path(out: Out, path: &RelPath) -> Out {
    out.bytes(path.as_bytes())
}

/// A path that leads nowhere else, or it is garbled.
pub(super) fn path(input: &mut In<'_>) -> Result<RelPath, Garbled> {
    RelPath::new(input.bytes()?).map_err(|_| Garbled)
}

pub(super) fn put_place(out: Out, dir: &FarDir, claim: &Claim) -> Out {
    let out = match dir {
        FarDir::Absolute(path) => out.u8(0).bytes(path),
        FarDir::Home(path) => out.u8(1).bytes(path),
    };
    out.bytes(claim.owner.as_bytes())
        .bytes(claim.state.as_bytes())
        .bytes(claim.host.as_bytes())
        .optional(claim.identity.as_ref().map(String::as_bytes))
}

pub(super) fn place(input: &mut In<'_>) -> Result<(FarDir, Claim), Garbled> {
    let dir = match input.u8()? {
        0 => FarDir::Absolute(input.bytes()?.to_vec()),
        1 => FarDir::Home(input.bytes()?.to_vec()),
        _ => return Err(Garbled),
    };
    let (owner, state, host) = (input.text()?, input.text()?, input.text()?);
    let identity = input.optional()?.map(|identity| String::from_utf8_lossy(identity).into_owned());
    Ok((dir, Claim { owner, state, host, identity }))
}

pub(super) fn put_meta(out: Out, meta: &Meta) -> Out {
    let count = u32::try_from(meta.xattrs.len()).unwrap_or(u32::MAX);
    let out = out.u32(meta.mode).u32(meta.uid).u32(meta.gid).i64(meta.mtime_ns).u32(count);
    meta.xattrs.iter().fold(out, |out, (name, value)| out.bytes(name).bytes(value))
}

pub(super) fn meta(input: &mut In<'_>) -> Result<Meta, Garbled> {
    let mut meta = Meta {
        mode: input.u32()? & 0o7777,
        uid: input.u32()?,
        gid: input.u32()?,
        mtime_ns: input.i64()?,
        xattrs: Vec::new(),
    };
    for _ in 0..input.u32()? {
        meta.xattrs.push((input.bytes()?.to_vec(), input.bytes()?.to_vec()));
    }
    Ok(meta)
}

pub(super) fn put_kind(out: Out, kind: &Kind) -> Out {
    match kind {
        Kind::File { size, is_sparse } => out.u8(0).u64(*size).u8(u8::from(*is_sparse)),
        Kind::Symlink(to) => out.u8(1).bytes(to),
        Kind::Fifo => out.u8(2),
        Kind::Device { is_block, number } => out.u8(3).u8(u8::from(*is_block)).u64(*number),
    }
}

pub(super) fn kind(input: &mut In<'_>) -> Result<Kind, Garbled> {
    Ok(match input.u8()? {
        0 => Kind::File { size: input.u64()?, is_sparse: input.bool()? },
        1 => Kind::Symlink(input.bytes()?.to_vec()),
        2 => Kind::Fifo,
        3 => Kind::Device { is_block: input.bool()?, number: input.u64()? },
        _ => return Err(Garbled),
    })
}

const FILE_TYPES: [FileType; 7] = [
    FileType::File,
    FileType::Dir,
    FileType::Symlink,
    FileType::Fifo,
    FileType::Socket,
    FileType::Block,
    FileType::Char,
];

pub(super) fn put_file_type(out: Out, kind: FileType) -> Out {
    let number = FILE_TYPES.iter().position(|one| *one == kind).and_then(|at| u8::try_from(at).ok());
    out.u8(number.unwrap_or(0))
}

pub(super) fn file_type(input: &mut In<'_>) -> Result<FileType, Garbled> {
    FILE_TYPES.get(usize::from(input.u8()?)).copied().ok_or(Garbled)
}

pub(super) fn put_found(out: Out, found: &Found) -> Out {
    put_file_type(out, found.kind).u64(found.size).i64(found.mtime_ns).optional(found.target.as_deref())
}

pub(super) fn found(input: &mut In<'_>) -> Result<Found, Garbled> {
    Ok(Found {
        kind: file_type(input)?,
        size: input.u64()?,
        mtime_ns: input.i64()?,
        target: input.optional()?.map(<[u8]>::to_vec),
    })
}

/// What a target tries, as its errors say it.
const DOINGS: &[&str] = &[
    "use",
    "look at",
    "read",
    "write",
    "list",
    "link",
    "rename",
    "remove",
    "put in place",
    "keep",
    "make the directory",
    "make durable",
    "make the link",
    "make the pipe",
    "make the device",
    "open the directory of",
    "set the attributes of",
];

pub(super) fn put_error(out: Out, error: &TargetError) -> Out {
    match error {
        TargetError::Away { why, .. } => out.u8(0).bytes(why.as_bytes()),
        TargetError::Owned { host, mark, .. } => out.u8(1).bytes(host.as_bytes()).bytes(mark.as_bytes()),
        TargetError::Refused { path, why } => out.u8(2).bytes(path.as_bytes()).bytes(why.as_bytes()),
        TargetError::Unable { why, .. } => out.u8(2).bytes(b"").bytes(why.as_bytes()),
        TargetError::Full { path } => out.u8(3).bytes(path.as_bytes()),
        TargetError::Io { doing, path, source } => {
            let doing = DOINGS.iter().position(|one| one == doing).and_then(|at| u8::try_from(at).ok()).unwrap_or(0);
            put_io(out.u8(4).u8(doing).bytes(path.as_bytes()), source)
        }
        TargetError::Source { path, source } => put_io(out.u8(4).u8(0).bytes(path.as_bytes()), source),
    }
}

fn put_io(out: Out, error: &io::Error) -> Out {
    match error.raw_os_error().and_then(|number| u32::try_from(number).ok()) {
        Some(number) => out.u32(number),
        None => out.u32(0).bytes(error.to_string().as_bytes()),
    }
}

/// The far side's error, about the target that is called `place` here.
pub(super) fn error(input: &mut In<'_>, place: &str) -> Result<TargetError, Garbled> {
    let place = place.to_owned();
    Ok(match input.u8()? {
        0 => TargetError::Away { place, why: input.text()? },
        1 => TargetError::Owned { place, host: input.text()?, mark: input.text()? },
        2 => TargetError::Refused { path: input.text()?, why: input.text()? },
        3 => TargetError::Full { path: input.text()? },
        4 => {
            let doing = DOINGS.get(usize::from(input.u8()?)).copied().unwrap_or(DOINGS[0]);
            let path = input.text()?;
            let source = match input.u32()? {
                0 => io::Error::other(input.text()?),
                number => io::Error::from_raw_os_error(i32::try_from(number).map_err(|_| Garbled)?),
            };
            TargetError::Io { doing, path, source }
        }
        _ => return Err(Garbled),
    })
}
