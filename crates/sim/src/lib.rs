//! Simulated parts for tests.
//!
//! [`disk`] is what the journal writes to. The others together are a machine for the sequencer: a file [`tree`] under
//! a virtual [`clock`], a [`kernel`] that tells of what is done in it, a [`scan`] that walks it step by step, a
//! [`ledger`] whose inventory lags behind, and a [`service`] that hears and decides as the daemon's own does.

pub mod clock;
pub mod disk;
pub mod kernel;
pub mod ledger;
pub mod scan;
pub mod service;
pub mod tree;
