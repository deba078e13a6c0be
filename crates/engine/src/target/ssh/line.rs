//! One connection that many threads use: requests go out one after another, without waiting for answers; a thread hands each
//! answer to whoever asked.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::wire::{Frame, Out, head, read_frame};
use crate::target::{Result, TargetError};

/// What is to be sent is gathered up to so many bytes, unless somebody waits for an answer.
const GATHERED_MAX: usize = 64 * 1024;

/// What ends with the connection: told by whoever made it, once nothing more comes.
pub(super) type Ended = Box<dyn FnOnce(Option<io::Error>) -> String + Send>;

/// A connection at work.
pub(super) struct Line {
    place: String,
    output: Mutex<Output>,
    desk: Arc<Mutex<Desk>>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

struct Output {
    to: Option<Box<dyn Write + Send>>,
    gathered: Vec<u8>,
}

/// Who waits for what.
#[derive(Default)]
struct Desk {
    next: u32,
    waiting: HashMap<u32, Sender<Frame>>,
    lost: Option<String>,
}

/// An answer that is to come, or several of one id. Dropped, it is not waited for any more.
pub(super) struct Answers {
    id: u32,
    frames: Receiver<Frame>,
    desk: Arc<Mutex<Desk>>,
}

impl Answers {
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The answer, if it is here already.
    pub(super) fn ready(&self) -> Option<Frame> {
        self.frames.try_recv().ok()
    }
}

impl Answers {
    /// Whether waiting for it takes no time: it is here.
    pub(super) fn is_ready(&self) -> bool {
        !self.frames.is_empty()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        locked(&self.desk).waiting.remove(&self.id);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    /// Begins with what is behind the handshake. `ended` is asked why, once nothing more comes.
    pub(super) fn begin(
        place: &str,
        mut input: Box<dyn Read + Send>,
        output: Box<dyn Write + Send>,
        ended: Ended,
    ) -> io::Result<Self> {
        let desk = Arc::new(Mutex::new(Desk::default()));
        let shared = Arc::clone(&desk);
        let reader = std::thread::Builder::new().name("ssh answers".to_owned()).spawn(move || {
            let error = deliver(&mut *input, &shared).err();
            let why = ended(error);
            let mut desk = locked(&shared);
            desk.lost.get_or_insert(why);
            desk.waiting.clear();
        })?;
        let output = Output { to: Some(output), gathered: Vec::with_capacity(2 * GATHERED_MAX) };
        let (output, reader) = (Mutex::new(output), Mutex::new(Some(reader)));
        Ok(Line { place: place.to_owned(), output, desk, reader })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Whether it is known to be of no use any more.
    pub(super) fn is_lost(&self) -> bool {
        locked(&self.desk).lost.is_some()
    }

    /// Why nothing can be had.
    pub(super) fn away(&self) -> TargetError {
        let why = locked(&self.desk).lost.clone().unwrap_or_else(|| "the connection was lost".to_owned());
        TargetError::Away { place: self.place.clone(), why }
    }

    /// What came makes no sense: nothing more can be believed.
    pub(super) fn garbled(&self) -> TargetError {
        locked(&self.desk).lost.get_or_insert_with(|| "the far side answers what was not asked".to_owned());
        self.away()
    }

    /// Sends a request, at most `answers_max` of whose answers are kept until they are taken.
    pub(super) fn ask(&self, kind: u8, payload: &Out, answers_max: usize) -> Result<Answers> {
        let answers = self.expect(answers_max)?;
        self.send(kind, answers.id, &payload.0, &[])?;
        Ok(answers)
    }

    /// An id by which to ask.
    pub(super) fn expect(&self, answers_max: usize) -> Result<Answers> {
        let (sender, frames) = bounded(answers_max.max(1));
        let mut desk = locked(&self.desk);
        if desk.lost.is_some() {
            drop(desk);
            return Err(self.away());
        }
        let mut id = desk.next;
        while desk.waiting.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        desk.next = id.wrapping_add(1);
        desk.waiting.insert(id, sender);
        drop(desk);
        Ok(Answers { id, frames, desk: Arc::clone(&self.desk) })
    }

    /// Sends a frame; the payload's second part is not copied where it is large. It may wait to be sent until somebody waits
    /// for an answer.
    pub(super) fn send(&self, kind: u8, id: u32, payload: &[u8], more: &[u8]) -> Result<()> {
        let head = head(kind, id, payload.len() + more.len()).map_err(|error| TargetError::Refused {
            path: String::new(),
            why: format!("it cannot be told to the target: {error}"),
        })?;
        let mut output = locked(&self.output);
        output.gathered.extend_from_slice(&head);
        output.gathered.extend_from_slice(payload);
        let sent = if more.len() < GATHERED_MAX / 2 {
            output.gathered.extend_from_slice(more);
            if output.gathered.len() >= GATHERED_MAX { output.flush() } else { Ok(()) }
        } else {
            output.flush().and_then(|()| output.write(more))
        };
        drop(output);
        sent.map_err(|_| self.broken())
    }

    /// A write failed: why, the far side's end tells best.
    fn broken(&self) -> TargetError {
        locked(&self.output).to = None;
        if let Some(reader) = locked(&self.reader).take() {
            let _ = reader.join();
        }
        self.away()
    }

    pub(super) fn flush(&self) -> Result<()> {
        let flushed = locked(&self.output).flush();
        flushed.map_err(|_| self.broken())
    }

    /// Waits for the next answer.
    pub(super) fn wait(&self, answers: &Answers) -> Result<Frame> {
        if let Some(frame) = answers.ready() {
            return Ok(frame);
        }
        self.flush()?;
        answers.frames.recv().map_err(|_| self.away())
    }
}

impl Output {
    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        let written = self.write(&gathered);
        self.gathered = gathered;
        self.gathered.clear();
        written
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(bytes)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // What was gathered is not waited for: without it the far side drops what was not published.
        locked(&self.output).to = None;
    }
}

/// Hands out what comes in, until nothing does.
fn deliver(input: &mut dyn Read, desk: &Mutex<Desk>) -> io::Result<()> {
    while let Some(frame) = read_frame(input)? {
        let mut desk = locked(desk);
        if desk.lost.is_some() {
            return Ok(());
        }
        // Nobody waits for it any more.
        let Some(waiting) = desk.waiting.get(&frame.id) else { continue };
        if waiting.try_send(frame).is_err() {
            desk.lost = Some("the far side sends more than it was asked for".to_owned());
            return Ok(());
        }
    }
    Ok(())
}
