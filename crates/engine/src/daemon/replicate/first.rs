//! The first copy: what the first scan of a new state finds is copied while it is found. There is nothing to compare with yet: no
//! copies, and nothing at the target. So what is new goes the short way, and everything else the way that it always goes.

use std::ops::ControlFlow;
use std::thread;
use std::time::Instant;

use keepwatch_journal::{Batch, Reader};

use super::ahead::Ahead;
use super::ground::Ground;
use super::pass::BATCH_BYTES_MAX;
use super::round::{Dirty, Paths};
use super::{AtWork, Keeper, LOOK_WAIT, Phase, Trouble, next_batches, records};
use crate::model::{Body, FileType, Op, Record, Seq};
use crate::sync::plan::{Need, need};
use crate::target::TargetError;

/// Directories that are remembered as begun on; beyond, all that is under way is waited for.
const STANDING_MAX: usize = 16_384;

impl Keeper {
    /// Copies what is found until all is; from where on to follow. `None`: there is something to compare with, or a root is not
    /// there.
    pub(super) fn copy_while_found(&mut self) -> Result<Option<(Reader, Seq)>, Trouble> {
        let is_new = self.around.last_at.is_none() && self.view.replica(&self.settings.name)?.is_none();
        if !is_new || !self.wait_for_roots()? {
            return Ok(None);
        }
        self.phase(Phase::Comparing);
        self.at_work(|keeper, work| {
            if !is_bare(work)? {
                return Ok(None);
            }
            keeper.tell_places(false)?;
            let (disk, tail) = (keeper.around.disk.clone(), keeper.around.tail.clone());
            let mut reader = Reader::follow(disk, &keeper.around.journal, tail, None)?;
            let name = keeper.settings.name.clone();
            let worker = work.worker(&name, keeper.settings.transfers);
            let copied = thread::scope(|scope| {
                let mut ahead = Ahead::start(scope, &worker);
                let copied = keeper.copy_found(work, &mut reader, &mut ahead);
                let left = keeper.account_for(work, ahead);
                copied.and_then(|seen| left.map(|()| seen))
            });
            let seen = copied?;
            keeper.tell_places(true)?;
            Ok(Some((reader, seen)))
        })
    }

    /// Waits until all roots are in the inventory. `false`: one is not there.
    fn wait_for_roots(&self) -> Result<bool, Trouble> {
        loop {
            self.check_stop()?;
            let head = self.around.tail.head().seq;
            let is_applied = self.around.progress.wait_for(head, LOOK_WAIT);
            let mut are_there = true;
            for root in &self.roots {
                are_there &= self.view.root_dir(&root.name)?.is_some();
            }
            if are_there || (is_applied && self.acting.are_scans_done(&self.view)?) {
                return Ok(are_there);
            }
            let _ = self.around.tail.wait_past(head, Instant::now() + LOOK_WAIT);
        }
    }

    /// Journals where each root goes; and, in the end, that all that is there is known.
    fn tell_places(&mut self, is_known: bool) -> Result<(), Trouble> {
        let known = self.replica()?;
        let mut prints = known.roots;
        for root in &self.roots {
            prints.insert(root.name.to_string(), if is_known { root.print() } else { root.unlisted() });
        }
        self.tell_config(&known.identity.unwrap_or_default(), prints)?;
        self.all_applied()
    }

    fn copy_found(
        &mut self,
        work: &AtWork<'_>,
        reader: &mut Reader,
        ahead: &mut Ahead<'_, '_>,
    ) -> Result<Seq, Trouble> {
        let (mut jobs, mut bytes, mut seen) = (Vec::new(), 0, Seq::ZERO);
        loop {
            self.check_stop()?;
            self.view.let_go()?;
            // Looked at first: what is journaled afterwards is not the scan's.
            let is_all_found = self.acting.are_scans_done(&self.view)?;
            let batches = next_batches(reader, &mut seen)?;
            if batches.is_empty() {
                self.perform_on(work, std::mem::take(&mut jobs), Some(ahead), !is_all_found)?;
                bytes = 0;
                if is_all_found {
                    return Ok(seen);
                }
                let _ = self.around.tail.wait_past(seen, Instant::now() + LOOK_WAIT);
                continue;
            }
            let (new, mut other) = self.sorted(&batches);
            self.applied(seen)?;
            self.expect_to_pass(work)?;
            for (root, path) in new {
                self.view.hold()?;
                let Some(original) = self.original_at(work, root, &path)? else { continue };
                self.count_passed(Some(&original));
                if original.has_names() {
                    other.paths.insert((root, path));
                    continue;
                }
                let is_kept = work.roots[root].keeps(&path, original.kind == FileType::Dir);
                if !is_kept || need(Some(&original), None, None, 0) != Need::Content {
                    continue;
                }
                match self.ground(work, root, &path, &original)? {
                    Ground::Firm => {}
                    Ground::Missing(dirs) => jobs.extend(dirs),
                    Ground::Shifting => {
                        other.paths.insert((root, path));
                        continue;
                    }
                }
                bytes += original.size;
                jobs.extend(self.job(work, root, path, Need::Content, Some(original), None, false)?);
                if jobs.len() >= self.batch() || bytes >= BATCH_BYTES_MAX {
                    bytes = 0;
                    self.perform_on(work, std::mem::take(&mut jobs), Some(ahead), true)?;
                }
            }
            if !other.is_empty() || self.standing.len() > STANDING_MAX {
                // It may depend on what was copied by now.
                self.perform_on(work, std::mem::take(&mut jobs), Some(ahead), false)?;
                self.all_applied()?;
                self.round(work, other)?;
            }
            // All that was copied was read of before.
            self.fresh.clear();
        }
    }

    /// Where records tell of something new that is complete, and where of anything else.
    fn sorted(&mut self, batches: &[Batch]) -> (Paths, Dirty) {
        let is_new = |record: &&Record| match &record.body {
            Body::Settled(_) => true,
            Body::Change(change) => {
                let may_have_more_names = |nlink, kind| nlink > 1 && kind != FileType::Dir;
                let facts = change.facts.as_ref();
                change.op == Op::Create && facts.is_some_and(|facts| !may_have_more_names(facts.nlink, facts.kind))
            }
            _ => false,
        };
        let (new, other) = (records(batches).filter(is_new), records(batches).filter(|record| !is_new(record)));
        (self.dirty(new).paths, self.dirty(other))
    }
}

/// Whether the target holds nothing where the roots go.
fn is_bare(work: &AtWork<'_>) -> Result<bool, TargetError> {
    let mut is_bare = true;
    for root in work.roots {
        work.session.list(&root.placement.dir(), &mut |_, _| {
            is_bare = false;
            ControlFlow::Break(())
        })?;
    }
    Ok(is_bare)
}
