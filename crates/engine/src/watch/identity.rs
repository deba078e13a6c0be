//! Which file system and which directory a root is, so that another disk in its place is told from it.
//!
//! As text: `uuid:UUID handle:HEX`. Where the file system has no UUID that can be had, `fsid:HEX`, which may change
//! with a reboot; where it has no handles, `inode:NUMBER`.

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::str::FromStr;

use rustix::fs::{Mode, OFlags, fstat, openat};

use super::DirKey;
use super::handle::{HANDLE_TAG, dir_key, fsid_of};
use super::magic::FsMagic;
use super::sys::fs_uuid;

/// Where udev keeps a link to each block device under its file system's UUID.
const BY_UUID: &str = "/dev/disk/by-uuid";

/// The identity of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    filesystem: Filesystem,
    top: Top,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Filesystem {
    Uuid(String),
    Fsid([u8; 8]),
}

/// The root directory within its file system.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Top {
    Handle(Vec<u8>),
    Inode(u64),
}

/// Whether two identities are of the same root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// The same directory of the same file system.
    Same,
    /// Another one.
    Different,
    /// The directory fits, but of the file system there are only hints, and they differ.
    Unsure,
}

impl Identity {
    /// Compares what was kept with what is there now.
    #[must_use]
    pub fn compare(&self, other: &Identity) -> Sameness {
        let is_same_top = self.top == other.top;
        match (&self.filesystem, &other.filesystem) {
            (Filesystem::Uuid(one), Filesystem::Uuid(two)) if one != two => Sameness::Different,
            _ if !is_same_top => Sameness::Different,
            (one, two) if one == two => Sameness::Same,
            _ => Sameness::Unsure,
        }
    }
}

/// The identity of the directory that `dir` is open on (`O_PATH` will do).
///
/// # Errors
/// Where the directory cannot be opened for reading, or the file system does not answer.
pub fn root_identity(dir: BorrowedFd<'_>) -> io::Result<Identity> {
    let opened = openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let opened = opened.as_fd();
    let filesystem = match filesystem_uuid(opened)? {
        Some(uuid) => Filesystem::Uuid(uuid),
        None => Filesystem::Fsid(fsid_of(opened)?),
    };
    let top = match dir_key(opened)? {
        // Behind the tag and the file system's id: the handle's type and bytes.
        DirKey(key) if key.first() == Some(&HANDLE_TAG) => Top::Handle(key[9..].to_vec()),
        _ => Top::Inode(fstat(opened)?.st_ino),
    };
    Ok(Identity { filesystem, top })
}

/// From the file system itself, else from udev. Older kernels, and file systems without a UUID of this form, answer
/// with several different errors, which all mean the same here.
fn filesystem_uuid(dir: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let is_set = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
    if let Some(bytes) = fs_uuid::get(dir).ok().filter(|bytes| is_set(bytes)) {
        return Ok(Some(uuid_text(&bytes)));
    }
    // Its device numbers are its own, so udev does not lead to it. Another file system might take the same request
    // for something else.
    if FsMagic::of(dir)? == FsMagic::BTRFS {
        return Ok(fs_uuid::get_btrfs(dir).ok().map(|bytes| uuid_text(&bytes)));
    }
    Ok(uuid_by_device(Path::new(BY_UUID), fstat(dir)?.st_dev))
}

