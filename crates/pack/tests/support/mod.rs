//! What the tests of the packer share: a base, faults at any operation, and an independent reader of archives.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

pub mod faults;
pub mod hostile;
pub mod powercut;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keepwatch_pack::files::{Files, RealFiles};
use keepwatch_pack::{Limits, Options, Packer, Report, ScavengeOptions, Scavenger};

/// Members by their full names.
pub type Members = BTreeMap<Vec<u8>, Vec<u8>>;

/// The size of a test: `small` on every run, `full` where `cargo xtask prove` asks for it.
pub fn sized(small: usize, full: usize) -> usize {
    if std::env::var_os("KEEPWATCH_FULL").is_some() { full } else { small }
}

/// A test that needs something which is not there says so loudly; where all must run it fails.
pub fn skipped(test: &str, why: &str) {
    eprintln!("KEEPWATCH-SKIPPED: {test}: {why}");
    assert!(std::env::var_os("KEEPWATCH_REQUIRE_ALL").is_none(), "{test} must run here: {why}");
}

/// An empty base.
pub fn base() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("pack base \"'").tempdir().unwrap()
}

/// An empty base where syncing costs nothing, for tests that sync thousands of times.
pub fn fast_base() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("pack base \"'");
    if memory.is_dir() { builder.tempdir_in(memory).unwrap() } else { builder.tempdir().unwrap() }
}

pub fn packer(base: &Path) -> Packer {
    Packer::open(base, Options::default()).unwrap()
}

/// Stores a member.
pub fn put(packer: &Packer, name: impl AsRef<[u8]>, content: &[u8]) {
    let mut member = packer.create(name).unwrap();
    member.write_all(content).unwrap();
    member.finish().unwrap();
}

/// Stores members and closes the staging file.
pub fn stage(base: &Path, members: &[(&str, &[u8])]) {
    let packer = packer(base);
    members.iter().for_each(|(name, content)| put(&packer, name, content));
    packer.close().unwrap();
}

/// One round that must go well.
pub fn scavenge(base: &Path) -> Report {
    scavenge_with(base, ScavengeOptions::default())
}

pub fn scavenge_with(base: &Path, options: ScavengeOptions) -> Report {
    let report = Scavenger::open(base, options).unwrap().scavenge().unwrap();
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    report
}

/// So many rounds must do. Those that only wait for something to become stale take a fraction of a millisecond.
const ROUNDS_MAX: usize = 100_000;

/// Rounds that take everything, whoever it belongs to, until nothing is left to do.
pub fn recover(base: &Path, limits: Limits) {
    let files: Arc<dyn Files> = Arc::new(RealFiles::open(base).unwrap());
    let stale_after = Some(Duration::from_nanos(1));
    let options = ScavengeOptions { flush: true, stale_after, limits, ..ScavengeOptions::default() };
    let mut last = Instant::now();
    // A file is stale when the file system's clock has gone on, which it does in steps of milliseconds.
    let is_left = || fs::read_dir(base.join(keepwatch_pack::STAGING_DIR).join("work")).is_ok_and(|dir| dir.count() > 0);
    for _ in 0..ROUNDS_MAX {
        let report = Scavenger::open_on(Arc::clone(&files), options).scavenge().unwrap();
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        if report.is_idle() && !is_left() {
            return;
        }
        // How long a round takes that has much to do depends on the file system.
        if report.members + report.known > 0 {
            last = Instant::now();
        }
        assert!(last.elapsed() < Duration::from_secs(20), "something is left that nobody can do: {report:?}");
    }
    panic!("there is always something left to do");
}

/// What Python's zipfile finds in the archives below a base: each member's content by ARCHIVE/MEMBER, where the parts of
/// an archive count as it; every member read and checked. A member that is there twice is an error.
pub fn unzipped(base: &Path) -> Members {
    unzipped_all(&[base.to_owned()]).pop().unwrap()
}

/// The same for many bases at once.
pub fn unzipped_all(bases: &[PathBuf]) -> Vec<Members> {
    unzipped_while(bases, |_| ())
}

/// The same, while something is done to the process that reads them, before its answer is read.
pub fn unzipped_while(bases: &[PathBuf], happens: impl FnOnce(&mut Child)) -> Vec<Members> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/members.py");
    let mut child = Command::new("python3")
        .arg(script)
        .env("PYTHONUNBUFFERED", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let text: Vec<u8> = bases.iter().flat_map(|base| [base.as_os_str().as_bytes(), b"\0"].concat()).collect();
    let writer = std::thread::spawn(move || input.write_all(&text).unwrap());
    happens(&mut child);
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "members.py");
    let mut all: Vec<Members> = vec![Members::new(); bases.len()];
    let listed = output.stdout.strip_suffix(b"end\n").expect("members.py did not tell all");
    for line in listed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut fields = line.split(|byte| *byte == b' ');
        let at: usize = std::str::from_utf8(fields.next().unwrap()).unwrap().parse().unwrap();
        let (name, content) = (unhex(fields.next().unwrap()), unhex(fields.next().unwrap()));
        let before = all[at].insert(name.clone(), content);
        assert!(before.is_none(), "{} is there twice, in {:?}", String::from_utf8_lossy(&name), bases[at]);
    }
    all
}

fn unhex(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap();
    text.chunks(2).map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).unwrap()).collect()
}

/// A full name and content, for comparing.
pub fn members<'a>(list: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Members {
    list.into_iter().map(|(name, content)| (name.as_bytes().to_vec(), content.to_vec())).collect()
}

/// The files directly in the packer's directory, or one within it.
pub fn staged(base: &Path, dir: &str) -> Vec<String> {
    let dir = base.join(keepwatch_pack::STAGING_DIR).join(dir);
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The packer holds on to nothing that it does not need.
pub fn assert_clean(base: &Path) {
    let own = base.join(keepwatch_pack::STAGING_DIR);
    // A large member that was not finished goes when its writer is dead, and that is this process.
    let left: Vec<_> = staged(base, "").into_iter().filter(|name| !name.ends_with(".spill")).collect();
    assert_eq!(left, Vec::<String>::new(), "in {base:?}");
    for dir in ["work", "new"] {
        let left: Vec<_> =
            fs::read_dir(own.join(dir)).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

/// A program reads an archive and finds nothing wrong.
pub fn assert_program_accepts(program: &str, args: &[&str], archive: &Path) {
    let output = Command::new(program).args(args).arg(archive).stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {archive:?}: {text}");
}

/// A seeded source of numbers.
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

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}
