//! The rows of one host in the database, within one transaction: asked, and written in bulk.

use super::copy::Rows;
use super::error::{IndexError, Result};
use super::overlay::{FoundName, Gathered, Source};
use super::row::{Columns, file_columns, get, kind_code, known_columns, put_name, read_known};
use super::session::Session;
use super::text::readable;
use crate::apply::codes::Code as _;
use crate::apply::{Delta, Dir, Known, Place, below, signed};
use crate::model::{FileType, RootName, Seq};

/// From so many new rows on COPY is worth its round trip.
const COPY_MIN: usize = 32;

const FIND: &str =
    concat!("SELECT ", known_columns!(), " FROM files f WHERE f.host_id=$1 AND f.dir_id=$2 AND f.name=$3");
/// For each that is asked for, its key is looked up: OFFSET 0 keeps the planner from reading all that a host has in place of
/// that, which it does while it knows nothing of a young table.
const FIND_ALL: &str = concat!(
    "SELECT f.dir_id, f.name, ",
    known_columns!(),
    " FROM unnest($2::bigint[], $3::bytea[]) AS u(dir_id, name) JOIN LATERAL \
     (SELECT * FROM files WHERE host_id=$1 AND dir_id=u.dir_id AND name=u.name OFFSET 0) AS f ON true"
);
const WITH_INODES: &str = concat!(
    "SELECT f.dir_id, f.name, ",
    known_columns!(),
    " FROM unnest($2::bigint[]) AS u(inode) JOIN LATERAL \
     (SELECT * FROM files WHERE host_id=$1 AND inode=u.inode OFFSET 0) AS f ON true"
);
const DIRS_AT: &str = "SELECT d.root_id, d.path, d.dir_id FROM unnest($2::bigint[], $3::bytea[]) AS u(root_id, path) \
     JOIN LATERAL (SELECT * FROM dirs WHERE host_id=$1 AND root_id=u.root_id AND sha256(path)=sha256(u.path) AND path=u.path \
     OFFSET 0) AS d ON true";
/// Counts no further than to [`HELD_MAX`].
const HELD: &str = "SELECT u.dir_id, (SELECT count(*) FROM (SELECT 1 FROM files f WHERE f.host_id=$1 AND f.dir_id=u.dir_id \
     LIMIT 8193) AS few) FROM unnest($2::bigint[]) AS u(dir_id)";
/// A directory that holds more is asked for again when it ends.
const HELD_MAX: i64 = 8192;

const COPY_FILES: &str = concat!("COPY files (", file_columns!(), ") FROM STDIN BINARY");
/// Upserts go only forward: a row that is further on already stays.
const UPSERT_FILES: &str = concat!(
    "INSERT INTO files (",
    file_columns!(),
    ") SELECT $1, u.* FROM unnest($2::bigint[], $3::bytea[], $4::text[], $5::text[], $6::bigint[], $7::smallint[], \
     $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::integer[], $14::bigint[], $15::bigint[], \
     $16::bigint[], $17::bytea[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[], $23::bigint[], \
     $24::bytea[]) AS u \
     ON CONFLICT (host_id, dir_id, name) DO UPDATE SET name_text=excluded.name_text, ext=excluded.ext, \
     file_id=excluded.file_id, kind=excluded.kind, size=excluded.size, mtime_ns=excluded.mtime_ns, \
     ctime_ns=excluded.ctime_ns, dev=excluded.dev, inode=excluded.inode, mode=excluded.mode, uid=excluded.uid, \
     gid=excluded.gid, nlink=excluded.nlink, target=excluded.target, first_seen_ns=excluded.first_seen_ns, \
     from_seq=excluded.from_seq, version_seq=excluded.version_seq, last_seq=excluded.last_seq, \
     last_change_ns=excluded.last_change_ns, settled_seq=excluded.settled_seq, sha256=excluded.sha256 \
     WHERE files.last_seq <= excluded.last_seq"
);
/// A DELETE has no LATERAL. What holds of every row here makes the planner expect few of them, so that it looks each key up in
/// place of reading all that a host has for each: it did that on young tables, which took minutes.
const DELETE_FILES: &str = "DELETE FROM files f USING unnest($2::bigint[], $3::bytea[]) AS u(dir_id, name) \
     WHERE f.host_id=$1 AND f.dir_id=u.dir_id AND f.name=u.name \
     AND coalesce(u.dir_id, 0)=u.dir_id AND coalesce(u.name, '')=u.name";
