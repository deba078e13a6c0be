//! Time that passes only when a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keepwatch_engine::clock::Clock;
use keepwatch_journal::Timestamp;

/// The wall clock at the beginning: 2027-01-15T08:00:00Z.
const START_NS: i64 = 1_800_000_000_000_000_000;

/// A clock. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct SimClock {
    base: Instant,
    passed_ns: Arc<AtomicU64>,
}

impl Default for SimClock {
    fn default() -> Self {
        SimClock { base: Instant::now(), passed_ns: Arc::default() }
    }
}

impl SimClock {
    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.passed_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Lets time pass until this moment, if that is to come.
    pub fn pass_until(&self, moment: Instant) {
        self.pass(moment.saturating_duration_since(self.instant()));
    }

    fn passed(&self) -> u64 {
        self.passed_ns.load(Ordering::Relaxed)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(START_NS.saturating_add_unsigned(self.passed()))
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.passed())
    }
}
