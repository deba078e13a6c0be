//! Simulated parts for tests.
