//! What befalls workers and their files: torn off at each place that differs, begun in the same second, changed, replaced
//! or gone while they are picked up, left behind by a process that died.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use keepwatch_pack::files::{Files, RealFiles};
use keepwatch_pack::{Options, PackError, Packer, STAGING_DIR, ScavengeOptions, Scavenger, Sync};
use support::faults::{Fault, Faulty};
use support::{Members, assert_clean, members, packer, put, scavenge, stage, staged, unzipped, unzipped_all};

const NAMES: [&str; 3] = ["ar.zip/one", "ar.zip/two", "ar.zip/three"];

/// Three members in one staging file: its name, its bytes, and where each header and the list of members begin.
fn three() -> (String, Vec<u8>, Vec<usize>) {
    let base = support::fast_base();
    stage(base.path(), &NAMES.map(|name| (name, &[7; 300][..])));
    let names = staged(base.path(), "");
    assert_eq!(names.len(), 1);
    let bytes = fs::read(base.path().join(STAGING_DIR).join(&names[0])).unwrap();
    let starts = |four: &[u8]| *four == *b"PK\x03\x04" || *four == *b"PK\x01\x02";
    let mut at: Vec<usize> = (0..bytes.len() - 4).filter(|at| starts(&bytes[*at..at + 4])).collect();
    at.truncate(4);
    (names[0].clone(), bytes, at)
}

#[test]
fn torn_inside_the_data_or_before_the_header_is_complete() {
    let (name, bytes, at) = three();
    // So many bytes, and what is packed and what is in quarantine of them.
    let mut cuts: Vec<(usize, usize, usize)> = Vec::new();
    for (member, start) in at[..3].iter().enumerate() {
        // Nothing is wrong with a file that ends where a member ends: its writer died before the next one.
        cuts.push((*start, member, 0));
        let data = at[member + 1] - 300;
        let inside = [start + 1, start + 4, start + 29, start + 35, data - 1, data, data + 1, data + 299];
        cuts.extend(inside.map(|len| (len, member, 2)));
    }
    // Torn off within the list of members, which nobody needs. Up to its fourth byte it could be the next header.
    cuts.extend((at[3] + 4..bytes.len()).map(|len| (len, 3, 0)));
    let mut bases = Vec::new();
    for (len, count, kept) in &cuts {
        let base = support::fast_base();
        fs::create_dir_all(base.path().join(STAGING_DIR)).unwrap();
        fs::write(base.path().join(STAGING_DIR).join(&name), &bytes[..*len]).unwrap();
        let report = scavenge(base.path());
        assert_clean(base.path());
        let seen = (report.members, staged(base.path(), "quarantine").len());
        assert_eq!(seen, (*count as u64, *kept), "{len} bytes of {at:?}");
        bases.push(base);
    }
    let paths: Vec<PathBuf> = bases.iter().map(|base| base.path().to_owned()).collect();
    for ((len, count, _), found) in cuts.iter().zip(unzipped_all(&paths)) {
        let expected = NAMES[..*count].iter().map(|name| (*name, &[7; 300][..]));
        assert_eq!(found, members(expected), "{len} bytes of {at:?}");
    }
}

#[test]
fn two_workers_with_the_same_host_and_second() {
    let base = support::base();
    // And the same process.
    let workers = [packer(base.path()), packer(base.path())];
    for (number, worker) in workers.iter().enumerate() {
        put(worker, format!("ar.zip/{number}"), number.to_string().as_bytes());
    }
    assert_eq!(staged(base.path(), "").len(), 2);
    for worker in workers {
        worker.close().unwrap();
    }
    assert_eq!(scavenge(base.path()).members, 2);
    assert_eq!(unzipped(base.path()), members([("ar.zip/0", &b"0"[..]), ("ar.zip/1", b"1")]));
}

