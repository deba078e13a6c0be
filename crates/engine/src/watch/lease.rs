//! Whether anybody on this machine has a file open, or mapped shared, for writing: by a read lease, which the kernel
//! grants only if nobody has. It ends at once, when the file is closed. See `fcntl(2)`, "Leases".
//!
//! It says nothing of writers on other machines.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::sys;

/// What the kernel says of writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody had it open for writing.
    NoWriter,
    /// Somebody has.
    Busy,
    /// No lease can be had here: not a regular file, not our file, or not this file system.
    Unsupported,
}

/// The answer to [`no_writer`].
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// Whether there was a writer.
    pub verdict: Verdict,
    /// The file that was asked about: with [`Verdict::NoWriter`] as it was while the lease was held, which the caller
    /// compares with the version that is to be settled; else as it was found just before.
    pub stat: Stat,
}

/// Blocks SIGIO in the calling thread and all it starts: the default of that signal, by which a broken lease may
/// be told, ends the process. For `main`, before it starts any thread.
///
/// # Errors
/// None that is known.
pub fn block_sigio() -> io::Result<()> {
    sys::signal::block_sigio()
}

/// Asks whether `name` in `dir` has a writer. Costs a few microseconds; in these, another program's opening for
/// writing waits, or fails with `EAGAIN` if it is non-blocking.
///
/// # Errors
/// What `openat(2)` and `fstat(2)` say: above all `NotFound`, where the file is gone.
pub fn no_writer(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Lease> {
    let name = CString::new(name)?;
    // A pipe or a device must not even be opened: that would be noticed on its other end.
    let stat = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)?;
    if !is_file(&stat) {
        return Ok(Lease { verdict: Verdict::Unsupported, stat });
    }
    let file = match open_quietly(dir, &name) {
        Ok(file) => file,
        // Another program's own lease is in the way, or it became a symbolic link.
        Err(Errno::WOULDBLOCK) => return Ok(Lease { verdict: Verdict::Busy, stat }),
        Err(Errno::LOOP) => return Ok(Lease { verdict: Verdict::Unsupported, stat }),
        Err(errno) => return Err(errno.into()),
    };
    // What is no file any more is refused by the kernel.
    if let Err(error) = sys::lease::take(file.as_fd()) {
        let verdict = match Errno::from_io_error(&error) {
            Some(Errno::WOULDBLOCK) => Verdict::Busy,
            Some(Errno::INVAL | Errno::ACCESS | Errno::NOLCK | Errno::OPNOTSUPP | Errno::PERM) => Verdict::Unsupported,
            _ => return Err(error),
        };
        return Ok(Lease { verdict, stat });
    }
    Ok(Lease { verdict: Verdict::NoWriter, stat: fstat(&file)? })
}

/// Opens for reading without leaving a trace in the access time, where that is allowed.
fn open_quietly(dir: BorrowedFd<'_>, name: &CString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    match openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir, name, flags, Mode::empty()),
        opened => opened,
    }
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::testing::open_dir;
    use std::fs::{self, OpenOptions};
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    fn verdict(dir: &tempfile::TempDir, name: &str) -> Verdict {
        no_writer(open_dir(dir.path()).as_fd(), name.as_bytes()).unwrap().verdict
    }

    #[test]
    fn a_file_is_busy_as_long_as_it_is_open_for_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writer = fs::File::create(&path).unwrap();
        assert_eq!(verdict(&dir, "file"), Verdict::Busy);
        let reader = fs::File::open(&path).unwrap();
        drop(writer);
        let lease = no_writer(open_dir(dir.path()).as_fd(), b"file").unwrap();
        assert_eq!((lease.verdict, lease.stat.st_ino), (Verdict::NoWriter, fs::metadata(&path).unwrap().ino()));
        drop(reader);
    }

    #[test]
    fn a_file_is_busy_as_long_as_it_is_mapped_for_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"1").unwrap();
        // Maps the file, closes it (and the copy that Python keeps), says so, and keeps the mapping until its input ends.
        let script = "import mmap,os,sys\nfd=os.open(sys.argv[1],os.O_RDWR)\nm=mmap.mmap(fd,0)\nos.closerange(3,256)\n\
                      print(1,flush=True)\nsys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        output.read_exact(&mut [0]).unwrap();
        assert_eq!(verdict(&dir, "file"), Verdict::Busy);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(verdict(&dir, "file"), Verdict::NoWriter);
    }

    #[test]
    fn the_lease_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"1").unwrap();
        for _ in 0..100 {
            assert_eq!(verdict(&dir, "file"), Verdict::NoWriter);
            let flags = OFlags::WRONLY | OFlags::NONBLOCK;
            rustix::fs::open(&path, flags, Mode::empty()).expect("no lease is in the way");
        }
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
        rustix::fs::mknodat(open_dir(dir.path()), "pipe", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for name in ["dir", "link", "socket", "pipe"] {
            assert_eq!(verdict(&dir, name), Verdict::Unsupported, "{name}");
        }
        let gone = no_writer(open_dir(dir.path()).as_fd(), b"gone").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn sigio_is_blocked_in_threads_that_are_started_afterwards() {
        let blocked = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (libc::SIGIO - 1) != 0
        };
        let main = std::thread::spawn(move || {
            let before = blocked();
            block_sigio().unwrap();
            (before, std::thread::spawn(blocked).join().unwrap())
        });
        assert_eq!(main.join().unwrap(), (false, true));
    }

    #[test]
    fn a_writer_who_opens_at_that_instant_ends_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"1").unwrap();
        let file = fs::File::open(&path).unwrap();
        sys::lease::take(file.as_fd()).unwrap();
        // The kernel tells the holder, this process, by a signal before it answers.
        let refused = rustix::fs::open(&path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty());
        assert_eq!(refused.unwrap_err(), Errno::WOULDBLOCK);
        drop(file);
        OpenOptions::new().append(true).open(&path).unwrap();
    }
}
