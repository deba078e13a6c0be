//! What a member may be called. A worker names `ARCHIVE.zip/REL/PATH`: the first component that ends in `.zip` is the
//! archive, with the directories before it; what follows is the member. Names are bytes.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The directory below a base that belongs to the packer.
pub const STAGING_DIR: &str = ".keepwatch-pack";

/// Longest full name, in bytes. A zip header holds 65 535; the rest is room for `~N`.
const NAME_BYTES_MAX: usize = 32 * 1024;
/// Longest path of an archive, in bytes.
const ARCHIVE_BYTES_MAX: usize = 2 * 1024;
/// Longest file name of an archive, in bytes: `-N` and the index's ending must fit into the 255 of a file name.
const ARCHIVE_NAME_BYTES_MAX: usize = 220;
/// What an archive's name ends in, in any case.
const ENDING: &[u8] = b".zip";

/// Where a member goes: `ARCHIVE.zip/REL/PATH`, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberName {
    bytes: Vec<u8>,
    archive_len: usize,
}

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("the name is empty")]
    Empty,
    /// It begins with `/`.
    #[error("the name is absolute; name the archive relative to the base, as in `logs.zip/run1/out.txt`")]
    Absolute,
    /// A component is `..`.
    #[error("the name has a `..`, which could lead out of the archive")]
    Parent,
    /// A component is `.` or empty, as in `a//b` or `a/`.
    #[error("the name has an empty component, or a `.`; write `logs.zip/run1/out.txt`")]
    EmptyComponent,
    /// It holds a NUL byte, which no file name can.
    #[error("the name holds a NUL byte")]
    Nul,
    /// No component ends in `.zip`.
    #[error("the name has no archive part; begin it with an archive, as in `logs.zip/run1/out.txt`")]
    NoArchive,
    /// Nothing follows the archive.
    #[error("the name ends with the archive; say what the member is called there, as in `logs.zip/run1/out.txt`")]
    NoMember,
    /// It lies within the directory of the packer itself.
    #[error("`{STAGING_DIR}` belongs to the packer")]
    Reserved,
    /// Longer than a zip archive or a file system takes.
    #[error("the name is too long: {NAME_BYTES_MAX} bytes at most, {ARCHIVE_NAME_BYTES_MAX} for the archive's own")]
    TooLong,
}

impl MemberName {
    /// Checks a full name.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        let (archive, member) = split(bytes)?;
        match member {
            Some(_) => Ok(MemberName { bytes: bytes.to_vec(), archive_len: archive.len() }),
            None => Err(NameError::NoMember),
        }
    }

    /// All of it, as it stands in a staging file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The archive, as `dir/logs.zip`.
    #[must_use]
    pub fn archive(&self) -> ArchiveName {
        ArchiveName(self.bytes[..self.archive_len].to_vec())
    }

    /// What the member is called within the archive.
    #[must_use]
    pub fn member(&self) -> &[u8] {
        &self.bytes[self.archive_len + 1..]
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.bytes))
    }
}

/// An archive's path below the base, as `dir/logs.zip`, checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveName(Vec<u8>);

impl ArchiveName {
    /// Checks the name of an archive.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it; [`NameError::NoArchive`] too where something follows the archive.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        match split(bytes)? {
            (archive, None) => Ok(ArchiveName(archive.to_vec())),
            (_, Some(_)) => Err(NameError::NoArchive),
        }
    }

    /// `ARCHIVE` or `ARCHIVE/REL/PATH`: the archive, and the member if one is named.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it.
    pub fn parse_with_member(bytes: &[u8]) -> Result<(Self, Option<Vec<u8>>), NameError> {
        let (archive, member) = split(bytes)?;
        Ok((ArchiveName(archive.to_vec()), member.map(<[u8]>::to_vec)))
    }

    /// Its path below the base.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as a path.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Where its part of this number is: `logs.zip` for 0, `logs-1.zip` for 1.
    #[must_use]
    pub fn part_path(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path().to_owned();
        }
        let (stem, ending) = self.0.split_at(self.0.len() - ENDING.len());
        PathBuf::from(OsStr::from_bytes(&[stem, format!("-{number}").as_bytes(), ending].concat()))
    }

    /// Where the index of that part is: `.logs.zip.index`, beside it.
    #[must_use]
    pub fn index_path(&self, number: u32) -> PathBuf {
        let part = self.part_path(number);
        let name = part.file_name().unwrap_or_default().as_bytes();
        part.with_file_name(OsStr::from_bytes(&[b".", name, b".index"].concat()))
    }

    /// The number of the part that a file beside the archive would be.
    #[must_use]
    pub fn part_number(&self, file_name: &[u8]) -> Option<u32> {
        let own = self.path().file_name()?.as_bytes();
        let (stem, ending) = own.split_at(own.len() - ENDING.len());
        let number = file_name.strip_prefix(stem)?.strip_suffix(ending)?.strip_prefix(b"-")?;
        let text = std::str::from_utf8(number).ok()?;
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        if is_plain { text.parse().ok() } else { None }
    }
}

