//! What has lain in the trash for long enough goes, a day of it at a time. While the clock cannot be trusted nothing does.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::meter;
use super::{AtWork, Keeper, OnDelete, Trouble};
use crate::model::{FileType, RelPath, Timestamp};
use crate::target::{TRASH, TargetError};

/// How often it is looked for days that are over.
const EVERY: Duration = Duration::from_secs(3600);
/// The wall clock and the monotonic one may differ by so much since the start; by more, one of them was set.
const LEAP: Duration = Duration::from_secs(120);
/// Things taken away between two looks at the list.
const AT_ONCE: usize = 10_000;

/// When the trash is emptied.
pub(super) struct Expiry {
    keep: Duration,
    /// The last record before this start, by which a clock that leapt meanwhile is told.
    last_at: Option<Timestamp>,
    begun: (Instant, Timestamp),
    due: Instant,
}

impl Expiry {
    pub(super) fn new(keep: Duration, last_at: Option<Timestamp>) -> Self {
        let now = Instant::now();
        Expiry { keep, last_at, begun: (now, meter::now()), due: now }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// The first day, as the trash names it, that is to stay; `None`: the clock is in doubt.
    fn first_kept(&self, now: Instant, wall: Timestamp) -> Option<String> {
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let (begun, wall_begun) = self.begun;
        let gone = wall.0.saturating_sub(wall_begun.0);
        let is_steady = gone.saturating_sub(nanos(now.duration_since(begun))).saturating_abs() <= nanos(LEAP);
        // After a leap while nothing ran the last record is far away, before or behind.
        let is_near = |last: Timestamp| (0..=nanos(self.keep)).contains(&(wall_begun.0.saturating_sub(last.0)));
        if !is_steady || !self.last_at.is_some_and(is_near) {
            return None;
        }
        Some(Timestamp(wall.0.saturating_sub(nanos(self.keep))).to_string().get(..10)?.to_owned())
    }
}

impl Keeper {
    /// Takes away the days of the trash that are over.
    pub(super) fn expire(&mut self) -> Result<(), Trouble> {
        let now = Instant::now();
        self.expiry.due = now + EVERY;
        let Some(first_kept) = self.expiry.first_kept(now, meter::now()) else { return Ok(()) };
        if self.settings.on_delete == OnDelete::Delete || self.settings.trash_keep.is_zero() {
            return Ok(());
        }
        self.at_work(|keeper, work| keeper.expire_before(work, &first_kept))
    }

    fn expire_before(&mut self, work: &AtWork<'_>, first_kept: &str) -> Result<(), Trouble> {
        let Ok(trash) = RelPath::new(TRASH) else { return Ok(()) };
        if work.session.look(&trash)?.is_none() {
            return Ok(());
        }
        let is_over = |path: &RelPath| {
            let day = path.components().nth(1).unwrap_or_default();
            // Only what looks like a day was put there by us.
            day.len() == 10 && day.iter().all(|c| c.is_ascii_digit() || *c == b'-') && day < first_kept.as_bytes()
        };
        loop {
            self.check_stop()?;
            let mut over: Vec<(RelPath, FileType)> = Vec::new();
            work.session.list(&trash, &mut |path, found| {
                if !is_over(path) {
                    // Days come in their order.
                    let is_later = path.components().nth(1).is_some_and(|day| day >= first_kept.as_bytes());
                    return if is_later { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
                }
                over.push((path.clone(), found.kind));
                if over.len() < AT_ONCE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            let days: BTreeSet<_> = over.iter().filter_map(|(path, _)| path.components().nth(1)).collect();
            let mut gone = 0;
            // What a directory holds comes behind it.
            for (path, _) in over.iter().rev() {
                match work.session.remove(path) {
                    Ok(true) => gone += 1,
                    Ok(false) | Err(TargetError::Refused { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if gone == 0 {
                return Ok(());
            }
            tracing::info!(replica = %self.settings.name, objects = gone, days = days.len(), "the trash was emptied of what is over");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::trash_of;
    use super::*;

    const DAY: i64 = 86_400_000_000_000;

    #[test]
    fn a_clock_in_doubt_keeps_everything() {
        let (start, wall) = (Instant::now(), Timestamp(20_000 * DAY));
        let expiry = |last: Option<i64>| Expiry {
            keep: Duration::from_secs(30 * 86_400),
            last_at: last.map(Timestamp),
            begun: (start, wall),
            due: start,
        };
        let first = |expiry: &Expiry, wall: i64| expiry.first_kept(start, Timestamp(wall));
        let day = trash_of(Timestamp(19_970 * DAY)).unwrap();
        let day = String::from_utf8(day.components().nth(1).unwrap().to_vec()).unwrap();
        assert_eq!(first(&expiry(Some(19_999 * DAY)), 20_000 * DAY), Some(day));
        assert_eq!(first(&expiry(Some(19_999 * DAY)), 20_100 * DAY), None, "it leapt while we ran");
        assert_eq!(first(&expiry(Some(19_900 * DAY)), 20_000 * DAY), None, "or before");
        assert_eq!(first(&expiry(Some(20_001 * DAY)), 20_000 * DAY), None);
        assert_eq!(first(&expiry(None), 20_000 * DAY), None);
    }
}
