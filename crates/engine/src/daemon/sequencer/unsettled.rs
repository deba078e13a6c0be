//! Versions that have not settled and that nobody follows: the settling machine had no room for them, the service was
//! not running, or their file system was away. The inventory knows them, and offers them again.

use std::time::{Duration, Instant};

use keepwatch_journal::Seq;

use super::{Origin, Result, Sequencer, Spot, is_file};
use crate::daemon::compare::{Differs, differs};
use crate::daemon::dirs::RootNo;
use crate::daemon::ledger::{Ledger, Unsettled};
use crate::daemon::tree::{Look, Tree};
use crate::watch::settle::TRACKED_MAX;

/// Versions offered in one go.
const OFFERED_AT_ONCE: usize = 256;
/// When the inventory lags, it is asked again after this time.
const LAG_WAIT: Duration = Duration::from_millis(100);
/// The inventory is asked while fewer files than this are followed.
const ROOM: usize = TRACKED_MAX / 2;

impl<T: Tree, L: Ledger> Sequencer<T, L> {
    /// From now on what the inventory knows to be unsettled is followed, as far as there is room.
    pub fn follow_unsettled(&mut self) {
        self.offering = Some((Seq::ZERO, self.clock.instant()));
        self.settle.take_refused();
    }

    /// When there is more to be offered, and room for it.
    pub(super) fn offer_due(&self) -> Option<Instant> {
        if self.settle.len() >= ROOM {
            return None;
        }
        self.offering.map(|(_, from)| from.max(self.offers_from))
    }

    /// Follows some more of what the inventory knows to be unsettled.
    pub(super) fn offer_unsettled(&mut self) -> Result<()> {
        let now = self.clock.instant();
        if now < self.offers_from || self.settle.len() >= ROOM {
            return Ok(());
        }
        // What it was offered last must be known to have settled, or it is offered twice.
        if self.offering.is_none() && self.ledger.applied() >= self.offered_until && self.settle.take_refused() {
            self.offering = Some((Seq::ZERO, now));
        }
        let Some((after, _)) = self.offering.filter(|(_, from)| *from <= now) else { return Ok(()) };
        // What the inventory has not heard of yet, it cannot offer.
        let lags = self.ledger.applied() < self.last;
        let offered = self.ledger.unsettled(after, OFFERED_AT_ONCE);
        self.offering = match offered.last() {
            Some(last) => Some((last.version, now)),
            None if lags => Some((after, now + LAG_WAIT)),
            None => {
                self.offered_until = self.last;
                None
            }
        };
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
                    let (now, wait) = (self.clock.instant(), self.rest_closed(at.root, name));
                    self.settle.renamed(object, spot, now, wait);
                } else if !self.complete_at_once(&at, &spot, &facts, true)? {
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
