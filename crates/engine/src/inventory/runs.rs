//! Which versions each trigger is done with: the tables `triggers` and `runs`, applied from acts and read back.
//!
//! A run is kept by trigger and file id: so it follows the file through all its names. Of each file only the latest version that a
//! trigger took up is known here; the rest stands in the history.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::Result;
use super::row::{DirId, FileId, Known, known_columns, read_known, signed, unsigned};
use super::view::View;
use crate::apply::Stamp;
use crate::model::{RelPath, RootName, Run, RunProcess, RunStep, Seq, Timestamp, Trigger, TriggerName};

/// A trigger that some record named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerRow {
    /// Its id here.
    pub id: i64,
    /// Its name.
    pub name: TriggerName,
    /// For each root the last record whose version is left alone; `None`: it is no longer configured.
    pub since: Option<BTreeMap<String, u64>>,
    /// Versions that it is done with, in all.
    pub done: u64,
    /// Files whose version it gave up.
    pub dead: u64,
}

/// How far a trigger is with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// A command was started and has not ended, or was cut.
    Started,
    /// It is done.
    Done,
    /// It was given up.
    Dead,
    /// It was given up, and a person asked for it since.
    Resumed,
}

impl RunState {
    fn of(code: i64) -> RunState {
        match code {
            1 => RunState::Started,
            2 => RunState::Done,
            3 => RunState::Dead,
            _ => RunState::Resumed,
        }
    }

    fn code(self) -> i64 {
        match self {
            RunState::Started => 1,
            RunState::Done => 2,
            RunState::Dead => 3,
            RunState::Resumed => 4,
        }
    }
}

/// The latest version of a file that a trigger took up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// The file.
    pub file_id: FileId,
    /// The version.
    pub version: Seq,
    /// The root where it was then.
    pub root: String,
    /// Its path there then.
    pub path: RelPath,
    /// How far it is.
    pub state: RunState,
    /// How often a command was started for this version.
    pub attempts: u32,
    /// As what it runs, or ran when it was cut.
    pub process: Option<RunProcess>,
    /// Of one that was given up why; of one that is done why no command was run.
    pub why: Option<String>,
    /// When that was.
    pub at: Timestamp,
}

/// The trigger's id: the seq of the first record that named it.
fn trigger_id(db: &Connection, name: &TriggerName, stamp: Stamp) -> rusqlite::Result<i64> {
    let mut find = db.prepare_cached("SELECT trigger_id FROM triggers WHERE name=?1")?;
    if let Some(id) = find.query_row([name.as_str()], |row| row.get(0)).optional()? {
        return Ok(id);
    }
    let id = signed(stamp.seq.0);
    db.prepare_cached("INSERT INTO triggers (trigger_id, name) VALUES (?1, ?2)")?
        .execute(params![id, name.as_str()])?;
    Ok(id)
}

/// What `config` says of a trigger.
pub(super) fn configure(db: &Connection, config: &Trigger, stamp: Stamp) -> rusqlite::Result<()> {
    let id = trigger_id(db, &config.trigger, stamp)?;
    let since = config.roots.as_ref().map(|roots| serde_json::to_string(roots).unwrap_or_else(|_| "{}".to_owned()));
    db.prepare_cached("UPDATE triggers SET since=?2 WHERE trigger_id=?1")?.execute(params![id, since])?;
    Ok(())
}

/// What is done stays done, whatever a late record says; a later version begins anew, and an earlier one is past.
const STEP: &str = "INSERT INTO runs (trigger_id, file_id, version_seq, root_id, path, state, attempts, run_group, born, boot, \
    why, at_ns, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
    ON CONFLICT (trigger_id, file_id) DO UPDATE SET version_seq=excluded.version_seq, root_id=excluded.root_id, \
    path=excluded.path, state=excluded.state, attempts=excluded.attempts+iif(version_seq=excluded.version_seq, attempts, 0), \
    run_group=excluded.run_group, born=excluded.born, boot=excluded.boot, why=excluded.why, at_ns=excluded.at_ns, \
    seq=excluded.seq WHERE version_seq<excluded.version_seq OR (version_seq=excluded.version_seq AND state<>2)";

