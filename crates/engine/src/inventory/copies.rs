//! Which replica holds which versions: the tables `replicas` and `copies`, applied from acts and read back.
//!
//! A copy is kept by the path for which the replica holds it, a directory's with a `/` at its end. So rows come in the order in
//! which an object store lists, everything in a directory is one range, and a directory and a file of one name are two
//! keys. Where a copy lies at the target follows from that path and the replica's layout.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::checks;
use super::error::Result;
use super::row::{DirId, FileId, signed, unsigned};
use super::view::View;
use crate::apply::codes::Code;
use crate::apply::{Stamp, copy_key, range_end};
use crate::model::{Copied, Digest, Failed, FileType, Proof, RelPath, Replica, ReplicaName, Seq, Timestamp, Withdrawn};

/// A replica that some record named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// Its id here.
    pub id: i64,
    /// Its name.
    pub name: ReplicaName,
    /// Its URL, while it is kept.
    pub url: Option<String>,
    /// The id in its target's mark.
    pub identity: Option<String>,
    /// Of which roots all that was at the target is known, and by which layout and filters.
    pub roots: BTreeMap<String, String>,
    /// What it holds.
    pub counts: CopyCounts,
}

/// An original that could not be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRow {
    /// Its root.
    pub root: String,
    /// Its path there.
    pub path: RelPath,
    /// When it was given up.
    pub at: Timestamp,
    /// Why.
    pub why: String,
}

/// One version on one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRow {
    /// The path in the root, a directory's with a `/` at its end.
    pub key: Vec<u8>,
    /// The original.
    pub file_id: FileId,
    /// The last record that had told of the original.
    pub of: Seq,
    /// What kind.
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    /// The original's mtime.
    pub mtime_ns: i64,
    /// The hash of what was copied.
    pub sha256: Option<[u8; 32]>,
    /// How far it is proved.
    pub proof: Proof,
}

/// What a replica holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyCounts {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

pub(super) const COLUMNS: &str = "path, file_id, of_seq, kind, size, mtime_ns, sha256, proof";

/// The replica's id: the seq of the first record that named it.
pub(super) fn replica_id(db: &Connection, name: &ReplicaName, stamp: Stamp) -> rusqlite::Result<i64> {
    let mut find = db.prepare_cached("SELECT replica_id FROM replicas WHERE name=?1")?;
    if let Some(id) = find.query_row([name.as_str()], |row| row.get(0)).optional()? {
        return Ok(id);
    }
    let id = signed(stamp.seq.0);
    db.prepare_cached("INSERT INTO replicas (replica_id, name) VALUES (?1, ?2)")?
        .execute(params![id, name.as_str()])?;
    Ok(id)
}

/// What `config` says of a replica. One with another identity is another place: nothing is known of it.
pub(super) fn configure(db: &Connection, config: &Replica, stamp: Stamp) -> rusqlite::Result<()> {
    let id = replica_id(db, &config.replica, stamp)?;
    if config.url.is_none() && config.identity.is_none() {
        for table in ["copies", "checks", "failures", "replicas"] {
            db.execute(&format!("DELETE FROM {table} WHERE replica_id=?1"), [id])?;
        }
        return Ok(());
    }
    let mut find = db.prepare_cached("SELECT identity FROM replicas WHERE replica_id=?1")?;
    let before: Option<String> = find.query_row([id], |row| row.get(0))?;
    if let (Some(before), Some(now)) = (&before, &config.identity)
        && before != now
    {
        db.prepare_cached("DELETE FROM copies WHERE replica_id=?1")?.execute([id])?;
        db.prepare_cached("DELETE FROM failures WHERE replica_id=?1")?.execute([id])?;
        db.prepare_cached("DELETE FROM checks WHERE replica_id=?1")?.execute([id])?;
        db.prepare_cached("UPDATE replicas SET files=0, bytes=0 WHERE replica_id=?1")?.execute([id])?;
    }
    let roots = serde_json::to_string(&config.roots).unwrap_or_else(|_| "{}".to_owned());
    let mut update =
        db.prepare_cached("UPDATE replicas SET url=?2, identity=coalesce(?3, identity), roots=?4 WHERE replica_id=?1")?;
    update.execute(params![id, config.url, config.identity, roots])?;
    Ok(())
}

/// What need not be asked, or written, for each of many copies that are told of together. Written before anything else is told
/// of, and at the end of a transaction.
#[derive(Debug, Default)]
pub(super) struct Together {
    replica: Option<(ReplicaName, i64)>,
    /// Files and bytes to be added, by replica.
    counts: HashMap<i64, (i64, i64)>,
    /// Whether anything could not be copied to any replica.
    any_failed: Option<bool>,
}

