//! BLAKE3 of one file on all cores. Its hash is the root of a tree over the content, so each core reads and hashes parts of
//! its own, while what it has read is still in its cache, and their values are merged when all are there.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

use super::read::{BUFFER_BYTES, Pieces, Readers};
use crate::model::Digest;

/// The smallest part, in bytes. All parts but the last are of the same size, a power of two.
const PART_MIN: u64 = 512 << 10;
/// The most parts that a file is taken in.
const PARTS_MAX: u64 = 4096;

/// A file's parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    size: u64,
    part: u64,
}

impl Parts {
    /// `None`: a file of this size is not worth it.
    pub(super) fn of(size: u64) -> Option<Self> {
        let part = size.div_ceil(PARTS_MAX).checked_next_power_of_two()?.max(PART_MIN);
        (size > part).then_some(Parts { size, part })
    }

    fn count(self) -> u64 {
        self.size.div_ceil(self.part)
    }

    /// Where a part begins and how long it is.
    fn place(self, number: u64) -> (u64, u64) {
        let from = number * self.part;
        (from, self.part.min(self.size - from))
    }

    /// The hash of all.
    fn root(self, values: &[ChainingValue]) -> Digest {
        let (left, right) = self.children(values, self.size);
        Digest(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    }

    /// The two subtrees of a stretch of more than one part.
    fn children(self, values: &[ChainingValue], length: u64) -> (ChainingValue, ChainingValue) {
        let left = left_subtree_len(length);
        let (before, after) = values.split_at(usize::try_from(left / self.part).unwrap_or(usize::MAX));
        (self.subtree(before, left), self.subtree(after, length - left))
    }

    fn subtree(self, values: &[ChainingValue], length: u64) -> ChainingValue {
        if let [value] = values {
            return *value;
        }
        let (left, right) = self.children(values, length);
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }
}

/// Hashes a file of so many parts; `None` if it ends before. While nothing else is read, all of `readers` take part.
pub(super) fn hash(
    pieces: &Pieces<'_>,
    parts: Parts,
    readers: Readers<'_>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Digest>> {
    let values = vec![ChainingValue::default(); usize::try_from(parts.count()).unwrap_or(usize::MAX)];
    let job = &Job { pieces, parts, next: AtomicU64::new(0), values: Mutex::new(values) };
    let helping = &AtomicUsize::new(0);
    let is_whole = std::thread::scope(|scope| {
        let mut helpers = Vec::new();
        let mut is_whole = job.work(buffer, || {
            if readers.are_one() && helping.load(Ordering::Acquire) == 0 {
                helping.store(readers.most.get() - 1, Ordering::Release);
                helpers.extend((1..readers.most.get()).map(|_| {
                    scope.spawn(move || {
                        let worked = job.work(&mut Vec::new(), || readers.are_one());
                        helping.fetch_sub(1, Ordering::AcqRel);
                        worked
                    })
                }));
            }
            true
        })?;
        for helper in helpers {
            is_whole &= helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        io::Result::Ok(is_whole)
    })?;
    let values = job.values.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(is_whole.then(|| parts.root(&values)))
}

/// A file that is hashed part by part.
struct Job<'j> {
    pieces: &'j Pieces<'j>,
    parts: Parts,
    /// The part that nobody has taken yet.
    next: AtomicU64,
    values: Mutex<Vec<ChainingValue>>,
}

impl Job<'_> {
    /// Takes part after part while it may. Whether all of them were whole.
    fn work(&self, buffer: &mut Vec<u8>, mut may_go_on: impl FnMut() -> bool) -> io::Result<bool> {
        while may_go_on() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.parts.count() {
                break;
            }
            let value = self.value(number, buffer);
            if !matches!(value, Ok(Some(_))) {
                // What the others would still read is of no use.
                self.next.store(self.parts.count(), Ordering::Relaxed);
            }
            let Some(value) = value? else { return Ok(false) };
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = usize::try_from(number).ok().and_then(|number| values.get_mut(number)) {
                *slot = value;
            }
        }
        Ok(true)
    }

    /// A part's value, if all of it is there.
    fn value(&self, number: u64, buffer: &mut Vec<u8>) -> io::Result<Option<ChainingValue>> {
        let (from, length) = self.parts.place(number);
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(from);
        let mut done = 0;
        while done < length {
            let wanted = usize::try_from(length - done).unwrap_or(usize::MAX).min(BUFFER_BYTES);
            let read = self.pieces.read(buffer, wanted, from + done)?;
            if read == 0 {
                return Ok(None);
            }
            hasher.update(&buffer[..read]);
            done += read as u64;
        }
        Ok(Some(hasher.finalize_non_root()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_content_whatever_its_size() {
        let content: Vec<u8> =
            (0..9 * PART_MIN).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
        for more in [1, 2, 1024, PART_MIN, PART_MIN + 1, 2 * PART_MIN - 1, 3 * PART_MIN, 7 * PART_MIN + 12_345] {
            let content = &content[..usize::try_from(PART_MIN + more).unwrap()];
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            let parts = Parts::of(content.len() as u64).unwrap();
            let count = AtomicUsize::new(1);
            for most in [1, 3] {
                let readers = Readers { count: &count, most: most.try_into().unwrap() };
                let pieces = Pieces::of(file.as_fd(), None, true);
                let hashed = hash(&pieces, parts, readers, &mut Vec::new()).unwrap().unwrap();
                assert_eq!(hashed.0, *blake3::hash(content).as_bytes(), "{} bytes", content.len());
            }
            file.set_len(PART_MIN).unwrap();
            let readers = Readers { count: &count, most: 2.try_into().unwrap() };
            assert_eq!(hash(&Pieces::of(file.as_fd(), None, true), parts, readers, &mut Vec::new()).unwrap(), None);
        }
    }

    #[test]
    fn parts_are_few_and_fit_the_tree() {
        assert!(Parts::of(PART_MIN).is_none());
        for size in [PART_MIN + 1, 4 << 30, (4 << 30) + 1, 5 << 40, u64::MAX >> 1] {
            let parts = Parts::of(size).unwrap();
            assert!(parts.count() <= PARTS_MAX && parts.part.is_power_of_two(), "{parts:?}");
            let (from, length) = parts.place(parts.count() - 1);
            assert_eq!(from + length, size);
        }
    }
}
