//! A target behind an sftp server, at work.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::wire::Out;
use super::Place;
use super::list::Listing;
use super::protocol::{Attrs, FSYNC, Fault, HARDLINK, LSETSTAT, POSIX_RENAME, Reply, code, kind, open};
use super::read::Reading;
use super::upload::{Upload, Uploads};
use crate::model::{FileType, JournalId, RelPath};
use crate::target::{Content, Found, Meta, Result, STAGING, Session, Staged, TargetError, shown};

/// Directories that are known to be ones; beyond, all are looked at again.
const DIRS_MAX: usize = 16 * 1024;
/// Directories whose names changed and are not durable yet; beyond, they are made so at once.
const TOUCHED_MAX: usize = 256;

/// A target behind an sftp server, at work.
pub(in crate::target::ssh) struct SftpSession {
    pub(super) place: Place,
    /// What its temporary names begin with: another session, that is thought to be dead, never meets them.
    run: String,
    next: AtomicU64,
    dirs: Mutex<HashSet<RelPath>>,
    touched: Mutex<BTreeSet<RelPath>>,
    uploads: Mutex<Uploads>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(path: &RelPath, why: &str) -> TargetError {
    TargetError::Refused { path: shown(path), why: why.to_owned() }
}

/// The directory that holds a path.
fn above(path: &RelPath) -> Result<RelPath> {
    let (dir, _) = path.split().ok_or_else(|| refused(path, "it is the top"))?;
    Ok(RelPath::new(dir).unwrap_or_default())
}

impl SftpSession {
    pub(super) fn new(place: Place, tag: &str) -> Self {
        SftpSession {
            place,
            run: format!("{tag}{}", JournalId::random()),
            next: AtomicU64::new(1),
            dirs: Mutex::default(),
            touched: Mutex::default(),
            uploads: Mutex::default(),
        }
    }

    pub(super) fn uploads(&self) -> MutexGuard<'_, Uploads> {
        locked(&self.uploads)
    }

    /// A temporary name.
    pub(super) fn temporary(&self, number: u64) -> RelPath {
        RelPath::ROOT.join(STAGING).join(format!("{}-{number:x}", self.run).as_bytes())
    }

    fn lstat(&self, path: &RelPath) -> Result<Option<Attrs>> {
        let asked = self.place.server.ask(kind::LSTAT, &self.place.named(path))?;
        self.place.server.attrs(&asked)?.map_err(|fault| self.place.error("look at", path, fault))
    }

    /// Asks for something that is done or not, at one path.
    fn done(&self, doing: &'static str, path: &RelPath, kind: u8, payload: &Out) -> Result<()> {
        let asked = self.place.server.ask(kind, payload)?;
        self.place.server.done(&asked)?.map_err(|fault| self.place.error(doing, path, fault))
    }

