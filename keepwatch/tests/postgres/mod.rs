//! A real PostgreSQL for the tests: its own cluster in a temporary directory, run as a user without rights, reached by a
//! socket of its own.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{self, Keepwatch, Row, differences, is_change, walk};

/// A cluster, ended and removed with this.
pub struct Postgres {
    dir: tempfile::TempDir,
    bin: PathBuf,
    /// Settings that every start is given.
    settings: Vec<String>,
    port: u16,
}

/// The user that the server runs as when the tests run as root, which it refuses: `nobody`.
const NOBODY: u32 = 65_534;

impl Postgres {
    /// Starts a cluster; `None`, said loudly, where PostgreSQL is not installed.
    pub fn start(test: &str) -> Option<Self> {
        Self::start_in(test, Path::new("/tmp"))
    }

    /// The same in a directory below this one.
    pub fn start_in(test: &str, place: &Path) -> Option<Self> {
        let Some(bin) = find_programs() else {
            support::skipped(test, "PostgreSQL is not installed");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("kwpg").tempdir_in(place).unwrap();
        if support::is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let settings =
            ["listen_addresses=", "fsync=off", "shared_buffers=32MB", "max_connections=40", "log_checkpoints=off"];
        let postgres = Postgres { dir, bin, settings: settings.map(str::to_owned).to_vec(), port: 5432 };
        let data = postgres.data();
        let args = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"];
        let output = postgres.program("initdb").args(args).arg(&data).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        postgres.resume();
        Some(postgres)
    }

    /// The directory of its data.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The directory that holds its socket.
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The socket itself.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join(format!(".s.PGSQL.{}", self.port))
    }

    /// Adds a setting for the next start.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Another port for the next start.
    pub fn set_port(&mut self, port: u16) {
        self.port = port;
    }

