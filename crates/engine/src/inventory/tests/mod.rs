//! Tests of the inventory on real databases in temporary directories.

#![allow(clippy::unwrap_used)]

mod copies;
mod kit;
mod meaning;
mod model;
mod opening;
mod past;
mod random;
mod reading;
mod views;
