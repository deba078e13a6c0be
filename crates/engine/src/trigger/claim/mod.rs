//! Claims: of several hosts that watch one shared folder, one runs the command for a version.
//!
//! All of it stands in `.keepwatch-claims/TRIGGER` in the folder itself. `slots` has a directory for each path, with exactly one
//! file in it, the token, whose name says who has the path and how far it is with which version. Whoever wants to change that
//! renames the token: a name is there once, so of several who rename it one succeeds, on whatever file system. The first token comes
//! with its directory, by a rename that fails where there is one. `hosts` has a file for each host, which changes as long as it lives.
//!
//! A host that has a path is over, and another may take its place, when one of these is known: it said so itself as it ended;
//! its state directory, which one instance has at a time, is used by a later life; it ran on this machine, and no such
//! process is there; or nothing was heard of it for the time that is set, by the monotonic clock of whoever listens, while
//! the listener's own signs of life reached the folder again and again. Clocks of several hosts are never compared.

mod folder;
mod life;
mod token;

pub use folder::{CLAIMS_DIR, Folder, Slot};
pub use life::{Life, Listener};
pub use token::{Answer, Content, Stage, Token, decide, plain};
