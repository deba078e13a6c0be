//! Who may use the control socket: its owner, root, and the members of the control group.

use std::os::unix::net::UnixStream;

use rustix::net::sockopt::socket_peercred;

/// Who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The user that the service runs as.
    pub owner: u32,
    /// The control group's number.
    pub group: Option<u32>,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its group, and those it is also in.
    pub groups: Vec<u32>,
}

impl Access {
    /// For the user that this process runs as, and for a group.
    #[must_use]
    pub fn of_process(group: Option<u32>) -> Self {
        Access { owner: rustix::process::geteuid().as_raw(), group }
    }

    /// Whether this peer may.
    #[must_use]
    pub fn allows(&self, peer: &Peer) -> bool {
        peer.uid == 0 || peer.uid == self.owner || self.group.is_some_and(|group| peer.groups.contains(&group))
    }
}

impl Peer {
    /// Who is at the other end of this connection, by the kernel's word.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let credentials = socket_peercred(stream)?;
        let mut groups = vec![credentials.gid.as_raw()];
        // SO_PEERCRED tells the primary group only. Should the process be gone already and its number taken by another,
        // the socket's own mode has still let in nobody but owner, root and group.
        if let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", credentials.pid.as_raw_nonzero())) {
            groups.extend(supplementary(&status));
        }
        Ok(Peer { uid: credentials.uid.as_raw(), groups })
    }
}

fn supplementary(status: &str) -> impl Iterator<Item = u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|group| group.parse().ok())
}

/// The number of a group, by its name in `/etc/group` or by the number itself.
///
/// # Errors
/// What to tell the user if there is no such group.
pub fn group_id(group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let file = std::fs::read_to_string("/etc/group").map_err(|error| format!("cannot read /etc/group: {error}"))?;
    group_in(&file, group).ok_or_else(|| {
        format!("there is no group `{group}` in /etc/group; a group of a directory service is given by its number")
    })
}

/// Lines are `name:password:number:members`, `group(5)`.
fn group_in(file: &str, name: &str) -> Option<u32> {
    let mut lines = file.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn owner_root_and_group_may_and_nobody_else() {
        let access = Access { owner: 990, group: Some(50) };
        let peer = |uid, groups: &[u32]| Peer { uid, groups: groups.to_vec() };
        assert!(access.allows(&peer(0, &[0])));
        assert!(access.allows(&peer(990, &[990])));
        assert!(access.allows(&peer(1000, &[1000, 50])));
        assert!(!access.allows(&peer(1000, &[1000, 51])));
        assert!(!Access { owner: 990, group: None }.allows(&peer(1000, &[50])));
    }

    #[test]
    fn groups_are_found_by_name() {
        let file = "root:x:0:\nstaff:x:50:ann,bob\nstaffel:x:51:\nbad\n";
        assert_eq!((group_in(file, "staff"), group_in(file, "sta"), group_in(file, "bad")), (Some(50), None, None));
        assert_eq!(group_id("1234"), Ok(1234));
    }

    #[test]
    fn the_peer_of_our_own_socket_is_us() {
        let (left, _right) = UnixStream::pair().unwrap();
        let peer = Peer::of(&left).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
        assert_eq!(supplementary("Name:\tx\nGroups:\t4 27 1000 \n").collect::<Vec<_>>(), [4, 27, 1000]);
    }
}
