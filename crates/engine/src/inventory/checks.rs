//! What was read again, and what that came to: the table `checks`, applied from acts and read back.
//!
//! A check is of an object and a version of it. When the version is another one the check says nothing any more: so nothing is
//! taken back where a record tells of a change; readers see to it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::acts;
use super::copies::{self, CopyRow};
use super::error::Result;
use super::row::{DirId, FileId, Known, known_columns, read_known, signed, unsigned};
use super::view::View;
use crate::apply::Stamp;
use crate::model::{
    Body, Drift, Hashed, RelPath, ReplicaName, RootName, Seq, Timestamp, Unsound, Unsoundness, Verified,
};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is what was recorded.
    Verified,
    /// The content changed; size and mtime did not.
    Rot,
    /// It changed, and no record told.
    Changed,
    /// It is not there.
    Missing,
    /// It is there, and nothing is known of it.
    Foreign,
    /// It could not be read.
    Unreadable,
}

impl Verdict {
    const ALL: [Verdict; 6] =
        [Verdict::Verified, Verdict::Rot, Verdict::Changed, Verdict::Missing, Verdict::Foreign, Verdict::Unreadable];

    fn code(self) -> i64 {
        Self::ALL.iter().zip(1..).find(|(one, _)| **one == self).map_or(0, |(_, code)| code)
    }

    fn decode(code: i64) -> Verdict {
        let index = usize::try_from(code - 1).unwrap_or(usize::MAX);
        Self::ALL.get(index).copied().unwrap_or(Verdict::Unreadable)
    }

    /// What an act says.
    #[must_use]
    pub fn of(what: &Unsoundness) -> Verdict {
        match what {
            Unsoundness::Rot { .. } => Verdict::Rot,
            Unsoundness::Missed(Drift::Changed) => Verdict::Changed,
            Unsoundness::Missed(Drift::Missing) => Verdict::Missing,
            Unsoundness::Missed(Drift::Foreign) => Verdict::Foreign,
            Unsoundness::Unreadable { .. } => Verdict::Unreadable,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Verified => "verified",
            Verdict::Rot => "rot",
            Verdict::Changed => "changed",
            Verdict::Missing => "missing",
            Verdict::Foreign => "foreign",
            Verdict::Unreadable => "unreadable",
        }
    }
}

/// The last check of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckRow {
    /// Which object.
    pub file_id: FileId,
    /// The record that made the version; of a copy the one that its `copied` names.
    pub of: Seq,
    /// When.
    pub at: Timestamp,
    /// What it came to.
    pub verdict: Verdict,
}

/// An object that is not what was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingRow {
    /// The copy there; `None`: the original.
    pub replica: Option<ReplicaName>,
    /// The original's root.
    pub root: RootName,
    /// Its path there, as it is now.
    pub path: RelPath,
    /// The original; `None` of what is foreign.
    pub file_id: Option<FileId>,
    /// What is wrong.
    pub verdict: Verdict,
    /// When that was found.
    pub at: Timestamp,
    /// The record that tells of it.
    pub seq: Seq,
}

/// A name of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// In which root.
    pub root: RootName,
    /// Under which path.
    pub path: RelPath,
    /// What is known of it.
    pub known: Known,
}

/// Acts of one object that are looked through for an earlier hash.
const EARLIER_MAX: i64 = 64;

/// Replica, root and file id by which a check is found; an original's replica is 0.
type Key = (i64, i64, i64);

/// The originals' place among the replicas.
const ORIGINALS: i64 = 0;

/// Applies an act of fixity; returns the object that it is about, if it is about one.
pub(super) fn apply(db: &Connection, body: &Body, root: i64, stamp: Stamp) -> rusqlite::Result<Option<FileId>> {
    let place = |replica: &Option<ReplicaName>| match replica {
        Some(name) => copies::replica_id(db, name, stamp),
        None => Ok(ORIGINALS),
    };
    match body {
        Body::Hashed(hashed) => {
            let replica = place(&hashed.replica)?;
            learn(db, hashed, replica, root)?;
            Ok(Some(FileId(hashed.file)))
        }
        Body::Verified(verified) => verified_all(db, verified, place(&verified.replica)?, root, stamp).map(|()| None),
        Body::Unsound(act) => {
            unsound(db, act, place(&act.replica)?, root, stamp)?;
            Ok(act.version.map(|(file, _)| FileId(file)))
        }
        Body::Repaired(act) => {
            let replica = place(&act.replica)?;
            passed(db, (replica, root, act.file), signed(act.of.0), stamp)?;
            prove(db, (replica, root, act.file), act.of)?;
            Ok(Some(FileId(act.file)))
        }
        Body::Released(act) => {
            let mut insert = db.prepare_cached("INSERT OR REPLACE INTO released VALUES (?1, ?2)")?;
            insert.execute([act.file, signed(stamp.seq.0)])?;
            Ok(Some(FileId(act.file)))
        }
        _ => Ok(None),
    }
}

