//! A real PostgreSQL for the tests: its own cluster in a temporary directory, run as a user without rights, reached by a
//! socket of its own.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{self, Keepwatch};

/// A cluster, ended and removed with this.
pub struct Postgres {
    dir: tempfile::TempDir,
    bin: PathBuf,
    /// Settings that every start is given.
    settings: Vec<String>,
}

/// The user that the server runs as when the tests run as root, which it refuses: `nobody`.
const NOBODY: u32 = 65_534;

impl Postgres {
    /// Starts a cluster; `None`, said loudly, where PostgreSQL is not installed.
    pub fn start(test: &str) -> Option<Self> {
        let Some(bin) = find_programs() else {
            support::skipped(test, "PostgreSQL is not installed");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("kwpg").tempdir_in("/tmp").unwrap();
        if support::is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let settings =
            ["listen_addresses=", "fsync=off", "shared_buffers=32MB", "max_connections=40", "log_checkpoints=off"];
        let postgres = Postgres { dir, bin, settings: settings.map(str::to_owned).to_vec() };
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
        self.dir.path().join(".s.PGSQL.5432")
    }

    /// Adds a setting for the next start.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Starts it, and waits until it answers.
    pub fn resume(&self) {
        let mut options = format!("-k '{}' -p 5432", self.socket_dir().display());
        for setting in &self.settings {
            options.push_str(&format!(" -c {setting}"));
        }
        let mut start = self.program("pg_ctl");
        start.args(["start", "-w", "-t", "100", "-s", "-D"]).arg(self.data()).arg("-l").arg(self.log_path());
        let status = start.arg("-o").arg(options).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "the server does not start:\n{}", self.log_text());
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
        let output = psql.arg(self.socket_dir()).arg("-c").arg(sql).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
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
