//! Which replica holds what, of all hosts: the tables `replicas`, `copies` and `failures`, applied from acts and read back.
//!
//! What a batch says of single files is gathered and written together; a directory that is renamed or given up is a range of
//! keys, and a statement of its own.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

use super::error::Result;
use super::row::get;
use super::session::Session;
use super::text::readable;
use super::view::IndexView;
use crate::apply::codes::Code;
use crate::apply::{copy_key, range_end, signed};
use crate::model::{
    Body, Copied, FileType, Hashed, Proof, Record, Replica, ReplicaName, RootName, Seq, Unsoundness, Withdrawn,
};

/// The keys of one replica's copies in one root, in a batch.
const KEYS: &str = "SELECT count(*), coalesce(sum(c.size), 0)::bigint \
     FROM unnest($2::bigint[], $3::bigint[], $4::bytea[]) AS u(replica_id, root_id, path_hash) JOIN LATERAL \
     (SELECT size FROM copies WHERE host_id=$1 AND replica_id=u.replica_id AND root_id=u.root_id AND path_hash=u.path_hash \
      AND kind=1 OFFSET 0) AS c ON true";
const UPSERT: &str = "INSERT INTO copies (host_id, replica_id, root_id, path_hash, path, file_id, of_seq, kind, size, mtime_ns, \
     sha256, proof, seq) SELECT $1, u.* FROM unnest($2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[], \
     $7::bigint[], $8::smallint[], $9::bigint[], $10::bigint[], $11::bytea[], $12::smallint[], $13::bigint[]) AS u \
     ON CONFLICT (host_id, replica_id, root_id, path_hash) DO UPDATE SET file_id=excluded.file_id, of_seq=excluded.of_seq, \
     kind=excluded.kind, size=excluded.size, mtime_ns=excluded.mtime_ns, sha256=excluded.sha256, proof=excluded.proof, \
     seq=excluded.seq WHERE copies.seq <= excluded.seq";
const PROVE: &str = "UPDATE copies c SET proof=$6 FROM unnest($4::bigint[], $5::bigint[]) AS u(file_id, of_seq) \
     WHERE c.host_id=$1 AND c.file_id=u.file_id AND c.replica_id=$2 AND c.root_id=$3 AND c.of_seq=u.of_seq AND c.kind=1 \
     AND (c.sha256 IS NOT NULL OR $6=1)";
/// What always holds of its keys makes the planner look each up (see `DELETE_FILES`).
const DELETE: &str = "DELETE FROM copies c USING unnest($2::bigint[], $3::bigint[], $4::bytea[]) \
     AS u(replica_id, root_id, path_hash) WHERE c.host_id=$1 AND c.replica_id=u.replica_id AND c.root_id=u.root_id \
     AND c.path_hash=u.path_hash AND coalesce(u.root_id, 0)=u.root_id AND coalesce(u.path_hash, '')=u.path_hash";
const DELETE_FAILURES: &str = "DELETE FROM failures c USING unnest($2::bigint[], $3::bigint[], $4::bytea[]) \
     AS u(replica_id, root_id, path_hash) WHERE c.host_id=$1 AND c.replica_id=u.replica_id AND c.root_id=u.root_id \
     AND c.path_hash=u.path_hash AND coalesce(u.root_id, 0)=u.root_id AND coalesce(u.path_hash, '')=u.path_hash";
const UPSERT_FAILURES: &str = "INSERT INTO failures (host_id, replica_id, root_id, path_hash, path, seq, at_ns, why) \
     SELECT $1, u.* FROM unnest($2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bigint[], $8::text[]) \
     AS u ON CONFLICT (host_id, replica_id, root_id, path_hash) DO UPDATE SET seq=excluded.seq, at_ns=excluded.at_ns, \
     why=excluded.why";
