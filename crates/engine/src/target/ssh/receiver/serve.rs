//! The far side: takes requests from its input and does them at a target of this machine, several at a time.
//!
//! One thread reads. What is small goes to a few workers; a large file, a batch that is published and a listing each have a
//! thread, so that none keeps the others from being read. Everything that waits has a bound, and what is not read yet waits at
//! the sender.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::super::address::FarDir;
use super::super::wire::{Frame, Garbled, In, Out, head, read_frame};
use super::messages::{self as said, AHEAD, CHUNK, Kind, PAGE, RECEIVER, SENDER, STAGED_MAX, VERSION, answer, ask};
use crate::model::RelPath;
use crate::target::{Content, Found, Meta, Result, Session, Staged, Target, TargetError};

/// Threads that do what is small.
const WORKERS: usize = 4;
/// Small requests that were read and wait for a worker.
const JOBS_MAX: usize = 64;
/// Chunks of a large file that were read and wait for its thread.
const CHUNKS_MAX: usize = 2;
/// Large files, batches and listings at the same time.
const THREADS_MAX: usize = 256;

/// Which target a directory is; an error if it may not be used.
pub type Places<'p> = &'p (dyn Fn(&FarDir) -> Result<Box<dyn Target>> + Sync);

/// Serves one connection to its end. What was staged and not published is gone then.
///
/// # Errors
/// If the other side is none of ours, or says what makes no sense, or the connection breaks in the middle.
pub fn serve(input: &mut (dyn Read + Send), output: &mut (dyn Write + Send), places: Places<'_>) -> io::Result<()> {
    output.write_all(&[&RECEIVER[..], &VERSION.to_be_bytes()].concat())?;
    output.flush()?;
    let mut greeting = [0; SENDER.len() + 4];
    input.read_exact(&mut greeting)?;
    if !greeting.starts_with(SENDER) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the other side is no keepwatch"));
    }
    let desk = Desk {
        output: Mutex::new(output),
        session: Mutex::new(None),
        staged: Mutex::default(),
        changed: Condvar::new(),
        files: Mutex::default(),
        threads: AtomicUsize::new(0),
    };
    let (jobs, taken) = bounded(JOBS_MAX);
    let ended = std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let taken: Receiver<Frame> = taken.clone();
            let work = || {
                let taken = taken;
                taken.into_iter().for_each(|frame| desk.work(frame));
            };
            Builder::new().name("worker".to_owned()).spawn_scoped(scope, work)?;
        }
        let mut reader = Reader { desk: &desk, scope, places, jobs, streams: HashMap::new(), lists: HashMap::new() };
        let mut ended = Ok(());
        while ended.is_ok() {
            match read_frame(input) {
                Ok(Some(frame)) => ended = reader.take(frame),
                Ok(None) => break,
                Err(error) => ended = Err(error),
            }
        }
        ended
    });
    desk.forget_staged();
    ended
}

/// What all threads share.
struct Desk<'d> {
    output: Mutex<&'d mut (dyn Write + Send)>,
    session: Mutex<Option<Arc<dyn Session>>>,
    staged: Mutex<HashMap<u64, Slot>>,
    changed: Condvar,
    files: Mutex<HashMap<u32, OpenFile>>,
    threads: AtomicUsize,
}

/// A file that is read by one request after another.
type OpenFile = Arc<Mutex<Box<dyn Read + Send>>>;

/// Something that was sent to be staged.
enum Slot {
    /// It is not yet.
    Pending,
    /// It is not yet, and is not wanted any more.
    Unwanted,
    Ended(Result<Staged>),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk<'_> {
    /// Answers. If that fails the other side is gone, which the reader hears of.
    fn answer(&self, kind: u8, id: u32, payload: &[u8]) {
        let Ok(head) = head(kind, id, payload.len()) else {
            let why = TargetError::Away { place: String::new(), why: "an answer would be too long".to_owned() };
            return self.failed(id, &why);
        };
        let mut output = locked(&self.output);
        let _ = output.write_all(&head).and_then(|()| output.write_all(payload)).and_then(|()| output.flush());
    }

    fn failed(&self, id: u32, error: &TargetError) {
        self.answer(answer::FAILED, id, &said::put_error(Out::default(), error).0);
    }

    fn done(&self, id: u32, result: Result<()>) {
        match result {
            Ok(()) => self.answer(answer::DONE, id, &[]),
            Err(error) => self.failed(id, &error),
        }
    }

    fn session(&self) -> Result<Arc<dyn Session>> {
        let none = || TargetError::Away { place: String::new(), why: "no directory was opened".to_owned() };
        locked(&self.session).clone().ok_or_else(none)
    }

