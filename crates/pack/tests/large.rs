//! Members and archives beyond what 32 bits count, in little memory.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use keepwatch_pack::{ArchiveName, Base, Limits, ScavengeOptions};
use support::{assert_program_accepts, packer, put, scavenge_with, sized};

/// The most memory that this process ever had, in bytes.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A member that is nearly all hole, so that the test writes each byte of it only once, to the archive.
fn put_large(base: &Path, name: &str, len: u64) {
    let packer = packer(base);
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

/// At full size it crosses 4 GiB, and needs 64 MB.
#[test]
fn a_member_and_an_archive_beyond_four_gigabytes() {
    let base = support::base();
    let len = sized(40 << 20, 5 << 30) as u64;
    put_large(base.path(), "ar.zip/large", len);
    let limits = Limits { small_bytes: u64::MAX, ..Limits::default() };
    let options = ScavengeOptions { limits, ..ScavengeOptions::default() };
    scavenge_with(base.path(), options);
    let packer = packer(base.path());
    put(&packer, "ar.zip/behind", b"its header is beyond the large one");
    packer.close().unwrap();
    scavenge_with(base.path(), options);
    check_large(base.path(), "ar.zip/large", len);
    assert!(peak_bytes() < 64 << 20, "{} bytes", peak_bytes());
    let archive = base.path().join("ar.zip");
    assert!(fs::metadata(&archive).unwrap().len() > len);
    assert_program_accepts("unzip", &["-tqq"], &archive);
    assert_program_accepts("7zz", &["t"], &archive);
}
