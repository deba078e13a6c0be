//! Fixity from outside: what rotted, what changed honestly, what is missing, foreign or unreadable, told apart.
#![allow(clippy::unwrap_used)]

mod house;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use house::{House, files, flip, rel};
use support::pair::make_tree;
use support::{Dice, Keepwatch, is_root, sized};

#[test]
fn rot_is_told_from_honest_edits() {
    for digest in ["sha256", "blake3"] {
        let mut house = House::new(&format!("digest = \"{digest}\""));
        make_tree(&house.root(), sized(400, 50_000));
        house.keepwatch.start_and_settle();
        house.settle();
        let all = files(&house.root());
        let (found, sum) = house.verify(&[], 0);
        assert_eq!(
            (found.len(), sum["verified"].as_u64().unwrap() as usize),
            (0, support::walk(&house.root()).values().filter(|row| row.kind == "file").count())
        );
        let mut dice = Dice::new(11);
        let picked: Vec<&PathBuf> = all.iter().step_by(all.len() / sized(60, 200)).collect();
        let mut rotten = BTreeSet::new();
        for (number, path) in picked.into_iter().enumerate() {
            if number % 2 == 0 {
                flip(path, &mut dice);
                rotten.insert(rel(&house.root(), path));
            } else {
                fs::write(path, format!("honest {number}")).unwrap();
            }
        }
        let (found, _) = house.verify(&[], 1);
        assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), rotten);
        assert!(found.values().all(|what| what == "rot"), "{found:?}");
        // A part of the tree, and what was verified a moment ago.
        let one = house.root().join(rotten.first().unwrap());
        assert_eq!(house.verify(&[one.to_str().unwrap()], 1).0.len(), 1);
        assert_eq!(house.verify(&["--max-age", "1h"], 0).1["verified"], 0);
        let records = house.keepwatch.records();
        assert!(records.iter().filter(|record| record["do"] == "rot").count() >= rotten.len());
        house.keepwatch.assert_verifies();
        // A replay brings the same back, and the service needs not to run.
        house.keepwatch.stop();
        house.keepwatch.ok(&["replay"]);
        let status = house.keepwatch.ask(&["status"]);
        assert_eq!(status.status.code(), Some(1), "{}", String::from_utf8_lossy(&status.stdout));
        assert!(String::from_utf8_lossy(&status.stdout).contains("rotten"));
        let (found, _) = house.verify(&[], 1);
        assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), rotten);
    }
}

#[test]
fn what_was_missed_is_told_apart() {
    let mut house = House::new("");
    make_tree(&house.root(), 60);
    fs::write(house.root().join("linked"), "one content").unwrap();
    fs::hard_link(house.root().join("linked"), house.root().join("other-name")).unwrap();
    house.keepwatch.start_and_settle();
    house.settle();
    house.keepwatch.stop();
    // Nobody watches now.
    let all = files(&house.root());
    fs::write(&all[1], "changed while nobody looked").unwrap();
    fs::remove_file(&all[2]).unwrap();
    fs::write(house.root().join("brought"), "x").unwrap();
    fs::rename(house.root().join("linked"), house.root().join("renamed")).unwrap();
    let mut expected = BTreeMap::from([
        (rel(&house.root(), &all[1]), "changed".to_owned()),
        (rel(&house.root(), &all[2]), "missing".to_owned()),
        ("brought".to_owned(), "foreign".to_owned()),
        ("linked".to_owned(), "missing".to_owned()),
        ("renamed".to_owned(), "foreign".to_owned()),
    ]);
    if !is_root() {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o0);
        fs::set_permissions(&all[3], mode).unwrap();
        expected.insert(rel(&house.root(), &all[3]), "unreadable".to_owned());
    }
    assert_eq!(house.verify(&[], 1).0, expected);
    let what: BTreeSet<String> =
        house.keepwatch.records().iter().filter_map(|record| record["what"].as_str().map(str::to_owned)).collect();
    assert_eq!(what, BTreeSet::from(["changed", "foreign", "missing"].map(str::to_owned)));
    assert_eq!(house.keepwatch.ask(&["status"]).status.code(), Some(1));
    // Once it runs again all of that is known, and no finding any more.
    house.keepwatch.start_and_settle();
    house.settle();
    assert_eq!(house.keepwatch.status().unwrap()["needs"], serde_json::json!([]));
}

