//! A strict S3 server for tests and benchmarks: real requests over a real socket, signed, against a store in memory that can
//! be looked into, with faults on order and a count of what was asked; it speaks as Google
//! Cloud Storage and Azure Blob Storage too. Not shipped.

mod api;
mod azure;
mod faults;
mod google;
mod plain;
mod serve;
mod store;

pub use azure::{ACCOUNT, ACCOUNT_KEY};
pub use faults::{Fault, Faults, Order};
pub use google::TOKEN;
pub use serve::{Dialect, KEY_ID, REGION, SECRET, Seen, Server, Settings};
pub use store::{Object, Store};
