//! Reading the shared index about all hosts: a connection of its own that cannot write, so that no question slows a
//! follower down by more than what it reads.

use std::ops::ControlFlow;

use futures_util::TryStreamExt as _;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::Result;
use super::row::get;
use super::schema;
use super::session::{Access, Session, Stop};
use super::settings::IndexSettings;
use crate::apply::unsigned;
use crate::model::{RootName, Seq, Timestamp};

/// A reader of the shared index.
pub struct IndexView {
    pub(super) session: Session,
}

/// A host.
#[derive(Clone, Debug)]
pub struct IndexHost {
    pub(super) id: i32,
    /// Its name.
    pub name: String,
    /// The last record of its journal that is here.
    pub seq: Seq,
    /// Where its journal ended when that came.
    pub head: Seq,
    /// When that was, by the server's clock.
    pub moved: Timestamp,
    /// Records of which a part was set aside.
    pub problems: u64,
    /// Its roots, by name.
    pub roots: Vec<IndexRoot>,
}

/// A root of a host.
#[derive(Clone, Debug)]
pub struct IndexRoot {
    pub(super) id: i64,
    /// Its name.
    pub name: RootName,
    /// Its absolute path.
    pub dir: Option<Vec<u8>>,
    /// Whether it is watched.
    pub watched: bool,
    /// Files of whatever type but directories.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of the regular files.
    pub bytes: u64,
}

impl IndexView {
    /// Connects for reading only.
    ///
    /// # Errors
    /// [`super::IndexError`], by what can be done about it.
    pub fn open(settings: &IndexSettings, stop: Stop) -> Result<IndexView> {
        let session = Session::open(settings, Access::Read, stop)?;
        schema::check_readable(&session)?;
        Ok(IndexView { session })
    }

    /// All hosts, by name.
    ///
    /// # Errors
    /// The server's.
    pub fn hosts(&self) -> Result<Vec<IndexHost>> {
        let rows = self.session.query(
            "SELECT h.host_id, h.name, c.seq, c.head_seq, (extract(epoch FROM c.moved_at) * 1000000)::bigint, \
             (SELECT count(DISTINCT p.seq) FROM problems p WHERE p.host_id = h.host_id) \
             FROM hosts h JOIN cursors c ON c.host_id = h.host_id WHERE h.is_current ORDER BY h.name",
            &[],
        )?;
        let number = |row: &Row, column: usize| get::<i64>(row, column).unwrap_or(0);
        let mut hosts: Vec<IndexHost> = rows
            .iter()
            .map(|row| IndexHost {
                id: get(row, 0).unwrap_or(0),
                name: get(row, 1).unwrap_or_default(),
                seq: Seq(unsigned(number(row, 2))),
                head: Seq(unsigned(number(row, 3))),
                moved: Timestamp(number(row, 4).saturating_mul(1000)),
                problems: unsigned(number(row, 5)),
                roots: Vec::new(),
            })
            .collect();
        for host in &mut hosts {
            let rows = self.session.query(
                "SELECT root_id, name, dir, watched, files + others, dirs, bytes FROM roots WHERE host_id=$1 ORDER BY name",
                &[&host.id],
            )?;
            let count = |row: &Row, column: usize| u64::try_from(number(row, column)).unwrap_or(0);
            host.roots.extend(rows.iter().map(|row| IndexRoot {
                id: number(row, 0),
                name: RootName::new(get::<&str>(row, 1).unwrap_or_default()),
                dir: get(row, 2),
                watched: get(row, 3).unwrap_or(false),
                files: count(row, 4),
                dirs: count(row, 5),
                bytes: count(row, 6),
            }));
        }
        Ok(hosts)
    }

    /// The rows of a query that may give many, one by one.
    pub(super) fn stream(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        mut each: impl FnMut(&Row) -> ControlFlow<()>,
    ) -> Result<()> {
        let client = self.session.client();
        let statement = self.session.wait("read", client.prepare(sql))?;
        let rows = self.session.wait("read", client.query_raw(&statement, params.iter().copied()))?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = self.session.wait("read", rows.try_next())? {
            if each(&row).is_break() {
                break;
            }
        }
        Ok(())
    }
}
