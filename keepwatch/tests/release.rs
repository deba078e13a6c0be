//! Freeing space: what enough replicas are proved to hold is released, stays in the inventory, and comes back.
#![allow(clippy::unwrap_used)]

mod house;
mod support;

use std::fs;

use house::{House, files, flip, rel};
use support::pair::make_tree;
use support::{Dice, wait_for};

#[test]
fn what_is_released_is_not_deleted_and_comes_back() {
    let mut house = House::with_replicas(&["vault", "second"], "");
    let config = house.keepwatch.config.clone().unwrap();
    let text = fs::read_to_string(&config).unwrap().replace("records\"\n[", "records\"\ncopies_min = 2\n[");
    fs::write(&config, &text).unwrap();
    make_tree(&house.root(), 60);
    house.keepwatch.start_and_settle();
    house.wait_copied(&["vault", "second"]);
    let count = files(&house.root()).len();
    assert_eq!(
        house.keepwatch.ask(&["ls", "--under-copied", "-0"]).stdout.iter().filter(|byte| **byte == 0).count(),
        support::walk(&house.root()).values().filter(|row| row.kind == "file").count()
    );
    assert_eq!(house.keepwatch.ask(&["ls", "--under-copied"]).status.code(), Some(1));
    let copies = |house: &House| house.keepwatch.json_lines(&["status", "--json"])[0]["roots"][0]["copies"].clone();
    let regular = support::walk(&house.root()).values().filter(|row| row.kind == "file").count();
    assert_eq!(copies(&house), serde_json::json!({"min": 2, "under_copied": regular}));
    house.verify(&[], 0);
    house.verify(&["--replica", "vault"], 0);
    assert_eq!(house.keepwatch.ask(&["ls", "--under-copied"]).status.code(), Some(1));
    house.verify(&["--replica", "second"], 0);
    assert_eq!(house.told(&["ls", "--under-copied"], 0), "");
    assert_eq!(copies(&house)["under_copied"], 0);
    assert!(house.told(&["status"], 0).contains("every file is proved to be at 2 replicas or more"));
    let dir = house.root().join("d1");
    let released: Vec<_> = files(&dir);
    // One copy has rotted: that file stays, and a dry run changes nothing.
    flip(&house.copies("second").join(rel(&house.root(), &released[0])), &mut Dice::new(2));
    house.told(&["release", "-n", dir.to_str().unwrap()], 3);
    assert!(released.iter().all(|path| path.exists()));
    let text = house.told(&["release", dir.to_str().unwrap()], 3);
    assert!(text.contains("1 of the 2 replicas"), "{text}");
    assert!(released[0].exists() && released[1..].iter().all(|path| !path.exists()), "{text}");
    // Whatever looks at it now, nothing is deleted anywhere.
    house.told(&["reconcile"], 0);
    house.keepwatch.stop();
    house.keepwatch.start_and_settle();
    house.told(&["reconcile"], 0);
    house.told(&["replica", "sync", "vault"], 0);
    assert_eq!(house.verify(&[], 0).0.len(), 0);
    for path in &released {
        let listed = house.keepwatch.json_lines(&["ls", "--json", path.to_str().unwrap()]);
        assert_eq!(listed.len(), 1, "{path:?}");
        assert!(house.copies("vault").join(rel(&house.root(), path)).exists());
    }
    house.keepwatch.ok(&["status"]);
    assert_eq!(files(&house.copies("vault")).len(), count);
    // And it comes back.
    let back = house.root();
    house.told(&["restore", dir.to_str().unwrap(), "--from", "vault", "--to", back.to_str().unwrap()], 0);
    assert_eq!(files(&house.root()).len(), count);
    wait_for("what came back is seen", || house.keepwatch.ask(&["reconcile"]).status.success());
    house.settle();
    house.wait_copied(&["vault"]);
    house.keepwatch.stop();
    house.keepwatch.ok(&["replay"]);
}

#[test]
fn release_refuses_what_is_not_safe() {
    let mut house = House::with_replicas(&["vault"], "");
    make_tree(&house.root(), 5);
    house.keepwatch.start_and_settle();
    house.wait_copied(&["vault"]);
    let one = files(&house.root()).remove(0);
    fs::hard_link(&one, house.root().join("twice")).unwrap();
    house.keepwatch.caught_up();
    assert!(house.told(&["release", one.to_str().unwrap()], 3).contains("other names"));
    assert!(house.told(&["release", "/nowhere"], 2).contains("in no root"));
    assert!(house.told(&["release", house.root().join("no").to_str().unwrap()], 2).contains("knows no file"));
    house.keepwatch.stop();
    let config = house.keepwatch.config.clone().unwrap();
    let text = fs::read_to_string(&config).unwrap().replace("records\"\n[", "records\"\ncopies_min = 2\n[");
    fs::write(&config, &text).unwrap();
    assert!(house.told(&["release", one.to_str().unwrap()], 2).contains("1 replicas hold that root"));
    assert!(one.exists());
}