/// The content of a version is known now, if it still is the current one.
fn learn(db: &Connection, hashed: &Hashed, replica: i64, root: i64) -> rusqlite::Result<()> {
    let sha256 = hashed.sha256.as_ref().map(|digest| &digest.0[..]);
    if replica != ORIGINALS {
        let mut update = db.prepare_cached(
            "UPDATE copies SET sha256=?4 WHERE replica_id=?1 AND file_id=?2 AND root_id=?3 AND of_seq=?5 AND kind=1",
        )?;
        update.execute(params![replica, hashed.file, root, sha256, signed(hashed.of.0)])?;
        return Ok(());
    }
    let Some((parent, name)) = hashed.path.split() else { return Ok(()) };
    let mut find = db.prepare_cached(
        "SELECT inode FROM files WHERE dir_id=(SELECT dir_id FROM dirs WHERE root_id=?1 AND path=?2) AND name=?3 \
         AND file_id=?4 AND version_seq=?5",
    )?;
    let found = find.query_row(params![root, parent, name, hashed.file, signed(hashed.of.0)], |row| row.get(0));
    let Some(inode): Option<i64> = found.optional()? else { return Ok(()) };
    if let Some(sha256) = sha256 {
        let mut update =
            db.prepare_cached("UPDATE files SET sha256=?1 WHERE inode=?2 AND file_id=?3 AND version_seq=?4")?;
        update.execute(params![sha256, inode, hashed.file, signed(hashed.of.0)])?;
    }
    if let Some(digest) = &hashed.blake3 {
        let mut insert = db.prepare_cached("INSERT OR REPLACE INTO blake3 VALUES (?1, ?2, ?3)")?;
        insert.execute(params![hashed.file, signed(hashed.of.0), &digest.0[..]])?;
    }
    Ok(())
}

fn verified_all(db: &Connection, verified: &Verified, replica: i64, root: i64, stamp: Stamp) -> rusqlite::Result<()> {
    for (file, of) in &verified.files {
        passed(db, (replica, root, *file), signed(of.0), stamp)?;
        prove(db, (replica, root, *file), *of)?;
    }
    Ok(())
}

fn write(db: &Connection, key: Key, path: &[u8], of: i64, stamp: Stamp, verdict: Verdict) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO checks VALUES (?1,?2,?3,?4,?5,?6,?7,?8)")?;
    let (replica, root, file) = key;
    insert.execute(params![replica, root, file, path, of, signed(stamp.seq.0), stamp.at.0, verdict.code()])?;
    Ok(())
}

/// It is what was recorded for this version.
pub(super) fn passed(db: &Connection, key: Key, of: i64, stamp: Stamp) -> rusqlite::Result<()> {
    write(db, key, b"", of, stamp, Verdict::Verified)
}

/// A copy whose content is known was read again.
fn prove(db: &Connection, (replica, root, file): Key, of: Seq) -> rusqlite::Result<()> {
    if replica == ORIGINALS {
        return Ok(());
    }
    let mut update = db.prepare_cached(
        "UPDATE copies SET proof=3 WHERE replica_id=?1 AND file_id=?2 AND root_id=?3 AND of_seq=?4 AND kind=1 \
         AND sha256 IS NOT NULL",
    )?;
    update.execute(params![replica, file, root, signed(of.0)])?;
    Ok(())
}

