//! A target whose far side is a `keepwatch receive`. What is staged is sent and not waited for: one answer for a whole batch
//! comes when it is published.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::address::FarDir;
use super::super::line::{Answers, Line};
use super::super::wire::{Frame, Garbled, In, Out};
use super::messages::{self as said, AHEAD, CHUNK, Kind, SMALL_MAX, answer, ask};
use crate::model::{FileType, Proof, RelPath};
use crate::target::{Claim, Content, Found, Meta, Nature, Result, Session, Staged, TargetError, shown};

/// A connection to a `keepwatch receive`.
pub(in crate::target::ssh) struct Remote {
    line: Line,
    next: AtomicU64,
}

/// A target behind it, at work.
pub(in crate::target::ssh) struct RemoteSession(Arc<Remote>);

impl Remote {
    /// Over a line behind the greeting.
    pub(super) fn new(line: Line) -> Self {
        Remote { line, next: AtomicU64::new(1) }
    }

    pub(in crate::target::ssh) fn is_lost(&self) -> bool {
        self.line.is_lost()
    }

    /// As [`crate::target::Target::open`].
    pub(in crate::target::ssh) fn open(
        self: &Arc<Self>,
        dir: &FarDir,
        claim: &Claim,
    ) -> Result<(Box<dyn Session>, String, Nature)> {
        let payload = self.call(ask::OPEN, &said::put_place(Out::default(), dir, claim), answer::OPENED)?;
        let (identity, nature) = self.read(&payload, |input| Ok((input.text()?, nature(input)?)))?;
        Ok((Box::new(RemoteSession::over(self)), identity, nature))
    }

    /// As [`crate::target::Target::probe`].
    pub(in crate::target::ssh) fn probe(&self, dir: &FarDir, claim: &Claim) -> Result<Option<String>> {
        let payload = self.call(ask::PROBE, &said::put_place(Out::default(), dir, claim), answer::PROBED)?;
        self.read(&payload, |input| {
            Ok(input.optional()?.map(|identity| String::from_utf8_lossy(identity).into_owned()))
        })
    }

    /// As [`crate::target::Target::survey`].
    pub(in crate::target::ssh) fn survey(
        &self,
        dir: &FarDir,
        below: &RelPath,
        each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>,
    ) -> Result<()> {
        let place = said::put_place(Out::default(), dir, &Claim::default());
        self.list(ask::SURVEY, &said::put_path(place, below), each)
    }

    /// A listing, some pages ahead.
    fn list(&self, kind: u8, payload: &Out, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        let line = &self.line;
        let answers = line.ask(kind, payload, AHEAD + 1)?;
        for _ in 0..AHEAD {
            line.send(ask::MORE, answers.id(), &[], &[])?;
        }
        loop {
            let frame = line.wait(&answers)?;
            if frame.kind == answer::DONE {
                return Ok(());
            }
            let page = self.expected(frame, answer::PAGE)?;
            let mut input = In(&page);
            while !input.is_empty() {
                let entry = said::path(&mut input).and_then(|path| Ok((path, said::found(&mut input)?)));
                let (path, found) = entry.map_err(|Garbled| line.garbled())?;
                if each(&path, found).is_break() {
                    return line.send(ask::ENOUGH, answers.id(), &[], &[]);
                }
            }
            line.send(ask::MORE, answers.id(), &[], &[])?;
        }
    }

    /// Asks, waits, and returns the payload of an answer of this kind.
    fn call(&self, kind: u8, payload: &Out, expected: u8) -> Result<Vec<u8>> {
        let answers = self.line.ask(kind, payload, 1)?;
        self.answered(&answers, expected)
    }

    fn answered(&self, answers: &Answers, expected: u8) -> Result<Vec<u8>> {
        self.expected(self.line.wait(answers)?, expected)
    }

    fn expected(&self, frame: Frame, expected: u8) -> Result<Vec<u8>> {
        match frame.kind {
            kind if kind == expected => Ok(frame.payload),
            answer::FAILED => Err(self.read(&frame.payload, |input| said::error(input, self.line.place()))?),
            _ => Err(self.line.garbled()),
        }
    }

