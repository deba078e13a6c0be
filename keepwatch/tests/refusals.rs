//! What cannot go well is refused before anything is changed: the message names the thing and the remedy, and the exit
//! code is the promised one.
#![allow(clippy::unwrap_used)]

mod disturb;
mod support;

use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

use disturb::{Ground, Mounted, assert_unchanged, content, journal_files};
use support::{Dice, Keepwatch, is_root, sh, shake, skipped, wait_for};

/// A state directory of a service that ran and was stopped.
fn used(ground: &Ground) -> Keepwatch {
    let mut keepwatch = Keepwatch::on(&ground.state(), &ground.tree());
    keepwatch.start_and_settle();
    shake(&ground.tree(), &mut Dice::new(5), 600);
    keepwatch.assert_same(&ground.tree());
    keepwatch.stop();
    keepwatch
}

/// The command ends with this code, says all these words on stderr and nothing on stdout, and nothing was changed in the
/// state directory (where there is none: none was made).
fn assert_refused(keepwatch: &Keepwatch, args: &[&str], code: i32, words: &[&str]) {
    let before = content(&keepwatch.state);
    let was_there = keepwatch.state.exists();
    let output = keepwatch.ask(args);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
    for word in words {
        assert!(told.contains(word), "{args:?}: `{word}` is not in: {told}");
    }
    assert!(!told.contains("panicked"), "{told}");
    assert_eq!(output.stdout, b"", "{args:?}");
    assert_eq!(keepwatch.state.exists(), was_there, "{args:?} made the state directory");
    assert_unchanged(&before, &keepwatch.state);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn roots_that_are_the_same_or_nested() {
    let ground = Ground::new();
    let (tree, inner) = (ground.tree(), ground.tree().join("in ner"));
    fs::create_dir(&inner).unwrap();
    let link = ground.path().join("link");
    symlink(&tree, &link).unwrap();
    let keepwatch = Keepwatch::on(&ground.state(), &tree);
    let two = |one: &Path, other: &Path, words: &[&str]| {
        for command in ["run", "reconcile"] {
            let args = [command, "--root", text(one), "--root", text(other)];
            assert_refused(&keepwatch, &args, 2, words);
        }
    };
    two(&tree, &inner, &["lies within", text(&inner), text(&tree), "ignore = [\"/in ner/\"]"]);
    two(&inner, &tree, &["lies within", text(&inner), text(&tree), "ignore = [\"/in ner/\"]"]);
    two(&tree, &tree, &["are the same directory", text(&tree)]);
    two(&tree, &link, &["are the same directory", text(&tree)]);
    two(&link.join("in ner"), &tree, &["lies within", text(&link.join("in ner")), text(&tree)]);
    // The outer one leaves it out: then both are watched.
    let toml = format!(
        "[roots.outer]\npath = {tree:?}\nignore = [\"/in ner/\"]\n[roots.inner]\npath = {:?}\n",
        tree.join("in ner")
    );
    let mut both = Keepwatch::configured(&ground.state(), &toml);
    both.start_and_settle();
    both.stop();
}

#[test]
fn roots_that_a_bind_mount_makes_the_same_or_nested() {
    if !is_root() {
        return skipped("roots_that_a_bind_mount_makes_the_same_or_nested", "only root can mount");
    }
    let ground = Ground::new();
    let (tree, inner) = (ground.tree(), ground.tree().join("inner"));
    fs::create_dir(&inner).unwrap();
    let keepwatch = Keepwatch::on(&ground.state(), &tree);
    let same = ground.path().join("same");
    let _same = Mounted::bind(&tree, &same);
    let below = ground.path().join("below");
    let _below = Mounted::bind(&inner, &below);
    let args = ["run", "--root", text(&tree), "--root", text(&same)];
    assert_refused(&keepwatch, &args, 2, &["are the same directory", text(&tree), text(&same), "remove one"]);
    let args = ["run", "--root", text(&tree), "--root", text(&below)];
    assert_refused(&keepwatch, &args, 2, &["lies inside", text(&tree), text(&below), "ignore = [\"/inner/\"]"]);
}

#[test]
fn roots_that_are_not_there_or_are_files() {
    let ground = Ground::new();
    let fresh = Keepwatch::on(&ground.state(), &ground.tree());
    let missing = ground.path().join("quiet/mistyped");
    let words = ["there is no directory", text(&missing), "configuration"];
    assert_refused(&fresh, &["run", "--root", text(&missing)], 2, &words);
    let file = ground.path().join("file");
    fs::write(&file, "").unwrap();
    let words = ["is not a directory", text(&file), "watch the directory that holds it"];
    assert_refused(&fresh, &["run", "--root", text(&file)], 2, &words);
    assert_refused(&fresh, &["run"], 2, &["nothing to watch", "--root DIR"]);

    // One that was watched before is absent, not mistyped, also on the command line.
    let mut known = used(&ground);
    let (files, records) = (known.listed().len(), known.records().len());
    let away = ground.path().join("quiet/away");
    fs::rename(ground.tree(), &away).unwrap();
    known.start();
    wait_for("the root is absent", || known.status().unwrap()["roots"][0]["state"] == "absent");
    assert_eq!(known.ask(&["status"]).status.code(), Some(1));
    assert_eq!(known.listed().len(), files, "an absent root lost files");
    fs::rename(&away, ground.tree()).unwrap();
    known.settle();
    known.assert_same(&ground.tree());
    known.stop();
    assert!(
        known.records()[records..].iter().all(|record| record["do"] != "delete"),
        "an absence was taken for deletions"
    );
}

#[test]
fn a_configuration_with_an_unknown_key() {
    let ground = Ground::new();
    let toml = format!("backlog_mx = 5\n[roots.tree]\npath = {:?}\nignoer = []\n", ground.tree());
    let keepwatch = Keepwatch::configured(&ground.state(), &toml);
    let config = keepwatch.config.clone().unwrap();
    let words = ["`backlog_mx`", "`backlog_max`", "`ignoer`", "`ignore`", text(&config)];
    for command in ["run", "status", "ls", "reconcile"] {
        assert_refused(&keepwatch, &[command], 2, &words);
    }
}

#[test]
fn a_state_directory_that_is_in_use() {
    let ground = Ground::new();
    let mut keepwatch = used(&ground);
    keepwatch.start_and_settle();
    let pid = format!("process {}", keepwatch.pid());
    let words = ["in use by another keepwatch", &pid, text(&keepwatch.state), "--state-dir"];
    for args in [vec!["run", "--root", text(&ground.tree())], vec!["replay", "--to", "inventory"]] {
        let output = keepwatch.ask(&args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        for word in words {
            assert!(told.contains(word), "{args:?}: `{word}` is not in: {told}");
        }
    }
    // The one that was there first is none the worse.
    fs::write(ground.tree().join("still watched"), "").unwrap();
    keepwatch.assert_same(&ground.tree());
    keepwatch.stop();
}

#[test]
fn a_state_directory_on_a_network_file_system() {
    const TEST: &str = "a_state_directory_on_a_network_file_system";
    if !is_root() {
        return skipped(TEST, "only root can mount without further set-up");
    }
    let sftp_server = Path::new("/usr/lib/openssh/sftp-server");
    if !Path::new("/dev/fuse").exists() || !sftp_server.exists() || which("sshfs").is_none() {
        return skipped(TEST, "it needs sshfs, openssh-sftp-server and /dev/fuse");
    }
    let ground = Ground::new();
    let (far, near) = (ground.path().join("far"), ground.path().join("near"));
    fs::create_dir(&far).unwrap();
    fs::create_dir(&near).unwrap();
    // The server is spoken to over a pipe: no daemon, no key.
    let wrapper = ground.path().join("ssh");
    fs::write(&wrapper, format!("#!/bin/sh\nexec {}\n", sftp_server.display())).unwrap();
    sh("chmod", &["755", text(&wrapper)]);
    let option = format!("ssh_command={}", wrapper.display());
    sh("sshfs", &["-o", &option, &format!("nowhere:{}", far.display()), text(&near)]);
    let _mounted = Mounted::already(&near);
    let keepwatch = Keepwatch::on(&near.join("state"), &ground.tree());
    let output = keepwatch.ask(&["run", "--root", text(&ground.tree())]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    for word in ["network file system", "local disk", text(&keepwatch.state)] {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    assert_eq!(content(&keepwatch.state).len(), 0, "something was written there");
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.exists())
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    if !is_root() {
        return skipped("a_state_directory_that_cannot_be_written", "only root can mount");
    }
    let ground = Ground::new();
    let keepwatch = used(&ground);
    let read_only = Mounted::bind(&keepwatch.state, &keepwatch.state).read_only();
    let words = [text(&keepwatch.state), "Read-only file system"];
    assert_refused(&keepwatch, &["run", "--root", text(&ground.tree())], 3, &words);
    assert_refused(&keepwatch, &["init", "--new-epoch"], 3, &words);
    drop(read_only);
    keepwatch.assert_verifies();
}

#[test]
fn a_journal_that_is_damaged() {
    let ground = Ground::new();
    let mut keepwatch = used(&ground);
    let file = journal_files(&keepwatch.state).pop().unwrap();
    let sound = fs::read(&file).unwrap();
    // One bit in the middle of an old record.
    let record = keepwatch.records()[20].clone();
    let needle = format!("{{\"seq\":{},", record["seq"]);
    let at = sound.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap() + needle.len() + 30;
    let flipped = [sound[at] ^ 1];
    fs::File::options().write(true).open(&file).unwrap().write_at(&flipped, at as u64).unwrap();

    let words = ["the journal is damaged", text(&file), "record ", "nothing was changed", "journal verify"];
    let words = [&words[..], &["keepwatch init --new-epoch"]].concat();
    for command in ["run", "reconcile"] {
        assert_refused(&keepwatch, &[command, "--root", text(&ground.tree())], 1, &words);
    }
    let verified = keepwatch.ask(&["journal", "verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    let finding = &report["findings"][0];
    assert_eq!((finding["kind"].as_str(), finding["file"].as_str()), (Some("damaged"), Some(text(&file))), "{report}");

    // The remedy works, and the damaged file is kept as it is.
    keepwatch.ok(&["init", "--new-epoch"]);
    keepwatch.start_and_settle();
    keepwatch.assert_same(&ground.tree());
    keepwatch.stop();
    keepwatch.assert_verifies();
    let kept = content(&keepwatch.state.join("journal"));
    assert!(kept.values().any(|(_, bytes)| bytes.len() == sound.len() && bytes[at] == flipped[0]));
}

#[test]
fn a_journal_of_a_newer_format() {
    let ground = Ground::new();
    let keepwatch = used(&ground);
    let file = journal_files(&keepwatch.state).pop().unwrap();
    let header = fs::read_to_string(&file).unwrap().replacen("\"keepwatch_journal\":1", "\"keepwatch_journal\":2", 1);
    fs::write(&file, header).unwrap();
    let words = ["journal format 2", text(&file), "newer keepwatch"];
    for command in ["run", "reconcile"] {
        assert_refused(&keepwatch, &[command, "--root", text(&ground.tree())], 2, &words);
    }
}
