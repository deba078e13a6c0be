//! Without any privilege: a lesser way of watching, which says what it cannot see, and nothing lost.
#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use support::{Row, bytes, differences, wait_for, walk};

const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// A place that anybody can reach, with the program in it; all commands are run by a user who may nothing.
struct Stage {
    base: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let base = tempfile::Builder::new().prefix("keepwatch").tempdir_in("/tmp").unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(support::program(), base.path().join("keepwatch")).unwrap();
        let stage = Stage { base };
        for dir in ["home", "tree"] {
            fs::create_dir(stage.at(dir)).unwrap();
            if support::is_root() {
                std::os::unix::fs::chown(stage.at(dir), Some(65534), Some(65534)).unwrap();
            }
        }
        stage
    }

    fn at(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    /// A command of the user's.
    fn user(&self, program: &Path) -> Command {
        let mut command = if support::is_root() {
            let mut command = Command::new("setpriv");
            command.args(NOBODY).arg("--").arg(program);
            command
        } else {
            Command::new(program)
        };
        let path: OsString = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("HOME", self.at("home")).env("TZ", "UTC").current_dir("/");
        command.stdin(Stdio::null());
        command
    }

    fn keepwatch(&self, args: &[&str]) -> Command {
        let mut command = self.user(&self.at("keepwatch"));
        command.args(args);
        command
    }

    fn ask(&self, args: &[&str]) -> Output {
        self.keepwatch(args).output().unwrap()
    }

    fn root_state(&self) -> Option<Value> {
        let status: Value = serde_json::from_slice(&self.ask(&["status", "--json"]).stdout).ok()?;
        (!status["service"].is_null()).then(|| status["roots"][0].clone())
    }

    /// Churn by the same user: a whole tree made, changed, renamed and partly removed.
    fn churn(&self) {
        let script = "cd \"$1\" && for d in a b c d e f; do mkdir -p $d/x/y; for f in 1 2 3 4 5 6 7 8 9; do \
             echo $f > $d/x/$f; echo $d > $d/x/y/$f; done; mv $d/x/1 $d/one; rm $d/x/2; ln $d/x/3 $d/hard; \
             ln -s nowhere $d/link; done; mv a renamed; rm -r b; mv c/x d/from-c";
        let output = self.user(Path::new("/bin/sh")).args(["-c", script, "sh"]).arg(self.at("tree")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Ended when dropped.
struct Running(Child);

impl Running {
    fn end(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_ordinary_user_watches_by_inotify_and_is_told_what_that_costs() {
    let stage = Stage::new();
    let log = fs::File::create(stage.at("log")).unwrap();
    let tree = stage.at("tree");
    let service = stage.keepwatch(&["run", "--root"]).arg(&tree).stderr(log).spawn().unwrap();
    let mut service = Running(service);
    wait_for("the root is watched", || {
        assert!(service.0.try_wait().unwrap().is_none(), "{}", support::read_text(&stage.at("log")));
        stage.root_state().is_some_and(|root| root["state"] == "watching" && root["open_gaps"] == 0)
    });
    let root = stage.root_state().unwrap();
    assert!(root["method"].as_str().unwrap().starts_with("inotify"), "{root}");
    let blind = root["blind_to"].to_string();
    assert!(blind.contains("CAP_SYS_ADMIN"), "{blind}");
    let shown = String::from_utf8(stage.ask(&["status"]).stdout).unwrap();
    assert!(shown.contains("inotify") && shown.contains("CAP_SYS_ADMIN"), "{shown}");
    stage.churn();
    wait_for("all of the churn is known", || {
        let out = stage.ask(&["ls", "--json"]).stdout;
        let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let rows = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap());
        differences(&rows.map(|line| (bytes(&line, "path"), Row::of_json(&line))).collect(), &walk(&tree)).is_empty()
    });
    let found = stage.keepwatch(&["reconcile", "--json", "--root"]).arg(&tree).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&[found.stdout, found.stderr].concat()));
    assert!(service.end().success(), "{}", support::read_text(&stage.at("log")));
    assert!(stage.ask(&["journal", "verify"]).status.success());
}

#[test]
fn an_ordinary_user_can_look_on() {
    let stage = Stage::new();
    let child = stage.keepwatch(&["watch", "--json"]).arg(stage.at("tree")).stdout(Stdio::piped()).spawn().unwrap();
    let mut child = Running(child);
    let out = BufReader::new(child.0.stdout.take().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let record: Value = serde_json::from_str(&line).unwrap();
            if tell.send(record).is_err() {
                break;
            }
        }
    });
    // It says nothing of when it has begun: a file is written until one is told of.
    let mut seen = Vec::new();
    let mut count = 0;
    wait_for("a change is shown", || {
        count += 1;
        fs::write(stage.at("tree").join(format!("probe {count}")), "x").unwrap();
        seen.extend(told.try_iter());
        seen.iter().any(|record| record["do"] == "create")
    });
    stage.churn();
    wait_for("the last rename is shown", || {
        seen.extend(told.try_iter());
        seen.iter().any(|record| record["path"] == "d/from-c")
    });
    assert!(child.end().success());
    reader.join().unwrap();
}