    fn read<T>(&self, payload: &[u8], read: impl FnOnce(&mut In<'_>) -> Result<T, Garbled>) -> Result<T> {
        let mut input = In(payload);
        match read(&mut input) {
            Ok(value) if input.is_empty() => Ok(value),
            _ => Err(self.line.garbled()),
        }
    }

    fn done(&self, kind: u8, payload: &Out) -> Result<()> {
        self.call(kind, payload, answer::DONE).map(drop)
    }

    /// A large file, in chunks, the first of which was read already.
    fn stream(&self, path: &RelPath, head: &Out, mut chunk: Vec<u8>, bytes: &mut dyn Read) -> Result<()> {
        let answers = self.line.ask(ask::STAGE, head, 1)?;
        loop {
            // What the far side cannot take, it does not get.
            if let Some(frame) = answers.ready() {
                self.line.send(ask::END, answers.id(), &[0], &[])?;
                return match self.expected(frame, answer::DONE) {
                    Ok(_) => Err(self.line.garbled()),
                    Err(error) => Err(error),
                };
            }
            if chunk.is_empty() {
                return self.line.send(ask::END, answers.id(), &[1], &[]);
            }
            self.line.send(ask::DATA, answers.id(), &[], &chunk)?;
            chunk.clear();
            if let Err(source) = bytes.take(CHUNK as u64).read_to_end(&mut chunk) {
                self.line.send(ask::END, answers.id(), &[0], &[])?;
                return Err(TargetError::Source { path: shown(path), source });
            }
        }
    }
}

impl RemoteSession {
    pub(super) fn over(remote: &Arc<Remote>) -> Self {
        RemoteSession(Arc::clone(remote))
    }
}

fn nature(input: &mut In<'_>) -> Result<Nature, Garbled> {
    let length = |number: u64| usize::try_from(number).map_err(|_| Garbled);
    Ok(Nature {
        mtime_step_ns: input.i64()?,
        name_max: length(input.u64()?)?,
        is_filesystem: input.bool()?,
        batch_max: length(input.u64()?)?,
        proof: Proof::Written,
    })
}

impl Session for RemoteSession {
    fn list(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        self.0.list(ask::LIST, &said::put_path(Out::default(), below), each)
    }

    fn look(&self, path: &RelPath) -> Result<Option<Found>> {
        let payload = self.0.call(ask::LOOK, &said::put_path(Out::default(), path), answer::FOUND)?;
        self.0.read(&payload, |input| if input.bool()? { said::found(input).map(Some) } else { Ok(None) })
    }

    fn read(&self, path: &RelPath) -> Result<Box<dyn Read + Send>> {
        let remote = Arc::clone(&self.0);
        let answers = remote.line.ask(ask::READ, &said::put_path(Out::default(), path), AHEAD + 1)?;
        remote.answered(&answers, answer::DONE)?;
        for _ in 0..AHEAD {
            remote.line.send(ask::MORE, answers.id(), &[], &[])?;
        }
        Ok(Box::new(Reading { remote, answers, chunk: Vec::new(), at: 0, is_at_end: false }))
    }

