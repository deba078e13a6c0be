//! A state directory that is not the one it was: restored, cloned, or made of parts that do not belong together. It is
//! noticed and told, nothing is changed, and a new epoch makes it usable.
#![allow(clippy::unwrap_used)]

mod disturb;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use disturb::{Ground, assert_unchanged, content, copy};
use serde_json::Value;
use support::{Dice, Keepwatch, bytes, is_root, shake, skipped};

/// A service that has seen two stretches of changes, with a copy of the state directory from between them.
fn with_older_copy(ground: &Ground) -> (Keepwatch, PathBuf) {
    let (state, tree) = (ground.state(), ground.tree());
    let mut keepwatch = Keepwatch::on(&state, &tree);
    shake(&tree, &mut Dice::new(31), 400);
    keepwatch.start_and_settle();
    keepwatch.assert_same(&tree);
    keepwatch.stop();
    let older = ground.path().join("older");
    copy(&state, &older);
    keepwatch.start_and_settle();
    shake(&tree, &mut Dice::new(32), 400);
    keepwatch.assert_same(&tree);
    keepwatch.stop();
    (keepwatch, older)
}

fn run_to_end(keepwatch: &Keepwatch) -> Output {
    let flags: Vec<&str> = keepwatch.flags.iter().map(|flag| flag.to_str().unwrap()).collect();
    keepwatch.ask(&[&["run"], &flags[..]].concat())
}

