//! Of several hosts that watch one shared folder, one runs: asking for a path before its command starts, and saying so when it is done.
//!
//! A thread for each folder tells the others that this host lives. When it cannot, they will take over what this one has: so its
//! own commands are ended well before that.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::launch::Item;
use super::queue::Waiting;
use super::settings::TriggerSettings;
use super::{Trouble, Worker};
use crate::inventory::{FileId, RunState};
use crate::model::{RelPath, RunStep};
use crate::trigger::claim::{Answer, Content, Folder, Life, Listener, Slot, Stage, Token, decide, plain};

/// A host says that it lives so many times in the time after which it is held to be over.
const BEATS: u32 = 12;
/// Of each of these times it uses one part in so many for tidying up.
const SWEEP_PART: u32 = 4;
/// A path that another host has is asked for again after this time.
const ASK_AGAIN_MS: u64 = 1_000;
/// How long the end waits for a last word to each folder.
const LAST_WORD_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked whether it is to end.
const LOOK_WAIT: Duration = Duration::from_millis(20);

/// This host's life in a folder.
#[derive(Debug)]
pub(super) struct Pulse {
    folder: Folder,
    timeout: Duration,
    /// What it says; of life 0 until it was said once.
    life: Mutex<Life>,
    /// When what reached the folder last was begun.
    last: Mutex<Option<Instant>>,
    beats: AtomicU64,
    trouble: Mutex<Option<String>>,
    stop: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pulse {
    /// Whether no other host can hold this one to be over.
    pub(super) fn is_sure(&self) -> bool {
        lock(&self.last).is_some_and(|last| last.elapsed() < self.timeout / 2)
    }

    fn check(&self) -> Result<(), Trouble> {
        if self.is_sure() {
            return Ok(());
        }
        let why = lock(&self.trouble).clone();
        Err(Trouble::Claims(why.unwrap_or_else(|| "the shared folder does not answer".to_owned())))
    }

    fn run(&self) {
        let wait = self.timeout / BEATS;
        let (mut part, mut behind) = (0_u8, String::new());
        while !self.stop.load(Ordering::Acquire) {
            let begun = Instant::now();
            *lock(&self.trouble) = self.say(false).err().map(|error| error.to_string());
            if self.is_sure() {
                let own = lock(&self.life).clone();
                match self.folder.sweep(part, &behind, &own, begun + wait / SWEEP_PART) {
                    Ok(Some(name)) => behind = name,
                    Ok(None) | Err(_) => (part, behind) = (part.wrapping_add(1), String::new()),
                }
            }
            while begun.elapsed() < wait && !self.stop.load(Ordering::Acquire) {
                std::thread::sleep(LOOK_WAIT);
            }
        }
        // Without this word others find out by themselves.
        let _ = self.say(true);
    }

    fn say(&self, has_ended: bool) -> std::io::Result<()> {
        let begun = Instant::now();
        let mut life = lock(&self.life).clone();
        if life.life == 0 {
            let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs());
            let before = self.folder.life(&life.state)?.map_or(0, |before| before.life);
            life.life = seconds.max(before + 1);
        }
        (life.beat, life.has_ended) = (life.beat + 1, has_ended);
        self.folder.say(&life)?;
        *lock(&self.life) = life;
        *lock(&self.last) = Some(begun);
        self.beats.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// A folder, and who is heard there.
struct Shared {
    pulse: Arc<Pulse>,
    listener: Listener,
    thread: Option<JoinHandle<()>>,
}

/// The folders of a trigger, by the places of its roots.
pub(super) struct Claims(Vec<Shared>);

impl Claims {
    /// Begins to live in all folders, as the host with this state and name.
    pub(super) fn start(settings: &TriggerSettings, timeout: Duration, state: &str, host: &str) -> Claims {
        let begin = |top: &Path| {
            let pulse = Arc::new(Pulse {
                folder: Folder::new(top, &settings.name),
                timeout,
                life: Mutex::new(Life::of_this_process(&plain(state), &plain(host), 0)),
                last: Mutex::new(None),
                beats: AtomicU64::new(0),
                trouble: Mutex::new(None),
                stop: AtomicBool::new(false),
            });
            let beating = Arc::clone(&pulse);
            let thread = std::thread::Builder::new().name("trigger-life".to_owned()).spawn(move || beating.run());
            if let Err(error) = &thread {
                *lock(&pulse.trouble) = Some(format!("no thread can be started: {error}"));
            }
            Shared { pulse, listener: Listener::default(), thread: thread.ok() }
        };
        Claims(settings.roots.iter().map(|(_, top)| begin(top)).collect())
    }

    /// This host's life in the folder of a root.
    pub(super) fn pulse(&self, root: usize) -> Arc<Pulse> {
        Arc::clone(&self.0[root].pulse)
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.0.iter().for_each(|shared| shared.pulse.stop.store(true, Ordering::Release));
        // A folder that does not answer holds nothing up.
        let until = Instant::now() + LAST_WORD_WAIT;
        for thread in self.0.iter_mut().filter_map(|shared| shared.thread.take()) {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(LOOK_WAIT);
            }
        }
    }
}

/// What a path was, and is now, to this host.
#[derive(Clone, Debug)]
pub(super) struct Held {
    before: Option<Token>,
    token: Token,
}

impl Held {
    /// What the command is told, on whatever host.
    pub(super) fn key(&self) -> &str {
        &self.token.key
    }
}

impl Shared {
    /// Asks for a path.
    fn ask(&mut self, item: &Item, is_asked_for: bool) -> std::io::Result<Asking> {
        let path = &item.waiting.path;
        let (slot, wanted) = (Slot::of(path), content(item));
        let found = self.pulse.folder.read(&slot)?;
        let own = lock(&self.pulse.life).clone();
        let is_over = match found.as_ref().filter(|token| token.stage == Stage::Runs) {
            Some(token) => {
                let said = self.pulse.folder.life(&token.state)?;
                let beats = self.pulse.beats.load(Ordering::Acquire);
                self.listener.is_over(token, said.as_ref(), (&own, beats), self.pulse.timeout, Instant::now())
            }
            None => false,
        };
        let holder = |token: Option<Token>| token.map(|token| (token.host, token.state == own.state));
        match decide(found.as_ref(), &wanted, is_over, is_asked_for) {
            Answer::Wait => return Ok(Asking::Wait),
            Answer::Done => return Ok(Asking::Done(holder(found).unwrap_or_default())),
            Answer::Dead => return Ok(Asking::Dead(holder(found).unwrap_or_default().0)),
            Answer::Take => {}
        }
        let same = found.as_ref().filter(|token| token.content.is_same(&wanted));
        let token = Token {
            number: found.as_ref().map_or(1, |token| token.number + 1),
            stage: Stage::Runs,
            content: wanted,
            key: same.map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), |token| token.key.clone()),
            life: own.life,
            state: own.state,
            host: own.host,
        };
        Ok(match self.pulse.folder.change(&slot, path, found.as_ref(), &token)? {
            true => Asking::Ours(Held { before: found, token }),
            false => Asking::Wait,
        })
    }

    /// Gives a path back as it was.
    fn give_back(&self, path: &RelPath, held: &Held) -> std::io::Result<()> {
        let back = match &held.before {
            Some(before) if before.stage != Stage::Runs => Token { number: held.token.number + 1, ..before.clone() },
            _ => held.token.then(Stage::Free),
        };
        self.pulse.folder.change(&Slot::of(path), path, Some(&held.token), &back).map(|_| ())
    }
}