    /// Puts a file that only the server may read beside its data.
    pub fn install(&self, from: &Path, name: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let to = self.data().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        if support::is_root() {
            chown(&to, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// Starts it, and waits until it answers.
    pub fn resume(&self) {
        let mut options = format!("-k '{}' -p {}", self.socket_dir().display(), self.port);
        for setting in &self.settings {
            options.push_str(&format!(" -c {setting}"));
        }
        let mut start = self.program("pg_ctl");
        start.args(["start", "-w", "-t", "100", "-s", "-D"]).arg(self.data()).arg("-l").arg(self.log_path());
        let status = start.arg("-o").arg(options).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "the server does not start:\n{}", self.log_text());
    }

    /// Starts it again if it has ended itself.
    pub fn revive(&self) {
        let asked = || self.program("pg_ctl").args(["status", "-s", "-D"]).arg(self.data()).output().unwrap();
        let answers = || {
            let psql = self.psql("postgres", "SELECT 1");
            psql.status.success()
        };
        support::wait_for("the server answers", || {
            if !asked().status.success() {
                let _ = fs::remove_file(self.data().join("postmaster.pid"));
                self.resume();
            }
            answers()
        });
    }

    /// Stops it: `smart`, `fast` or `immediate`.
    pub fn stop(&self, mode: &str) {
        let mut stop = self.program("pg_ctl");
        let output = stop.args(["stop", "-w", "-s", "-m", mode, "-D"]).arg(self.data()).output().unwrap();
        assert!(output.status.success(), "pg_ctl stop: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The address of a database by its socket.
    pub fn url(&self, user: &str, database: &str) -> String {
        let dir = self.socket_dir().to_str().unwrap().replace('/', "%2F");
        format!("postgres://{user}@{dir}/{database}")
    }

    /// `[postgres]` for the database that hosts share.
    pub fn section(&self) -> String {
        format!("[postgres]\nurl = \"{}\"\ntimeout = \"20s\"\n", self.url("postgres", "postgres"))
    }

    /// Runs statements as the superuser; what they print, fields between tabs.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    /// The same in another database.
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
    }

    /// Runs statements that may fail.
    pub fn psql(&self, database: &str, sql: &str) -> std::process::Output {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-F",
            "\t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
            "-h",
        ]);
        psql.arg(self.socket_dir())
            .arg("-p")
            .arg(self.port.to_string())
            .arg("-c")
            .arg(sql)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The one number that a query gives.
    pub fn number(&self, sql: &str) -> u64 {
        self.sql(sql).parse().unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// What the server logged.
    pub fn log_text(&self) -> String {
        fs::read(self.log_path()).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = if support::is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(self.bin.join(name));
            command
        } else {
            Command::new(self.bin.join(name))
        };
        command.current_dir(self.dir.path()).env("LC_ALL", "C.UTF-8");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.log_text();
            let lines: Vec<&str> = text.lines().rev().take(40).collect();
            eprintln!("the server's log, last lines first:\n{}", lines.join("\n"));
        }
        let _ = self.program("pg_ctl").args(["stop", "-w", "-s", "-m", "immediate", "-D"]).arg(self.data()).output();
    }
}

/// The newest server's programs, which no distribution has on the path.
fn find_programs() -> Option<PathBuf> {
    let mut dirs: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin")).collect();
    dirs.retain(|dir| dir.join("initdb").exists() && dir.join("psql").exists());
    dirs.sort();
    dirs.pop()
}

/// How far the index is behind the journal; `None` if the service does not say.
pub fn lag(keepwatch: &Keepwatch) -> Option<u64> {
    let status = keepwatch.status()?;
    let index = status["followers"].as_array()?.iter().find(|follower| follower["name"] == "index")?.clone();
    index["stopped"].is_null().then_some(())?;
    let seq = index["seq"].as_u64()?;
    Some(status["journal"]["seq"].as_u64()? - seq + status["journal"]["pending"].as_u64()?)
}

/// Waits until all that happened is in the index.
pub fn wait_indexed(keepwatch: &Keepwatch) {
    keepwatch.caught_up();
    support::wait_for("the index is up to date", || lag(keepwatch) == Some(0));
}

/// A host with one root, which follows into the database.
pub fn host(dir: &Path, name: &str, postgres: &Postgres) -> Keepwatch {
    host_with(dir, name, &postgres.section())
}

/// The same with its own `[postgres]`.
pub fn host_with(dir: &Path, name: &str, section: &str) -> Keepwatch {
    let tree = dir.join(name);
    fs::create_dir_all(&tree).unwrap();
    let toml =
        format!("host = \"{name}\"\n{section}\n[roots.tree]\npath = {:?}\nsettle = \"1s\"\n", tree.to_str().unwrap());
    Keepwatch::configured(&dir.join(format!("{name}-state")), &toml)
}

/// A host's live names in the database, by exact path.
pub fn originals(postgres: &Postgres, host: &str) -> BTreeMap<Vec<u8>, Row> {
    let sql = format!(
        "SELECT encode(CASE WHEN d.path = '' THEN ''::bytea ELSE d.path || '/'::bytea END || f.name, 'hex'), o.type, o.size, \
         f.mtime_ns, o.inode FROM originals o JOIN hosts h ON h.name = o.host AND h.is_current \
         JOIN files f ON f.host_id = h.host_id AND f.file_id = o.file_id \
         JOIN dirs d ON d.host_id = h.host_id AND d.dir_id = f.dir_id \
         WHERE h.name = '{host}' AND o.path = d.path_text || CASE WHEN d.path_text = '' THEN '' ELSE '/' END \
         || coalesce(f.name_text, convert_from(f.name, 'UTF8'))"
    );
    let rows = postgres.sql(&sql);
    let rows = rows.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    rows.map(|fields| {
        let row = Row {
            kind: if fields[1].is_empty() { "null".to_owned() } else { fields[1].to_owned() },
            size: fields[2].parse().unwrap_or(u64::MAX),
            mtime_ns: fields[3].parse().unwrap_or(i64::MIN),
            inode: fields[4].parse().unwrap_or(0),
        };
        (unhex(fields[0]), row)
    })
    .collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// What stands in the database is what stands in the tree, and its history is the journal's.
pub fn assert_indexed(keepwatch: &Keepwatch, postgres: &Postgres, name: &str, tree: &Path) {
    keepwatch.assert_same(tree);
    wait_indexed(keepwatch);
    let differences = differences(&originals(postgres, name), &walk(tree));
    assert!(differences.is_empty(), "{name}: {} differences:\n{}", differences.len(), differences.join("\n"));
    let records = keepwatch.records();
    // What settles meanwhile is left out of both, or waited for.
    let last = records.iter().filter_map(|record| record["seq"].as_u64()).max().unwrap_or(0);
    support::wait_for("the index is as far as the records", || {
        index_status(keepwatch).is_some_and(|index| index["seq"].as_u64() >= Some(last))
    });
    let journaled: Vec<u64> =
        records.iter().filter(|record| is_change(record)).map(|record| record["seq"].as_u64().unwrap()).collect();
    let told =
        postgres.sql(&format!("SELECT seq FROM file_changes WHERE host = '{name}' AND seq <= {last} ORDER BY seq"));
    let told: Vec<u64> = told.lines().map(|seq| seq.parse().unwrap()).collect();
    assert_eq!(told, journaled, "{name}: the seqs in file_changes");
    let acts = postgres.number(&format!(
        "SELECT count(*) FROM acts a JOIN hosts h ON h.host_id = a.host_id AND h.is_current WHERE h.name = '{name}' \
         AND a.seq <= {last}"
    ));
    assert_eq!(acts, (records.len() - journaled.len()) as u64, "{name}: acts");
    assert_eq!(postgres.sql("SELECT seq, part, reason, record FROM problems ORDER BY since"), "", "{name}: problems");
}

/// Every row of a host, table by table, as one digest each.
pub fn digests(postgres: &Postgres, database: &str, host: &str) -> Vec<String> {
    let tables = ["roots", "dirs", "dir_names", "files", "past_names", "changes", "acts", "problems"];
    let digest = |table: &&str| {
        let digest = postgres.sql_in(
            database,
            &format!(
                "SELECT count(*), md5(coalesce(string_agg(x, '\n' ORDER BY x), '')) FROM (\
                 SELECT (to_jsonb(t) - 'host_id')::text AS x FROM {table} t JOIN hosts h ON h.host_id = t.host_id \
                 WHERE h.is_current AND h.name = '{host}') AS s"
            ),
        );
        format!("{table}\t{digest}")
    };
    tables.iter().map(digest).collect()
}

/// What `status` says of the index.
pub fn index_status(keepwatch: &Keepwatch) -> Option<serde_json::Value> {
    let status = keepwatch.status()?;
    status["followers"].as_array()?.iter().find(|follower| follower["name"] == "index").cloned()
}

/// Waits until `status` gives a reason why the index is not followed; the reason.
pub fn wait_trouble(keepwatch: &Keepwatch) -> String {
    let mut reason = String::new();
    support::wait_for("status says why the index lags", || {
        let told = index_status(keepwatch).and_then(|index| index["stopped"].as_str().map(str::to_owned));
        reason = told.unwrap_or_default();
        !reason.is_empty()
    });
    reason
}
