//! The shared folder: tokens and signs of life as files there.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, chmodat, fstat, fsync, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::life::Life;
use super::token::{Stage, Token};
use crate::beneath::open_path;
use crate::model::{RelPath, TriggerName};

/// The directory of claims in a shared folder. Nothing in it is recorded.
pub const CLAIMS_DIR: &str = ".keepwatch-claims";
/// What a host says of itself is no longer.
const LIFE_BYTES: usize = 1_024;
/// What begins so is being made.
const NEW: &str = "new.";
/// A path is no longer.
const PATH_BYTES_MAX: u64 = 64 * 1024;

/// A path's place among the claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    fan: String,
    name: String,
}

impl Slot {
    /// Of a path in the folder.
    #[must_use]
    pub fn of(path: &RelPath) -> Slot {
        let hex: String = Sha256::digest(path.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        Slot { fan: hex[..2].to_owned(), name: hex[2..34].to_owned() }
    }
}

/// The claims of a trigger in a shared folder.
#[derive(Debug)]
pub struct Folder {
    top: PathBuf,
    trigger: TriggerName,
    made: AtomicU64,
}

impl Folder {
    /// In the folder `top`. Nothing is done yet.
    #[must_use]
    pub fn new(top: &Path, trigger: &TriggerName) -> Folder {
        Folder { top: top.to_owned(), trigger: trigger.clone(), made: AtomicU64::new(0) }
    }

