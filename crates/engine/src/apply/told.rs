//! What a record tells of, as somebody asks for it: its word, and the places that it names.

use super::acts;
use crate::model::{Body, Op, RelPath, RootName};

/// The roots and paths that a record names.
pub(crate) fn places(body: &Body) -> Vec<(Option<&RootName>, Option<&RelPath>)> {
    match body {
        Body::Change(change) => {
            let old = change.old.as_ref().map(|old| (Some(old.root.as_ref().unwrap_or(&change.root)), Some(&old.path)));
            [(Some(&change.root), Some(&change.path))].into_iter().chain(old).collect()
        }
        Body::Settled(settled) => vec![(Some(&settled.root), Some(&settled.path))],
        Body::Gap(gap) => vec![(gap.root.as_ref(), Some(&gap.path))],
        Body::GapClosed(closed) => vec![(closed.root.as_ref(), None)],
        Body::Config(config) => vec![(Some(&config.root), None)],
        Body::Copied(copied) => vec![(Some(&copied.root), Some(&copied.path))],
        Body::Failed(failed) => vec![(Some(&failed.root), Some(&failed.path))],
        Body::Withdrawn(gone) => vec![(Some(&gone.root), Some(&gone.path))],
        Body::Hashed(_)
        | Body::Verified(_)
        | Body::Unsound(_)
        | Body::Repaired(_)
        | Body::Restored(_)
        | Body::Released(_)
        | Body::Enrolled(_) => body.fixity_place().map(|(root, path)| (Some(root), path)).into_iter().collect(),
        Body::Run(run) => vec![(Some(&run.root), Some(&run.path))],
        Body::Replica(_) | Body::Trigger(_) | Body::Other(_) => Vec::new(),
    }
}

/// The word in `do`.
pub(crate) fn word(body: &Body) -> &str {
    match body {
        Body::Change(change) => match change.op {
            Op::Create => "create",
            Op::Modify => "modify",
            Op::Attrib => "attrib",
            Op::Move => "move",
            Op::Delete => "delete",
        },
        body => acts::name(body),
    }
}
