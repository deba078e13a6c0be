//! The originals that are to be read, directory by directory, in pieces that one thread reads.

use std::ops::ControlFlow;

use crate::fixity::hash::Hashes;
use crate::fixity::verdict::Expected;
use crate::inventory::{DirId, InventoryError, Known, View};
use crate::model::{Algorithm, Digest, FileType, RelPath, RootName, Seq, Timestamp};

/// Names read at once from a directory.
const PAGE: usize = 256;
/// Files and bytes in a piece.
const FILES_MAX: usize = 128;
const BYTES_MAX: u64 = 32 << 20;

/// A file that is to be read.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) name: Vec<u8>,
    pub(super) file: i64,
    pub(super) version: Seq,
    /// Whether the version is known to be complete.
    pub(super) is_settled: bool,
    /// The hash that is expected is that of an earlier version of the same size and mtime.
    pub(super) is_recalled: bool,
    pub(super) expected: Expected,
}

/// Files of one directory.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) root: usize,
    pub(super) dir: RelPath,
    pub(super) items: Vec<Item>,
    bytes: u64,
}

/// What of a root is walked, and what is left out.
#[derive(Clone, Copy)]
pub(super) struct Walk<'w> {
    pub(super) view: &'w View,
    pub(super) algorithm: Algorithm,
    /// Checks since then are good enough.
    pub(super) fresh_since: Option<Timestamp>,
    /// Versions that are not known to be complete are told of, too.
    pub(super) takes_unsettled: bool,
}

/// A name that is no file to be read now.
pub(super) enum Passed {
    /// It is being written.
    Busy,
    /// It was verified lately, is not a file, or was never read.
    Over,
}

struct Level {
    dir: DirId,
    unit: Unit,
    page: std::vec::IntoIter<(Vec<u8>, Known)>,
    after: Vec<u8>,
    is_last: bool,
}

