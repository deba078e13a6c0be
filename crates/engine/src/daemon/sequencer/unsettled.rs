//! Versions that have not settled and that nobody follows: the settling machine had no room for them, the service was
//! not running, or their file system was away. The inventory knows them, and offers them again.

use std::time::Instant;

use keepwatch_journal::Seq;

use super::{Origin, Result, Sequencer, Spot, is_file};
use crate::daemon::compare::{Differs, differs};
use crate::daemon::dirs::RootNo;
use crate::daemon::ledger::{Ledger, Unsettled};
use crate::daemon::tree::{Look, Tree};
use crate::watch::settle::TRACKED_MAX;

/// Versions offered in one go.
const OFFERED_AT_ONCE: usize = 1_000;
/// The inventory is asked while fewer files than this are followed.
const ROOM: usize = TRACKED_MAX / 2;

impl<T: Tree, L: Ledger> Sequencer<T, L> {
    /// From now on what the inventory knows to be unsettled is followed, as far as there is room.
    pub fn follow_unsettled(&mut self) {
        self.offering = Some(Seq::ZERO);
    }

    /// When there is more to be offered, and room for it.
    pub(super) fn offer_due(&self) -> Option<Instant> {
        (self.offering.is_some() && self.settle.len() < ROOM).then(|| self.clock.instant())
    }

    /// Follows some more of what the inventory knows to be unsettled.
    pub(super) fn offer_unsettled(&mut self) -> Result<()> {
        if self.settle.len() >= ROOM {
            return Ok(());
        }
        if self.offering.is_none() && self.settle.take_refused() {
            self.offering = Some(Seq::ZERO);
        }
        let Some(after) = self.offering else { return Ok(()) };
        let offered = self.ledger.unsettled(after, OFFERED_AT_ONCE);
        self.offering = offered.last().map(|last| last.version);
        for unsettled in offered {
            self.offer(&unsettled)?;
        }
        Ok(())
    }

    fn offer(&mut self, unsettled: &Unsettled) -> Result<()> {
        let Some(root) = self.roots.iter().position(|root| root.name == unsettled.root) else { return Ok(()) };
        let Some(top) = self.dirs.top(RootNo(u16::try_from(root).unwrap_or(u16::MAX)))? else { return Ok(()) };
        let (Some(at), Some((_, name))) = (self.dir_at(&top, &unsettled.path)?, unsettled.path.split()) else {
            return Ok(());
        };
        let spot = Spot { dir: at.no, name: name.into() };
        match self.look(&at, name)? {
            Look::There(facts) if is_file(&facts) && differs(&unsettled.facts, &facts) == Differs::Not => {
                let object = (facts.dev, facts.inode);
                if self.settle.follows(object) {
                    self.settle.renamed(object, spot);
                } else {
                    self.follow_up(&at, &spot, &facts);
                }
            }
            Look::Unavailable => {}
            Look::There(_) | Look::Gone => {
                self.doubt(spot, Origin::scan(self.root(at.root).via).merged(), super::events::DOUBT_WAIT);
            }
        }
        Ok(())
    }
}
