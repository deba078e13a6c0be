//! From the queue to a command, and from its end to what is journaled of it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::claims::Held;
use super::queue::{Said, Waiting};
use super::{Trouble, Worker, now};
use crate::beneath::open_path;
use crate::inventory::{DirId, Known};
use crate::model::{Body, Facts, FileType, RelPath, RunProcess, RunStep, Seq};
use crate::trigger::{Finish, Group, Order, Output, Subject, run};

/// A file that is not what the inventory says of it is looked at again after this time: a record is on its way.
const AGAIN_MS: u64 = 200;
/// Read at once to hash a file.
const HASH_PIECE: usize = 256 * 1024;
/// Files of which one act tells.
const ACT_FILES_MAX: usize = 4_096;
/// Rows of the queue that are read at once.
const PAGE: usize = 1_024;
const PAGE_MIN: usize = 8;
/// Process groups without a command that are kept for the next.
const IDLE_MAX: usize = 64;

/// A version for which a command runs.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) waiting: Waiting,
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) inode: u64,
    pub(super) sha256: Option<[u8; 32]>,
    /// As what it is this host's, where others may run for it.
    pub(super) held: Option<Held>,
}

impl Item {
    pub(super) fn new(waiting: Waiting, key: String, facts: &Facts, sha256: Option<[u8; 32]>) -> Item {
        Item { waiting, key, size: facts.size, mtime_ns: facts.mtime_ns, inode: facts.inode, sha256, held: None }
    }
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) items: Arc<Vec<Item>>,
    group: Group,
}

/// A command that has ended.
#[derive(Debug)]
pub(super) struct Done {
    run: u64,
    finish: Finish,
}

/// What is known of a file at the moment when its command is to start.
enum Sight {
    /// It is what is to be run for.
    Same,
    /// It changed; a record of that will come.
    Changed,
}

impl Worker {
    pub(super) fn is_running(&self, file: i64, version: Seq) -> bool {
        self.busy.files.get(&file) == Some(&version)
    }

    /// Starts commands for what is due, as many as there is room for; whether any.
    pub(super) fn launch(&mut self) -> Result<bool, Trouble> {
        let mut starting: Vec<(Vec<Item>, Group)> = Vec::new();
        let room = self.settings.pace.concurrency.saturating_sub(self.running.len());
        while starting.len() < room {
            let items = self.at_one_state(Worker::take)?;
            if items.is_empty() {
                break;
            }
            let group = self.group()?;
            let started = self.started(&items, &group);
            self.acts.extend(started);
            starting.push((items, group));
        }
        if starting.is_empty() {
            self.tell()?;
            return Ok(false);
        }
        self.tell()?;
        self.durable()?;
        for (items, group) in starting {
            self.start(items, group);
        }
        Ok(true)
    }

    /// Takes from the queue what the next command is to be run for. What is taken is out of the queue.
    fn take(&mut self) -> Result<Vec<Item>, Trouble> {
        let (now_ms, max) = (self.now_ms(), self.settings.pace.batch.unwrap_or(1));
        let is_ordered = self.settings.pace.ordered;
        if is_ordered && !self.busy.files.is_empty() {
            return Ok(Vec::new());
        }
        let mut items: Vec<Item> = Vec::new();
        let mut at_hand = AtHand::default();
        // Those for which a command runs already stay where they are.
        let mut passed = 0;
        loop {
            let limit = PAGE.min(max - items.len()).max(PAGE_MIN);
            let page = match is_ordered {
                true => self.queue.first(limit)?,
                false => self.queue.due(now_ms, passed, limit)?,
            };
            let is_last = is_ordered || page.len() < limit;
            for waiting in page {
                if is_ordered && waiting.due_ms > now_ms {
                    break;
                }
                if self.busy.holds(&waiting) {
                    passed += 1;
                    continue;
                }
                // A file of a batch that failed is tried again alone.
                let is_alone = waiting.attempts > 0;
                if is_alone && !items.is_empty() {
                    return Ok(items);
                }
                if let Some(item) = self.item(waiting, &mut at_hand)? {
                    self.busy.add(&item.waiting);
                    items.push(item);
                }
                if items.len() >= max || (is_alone && !items.is_empty()) {
                    return Ok(items);
                }
            }
            if is_last {
                return Ok(items);
            }
        }
    }