    fn stage(&self, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<Staged> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let head = |kind: &Kind| {
            let out = said::put_path(Out::default().u64(number), path);
            said::put_kind(said::put_meta(out, meta), kind)
        };
        let put = |kind: &Kind, bytes: &[u8]| self.0.line.send(ask::PUT, 0, &head(kind).0, bytes);
        let sent = match content {
            Content::Symlink(to) => put(&Kind::Symlink(to.to_vec()), &[]),
            Content::Fifo => put(&Kind::Fifo, &[]),
            Content::Device { is_block, number } => put(&Kind::Device { is_block, number }, &[]),
            Content::File { bytes, size, is_sparse } => {
                let kind = Kind::File { size, is_sparse };
                let first_max = if size <= SMALL_MAX as u64 { SMALL_MAX + 1 } else { CHUNK };
                let expected = usize::try_from(size).unwrap_or(first_max).saturating_add(1).min(first_max);
                let mut first = Vec::with_capacity(expected);
                let read = bytes.take(first_max as u64).read_to_end(&mut first);
                read.map_err(|source| TargetError::Source { path: shown(path), source })?;
                if first.len() <= SMALL_MAX {
                    put(&kind, &first)
                } else {
                    self.0.stream(path, &head(&kind), first, bytes)
                }
            }
        };
        match sent {
            Ok(()) => Ok(Staged { path: path.clone(), number }),
            Err(TargetError::Refused { path: nothing, why }) if nothing.is_empty() => {
                Err(TargetError::Refused { path: shown(path), why })
            }
            Err(error) => Err(error),
        }
    }

    fn discard(&self, staged: Staged) {
        // If the connection is lost, the far side drops it by itself.
        let _ = self.0.line.send(ask::DISCARD, 0, &Out::default().u64(staged.number).0, &[]);
    }

    fn publish(&self, staged: Vec<Staged>, keep: Option<&RelPath>) -> Vec<Result<()>> {
        let count = u32::try_from(staged.len()).unwrap_or(u32::MAX);
        let head = Out::default().optional(keep.map(RelPath::as_bytes)).u32(count);
        let request = staged.iter().fold(head, |out, one| out.u64(one.number));
        let results = self.0.call(ask::PUBLISH, &request, answer::RESULTS).and_then(|payload| {
            self.0.read(&payload, |input| {
                let result = |input: &mut In<'_>| match input.bool()? {
                    true => Ok(Ok(())),
                    false => said::error(input, self.0.line.place()).map(Err),
                };
                staged.iter().map(|_| result(input)).collect::<Result<Vec<_>, Garbled>>()
            })
        });
        results.unwrap_or_else(|error| {
            let again = |_| match &error {
                TargetError::Away { place, why } => TargetError::Away { place: place.clone(), why: why.clone() },
                other => TargetError::Away { place: self.0.line.place().to_owned(), why: other.to_string() },
            };
            staged.iter().map(again).map(Err).collect()
        })
    }

    fn make_dir(&self, path: &RelPath) -> Result<()> {
        self.0.done(ask::MAKE_DIR, &said::put_path(Out::default(), path))
    }

    fn set_meta(&self, path: &RelPath, kind: FileType, meta: &Meta) -> Result<()> {
        let out = said::put_file_type(said::put_path(Out::default(), path), kind);
        self.0.done(ask::SET_META, &said::put_meta(out, meta))
    }

    fn link(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.0.done(ask::LINK, &said::put_path(said::put_path(Out::default(), from), to))
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.0.done(ask::RENAME, &said::put_path(said::put_path(Out::default(), from), to))
    }

    fn remove(&self, path: &RelPath) -> Result<bool> {
        let payload = self.0.call(ask::REMOVE, &said::put_path(Out::default(), path), answer::WAS_THERE)?;
        #[expect(clippy::redundant_closure_for_method_calls, reason = "the method is of one lifetime")]
        self.0.read(&payload, |input| input.bool())
    }

    fn sync(&self) -> Result<()> {
        self.0.done(ask::SYNC, &Out::default())
    }
}

/// A file of the far side that is read, some chunks ahead.
struct Reading {
    remote: Arc<Remote>,
    answers: Answers,
    chunk: Vec<u8>,
    at: usize,
    is_at_end: bool,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.is_at_end {
            let chunk = self.remote.answered(&self.answers, answer::BYTES);
            self.chunk = chunk.map_err(io::Error::other)?;
            self.at = 0;
            self.is_at_end = self.chunk.is_empty();
            if !self.is_at_end {
                self.remote.line.send(ask::MORE, self.answers.id(), &[], &[]).map_err(io::Error::other)?;
            }
        }
        let read = (&self.chunk[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = self.remote.line.send(ask::ENOUGH, self.answers.id(), &[], &[]);
    }
}
