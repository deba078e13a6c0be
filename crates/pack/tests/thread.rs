//! From the worker to the archive.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write as _;
use std::process::Command;

use keepwatch_pack::{Options, Packer, ScavengeOptions, Scavenger};

#[test]
fn what_is_finished_is_in_its_archive() {
    let base = tempfile::tempdir().unwrap();
    let packer = Packer::open(base.path(), Options::default()).unwrap();
    for (name, content) in [("ar.zip/a/b.txt", "hello"), ("ar.zip/empty", ""), ("d/other.zip/x", "more")] {
        let mut member = packer.create(name).unwrap();
        member.write_all(content.as_bytes()).unwrap();
        member.finish().unwrap();
    }
    let mut large = packer.create("ar.zip/large").unwrap();
    for round in 0..3000_u32 {
        large.write_all(&round.to_le_bytes().repeat(256)).unwrap();
    }
    large.finish().unwrap();
    drop(packer.create("ar.zip/dropped").unwrap());
    packer.close().unwrap();
    let scavenger = Scavenger::open(base.path(), ScavengeOptions::default()).unwrap();
    let report = scavenger.scavenge().unwrap();
    assert!(report.errors.is_empty() && report.quarantined.is_empty(), "{report:?}");
    assert_eq!((report.members, report.claimed, report.known), (4, 2, 0));
    assert!(scavenger.scavenge().unwrap().is_idle());
    let out = Command::new("unzip").arg("-t").arg(base.path().join("ar.zip")).output().unwrap();
    println!("{}", String::from_utf8_lossy(&out.stdout));
    assert!(out.status.success());
    let out = Command::new("find").arg(base.path()).output().unwrap();
    println!("{}", String::from_utf8_lossy(&out.stdout));
}
