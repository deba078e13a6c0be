//! A generation of an archive: which parts it has. A small text file that is written whole and then published by link(2)
//! under its number, so that of all who want to make generation N just one does.
//!
//! ```text
//! keepwatch-pack generation 1
//! archive dir/logs.zip
//! number 12
//! token 0193a0b0-…
//! next 3
//! part 0 9a3f…-5012345 over 77aa…-4012345
//! part 2 0123…-9876 over -
//! retired 1 4567…-321
//! end 1a2b3c4d
//! ```
//!
//! `next` is the number that the next new part gets. Numbers of parts that were merged into others are never used again,
//! so that whoever comes late to remove a retired part finds nothing. `over` is the part that was under the name before;
//! `-` where there was none. The last line is the CRC-32 of all before it.

use std::fmt::Write as _;
use std::str::FromStr as _;

use uuid::Uuid;

use crate::name::{ArchiveName, unescape};
use crate::part::PartId;

const FIRST_LINE: &str = "keepwatch-pack generation 1";

/// A generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) archive: ArchiveName,
    /// From 1.
    pub(crate) number: u64,
    /// Tells this one from others that were meant to have the same number.
    pub(crate) token: Uuid,
    /// The number of the next new part.
    pub(crate) next: u32,
    /// Ordered by number.
    pub(crate) parts: Vec<PartLine>,
    /// Parts of the generation before, whose members are in others now.
    pub(crate) retired: Vec<(u32, PartId)>,
}

/// A part of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartLine {
    pub(crate) number: u32,
    pub(crate) id: PartId,
    /// What it takes the place of.
    pub(crate) over: Option<PartId>,
}

impl Manifest {
    /// As text.
    pub(crate) fn encode(&self) -> String {
        let mut text = format!("{FIRST_LINE}\narchive {}\n", self.archive);
        let _ = write!(text, "number {}\ntoken {}\nnext {}\n", self.number, self.token, self.next);
        for PartLine { number, id, over } in &self.parts {
            let over = over.map_or_else(|| "-".to_owned(), |id| id.to_string());
            let _ = writeln!(text, "part {number} {id} over {over}");
        }
        for (number, id) in &self.retired {
            let _ = writeln!(text, "retired {number} {id}");
        }
        let sum = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "end {sum:08x}");
        text
    }

    /// Reads what [`Manifest::encode`] wrote; `None` for anything else.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (summed, sum) = text.strip_suffix('\n')?.rsplit_once("\nend ")?;
        if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(format!("{summed}\n").as_bytes()) {
            return None;
        }
        let mut lines = summed.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
        let mut manifest = Manifest {
            archive: ArchiveName::parse(&unescape(&field("archive")?)?).ok()?,
            number: field("number")?.parse().ok()?,
            token: Uuid::try_parse(&field("token")?).ok()?,
            next: field("next")?.parse().ok()?,
            parts: Vec::new(),
            retired: Vec::new(),
        };
        for line in lines {
            let mut words = line.split(' ');
            let (kind, number) = (words.next()?, words.next()?.parse().ok()?);
            let id = PartId::from_str(words.next()?).ok()?;
            match (kind, words.next(), words.next()) {
                ("part", Some("over"), Some(over)) => {
                    let over = if over == "-" { None } else { Some(PartId::from_str(over).ok()?) };
                    manifest.parts.push(PartLine { number, id, over });
                }
                ("retired", None, None) => manifest.retired.push((number, id)),
                _ => return None,
            }
        }
        Some(manifest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_as_text_and_no_flipped_bit_does() {
        let id = |size| PartId { size, tail: 0xAB << size };
        let manifest = Manifest {
            archive: ArchiveName::parse(b"d \xff/ar.zip").unwrap(),
            number: 12,
            token: Uuid::now_v7(),
            next: 4,
            parts: vec![
                PartLine { number: 0, id: id(7), over: Some(id(6)) },
                PartLine { number: 3, id: id(9), over: None },
            ],
            retired: vec![(1, id(3))],
        };
        let text = manifest.encode();
        assert_eq!(Manifest::parse(text.as_bytes()), Some(manifest));
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Lower and upper case of the sum are one.
            let is_case = bit % 8 == 5 && bit / 8 > text.len() - 10;
            assert!(is_case || Manifest::parse(&flipped).is_none(), "bit {bit}");
        }
    }
}
