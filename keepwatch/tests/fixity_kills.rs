//! Repair, restore and import are killed at any moment, and go on to the right end.
#![allow(clippy::unwrap_used)]

mod house;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use house::{House, files, flip, rel};
use support::pair::{differences, make_tree};
use support::{Dice, sized, wait_for, walk};

/// Begins a command, and ends it at a moment by chance, up to how long it took when it was left alone.
fn kill_amid(house: &House, args: &[&str], dice: &mut Dice, took: Duration) {
    let mut command = house.keepwatch.command(args);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let micros = usize::try_from(took.as_micros()).unwrap().max(1);
    std::thread::sleep(Duration::from_micros(dice.below(micros) as u64));
    let _ = child.kill();
    child.wait().unwrap();
}

/// A root of which a replica holds all, hashed; the service does not run.
fn copied(count: usize) -> House {
    let mut house = House::with_replicas(&["vault"], "");
    make_tree(&house.root(), count);
    house.keepwatch.start_and_settle();
    house.wait_copied(&["vault"]);
    house.settle();
    house.keepwatch.stop();
    house
}

fn contents(house: &House, of: &[PathBuf]) -> BTreeMap<String, Vec<u8>> {
    of.iter().map(|path| (rel(&house.root(), path), fs::read(path).unwrap())).collect()
}

#[test]
fn a_repair_that_is_killed_goes_on() {
    let mut house = copied(sized(120, 2_000));
    let mut dice = Dice::new(41);
    let all = files(&house.root());
    let good = contents(&house, &all);
    let vault = house.copies("vault");
    let repair: &[&str] = &["verify", "--replica", "vault", "--repair"];
    let mut rotten = 0;
    let mut damage = |dice: &mut Dice| {
        for _ in 0..all.len() / 10 {
            let path = vault.join(rel(&house.root(), &all[dice.below(all.len())]));
            rotten += 1;
            flip(&path, dice);
        }
    };
    damage(&mut dice);
    let begun = Instant::now();
    house.told(repair, 1);
    let took = begun.elapsed();
    assert_eq!(differences(&house.root(), &vault), Vec::<String>::new(), "with the times of directories");
    for _ in 0..sized(6, 50) {
        damage(&mut dice);
        kill_amid(&house, repair, &mut dice, took);
        // At no moment a copy is anything but the damaged or the mended one, whole.
        for (path, bytes) in &good {
            let there = fs::read(vault.join(path)).unwrap();
            assert_eq!(there.len(), bytes.len(), "{path}");
        }
    }
    assert!(rotten > 0);
    house.told(repair, 1);
    assert_eq!(house.verify(&["--replica", "vault"], 0).0.len(), 0);
    // Directories into which something was put just before a kill have their times again once the service has run.
    house.keepwatch.start_and_settle();
    wait_for("the times of directories", || differences(&house.root(), &vault).is_empty());
    house.keepwatch.stop();
    assert!(good.iter().all(|(path, bytes)| fs::read(vault.join(path)).unwrap() == *bytes));
    assert_eq!(contents(&house, &all), good, "no original was touched");
    house.keepwatch.assert_verifies();
}

#[test]
fn an_original_whose_repair_is_killed_is_mended() {
    let house = copied(sized(80, 1_000));
    let mut dice = Dice::new(43);
    let all = files(&house.root());
    let good = contents(&house, &all);
    let root = house.root().display().to_string();
    let repair: &[&str] = &["verify", "--repair", &root];
    let begun = Instant::now();
    let _ = house.keepwatch.ask(repair);
    let took = begun.elapsed();
    for _ in 0..sized(6, 50) {
        for _ in 0..all.len() / 10 {
            flip(&all[dice.below(all.len())], &mut dice);
        }
        kill_amid(&house, repair, &mut dice, took);
    }
    let _ = house.keepwatch.ask(repair);
    assert_eq!(house.verify(&[], 0).0.len(), 0);
    assert_eq!(contents(&house, &all), good);
    house.keepwatch.assert_verifies();
}

#[test]
fn a_restore_that_is_killed_goes_on() {
    let house = copied(sized(200, 5_000));
    let mut dice = Dice::new(47);
    let (root, back) = (house.root().display().to_string(), house.dir.path().join("back"));
    let to = back.display().to_string();
    let restore: &[&str] = &["restore", &root, "--from", "vault", "--to", &to];
    let begun = Instant::now();
    house.told(restore, 0);
    let took = begun.elapsed();
    fs::remove_dir_all(&back).unwrap();
    for round in 0..sized(6, 50) {
        kill_amid(&house, restore, &mut dice, took);
        if round % 10 == 9 {
            let _ = fs::remove_dir_all(&back);
        }
        // What is there under its name is whole.
        for (path, row) in walk(&back) {
            let path = String::from_utf8(path).unwrap();
            if row.kind == "file" && !path.starts_with(".keepwatch-") {
                assert!(fs::read(back.join(&path)).unwrap() == fs::read(house.root().join(&path)).unwrap(), "{path}");
            }
        }
    }
    let told = house.told(restore, 0);
    assert!(told.contains("restored and verified"), "{told}");
    assert_eq!(differences(&house.root(), &back), Vec::<String>::new());
}

#[test]
fn an_import_that_is_killed_goes_on() {
    let mut house = House::with_replicas(&["vault"], "");
    make_tree(&house.root(), sized(300, 10_000));
    for (from, to) in [(house.root(), house.copies("vault")), (house.root(), house.dir.path().join("vault/aoc/data"))] {
        fs::create_dir_all(&to).unwrap();
        support::sh("cp", &["-a", &format!("{}/.", from.display()), &to.display().to_string()]);
    }
    let before = walk(&house.dir.path().join("vault"));
    let config = house.keepwatch.config.clone().unwrap();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.split("[replicas").next().unwrap()).unwrap();
    house.keepwatch.start_and_settle();
    house.settle();
    house.keepwatch.stop();
    fs::write(&config, &text).unwrap();
    let mut dice = Dice::new(53);
    let import: &[&str] = &["replica", "import", "vault", "--import-origins", "--json"];
    for _ in 0..sized(6, 50) {
        kill_amid(&house, import, &mut dice, Duration::from_millis(sized(150, 3_000) as u64));
    }
    house.told(import, 0);
    let again = house.keepwatch.json_lines(import).remove(0);
    assert_eq!((&again["enrolled"], &again["presumed"]), (&0.into(), &0.into()), "{again}");
    let count = walk(&house.root()).values().filter(|row| row.kind == "file").count();
    let records = house.keepwatch.records();
    let told = |word: &str| {
        let of = records.iter().filter(|record| record["do"] == word && record["type"] == "file");
        let mut paths: Vec<String> = of.map(|record| format!("{} {}", record["root"], record["path"])).collect();
        paths.sort();
        let all = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), all, "nothing is told of twice");
        all
    };
    assert_eq!((told("enrolled"), told("copied")), (count, 2 * count));
    let mut after = walk(&house.dir.path().join("vault"));
    after.retain(|path, _| !path.starts_with(b".keepwatch-"));
    assert_eq!(after, before, "nothing there was changed");
    house.keepwatch.assert_verifies();
}
