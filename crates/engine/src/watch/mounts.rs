//! What is mounted where, and a word when that changes. See `proc_pid_mountinfo(5)`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, OFlags, makedev, open};
use rustix::io::retry_on_intr;

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number, unique until it is unmounted.
    pub mount_id: u64,
    /// The mount it is mounted on.
    pub parent_id: u64,
    /// The file system's device number; on btrfs not what `stat(2)` gives for the files in it.
    pub dev: u64,
    /// The directory of the file system that is its top: other than `/` for a bind mount or a subvolume.
    pub root: Vec<u8>,
    /// Where it is mounted, absolute.
    pub mount_point: Vec<u8>,
    /// The kind, `ext4` or `fuse.sshfs`.
    pub fs_type: Vec<u8>,
    /// What is mounted: a device, `host:/export`, or any word.
    pub source: Vec<u8>,
}

impl Mount {
    /// Whether it is mounted at or below `dir`, an absolute path without a trailing `/`.
    #[must_use]
    pub fn is_within(&self, dir: &[u8]) -> bool {
        let dir = dir.strip_suffix(b"/").unwrap_or(dir);
        self.mount_point.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

/// All that is mounted in this process's namespace, in the order in which it was mounted.
///
/// # Errors
/// What reading `/proc/self/mountinfo` gives; `InvalidData` for a line that cannot be read.
pub fn mounts() -> io::Result<Vec<Mount>> {
    parse(&std::fs::read(MOUNTINFO)?)
}

/// Reads the text of a `mountinfo` file.
///
/// # Errors
/// `InvalidData` for a line that cannot be read.
pub fn parse(text: &[u8]) -> io::Result<Vec<Mount>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parsed = lines.map(|line| {
        parse_line(line).ok_or_else(|| {
            let why = format!("{MOUNTINFO} has a line that cannot be read: {}", bstr::BStr::new(line));
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    });
    parsed.collect()
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG…] - TYPE SOURCE OPTIONS`.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mount_id = number(fields.next()?)?;
    let parent_id = number(fields.next()?)?;
    let mut device = fields.next()?.splitn(2, |byte| *byte == b':');
    let (major, minor) = (number(device.next()?)?, number(device.next()?)?);
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    let _options = fields.next()?;
    fields.find(|field| field == b"-")?;
    let fs_type = unescape(fields.next()?);
    let source = unescape(fields.next()?);
    let dev = makedev(u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
    Some(Mount { mount_id, parent_id, dev, root, mount_point, fs_type, source })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The kernel writes blank, tab, newline, `\` and `#` as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        match (first, behind) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = behind;
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

/// A thread that sleeps until something is mounted or unmounted. Dropping it ends the thread.
#[derive(Debug)]
pub struct MountWatch {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    changes: Receiver<()>,
}

impl MountWatch {
    /// Starts it. Every change from now on is told, so read [`mounts`] afterwards.
    ///
    /// # Errors
    /// Where `/proc` is not mounted, or no thread can be started.
    pub fn start() -> io::Result<MountWatch> {
        let table = open(MOUNTINFO, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stopped = Arc::clone(&stop);
        let (sender, changes) = crossbeam_channel::bounded(1);
        let thread =
            thread::Builder::new().name("mounts".to_owned()).spawn(move || tell_changes(&table, &stopped, &sender))?;
        Ok(MountWatch { stop, thread: Some(thread), changes })
    }

    /// Gets one unit after one or more changes. Disconnected: the thread died; start another and read [`mounts`].
    #[must_use]
    pub fn changes(&self) -> &Receiver<()> {
        &self.changes
    }
}

impl Drop for MountWatch {
    fn drop(&mut self) {
        // An eventfd takes a one unless its counter is full, which also wakes the thread.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // It does nothing that can panic.
            let _ = thread.join();
        }
    }
}

fn tell_changes(table: &OwnedFd, stop: &OwnedFd, sender: &Sender<()>) {
    loop {
        let mut polled = [
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(table.as_fd(), PollFlags::PRI),
        ];
        if retry_on_intr(|| poll(&mut polled, None)).is_err() || !polled[0].revents().is_empty() {
            return;
        }
        // A full channel already says that something changed.
        if let Err(TrySendError::Disconnected(())) = sender.try_send(()) {
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::testing::{self, DEADLINE, given};
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::time::Instant;

    #[test]
    fn a_line_is_read_with_its_tags_and_escapes() {
        let text = b"36 35 98:1 /a\\040b /mnt/\\134x\\012\xff rw,noatime master:1 shared:2 - fuse.sshfs h:/\\043x rw\n\
                     37 36 0:5 / /none rw - tmpfs  rw\n";
        let mounts = parse(text).unwrap();
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].mount_id, mounts[0].parent_id, mounts[0].dev), (36, 35, makedev(98, 1)));
        assert_eq!(mounts[0].root, b"/a b");
        assert_eq!(mounts[0].mount_point, b"/mnt/\\x\n\xff");
        assert_eq!((&mounts[0].fs_type[..], &mounts[0].source[..]), (&b"fuse.sshfs"[..], &b"h:/#x"[..]));
        assert_eq!((&mounts[1].fs_type[..], &mounts[1].source[..]), (&b"tmpfs"[..], &b""[..]));
        assert!(parse(b"36 35 98:1 /\n").is_err());
    }

    #[test]
    fn a_mount_is_within_its_parents_by_whole_names() {
        let mount = &parse(b"1 0 0:1 / /srv/ab rw - tmpfs none rw\n").unwrap()[0];
        assert!(["/", "/srv", "/srv/", "/srv/ab"].iter().all(|dir| mount.is_within(dir.as_bytes())));
        assert!(["/srv/a", "/srv/ab/c", "/sr"].iter().all(|dir| !mount.is_within(dir.as_bytes())));
    }

    #[test]
    fn the_root_is_mounted() {
        let mounts = mounts().unwrap();
        let proc = mounts.iter().rev().find(|mount| mount.mount_point == b"/proc").unwrap();
        assert_eq!((&proc.fs_type[..], proc.dev), (&b"proc"[..], std::fs::metadata("/proc").unwrap().dev()));
    }

    #[test]
    fn mounting_and_unmounting_is_told() {
        let watch = MountWatch::start().unwrap();
        let Some(mount) = given("mounting_and_unmounting_is_told", testing::Mount::tmpfs()) else { return };
        let is_mounted = || mounts().unwrap().iter().any(|each| each.mount_point == mount.at.as_os_str().as_bytes());
        let told_until = |mounted: bool| {
            let deadline = Instant::now() + DEADLINE;
            loop {
                watch.changes().recv_deadline(deadline).expect("a change is told");
                if is_mounted() == mounted {
                    break;
                }
            }
        };
        told_until(true);
        mount.unmount().unwrap();
        told_until(false);
    }

    #[test]
    fn the_thread_ends_when_asked() {
        let watch = MountWatch::start().unwrap();
        let changes = watch.changes().clone();
        drop(watch);
        while changes.recv().is_ok() {}
    }

    proptest! {
        #[test]
        fn any_text_ends_without_a_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
        }
    }
}
