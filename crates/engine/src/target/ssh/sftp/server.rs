//! An sftp server: what it can do, and single requests to it.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::line::{Answers, Ended, Line};
use super::super::syncer::Syncer;
use super::super::wire::{In, Out, head, read_frame};
use super::protocol::{Attrs, Fault, LIMITS, Reply, STATVFS, VERSION, code, kind};
use crate::model::RelPath;
use crate::target::{Result, TargetError, shown};

/// Bytes of a file that travel in one frame, unless the server takes more; every server takes these.
const CHUNK_MIN: usize = 32 * 1024;
/// More in one frame gains nothing.
const CHUNK_MAX: usize = 240 * 1024;
/// Less room than this in bytes is none.
const ROOM_MIN: u64 = 64 * 1024;

/// An sftp server at the other end of a line.
pub(in crate::target::ssh) struct Server {
    line: Line,
    extensions: BTreeSet<String>,
    /// Bytes of one write or read.
    pub(super) chunk: usize,
    /// Whether owners cannot be set: nobody but root may give files away.
    keeps_owner: AtomicBool,
    syncer: Option<Syncer>,
}

impl Server {
    /// Begins a conversation.
    pub(in crate::target::ssh) fn begin(
        place: &str,
        mut input: Box<dyn Read + Send>,
        mut output: Box<dyn Write + Send>,
        ended: Ended,
    ) -> Result<Self> {
        let hello = head(kind::INIT, VERSION, 0).and_then(|init| {
            // Whoever does not listen has its reason, which is told when all is read.
            let _ = output.write_all(&init).and_then(|()| output.flush());
            read_frame(&mut *input)
        });
        let strange = match hello {
            Ok(Some(frame)) if frame.kind == kind::VERSION && frame.id >= VERSION => Ok(frame),
            Ok(Some(_)) => Err(Some("the far side speaks another version of sftp".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Some(
                "the far side does not speak sftp: its shell prints something before (see `.bashrc` there)".to_owned(),
            )),
            Ok(None) | Err(_) => Err(None),
        };
        let frame = match strange {
            Ok(frame) => frame,
            Err(why) => {
                drop((input, output));
                let end = ended(None);
                return Err(TargetError::Away { place: place.to_owned(), why: why.unwrap_or(end) });
            }
        };
        let mut extensions = BTreeSet::new();
        let mut rest = In(&frame.payload);
        while let (false, Ok(name), Ok(_)) = (rest.is_empty(), rest.text(), rest.bytes()) {
            extensions.insert(name);
        }
        let failed = |error| TargetError::Away { place: place.to_owned(), why: format!("no thread: {error}") };
        let line = Line::begin(place, input, output, ended).map_err(failed)?;
        let mut server =
            Server { line, extensions, chunk: CHUNK_MIN, keeps_owner: AtomicBool::new(false), syncer: None };
        if server.has(LIMITS)
            && let Reply::Extended(limits) = server.call(kind::EXTENDED, &Out::default().bytes(LIMITS.as_bytes()))?
        {
            let mut limits = In(&limits);
            let lengths = [limits.u64(), limits.u64(), limits.u64()];
            let least = lengths[1..].iter().flatten().copied().filter(|length| *length > 0).min().unwrap_or(0);
            server.chunk = usize::try_from(least).unwrap_or(CHUNK_MAX).clamp(CHUNK_MIN, CHUNK_MAX);
        }
        Ok(server)
    }

    /// The same with a shell beside it.
    pub(in crate::target::ssh) fn with(self, syncer: Option<Syncer>) -> Self {
        Server { syncer, ..self }
    }

    /// Has all that was written to the file system of a directory made durable at once. `false`: it was not.
    pub(super) fn sync_all(&self, dir: &[u8]) -> bool {
        self.syncer.as_ref().is_some_and(|syncer| syncer.sync(dir))
    }

    /// Whether it is worth asking for.
    pub(super) fn can_sync_all(&self) -> bool {
        self.syncer.as_ref().is_some_and(Syncer::is_there)
    }

    pub(in crate::target::ssh) fn is_lost(&self) -> bool {
        self.line.is_lost()
    }

    pub(super) fn place(&self) -> &str {
        self.line.place()
    }

    pub(super) fn has(&self, extension: &str) -> bool {
        self.extensions.contains(extension)
    }

    /// Sends a request and does not wait.
    pub(super) fn ask(&self, kind: u8, payload: &Out) -> Result<Answers> {
        self.line.ask(kind, payload, 1)
    }

    /// The same with bytes at its end that are not copied.
    pub(super) fn ask_with(&self, kind: u8, payload: &Out, bytes: &[u8]) -> Result<Answers> {
        let answers = self.line.expect(1)?;
        self.line.send(kind, answers.id(), &payload.0, bytes)?;
        Ok(answers)
    }

    /// An extension's request.
    pub(super) fn ask_extension(&self, name: &str, payload: &Out) -> Result<Answers> {
        let head = Out::default().bytes(name.as_bytes());
        self.ask(kind::EXTENDED, &Out([head.0, payload.0.clone()].concat()))
    }

    pub(super) fn wait(&self, answers: &Answers) -> Result<Reply> {
        Reply::read(self.line.wait(answers)?).map_err(|_| self.line.garbled())
    }

    pub(super) fn call(&self, kind: u8, payload: &Out) -> Result<Reply> {
        self.wait(&self.ask(kind, payload)?)
    }

    /// Waits for one that is done or not.
    pub(super) fn done(&self, answers: &Answers) -> Result<Result<(), Fault>> {
        match self.wait(answers)? {
            Reply::Done => Ok(Ok(())),
            Reply::Fault(fault) => Ok(Err(fault)),
            _ => Err(self.line.garbled()),
        }
    }

    /// Waits for the handle of what is opened.
    pub(super) fn handle(&self, answers: &Answers) -> Result<Result<Vec<u8>, Fault>> {
        match self.wait(answers)? {
            Reply::Handle(handle) => Ok(Ok(handle)),
            Reply::Fault(fault) => Ok(Err(fault)),
            _ => Err(self.line.garbled()),
        }
    }

    /// Waits for attributes; `None`: nothing is there.
    pub(super) fn attrs(&self, answers: &Answers) -> Result<Result<Option<Attrs>, Fault>> {
        match self.wait(answers)? {
            Reply::Attrs(attrs) => Ok(Ok(Some(attrs))),
            Reply::Fault(Fault { code: code::NO_SUCH_FILE, .. }) => Ok(Ok(None)),
            Reply::Fault(fault) => Ok(Err(fault)),
            _ => Err(self.line.garbled()),
        }
    }

    pub(super) fn garbled(&self) -> TargetError {
        self.line.garbled()
    }

    /// Closes, and does not wait.
    pub(super) fn close(&self, handle: &[u8]) {
        let _ = self.ask(kind::CLOSE, &Out::default().bytes(handle));
    }

    /// The attributes that an owner has to be set by, before all others: it takes rights away.
    pub(super) fn owner(&self, uid: u32, gid: u32) -> Option<Attrs> {
        let owner = Attrs { owner: Some((uid, gid)), ..Attrs::default() };
        (!self.keeps_owner.load(Ordering::Relaxed)).then_some(owner)
    }

    /// An owner was set, or not: what may not be is not tried for ever.
    pub(super) fn owner_set(&self, result: &Result<(), Fault>) {
        if matches!(result, Err(Fault { code: code::PERMISSION_DENIED, .. })) {
            self.keeps_owner.store(true, Ordering::Relaxed);
        }
    }

    /// What a fault comes to. A server says little of why; whether there is room it is asked.
    pub(super) fn error(&self, doing: &'static str, path: &RelPath, top: &[u8], fault: &Fault) -> TargetError {
        let refused = |why: &str| TargetError::Refused { path: shown(path), why: why.to_owned() };
        let io = |source| TargetError::Io { doing, path: shown(path), source };
        match fault.code {
            code::NO_SUCH_FILE => io(io::ErrorKind::NotFound.into()),
            code::PERMISSION_DENIED => io(io::ErrorKind::PermissionDenied.into()),
            code::BAD_MESSAGE => {
                refused("its name or its path is too long for the target, or of bytes that it does not take")
            }
            code::UNSUPPORTED => refused("the far side's sftp server cannot do that"),
            _ if self.is_full(top) => TargetError::Full { path: shown(path) },
            _ => io(io::Error::other(format!("the far side says only: {}", fault.text))),
        }
    }

    fn is_full(&self, top: &[u8]) -> bool {
        if !self.has(STATVFS) {
            return false;
        }
        let asked = self.ask_extension(STATVFS, &Out::default().bytes(top));
        let Ok(Reply::Extended(numbers)) = asked.and_then(|asked| self.wait(&asked)) else { return false };
        let mut numbers = In(&numbers);
        let mut next = || numbers.u64().unwrap_or(u64::MAX);
        let (_, block, _, _, free_blocks, files, _, free_files) =
            (next(), next(), next(), next(), next(), next(), next(), next());
        // A file system that makes room for files as they come counts none.
        free_blocks.saturating_mul(block) < ROOM_MIN || (files > 0 && free_files == 0)
    }
}
