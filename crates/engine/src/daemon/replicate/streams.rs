//! Originals, copies and a target's listing as streams in the order of their keys, read in pages: nothing is held for long, and
//! what changes meanwhile comes again by the journal.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::daemon::progress::Progress;
use crate::inventory::{CopyRow, DirId, InventoryError, Known, View, range_end};
use crate::model::{FileType, RelPath};
use crate::sync::plan::{Held, KeyOrder, Original, Seen};

/// Rows read at once.
const PAGE: usize = 512;
/// A page of names of which none became complete for so long is not waited for.
const PATIENCE: Duration = Duration::from_millis(250);
/// After so many such pages, none is.
const IN_VAIN_MAX: u32 = 4;

/// The first thing that went wrong in a stream, which ends there.
pub(super) type Fault = Rc<RefCell<Option<InventoryError>>>;

fn page<T>(fault: &Fault, read: Result<Vec<T>, InventoryError>) -> Vec<T> {
    read.unwrap_or_else(|error| {
        fault.borrow_mut().get_or_insert(error);
        Vec::new()
    })
}

/// What a plan needs of what is known under a name; `None` where it was never read.
pub(super) fn original(known: &Known) -> Option<Original> {
    let facts = match (&known.facts, known.kind) {
        (Some(facts), _) => facts,
        (None, Some(FileType::Dir)) => {
            return Some(Original {
                file: known.file_id.0,
                kind: FileType::Dir,
                size: 0,
                mtime_ns: 0,
                inode: 0,
                nlink: 1,
                target: None,
                version: known.version_seq,
                last: known.last_seq,
                is_settled: true,
            });
        }
        (None, _) => return None,
    };
    Some(Original {
        file: known.file_id.0,
        kind: facts.kind,
        size: facts.size,
        mtime_ns: facts.mtime_ns,
        inode: facts.inode,
        nlink: facts.nlink,
        target: facts.target.clone(),
        version: known.version_seq,
        last: known.last_seq,
        is_settled: known.is_settled(),
    })
}

/// What a plan needs of a copy.
pub(super) fn held(row: &CopyRow) -> Held {
    Held {
        file: row.file_id.0,
        kind: row.kind,
        of: row.of,
        size: row.size,
        mtime_ns: row.mtime_ns,
        sha256: row.sha256,
        proof: row.proof,
    }
}

/// Waits for originals that were found just now until they are known to be complete: the sequencer looks at one after another, in
/// about the order in which they are read here, and is faster than copying. Else they would all come again, one by one, by the
/// journal.
pub(super) struct Patience<'p> {
    progress: &'p Progress,
    /// Pages of names that may be waited for in vain.
    left: Cell<u32>,
}

impl<'p> Patience<'p> {
    /// For as long as it is of use; none at all where originals need not be new.
    pub(super) fn new(progress: &'p Progress, are_new: bool) -> Rc<Self> {
        Rc::new(Patience { progress, left: Cell::new(if are_new { IN_VAIN_MAX } else { 0 }) })
    }

    fn read(&self, mut read: impl FnMut() -> Vec<(Vec<u8>, Known)>) -> Vec<(Vec<u8>, Known)> {
        let is_open = |known: &Known| known.kind == Some(FileType::File) && !known.is_settled();
        let mut rows = read();
        let (mut least, mut since) = (usize::MAX, Instant::now());
        while self.left.get() > 0 {
            let open = rows.iter().filter(|(_, known)| is_open(known)).count();
            if open == 0 {
                break;
            }
            if open < least {
                (least, since) = (open, Instant::now());
            }
            // Before it has applied something the inventory tells nothing else.
            let is_more = self.progress.wait_for(self.progress.applied().next(), PATIENCE);
            if !is_more || since.elapsed() > PATIENCE {
                self.left.set(self.left.get() - 1);
                break;
            }
            rows = read();
        }
        rows
    }
}

/// The names of a directory, in the order of their bytes.
struct Names<'v> {
    view: &'v View,
    patience: Rc<Patience<'v>>,
    dir: DirId,
    rows: std::vec::IntoIter<(Vec<u8>, Known)>,
    after: Vec<u8>,
    is_last: bool,
    fault: Fault,
}

