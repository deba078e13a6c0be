//! SFTP, version 3, as far as it is needed: <https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02>, with the
//! extensions of OpenSSH (its `PROTOCOL` file). Names are bytes.

use super::super::wire::{Frame, Garbled, In, Out};
use crate::model::FileType;
use crate::target::Found;

/// The version that is spoken.
pub(super) const VERSION: u32 = 3;

/// Kinds of frames.
pub(super) mod kind {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const SYMLINK: u8 = 20;
    pub(crate) const STATUS: u8 = 101;
    pub(crate) const HANDLE: u8 = 102;
    pub(crate) const DATA: u8 = 103;
    pub(crate) const NAME: u8 = 104;
    pub(crate) const ATTRS: u8 = 105;
    pub(crate) const EXTENDED: u8 = 200;
    pub(crate) const EXTENDED_REPLY: u8 = 201;
}

/// How a file is opened.
pub(super) mod open {
    pub(crate) const READ: u32 = 0x01;
    pub(crate) const WRITE: u32 = 0x02;
    pub(crate) const CREATE: u32 = 0x08;
    pub(crate) const EXCLUSIVE: u32 = 0x20;
}

/// Codes of a status.
pub(super) mod code {
    pub(crate) const OK: u32 = 0;
    pub(crate) const EOF: u32 = 1;
    pub(crate) const NO_SUCH_FILE: u32 = 2;
    pub(crate) const PERMISSION_DENIED: u32 = 3;
    pub(crate) const FAILURE: u32 = 4;
    pub(crate) const BAD_MESSAGE: u32 = 5;
    pub(crate) const UNSUPPORTED: u32 = 8;
}

/// OpenSSH's extensions.
pub(super) const POSIX_RENAME: &str = "posix-rename@openssh.com";
pub(super) const STATVFS: &str = "statvfs@openssh.com";
pub(super) const HARDLINK: &str = "hardlink@openssh.com";
pub(super) const FSYNC: &str = "fsync@openssh.com";
pub(super) const LSETSTAT: &str = "lsetstat@openssh.com";
pub(super) const LIMITS: &str = "limits@openssh.com";

const HAS_SIZE: u32 = 0x01;
const HAS_OWNER: u32 = 0x02;
const HAS_MODE: u32 = 0x04;
const HAS_TIMES: u32 = 0x08;
const HAS_MORE: u32 = 0x8000_0000;

/// Attributes; what is `None` is not told, or not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attrs {
    pub(super) size: Option<u64>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// Seconds since 1970 UTC.
    pub(super) mtime: Option<u32>,
}

impl Attrs {
    pub(super) fn put(self, out: Out) -> Out {
        let bit = |is_there: bool, bit: u32| if is_there { bit } else { 0 };
        let flags = bit(self.size.is_some(), HAS_SIZE)
            | bit(self.owner.is_some(), HAS_OWNER)
            | bit(self.mode.is_some(), HAS_MODE)
            | bit(self.mtime.is_some(), HAS_TIMES);
        let mut out = out.u32(flags);
        if let Some(size) = self.size {
            out = out.u64(size);
        }
        if let Some((uid, gid)) = self.owner {
            out = out.u32(uid).u32(gid);
        }
        if let Some(mode) = self.mode {
            out = out.u32(mode);
        }
        if let Some(mtime) = self.mtime {
            // The time of the last access cannot be left out.
            out = out.u32(mtime).u32(mtime);
        }
        out
    }

    fn read(input: &mut In<'_>) -> Result<Self, Garbled> {
        let flags = input.u32()?;
        let mut attrs = Attrs::default();
        if flags & HAS_SIZE != 0 {
            attrs.size = Some(input.u64()?);
        }
        if flags & HAS_OWNER != 0 {
            attrs.owner = Some((input.u32()?, input.u32()?));
        }
        if flags & HAS_MODE != 0 {
            attrs.mode = Some(input.u32()?);
        }
        if flags & HAS_TIMES != 0 {
            input.u32()?;
            attrs.mtime = Some(input.u32()?);
        }
        if flags & HAS_MORE != 0 {
            for _ in 0..input.u32()? {
                input.bytes()?;
                input.bytes()?;
            }
        }
        Ok(attrs)
    }

