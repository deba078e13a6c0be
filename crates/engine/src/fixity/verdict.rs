//! What it means that something was read: pure.

use super::hash::Hashes;
use crate::model::{Algorithm, Drift, Unsoundness};

/// What is recorded of a file, or of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Bytes.
    pub size: u64,
    /// Its mtime.
    pub mtime_ns: i64,
    /// Its ctime; `None`: not known, as of a copy.
    pub ctime_ns: Option<i64>,
    /// Its inode; `None`: not known.
    pub inode: Option<u64>,
    /// The hashes of its version that are known.
    pub hashes: Hashes,
}

/// What stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Bytes.
    pub size: u64,
    /// Its mtime.
    pub mtime_ns: i64,
    /// Its ctime; `None`: the place keeps none.
    pub ctime_ns: Option<i64>,
    /// Its inode; `None`: the place has none.
    pub inode: Option<u64>,
}

/// What came of reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It was read whole, and was the same before and after.
    Content(Seen, Hashes),
    /// It is another version, by what stands there: it was not read.
    Other(Option<Seen>),
    /// It changed while it was read.
    Moving,
    /// It is not there.
    Gone,
    /// It could not be read, for this reason.
    Unreadable(String),
}

/// What is to be thought of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is what was recorded. What was learnt about it besides: a hash that was not known.
    Sound(Option<Hashes>),
    /// Nothing was known of its content; this is it.
    New(Hashes),
    /// It was being changed: nothing can be said.
    Busy,
    /// It is not what was recorded.
    Unsound(Unsoundness),
}

/// Whether what stands there can be the version that is recorded. Times may be kept in coarser steps there.
#[must_use]
pub fn is_version(expected: &Expected, seen: &Seen, step_ns: i64) -> bool {
    let in_steps = |ns: i64| ns.div_euclid(step_ns.max(1));
    let same_inode = match (expected.inode, seen.inode) {
        (Some(expected), Some(seen)) => expected == seen,
        _ => true,
    };
    expected.size == seen.size && in_steps(expected.mtime_ns) == in_steps(seen.mtime_ns) && same_inode
}

/// Judges what was read.
#[must_use]
pub fn judge(expected: &Expected, look: &Look) -> Verdict {
    match look {
        Look::Gone => Verdict::Unsound(Unsoundness::Missed(Drift::Missing)),
        Look::Other(_) => Verdict::Unsound(Unsoundness::Missed(Drift::Changed)),
        Look::Moving => Verdict::Busy,
        Look::Unreadable(why) => Verdict::Unsound(Unsoundness::Unreadable { why: why.clone() }),
        Look::Content(seen, hashes) => match expected.hashes.fits(hashes) {
            None => Verdict::New(*hashes),
            Some(true) => {
                let is_new = (expected.hashes.sha256.is_none() && hashes.sha256.is_some())
                    || (expected.hashes.blake3.is_none() && hashes.blake3.is_some());
                Verdict::Sound(is_new.then_some(*hashes))
            }
            Some(false) => Verdict::Unsound(rot(expected, seen, hashes)),
        },
    }
}

fn rot(expected: &Expected, seen: &Seen, found: &Hashes) -> Unsoundness {
    let both = [Algorithm::Sha256, Algorithm::Blake3].into_iter().find_map(|algorithm| {
        let (expected, found) = (expected.hashes.by(algorithm)?, found.by(algorithm)?);
        (expected != found).then_some((algorithm, expected, found))
    });
    let touched = match (expected.ctime_ns, seen.ctime_ns) {
        (Some(expected), Some(seen)) => expected != seen,
        _ => false,
    };
    match both {
        Some((digest, expected, found)) => Unsoundness::Rot { digest, expected, found, touched },
        // Only hashes that differ lead here.
        None => Unsoundness::Missed(Drift::Changed),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::Digest;

    fn hashes(byte: u8) -> Hashes {
        Hashes { sha256: Some(Digest([byte; 32])), blake3: None }
    }

    fn expected(hashes: Hashes) -> Expected {
        Expected { size: 5, mtime_ns: 1_500_000_000, ctime_ns: Some(7), inode: Some(3), hashes }
    }

    const SEEN: Seen = Seen { size: 5, mtime_ns: 1_500_000_000, ctime_ns: Some(7), inode: Some(3) };

    #[test]
    fn content_alone_tells_rot() {
        let rotten = |seen| judge(&expected(hashes(1)), &Look::Content(seen, hashes(2)));
        let Verdict::Unsound(Unsoundness::Rot { touched, expected: before, found, .. }) = rotten(SEEN) else {
            panic!()
        };
        assert_eq!((touched, before, found), (false, Digest([1; 32]), Digest([2; 32])));
        let Verdict::Unsound(Unsoundness::Rot { touched, .. }) = rotten(Seen { ctime_ns: Some(8), ..SEEN }) else {
            panic!()
        };
        assert!(touched);
        assert_eq!(judge(&expected(hashes(1)), &Look::Content(SEEN, hashes(1))), Verdict::Sound(None));
        assert_eq!(judge(&expected(Hashes::default()), &Look::Content(SEEN, hashes(1))), Verdict::New(hashes(1)));
        assert_eq!(judge(&expected(hashes(1)), &Look::Moving), Verdict::Busy);
    }

    #[test]
    fn a_second_hash_is_learnt_only_beside_one_that_fits() {
        let both = Hashes { blake3: Some(Digest([9; 32])), ..hashes(1) };
        assert_eq!(judge(&expected(hashes(1)), &Look::Content(SEEN, both)), Verdict::Sound(Some(both)));
        assert!(matches!(judge(&expected(hashes(2)), &Look::Content(SEEN, both)), Verdict::Unsound(_)));
        let only = Hashes { sha256: None, ..both };
        assert_eq!(judge(&expected(hashes(1)), &Look::Content(SEEN, only)), Verdict::New(only));
    }

    #[test]
    fn a_version_is_told_at_the_steps_of_its_place() {
        let version = expected(hashes(1));
        assert!(is_version(&version, &SEEN, 1));
        let second = Seen { mtime_ns: 1_000_000_000, inode: None, ..SEEN };
        assert!(!is_version(&version, &second, 1) && is_version(&version, &second, 1_000_000_000));
        assert!(!is_version(&version, &Seen { inode: Some(4), ..SEEN }, 1));
        assert!(!is_version(&version, &Seen { size: 4, ..SEEN }, 1));
    }
}
