//! `keepwatch mirror` on real files: copies, moves, guards.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use support::pair::{Pair, make_tree, walk};
use support::{Dice, shake, sized, wait_for};

#[test]
fn a_tree_of_all_kinds_is_copied_once_and_then_nothing_is_sent_again() {
    let pair = Pair::new();
    let source = pair.source();
    make_tree(&source, sized(400, 20_000));
    symlink("d1/nowhere", source.join("link")).unwrap();
    fs::write(source.join("empty"), "").unwrap();
    fs::write(source.join("a\nb 'c' -\"\u{e9}"), "odd").unwrap();
    fs::write(source.join("a-b"), "beside").unwrap();
    fs::create_dir_all(source.join("a/b")).unwrap();
    fs::write(source.join("a/b/c"), "x").unwrap();
    fs::create_dir(source.join("hollow")).unwrap();
    fs::set_permissions(source.join("hollow"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(source.join("a-b"), fs::Permissions::from_mode(0o604)).unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    drop(sparse);
    fs::hard_link(source.join("a-b"), source.join("a/linked")).unwrap();
    symlink("../empty", source.join("a/points")).unwrap();
    fs::hard_link(source.join("a/points"), source.join("a/points-too")).unwrap();
    pair.once_fine();
    pair.assert_same();
    assert!(fs::metadata(pair.target().join("sparse")).unwrap().blocks() < 64, "holes stay holes");
    assert!(pair.once_fine().contains("0 copied"), "nothing is sent twice");
    // The same without reading it here, into a state and a target of their own.
    let mut unread = Pair::new();
    unread.flags.push("--no-hash".to_owned());
    fs::remove_dir(unread.source()).unwrap();
    fs::rename(&source, unread.source()).unwrap();
    unread.once_fine();
    unread.assert_same();
    assert!(unread.once_fine().contains("0 copied"));
}

#[test]
fn what_changed_while_nothing_ran_is_brought_over() {
    let pair = Pair::new();
    let source = pair.source();
    make_tree(&source, 200);
    pair.once_fine();
    fs::rename(source.join("d3"), source.join("moved")).unwrap();
    fs::remove_file(source.join("d4/e4/f4")).unwrap();
    fs::write(source.join("d5/e0/f5"), "other").unwrap();
    fs::set_permissions(source.join("d6/e1/f6"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(source.join("d7/e2/f7"), source.join("d8/f7")).unwrap();
    let told = pair.once_fine();
    pair.assert_same();
    assert!(told.contains("1 copied"), "only the content that is new is sent: {told}");
    let trash = pair.trash();
    for kept in ["d4/e4/f4", "d5/e0/f5"] {
        assert!(trash.contains(&PathBuf::from(kept)), "{kept} is kept: {trash:?}");
    }
}

#[test]
fn a_target_that_holds_the_files_already_is_recognised() {
    let pair = Pair::new();
    make_tree(&pair.source(), 100);
    let copied = Command::new("cp").arg("-aT").arg(pair.source()).arg(pair.target()).status().unwrap();
    assert!(copied.success());
    fs::write(pair.target().join("foreign"), "not ours").unwrap();
    let told = pair.once_fine();
    assert!(told.contains("0 copied"), "{told}");
    assert_eq!(fs::read(pair.target().join("foreign")).unwrap(), b"not ours");
}

#[test]
fn refusals_name_the_thing_and_touch_nothing() {
    let pair = Pair::new();
    make_tree(&pair.source(), 5);
    let program = || {
        let mut command = Command::new(support::program());
        command.env_clear().env("HOME", pair.dir.path()).arg("mirror").arg("--once");
        // Another state is another keepwatch.
        command.arg("--state-dir").arg(pair.dir.path().join("other"));
        command
    };
    let told = |command: &mut Command, code: i32, words: &str| {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(words), "{text}");
    };
    let inside = pair.source().join("d1");
    told(program().arg(pair.source()).arg(&inside), 2, "lie in one another");
    told(program().arg(pair.source()).arg("gopher://x/y"), 2, "gopher");
    let missing = pair.dir.path().join("missing");
    told(program().arg(pair.source()).arg(&missing), 4, "make the directory, or mount");
    // What was written wrong is told whether the target is there or not.
    told(program().arg(pair.source()).arg(pair.source().join("missing")), 2, "lie in one another");
    told(program().arg("--source-filter=(").arg(pair.source()).arg(&missing), 2, "regular expression `(`");
    told(program().arg("--bwlimit=zz").arg(pair.source()).arg(&missing), 2, "`zz` is no bandwidth");
    told(program().arg(&missing).arg(pair.target()), 2, "is its disk mounted?");
    told(program().arg(pair.source().join("d1/e1/f1")).arg(pair.target()), 2, "is not a directory");
    told(program().arg("--source-prefix").arg(&inside).arg(pair.source()).arg(pair.target()), 2, "source prefix");
    assert_eq!(fs::read_dir(pair.target()).unwrap().count(), 0);
    pair.once_fine();
    let output = program().arg(pair.source()).arg(pair.target()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("belongs to another keepwatch"), "{text}");
}

#[test]
fn the_copy_follows_under_churn() {
    let mut pair = Pair::new();
    let source = pair.source();
    make_tree(&source, 100);
    pair.start(&["--delete-delay=1s", "--allow-deletes"]);
    pair.wait_same();
    let mut dice = Dice::new(11);
    for _ in 0..sized(4, 40) {
        shake(&source, &mut dice, 300);
        fs::write(source.join("round"), format!("{}", dice.below(1_000_000))).unwrap();
        wait_for("the round is there", || {
            fs::read(pair.target().join("round")).ok() == fs::read(source.join("round")).ok()
        });
    }
    pair.wait_same();
    pair.stop();
    pair.assert_same();
}

#[test]
fn what_changes_while_the_first_scan_goes_on_is_copied_as_it_becomes() {
    for round in 0..sized(4, 40) {
        let mut pair = Pair::new();
        let source = pair.source();
        make_tree(&source, sized(3_000, 20_000));
        let mut dice = Dice::new(round as u64);
        pair.start(&["--delete-delay=1s", "--allow-deletes"]);
        for number in 0..dice.below(40) {
            shake(&source, &mut dice, 30);
            let (one, other) = (dice.below(17), dice.below(17));
            // Some of these are not there any more.
            let _ = fs::rename(source.join(format!("d{one}")), source.join(format!("d{other}/moved-{number}")));
            let _ = fs::hard_link(source.join(format!("d{other}/e1/f{one}")), source.join(format!("link-{number}")));
        }
        if round % 2 == 1 {
            pair.kill();
            pair.start(&["--delete-delay=1s", "--allow-deletes"]);
        }
        pair.wait_alike();
        pair.stop();
        pair.wait_alike();
    }
}

#[test]
fn a_renamed_directory_is_renamed_at_the_target() {
    let mut pair = Pair::new();
    let source = pair.source();
    make_tree(&source, 300);
    pair.start(&[]);
    pair.wait_same();
    let inode = |path: &str| fs::metadata(pair.target().join(path)).map(|meta| meta.ino()).ok();
    let before = inode("d2/e2/f2");
    assert!(before.is_some());
    fs::rename(source.join("d2"), source.join("d3/inner")).unwrap();
    wait_for("the directory is renamed", || inode("d3/inner/e2/f2") == before && inode("d2").is_none());
    fs::rename(source.join("d4/e4/f4"), source.join("f4")).unwrap();
    let file = inode("d4/e4/f4");
    wait_for("the file is renamed", || inode("f4") == file && inode("d4/e4/f4").is_none());
    pair.wait_same();
    pair.stop();
}

#[test]
fn killed_at_any_moment_it_goes_on() {
    let mut pair = Pair::new();
    let source = pair.source();
    make_tree(&source, sized(300, 5_000));
    let mut dice = Dice::new(5);
    for _ in 0..sized(6, 100) {
        pair.start(&["--delete-delay=1s", "--allow-deletes"]);
        for _ in 0..50 {
            let number = dice.below(200);
            let path = source.join(format!("d{}/e{}/f{number}", number % 17, number % 5));
            fs::write(path, vec![number as u8; dice.below(50_000)]).unwrap();
        }
        // At whatever moment that is.
        std::thread::sleep(std::time::Duration::from_millis(dice.below(700) as u64));
        pair.kill();
    }
    pair.start(&["--delete-delay=1s", "--allow-deletes"]);
    pair.wait_same();
    pair.stop();
    pair.assert_same();
}

#[test]
fn killed_amid_renames_it_copies_nothing_again() {
    let mut pair = Pair::new();
    let (source, mut dice) = (pair.source(), Dice::new(3));
    make_tree(&source, sized(300, 5_000));
    pair.start(&[]);
    pair.wait_same();
    let copied = |pair: &Pair| {
        let records = pair.records().into_iter();
        records
            .filter(|record| record["do"] == "copied" && record["type"] == "file" && record["old_path"].is_null())
            .count()
    };
    let before = copied(&pair);
    for round in 0..sized(20, 60) {
        for dir in 0..17 {
            let (from, to) = (format!("d{dir}-{round}"), format!("d{dir}-{}", round + 1));
            let from = if round == 0 { format!("d{dir}") } else { from };
            fs::rename(source.join(from), source.join(to)).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(dice.below(300) as u64));
        pair.kill();
        pair.start(&[]);
        pair.wait_same();
    }
    pair.stop();
    assert_eq!(copied(&pair), before);
}

#[test]
fn nothing_is_deleted_where_it_may_be_a_mistake() {
    let pair = Pair::new();
    let source = pair.source();
    make_tree(&source, 50);
    pair.once_fine();
    let copies = walk(&pair.target()).len();
    // The directory is another, and empty: what was mounted there is gone.
    fs::rename(&source, pair.dir.path().join("away")).unwrap();
    fs::create_dir(&source).unwrap();
    let _ = pair.once(&["--allow-deletes"]);
    assert_eq!(walk(&pair.target()).len(), copies);
    fs::remove_dir(&source).unwrap();
    fs::rename(pair.dir.path().join("away"), &source).unwrap();
    pair.once_fine();
    // Emptied by hand.
    for entry in fs::read_dir(&source).unwrap().flatten() {
        fs::remove_dir_all(entry.path()).unwrap();
    }
    fs::write(source.join("last"), "").unwrap();
    pair.once_fine();
    assert_eq!(pair.trash().iter().filter(|path| path.to_string_lossy().contains("/f")).count(), 50, "few go at once");
    make_tree(&source, 300);
    pair.once_fine();
    for number in 0..10 {
        fs::remove_dir_all(source.join(format!("d{number}"))).unwrap();
    }
    let output = pair.once(&[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("deletes within an hour"), "{text}");
    assert!(pair.target().join("d1").exists());
    assert!(pair.once(&["--allow-deletes"]).status.success());
    pair.assert_same();
}

#[test]
fn a_target_that_is_not_the_one_is_not_written_to() {
    let pair = Pair::new();
    make_tree(&pair.source(), 20);
    pair.once_fine();
    fs::rename(pair.target(), pair.dir.path().join("unmounted")).unwrap();
    fs::create_dir(pair.target()).unwrap();
    fs::write(pair.source().join("new"), "x").unwrap();
    let output = pair.once(&[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("is it mounted"), "{text}");
    assert_eq!(fs::read_dir(pair.target()).unwrap().count(), 0, "the bare mount point stays bare");
    fs::remove_dir(pair.target()).unwrap();
    fs::rename(pair.dir.path().join("unmounted"), pair.target()).unwrap();
    pair.once_fine();
    pair.assert_same();
}