/// What became of a version at a trigger, or of many. Of those but the first no path is kept.
pub(super) fn stepped(db: &Connection, run: &Run, root: i64, stamp: Stamp) -> rusqlite::Result<()> {
    let trigger = trigger_id(db, &run.trigger, stamp)?;
    let state = match run.step {
        RunStep::Started => RunState::Started,
        RunStep::Ran => RunState::Done,
        RunStep::Dead => RunState::Dead,
        RunStep::Resumed => return resumed(db, run, trigger, stamp),
    };
    let process = run.process.as_ref();
    let mut insert = db.prepare_cached(STEP)?;
    let mut past = db.prepare_cached("SELECT 1 FROM runs WHERE trigger_id=?1 AND file_id=?2 AND version_seq>?3")?;
    let mut changed = 0;
    let others = run.more.iter().map(|(file, version)| (*file, *version, &b""[..]));
    for (file, version, path) in std::iter::once((run.file, run.version, run.path.as_bytes())).chain(others) {
        let is_new = insert.execute(params![
            trigger,
            file,
            signed(version.0),
            root,
            path,
            state.code(),
            i64::from(state == RunState::Started),
            process.map(|process| process.group),
            process.map(|process| signed(process.born)),
            process.map(|process| &process.boot),
            run.why,
            stamp.at.0,
            signed(stamp.seq.0)
        ])?;
        // The run of an earlier version may end when a later one is known to be done with, and is a success too.
        changed += match is_new {
            0 if state == RunState::Done => usize::from(past.exists(params![trigger, file, signed(version.0)])?),
            changed => changed,
        };
    }
    if state == RunState::Done {
        db.prepare_cached("UPDATE triggers SET done=done+?2 WHERE trigger_id=?1")?
            .execute(params![trigger, signed(changed as u64)])?;
    }
    Ok(())
}

/// A person's word is about what was given up, and begins anew.
fn resumed(db: &Connection, run: &Run, trigger: i64, stamp: Stamp) -> rusqlite::Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE runs SET state=4, attempts=0, run_group=NULL, born=NULL, boot=NULL, why=?4, at_ns=?5, seq=?6 \
         WHERE trigger_id=?1 AND file_id=?2 AND version_seq=?3 AND state=3",
    )?;
    let (version, seq) = (signed(run.version.0), signed(stamp.seq.0));
    update.execute(params![trigger, run.file, version, run.why, stamp.at.0, seq])?;
    Ok(())
}

const TRIGGER_COLUMNS: &str = "t.trigger_id, t.name, t.since, t.done, \
    (SELECT count(*) FROM runs r WHERE r.trigger_id=t.trigger_id AND r.state=3)";

fn read_trigger(row: &Row<'_>) -> rusqlite::Result<TriggerRow> {
    let since: Option<String> = row.get(2)?;
    Ok(TriggerRow {
        id: row.get(0)?,
        name: TriggerName::new(row.get::<_, String>(1)?),
        since: since.map(|text| serde_json::from_str(&text).unwrap_or_default()),
        done: unsigned(row.get(3)?),
        dead: unsigned(row.get(4)?),
    })
}

const RUN_COLUMNS: &str = "u.file_id, u.version_seq, r.name, u.path, u.state, u.attempts, u.run_group, u.born, u.boot, \
    u.why, u.at_ns FROM runs u JOIN roots r ON r.root_id=u.root_id";

fn read_run(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let process = match (row.get(6)?, row.get::<_, Option<i64>>(7)?, row.get(8)?) {
        // The key follows from trigger and version; nobody looks for it here.
        (Some(group), Some(born), Some(boot)) => {
            Some(RunProcess { key: String::new(), group, born: unsigned(born), boot })
        }
        _ => None,
    };
    Ok(RunRow {
        file_id: FileId(row.get(0)?),
        version: Seq(unsigned(row.get(1)?)),
        root: row.get(2)?,
        path: RelPath::new(row.get::<_, Vec<u8>>(3)?).unwrap_or_default(),
        state: RunState::of(row.get(4)?),
        attempts: row.get(5)?,
        process,
        why: row.get(9)?,
        at: Timestamp(row.get(10)?),
    })
}

impl View {
    /// A trigger.
    ///
    /// # Errors
    /// SQLite's, as for every method here.
    pub fn trigger(&self, name: &TriggerName) -> Result<Option<TriggerRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(&format!("SELECT {TRIGGER_COLUMNS} FROM triggers t WHERE t.name=?1"))?;
            find.query_row([name.as_str()], read_trigger).optional()
        })
    }

    /// Every trigger that some record named, by name.
    ///
    /// # Errors
    /// SQLite's.
    pub fn triggers(&self) -> Result<Vec<TriggerRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(&format!("SELECT {TRIGGER_COLUMNS} FROM triggers t ORDER BY t.name"))?;
            find.query_map([], read_trigger)?.collect()
        })
    }

    /// What a trigger did with a file.
    ///
    /// # Errors
    /// SQLite's.
    pub fn run_of(&self, trigger: i64, file: FileId) -> Result<Option<RunRow>> {
        self.read(|db| {
            let mut find =
                db.prepare_cached(&format!("SELECT {RUN_COLUMNS} WHERE u.trigger_id=?1 AND u.file_id=?2"))?;
            find.query_row(params![trigger, file.0], read_run).optional()
        })
    }

    /// Some runs of a trigger in a state other than done, behind a file id, in the order of those.
    ///
    /// # Errors
    /// SQLite's.
    pub fn runs_after(&self, trigger: i64, state: RunState, after: FileId, limit: usize) -> Result<Vec<RunRow>> {
        self.read(|db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT {RUN_COLUMNS} WHERE u.trigger_id=?1 AND u.state=?2 AND u.state<>2 AND u.file_id>?3 \
                 ORDER BY u.file_id LIMIT ?4"
            ))?;
            let rows = find.query_map(params![trigger, state.code(), after.0, signed(limit as u64)], read_run)?;
            rows.collect()
        })
    }
}