impl Walk<'_> {
    /// Tells of the files at a path and below it, and of those that are busy. `index` is what the units carry as their root.
    pub(super) fn tree(
        &self,
        (index, root): (usize, &RootName),
        top: &RelPath,
        busy: &mut dyn FnMut(),
        each: &mut dyn FnMut(Unit) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, InventoryError> {
        let Some(root_dir) = self.view.root_dir(root)? else { return Ok(ControlFlow::Continue(())) };
        let Some(dir) = self.view.dir_by_path(root, top)? else {
            let Some((above, name)) = top.split() else { return Ok(ControlFlow::Continue(())) };
            let above = RelPath::new(above).unwrap_or_default();
            let Some(parent) = self.view.dir_by_path(root, &above)? else { return Ok(ControlFlow::Continue(())) };
            let mut unit = Unit { root: index, dir: above, items: Vec::new(), bytes: 0 };
            if let Some(known) = self.view.child(parent, name)? {
                self.add(&mut unit, root_dir, name.to_vec(), &known, busy)?;
            }
            return Ok(if unit.items.is_empty() { ControlFlow::Continue(()) } else { each(unit) });
        };
        // One state for all questions costs less; but who waits for room must not keep the writer's log from being cut.
        let mut hand_on = |unit: Unit| -> Result<ControlFlow<()>, InventoryError> {
            self.view.let_go()?;
            let flow = each(unit);
            self.view.hold()?;
            Ok(flow)
        };
        self.view.hold()?;
        let mut levels = vec![level(index, dir, top.clone())];
        while let Some(level_now) = levels.last_mut() {
            let Some((name, known)) = level_now.page.next() else {
                if level_now.is_last {
                    let Some(level) = levels.pop() else { break };
                    if !level.unit.items.is_empty() && hand_on(level.unit)?.is_break() {
                        self.view.let_go()?;
                        return Ok(ControlFlow::Break(()));
                    }
                } else {
                    let page = self.view.children_after(level_now.dir, &level_now.after, PAGE)?;
                    level_now.is_last = page.len() < PAGE;
                    level_now.page = page.into_iter();
                }
                continue;
            };
            level_now.after.clone_from(&name);
            // A name that an exchange has set aside for a moment is none.
            if name.contains(&0) {
                continue;
            }
            if let Some(dir) = known.dir_id() {
                let path = level_now.unit.dir.join(&name);
                levels.push(level(index, dir, path));
                continue;
            }
            self.add(&mut level_now.unit, root_dir, name, &known, busy)?;
            if level_now.unit.items.len() >= FILES_MAX || level_now.unit.bytes >= BYTES_MAX {
                let empty = Unit { items: Vec::new(), bytes: 0, ..level_now.unit.clone_place() };
                if hand_on(std::mem::replace(&mut level_now.unit, empty))?.is_break() {
                    self.view.let_go()?;
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        self.view.let_go()?;
        Ok(ControlFlow::Continue(()))
    }

    /// Tells of the files of a root whose last check was before a moment, the oldest first.
    pub(super) fn oldest(
        &self,
        (index, root, root_dir): (usize, &RootName, DirId),
        before: Timestamp,
        each: &mut dyn FnMut(Unit) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, InventoryError> {
        let anew = Walk { fresh_since: None, ..*self };
        let mut after = None;
        loop {
            let checks = self.view.checks_before(None, root_dir, after, before, PAGE)?;
            let Some(last) = checks.last() else { return Ok(ControlFlow::Continue(())) };
            after = Some((last.at, last.file_id));
            for check in checks {
                let names = self.view.names_of(check.file_id)?;
                let Some(named) = names.into_iter().find(|name| name.root == *root) else { continue };
                let Some((above, name)) = named.path.split() else { continue };
                let Ok(item) = anew.item(root_dir, name.to_vec(), &named.known)? else { continue };
                let bytes = item.expected.size;
                let dir = RelPath::new(above).unwrap_or_default();
                if each(Unit { root: index, dir, items: vec![item], bytes }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }

    fn add(
        &self,
        unit: &mut Unit,
        root: DirId,
        name: Vec<u8>,
        known: &Known,
        busy: &mut dyn FnMut(),
    ) -> Result<(), InventoryError> {
        match self.item(root, name, known)? {
            Ok(item) => {
                unit.bytes += item.expected.size;
                unit.items.push(item);
            }
            Err(Passed::Busy) => busy(),
            Err(Passed::Over) => {}
        }
        Ok(())
    }

    /// What is to be read under a name; what is not.
    pub(super) fn item(
        &self,
        root: DirId,
        name: Vec<u8>,
        known: &Known,
    ) -> Result<Result<Item, Passed>, InventoryError> {
        let Some(facts) = known.facts.as_ref().filter(|facts| facts.kind == FileType::File) else {
            return Ok(Err(Passed::Over));
        };
        if self.view.is_released(known.file_id)? {
            return Ok(Err(Passed::Over));
        }
        let is_settled = known.is_settled();
        if !is_settled && !self.takes_unsettled {
            return Ok(Err(Passed::Busy));
        }
        if let Some(since) = self.fresh_since
            && let Some(check) = self.view.check(None, root, known.file_id)?
            && check.of == known.version_seq
            && check.at >= since
        {
            return Ok(Err(Passed::Over));
        }
        let blake3 = match self.algorithm {
            Algorithm::Blake3 => self.view.blake3(known.file_id, known.version_seq)?.map(Digest),
            Algorithm::Sha256 => None,
        };
        // Who writes and puts the mtime back leaves two changes behind, or none: the content has to be what it was either way.
        let (sha256, is_recalled) = match known.sha256 {
            Some(sha256) => (Some(sha256), false),
            None => (self.view.hash_before(known.file_id, facts.size, facts.mtime_ns)?, true),
        };
        Ok(Ok(Item {
            name,
            is_recalled,
            file: known.file_id.0,
            version: known.version_seq,
            is_settled,
            expected: Expected {
                size: facts.size,
                mtime_ns: facts.mtime_ns,
                ctime_ns: Some(facts.ctime_ns),
                inode: Some(facts.inode),
                hashes: Hashes { sha256: sha256.map(Digest), blake3 },
            },
        }))
    }
}

impl Unit {
    fn clone_place(&self) -> Unit {
        Unit { root: self.root, dir: self.dir.clone(), items: Vec::new(), bytes: 0 }
    }
}

fn level(root: usize, dir: DirId, path: RelPath) -> Level {
    let unit = Unit { root, dir: path, items: Vec::new(), bytes: 0 };
    Level { dir, unit, page: Vec::new().into_iter(), after: Vec::new(), is_last: false }
}