impl Together {
    fn replica_id(&mut self, db: &Connection, name: &ReplicaName, stamp: Stamp) -> rusqlite::Result<i64> {
        if let Some((known, id)) = &self.replica
            && known == name
        {
            return Ok(*id);
        }
        let id = replica_id(db, name, stamp)?;
        self.replica = Some((name.clone(), id));
        Ok(id)
    }

    fn count(&mut self, replica: i64, files: i64, bytes: i64) {
        let sum = self.counts.entry(replica).or_default();
        *sum = (sum.0 + files, sum.1 + bytes);
    }

    fn any_failed(&mut self, db: &Connection) -> rusqlite::Result<bool> {
        if let Some(any) = self.any_failed {
            return Ok(any);
        }
        let any = db.prepare_cached("SELECT 1 FROM failures LIMIT 1")?.exists([])?;
        self.any_failed = Some(any);
        Ok(any)
    }

    /// Writes what is to be added, and asks anew from here on.
    pub(super) fn write(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let Together { counts, .. } = std::mem::take(self);
        counts.into_iter().try_for_each(|(replica, (files, bytes))| count(db, replica, files, bytes))
    }
}

/// Adds to what a replica holds.
fn count(db: &Connection, replica: i64, files: i64, bytes: i64) -> rusqlite::Result<()> {
    if (files, bytes) == (0, 0) {
        return Ok(());
    }
    db.prepare_cached("UPDATE replicas SET files=files+?2, bytes=bytes+?3 WHERE replica_id=?1")?
        .execute(params![replica, files, bytes])?;
    Ok(())
}

/// An original could not be copied.
pub(super) fn failed(db: &Connection, failed: &Failed, root: i64, stamp: Stamp) -> rusqlite::Result<()> {
    let replica = replica_id(db, &failed.replica, stamp)?;
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO failures VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    insert.execute(params![replica, root, failed.path.as_bytes(), signed(stamp.seq.0), stamp.at.0, failed.why])?;
    Ok(())
}

const INSERT_COPY: &str = "INSERT INTO copies (replica_id, root_id, path, file_id, of_seq, kind, size, mtime_ns, sha256, proof, seq) \
     VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)";
const OR_NOTHING: &str = " ON CONFLICT (replica_id, root_id, path) DO NOTHING";
const OR_UPDATE: &str = " ON CONFLICT (replica_id, root_id, path) DO UPDATE SET \
     file_id=?4, of_seq=?5, kind=?6, size=?7, mtime_ns=?8, sha256=?9, proof=?10, seq=?11";

/// Writes a copy's row; whether that did anything.
fn write_copy(
    db: &Connection,
    (replica, root, key): (i64, i64, &[u8]),
    copied: &Copied,
    stamp: Stamp,
    conflict: &str,
) -> rusqlite::Result<bool> {
    let mut insert = db.prepare_cached(&[INSERT_COPY, conflict].concat())?;
    let written = insert.execute(params![
        replica,
        root,
        key,
        copied.file,
        signed(copied.of.0),
        copied.kind.code(),
        signed(copied.size),
        copied.mtime_ns,
        copied.sha256.as_ref().map(|digest| &digest.0[..]),
        copied.proof.code(),
        signed(stamp.seq.0)
    ])?;
    Ok(written > 0)
}

/// A replica holds a version, or a copy got another name. `dir` is the directory that holds the original, if it is known.
pub(super) fn copied(
    db: &Connection,
    together: &mut Together,
    copied: &Copied,
    (root, dir): (i64, Option<i64>),
    stamp: Stamp,
) -> rusqlite::Result<()> {
    let replica = together.replica_id(db, &copied.replica, stamp)?;
    let key = copy_key(&copied.path, copied.kind);
    let is_file = copied.kind == FileType::File;
    let (files, bytes) = if is_file { (1, signed(copied.size)) } else { (0, 0) };
    let is_new = copied.old_path.is_none() && write_copy(db, (replica, root, &key), copied, stamp, OR_NOTHING)?;
    if is_new {
        together.count(replica, files, bytes);
    } else {
        together.write(db)?;
        copied_over(db, copied, (replica, root, &key), (files, bytes), stamp)?;
    }
    if together.any_failed(db)? {
        db.prepare_cached("DELETE FROM failures WHERE replica_id=?1 AND root_id=?2 AND path=?3")?.execute(params![
            replica,
            root,
            copied.path.as_bytes()
        ])?;
    }
    if copied.proof == Proof::Proved && copied.old_path.is_none() && is_file {
        checks::passed(db, (replica, root, copied.file), signed(copied.of.0), stamp)?;
    }
    match (&copied.sha256, dir) {
        (Some(digest), Some(dir)) => learn_digest(db, copied, digest, dir),
        _ => Ok(()),
    }
}

