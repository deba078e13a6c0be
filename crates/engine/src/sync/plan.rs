//! What a replica needs at a path: pure, from the original, the copy that is known of, and what was found at the target.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::model::{FileType, Proof, Seq};

/// An original, as far as a plan needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// Which object.
    pub file: i64,
    /// What kind.
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    /// Modification time.
    pub mtime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// Number of names.
    pub nlink: u32,
    /// Where a symbolic link points.
    pub target: Option<Box<[u8]>>,
    /// The record that made its content.
    pub version: Seq,
    /// The last record that told of it.
    pub last: Seq,
    /// Whether its version is complete.
    pub is_settled: bool,
}

impl Original {
    /// Whether other names may lead to it.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.nlink > 1 && self.kind != FileType::Dir
    }
}

/// A copy that is known of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The original.
    pub file: i64,
    /// What kind.
    pub kind: FileType,
    /// The last record that had told of the original.
    pub of: Seq,
    /// Bytes.
    pub size: u64,
    /// The original's mtime.
    pub mtime_ns: i64,
    /// Its hash.
    pub sha256: Option<[u8; 32]>,
    /// How far it is proved.
    pub proof: Proof,
}

/// What a listing showed at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What kind.
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    /// Modification time, as the target keeps it.
    pub mtime_ns: i64,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
}

/// What has to be done at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// The original is not complete: its `settled` will come.
    Wait,
    /// Its content has to be copied, or what it is has to be made.
    Content,
    /// Its attributes only.
    Attributes,
    /// What is there fits the original: it is taken for its copy.
    Adopt,
    /// The original is gone: the copy follows it.
    Withdraw,
    /// The copy is known of, but not there any more.
    Lost,
}

/// What is needed at a path. `seen` is `None` where the target was not listed, `Some(None)` where nothing is there.
/// `step_ns` is how exactly the target keeps times.
#[must_use]
pub fn need(original: Option<&Original>, held: Option<&Held>, seen: Option<Option<&Seen>>, step_ns: i64) -> Need {
    let Some(original) = original else {
        return match (held, seen) {
            (None, _) => Need::Nothing,
            (Some(_), Some(None)) => Need::Lost,
            (Some(_), _) => Need::Withdraw,
        };
    };
    if original.kind == FileType::Socket {
        return Need::Nothing;
    }
    if !original.is_settled && original.kind == FileType::File {
        return Need::Wait;
    }
    let is_there = match (seen, held) {
        (Some(None), _) => false,
        // What was copied and is another now is not the copy any more.
        (Some(Some(seen)), Some(held)) if held.of >= original.version => still_fits(held, seen, step_ns),
        _ => true,
    };
    match held {
        Some(held) if is_there && held.file == original.file && held.of >= original.version => {
            if held.of >= original.last { Need::Nothing } else { Need::Attributes }
        }
        // A directory's content is other objects.
        Some(held) if is_there && original.kind == FileType::Dir && held.file == original.file => Need::Attributes,
        Some(_) => Need::Content,
        None => match seen {
            Some(Some(seen)) if fits(original, seen, step_ns) => Need::Adopt,
            _ => Need::Content,
        },
    }
}

/// Whether what is there can be what was put there, as far as can be told without reading it.
fn still_fits(held: &Held, seen: &Seen, step_ns: i64) -> bool {
    let step = step_ns.max(1);
    held.kind == seen.kind
        && (held.kind != FileType::File
            || (held.size == seen.size && held.mtime_ns.div_euclid(step) == seen.mtime_ns.div_euclid(step)))
}

/// Whether what is there can be the original's copy, as far as can be told without reading it.
fn fits(original: &Original, seen: &Seen, step_ns: i64) -> bool {
    let step = step_ns.max(1);
    original.kind == seen.kind
        && match original.kind {
            FileType::File => {
                original.size == seen.size && original.mtime_ns.div_euclid(step) == seen.mtime_ns.div_euclid(step)
            }
            FileType::Symlink => original.target.as_deref() == seen.target.as_deref(),
            FileType::Dir => true,
            FileType::Fifo | FileType::Socket | FileType::Block | FileType::Char => false,
        }
}

