//! The daemon: select what happened, decide, journal, perform.

pub mod cache;
pub mod dirs;
pub mod due;
pub mod ledger;
pub mod rules;
pub mod sequencer;
pub mod tree;
