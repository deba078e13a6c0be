//! Which method of watching a tree allows, found by trying, and what that method cannot see.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, openat};

use super::error::WatchError;
use super::fanotify::Fanotify;
use super::handle::{dir_key, open_by_key};
use super::inotify::Inotify;
use super::magic::FsMagic;

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forced {
    /// The best that works.
    #[default]
    Auto,
    /// fanotify or an error.
    Fanotify,
    /// inotify or an error.
    Inotify,
    /// No notices of the kernel, only scans.
    Poll,
}

/// A method of watching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One mark for the whole file system.
    Fanotify,
    /// A watch for every directory.
    Inotify,
    /// Scans at intervals alone.
    Poll,
}

/// What was chosen for a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How its changes are told.
    pub method: Method,
    /// Whether it has to be scanned at intervals, in addition or alone.
    pub polls: bool,
    /// On what kind of file system it lies.
    pub filesystem: FsMagic,
    /// What this cannot see, and why nothing better was chosen, in words for `status`.
    pub reasons: Vec<String>,
}

/// Tries the methods on `dir` (`O_PATH` will do) in their order, and leaves no mark behind.
///
/// # Errors
/// Why the forced method is refused; why the directory cannot be opened; [`WatchError::Limit`] where inotify would
/// do, had the kernel been allowed more.
pub fn probe(dir: BorrowedFd<'_>, forced: Forced) -> Result<Choice, WatchError> {
    let os = |source| WatchError::Os { action: "open the root", source };
    let opened = openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| os(errno.into()))?;
    let dir = opened.as_fd();
    let filesystem = FsMagic::of(dir).map_err(os)?;
    let mut reasons = Vec::new();
    let method = choose(dir, forced, filesystem, &mut reasons)?;
    let polls = filesystem.is_network() || method == Method::Poll;
    reasons.extend(blind_spots(method).iter().map(|&spot| spot.to_owned()));
    if filesystem.is_network() {
        reasons.push(format!("what other machines change on this {filesystem} is found only by scans at intervals"));
    }
    Ok(Choice { method, polls, filesystem, reasons })
}

fn choose(
    dir: BorrowedFd<'_>,
    forced: Forced,
    filesystem: FsMagic,
    reasons: &mut Vec<String>,
) -> Result<Method, WatchError> {
    match forced {
        Forced::Fanotify => return try_fanotify(dir).map(|()| Method::Fanotify),
        Forced::Inotify => return Inotify::try_watch(dir).map(|()| Method::Inotify),
        Forced::Poll => return Ok(Method::Poll),
        Forced::Auto => {}
    }
    if filesystem.is_pseudo() {
        reasons.push(format!("{filesystem} is made up by the kernel, which tells of no changes in it"));
        return Ok(Method::Poll);
    }
    match try_fanotify(dir) {
        Ok(()) => return Ok(Method::Fanotify),
        Err(error) => reasons.push(format!("no fanotify: {}", with_source(&error))),
    }
    match Inotify::try_watch(dir) {
        Ok(()) => Ok(Method::Inotify),
        Err(limit @ WatchError::Limit { .. }) => Err(limit),
        Err(error) => {
            reasons.push(format!("no inotify: {}", with_source(&error)));
            Ok(Method::Poll)
        }
    }
}

/// What no care can make up for.
fn blind_spots(method: Method) -> &'static [&'static str] {
    match method {
        Method::Fanotify => &["writes through a shared mapping are told only when the file is closed"],
        Method::Inotify => &[
            "writes through a shared mapping are told only when the file is closed",
            "which process made a change is not told",
            "what happens in a new directory before it is watched is found by a look into it",
            "a write by one hard link is told in that link's directory only",
        ],
        Method::Poll => &["what comes and goes between two scans is not seen, nor which process made a change"],
    }
}

fn with_source(error: &WatchError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A mark alone is not enough: its events have to lead back to directories.
fn try_fanotify(dir: BorrowedFd<'_>) -> Result<(), WatchError> {
    Fanotify::try_mark(dir)?;
    let opened = dir_key(dir).and_then(|key| open_by_key(dir, &key, OFlags::PATH));
    opened.map(drop).map_err(|source| match source.kind() {
        std::io::ErrorKind::PermissionDenied => WatchError::Privilege {
            action: "open a directory by its handle",
            capability: "CAP_DAC_READ_SEARCH",
            source,
        },
        _ => WatchError::Os { action: "open a directory by its handle", source },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::testing::{Mount, command, given, open_dir, without};
    use rustix::thread::CapabilitySet;
    use std::path::Path;

    fn choice(path: &Path, forced: Forced) -> Choice {
        probe(open_dir(path).as_fd(), forced).unwrap()
    }

    #[test]
    fn fanotify_is_chosen_where_marks_are_granted() {
        for kind in ["ext4", "xfs", "btrfs"] {
            let Some(mount) = given("fanotify_is_chosen_where_marks_are_granted", Mount::on_loop(kind)) else {
                continue;
            };
            let choice = choice(&mount.at, Forced::Auto);
            assert_eq!((choice.method, choice.polls), (Method::Fanotify, false), "{kind}: {:?}", choice.reasons);
            assert_eq!(choice.filesystem.to_string(), kind);
        }
    }

    #[test]
    fn a_btrfs_subvolume_is_watched_by_inotify_and_says_why() {
        let test = "a_btrfs_subvolume_is_watched_by_inotify_and_says_why";
        let Some(mount) = given(test, Mount::on_loop("btrfs")) else { return };
        let subvolume = mount.at.join("subvolume");
        command("btrfs", &["-q", "subvolume", "create", subvolume.to_str().unwrap()]).unwrap();
        let choice = choice(&subvolume, Forced::Auto);
        assert_eq!(choice.method, Method::Inotify);
        assert!(
            choice.reasons[0].starts_with("no fanotify: ") && choice.reasons[0].contains("subvolume"),
            "{choice:?}"
        );
        let refused = probe(open_dir(&subvolume).as_fd(), Forced::Fanotify).unwrap_err();
        assert!(matches!(refused, WatchError::Unsupported { .. }), "{refused:?}");
    }

    #[test]
    fn an_overlay_without_handles_is_watched_by_inotify() {
        let test = "an_overlay_without_handles_is_watched_by_inotify";
        let Some(mount) = given(test, Mount::overlay()) else { return };
        let choice = choice(&mount.at, Forced::Auto);
        assert_eq!((choice.method, choice.polls), (Method::Inotify, false), "{:?}", choice.reasons);
    }

    #[test]
    fn without_privilege_inotify_is_chosen_and_says_which_is_missing() {
        let Some(mount) = given("without_privilege_inotify_is_chosen", Mount::on_loop("ext4")) else { return };
        for (dropped, name) in
            [(CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"), (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH")]
        {
            let choice = without(dropped, || choice(&mount.at, Forced::Auto));
            assert_eq!(choice.method, Method::Inotify, "{name}");
            assert!(choice.reasons[0].contains(name), "{:?}", choice.reasons);
        }
    }

    #[test]
    fn what_is_made_up_by_the_kernel_is_only_polled() {
        let choice = choice(Path::new("/proc"), Forced::Auto);
        assert_eq!((choice.method, choice.polls), (Method::Poll, true));
    }

    #[test]
    fn what_is_forced_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(choice(dir.path(), Forced::Inotify).method, Method::Inotify);
        let poll = choice(dir.path(), Forced::Poll);
        assert_eq!((poll.method, poll.polls), (Method::Poll, true));
    }
}
