//! A fault at each single operation of workers and scavengers: what was finished is in its archive in the end, once.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keepwatch_pack::files::{Files, RealFiles};
use keepwatch_pack::{Limits, Options, PackError, Packer, STAGING_DIR, ScavengeOptions, Scavenger, Sync};
use support::faults::{Fault, Faulty, Plan};
use support::powercut::Disk;
use support::{Members, assert_clean, recover, unzipped_all};

/// So that parts are begun, merged and retired within a few members.
const LIMITS: Limits = Limits { members: 9, bytes: 1 << 20, small_bytes: 0, ratio: 2 };

/// Packs in several rounds, as far as it goes; what was finished.
fn run(files: &Arc<dyn Files>, sync: Sync) -> Members {
    let mut finished = Members::new();
    let mut attempted = 0_u32;
    for round in 0..6 {
        let options = Options { spill_bytes: 2000, sync, ..Options::default() };
        if let Ok(packer) = Packer::open_on(Arc::clone(files), options) {
            // Few and many by turns, so that some rounds merge and others do not.
            for member in 0..[5, 1, 1, 2, 4, 1][round] {
                attempted += 1;
                let name = format!("{}.zip/r{round}/m{member}", if member == 2 { "d/other" } else { "ar" });
                let content = attempted.to_string().repeat(if member == 1 { 3000 } else { 10 }).into_bytes();
                let Ok(mut handle) = packer.create(&name) else { continue };
                if handle.write_all(&content).is_ok() && handle.finish().is_ok() {
                    finished.insert(name.into_bytes(), content);
                }
            }
            let _ = packer.close();
        }
        let options = ScavengeOptions { limits: LIMITS, ..ScavengeOptions::default() };
        let _ = Scavenger::open_on(Arc::clone(files), options).scavenge();
    }
    finished
}

/// Runs with a fault at each operation, recovers, and looks at what there is.
fn every_operation(fault: Fault) {
    let mut cases: Vec<(tempfile::TempDir, Members, String)> = Vec::new();
    for at in 0.. {
        let base = support::fast_base();
        let real: Arc<dyn Files> = Arc::new(RealFiles::open(base.path()).unwrap());
        let (faulty, plan): (Arc<dyn Files>, Arc<Plan>) = {
            let (faulty, plan) = Faulty::new(real, at, fault);
            (faulty, plan)
        };
        let finished = run(&faulty, Sync::Rotation);
        let Some(hit) = *plan.hit.lock().unwrap() else {
            assert!(at > 300, "only {at} operations");
            break;
        };
        eprintln!("{fault:?} at {at}, {hit}");
        recover(base.path(), LIMITS);
        assert_clean(base.path());
        cases.push((base, finished, format!("{fault:?} at {at}, {hit}")));
    }
    let bases: Vec<PathBuf> = cases.iter().map(|(base, ..)| base.path().to_owned()).collect();
    for ((base, finished, case), found) in cases.iter().zip(unzipped_all(&bases)) {
        for (name, content) in finished {
            let there = found.get(name);
            let shown = String::from_utf8_lossy(name).into_owned();
            assert_eq!(there, Some(content), "{case}: {shown} in {:?}", base.path());
        }
        // What was not finished may be there, whole; nothing is there twice under another name.
        for name in found.keys() {
            assert!(!name.contains(&b'~'), "{case}: {}", String::from_utf8_lossy(name));
        }
    }
}

#[test]
fn killed_before_any_operation() {
    every_operation(Fault::Killed);
}

#[test]
fn killed_within_any_write() {
    every_operation(Fault::Torn);
}

#[test]
fn the_disk_is_full_at_any_operation() {
    every_operation(Fault::Fails(28));
}

#[test]
fn an_input_output_error_at_any_operation() {
    every_operation(Fault::Fails(5));
}

#[test]
fn any_operation_happens_and_is_reported_as_failed() {
    every_operation(Fault::AnswerLost);
}

