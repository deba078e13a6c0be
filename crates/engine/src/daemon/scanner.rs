//! Walks a tree beside the inventory and tells of every name that differs. It proposes; the sequencer decides.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::Sender;
use keepwatch_journal::{Facts, FileType, RelPath, RootName, Seq, Via};
use rustix::fs::{Mode, OFlags, fstat, open};

use crate::beneath::open_beneath;
use crate::daemon::compare::{Differs, differs};
use crate::daemon::dirs::RootNo;
use crate::daemon::rules::{Rules, locked_by};
use crate::daemon::sequencer::{Difference, Found};
use crate::inventory::{DirId, InventoryError, KnownChild, View};
use crate::scan::{self, Chunk, Descend, Entry, OpenDir, Outcome, Seen, Step, Visitor, walk};
use crate::watch::DirKey;
use crate::watch::handle::dir_key;
use crate::watch::inotify::Inotify;
use crate::watch::magic::FsMagic;

/// Differences in one message.
const DIFFERENCES_MAX: usize = 4_096;
/// Known children asked for at once where a directory was too large to be compared in one piece.
const PAGE: usize = 4_096;

/// What to scan.
#[derive(Clone)]
pub struct Job {
    /// Its number, told back in [`Message::Done`].
    pub no: u64,
    /// Which root.
    pub root: RootNo,
    /// Its name, for the inventory.
    pub name: RootName,
    /// The root's path.
    pub top: PathBuf,
    /// The top directory that must be there: device and inode.
    pub object: (u64, u64),
    /// Where to start below it.
    pub at: RelPath,
    /// Who asks: a scan, or a poll.
    pub via: Via,
    /// What is left out.
    pub rules: Rules,
    /// Watches each directory before it is read.
    pub inotify: Option<Arc<Inotify>>,
    /// An empty top directory is not to be believed: nothing below it is reported absent.
    pub doubt_empty: bool,
    /// Only sets watches and tells where directories are, not what is in them.
    pub silent: bool,
    /// Threads.
    pub threads: NonZeroUsize,
    /// Counts the objects that were looked at so far.
    pub looked: Arc<AtomicU64>,
}

/// What a scan says.
#[derive(Debug)]
pub enum Message {
    /// A directory, and what differs in it.
    Found(Box<Found>),
    /// It is over.
    Done {
        /// Which.
        no: u64,
        /// What it came to.
        result: Result<Report, ScanError>,
    },
}

/// What a scan came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Objects looked at.
    pub scanned: u64,
    /// Names that differed.
    pub found: u64,
    /// Directories and entries that could not be read; their content was left as it was known.
    pub failed: u64,
    /// The first of these, in words.
    pub first_failure: Option<String>,
    /// The top directory was empty though the inventory knows files in it, and was not believed.
    pub empty: bool,
    /// It was ended before it was complete.
    pub cancelled: bool,
}

/// Why a scan could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The place to start from cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another directory than the root's is there.
    #[error("{path} is not the directory it was")]
    Replaced {
        /// The path.
        path: PathBuf,
    },
    /// The inventory could not be read.
    #[error("cannot compare with the inventory: {0}")]
    Inventory(#[from] InventoryError),
}

/// Opens connections to the inventory, one for each thread that compares.
pub type OpenView = dyn Fn() -> Result<View, InventoryError> + Send + Sync;

/// Runs a job and tells what differs, ending with [`Message::Done`].
pub fn run(job: &Job, open_view: &OpenView, applied: &AtomicU64, cancel: &AtomicBool, tell: &Sender<Message>) {
    let result = scan(job, open_view, applied, cancel, tell);
    // The service has ended if nobody hears it.
    let _ = tell.send(Message::Done { no: job.no, result });
}

