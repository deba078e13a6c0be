//! The shared index: every host's changes and originals in one PostgreSQL database, for all to ask.
//!
//! Each host is a follower of its own journal that writes its own rows. It is derived state: the journal is the ground
//! truth, the database may be away for days, and `keepwatch replay --to postgres` makes a host's rows anew.
//!
//! # How a batch is applied
//!
//! [`Index::apply`] takes the records that follow the cursor, in ONE transaction. Its first statement moves the cursor from
//! exactly the old (journal, seq, hash) to the new one, or the transaction ends: one that hung in the server and commits
//! late does no harm, and after a connection that broke in mid-commit the cursor tells what came of it.
//!
//! What the records mean is decided in [`crate::apply`], over the rows of the batch in memory, which are read ahead in a few
//! queries and written together, each once: `overlay`, `ahead`, `database`. Rows that did not change are not written.
//!
//! Each record has two parts that stand alone: the *audit* part (its row in `changes` or `acts`) and the *inventory* part.
//! Where a value or a constraint refuses a row (SQLSTATE classes 22 and 23), the records are halved until the one at fault
//! is found; it goes to `problems`, and all else goes on. Whatever else fails, fails the batch, which is tried again for
//! as long as it takes.
//!
//! # Where what is
//!
//! `writer` keeps transaction, cursor and savepoints; `audit` are the rows of the history, `row` those of names, `copies` those of replicas; `host`
//! says whose rows they are; `schema` makes the tables; `session` is the connection; `copy` PostgreSQL's binary format;
//! `replay` makes a host's rows anew;
//! `view` reads: `list` what stands or stood, `gaps` whether that is certain, `log` what happened.

mod ahead;
mod audit;
mod copies;
mod copy;
mod database;
mod error;
mod gaps;
mod host;
mod list;
mod log;
mod overlay;
mod replay;
mod row;
mod schema;
mod session;
mod settings;
mod text;
mod view;
mod writer;

pub use copies::IndexReplica;
pub use error::{IndexError, Result};
pub use host::Writer;
pub use list::{IndexMoment, IndexName};
pub use log::IndexLog;
pub use replay::Replay;
pub use schema::INDEX_SCHEMA;
pub use session::Stop;
pub use settings::{IndexSettings, Password, ServerAddress, Tls, is_near};
pub use view::{IndexHost, IndexRoot, IndexView};
pub use writer::Index;