/// On a network file system a file that another host claimed may seem to be there for a while.
#[test]
fn a_claim_that_fails_stops_no_other_one() {
    for (number, left) in [(2, 0), (5, 1)] {
        for at in 0.. {
            let base = support::fast_base();
            for name in ["ar.zip/1", "ar.zip/2"] {
                support::stage(base.path(), &[(name, name.as_bytes())]);
            }
            let real: Arc<dyn Files> = Arc::new(RealFiles::open(base.path()).unwrap());
            let (faulty, plan) = Faulty::new(real, at, Fault::Fails(number));
            let done = Scavenger::open_on(faulty, ScavengeOptions::default()).scavenge();
            let hit = plan.hit.lock().unwrap().unwrap();
            // The first rename of a round is a claim.
            if hit != "rename" {
                continue;
            }
            let report = done.unwrap();
            assert_eq!((report.members, report.errors.len()), (1, left), "{report:?}");
            assert_eq!(support::scavenge(base.path()).members, 1);
            assert_clean(base.path());
            break;
        }
    }
}

#[test]
fn stopped_before_any_operation_while_others_go_on() {
    // Once, so that the number of a generation is taken, and twice, so that it was taken and is free again.
    for rounds in [1, 2] {
        stopped(rounds, |base| {
            support::scavenge_with(base, ScavengeOptions { limits: LIMITS, ..ScavengeOptions::default() });
        });
    }
}

#[test]
fn stopped_before_any_operation_while_others_take_over() {
    stopped(2, |base| recover(base, LIMITS));
}

/// A scavenger is stopped before each of its operations; others pack two members in so many rounds; then it goes on.
fn stopped(rounds: usize, others: fn(&Path)) {
    let mut cases: Vec<(tempfile::TempDir, Members, String)> = Vec::new();
    for at in 0.. {
        let base = support::fast_base();
        let path = base.path().to_owned();
        let mut expected = Members::new();
        let mut stage = |names: &[&str]| {
            let list: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, name.as_bytes())).collect();
            support::stage(&path, &list);
            expected.extend(support::members(list));
        };
        // Three parts, of which the next round merges two, and a number that is retired.
        for names in [&["ar.zip/1", "ar.zip/2", "ar.zip/3", "ar.zip/4", "ar.zip/5"][..], &["ar.zip/6"]] {
            stage(names);
            recover(&path, LIMITS);
        }
        stage(&["ar.zip/7", "ar.zip/8", "ar.zip/9", "d/other.zip/1"]);
        expected.extend(support::members(["ar.zip/a", "ar.zip/b"].map(|name| (name, name.as_bytes()))));
        let real: Arc<dyn Files> = Arc::new(RealFiles::open(&path).unwrap());
        let (faulty, plan) = Faulty::new(real, at, Fault::Stopped);
        let inner = path.clone();
        plan.meanwhile(move || {
            for names in ["ar.zip/a", "ar.zip/b"].chunks(2 / rounds) {
                let list: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, name.as_bytes())).collect();
                support::stage(&inner, &list);
                others(&inner);
            }
        });
        let options = ScavengeOptions { limits: LIMITS, ..ScavengeOptions::default() };
        let done = Scavenger::open_on(faulty, options).scavenge();
        let Some(hit) = *plan.hit.lock().unwrap() else {
            assert!(at > 30, "only {at} operations");
            break;
        };
        // Whoever was taken over says so, and goes on.
        let errors = done.unwrap_or_else(|error| panic!("stopped at {at}, {hit}: {error}")).errors;
        let is_told = |error: &PackError| matches!(error, PackError::TakenOver { .. });
        assert!(errors.is_empty() || errors.iter().any(is_told), "stopped at {at}, {hit}: {errors:?}");
        recover(&path, LIMITS);
        assert_clean(&path);
        cases.push((base, expected, format!("stopped at {at}, {hit}")));
    }
    let bases: Vec<PathBuf> = cases.iter().map(|(base, ..)| base.path().to_owned()).collect();
    for ((_, expected, case), found) in cases.iter().zip(unzipped_all(&bases)) {
        assert_eq!(found.len(), expected.len(), "{case}: {:?}", found.keys());
        assert!(found == *expected, "{case}");
    }
}