/// The name of the link in `by_uuid` that leads to the block device `dev`.
fn uuid_by_device(by_uuid: &Path, dev: u64) -> Option<String> {
    let links = std::fs::read_dir(by_uuid).ok()?;
    links.flatten().find_map(|link| {
        let device = std::fs::metadata(link.path()).ok()?;
        let name = link.file_name().into_string().ok()?;
        let is_it = device.file_type().is_block_device() && device.rdev() == dev;
        (is_it && is_word(&name)).then_some(name)
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Sixteen bytes as `8-4-4-4-12` hexadecimal digits, the way `blkid` writes them; any other number without strokes.
fn uuid_text(bytes: &[u8]) -> String {
    match bytes.len() {
        16 => [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]].map(hex).join("-"),
        _ => hex(bytes),
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.filesystem {
            Filesystem::Uuid(uuid) => write!(f, "uuid:{uuid} ")?,
            Filesystem::Fsid(fsid) => write!(f, "fsid:{} ", hex(fsid))?,
        }
        match &self.top {
            Top::Handle(handle) => write!(f, "handle:{}", hex(handle)),
            Top::Inode(inode) => write!(f, "inode:{inode}"),
        }
    }
}

/// A text that is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a root's identity: {0:?}; expected `uuid:… handle:…`")]
pub struct NotAnIdentity(String);

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| NotAnIdentity(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Identity> {
    let (filesystem, top) = text.split_once(' ')?;
    let filesystem = match filesystem.split_once(':')? {
        ("uuid", uuid) if is_word(uuid) => Filesystem::Uuid(uuid.to_owned()),
        ("fsid", fsid) => Filesystem::Fsid(unhex(fsid)?.try_into().ok()?),
        _ => return None,
    };
    let top = match top.split_once(':')? {
        ("handle", handle) => Top::Handle(unhex(handle)?),
        ("inode", inode) => Top::Inode(inode.parse().ok()?),
        _ => return None,
    };
    Some(Identity { filesystem, top })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::testing::{Mount, given, open_dir};
    use std::os::unix::fs::symlink;
    use std::process::Command;

    fn identity(path: &Path) -> Identity {
        root_identity(open_dir(path).as_fd()).unwrap()
    }

    #[test]
    fn the_text_leads_back_to_the_identity() {
        let dir = tempfile::tempdir().unwrap();
        let here = identity(dir.path());
        assert_eq!(here.to_string().parse::<Identity>().unwrap(), here);
        for text in ["fsid:0102030405060708 inode:7", "uuid:1234-ABCD handle:01000000ff"] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
        for text in
            ["", "uuid:x", "uuid: handle:00", "fsid:01 inode:7", "uuid:x handle:0", "uuid:x handle:zz", "a:b c:d"]
        {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_directory_keeps_its_identity_under_another_name_and_loses_it_with_its_life() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::create_dir(&one).unwrap();
        let before = identity(&one);
        std::fs::rename(&one, &two).unwrap();
        assert_eq!(before.compare(&identity(&two)), Sameness::Same);
        std::fs::remove_dir(&two).unwrap();
        std::fs::create_dir(&two).unwrap();
        assert_eq!(before.compare(&identity(&two)), Sameness::Different);
    }

    #[test]
    fn a_remount_keeps_it_and_another_disk_does_not() {
        for kind in ["ext4", "xfs", "btrfs"] {
            let test = format!("a_remount_keeps_it_and_another_disk_does_not on {kind}");
            let Some(mount) = given(&test, Mount::on_loop(kind)) else { continue };
            let before = identity(&mount.at);
            let uuid = Command::new("blkid").args(["-s", "UUID", "-o", "value"]).arg(mount.image()).output().unwrap();
            let uuid = String::from_utf8(uuid.stdout).unwrap();
            assert!(before.to_string().starts_with(&format!("uuid:{} handle:", uuid.trim())), "{kind}: {before}");
            mount.unmount().unwrap();
            assert_eq!(before.compare(&identity(&mount.at)), Sameness::Different, "{kind}: the mount point");
            mount.mount_again().unwrap();
            assert_eq!(before.compare(&identity(&mount.at)), Sameness::Same, "{kind}");
            let other = Mount::on_loop(kind).unwrap();
            assert_eq!(before.compare(&identity(&other.at)), Sameness::Different, "{kind}");
        }
    }

    #[test]
    fn a_hint_alone_makes_nobody_sure() {
        let parsed = |text: &str| text.parse::<Identity>().unwrap();
        let kept = parsed("fsid:0102030405060708 handle:01");
        assert_eq!(kept.compare(&kept), Sameness::Same);
        assert_eq!(kept.compare(&parsed("fsid:ff02030405060708 handle:01")), Sameness::Unsure);
        assert_eq!(kept.compare(&parsed("uuid:x handle:01")), Sameness::Unsure);
        assert_eq!(kept.compare(&parsed("uuid:x handle:02")), Sameness::Different);
        assert_eq!(parsed("uuid:x handle:01").compare(&parsed("uuid:y handle:01")), Sameness::Different);
    }

    #[test]
    fn udev_is_asked_by_device_number() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("device");
        let dev = rustix::fs::makedev(7, 250);
        let made = rustix::fs::mknodat(rustix::fs::CWD, &device, rustix::fs::FileType::BlockDevice, Mode::RUSR, dev);
        let Some(()) = given("udev_is_asked_by_device_number", made) else { return };
        let by_uuid = dir.path().join("by-uuid");
        std::fs::create_dir(&by_uuid).unwrap();
        symlink("../gone", by_uuid.join("0000-0000")).unwrap();
        symlink("../device", by_uuid.join("1234-ABCD")).unwrap();
        assert_eq!(uuid_by_device(&by_uuid, dev).as_deref(), Some("1234-ABCD"));
        assert_eq!(uuid_by_device(&by_uuid, dev + 1), None);
    }
}
