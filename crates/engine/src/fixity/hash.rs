//! Hashing what is read, in one or two ways at once.

use sha2::{Digest as _, Sha256};

use crate::model::{Algorithm, Digest};

/// The hashes of one content, as far as they were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashes {
    /// SHA-256.
    pub sha256: Option<Digest>,
    /// BLAKE3.
    pub blake3: Option<Digest>,
}

impl Hashes {
    /// The one by this algorithm.
    #[must_use]
    pub fn by(&self, algorithm: Algorithm) -> Option<Digest> {
        match algorithm {
            Algorithm::Sha256 => self.sha256,
            Algorithm::Blake3 => self.blake3,
        }
    }

    /// Whether a content that has these can be the one that has those: at least one hash is in both, and none differs.
    #[must_use]
    pub fn fits(&self, other: &Hashes) -> Option<bool> {
        let pairs = [(self.sha256, other.sha256), (self.blake3, other.blake3)];
        let mut both = pairs.into_iter().filter_map(|(one, other)| Some(one? == other?));
        let first = both.next()?;
        Some(first && both.all(|is_same| is_same))
    }
}

/// Which hashes are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// SHA-256.
    pub sha256: bool,
    /// BLAKE3.
    pub blake3: bool,
}

impl Wanted {
    /// That alone.
    pub const BLAKE3: Wanted = Wanted { sha256: false, blake3: true };

    /// What has to be computed to hold a content against what is known of it, so that the chosen hash is known
    /// afterwards: it alone if it is known already, besides it one that is known; SHA-256 too where nothing is, because
    /// copies are compared by that.
    #[must_use]
    pub fn to_check(known: &Hashes, chosen: Algorithm) -> Wanted {
        match chosen {
            Algorithm::Sha256 => Wanted { sha256: true, blake3: false },
            Algorithm::Blake3 => Wanted { sha256: known.blake3.is_none(), blake3: true },
        }
    }
}

/// Hashes what it is given.
#[derive(Debug)]
pub struct Hasher {
    sha256: Option<Sha256>,
    blake3: Option<Box<blake3::Hasher>>,
}

impl Hasher {
    /// Nothing was hashed yet.
    #[must_use]
    pub fn new(wanted: Wanted) -> Self {
        Hasher {
            sha256: wanted.sha256.then(Sha256::new),
            blake3: wanted.blake3.then(|| Box::new(blake3::Hasher::new())),
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(hash) = &mut self.sha256 {
            hash.update(bytes);
        }
        if let Some(hash) = &mut self.blake3 {
            hash.update(bytes);
        }
    }

    /// The hashes of all that was given.
    #[must_use]
    pub fn finish(self) -> Hashes {
        Hashes {
            sha256: self.sha256.map(|hash| Digest(hash.finalize().into())),
            blake3: self.blake3.map(|hash| Digest(hash.finalize().into())),
        }
    }
}