fn scan(
    job: &Job,
    open_view: &OpenView,
    applied: &AtomicU64,
    cancel: &AtomicBool,
    tell: &Sender<Message>,
) -> Result<Report, ScanError> {
    let failed = |source: io::Error| ScanError::Open { path: job.top.clone(), source };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let top = open(&job.top, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let stat = fstat(&top).map_err(|error| failed(error.into()))?;
    if (stat.st_dev, stat.st_ino) != job.object {
        return Err(ScanError::Replaced { path: job.top.clone() });
    }
    let view = open_view()?;
    let start = view.dir_by_path(&job.name, &job.at)?;
    let first = view
        .dir_by_path(&job.name, &RelPath::ROOT)?
        .is_none_or(|dir| view.children_after(dir, b"", 1).is_ok_and(|children| children.is_empty()));
    let parent = parent_of(top.as_fd(), &job.at).map_err(failed)?;
    let comparer = Comparer {
        job,
        open_view,
        applied,
        cancel,
        tell,
        first,
        views: Mutex::new(vec![view]),
        found: AtomicU64::new(0),
        state: Mutex::new(State::default()),
    };
    let options = scan::Options { threads: job.threads, cancel: Some(cancel), ..scan::Options::default() };
    let token = Token { known: start, key: None, parent, chunked: false, base: Seq::ZERO };
    let summary = walk(top.as_fd(), &job.at, token, &comparer, &options);
    let state = comparer.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.broken {
        return Err(error.into());
    }
    Ok(Report {
        scanned: summary.entries,
        found: comparer.found.into_inner(),
        failed: summary.failed + state.failed,
        first_failure: state.first_failure,
        empty: state.empty,
        cancelled: summary.cancelled,
    })
}

/// The identity of the directory above `at`, and the name of `at` in it.
fn parent_of(top: BorrowedFd<'_>, at: &RelPath) -> io::Result<Option<(DirKey, Box<[u8]>)>> {
    let Some((dir, name)) = at.split() else { return Ok(None) };
    let dir = RelPath::new(dir).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let fd = open_beneath(top, &dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
    Ok(Some((dir_key(fd.as_fd())?, name.into())))
}

/// What travels with a directory.
struct Token {
    /// Its place in the inventory.
    known: Option<DirId>,
    key: Option<DirKey>,
    parent: Option<(DirKey, Box<[u8]>)>,
    /// It came in several chunks: absences are looked for at its end.
    chunked: bool,
    /// How far the inventory had come before the next chunk was read: what was told since may be newer than what is seen.
    base: Seq,
}

#[derive(Default)]
struct State {
    failed: u64,
    first_failure: Option<String>,
    empty: bool,
    broken: Option<InventoryError>,
}

struct Comparer<'a> {
    job: &'a Job,
    open_view: &'a OpenView,
    applied: &'a AtomicU64,
    cancel: &'a AtomicBool,
    tell: &'a Sender<Message>,
    first: bool,
    views: Mutex<Vec<View>>,
    found: AtomicU64,
    state: Mutex<State>,
}

impl Visitor for Comparer<'_> {
    type Token = Token;

    fn enter(&self, dir: &OpenDir<'_>, token: &mut Token) -> Step {
        if dir.depth > 0 && dir.stat.mount_root && FsMagic::of(dir.fd).is_ok_and(FsMagic::is_pseudo) {
            return Step::Skip;
        }
        let key = match dir_key(dir.fd) {
            Ok(key) => key,
            Err(error) => {
                self.fail(dir.path, &error);
                return Step::Skip;
            }
        };
        token.key = Some(key.clone());
        token.base = self.base();
        if let Some(inotify) = &self.job.inotify {
            // Where the directory is must be known before the first event of it can come.
            self.send(dir.path, token, token.base, true, Vec::new());
            if let Err(error) = inotify.watch_dir(dir.fd, &key) {
                self.fail(dir.path, &error);
            }
        }
        Step::Read
    }

    fn entries(&self, dir: &OpenDir<'_>, token: &mut Token, chunk: &Chunk<'_>, descend: &mut Descend<Token>) {
        let base = std::mem::replace(&mut token.base, self.base());
        self.job.looked.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if !chunk.whole() {
            token.chunked = true;
        }
        let compared = self.with_view(|view| {
            if chunk.whole() { self.merge(view, dir, token, chunk) } else { self.look_up(view, dir, token, chunk) }
        });
        let Some(compared) = compared else { return };
        let parent = token.key.clone();
        for (entry, known) in compared.below {
            let parent = parent.clone().map(|key| (key, Box::from(entry.name)));
            descend.walk(&entry, Token { known, key: None, parent, chunked: false, base: Seq::ZERO });
        }
        if !self.job.silent {
            self.send(dir.path, token, base, may_be_locked(chunk), compared.differences);
        }
    }

    fn leave(&self, dir: &OpenDir<'_>, token: Token, outcome: Outcome) {
        match outcome {
            Outcome::Complete if token.chunked => self.absences(dir, &token),
            Outcome::Complete | Outcome::Cancelled => {}
            Outcome::Failed(error) => self.fail(dir.path, &error),
        }
    }

    fn failed(&self, path: &RelPath, _: Token, error: io::Error) {
        // One that went meanwhile is told of by its parent.
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            self.fail(path, &error);
        }
    }
}

