//! Keeping a replica true: which originals it holds ([`filter`]), where each goes ([`layout`]), what it needs ([`plan`]), what
//! may be deleted ([`guards`]), and the copying itself ([`copy`]). Knows neither the inventory nor the journal: it is told,
//! and it tells.

pub mod copy;
pub mod filter;
pub mod guards;
pub mod layout;
pub mod origin;
pub mod plan;