/// The same for a key that has a row, or is to get that of another.
fn copied_over(
    db: &Connection,
    copied: &Copied,
    (replica, root, key): (i64, i64, &[u8]),
    (files, bytes): (i64, i64),
    stamp: Stamp,
) -> rusqlite::Result<()> {
    if let Some(old_path) = &copied.old_path {
        let old_key = copy_key(old_path, copied.kind);
        withdraw(db, replica, root, key, copied.kind)?;
        rename(db, replica, root, &old_key, key, copied.kind)?;
    }
    let mut find = db.prepare_cached(
        "SELECT size, of_seq, sha256 FROM copies WHERE replica_id=?1 AND root_id=?2 AND path=?3 AND kind=1",
    )?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let before: Option<(i64, i64, Option<[u8; 32]>)> = find.query_row(params![replica, root, key], read).optional()?;
    if let Some((_, of, Some(sha256))) = before
        && copied.sha256.is_some_and(|digest| digest.0 == sha256)
    {
        checks::carry(db, (replica, root, copied.file), of, signed(copied.of.0))?;
    }
    let before = before.map(|(size, ..)| size);
    count(db, replica, files - i64::from(before.is_some()), bytes - before.unwrap_or(0))?;
    write_copy(db, (replica, root, key), copied, stamp, OR_UPDATE)?;
    Ok(())
}

/// The content of the original is known now, if that version still is the current one.
fn learn_digest(db: &Connection, copied: &Copied, digest: &Digest, dir: i64) -> rusqlite::Result<()> {
    let Some((_, name)) = copied.path.split() else { return Ok(()) };
    let mut update = db.prepare_cached(
        "UPDATE files SET sha256=?2 WHERE dir_id=?1 AND name=?3 \
         AND file_id=?4 AND version_seq<=?5 AND size=?6 AND mtime_ns=?7",
    )?;
    update.execute(params![
        dir,
        &digest.0[..],
        name,
        copied.file,
        signed(copied.of.0),
        signed(copied.size),
        copied.mtime_ns
    ])?;
    Ok(())
}

fn rename(db: &Connection, replica: i64, root: i64, from: &[u8], to: &[u8], kind: FileType) -> rusqlite::Result<()> {
    if kind == FileType::Dir {
        // `||` makes text of blobs without touching their bytes; the cast makes them a blob again.
        let mut update = db.prepare_cached(
            "UPDATE copies SET path=CAST(?5 || substr(path, ?6) AS BLOB) \
             WHERE replica_id=?1 AND root_id=?2 AND path>=?3 AND path<?4",
        )?;
        update.execute(params![replica, root, from, range_end(from), to, signed(from.len() as u64 + 1)])?;
    } else {
        let mut update =
            db.prepare_cached("UPDATE copies SET path=?4 WHERE replica_id=?1 AND root_id=?2 AND path=?3")?;
        update.execute(params![replica, root, from, to])?;
    }
    Ok(())
}

/// A replica holds something no more, of a directory with all below it.
pub(super) fn withdrawn(db: &Connection, gone: &Withdrawn, root: i64, stamp: Stamp) -> rusqlite::Result<()> {
    let replica = replica_id(db, &gone.replica, stamp)?;
    withdraw(db, replica, root, &copy_key(&gone.path, gone.kind), gone.kind)
}

fn withdraw(db: &Connection, replica: i64, root: i64, key: &[u8], kind: FileType) -> rusqlite::Result<()> {
    // A root's own key is a bare slash; all in it goes.
    let from: &[u8] = if key == b"/" { b"" } else { key };
    let end = match kind {
        _ if key == b"/" => vec![255; 4096],
        FileType::Dir => range_end(key),
        _ => [key, b"\0"].concat(),
    };
    let mut sum = db.prepare_cached(
        "SELECT count(*), coalesce(sum(size), 0) FROM copies \
         WHERE replica_id=?1 AND root_id=?2 AND path>=?3 AND path<?4 AND kind=1",
    )?;
    let (files, bytes): (i64, i64) =
        sum.query_row(params![replica, root, from, end], |row| Ok((row.get(0)?, row.get(1)?)))?;
    count(db, replica, -files, -bytes)?;
    let failures_end = if kind == FileType::Dir { end.clone() } else { [key, b"\0"].concat() };
    db.prepare_cached("DELETE FROM failures WHERE replica_id=?1 AND root_id=?2 AND path>=?3 AND path<?4")?
        .execute(params![replica, root, from, failures_end])?;
    checks::forget(db, replica, root, from, &end)?;
    db.prepare_cached("DELETE FROM copies WHERE replica_id=?1 AND root_id=?2 AND path>=?3 AND path<?4")?
        .execute(params![replica, root, from, end])?;
    Ok(())
}