/// What the comparison of a chunk gave.
#[derive(Default)]
struct Compared<'c> {
    differences: Vec<Difference>,
    below: Vec<(Entry<'c>, Option<DirId>)>,
}

/// Whether one of the names may say of another file that it is being worked on. Of a directory that comes in several
/// chunks the others may.
fn may_be_locked(chunk: &Chunk<'_>) -> bool {
    !chunk.whole() || chunk.iter().any(|entry| locked_by(entry.name).is_some())
}

impl Comparer<'_> {
    fn base(&self) -> Seq {
        Seq(self.applied.load(Ordering::Acquire))
    }

    fn with_view<R>(&self, with: impl FnOnce(&View) -> Result<R, InventoryError>) -> Option<R> {
        let view = self.views.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let view = match view.map_or_else(self.open_view, Ok) {
            Ok(view) => view,
            Err(error) => return self.broken(error),
        };
        let result = with(&view);
        self.views.lock().unwrap_or_else(PoisonError::into_inner).push(view);
        result.map_or_else(|error| self.broken(error), Some)
    }

    fn broken<R>(&self, error: InventoryError) -> Option<R> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).broken.get_or_insert(error);
        self.cancel.store(true, Ordering::Release);
        None
    }

    fn fail(&self, path: &RelPath, error: &dyn std::fmt::Display) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed += 1;
        let dir = self.job.top.display();
        state.first_failure.get_or_insert_with(|| format!("{dir}: {path:?}: {error}"));
    }

    /// A whole, sorted directory beside its known children.
    fn merge<'c>(
        &self,
        view: &View,
        dir: &OpenDir<'_>,
        token: &Token,
        chunk: &Chunk<'c>,
    ) -> Result<Compared<'c>, InventoryError> {
        let mut compared = Compared::default();
        let mut entries = chunk.iter().peekable();
        if let Some(known) = token.known {
            let hide_absent = self.job.doubt_empty && dir.depth == 0 && dir.path.is_root() && chunk.is_empty();
            view.children(known, |child| {
                while let Some(entry) = entries.next_if(|entry| entry.name < child.name) {
                    self.compare(view, dir, &entry, None, &mut compared);
                }
                match entries.next_if(|entry| entry.name == child.name) {
                    Some(entry) => self.compare(view, dir, &entry, Some(&child), &mut compared),
                    None if hide_absent => {
                        self.state.lock().unwrap_or_else(PoisonError::into_inner).empty = true;
                    }
                    None => self.absent(dir, child.name, child.dir.is_some(), &mut compared.differences),
                }
            })?;
        }
        for entry in entries {
            self.compare(view, dir, &entry, None, &mut compared);
        }
        Ok(compared)
    }

    /// A part of a directory that is too large to be sorted, name by name.
    fn look_up<'c>(
        &self,
        view: &View,
        dir: &OpenDir<'_>,
        token: &Token,
        chunk: &Chunk<'c>,
    ) -> Result<Compared<'c>, InventoryError> {
        let mut compared = Compared::default();
        for entry in chunk.iter() {
            let known = match token.known {
                Some(known) => view.child(known, entry.name)?,
                None => None,
            };
            let child = known.map(|known| KnownChild {
                name: entry.name,
                file_id: known.file_id,
                dir: known.dir_id(),
                facts: known.facts,
            });
            self.compare(view, dir, &entry, child.as_ref(), &mut compared);
        }
        Ok(compared)
    }

    fn compare<'c>(
        &self,
        view: &View,
        dir: &OpenDir<'_>,
        entry: &Entry<'c>,
        known: Option<&KnownChild<'_>>,
        compared: &mut Compared<'c>,
    ) {
        let stat = match entry.seen {
            Seen::There(stat) => stat,
            Seen::Vanished => {
                if let Some(known) = known {
                    self.absent(dir, entry.name, known.dir.is_some(), &mut compared.differences);
                }
                return;
            }
            Seen::Failed(error) => {
                self.fail(&dir.path.join(entry.name), &error);
                return;
            }
        };
        let is_dir = stat.kind == FileType::Dir;
        if self.job.rules.leave_out(&dir.path.join(entry.name), is_dir) {
            return;
        }
        let facts = stat.facts(None);
        let known_facts = known.and_then(|known| known.facts.as_ref());
        let mut below = known.and_then(|known| known.dir);
        let seen = || (stat.kind != FileType::Symlink).then(|| Box::new(facts.clone()));
        match known_facts {
            Some(known) if differs(known, &facts) == Differs::Not => {}
            Some(known) => {
                if known.inode != facts.inode {
                    below = None;
                }
                compared.differences.push(Difference::Changed {
                    name: entry.name.into(),
                    known: Box::new(known.clone()),
                    seen: seen(),
                });
            }
            None => {
                let mut moved = false;
                if is_dir && !self.first && known.is_none() {
                    below = self.moved_dir(view, &facts);
                    moved = below.is_some();
                }
                compared.differences.push(Difference::New {
                    name: entry.name.into(),
                    seen: seen(),
                    taken_for_moved: moved,
                });
            }
        }
        if is_dir {
            compared.below.push((*entry, below));
        }
    }

    /// A directory that is known under another name by its inode, and has not changed since.
    fn moved_dir(&self, view: &View, facts: &Facts) -> Option<DirId> {
        let known = view.by_inode(&self.job.name, facts.inode).ok()?;
        known.into_iter().find_map(|(_, _, known)| {
            let dir = known.dir_id()?;
            (known.facts?.mtime_ns == facts.mtime_ns).then_some(dir)
        })
    }

    fn absent(&self, dir: &OpenDir<'_>, name: &[u8], is_dir: bool, differences: &mut Vec<Difference>) {
        if !self.job.rules.leave_out(&dir.path.join(name), is_dir) {
            differences.push(Difference::Absent { name: name.into() });
        }
    }

    /// The known children of a large directory that are not there.
    fn absences(&self, dir: &OpenDir<'_>, token: &Token) {
        let Some(known) = token.known else { return };
        let base = self.base();
        let mut after: Vec<u8> = Vec::new();
        loop {
            let page = self.with_view(|view| view.children_after(known, &after, PAGE));
            let Some(page) = page.filter(|page| !page.is_empty()) else { return };
            let mut differences = Vec::new();
            for (name, child) in &page {
                if matches!(scan::look(dir.fd, name), Ok(None)) {
                    self.absent(dir, name, child.dir_id().is_some(), &mut differences);
                }
            }
            if let Some((name, _)) = page.last() {
                after.clone_from(name);
            }
            self.send(dir.path, token, base, true, differences);
        }
    }

    fn send(&self, path: &RelPath, token: &Token, base: Seq, may_be_locked: bool, mut differences: Vec<Difference>) {
        let Some(key) = &token.key else { return };
        self.found.fetch_add(differences.len() as u64, Ordering::Relaxed);
        loop {
            let rest = differences.split_off(differences.len().min(DIFFERENCES_MAX));
            let found = Found {
                root: self.job.root,
                via: self.job.via,
                key: key.clone(),
                path: path.clone(),
                parent: token.parent.clone(),
                base,
                first: self.first,
                may_be_locked,
                differences,
            };
            if self.tell.send(Message::Found(Box::new(found))).is_err() {
                self.cancel.store(true, Ordering::Release);
                return;
            }
            if rest.is_empty() {
                return;
            }
            differences = rest;
        }
    }
}
