//! Renames of every kind: one record for a directory however much it holds, the right state in the end, one history.
#![allow(clippy::unwrap_used)]

mod disturb;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use disturb::Ground;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;
use support::{Keepwatch, bytes, one_root, sized};

const EVENTS: [&str; 2] = ["fanotify", "inotify"];

/// A service on a tree, beside it a place of the same file system that nobody watches.
struct Stage {
    /// Ends before the file system goes.
    keepwatch: Keepwatch,
    ground: Ground,
}

impl Stage {
    fn new(method: &str, fill: impl FnOnce(&Path)) -> Self {
        let ground = Ground::with_room("4g");
        let tree = ground.tree();
        fs::create_dir_all(tree.with_file_name("outside")).unwrap();
        fill(&tree);
        let mut keepwatch = Keepwatch::configured(&ground.state(), &one_root(&tree, method));
        keepwatch.start_and_settle();
        Stage { ground, keepwatch }
    }

    fn tree(&self) -> PathBuf {
        self.ground.tree()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.tree().with_file_name(path)
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    fn exchange(&self, one: &str, other: &str) {
        renameat_with(CWD, self.at(one), CWD, self.at(other), RenameFlags::EXCHANGE).unwrap();
    }

    /// The inventory is the tree, and stays it when the service ended and when it started again.
    fn assert_right(&mut self) {
        self.assert_known();
        self.keepwatch.assert_last_records(&self.tree());
    }

    /// The inventory is the tree and the journal is sound, whatever a reader of single records would make of them.
    fn assert_known(&mut self) {
        let tree = self.tree();
        self.keepwatch.assert_same(&tree);
        let status = self.keepwatch.ask(&["status"]);
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
        self.keepwatch.stop();
        self.keepwatch.assert_same(&tree);
        self.keepwatch.assert_verifies();
    }
}

/// A directory with a file, a directory and a file in that.
fn fill(dir: &Path, word: &str) {
    fs::create_dir_all(dir.join("below")).unwrap();
    fs::write(dir.join("file"), word).unwrap();
    fs::write(dir.join("below/deep"), [word, word].concat()).unwrap();
}

fn is(record: &Value, word: &str, path: &str) -> bool {
    record["do"] == word && bytes(record, "path") == path.as_bytes()
}

/// Asserts that the history of what is at `path` now goes back to the creation of `first`.
fn assert_history(stage: &Stage, path: &str, first: &str) {
    let log = stage.keepwatch.log_of(&stage.at(path));
    let created = log.iter().any(|record| is(record, "create", first.strip_prefix("tree/").unwrap_or(first)));
    assert!(created, "the history of {path} does not go back to {first}: {}", lines(&log));
}

/// The first records, a line each.
fn lines(records: &[Value]) -> String {
    records.iter().take(40).map(|record| format!("\n{record}")).collect()
}

#[test]
fn a_directory_with_many_files_is_renamed_by_one_record() {
    for method in EVENTS {
        let files = sized(20_000, 1_000_000);
        let mut stage = Stage::new(method, |tree| {
            let dir = tree.join("many");
            fs::create_dir(&dir).unwrap();
            for index in 0..files {
                fs::File::create(dir.join(format!("file {index}"))).unwrap();
            }
        });
        let next = stage.keepwatch.caught_up();
        // More than once: on a machine that does other things, too, one time alone says little.
        let names = ["many", "renamed", "renamed again", "and again", "and once more", "at last"];
        let mut took = Vec::new();
        for pair in names.windows(2) {
            let one = stage.at(&format!("tree/{}/file {}", pair[1], files / 2));
            let start = Instant::now();
            stage.rename(&format!("tree/{}", pair[0]), &format!("tree/{}", pair[1]));
            let listed = stage.keepwatch.command(&["ls", "-0"]).arg(&one).output().unwrap();
            took.push(start.elapsed());
            assert!(listed.status.success(), "after {took:?}: {}", String::from_utf8_lossy(&listed.stderr));
        }
        eprintln!("{method}: {files} files are found under each new name after {took:?}");
        stage.assert_right();
        let told = stage.keepwatch.changes_since(next);
        let (moves, others): (Vec<&Value>, Vec<&Value>) = told.iter().partition(|record| record["do"] == "move");
        assert_eq!(moves.len(), took.len(), "{moves:#?}");
        for (record, pair) in moves.iter().zip(names.windows(2)) {
            assert!(is(record, "move", pair[1]) && bytes(record, "old_path") == pair[0].as_bytes(), "{record}");
        }
        let refreshed =
            |record: &Value| ["modify", "attrib"].iter().any(|word| record["do"] == *word) && record["type"] == "dir";
        assert!(others.iter().all(|record| refreshed(record)) && others.len() <= 3 * took.len(), "{others:#?}");
    }
}

#[test]
fn what_is_renamed_over_something_takes_its_place() {
    for method in EVENTS {
        let mut stage = Stage::new(method, |tree| {
            fs::write(tree.join("old file"), "known before").unwrap();
            fs::write(tree.join("old target"), "is replaced").unwrap();
            fill(&tree.join("old dir"), "known before");
            fs::create_dir(tree.join("old empty")).unwrap();
        });
        stage.rename("tree/old file", "tree/old target");
        stage.rename("tree/old dir", "tree/old empty");
        fs::write(stage.at("tree/file"), "moves").unwrap();
        fs::write(stage.at("tree/target"), "is replaced").unwrap();
        stage.rename("tree/file", "tree/target");
        fill(&stage.at("tree/dir"), "moves");
        fs::create_dir(stage.at("tree/empty")).unwrap();
        stage.keepwatch.assert_same(&stage.tree());
        stage.rename("tree/dir", "tree/empty");
        stage.keepwatch.assert_same(&stage.tree());
        if method == "fanotify" {
            // By inotify the name may hold the later object when its first event is heard: nothing tells them apart.
            assert_history(&stage, "tree/target", "file");
        }
        assert_history(&stage, "tree/old target", "old file");
        assert_history(&stage, "tree/empty/below/deep", "dir/below/deep");
        assert_history(&stage, "tree/old empty/below/deep", "old dir/below/deep");
        stage.assert_right();
    }
}

#[test]
fn what_is_exchanged_has_the_other_name_afterwards() {
    for method in EVENTS {
        let mut stage = Stage::new(method, |tree| {
            fs::write(tree.join("one"), "1").unwrap();
            fs::write(tree.join("two"), "22").unwrap();
            fill(&tree.join("left"), "left");
            fill(&tree.join("right"), "the right one");
            fs::write(tree.join("right/more"), "more").unwrap();
            fs::write(tree.join("file"), "a file").unwrap();
            fill(&tree.join("dir"), "a directory");
        });
        stage.exchange("tree/one", "tree/two");
        stage.keepwatch.assert_same(&stage.tree());
        stage.exchange("tree/left", "tree/right");
        stage.keepwatch.assert_same(&stage.tree());
        stage.exchange("tree/file", "tree/dir");
        stage.keepwatch.assert_same(&stage.tree());
        // Deeper, and what changes afterwards is told of under the new names.
        stage.exchange("tree/left/below", "tree/right/below");
        fs::write(stage.at("tree/left/below/new"), "new").unwrap();
        fs::write(stage.at("tree/file/below/new"), "new").unwrap();
        stage.keepwatch.assert_same(&stage.tree());
        assert_history(&stage, "tree/one", "two");
        assert_history(&stage, "tree/two", "one");
        assert_history(&stage, "tree/left/more", "right/more");
        assert_history(&stage, "tree/dir", "file");
        assert_history(&stage, "tree/file/below/deep", "dir/below/deep");
        stage.assert_right();
    }
}

#[test]
fn a_storm_of_exchanged_files_ends_right() {
    for method in EVENTS {
        let mut stage = Stage::new(method, |tree| {
            for name in ["a", "b", "c", "d"] {
                fs::write(tree.join(name), name.repeat(usize::from(name.as_bytes()[0]))).unwrap();
            }
        });
        let mut dice = support::Dice::new(7);
        for _ in 0..sized(2_000, 20_000) {
            let (one, other) = (dice.below(4), dice.below(4));
            if one != other {
                let name = |index: usize| format!("tree/{}", ["a", "b", "c", "d"][index]);
                stage.exchange(&name(one), &name(other));
            }
        }
        // Exchanges that fold may be told as plain renames; what is known in the end is right all the same.
        stage.assert_known();
    }
}

#[test]
fn what_comes_from_outside_is_new_and_what_goes_there_is_gone() {
    for method in EVENTS {
        let mut stage = Stage::new(method, |tree| {
            fill(&tree.join("goes"), "goes");
            fs::write(tree.join("gone"), "gone").unwrap();
        });
        let next = stage.keepwatch.caught_up();
        fill(&stage.at("outside/comes"), "comes");
        fs::write(stage.at("outside/came"), "came").unwrap();
        stage.rename("outside/comes", "tree/comes");
        stage.rename("outside/came", "tree/came");
        stage.rename("tree/goes", "outside/goes");
        stage.rename("tree/gone", "outside/gone");
        // Nobody watches there, whatever was known of it before.
        fs::write(stage.at("outside/goes/below/unseen"), "unseen").unwrap();
        fs::write(stage.at("tree/comes/below/seen"), "seen").unwrap();
        stage.assert_right();
        let told = stage.keepwatch.changes_since(next);
        for path in ["comes", "comes/file", "comes/below", "comes/below/deep", "came", "comes/below/seen"] {
            assert!(told.iter().any(|record| is(record, "create", path)), "{path} was not told of: {told:#?}");
        }
        let gone = told.iter().find(|record| is(record, "delete", "goes")).unwrap();
        assert_eq!(gone["subtree"], true);
        assert!(told.iter().any(|record| is(record, "delete", "gone")));
        assert!(told.iter().all(|record| record["do"] != "move"), "{told:#?}");
        assert!(told.iter().all(|record| !bytes(record, "path").ends_with(b"unseen")), "{told:#?}");
    }
}

#[test]
fn what_goes_out_and_comes_back_is_known_again() {
    for method in EVENTS {
        let mut stage = Stage::new(method, |tree| fill(&tree.join("dir"), "travels"));
        for _ in 0..20 {
            stage.rename("tree/dir", "outside/dir");
            fs::write(stage.at("outside/dir/below/abroad"), "written abroad").unwrap();
            stage.rename("outside/dir", "tree/dir");
            fs::write(stage.at("tree/dir/below/home"), "written at home").unwrap();
        }
        stage.assert_right();
    }
}

#[test]
fn what_moves_to_another_root_is_known_there() {
    for method in EVENTS {
        let base = tempfile::tempdir().unwrap();
        let (here, there) = (base.path().join("here"), base.path().join("there"));
        fs::create_dir(&there).unwrap();
        fill(&here.join("old"), "old");
        fs::write(here.join("old file"), "old file").unwrap();
        let toml = format!(
            "[roots.here]\npath = {here:?}\nwatch = {method:?}\n[roots.there]\npath = {there:?}\nwatch = {method:?}\n"
        );
        let mut keepwatch = Keepwatch::configured(&base.path().join("state"), &toml);
        keepwatch.start_and_settle();
        fill(&here.join("new"), "new");
        fs::write(here.join("new file"), "new file").unwrap();
        keepwatch.caught_up();
        for name in ["old", "old file", "new", "new file"] {
            fs::rename(here.join(name), there.join(name)).unwrap();
        }
        fs::write(there.join("old/below/after"), "after").unwrap();
        fs::write(there.join("new/below/after"), "after").unwrap();
        let assert_same = |keepwatch: &Keepwatch| {
            support::wait_for("both roots are known as they are", || {
                [("here", &here), ("there", &there)].iter().all(|(name, tree)| {
                    let mut listed = keepwatch.json_lines(&["ls", "--json"]);
                    listed.retain(|line| line["root"] == **name);
                    let listed = listed.iter().map(|line| (bytes(line, "path"), support::Row::of_json(line))).collect();
                    support::differences(&listed, &support::walk(tree)).is_empty()
                })
            });
        };
        assert_same(&keepwatch);
        for name in ["old", "new"] {
            let log = keepwatch.log_of(&there.join(name).join("below/deep"));
            assert_eq!(
                (&log[0]["do"], &log[0]["root"]),
                (&"create".into(), &"here".into()),
                "{method}: {}",
                lines(&log)
            );
        }
        let log = keepwatch.log_of(&there.join("new file"));
        assert_eq!((&log[0]["do"], &log[0]["root"]), (&"create".into(), &"here".into()), "{method}: {}", lines(&log));
        keepwatch.stop();
        assert_same(&keepwatch);
        keepwatch.assert_verifies();
    }
}

#[test]
fn a_long_chain_of_renames_ends_under_the_last_name_with_one_history() {
    for method in EVENTS {
        let mut stage = Stage::new(method, |_| {});
        fs::write(stage.at("tree/a"), "a file").unwrap();
        fill(&stage.at("tree/x"), "a directory");
        stage.keepwatch.assert_same(&stage.tree());
        let next = stage.keepwatch.caught_up();
        for _ in 0..5_000 {
            stage.rename("tree/a", "tree/b");
            stage.rename("tree/b", "tree/a");
        }
        stage.rename("tree/a", "tree/b");
        for _ in 0..5_000 {
            stage.rename("tree/x", "tree/y");
            stage.rename("tree/y", "tree/x");
        }
        stage.rename("tree/x", "tree/y");
        fs::write(stage.at("tree/y/below/new"), "new").unwrap();
        stage.keepwatch.assert_same(&stage.tree());
        let told = stage.keepwatch.changes_since(next);
        let moves = told.iter().filter(|record| record["do"] == "move").count();
        eprintln!("{method}: 20 002 renames are told of by {moves} records");
        if moves < 20_002 {
            assert!(told.iter().any(|record| record["merged"] == true), "folded, but nothing says so");
        }
        assert_history(&stage, "tree/b", "a");
        assert_history(&stage, "tree/y", "x");
        assert_history(&stage, "tree/y/below/deep", "x/below/deep");
        stage.assert_right();
    }
}