const REPLICA_COLUMNS: &str = "replica_id, name, url, identity, roots, files, bytes";

fn read_replica(row: &Row<'_>) -> rusqlite::Result<ReplicaRow> {
    let roots: String = row.get(4)?;
    Ok(ReplicaRow {
        id: row.get(0)?,
        name: ReplicaName::new(row.get::<_, String>(1)?),
        url: row.get(2)?,
        identity: row.get(3)?,
        roots: serde_json::from_str(&roots).unwrap_or_default(),
        counts: CopyCounts { files: unsigned(row.get(5)?), bytes: unsigned(row.get(6)?) },
    })
}

pub(super) fn read_copy(row: &Row<'_>) -> rusqlite::Result<CopyRow> {
    Ok(CopyRow {
        key: row.get(0)?,
        file_id: FileId(row.get(1)?),
        of: Seq(unsigned(row.get(2)?)),
        kind: FileType::decode(row.get(3)?).unwrap_or(FileType::File),
        size: unsigned(row.get(4)?),
        mtime_ns: row.get(5)?,
        sha256: row.get(6)?,
        proof: Proof::decode(row.get(7)?).unwrap_or(Proof::Presumed),
    })
}

impl View {
    /// A replica.
    ///
    /// # Errors
    /// SQLite's, as for every method here.
    pub fn replica(&self, name: &ReplicaName) -> Result<Option<ReplicaRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(&format!("SELECT {REPLICA_COLUMNS} FROM replicas WHERE name=?1"))?;
            find.query_row([name.as_str()], read_replica).optional()
        })
    }

    /// Every replica that some record named, by name.
    ///
    /// # Errors
    /// SQLite's.
    pub fn replicas(&self) -> Result<Vec<ReplicaRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(&format!("SELECT {REPLICA_COLUMNS} FROM replicas ORDER BY name"))?;
            find.query_map([], read_replica)?.collect()
        })
    }

    /// Originals that could not be copied to a replica, by root and path, up to a number.
    ///
    /// # Errors
    /// SQLite's.
    pub fn failures(&self, replica: i64, limit: usize) -> Result<Vec<FailureRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT r.name, f.path, f.at_ns, f.why FROM failures f JOIN roots r USING (root_id) \
                 WHERE f.replica_id=?1 ORDER BY r.name, f.path LIMIT ?2",
            )?;
            let rows = find.query_map(params![replica, signed(limit as u64)], |row| {
                let path = RelPath::new(row.get::<_, Vec<u8>>(1)?).unwrap_or_default();
                Ok(FailureRow { root: row.get(0)?, path, at: Timestamp(row.get(2)?), why: row.get(3)? })
            })?;
            rows.collect()
        })
    }

    /// How many originals could not be copied to a replica.
    ///
    /// # Errors
    /// SQLite's.
    pub fn count_failures(&self, replica: i64) -> Result<u64> {
        self.read(|db| {
            let mut count = db.prepare_cached("SELECT count(*) FROM failures WHERE replica_id=?1")?;
            count.query_row([replica], |row| row.get(0).map(unsigned))
        })
    }

    /// Some copies of a root on a replica behind a key (an empty one: from the first), in the order of their keys.
    ///
    /// # Errors
    /// SQLite's.
    pub fn copies_after(&self, replica: i64, root: DirId, after: &[u8], limit: usize) -> Result<Vec<CopyRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM copies WHERE replica_id=?1 AND root_id=?2 AND path>?3 ORDER BY path LIMIT ?4"
            ))?;
            let rows = find.query_map(params![replica, root.0, after, signed(limit as u64)], read_copy)?;
            rows.collect()
        })
    }

    /// Some of the copies in a directory, its own among them, the last of them first.
    ///
    /// # Errors
    /// SQLite's.
    pub fn copies_within(&self, replica: i64, root: DirId, dir_key: &[u8], limit: usize) -> Result<Vec<CopyRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM copies WHERE replica_id=?1 AND root_id=?2 AND path>=?3 AND path<?4 \
                 ORDER BY path DESC LIMIT ?5"
            ))?;
            let end = range_end(dir_key);
            let rows = find.query_map(params![replica, root.0, dir_key, end, signed(limit as u64)], read_copy)?;
            rows.collect()
        })
    }

    /// How many copies of other things than directories stand in a directory.
    ///
    /// # Errors
    /// SQLite's.
    pub fn count_copies_within(&self, replica: i64, root: DirId, dir_key: &[u8]) -> Result<u64> {
        self.read(|db| {
            let mut count = db.prepare_cached(
                "SELECT count(*) FROM copies WHERE replica_id=?1 AND root_id=?2 AND path>=?3 AND path<?4 AND kind<>2",
            )?;
            count.query_row(params![replica, root.0, dir_key, range_end(dir_key)], |row| row.get(0).map(unsigned))
        })
    }

    /// The copy under a key.
    ///
    /// # Errors
    /// SQLite's.
    pub fn copy_at(&self, replica: i64, root: DirId, key: &[u8]) -> Result<Option<CopyRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM copies WHERE replica_id=?1 AND root_id=?2 AND path=?3"
            ))?;
            find.query_row(params![replica, root.0, key], read_copy).optional()
        })
    }

    /// Every copy of an original of this root that a replica holds.
    ///
    /// # Errors
    /// SQLite's.
    pub fn copies_of(&self, replica: i64, root: DirId, file: FileId) -> Result<Vec<CopyRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM copies WHERE replica_id=?1 AND file_id=?2 AND root_id=?3 ORDER BY path"
            ))?;
            let rows = find.query_map(params![replica, file.0, root.0], read_copy)?;
            rows.collect()
        })
    }

    /// How many files a replica holds of a root.
    ///
    /// # Errors
    /// SQLite's.
    pub fn count_copies(&self, replica: i64, root: DirId) -> Result<u64> {
        self.read(|db| {
            let mut count =
                db.prepare_cached("SELECT count(*) FROM copies WHERE replica_id=?1 AND root_id=?2 AND kind=1")?;
            count.query_row(params![replica, root.0], |row| row.get(0).map(unsigned))
        })
    }

    /// Whether a replica holds anything of a root.
    ///
    /// # Errors
    /// SQLite's.
    pub fn has_copies(&self, replica: i64, root: DirId) -> Result<bool> {
        self.read(|db| {
            let mut find = db.prepare_cached("SELECT 1 FROM copies WHERE replica_id=?1 AND root_id=?2 LIMIT 1")?;
            find.exists(params![replica, root.0])
        })
    }
}