#[test]
fn a_writer_whose_files_are_always_taken_away_goes_on() {
    let base = support::fast_base();
    let real: Arc<dyn Files> = Arc::new(RealFiles::open(base.path()).unwrap());
    // A process that does not get the CPU: between any two of its steps others look for what they may take, twice.
    let (faulty, plan) = Faulty::new(real, usize::MAX, Fault::Stopped);
    let path = base.path().to_owned();
    plan.always(move || {
        let options = ScavengeOptions { flush: true, ..ScavengeOptions::default() };
        let scavenger = Scavenger::open(&path, options).unwrap();
        for _ in 0..2 {
            assert!(scavenger.scavenge().unwrap().errors.is_empty());
        }
    });
    for (number, sync) in [Sync::Rotation, Sync::Each].into_iter().enumerate() {
        let worker = Packer::open_on(faulty.clone(), Options { sync, ..Options::default() }).unwrap();
        put(&worker, format!("ar.zip/{number}"), number.to_string().as_bytes());
        worker.close().unwrap();
    }
    scavenge(base.path());
    assert_clean(base.path());
    assert_eq!(unzipped(base.path()), members([("ar.zip/0", &b"0"[..]), ("ar.zip/1", b"1")]));
}

/// What is to be picked up, small and large.
fn source(base: &Path, size: usize) -> PathBuf {
    let source = base.join("finished");
    fs::write(&source, vec![b'x'; size]).unwrap();
    source
}

/// Picks up while something else happens to the source, before the so manieth operation of the packer.
fn pickup_while(
    base: &Path,
    at: usize,
    source: &Path,
    happens: impl FnOnce() + Send + 'static,
) -> (bool, Result<(), PackError>) {
    let real: Arc<dyn Files> = Arc::new(RealFiles::open(base).unwrap());
    let (faulty, plan) = Faulty::new(real, at, Fault::Stopped);
    plan.meanwhile(happens);
    let packer = Packer::open_on(faulty, Options { spill_bytes: 100_000, ..Options::default() }).unwrap();
    let done = packer.pickup(source, "ar.zip/x");
    let hit = plan.hit.lock().unwrap().is_some();
    packer.close().unwrap();
    (hit, done)
}

#[test]
fn a_source_that_vanishes_is_packed_whole_or_not_at_all() {
    for size in [100, 3 << 20] {
        for at in 0.. {
            let base = support::fast_base();
            let path = source(base.path(), size);
            let gone = path.clone();
            let (hit, done) = pickup_while(base.path(), at, &path, move || {
                // It is gone already when only the staging file is left to close.
                let _ = fs::remove_file(gone);
            });
            if !hit {
                assert!(at > 3, "only {at} operations");
                break;
            }
            assert_eq!(scavenge(base.path()).members, u64::from(done.is_ok()), "{at}: {done:?}");
            let found = unzipped(base.path());
            assert!(found.values().all(|content| *content == vec![b'x'; size]), "{at}");
            assert_clean(base.path());
        }
    }
}

#[test]
fn a_source_that_another_file_replaces_stays() {
    for size in [100, 3 << 20] {
        for at in 0.. {
            let base = support::fast_base();
            let path = source(base.path(), size);
            let (other, onto) = (base.path().join("other"), path.clone());
            fs::write(&other, "another file").unwrap();
            let (hit, done) = pickup_while(base.path(), at, &path, move || fs::rename(other, onto).unwrap());
            if !hit {
                break;
            }
            // Which of them it packed is what it saw; nobody loses the other one.
            scavenge(base.path());
            let found = unzipped(base.path());
            let packed = found.values().next().map(Vec::len);
            let kept = fs::read(&path).ok();
            let is_other_safe = packed == Some(12) || kept.as_deref() == Some(b"another file");
            assert!(is_other_safe, "{at}: {done:?}, packed {packed:?}, kept {:?}", kept.map(|kept| kept.len()));
        }
    }
}

#[test]
fn a_source_that_still_changes_is_not_removed_and_nothing_is_packed() {
    let base = support::fast_base();
    let path = source(base.path(), 3 << 20);
    let grows = path.clone();
    // The third write: the first pieces were copied by then.
    let (hit, done) = pickup_while(base.path(), 4, &path, move || {
        fs::OpenOptions::new().append(true).open(grows).unwrap().write_all(b"more").unwrap();
    });
    assert!(hit && matches!(done, Err(PackError::Changed { .. })), "{done:?}");
    assert_eq!(fs::metadata(&path).unwrap().len(), (3 << 20) + 4);
    assert!(scavenge(base.path()).is_idle());
    assert_clean(base.path());
}

