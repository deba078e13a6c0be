//! What a staging file holds: its complete members, each with its content held against its sum, and what is damaged.
//!
//! It is read from front to back by the headers before the data. The list of members at its end is not needed, so a file
//! whose writer died tells as much as one that was closed.

use std::io;

use crate::files::File;
use crate::name::MemberName;
use crate::zip::central;
use crate::zip::local::{self, Attributes, Content, Flaw, Local, Staged};
use crate::zip::method::Unpacker;
use crate::zip::u32_at;
use crate::zip::window::{WINDOW_BYTES, Window};

/// The longest header.
const HEADER_BYTES_MAX: usize = local::FIXED_LEN + 2 * 65_535;
/// Most headers are not longer.
const HEADER_BYTES_USUAL: usize = 1024;
/// The record at the end of a list of members, with the longest comment.
const LIST_END_BYTES_MAX: u64 = 22 + 65_535;
/// Of so many damages of one file the reasons are kept.
const DAMAGES_MAX: usize = 100;

/// A complete member of a staging file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StagedMember {
    pub(crate) name: MemberName,
    pub(crate) content: Content,
    pub(crate) attributes: Attributes,
    /// Where its packed data begins.
    pub(crate) data_at: u64,
}

/// A piece of a staging file that is no complete member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) reason: String,
}

/// What a staging file holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) members: Vec<StagedMember>,
    pub(crate) damages: Vec<Damage>,
    /// Whether the list of members stands behind them: the file was closed.
    pub(crate) is_complete: bool,
}

/// How content is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// All of it is read and held against its sum.
    Contents,
    /// Only headers are read.
    Headers,
}

/// Scans a staging file, whose headers carry this salt.
pub(crate) fn scan(file: &dyn File, salt: Option<u64>, look: Look) -> io::Result<Scan> {
    let size = file.facts()?.size;
    let mut scanner = Scanner { window: Window::new(file, size), size, salt, look, scan: Scan::default() };
    let mut at = 0;
    while at < size {
        at = scanner.step(at)?;
    }
    Ok(scanner.scan)
}

struct Scanner<'a> {
    window: Window<'a>,
    size: u64,
    salt: Option<u64>,
    look: Look,
    scan: Scan,
}

