//! A strict S3 server for tests and benchmarks: real requests over a real socket, signed, against a store in memory that can
//! be looked into, with faults on order and a count of what was asked. Not shipped.

mod api;
mod faults;
mod serve;
mod store;

pub use faults::{Fault, Faults, Order};
pub use serve::{KEY_ID, REGION, SECRET, Seen, Server, Settings};
pub use store::{Object, Store};
