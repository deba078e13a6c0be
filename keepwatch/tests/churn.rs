//! Real churn under the service's eyes: what it knows in the end is what is there.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use support::{Dice, Keepwatch, shake, sized, wait_for};

const METHODS: [&str; 3] = ["fanotify", "inotify", "poll"];

fn config(root: &Path, method: &str) -> String {
    let poll = if method == "poll" { "poll = \"1s\"\n" } else { "" };
    format!("[roots.tree]\npath = {root:?}\nwatch = {method:?}\n{poll}")
}

fn started(base: &Path, method: &str) -> Keepwatch {
    let tree = base.join("tree");
    fs::create_dir_all(&tree).unwrap();
    let mut keepwatch = Keepwatch::configured(&base.join("state"), &config(&tree, method));
    keepwatch.start_and_settle();
    keepwatch
}

#[test]
fn after_random_churn_the_inventory_is_the_tree_by_every_method() {
    for method in METHODS {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        let mut keepwatch = started(base.path(), method);
        for seed in 0..4 {
            shake(&tree, &mut Dice::new(seed + 1), sized(3_000, 50_000));
            keepwatch.assert_same(&tree);
        }
        keepwatch.stop();
        keepwatch.assert_same(&tree);
        keepwatch.assert_verifies();
        keepwatch.assert_last_records(&tree);
    }
}

#[test]
fn churn_while_it_was_down_is_found_at_the_next_start() {
    let base = tempfile::tempdir().unwrap();
    let tree = base.path().join("tree");
    let mut keepwatch = started(base.path(), "fanotify");
    for seed in 0..5 {
        shake(&tree, &mut Dice::new(100 + seed), 500);
        keepwatch.stop();
        shake(&tree, &mut Dice::new(200 + seed), 500);
        keepwatch.start_and_settle();
        keepwatch.assert_same(&tree);
    }
    keepwatch.stop();
    keepwatch.assert_verifies();
    keepwatch.assert_last_records(&tree);
}

#[test]
fn three_thousand_new_directories_with_a_file_in_each_are_all_told() {
    for method in METHODS {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        let mut keepwatch = started(base.path(), method);
        for index in 0..3_000 {
            let dir = tree.join(format!("a{index}/b/c"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("file"), "content").unwrap();
        }
        keepwatch.assert_same(&tree);
        if method == "fanotify" {
            let count = |word: &str| keepwatch.records().iter().filter(|record| record["do"] == word).count();
            wait_for("all writes are finished", || count("settled") == 3_000);
            assert_eq!(count("create"), 12_000);
        }
        keepwatch.stop();
        keepwatch.assert_verifies();
    }
}
