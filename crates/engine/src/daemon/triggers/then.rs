//! What becomes of a file when its command was fine and that is on disk: it is moved, or deleted, if it still is what was run for.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, open, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::launch::{Item, Tops, is_same};
use super::settings::Then;
use super::{Trouble, Worker, now};
use crate::beneath::open_path;
use crate::model::RelPath;

/// Names that are tried before a directory is held to be full of them.
const NAMES_MAX: u32 = 1_000;

impl Worker {
    /// Moves or deletes the files that are done with. What fails is tried again at the next start, and shown until then.
    pub(super) fn leave(&mut self) -> Result<(), Trouble> {
        let Some(then) = self.settings.then.clone() else { return Ok(()) };
        if self.leaving.is_empty() {
            return Ok(());
        }
        // A file that is gone must be known to be done with.
        self.tell()?;
        self.durable()?;
        let mut tops = Tops::default();
        for item in std::mem::take(&mut self.leaving) {
            let Some(top) = tops.of(item.waiting.root, &self.settings.roots[item.waiting.root].1) else { continue };
            if let Err(error) = leave(top, &self.settings.roots[item.waiting.root].1, &item, &then) {
                let shown = String::from_utf8_lossy(item.waiting.path.as_bytes()).escape_debug().to_string();
                let text = format!("{shown} is done with and could not be moved or deleted: {error}");
                tracing::error!(trigger = %self.settings.name, "{text}");
                self.settings.meter.change(|reading| reading.last_error = Some((now(), text)));
            }
        }
        Ok(())
    }
}

fn leave(root: BorrowedFd<'_>, top: &Path, item: &Item, then: &Then) -> io::Result<()> {
    let Some((above, name)) = item.waiting.path.split() else { return Ok(()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open_path(root, &RelPath::new(above).unwrap_or_default(), flags)?;
    match then {
        Then::Delete => {
            // Whatever has the name by now is set aside first: only what was run for is deleted.
            let aside = format!(".keepwatch-done.{}", item.key).into_bytes();
            match take(&dir, name, &dir, &aside, item)? {
                Some(aside) => Ok(unlinkat(&dir, &aside[..], AtFlags::empty())?),
                None => Ok(()),
            }
        }
        Then::Move(to) => {
            let to = top.join(to);
            let target = open(&to, flags, Mode::empty())
                .map_err(|error| io::Error::other(format!("{}: {error}", to.display())))?;
            if is_one(&dir, &target)? {
                return Ok(());
            }
            take(&dir, name, &target, name, item).map(|_| ())
        }
    }
}

fn is_one(one: &OwnedFd, other: &OwnedFd) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Renames what has a name, and takes it back if it is not the version that is meant. Its new name; `None`: it is not that.
fn take(from: &OwnedFd, name: &[u8], to: &OwnedFd, new: &[u8], item: &Item) -> io::Result<Option<Vec<u8>>> {
    let look = |dir: &OwnedFd, name: &[u8]| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dir, name, flags, Mode::empty()).is_ok_and(|file| is_same(&file, item))
    };
    if !look(from, name) {
        return Ok(None);
    }
    for number in 1..=NAMES_MAX {
        let new = if number == 1 { new.to_vec() } else { [new, format!("~{number}").as_bytes()].concat() };
        match renameat_with(from.as_fd(), name, to.as_fd(), &new[..], RenameFlags::NOREPLACE) {
            Ok(()) if look(to, &new) => return Ok(Some(new)),
            Ok(()) => {
                renameat_with(to.as_fd(), &new[..], from.as_fd(), name, RenameFlags::NOREPLACE)?;
                return Ok(None);
            }
            Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