const DELETE_DIRS: &str = "DELETE FROM dirs d USING unnest($2::bigint[]) AS u(dir_id) WHERE d.host_id=$1 AND d.dir_id=u.dir_id \
     AND coalesce(u.dir_id, 0)=u.dir_id AND coalesce(u.dir_id, 1)=u.dir_id";
/// Ends the names of directories; written over by key, for the same reason.
const LEAVE_DIR_NAMES: &str = "INSERT INTO dir_names (host_id, dir_id, from_seq, to_seq, parent, name) \
     SELECT $1, n.dir_id, n.from_seq, u.seq, n.parent, n.name FROM unnest($2::bigint[], $3::bigint[]) AS u(dir_id, seq) \
     JOIN LATERAL (SELECT * FROM dir_names WHERE host_id=$1 AND dir_id=u.dir_id ORDER BY from_seq DESC LIMIT 1) AS n \
     ON n.to_seq IS NULL \
     ON CONFLICT (host_id, dir_id, from_seq) DO UPDATE SET to_seq=excluded.to_seq";
const COPY_PAST: &str = "COPY past_names (host_id, dir_id, name, to_seq, file_id, from_seq, kind) FROM STDIN BINARY";
const COPY_DIRS: &str = "COPY dirs (host_id, dir_id, root_id, parent, name, path, path_text) FROM STDIN BINARY";
const COPY_DIR_NAMES: &str = "COPY dir_names (host_id, dir_id, from_seq, to_seq, parent, name) FROM STDIN BINARY";

/// Directories strictly below one: by the beginning of their path, which the index has, then by all of it.
macro_rules! below_dir {
    () => {
        "host_id=$1 AND root_id=$2 AND substr(path,1,512)>=substr($3::bytea,1,512) \
         AND substr(path,1,512)<=substr($4::bytea,1,512) AND path>=$3 AND path<$4"
    };
}
/// The directories strictly below one, and itself.
macro_rules! within_dir {
    () => {
        concat!("(SELECT dir_id FROM dirs WHERE ", below_dir!(), " UNION ALL SELECT $5::bigint)")
    };
}

/// One host's rows.
pub(super) struct Database<'s> {
    pub(super) session: &'s Session,
    pub(super) host: i32,
}