/// A rename does two things: it finds the directories, and it moves. Others may take a scavenger's directory over between
/// the two, so that a part gets to `new/` though nobody can publish it any more.
#[test]
fn taken_over_within_a_rename() {
    let mut reached = false;
    for at in 0.. {
        let base = support::fast_base();
        support::stage(base.path(), &[("ar.zip/1", b"1")]);
        let real: Arc<dyn Files> = Arc::new(RealFiles::open(base.path()).unwrap());
        let (faulty, plan) = Faulty::new(real, at, Fault::Stopped);
        let own = base.path().join(STAGING_DIR);
        let (sender, moved) = std::sync::mpsc::channel();
        plan.meanwhile(move || {
            let Some(Ok(work)) = fs::read_dir(own.join("work")).into_iter().flatten().next() else { return };
            let work = work.path();
            let with = |ending: &str| {
                let paths = fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().path());
                paths.into_iter().find(|path| path.extension().is_some_and(|found| found == ending))
            };
            // It has built a part and written the text that would publish it.
            let (Some(text), Some(part), Some(claim)) = (with("gen"), with("zip"), with("closed")) else { return };
            let text = fs::read_to_string(text).unwrap();
            let Some(id) = text.split("part 0 ").nth(1).and_then(|line| line.split(' ').next()) else { return };
            fs::rename(part, own.join("new").join(format!("{id}.zip"))).unwrap();
            fs::rename(&claim, own.join(claim.file_name().unwrap())).unwrap();
            fs::remove_dir_all(&work).unwrap();
            sender.send(()).unwrap();
        });
        let done = Scavenger::open_on(faulty, ScavengeOptions::default()).scavenge();
        match *plan.hit.lock().unwrap() {
            None => break,
            Some("rename") if moved.try_recv().is_ok() => {}
            Some(_) => continue,
        }
        reached = true;
        let errors = done.unwrap().errors;
        assert!(matches!(errors[..], [PackError::TakenOver { .. }] | [_, PackError::TakenOver { .. }]), "{errors:?}");
        recover(base.path(), LIMITS);
        assert_clean(base.path());
        assert_eq!(support::unzipped(base.path()), support::members([("ar.zip/1", &b"1"[..])]));
    }
    assert!(reached, "no part was on its way");
}

/// Another scavenger publishes while one looks, stops before the part has its name, and a third gives it its name while the
/// first still looks: the part is never overlooked, or its members would be packed a second time.
#[test]
fn a_part_gets_its_name_between_any_two_looks() {
    let options = ScavengeOptions { limits: LIMITS, ..ScavengeOptions::default() };
    let stage = |base: &Path, names: &[&str]| {
        let packer = support::packer(base);
        names.iter().for_each(|name| support::put(&packer, format!("ar.zip/{name}"), name.as_bytes()));
        packer.close().unwrap();
    };
    let begin = || {
        let base = support::fast_base();
        // Two parts: what is under the archive's own name is known without a generation.
        for names in [&["1", "2", "3", "4", "5"][..], &["6"]] {
            stage(base.path(), names);
            recover(base.path(), LIMITS);
        }
        base
    };
    let killed = move |base: &Path| {
        stage(base, &["7"]);
        // It has published, and the part is on its way.
        let real = Arc::new(RealFiles::open(base).unwrap());
        let (faulty, _) = Faulty::new(real, usize::MAX, Fault::KilledAfter("link"));
        let _ = Scavenger::open_on(faulty, options).scavenge();
    };
    let (mut bases, mut waited, mut looks) = (Vec::new(), 0, 1);
    for first in 0.. {
        if first >= looks {
            break;
        }
        for second in first + 1..first + 5 {
            let base = begin();
            stage(base.path(), &["6", "8"]);
            let (faulty, plan) =
                Faulty::new(Arc::new(RealFiles::open(base.path()).unwrap()), usize::MAX, Fault::Stopped);
            let (path, waiting) = (base.path().to_owned(), base.path().join(STAGING_DIR).join("new"));
            let (sender, seen) = std::sync::mpsc::channel();
            plan.at_look(move |number| {
                if number == first {
                    killed(&path);
                } else if number == second {
                    let _ = sender.send(fs::read_dir(&waiting).is_ok_and(|mut dir| dir.next().is_some()));
                    // It knows the member, so that all it does is to put things in order.
                    stage(&path, &["1"]);
                    support::scavenge_with(&path, options);
                }
            });
            let report = Scavenger::open_on(faulty, options).scavenge().unwrap();
            assert!(report.errors.is_empty(), "{first}, {second}: {:?}", report.errors);
            waited += seen.try_iter().filter(|is_waiting| *is_waiting).count();
            looks = plan.looked();
            recover(base.path(), LIMITS);
            assert_clean(base.path());
            bases.push(base);
        }
    }
    assert!(waited > 10, "a part waited for its name {waited} times only");
    let paths: Vec<PathBuf> = bases.iter().map(|base| base.path().to_owned()).collect();
    let expected: Members =
        (1..=8).map(|name| (format!("ar.zip/{name}").into_bytes(), name.to_string().into_bytes())).collect();
    for found in unzipped_all(&paths) {
        assert!(found == expected, "{:?}", found.keys());
    }
}

