//! What tests leave behind. All temporary files of a run lie in one directory of its own; whatever still refers to it
//! when the tests have ended (a process, a mount, a loop device, a file) was left behind.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What ends by itself has this long.
const GRACE: Duration = Duration::from_secs(5);

/// The directory for a run's temporary files.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// Makes it.
    pub(crate) fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("keepwatch-tests-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        // Some tests run as another user.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777))?;
        Ok(TempDir(path))
    }

    /// For `TMPDIR`.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Says what was left behind, and removes it; whether there was nothing.
    pub(crate) fn check(&self) -> Result<bool> {
        let start = Instant::now();
        let mut left = self.left()?;
        while !left.is_empty() && start.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(100));
            left = self.left()?;
        }
        for thing in &left {
            println!("left behind: {}", thing.says());
        }
        // Processes first, then mounts, then the devices below them.
        for thing in &left {
            thing.remove();
        }
        fs::remove_dir_all(&self.0).with_context(|| self.0.display().to_string())?;
        if left.is_empty() {
            println!("nothing was left behind");
        }
        Ok(left.is_empty())
    }

    fn left(&self) -> Result<Vec<Left>> {
        let processes = processes(&self.0)?.into_iter();
        let mounts = mounts(&self.0)?.into_iter();
        let devices = loop_devices(&self.0)?.into_iter();
        let files = fs::read_dir(&self.0)?.flatten().map(|entry| Left::File(entry.path()));
        Ok(processes.chain(mounts).chain(devices).chain(files).collect())
    }
}

enum Left {
    Process(u32, String),
    Mount(PathBuf),
    Loop(PathBuf),
    File(PathBuf),
}

impl Left {
    fn says(&self) -> String {
        match self {
            Left::Process(pid, line) => format!("process {pid}: {line}"),
            Left::Mount(path) => format!("mount on {}", path.display()),
            Left::Loop(path) => format!("loop device {}", path.display()),
            Left::File(path) => path.display().to_string(),
        }
    }

    fn remove(&self) {
        let mut command = match self {
            Left::Process(pid, _) => with(Command::new("kill"), &["-KILL", &pid.to_string()]),
            Left::Mount(path) => with(Command::new("umount"), &["--lazy", &path.to_string_lossy()]),
            Left::Loop(path) => with(Command::new("losetup"), &["--detach", &path.to_string_lossy()]),
            Left::File(_) => return,
        };
        // It may be gone by now.
        let _ = command.status();
    }
}

fn with(mut command: Command, args: &[&str]) -> Command {
    command.args(args);
    command
}

/// Processes with the directory in their arguments or environment, or that are in it.
fn processes(dir: &Path) -> Result<Vec<Left>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let line = read("cmdline");
        let inside = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        if inside || mentions(&line, dir) || mentions(&read("environ"), dir) {
            found.push(Left::Process(pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    Ok(found)
}

/// Mount points below the directory, the innermost first.
fn mounts(dir: &Path) -> Result<Vec<Left>> {
    // `proc_pid_mountinfo(5)`: the fifth field is the mount point.
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    below.reverse();
    Ok(below.into_iter().map(Left::Mount).collect())
}

/// Loop devices whose file lies, or lay, in the directory.
fn loop_devices(dir: &Path) -> Result<Vec<Left>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let file = fs::read(entry.path().join("loop/backing_file")).unwrap_or_default();
        if mentions(&file, dir) {
            found.push(Left::Loop(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(found)
}

fn mentions(bytes: &[u8], dir: &Path) -> bool {
    let dir = dir.as_os_str().as_bytes();
    bytes.windows(dir.len()).any(|window| window == dir)
}
