//! A target in memory, for tests. Stricter than real ones: it says no wherever one of them might.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Claim, Content, Found, Meta, Nature, Result, Session, Staged, Target, TargetError, is_own, shown};
use crate::model::{FileType, Proof, RelPath};

#[derive(Clone, Debug)]
struct Node {
    kind: FileType,
    bytes: Vec<u8>,
    meta: Meta,
}

#[derive(Debug, Default)]
struct State {
    mark: Option<(String, String)>,
    nodes: BTreeMap<RelPath, Node>,
    staged: BTreeMap<u64, Node>,
    next: u64,
}

/// A target in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryTarget(Arc<Mutex<State>>);

impl MemoryTarget {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds this")
    }
}

fn refused(path: &RelPath, why: &str) -> TargetError {
    TargetError::Refused { path: shown(path), why: why.to_owned() }
}

impl State {
    fn make_dirs(&mut self, path: &RelPath) -> Result<()> {
        let mut at = RelPath::ROOT;
        for name in path.components() {
            at = at.join(name);
            let dir = || Node { kind: FileType::Dir, bytes: Vec::new(), meta: Meta::default() };
            if self.nodes.entry(at.clone()).or_insert_with(dir).kind != FileType::Dir {
                return Err(refused(&at, "something else stands in its way"));
            }
        }
        Ok(())
    }

    fn make_above(&mut self, path: &RelPath) -> Result<()> {
        let above = path.split().map(|(above, _)| RelPath::new(above).unwrap_or_default());
        self.make_dirs(&above.unwrap_or_default())
    }

    fn below(&self, path: &RelPath) -> Vec<RelPath> {
        self.nodes.keys().filter(|other| *other != path && other.is_within(path)).cloned().collect()
    }

    fn publish(&mut self, staged: &Staged, keep: Option<&RelPath>) -> Result<()> {
        let node = self.staged.remove(&staged.number).expect("what is published was staged, once");
        self.make_above(&staged.path)?;
        if let Some(old) = self.nodes.get(&staged.path).cloned() {
            if old.kind == FileType::Dir {
                return Err(refused(&staged.path, "a directory stands in its way"));
            }
            if let Some(keep) = keep {
                let kept = staged.path.components().fold(keep.clone(), |at, name| at.join(name));
                self.make_above(&kept)?;
                self.nodes.insert(kept, old);
            }
        }
        self.nodes.insert(staged.path.clone(), node);
        Ok(())
    }
}

impl Target for MemoryTarget {
    fn nature(&self) -> Nature {
        Nature { mtime_step_ns: 1, name_max: 255, is_filesystem: true, batch_max: 8, proof: Proof::Written }
    }

    fn open(&self, claim: &Claim) -> Result<(Box<dyn Session>, String)> {
        let known = self.probe(claim)?;
        let mark = (claim.owner.clone(), "memory".to_owned());
        let identity = known.unwrap_or_else(|| self.state().mark.insert(mark).1.clone());
        Ok((Box::new(self.clone()), identity))
    }

    fn probe(&self, claim: &Claim) -> Result<Option<String>> {
        let away = |why: &str| TargetError::Away { place: "memory".to_owned(), why: why.to_owned() };
        match (&self.state().mark, &claim.identity) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(away("no mark")),
            (Some((owner, _)), _) if *owner != claim.owner => {
                Err(TargetError::Owned { place: "memory".to_owned(), host: owner.clone(), mark: String::new() })
            }
            (Some((_, id)), Some(expected)) if id != expected => Err(away("another mark")),
            (Some((_, id)), _) => Ok(Some(id.clone())),
        }
    }

    fn survey(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        self.list(below, each)
    }
}

impl Session for MemoryTarget {
    fn list(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        let mut all: Vec<(Vec<u8>, RelPath, Found)> = Vec::new();
        let state = self.state();
        for path in state.below(below).into_iter().filter(|path| is_own(below) || !is_own(path)) {
            let Some(found) = state.nodes.get(&path).map(found) else { continue };
            let end: &[u8] = if found.kind == FileType::Dir { b"/" } else { b"" };
            all.push(([path.as_bytes(), end].concat(), path, found));
        }
        drop(state);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let _ = all.into_iter().try_for_each(|(_, path, found)| each(&path, found));
        Ok(())
    }

    fn look(&self, path: &RelPath) -> Result<Option<Found>> {
        Ok(self.state().nodes.get(path).map(found))
    }

    fn read(&self, path: &RelPath) -> Result<Box<dyn Read + Send>> {
        let bytes = self.state().nodes.get(path).map(|node| node.bytes.clone());
        Ok(Box::new(Cursor::new(bytes.ok_or_else(|| refused(path, "it is not there"))?)))
    }

    fn stage(&self, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<Staged> {
        let (kind, bytes) = match content {
            Content::File { bytes, size, .. } => {
                let mut all = Vec::new();
                let read = bytes.read_to_end(&mut all);
                read.map_err(|source| TargetError::Source { path: shown(path), source })?;
                if all.len() as u64 != size {
                    return Err(refused(path, "it is not as long as was said"));
                }
                (FileType::File, all)
            }
            Content::Symlink(to) => (FileType::Symlink, to.to_vec()),
            Content::Fifo | Content::Device { .. } => return Err(refused(path, "memory holds no such things")),
        };
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state.staged.insert(number, Node { kind, bytes, meta: meta.clone() });
        Ok(Staged { path: path.clone(), number })
    }

    fn discard(&self, staged: Staged) {
        self.state().staged.remove(&staged.number).expect("what is discarded was staged, once");
    }

    fn publish(&self, staged: Vec<Staged>, keep: Option<&RelPath>) -> Vec<Result<()>> {
        staged.iter().map(|one| self.state().publish(one, keep)).collect()
    }

    fn make_dir(&self, path: &RelPath) -> Result<()> {
        self.state().make_dirs(path)
    }

    fn set_meta(&self, path: &RelPath, kind: FileType, meta: &Meta) -> Result<()> {
        match self.state().nodes.get_mut(path).filter(|node| node.kind == kind) {
            Some(node) => {
                node.meta = meta.clone();
                Ok(())
            }
            None => Err(refused(path, "it is not there")),
        }
    }

    fn link(&self, _: &RelPath, to: &RelPath) -> Result<()> {
        Err(refused(to, "memory knows no second names"))
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let mut state = self.state();
        if state.nodes.contains_key(to) || to.is_within(from) {
            return Err(refused(to, "something stands there"));
        }
        let below = state.below(from);
        let node = state.nodes.remove(from).ok_or_else(|| refused(from, "it is not there"))?;
        state.make_above(to)?;
        state.nodes.insert(to.clone(), node);
        for path in below {
            let rest = RelPath::new(&path.as_bytes()[from.as_bytes().len() + 1..]).unwrap_or_default();
            let new = rest.components().fold(to.clone(), |at, name| at.join(name));
            if let Some(node) = state.nodes.remove(&path) {
                state.nodes.insert(new, node);
            }
        }
        Ok(())
    }

    fn remove(&self, path: &RelPath) -> Result<bool> {
        let mut state = self.state();
        if !state.below(path).is_empty() {
            return Err(refused(path, "the directory is not empty"));
        }
        Ok(state.nodes.remove(path).is_some())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

fn found(node: &Node) -> Found {
    let target = (node.kind == FileType::Symlink).then(|| node.bytes.clone());
    let size = if node.kind == FileType::Dir { 0 } else { node.bytes.len() as u64 };
    Found { kind: node.kind, size, mtime_ns: node.meta.mtime_ns, target }
}