#[test]
fn without_a_service_what_nobody_writes_to_is_verified() {
    let house = House::new("");
    make_tree(&house.root(), 30);
    let mut written = fs::File::create(house.root().join("written")).unwrap();
    written.write_all(b"more comes").unwrap();
    fs::write(house.root().join("film.mov.part"), "half").unwrap();
    assert_eq!(house.keepwatch.ask(&["reconcile", "--summary"]).status.code(), Some(1));
    let all = files(&house.root());
    let (found, sum) = house.verify(&[], 0);
    let known = sum["hashed"].as_u64().unwrap() + sum["verified"].as_u64().unwrap();
    assert!(found.is_empty() && sum["busy"] == 2 && known >= all.len() as u64 - 2, "{sum}");
    // And not taken for news the next time.
    assert_eq!(house.verify(&[], 0).1["hashed"], 0);
    flip(&all[0], &mut Dice::new(7));
    fs::write(&all[1], "an honest edit").unwrap();
    assert_eq!(house.keepwatch.ask(&["reconcile", "--summary"]).status.code(), Some(1));
    drop(written);
    let (found, sum) = house.verify(&[], 1);
    assert_eq!(found, BTreeMap::from([(rel(&house.root(), &all[0]), "rot".to_owned())]));
    assert_eq!((&sum["hashed"], &sum["busy"]), (&2.into(), &1.into()), "{sum}");
    house.keepwatch.assert_verifies();
}

#[test]
fn a_root_that_is_away_has_lost_nothing() {
    let mut house = House::new("");
    make_tree(&house.root(), 10);
    house.keepwatch.start_and_settle();
    house.settle();
    house.keepwatch.stop();
    let before = house.keepwatch.records().len();
    let away = house.dir.path().join("away");
    fs::rename(house.root(), &away).unwrap();
    house.verify(&[], 4);
    fs::create_dir(house.root()).unwrap();
    house.verify(&[], 4);
    assert_eq!(house.keepwatch.records().len(), before);
    fs::remove_dir(house.root()).unwrap();
    fs::rename(&away, house.root()).unwrap();
    house.verify(&[], 0);
    let output = house.keepwatch.ask(&["verify", "/nowhere"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_no_finding() {
    let mut house = House::new("");
    let busy = house.root().join("busy");
    fs::write(&busy, vec![0; 8 << 20]).unwrap();
    make_tree(&house.root(), 50);
    house.keepwatch.start_and_settle();
    house.settle();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (until, path) = (std::sync::Arc::clone(&stop), busy.clone());
    let writer = std::thread::spawn(move || {
        let mut number = 0_u64;
        while !until.load(std::sync::atomic::Ordering::Acquire) {
            number += 1;
            let file = fs::File::options().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &number.to_le_bytes(), number % 4096 * 1024).unwrap();
            // Often enough for each reading, and no flood of events, all of which a verification waits for.
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
    });
    for _ in 0..10 {
        assert_eq!(house.verify(&[], 0).0, BTreeMap::new());
    }
    stop.store(true, std::sync::atomic::Ordering::Release);
    writer.join().unwrap();
    house.settle();
    assert!(fs::metadata(&busy).unwrap().size() > 0);
}

#[test]
fn a_verification_that_is_killed_goes_on() {
    let house = House::new("");
    make_tree(&house.root(), sized(300, 20_000));
    let mut keepwatch = Keepwatch::configured(
        &house.dir.path().join("state"),
        &support::read_text(&house.dir.path().join("state.toml")),
    );
    keepwatch.start_and_settle();
    house.settle();
    keepwatch.stop();
    let mut dice = Dice::new(5);
    let rotten: Vec<PathBuf> = files(&house.root()).into_iter().step_by(29).collect();
    rotten.iter().for_each(|path| flip(path, &mut dice));
    for round in 0..sized(8, 50) {
        let mut child = house.keepwatch.command(&["verify", "-q"]).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(dice.below(40 + round) as u64));
        let _ = child.kill();
        child.wait().unwrap();
    }
    let (found, _) = house.verify(&[], 1);
    assert_eq!(found.len(), rotten.len());
    house.keepwatch.assert_verifies();
}
