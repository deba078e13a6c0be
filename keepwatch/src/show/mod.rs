//! How things look: on a terminal, and as JSON. Everything here is a function of plain values.

pub mod log;
pub mod ls;
pub mod progress;
pub mod safe;
pub mod status;
