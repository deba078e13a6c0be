//! Reading a file of the far side, some chunks ahead.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::super::line::Answers;
use super::super::wire::Out;
use super::Place;
use super::protocol::{Attrs, Fault, Reply, code, kind, open};
use crate::model::RelPath;
use crate::target::Result;

/// Chunks that are asked for and not yet read.
const AHEAD: usize = 8;
/// Bytes of one.
const CHUNK: usize = 64 * 1024;

/// An open file.
pub(super) struct Reading {
    place: Place,
    handle: Vec<u8>,
    /// Each with where it begins and how long it is.
    asked: VecDeque<(Answers, u64, usize)>,
    next: u64,
    chunk: Vec<u8>,
    at: usize,
    is_at_end: bool,
}

impl Reading {
    pub(super) fn open(place: &Place, path: &RelPath) -> Result<Self> {
        let request = Attrs::default().put(place.named(path).u32(open::READ));
        let asked = place.server.ask(kind::OPEN, &request)?;
        let handle = place.server.handle(&asked)?.map_err(|fault| place.error("read", path, fault))?;
        Ok(Reading {
            place: place.clone(),
            handle,
            asked: VecDeque::new(),
            next: 0,
            chunk: Vec::new(),
            at: 0,
            is_at_end: false,
        })
    }

    fn fill(&mut self) -> io::Result<()> {
        let server = &self.place.server;
        let length = CHUNK.min(server.chunk);
        while self.asked.len() < AHEAD {
            let request = Out::default().bytes(&self.handle).u64(self.next);
            let asked = server.ask(kind::READ, &request.u32(u32::try_from(length).unwrap_or(u32::MAX)));
            self.asked.push_back((asked.map_err(io::Error::other)?, self.next, length));
            self.next += length as u64;
        }
        let Some((answers, from, length)) = self.asked.pop_front() else { return Ok(()) };
        match server.wait(&answers).map_err(io::Error::other)? {
            Reply::Data(data) if data.len() <= length => {
                // Less than was asked for may come; the rest is asked for again.
                if data.len() < length {
                    self.asked.clear();
                    self.next = from + data.len() as u64;
                }
                self.chunk = data;
                self.at = 0;
            }
            Reply::Fault(Fault { code: code::EOF, .. }) => self.is_at_end = true,
            Reply::Fault(fault) => return Err(io::Error::other(fault.text)),
            _ => return Err(io::Error::other(server.garbled())),
        }
        Ok(())
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() && !self.is_at_end {
            self.fill()?;
        }
        let read = (&self.chunk[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.place.server.close(&self.handle);
    }
}