impl Scanner<'_> {
    /// Takes what stands at a place; where to go on.
    fn step(&mut self, at: u64) -> io::Result<u64> {
        if self.is_end(at)? {
            self.scan.is_complete = true;
            return Ok(self.size);
        }
        match self.member_at(at)? {
            Ok((member, next)) => {
                self.scan.members.push(member);
                Ok(next)
            }
            Err(Refused { reason, next }) => {
                let next = match next {
                    Some(next) => next,
                    None => self.next_header(at + 1)?,
                };
                self.damage(at, next, reason);
                Ok(next)
            }
        }
    }

    /// Whether the list of members begins here. It is not believed by its first four bytes alone: its first entry is the
    /// first member, if that was not damaged.
    fn is_end(&mut self, at: u64) -> io::Result<bool> {
        let left = self.size - at;
        if u32_at(self.window.at(at, 4)?, 0) == Some(local::SIGNATURE) {
            return Ok(false);
        }
        let bytes = self.window.at(at, central::ENTRY_BYTES_MAX)?;
        let has_members = !self.scan.members.is_empty() || !self.scan.damages.is_empty();
        Ok(match u32_at(bytes, 0) {
            Some(central::END_SIGNATURE) => !has_members && left <= LIST_END_BYTES_MAX,
            Some(central::SIGNATURE) if has_members => match central::parse(bytes) {
                Some((entry, _)) => entry.offset == 0 || !self.scan.damages.is_empty(),
                // Torn off within the list: all members are before it.
                None => left < central::ENTRY_BYTES_MAX as u64,
            },
            _ => false,
        })
    }

    fn member_at(&mut self, at: u64) -> io::Result<Result<(StagedMember, u64), Refused>> {
        let refuse = |reason: String, next| Ok(Err(Refused { reason, next }));
        let usual = local::parse(self.window.at(at, HEADER_BYTES_USUAL)?);
        let parsed = match usual {
            Err(Flaw::Short) => local::parse(self.window.at(at, HEADER_BYTES_MAX)?),
            // Once more, for the borrow of the first look ends here.
            _ => local::parse(self.window.at(at, HEADER_BYTES_USUAL)?),
        };
        let header = match parsed {
            Ok(header) => header,
            Err(Flaw::Short) => return refuse("the file ends within a header".to_owned(), Some(self.size)),
            Err(Flaw::Signature) => return refuse("these bytes are no member".to_owned(), None),
            Err(Flaw::Zip64) => return refuse("a header lacks its size".to_owned(), None),
        };
        let is_sound = match header.staged {
            Staged::Sound(salt) => self.salt.is_none_or(|own| own == salt),
            Staged::Damaged => false,
            Staged::Absent => true,
        };
        if !is_sound {
            return refuse("a header is damaged".to_owned(), None);
        }
        let data_at = at + header.len as u64;
        let next = data_at.checked_add(header.content.packed);
        let Some(next) = next.filter(|next| *next <= self.size) else {
            let reason = format!("the file ends within `{}`", crate::name::escape(header.name));
            // Sizes that the packer did not sign may be anything.
            let rest = matches!(header.staged, Staged::Sound(_)).then_some(self.size);
            return refuse(reason, rest);
        };
        let member = match member_of(&header, data_at) {
            Ok(member) => member,
            Err(reason) => return refuse(reason, Some(next)),
        };
        // What follows a damaged member is found where its header says, if that header is signed.
        let resume = matches!(header.staged, Staged::Sound(_)).then_some(next);
        match self.mismatch(&member)? {
            None => Ok(Ok((member, next))),
            Some(what) => refuse(format!("`{}`: {what}", member.name), resume),
        }
    }

    /// What is wrong with a member's content.
    fn mismatch(&mut self, member: &StagedMember) -> io::Result<Option<String>> {
        let mut unpacker = match Unpacker::new(member.content) {
            Ok(unpacker) => unpacker,
            Err(mismatch) => return Ok(Some(mismatch.to_string())),
        };
        if self.look == Look::Headers {
            return Ok(None);
        }
        let (mut at, end) = (member.data_at, member.data_at + member.content.packed);
        while at < end {
            let piece = self.window.some_at(at, end - at)?;
            if piece.is_empty() {
                return Ok(Some("it became shorter while it was read".to_owned()));
            }
            at += piece.len() as u64;
            if let Err(mismatch) = unpacker.feed(piece, &mut |_| Ok(()))? {
                return Ok(Some(mismatch.to_string()));
            }
        }
        Ok(unpacker.finish().err().map(|mismatch| mismatch.to_string()))
    }

    /// The next place at which a header stands that the packer signed for this file, or its list of members; else the
    /// end. A header without that could be one within a member.
    fn next_header(&mut self, from: u64) -> io::Result<u64> {
        let mut at = from;
        while at < self.size {
            let bytes = self.window.at(at, WINDOW_BYTES)?;
            let len = bytes.len();
            let found = bytes.windows(4).position(|four| four == local::SIGNATURE.to_le_bytes());
            let Some(found) = found.map(|found| at + found as u64) else {
                at += (len.saturating_sub(3)).max(1) as u64;
                if len < 4 {
                    return Ok(self.size);
                }
                continue;
            };
            let own = self.salt;
            let header = local::parse(self.window.at(found, HEADER_BYTES_MAX)?);
            if matches!(header.map(|header| header.staged), Ok(Staged::Sound(salt)) if own.is_none_or(|own| own == salt))
            {
                return Ok(found);
            }
            at = found + 1;
        }
        Ok(self.size)
    }

    fn damage(&mut self, from: u64, to: u64, reason: String) {
        let count = self.scan.damages.len();
        match self.scan.damages.last_mut() {
            // One damage after the other is one, and a file of damages alone costs no memory.
            Some(last) if last.to == from || count >= DAMAGES_MAX => last.to = to,
            _ => self.scan.damages.push(Damage { from, to, reason }),
        }
    }
}

/// Why no member could be taken at a place, and where to go on, if that is known.
struct Refused {
    reason: String,
    next: Option<u64>,
}

fn member_of(header: &Local<'_>, data_at: u64) -> Result<StagedMember, String> {
    if !header.is_readable() {
        return Err(format!("`{}` is encrypted or packed in another way", crate::name::escape(header.name)));
    }
    let name =
        MemberName::parse(header.name).map_err(|error| format!("`{}`: {error}", crate::name::escape(header.name)))?;
    Ok(StagedMember { name, content: header.content, attributes: header.attributes, data_at })
}