/// The service does not start: findings, these words and the remedy on stderr, and nothing changed.
fn assert_refused(keepwatch: &Keepwatch, words: &[&str]) {
    let before = content(&keepwatch.state);
    let output = run_to_end(keepwatch);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for word in words.iter().chain(&["keepwatch init --new-epoch", keepwatch.state.to_str().unwrap()]) {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    assert_unchanged(&before, &keepwatch.state);
}

/// After a new epoch the next run reconciles in full, in a new journal, and what was before is kept.
fn assert_usable_after_new_epoch(keepwatch: &mut Keepwatch, tree: &Path) {
    let before = content(&keepwatch.state);
    let plan: Value = serde_json::from_slice(&keepwatch.ok(&["init", "--new-epoch", "-n", "--json"])).unwrap();
    assert_eq!(plan["dry_run"], true);
    assert_unchanged(&before, &keepwatch.state);
    let told: Value = serde_json::from_slice(&keepwatch.ok(&["init", "--new-epoch", "--json"])).unwrap();
    assert_eq!(told["journal_kept"], plan["journal_kept"]);

    // Every byte of the old journal and the old inventory is where it says.
    let id = told["journal_id"].as_str().unwrap().to_owned();
    let kept = PathBuf::from(told["journal_kept"].as_str().unwrap());
    assert_eq!(kept, keepwatch.state.join(format!("journal/epoch-{id}")));
    for (name, found) in before.iter().filter(|(name, _)| name.extension().is_some_and(|ext| ext == "jsonl")) {
        assert_eq!(&fs::read(kept.join(name.file_name().unwrap())).unwrap(), &found.1, "{}", name.display());
    }
    let inventory = PathBuf::from(told["inventory_kept"].as_str().unwrap());
    assert_eq!(inventory, keepwatch.state.join(format!("inventory-{id}.db")));
    assert_eq!(&fs::read(&inventory).unwrap(), &before[Path::new("inventory.db")].1);

    keepwatch.start_and_settle();
    keepwatch.assert_same(tree);
    let records = keepwatch.records();
    let gap = records.iter().find(|record| record["do"] == "gap").unwrap();
    assert_eq!(gap["reason"], "epoch", "{gap}");
    assert_eq!(records[0]["seq"], 1);
    let told_of = records.iter().filter(|record| record["via"] == "scan").map(|record| bytes(record, "path"));
    let told_of: std::collections::BTreeSet<Vec<u8>> = told_of.collect();
    for path in support::walk(tree).keys() {
        assert!(told_of.contains(path), "{} was not reconciled", support::show(path));
    }
    let status = keepwatch.status().unwrap();
    assert_ne!(status["journal"]["id"].as_str(), Some(&*id));
    fs::write(tree.join("after the new epoch"), "x").unwrap();
    keepwatch.assert_same(tree);
    keepwatch.stop();
    keepwatch.assert_verifies();
    keepwatch.assert_last_records(tree);
    // And from then on it is an ordinary state directory.
    keepwatch.start_and_settle();
    assert!(keepwatch.records().iter().filter(|record| record["reason"] == "epoch").count() == 1);
    keepwatch.stop();
}

#[test]
fn restored_from_an_older_copy_it_is_refused_until_a_new_epoch() {
    let ground = Ground::new();
    let (mut keepwatch, older) = with_older_copy(&ground);
    fs::remove_dir_all(&keepwatch.state).unwrap();
    copy(&older, &keepwatch.state);
    assert_refused(&keepwatch, &["is a copy or was restored from a backup"]);
    for args in [vec!["reconcile"], vec!["replay", "--to", "inventory"]] {
        let before = content(&keepwatch.state);
        let flags: Vec<&str> = keepwatch.flags.iter().map(|flag| flag.to_str().unwrap()).collect();
        let args = if args[0] == "reconcile" { [&args[..], &flags[..]].concat() } else { args };
        let output = keepwatch.ask(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_unchanged(&before, &keepwatch.state);
    }
    assert_usable_after_new_epoch(&mut keepwatch, &ground.tree());
}

#[test]
fn a_journal_rolled_back_under_a_newer_inventory_is_refused_until_a_new_epoch() {
    let ground = Ground::new();
    let (mut keepwatch, older) = with_older_copy(&ground);
    fs::remove_dir_all(keepwatch.state.join("journal")).unwrap();
    copy(&older.join("journal"), &keepwatch.state.join("journal"));
    assert_refused(&keepwatch, &["do not belong together", "the journal does not hold record"]);
    assert_usable_after_new_epoch(&mut keepwatch, &ground.tree());
}

#[test]
fn a_journal_that_went_on_otherwise_is_refused_until_a_new_epoch() {
    let ground = Ground::new();
    let (mut keepwatch, older) = with_older_copy(&ground);
    let inventory = fs::read(keepwatch.state.join("inventory.db")).unwrap();
    // The older state goes on, under other changes, and then meets the inventory of the newer one.
    for name in ["journal", "inventory.db"] {
        let at = keepwatch.state.join(name);
        if at.is_dir() {
            fs::remove_dir_all(&at).unwrap();
        } else {
            fs::remove_file(&at).unwrap();
        }
        copy(&older.join(name), &at);
    }
    keepwatch.start_and_settle();
    shake(&ground.tree(), &mut Dice::new(77), 3000);
    keepwatch.assert_same(&ground.tree());
    keepwatch.stop();
    fs::write(keepwatch.state.join("inventory.db"), inventory).unwrap();
    assert_refused(&keepwatch, &["do not belong together", "the journal does not hold record"]);
    assert_usable_after_new_epoch(&mut keepwatch, &ground.tree());
}

#[test]
fn a_missing_journal_is_refused_and_none_is_begun() {
    let ground = Ground::new();
    let (keepwatch, _) = with_older_copy(&ground);
    fs::remove_dir_all(keepwatch.state.join("journal")).unwrap();
    assert_refused(&keepwatch, &["do not belong together", "there is no journal"]);
    assert!(!keepwatch.state.join("journal").exists());
}

#[test]
fn an_inventory_rolled_back_or_lost_catches_up() {
    let ground = Ground::new();
    let (mut keepwatch, older) = with_older_copy(&ground);
    let records = keepwatch.records().len();
    for lost in [false, true] {
        let inventory = keepwatch.state.join("inventory.db");
        fs::remove_file(&inventory).unwrap();
        if !lost {
            copy(&older.join("inventory.db"), &inventory);
        }
        keepwatch.start_and_settle();
        keepwatch.assert_same(&ground.tree());
        keepwatch.stop();
        let found = keepwatch.records();
        let found: Vec<&Value> = found[records..].iter().filter(|record| record["via"] == "scan").collect();
        assert!(found.is_empty(), "nothing had changed, and this was found: {found:?}");
    }
    keepwatch.assert_verifies();
}

#[test]
fn cloned_to_another_machine_it_is_refused_until_a_new_epoch() {
    if !is_root() {
        return skipped("cloned_to_another_machine", "only root can show a process another /etc/machine-id");
    }
    let ground = Ground::new();
    let (keepwatch, _) = with_older_copy(&ground);
    // The very same directory, its files and handles included, as a cloned disk has them.
    let other = ground.path().join("machine-id");
    fs::write(&other, "0123456789abcdef0123456789abcdef\n").unwrap();
    let on_the_clone = |args: &[&str]| {
        let inner = keepwatch.command(args);
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "sh", "-c", "mount --bind \"$0\" /etc/machine-id && exec \"$@\""]).arg(&other);
        command.arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().unwrap()
    };
    let before = content(&keepwatch.state);
    let tree = ground.tree();
    let reconcile = ["reconcile", "--root", tree.to_str().unwrap()];
    let output = on_the_clone(&reconcile);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("was made on another machine") && told.contains("keepwatch init --new-epoch"), "{told}");
    assert_unchanged(&before, &keepwatch.state);

    let output = on_the_clone(&["init", "--new-epoch"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = on_the_clone(&reconcile);
    assert!(output.status.code().is_some_and(|code| code <= 1), "{}", String::from_utf8_lossy(&output.stderr));
    keepwatch.assert_same(&tree);
    let gap = keepwatch.records().into_iter().find(|record| record["do"] == "gap").unwrap();
    assert_eq!(gap["reason"], "epoch");
    // From now on it belongs to the clone.
    assert_refused(&keepwatch, &["was made on another machine"]);
}

#[test]
fn a_new_epoch_is_refused_while_the_service_runs_and_where_there_is_no_state() {
    let ground = Ground::new();
    let mut keepwatch = Keepwatch::on(&ground.state(), &ground.tree());
    keepwatch.start_and_settle();
    for args in [vec!["init", "--new-epoch"], vec!["init", "--new-epoch", "-n"]] {
        let output = keepwatch.ask(&args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(&format!("process {}", keepwatch.pid())), "{told}");
    }
    keepwatch.stop();
    let missing = Keepwatch::on(&ground.path().join("nowhere"), &ground.tree());
    let output = missing.ask(&["init", "--new-epoch"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!missing.state.exists());
}
