//! Staging files and archives of any bytes: no panic, no hang, nothing outside the base, and what is sound is packed.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use keepwatch_pack::STAGING_DIR;
use support::hostile::{Place, survives};
use support::{Dice, sized, stage, staged};

/// Flips, cuts, doubles and overwrites pieces.
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = dice.below(bytes.len());
        match dice.below(6) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..(at + dice.below(40)).min(bytes.len()))),
            3 => {
                let piece = bytes[at..(at + dice.below(200)).min(bytes.len())].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            4 => bytes[at] = 0xFF,
            _ => {
                let len = (bytes.len() - at).min(4);
                bytes[at..at + len].copy_from_slice(&dice.bytes(len));
            }
        }
    }
}

/// Good zips of several makers, as staging files and archives.
fn seeds() -> Vec<Vec<u8>> {
    let base = support::fast_base();
    stage(base.path(), &[("ar.zip/a", b"first"), ("ar.zip/b", &[7; 500]), ("o.zip/c", b"third")]);
    let own = fs::read(base.path().join(STAGING_DIR).join(&staged(base.path(), "")[0])).unwrap();
    support::scavenge(base.path());
    let packed = fs::read(base.path().join("ar.zip")).unwrap();
    let script = "\
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as z:
    z.writestr('ar.zip/bomb', b'0' * 20_000_000)
    z.writestr('ar.zip/small', 's')
    with z.open(zipfile.ZipInfo('ar.zip/wide'), 'w', force_zip64=True) as f: f.write(b'w')
";
    let status = Command::new("python3").args(["-c", script]).arg(base.path().join("made")).status().unwrap();
    assert!(status.success());
    vec![own, packed, fs::read(base.path().join("made")).unwrap()]
}

#[test]
fn mutated_zips_as_staging_files_and_as_archives() {
    let seeds = seeds();
    for case in 0..sized(100, 5000) {
        let mut dice = Dice::new(case as u64 + 1);
        let mut bytes = seeds[case % seeds.len()].clone();
        mutate(&mut bytes, &mut dice);
        survives(&bytes, [Place::Staging, Place::Archive][dice.below(2)], &format!("case {case}"));
    }
}

#[test]
fn zips_that_are_made_to_mislead() {
    for place in [Place::Staging, Place::Archive] {
        for (name, bytes) in misleading() {
            survives(&bytes, place, &name);
        }
    }
}

/// Zips whose list of members and headers tell different stories, by name.
fn misleading() -> Vec<(String, Vec<u8>)> {
    let dir = support::fast_base();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/misleading.py");
    assert!(Command::new("python3").arg(script).arg(dir.path()).status().unwrap().success());
    let mut made: Vec<(String, Vec<u8>)> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    made.sort();
    assert!(made.len() >= 10);
    made
}
