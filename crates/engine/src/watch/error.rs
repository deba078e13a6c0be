//! What keeps a tree from being watched, by what can be done about it.

use std::io;

/// Why a watch could not be set.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel refuses for want of privilege.
    #[error("not allowed to {action}: run with the capability {capability}, or set watch = \"inotify\"")]
    Privilege {
        /// What was tried.
        action: &'static str,
        /// What it takes.
        capability: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file system or the kernel cannot do it; another method can.
    #[error("cannot {action} here: {why}; set watch = \"inotify\" or \"poll\"")]
    Unsupported {
        /// What was tried.
        action: &'static str,
        /// What is in the way.
        why: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A limit of the kernel is reached.
    #[error(
        "cannot {action}: the limit {sysctl} is {}, at least {needed} are needed; raise it with `sysctl -w {sysctl}={needed}`",
        current.map_or_else(|| "reached".to_owned(), |current| current.to_string())
    )]
    Limit {
        /// What was tried.
        action: &'static str,
        /// The setting's name.
        sysctl: &'static str,
        /// Its value, if it can be read.
        current: Option<u64>,
        /// The least value that would do. Who knows how many directories there are may raise it.
        needed: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else that the kernel answered.
    #[error("cannot {action}")]
    Os {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl WatchError {
    /// A limit that the kernel reports as reached while fewer than `needed` are ours: other programs of the same
    /// user have their share of it.
    pub(super) fn limit(action: &'static str, sysctl: &'static str, needed: u64, source: io::Error) -> WatchError {
        let path = format!("/proc/sys/{}", sysctl.replace('.', "/"));
        let current = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        let needed = current.map_or(needed, |current: u64| needed.max(current + 1));
        WatchError::Limit { action, sysctl, current, needed, source }
    }

    /// Whether another method of watching may do where this one failed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, WatchError::Privilege { .. } | WatchError::Unsupported { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reached_limit_names_the_setting_its_value_and_the_number_needed() {
        let sysctl = "fs.inotify.max_user_watches";
        let current: u64 = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .expect("the kernel has inotify");
        for (needed, told) in [(1, current + 1), (current + 1000, current + 1000)] {
            let error = WatchError::limit("watch a directory", sysctl, needed, io::Error::other("full"));
            let expected = format!(
                "cannot watch a directory: the limit {sysctl} is {current}, at least {told} are needed; raise it with \
                 `sysctl -w {sysctl}={told}`"
            );
            assert_eq!(error.to_string(), expected);
        }
    }
}
