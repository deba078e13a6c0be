//! What the tests of the program share: a service in a hermetic environment, an independent walk, and their comparison.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

pub mod kept;
pub mod pair;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::Value;

/// How long a condition may take to come true on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The program under test.
pub fn program() -> PathBuf {
    match std::env::var_os("KEEPWATCH_PROGRAM") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_keepwatch").into(),
    }
}

/// The size of a test: `small` on every run, `full` where `cargo xtask prove` asks for it.
pub fn sized(small: usize, full: usize) -> usize {
    if std::env::var_os("KEEPWATCH_FULL").is_some() { full } else { small }
}

/// A test that needs something which is not there says so loudly; where all must run it fails.
pub fn skipped(test: &str, why: &str) {
    eprintln!("KEEPWATCH-SKIPPED: {test}: {why}");
    assert!(std::env::var_os("KEEPWATCH_REQUIRE_ALL").is_none(), "{test} must run here: {why}");
}

/// Keeps what a failed test leaves, where somebody asked for that.
pub fn keep_failed(dir: &Path) {
    if let Some(kept) = std::env::var_os("KEEPWATCH_KEEP_FAILED") {
        let _ = Command::new("cp").arg("-a").arg(dir).arg(kept).status();
    }
}

/// Asks a program to end, once it hears that: it may have been started just now.
pub fn terminate(child: &std::process::Child) {
    let pid = child.id().to_string();
    wait_for("it hears signals", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let handled = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let handled = handled.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        // One that has ended handles none any more.
        status.contains("State:\tZ") || handled.is_none_or(|mask| mask & 1 << 14 != 0)
    });
    let _ = Command::new("kill").arg(pid).status().unwrap();
}

/// Waits until `condition` holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let mut waited = Waited::default();
    while !condition() {
        assert!(waited.again(Duration::from_millis(20)) < PATIENCE, "not in {PATIENCE:?}: {what}");
    }
}

/// Waits until there are so many; as long as there are ever more, for any time.
pub fn wait_for_count(what: &str, count: usize, mut counted: impl FnMut() -> usize) {
    let (mut waited, mut before) = (Waited::default(), 0);
    loop {
        let now = counted();
        if now >= count {
            return;
        }
        if now > before {
            (waited, before) = (Waited::default(), now);
        }
        // To count many takes long, and may take from who makes them.
        let pause = Duration::from_millis(20 + now as u64 / 100);
        assert!(waited.again(pause) < PATIENCE, "not in {PATIENCE:?}: {count} {what}, {now} by now");
    }
}

/// How long was waited for something. Time in which the machine, or this process, stood still was not.
pub struct Waited {
    last: Instant,
    sum: Duration,
}

/// A look at a condition that takes longer counts for this long.
const LOOK_MAX: Duration = Duration::from_secs(5);

impl Default for Waited {
    fn default() -> Self {
        Waited { last: Instant::now(), sum: Duration::ZERO }
    }
}

impl Waited {
    /// Waits for as long again; how long it was in all.
    pub fn again(&mut self, pause: Duration) -> Duration {
        std::thread::sleep(pause);
        self.sum += self.last.elapsed().min(LOOK_MAX);
        self.last = Instant::now();
        self.sum
    }
}

/// A state directory and the service on it.
pub struct Keepwatch {
    pub state: PathBuf,
    /// Flags after `run`.
    pub flags: Vec<OsString>,
    /// A configuration file in place of flags.
    pub config: Option<PathBuf>,
    pub env: Vec<(OsString, OsString)>,
    child: Option<Child>,
}

impl Keepwatch {
    /// Not running yet; watches `root` when it does.
    pub fn on(state: &Path, root: &Path) -> Self {
        let flags = vec!["--root".into(), root.into()];
        Keepwatch { state: state.to_owned(), flags, config: None, env: Vec::new(), child: None }
    }