#[test]
fn a_clock_that_is_a_day_behind_loses_nothing() {
    let base = support::base();
    let packer = packer(base.path());
    put(&packer, "ar.zip/1", b"1");
    let open = base.path().join(STAGING_DIR).join(&staged(base.path(), "")[0]);
    let status = Command::new("touch").args(["-d", "now - 1 day"]).arg(&open).status().unwrap();
    assert!(status.success());
    // It looks abandoned, and is taken from a writer that goes on all the same.
    assert_eq!(scavenge(base.path()).members, 1);
    put(&packer, "ar.zip/2", b"2");
    packer.close().unwrap();
    assert_eq!(scavenge(base.path()).members, 1);
    assert_eq!(unzipped(base.path()), members([("ar.zip/1", &b"1"[..]), ("ar.zip/2", b"2")]));
}

const DIES_AT: &str = "KEEPWATCH_PACK_DIES_AT";

/// What a process of this test's own program does when it is told to: works, collects, and is killed before one of its
/// operations.
#[test]
fn role() {
    let Some(at) = std::env::var_os(DIES_AT) else { return };
    let base = std::env::current_dir().unwrap();
    let real: Arc<dyn Files> = Arc::new(RealFiles::open(&base).unwrap());
    let (files, plan) = Faulty::new(real, at.to_str().unwrap().parse().unwrap(), Fault::Stopped);
    plan.meanwhile(|| {
        let own = std::process::id().to_string();
        let _ = Command::new("kill").args(["-KILL", &own]).status();
        unreachable!("it was killed");
    });
    let files: Arc<dyn Files> = files;
    for round in 0..2 {
        let options = Options { spill_bytes: 2000, ..Options::default() };
        let packer = Packer::open_on(Arc::clone(&files), options).unwrap();
        for member in 0..3 {
            let (name, content) = member_of(round, member);
            let mut handle = packer.create(&name).unwrap();
            handle.write_all(&content).unwrap();
            handle.finish().unwrap();
            std::io::stdout().write_all(format!("\nFINISHED {round} {member}\n").as_bytes()).unwrap();
        }
        packer.close().unwrap();
        Scavenger::open_on(Arc::clone(&files), ScavengeOptions::default()).scavenge().unwrap();
    }
    println!("\nCAME TO THE END");
}

fn member_of(round: usize, member: usize) -> (String, Vec<u8>) {
    let name = format!("{}.zip/r{round}/m{member}", if member == 2 { "d/other" } else { "ar" });
    let content = name.repeat(if member == 1 { 300 } else { 3 }).into_bytes();
    (name, content)
}

/// Claims, work directories and staging files of a process that is dead are taken in the very next round, without
/// waiting for anything to become old.
#[test]
fn what_a_dead_process_left_is_packed_in_the_next_round() {
    let mut cases: Vec<(tempfile::TempDir, Members, usize)> = Vec::new();
    for at in 0.. {
        let base = support::fast_base();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "role", "--nocapture", "--test-threads=1"])
            .env(DIES_AT, at.to_string())
            .current_dir(base.path())
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        if out.contains("CAME TO THE END") {
            assert!(at > 60, "only {at} operations");
            break;
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "{at}: {out}");
        let finished = out.lines().filter_map(|line| line.strip_prefix("FINISHED ")).map(|line| {
            let (round, member) = line.split_once(' ').unwrap();
            let (name, content) = member_of(round.parse().unwrap(), member.parse().unwrap());
            (name.into_bytes(), content)
        });
        let finished: Members = finished.collect();
        scavenge(base.path());
        assert_clean(base.path());
        let spills = staged(base.path(), "");
        assert!(spills.is_empty(), "{at}: {spills:?}");
        cases.push((base, finished, at));
    }
    let bases: Vec<PathBuf> = cases.iter().map(|(base, ..)| base.path().to_owned()).collect();
    for ((_, finished, at), found) in cases.iter().zip(unzipped_all(&bases)) {
        for (name, content) in finished {
            assert_eq!(found.get(name), Some(content), "{at}: {}", String::from_utf8_lossy(name));
        }
        assert!(found.keys().all(|name| !name.contains(&b'~')), "{at}: a name twice");
        assert!(found.len() <= finished.len() + 1, "{at}");
    }
}