/// A regular file under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The directory that holds the name.
    pub dir: DirId,
    /// The root.
    pub root: RootName,
    /// The path there.
    pub path: RelPath,
    /// What is known of the file.
    pub known: Known,
}

fn read_named(row: &Row<'_>) -> rusqlite::Result<Option<Offered>> {
    let (Ok(dir), name) = (RelPath::new(row.get::<_, Vec<u8>>(1)?), row.get::<_, Vec<u8>>(3)?) else {
        return Ok(None);
    };
    // A name that an exchange has set aside for a moment is none.
    if name.contains(&0) || name.is_empty() {
        return Ok(None);
    }
    Ok(Some(Offered {
        dir: DirId(row.get(2)?),
        root: RootName::new(row.get::<_, String>(0)?),
        path: dir.join(&name),
        known: read_known(row, 4)?,
    }))
}

/// Some names, and the place behind which the next ones are; `None`: there are no more.
pub type OfferedPage = (Vec<Offered>, Option<(DirId, Vec<u8>)>);

impl View {
    /// Some files whose current version is settled, behind a name (at first directory `i64::MIN` and an empty name) in the order of
    /// directories and names, all below `below` of a root or of all roots. The names that were looked at, of which those that an
    /// exchange has set aside are left out, and the place behind which the next ones are; `None`: there are no more.
    ///
    /// # Errors
    /// SQLite's.
    pub fn settled_after(
        &self,
        below: Option<(&RootName, &RelPath)>,
        (dir, name): (DirId, &[u8]),
        limit: usize,
    ) -> Result<OfferedPage> {
        let (root, low, high) = match below {
            Some((root, path)) if path.is_root() => (Some(root.as_str()), Vec::new(), vec![255; 4096]),
            Some((root, path)) => {
                (Some(root.as_str()), path.as_bytes().to_vec(), [path.as_bytes(), &[b'/' + 1]].concat())
            }
            None => (None, Vec::new(), vec![255; 4096]),
        };
        self.read(|db| {
            let mut find = db.prepare_cached(concat!(
                "SELECT r.name, d.path, f.dir_id, f.name, ",
                known_columns!(),
                " FROM files f CROSS JOIN dirs d ON d.dir_id=f.dir_id CROSS JOIN roots r ON r.root_id=d.root_id \
                 WHERE (f.dir_id, f.name)>(?1, ?2) AND f.kind=1 AND f.settled_seq>=f.version_seq \
                 AND (?3 IS NULL OR (r.name=?3 AND d.path>=?4 AND d.path<?5)) ORDER BY f.dir_id, f.name LIMIT ?6"
            ))?;
            let (mut found, mut last, mut seen) = (Vec::new(), None, 0);
            let mut rows = find.query(params![dir.0, name, root, low, high, signed(limit as u64)])?;
            while let Some(row) = rows.next()? {
                seen += 1;
                last = Some((DirId(row.get(2)?), row.get(3)?));
                found.extend(read_named(row)?.filter(|named| {
                    // `a!` sorts before `a/`, and is not below `a`.
                    below.is_none_or(|(_, below)| named.path.is_within(below))
                }));
            }
            Ok((found, last.filter(|_| seen == limit)))
        })
    }

    /// All names in a root of a file with this inode number.
    ///
    /// # Errors
    /// SQLite's.
    pub fn paths_of(&self, root: &RootName, file: FileId, inode: u64) -> Result<Vec<RelPath>> {
        let mut names = Vec::new();
        for (dir, name, known) in self.by_inode(root, inode)? {
            if known.file_id == file
                && !name.contains(&0)
                && let Some((_, dir)) = self.dir_path(dir)?
            {
                names.push(dir.join(&name));
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Whether an earlier version of a file than this one had settled.
    ///
    /// # Errors
    /// SQLite's.
    pub fn had_settled_before(&self, file: FileId, version: Seq) -> Result<bool> {
        self.read(|db| {
            db.prepare_cached("SELECT 1 FROM acts WHERE file_id=?1 AND seq<?2 AND act='settled'")?
                .exists(params![file.0, signed(version.0)])
        })
    }

    /// What stands at a path in a root.
    ///
    /// # Errors
    /// SQLite's.
    pub fn at_path(&self, root: &RootName, path: &RelPath) -> Result<Option<Known>> {
        let Some((above, name)) = path.split() else { return Ok(None) };
        let above = RelPath::new(above).unwrap_or_default();
        match self.dir_by_path(root, &above)? {
            Some(dir) => self.child(dir, name),
            None => Ok(None),
        }
    }
}
