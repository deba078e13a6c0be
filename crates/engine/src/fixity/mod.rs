//! Fixity: whether contents still are what was recorded.
//!
//! [`verdict`] decides and [`manifest`] reads lines, and neither does I/O; [`read`] reads an original politely, and [`hash`] hashes what is read, `tree` a large file on all cores. What is done
//! with a verdict is the daemon's business.

pub mod against;
pub mod hash;
pub mod manifest;
pub mod read;
mod tree;
pub mod verdict;