fn unsound(db: &Connection, act: &Unsound, replica: i64, root: i64, stamp: Stamp) -> rusqlite::Result<()> {
    let verdict = Verdict::of(&act.what);
    let Some((file, of)) = act.version else {
        return write(db, (replica, root, 0), act.path.as_bytes(), 0, stamp, verdict);
    };
    write(db, (replica, root, file), b"", signed(of.0), stamp, verdict)?;
    if replica != ORIGINALS && verdict != Verdict::Unreadable {
        // What is not what was sent proves nothing.
        let mut update = db.prepare_cached(
            "UPDATE copies SET proof=1 WHERE replica_id=?1 AND file_id=?2 AND root_id=?3 AND of_seq=?4 AND kind=1",
        )?;
        update.execute(params![replica, file, root, signed(of.0)])?;
    }
    Ok(())
}

/// A copy got other attributes and no other content: what was checked still holds.
pub(super) fn carry(db: &Connection, (replica, root, file): Key, from: i64, to: i64) -> rusqlite::Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE checks SET of_seq=?5 WHERE replica_id=?1 AND root_id=?2 AND file_id=?3 AND path=x'' AND of_seq=?4",
    )?;
    update.execute(params![replica, root, file, from, to])?;
    Ok(())
}

/// The copies in a range of keys are gone.
pub(super) fn forget(db: &Connection, replica: i64, root: i64, from: &[u8], end: &[u8]) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached(
        "DELETE FROM checks WHERE replica_id=?1 AND root_id=?2 AND file_id IN \
         (SELECT file_id FROM copies WHERE replica_id=?1 AND root_id=?2 AND path>=?3 AND path<?4 AND kind=1)",
    )?;
    delete.execute(params![replica, root, from, end])?;
    Ok(())
}

/// Whether an object was released, and has not come back.
pub(super) fn is_released(db: &Connection, file: i64) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM released WHERE file_id=?1")?.exists([file])
}

/// A released object was seen again.
pub(super) fn came_back(db: &Connection, file: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM released WHERE file_id=?1")?.execute([file])?;
    Ok(())
}

fn read_check(row: &Row<'_>) -> rusqlite::Result<CheckRow> {
    Ok(CheckRow {
        file_id: FileId(row.get(0)?),
        of: Seq(unsigned(row.get(1)?)),
        at: Timestamp(row.get(2)?),
        verdict: Verdict::decode(row.get(3)?),
    })
}

/// Every name that an object has now. The inode that some record told of it leads there.
fn names_of(db: &Connection, file: i64) -> rusqlite::Result<Vec<Named>> {
    let mut inode = db.prepare_cached(
        "SELECT inode FROM (SELECT seq, inode FROM changes WHERE seq=?1 \
         UNION ALL SELECT seq, inode FROM changes WHERE file_id=?1 AND file_id<>seq) \
         WHERE inode IS NOT NULL ORDER BY seq DESC LIMIT 1",
    )?;
    let Some(inode) = inode.query_row([file], |row| row.get::<_, i64>(0)).optional()? else { return Ok(Vec::new()) };
    let mut find = db.prepare_cached(concat!(
        "SELECT r.name, d.path, f.name, ",
        known_columns!(),
        " FROM files f JOIN dirs d ON d.dir_id=f.dir_id JOIN roots r ON r.root_id=d.root_id \
         WHERE f.inode=?1 AND f.file_id=?2 ORDER BY r.name, d.path, f.name"
    ))?;
    let rows = find.query_map(params![inode, file], |row| {
        let dir = RelPath::new(row.get::<_, Vec<u8>>(1)?).unwrap_or_default();
        let name: Vec<u8> = row.get(2)?;
        Ok(Named { root: RootName::new(row.get::<_, String>(0)?), path: dir.join(&name), known: read_known(row, 3)? })
    })?;
    rows.collect()
}

impl View {
    /// Every name that an object has now.
    ///
    /// # Errors
    /// SQLite's, as for every method here.
    pub fn names_of(&self, file: FileId) -> Result<Vec<Named>> {
        self.read(|db| names_of(db, file.0))
    }

