//! What the tests of triggers share: a root, a service with triggers on it, and what the commands saw.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Keepwatch, wait_for_count};

/// A root `in`, and a service with triggers on it.
pub struct House {
    // Shows its log before the directory goes.
    pub keepwatch: Keepwatch,
    pub dir: tempfile::TempDir,
}

/// Writes a line for each run into a file outside of every root: key, path, size and SHA-256 of what it saw.
const NOTE: &str = r#"sum=$(sha256sum < "$1") && printf '%s\0%s\0%s\0\n' "$KEEPWATCH_KEY" "$1" "${sum%% *}" >> "$2""#;

impl House {
    /// With these triggers; `AT` in the text stands for a directory of the test's own.
    pub fn new(triggers: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        let at = dir.path().to_str().unwrap();
        let toml = format!("[roots.in]\npath = \"AT/in\"\n{triggers}\n").replace("AT", at);
        let keepwatch = Keepwatch::configured(&dir.path().join("state"), &toml);
        House { dir, keepwatch }
    }

    /// With a trigger `note` that notes what it sees, and more about it.
    pub fn noting(more: &str) -> Self {
        let house = House::new(&format!(
            "[[triggers]]\nname = \"note\"\ncommand = [\"/bin/sh\", \"AT/note\", \"{{path}}\", \"AT/noted\"]\n{more}"
        ));
        fs::write(house.dir.path().join("note"), NOTE).unwrap();
        house
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// What `note` saw, in order: key, path and sum.
    pub fn noted(&self) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
        let text = fs::read(self.at("noted")).unwrap_or_default();
        let mut fields = text.split(|byte| *byte == 0).map(|field| field.strip_prefix(b"\n").unwrap_or(field).to_vec());
        let mut noted = Vec::new();
        while let (Some(key), Some(path), Some(sum)) = (fields.next(), fields.next(), fields.next()) {
            noted.push((key, path, sum));
        }
        noted
    }

    pub fn wait_noted(&self, count: usize) {
        wait_for_count("runs", count, || self.noted().len());
    }

    pub fn trigger(&self, name: &str) -> Value {
        let all = self.keepwatch.json_lines(&["trigger", "list", "--json"]);
        all.into_iter().find(|trigger| trigger["name"] == name).unwrap_or(Value::Null)
    }

    /// Waits until nothing is to be run, and nothing has to settle any more.
    pub fn wait_idle(&self, name: &str, done: u64) {
        wait_for_count("done", done as usize, || self.trigger(name)["done"].as_u64().unwrap_or(0) as usize);
        assert_eq!(self.trigger(name)["done"], done);
    }

    pub fn told(&self, args: &[&str], code: i32) -> String {
        let output = self.keepwatch.ask(args);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}\n{}", self.keepwatch.log_text());
        text
    }

    /// Each run is recorded as it must be: a success once for each version, nothing after it, never two at a time.
    pub fn assert_recorded(&self) -> BTreeMap<(i64, u64), (usize, usize)> {
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

pub fn sha256(content: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()
}
