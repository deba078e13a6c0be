//! Numbers and bytes in a frame. SFTP and our own protocol write them alike: big-endian, strings behind their length.
//!
//! A frame is the length of what follows (`u32`), its kind (`u8`), the id of the request it is or answers (`u32`), and a
//! payload.

use std::io::{self, Read};

/// Bytes of a frame's head: length, kind and id.
pub(super) const HEAD: usize = 9;
/// No frame is longer, whoever sends it.
pub(super) const FRAME_MAX: usize = 4 * 1024 * 1024;

/// A frame that came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) id: u32,
    pub(super) payload: Vec<u8>,
}

/// A frame is not what its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came over the connection is garbled")]
pub(super) struct Garbled;

impl From<Garbled> for io::Error {
    fn from(garbled: Garbled) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, garbled)
    }
}

/// The head of a frame with a payload of so many bytes.
pub(super) fn head(kind: u8, id: u32, payload: usize) -> io::Result<[u8; HEAD]> {
    let length = u32::try_from(payload + HEAD - 4).ok().filter(|_| payload <= FRAME_MAX);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a frame would be too long"))?;
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = kind;
    head[5..].copy_from_slice(&id.to_be_bytes());
    Ok(head)
}

/// The next frame; `None` where the connection was closed between two.
pub(super) fn read_frame(input: &mut dyn Read) -> io::Result<Option<Frame>> {
    let mut first = [0; 4];
    let mut filled = 0;
    while filled < first.len() {
        match input.read(&mut first[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_be_bytes(first) as usize;
    let payload = length.checked_sub(HEAD - 4).filter(|payload| *payload <= FRAME_MAX).ok_or(Garbled)?;
    let mut rest = [0; HEAD - 4];
    input.read_exact(&mut rest)?;
    let mut frame = Frame {
        kind: rest[0],
        id: u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]),
        payload: vec![0; payload],
    };
    input.read_exact(&mut frame.payload)?;
    Ok(Some(frame))
}

/// A payload that is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn i64(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Bytes behind their length. What is too long for a frame is refused when the frame is sent.
    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn optional(self, value: Option<&[u8]>) -> Self {
        match value {
            Some(value) => self.u8(1).bytes(value),
            None => self.u8(0),
        }
    }

    pub(super) fn length(&self) -> usize {
        self.0.len()
    }
}

/// A payload that is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct In<'a>(pub(super) &'a [u8]);

impl<'a> In<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        self.take(N)?.try_into().map_err(|_| Garbled)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Garbled> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, Garbled> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Garbled> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, Garbled> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(super) fn bool(&mut self) -> Result<bool, Garbled> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbled),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(super) fn optional(&mut self) -> Result<Option<&'a [u8]>, Garbled> {
        if self.bool()? { self.bytes().map(Some) } else { Ok(None) }
    }

    pub(super) fn text(&mut self) -> Result<String, Garbled> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let payload = Out::default().u8(7).u64(u64::MAX).i64(-1).bytes(b"\xff\n").optional(None).optional(Some(b""));
        let mut sent = head(3, 9, payload.length()).unwrap().to_vec();
        sent.extend_from_slice(&payload.0);
        let mut input = &sent[..];
        let frame = read_frame(&mut input).unwrap().unwrap();
        assert_eq!((frame.kind, frame.id), (3, 9));
        assert_eq!(read_frame(&mut input).unwrap(), None);
        let mut read = In(&frame.payload);
        assert_eq!((read.u8(), read.u64(), read.i64()), (Ok(7), Ok(u64::MAX), Ok(-1)));
        assert_eq!(read.bytes(), Ok(&b"\xff\n"[..]));
        assert_eq!((read.optional(), read.optional()), (Ok(None), Ok(Some(&b""[..]))));
        assert!(read.is_empty());
    }

    #[test]
    fn lengths_are_not_believed() {
        assert!(read_frame(&mut &[255, 255, 255, 255, 1, 0, 0, 0, 0][..]).is_err(), "more than any frame has");
        assert!(read_frame(&mut &[0, 0, 0, 4, 1, 0, 0, 0, 0][..]).is_err(), "less than a head");
        assert!(read_frame(&mut &[0, 0, 0, 9, 1, 0, 0][..]).is_err(), "torn");
        assert_eq!(In(&[0, 0, 0, 9, 1]).bytes(), Err(Garbled));
        assert_eq!(In(&[2]).bool(), Err(Garbled));
        assert!(head(1, 1, FRAME_MAX + 1).is_err());
    }
}
