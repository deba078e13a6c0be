//! Disks that are full for real: small ones, which workers and scavengers fill until nothing fits any more.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keepwatch_pack::{ArchiveName, Base, Limits, Options, PackError, Packer, Report, ScavengeOptions, Scavenger, Sync};
use support::{Dice, Members, assert_clean, recover, skipped, staged, unzipped};

/// Large parts are merged only when what is new is worth it, as with real ones.
const LIMITS: Limits = Limits { members: 3000, bytes: 1 << 30, small_bytes: 200_000, ratio: 3 };
/// So often in a row nothing must fit before the disk counts as full.
const FAILURES: usize = 30;

/// A file system of its own, that goes with this.
struct Small(PathBuf);

impl Small {
    /// `None` where nothing may be mounted.
    fn mount(at: &Path, args: &[&str]) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let status = Command::new("mount").args(args).arg(at).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then(|| Small(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    match Small::mount(&dir.path().join("small"), &["-t", "tmpfs", "-o", "size=6m", "keepwatch-test"]) {
        Some(small) => filled(&small.0),
        None => skipped("a_full_disk_in_memory", "it needs the right to mount"),
    }
}

#[test]
fn a_full_disk_with_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).status();
    let image = image.to_str().unwrap();
    match Small::mount(&dir.path().join("small"), &["-t", "ext4", "-o", "loop", image]) {
        Some(small) if made.is_ok_and(|status| status.success()) => filled(&small.0),
        _ => skipped("a_full_disk_with_a_journal", "it needs mkfs.ext4 and the right to mount"),
    }
}

fn is_full(error: &PackError) -> bool {
    error.io().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
}

/// Takes half of what is free, so that it can be given back.
fn ballast(base: &Path) -> PathBuf {
    let free = || {
        let stat = rustix::fs::statvfs(base).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let path = base.join("ballast");
    let half = free() / 2;
    let mut file = fs::File::create(&path).unwrap();
    while free() > half {
        file.write_all(&[0x55; 16_384]).unwrap();
        file.sync_all().unwrap();
    }
    path
}

/// A round on a disk that may be full: whatever is wrong, it is that.
fn round(base: &Path) -> Report {
    let options = ScavengeOptions { flush: true, limits: LIMITS, ..ScavengeOptions::default() };
    let report = Scavenger::open(base, options).unwrap().scavenge().unwrap_or_else(|error| {
        assert!(is_full(&error), "{error}");
        Report::default()
    });
    assert!(report.errors.iter().all(is_full), "{:?}", report.errors);
    assert!(report.quarantined.is_empty(), "{:?}", report.quarantined);
    report
}

/// Stores a member, or says what is wrong.
fn store(packer: &Packer, name: &str, content: &[u8]) -> Result<(), PackError> {
    let mut handle = packer.create(name)?;
    if let Err(error) = handle.write_all(content) {
        // A large member is on the disk already while it is written.
        return Err(PackError::Io { doing: "write", path: name.into(), source: error });
    }
    handle.finish()
}

fn filled(base: &Path) {
    let ballast = ballast(base);
    let options = |sync| Options { spill_bytes: 30_000, sync, ..Options::default() };
    let packers = [Sync::Rotation, Sync::Each].map(|sync| Packer::open(base, options(sync)).unwrap());
    let (mut dice, mut finished) = (Dice::new(3), Members::new());
    let (mut failures, mut rounds_full, mut attempts) = (0, 0, 0);
    while failures < FAILURES {
        attempts += 1;
        let len = if dice.below(10) == 0 { dice.below(90_000) } else { dice.below(3000) };
        let content = dice.bytes(len);
        let name = format!("a{}.zip/m{attempts}", dice.below(3));
        match store(&packers[attempts % 2], &name, &content) {
            Ok(()) => {
                finished.insert(name.into_bytes(), content);
                failures = 0;
            }
            Err(error) => {
                assert!(is_full(&error), "{error}");
                failures += 1;
            }
        }
        // Some of it is collected while there is room, and not any more when there is none.
        if attempts % 50 == 0 || failures == FAILURES / 2 {
            rounds_full += usize::from(!round(base).errors.is_empty());
        }
    }
    // What is to be picked up stays where it is.
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), vec![7; 1 << 20]).unwrap();
    for packer in &packers {
        assert!(is_full(&packer.pickup(source.path(), "a0.zip/picked").unwrap_err()));
    }
    assert_eq!(fs::metadata(source.path()).unwrap().len(), 1 << 20);
    for packer in packers {
        let closed = packer.close();
        assert!(closed.as_ref().map_or_else(is_full, |()| true), "{closed:?}");
    }
    rounds_full += usize::from(!round(base).errors.is_empty());
    assert!(rounds_full > 0 && finished.len() > 100, "{rounds_full} rounds, {} members", finished.len());
    // Whoever reads sees all of it, full as the disk is.
    let mut listed = 0;
    for archive in ["a0.zip", "a1.zip", "a2.zip"] {
        let archive = ArchiveName::parse(archive.as_bytes()).unwrap();
        Base::open(base)
            .unwrap()
            .list(&archive, &mut |_| {
                listed += 1;
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(listed, finished.len());
    fs::remove_file(ballast).unwrap();
    recover(base, LIMITS);
    assert_clean(base);
    assert_eq!(staged(base, "quarantine"), Vec::<String>::new());
    assert!(unzipped(base) == finished, "{} finished", finished.len());
}
