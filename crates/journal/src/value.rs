//! The small values that records are made of: each a type of its own, so that none is taken for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A record's place in its journal: 1, 2, 3 … without holes. Zero means "before the first record".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first record.
    pub const ZERO: Seq = Seq(0);

    /// The next place.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment: nanoseconds since 1970-01-01 UTC, by the wall clock. Order never depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// A path relative to its root, as bytes: no leading or trailing `/`, no `.` or `..`, no NUL. Empty: the root itself.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Vec<u8>);

/// Why bytes are not a [`RelPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a relative path: it is absolute, or has an empty, `.` or `..` component, or a NUL byte")]
pub struct NotRelative;

impl RelPath {
    /// The root itself.
    pub const ROOT: RelPath = RelPath(Vec::new());

    /// Takes bytes that came from outside, after a look at every component.
    ///
    /// # Errors
    /// [`NotRelative`] if they could lead out of the root or name nothing.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NotRelative> {
        let bytes = bytes.into();
        let sound = bytes.is_empty()
            || bytes
                .split(|byte| *byte == b'/')
                .all(|part| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0));
        if sound { Ok(RelPath(bytes)) } else { Err(NotRelative) }
    }

    /// The path of `name` in this directory. `name` comes from the kernel: one component, never `.` or `..`.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> RelPath {
        debug_assert!(!name.is_empty() && !name.contains(&b'/'));
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        RelPath(bytes)
    }

    /// The directory that holds it, and its name there; `None` for the root itself.
    #[must_use]
    pub fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0[..]),
        })
    }

    /// Its components, from the top; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }

    /// Whether it is `dir` or lies below it.
    #[must_use]
    pub fn is_within(&self, dir: &RelPath) -> bool {
        dir.0.is_empty()
            || self.0 == dir.0
            || (self.0.len() > dir.0.len() && self.0.starts_with(&dir.0) && self.0[dir.0.len()] == b'/')
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", bstr::BStr::new(&self.0))
    }
}

/// Names of the configuration, each a type of its own.
macro_rules! names {
    ($($(#[$about:meta])+ $type:ident)+) => {$(
        $(#[$about])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// A name from the configuration, or from a record.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                $type(name.into())
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

names! {
    /// A root's name in the configuration.
    RootName
    /// A replica's name in the configuration, or its URL.
    ReplicaName
    /// A trigger's name in the configuration.
    TriggerName
}

/// The SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads 64 lower-case hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(hex: &[u8]) -> Option<Digest> {
        ChainHash::from_hex(hex).map(|hash| Digest(hash.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ChainHash(self.0).fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which journal: a UUIDv7, new at each epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JournalId(pub uuid::Uuid);

impl JournalId {
    /// A new one, unlike any other.
    #[must_use]
    pub fn random() -> Self {
        JournalId(uuid::Uuid::now_v7())
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The SHA-256 that a commit line carries; all zero before the first commit of a journal.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// Before the first commit of a journal.
    pub const ZERO: ChainHash = ChainHash([0; 32]);

    /// Reads the 64 lower-case hexadecimal digits that a commit line carries; `None` for anything else.
    #[must_use]
    pub fn from_hex(hex: &[u8]) -> Option<ChainHash> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = hex.as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(ChainHash(hash))
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written as a whole: by one byte after another it takes longer than all the rest of a record.
        let mut text = [0; 64];
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How far a follower has come, or where a journal ends: always at a commit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which journal.
    pub journal: JournalId,
    /// The last record covered.
    pub seq: Seq,
    /// The hash of the commit line that covers it.
    pub hash: ChainHash,
}

/// Text to be kept elsewhere, or to be given to `journal verify --head`: `JOURNAL:SEQ:HASH`.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.journal, self.seq, self.hash)
    }
}

/// Why text is not a [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a head: write it as `keepwatch journal head` prints it, JOURNAL:SEQ:HASH")]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(NotACursor);
        Ok(Cursor {
            journal: JournalId(part()?.parse().map_err(|_| NotACursor)?),
            seq: Seq(part()?.parse().map_err(|_| NotACursor)?),
            hash: ChainHash::from_hex(part()?.as_bytes()).ok_or(NotACursor)?,
        })
    }
}
