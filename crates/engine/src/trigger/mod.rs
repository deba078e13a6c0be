//! Triggers: which files a command is run for, what it is told, and running it.
//!
//! `rules` and `words` decide and are pure; `group` and `run` have to do with processes, `claim` with other hosts. Who is due when
//! is the daemon's to say.

pub mod claim;
mod group;
mod output;
mod rules;
mod run;
mod words;

pub use group::{Group, end_group};
pub use output::{OUTPUT_BYTES_MAX, Output};
pub use rules::{Kind, RuleError, RuleText, Rules};
pub use run::{Finish, Order, run};
pub use words::{PLACEHOLDERS, Subject, Template, WordError, key};