impl fmt::Display for ArchiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

/// A name for people and for text formats: printable ASCII as it is, all else as `%XX`. Reversible.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' | b' ' => text.push_str(&format!("%{byte:02X}")),
            byte if byte.is_ascii_graphic() => text.push(char::from(*byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The bytes that [`escape`] wrote.
#[must_use]
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &behind[2..];
        } else {
            bytes.push(byte);
            rest = behind;
        }
    }
    Some(bytes)
}

/// The archive and, if one is named, the member.
fn split(bytes: &[u8]) -> Result<(&[u8], Option<&[u8]>), NameError> {
    match bytes.first() {
        None => return Err(NameError::Empty),
        Some(b'/') => return Err(NameError::Absolute),
        Some(_) => {}
    }
    if bytes.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    if bytes.contains(&0) {
        return Err(NameError::Nul);
    }
    let (mut end, mut archive) = (0, None);
    for component in bytes.split(|byte| *byte == b'/') {
        match component {
            b".." => return Err(NameError::Parent),
            b"" | b"." => return Err(NameError::EmptyComponent),
            component if component == STAGING_DIR.as_bytes() && end == 0 => return Err(NameError::Reserved),
            _ => {}
        }
        end += component.len();
        if archive.is_none() && is_archive(component) {
            if component.len() > ARCHIVE_NAME_BYTES_MAX || end > ARCHIVE_BYTES_MAX {
                return Err(NameError::TooLong);
            }
            archive = Some(end);
        }
        end += 1;
    }
    let archive = archive.ok_or(NameError::NoArchive)?;
    Ok((&bytes[..archive], bytes.get(archive + 1..)))
}

fn is_archive(component: &[u8]) -> bool {
    component.len() > ENDING.len() && component[component.len() - ENDING.len()..].eq_ignore_ascii_case(ENDING)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_component_that_ends_in_zip_is_the_archive() {
        for (full, archive, member) in [
            ("ar.zip/x", "ar.zip", "x"),
            ("a/b/ar.ZIP/x/y", "a/b/ar.ZIP", "x/y"),
            ("one.zip/two.zip/x", "one.zip", "two.zip/x"),
            ("ar.zip/..x/...", "ar.zip", "..x/..."),
            ("ar.zip/a b\"\n", "ar.zip", "a b\"\n"),
        ] {
            let name = MemberName::parse(full.as_bytes()).unwrap();
            assert_eq!((name.archive().0, name.member()), (archive.as_bytes().to_vec(), member.as_bytes()), "{full}");
        }
    }

    #[test]
    fn what_leads_elsewhere_or_nowhere_is_refused() {
        let long = [vec![b'a'; ARCHIVE_NAME_BYTES_MAX], b".zip/x".to_vec()].concat();
        for (name, error) in [
            (&b""[..], NameError::Empty),
            (b"/ar.zip/x", NameError::Absolute),
            (b"ar.zip/../x", NameError::Parent),
            (b"../ar.zip/x", NameError::Parent),
            (b"ar.zip//x", NameError::EmptyComponent),
            (b"ar.zip/x/", NameError::EmptyComponent),
            (b"./ar.zip/x", NameError::EmptyComponent),
            (b"ar.zip/x\0", NameError::Nul),
            (b"x/y", NameError::NoArchive),
            (b".zip/y", NameError::NoArchive),
            (b"ar.zip", NameError::NoMember),
            (b".keepwatch-pack/ar.zip/x", NameError::Reserved),
            (&long, NameError::TooLong),
        ] {
            assert_eq!(MemberName::parse(name), Err(error), "{}", escape(name));
        }
    }

    #[test]
    fn parts_and_indexes_are_named_after_the_archive() {
        let archive = ArchiveName::parse(b"d/a.b.zip").unwrap();
        assert_eq!(archive.part_path(0), Path::new("d/a.b.zip"));
        assert_eq!(archive.part_path(12), Path::new("d/a.b-12.zip"));
        assert_eq!(archive.index_path(12), Path::new("d/.a.b-12.zip.index"));
        assert_eq!(archive.part_number(b"a.b-12.zip"), Some(12));
        for other in [&b"a.b.zip"[..], b"a.b-0.zip", b"a.b-+1.zip", b"a.b-.zip", b"xa.b-1.zip", b"a.b-99999999999.zip"]
        {
            assert_eq!(archive.part_number(other), None);
        }
    }

    #[test]
    fn any_name_survives_as_text() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&escape(&all)).unwrap(), all);
        assert_eq!(escape(b"a b%\xff"), "a%20b%25%FF");
        assert!(unescape("%4").is_none() && unescape("%zz").is_none());
    }
}
