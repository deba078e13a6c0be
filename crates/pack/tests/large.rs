//! Members and archives beyond what 32 bits count, in little memory.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use keepwatch_pack::{ArchiveName, Base, Limits, Method, Options, Packer, ScavengeOptions};
use support::{assert_program_accepts, packer, put, scavenge_with, sized};

/// The most memory that this process ever had, in bytes.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A member that is nearly all hole, so that the test writes each byte of it only once, to the archive.
fn put_large(base: &Path, name: &str, len: u64, method: Method) {
    let packer = Packer::open(base, Options { method, ..Options::default() }).unwrap();
    let mut handle = packer.create(name).unwrap();
    handle.write_all(b"first").unwrap();
    handle.seek(SeekFrom::Start(len - 4)).unwrap();
    handle.write_all(b"last").unwrap();
    handle.finish().unwrap();
    packer.close().unwrap();
}

fn check_large(base: &Path, name: &str, len: u64) {
    let (archive, member) = ArchiveName::parse_with_member(name.as_bytes()).unwrap();
    let (mut count, mut end) = (0, Vec::new());
    Base::open(base)
        .unwrap()
        .read(&archive, &member.unwrap(), &mut |piece| {
            count += piece.len() as u64;
            end.extend_from_slice(piece);
            end.drain(..end.len().saturating_sub(4));
            Ok(())
        })
        .unwrap();
    assert_eq!((count, &end[..]), (len, &b"last"[..]));
}

/// How much memory the largest member may need, wherever it goes through.
const MEMORY_MAX: u64 = 64 << 20;

/// At full size both cross 4 GiB.
#[test]
fn a_member_and_an_archive_beyond_four_gigabytes() {
    let base = support::base();
    let len = sized(40 << 20, (4 << 30) + (64 << 20)) as u64;
    put_large(base.path(), "ar.zip/large", len, Method::Stored);
    let limits = Limits { small_bytes: u64::MAX, ..Limits::default() };
    let options = ScavengeOptions { limits, ..ScavengeOptions::default() };
    scavenge_with(base.path(), options);
    let packer = packer(base.path());
    put(&packer, "ar.zip/behind", b"its header is beyond the large one");
    packer.close().unwrap();
    scavenge_with(base.path(), options);
    check_large(base.path(), "ar.zip/large", len);
    assert!(peak_bytes() < MEMORY_MAX, "{} bytes", peak_bytes());
    let archive = base.path().join("ar.zip");
    assert!(fs::metadata(&archive).unwrap().len() > len);
    assert_all_accept(&archive);
}

/// At full size ten gigabytes go through worker and scavenger.
#[test]
fn the_largest_member_needs_little_memory() {
    for method in [Method::Deflated(1), Method::Stored] {
        let base = support::base();
        let len = sized(80 << 20, 10 << 30) as u64;
        put_large(base.path(), "ar.zip/large", len, method);
        // Picked up, it is copied as it is.
        let source = base.path().join("finished");
        let file = fs::File::create(&source).unwrap();
        file.set_len(len / 10).unwrap();
        let packer = packer(base.path());
        packer.pickup(&source, "other.zip/large").unwrap();
        packer.close().unwrap();
        scavenge_with(base.path(), ScavengeOptions::default());
        check_large(base.path(), "ar.zip/large", len);
        assert!(peak_bytes() < MEMORY_MAX, "{method:?}: {} bytes", peak_bytes());
        eprintln!("{method:?}: {len} bytes with at most {} in memory", peak_bytes());
        assert_all_accept(&base.path().join("ar.zip"));
    }
}

fn assert_all_accept(archive: &Path) {
    assert_program_accepts("unzip", &["-tqq"], archive);
    assert_program_accepts("7zz", &["t"], archive);
    assert_program_accepts("zipdetails", &[], archive);
    let test = "import sys, zipfile; sys.exit(zipfile.ZipFile(sys.argv[1]).testzip() is not None)";
    assert_program_accepts("python3", &["-c", test], archive);
}
