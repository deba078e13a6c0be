//! Where the socket is. The address of a Unix socket holds 107 bytes (`unix(7)`), a state directory's path may be longer.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// The socket's name in the state directory.
pub(crate) const SOCKET: &str = "control.sock";

/// `sun_path` without its final NUL.
const ADDRESS_BYTES_MAX: usize = 107;

/// A path by which the socket can be bound or reached; good for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Address {
    path: PathBuf,
    _dir: Option<File>,
}

impl Address {
    /// The socket of this state directory.
    pub(crate) fn of(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(SOCKET);
        if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
            return Ok(Address { path, _dir: None });
        }
        let dir = File::open(state_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
        Ok(Address { path, _dir: Some(dir) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