    /// The last check of an original, or of a copy.
    ///
    /// # Errors
    /// SQLite's.
    pub fn check(&self, replica: Option<i64>, root: DirId, file: FileId) -> Result<Option<CheckRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT file_id, of_seq, at_ns, verdict FROM checks \
                 WHERE replica_id=?1 AND root_id=?2 AND file_id=?3 AND path=x''",
            )?;
            find.query_row(params![replica.unwrap_or(ORIGINALS), root.0, file.0], read_check).optional()
        })
    }

    /// Some of the checks that were made before a moment, the oldest first, those behind one of them.
    ///
    /// # Errors
    /// SQLite's.
    pub fn checks_before(
        &self,
        replica: Option<i64>,
        root: DirId,
        after: Option<(Timestamp, FileId)>,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<CheckRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT file_id, of_seq, at_ns, verdict FROM checks \
                 WHERE replica_id=?1 AND root_id=?2 AND at_ns<?3 AND file_id<>0 AND (at_ns, file_id) > (?5, ?6) \
                 ORDER BY at_ns, file_id LIMIT ?4",
            )?;
            let limit = signed(limit as u64);
            let (at, file) = after.map_or((i64::MIN, i64::MIN), |(at, file)| (at.0, file.0));
            let key = params![replica.unwrap_or(ORIGINALS), root.0, before.0, limit, at, file];
            let rows = find.query_map(key, read_check)?;
            rows.collect()
        })
    }

    /// Some copies of files that are not proved, the newest first, with the records that told of them last: those before one.
    ///
    /// # Errors
    /// SQLite's.
    pub fn unproved(
        &self,
        replica: i64,
        root: DirId,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<(Seq, CopyRow)>> {
        self.read(|db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT {}, seq FROM copies WHERE replica_id=?1 AND root_id=?2 AND proof<>3 AND kind=1 AND seq<?4 \
                 ORDER BY seq DESC LIMIT ?3",
                copies::COLUMNS
            ))?;
            let before = before.map_or(i64::MAX, |seq| signed(seq.0));
            let rows = find.query_map(params![replica, root.0, signed(limit as u64), before], |row| {
                Ok((Seq(unsigned(row.get(8)?)), copies::read_copy(row)?))
            })?;
            rows.collect()
        })
    }

    /// Whether an original was released: it is not there, and it is not deleted.
    ///
    /// # Errors
    /// SQLite's.
    pub fn is_released(&self, file: FileId) -> Result<bool> {
        self.read(|db| is_released(db, file.0))
    }

    /// How many replicas are proved to hold the current version of an original.
    ///
    /// # Errors
    /// SQLite's.
    pub fn proved_copies(&self, known: &Known) -> Result<u64> {
        self.read(|db| {
            let mut count = db.prepare_cached(
                "SELECT count(*) FROM replicas p WHERE p.url IS NOT NULL AND EXISTS (SELECT 1 FROM copies c \
                 WHERE c.replica_id=p.replica_id AND c.file_id=?1 AND c.proof=3 AND c.of_seq>=?2 AND c.sha256=?3)",
            )?;
            let sha256 = known.sha256.as_ref().map(|digest| &digest[..]);
            count.query_row(params![known.file_id.0, signed(known.version_seq.0), sha256], |row| {
                row.get(0).map(unsigned)
            })
        })
    }

    /// How many files of a root fewer than so many replicas are proved to hold. Reads all of the root's.
    ///
    /// # Errors
    /// SQLite's.
    pub fn under_copied(&self, root: &RootName, copies_min: u64) -> Result<u64> {
        self.read(|db| {
            let mut count = db.prepare_cached(
                "SELECT count(DISTINCT f.file_id) FROM files f JOIN dirs d ON d.dir_id=f.dir_id \
                 WHERE d.root_id=(SELECT root_id FROM roots WHERE name=?1) AND f.kind=1 AND ?2 > \
                 (SELECT count(*) FROM replicas p WHERE p.url IS NOT NULL AND EXISTS (SELECT 1 FROM copies c \
                  WHERE c.replica_id=p.replica_id AND c.file_id=f.file_id AND c.proof=3 AND c.of_seq>=f.version_seq \
                  AND c.sha256=f.sha256))",
            )?;
            count.query_row(params![root.as_str(), signed(copies_min)], |row| row.get(0).map(unsigned))
        })
    }

    /// The BLAKE3 of a version, if it is known.
    ///
    /// # Errors
    /// SQLite's.
    pub fn blake3(&self, file: FileId, of: Seq) -> Result<Option<[u8; 32]>> {
        self.read(|db| {
            let mut find = db.prepare_cached("SELECT hash FROM blake3 WHERE file_id=?1 AND of_seq=?2")?;
            find.query_row(params![file.0, signed(of.0)], |row| row.get(0)).optional()
        })
    }

    /// The SHA-256 that an earlier version of an original had that was of this size and mtime, if some record tells it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn hash_before(&self, file: FileId, size: u64, mtime_ns: i64) -> Result<Option<[u8; 32]>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT act, detail FROM acts WHERE file_id=?1 AND act IN ('hashed', 'copied') ORDER BY seq DESC LIMIT ?2",
            )?;
            let mut rows = find.query(params![file.0, EARLIER_MAX])?;
            while let Some(row) = rows.next()? {
                let told = match acts::body(row.get(0)?, None, None, row.get_ref(1)?.as_str()?) {
                    Some(Body::Hashed(act)) if act.replica.is_none() => Some((act.size, act.mtime_ns, act.sha256)),
                    Some(Body::Copied(act)) => Some((act.size, act.mtime_ns, act.sha256)),
                    _ => None,
                };
                if let Some((was, at, Some(digest))) = told
                    && (was, at) == (size, mtime_ns)
                {
                    return Ok(Some(digest.0));
                }
            }
            Ok(None)
        })
    }

    /// What was found not to be what was recorded, and still is the last that is known of it; by the records that tell of
    /// it, up to a number.
    ///
    /// # Errors
    /// SQLite's.
    pub fn findings(&self, limit: usize) -> Result<Vec<FindingRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT k.file_id, k.of_seq, k.at_ns, k.verdict, k.replica_id, k.root_id, k.path, k.seq, r.name, p.name \
                 FROM checks k JOIN roots r ON r.root_id=k.root_id LEFT JOIN replicas p ON p.replica_id=k.replica_id \
                 WHERE k.verdict<>1 ORDER BY k.seq",
            )?;
            let mut rows = find.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let check = read_check(row)?;
                let (replica, root): (i64, i64) = (row.get(4)?, row.get(5)?);
                let foreign = RelPath::new(row.get::<_, Vec<u8>>(6)?).unwrap_or_default();
                let path = match check.verdict {
                    Verdict::Foreign => is_foreign(db, replica, root, &foreign)?.then_some(foreign),
                    _ => path_now(db, replica, root, &check)?,
                };
                let Some(path) = path else { continue };
                found.push(FindingRow {
                    replica: row.get::<_, Option<String>>(9)?.map(ReplicaName::new),
                    root: RootName::new(row.get::<_, String>(8)?),
                    path,
                    file_id: (check.file_id.0 != 0).then_some(check.file_id),
                    verdict: check.verdict,
                    at: check.at,
                    seq: Seq(unsigned(row.get(7)?)),
                });
                if found.len() >= limit {
                    break;
                }
            }
            Ok(found)
        })
    }
}