    fn ended(&self, number: u64, result: Result<Staged>) {
        let mut staged = locked(&self.staged);
        match staged.remove(&number) {
            Some(Slot::Pending) => drop(staged.insert(number, Slot::Ended(result))),
            _ => {
                drop(staged);
                if let (Ok(one), Ok(session)) = (result, self.session()) {
                    session.discard(one);
                }
            }
        }
        self.changed.notify_all();
    }

    /// What came of staging something, once it is known.
    fn outcome(&self, number: u64) -> Result<Staged> {
        let mut staged = locked(&self.staged);
        loop {
            match staged.remove(&number) {
                Some(Slot::Ended(result)) => return result,
                Some(slot) => drop(staged.insert(number, slot)),
                None => {
                    let why = "the far side was never told of it".to_owned();
                    return Err(TargetError::Refused { path: number.to_string(), why });
                }
            }
            staged = self.changed.wait(staged).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn forget_staged(&self) {
        let all: Vec<Slot> = locked(&self.staged).drain().map(|(_, slot)| slot).collect();
        let Ok(session) = self.session() else { return };
        for slot in all {
            if let Slot::Ended(Ok(staged)) = slot {
                session.discard(staged);
            }
        }
    }

    /// Does a small request. One that makes no sense is said to have failed.
    fn work(&self, frame: Frame) {
        let (kind, id) = (frame.kind, frame.id);
        let number = In(&frame.payload).u64();
        if let Err(Garbled) = self.small(frame) {
            let why = "the far side does not understand what is asked".to_owned();
            let refused = TargetError::Refused { path: String::new(), why };
            match number {
                Ok(number) if kind == ask::PUT => self.ended(number, Err(refused)),
                _ => self.failed(id, &refused),
            }
        }
    }

    fn small(&self, Frame { kind, id, payload }: Frame) -> Result<(), Garbled> {
        let mut input = In(&payload);
        let input = &mut input;
        match kind {
            ask::PUT => {
                let (number, path, meta, kind) = staging(input)?;
                let mut bytes = input.0;
                let staged = self.session().and_then(|session| stage(&*session, &path, &meta, &kind, &mut bytes));
                self.ended(number, staged);
            }
            ask::LOOK => {
                let path = said::path(input)?;
                match self.session().and_then(|session| session.look(&path)) {
                    Ok(Some(found)) => {
                        self.answer(answer::FOUND, id, &said::put_found(Out::default().u8(1), &found).0);
                    }
                    Ok(None) => self.answer(answer::FOUND, id, &[0]),
                    Err(error) => self.failed(id, &error),
                }
            }
            ask::MAKE_DIR => {
                let path = said::path(input)?;
                self.done(id, self.session().and_then(|session| session.make_dir(&path)));
            }
            ask::SET_META => {
                let (path, kind, meta) = (said::path(input)?, said::file_type(input)?, said::meta(input)?);
                self.done(id, self.session().and_then(|session| session.set_meta(&path, kind, &meta)));
            }
            ask::LINK | ask::RENAME => {
                let (from, to) = (said::path(input)?, said::path(input)?);
                self.done(
                    id,
                    self.session().and_then(|session| match kind {
                        ask::LINK => session.link(&from, &to),
                        _ => session.rename(&from, &to),
                    }),
                );
            }
            ask::REMOVE => {
                let path = said::path(input)?;
                match self.session().and_then(|session| session.remove(&path)) {
                    Ok(was_there) => self.answer(answer::WAS_THERE, id, &[u8::from(was_there)]),
                    Err(error) => self.failed(id, &error),
                }
            }
            ask::SYNC => self.done(id, self.session().and_then(|session| session.sync())),
            ask::READ => {
                let path = said::path(input)?;
                let opened = self.session().and_then(|session| session.read(&path)).map(|file| {
                    locked(&self.files).insert(id, Arc::new(Mutex::new(file)));
                });
                self.done(id, opened);
            }
            ask::MORE => self.read_on(id),
            _ => return Err(Garbled),
        }
        Ok(())
    }

    /// The next chunk of a file. Answered while the file is held, or chunks would overtake one another.
    fn read_on(&self, id: u32) {
        let Some(file) = locked(&self.files).get(&id).cloned() else { return };
        let mut file = locked(&file);
        let mut chunk = Vec::with_capacity(CHUNK);
        match (&mut *file).take(CHUNK as u64).read_to_end(&mut chunk) {
            Ok(_) => self.answer(answer::BYTES, id, &chunk),
            Err(source) => self.failed(id, &TargetError::Io { doing: "read", path: String::new(), source }),
        }
    }

    fn publish(&self, id: u32, keep: Option<&RelPath>, numbers: &[u64]) {
        let outcomes: Vec<Result<Staged>> = numbers.iter().map(|number| self.outcome(*number)).collect();
        let mut failures = Vec::with_capacity(outcomes.len());
        let mut staged = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            match outcome {
                Ok(one) => {
                    staged.push(one);
                    failures.push(None);
                }
                Err(error) => failures.push(Some(error)),
            }
        }
        let published = match self.session() {
            Ok(session) => session.publish(staged, keep),
            Err(error) => return self.failed(id, &error),
        };
        let mut published = published.into_iter();
        let results = failures.into_iter().map(|failure| match failure {
            Some(error) => Err(error),
            None => published.next().unwrap_or(Ok(())),
        });
        let out = results.fold(Out::default(), |out, result| match result {
            Ok(()) => out.u8(1),
            Err(error) => said::put_error(out.u8(0), &error),
        });
        self.answer(answer::RESULTS, id, &out.0);
    }

    /// Lists, a page for each one that is asked for.
    fn list(&self, id: u32, asked: &Receiver<()>, list: impl FnOnce(Each<'_>) -> Result<()>) {
        let mut page = Out::default();
        let listed = list(&mut |path, found| {
            page = said::put_found(said::put_path(std::mem::take(&mut page), path), &found);
            if page.length() < PAGE {
                return ControlFlow::Continue(());
            }
            if asked.recv().is_err() {
                return ControlFlow::Break(());
            }
            self.answer(answer::PAGE, id, &std::mem::take(&mut page).0);
            ControlFlow::Continue(())
        });
        if listed.is_ok() && page.length() > 0 && asked.recv().is_ok() {
            self.answer(answer::PAGE, id, &page.0);
        }
        self.done(id, listed);
    }
}

/// Who is told of what a listing finds.
type Each<'e> = &'e mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>;

/// What every staging begins with.
fn staging(input: &mut In<'_>) -> Result<(u64, RelPath, Meta, Kind), Garbled> {
    Ok((input.u64()?, said::path(input)?, said::meta(input)?, said::kind(input)?))
}

fn stage(session: &dyn Session, path: &RelPath, meta: &Meta, kind: &Kind, bytes: &mut dyn Read) -> Result<Staged> {
    let content = match kind {
        Kind::File { size, is_sparse } => Content::File { bytes, size: *size, is_sparse: *is_sparse },
        Kind::Symlink(to) => Content::Symlink(to),
        Kind::Fifo => Content::Fifo,
        Kind::Device { is_block, number } => Content::Device { is_block: *is_block, number: *number },
    };
    session.stage(path, meta, content)
}

/// The thread that reads, and hands out what it has read.
struct Reader<'scope, 'env, 'd> {
    desk: &'scope Desk<'d>,
    scope: &'scope Scope<'scope, 'env>,
    places: Places<'env>,
    jobs: Sender<Frame>,
    /// Large files on their way, by the ids under which they are sent.
    streams: HashMap<u32, Sender<Vec<u8>>>,
    lists: HashMap<u32, Sender<()>>,
}

impl<'scope, 'env: 'scope> Reader<'scope, 'env, '_> {
    fn take(&mut self, frame: Frame) -> io::Result<()> {
        let mut input = In(&frame.payload);
        let desk = self.desk;
        match frame.kind {
            ask::OPEN | ask::PROBE => self.open(&frame)?,
            ask::PUT => {
                self.expect(input.u64()?)?;
                let _ = self.jobs.send(frame);
            }
            ask::STAGE => {
                let (number, path, meta, kind) = staging(&mut input)?;
                self.expect(number)?;
                let (sender, chunks) = bounded(CHUNKS_MAX);
                let id = frame.id;
                self.streams.insert(id, sender);
                self.spawn(move || {
                    let mut bytes = Chunks { chunks, chunk: Vec::new(), at: 0, is_whole: false };
                    let staged = desk.session().and_then(|session| stage(&*session, &path, &meta, &kind, &mut bytes));
                    // Said at once, so that no more is sent of what fails; and kept for when it is published.
                    match &staged {
                        Ok(_) => desk.answer(answer::DONE, id, &[]),
                        Err(error) => desk.failed(id, error),
                    }
                    desk.ended(number, staged);
                })?;
            }
            ask::DATA => {
                // Its thread may have given up.
                if !frame.payload.is_empty()
                    && let Some(stream) = self.streams.get(&frame.id)
                {
                    let _ = stream.send(frame.payload);
                }
            }
            ask::END => {
                if let Some(stream) = self.streams.remove(&frame.id)
                    && frame.payload == [1]
                {
                    let _ = stream.send(Vec::new());
                }
            }
            ask::DISCARD => {
                let number = input.u64()?;
                let mut staged = locked(&desk.staged);
                match staged.remove(&number) {
                    Some(Slot::Ended(Ok(one))) => {
                        drop(staged);
                        if let Ok(session) = desk.session() {
                            session.discard(one);
                        }
                    }
                    Some(Slot::Pending) => drop(staged.insert(number, Slot::Unwanted)),
                    _ => {}
                }
            }
            ask::PUBLISH => {
                let keep = input.optional()?.map(RelPath::new).transpose().map_err(|_| Garbled)?;
                let count = input.u32()? as usize;
                let numbers = (0..count).map(|_| input.u64()).collect::<Result<Vec<_>, Garbled>>()?;
                self.spawn(move || desk.publish(frame.id, keep.as_ref(), &numbers))?;
            }
            ask::LIST => {
                let below = said::path(&mut input)?;
                let asked = self.listing(frame.id);
                self.spawn(move || {
                    desk.list(frame.id, &asked, |each| desk.session()?.list(&below, each));
                })?;
            }
            ask::SURVEY => {
                let ((dir, _), below) = (said::place(&mut input)?, said::path(&mut input)?);
                let (asked, places) = (self.listing(frame.id), self.places);
                self.spawn(move || desk.list(frame.id, &asked, |each| places(&dir)?.survey(&below, each)))?;
            }
            ask::MORE => match self.lists.get(&frame.id) {
                Some(list) => drop(list.try_send(())),
                None => drop(self.jobs.send(frame)),
            },
            ask::ENOUGH => {
                self.lists.remove(&frame.id);
                locked(&desk.files).remove(&frame.id);
            }
            _ => drop(self.jobs.send(frame)),
        }
        Ok(())
    }

