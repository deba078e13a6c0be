//! Packs many small files, written by many processes on many hosts, into zip archives on one file system.
//!
//! A worker writes through a [`Packer`]. A member whose [`Handle::finish`] has returned survives the death of the worker,
//! and ends up in its archive, once. A [`Scavenger`] collects what workers have staged; any number may run anywhere. What
//! is where, and what makes this safe, stands in docs/pack-format.md.
//!
//! ```
//! use std::io::Write as _;
//!
//! # let base = tempfile::tempdir()?;
//! # let base = base.path();
//! let packer = keepwatch_pack::Packer::open(base, keepwatch_pack::Options::default())?;
//! let mut member = packer.create("logs.zip/run1/out.txt")?;
//! member.write_all(b"all is well\n")?;
//! member.finish()?;
//! packer.close()?;
//!
//! keepwatch_pack::Scavenger::open(base, keepwatch_pack::ScavengeOptions::default())?.scavenge()?;
//! assert!(base.join("logs.zip").is_file());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod archive;
mod base;
mod build;
mod digest;
mod error;
pub mod files;
mod generation;
mod handle;
mod index;
mod manifest;
mod name;
mod owner;
mod packer;
mod part;
mod pickup;
mod place;
mod plan;
mod scan;
mod scavenge;
mod staged;
mod status;
mod verify;
mod zip;

pub use base::{Base, Listed};
pub use error::PackError;
pub use handle::Handle;
pub use name::{ArchiveName, MemberName, NameError, STAGING_DIR, escape};
pub use packer::{Method, OnDrop, Options, Packer, Sync};
pub use plan::Limits;
pub use scavenge::{Report, ScavengeOptions, Scavenger};
pub use status::{ArchiveStatus, Count, PartStatus, Status};
pub use verify::{Finding, Verified};
