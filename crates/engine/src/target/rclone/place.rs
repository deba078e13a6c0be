//! Which remote of rclone, and what of it. Pure.

use std::fmt;

/// A remote of rclone's configuration, and a path in it: `rclone:REMOTE:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RclonePlace {
    remote: String,
    /// Without a `/` at its end, unless it is all of it.
    path: String,
}

impl RclonePlace {
    /// Reads what stands behind `rclone:`. `None`: it names no remote, is not text, or gives settings with the remote
    /// (`REMOTE,KEY=VALUE:`), which would show wherever the URL does.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        // `:local:` and its like name a kind of store rather than a remote.
        let end = text.bytes().skip(1).position(|byte| byte == b':')? + 1;
        let (remote, path) = (&text[..end], &text[end + 1..]);
        let is_name = |c: char| c.is_alphanumeric() || "_-.+@ ".contains(c);
        let name = remote.strip_prefix(':').unwrap_or(remote);
        let is_sound = !name.is_empty()
            && name.chars().all(is_name)
            && !name.starts_with(['-', ' '])
            && !path.chars().any(char::is_control)
            && path.split('/').all(|part| part != "." && part != "..");
        let trimmed = path.trim_end_matches('/');
        let path = if trimmed.is_empty() && path.starts_with('/') { "/" } else { trimmed };
        is_sound.then(|| RclonePlace { remote: remote.to_owned(), path: path.to_owned() })
    }

    /// As rclone writes it.
    pub(super) fn fs(&self) -> String {
        format!("{}:{}", self.remote, self.path)
    }

    /// Whether one lies in the other, or they are the same.
    #[must_use]
    pub fn overlaps(&self, other: &RclonePlace) -> bool {
        let dir = |place: &RclonePlace| match &*place.path {
            "" | "/" => String::new(),
            path => format!("{}/", path.trim_start_matches('/')),
        };
        let (one, two) = (dir(self), dir(other));
        self.remote == other.remote && (one.starts_with(&two) || two.starts_with(&one))
    }
}

impl fmt::Display for RclonePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rclone:{}", self.fs())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_remote_and_a_path() {
        let place = |text: &str| RclonePlace::parse(text.as_bytes()).map(|place| place.fs());
        assert_eq!(place("store:bucket/a/"), Some("store:bucket/a".to_owned()));
        assert_eq!(place("store:"), Some("store:".to_owned()));
        assert_eq!(place(":local:/"), Some(":local:/".to_owned()));
        for wrong in ["", "store", ":", "::x", "/a/b", ":s3,secret_access_key=x:b", "s:a/../b", "-x:y"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
        let overlap = |one: &str, two: &str| {
            RclonePlace::parse(one.as_bytes()).unwrap().overlaps(&RclonePlace::parse(two.as_bytes()).unwrap())
        };
        assert!(overlap("s:a", "s:a/b") && overlap("s:", "s:x") && !overlap("s:a", "s:ab") && !overlap("s:a", "t:a"));
    }
}
