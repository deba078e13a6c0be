//! Fixity: whether contents still are what was recorded.
//!
//! [`verdict`] decides, and does no I/O; [`read`] reads an original politely, and [`hash`] hashes what is read. What is done with a
//! verdict is the daemon's business.

pub mod hash;
pub mod read;
pub mod verdict;
