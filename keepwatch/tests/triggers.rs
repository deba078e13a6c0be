//! Triggers under the service: each finished version is run for once, complete, whatever is killed; what fails is tried again
//! and given up; what is asked for is done.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use std::fs;

use std::path::PathBuf;

use serde_json::Value;
use support::{Keepwatch, wait_for};

/// A root `in`, and a service with triggers on it.
struct House {
    dir: tempfile::TempDir,
    keepwatch: Keepwatch,
}

/// Writes a line for each run into a file outside of every root: key, path, size and SHA-256 of what it saw.
const NOTE: &str = r#"sum=$(sha256sum < "$1") && printf '%s\0%s\0%s\0\n' "$KEEPWATCH_KEY" "$1" "${sum%% *}" >> "$2""#;

impl House {
    /// With these triggers; `AT` in the text stands for a directory of the test's own.
    fn new(triggers: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        let at = dir.path().to_str().unwrap();
        let toml = format!("[roots.in]\npath = \"AT/in\"\n{triggers}\n").replace("AT", at);
        let keepwatch = Keepwatch::configured(&dir.path().join("state"), &toml);
        House { dir, keepwatch }
    }

    /// With a trigger `note` that notes what it sees, and more about it.
    fn noting(more: &str) -> Self {
        let house = House::new(&format!(
            "[[triggers]]\nname = \"note\"\ncommand = [\"/bin/sh\", \"AT/note\", \"{{path}}\", \"AT/noted\"]\n{more}"
        ));
        fs::write(house.dir.path().join("note"), NOTE).unwrap();
        house
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// What `note` saw, in order: key, path and sum.
    fn noted(&self) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
        let text = fs::read(self.at("noted")).unwrap_or_default();
        let mut fields = text.split(|byte| *byte == 0).map(|field| field.strip_prefix(b"\n").unwrap_or(field).to_vec());
        let mut noted = Vec::new();
        while let (Some(key), Some(path), Some(sum)) = (fields.next(), fields.next(), fields.next()) {
            noted.push((key, path, sum));
        }
        noted
    }

    fn wait_noted(&self, count: usize) {
        wait_for(&format!("{count} runs"), || self.noted().len() >= count);
    }

    fn trigger(&self, name: &str) -> Value {
        let all = self.keepwatch.json_lines(&["trigger", "list", "--json"]);
        all.into_iter().find(|trigger| trigger["name"] == name).unwrap_or(Value::Null)
    }

    /// Waits until nothing is to be run, and nothing has to settle any more.
    fn wait_idle(&self, name: &str, done: u64) {
        wait_for(&format!("{done} are done"), || self.trigger(name)["done"] == done);
    }

    fn told(&self, args: &[&str], code: i32) -> String {
        let output = self.keepwatch.ask(args);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}\n{}", self.keepwatch.log_text());
        text
    }

    /// Each run is recorded as it must be: a success once for each version, nothing after it, never two at a time.
    fn assert_recorded(&self) -> BTreeMap<(i64, u64), (usize, usize)> {
        let mut runs: BTreeMap<(i64, u64), (usize, usize)> = BTreeMap::new();
        for record in self.keepwatch.records().iter().filter(|record| !record["version"].is_null()) {
            let version = (record["file"].as_i64().unwrap(), record["version"].as_u64().unwrap());
            let (started, ran) = runs.entry(version).or_default();
            match record["do"].as_str().unwrap() {
                "started" => {
                    assert_eq!(*ran, 0, "a run after its success: {record}");
                    assert!(record["group"].as_u64().unwrap() > 1 && !record["boot"].as_str().unwrap().is_empty());
                    *started += 1;
                }
                "ran" => {
                    assert_eq!(*ran, 0, "two successes: {record}");
                    *ran += 1;
                }
                _ => {}
            }
        }
        runs
    }
}

fn sha256(content: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()
}

#[test]
fn what_was_there_and_what_comes_is_run_for_once() {
    let mut house = House::noting("match = [\"*.csv\"]");
    fs::write(house.at("in/before.csv"), "1").unwrap();
    fs::write(house.at("in/other.txt"), "1").unwrap();
    house.keepwatch.start_and_settle();
    fs::write(house.at("in/after.csv"), "22").unwrap();
    house.wait_noted(2);
    house.wait_idle("note", 2);
    // A start, and an inventory that is made anew, run nothing again; what came meanwhile counts.
    house.keepwatch.stop();
    house.told(&["replay"], 0);
    assert_eq!(house.trigger("note")["done"], 2);
    fs::write(house.at("in/meanwhile.csv"), "333").unwrap();
    house.keepwatch.start_and_settle();
    house.wait_noted(3);
    fs::write(house.at("in/after.csv"), "4444").unwrap();
    fs::rename(house.at("in/before.csv"), house.at("in/renamed.csv")).unwrap();
    house.wait_noted(4);
    house.wait_idle("note", 4);
    let noted = house.noted();
    let sums: Vec<_> = noted.iter().map(|(_, _, sum)| sum.clone()).collect();
    for content in ["1", "22", "333", "4444"] {
        assert!(sums.contains(&sha256(content.as_bytes())), "{content}: {noted:?}");
    }
    assert_eq!(noted.len(), 4);
    let keys: std::collections::BTreeSet<_> = noted.iter().map(|(key, _, _)| key).collect();
    assert_eq!(keys.len(), 4, "each version has a key of its own");
    let runs = house.assert_recorded();
    assert!(runs.values().all(|counts| *counts == (1, 1)), "{runs:?}");
    let shown = house.told(&["trigger", "show", "note"], 0);
    assert!(shown.contains("following, 4 done"), "{shown}");
    assert!(house.told(&["status"], 0).contains("trigger note"));
    house.keepwatch.stop();
    house.keepwatch.assert_verifies();
}
