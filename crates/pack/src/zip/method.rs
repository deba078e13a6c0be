//! The content of a member: as it is, or inflated, in pieces of bounded size.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use super::local::Content;
use super::{DEFLATED, STORED};

/// Piece of inflated content that is in memory at a time, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Turns the packed bytes of a member into its content, and holds it against what the header says.
pub(crate) struct Unpacker {
    content: Content,
    packed: u64,
    size: u64,
    crc: crc32fast::Hasher,
    inflater: Option<Box<Inflater>>,
}

/// What became of bytes that were fed, where reading and handing on went well.
type Fed = Result<(), Mismatch>;

struct Inflater {
    state: Decompress,
    piece: Vec<u8>,
    is_ended: bool,
}

/// Why content is not what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("compressed by a method that is neither stored nor deflated")]
    Method,
    #[error("the compressed data is damaged")]
    Stream,
    #[error("the length is not the one in the header")]
    Length,
    #[error("the CRC is not the one in the header")]
    Crc,
}

impl Unpacker {
    /// For a member with this header.
    pub(crate) fn new(content: Content) -> Result<Self, Mismatch> {
        let inflater = match content.method {
            STORED => None,
            DEFLATED => {
                Some(Box::new(Inflater { state: Decompress::new(false), piece: vec![0; PIECE_BYTES], is_ended: false }))
            }
            _ => return Err(Mismatch::Method),
        };
        Ok(Unpacker { content, packed: 0, size: 0, crc: crc32fast::Hasher::new(), inflater })
    }

    /// Takes the next packed bytes; `out` gets the content. What is longer than the header says ends it, so that a small
    /// file cannot become a large one.
    pub(crate) fn feed(&mut self, bytes: &[u8], out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Fed> {
        self.packed += bytes.len() as u64;
        let (size, crc, limit) = (&mut self.size, &mut self.crc, self.content.size);
        let mut take = |piece: &[u8]| -> io::Result<Fed> {
            *size += piece.len() as u64;
            if *size > limit {
                return Ok(Err(Mismatch::Length));
            }
            crc.update(piece);
            out(piece).map(Ok)
        };
        match &mut self.inflater {
            None => take(bytes),
            Some(inflater) => inflater.feed(bytes, &mut take),
        }
    }

    /// Holds all that was fed against the header.
    pub(crate) fn finish(self) -> Result<(), Mismatch> {
        if self.inflater.as_ref().is_some_and(|inflater| !inflater.is_ended) {
            return Err(Mismatch::Stream);
        }
        if self.size != self.content.size || self.packed != self.content.packed {
            return Err(Mismatch::Length);
        }
        if self.crc.finalize() == self.content.crc { Ok(()) } else { Err(Mismatch::Crc) }
    }
}

impl Inflater {
    fn feed(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(&[u8]) -> io::Result<Fed>) -> io::Result<Fed> {
        loop {
            if self.is_ended {
                return Ok(if bytes.is_empty() { Ok(()) } else { Err(Mismatch::Stream) });
            }
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let Ok(status) = self.state.decompress(bytes, &mut self.piece, FlushDecompress::None) else {
                return Ok(Err(Mismatch::Stream));
            };
            let consumed = usize::try_from(self.state.total_in() - before_in).unwrap_or(bytes.len());
            let produced = usize::try_from(self.state.total_out() - before_out).unwrap_or(0);
            bytes = &bytes[consumed..];
            if produced > 0
                && let Err(mismatch) = take(&self.piece[..produced])?
            {
                return Ok(Err(mismatch));
            }
            self.is_ended = status == Status::StreamEnd;
            if !self.is_ended && consumed == 0 && produced == 0 {
                return Ok(if bytes.is_empty() { Ok(()) } else { Err(Mismatch::Stream) });
            }
        }
    }
}
