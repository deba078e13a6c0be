//! Copies: proved by reading them again, rot told from honest edits, mended from whoever still has it.
#![allow(clippy::unwrap_used)]

mod house;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use house::{House, files, flip, rel};
use support::pair::make_tree;
use support::{Dice, sized};

/// How many copies are proved, by the last record of each.
fn proved(house: &House, replica: &str) -> usize {
    let records = house.keepwatch.records();
    let of_it = records.iter().filter(|record| record["do"] == "verified" && record["replica"] == replica);
    let pairs = of_it.flat_map(|record| {
        record["files"].as_array().unwrap().chunks(2).map(|pair| pair[0].clone()).collect::<Vec<_>>()
    });
    pairs.map(|id| id.as_i64().unwrap()).collect::<BTreeSet<_>>().len()
}

#[test]
fn a_copy_that_was_not_hashed_is_presumed_until_it_is_read() {
    let mut house = House::with_replicas(&["vault"], "");
    let config = house.dir.path().join("state.toml");
    let text = fs::read_to_string(&config).unwrap().replace("delete_delay", "hash = false\ndelete_delay");
    fs::write(&config, text).unwrap();
    make_tree(&house.root(), 60);
    fs::File::create(house.root().join("sparse")).unwrap().set_len(1 << 20).unwrap();
    house.keepwatch.start_and_settle();
    house.wait_copied(&["vault"]);
    let records = house.keepwatch.records();
    let copied: Vec<_> = records.iter().filter(|record| record["do"] == "copied" && record["type"] == "file").collect();
    assert!(copied.len() > 60);
    for record in copied {
        // What has holes is read, so that it keeps them.
        let is_read = record["path"] == "sparse";
        assert_eq!(record["proof"], if is_read { "written" } else { "presumed" }, "{record}");
        assert_eq!(record["sha256"].is_string(), is_read, "{record}");
    }
    let bad = house.copies("vault").join("d1/e1/f1");
    flip(&bad, &mut Dice::new(1));
    // Before the originals are read nobody knows what the copies should be.
    assert_eq!(house.verify(&["--replica", "vault"], 0).1["unknown"], 60);
    house.settle();
    let (found, sum) = house.verify(&["--replica", "vault"], 1);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["d1/e1/f1"], "{found:?} {sum}");
    house.verify(&["--replica", "vault", "--repair"], 1);
    assert!(house.verify(&["--replica", "vault"], 0).0.is_empty());
    assert_eq!(proved(&house, "vault"), files(&house.root()).len());
    assert!(support::pair::differences(&house.root(), &house.copies("vault")).is_empty());
    house.keepwatch.stop();
}

#[test]
fn rot_at_a_replica_is_found_and_mended() {
    let mut house = House::with_replicas(&["vault", "second"], "");
    make_tree(&house.root(), sized(200, 20_000));
    fs::hard_link(house.root().join("d1/e1/f1"), house.root().join("another-name")).unwrap();
    house.keepwatch.start_and_settle();
    house.wait_copied(&["vault", "second"]);
    let (found, sum) = house.verify(&["--replica", "vault"], 0);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(proved(&house, "vault") as u64, sum["verified"].as_u64().unwrap());
    let all = files(&house.copies("vault"));
    let mut dice = Dice::new(3);
    let mut expected = BTreeMap::new();
    for (number, path) in all.iter().step_by(all.len() / sized(30, 100)).enumerate() {
        let what = match number % 4 {
            0 => {
                fs::write(path, "not by us").unwrap();
                "changed"
            }
            1 => {
                fs::remove_file(path).unwrap();
                "missing"
            }
            _ => {
                flip(path, &mut dice);
                "rot"
            }
        };
        expected.insert(rel(&house.copies("vault"), path), what.to_owned());
    }
    fs::write(house.copies("vault").join("stray"), "not ours").unwrap();
    expected.insert("stray".to_owned(), "foreign".to_owned());
    assert_eq!(house.verify(&["--replica", "vault"], 1).0, expected);
    assert_eq!(house.keepwatch.ask(&["status"]).status.code(), Some(1));
    // Honest edits of originals are no findings anywhere.
    fs::write(house.root().join("d2/e2/f2"), "an honest edit").unwrap();
    let edited = house.copies("vault").join("d2/e2/f2");
    support::wait_for("the edit is there", || fs::read(&edited).is_ok_and(|bytes| bytes == b"an honest edit"));
    expected.remove("d2/e2/f2");
    let (found, sum) = house.verify(&["--replica", "vault", "--repair"], 1);
    assert_eq!(found, expected);
    assert_eq!(sum["repaired"].as_u64().unwrap() as usize, expected.len() - 1, "{sum}");
    fs::remove_file(house.copies("vault").join("stray")).unwrap();
    let (found, _) = house.verify(&["--replica", "vault"], 0);
    assert!(found.is_empty());
    let different = support::pair::differences(&house.root(), &house.copies("vault"));
    let of_files: Vec<_> = different.iter().filter(|line| line.contains("/f") || line.contains("another")).collect();
    assert!(of_files.is_empty(), "{of_files:#?}");
    let repaired = house.keepwatch.records().iter().filter(|record| record["do"] == "repaired").count();
    assert_eq!(repaired, expected.len() - 1);
    house.keepwatch.assert_verifies();
    // The bad bytes lie in the trash.
    let trash = house.dir.path().join("vault/.keepwatch-trash");
    assert!(files(&trash).len() >= expected.values().filter(|what| *what == "rot").count());
    house.keepwatch.stop();
    house.keepwatch.ok(&["replay"]);
    assert_eq!(house.verify(&["--replica", "vault"], 0).0.len(), 0);
}