/// What was copied tells an original's hash, if the version still is the present one.
const LEARN: &str = "UPDATE files f SET sha256=x.sha256 FROM (SELECT d.dir_id, u.* \
     FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bytea[]) \
     AS u(root_id, dir, name, file_id, of_seq, size, mtime_ns, sha256) JOIN LATERAL (SELECT dir_id FROM dirs WHERE host_id=$1 \
     AND root_id=u.root_id AND sha256(path)=sha256(u.dir) AND path=u.dir OFFSET 0) AS d ON true) AS x \
     WHERE f.host_id=$1 AND f.dir_id=x.dir_id AND f.name=x.name AND coalesce(x.dir_id, 0)=x.dir_id AND coalesce(x.name, '')=x.name \
     AND f.file_id=x.file_id AND f.version_seq<=x.of_seq AND f.size=x.size AND f.mtime_ns=x.mtime_ns \
     AND f.sha256 IS DISTINCT FROM x.sha256";

/// A range of keys of one replica in one root.
macro_rules! within {
    () => {
        "host_id=$1 AND replica_id=$2 AND root_id=$3 AND substr(path,1,512)>=substr($4::bytea,1,512) \
         AND substr(path,1,512)<=substr($5::bytea,1,512) AND path>=$4 AND path<$5"
    };
}
const DELETE_WITHIN: &str = concat!(
    "WITH gone AS (DELETE FROM copies WHERE ",
    within!(),
    " RETURNING kind, size) SELECT count(*), coalesce(sum(size), 0)::bigint FROM gone WHERE kind=1"
);
const DELETE_FAILURES_WITHIN: &str = concat!("DELETE FROM failures WHERE ", within!());
const RENAME_WITHIN: &str = concat!(
    "UPDATE copies SET path=$6::bytea || substr(path, $7::integer), path_hash=sha256($6::bytea || substr(path, $7::integer)) WHERE ",
    within!()
);

/// A replica that a host keeps, or kept and has not forgotten.
#[derive(Clone, Debug)]
pub struct IndexReplica {
    /// Whose.
    pub host: String,
    /// Its name there.
    pub name: String,
    /// Its URL, while it is kept.
    pub url: Option<String>,
    /// Regular files that it holds.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Originals that could not be copied.
    pub failed: u64,
}

impl IndexView {
    /// All replicas of all hosts, by host and name.
    ///
    /// # Errors
    /// The server's.
    pub fn replicas(&self) -> Result<Vec<IndexReplica>> {
        let rows = self.session.query(
            "SELECT h.name, p.name, p.url, p.files, p.bytes, (SELECT count(*) FROM failures f WHERE f.host_id=p.host_id \
             AND f.replica_id=p.replica_id) FROM hosts h JOIN replicas p ON p.host_id=h.host_id WHERE h.is_current \
             ORDER BY h.name, p.name",
            &[],
        )?;
        let count =
            |row: &tokio_postgres::Row, column| u64::try_from(get::<i64>(row, column).unwrap_or(0)).unwrap_or(0);
        let read = |row: &tokio_postgres::Row| IndexReplica {
            host: get(row, 0).unwrap_or_default(),
            name: get(row, 1).unwrap_or_default(),
            url: get(row, 2),
            files: count(row, 3),
            bytes: count(row, 4),
            failed: count(row, 5),
        };
        Ok(rows.iter().map(read).collect())
    }
}

/// Whether a record says something of a replica.
pub(super) fn tells_of_replicas(record: &Record) -> bool {
    let told = matches!(record.body, Body::Copied(_) | Body::Withdrawn(_) | Body::Failed(_) | Body::Replica(_));
    told || matches!(record.body, Body::Hashed(_) | Body::Verified(_) | Body::Unsound(_) | Body::Repaired(_))
}

/// Applies what records say of replicas. The tables of names are up to date with them.
pub(super) fn apply(session: &Session, host: i32, records: &[Record]) -> Result<()> {
    let mut batch = Batch::begin(session, host)?;
    for record in records.iter().filter(|record| tells_of_replicas(record)) {
        batch.take(record)?;
    }
    batch.write()
}

/// Replica, root and key.
type Key = (i64, i64, Vec<u8>);

/// What single files came to.
struct Batch<'s, 'r> {
    session: &'s Session,
    host: i32,
    roots: HashMap<RootName, i64>,
    replicas: HashMap<ReplicaName, i64>,
    /// `None`: it is held no more.
    copies: BTreeMap<Key, Option<(&'r Copied, Seq)>>,
    /// `None`: it failed no more.
    failures: BTreeMap<Key, Option<Failure<'r>>>,
    /// What the content of originals is.
    learnt: Vec<Learnt<'r>>,
}

struct Failure<'r> {
    seq: Seq,
    at_ns: i64,
    why: &'r str,
}