impl Database<'_> {
    /// What stands under many names; those under which nothing does are left out.
    pub(super) fn find_all(&self, places: &[Place]) -> Result<Vec<FoundName>> {
        let dirs: Vec<i64> = places.iter().map(|place| place.dir).collect();
        let names: Vec<&[u8]> = places.iter().map(|place| &place.name[..]).collect();
        Ok(self.session.query(FIND_ALL, &[&self.host, &dirs, &names])?.iter().map(found_name).collect())
    }

    /// Every name whose object has one of these inode numbers.
    pub(super) fn with_inodes(&self, inodes: &[u64]) -> Result<Vec<FoundName>> {
        let inodes: Vec<i64> = inodes.iter().map(|inode| signed(*inode)).collect();
        Ok(self.session.query(WITH_INODES, &[&self.host, &inodes])?.iter().map(found_name).collect())
    }

    /// The directories at many paths; those that there are not are left out.
    pub(super) fn dirs_at(&self, paths: &[(i64, &[u8])]) -> Result<Vec<(i64, Vec<u8>, i64)>> {
        let (roots, paths): (Vec<i64>, Vec<&[u8]>) = paths.iter().copied().unzip();
        let rows = self.session.query(DIRS_AT, &[&self.host, &roots, &paths])?;
        Ok(rows.iter().filter_map(|row| Some((get(row, 0)?, get(row, 1)?, get(row, 2)?))).collect())
    }

    /// How many names directories hold; of those that hold very many, nothing.
    pub(super) fn held(&self, dirs: &[i64]) -> Result<Vec<(i64, i64)>> {
        let rows = self.session.query(HELD, &[&self.host, &dirs])?;
        let counts = rows.iter().filter_map(|row| Some((get(row, 0)?, get(row, 1)?)));
        Ok(counts.filter(|(_, count)| *count <= HELD_MAX).collect())
    }

    fn write_names(&self, gathered: &Gathered) -> Result<()> {
        let mut new = Vec::new();
        let mut changed = Columns::default();
        let (mut gone_dirs, mut gone_names): (Vec<i64>, Vec<&[u8]>) = (Vec::new(), Vec::new());
        let mut dirty: Vec<_> = gathered.names.iter().filter(|(_, entry)| entry.before != entry.now).collect();
        dirty.sort_unstable_by(|(one, _), (other, _)| (one.dir, &one.name).cmp(&(other.dir, &other.name)));
        for (place, entry) in dirty {
            match (&entry.before, &entry.now) {
                (None, Some(known)) => new.push((place, known)),
                (Some(_), Some(known)) => changed.push(place, known),
                (_, None) => {
                    gone_dirs.push(place.dir);
                    gone_names.push(&place.name);
                }
            }
        }
        if !gone_dirs.is_empty() {
            self.session.execute(DELETE_FILES, &[&self.host, &gone_dirs, &gone_names])?;
        }
        if new.len() >= COPY_MIN {
            let mut rows = Rows::default();
            for (place, known) in new {
                put_name(&mut rows, self.host, place, known);
            }
            self.copy(COPY_FILES, &rows)?;
        } else {
            for (place, known) in new {
                changed.push(place, known);
            }
        }
        if changed.name.is_empty() {
            return Ok(());
        }
        let [size, mtime, ctime, dev, inode, uid, gid, nlink] = &changed.facts;
        let [first_seen, from, version, last, last_change, settled] = &changed.seqs;
        let Columns { dir_id, name, name_text, ext, file_id, kind, mode, target, sha256, .. } = &changed;
        self.session.execute(
            UPSERT_FILES,
            &[
                &self.host,
                dir_id,
                name,
                name_text,
                ext,
                file_id,
                kind,
                size,
                mtime,
                ctime,
                dev,
                inode,
                mode,
                uid,
                gid,
                nlink,
                target,
                first_seen,
                from,
                version,
                last,
                last_change,
                settled,
                sha256,
            ],
        )?;
        Ok(())
    }

    fn write_past(&self, gathered: &Gathered) -> Result<()> {
        let mut rows = Rows::default();
        for past in &gathered.past_names {
            rows.begin(7);
            rows.int4(self.host);
            rows.int8(past.place.dir);
            rows.bytes(&past.place.name);
            rows.int8(signed(past.to_seq.0));
            rows.int8(past.file_id.0);
            rows.int8(signed(past.from_seq.0));
            rows.maybe(past.kind, |rows, kind| rows.int2(kind_code(kind)));
            rows.end();
        }
        self.copy(COPY_PAST, &rows)
    }

    fn write_roots(&self, gathered: &Gathered) -> Result<()> {
        for (id, name) in &gathered.roots {
            self.session.execute(
                "INSERT INTO roots (host_id, root_id, name, watched, files, dirs, others, bytes) \
                 VALUES ($1, $2, $3, false, 0, 0, 0, 0)",
                &[&self.host, id, &name.as_str()],
            )?;
            self.session.execute(
                "INSERT INTO dirs (host_id, dir_id, root_id, parent, name, path, path_text) \
                 VALUES ($1, $2, $2, 0, '', '', '')",
                &[&self.host, id],
            )?;
        }
        for config in &gathered.configured {
            self.session.execute(
                "UPDATE roots SET watched=$3::bytea IS NOT NULL, dir=coalesce($3, dir), identity=coalesce($4, identity) \
                 WHERE host_id=$1 AND root_id=$2",
                &[&self.host, &config.root, &config.dir.as_deref(), &config.identity],
            )?;
        }
        for (root, delta) in &gathered.counts {
            self.session.execute(
                "UPDATE roots SET files=files+$3, dirs=dirs+$4, others=others+$5, bytes=bytes+$6 \
                 WHERE host_id=$1 AND root_id=$2",
                &[&self.host, root, &delta.files, &delta.dirs, &delta.others, &delta.bytes],
            )?;
        }
        Ok(())
    }

    fn write_dirs(&self, gathered: &Gathered) -> Result<()> {
        if !gathered.gone_dirs.is_empty() {
            self.session.execute(DELETE_DIRS, &[&self.host, &gathered.gone_dirs])?;
        }
        if !gathered.left_dir_names.is_empty() {
            let (dirs, seqs): (Vec<i64>, Vec<i64>) =
                gathered.left_dir_names.iter().map(|(dir, seq)| (*dir, signed(seq.0))).unzip();
            self.session.execute(LEAVE_DIR_NAMES, &[&self.host, &dirs, &seqs])?;
        }
        let mut rows = Rows::default();
        for (id, dir) in &gathered.new_dirs {
            rows.begin(7);
            rows.int4(self.host);
            rows.int8(*id);
            rows.int8(dir.root);
            rows.int8(dir.parent);
            rows.bytes(&dir.name);
            rows.bytes(&dir.path);
            rows.bytes(readable(&dir.path).0.as_bytes());
            rows.end();
        }
        self.copy(COPY_DIRS, &rows)?;
        let mut rows = Rows::default();
        for name in gathered.dir_names.values() {
            rows.begin(6);
            rows.int4(self.host);
            rows.int8(name.dir);
            rows.int8(signed(name.from_seq.0));
            rows.maybe(name.to_seq, |rows, seq| rows.int8(signed(seq.0)));
            rows.int8(name.place.dir);
            rows.bytes(&name.place.name);
            rows.end();
        }
        self.copy(COPY_DIR_NAMES, &rows)
    }

    fn copy(&self, sql: &'static str, rows: &Rows) -> Result<()> {
        if rows.len() > 0 {
            self.session.copy(sql, rows.part(0..rows.len()))?;
        }
        Ok(())
    }
}