    /// Makes sure that directories are there and that no link stands in the way to them, all of a depth together. For each
    /// whether it is; `false`: it is not there, and was not to be made.
    pub(super) fn make_sure(&self, dirs: &BTreeSet<RelPath>, make: bool) -> Result<HashMap<RelPath, Result<bool>>> {
        let server = &self.place.server;
        let mut all: BTreeSet<(usize, RelPath)> = BTreeSet::new();
        let known = locked(&self.dirs);
        for dir in dirs.iter().filter(|dir| !known.contains(dir)) {
            let mut at = RelPath::ROOT;
            for (depth, name) in dir.components().enumerate() {
                at = at.join(name);
                if !known.contains(&at) {
                    all.insert((depth, at.clone()));
                }
            }
        }
        drop(known);
        let mut results: HashMap<RelPath, Result<bool>> = HashMap::new();
        let depths: BTreeSet<usize> = all.iter().map(|(depth, _)| *depth).collect();
        for depth in depths {
            let mut asked = Vec::new();
            for (_, dir) in all.iter().filter(|(at, _)| *at == depth) {
                match above(dir)?.is_root() || !matches!(results.get(&above(dir)?), Some(Ok(false) | Err(_))) {
                    true => asked.push((dir, server.ask(kind::LSTAT, &self.place.named(dir))?)),
                    false if make => {
                        results.insert(dir.clone(), Err(refused(dir, "something else stands in its way")));
                    }
                    false => drop(results.insert(dir.clone(), Ok(false))),
                }
            }
            let mut made = Vec::new();
            for (dir, answers) in asked {
                let result = match server.attrs(&answers)? {
                    Ok(Some(attrs)) if attrs.kind() == Some(FileType::Dir) => Ok(true),
                    Ok(Some(attrs)) if attrs.kind() == Some(FileType::Symlink) => {
                        Err(refused(dir, "a symbolic link stands in the way"))
                    }
                    Ok(Some(_)) => Err(refused(dir, "something else stands in its way")),
                    Ok(None) if make => {
                        let mode = Attrs { mode: Some(0o700), ..Attrs::default() };
                        made.push((dir, server.ask(kind::MKDIR, &mode.put(self.place.named(dir)))?));
                        continue;
                    }
                    Ok(None) => Ok(false),
                    Err(fault) => Err(self.place.error("look at", dir, fault)),
                };
                results.insert(dir.clone(), result);
            }
            for (dir, answers) in made {
                let result = match server.done(&answers)? {
                    Ok(()) => Ok(true),
                    // Another thread may have been quicker.
                    Err(fault) => match self.lstat(dir)? {
                        Some(attrs) if attrs.kind() == Some(FileType::Dir) => Ok(true),
                        _ => Err(self.place.error("make the directory", dir, fault)),
                    },
                };
                if result.is_ok() {
                    self.touch(above(dir)?)?;
                }
                results.insert(dir.clone(), result);
            }
        }
        let mut known = locked(&self.dirs);
        if known.len() > DIRS_MAX {
            known.clear();
        }
        known.extend(results.iter().filter(|(_, result)| matches!(result, Ok(true))).map(|(dir, _)| dir.clone()));
        Ok(results)
    }

    /// One directory. `false`: it is not there, and was not to be made.
    pub(super) fn dir(&self, dir: &RelPath, make: bool) -> Result<bool> {
        if dir.is_root() || locked(&self.dirs).contains(dir) {
            return Ok(true);
        }
        let mut results = self.make_sure(&BTreeSet::from([dir.clone()]), make)?;
        // What is wrong above it is wrong with it.
        let mut at = RelPath::ROOT;
        for name in dir.components() {
            at = at.join(name);
            match results.remove(&at) {
                None | Some(Ok(true)) => {}
                Some(wrong) => return wrong,
            }
        }
        Ok(true)
    }

    fn forget_dirs(&self) {
        locked(&self.dirs).clear();
    }

    /// Names in a directory changed.
    pub(super) fn touch(&self, dir: RelPath) -> Result<()> {
        let mut touched = locked(&self.touched);
        touched.insert(dir);
        let full = if touched.len() > TOUCHED_MAX { std::mem::take(&mut *touched) } else { BTreeSet::new() };
        drop(touched);
        self.sync_dirs(full.into_iter())
    }

    pub(super) fn fsync(&self, handle: &[u8]) -> Result<Result<(), Fault>> {
        if !self.place.server.has(FSYNC) {
            return Ok(Ok(()));
        }
        let asked = self.place.server.ask_extension(FSYNC, &Out::default().bytes(handle))?;
        self.place.server.done(&asked)
    }

    /// Makes the names in directories durable, as far as the server can: one of OpenSSH opens directories as well.
    pub(super) fn sync_dirs(&self, dirs: impl Iterator<Item = RelPath>) -> Result<()> {
        let server = &self.place.server;
        if !server.has(FSYNC) {
            return Ok(());
        }
        let ask = |dir: RelPath| server.ask(kind::OPEN, &Attrs::default().put(self.place.named(&dir).u32(open::READ)));
        let opened = dirs.map(ask).collect::<Result<Vec<_>>>()?;
        let mut synced = Vec::new();
        for answers in opened {
            if let Ok(handle) = server.handle(&answers)? {
                synced.push(server.ask_extension(FSYNC, &Out::default().bytes(&handle))?);
                server.close(&handle);
            }
        }
        for answers in synced {
            if let Err(Fault { code: code::FAILURE, text }) = server.done(&answers)? {
                return Err(self.place.away(format!("what was copied could not be made durable: {text}")));
            }
        }
        Ok(())
    }