    /// What kind of object has them; `None` if that is not told.
    pub(super) fn kind(&self) -> Option<FileType> {
        Some(match self.mode? & 0o170_000 {
            0o040_000 => FileType::Dir,
            0o120_000 => FileType::Symlink,
            0o010_000 => FileType::Fifo,
            0o140_000 => FileType::Socket,
            0o060_000 => FileType::Block,
            0o020_000 => FileType::Char,
            _ => FileType::File,
        })
    }

    /// What stands there, but for where a link points.
    pub(super) fn found(&self) -> Found {
        let kind = self.kind().unwrap_or(FileType::File);
        let size = if kind == FileType::Dir { 0 } else { self.size.unwrap_or(0) };
        Found { kind, size, mtime_ns: i64::from(self.mtime.unwrap_or(0)) * 1_000_000_000, target: None }
    }
}

/// A status that is not `OK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: u32,
    pub(super) text: String,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Done,
    Fault(Fault),
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<(Vec<u8>, Attrs)>),
    Attrs(Attrs),
    Extended(Vec<u8>),
}

impl Reply {
    pub(super) fn read(frame: Frame) -> Result<Self, Garbled> {
        let mut input = In(&frame.payload);
        Ok(match frame.kind {
            kind::STATUS => match input.u32()? {
                code::OK => Reply::Done,
                // Servers of older versions send no text.
                code => Reply::Fault(Fault { code, text: input.text().unwrap_or_default() }),
            },
            kind::HANDLE => Reply::Handle(input.bytes()?.to_vec()),
            kind::DATA => Reply::Data(input.bytes()?.to_vec()),
            kind::NAME => {
                let count = input.u32()?;
                let name = |input: &mut In<'_>| {
                    let name = input.bytes()?.to_vec();
                    input.bytes()?;
                    Ok((name, Attrs::read(input)?))
                };
                Reply::Names((0..count).map(|_| name(&mut input)).collect::<Result<_, Garbled>>()?)
            }
            kind::ATTRS => Reply::Attrs(Attrs::read(&mut input)?),
            kind::EXTENDED_REPLY => Reply::Extended(frame.payload),
            _ => return Err(Garbled),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn attributes_come_back_as_they_went() {
        let all = Attrs { size: Some(7), owner: Some((1, 2)), mode: Some(0o100_644), mtime: Some(3) };
        for attrs in [all, Attrs { owner: None, ..all }, Attrs { mtime: None, ..all }, Attrs::default()] {
            let payload = attrs.put(Out::default()).0;
            assert_eq!(Reply::read(Frame { kind: kind::ATTRS, id: 1, payload }).unwrap(), Reply::Attrs(attrs));
        }
        assert_eq!(all.found(), Found { kind: FileType::File, size: 7, mtime_ns: 3_000_000_000, target: None });
        assert_eq!(Attrs { mode: Some(0o040_755), ..all }.found().kind, FileType::Dir);
    }

    #[test]
    fn names_are_bytes_and_lies_about_lengths_are_noticed() {
        let one = Out::default().u32(1).bytes(b"\xff\n").bytes(b"-rw long name").0;
        let payload = Attrs::default().put(Out(one.clone())).0;
        let names = Reply::read(Frame { kind: kind::NAME, id: 1, payload }).unwrap();
        assert_eq!(names, Reply::Names(vec![(b"\xff\n".to_vec(), Attrs::default())]));
        assert!(Reply::read(Frame { kind: kind::NAME, id: 1, payload: one }).is_err());
        assert!(Reply::read(Frame { kind: kind::NAME, id: 1, payload: vec![255; 4] }).is_err());
        assert!(Reply::read(Frame { kind: kind::STATUS, id: 1, payload: vec![] }).is_err());
        let bare = Reply::read(Frame { kind: kind::STATUS, id: 1, payload: vec![0, 0, 0, 4] }).unwrap();
        assert_eq!(bare, Reply::Fault(Fault { code: code::FAILURE, text: String::new() }));
    }
}