    /// What waits, as it is now. `None`: it is not to be run for now, or not at all.
    fn item(&mut self, waiting: Waiting, at_hand: &mut AtHand) -> Result<Option<Item>, Trouble> {
        self.queue.remove(waiting.file)?;
        let known = self.known(&waiting, at_hand)?.filter(|known| known.file_id.0 == waiting.file);
        // Another version, or one that was not known to be written: its record is on its way.
        let known = known.filter(|known| known.version_seq == waiting.version);
        let Some((known, facts)) = known.and_then(|known| known.facts.clone().map(|facts| (known, facts))) else {
            self.let_go(&waiting)?;
            return Ok(None);
        };
        let key = self.key(waiting.file, waiting.version);
        let item = Item::new(waiting, key, &facts, known.sha256);
        match self.sight(&item, &mut at_hand.tops) {
            Sight::Same => self.claimed(item),
            Sight::Changed => {
                let due_ms = self.now_ms() + AGAIN_MS;
                self.queue.put(&Waiting { due_ms, ..item.waiting })?;
                Ok(None)
            }
        }
    }

    /// What the inventory has at the path of what waits.
    fn known(&self, waiting: &Waiting, at_hand: &mut AtHand) -> Result<Option<Known>, Trouble> {
        let Some((above, name)) = waiting.path.split() else { return Ok(None) };
        let dir = match &at_hand.dir {
            Some((root, path, dir)) if *root == waiting.root && path == above => *dir,
            _ => {
                let path = RelPath::new(above).unwrap_or_default();
                let dir = self.view.dir_by_path(&self.settings.roots[waiting.root].0, &path)?;
                at_hand.dir = Some((waiting.root, above.to_vec(), dir));
                dir
            }
        };
        Ok(match dir {
            Some(dir) => self.view.child(dir, name)?,
            None => None,
        })
    }

    /// Looks at the file itself.
    fn sight(&self, item: &Item, tops: &mut Tops) -> Sight {
        let top = tops.of(item.waiting.root, &self.settings.roots[item.waiting.root].1);
        match top.and_then(|top| open_file(top, item, OFlags::PATH)) {
            Some(_) => Sight::Same,
            None => Sight::Changed,
        }
    }

    /// Whether the file is what is meant, as far as a server is asked.
    pub(super) fn is_same_now(&self, item: &Item) -> bool {
        let top = open_top(&self.settings.roots[item.waiting.root].1);
        top.is_some_and(|top| open_file(top.as_fd(), item, OFlags::PATH).is_some())
    }

    /// A process group for a command.
    fn group(&mut self) -> Result<Group, Trouble> {
        while let Some(mut group) = self.idle.pop() {
            if group.is_alive() {
                return Ok(group);
            }
        }
        let group = Group::start(&self.settings.holder).map_err(Trouble::Group)?;
        self.own.add_group(group.id());
        Ok(group)
    }

    /// Acts about what one command is run for: few, for however many files.
    fn steps(&self, step: RunStep, items: &[Item], process: Option<&RunProcess>) -> Vec<Body> {
        let of_roots = items.chunk_by(|one, other| one.waiting.root == other.waiting.root);
        let one_act = |items: &[Item]| {
            let (first, others) = items.split_first()?;
            let Waiting { root, path, file, version, .. } = &first.waiting;
            let mut body = self.step(step, *root, path, (*file, *version), None);
            if let Body::Run(run) = &mut body {
                run.more = others.iter().map(|item| (item.waiting.file, item.waiting.version)).collect();
                run.process = process.map(|process| RunProcess { key: first.key.clone(), ..process.clone() });
            }
            Some(body)
        };
        of_roots.flat_map(|items| items.chunks(ACT_FILES_MAX)).filter_map(one_act).collect()
    }