    fn open(&self, frame: &Frame) -> io::Result<()> {
        let (desk, mut input) = (self.desk, In(&frame.payload));
        let (dir, claim) = said::place(&mut input)?;
        if frame.kind == ask::PROBE {
            match (self.places)(&dir).and_then(|target| target.probe(&claim)) {
                Ok(identity) => {
                    let identity = identity.as_ref().map(String::as_bytes);
                    desk.answer(answer::PROBED, frame.id, &Out::default().optional(identity).0);
                }
                Err(error) => desk.failed(frame.id, &error),
            }
            return Ok(());
        }
        desk.forget_staged();
        let opened = (self.places)(&dir).and_then(|target| Ok((target.open(&claim)?, target.nature())));
        match opened {
            Ok(((session, identity), nature)) => {
                *locked(&desk.session) = Some(Arc::from(session));
                let out = Out::default().bytes(identity.as_bytes()).i64(nature.mtime_step_ns);
                let out = out.u64(nature.name_max as u64).u8(u8::from(nature.is_filesystem));
                desk.answer(answer::OPENED, frame.id, &out.u64(nature.batch_max as u64).0);
            }
            Err(error) => desk.failed(frame.id, &error),
        }
        Ok(())
    }

    /// How a listing learns that one more page is asked for.
    fn listing(&mut self, id: u32) -> Receiver<()> {
        let (sender, asked) = bounded(2 * AHEAD);
        self.lists.insert(id, sender);
        asked
    }

    /// Something is going to be staged under this number.
    fn expect(&self, number: u64) -> io::Result<()> {
        let mut staged = locked(&self.desk.staged);
        if staged.len() >= STAGED_MAX || staged.insert(number, Slot::Pending).is_some() {
            return Err(Garbled.into());
        }
        Ok(())
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'scope) -> io::Result<()> {
        let desk = self.desk;
        if desk.threads.fetch_add(1, Ordering::Relaxed) >= THREADS_MAX {
            return Err(io::Error::other("too much is asked for at the same time"));
        }
        Builder::new().name("request".to_owned()).spawn_scoped(self.scope, move || {
            work();
            desk.threads.fetch_sub(1, Ordering::Relaxed);
        })?;
        Ok(())
    }
}

/// A large file as it comes in. An empty chunk ends it; without one it is not whole, and reading it fails.
struct Chunks {
    chunks: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    is_whole: bool,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.is_whole {
            self.chunk = self.chunks.recv().map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
            self.at = 0;
            self.is_whole = self.chunk.is_empty();
        }
        let read = (&self.chunk[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}