#[test]
fn an_original_is_mended_only_when_it_is_named() {
    let mut house = House::with_replicas(&["vault", "second"], "");
    make_tree(&house.root(), 100);
    house.keepwatch.start_and_settle();
    house.wait_copied(&["vault", "second"]);
    house.keepwatch.stop();
    let all = files(&house.root());
    let contents: BTreeMap<PathBuf, Vec<u8>> = all.iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let mut dice = Dice::new(9);
    let rotten: Vec<&PathBuf> = all.iter().step_by(10).collect();
    rotten.iter().for_each(|path| flip(path, &mut dice));
    // The first replica has rotted at the same place.
    flip(&house.copies("vault").join(rel(&house.root(), rotten[0])), &mut dice);
    assert!(house.told(&["verify", "--repair"], 2).contains("only when it is named"));
    let one = rotten[0].to_str().unwrap();
    let text = house.told(&["verify", "--repair", one], 1);
    assert!(text.contains("repaired") && text.contains("from second") && text.contains("kept as"), "{text}");
    assert_eq!(fs::read(rotten[0]).unwrap(), contents[rotten[0]]);
    assert_eq!(house.verify(&[], 1).0.len(), rotten.len() - 1);
    fs::remove_file(&all[1]).unwrap();
    let root = house.root();
    let (found, sum) = house.verify(&["--repair", root.to_str().unwrap()], 1);
    assert_eq!((found.len(), sum["repaired"].as_u64().unwrap() as usize), (rotten.len(), rotten.len()), "{found:?}");
    for (path, content) in &contents {
        assert_eq!(&fs::read(path).unwrap(), content, "{path:?}");
    }
    let kept = files(&house.dir.path().join("state/kept"));
    assert_eq!(kept.len(), rotten.len());
    house.keepwatch.start_and_settle();
    house.settle();
    house.wait_copied(&["second"]);
    assert_eq!(house.verify(&["--replica", "second"], 0).0.len(), 0);
}

