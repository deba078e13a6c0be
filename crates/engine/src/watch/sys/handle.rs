//! File handles: `name_to_handle_at(2)`, `open_by_handle_at(2)`, and the file system id that goes with them.

use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{done, owned};

/// The kernel's `MAX_HANDLE_SZ`: no file system makes a longer handle.
const HANDLE_MAX: usize = libc::MAX_HANDLE_SZ as usize;

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; HANDLE_MAX],
}

/// A file handle: an object's name within its file system, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// Which of its kinds of handle the file system made.
    pub(crate) kind: i32,
    /// What only the file system understands.
    pub(crate) bytes: Vec<u8>,
}

/// The handle of `name` in `dir`, never following a symbolic link; of `dir` itself if `name` is empty.
pub(crate) fn of_name(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Handle> {
    let mut raw = FileHandle { bytes: HANDLE_MAX as u32, kind: 0, handle: [0; HANDLE_MAX] };
    let mut mount_id = 0;
    // SAFETY: `raw` starts with the two fields of `struct file_handle`, then has as many bytes as its first field
    // says, so the kernel writes inside it; the name is NUL-terminated; `mount_id` is ours to write to.
    done(unsafe {
        libc::name_to_handle_at(
            dir.as_raw_fd(),
            name.as_ptr(),
            (&raw mut raw).cast::<libc::file_handle>(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    })?;
    let bytes = raw.handle.get(..raw.bytes as usize).unwrap_or(&raw.handle).to_vec();
    Ok(Handle { kind: raw.kind, bytes })
}

/// Opens the object with this handle on the file system that `mount` (not an `O_PATH` descriptor) lies on.
pub(crate) fn open(mount: BorrowedFd<'_>, handle: &Handle, flags: i32) -> io::Result<OwnedFd> {
    let mut raw = FileHandle { bytes: 0, kind: handle.kind, handle: [0; HANDLE_MAX] };
    let Some(room) = raw.handle.get_mut(..handle.bytes.len()) else {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    };
    room.copy_from_slice(&handle.bytes);
    raw.bytes = handle.bytes.len() as u32;
    // SAFETY: `raw` is a `struct file_handle` followed by the bytes that its first field counts; the kernel reads it.
    owned(unsafe {
        libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut raw).cast::<libc::file_handle>(), flags | libc::O_CLOEXEC)
    })
}

/// `f_fsid` of the file system that `fd` lies on: the bytes that fanotify reports for it.
pub(crate) fn fsid(fd: BorrowedFd<'_>) -> io::Result<[u8; 8]> {
    const { assert!(size_of::<libc::fsid_t>() == 8) };
    let mut stat = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the kernel writes one `struct statfs` to where `stat` has room for one.
    done(unsafe { libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: `f_fsid` lies within `stat`, is eight bytes long, and was set to zero at least; bytes have no alignment.
    Ok(unsafe { stat.as_ptr().cast::<u8>().add(offset_of!(libc::statfs, f_fsid)).cast::<[u8; 8]>().read() })
}
