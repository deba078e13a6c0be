//! What a command is told: its arguments, with placeholders, and its environment. No shell ever sees them: what stands for a
//! placeholder is put in as bytes and split by nobody.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::model::{JournalId, RelPath, Seq, TriggerName};

/// Every placeholder, without its braces.
pub const PLACEHOLDERS: [&str; 8] = ["path", "rel", "root", "name", "dir", "sha256", "seq", "key"];

/// Characters of a key: 128 bits are unlike any other.
const KEY_HEX: usize = 32;

/// Why an argument cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// No such placeholder.
    #[error("`{{{name}}}` is no placeholder: there are {known}; write `{{{{` for a brace", known = known())]
    Unknown {
        /// What stood between the braces.
        name: String,
    },
    /// A brace is open.
    #[error("`{text}` has a `{{` without a `}}`; write `{{{{` for a brace")]
    Open {
        /// The argument.
        text: String,
    },
}

fn known() -> String {
    PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(" ")
}

/// A file and version, as a command is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    /// The root's absolute path.
    pub top: &'s Path,
    /// The root's name.
    pub root: &'s str,
    /// The path there.
    pub path: &'s RelPath,
    /// The record that made the version.
    pub version: Seq,
    /// What repeated runs are told by.
    pub key: &'s str,
    /// The SHA-256 of the content, in hexadecimal digits; empty where it was not asked for.
    pub sha256: &'s str,
}

impl Subject<'_> {
    /// Its absolute path.
    #[must_use]
    pub fn absolute(&self) -> OsString {
        absolute(self.top, self.path.as_bytes())
    }

    /// The environment by which it is told, but for what is the trigger's own.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut all = vec![
            ("KEEPWATCH_PATH", self.absolute()),
            ("KEEPWATCH_ROOT", self.root.into()),
            ("KEEPWATCH_SEQ", self.version.to_string().into()),
            ("KEEPWATCH_KEY", self.key.into()),
        ];
        if !self.sha256.is_empty() {
            all.push(("KEEPWATCH_SHA256", self.sha256.into()));
        }
        all
    }
}

fn absolute(top: &Path, path: &[u8]) -> OsString {
    let mut bytes = top.as_os_str().as_bytes().to_vec();
    if !path.is_empty() {
        if bytes.last() != Some(&b'/') {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(path);
    }
    OsString::from_vec(bytes)
}

/// A part of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    /// By its place in [`PLACEHOLDERS`].
    Placeholder(&'static str),
}

/// An argument with placeholders, whole or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Understands an argument.
    ///
    /// # Errors
    /// [`WordError`].
    pub fn new(text: &OsStr) -> Result<Self, WordError> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((byte, behind)) = rest.split_first() {
            match (byte, behind.first()) {
                (b'{', Some(b'{')) | (b'}', Some(b'}')) => {
                    plain.push(*byte);
                    rest = &behind[1..];
                }
                (b'{', _) => {
                    let shown = || text.to_string_lossy().into_owned();
                    let end = behind.iter().position(|byte| *byte == b'}');
                    let end = end.ok_or_else(|| WordError::Open { text: shown() })?;
                    let found = PLACEHOLDERS.into_iter().find(|name| name.as_bytes() == &behind[..end]);
                    let unknown = || WordError::Unknown { name: String::from_utf8_lossy(&behind[..end]).into_owned() };
                    let name = found.ok_or_else(unknown)?;
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Placeholder(name));
                    rest = &behind[end + 1..];
                }
                _ => {
                    plain.push(*byte);
                    rest = behind;
                }
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Template(pieces))
    }

    /// Whether it has this placeholder.
    #[must_use]
    pub fn asks_for(&self, name: &str) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Placeholder(found) if *found == name))
    }

    /// Whether it has any placeholder.
    #[must_use]
    pub fn is_about_a_file(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Placeholder(_)))
    }

    /// The argument for a file.
    #[must_use]
    pub fn fill(&self, subject: &Subject<'_>) -> OsString {
        let mut bytes = Vec::new();
        for piece in &self.0 {
            let (above, name) = subject.path.split().unwrap_or_default();
            match piece {
                Piece::Text(text) => bytes.extend_from_slice(text),
                Piece::Placeholder("path") => bytes.extend_from_slice(subject.absolute().as_bytes()),
                Piece::Placeholder("rel") => bytes.extend_from_slice(subject.path.as_bytes()),
                Piece::Placeholder("root") => bytes.extend_from_slice(subject.root.as_bytes()),
                Piece::Placeholder("name") => bytes.extend_from_slice(name),
                Piece::Placeholder("dir") => bytes.extend_from_slice(absolute(subject.top, above).as_bytes()),
                Piece::Placeholder("sha256") => bytes.extend_from_slice(subject.sha256.as_bytes()),
                Piece::Placeholder("seq") => bytes.extend_from_slice(subject.version.to_string().as_bytes()),
                Piece::Placeholder(_) => bytes.extend_from_slice(subject.key.as_bytes()),
            }
        }
        OsString::from_vec(bytes)
    }
}