fn found_name(row: &tokio_postgres::Row) -> FoundName {
    let place = Place { dir: get(row, 0).unwrap_or(0), name: get(row, 1).unwrap_or_default() };
    FoundName { place, known: read_known(row, 2) }
}

impl Source for Database<'_> {
    type Error = IndexError;

    fn find(&mut self, dir: i64, name: &[u8]) -> Result<Option<Known>> {
        let rows = self.session.query(FIND, &[&self.host, &dir, &name])?;
        Ok(rows.first().map(|row| read_known(row, 0)))
    }

    fn with_inode(&mut self, inode: u64) -> Result<Vec<FoundName>> {
        self.with_inodes(&[inode])
    }

    fn root(&mut self, name: &RootName) -> Result<Option<i64>> {
        let rows = self
            .session
            .query("SELECT root_id FROM roots WHERE host_id=$1 AND name=$2", &[&self.host, &name.as_str()])?;
        Ok(rows.first().and_then(|row| get(row, 0)))
    }

    fn dir_at(&mut self, root: i64, path: &[u8]) -> Result<Option<i64>> {
        Ok(self.dirs_at(&[(root, path)])?.first().map(|(_, _, dir)| *dir))
    }

    fn dir(&mut self, id: i64) -> Result<Option<Dir>> {
        let rows =
            self.session.query("SELECT root_id, path FROM dirs WHERE host_id=$1 AND dir_id=$2", &[&self.host, &id])?;
        Ok(rows.first().and_then(|row| Some(Dir { id, root: get(row, 0)?, path: get(row, 1)? })))
    }

    fn write(&mut self, gathered: &mut Gathered) -> Result<()> {
        self.write_roots(gathered)?;
        self.write_dirs(gathered)?;
        self.write_names(gathered)?;
        self.write_past(gathered)?;
        let names = std::mem::take(&mut gathered.names);
        *gathered = Gathered { names, ..Gathered::default() };
        Ok(())
    }

    fn move_dir(&mut self, dir: &Dir, root: i64, to: &Place, path: &[u8], seq: Seq) -> Result<()> {
        let (low, high) = below(&dir.path);
        let behind = |length: usize| i32::try_from(length + 1).unwrap_or(i32::MAX);
        let (text, old_text) = (readable(path).0, readable(&dir.path).0);
        self.session.execute(
            concat!(
                "UPDATE dirs SET root_id=$5, path=$6::bytea || substr(path, $7), path_text=$8::text || substr(path_text, $9) \
                 WHERE ",
                below_dir!()
            ),
            &[
                &self.host,
                &dir.root,
                &low,
                &high,
                &root,
                &path,
                &behind(dir.path.len()),
                &text,
                &behind(old_text.chars().count()),
            ],
        )?;
        self.session.execute(
            "UPDATE dirs SET root_id=$3, parent=$4, name=$5, path=$6, path_text=$7 WHERE host_id=$1 AND dir_id=$2",
            &[&self.host, &dir.id, &root, &to.dir, &to.name, &path, &text],
        )?;
        self.session.execute(
            // The place where it stands is its latest: found so, however often it has been renamed.
            "UPDATE dir_names SET to_seq=$3 WHERE host_id=$1 AND dir_id=$2 AND to_seq IS NULL \
             AND from_seq=(SELECT max(from_seq) FROM dir_names WHERE host_id=$1 AND dir_id=$2)",
            &[&self.host, &dir.id, &signed(seq.0)],
        )?;
        self.session.execute(
            "INSERT INTO dir_names (host_id, dir_id, from_seq, parent, name) VALUES ($1, $2, $3, $4, $5)",
            &[&self.host, &dir.id, &signed(seq.0), &to.dir, &to.name],
        )?;
        Ok(())
    }

    fn end_below(&mut self, dir: &Dir, seq: Seq) -> Result<()> {
        let (low, high) = below(&dir.path);
        let seq = signed(seq.0);
        self.session.execute(
            concat!(
                "INSERT INTO past_names (host_id, dir_id, name, to_seq, file_id, from_seq, kind) \
                 SELECT f.host_id, f.dir_id, f.name, $6, f.file_id, f.from_seq, f.kind FROM files f \
                 WHERE f.host_id=$1 AND f.dir_id IN ",
                within_dir!()
            ),
            &[&self.host, &dir.root, &low, &high, &dir.id, &seq],
        )?;
        self.session.execute(
            concat!("DELETE FROM files f WHERE f.host_id=$1 AND f.dir_id IN ", within_dir!()),
            &[&self.host, &dir.root, &low, &high, &dir.id],
        )?;
        self.session.execute(
            concat!(
                "UPDATE dir_names n SET to_seq=$6 WHERE n.host_id=$1 AND n.to_seq IS NULL AND n.dir_id IN ",
                within_dir!()
            ),
            &[&self.host, &dir.root, &low, &high, &dir.id, &seq],
        )?;
        self.session
            .execute(concat!("DELETE FROM dirs WHERE ", below_dir!()), &[&self.host, &dir.root, &low, &high])?;
        if dir.id != dir.root {
            self.session.execute("DELETE FROM dirs WHERE host_id=$1 AND dir_id=$2", &[&self.host, &dir.id])?;
        }
        Ok(())
    }

    fn sum_below(&mut self, dir: &Dir) -> Result<Delta> {
        let (low, high) = below(&dir.path);
        let rows = self.session.query(
            concat!(
                "SELECT f.kind, count(*), coalesce(sum(f.size), 0)::bigint FROM files f \
                 WHERE f.host_id=$1 AND f.dir_id IN ",
                within_dir!(),
                " GROUP BY f.kind"
            ),
            &[&self.host, &dir.root, &low, &high, &dir.id],
        )?;
        let mut delta = Delta::default();
        for row in &rows {
            let kind = get::<i16>(row, 0).and_then(|kind| FileType::decode(i64::from(kind)));
            delta.add(kind, get(row, 1).unwrap_or(0), get(row, 2).unwrap_or(0));
        }
        Ok(delta)
    }
}
