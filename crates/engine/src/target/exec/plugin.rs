//! A plug-in that runs. Several threads ask at once, as many as it takes; one thread writes, one reads and hands each answer to
//! whoever asked. One that says nothing for too long, or something that makes no sense, is ended with all that it started.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::ops::ControlFlow;
use std::process::{ChildStdout, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::ExecPatience;
use super::command::ExecCommand;
use super::message::{self, Ask, Done, Hello, Kind, Said};
use crate::model::RelPath;
use crate::target::process::{self, End, Process};
use crate::target::store::{Item, Told};
use crate::target::{Result, TargetError, shown};

/// The longest line of a plug-in.
const LINE_MAX: u64 = 1 << 20;
/// Answers that wait for whoever asked.
const ANSWERS_MAX: usize = 512;
/// What is read at once.
const INPUT_BYTES: usize = 64 << 10;
/// Characters of a line that are shown when it makes no sense.
const SHOWN_MAX: usize = 80;

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// The plug-in says so.
    Said { kind: Kind, message: String },
    /// The plug-in is of no use any more.
    Lost(String),
}

/// A plug-in that runs.
pub(super) struct Plugin {
    pub(super) hello: Hello,
    patience: ExecPatience,
    desk: Arc<Desk>,
    lines: Option<Sender<Vec<u8>>>,
    gate: Gate,
}

/// Who waits for what.
struct Desk {
    state: Mutex<State>,
    process: Mutex<Option<Process>>,
}

#[derive(Default)]
struct State {
    next: u64,
    waiting: HashMap<u64, Sender<Said>>,
    lost: Option<String>,
}

/// Lets only so many through at once.
struct Gate {
    free: Mutex<usize>,
    changed: Condvar,
}

struct Turn<'g>(&'g Gate);

impl Gate {
    fn new(most: usize) -> Self {
        Gate { free: Mutex::new(most), changed: Condvar::new() }
    }

    fn enter(&self) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.changed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.changed.notify_one();
    }
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more is expected of it, for this reason.
    fn lose(&self, why: String) {
        let mut state = self.state();
        state.lost.get_or_insert(why);
        state.waiting.clear();
        drop(state);
        if let Some(process) = &*self.process.lock().unwrap_or_else(PoisonError::into_inner) {
            process.kill();
        }
    }

    fn why(&self) -> String {
        self.state().lost.clone().unwrap_or_else(|| "the plug-in ended".to_owned())
    }
}

impl Plugin {
    /// Starts it, and hears what it can do.
    pub(super) fn start(command: &ExecCommand, patience: ExecPatience) -> Result<Self> {
        let place = command.to_string();
        let away = |why: String| TargetError::Away { place: place.clone(), why };
        let mut program = Command::new(command.program());
        program.args(command.arguments());
        let (process, mut input, output) = process::start(program, "plug-in").map_err(|error| {
            let program = command.program().to_string_lossy().into_owned();
            away(format!("the plug-in `{program}` does not run: {error}; is it there, and executable?"))
        })?;
        let desk = Arc::new(Desk { state: Mutex::default(), process: Mutex::new(Some(process)) });
        let (lines, to_write) = unbounded::<Vec<u8>>();
        let write = move || {
            // It ends when nobody asks any more, or nobody listens.
            while let Ok(line) = to_write.recv() {
                if input.write_all(&line).is_err() {
                    return;
                }
            }
        };
        let shared = Arc::clone(&desk);
        let read = move || shared.end_by(deliver(output, &shared));
        for (name, work) in
            [("plug-in lines", Box::new(write) as Box<dyn FnOnce() + Send>), ("plug-in answers", Box::new(read))]
        {
            let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
            started.map_err(|error| away(format!("its threads cannot be started: {error}")))?;
        }
        let hello = Hello::default();
        let mut plugin = Plugin { hello, patience, desk, lines: Some(lines), gate: Gate::new(1) };
        let said = plugin.ask(&Ask::hello(), 0).map_err(|fault| match fault {
            Fault::Said { message, .. } | Fault::Lost(message) => away(message),
        })?;
        plugin.hello = message::hello(&said).map_err(|why| away(format!("the plug-in cannot be used: {why}")))?;
        plugin.gate = Gate::new(plugin.hello.at_once);
        Ok(plugin)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.desk.state().lost.is_some()
    }

    /// Sends a request, and returns by what its answers come.
    fn send(&self, ask: &Ask) -> Result<(u64, Receiver<Said>), Fault> {
        let (sender, answers) = bounded(ANSWERS_MAX);
        let mut state = self.desk.state();
        if let Some(why) = &state.lost {
            return Err(Fault::Lost(why.clone()));
        }
        let id = state.next;
        state.next += 1;
        state.waiting.insert(id, sender);
        drop(state);
        if let Some(lines) = &self.lines {
            let _ = lines.send(ask.line(id));
        }
        Ok((id, answers))
    }

