//! A backup that was made by others is taken over without sending one file again.
#![allow(clippy::unwrap_used)]

mod house;
mod support;

use std::fs;
use std::process::Command;

use house::{House, files};
use support::pair::make_tree;
use support::{sh, sized};

/// Files that were sent to a replica, by the records: those whose copy is not presumed or proved by import.
fn sent(house: &House) -> usize {
    let records = house.keepwatch.records();
    records
        .iter()
        .filter(|record| record["do"] == "copied" && record["proof"] == "written")
        .filter(|record| record["type"] == "file")
        .count()
}

#[test]
fn an_rsync_backup_is_taken_over() {
    if Command::new("rsync").arg("--version").output().is_err() {
        return support::skipped("an_rsync_backup_is_taken_over", "there is no rsync");
    }
    for how in ["attributes", "content"] {
        let mut house = House::with_replicas(&["vault"], "");
        make_tree(&house.root(), sized(300, 100_000));
        std::os::unix::fs::symlink("d1", house.root().join("link")).unwrap();
        let copies = house.copies("vault");
        fs::create_dir_all(&copies).unwrap();
        sh("rsync", &["-a", &format!("{}/", house.root().display()), &format!("{}/", copies.display())]);
        // What differs, what is foreign, and what only has another time.
        let all = files(&copies);
        fs::write(&all[0], "older").unwrap();
        fs::write(copies.join("foreign"), "not ours").unwrap();
        fs::File::options().write(true).open(&all[1]).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        // The inventory is made without the replica, so that nothing is copied before the import.
        let config = house.keepwatch.config.clone().unwrap();
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.split("[replicas").next().unwrap()).unwrap();
        house.keepwatch.start_and_settle();
        house.settle();
        house.keepwatch.stop();
        fs::write(&config, &text).unwrap();
        let flags: &[&str] = if how == "content" { &["--content"] } else { &[] };
        let import = |house: &House| {
            house.keepwatch.json_lines(&[&["replica", "import", "vault", "--json"], flags].concat()).remove(0)
        };
        let sum = import(&house);
        let (taken, other) = if how == "content" { ("proved", "presumed") } else { ("presumed", "proved") };
        let count = support::walk(&house.root()).values().filter(|row| row.kind == "file").count() as u64;
        let same = if how == "content" { count - 1 } else { count - 2 };
        assert_eq!((&sum[taken], &sum[other]), (&same.into(), &0.into()), "{sum}");
        assert_eq!(sum["foreign"].as_u64().unwrap(), count + 1 - same, "{sum}");
        let before = house.keepwatch.records().len();
        let again = import(&house);
        assert_eq!((again["proved"].as_u64(), again["presumed"].as_u64()), (Some(0), Some(0)), "{again}");
        assert_eq!(house.keepwatch.records().len(), before, "a second import changes nothing");
        house.keepwatch.start_and_settle();
        house.told(&["replica", "sync", "vault"], 0);
        assert_eq!(sent(&house) as u64, count - same);
        assert!(copies.join("foreign").exists());
        fs::remove_file(copies.join("foreign")).unwrap();
        assert_eq!(house.verify(&["--replica", "vault"], 0).0.len(), 0);
        house.keepwatch.stop();
        house.keepwatch.ok(&["replay"]);
        assert!(house.told(&["replica", "import", "vaul"], 2).contains("did you mean `vault`"));
    }
}

/// A scan without a service does not wait until every file is known to be complete.
#[test]
fn a_backup_of_a_tree_that_was_only_scanned_is_taken_over() {
    let mut house = House::with_replicas(&["vault"], "");
    make_tree(&house.root(), sized(600, 20_000));
    let copies = house.copies("vault");
    fs::create_dir_all(&copies).unwrap();
    sh("cp", &["-a", &format!("{}/.", house.root().display()), &copies.display().to_string()]);
    let config = house.keepwatch.config.clone().unwrap();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.split("[replicas").next().unwrap()).unwrap();
    let scanned = house.keepwatch.ask(&["reconcile", "-q"]);
    assert!(matches!(scanned.status.code(), Some(0 | 1)), "{scanned:?}");
    fs::write(&config, &text).unwrap();
    let sum = house.keepwatch.json_lines(&["replica", "import", "vault", "--json"]).remove(0);
    let count = support::walk(&house.root()).values().filter(|row| row.kind == "file").count();
    assert_eq!((&sum["presumed"], &sum["foreign"]), (&count.into(), &0.into()), "{sum}");
    house.keepwatch.start_and_settle();
    house.settle();
    house.told(&["replica", "sync", "vault"], 0);
    assert_eq!(sent(&house), 0);
    house.keepwatch.stop();
}