    /// A rename that replaces what stands there, in one step where the server can.
    pub(super) fn rename_over(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let (server, names) = (&self.place.server, self.place.named(from).bytes(&self.place.full(to)));
        if server.has(POSIX_RENAME) {
            let asked = server.ask_extension(POSIX_RENAME, &names)?;
            return server.done(&asked)?.map_err(|fault| self.place.error("put in place", to, fault));
        }
        let removed = server.ask(kind::REMOVE, &self.place.named(to))?;
        let _ = server.done(&removed)?;
        self.done("put in place", to, kind::RENAME, &names)
    }

    /// A rename to where nothing stands. `RENAME` of a file is a second name and then one less, which not all that may
    /// rename may make.
    pub(super) fn rename_to_nothing(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let renamed = self.done("rename", to, kind::RENAME, &self.place.named(from).bytes(&self.place.full(to)));
        match renamed {
            Err(TargetError::Io { .. }) if self.lstat(from)?.is_some() && self.lstat(to)?.is_none() => {
                self.rename_over(from, to)
            }
            renamed => renamed,
        }
    }

    /// A second name for a file. `false`: that cannot be had.
    pub(super) fn second_name(&self, from: &RelPath, to: &RelPath) -> Result<Result<(), Fault>> {
        let names = self.place.named(from).bytes(&self.place.full(to));
        let asked = self.place.server.ask_extension(HARDLINK, &names)?;
        self.place.server.done(&asked)
    }

    /// Sets what a path's object has, if it is no link, or a link's own.
    fn set(&self, path: &RelPath, attrs: Attrs) -> Result<Result<(), Fault>> {
        let server = &self.place.server;
        let payload = attrs.put(self.place.named(path));
        if server.has(LSETSTAT) {
            let asked = server.ask_extension(LSETSTAT, &payload)?;
            match server.done(&asked)? {
                Err(Fault { code: code::FAILURE | code::UNSUPPORTED, .. }) => {}
                done => return Ok(done),
            }
        }
        match self.lstat(path)? {
            Some(found) if found.kind() != Some(FileType::Symlink) => {
                let asked = server.ask(kind::SETSTAT, &payload)?;
                server.done(&asked)
            }
            // The server cannot set what a link has.
            Some(_) => Ok(Ok(())),
            None => Ok(Err(Fault { code: code::NO_SUCH_FILE, text: String::new() })),
        }
    }

    pub(super) fn set_all(&self, path: &RelPath, kind: FileType, meta: &Meta) -> Result<()> {
        if let Some(owner) = self.place.server.owner(meta.uid, meta.gid) {
            self.place.server.owner_set(&self.set(path, owner)?);
        }
        let mut attrs = attrs_of(meta);
        if kind == FileType::Symlink {
            attrs.mode = None;
        }
        self.set(path, attrs)?.map_err(|fault| self.place.error("set the attributes of", path, fault))
    }
}

/// What sftp can keep: permission bits, and seconds from 1970 to 2106.
pub(super) fn attrs_of(meta: &Meta) -> Attrs {
    let seconds = meta.mtime_ns.div_euclid(1_000_000_000).clamp(0, i64::from(u32::MAX));
    Attrs { mode: Some(meta.mode), mtime: u32::try_from(seconds).ok(), ..Attrs::default() }
}

