//! The walker on real trees.
#![allow(clippy::unwrap_used)]

mod bounds;
mod looking;
mod order;
mod races;
mod tree;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use keepwatch_journal::{FileType, RelPath};

use super::{Chunk, Descend, OpenDir, Options, Outcome, Seen, Step, Summary, Visitor, walk};

/// What a visitor was told, in the order it was told.
#[derive(Debug, PartialEq)]
enum Told {
    Enter(Vec<u8>),
    Entries { dir: Vec<u8>, names: Vec<(Vec<u8>, Seen)>, whole: bool },
    Leave(Vec<u8>, String),
    Failed(Vec<u8>, io::ErrorKind),
}

impl Told {
    fn dir(&self) -> &[u8] {
        match self {
            Told::Enter(dir) | Told::Entries { dir, .. } | Told::Leave(dir, _) | Told::Failed(dir, _) => dir,
        }
    }
}

type Hook<'h, T> = Box<dyn Fn(&OpenDir<'_>) -> T + Sync + 'h>;

/// Walks into every directory, and keeps what it was told. Its token is the path it expects to find.
struct Recorder<'h> {
    told: Mutex<Vec<Told>>,
    start: RelPath,
    on_enter: Hook<'h, Step>,
    on_entries: Hook<'h, ()>,
}

impl Default for Recorder<'_> {
    fn default() -> Self {
        Recorder {
            told: Mutex::default(),
            start: RelPath::ROOT,
            on_enter: Box::new(|_| Step::Read),
            on_entries: Box::new(|_| ()),
        }
    }
}

impl Recorder<'_> {
    fn tell(&self, told: Told) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }

    fn walk(&self, root: &Path, options: &Options<'_>) -> Summary {
        let root = File::open(root).unwrap();
        walk(root.as_fd(), &self.start, self.start.as_bytes().to_vec(), self, options)
    }

    fn told(self) -> Vec<Told> {
        self.told.into_inner().unwrap()
    }

    /// Every entry by its path, with how often it was delivered.
    fn seen(self) -> BTreeMap<Vec<u8>, (Seen, u32)> {
        let mut seen = BTreeMap::new();
        for told in self.told() {
            if let Told::Entries { dir, names, .. } = told {
                let dir = RelPath::new(dir).unwrap();
                for (name, what) in names {
                    seen.entry(dir.join(&name).as_bytes().to_vec()).or_insert((what, 0)).1 += 1;
                }
            }
        }
        seen
    }
}

impl Visitor for Recorder<'_> {
    type Token = Vec<u8>;

    fn enter(&self, dir: &OpenDir<'_>, token: &mut Vec<u8>) -> Step {
        assert_eq!(dir.path.as_bytes(), token, "the token went astray");
        assert_eq!(dir.depth, dir.path.components().count() - self.start.components().count());
        self.tell(Told::Enter(token.clone()));
        (self.on_enter)(dir)
    }

    fn entries(&self, dir: &OpenDir<'_>, token: &mut Vec<u8>, chunk: &Chunk<'_>, descend: &mut Descend<Vec<u8>>) {
        assert_eq!(dir.path.as_bytes(), token, "the token went astray");
        assert_eq!(chunk.len(), chunk.iter().count());
        for entry in chunk.iter() {
            if matches!(entry.seen, Seen::There(stat) if stat.kind == FileType::Dir) {
                descend.walk(&entry, dir.path.join(entry.name).as_bytes().to_vec());
            }
        }
        let names = chunk.iter().map(|entry| (entry.name.to_vec(), entry.seen)).collect();
        self.tell(Told::Entries { dir: token.clone(), names, whole: chunk.whole() });
        (self.on_entries)(dir);
    }

    fn leave(&self, dir: &OpenDir<'_>, token: Vec<u8>, outcome: Outcome) {
        assert_eq!(dir.path.as_bytes(), token, "the token went astray");
        self.tell(Told::Leave(token, format!("{outcome:?}")));
    }

    fn failed(&self, path: &RelPath, token: Vec<u8>, error: io::Error) {
        assert_eq!(path.as_bytes(), token, "the token went astray");
        self.tell(Told::Failed(token, error.kind()));
    }
}

fn with_threads(threads: usize) -> Options<'static> {
    Options { threads: number(threads), ..Options::default() }
}

fn number(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}
