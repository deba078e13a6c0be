//! Opening a connection: pragmas, schema, and the refusal of what is not ours.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::{InventoryError, Result};

/// The schema that this program writes, in SQLite's `user_version`.
pub const SCHEMA_VERSION: i64 = 5;

/// Marks the file as an inventory, in SQLite's `application_id`: "kwin".
const APPLICATION_ID: i64 = 0x6b77_696e;
/// SQLite before this can corrupt a database in WAL mode (the WAL-reset fault, mended in 3.51.3).
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// How much of the database the writer keeps in memory.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// How much a reader keeps.
const READER_CACHE_KIB: i64 = 4 * 1024;
/// Pages (of 4 KiB) in the WAL after which a commit copies them back.
const WAL_PAGES_MAX: i64 = 8_192;
/// To what the WAL file is cut after it was copied back in full.
const WAL_BYTES_KEPT: i64 = 64 * 1024 * 1024;
/// How long to wait for another process's lock.
const BUSY_WAIT: Duration = Duration::from_secs(10);
/// More statements than there are, so that none is prepared twice.
const STATEMENTS_MAX: usize = 96;

/// Whose inventory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The machine's id, to which the state directory is bound.
    pub id: String,
    /// The host's name, fixed at first start.
    pub name: String,
}

/// Opens for writing; makes the tables in an empty file.
pub(super) fn open_writer(path: &Path, host: &Host) -> Result<Connection> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(InventoryError::OldSqlite { found: rusqlite::version() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // SQLite would let others read it, and gives the files beside it the mode of this one.
    let made = File::options().append(true).create(true).mode(0o600).open(path);
    made.map_err(InventoryError::io(path, "open"))?;
    let mut db = Connection::open_with_flags(path, flags).map_err(InventoryError::sqlite(path, "open"))?;
    let fresh = check(path, &db)?;
    if fresh {
        db.pragma_update(None, "page_size", 4096).map_err(InventoryError::sqlite(path, "set up"))?;
    }
    db.pragma_update(None, "journal_mode", "wal").map_err(InventoryError::sqlite(path, "set up"))?;
    // Enough, because the journal is the ground truth: see the module's documentation.
    settle_pragmas(&db, WRITER_CACHE_KIB, "normal").map_err(InventoryError::sqlite(path, "set up"))?;
    if fresh {
        create(&mut db, host).map_err(InventoryError::sqlite(path, "create"))?;
    }
    let found: String = db
        .query_row("SELECT host_id FROM hosts", [], |row| row.get(0))
        .map_err(InventoryError::sqlite(path, "read"))?;
    if found != host.id {
        return Err(InventoryError::OtherHost { path: path.to_owned(), found, asked: host.id.clone() });
    }
    Ok(db)
}

/// Opens for reading only, beside a writer in this or another process.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(InventoryError::sqlite(path, "open"))?;
    settle_pragmas(&db, READER_CACHE_KIB, "normal").map_err(InventoryError::sqlite(path, "open"))?;
    if check(path, &db)? {
        return Err(InventoryError::Foreign { path: path.to_owned() });
    }
    Ok(db)
}

fn settle_pragmas(db: &Connection, cache_kib: i64, synchronous: &str) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY_WAIT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    db.pragma_update(None, "synchronous", synchronous)?;
    db.pragma_update(None, "cache_size", -cache_kib)?;
    db.pragma_update(None, "wal_autocheckpoint", WAL_PAGES_MAX)?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    db.pragma_update(None, "foreign_keys", false)?;
    db.pragma_update(None, "trusted_schema", false)
}

/// Whether the database is empty; an error if it is not one that we can use.
fn check(path: &Path, db: &Connection) -> Result<bool> {
    let number = |pragma: &str| -> Result<i64> {
        db.pragma_query_value(None, pragma, |row| row.get(0)).map_err(InventoryError::sqlite(path, "read"))
    };
    let (application, found) = (number("application_id")?, number("user_version")?);
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(InventoryError::sqlite(path, "read"))?;
    if tables == 0 && application == 0 && found == 0 {
        return Ok(true);
    }
    if application != APPLICATION_ID {
        return Err(InventoryError::Foreign { path: path.to_owned() });
    }
    match found {
        SCHEMA_VERSION => Ok(false),
        newer if newer > SCHEMA_VERSION => {
            Err(InventoryError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION })
        }
        _ => Err(InventoryError::Older { path: path.to_owned(), found }),
    }
}

fn create(db: &mut Connection, host: &Host) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    tx.execute_batch(include_str!("schema.sql"))?;
    tx.execute_batch(include_str!("views.sql"))?;
    tx.execute("INSERT INTO hosts (host_id, name) VALUES (?1, ?2)", [&host.id, &host.name])?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()
}
