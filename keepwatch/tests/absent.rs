//! Roots and mounts that vanish and come back: what is not there is not deleted.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Keepwatch, bytes, one_root, sh};

const EVENTS: [&str; 2] = ["fanotify", "inotify"];
/// A service at work may hold a file system for as long as this after the last change.
const RELEASE_MAX: Duration = Duration::from_secs(2);

/// What can be mounted; gone when dropped, wherever it is mounted then.
struct Disk {
    image: PathBuf,
    device: Option<String>,
    at: PathBuf,
    mounted: bool,
}

impl Disk {
    /// An ext4 in an image file beside `at`, with a UUID of its own.
    fn ext4(at: &Path, name: &str) -> Option<Self> {
        let image = at.with_file_name(format!("{name}.img"));
        fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status().ok()?;
        assert!(made.success());
        let device = Command::new("losetup").args(["--find", "--show"]).arg(&image).output().ok()?;
        if !device.status.success() {
            return None;
        }
        let device = String::from_utf8(device.stdout).unwrap().trim().to_owned();
        Some(Disk { image, device: Some(device), at: at.to_owned(), mounted: false })
    }

    fn tmpfs(at: &Path) -> Self {
        Disk { image: PathBuf::new(), device: None, at: at.to_owned(), mounted: false }
    }

    fn mount(&mut self) {
        fs::create_dir_all(&self.at).unwrap();
        let at = self.at.to_str().unwrap();
        match &self.device {
            Some(device) => sh("mount", &[device, at]),
            None => sh("mount", &["-t", "tmpfs", "-o", "size=24m", "keepwatch-test", at]),
        };
        self.mounted = true;
    }

    fn try_unmount(&mut self) -> bool {
        let done = Command::new("umount").arg(&self.at).output().unwrap().status.success();
        self.mounted &= !done;
        done
    }

    /// Unmounts beside a running service, which may be busy there for a moment.
    fn unmount(&mut self) {
        let start = Instant::now();
        while !self.try_unmount() {
            assert!(start.elapsed() < RELEASE_MAX, "{} is held", self.at.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
        }
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").args(["--detach", device]).status();
            let _ = fs::remove_file(&self.image);
        }
    }
}

/// A service on a root that can be unmounted. The service ends before the disk goes.
struct Stage {
    keepwatch: Keepwatch,
    disk: Disk,
    tree: PathBuf,
    base: tempfile::TempDir,
}

impl Stage {
    fn new(method: &str, ext4: bool) -> Option<Self> {
        if !support::is_root() {
            return None;
        }
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        let mut disk = if ext4 { Disk::ext4(&tree, "right")? } else { Disk::tmpfs(&tree) };
        disk.mount();
        fill(&tree);
        let mut keepwatch = Keepwatch::configured(&base.path().join("state"), &one_root(&tree, method));
        keepwatch.start_and_settle();
        Some(Stage { keepwatch, disk, tree, base })
    }

    fn root(&self) -> Value {
        self.keepwatch.status().unwrap()["roots"][0].clone()
    }

    fn wait_absent(&self) {
        support::wait_for("the root is absent", || self.root()["state"] == "absent");
        let output = self.keepwatch.ask(&["status"]);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(!why(&self.keepwatch).is_empty());
    }

    fn why(&self) -> String {
        why(&self.keepwatch)
    }

    fn deletes(&self) -> usize {
        self.keepwatch.records().iter().filter(|record| record["do"] == "delete").count()
    }

    /// The reasons of gaps that are not closed.
    fn open_gaps(&self) -> Vec<Value> {
        let records = self.keepwatch.records();
        let closed: Vec<&Value> =
            records.iter().filter(|record| record["do"] == "gap_closed").map(|record| &record["gap"]).collect();
        let open = records.iter().filter(|record| record["do"] == "gap" && !closed.contains(&&record["seq"]));
        open.map(|record| record["reason"].clone()).collect()
    }

    fn finish(&mut self) {
        self.keepwatch.settle();
        self.keepwatch.assert_same(&self.tree);
        assert_eq!(self.open_gaps(), Vec::<Value>::new());
        self.keepwatch.stop();
        self.keepwatch.assert_verifies();
        self.keepwatch.assert_last_records(&self.tree);
    }
}

