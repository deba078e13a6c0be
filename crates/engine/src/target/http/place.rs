//! Where an HTTP store is. Pure.

use std::fmt;

use crate::target::web::escape;

/// An HTTP store: `https://HOST/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPlace {
    is_sealed: bool,
    host: String,
    /// What all requests begin with, without a `/` at its end.
    base: String,
}

impl HttpPlace {
    /// Reads what stands behind `http://` or, if `is_sealed`, `https://`. `None`: it names no host, holds a user or password, a
    /// query or a fragment, or anything but printable ASCII.
    #[must_use]
    pub fn parse(text: &[u8], is_sealed: bool) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (host, base) = text.split_at(text.find('/').unwrap_or(text.len()));
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        let is_sound = !host.is_empty()
            && !host.starts_with(':')
            && host.chars().all(is_host)
            && base.chars().all(|c| c.is_ascii_graphic() && !"?#\\".contains(c))
            && base.split('/').all(|part| part != "." && part != "..");
        let base = base.trim_end_matches('/').to_owned();
        is_sound.then(|| HttpPlace { is_sealed, host: host.to_ascii_lowercase(), base })
    }

    /// Whether what goes there can be read on the way.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.is_sealed
    }

    /// Whether one lies in the other, or they are the same.
    #[must_use]
    pub fn overlaps(&self, other: &HttpPlace) -> bool {
        let (one, two) = (format!("{}/", self.base), format!("{}/", other.base));
        self.host == other.host && (one.starts_with(&two) || two.starts_with(&one))
    }

    /// Scheme and host.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", if self.is_sealed { "https" } else { "http" }, self.host)
    }

    /// What a request asks for: an object by its name, or with none the list.
    pub(super) fn target(&self, name: Option<&[u8]>, query: &[(&str, Vec<u8>)]) -> String {
        let mut target = format!("{}/", self.base);
        let name = name.unwrap_or_default();
        // Slashes in front are part of the name: nothing on the way is to take them away.
        let slashes = name.iter().take_while(|byte| **byte == b'/').count();
        escape(&name[..slashes], false, &mut target);
        escape(&name[slashes..], true, &mut target);
        for (index, (key, value)) in query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(key);
            target.push('=');
            escape(value, false, &mut target);
        }
        target
    }
}

impl fmt::Display for HttpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.base)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_host_and_no_secret() {
        let place = |text: &str| HttpPlace::parse(text.as_bytes(), true).map(|place| place.to_string());
        assert_eq!(place("Host:8080/a/b/"), Some("https://host:8080/a/b".to_owned()));
        assert_eq!(place("[::1]:1"), Some("https://[::1]:1".to_owned()));
        for wrong in ["", "/a", ":80", "ann:secret@host/a", "host/a?b=c", "host/a#b", "host/../a", "ho st"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_written_so_that_nothing_is_lost_on_the_way() {
        let place = HttpPlace::parse(b"h/base", false).unwrap();
        assert_eq!(place.target(Some(b"a b/\xff?#%+~"), &[]), "/base/a%20b/%FF%3F%23%25%2B~");
        assert_eq!(place.target(Some(b"/a/b"), &[]), "/base/%2Fa/b");
        let query = [("list", b"1".to_vec()), ("prefix", b"a/&".to_vec())];
        assert_eq!(place.target(None, &query), "/base/?list=1&prefix=a%2F%26");
    }
}