/// What became of asking for a path.
#[derive(Debug)]
enum Asking {
    Ours(Held),
    /// Another host has it, or was faster.
    Wait,
    /// The version is done: by which host, and whether that is this one.
    Done((String, bool)),
    /// It was given up, by which host.
    Dead(String),
}

fn content(item: &Item) -> Content {
    Content { size: item.size, mtime_ns: item.mtime_ns }
}

impl Worker {
    /// Makes sure that no other host runs for an item, if others may. `None`: it is not to be run for here, or not now.
    pub(super) fn claimed(&mut self, mut item: Item) -> Result<Option<Item>, Trouble> {
        let root = item.waiting.root;
        if self.claims.is_none() {
            return Ok(Some(item));
        }
        let file = FileId(item.waiting.file);
        let row = self.view.run_of(self.id, file)?.filter(|row| row.version == item.waiting.version);
        let is_asked_for = row.is_some_and(|row| row.state == RunState::Resumed);
        let Some(claims) = &mut self.claims else { return Ok(Some(item)) };
        claims.0[root].pulse.check()?;
        match claims.0[root].ask(&item, is_asked_for)? {
            Asking::Ours(held) => {
                // It may be that another host ran for what came meanwhile: what is not this version is not ours to run for.
                if !self.is_same_now(&item) {
                    self.give_back(&item.waiting, &held)?;
                    self.ask_later(item.waiting)?;
                    return Ok(None);
                }
                held.key().clone_into(&mut item.key);
                item.held = Some(held);
                return Ok(Some(item));
            }
            Asking::Wait => self.ask_later(item.waiting)?,
            Asking::Done((_, true)) => self.done_with(vec![item]),
            Asking::Done((host, false)) => self.done_elsewhere(&item.waiting, RunStep::Ran, &format!("done by {host}")),
            Asking::Dead(host) => self.done_elsewhere(&item.waiting, RunStep::Dead, &format!("given up by {host}")),
        }
        Ok(None)
    }

