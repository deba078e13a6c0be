//! Time from outside, so that tests can bring their own.

use std::time::{Duration, Instant, SystemTime};

use keepwatch_journal::Timestamp;

/// Where the time comes from: the wall clock for people, the monotonic clock for durations.
pub trait Clock: Send + Sync {
    /// The wall clock. It may step.
    fn now(&self) -> Timestamp;
    /// The monotonic clock.
    fn instant(&self) -> Instant;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}
