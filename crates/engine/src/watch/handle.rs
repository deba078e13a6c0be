//! Directory identities: made from descriptors here, and equal to those that fanotify reports.
//!
//! A key is `h`, the file system id, the handle's type and its bytes. Where the file system makes no handles, or
//! has no id of its own (FUSE, SMB, NFS: their handles are not kept across a remount, and fanotify refuses them), it
//! is `i`, the device and the inode number.
//!
//! On btrfs each subvolume has an id of its own, but a mark reports all under the id of the file system's top: keys
//! agree only within the subvolume that the mark was set on. The kernel refuses marks on any but the top (`EXDEV`).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::DirKey;
use super::sys::handle::{self, Handle};

/// Opens a key that holds a file handle.
pub(crate) const HANDLE_TAG: u8 = b'h';
/// Opens a key that holds device and inode.
const INODE_TAG: u8 = b'i';

impl DirKey {
    /// The id of its file system, by which to choose a descriptor for [`open_by_key`]; `None` where the key holds
    /// no handle and cannot be opened.
    #[must_use]
    pub fn fsid(&self) -> Option<[u8; 8]> {
        match self.0.split_first() {
            Some((&HANDLE_TAG, rest)) => rest.first_chunk().copied(),
            _ => None,
        }
    }

    /// The device of its file system, where the key holds no handle.
    #[must_use]
    pub fn dev(&self) -> Option<u64> {
        match self.0.split_first() {
            Some((&INODE_TAG, rest)) => rest.first_chunk().map(|dev| u64::from_ne_bytes(*dev)),
            _ => None,
        }
    }

    /// Whether no other directory will ever have this key: without a handle it is an inode number, which is used again.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.0.first() == Some(&HANDLE_TAG)
    }

    fn handle(&self) -> Option<Handle> {
        let (&HANDLE_TAG, rest) = self.0.split_first()? else { return None };
        let (_, rest) = rest.split_first_chunk::<8>()?;
        let (kind, bytes) = rest.split_first_chunk::<4>()?;
        Some(Handle { kind: i32::from_ne_bytes(*kind), bytes: bytes.to_vec() })
    }
}

/// The id of the file system that `fd` lies on; all zero where it has none.
///
/// # Errors
/// What `fstatfs(2)` says.
pub fn fsid_of(fd: BorrowedFd<'_>) -> io::Result<[u8; 8]> {
    handle::fsid(fd)
}

