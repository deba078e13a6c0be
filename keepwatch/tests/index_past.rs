//! The past of all hosts, from the shared index: what stood at a moment, and what happened to directories, as each host
//! itself tells it.
#![allow(clippy::unwrap_used, missing_docs)]

mod postgres;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use postgres::{Postgres, host, wait_indexed};
use serde_json::Value;
use support::{Dice, Keepwatch, shake, sized};

#[test]
fn what_stood_at_a_moment_is_what_each_host_says_of_itself() {
    let Some(postgres) = Postgres::start("what_stood_at_a_moment_is_what_each_host_says_of_itself") else { return };
    let dir = tempfile::tempdir().unwrap();
    let hosts = with_a_past(dir.path(), &postgres);
    let (_, asked) = &hosts[0];
    let (mut rows, mut doubts) = (0, 0);
    let moments = hosts.iter().flat_map(|(_, keepwatch)| moments(&keepwatch.records()));
    for (number, at) in moments.enumerate() {
        let all = asked.ask(&["ls", "--json", "--all-hosts", "--at", &at]);
        let said = text(&all.stderr);
        assert!(all.status.success(), "{at}: {said}");
        for (name, keepwatch) in &hosts {
            let own = keepwatch.ask(&["ls", "--json", "--at", &at]);
            let of_it = format!("{{\"host\":\"{name}\"");
            let told: BTreeSet<String> =
                text(&all.stdout).lines().filter(|line| line.starts_with(&of_it)).map(str::to_owned).collect();
            assert_eq!(told, lines(&own), "{name} at {at}");
            assert!(!text(&own.stdout).contains("\\u0000"), "{name} at {at}: a name that no file has");
            let is_uncertain = !own.stderr.is_empty();
            assert_eq!(said.contains(&format!("uncertain on {name}:")), is_uncertain, "{name} at {at}: {said}");
            rows += told.len();
            doubts += usize::from(is_uncertain);
            if number % 4 == 0 {
                assert_same_below(asked, keepwatch, &dir.path().join(name), &at);
            }
        }
    }
    assert!(rows > 1_000 && doubts > 2, "{rows} rows, {doubts} doubts");

    // What is taken out of the history is not known of any more, and that is said.
    let now = asked.ask(&["ls", "--json", "--all-hosts"]);
    postgres.sql("DELETE FROM changes WHERE seq < 100; DELETE FROM acts WHERE seq < 100");
    let records = hosts[0].1.records();
    let early = asked.ask(&["ls", "--all-hosts", "--at", records[50]["at"].as_str().unwrap()]);
    assert_eq!((early.status.code(), text(&early.stdout)), (Some(1), String::new()));
    assert!(
        text(&early.stderr).contains("one: its history in the shared index begins later"),
        "{}",
        text(&early.stderr)
    );
    let last = records.iter().map(|record| record["at"].as_str().unwrap()).max().unwrap();
    let late = asked.ask(&["ls", "--json", "--all-hosts", "--at", last]);
    let of_one =
        |output: &Output| lines(output).into_iter().filter(|line| line.contains("\"one\"")).collect::<Vec<_>>();
    assert_eq!(of_one(&late), of_one(&now));
}

#[test]
fn what_happened_in_a_directory_is_followed_as_its_host_follows_it() {
    let Some(postgres) = Postgres::start("what_happened_in_a_directory_is_followed_as_its_host_follows_it") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let hosts = with_a_past(dir.path(), &postgres);
    let (_, asked) = &hosts[0];
    let mut followed = 0;
    for (name, keepwatch) in &hosts {
        // What is written has settled.
        support::wait_for("everything has settled", || {
            wait_indexed(keepwatch);
            postgres.sql("SELECT count(*) FROM originals WHERE type = 'file' AND NOT settled") == "0"
        });
        let tree = dir.path().join(name);
        let records = keepwatch.records();
        let of = |record: &Value, field: &str| record[field].as_str().map(str::to_owned);
        let paths: BTreeSet<String> =
            records.iter().flat_map(|record| [of(record, "path"), of(record, "old_path")]).flatten().collect();
        let dirs: BTreeSet<String> =
            records.iter().filter(|record| record["type"] == "dir").filter_map(|record| of(record, "path")).collect();
        let middle = records[records.len() / 2]["at"].as_str().unwrap();
        let some_files = paths.difference(&dirs).step_by(sized(12, 3));
        for path in dirs.iter().chain(some_files).map(String::as_str).chain([".", "never/there"]) {
            let log = |keepwatch: &Keepwatch, args: &[&str]| {
                let mut command = keepwatch.command(&["log", "--json"]);
                let output = command.args(args).arg(tree.join(path)).stdin(Stdio::null()).output().unwrap();
                assert!(output.status.success(), "{}", text(&output.stderr));
                let told: Vec<Value> =
                    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                told
            };
            let own_of = |args: &[&str]| {
                let mut own = log(keepwatch, args);
                own.iter_mut().for_each(|record| record["host"] = name.as_str().into());
                own
            };
            let own = own_of(&[]);
            let own_unfollowed = own_of(&["--no-follow"]);
            assert_eq!(log(asked, &["--all-hosts"]), own, "{name}: {path}");
            assert_eq!(log(asked, &["--all-hosts", "--no-follow"]), own_unfollowed, "{name}: {path}, not followed");
            let since = ["--since", middle, "--do", "move", "--do", "delete", "--do", "settled"];
            assert_eq!(log(asked, &[&["--all-hosts"], &since[..]].concat()), own_of(&since), "{name}: {path}, some");
            followed += usize::from(dirs.contains(path) && own.len() > own_unfollowed.len());
        }
    }
    assert!(followed > 5, "{followed} directories were elsewhere once");
}

