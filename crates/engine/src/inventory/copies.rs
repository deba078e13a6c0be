//! Which replica holds which versions: the tables `replicas` and `copies`, applied from acts and read back.
//!
//! A copy is kept by the path for which the replica holds it, a directory's with a `/` at its end. So rows come in the order in
//! which an object store lists, everything in a directory is one range, and a directory and a file of one name are two
//! keys. Where a copy lies at the target follows from that path and the replica's layout.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::Result;
use super::row::{DirId, FileId, signed, unsigned};
use super::view::View;
use crate::apply::Stamp;
use crate::apply::codes::Code;
use crate::model::{Copied, Digest, FileType, Proof, RelPath, Replica, ReplicaName, Seq, Withdrawn};

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
    /// Whether the target was listed once and held against the originals.
    pub listed: bool,
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

const COLUMNS: &str = "path, file_id, of_seq, kind, size, mtime_ns, sha256, proof";

/// The key of a copy: the path, with a `/` behind a directory's.
#[must_use]
pub fn copy_key(path: &RelPath, kind: FileType) -> Vec<u8> {
    let mut key = path.as_bytes().to_vec();
    if kind == FileType::Dir {
        key.push(b'/');
    }
    key
}

/// The first key behind everything in a directory, whose own key this is.
pub(crate) fn range_end(dir_key: &[u8]) -> Vec<u8> {
    let mut end = dir_key.to_vec();
    if let Some(last) = end.last_mut() {
        *last = b'/' + 1;
    }
    end
}

fn proof_code(proof: Proof) -> i64 {
    match proof {
        Proof::Presumed => 1,
        Proof::Written => 2,
        Proof::Proved => 3,
    }
}

fn proof_of(code: i64) -> Proof {
    match code {
        3 => Proof::Proved,
        2 => Proof::Written,
        _ => Proof::Presumed,
    }
}

/// The replica's id: the seq of the first record that named it.
fn replica_id(db: &Connection, name: &ReplicaName, stamp: Stamp) -> rusqlite::Result<i64> {
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
    let mut find = db.prepare_cached("SELECT identity FROM replicas WHERE replica_id=?1")?;
    let before: Option<String> = find.query_row([id], |row| row.get(0))?;
    if let (Some(before), Some(now)) = (&before, &config.identity)
        && before != now
    {
        db.prepare_cached("DELETE FROM copies WHERE replica_id=?1")?.execute([id])?;
        db.prepare_cached("UPDATE replicas SET listed=0 WHERE replica_id=?1")?.execute([id])?;
    }
    let mut update = db.prepare_cached(
        "UPDATE replicas SET url=?2, identity=coalesce(?3, identity), listed=max(listed, ?4) WHERE replica_id=?1",
    )?;
    update.execute(params![id, config.url, config.identity, config.listed])?;
    Ok(())
}

/// A replica holds a version, or a copy got another name.
pub(super) fn copied(db: &Connection, copied: &Copied, root: i64, stamp: Stamp) -> rusqlite::Result<()> {
    let replica = replica_id(db, &copied.replica, stamp)?;
    let key = copy_key(&copied.path, copied.kind);
    if let Some(old_path) = &copied.old_path {
        let old_key = copy_key(old_path, copied.kind);
        withdraw(db, replica, root, &key, copied.kind)?;
        rename(db, replica, root, &old_key, &key, copied.kind)?;
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO copies (replica_id, root_id, path, file_id, of_seq, kind, size, mtime_ns, sha256, proof, seq) \
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11) ON CONFLICT (replica_id, root_id, path) DO UPDATE SET \
         file_id=?4, of_seq=?5, size=?7, mtime_ns=?8, sha256=?9, proof=?10, seq=?11",
    )?;
    insert.execute(params![
        replica,
        root,
        key,
        copied.file,
        signed(copied.of.0),
        copied.kind.code(),
        signed(copied.size),
        copied.mtime_ns,
        copied.sha256.as_ref().map(|digest| &digest.0[..]),
        proof_code(copied.proof),
        signed(stamp.seq.0)
    ])?;
    match &copied.sha256 {
        Some(digest) => learn_digest(db, copied, digest, root),
        None => Ok(()),
    }
}

/// The content of the original is known now, if that version still is the current one.
fn learn_digest(db: &Connection, copied: &Copied, digest: &Digest, root: i64) -> rusqlite::Result<()> {
    let Some((parent, name)) = copied.path.split() else { return Ok(()) };
    let mut update = db.prepare_cached(
        "UPDATE files SET sha256=?3 WHERE dir_id=(SELECT dir_id FROM dirs WHERE root_id=?1 AND path=?2) AND name=?4 \
         AND file_id=?5 AND version_seq<=?6 AND size=?7 AND mtime_ns=?8",
    )?;
    update.execute(params![
        root,
        parent,
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
    let end = if kind == FileType::Dir { range_end(key) } else { [key, b"\0"].concat() };
    db.prepare_cached("DELETE FROM copies WHERE replica_id=?1 AND root_id=?2 AND path>=?3 AND path<?4")?
        .execute(params![replica, root, key, end])?;
    Ok(())
}

fn read_copy(row: &Row<'_>) -> rusqlite::Result<CopyRow> {
    Ok(CopyRow {
        key: row.get(0)?,
        file_id: FileId(row.get(1)?),
        of: Seq(unsigned(row.get(2)?)),
        kind: FileType::decode(row.get(3)?).unwrap_or(FileType::File),
        size: unsigned(row.get(4)?),
        mtime_ns: row.get(5)?,
        sha256: row.get(6)?,
        proof: proof_of(row.get(7)?),
    })
}

impl View {
    /// A replica.
    ///
    /// # Errors
    /// SQLite's, as for every method here.
    pub fn replica(&self, name: &ReplicaName) -> Result<Option<ReplicaRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached("SELECT replica_id, url, identity, listed FROM replicas WHERE name=?1")?;
            let read = |row: &Row<'_>| {
                let (id, url, identity) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(ReplicaRow { id, name: name.clone(), url, identity, listed: row.get(3)? })
            };
            find.query_row([name.as_str()], read).optional()
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

    /// What a replica holds of a root, or of all.
    ///
    /// # Errors
    /// SQLite's.
    pub fn copy_counts(&self, replica: i64, root: Option<DirId>) -> Result<CopyCounts> {
        self.read(|db| {
            let mut count = db.prepare_cached(
                "SELECT count(*), coalesce(sum(size), 0) FROM copies \
                 WHERE replica_id=?1 AND (?2 IS NULL OR root_id=?2) AND kind=1",
            )?;
            count.query_row(params![replica, root.map(|root| root.0)], |row| {
                Ok(CopyCounts { files: unsigned(row.get(0)?), bytes: unsigned(row.get(1)?) })
            })
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
