//! Replicas under the service: by configuration, by `replica add`, paused, away, drifted, replaced.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::pair::{differences, make_tree, walk};
use support::{Keepwatch, sized, wait_for};

/// A root, a directory for replicas and a service that keeps them.
struct House {
    dir: tempfile::TempDir,
    keepwatch: Keepwatch,
}

impl House {
    /// `more` is added to the section of the replica `vault`.
    fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["records", "vault", "conf.d"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let at = dir.path().display();
        let toml = format!(
            "host = \"preserve-1\"\n[roots.records]\npath = \"{at}/records\"\n\
             [replicas.vault]\nurl = \"{at}/vault\"\ndelete_delay = \"1s\"\n{more}\n"
        );
        let keepwatch = Keepwatch::configured(&dir.path().join("state"), &toml);
        House { dir, keepwatch }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    fn vault(&self) -> PathBuf {
        self.dir.path().join("vault")
    }

    /// Where the root's files are at a replica.
    fn copies(&self, replica: &Path) -> PathBuf {
        let absolute = self.source();
        replica.join("preserve-1").join(absolute.strip_prefix("/").unwrap())
    }

    fn wait_same(&self, replica: &Path) {
        wait_for("the replica is as the root", || differences(&self.source(), &self.copies(replica)).is_empty());
    }

    fn replica(&self, name: &str) -> Value {
        let all = self.keepwatch.json_lines(&["replica", "list", "--json"]);
        all.into_iter().find(|replica| replica["name"] == name).unwrap_or(Value::Null)
    }

    fn wait_state(&self, name: &str, state: &str) -> Value {
        wait_for(&format!("`{name}` is {state}"), || self.replica(name)["state"] == state);
        self.replica(name)
    }

    fn told(&self, args: &[&str], code: i32) -> String {
        let output = self.keepwatch.ask(args);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}\n{}", self.keepwatch.log_text());
        text
    }
}

#[test]
fn a_configured_replica_is_kept_and_shown() {
    let mut house = House::new("");
    make_tree(&house.source(), sized(150, 5_000));
    house.keepwatch.start_and_settle();
    house.wait_same(&house.vault());
    let files = walk(&house.source()).values().filter(|object| object.links > 0).count() as u64;
    wait_for("it counts them", || house.replica("vault")["files"] == files);
    let replica = house.wait_state("vault", "following");
    assert_eq!((&replica["failed"], &replica["pending"]), (&0.into(), &0.into()), "{replica}");
    fs::write(house.source().join("new"), "x").unwrap();
    house.wait_same(&house.vault());
    let text = house.told(&["replica", "list"], 0);
    assert!(text.contains("LAST ERROR") && text.contains("following"), "{text}");
    assert!(house.told(&["replica", "show", "vault"], 0).contains("holds records"));
    assert!(house.told(&["replica", "show", "vaut"], 2).contains("did you mean `vault`"));
    let status = house.keepwatch.status().unwrap();
    assert_eq!(status["replicas"][0]["name"], "vault");
    house.keepwatch.stop();
    assert_eq!(house.replica("vault")["state"], "stopped");
    assert_eq!(house.replica("vault")["files"], files + 1);
    // A restart sends nothing again, and a replay brings the same.
    let before = house.keepwatch.records().len();
    house.told(&["replay"], 0);
    house.keepwatch.start_and_settle();
    house.wait_state("vault", "following");
    let copied = house.keepwatch.records().into_iter().skip(before).filter(|record| record["do"] == "copied").count();
    assert_eq!(copied, 0);
    house.keepwatch.stop();
}

#[test]
fn many_deletes_wait_for_a_person() {
    let mut house = House::new("");
    make_tree(&house.source(), 400);
    house.keepwatch.start_and_settle();
    house.wait_same(&house.vault());
    for number in 0..10 {
        fs::remove_dir_all(house.source().join(format!("d{number}"))).unwrap();
    }
    let replica = house.wait_state("vault", "paused");
    assert!(replica["paused"].as_str().unwrap().contains("deletes within an hour"), "{replica}");
    assert!(house.copies(&house.vault()).join("d1").exists());
    let status = house.keepwatch.ask(&["status"]);
    assert_eq!(status.status.code(), Some(1), "it needs a person");
    assert!(String::from_utf8_lossy(&status.stdout).contains("resume vault --allow-deletes"));
    // A restart changes nothing about it, nor does a resume without the word.
    house.keepwatch.stop();
    house.keepwatch.start_and_settle();
    house.wait_state("vault", "paused");
    assert!(house.told(&["replica", "resume", "vault"], 3).contains("nothing was deleted"));
    assert!(house.copies(&house.vault()).join("d1").exists());
    house.told(&["replica", "resume", "vault", "--allow-deletes"], 0);
    house.wait_same(&house.vault());
    house.wait_state("vault", "following");
    house.keepwatch.stop();
}

#[test]
fn an_inbox_may_empty_where_that_is_said() {
    let mut house = House::new("may_empty = true\nmax_delete = \"100%\"");
    make_tree(&house.source(), 50);
    house.keepwatch.start_and_settle();
    house.wait_same(&house.vault());
    for entry in fs::read_dir(house.source()).unwrap().flatten() {
        fs::remove_dir_all(entry.path()).unwrap();
    }
    house.wait_same(&house.vault());
    house.keepwatch.stop();
}