impl Session for SftpSession {
    fn list(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        match self.dir(below, false) {
            Ok(true) => Listing::new(self.place.clone()).list(below, each).map(drop),
            Ok(false) | Err(TargetError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn look(&self, path: &RelPath) -> Result<Option<Found>> {
        match self.dir(&above(path)?, false) {
            Ok(true) => {}
            // Something else stands where a directory should: nothing is below it.
            Ok(false) | Err(TargetError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(attrs) = self.lstat(path)? else { return Ok(None) };
        let mut found = attrs.found();
        if found.kind == FileType::Symlink {
            match self.place.server.call(kind::READLINK, &self.place.named(path))? {
                Reply::Names(names) => found.target = names.into_iter().next().map(|(to, _)| to),
                _ => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    fn read(&self, path: &RelPath) -> Result<Box<dyn Read + Send>> {
        self.dir(&above(path)?, false)?;
        match self.lstat(path)? {
            Some(attrs) if attrs.kind() != Some(FileType::File) => Err(refused(path, "it is no file")),
            _ => Ok(Box::new(Reading::open(&self.place, path)?)),
        }
    }

    fn stage(&self, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<Staged> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.upload(number, path, meta, content)?;
        Ok(Staged { path: path.clone(), number })
    }

    fn discard(&self, staged: Staged) {
        let upload = self.uploads().take(staged.number);
        if let Some(upload) = upload {
            self.drop_upload(upload);
        }
    }

    fn publish(&self, staged: Vec<Staged>, keep: Option<&RelPath>) -> Vec<Result<()>> {
        let uploads: Vec<(RelPath, Option<Upload>)> =
            staged.into_iter().map(|one| (one.path, self.uploads().take(one.number))).collect();
        let count = uploads.len();
        self.publish_all(uploads, keep).unwrap_or_else(|error| {
            let why = match error {
                TargetError::Away { why, .. } => why,
                other => other.to_string(),
            };
            (0..count).map(|_| Err(self.place.away(why.clone()))).collect()
        })
    }

    fn make_dir(&self, path: &RelPath) -> Result<()> {
        self.dir(path, true).map(drop)
    }

    fn set_meta(&self, path: &RelPath, kind: FileType, meta: &Meta) -> Result<()> {
        if path.is_root() {
            return Ok(());
        }
        self.dir(&above(path)?, false)?;
        self.set_all(path, kind, meta)
    }

    fn link(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        if !self.place.server.has(HARDLINK) {
            return Err(refused(to, "the far side's sftp server knows no second names"));
        }
        self.dir(&above(from)?, false)?;
        self.dir(&above(to)?, true)?;
        let temporary = self.temporary(self.next.fetch_add(1, Ordering::Relaxed));
        self.second_name(from, &temporary)?.map_err(|fault| self.place.error("link", to, fault))?;
        let renamed = self.rename_over(&temporary, to);
        // Of two names of one file rename(2) leaves both.
        let removed = self.place.server.ask(kind::REMOVE, &self.place.named(&temporary))?;
        let _ = self.place.server.done(&removed)?;
        self.touch(above(to)?)?;
        renamed
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.dir(&above(from)?, false)?;
        self.dir(&above(to)?, true)?;
        if self.lstat(to)?.is_some() {
            return Err(refused(to, "something else stands in its way"));
        }
        let renamed = self.rename_to_nothing(from, to);
        self.forget_dirs();
        self.touch(above(from)?)?;
        self.touch(above(to)?)?;
        renamed
    }

    fn remove(&self, path: &RelPath) -> Result<bool> {
        if !self.dir(&above(path)?, false)? {
            return Ok(false);
        }
        let Some(attrs) = self.lstat(path)? else { return Ok(false) };
        let is_dir = attrs.kind() == Some(FileType::Dir);
        let how = if is_dir { kind::RMDIR } else { kind::REMOVE };
        let asked = self.place.server.ask(how, &self.place.named(path))?;
        let removed = self.place.server.done(&asked)?;
        if is_dir {
            self.forget_dirs();
        }
        match removed {
            Ok(()) => {
                self.touch(above(path)?)?;
                Ok(true)
            }
            Err(Fault { code: code::NO_SUCH_FILE, .. }) => Ok(false),
            Err(Fault { code: code::FAILURE, .. }) if is_dir => {
                Err(refused(path, "the directory holds what is not ours"))
            }
            Err(fault) => Err(self.place.error("remove", path, fault)),
        }
    }

    fn sync(&self) -> Result<()> {
        let touched = std::mem::take(&mut *locked(&self.touched));
        self.sync_dirs(touched.into_iter())
    }
}
