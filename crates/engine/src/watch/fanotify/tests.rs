//! Real events of real file systems.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};

use super::*;
use crate::watch::feed::feed;
use crate::watch::handle;
use crate::watch::testing::{Heard, Mount, events, given, key, open_dir};

/// A file system of its own, marked.
struct Marked {
    mount: Mount,
    source: Fanotify,
    heard: Heard,
}

impl Marked {
    fn new(mount: Result<Mount, String>) -> Result<Marked, String> {
        let mount = mount?;
        let (feed, receiver) = feed(100_000);
        let source = Fanotify::start(feed, FanotifyOptions::default()).map_err(|error| error.to_string())?;
        source.mark_filesystem(open_dir(&mount.at).as_fd()).map_err(|error| error.to_string())?;
        Ok(Marked { mount, source, heard: Heard::new(receiver) })
    }

    fn at(&self) -> &Path {
        &self.mount.at
    }
}

#[test]
fn keys_are_those_that_events_carry() {
    for kind in ["tmpfs", "ext4", "xfs", "btrfs"] {
        let mount = if kind == "tmpfs" { Mount::tmpfs() } else { Mount::on_loop(kind) };
        let Some(mut marked) = given(&format!("keys_are_those_that_events_carry on {kind}"), Marked::new(mount)) else {
            continue;
        };
        let dir = marked.at().join("dir");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), b"1").unwrap();
        let (root_key, dir_key) = (key(marked.at()), key(&dir));
        let made = marked.heard.until_event(&root_key, b"dir", What::CREATE);
        assert!(made.is_dir, "{kind}");
        assert_eq!(made.object.as_ref(), Some(&dir_key), "{kind}");
        let written = marked.heard.until_event(&dir_key, b"file", What::CLOSE_WRITE);
        assert_eq!(written.object, handle::child_key(open_dir(&dir).as_fd(), b"file").ok(), "{kind}");
        assert!(!written.is_dir, "{kind}");

        let moved = marked.at().join("moved");
        fs::rename(&dir, &moved).unwrap();
        let mount = open_dir(marked.at());
        let opened = handle::open_by_key(mount.as_fd(), &dir_key, OFlags::PATH).unwrap();
        let link = rustix::fs::readlink(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened)), vec![]);
        assert_eq!(link.unwrap().as_bytes(), moved.as_os_str().as_bytes(), "{kind}");
        assert_eq!(dir_key.fsid(), handle::fsid_of(mount.as_fd()).ok(), "{kind}");
        drop(opened);
        fs::remove_dir_all(&moved).unwrap();
        let gone = handle::open_by_key(mount.as_fd(), &dir_key, OFlags::PATH).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESTALE), "{kind}");
    }
}