#[test]
fn a_tree_comes_back_whole() {
    let mut house = House::with_replicas(&["vault"], "");
    make_tree(&house.root(), sized(150, 20_000));
    fs::hard_link(house.root().join("d1/e1/f1"), house.root().join("another-name")).unwrap();
    std::os::unix::fs::symlink("d1/e1", house.root().join("link")).unwrap();
    fs::write(house.root().join("odd \n name"), "x").unwrap();
    fs::create_dir_all(house.root().join("empty/inner")).unwrap();
    house.keepwatch.start_and_settle();
    house.wait_copied(&["vault"]);
    let back = house.dir.path().join("back");
    let (root, to) = (house.root(), back.clone());
    let (root, to) = (root.to_str().unwrap(), to.to_str().unwrap());
    let text = house.told(&["restore", root, "--from", "vault", "--to", to], 0);
    assert!(text.contains("restored and verified"), "{text}");
    assert_eq!(support::pair::differences(&house.root(), &back), Vec::<String>::new());
    // Again: nothing is fetched. What is in the way stays.
    assert!(house.told(&["restore", root, "--from", "vault", "--to", to], 0).starts_with("0 files"));
    fs::write(back.join("d1/e1/f1"), "mine").unwrap();
    assert!(house.told(&["restore", root, "--from", "vault", "--to", to], 3).contains("something else is there"));
    assert_eq!(fs::read(back.join("d1/e1/f1")).unwrap(), b"mine");
    // A part, as it was before it was overwritten; and what is gone for good here.
    let path = house.root().join("d2/e2/f2");
    let before = fs::read(&path).unwrap();
    house.keepwatch.caught_up();
    let at = jiff_now();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&path, "another version").unwrap();
    fs::remove_file(house.root().join("d3/e3/f3")).unwrap();
    support::wait_for("the replica has followed", || {
        fs::read(house.copies("vault").join("d2/e2/f2")).unwrap() == b"another version"
            && !house.copies("vault").join("d3/e3/f3").exists()
    });
    let then = house.dir.path().join("then");
    let then = then.to_str().unwrap();
    house.told(&["restore", path.to_str().unwrap(), "--from", "vault", "--to", then, "--at", &at], 0);
    assert_eq!(fs::read(house.dir.path().join("then/f2")).unwrap(), before);
    let gone = house.root().join("d3/e3/f3");
    house.told(&["restore", gone.to_str().unwrap(), "--from", "vault", "--to", then, "--at", &at], 0);
    assert!(house.dir.path().join("then/f3").exists());
    assert!(
        house.told(&["restore", gone.to_str().unwrap(), "--from", "vault", "--to", then], 2).contains("holds nothing")
    );
    // A drill fetches, and leaves nothing.
    assert!(house.told(&["restore", "--from", "vault", "--drill", "20"], 0).starts_with("20 files"));
    assert!(house.told(&["restore", root, "--from", "vaut", "--to", to], 2).contains("did you mean `vault`"));
    flip(&house.copies("vault").join("d4/e4/f4"), &mut Dice::new(1));
    let again = house.dir.path().join("again");
    assert!(
        house
            .told(&["restore", root, "--from", "vault", "--to", again.to_str().unwrap()], 3)
            .contains("is not what it was")
    );
    assert!(!again.join("d4/e4/f4").exists());
    let restored = house.keepwatch.records().iter().filter(|record| record["do"] == "restored").count();
    assert_eq!(restored, 7);
    house.keepwatch.stop();
    house.told(&["restore", "--from", "vault", "--drill", "5"], 0);
}

fn jiff_now() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// How often files were verified, by the records.
fn checked(house: &House, replica: Option<&str>) -> usize {
    let records = house.keepwatch.records();
    let of_it = records.iter().filter(|one| one["do"] == "verified" && one["replica"].as_str() == replica);
    of_it.map(|record| record["files"].as_array().unwrap().len() / 2).sum::<usize>()
}

#[test]
fn copies_are_proved_by_themselves() {
    let mut house = House::with_replicas(&["vault"], "");
    let config = house.keepwatch.config.clone().unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("records\"\n[", "records\"\nverify_every = \"1h\"\n[") + "verify_every = \"1h\"\n";
    fs::write(&config, text.replace("delete_delay", "verify_bwlimit = \"50M\"\ndelete_delay")).unwrap();
    make_tree(&house.root(), 80);
    house.keepwatch.start_and_settle();
    house.wait_copied(&["vault"]);
    let count = support::walk(&house.root()).values().filter(|row| row.kind == "file").count();
    // The next round would come after minutes: a restart looks at once at what is new.
    house.keepwatch.stop();
    house.keepwatch.start_and_settle();
    support::wait_for("all copies are proved", || checked(&house, Some("vault")) >= count);
    support::wait_for("all originals are verified", || checked(&house, None) >= count);
    house.keepwatch.stop();
    let before = checked(&house, None);
    house.keepwatch.start_and_settle();
    house.wait_copied(&["vault"]);
    assert_eq!(
        (checked(&house, None), checked(&house, Some("vault"))),
        (before, count),
        "what was verified lately is not read again"
    );
}
