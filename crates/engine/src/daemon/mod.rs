//! The daemon: select what happened, decide, journal, perform.

pub mod cache;
mod compare;
pub mod dirs;
pub mod due;
pub mod fstree;
pub mod ledger;
pub mod rules;
pub mod scanner;
pub mod sequencer;
pub mod tree;
