//! The parallel walker.