    /// Not running yet; by a configuration, which is written to a file beside the state directory.
    pub fn configured(state: &Path, toml: &str) -> Self {
        let path = state.with_extension("toml");
        fs::write(&path, toml).unwrap();
        Keepwatch { state: state.to_owned(), flags: Vec::new(), config: Some(path), env: Vec::new(), child: None }
    }

    /// The command line of any command, in an environment without a configuration.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).arg("--state-dir").arg(&self.state);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        let home = self.state.parent().unwrap().join("home");
        fs::create_dir_all(&home).unwrap();
        command.env_clear().env("HOME", &home).env("XDG_CONFIG_HOME", home.join("config")).env("LC_ALL", "C.UTF-8");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TZ", "UTC");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub fn ask(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must be fine; its standard output.
    pub fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.ask(args);
        assert!(output.status.success(), "{args:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Starts the service; does not wait.
    pub fn launch(&mut self) {
        assert!(self.child.is_none());
        let log = fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.command(&["run"]);
        command.args(&self.flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts the service and waits until it answers.
    pub fn start(&mut self) {
        self.launch();
        wait_for("the service answers", || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("the service ended with {status}:\n{}", self.log_text());
            }
            self.status().is_some_and(|status| !status["service"].is_null())
        });
    }

    /// Starts the service and waits until every root was scanned and no gap is open.
    pub fn start_and_settle(&mut self) {
        self.start();
        self.settle();
    }

    /// Waits until every root is watched and no gap is open, and all that happened before is in the inventory.
    pub fn settle(&self) {
        wait_for("all roots are watched and no gap is open", || {
            self.status().is_some_and(|status| {
                status["roots"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|root| root["state"] == "watching" && root["open_gaps"] == 0)
            })
        });
    }

    pub fn log_path(&self) -> PathBuf {
        self.state.with_extension("log")
    }

    /// What the service logged.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Ends it cleanly.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait_end();
        assert!(status.success(), "ended with {status}:\n{}", self.log_text());
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until it has ended.
    pub fn wait_end(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("the service does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `status --json`, if it can be had.
    pub fn status(&self) -> Option<Value> {
        let output = self.ask(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Lines of JSON that a command prints.
    pub fn json_lines(&self, args: &[&str]) -> Vec<Value> {
        lines_of_json(&self.ok(args))
    }

    /// The inventory, by path.
    pub fn listed(&self) -> BTreeMap<Vec<u8>, Row> {
        let rows =
            self.json_lines(&["ls", "--json"]).into_iter().map(|line| (bytes(&line, "path"), Row::of_json(&line)));
        rows.collect()
    }

    /// What `log PATH --json` tells of an absolute path.
    pub fn log_of(&self, path: &Path) -> Vec<Value> {
        let output = self.command(&["log", "--json"]).arg("--").arg(path).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "log {path:?}: {}", String::from_utf8_lossy(&output.stderr));
        lines_of_json(&output.stdout)
    }

    /// The journal's records that are changes, from `seq` on.
    pub fn changes_since(&self, seq: u64) -> Vec<Value> {
        let mut records = self.json_lines(&["journal", "cat", "--from", &seq.max(1).to_string()]);
        records.retain(is_change);
        records
    }

    /// Waits until all that happened up to now is journaled and applied; the seq of the record that will come next.
    pub fn caught_up(&self) -> u64 {
        self.ok(&["ls", "-0"]);
        let head: Value = serde_json::from_slice(&self.ok(&["journal", "head", "--json"])).unwrap();
        head["seq"].as_u64().unwrap() + 1
    }

    /// The journal's records, as JSON.
    pub fn records(&self) -> Vec<Value> {
        self.json_lines(&["journal", "cat"])
    }

    /// Holds the inventory against the tree until they agree; panics with the differences if they do not in time.
    pub fn assert_same(&self, tree: &Path) {
        let start = Instant::now();
        for round in 0.. {
            let differences = differences(&self.listed(), &walk(tree));
            if differences.is_empty() {
                return;
            }
            // What was done just before may still be on its way; what stays different is wrong. The time alone may have
            // gone by while the machine, or the service with this test, stood still.
            if start.elapsed() > Duration::from_secs(30) && round > 20 {
                let shown: Vec<String> = differences.iter().take(20).cloned().collect();
                self.keep();
                let about = walk(tree).into_iter().filter(|(path, _)| shown[0].contains(&show(path)));
                let inode = about.max_by_key(|(path, _)| path.len()).map(|(_, row)| row.inode);
                for record in self.records().iter().filter(|record| record["inode"].as_u64() == inode) {
                    eprintln!("{record}");
                }
                panic!("{} differences:\n{}\n{}", differences.len(), shown.join("\n"), self.log_text());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Keeps the state directory of a test that fails, where that was asked for.
    pub fn keep(&self) {
        if let Some(kept) = std::env::var_os("KEEPWATCH_KEEP_FAILED") {
            let _ = Command::new("cp").arg("-a").arg(&self.state).arg(kept).status();
        }
    }

    /// Both verifiers find the journal sound.
    pub fn assert_verifies(&self) {
        let output = self.ask(&["journal", "verify", "--deep"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verify_journal.py");
        let output = Command::new("python3").arg(script).arg(self.state.join("journal")).output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The last record of each live name agrees with the tree, no gap is open, and seqs have no hole.
    pub fn assert_last_records(&self, tree: &Path) {
        let (mut told, mut open_gaps) = (Told::default(), BTreeMap::new());
        let mut next = None;
        // One by one: there may be millions.
        let mut cat = self.command(&["journal", "cat"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        for line in BufReader::new(cat.stdout.take().unwrap()).split(b'\n') {
            let record: Value = serde_json::from_slice(&line.unwrap()).unwrap();
            let seq = record["seq"].as_u64().unwrap();
            assert!(next.is_none_or(|next| next == seq), "a hole before {seq}");
            next = Some(seq + 1);
            if is_change(&record) {
                told.hear(&record);
            } else if record["do"] == "gap_closed" {
                open_gaps.remove(&record["gap"].as_u64().unwrap());
            } else if record["do"] == "gap" {
                open_gaps.insert(seq, record);
            }
        }
        assert!(cat.wait().unwrap().success());
        assert!(open_gaps.is_empty(), "gaps that are open still: {open_gaps:?}");
        for (path, row) in walk(tree) {
            let known = told.last.get(&path);
            if known != Some(&row) {
                self.keep();
            }
            let known = known.unwrap_or_else(|| panic!("no record of {}", show(&path)));
            assert_eq!(*known, row, "the last record of {}", show(&path));
        }
    }
}

impl Drop for Keepwatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the service's log:\n{}", self.log_text());
        }
        self.kill();
    }
}

fn lines_of_json(out: &[u8]) -> Vec<Value> {
    let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Whether a record tells of a file, not of what the service did.
pub fn is_change(record: &Value) -> bool {
    ["create", "modify", "attrib", "move", "delete"].iter().any(|word| record["do"] == *word)
}

/// A configuration with one root, called `tree`, watched by this method.
pub fn one_root(root: &Path, method: &str) -> String {
    let poll = if method == "poll" { "poll = \"1s\"\n" } else { "" };
    format!("[roots.tree]\npath = {root:?}\nwatch = {method:?}\n{poll}")
}

/// What somebody knows who has nothing but the records.
#[derive(Default)]
struct Told {
    last: BTreeMap<Vec<u8>, Row>,
    /// Where each inode was told to be.
    places: HashMap<u64, BTreeSet<Vec<u8>>>,
    /// What is in the way of the first half of an exchange, until the second half, the next record, takes it away.
    parked: Option<Vec<(Vec<u8>, Row)>>,
}

impl Told {
    fn hear(&mut self, record: &Value) {
        let (word, path) = (record["do"].as_str().unwrap(), bytes(record, "path"));
        let row = (!record["inode"].is_null()).then(|| Row::of_json(record));
        if let (Some(row), true) = (&row, is_linked(record)) {
            // What is told of one name of a file holds for all.
            for other in self.places.get(&row.inode).into_iter().flatten() {
                self.last.insert(other.clone(), row.clone());
            }
        }
        match word {
            "delete" => drop(self.take_within(&path)),
            "move" => self.hear_move(record, path, row),
            _ => self.insert_told(path, row),
        }
    }

    fn hear_move(&mut self, record: &Value, path: Vec<u8>, row: Option<Row>) {
        let (is_exchange, is_second) = (record["exchange"] == true, self.parked.is_some());
        assert!(is_exchange || !is_second, "half an exchange before {record}");
        let old = if is_exchange { bytes(record, "old_path") } else { self.source_of(record) };
        if old == path {
            return self.insert_told(path, row);
        }
        let moved = self.parked.take().unwrap_or_else(|| self.take_within(&old));
        let in_the_way = self.take_within(&path);
        self.parked = (is_exchange && !is_second).then_some(in_the_way);
        for (from, known) in moved {
            self.insert([&path[..], &from[old.len()..]].concat(), known);
        }
        self.insert_told(path, row);
    }

    fn insert_told(&mut self, path: Vec<u8>, row: Option<Row>) {
        if let Some(row) = row {
            self.insert(path, row);
        }
    }

    fn insert(&mut self, path: Vec<u8>, row: Row) {
        self.remove(&path);
        self.places.entry(row.inode).or_default().insert(path.clone());
        self.last.insert(path, row);
    }

    fn remove(&mut self, path: &[u8]) -> Option<Row> {
        let row = self.last.remove(path)?;
        let places = self.places.get_mut(&row.inode).unwrap();
        places.remove(path);
        if places.is_empty() {
            self.places.remove(&row.inode);
        }
        Some(row)
    }

    /// Takes out what is known at a path and below it.
    fn take_within(&mut self, dir: &[u8]) -> Vec<(Vec<u8>, Row)> {
        // What is below it stands together, for `0` comes right after `/`.
        let below = [dir, b"/"].concat()..[dir, b"0"].concat();
        let paths: Vec<Vec<u8>> = self.last.range(below).map(|(path, _)| path.clone()).collect();
        let taken = paths.into_iter().chain([dir.to_vec()]);
        taken.filter_map(|path| self.remove(&path).map(|row| (path, row))).collect()
    }

    /// Where what a record calls moved was known: under its old name, unless another object is known there. Notices that
    /// the kernel folded come in another order than the renames, so it may have been told of under another name, even
    /// the new one.
    fn source_of(&self, record: &Value) -> Vec<u8> {
        let old = bytes(record, "old_path");
        let Some(inode) = record["inode"].as_u64() else { return old };
        if is_linked(record) || self.last.get(&old).is_some_and(|known| known.inode == inode) {
            return old;
        }
        self.places.get(&inode).and_then(BTreeSet::first).cloned().unwrap_or(old)
    }
}

/// Whether a record tells of a file that has other names.
fn is_linked(record: &Value) -> bool {
    record["type"] != "dir" && record["nlink"].as_u64().is_some_and(|links| links > 1)
}

/// What is compared of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub kind: String,
    pub size: u64,
    pub mtime_ns: i64,
    pub inode: u64,
}

impl Row {
    pub fn of_json(line: &Value) -> Self {
        Row {
            kind: line["type"].as_str().unwrap_or("null").to_owned(),
            size: line["size"].as_u64().unwrap_or(u64::MAX),
            mtime_ns: line["mtime_ns"].as_i64().unwrap_or(i64::MIN),
            inode: line["inode"].as_u64().unwrap_or(0),
        }
    }
}

/// The exact bytes of a path field.
pub fn bytes(line: &Value, field: &str) -> Vec<u8> {
    match line[format!("{field}_b64")].as_str() {
        Some(exact) => base64::engine::general_purpose::STANDARD.decode(exact).unwrap(),
        None => line[field].as_str().unwrap_or_else(|| panic!("no {field} in {line}")).as_bytes().to_vec(),
    }
}

/// An independent walk: everything below `tree`, by the standard library, component by component.
pub fn walk(tree: &Path) -> BTreeMap<Vec<u8>, Row> {
    let mut found = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(rel) = pending.pop() {
        let Ok(entries) = fs::read_dir(tree.join(&rel)) else { continue };
        for entry in entries.flatten() {
            let path = rel.join(entry.file_name());
            let Ok(meta) = fs::symlink_metadata(tree.join(&path)) else { continue };
            if meta.is_dir() {
                pending.push(path.clone());
            }
            found.insert(path.into_os_string().into_vec(), row_of(&meta));
        }
    }
    found
}

fn row_of(meta: &fs::Metadata) -> Row {
    use std::os::unix::fs::FileTypeExt as _;
    let file_type = meta.file_type();
    let kind = match file_type {
        _ if file_type.is_dir() => "dir",
        _ if file_type.is_symlink() => "symlink",
        _ if file_type.is_fifo() => "fifo",
        _ if file_type.is_socket() => "socket",
        _ if file_type.is_block_device() => "block",
        _ if file_type.is_char_device() => "char",
        _ => "file",
    };
    Row {
        kind: kind.to_owned(),
        size: meta.size(),
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        inode: meta.ino(),
    }
}

/// What differs, in words.
pub fn differences(listed: &BTreeMap<Vec<u8>, Row>, walked: &BTreeMap<Vec<u8>, Row>) -> Vec<String> {
    let mut differences = Vec::new();
    for (path, row) in walked {
        match listed.get(path) {
            None => differences.push(format!("not listed: {} {row:?}", show(path))),
            Some(known) if known != row => differences.push(format!("{}: {known:?} is {row:?}", show(path))),
            Some(_) => {}
        }
    }
    for path in listed.keys().filter(|path| !walked.contains_key(*path)) {
        differences.push(format!("listed, but gone: {}", show(path)));
    }
    differences
}

pub fn show(path: &[u8]) -> String {
    OsStr::from_bytes(path).to_string_lossy().into_owned()
}

/// Runs a program of the system that must succeed; its standard output.
pub fn sh(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether we may do what only root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A seeded source of numbers, for churn that can be repeated.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// Any operation on any name, thousands of times.
pub fn shake(tree: &Path, dice: &mut Dice, operations: usize) {
    let place = |dice: &mut Dice| {
        let mut path = tree.to_owned();
        for _ in 0..dice.below(3) {
            path.push(format!("d{}", dice.below(5)));
        }
        path.push(format!("n{}", dice.below(8)));
        path
    };
    for count in 0..operations {
        let (one, other) = (place(dice), place(dice));
        // Most fail, as they would on a tree that others change too.
        let _ = match dice.below(10) {
            0 => fs::create_dir_all(one.with_file_name(format!("d{}", dice.below(5)))),
            1 | 2 => fs::write(&one, vec![b'x'; count % 100]),
            3 => fs::remove_file(&one),
            4 => fs::remove_dir_all(one.with_file_name(format!("d{}", dice.below(5)))),
            5 => fs::rename(&one, &other),
            6 => fs::rename(
                one.with_file_name(format!("d{}", dice.below(5))),
                other.with_file_name(format!("d{}", dice.below(5))),
            ),
            7 => fs::hard_link(&one, &other),
            8 => std::os::unix::fs::symlink("n1", &one),
            _ => fs::File::options().append(true).open(&one).and_then(|file| file.set_len(count as u64 % 50)),
        };
    }
}

/// Reads what is there of a file.
pub fn read_text(path: &Path) -> String {
    let mut text = String::new();
    fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
    text
}
