//! What the tests of this module share: real file systems, and waiting for what the kernel tells.

use std::fmt::Display;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::thread::CapabilitySet;
use tempfile::TempDir;

use super::feed::FeedReceiver;
use super::{DirKey, Event, Notice, What, handle};

/// How long a test waits for what must come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What a test needs of the machine. Without it the test says so loudly and does not count as run; where all have
/// to run, `KEEPWATCH_REQUIRE_ALL=1`, it fails.
pub(crate) fn given<T, E: Display>(test: &str, what: Result<T, E>) -> Option<T> {
    match what {
        Ok(what) => Some(what),
        Err(why) => {
            assert!(std::env::var_os("KEEPWATCH_REQUIRE_ALL").is_none_or(|value| value != "1"), "{test}: {why}");
            eprintln!("KEEPWATCH-SKIPPED: {test}: {why}");
            None
        }
    }
}

/// A file system of its own, mounted for one test.
#[derive(Debug)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) at: PathBuf,
    dir: TempDir,
}

impl Mount {
    /// An empty tmpfs.
    pub(crate) fn tmpfs() -> Result<Mount, String> {
        let (dir, at) = mount_point()?;
        command("mount", &["-t", "tmpfs", "-o", "size=64m", "keepwatch-test", text(&at)])?;
        Ok(Mount { at, dir })
    }

    /// An empty file system of this kind on a loop device.
    pub(crate) fn on_loop(kind: &str) -> Result<Mount, String> {
        let (dir, at) = mount_point()?;
        let image = dir.path().join("image");
        File::create(&image).and_then(|image| image.set_len(320 << 20)).map_err(|error| error.to_string())?;
        command(&format!("mkfs.{kind}"), &["-q", text(&image)])?;
        command("mount", &["-o", "loop", text(&image), text(&at)])?;
        Ok(Mount { at, dir })
    }

    /// An overlay over two directories of the temporary directory's file system.
    pub(crate) fn overlay() -> Result<Mount, String> {
        let (dir, at) = mount_point()?;
        let layers = ["lower", "upper", "work"].map(|name| dir.path().join(name));
        layers.iter().try_for_each(std::fs::create_dir).map_err(|error| error.to_string())?;
        let [lower, upper, work] = layers.each_ref().map(|layer| text(layer));
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        command("mount", &["-t", "overlay", "-o", &options, "keepwatch-test", text(&at)])?;
        Ok(Mount { at, dir })
    }

    /// The file behind its loop device.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Mounts what lies on its loop device again.
    pub(crate) fn mount_again(&self) -> Result<(), String> {
        command("mount", &["-o", "loop", text(&self.image()), text(&self.at)])
    }

    /// Unmounts it as an administrator would, who is told if somebody holds it.
    pub(crate) fn unmount(&self) -> Result<(), String> {
        command("umount", &[text(&self.at)])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A test may have unmounted it.
        let _ = command("umount", &["--lazy", text(&self.at)]);
    }
}

fn mount_point() -> Result<(TempDir, PathBuf), String> {
    let dir = TempDir::new().map_err(|error| error.to_string())?;
    let at = dir.path().join("mounted");
    std::fs::create_dir(&at).map_err(|error| error.to_string())?;
    Ok((dir, at))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are plain")
}

/// Runs a program, or says why it failed.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Runs `act` in a thread without these capabilities, as an unprivileged service would.
pub(crate) fn without<T: Send>(dropped: CapabilitySet, act: impl FnOnce() -> T + Send) -> T {
    let unprivileged = move || {
        let mut sets = rustix::thread::capabilities(None).expect("own capabilities");
        sets.effective.remove(dropped);
        sets.permitted.remove(dropped);
        rustix::thread::set_capabilities(None, sets).expect("less is always allowed");
        act()
    };
    std::thread::scope(|scope| scope.spawn(unprivileged).join().expect("the test's thread did not fail"))
}

/// A descriptor of a directory.
pub(crate) fn open_dir(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a directory")
}

/// The key of the directory at `path`.
pub(crate) fn key(path: &Path) -> DirKey {
    handle::dir_key(open_dir(path).as_fd()).expect("a key")
}

/// All that a source has told so far.
#[derive(Debug)]
pub(crate) struct Heard {
    receiver: FeedReceiver,
    pub(crate) notices: Vec<Notice>,
}

impl Heard {
    pub(crate) fn new(receiver: FeedReceiver) -> Heard {
        Heard { receiver, notices: Vec::new() }
    }

    /// Listens until `enough`, and fails if that does not come.
    pub(crate) fn until(&mut self, what: &str, enough: impl Fn(&[Notice]) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !enough(&self.notices) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(Some(more)) => self.notices.extend(more),
                Ok(None) => panic!("not heard of: {what}; heard {:#?}", self.notices),
                Err(closed) => panic!("{closed}, not heard of: {what}; heard {:#?}", self.notices),
            }
        }
    }

    /// Listens until `what` was told of `name` in `dir`, and returns that event.
    pub(crate) fn until_event(&mut self, dir: &DirKey, name: &[u8], what: What) -> Event {
        let found =
            |notices: &[Notice]| events(notices).find(|event| is_at(event, dir, name) && event.what.has(what)).cloned();
        self.until(&format!("{what:?} of {:?}", bstr::BStr::new(name)), |notices| found(notices).is_some());
        found(&self.notices).expect("it was just there")
    }

    /// What was told of `name` in `dir` so far, all bits together.
    pub(crate) fn of(&self, dir: &DirKey, name: &[u8]) -> What {
        let here = events(&self.notices).filter(|event| is_at(event, dir, name));
        here.fold(What::default(), |all, event| all.with(event.what))
    }
}

/// The events among notices.
pub(crate) fn events(notices: &[Notice]) -> impl Iterator<Item = &Event> {
    notices.iter().filter_map(|notice| match notice {
        Notice::Event(event) => Some(event),
        Notice::Lost(_) | Notice::Reached(_) => None,
    })
}

fn is_at(event: &Event, dir: &DirKey, name: &[u8]) -> bool {
    event.place.dir == *dir && *event.place.name == *name
}