/// Hosts that lived: churn, whole directories that came, moved and went, two exchanged names, and stretches in which
/// nobody watched.
fn with_a_past(dir: &Path, postgres: &Postgres) -> Vec<(String, Keepwatch)> {
    let mut hosts: Vec<(String, Keepwatch)> =
        ["one", "two"].map(|name| (name.to_owned(), host(dir, name, postgres))).into();
    for (number, (name, keepwatch)) in (0_u64..).zip(&mut hosts) {
        let tree = dir.join(name.as_str());
        let mut dice = Dice::new(number + 40);
        shake(&tree, &mut dice, 200);
        keepwatch.start_and_settle();
        for round in 0..sized(2, 8) {
            shake(&tree, &mut dice, sized(150, 3_000));
            fs::create_dir_all(tree.join("a/b/c")).unwrap();
            fs::write(tree.join("a/b/c/deep"), vec![b'x'; round]).unwrap();
            fs::write(tree.join("a/b/near"), "near").unwrap();
            keepwatch.caught_up();
            step(&tree, "a/b", "e");
            keepwatch.caught_up();
            fs::write(tree.join("e/c/deep"), "written again").unwrap();
            fs::write(tree.join("e/new"), "new").unwrap();
            keepwatch.caught_up();
            fs::create_dir_all(tree.join("f/g")).unwrap();
            step(&tree, "e", "f/g/e");
            // Another directory where the first one was.
            fs::create_dir_all(tree.join("e/c")).unwrap();
            fs::write(tree.join("e/c/other"), "other").unwrap();
            keepwatch.caught_up();
            exchange(&tree.join("e"), &tree.join("f/g/e"));
            keepwatch.caught_up();
            fs::write(tree.join("e/new"), "grown, elsewhere").unwrap();
            step(&tree, "f", "a/f");
            keepwatch.caught_up();
            fs::remove_dir_all(tree.join("a")).unwrap();
            keepwatch.stop();
            // What nobody sees is found afterwards.
            shake(&tree, &mut dice, 50);
            step(&tree, "e", "h");
            fs::create_dir(tree.join("e")).unwrap();
            fs::write(tree.join("e/unseen"), "unseen").unwrap();
            keepwatch.start_and_settle();
            fs::remove_dir_all(tree.join("h")).unwrap();
            fs::remove_dir_all(tree.join("e")).unwrap();
            keepwatch.caught_up();
        }
    }
    for (_, keepwatch) in &hosts {
        wait_indexed(keepwatch);
    }
    hosts
}

fn step(tree: &Path, from: &str, to: &str) {
    fs::rename(tree.join(from), tree.join(to)).unwrap();
}

fn exchange(one: &Path, other: &Path) {
    let here = rustix::fs::CWD;
    rustix::fs::renameat_with(here, one, here, other, rustix::fs::RenameFlags::EXCHANGE).unwrap();
}

/// Before everything, about each gap and exchange of names, and some moments between, each when a record came and just before.
fn moments(records: &[Value]) -> Vec<String> {
    let is_odd = |record: &Value| record["do"].as_str().unwrap().starts_with("gap") || record["exchange"] == true;
    let every = (records.len() / sized(10, 60)).max(1);
    let chosen = records.iter().enumerate().filter(|(number, record)| number % every == 0 || is_odd(record));
    let exact = chosen.map(|(_, record)| record["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    let just_before = jiff::SignedDuration::from_nanos(1);
    let both = exact.flat_map(|at| [at, at - just_before]).map(|at| at.to_string());
    both.chain(["2001-01-01".to_owned()]).collect()
}

/// Some paths that stood on a host then, and some that did not, asked one by one.
fn assert_same_below(asked: &Keepwatch, keepwatch: &Keepwatch, tree: &Path, at: &str) {
    for path in ["a/b", "a/b/c/deep", "e", "e/c", "f/g/e", "a/f/g", "d1", "d2/n3"] {
        let of = |keepwatch: &Keepwatch, args: &[&str]| {
            keepwatch.command(args).arg("--at").arg(at).arg(tree.join(path)).stdin(Stdio::null()).output().unwrap()
        };
        let own = of(keepwatch, &["ls", "--json"]);
        let told = of(asked, &["ls", "--json", "--all-hosts"]);
        assert_eq!(lines(&told), lines(&own), "{path} at {at}");
        assert_eq!(told.status.code(), own.status.code(), "{path} at {at}: {}", text(&told.stderr));
        let is_uncertain = |output: &Output| text(&output.stderr).contains("uncertain");
        assert_eq!(is_uncertain(&told), is_uncertain(&own), "{path} at {at}");
    }
}

fn lines(output: &Output) -> BTreeSet<String> {
    text(&output.stdout).lines().map(str::to_owned).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