    fn top(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.top, flags, Mode::empty())?)
    }

    fn place(&self, names: &[&str]) -> RelPath {
        let mut path = RelPath::ROOT.join(CLAIMS_DIR.as_bytes()).join(self.trigger.as_str().as_bytes());
        for name in names {
            path = path.join(name.as_bytes());
        }
        path
    }

    /// A directory there; `None`: there is none.
    fn dir(&self, names: &[&str]) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match open_path(self.top()?.as_fd(), &self.place(names), flags) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The same, made if need be, for whom the folder itself is.
    fn make_dir(&self, names: &[&str]) -> io::Result<OwnedFd> {
        if let Some(dir) = self.dir(names)? {
            return Ok(dir);
        }
        let top = self.top()?;
        let mut above = RelPath::ROOT;
        for name in self.place(names).components() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            make_one(top.as_fd(), open_path(top.as_fd(), &above, flags)?.as_fd(), name)?;
            above = above.join(name);
        }
        self.dir(names)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn slot(&self, slot: &Slot) -> io::Result<Option<OwnedFd>> {
        self.dir(&["slots", &slot.fan, &slot.name])
    }

    /// The token of a path; `None`: nobody ever had it.
    ///
    /// # Errors
    /// The system's, if the folder cannot be read.
    pub fn read(&self, slot: &Slot) -> io::Result<Option<Token>> {
        match self.slot(slot)? {
            Some(dir) => token_in(&dir),
            None => Ok(None),
        }
    }

    /// Changes the token of a path from what it was; `false`: somebody else was faster. What is done is on the folder's disk then.
    ///
    /// # Errors
    /// The system's, if the folder cannot be written.
    pub fn change(&self, slot: &Slot, path: &RelPath, before: Option<&Token>, after: &Token) -> io::Result<bool> {
        let Some(before) = before else { return self.begin(slot, path, after) };
        let Some(dir) = self.slot(slot)? else { return Ok(false) };
        match renameat(&dir, before.to_string(), &dir, after.to_string()) {
            Ok(()) => {}
            // A server that did it and whose answer was lost is asked again, and does not find it any more.
            Err(Errno::NOENT | Errno::STALE) if token_in(&dir)?.as_ref() == Some(after) => {}
            Err(Errno::NOENT | Errno::STALE) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        if after.stage == Stage::Done {
            sync(&dir)?;
        }
        Ok(true)
    }

    /// The first token of a path: its directory comes with it, or not at all.
    fn begin(&self, slot: &Slot, path: &RelPath, token: &Token) -> io::Result<bool> {
        let fan = self.make_dir(&["slots", &slot.fan])?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let aside = format!("{NEW}{}.{}.{number}", token.state, token.life);
        make_one(self.top()?.as_fd(), fan.as_fd(), aside.as_bytes())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = openat(&fan, &aside, flags, Mode::empty())?;
        let name = token.to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&dir, &name, flags, Mode::from_raw_mode(0o644))?);
        file.write_all(path.as_bytes())?;
        drop(file);
        let mut renamed = renameat(&fan, &aside, &fan, &slot.name);
        // Not every server renames over an empty directory.
        if renamed.is_err() && unlinkat(&fan, &slot.name, AtFlags::REMOVEDIR).is_ok() {
            renamed = renameat(&fan, &aside, &fan, &slot.name);
        }
        let Err(errno) = renamed else {
            return Ok(true);
        };
        let found = self.read(slot)?;
        if found.as_ref() == Some(token) {
            return Ok(true);
        }
        let _ = unlinkat(&dir, &name, AtFlags::empty());
        let _ = unlinkat(&fan, &aside, AtFlags::REMOVEDIR);
        if found.is_some() { Ok(false) } else { Err(errno.into()) }
    }

    /// What a host says of itself; `None`: nothing, or it is just being written.
    ///
    /// # Errors
    /// The system's, if the folder cannot be read.
    pub fn life(&self, state: &str) -> io::Result<Option<Life>> {
        let Some(dir) = self.dir(&["hosts"])? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match openat(&dir, state, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut text = Vec::new();
        file.take(LIFE_BYTES as u64).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Says that a host lives, and sees that this can be read.
    ///
    /// # Errors
    /// The system's, if the folder cannot be written, or what was written is not there.
    pub fn say(&self, life: &Life) -> io::Result<()> {
        let dir = self.make_dir(&["hosts"])?;
        // It is always of one length, whatever a client believes to know of that.
        let mut text = serde_json::to_vec(life)?;
        text.resize(LIFE_BYTES, b' ');
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = File::from(openat(&dir, &life.state, flags, Mode::from_raw_mode(0o644))?);
        file.write_all(&text)?;
        file.sync_all()?;
        drop(file);
        match self.life(&life.state)? {
            Some(found) if found == *life => Ok(()),
            _ => Err(io::Error::other("what was written there is not what is read")),
        }
    }

    /// Removes tokens of paths that are gone, and what `own` left half made in an earlier life: among the 256 parts of the folder in
    /// that with this number, behind a name, until some time; the name to go on behind.
    ///
    /// # Errors
    /// The system's, if the folder cannot be read.
    pub fn sweep(&self, part: u8, behind: &str, own: &Life, until: Instant) -> io::Result<Option<String>> {
        let Some(fan) = self.dir(&["slots", &format!("{part:02x}")])? else { return Ok(None) };
        let top = self.top()?;
        let mut names: Vec<String> = names_in(&fan)?.filter(|name| name.as_str() > behind).collect();
        names.sort();
        for name in names {
            if Instant::now() >= until {
                return Ok(Some(name));
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let Ok(dir) = openat(&fan, &name, flags, Mode::empty()) else { continue };
            let Some(token) = token_in(&dir)? else {
                // Whoever puts a token here meanwhile keeps it: only an empty directory goes.
                let _ = unlinkat(&fan, &name, AtFlags::REMOVEDIR);
                continue;
            };
            let is_old = token.state == own.state && token.life < own.life;
            let is_left = is_old && name.starts_with(NEW);
            if is_left || ((is_old || token.stage != Stage::Runs) && is_gone(top.as_fd(), &dir, &token)) {
                let _ = unlinkat(&dir, token.to_string(), AtFlags::empty());
                let _ = unlinkat(&fan, &name, AtFlags::REMOVEDIR);
            }
        }
        Ok(None)
    }
}

/// Makes a directory, if there is none, with the rights of the folder: others work in it.
fn make_one(top: BorrowedFd<'_>, above: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let mode = Mode::from_raw_mode(fstat(top)?.st_mode & 0o7777);
    match mkdirat(above, name, mode) {
        Ok(()) => {
            let _ = chmodat(above, name, mode, AtFlags::empty());
            Ok(())
        }
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A directory's names, but for those that are no text: none of ours is.
fn names_in(dir: &OwnedFd) -> io::Result<impl Iterator<Item = String>> {
    let entries = Dir::read_from(dir)?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    Ok(names.filter(|name| name != "." && name != ".."))
}

/// The token in a directory: the latest, should there be several.
fn token_in(dir: &OwnedFd) -> io::Result<Option<Token>> {
    match names_in(dir) {
        Ok(names) => Ok(names.filter_map(|name| Token::parse(name.as_bytes())).max_by_key(|token| token.number)),
        Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the path that a token is about is gone from the folder.
fn is_gone(top: BorrowedFd<'_>, dir: &OwnedFd, token: &Token) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let Ok(file) = openat(dir, token.to_string(), flags, Mode::empty()) else { return false };
    let mut path = Vec::new();
    let read = File::from(file).take(PATH_BYTES_MAX).read_to_end(&mut path);
    let Ok(path) = read.map_err(|_| ()).and_then(|_| RelPath::new(path).map_err(|_| ())) else { return false };
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    !path.is_root() && matches!(open_path(top, &path, flags), Err(Errno::NOENT | Errno::NOTDIR))
}

/// Brings a directory's names to disk, where a client can ask for that.
fn sync(dir: &OwnedFd) -> io::Result<()> {
    match fsync(dir) {
        Ok(()) | Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use super::super::token::Content;
    use super::*;

    fn token(number: u64, stage: Stage, host: &str) -> Token {
        let content = Content { size: 1, mtime_ns: 1 };
        let (state, key) = (host.to_owned(), "k".to_owned());
        Token { number, stage, content, key, life: 1, state, host: host.to_owned() }
    }

    #[test]
    fn of_many_who_want_a_path_one_has_it_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = RelPath::new("in/a").unwrap();
        let slot = Slot::of(&path);
        for round in 0..50 {
            let barrier = Barrier::new(4);
            let winners: Vec<Token> = std::thread::scope(|scope| {
                let one = |host: usize| {
                    let (barrier, path, slot, dir) = (&barrier, &path, &slot, dir.path());
                    move || {
                        let folder = Folder::new(dir, &TriggerName::new("t"));
                        let found = folder.read(slot).unwrap();
                        barrier.wait();
                        let after = token(round + 1, Stage::Runs, &format!("h{host}"));
                        folder.change(slot, path, found.as_ref(), &after).unwrap().then_some(after)
                    }
                };
                let all: Vec<_> = (0..4).map(|host| scope.spawn(one(host))).collect();
                all.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
            let folder = Folder::new(dir.path(), &TriggerName::new("t"));
            assert_eq!(folder.read(&slot).unwrap().as_ref(), Some(&winners[0]));
        }
    }

    #[test]
    fn a_life_is_read_as_it_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), &TriggerName::new("t"));
        assert_eq!(folder.life("s").unwrap(), None);
        for beat in [9, 10_000, 7] {
            let life = Life { beat, ..Life::of_this_process("s", "h", 3) };
            folder.say(&life).unwrap();
            assert_eq!(folder.life("s").unwrap(), Some(life));
        }
    }

    #[test]
    fn what_is_gone_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), &TriggerName::new("t"));
        let own = Life::of_this_process("own", "own", 2);
        let sweep = || {
            for part in 0..=255 {
                assert_eq!(folder.sweep(part, "", &own, Instant::now() + Duration::from_secs(60)).unwrap(), None);
            }
        };
        let cases = [
            ("there", token(1, Stage::Done, "h")),
            ("gone", token(1, Stage::Done, "h")),
            ("gone-runs", token(1, Stage::Runs, "h")),
            ("gone-mine", token(1, Stage::Runs, "own")),
        ];
        std::fs::write(dir.path().join("there"), "x").unwrap();
        for (name, token) in &cases {
            let path = RelPath::new(*name).unwrap();
            assert!(folder.change(&Slot::of(&path), &path, None, token).unwrap());
        }
        sweep();
        let left = |name: &str| folder.read(&Slot::of(&RelPath::new(name).unwrap())).unwrap().is_some();
        assert_eq!(cases.map(|(name, _)| left(name)), [true, false, true, false]);
    }
}
