//! A replica as those see it who look at it besides its keeper.

use super::{FixityError, Surroundings, origins};
use crate::daemon::replicate::{ReplicaSettings, placements};
use crate::inventory::{DirId, ReplicaRow, View};
use crate::model::{Body, RelPath, Replica, ReplicaName, RootName};
use crate::sync::layout::Placement;
use crate::target::{Claim, Session};

/// A replica whose target is open.
pub(super) struct Place<'s> {
    pub(super) settings: &'s ReplicaSettings,
    pub(super) row: ReplicaRow,
    pub(super) session: Box<dyn Session>,
    pub(super) roots: Vec<PlacedRoot>,
}

/// A root at a replica.
#[derive(Clone, Debug)]
pub(super) struct PlacedRoot {
    pub(super) name: RootName,
    /// The host whose it is, where that is another one.
    pub(super) host: Option<String>,
    pub(super) dir: DirId,
    pub(super) placement: Placement,
}

impl<'s> Place<'s> {
    /// Opens the target of a replica that is configured and was reached once: nothing is marked for the first time here.
    pub(super) fn open(around: &Surroundings<'s>, view: &View, name: &ReplicaName) -> Result<Self, FixityError> {
        let settings = around.settings.replicas.iter().find(|replica| replica.name == *name);
        let settings = settings.ok_or_else(|| FixityError::NoReplica(name.clone()))?;
        let row = view.replica(name)?.filter(|row| row.identity.is_some());
        let row = row.ok_or_else(|| FixityError::NeverReached(name.clone()))?;
        let claim = Claim {
            owner: settings.owner.clone().unwrap_or_else(|| around.state.clone()),
            // Its keeper stages by another name, and drops nothing of ours.
            state: format!("{}{}", around.tag, around.state),
            host: around.host.clone(),
            identity: row.identity.clone(),
        };
        let (session, _) = settings.target.open(&claim)?;
        let mut roots = Vec::new();
        for (name, placement, _) in placements(settings, &around.host)? {
            if let Some(dir) = view.root_dir(&name)? {
                roots.push(PlacedRoot { name, host: None, dir, placement });
            }
        }
        for known in view.roots()?.into_iter().filter(|known| known.host.is_some()) {
            if let Some(placement) = row.roots.get(known.name.as_str()).and_then(|print| origins::placement(print)) {
                roots.push(PlacedRoot { name: known.name, host: known.host, dir: known.dir_id, placement });
            }
        }
        Ok(Place { settings, row, session, roots })
    }

    /// Opens the target of a replica that may never have been reached, which is marked as ours then. It is journaled how its roots
    /// lie there, so that its keeper knows what is known of it.
    pub(super) fn enrol(around: &Surroundings<'s>, view: &View, name: &ReplicaName) -> Result<Self, FixityError> {
        let settings = around.settings.replicas.iter().find(|replica| replica.name == *name);
        let settings = settings.ok_or_else(|| FixityError::NoReplica(name.clone()))?;
        let row = view.replica(name)?;
        let claim = Claim {
            owner: settings.owner.clone().unwrap_or_else(|| around.state.clone()),
            state: format!("{}{}", around.tag, around.state),
            host: around.host.clone(),
            identity: row.as_ref().and_then(|row| row.identity.clone()),
        };
        let (_, identity) = settings.target.open(&claim)?;
        let mut roots = row.as_ref().map(|row| row.roots.clone()).unwrap_or_default();
        for (root, _, unlisted) in placements(settings, &around.host)? {
            let is_known = roots.get(root.as_str()).is_some_and(|print| print.starts_with(&unlisted));
            let has_copies = match (&row, view.root_dir(&root)?) {
                (Some(row), Some(dir)) => view.has_copies(row.id, dir)?,
                _ => false,
            };
            // What lies there by another layout is its keeper's to withdraw.
            if !is_known && !has_copies {
                roots.insert(root.to_string(), unlisted);
            }
        }
        let is_same = row.is_some_and(|row| row.identity.as_ref() == Some(&identity) && row.roots == roots);
        if !is_same {
            around.tell.tell(vec![Body::Replica(Box::new(Replica {
                replica: name.clone(),
                url: Some(settings.url.clone()),
                identity: Some(identity),
                roots,
            }))])?;
            around.tell.catch_up()?;
        }
        Place::open(around, view, name)
    }

    /// The name.
    pub(super) fn name(&self) -> &ReplicaName {
        &self.row.name
    }

    /// In what steps it keeps times, in nanoseconds.
    pub(super) fn step_ns(&self) -> i64 {
        self.settings.target.nature().mtime_step_ns
    }

    /// A root there.
    pub(super) fn root(&self, name: &RootName) -> Option<&PlacedRoot> {
        self.roots.iter().find(|root| root.name == *name)
    }

    /// The roots that are asked for, each with the paths in it.
    pub(super) fn scopes(&self, asked: &[(RootName, RelPath)]) -> Vec<(PlacedRoot, Vec<RelPath>)> {
        let of = |root: &PlacedRoot| match asked {
            [] => vec![RelPath::ROOT],
            some => some.iter().filter(|(name, _)| *name == root.name).map(|(_, path)| path.clone()).collect(),
        };
        let all = self.roots.iter().map(|root| (root.clone(), of(root)));
        all.filter(|(_, paths): &(_, Vec<RelPath>)| !paths.is_empty()).collect()
    }
}