/// A directory whose copy does not stand where the directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// Which directory.
    pub file_id: FileId,
    /// The path for which the replica holds it.
    pub held: RelPath,
    /// Where it is.
    pub path: RelPath,
}

impl View {
    /// The first directory, parents before what they hold, whose copy does not stand where it is.
    ///
    /// # Errors
    /// SQLite's.
    pub fn misplaced_dir(&self, replica: i64, root: DirId) -> Result<Option<Misplaced>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT c.file_id, c.path, d.path FROM copies c JOIN dirs d ON d.dir_id=c.file_id \
                 WHERE c.replica_id=?1 AND c.root_id=?2 AND c.kind=2 AND d.root_id=?2 \
                 AND c.path<>CAST(d.path || x'2f' AS BLOB) ORDER BY d.path LIMIT 1",
            )?;
            let read = |row: &Row<'_>| {
                let key: Vec<u8> = row.get(1)?;
                let held = RelPath::new(key.strip_suffix(b"/").unwrap_or(&key));
                let path = RelPath::new(row.get::<_, Vec<u8>>(2)?);
                let (Ok(held), Ok(path)) = (held, path) else { return Ok(None) };
                Ok(Some(Misplaced { file_id: FileId(row.get(0)?), held, path }))
            };
            Ok(find.query_row(params![replica, root.0], read).optional()?.flatten())
        })
    }

    /// Where a directory is now.
    ///
    /// # Errors
    /// SQLite's.
    pub fn is_live_dir(&self, root: DirId, file: FileId) -> Result<bool> {
        self.read(|db| {
            let mut find = db.prepare_cached("SELECT 1 FROM dirs WHERE dir_id=?1 AND root_id=?2")?;
            find.exists(params![file.0, root.0])
        })
    }
}
