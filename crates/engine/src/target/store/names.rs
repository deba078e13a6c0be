//! What a store is told for a path, and which path a name of it is. Pure.

use crate::model::RelPath;
use crate::target::is_own;

/// How paths are named: what stands in front of each, which is nothing or the slashes that a layout leaves there.
#[derive(Clone, Debug)]
pub(in crate::target) struct Names {
    lead: Vec<u8>,
}

impl Names {
    pub(in crate::target) fn new(lead: &[u8]) -> Self {
        Names { lead: lead.to_vec() }
    }

    /// A path as the store is told it. What is Keepwatch's own has nothing in front.
    pub(in crate::target) fn name(&self, path: &RelPath) -> Vec<u8> {
        if is_own(path) { path.as_bytes().to_vec() } else { [&self.lead[..], path.as_bytes()].concat() }
    }

    /// What the names of all below a directory begin with.
    pub(in crate::target) fn below(&self, dir: &RelPath) -> Vec<u8> {
        if dir.is_root() { self.lead.clone() } else { [&self.name(dir)[..], b"/"].concat() }
    }

    /// The path of a name; `None`: it is not ours.
    pub(in crate::target) fn path(&self, name: &[u8]) -> Option<RelPath> {
        let own = || RelPath::new(name).ok().filter(is_own);
        let path = match name.strip_prefix(&self.lead[..]) {
            Some(rest) => RelPath::new(rest).ok().filter(|path| self.lead.is_empty() || !is_own(path)),
            None => own(),
        };
        path.filter(|path| !path.is_root())
    }
}
