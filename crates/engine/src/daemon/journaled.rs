//! The sequencer's ledger: the journal on disk and the inventory behind it.

use std::sync::Arc;
use std::time::Duration;

use keepwatch_journal::{Body, RelPath, RootName, Seq, Writer};

use crate::clock::Clock;
use crate::daemon::ledger::{Knowledge, Known, Ledger, NotDurable, Unsettled};
use crate::daemon::progress::Progress;
use crate::inventory::{ROOTS_DIR, View};

/// How long the inventory may take to catch up before its answer is given up for now.
const CATCH_UP_WAIT: Duration = Duration::from_secs(30);

/// Journal and inventory of this host.
pub struct Journaled {
    writer: Writer,
    view: View,
    progress: Arc<Progress>,
    clock: Arc<dyn Clock>,
    /// Nothing follows the journal: nothing is known but what was just told.
    blank: bool,
    /// How far the inventory had come when the view was held; answers are of no later state.
    held_at: Option<Seq>,
}

impl Journaled {
    /// Writes to `writer`, asks `view`, which nobody fills if it is `blank`.
    #[must_use]
    pub fn new(writer: Writer, view: View, progress: Arc<Progress>, clock: Arc<dyn Clock>, blank: bool) -> Self {
        Journaled { writer, view, progress, clock, blank, held_at: None }
    }

    /// The journal.
    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The inventory, for reading.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What the inventory says next is not older than now. Until then all answers since the last commit are of one state.
    pub fn let_go(&mut self) {
        self.held_at = None;
        // A view that cannot be let go of cannot be asked either, and says so then.
        let _ = self.view.let_go();
    }

    fn hold(&mut self) {
        // A view that cannot be held cannot be asked either; the follower tells why.
        if self.held_at.is_none() {
            self.held_at = Some(self.progress.applied());
            let _ = self.view.hold();
        }
    }

    /// Gives the journal back, to be closed.
    #[must_use]
    pub fn into_writer(self) -> Writer {
        self.writer
    }
}

fn known(known: crate::inventory::Known) -> Known {
    Known { settled: known.is_settled(), facts: known.facts }
}

impl Ledger for Journaled {
    fn append(&mut self, body: Body) -> Seq {
        self.writer.append(self.clock.now(), &body)
    }

    fn pending(&self) -> usize {
        self.writer.pending().0
    }

    fn commit(&mut self) -> Result<(), NotDurable> {
        self.let_go();
        match self.writer.commit() {
            Ok(_) => Ok(()),
            Err(error) => Err(NotDurable { reason: error.to_string() }),
        }
    }

    fn discard(&mut self) {
        self.writer.discard_pending();
    }

    fn catch_up(&mut self) -> bool {
        self.let_go();
        if self.blank {
            return self.commit().is_ok();
        }
        self.commit().is_ok() && self.progress.wait_for(self.writer.head().seq, CATCH_UP_WAIT)
    }

    fn applied(&self) -> Seq {
        self.held_at.unwrap_or_else(|| self.progress.applied())
    }

    fn child(&mut self, root: &RootName, dir: &RelPath, name: &[u8]) -> Knowledge {
        if self.blank {
            return Knowledge::Unknown;
        }
        // The inventory that cannot be read says nothing; the follower tells why.
        self.hold();
        let found = match (name, dir.split()) {
            (b"", None) => self.view.child(ROOTS_DIR, root.as_str().as_bytes()),
            (b"", Some((above, name))) => match RelPath::new(above) {
                Ok(above) => return self.child(root, &above, name),
                Err(_) => Ok(None),
            },
            (name, _) => self.view.dir_by_path(root, dir).and_then(|id| match id {
                Some(id) => self.view.child(id, name),
                None => Ok(None),
            }),
        };
        match found {
            Ok(Some(found)) => Knowledge::Yes(known(found)),
            Ok(None) => Knowledge::No,
            Err(_) => Knowledge::Unknown,
        }
    }

    fn by_inode(&mut self, root: &RootName, inode: u64) -> Vec<(RelPath, Known)> {
        if self.blank {
            return Vec::new();
        }
        self.hold();
        let found = self.view.by_inode(root, inode).unwrap_or_default();
        let place = |dir, name: &[u8]| match self.view.dir_path(dir) {
            Ok(Some((_, dir))) if !name.is_empty() => Some(dir.join(name)),
            _ => None,
        };
        found.into_iter().filter_map(|(dir, name, found)| Some((place(dir, &name)?, known(found)))).collect()
    }

    fn unsettled(&mut self, after: Seq, limit: usize) -> Vec<Unsettled> {
        if self.blank {
            return Vec::new();
        }
        self.let_go();
        let found = self.view.unsettled(after, limit).unwrap_or_default();
        let read = |one: crate::inventory::Unsettled| {
            Some(Unsettled { root: one.root, path: one.path, version: one.known.version_seq, facts: one.known.facts? })
        };
        found.into_iter().filter_map(read).collect()
    }
}
