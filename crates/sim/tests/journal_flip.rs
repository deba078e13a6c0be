//! Change any byte of a journal, and both verifiers say so, alike.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use keepwatch_journal::{
    Body, Cursor, FindingKind, Gap, GapReason, OpenError, RealDisk, RelPath, Timestamp, VerifyOptions, Writer,
    WriterOptions, compress_closed, new_epoch, verify,
};

fn options() -> WriterOptions {
    WriterOptions { roll_bytes: 1_200, prealloc_bytes: 600, ..WriterOptions::new("sim") }
}

/// A journal of several files on a real disk, left as a crash leaves it: with free space at its end.
fn journal(dir: &Path) -> Cursor {
    let (mut writer, _) = Writer::open(Arc::new(RealDisk), dir, Timestamp(0), options()).unwrap();
    for batch in 0..7 {
        for index in 0..=batch % 3 {
            let note = Some(format!("{batch}.{index} {}", "y".repeat(50)));
            let path = RelPath::new(b"caf\xe9".to_vec()).unwrap();
            let gap = Gap { root: None, path, reason: GapReason::Asked, since: None, note };
            writer.append(Timestamp(batch), &Body::Gap(gap));
        }
        writer.commit().unwrap();
    }
    writer.head()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The kinds of finding, as the Rust verifier has them.
fn ours(dir: &Path, head: Option<Cursor>) -> Vec<String> {
    let report = verify(&RealDisk, dir, &VerifyOptions { head, deep: false }).unwrap();
    report.findings.iter().map(|finding| format!("{}:{}", finding.line, finding.kind.as_str())).collect()
}

/// The same from the Python one, after a look at its exit code.
fn theirs(dir: &Path, head: Option<Cursor>) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verify_journal.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(dir);
    if let Some(head) = head {
        command.arg("--head").arg(head.to_string());
    }
    let output = command.output().expect("python3 runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let found = text.lines().filter(|line| !line.starts_with("verified: "));
    let found: Vec<String> = found
        .map(|line| {
            let mut parts = line.strip_prefix(dir.to_str().unwrap()).unwrap().split(": ");
            let line = parts.next().unwrap().rsplit(':').next().unwrap().to_owned();
            format!("{line}:{}", parts.nth(1).unwrap())
        })
        .collect();
    assert_eq!(output.status.code(), Some(i32::from(!found.is_empty())), "{text}{errors}");
    found
}

#[test]
fn every_flipped_byte_is_found() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let head = journal(&dir);
    assert!(files(&dir).len() >= 3, "{:?}", files(&dir));
    assert_eq!(ours(&dir, Some(head)), [""; 0]);
    for path in files(&dir) {
        let sound = std::fs::read(&path).unwrap();
        for at in 0..sound.len() {
            for bit in [0x01, 0x20] {
                let mut flipped = sound.clone();
                flipped[at] ^= bit;
                std::fs::write(&path, &flipped).unwrap();
                assert_ne!(ours(&dir, None), [""; 0], "{}: byte {at}, bit {bit}", path.display());
            }
        }
        std::fs::write(&path, &sound).unwrap();
    }
}

#[test]
fn both_verifiers_agree() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let head = journal(&dir);
    assert_eq!(theirs(&dir, Some(head)), [""; 0]);
    let forged = Cursor { hash: keepwatch_journal::ChainHash([7; 32]), ..head };
    assert_eq!(ours(&dir, Some(forged)), ["0:head"]);
    assert_eq!(theirs(&dir, Some(forged)), ["0:head"]);
    for path in files(&dir) {
        let sound = std::fs::read(&path).unwrap();
        for at in (0..sound.len()).step_by(97) {
            let mut flipped = sound.clone();
            flipped[at] ^= 0x01;
            std::fs::write(&path, &flipped).unwrap();
            assert_eq!(ours(&dir, None), theirs(&dir, None), "{}: byte {at}", path.display());
        }
        for len in (0..sound.len()).step_by(151) {
            std::fs::write(&path, &sound[..len]).unwrap();
            assert_eq!(ours(&dir, None), theirs(&dir, None), "{} cut to {len}", path.display());
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(ours(&dir, None), theirs(&dir, None), "{} removed", path.display());
        assert_ne!(ours(&dir, Some(head)), [""; 0], "{} removed", path.display());
        std::fs::write(&path, &sound).unwrap();
    }
}