    fn started(&self, items: &[Item], group: &Group) -> Vec<Body> {
        let (key, boot) = (String::new(), self.boot.clone());
        let process = RunProcess { key, group: group.id(), born: group.born(), boot };
        self.steps(RunStep::Started, items, Some(&process))
    }

    /// Starts a command that is journaled.
    fn start(&mut self, items: Vec<Item>, group: Group) {
        let number = self.next_run;
        self.next_run += 1;
        let (settings, understood) = (Arc::clone(&self.settings), Arc::clone(&self.understood));
        let (done, stop) = (self.finished.0.clone(), Arc::clone(&self.around.stop));
        let pulses = self.pulses(&items);
        let process = (group.pid(), format!("{}.{}", group.id(), group.born()));
        let items = Arc::new(items);
        let told = Arc::clone(&items);
        self.running.insert(number, Running { items, group });
        let spawned = std::thread::Builder::new().name("trigger-run".to_owned()).spawn(move || {
            // What others may take over is not to be run for here any more.
            let is_to_end = || stop.load(Ordering::Acquire) || !pulses.iter().all(|pulse| pulse.is_sure());
            let finish = match order(&settings, &understood, &told, process) {
                Ok(order) => run(order, is_to_end),
                Err(why) => failed(why),
            };
            drop(told);
            let _ = done.send(Done { run: number, finish });
        });
        if let Err(error) = spawned {
            let finish = failed(format!("no thread can be started: {error}"));
            let _ = self.finished.0.send(Done { run: number, finish });
        }
    }

    /// A command has ended: what becomes of its files.
    pub(super) fn ended(&mut self, done: Done) -> Result<(), Trouble> {
        let Done { run, finish } = done;
        let Some(running) = self.running.remove(&run) else { return Ok(()) };
        let Running { items, group } = running;
        let items = Arc::unwrap_or_clone(items);
        match &finish.why {
            // What is left of a group whose command failed is ended with it.
            Some(_) => drop(group),
            None if self.idle.len() < IDLE_MAX => self.idle.push(group),
            None => drop(group),
        }
        if !finish.is_cut {
            self.keep_output(&items, &finish)?;
        }
        if let Some(hears) = &self.settings.hears {
            // Whoever does not listen holds nothing up for long: it is kept.
            let _ =
                hears.send_timeout((finish.stdout.clone().into_bytes(), finish.stderr.clone().into_bytes()), HEAR_WAIT);
        }
        let count = items.len() as u64;
        let why = finish.why.unwrap_or_default();
        if why.is_empty() && self.settings.claim.is_some() {
            self.concluding.extend(items);
            return Ok(());
        }
        items.iter().for_each(|item| self.busy.remove(&item.waiting));
        if why.is_empty() {
            self.done_with(items);
            return Ok(());
        }
        for item in items {
            if !finish.is_cut {
                self.failed(item, &why)?;
            } else if !self.is_stopped() {
                self.ask_later(item.waiting)?;
            }
        }
        if !finish.is_cut {
            self.settings.meter.change(|reading| {
                reading.failed += count;
                reading.last_error = Some((now(), why));
            });
        }
        Ok(())
    }

    /// Versions are done.
    pub(super) fn done_with(&mut self, items: Vec<Item>) {
        self.acts.extend(self.steps(RunStep::Ran, &items, None));
        self.settings.meter.change(|reading| reading.done += items.len() as u64);
        if self.settings.then.is_some() {
            self.leaving.extend(items);
        }
    }

