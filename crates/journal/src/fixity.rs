//! Acts of fixity: what contents are, that they still are it, that they are not, and what was done about it.

use crate::record::{Body, FileType};
use crate::value::{Digest, RelPath, ReplicaName, RootName, Seq, Timestamp};

/// How a content is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// BLAKE3 with 32 bytes.
    Blake3,
}

/// What the content of a version is.
#[derive(Clone, Debug, PartialEq)]
pub struct Hashed {
    /// Of the copy there; `None`: of the original.
    pub replica: Option<ReplicaName>,
    /// The original's root.
    pub root: RootName,
    /// Its path there.
    pub path: RelPath,
    /// Its file id.
    pub file: i64,
    /// The record that made the version; of a copy the one that its `copied` names.
    pub of: Seq,
    /// Bytes.
    pub size: u64,
    /// The mtime of the version.
    pub mtime_ns: i64,
    /// Its SHA-256.
    pub sha256: Option<Digest>,
    /// Its BLAKE3.
    pub blake3: Option<Digest>,
}

/// Contents were read again whole, and each is what was recorded for its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Copies there; `None`: originals.
    pub replica: Option<ReplicaName>,
    /// The originals' root.
    pub root: RootName,
    /// File ids, each with the record that made its version (of a copy the one that its `copied` names).
    pub files: Vec<(i64, Seq)>,
}

/// How an object differs from what was recorded.
#[derive(Clone, Debug, PartialEq)]
pub enum Unsoundness {
    /// The content changed; size and mtime did not.
    Rot {
        /// How it was hashed.
        digest: Algorithm,
        /// The recorded hash.
        expected: Digest,
        /// The hash of what is there.
        found: Digest,
        /// The inode's ctime is not the recorded one: something touched it since.
        touched: bool,
    },
    /// It changed otherwise, and no record told.
    Missed(Drift),
    /// It could not be read.
    Unreadable {
        /// Why, for people.
        why: String,
    },
}

/// A change that no record told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drift {
    /// Its size, mtime or kind is another.
    Changed,
    /// It is not there.
    Missing,
    /// It is there, and nothing is known of it.
    Foreign,
}

/// Something is not what was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsound {
    /// The copy there; `None`: the original.
    pub replica: Option<ReplicaName>,
    /// The original's root.
    pub root: RootName,
    /// Its path there.
    pub path: RelPath,
    /// The original's file id and the record that made the version; `None` of what is foreign.
    pub version: Option<(i64, Seq)>,
    /// Size and mtime as found, where it is there.
    pub seen: Option<(u64, i64)>,
    /// What is wrong.
    pub what: Unsoundness,
}

/// An original or a copy was mended.
#[derive(Clone, Debug, PartialEq)]
pub struct Repaired {
    /// The copy there; `None`: the original.
    pub replica: Option<ReplicaName>,
    /// The original's root.
    pub root: RootName,
    /// Its path there.
    pub path: RelPath,
    /// The original's file id.
    pub file: i64,
    /// The record that made the version; of a copy the one that its `copied` names.
    pub of: Seq,
    /// The replica that gave the bytes; `None`: the original did.
    pub from: Option<ReplicaName>,
    /// Where the bad bytes lie now: a path at the target, or an absolute one of this host.
    pub kept: Option<Box<[u8]>>,
    /// Bytes.
    pub size: u64,
    /// The mtime of the version.
    pub mtime_ns: i64,
    /// What it is now, read again.
    pub sha256: Digest,
}

/// Originals were fetched back from a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// From which.
    pub replica: ReplicaName,
    /// Their root.
    pub root: RootName,
    /// The path there, with all below it.
    pub path: RelPath,
    /// The absolute path where it was written; `None`: a drill, it was thrown away.
    pub to: Option<Box<[u8]>>,
    /// Files restored and verified.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that could not be.
    pub failed: u64,
}

/// An original was removed to free its space, and is not deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Released {
    /// Its root.
    pub root: RootName,
    /// Its path there.
    pub path: RelPath,
    /// Its file id.
    pub file: i64,
    /// The record that made the version.
    pub of: Seq,
    /// Bytes.
    pub size: u64,
    /// Its mtime.
    pub mtime_ns: i64,
    /// Its content.
    pub sha256: Digest,
    /// The replicas that were proved to hold it just before.
    pub copies: Vec<ReplicaName>,
}

/// What lies in a backup was taken for the original of the host whose directory there holds it. Nobody watches it there: what is
/// known of it is what the backup shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Enrolled {
    /// Its root, which no configuration has.
    pub root: RootName,
    /// Its path there; empty: the root itself begins.
    pub path: RelPath,
    /// The host and the root's absolute path on it, as bytes, where the root begins.
    pub place: Option<(String, Box<[u8]>)>,
    /// What kind.
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    /// Modification time.
    pub mtime_ns: i64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Where a symbolic link points.
    pub target: Option<Box<[u8]>>,
    /// When it came to be, by its name or by the file system of the backup.
    pub created: Option<Timestamp>,
}

impl Algorithm {
    /// Its word in the journal and in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Blake3 => "blake3",
        }
    }

    /// What a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Algorithm::Sha256, Algorithm::Blake3].into_iter().find(|one| one.as_str() == word)
    }
}

impl Drift {
    /// Its word in the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Drift::Changed => "changed",
            Drift::Missing => "missing",
            Drift::Foreign => "foreign",
        }
    }

    /// What a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Drift::Changed, Drift::Missing, Drift::Foreign].into_iter().find(|one| one.as_str() == word)
    }
}

impl Unsoundness {
    /// Its word in `do`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Unsoundness::Rot { .. } => "rot",
            Unsoundness::Missed(_) => "missed",
            Unsoundness::Unreadable { .. } => "unreadable",
        }
    }
}

impl Body {
    /// Root and path that an act of fixity names; `None` for other records.
    #[must_use]
    pub fn fixity_place(&self) -> Option<(&RootName, Option<&RelPath>)> {
        Some(match self {
            Body::Hashed(hashed) => (&hashed.root, Some(&hashed.path)),
            Body::Verified(verified) => (&verified.root, None),
            Body::Unsound(unsound) => (&unsound.root, Some(&unsound.path)),
            Body::Repaired(repaired) => (&repaired.root, Some(&repaired.path)),
            Body::Restored(restored) => (&restored.root, Some(&restored.path)),
            Body::Released(released) => (&released.root, Some(&released.path)),
            Body::Enrolled(enrolled) => (&enrolled.root, Some(&enrolled.path)),
            _ => return None,
        })
    }
}