/// What `status` says is wrong.
fn why(keepwatch: &Keepwatch) -> String {
    let status = keepwatch.status().unwrap();
    let problems = status["problems"].as_array().unwrap().iter();
    problems.map(|problem| problem["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("; ")
}

fn fill(tree: &Path) {
    for dir in 0..5 {
        let dir = tree.join(format!("dir {dir}/below"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..10 {
            fs::write(dir.join(format!("file {file}")), "content").unwrap();
        }
    }
}

fn churn(tree: &Path, files: usize) {
    let dir = tree.join("churn");
    fs::create_dir_all(&dir).unwrap();
    for file in 0..files {
        fs::write(dir.join(format!("{file}")), "churned").unwrap();
    }
}

fn unprivileged(test: &str) {
    support::skipped(test, "mounting needs root, loop devices and mkfs.ext4");
}

#[test]
fn an_unmounted_root_is_absent_and_exact_again_when_it_is_back() {
    for (method, ext4) in [("fanotify", true), ("inotify", true), ("fanotify", false), ("inotify", false)] {
        let Some(mut stage) = Stage::new(method, ext4) else {
            return unprivileged("an_unmounted_root_is_absent_and_exact_again_when_it_is_back");
        };
        for soon in [false, true] {
            churn(&stage.tree, 200);
            if !soon {
                stage.keepwatch.assert_same(&stage.tree);
            }
            let (deletes, listed) = (stage.deletes(), stage.keepwatch.listed());
            stage.disk.unmount();
            stage.wait_absent();
            assert_eq!(stage.open_gaps(), ["absent"], "{method}");
            // What is written to the bare mount point is no business of the root's.
            fs::write(stage.tree.join("not the root's"), "x").unwrap();
            fs::create_dir(stage.tree.join("dir 0")).unwrap();
            stage.keepwatch.caught_up();
            assert_eq!(stage.root()["state"], "absent");
            assert_eq!(stage.deletes(), deletes);
            assert!(stage.keepwatch.changes_since(0).iter().all(|record| bytes(record, "path") != b"not the root's"));
            if !soon {
                assert!(support::differences(&stage.keepwatch.listed(), &Default::default()).len() >= listed.len());
            }
            fs::remove_file(stage.tree.join("not the root's")).unwrap();
            fs::remove_dir(stage.tree.join("dir 0")).unwrap();
            // A tmpfs does not outlive its mount: another one is another disk.
            if !ext4 {
                break;
            }
            stage.disk.mount();
            churn(&stage.tree, 100);
            stage.keepwatch.settle();
            stage.keepwatch.assert_same(&stage.tree);
            assert_eq!(stage.deletes(), deletes, "{method}");
            assert_eq!(stage.open_gaps(), Vec::<Value>::new());
        }
        if ext4 {
            stage.finish();
        }
    }
}

#[test]
fn another_disk_in_its_place_is_not_the_root_until_it_is_accepted() {
    for method in EVENTS {
        let Some(mut stage) = Stage::new(method, true) else {
            return unprivileged("another_disk_in_its_place_is_not_the_root_until_it_is_accepted");
        };
        let deletes = stage.deletes();
        stage.disk.unmount();
        stage.wait_absent();
        let mut other = Disk::ext4(&stage.tree, "other").unwrap();
        other.mount();
        fs::write(stage.tree.join("of another disk"), "x").unwrap();
        support::wait_for("status says how to accept it", || stage.why().contains("keepwatch root accept tree"));
        stage.keepwatch.caught_up();
        assert_eq!(stage.deletes(), deletes);
        assert!(!stage.keepwatch.listed().contains_key(&b"of another disk"[..]));
        // The right one comes back.
        other.unmount();
        stage.disk.mount();
        stage.keepwatch.settle();
        stage.keepwatch.assert_same(&stage.tree);
        assert_eq!(stage.deletes(), deletes);
        // The other one comes to stay, also over a restart.
        stage.disk.unmount();
        stage.wait_absent();
        other.mount();
        support::wait_for("status says how to accept it", || stage.why().contains("keepwatch root accept tree"));
        stage.keepwatch.stop();
        stage.keepwatch.start();
        stage.wait_absent();
        assert_eq!(stage.deletes(), deletes);
        stage.keepwatch.ok(&["root", "accept", "tree"]);
        stage.keepwatch.settle();
        stage.keepwatch.assert_same(&stage.tree);
        assert!(stage.deletes() > deletes);
        let accepted =
            stage.keepwatch.records().iter().any(|record| record["do"] == "config" && record["accepted"] == true);
        assert!(accepted);
        fs::write(stage.tree.join("watched again"), "x").unwrap();
        stage.finish();
        drop(other);
    }
}

#[test]
fn a_root_directory_renamed_away_is_absent_until_it_is_back() {
    for method in EVENTS {
        let base = tempfile::tempdir().unwrap();
        let (tree, away) = (base.path().join("tree"), base.path().join("away"));
        fill(&tree);
        let mut keepwatch = Keepwatch::configured(&base.path().join("state"), &one_root(&tree, method));
        keepwatch.start_and_settle();
        let absent = |keepwatch: &Keepwatch| {
            support::wait_for("the root is absent", || keepwatch.status().unwrap()["roots"][0]["state"] == "absent");
        };
        fs::rename(&tree, &away).unwrap();
        absent(&keepwatch);
        fs::write(away.join("written while away"), "x").unwrap();
        fs::rename(&away, &tree).unwrap();
        keepwatch.settle();
        keepwatch.assert_same(&tree);
        assert!(keepwatch.changes_since(0).iter().all(|record| record["do"] != "delete"));
        fs::write(tree.join("dir 1/after"), "x").unwrap();
        keepwatch.assert_same(&tree);
        // Gone for good, but its deletion was not asked for by name: the root is absent.
        fs::remove_dir_all(&tree).unwrap();
        absent(&keepwatch);
        keepwatch.stop();
        keepwatch.assert_verifies();
    }
}

#[test]
fn content_whose_removal_was_witnessed_is_deleted() {
    for method in EVENTS {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        fill(&tree);
        let mut keepwatch = Keepwatch::configured(&base.path().join("state"), &one_root(&tree, method));
        keepwatch.start_and_settle();
        for entry in fs::read_dir(&tree).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        keepwatch.assert_same(&tree);
        assert_eq!(keepwatch.status().unwrap()["roots"][0]["state"], "watching");
        let deletes = keepwatch.changes_since(0).iter().filter(|record| record["do"] == "delete").count();
        assert_eq!(deletes, 5 * 12, "{method}");
        assert!(keepwatch.listed().is_empty());
        // Empty and known to be empty: the next start has nothing to doubt.
        keepwatch.stop();
        keepwatch.start_and_settle();
        keepwatch.stop();
        keepwatch.assert_verifies();
    }
}

#[test]
fn content_that_went_unseen_is_doubted_until_a_person_says_so() {
    for method in ["fanotify", "inotify", "poll"] {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        fill(&tree);
        let mut keepwatch = Keepwatch::configured(&base.path().join("state"), &one_root(&tree, method));
        keepwatch.start_and_settle();
        keepwatch.stop();
        fs::remove_dir_all(&tree).unwrap();
        fs::create_dir(&tree).unwrap();
        keepwatch.start();
        let root = |keepwatch: &Keepwatch| keepwatch.status().unwrap()["roots"][0].clone();
        support::wait_for("the root is absent", || root(&keepwatch)["state"] == "absent");
        assert!(why(&keepwatch).contains("keepwatch root accept tree"));
        assert_eq!(keepwatch.ask(&["status"]).status.code(), Some(1));
        assert!(keepwatch.changes_since(0).iter().all(|record| record["do"] != "delete"));
        keepwatch.ok(&["root", "accept", "tree"]);
        keepwatch.settle();
        keepwatch.assert_same(&tree);
        assert!(keepwatch.changes_since(0).iter().any(|record| record["do"] == "delete"));
        fs::write(tree.join("new"), "new").unwrap();
        keepwatch.assert_same(&tree);
        keepwatch.stop();
        keepwatch.assert_verifies();
        keepwatch.assert_last_records(&tree);
    }
}

#[test]
fn a_file_system_below_a_root_comes_and_goes_without_deletes() {
    for method in EVENTS {
        let Some(mut stage) = Stage::new(method, true) else {
            return unprivileged("a_file_system_below_a_root_comes_and_goes_without_deletes");
        };
        let below = stage.tree.join("below");
        fs::create_dir(&below).unwrap();
        stage.keepwatch.assert_same(&stage.tree);
        let image = stage.base.path().join("nested");
        let mut nested = Disk::ext4(&image, "nested").unwrap();
        nested.at = below.clone();
        nested.mount();
        fs::write(below.join("there"), "x").unwrap();
        churn(&below, 50);
        stage.keepwatch.assert_same(&stage.tree);
        fs::write(below.join("there"), "changed").unwrap();
        fs::rename(below.join("churn"), below.join("renamed")).unwrap();
        stage.keepwatch.assert_same(&stage.tree);
        stage.keepwatch.settle();
        let (deletes, listed) = (stage.deletes(), stage.keepwatch.listed());
        let kept = |stage: &Stage| {
            stage.keepwatch.caught_up();
            assert_eq!(stage.deletes(), deletes, "{method}");
            let now = stage.keepwatch.listed();
            assert!(listed.keys().all(|path| now.contains_key(path)), "{method}: something was forgotten");
        };
        nested.unmount();
        let says_so = |stage: &Stage| {
            let name = below.display().to_string();
            support::wait_for("status says that it is not mounted", || {
                let spots = stage.root()["blind_to"].clone();
                spots.as_array().is_some_and(|spots| spots.iter().any(|spot| spot.as_str().unwrap().contains(&name)))
            });
        };
        says_so(&stage);
        kept(&stage);
        stage.keepwatch.ask(&["reconcile", "--summary"]);
        kept(&stage);
        // What happens beside it is told of as ever.
        fs::write(stage.tree.join("beside"), "x").unwrap();
        support::wait_for("what is beside it is known", || stage.keepwatch.listed().contains_key(&b"beside"[..]));
        nested.mount();
        stage.keepwatch.assert_same(&stage.tree);
        kept(&stage);
        // Away when the service starts.
        stage.keepwatch.stop();
        nested.unmount();
        stage.keepwatch.start();
        says_so(&stage);
        kept(&stage);
        nested.mount();
        stage.keepwatch.assert_same(&stage.tree);
        kept(&stage);
        fs::write(below.join("renamed/last"), "x").unwrap();
        stage.finish();
        nested.unmount();
    }
}