    /// An attempt failed: another follows, or none.
    fn failed(&mut self, mut item: Item, why: &str) -> Result<(), Trouble> {
        item.waiting.attempts += 1;
        let waiting = &mut item.waiting;
        let shown = String::from_utf8_lossy(waiting.path.as_bytes()).escape_debug().to_string();
        if waiting.attempts > self.settings.pace.retries {
            tracing::error!(trigger = %self.settings.name, path = shown, attempts = waiting.attempts, why, "given up");
            if !self.given_up(&item)? {
                return self.ask_later(item.waiting);
            }
            let Waiting { root, path, file, version, .. } = &item.waiting;
            self.acts.push(self.step(RunStep::Dead, *root, path, (*file, *version), Some(why)));
            return Ok(());
        }
        tracing::warn!(trigger = %self.settings.name, path = shown, attempts = waiting.attempts, why, "tried again later");
        let wait = self.settings.pace.wait_after(waiting.attempts);
        waiting.due_ms = self.now_ms() + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX / 4);
        Ok(self.queue.put(&item.waiting)?)
    }

    fn keep_output(&mut self, items: &[Item], finish: &Finish) -> Result<(), Trouble> {
        let Some(first) = items.first() else { return Ok(()) };
        if finish.why.is_none() && finish.stdout.all() == 0 && finish.stderr.all() == 0 {
            return Ok(());
        }
        let said = Said {
            at: now(),
            root: self.settings.roots[first.waiting.root].0.to_string(),
            path: first.waiting.path.clone(),
            version: first.waiting.version,
            why: finish.why.clone(),
            took_ms: u64::try_from(finish.took.as_millis()).unwrap_or(u64::MAX),
            stdout: finish.stdout.clone().into_bytes(),
            stderr: finish.stderr.clone().into_bytes(),
        };
        Ok(self.queue.keep(&said)?)
    }
}

/// What a command said waits so long for whoever hears it.
const HEAR_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// A run that did not come about.
fn failed(why: String) -> Finish {
    Finish {
        why: Some(why),
        is_cut: false,
        stdout: Output::default(),
        stderr: Output::default(),
        took: std::time::Duration::ZERO,
    }
}

/// The files and paths for which commands run: for each one after the other.
#[derive(Debug, Default)]
pub(super) struct Busy {
    files: HashMap<i64, Seq>,
    paths: HashSet<(usize, RelPath)>,
}

impl Busy {
    pub(super) fn of<'r>(items: impl Iterator<Item = &'r Item>) -> Busy {
        let mut busy = Busy::default();
        items.for_each(|item| busy.add(&item.waiting));
        busy
    }

    fn holds(&self, waiting: &Waiting) -> bool {
        self.files.contains_key(&waiting.file) || self.paths.contains(&(waiting.root, waiting.path.clone()))
    }

    fn add(&mut self, waiting: &Waiting) {
        self.files.insert(waiting.file, waiting.version);
        self.paths.insert((waiting.root, waiting.path.clone()));
    }

    pub(super) fn remove(&mut self, waiting: &Waiting) {
        self.files.remove(&waiting.file);
        self.paths.remove(&(waiting.root, waiting.path.clone()));
    }
}

/// What was found for one file and is good for the next.
#[derive(Default)]
struct AtHand {
    tops: Tops,
    /// A directory, by its root and path there; `None`: the inventory has none.
    dir: Option<(usize, Vec<u8>, Option<DirId>)>,
}

/// The roots' directories, while files are looked at.
#[derive(Default)]
pub(super) struct Tops(HashMap<usize, Option<OwnedFd>>);

impl Tops {
    pub(super) fn of(&mut self, root: usize, top: &Path) -> Option<BorrowedFd<'_>> {
        self.0.entry(root).or_insert_with(|| open_top(top)).as_ref().map(OwnedFd::as_fd)
    }
}

