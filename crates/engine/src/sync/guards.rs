//! What may be deleted at a replica. Pure: deletes are judged as a set, and when in doubt nothing is deleted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Deletes within this time count together.
pub const WINDOW: Duration = Duration::from_secs(3600);
/// Deletes that follow one another within this time are remembered together.
const TOGETHER: Duration = Duration::from_secs(60);
/// So few deletes are never too many.
const ALWAYS_FINE: u64 = 100;

/// What a replica's deletes are held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The share of what the replica holds that may go within an hour, in percent.
    pub delete_percent_max: u8,
    /// Whether a root may lose its last file.
    pub may_empty: bool,
    /// A person said that the deletes that wait are meant.
    pub allow_deletes: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { delete_percent_max: 10, may_empty: false, allow_deletes: false }
    }
}

/// The deletes that are due, and what surrounds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How many objects would go.
    pub deletes: u64,
    /// How many files the replica holds of this root.
    pub held: u64,
    /// How many files the root has still.
    pub originals: u64,
    /// Whether the root is there, and no change in it may have been missed.
    pub is_root_sure: bool,
}

/// Why deletes do not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// For now: the root is absent, or what happened in it is not known.
    NotNow,
    /// Until a person says that it is meant.
    Paused(String),
}

/// The deletes of a replica in the last hour.
#[derive(Clone, Debug, Default)]
pub struct Deletes {
    done: VecDeque<(Instant, u64)>,
}

impl Deletes {
    /// Whether so many more are too few to be judged by how much is held.
    #[must_use]
    pub fn are_few(&self, deletes: u64) -> bool {
        self.done.iter().map(|(_, count)| count).sum::<u64>() + deletes <= ALWAYS_FINE
    }

    /// Those that still count, and since when.
    pub fn within_the_hour(&self, now: Instant) -> impl Iterator<Item = (Instant, u64)> {
        self.done.iter().copied().filter(move |(at, _)| now.saturating_duration_since(*at) <= WINDOW)
    }

    /// Whether these deletes may happen now.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn judge(&mut self, asked: Asked, limits: Limits, now: Instant) -> Result<(), Refusal> {
        if !asked.is_root_sure {
            return Err(Refusal::NotNow);
        }
        if limits.allow_deletes || asked.deletes == 0 {
            return Ok(());
        }
        if asked.originals == 0 && asked.held > 0 && !limits.may_empty {
            return Err(Refusal::Paused("nothing is left of the source, and the replica would be emptied".to_owned()));
        }
        while self.done.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.done.pop_front();
        }
        let before: u64 = self.done.iter().map(|(_, count)| count).sum();
        let sum = before + asked.deletes;
        // What the replica held when the hour began.
        let all = asked.held.max(asked.deletes) + before;
        let most = (all * u64::from(limits.delete_percent_max) / 100).max(ALWAYS_FINE);
        if sum > most {
            return Err(Refusal::Paused(format!(
                "{sum} deletes within an hour are more than {} % of {all}",
                limits.delete_percent_max
            )));
        }
        Ok(())
    }

    /// These deletes happened.
    pub fn done(&mut self, count: u64, now: Instant) {
        if count == 0 {
            return;
        }
        match self.done.back_mut() {
            Some((at, sum)) if now.saturating_duration_since(*at) < TOGETHER => *sum += count,
            _ => self.done.push_back((now, count)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn asked(deletes: u64, held: u64, originals: u64) -> Asked {
        Asked { deletes, held, originals, is_root_sure: true }
    }

    #[test]
    fn a_root_that_is_not_sure_deletes_nothing_whatever_was_allowed() {
        let limits = Limits { allow_deletes: true, may_empty: true, ..Limits::default() };
        let doubtful = Asked { is_root_sure: false, ..asked(1, 1000, 999) };
        assert_eq!(Deletes::default().judge(doubtful, limits, Instant::now()), Err(Refusal::NotNow));
    }

    #[test]
    fn a_root_is_emptied_only_where_it_may() {
        let now = Instant::now();
        let judge = |limits| Deletes::default().judge(asked(5, 5, 0), limits, now);
        assert!(matches!(judge(Limits::default()), Err(Refusal::Paused(_))));
        assert_eq!(judge(Limits { may_empty: true, ..Limits::default() }), Ok(()));
        assert_eq!(judge(Limits { allow_deletes: true, ..Limits::default() }), Ok(()));
    }

    #[test]
    fn many_deletes_pause_also_in_small_sets() {
        let (mut deletes, now, limits) = (Deletes::default(), Instant::now(), Limits::default());
        assert_eq!(deletes.judge(asked(100, 500, 400), limits, now), Ok(()));
        assert!(deletes.judge(asked(101, 500, 399), limits, now).is_err());
        assert_eq!(deletes.judge(asked(1000, 10_000, 9000), limits, now), Ok(()));
        deletes.done(600, now);
        assert!(deletes.judge(asked(600, 9400, 8800), limits, now).is_err());
        assert_eq!(deletes.judge(asked(600, 9400, 8800), limits, now + WINDOW + Duration::from_secs(1)), Ok(()));
    }
}
