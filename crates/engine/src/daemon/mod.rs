//! The daemon: select what happened, decide, journal, perform.

mod acting;
pub mod cache;
mod compare;
pub mod dirs;
pub mod due;
pub mod epoch;
pub mod fixity;
pub mod follow;
pub mod fstree;
pub mod index;
pub mod journaled;
pub mod ledger;
pub mod preview;
pub mod progress;
pub mod replay;
pub mod replicate;
pub mod rules;
pub mod scanner;
pub mod scribe;
pub mod sequencer;
pub mod service;
pub mod settings;
pub mod state;
pub mod tell;
pub mod tree;
pub mod triggers;