/// What three sorted streams have at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side<A, B, C> {
    /// The key.
    pub key: Vec<u8>,
    /// What the first has.
    pub original: Option<A>,
    /// What the second has.
    pub held: Option<B>,
    /// What the third has.
    pub seen: Option<C>,
}

/// Merges three streams, each in the order of its keys, into one.
pub struct Merge<A: Iterator, B: Iterator, C: Iterator> {
    originals: Peekable<A>,
    held: Peekable<B>,
    seen: Peekable<C>,
}

impl<A, B, C, X, Y, Z> Merge<A, B, C>
where
    A: Iterator<Item = (Vec<u8>, X)>,
    B: Iterator<Item = (Vec<u8>, Y)>,
    C: Iterator<Item = (Vec<u8>, Z)>,
{
    /// Of these.
    pub fn new(originals: A, held: B, seen: C) -> Self {
        Merge { originals: originals.peekable(), held: held.peekable(), seen: seen.peekable() }
    }
}

fn take<T>(from: &mut Peekable<impl Iterator<Item = (Vec<u8>, T)>>, key: &[u8]) -> Option<T> {
    from.next_if(|(other, _)| other[..] == *key).map(|(_, value)| value)
}

impl<A, B, C, X, Y, Z> Iterator for Merge<A, B, C>
where
    A: Iterator<Item = (Vec<u8>, X)>,
    B: Iterator<Item = (Vec<u8>, Y)>,
    C: Iterator<Item = (Vec<u8>, Z)>,
{
    type Item = Side<X, Y, Z>;

    fn next(&mut self) -> Option<Self::Item> {
        let heads = [
            self.originals.peek().map(|(key, _)| key),
            self.held.peek().map(|(key, _)| key),
            self.seen.peek().map(|(key, _)| key),
        ];
        let key = heads.into_iter().flatten().min()?.clone();
        Some(Side {
            original: take(&mut self.originals, &key),
            held: take(&mut self.held, &key),
            seen: take(&mut self.seen, &key),
            key,
        })
    }
}

/// Puts the names of a directory, which come in the order of their bytes, in the order of keys: a directory `a` comes behind
/// `a-b`, because its key is `a/`. Holds back only directories whose names begin the ones behind them.
pub struct KeyOrder<I: Iterator<Item = (Vec<u8>, T)>, T> {
    names: Peekable<I>,
    waiting: Vec<(Vec<u8>, T)>,
    is_dir: fn(&T) -> bool,
}

impl<I: Iterator<Item = (Vec<u8>, T)>, T> KeyOrder<I, T> {
    /// Of names in the order of their bytes.
    pub fn new(names: I, is_dir: fn(&T) -> bool) -> Self {
        KeyOrder { names: names.peekable(), waiting: Vec::new(), is_dir }
    }
}

impl<I: Iterator<Item = (Vec<u8>, T)>, T> Iterator for KeyOrder<I, T> {
    type Item = (Vec<u8>, T);

