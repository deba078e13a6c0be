//! Far replicas: copies on another host and in a bucket are proved, found rotten, mended, and restored whole.
#![allow(clippy::unwrap_used)]

mod house;
mod sshd;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use house::{House, files, flip, rel};
use keepwatch_s3_server::{KEY_ID, REGION, SECRET, Server};
use sshd::{Far, Sshd};
use support::pair::{differences, make_tree};
use support::{Dice, sized};

/// A service whose replica `far` is at this URL, with some files at it.
fn house(url: &str, env: &[(&str, String)]) -> House {
    let mut house = House::with_replicas(&[], &format!("[replicas.far]\nurl = \"{url}\"\n"));
    house.keepwatch.env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    make_tree(&house.root(), sized(80, 5_000));
    std::os::unix::fs::symlink("d1/e1", house.root().join("link")).unwrap();
    house.keepwatch.start_and_settle();
    support::wait_for("the replica follows", || {
        let all = house.keepwatch.json_lines(&["replica", "list", "--json"]);
        let files = support::walk(&house.root()).values().filter(|row| row.kind == "file").count();
        all.iter().all(|one| one["state"] == "following" && one["pending"] == 0 && one["files"] == files)
    });
    house.keepwatch.caught_up();
    house
}

/// Damage is found, mended and gone.
fn assert_mends(house: &House, rotten: &BTreeSet<String>) {
    let (found, _) = house.verify(&["--replica", "far"], 1);
    assert_eq!(&found.keys().cloned().collect::<BTreeSet<_>>(), rotten);
    assert!(found.values().all(|what| what == "rot"), "{found:?}");
    let (_, sum) = house.verify(&["--replica", "far", "--repair"], 1);
    assert_eq!(sum["repaired"].as_u64().unwrap() as usize, rotten.len(), "{sum}");
    assert!(house.verify(&["--replica", "far"], 0).0.is_empty());
}

fn assert_restores(house: &House, with_times: bool) {
    let back = house.dir.path().join("back");
    let root = house.root();
    house.told(&["restore", root.to_str().unwrap(), "--from", "far", "--to", back.to_str().unwrap()], 0);
    let mut found = differences(&root, &back);
    if !with_times {
        // A bucket keeps no directories.
        found.retain(|line| line.contains("/f") || line.contains("link"));
    }
    assert!(found.is_empty(), "{found:#?}");
    house.told(&["restore", "--from", "far", "--drill", "10"], 0);
}

#[test]
fn copies_on_another_host() {
    for far in [Far::Keepwatch, Far::Bare] {
        let Some(sshd) = Sshd::start("copies_on_another_host", far) else { return };
        let target = tempfile::tempdir().unwrap();
        let house = house(&format!("ssh://far{}", target.path().display()), &[("PATH", sshd.path())]);
        assert!(house.verify(&["--replica", "far"], 0).0.is_empty());
        let copies = target.path().join("preserve-1").join(house.root().strip_prefix("/").unwrap());
        let mut dice = Dice::new(8);
        let rotten: Vec<_> = files(&copies).into_iter().step_by(9).collect();
        rotten.iter().for_each(|path| flip(path, &mut dice));
        assert_mends(&house, &rotten.iter().map(|path| rel(&copies, path)).collect());
        assert_eq!(contents(&copies), contents(&house.root()));
        assert_restores(&house, true);
    }
}

#[test]
fn copies_in_a_bucket() {
    let server = Server::start("bucket").unwrap();
    let env = [
        ("AWS_ACCESS_KEY_ID", KEY_ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ("AWS_ENDPOINT_URL", server.endpoint().to_string()),
        ("AWS_REGION", REGION.to_owned()),
    ];
    let house = house("s3://bucket/kept", &env);
    assert!(house.verify(&["--replica", "far"], 0).0.is_empty());
    assert_restores(&house, false);
}

/// All files' contents, by path.
fn contents(top: &Path) -> Vec<(String, Vec<u8>)> {
    files(top).into_iter().map(|path| (rel(top, &path), fs::read(&path).unwrap())).collect()
}
