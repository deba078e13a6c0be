//! A root with a service on it, what `verify` says of it, and silent damage.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{self, Dice, Keepwatch};

/// A root and the service on it.
pub struct House {
    pub dir: tempfile::TempDir,
    pub keepwatch: Keepwatch,
}

impl House {
    pub fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("records")).unwrap();
        let toml = format!("{more}\n[roots.records]\npath = \"{}/records\"\n", dir.path().display());
        let keepwatch = Keepwatch::configured(&dir.path().join("state"), &toml);
        House { dir, keepwatch }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    /// Findings by path, and the sum; the exit code must be this one.
    pub fn verify(&self, args: &[&str], code: i32) -> (BTreeMap<String, String>, Value) {
        let args: Vec<&str> = ["verify", "--json"].iter().chain(args).copied().collect();
        let output = self.keepwatch.ask(&args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}{errors}{}", self.keepwatch.log_text());
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let sum = lines.pop().unwrap_or_default();
        let found = |line: &Value| {
            let what = line["finding"].as_str()?.to_owned();
            Some((line["path"].as_str().unwrap().to_owned(), what))
        };
        (lines.iter().filter_map(found).collect(), sum)
    }

    /// With replicas in directories of these names, each with these settings.
    pub fn with_replicas(names: &[&str], more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("records")).unwrap();
        let at = dir.path().display();
        let mut toml = format!("host = \"preserve-1\"\n{more}\n[roots.records]\npath = \"{at}/records\"\n");
        for name in names {
            fs::create_dir(dir.path().join(name)).unwrap();
            toml += &format!("[replicas.{name}]\nurl = \"{at}/{name}\"\ndelete_delay = \"1s\"\n");
        }
        let keepwatch = Keepwatch::configured(&dir.path().join("state"), &toml);
        House { dir, keepwatch }
    }

    /// Where the root's files are at a replica.
    pub fn copies(&self, replica: &str) -> PathBuf {
        self.dir.path().join(replica).join("preserve-1").join(self.root().strip_prefix("/").unwrap())
    }

    /// Every replica is as the root, and says so.
    pub fn wait_copied(&self, replicas: &[&str]) {
        for replica in replicas {
            support::wait_for("the replica is as the root", || {
                support::pair::differences(&self.root(), &self.copies(replica)).is_empty()
            });
        }
        support::wait_for("the replicas follow", || {
            let all = self.keepwatch.json_lines(&["replica", "list", "--json"]);
            all.iter().all(|replica| replica["state"] == "following" && replica["pending"] == 0)
        });
        self.keepwatch.caught_up();
    }

    /// What a command says; its exit code must be this one.
    pub fn told(&self, args: &[&str], code: i32) -> String {
        let output = self.keepwatch.ask(args);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}\n{}", self.keepwatch.log_text());
        text
    }

    /// Every file that settled is hashed.
    pub fn settle(&self) {
        support::wait_for("all files are complete", || {
            let (found, sum) = self.verify(&[], 0);
            assert!(found.is_empty(), "{found:?}");
            sum["busy"] == 0
        });
    }
}

/// All files below a directory.
pub fn files(top: &Path) -> Vec<PathBuf> {
    let walked = support::walk(top).into_iter().filter(|(_, row)| row.kind == "file" && row.size > 0);
    walked.map(|(path, _)| top.join(std::ffi::OsString::from_vec(path))).collect()
}

/// Flips a bit and puts size and mtime back.
pub fn flip(path: &Path, dice: &mut Dice) {
    let mtime = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let at = dice.below(bytes.len());
    bytes[at] ^= 1 << dice.below(8);
    let file = fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..=at], at as u64).unwrap();
    file.set_modified(mtime).unwrap();
}

pub fn rel(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()
}