/// By what a command can tell repeated runs for one version: the same for every run, unlike that of any other trigger,
/// version or journal. 32 hexadecimal digits.
#[must_use]
pub fn key(journal: JournalId, trigger: &TriggerName, file: i64, version: Seq) -> String {
    let mut hash = Sha256::new();
    hash.update(journal.0.as_bytes());
    hash.update(trigger.as_str().len().to_le_bytes());
    hash.update(trigger.as_str());
    hash.update(file.to_le_bytes());
    hash.update(version.0.to_le_bytes());
    let mut hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(KEY_HEX);
    hex
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fill(template: &[u8], path: &[u8]) -> Vec<u8> {
        let path = RelPath::new(path).unwrap();
        let subject = Subject {
            top: Path::new("/srv/in"),
            root: "records",
            path: &path,
            version: Seq(7),
            key: "k",
            sha256: "abc",
        };
        Template::new(OsStr::from_bytes(template)).unwrap().fill(&subject).into_vec()
    }

    #[test]
    fn placeholders_stand_for_the_whole_of_an_argument_or_a_part() {
        assert_eq!(fill(b"{path}", b"a/b c"), b"/srv/in/a/b c");
        assert_eq!(fill(b"--in={rel}.x", b"a/b"), b"--in=a/b.x");
        assert_eq!(fill(b"{dir}|{name}|{root}", b"a/b"), b"/srv/in/a|b|records");
        assert_eq!(fill(b"{dir}", b"b"), b"/srv/in");
        assert_eq!(fill(b"{seq}{key}{sha256}", b"b"), b"7kabc");
        assert_eq!(fill(b"{{path}} }", b"b"), b"{path} }");
        assert_eq!(fill(b"", b"b"), b"");
    }

    #[test]
    fn names_arrive_as_they_are() {
        for name in [&b"; rm -rf"[..], b"$(reboot)", b"a\nb", b"-rf", b"'\"`", b"\xff\xfe", b"{key}"] {
            assert_eq!(fill(b"{name}", name), name);
        }
    }

    #[test]
    fn what_is_no_placeholder_is_named() {
        let error = Template::new(OsStr::new("a{file}")).unwrap_err();
        assert!(error.to_string().contains("`{file}` is no placeholder: there are {path} {rel}"), "{error}");
        assert!(Template::new(OsStr::new("{path")).is_err());
    }

    #[test]
    fn a_key_is_of_one_trigger_and_version() {
        let (journal, name) = (JournalId::random(), TriggerName::new("a"));
        let one = key(journal, &name, 1, Seq(2));
        assert_eq!(one, key(journal, &name, 1, Seq(2)));
        assert_eq!(one.len(), KEY_HEX);
        assert_ne!(one, key(journal, &name, 1, Seq(3)));
        assert_ne!(one, key(journal, &TriggerName::new("b"), 1, Seq(2)));
        assert_ne!(one, key(JournalId::random(), &name, 1, Seq(2)));
    }
}
