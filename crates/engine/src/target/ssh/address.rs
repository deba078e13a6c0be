//! `ssh://[user@]host[:port]/path`: which parts there are, and that none of them can be taken for anything else by `ssh` or a
//! shell.

use std::fmt;

/// Where on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAddress {
    /// Who logs in; `None`: as ssh's configuration says.
    pub user: Option<String>,
    /// A name of ssh's configuration, a host's name, or its number.
    pub host: String,
    /// `None`: as ssh's configuration says.
    pub port: Option<u16>,
    /// The directory.
    pub dir: FarDir,
}

/// A directory on a host, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FarDir {
    /// From the top of its file system: begins with `/`.
    Absolute(Vec<u8>),
    /// From the home of who logs in; empty: the home itself.
    Home(Vec<u8>),
}

/// Why text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not an address of a directory reached by ssh: {why}", text.escape_debug())]
pub struct BadAddress {
    /// What was given.
    pub text: String,
    /// What is wrong, and how it is written.
    pub why: &'static str,
}

/// What a host and a user may be written with. Nothing that ssh takes for an option, or a shell for anything at all.
fn is_plain(text: &[u8], more: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || more.contains(byte);
    !text.is_empty() && text[0] != b'-' && text.iter().all(plain)
}

impl SshAddress {
    /// Reads one. In the path `%XX` is the byte of this number.
    ///
    /// # Errors
    /// [`BadAddress`] if it is none, or if a part might be taken for something else.
    pub fn parse(url: &[u8]) -> Result<Self, BadAddress> {
        let bad = |why| BadAddress { text: String::from_utf8_lossy(url).into_owned(), why };
        let rest = url.strip_prefix(b"ssh://").ok_or(bad("it is written as ssh://[USER@]HOST[:PORT]/DIRECTORY"))?;
        let slash = rest.iter().position(|byte| *byte == b'/');
        let slash =
            slash.ok_or(bad("it names no directory: ssh://HOST/DIRECTORY, or ssh://HOST/~/DIRECTORY below home"))?;
        let (authority, path) = rest.split_at(slash);
        let (user, place) = match authority.iter().rposition(|byte| *byte == b'@') {
            Some(at) => (Some(&authority[..at]), &authority[at + 1..]),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(&b':')) {
            return Err(bad("it holds a password; use a key, which ssh finds by itself"));
        }
        if user.is_some_and(|user| !is_plain(user, b"._-+@\\")) {
            return Err(bad("its user is no user's name"));
        }
        let (host, port) = host_and_port(place).ok_or(bad("its port is not a number from 1 to 65535"))?;
        let is_number = host.contains(&b':') && is_plain(host, b":.%");
        if !is_number && !is_plain(host, b"._-") {
            return Err(bad("its host is no host's name"));
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| bad("its user or host is not text"));
        let path = percent_decoded(path).ok_or(bad("a `%` in its directory is written as %25, and no byte is %00"))?;
        Ok(SshAddress { user: user.map(text).transpose()?, host: text(host)?, port, dir: FarDir::of(path) })
    }
}

impl SshAddress {
    /// Whether one lies in the other, or they are the same, as far as their texts tell.
    #[must_use]
    pub fn overlaps(&self, other: &SshAddress) -> bool {
        let is_same_host = (&self.host, self.port) == (&other.host, other.port);
        is_same_host
            && match (&self.dir, &other.dir) {
                (FarDir::Absolute(at), FarDir::Absolute(elsewhere)) => overlap(at, elsewhere),
                (FarDir::Home(at), FarDir::Home(elsewhere)) => self.user == other.user && overlap(at, elsewhere),
                _ => false,
            }
    }
}

fn overlap(one: &[u8], other: &[u8]) -> bool {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        let named = |part: &&[u8]| !part.is_empty() && *part != b".";
        path.split(|byte| *byte == b'/').filter(named).map(<[u8]>::to_vec).collect()
    };
    let (one, other) = (parts(one), parts(other));
    one.starts_with(&other) || other.starts_with(&one)
}

