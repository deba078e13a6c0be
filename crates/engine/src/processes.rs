//! What `/proc` tells of a process by which it is told from a later one with the same number.

use std::path::Path;

/// What stands in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its process group.
    pub(crate) group: u32,
    /// When it began, in clock ticks since the machine did.
    pub(crate) born: u64,
}

impl Process {
    /// Reads the text of `/proc/PID/stat`. The second field, the command, may hold blanks and parentheses of its own.
    #[must_use]
    pub(crate) fn parse(stat: &[u8]) -> Option<Process> {
        let behind_command = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let mut fields = stat[behind_command..].split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
        // Fields 5 and 22 of the whole; the first here is the third.
        let group = u32::try_from(number(fields.nth(2)?)?).ok()?;
        let born = number(fields.nth(16)?)?;
        Some(Process { group, born })
    }

    /// Looks at a process; `None` if there is none.
    #[must_use]
    pub(crate) fn look(pid: u32) -> Option<Process> {
        Process::parse(&std::fs::read(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
    }
}

/// Which boot of the machine this is; empty where the system does not say.
#[must_use]
pub(crate) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// The numbers of all processes.
///
/// # Errors
/// If `/proc` cannot be listed.
pub(crate) fn all() -> std::io::Result<impl Iterator<Item = u32>> {
    let entries = std::fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn group_and_start_are_found_behind_any_command() {
        let stat = b"7 (a ) R (b) S 1 9 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 4711 99 1\n";
        assert_eq!(Process::parse(stat), Some(Process { group: 9, born: 4711 }));
        assert_eq!(Process::parse(b"7 (cut"), None);
        assert_eq!(Process::parse(b""), None);
        let own = Process::look(std::process::id()).unwrap();
        assert_eq!(i64::from(own.group), i64::from(rustix::process::getpgrp().as_raw_nonzero().get()));
        assert!(all().unwrap().any(|pid| pid == std::process::id()));
    }
}
