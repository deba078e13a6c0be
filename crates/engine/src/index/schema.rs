//! The tables: made and brought up to date by whichever host comes first, in numbered steps.

use super::error::{IndexError, Result};
use super::row::get;
use super::session::Session;
use crate::model::Timestamp;

/// The schema that this program writes.
pub const INDEX_SCHEMA: i32 = 1;

/// Each step, in order; the first makes schema 1.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001.sql")];
/// PostgreSQL before this lacks what the schema needs.
const SERVER_VERSION_MIN: i32 = 130_000;
/// Hosts that start at one moment may make the tables at one moment: so often is it looked again who was first.
const RACES_MAX: usize = 10;

/// Looks at the server and brings the tables up to date.
pub(super) fn prepare(session: &Session) -> Result<()> {
    check_server(session)?;
    let mut found = version(session)?;
    if found < INDEX_SCHEMA {
        make_roles(session)?;
    }
    write_as_role(session)?;
    for _ in 0..RACES_MAX {
        match found {
            INDEX_SCHEMA => return Ok(()),
            newer if newer > INDEX_SCHEMA => return Err(IndexError::Newer { found, known: INDEX_SCHEMA }),
            _ => {}
        }
        match migrate(session, found + 1) {
            Ok(()) => {}
            Err(error) if is_somebody_elses(&error) => session.run("ROLLBACK")?,
            Err(error) => return Err(error),
        }
        found = version(session)?;
    }
    Err(IndexError::Older { found, known: INDEX_SCHEMA })
}

/// Looks whether the tables are those that this program can read.
pub(super) fn check_readable(session: &Session) -> Result<()> {
    match version(session)? {
        INDEX_SCHEMA => Ok(()),
        found if found > INDEX_SCHEMA => Err(IndexError::Newer { found, known: INDEX_SCHEMA }),
        found => Err(IndexError::Older { found, known: INDEX_SCHEMA }),
    }
}

fn check_server(session: &Session) -> Result<()> {
    let rows = session
        .query("SELECT current_setting('server_version_num')::integer, current_setting('server_encoding')", &[])?;
    let (number, encoding) = rows
        .first()
        .and_then(|row| Some((get::<i32>(row, 0)?, get::<String>(row, 1)?)))
        .ok_or_else(|| IndexError::Unfit("the server does not say what it is".to_owned()))?;
    if number < SERVER_VERSION_MIN {
        return Err(IndexError::Unfit(format!("PostgreSQL {} is too old, 13 is needed", number / 10_000)));
    }
    if encoding != "UTF8" {
        return Err(IndexError::Unfit(format!("the database's encoding is {encoding}, it must be UTF8")));
    }
    Ok(())
}

fn version(session: &Session) -> Result<i32> {
    let rows = session.query("SELECT to_regclass('keepwatch_schema') IS NOT NULL", &[])?;
    if !rows.first().and_then(|row| get(row, 0)).unwrap_or(false) {
        return Ok(0);
    }
    let rows = session.query_once("SELECT coalesce(max(version), 0) FROM keepwatch_schema", &[])?;
    Ok(rows.first().and_then(|row| get(row, 0)).unwrap_or(0))
}

/// The roles that hosts write with and people read with, where we may make them. Without them the tables belong to whoever
/// made them.
fn make_roles(session: &Session) -> Result<()> {
    let rows = session.query("SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user", &[])?;
    if !rows.first().and_then(|row| get(row, 0)).unwrap_or(false) {
        return Ok(());
    }
    for role in ["keepwatch_write", "keepwatch_read"] {
        let rows = session.query("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role])?;
        if rows.is_empty()
            && let Err(error) = session.run(&format!("CREATE ROLE {role} NOLOGIN"))
            && !is_somebody_elses(&error)
        {
            return Err(error);
        }
    }
    // Whoever is no owner of the schema may lack the right to give these; then the tables cannot be made either, and that
    // error is the one to tell.
    let granted = session.run(
        "DO $$ BEGIN \
         EXECUTE format('GRANT keepwatch_write TO %I', current_user); \
         EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO keepwatch_write', current_schema()); \
         EXECUTE format('GRANT USAGE ON SCHEMA %I TO keepwatch_read', current_schema()); END $$",
    );
    granted.inspect_err(|error| tracing::debug!(error = %error, "rights could not be given")).or(Ok(()))
}

/// From here on, what is made belongs to the writing role, and no more is allowed than it is.
fn write_as_role(session: &Session) -> Result<()> {
    let rows = session.query(
        "SELECT 1 FROM pg_roles WHERE rolname = 'keepwatch_write' AND pg_has_role(current_user, oid, 'MEMBER') \
         AND has_schema_privilege(oid, current_schema(), 'CREATE')",
        &[],
    )?;
    if rows.is_empty() { Ok(()) } else { session.run("SET ROLE keepwatch_write") }
}

fn migrate(session: &Session, to: i32) -> Result<()> {
    let step = usize::try_from(to - 1).ok().and_then(|step| MIGRATIONS.get(step));
    let step = step.ok_or(IndexError::Older { found: to - 1, known: INDEX_SCHEMA })?;
    session.run(&format!(
        "BEGIN; CREATE TABLE IF NOT EXISTS keepwatch_schema (version integer NOT NULL PRIMARY KEY, \
         since timestamptz NOT NULL DEFAULT now()); INSERT INTO keepwatch_schema (version) VALUES ({to});\n{step}\n\
         DO $$ BEGIN IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'keepwatch_read') THEN \
         EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO keepwatch_read', current_schema()); \
         END IF; END $$; COMMIT"
    ))
}

/// Whether it failed because another host did the same at the same moment.
fn is_somebody_elses(error: &IndexError) -> bool {
    let IndexError::Server { source, .. } = error else { return false };
    let codes = ["23505", "42P07", "42710", "40001", "40P01", "XX000"];
    source.code().is_some_and(|code| codes.contains(&code.code()))
}

/// Makes the partitions of the history for a month, written `YYYY-MM`, where they are missing. Attaching a table locks
/// neither readers nor writers out.
pub(super) fn make_month(session: &Session, month: &str) -> Result<()> {
    let (year, number) = month.split_once('-').unwrap_or((month, "01"));
    let (year, number): (i32, i32) = (year.parse().unwrap_or(1970), number.parse().unwrap_or(1));
    let next = if number == 12 { (year + 1, 1) } else { (year, number + 1) };
    for table in ["changes", "acts"] {
        let part = format!("{table}_{year:04}_{number:02}");
        let attached = "SELECT 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
             WHERE i.inhparent = to_regclass($1) AND c.relname = $2";
        for _ in 0..RACES_MAX {
            if !session.query(attached, &[&table, &part])?.is_empty() {
                break;
            }
            let made = session.run(&format!(
                "BEGIN; CREATE TABLE IF NOT EXISTS {part} (LIKE {table} INCLUDING DEFAULTS); \
                 ALTER TABLE {table} ATTACH PARTITION {part} \
                 FOR VALUES FROM ('{year:04}-{number:02}-01 00:00:00+00') TO ('{:04}-{:02}-01 00:00:00+00'); COMMIT",
                next.0, next.1
            ));
            if let Err(error) = made {
                if !is_somebody_elses(&error) {
                    return Err(error);
                }
                session.run("ROLLBACK")?;
            }
        }
    }
    Ok(())
}

/// The month that a moment lies in, `YYYY-MM`.
pub(super) fn month_of(at: Timestamp) -> String {
    at.to_string().chars().take(7).collect()
}