    /// The next word about a request that moves so many bytes.
    fn hear(&self, answers: &Receiver<Said>, bytes: u64) -> Result<Said, Fault> {
        let patience = self.patience.silence + Duration::from_secs(bytes / self.patience.rate_min.max(1));
        let mut until = Instant::now() + patience;
        loop {
            match answers.recv_deadline(until) {
                Ok(Said::Alive) => until = Instant::now() + patience,
                Ok(said) => return Ok(said),
                Err(RecvTimeoutError::Disconnected) => return Err(Fault::Lost(self.desk.why())),
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = patience.as_secs_f64();
                    self.desk.lose(format!("the plug-in said nothing for {seconds} s, and was ended"));
                    return Err(Fault::Lost(self.desk.why()));
                }
            }
        }
    }

    /// Asks something that has one answer.
    pub(super) fn ask(&self, ask: &Ask, bytes: u64) -> Result<Done, Fault> {
        let _turn = self.gate.enter();
        let (_, answers) = self.send(ask)?;
        match self.hear(&answers, bytes)? {
            Said::Done(done) => Ok(done),
            Said::Failed { kind, message } => Err(Fault::Said { kind, message }),
            Said::Item(_) | Said::Alive => {
                self.desk.lose("the plug-in lists something though nothing was to be listed".to_owned());
                Err(Fault::Lost(self.desk.why()))
            }
        }
    }

    /// Ends it at once, whatever it does.
    pub(super) fn kill(&self) {
        self.desk.lose("the plug-in is not needed any more".to_owned());
    }

    /// Asks for a list, and passes on what is ours of it. `Break`: whoever is told wants no more.
    pub(super) fn list(
        &self,
        ask: &Ask,
        path: &dyn Fn(&[u8]) -> Option<RelPath>,
        told: &mut Told<'_>,
    ) -> Result<ControlFlow<()>, Fault> {
        let _turn = self.gate.enter();
        let (id, answers) = self.send(ask)?;
        loop {
            match self.hear(&answers, 0)? {
                Said::Done(_) => return Ok(ControlFlow::Continue(())),
                Said::Failed { kind, message } => return Err(Fault::Said { kind, message }),
                Said::Alive => {}
                Said::Item(listed) => {
                    let Some(path) = path(&listed.name) else { continue };
                    if told(Item { path, entry: listed.entry }) == ControlFlow::Break(()) {
                        self.desk.state().waiting.remove(&id);
                        if let Some(lines) = &self.lines {
                            let _ = lines.send(message::cancel(id));
                        }
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // Its input ends; what does not end by itself then is ended.
        self.lines = None;
        let process = self.desk.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(process) = process {
            process.end();
        }
    }
}

impl Desk {
    /// Nothing more comes: `error` says why, or else the end of the process does.
    fn end_by(&self, error: Option<String>) {
        if let Some(why) = error {
            self.lose(why);
        }
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(process) = process {
            self.lose(ended(&process.end()));
        }
        self.lose("the plug-in ended".to_owned());
    }
}

/// How a plug-in ended, for people.
fn ended(end: &End) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    let how = match end.status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("the plug-in ended with status {code}"),
        Some((None, Some(signal))) => format!("the plug-in was ended by signal {signal}"),
        _ => "the plug-in closed its output, and was ended".to_owned(),
    };
    match end.complaints.last() {
        Some(line) => format!("{how}: {line}"),
        None => how,
    }
}

/// Hands out what comes in, until nothing does; what made no sense, if anything.
fn deliver(output: ChildStdout, desk: &Desk) -> Option<String> {
    let mut output = BufReader::with_capacity(INPUT_BYTES, output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match output.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let rubbish = |why: String| {
            let text: String = String::from_utf8_lossy(&line).chars().take(SHOWN_MAX).collect();
            Some(format!("the plug-in answers rubbish ({why}): `{}`", text.trim_end().escape_debug()))
        };
        if line.last() != Some(&b'\n') && line.len() as u64 == LINE_MAX {
            return rubbish(format!("a line is longer than {LINE_MAX} bytes"));
        }
        let (id, said) = match message::read(&line) {
            Ok(read) => read,
            Err(why) => return rubbish(why),
        };
        let mut state = desk.state();
        if id >= state.next {
            return rubbish(format!("nothing with the id {id} was asked"));
        }
        // Who took a request back does not wait any more.
        let is_last = matches!(said, Said::Done(_) | Said::Failed { .. });
        let waiting = if is_last { state.waiting.remove(&id) } else { state.waiting.get(&id).cloned() };
        drop(state);
        if let Some(waiting) = waiting {
            let _ = waiting.send(said);
        }
    }
}

/// What a plug-in did is not what it was told.
pub(super) fn wrong(path: &RelPath, why: String) -> TargetError {
    TargetError::Io { doing: "write", path: shown(path), source: io::Error::other(why) }
}

/// A fault, as an error of the target.
pub(super) fn plugin_error(place: &str, doing: &'static str, path: &RelPath, fault: Fault) -> TargetError {
    let (kind, why) = match fault {
        Fault::Lost(why) => return TargetError::Away { place: place.to_owned(), why },
        Fault::Said { kind, message } => (kind, message),
    };
    let io = |kind| TargetError::Io { doing, path: shown(path), source: io::Error::new(kind, why.clone()) };
    match kind {
        Kind::Refused => TargetError::Refused { path: shown(path), why },
        Kind::Full => TargetError::Full { path: shown(path) },
        Kind::Away => TargetError::Away { place: place.to_owned(), why },
        Kind::Missing => io(io::ErrorKind::NotFound),
        Kind::Other => io(io::ErrorKind::Other),
    }
}