    /// The key, with a `/` behind a directory's.
    fn next(&mut self) -> Option<(Vec<u8>, T)> {
        loop {
            let first = self.waiting.iter().enumerate().min_by(|(_, a), (_, b)| a.0.cmp(&b.0)).map(|(index, _)| index);
            let is_first = match (first, self.names.peek()) {
                (Some(index), Some((name, _))) => self.waiting[index].0.cmp(name) == Ordering::Less,
                (first, _) => first.is_some(),
            };
            if is_first && let Some(index) = first {
                return Some(self.waiting.swap_remove(index));
            }
            let (mut name, value) = self.names.next()?;
            if !(self.is_dir)(&value) {
                return Some((name, value));
            }
            name.push(b'/');
            self.waiting.push((name, value));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn original(version: u64, last: u64) -> Original {
        Original {
            file: 1,
            kind: FileType::File,
            size: 10,
            mtime_ns: 1_500_000_000,
            inode: 9,
            nlink: 1,
            target: None,
            version: Seq(version),
            last: Seq(last),
            is_settled: true,
        }
    }

    fn held(of: u64) -> Held {
        Held {
            file: 1,
            kind: FileType::File,
            of: Seq(of),
            size: 10,
            mtime_ns: 1_500_000_000,
            sha256: None,
            proof: Proof::Written,
        }
    }

    fn seen(size: u64, mtime_ns: i64) -> Seen {
        Seen { kind: FileType::File, size, mtime_ns, target: None }
    }

    #[test]
    fn content_is_due_when_the_version_is_newer_and_attributes_when_the_record_is() {
        let of = |version, last, copy| need(Some(&original(version, last)), Some(&held(copy)), None, 1);
        assert_eq!(of(3, 3, 3), Need::Nothing);
        assert_eq!(of(3, 5, 3), Need::Attributes);
        assert_eq!(of(4, 5, 3), Need::Content);
        assert_eq!(need(Some(&Original { file: 2, ..original(1, 1) }), Some(&held(9)), None, 1), Need::Content);
    }

    #[test]
    fn what_is_not_settled_waits_and_what_is_gone_follows() {
        let open = Original { is_settled: false, ..original(1, 1) };
        assert_eq!(need(Some(&open), None, None, 1), Need::Wait);
        assert_eq!(need(None, Some(&held(1)), None, 1), Need::Withdraw);
        assert_eq!(need(None, None, Some(Some(&seen(1, 1))), 1), Need::Nothing, "what is foreign is left alone");
    }

    #[test]
    fn a_listing_adopts_what_fits_and_finds_what_is_lost() {
        let adopt = |size, mtime_ns, step| need(Some(&original(1, 1)), None, Some(Some(&seen(size, mtime_ns))), step);
        assert_eq!(adopt(10, 1_500_000_000, 1), Need::Adopt);
        assert_eq!(adopt(10, 1_000_000_000, 1_000_000_000), Need::Adopt);
        assert_eq!(adopt(10, 1_000_000_000, 1), Need::Content);
        assert_eq!(adopt(11, 1_500_000_000, 1), Need::Content);
        assert_eq!(need(Some(&original(1, 1)), Some(&held(1)), Some(None), 1), Need::Content);
        assert_eq!(need(None, Some(&held(1)), Some(None), 1), Need::Lost);
    }

    fn tree() -> impl Strategy<Value = std::collections::BTreeMap<Vec<u8>, bool>> {
        proptest::collection::btree_map(proptest::collection::vec(b'+'..b'3', 1..5), any::<bool>(), 0..30)
    }

    proptest! {
        #[test]
        fn names_come_in_the_order_of_keys(names in tree()) {
            let names: Vec<_> = names.into_iter().filter(|(name, _)| !name.contains(&b'/')).collect();
            let keys: Vec<Vec<u8>> =
                KeyOrder::new(names.iter().cloned(), |is_dir: &bool| *is_dir).map(|(key, _)| key).collect();
            let mut sorted = keys.clone();
            sorted.sort();
            prop_assert_eq!(keys.len(), names.len());
            prop_assert_eq!(keys, sorted);
        }

        #[test]
        fn a_merge_has_every_key_once_with_all_that_stands_there(a in tree(), b in tree(), c in tree()) {
            let sides: Vec<_> = Merge::new(a.clone().into_iter(), b.clone().into_iter(), c.clone().into_iter()).collect();
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).chain(c.keys()).cloned().collect();
            prop_assert_eq!(sides.iter().map(|side| side.key.clone()).collect::<Vec<_>>(), keys.into_iter().collect::<Vec<_>>());
            for side in sides {
                prop_assert_eq!(side.original, a.get(&side.key).copied());
                prop_assert_eq!(side.held, b.get(&side.key).copied());
                prop_assert_eq!(side.seen, c.get(&side.key).copied());
            }
        }
    }
}
