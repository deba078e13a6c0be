//! Keeping a replica true: where each original goes ([`layout`]), what it needs ([`plan`]), what may be deleted ([`guards`]), and
//! the copying itself ([`copy`]). Knows neither the inventory nor the journal: it is told, and it tells.

pub mod copy;
pub mod guards;
pub mod layout;
pub mod plan;