impl FarDir {
    fn of(path: Vec<u8>) -> Self {
        match path.strip_prefix(b"/~") {
            Some(b"") => FarDir::Home(Vec::new()),
            Some([b'/', rest @ ..]) => {
                let skipped = rest.iter().take_while(|byte| **byte == b'/').count();
                FarDir::Home(rest[skipped..].to_vec())
            }
            _ => FarDir::Absolute(path),
        }
    }

    /// As it stands in a URL.
    fn written(&self) -> Vec<u8> {
        match self {
            FarDir::Absolute(path) => path.clone(),
            FarDir::Home(path) if path.is_empty() => b"/~".to_vec(),
            FarDir::Home(path) => [b"/~/", &path[..]].concat(),
        }
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        for byte in self.dir.written() {
            match byte {
                b'!'..=b'$' | b'&'..=b'~' => write!(f, "{}", char::from(byte))?,
                byte => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

/// A host, in brackets if it holds colons, and the port behind it.
fn host_and_port(place: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let (host, port) = match place.strip_prefix(b"[") {
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b']')?;
            match &rest[end + 1..] {
                [] => (&rest[..end], None),
                [b':', port @ ..] => (&rest[..end], Some(port)),
                _ => return None,
            }
        }
        None => match place.iter().position(|byte| *byte == b':') {
            Some(colon) => (&place[..colon], Some(&place[colon + 1..])),
            None => (place, None),
        },
    };
    let Some(port) = port else { return Some((host, None)) };
    let port = std::str::from_utf8(port).ok().filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((host, Some(port.parse().ok().filter(|port| *port != 0)?)))
}

fn percent_decoded(path: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        rest = after;
        let byte = match (*first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                digit(*high)? * 16 + digit(*low)?
            }
            (b'%', _) => return None,
            (byte, _) => byte,
        };
        decoded.push(byte);
    }
    (!decoded.contains(&0)).then_some(decoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(text: &str) -> SshAddress {
        SshAddress::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn every_part_is_found() {
        let all = parse("ssh://ann@vault.example.org:2222/archive/a%20b%25");
        assert_eq!((all.user.as_deref(), &*all.host, all.port), (Some("ann"), "vault.example.org", Some(2222)));
        assert_eq!(all.dir, FarDir::Absolute(b"/archive/a b%".to_vec()));
        assert_eq!(all.to_string(), "ssh://ann@vault.example.org:2222/archive/a%20b%25");
        let home = parse("ssh://vault/~/x");
        assert_eq!((home.user, home.port, &home.dir), (None, None, &FarDir::Home(b"x".to_vec())));
        assert_eq!(parse("ssh://vault/~").dir, FarDir::Home(Vec::new()));
        assert_eq!(parse("ssh://vault/~ann").dir, FarDir::Absolute(b"/~ann".to_vec()));
        assert_eq!(parse("ssh://[::1]:22/x").host, "::1");
        assert_eq!(parse("ssh://ann@dom@vault/x").user.as_deref(), Some("ann@dom"));
        assert_eq!(parse("ssh://[::1]/\u{e9}").to_string(), "ssh://[::1]/%C3%A9");
    }

    #[test]
    fn what_might_be_taken_for_something_else_is_refused() {
        for text in [
            "ssh://vault",
            "sftp://vault/x",
            "ssh:///x",
            "ssh://-oProxyCommand=id/x",
            "ssh://-l@vault/x",
            "ssh://ann:secret@vault/x",
            "ssh://a b/x",
            "ssh://$(id)/x",
            "ssh://`id`@vault/x",
            "ssh://vault:0/x",
            "ssh://vault:+22/x",
            "ssh://vault:99999/x",
            "ssh://vault:/x",
            "ssh://[::1/x",
            "ssh://[::1]x/x",
            "ssh://@vault/x",
            "ssh://vault/%",
            "ssh://vault/%zz",
            "ssh://vault/%00",
            "ssh://vault\n/x",
            "ssh://*/x",
        ] {
            assert!(SshAddress::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