impl<'s, 'r> Batch<'s, 'r> {
    fn begin(session: &'s Session, host: i32) -> Result<Self> {
        let roots = session.query("SELECT name, root_id FROM roots WHERE host_id=$1", &[&host])?;
        let replicas = session.query("SELECT name, replica_id FROM replicas WHERE host_id=$1", &[&host])?;
        let id = |row| get(row, 1).unwrap_or(0);
        Ok(Batch {
            session,
            host,
            roots: roots.iter().filter_map(|row| Some((RootName::new(get::<&str>(row, 0)?), id(row)))).collect(),
            replicas: replicas
                .iter()
                .filter_map(|row| Some((ReplicaName::new(get::<&str>(row, 0)?), id(row))))
                .collect(),
            copies: BTreeMap::new(),
            failures: BTreeMap::new(),
            learnt: Vec::new(),
        })
    }

    fn take(&mut self, record: &'r Record) -> Result<()> {
        match &record.body {
            Body::Replica(config) => self.configure(config, record.seq),
            Body::Copied(copied) => self.copied(copied, record.seq),
            Body::Withdrawn(gone) => self.withdrawn(gone, record.seq),
            Body::Failed(failed) => {
                let (replica, Some(root)) = (self.replica(&failed.replica, record.seq)?, self.root(&failed.root))
                else {
                    return Ok(());
                };
                let failure = Failure { seq: record.seq, at_ns: record.at.0, why: &failed.why };
                self.failures.insert((replica, root, failed.path.as_bytes().to_vec()), Some(failure));
                Ok(())
            }
            Body::Hashed(hashed) => self.hashed(hashed),
            Body::Verified(verified) => match &verified.replica {
                Some(replica) => self.prove((replica, &verified.root), &verified.files, Proof::Proved),
                None => Ok(()),
            },
            Body::Repaired(mended) => match &mended.replica {
                Some(replica) => self.prove((replica, &mended.root), &[(mended.file, mended.of)], Proof::Proved),
                None => Ok(()),
            },
            // What is not what was sent proves nothing; what could not be read says nothing.
            Body::Unsound(act) if !matches!(act.what, Unsoundness::Unreadable { .. }) => {
                match (&act.replica, act.version) {
                    (Some(replica), Some(version)) => self.prove((replica, &act.root), &[version], Proof::Presumed),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// What the content of a version is: of an original, or of a copy of which that was not known.
    fn hashed(&mut self, hashed: &'r Hashed) -> Result<()> {
        let (Some(root), Some(sha256)) = (self.root(&hashed.root), &hashed.sha256) else { return Ok(()) };
        let Some(name) = &hashed.replica else {
            if let Some((dir, name)) = hashed.path.split() {
                let (file, of, size, mtime_ns) = (hashed.file, hashed.of, hashed.size, hashed.mtime_ns);
                self.learnt.push(Learnt { root, dir, name, file, of, size, mtime_ns, sha256: &sha256.0[..] });
            }
            return Ok(());
        };
        self.write()?;
        let Some(replica) = self.replicas.get(name) else { return Ok(()) };
        self.session.execute(
            "UPDATE copies SET sha256=$6 WHERE host_id=$1 AND file_id=$4 AND replica_id=$2 AND root_id=$3 AND of_seq=$5 AND kind=1",
            &[&self.host, replica, &root, &hashed.file, &signed(hashed.of.0), &&sha256.0[..]],
        )?;
        Ok(())
    }

    /// Copies of these versions are proved so far, if their content is known.
    fn prove(&mut self, (replica, root): (&ReplicaName, &RootName), files: &[(i64, Seq)], proof: Proof) -> Result<()> {
        self.write()?;
        let (Some(replica), Some(root)) = (self.replicas.get(replica), self.root(root)) else { return Ok(()) };
        let (ids, of): (Vec<i64>, Vec<i64>) = files.iter().map(|(file, of)| (*file, signed(of.0))).unzip();
        self.session.execute(PROVE, &[&self.host, replica, &root, &ids, &of, &code(proof)])?;
        Ok(())
    }

    fn root(&self, name: &RootName) -> Option<i64> {
        self.roots.get(name).copied()
    }

    /// The replica's id: the seq of the first record that named it.
    fn replica(&mut self, name: &ReplicaName, seq: Seq) -> Result<i64> {
        if let Some(id) = self.replicas.get(name) {
            return Ok(*id);
        }
        let id = signed(seq.0);
        self.session.execute(
            "INSERT INTO replicas (host_id, replica_id, name, roots, files, bytes) VALUES ($1, $2, $3, '{}', 0, 0)",
            &[&self.host, &id, &name.as_str()],
        )?;
        self.replicas.insert(name.clone(), id);
        Ok(id)
    }

    /// What `config` says of a replica. One with another identity is another place: nothing is known of it.
    fn configure(&mut self, config: &Replica, seq: Seq) -> Result<()> {
        self.write()?;
        let (session, host, id) = (self.session, self.host, self.replica(&config.replica, seq)?);
        let is_forgotten = config.url.is_none() && config.identity.is_none();
        let before =
            session.query("SELECT identity FROM replicas WHERE host_id=$1 AND replica_id=$2", &[&host, &id])?;
        let before: Option<String> = before.first().and_then(|row| get(row, 0));
        if is_forgotten || (before.is_some() && config.identity.is_some() && before != config.identity) {
            session.execute("DELETE FROM copies WHERE host_id=$1 AND replica_id=$2", &[&host, &id])?;
            session.execute("DELETE FROM failures WHERE host_id=$1 AND replica_id=$2", &[&host, &id])?;
            session
                .execute("UPDATE replicas SET files=0, bytes=0 WHERE host_id=$1 AND replica_id=$2", &[&host, &id])?;
        }
        if is_forgotten {
            self.replicas.remove(&config.replica);
            session.execute("DELETE FROM replicas WHERE host_id=$1 AND replica_id=$2", &[&host, &id])?;
            return Ok(());
        }
        let roots = serde_json::to_string(&config.roots).unwrap_or_else(|_| "{}".to_owned());
        session.execute(
            "UPDATE replicas SET url=$3, identity=coalesce($4, identity), roots=$5 WHERE host_id=$1 AND replica_id=$2",
            &[&host, &id, &config.url, &config.identity, &roots],
        )?;
        Ok(())
    }

    fn copied(&mut self, copied: &'r Copied, seq: Seq) -> Result<()> {
        let (replica, Some(root)) = (self.replica(&copied.replica, seq)?, self.root(&copied.root)) else {
            return Ok(());
        };
        let key = copy_key(&copied.path, copied.kind);
        if let Some(old_path) = &copied.old_path {
            let old_key = copy_key(old_path, copied.kind);
            if copied.kind == FileType::Dir {
                self.write()?;
                self.withdraw_within(replica, root, &key, &range_end(&key))?;
                let (end, behind) = (range_end(&old_key), i32::try_from(old_key.len() + 1).unwrap_or(i32::MAX));
                self.session.execute(RENAME_WITHIN, &[&self.host, &replica, &root, &old_key, &end, &key, &behind])?;
            } else {
                self.copies.insert((replica, root, old_key), None);
            }
        }
        self.copies.insert((replica, root, key), Some((copied, seq)));
        self.failures.insert((replica, root, copied.path.as_bytes().to_vec()), None);
        Ok(())
    }

    /// A replica holds something no more, of a directory with all below it.
    fn withdrawn(&mut self, gone: &Withdrawn, seq: Seq) -> Result<()> {
        let (replica, Some(root)) = (self.replica(&gone.replica, seq)?, self.root(&gone.root)) else { return Ok(()) };
        let key = copy_key(&gone.path, gone.kind);
        if gone.kind != FileType::Dir {
            self.copies.insert((replica, root, key.clone()), None);
            self.failures.insert((replica, root, key), None);
            return Ok(());
        }
        self.write()?;
        // A root's own key is a bare slash; all in it goes.
        match gone.path.is_root() {
            true => self.withdraw_within(replica, root, b"", &[255; 4096]),
            false => self.withdraw_within(replica, root, &key, &range_end(&key)),
        }
    }

    fn withdraw_within(&mut self, replica: i64, root: i64, from: &[u8], end: &[u8]) -> Result<()> {
        let gone = self.session.query(DELETE_WITHIN, &[&self.host, &replica, &root, &from, &end])?;
        let (files, bytes) = gone.first().map_or((0, 0), |row| (get(row, 0).unwrap_or(0), get(row, 1).unwrap_or(0)));
        self.count(replica, -files, -bytes)?;
        self.session.execute(DELETE_FAILURES_WITHIN, &[&self.host, &replica, &root, &from, &end])?;
        Ok(())
    }

    fn count(&self, replica: i64, files: i64, bytes: i64) -> Result<()> {
        if (files, bytes) == (0, 0) {
            return Ok(());
        }
        self.session.execute(
            "UPDATE replicas SET files=files+$3, bytes=bytes+$4 WHERE host_id=$1 AND replica_id=$2",
            &[&self.host, &replica, &files, &bytes],
        )?;
        Ok(())
    }

    /// Writes what was gathered.
    fn write(&mut self) -> Result<()> {
        let copies = std::mem::take(&mut self.copies);
        let of: Vec<i64> = {
            let mut of: Vec<i64> = copies.keys().map(|(replica, ..)| *replica).collect();
            of.dedup();
            of
        };
        for replica in of {
            let from = (replica, i64::MIN, Vec::new());
            let (gone, held): (Vec<_>, Vec<_>) =
                copies.range(from..).take_while(|(key, _)| key.0 == replica).partition(|(_, copy)| copy.is_none());
            self.write_replica(replica, &gone, &held)?;
        }
        let learnt = std::mem::take(&mut self.learnt);
        self.learn(&learnt)?;
        self.write_failures()
    }

    fn write_replica(&self, replica: i64, gone: &[Entry<'_, 'r>], held: &[Entry<'_, 'r>]) -> Result<()> {
        let (session, host) = (self.session, self.host);
        let all = Keys::of(gone.iter().chain(held).map(|(key, _)| *key));
        let before = session.query(KEYS, &[&host, &all.replicas, &all.roots, &all.hashes])?;
        let (mut files, mut bytes) =
            before.first().map_or((0, 0), |row| (-get::<i64>(row, 0).unwrap_or(0), -get::<i64>(row, 1).unwrap_or(0)));
        if !gone.is_empty() {
            let keys = Keys::of(gone.iter().map(|(key, _)| *key));
            session.execute(DELETE, &[&host, &keys.replicas, &keys.roots, &keys.hashes])?;
        }
        if !held.is_empty() {
            let keys = Keys::of(held.iter().map(|(key, _)| *key));
            let rows: Vec<(&'r Copied, Seq)> = held.iter().filter_map(|(_, copy)| **copy).collect();
            let column = |of: fn(&Copied) -> i64| rows.iter().map(|(copy, _)| of(copy)).collect::<Vec<i64>>();
            let small = |of: fn(&Copied) -> i64| {
                rows.iter().map(|(copy, _)| i16::try_from(of(copy)).unwrap_or(0)).collect::<Vec<i16>>()
            };
            let digests: Vec<Option<&[u8]>> =
                rows.iter().map(|(copy, _)| copy.sha256.as_ref().map(|digest| &digest.0[..])).collect();
            let seqs: Vec<i64> = rows.iter().map(|(_, seq)| signed(seq.0)).collect();
            session.execute(
                UPSERT,
                &[
                    &host,
                    &keys.replicas,
                    &keys.roots,
                    &keys.hashes,
                    &keys.paths,
                    &column(|copy| copy.file),
                    &column(|copy| signed(copy.of.0)),
                    &small(|copy| copy.kind.code()),
                    &column(|copy| signed(copy.size)),
                    &column(|copy| copy.mtime_ns),
                    &digests,
                    &small(|copy| copy.proof.code()),
                    &seqs,
                ],
            )?;
            let kept = rows.iter().filter(|(copy, _)| copy.kind == FileType::File);
            for (copy, _) in kept {
                (files, bytes) = (files + 1, bytes + signed(copy.size));
            }
            self.learn(&Learnt::of_copies(&keys, &rows))?;
        }
        self.count(replica, files, bytes)
    }

    /// The content of originals is known now.
    fn learn(&self, told: &[Learnt<'r>]) -> Result<()> {
        if told.is_empty() {
            return Ok(());
        }
        let column = |of: fn(&Learnt<'r>) -> i64| told.iter().map(of).collect::<Vec<i64>>();
        let bytes = |of: fn(&Learnt<'r>) -> &'r [u8]| told.iter().map(of).collect::<Vec<&[u8]>>();
        self.session.execute(
            LEARN,
            &[
                &self.host,
                &column(|one| one.root),
                &bytes(|one| one.dir),
                &bytes(|one| one.name),
                &column(|one| one.file),
                &column(|one| signed(one.of.0)),
                &column(|one| signed(one.size)),
                &column(|one| one.mtime_ns),
                &bytes(|one| one.sha256),
            ],
        )?;
        Ok(())
    }

    fn write_failures(&mut self) -> Result<()> {
        let failures = std::mem::take(&mut self.failures);
        let (mended, failed): (Vec<_>, Vec<_>) = failures.iter().partition(|(_, failure)| failure.is_none());
        if !mended.is_empty() {
            let keys = Keys::of(mended.iter().map(|(key, _)| *key));
            self.session.execute(DELETE_FAILURES, &[&self.host, &keys.replicas, &keys.roots, &keys.hashes])?;
        }
        if !failed.is_empty() {
            let keys = Keys::of(failed.iter().map(|(key, _)| *key));
            let rows: Vec<&Failure<'_>> = failed.iter().filter_map(|(_, failure)| failure.as_ref()).collect();
            let whys: Vec<String> = rows.iter().map(|row| readable(row.why.as_bytes()).0.into_owned()).collect();
            self.session.execute(
                UPSERT_FAILURES,
                &[
                    &self.host,
                    &keys.replicas,
                    &keys.roots,
                    &keys.hashes,
                    &keys.paths,
                    &rows.iter().map(|row| signed(row.seq.0)).collect::<Vec<i64>>(),
                    &rows.iter().map(|row| row.at_ns).collect::<Vec<i64>>(),
                    &whys,
                ],
            )?;
        }
        Ok(())
    }
}

/// What the content of a version of an original is.
struct Learnt<'r> {
    root: i64,
    dir: &'r [u8],
    name: &'r [u8],
    file: i64,
    of: Seq,
    size: u64,
    mtime_ns: i64,
    sha256: &'r [u8],
}

impl<'r> Learnt<'r> {
    /// What copies tell of their originals.
    fn of_copies(keys: &Keys<'_>, rows: &[(&'r Copied, Seq)]) -> Vec<Self> {
        let told = keys.roots.iter().zip(rows).filter_map(|(root, (copy, _))| {
            let (dir, name) = copy.path.split()?;
            let (file, of, size, mtime_ns) = (copy.file, copy.of, copy.size, copy.mtime_ns);
            Some(Learnt { root: *root, dir, name, file, of, size, mtime_ns, sha256: &copy.sha256.as_ref()?.0[..] })
        });
        told.collect()
    }
}

/// A proof as its column holds it.
fn code(proof: Proof) -> i16 {
    i16::try_from(proof.code()).unwrap_or(0)
}

type Entry<'k, 'r> = (&'k Key, &'k Option<(&'r Copied, Seq)>);

/// Keys as columns.
struct Keys<'k> {
    replicas: Vec<i64>,
    roots: Vec<i64>,
    hashes: Vec<Vec<u8>>,
    paths: Vec<&'k [u8]>,
}

impl<'k> Keys<'k> {
    fn of(keys: impl Iterator<Item = &'k Key>) -> Self {
        let mut columns = Keys { replicas: Vec::new(), roots: Vec::new(), hashes: Vec::new(), paths: Vec::new() };
        for (replica, root, path) in keys {
            columns.replicas.push(*replica);
            columns.roots.push(*root);
            columns.hashes.push(Sha256::digest(path).to_vec());
            columns.paths.push(path);
        }
        columns
    }
}