#[test]
fn compressed_files_are_held_against_the_same_chain() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let head = journal(&dir);
    let count = files(&dir).len();
    let compressed = compress_closed(&RealDisk, &dir, head).unwrap();
    assert_eq!(compressed.len(), count - 1);
    assert_eq!(files(&dir).len(), count, "the plain ones are gone");
    assert_eq!(ours(&dir, Some(head)), [""; 0]);
    assert_eq!(theirs(&dir, Some(head)), [""; 0]);
    let path = &compressed[1];
    let sound = std::fs::read(path).unwrap();
    let text = zstd::decode_all(&sound[..]).unwrap();
    for at in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 0x01;
        std::fs::write(path, &flipped).unwrap();
        // Some bits of Zstandard's own framing say nothing about the text.
        let harmless = zstd::decode_all(&flipped[..]).is_ok_and(|same| same == text);
        assert_eq!(ours(&dir, None).is_empty(), harmless, "byte {at}");
        if at % 61 == 0 {
            assert_eq!(theirs(&dir, None).is_empty(), harmless, "byte {at}");
        }
    }
}

#[test]
fn damage_stops_the_start_and_a_new_epoch_sets_it_aside() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let head = journal(&dir);
    let last = files(&dir).pop().unwrap();
    let sound = std::fs::read(&last).unwrap();
    // In the first batch of the last file, with others behind it.
    let mut damaged = sound.clone();
    let at = sound.iter().position(|byte| *byte == b'y').unwrap();
    damaged[at] = b'z';
    std::fs::write(&last, &damaged).unwrap();
    let Err(OpenError::Damaged { file, line, .. }) =
        Writer::open(Arc::new(RealDisk), &dir, Timestamp(1), options()).map(|_| ())
    else {
        panic!("damage must stop the start");
    };
    assert_eq!((file, line > 1), (last.clone(), true));
    assert_eq!(std::fs::read(&last).unwrap(), damaged, "nothing was changed");

    let aside = new_epoch(&RealDisk, &dir).unwrap().unwrap();
    assert!(aside.kept.ends_with(format!("epoch-{}", head.journal)));
    let (writer, recovery) = Writer::open(Arc::new(RealDisk), &dir, Timestamp(1), options()).unwrap();
    assert!(recovery.is_new);
    assert_ne!(writer.head().journal, head.journal);
    assert_eq!(std::fs::read(aside.kept.join(last.file_name().unwrap())).unwrap(), damaged);
}

#[test]
fn a_torn_tail_is_kept_and_told() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let head = journal(&dir);
    let last = files(&dir).pop().unwrap();
    let mut torn = std::fs::read(&last).unwrap();
    let end = torn.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    torn.resize(end, 0);
    torn.extend_from_slice(b"{\"seq\":15,\"at\":\"half a rec\0\0\0");
    std::fs::write(&last, &torn).unwrap();
    assert_eq!(ours(&dir, Some(head)).len(), 1);
    assert!(ours(&dir, None)[0].ends_with(":torn"));
    assert_eq!(ours(&dir, None), theirs(&dir, None));
    let (_, recovery) = Writer::open(Arc::new(RealDisk), &dir, Timestamp(0), options()).unwrap();
    let [torn] = &recovery.torn[..] else { panic!("{recovery:?}") };
    assert_eq!((torn.offset, torn.bytes), (end as u64, 26));
    assert_eq!(std::fs::read(&torn.kept).unwrap(), b"{\"seq\":15,\"at\":\"half a rec");
    assert_eq!(recovery.head, head);
    let report = verify(&RealDisk, &dir, &VerifyOptions { head: Some(head), deep: true }).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_newer_format_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    journal(&dir);
    let last = files(&dir).pop().unwrap();
    let text = std::fs::read_to_string(&last).unwrap();
    std::fs::write(&last, text.replacen("_journal\":1", "_journal\":2", 1)).unwrap();
    let opened = Writer::open(Arc::new(RealDisk), &dir, Timestamp(1), options()).map(|_| ());
    assert!(matches!(opened, Err(OpenError::Newer { format: 2, .. })), "{opened:?}");
    let report = verify(&RealDisk, &dir, &VerifyOptions::default()).unwrap();
    assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::Newer));
}