fn open_top(top: &Path) -> Option<OwnedFd> {
    rustix::fs::open(top, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Opens the file of an item, if it is the version that is meant.
pub(super) fn open_file(top: BorrowedFd<'_>, item: &Item, flags: OFlags) -> Option<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open_path(top, &item.waiting.path, flags).ok()?;
    is_same(&file, item).then_some(file)
}

/// Whether a file is the version that is meant.
pub(super) fn is_same(file: &OwnedFd, item: &Item) -> bool {
    let Ok(stat) = rustix::fs::fstat(file) else { return false };
    let mtime_ns = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    FileType::of_mode(stat.st_mode) == FileType::File
        && u64::try_from(stat.st_size) == Ok(item.size)
        && mtime_ns == i128::from(item.mtime_ns)
        && stat.st_ino == item.inode
}

/// The SHA-256 of the version that is meant, in hexadecimal digits.
fn digest(top: &Path, item: &Item) -> Result<String, String> {
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(known) = &item.sha256 {
        return Ok(hex(known));
    }
    let changed = || "it changed before its content could be hashed".to_owned();
    let top = open_top(top).ok_or_else(changed)?;
    let file = open_file(top.as_fd(), item, OFlags::RDONLY | OFlags::NONBLOCK).ok_or_else(changed)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; HASH_PIECE]);
    loop {
        match rustix::io::read(&file, &mut buffer[..]) {
            Ok(0) => break,
            Ok(length) => hash.update(&buffer[..length]),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(format!("it cannot be read to be hashed: {errno}")),
        }
    }
    if is_same(&file, item) { Ok(hex(&hash.finalize())) } else { Err(changed()) }
}

/// What is run for these files.
fn order(
    settings: &super::TriggerSettings,
    understood: &super::Understood,
    items: &[Item],
    (process_group, process): (rustix::process::Pid, String),
) -> Result<Order, String> {
    let first = items.first().ok_or("there is no file")?;
    let (root, top) = &settings.roots[first.waiting.root];
    let sha256 = match understood.wants_hash && settings.pace.batch.is_none() {
        true => digest(top, first)?,
        false => String::new(),
    };
    let subject = Subject {
        top,
        root: root.as_str(),
        path: &first.waiting.path,
        version: first.waiting.version,
        key: &first.key,
        sha256: &sha256,
    };
    let mut environment = settings.run_as.environment.clone();
    environment.push((OsString::from("KEEPWATCH_TRIGGER"), settings.name.as_str().into()));
    // By which what is left of a run is found when its leader is gone.
    environment.push((OsString::from("KEEPWATCH_RUN"), process.into()));
    let input = if settings.pace.batch.is_some() {
        // The key is that of the first file; a path stands on the standard input only.
        environment.push((OsString::from("KEEPWATCH_KEY"), first.key.as_str().into()));
        Some(listed(settings, items).map_err(|error| format!("the paths cannot be handed on: {error}"))?)
    } else {
        environment.extend(subject.environment().into_iter().map(|(name, value)| (OsString::from(name), value)));
        None
    };
    Ok(Order {
        words: understood.words.iter().map(|word| word.fill(&subject)).collect(),
        environment,
        dir: settings.run_as.dir.clone(),
        user: settings.run_as.user,
        group: settings.run_as.group,
        input,
        process_group,
        timeout: settings.pace.timeout,
    })
}

/// The absolute paths of files, each ended by a NUL, to be read from the beginning.
fn listed(settings: &super::TriggerSettings, items: &[Item]) -> std::io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(c"keepwatch-paths", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::io::BufWriter::new(std::fs::File::from(file));
    for item in items {
        let top = &settings.roots[item.waiting.root].1;
        file.write_all(top.as_os_str().as_bytes())?;
        file.write_all(b"/")?;
        file.write_all(item.waiting.path.as_bytes())?;
        file.write_all(b"\0")?;
    }
    let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    std::io::Seek::rewind(&mut file)?;
    Ok(file.into())
}