#[test]
fn a_sync_finds_and_mends_what_drifted_at_the_target() {
    let mut house = House::new("");
    make_tree(&house.source(), 100);
    house.keepwatch.start_and_settle();
    house.wait_same(&house.vault());
    house.wait_state("vault", "following");
    let copies = house.copies(&house.vault());
    fs::write(copies.join("d1/e1/f1"), "tampered with").unwrap();
    fs::remove_file(copies.join("d2/e2/f2")).unwrap();
    fs::write(copies.join("foreign"), "not ours").unwrap();
    house.told(&["replica", "sync", "vault"], 0);
    fs::remove_file(copies.join("foreign")).unwrap();
    let found = differences(&house.source(), &copies);
    // A directory's time is that of the last change in it, which was ours here.
    let files: Vec<_> = found.iter().filter(|line| line.contains("/f")).collect();
    assert!(files.is_empty(), "{files:#?}");
    house.keepwatch.stop();
}

#[test]
fn a_target_that_goes_away_and_comes_back_is_caught_up_with() {
    let mut house = House::new("");
    make_tree(&house.source(), 60);
    house.keepwatch.start_and_settle();
    house.wait_same(&house.vault());
    let away = house.dir.path().join("away");
    fs::rename(house.vault(), &away).unwrap();
    fs::create_dir(house.vault()).unwrap();
    fs::write(house.source().join("meanwhile"), "x").unwrap();
    let replica = house.wait_state("vault", "away");
    assert!(replica["paused"].as_str().unwrap().contains("is it mounted"), "{replica}");
    assert_eq!(fs::read_dir(house.vault()).unwrap().count(), 0, "nothing is written to the bare mount point");
    fs::remove_dir(house.vault()).unwrap();
    fs::rename(&away, house.vault()).unwrap();
    house.wait_same(&house.vault());
    // A disk that was replaced on purpose is filled anew once a person says so.
    fs::rename(house.vault(), &away).unwrap();
    fs::create_dir(house.vault()).unwrap();
    fs::write(house.source().join("meanwhile"), "y").unwrap();
    house.wait_state("vault", "away");
    house.told(&["replica", "accept", "vault"], 0);
    house.wait_same(&house.vault());
    house.keepwatch.stop();
}

#[test]
fn what_cannot_be_copied_fails_alone_and_is_shown() {
    let mut house = House::new("");
    make_tree(&house.source(), 30);
    // Where the file belongs a directory stands that holds what is not ours.
    let copies = house.copies(&house.vault());
    fs::create_dir_all(copies.join("blocked/inner")).unwrap();
    fs::write(house.source().join("blocked"), "x").unwrap();
    fs::write(house.source().join("fine"), "x").unwrap();
    house.keepwatch.start_and_settle();
    wait_for("the others are there", || copies.join("fine").exists() && copies.join("d1/e1/f1").exists());
    wait_for("it is counted", || house.replica("vault")["failed"] == 1);
    let shown = house.told(&["replica", "show", "vault"], 1);
    assert!(shown.contains("blocked") && shown.contains("in its way"), "{shown}");
    assert!(house.keepwatch.records().iter().any(|record| record["do"] == "failed" && record["path"] == "blocked"));
    fs::remove_dir_all(copies.join("blocked")).unwrap();
    house.told(&["replica", "sync", "vault"], 0);
    house.wait_same(&house.vault());
    wait_for("nothing failed any more", || house.replica("vault")["failed"] == 0);
    house.keepwatch.stop();
}

#[test]
fn replicas_are_added_and_removed_while_it_runs() {
    let mut house = House::new("");
    make_tree(&house.source(), 40);
    house.keepwatch.start_and_settle();
    house.wait_same(&house.vault());
    let second = house.dir.path().join("second");
    assert!(house.told(&["replica", "add", second.to_str().unwrap()], 4).contains("there is no directory"));
    fs::create_dir(&second).unwrap();
    let inside = house.source().join("d1");
    assert!(house.told(&["replica", "add", "bad", inside.to_str().unwrap()], 2).contains("lie in one another"));
    assert!(house.told(&["replica", "add", "bad", "gopher://x/y"], 2).contains("gopher"));
    house.told(&["replica", "add", second.to_str().unwrap(), "-n"], 0);
    assert!(!house.dir.path().join("conf.d/second.toml").exists());
    house.told(&["replica", "add", second.to_str().unwrap(), "--on-delete", "keep"], 0);
    house.wait_same(&second);
    fs::remove_file(house.source().join("d1/e1/f1")).unwrap();
    house.wait_same(&house.vault());
    assert!(house.copies(&second).join("d1/e1/f1").exists(), "this one keeps");
    assert!(house.told(&["replica", "remove", "vault"], 2).contains("not added by `replica add`"));
    house.told(&["replica", "remove", "second"], 0);
    assert_eq!(house.replica("second"), Value::Null);
    assert!(house.copies(&second).join("d2/e2/f2").exists(), "its files stay");
    assert!(house.told(&["replica", "sync", "second"], 2).contains("no replica"));
    house.keepwatch.stop();
}

#[test]
fn a_root_that_leaves_the_configuration_stays_at_the_replica() {
    let mut house = House::new("");
    let other = house.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    make_tree(&house.source(), 20);
    make_tree(&other, 20);
    let config = house.keepwatch.config.clone().unwrap();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[roots.other]\npath = \"{}\"\n", other.display())).unwrap();
    house.keepwatch.start_and_settle();
    let copies = house.vault().join("preserve-1").join(other.strip_prefix("/").unwrap());
    wait_for("both are there", || differences(&other, &copies).is_empty());
    house.wait_same(&house.vault());
    fs::write(&config, text).unwrap();
    house.keepwatch.signal("HUP");
    wait_for("the root is dropped", || {
        house.keepwatch.status().is_some_and(|status| status["roots"].as_array().unwrap().len() == 1)
    });
    house.wait_state("vault", "following");
    fs::write(house.source().join("new"), "x").unwrap();
    house.wait_same(&house.vault());
    assert!(differences(&other, &copies).is_empty());
    house.keepwatch.stop();
}
