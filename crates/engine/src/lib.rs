//! The engine of Keepwatch: it watches file trees, journals every change, and keeps the inventory.
//!
//! It never reads the environment, never prints and knows no terminal; the binary hands it validated settings.
//! Which module may use which stands in `tests/architecture.rs`.

mod apply;
pub mod beneath;
pub mod clock;
pub mod daemon;
pub mod fixity;
pub mod index;
pub mod inventory;
pub mod model;
mod processes;
pub mod scan;
pub mod sync;
pub mod target;
pub mod trigger;
pub mod watch;