/// What is staged goes only when its copy has been read back: a disk that writes something else at any write of a
/// scavenger costs nothing.
#[test]
fn a_disk_that_writes_something_else_costs_nothing() {
    let mut cases: Vec<(tempfile::TempDir, Members, String)> = Vec::new();
    for percent in [1, 30, 60, 99] {
        let mut noticed = 0;
        for at in 0.. {
            let base = support::fast_base();
            let path = base.path();
            let names = ["ar.zip/1", "ar.zip/2", "ar.zip/3", "ar.zip/4", "ar.zip/5", "ar.zip/6", "d/other.zip/1"];
            let list: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, name.as_bytes())).collect();
            support::stage(path, &list[..4]);
            recover(path, LIMITS);
            support::stage(path, &list[4..]);
            let real: Arc<dyn Files> = Arc::new(RealFiles::open(path).unwrap());
            let (faulty, plan) = Faulty::new(real, at, Fault::Flipped(percent));
            let options = ScavengeOptions { limits: LIMITS, ..ScavengeOptions::default() };
            let done = Scavenger::open_on(faulty, options).scavenge();
            let Some(hit) = *plan.hit.lock().unwrap() else {
                // A part of each of the archives.
                assert!(at > 30 && noticed >= 2, "only {at} operations, {noticed} noticed");
                break;
            };
            if hit != "write" {
                continue;
            }
            noticed += usize::from(!done.unwrap().errors.is_empty());
            recover(path, LIMITS);
            assert_clean(path);
            assert_eq!(support::staged(path, "quarantine"), Vec::<String>::new(), "flipped at {at}, {percent} %");
            cases.push((base, support::members(list), format!("flipped at {at}, {percent} %")));
        }
    }
    let bases: Vec<PathBuf> = cases.iter().map(|(base, ..)| base.path().to_owned()).collect();
    for ((_, expected, case), found) in cases.iter().zip(unzipped_all(&bases)) {
        assert!(found == *expected, "{case}: {:?}", found.keys());
    }
}

/// The power is cut before each operation, and what was not synced survives by chance.
#[test]
fn the_power_is_cut_before_any_operation() {
    let mut cases: Vec<(tempfile::TempDir, Members, String)> = Vec::new();
    for seed in 0..support::sized(2, 20) as u64 {
        for at in 0.. {
            let disk = Disk::default();
            let (faulty, plan): (Arc<dyn Files>, Arc<Plan>) = {
                let (faulty, plan) = Faulty::new(Arc::new(disk.clone()), at, Fault::Killed);
                (faulty, plan)
            };
            let finished = run(&faulty, Sync::Each);
            let Some(hit) = *plan.hit.lock().unwrap() else {
                assert!(at > 300, "only {at} operations");
                break;
            };
            let base = support::fast_base();
            disk.cut(&mut support::Dice::new(seed * 1_000_000 + at as u64), base.path());
            recover(base.path(), LIMITS);
            assert_clean(base.path());
            cases.push((base, finished, format!("cut at {at}, {hit}, seed {seed}")));
        }
    }
    let bases: Vec<PathBuf> = cases.iter().map(|(base, ..)| base.path().to_owned()).collect();
    for ((base, finished, case), found) in cases.iter().zip(unzipped_all(&bases)) {
        for (name, content) in finished {
            let shown = String::from_utf8_lossy(name).into_owned();
            assert_eq!(found.get(name), Some(content), "{case}: {shown} in {:?}", base.path());
        }
    }
}