/// The key of the object that `fd` is open on (`O_PATH` will do). Costs two or three system calls.
///
/// # Errors
/// What `name_to_handle_at(2)`, `fstatfs(2)` or `fstat(2)` say, other than that there are no handles.
pub fn dir_key(fd: BorrowedFd<'_>) -> io::Result<DirKey> {
    let fsid = handle::fsid(fd)?;
    if fsid != [0; 8] {
        match handle::of_name(fd, c"") {
            Ok(Handle { kind, bytes }) => {
                let key = [&[HANDLE_TAG][..], &fsid, &kind.to_ne_bytes(), &bytes].concat();
                return Ok(DirKey(key.into_boxed_slice()));
            }
            Err(error) if has_no_handles(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let stat = fstat(fd)?;
    let key = [&[INODE_TAG][..], &stat.st_dev.to_ne_bytes(), &stat.st_ino.to_ne_bytes()].concat();
    Ok(DirKey(key.into_boxed_slice()))
}

/// The key of `name` in `dir`, never following a symbolic link; of `dir` itself if `name` is empty. Across a mount
/// point it is the key of what is mounted there.
///
/// The object is not opened, only pointed at (`O_PATH`), so that the file system id is its own.
///
/// # Errors
/// `NotFound` where there is no such name; else what [`dir_key`] says.
pub fn child_key(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<DirKey> {
    if name.is_empty() {
        return dir_key(dir);
    }
    let name = CString::new(name)?;
    let child = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    dir_key(child.as_fd())
}

/// Whether `name` in `dir` is the object that `key` names, by its handle alone: `dir` lies on the key's file system, and
/// what is mounted on `name` does not count. `None` for a key without a handle, or where there is no telling.
#[must_use]
pub fn is_object(dir: BorrowedFd<'_>, name: &[u8], key: &DirKey) -> Option<bool> {
    let wanted = key.handle()?;
    let name = CString::new(name).ok()?;
    match handle::of_name(dir, &name) {
        Ok(found) => Some(found == wanted),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

/// Opens the object that `key` names, wherever it has been moved, on the file system of `mount`: any descriptor
/// there that is not `O_PATH` and for which [`fsid_of`] equals the key's. Needs `CAP_DAC_READ_SEARCH`.
///
/// # Errors
/// `ESTALE` where the object is gone; `EOPNOTSUPP` for a key without a handle; else what `open_by_handle_at(2)` says.
pub fn open_by_key(mount: BorrowedFd<'_>, key: &DirKey, flags: OFlags) -> io::Result<OwnedFd> {
    let handle = key.handle().ok_or(Errno::OPNOTSUPP)?;
    let opened = handle::open(mount, &handle, flags.bits().cast_signed())?;
    // The kernel may still find an object that was removed a moment ago.
    if fstat(&opened)?.st_nlink == 0 {
        return Err(Errno::STALE.into());
    }
    Ok(opened)
}

/// Whether the file system makes no handles, or a sandbox's system call filter keeps them from us.
fn has_no_handles(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::OVERFLOW))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::testing::{Mount, given, open_dir};
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn without_handles_a_key_is_device_and_inode() {
        let Some(mount) = given("without_handles_a_key_is_device_and_inode", Mount::overlay()) else { return };
        fs::create_dir(mount.at.join("dir")).unwrap();
        let dir = open_dir(&mount.at.join("dir"));
        let stat = fs::metadata(mount.at.join("dir")).unwrap();
        let key = dir_key(dir.as_fd()).unwrap();
        assert_eq!(&*key.0, [&b"i"[..], &stat.dev().to_ne_bytes(), &stat.ino().to_ne_bytes()].concat());
        assert_eq!(key.fsid(), None);
        let refused = open_by_key(dir.as_fd(), &key, OFlags::PATH).unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::OPNOTSUPP));
    }

    #[test]
    fn the_key_of_a_child_is_its_own_also_across_a_mount_point_and_of_a_link() {
        let test = "the_key_of_a_child_is_its_own_also_across_a_mount_point_and_of_a_link";
        let Some(mount) = given(test, Mount::tmpfs()) else { return };
        let parent = open_dir(mount.at.parent().unwrap());
        let inside = dir_key(open_dir(&mount.at).as_fd()).unwrap();
        assert_eq!(child_key(parent.as_fd(), mount.at.file_name().unwrap().as_encoded_bytes()).unwrap(), inside);
        assert_eq!(child_key(open_dir(&mount.at).as_fd(), b"").unwrap(), inside);
        std::os::unix::fs::symlink(".", mount.at.join("link")).unwrap();
        assert_ne!(child_key(open_dir(&mount.at).as_fd(), b"link").unwrap(), inside);
        let gone = child_key(parent.as_fd(), b"gone").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_directory_that_takes_the_place_of_another_has_another_key() {
        let Some(mount) = given("a_directory_that_takes_the_place_of_another", Mount::on_loop("ext4")) else { return };
        let (dir, top) = (mount.at.join("dir"), open_dir(&mount.at));
        let make = || {
            fs::create_dir(&dir).unwrap();
            (child_key(top.as_fd(), b"dir").unwrap(), fs::metadata(&dir).unwrap().ino())
        };
        let (before, inode_before) = make();
        fs::remove_dir(&dir).unwrap();
        let (after, inode_after) = make();
        assert_eq!(inode_before, inode_after, "ext4 uses an inode again at once");
        assert_ne!(before, after);
        let stale = open_by_key(top.as_fd(), &before, OFlags::PATH).unwrap_err();
        assert_eq!(Errno::from_io_error(&stale), Some(Errno::STALE));
    }

    #[test]
    fn a_key_that_was_cut_or_made_up_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mount = open_dir(dir.path());
        let sound = dir_key(mount.as_fd()).unwrap();
        for len in 0..sound.0.len() {
            assert!(open_by_key(mount.as_fd(), &DirKey(sound.0[..len].into()), OFlags::PATH).is_err(), "{len}");
        }
        let endless = DirKey([&sound.0[..], &[0; 200]].concat().into());
        assert!(open_by_key(mount.as_fd(), &endless, OFlags::PATH).is_err());
    }
}