    fn done_elsewhere(&mut self, waiting: &Waiting, step: RunStep, why: &str) {
        let Waiting { root, path, file, version, .. } = waiting;
        self.acts.push(self.step(step, *root, path, (*file, *version), Some(why)));
    }

    /// What another host has, or what this one lost, is looked at again.
    pub(super) fn ask_later(&mut self, waiting: Waiting) -> Result<(), Trouble> {
        let due_ms = self.now_ms() + ASK_AGAIN_MS;
        Ok(self.queue.put(&Waiting { due_ms, ..waiting })?)
    }

    fn give_back(&self, waiting: &Waiting, held: &Held) -> Result<(), Trouble> {
        let Some(claims) = &self.claims else { return Ok(()) };
        Ok(claims.0[waiting.root].give_back(&waiting.path, held)?)
    }

    /// What waited for another attempt here is not to be run for any more: others may have it.
    pub(super) fn let_go(&self, waiting: &Waiting) -> Result<(), Trouble> {
        let Some(claims) = self.claims.as_ref().filter(|_| waiting.attempts > 0) else { return Ok(()) };
        let shared = &claims.0[waiting.root];
        let own = lock(&shared.pulse.life).clone();
        let found = shared.pulse.folder.read(&Slot::of(&waiting.path))?;
        match found.filter(|token| token.stage == Stage::Runs && token.state == own.state && token.life == own.life) {
            Some(token) => self.give_back(waiting, &Held { before: None, token }),
            None => Ok(()),
        }
    }

    /// Tells the other hosts that an item was given up, if it is this one's still.
    pub(super) fn given_up(&self, item: &Item) -> Result<bool, Trouble> {
        self.conclude_as(item, Stage::Dead)
    }

    fn conclude_as(&self, item: &Item, stage: Stage) -> Result<bool, Trouble> {
        let (Some(claims), Some(held)) = (&self.claims, &item.held) else { return Ok(true) };
        let path = &item.waiting.path;
        let folder = &claims.0[item.waiting.root].pulse.folder;
        Ok(folder.change(&Slot::of(path), path, Some(&held.token), &held.token.then(stage))?)
    }

    /// Tells the other hosts what was fine. A path that one of them took over meanwhile is theirs, with the success.
    pub(super) fn conclude(&mut self) -> Result<(), Trouble> {
        while let Some(item) = self.concluding.last() {
            let is_ours = self.conclude_as(item, Stage::Done)?;
            let Some(item) = self.concluding.pop() else { break };
            self.busy.remove(&item.waiting);
            match is_ours {
                true => self.done_with(vec![item]),
                false => self.ask_later(item.waiting)?,
            }
        }
        Ok(())
    }

    /// The folders in which items are held.
    pub(super) fn pulses(&self, items: &[Item]) -> Vec<Arc<Pulse>> {
        let Some(claims) = &self.claims else { return Vec::new() };
        let mut roots: Vec<usize> = items.iter().map(|item| item.waiting.root).collect();
        roots.sort_unstable();
        roots.dedup();
        roots.into_iter().map(|root| claims.pulse(root)).collect()
    }
}
