//! Who writes a staging file or holds a claim, told in the name of the file itself: HOST-PID-START-BOOT-UUID. By it a
//! process of the same machine can be proved dead; of one elsewhere nothing can be proved.

use std::fmt;
use std::fs;

use uuid::Uuid;

/// A host's name is cut here, in bytes, so that names stay short.
const HOST_BYTES_MAX: usize = 48;
/// The text of a UUID.
const UUID_LEN: usize = 36;

/// A process, and one thing that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The machine's name, for people.
    pub(crate) host: String,
    /// The process, within its namespace.
    pub(crate) pid: u32,
    /// When it was started, in the kernel's ticks since boot; tells it from a later process of the same number.
    pub(crate) start: u64,
    /// Stands for the boot of the kernel and the namespace of process numbers.
    pub(crate) boot: u64,
    /// Which thing: a version 7 UUID, so that names sort by time.
    pub(crate) uuid: Uuid,
}

impl Owner {
    /// This process, with a new UUID.
    #[must_use]
    pub(crate) fn of_process() -> Self {
        let pid = std::process::id();
        let nodename = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Owner {
            host: plain_host(&nodename),
            pid,
            start: state_of(pid).map_or(0, |(_, start)| start),
            boot: boot().unwrap_or(0),
            uuid: Uuid::now_v7(),
        }
    }

    /// The same process, with another UUID.
    #[must_use]
    pub(crate) fn renewed(&self) -> Self {
        Owner { uuid: Uuid::now_v7(), ..self.clone() }
    }

    /// Reads what `Display` wrote.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (rest, uuid) = text.split_at_checked(text.len().checked_sub(UUID_LEN)?)?;
        let uuid = Uuid::try_parse(uuid).ok()?;
        let mut fields = rest.strip_suffix('-')?.rsplitn(4, '-');
        let boot = u64::from_str_radix(fields.next()?, 16).ok()?;
        let start = fields.next()?.parse().ok()?;
        let pid = fields.next()?.parse().ok()?;
        Some(Owner { host: fields.next()?.to_owned(), pid, start, boot, uuid })
    }

    /// What headers of a staging file carry, to tell them from those of another one within a member.
    #[must_use]
    pub(crate) fn salt(&self) -> u64 {
        self.uuid.as_u64_pair().1
    }

    /// Whether the process is proved to be dead: it ran on this boot of this machine, among processes that we see, and
    /// is not there any more.
    #[must_use]
    pub(crate) fn is_dead(&self) -> bool {
        if self.boot == 0 || self.start == 0 || Some(self.boot) != boot() {
            return false;
        }
        match state_of(self.pid) {
            // What only waits for its parent to notice that it ended has ended.
            Some((state, start)) => start != self.start || matches!(state, b'Z' | b'X'),
            // Without /proc nothing is proved.
            None => state_of(std::process::id()).is_some(),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{:016x}-{}", self.host, self.pid, self.start, self.boot, self.uuid)
    }
}

fn plain_host(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_';
    let plain: String = name.chars().filter(|c| is_plain(*c)).take(HOST_BYTES_MAX).collect();
    // A name that began with a dot would be hidden.
    let plain = plain.trim_start_matches('.');
    if plain.is_empty() { "host".to_owned() } else { plain.to_owned() }
}

/// State and start time of a process: proc_pid_stat(5), fields 3 and 22.
fn state_of(pid: u32) -> Option<(u8, u64)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, and may hold anything.
    let behind = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(behind + 2..)?).ok()?;
    let mut fields = text.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Containers share the kernel's boot, but not their processes' numbers.
fn boot() -> Option<u64> {
    let boot_id = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(crate::digest::digest64(&[&boot_id, namespace.as_os_str().as_encoded_bytes()].concat()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_whose_it_is() {
        let owner = Owner { host: "node-7.a".to_owned(), ..Owner::of_process() };
        assert_eq!(Owner::parse(&owner.to_string()), Some(owner));
        for text in ["", "x", "a-1-2-3-not-a-uuid", "0193a0b0-0000-7000-8000-000000000000"] {
            assert_eq!(Owner::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_who_is_gone_is_dead() {
        let own = Owner::of_process();
        assert!(!own.is_dead());
        assert!(Owner { start: own.start + 1, ..own.clone() }.is_dead(), "a later process of the same number");
        assert!(!Owner { start: own.start + 1, boot: own.boot + 1, ..own.clone() }.is_dead(), "of another machine");
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let start = state_of(child.id()).unwrap().1;
        let other = Owner { pid: child.id(), start, ..own };
        assert!(!other.is_dead());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.is_dead());
    }

    #[test]
    fn a_host_is_named_plainly() {
        assert_eq!(plain_host("a/b\"c d.e"), "abcd.e");
        assert_eq!(plain_host("..."), "host");
    }
}