/// Whether still nothing is known of what lies there.
fn is_foreign(db: &Connection, replica: i64, root: i64, path: &RelPath) -> rusqlite::Result<bool> {
    if replica != ORIGINALS {
        let mut find =
            db.prepare_cached("SELECT 1 FROM copies WHERE replica_id=?1 AND root_id=?2 AND path IN (?3, ?4)")?;
        let as_dir = [path.as_bytes(), b"/"].concat();
        return Ok(!find.exists(params![replica, root, path.as_bytes(), as_dir])?);
    }
    let Some((parent, name)) = path.split() else { return Ok(false) };
    let mut find = db.prepare_cached(
        "SELECT 1 FROM files WHERE dir_id=(SELECT dir_id FROM dirs WHERE root_id=?1 AND path=?2) AND name=?3",
    )?;
    Ok(!find.exists(params![root, parent, name])?)
}

/// Where the version that was checked is now; `None`: it is not the current one any more.
fn path_now(db: &Connection, replica: i64, root: i64, check: &CheckRow) -> rusqlite::Result<Option<RelPath>> {
    if replica != ORIGINALS {
        let mut find = db.prepare_cached(
            "SELECT path FROM copies WHERE replica_id=?1 AND file_id=?2 AND root_id=?3 AND of_seq=?4 ORDER BY path",
        )?;
        let key = params![replica, check.file_id.0, root, signed(check.of.0)];
        let path: Option<Vec<u8>> = find.query_row(key, |row| row.get(0)).optional()?;
        return Ok(path.and_then(|path| RelPath::new(path).ok()));
    }
    let names = names_of(db, check.file_id.0)?;
    Ok(names.into_iter().find(|name| name.known.version_seq == check.of).map(|name| name.path))
}
