//! Simulated parts for tests.

pub mod disk;
