//! What differs between what is known of a name and what is there. Pure.

use keepwatch_journal::{Facts, Op};

/// How two states of one name differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Differs {
    /// Not at all.
    Not,
    /// The same object: its content.
    Content,
    /// The same object: its attributes only.
    Attributes,
    /// Another object has the name.
    Object,
}

/// Compares. The device number does not count: it may change with a reboot.
pub(in crate::daemon) fn differs(known: &Facts, seen: &Facts) -> Differs {
    if known.kind != seen.kind || known.inode != seen.inode {
        return Differs::Object;
    }
    if known.size != seen.size || known.mtime_ns != seen.mtime_ns {
        return Differs::Content;
    }
    let attributes = |facts: &Facts| (facts.ctime_ns, facts.mode, facts.uid, facts.gid, facts.nlink);
    if attributes(known) == attributes(seen) { Differs::Not } else { Differs::Attributes }
}

impl Differs {
    /// The record that tells of a difference of the same object.
    pub(in crate::daemon) fn op(self) -> Option<Op> {
        match self {
            Differs::Not | Differs::Object => None,
            Differs::Content => Some(Op::Modify),
            Differs::Attributes => Some(Op::Attrib),
        }
    }
}

/// Whether an object found under a new name is surely the one that was known under another: the same inode, and
/// nothing but the rename has happened to it (a rename changes ctime, a link count changes nothing).
pub(in crate::daemon) fn same_object(known: &Facts, seen: &Facts) -> bool {
    known.kind == seen.kind
        && known.inode == seen.inode
        && known.size == seen.size
        && known.mtime_ns == seen.mtime_ns
        && known.ctime_ns <= seen.ctime_ns
}