impl Iterator for Names<'_> {
    type Item = (Vec<u8>, Known);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((name, known)) = self.rows.next() {
                self.after.clone_from(&name);
                // A name that an exchange has set aside for a moment is none.
                if name.contains(&0) {
                    continue;
                }
                return Some((name, known));
            }
            if self.is_last {
                return None;
            }
            let read = || page(&self.fault, self.view.children_after(self.dir, &self.after, PAGE));
            let rows = self.patience.read(read);
            self.is_last = rows.len() < PAGE;
            self.rows = rows.into_iter();
        }
    }
}

/// All originals of a root.
pub(super) struct Originals<'v> {
    view: &'v View,
    patience: Rc<Patience<'v>>,
    fault: Fault,
    levels: Vec<(Vec<u8>, KeyOrder<Names<'v>, Known>)>,
}

impl<'v> Originals<'v> {
    /// Below this directory, whose key is `prefix`: empty for a root's own.
    pub(super) fn new(view: &'v View, patience: Rc<Patience<'v>>, dir: DirId, prefix: Vec<u8>, fault: Fault) -> Self {
        let mut all = Originals { view, patience, fault, levels: Vec::new() };
        all.enter(dir, prefix);
        all
    }

    fn enter(&mut self, dir: DirId, prefix: Vec<u8>) {
        let names = Names {
            view: self.view,
            patience: Rc::clone(&self.patience),
            dir,
            rows: Vec::new().into_iter(),
            after: Vec::new(),
            is_last: false,
            fault: Rc::clone(&self.fault),
        };
        self.levels.push((prefix, KeyOrder::new(names, |known: &Known| known.kind == Some(FileType::Dir))));
    }
}

impl Iterator for Originals<'_> {
    type Item = (Vec<u8>, Original);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((prefix, names)) = self.levels.last_mut() {
            let Some((name, known)) = names.next() else {
                self.levels.pop();
                continue;
            };
            let key = [&prefix[..], &name[..]].concat();
            if let Some(dir) = known.dir_id() {
                self.enter(dir, key.clone());
            }
            if let Some(original) = original(&known) {
                return Some((key, original));
            }
        }
        None
    }
}

/// All copies of a root on a replica.
pub(super) struct Copies<'v> {
    view: &'v View,
    replica: i64,
    root: DirId,
    rows: std::vec::IntoIter<CopyRow>,
    after: Vec<u8>,
    end: Option<Vec<u8>>,
    is_last: bool,
    fault: Fault,
}

impl<'v> Copies<'v> {
    /// Below the directory with this key: empty for the root's own.
    pub(super) fn new(view: &'v View, replica: i64, root: DirId, prefix: Vec<u8>, fault: Fault) -> Self {
        let end = (!prefix.is_empty()).then(|| range_end(&prefix));
        Copies { view, replica, root, rows: Vec::new().into_iter(), after: prefix, end, is_last: false, fault }
    }
}

impl Iterator for Copies<'_> {
    type Item = (Vec<u8>, Held);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                self.after.clone_from(&row.key);
                if self.end.as_ref().is_some_and(|end| row.key >= *end) {
                    self.is_last = true;
                    self.rows = Vec::new().into_iter();
                    return None;
                }
                return Some((row.key.clone(), held(&row)));
            }
            if self.is_last {
                return None;
            }
            let rows = page(&self.fault, self.view.copies_after(self.replica, self.root, &self.after, PAGE));
            self.is_last = rows.len() < PAGE;
            self.rows = rows.into_iter();
        }
    }
}

/// What a listing tells of in its own thread.
pub(super) struct Listing(pub(super) Option<Receiver<(Vec<u8>, Seen)>>);

impl Iterator for Listing {
    type Item = (Vec<u8>, Seen);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.as_ref()?.recv().ok()
    }
}

/// The path of a key.
pub(super) fn path_of(key: &[u8]) -> Option<RelPath> {
    RelPath::new(key.strip_suffix(b"/").unwrap_or(key)).ok().filter(|path| !path.is_root())
}
