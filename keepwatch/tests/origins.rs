//! A backup of several hosts that was made by others: what lies in each host's directory becomes that host's originals.
#![allow(clippy::unwrap_used)]

mod house;
mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use house::{House, files};
use serde_json::Value;
use support::pair::{differences, make_tree};
use support::{sh, sized, walk};

/// What is known of a name: type, size and mtime.
type Rows = BTreeMap<(String, Vec<u8>), (Value, Value, Value)>;

/// Three trees, as they stand on three hosts, and a backup of them.
struct Stage {
    house: House,
    /// Host, path there, and the tree that stands for it.
    others: [(&'static str, &'static str, PathBuf); 2],
}

/// A directory becomes as another, made by rsync itself. It does not set times of directories and links that are right to the
/// second, as those are that were just made: so directories, and all the first time, are made older.
fn rsync(from: &Path, to: &Path) {
    let what = if to.is_dir() { "d" } else { "d,f,l" };
    let touch = ["-exec", "touch", "-h", "-d", "@1700000000.123456789", "{}", "+"];
    sh("find", &[&[&*from.display().to_string(), "-type", what], &touch[..]].concat());
    fs::create_dir_all(to).unwrap();
    sh("rsync", &["-a", "--delete", &format!("{}/", from.display()), &format!("{}/", to.display())]);
}

fn regular(tree: &Path) -> u64 {
    walk(tree).values().filter(|row| row.kind == "file").count() as u64
}

impl Stage {
    /// The trees; the inventory is made without the replica, so that nothing is copied before the import. `None`: no rsync.
    fn new(test: &str, layout: impl Fn(&str, &str) -> String) -> Option<Self> {
        if Command::new("rsync").arg("--version").output().is_err() {
            support::skipped(test, "there is no rsync");
            return None;
        }
        let mut house = House::with_replicas(&["vault"], "");
        let (aoc, icc) = (house.dir.path().join("aoc"), house.dir.path().join("icc"));
        for (index, tree) in [&house.root(), &aoc, &icc].into_iter().enumerate() {
            fs::create_dir_all(tree).unwrap();
            make_tree(tree, sized(150 + index, 30_000));
        }
        fs::write(aoc.join("SHOT_20240131235959123456789.dat"), "a").unwrap();
        fs::write(aoc.join("SHOT_2024-02-01T000102.dat"), "b").unwrap();
        fs::write(aoc.join(OsStr::from_bytes(b"not \xff text")), "c").unwrap();
        symlink("SHOT", aoc.join("a link")).unwrap();
        fs::set_permissions(aoc.join("SHOT_2024-02-01T000102.dat"), fs::Permissions::from_mode(0o640)).unwrap();
        rsync(&house.root(), &house.copies("vault"));
        let others = [("aoc", "/data", aoc), ("icc", "/srv/icc/data", icc)];
        for (host, path, tree) in &others {
            rsync(tree, &house.dir.path().join("vault").join(layout(host, path)));
        }
        let config = house.keepwatch.config.clone().unwrap();
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.split("[replicas").next().unwrap()).unwrap();
        house.keepwatch.start_and_settle();
        house.settle();
        house.keepwatch.stop();
        fs::write(&config, &text).unwrap();
        Some(Stage { house, others })
    }

    fn import(&self, more: &[&str]) -> Value {
        let args = [&["replica", "import", "vault", "--json", "--import-origins"], more].concat();
        self.house.keepwatch.json_lines(&args).remove(0)
    }

    /// The inventory has all that is in the trees, by host and path, and nothing else.
    fn assert_known(&self) {
        let mut listed = Rows::new();
        for line in self.house.keepwatch.json_lines(&["ls", "--json"]) {
            let row = (line["type"].clone(), line["size"].clone(), line["mtime_ns"].clone());
            let row = if line["type"] == "file" { row } else { (line["type"].clone(), Value::Null, Value::Null) };
            let (host, root) = (line["host"].as_str().unwrap(), line["root"].as_str().unwrap());
            let top = match root.split_once(':') {
                Some((of, dir)) => {
                    assert_eq!(of, host);
                    dir.trim_end_matches('/').to_owned()
                }
                None => self.house.root().display().to_string(),
            };
            let full = [top.as_bytes(), b"/", &support::bytes(&line, "path")].concat();
            listed.insert((host.to_owned(), full), row);
        }
        let mut there = Rows::new();
        let own = ("preserve-1", self.house.root().display().to_string(), self.house.root());
        let others = self.others.iter().map(|(host, path, tree)| (*host, (*path).to_owned(), tree.clone()));
        for (host, path, tree) in others.chain([own]) {
            for (name, row) in walk(&tree) {
                let full = [path.as_bytes(), b"/", &name].concat();
                let known: (Value, Value, Value) = match row.kind.as_str() {
                    "file" => ("file".into(), row.size.into(), row.mtime_ns.into()),
                    // Not every rsync keeps the times of links.
                    kind => (kind.into(), Value::Null, Value::Null),
                };
                there.insert((host.to_owned(), full), known);
            }
        }
        // The directories above, which `HOST/ABSOLUTE PATH` has too, are no part of the trees.
        listed.retain(|(_, path), _| !self.others.iter().any(|(_, of, _)| of.as_bytes().starts_with(path)));
        let strays = |one: &Rows, other: &Rows| -> Vec<String> {
            let differs = one.iter().filter(|(name, row)| other.get(*name) != Some(row));
            differs
                .take(9)
                .map(|((host, path), row)| {
                    format!("{host}:{} {row:?} and {:?}", support::show(path), other.get(&(host.clone(), path.clone())))
                })
                .collect()
        };
        assert_eq!(strays(&there, &listed), Vec::<String>::new(), "not known so");
        assert_eq!(strays(&listed, &there), Vec::<String>::new(), "known and not there");
    }

    fn sent(&self) -> usize {
        let records = self.house.keepwatch.records();
        records.iter().filter(|record| record["do"] == "copied" && record["proof"] == "written").count()
    }

    fn first_seen(&self, name: &str) -> String {
        let ask = "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute(\
                   'SELECT host, first_seen FROM originals WHERE path LIKE ?', ('%' + sys.argv[2],)).fetchall())";
        let inventory = self.house.keepwatch.state.join("inventory.db");
        sh("python3", &["-c", ask, &inventory.display().to_string(), name]).trim().to_owned()
    }
}

#[test]
fn a_backup_of_three_hosts_is_enrolled() {
    let stage = Stage::new("a_backup_of_three_hosts_is_enrolled", |host, path| format!("{host}{path}"));
    let Some(mut stage) = stage else { return };
    let (own, others) = (regular(&stage.house.root()), regular(&stage.others[0].2) + regular(&stage.others[1].2));
    let sum = stage.import(&[]);
    assert_eq!((&sum["enrolled"], &sum["presumed"]), (&others.into(), &(own + others).into()), "{sum}");
    assert_eq!(sum["foreign"], 0, "{sum}");
    stage.assert_known();
    assert_eq!(
        stage.first_seen("SHOT_20240131235959123456789.dat"),
        "[('aoc', '2024-01-31T23:59:59.123456789Z')]",
        "by its name"
    );
    let records = stage.house.keepwatch.records().len();
    let again = stage.import(&[]);
    assert_eq!((&again["enrolled"], &again["presumed"]), (&0.into(), &0.into()), "{again}");
    assert_eq!(stage.house.keepwatch.records().len(), records, "a second import changes nothing");
    let originals = |house: &House| {
        let all = house.keepwatch.records();
        let of = |word: &str| all.iter().position(|record| record["do"] == word && record["root"] == "aoc:/").unwrap();
        (of("enrolled"), of("copied"))
    };
    let (original, copy) = originals(&stage.house);
    assert!(original < copy, "originals first");
    // What differs is sent, and nothing else; nobody touches what is another host's.
    let before = walk(&stage.house.dir.path().join("vault/aoc"));
    stage.house.keepwatch.start_and_settle();
    stage.house.told(&["replica", "sync", "vault"], 0);
    assert_eq!(stage.sent(), 0);
    fs::write(&files(&stage.house.root())[3], "another").unwrap();
    stage.house.wait_copied(&["vault"]);
    stage.house.told(&["replica", "sync", "vault"], 0);
    assert_eq!(stage.sent(), 1);
    assert_eq!(walk(&stage.house.dir.path().join("vault/aoc")), before);
    // The backup goes on, by others, while the service runs.
    let aoc = stage.others[0].2.clone();
    fs::write(&files(&aoc)[2], "changed there").unwrap();
    fs::write(aoc.join("later"), "new there").unwrap();
    rsync(&aoc, &stage.house.dir.path().join("vault/aoc/data"));
    assert_eq!(stage.import(&[])["enrolled"], 2);
    assert_eq!(stage.import(&[])["enrolled"], 0);
    stage.assert_known();
    // It can be verified and restored as what it is.
    assert_eq!(stage.house.verify(&["--replica", "vault"], 0).0.len(), 0);
    let back = stage.house.dir.path().join("back");
    stage.house.told(&["restore", "aoc:/data", "--from", "vault", "--to", back.to_str().unwrap()], 0);
    let back = if back.join("data").is_dir() { back.join("data") } else { back };
    assert_eq!(differences(&aoc, &back), Vec::<String>::new());
    assert!(stage.house.told(&["ls", "aoc:/data/later"], 0).contains("aoc:/data/later"));
    assert!(stage.house.told(&["ls", "aoc:/nowhere/x"], 1).contains("knows nothing"));
    assert!(stage.house.told(&["release", "aoc:/data/later"], 2).contains("aoc"));
    assert!(stage.house.told(&["verify", "aoc:/data"], 2).contains("aoc"));
    stage.house.keepwatch.stop();
    let listed = stage.house.keepwatch.listed();
    stage.house.keepwatch.ok(&["replay"]);
    assert_eq!(stage.house.keepwatch.listed(), listed);
    stage.assert_known();
    stage.house.keepwatch.assert_verifies();
}

#[test]
fn maps_say_whose_a_directory_is() {
    let Some(stage) = Stage::new("maps_say_whose_a_directory_is", |host, _| host.to_owned()) else { return };
    let vault = stage.house.dir.path().join("vault");
    let records = stage.house.keepwatch.records().len();
    let refused = |maps: &[&str], word: &str| {
        let args = maps.iter().flat_map(|map| ["--map", map]);
        let args: Vec<&str> = ["replica", "import", "vault", "--import-origins"].into_iter().chain(args).collect();
        let told = stage.house.told(&args, 2);
        assert!(told.contains(word), "{maps:?}: `{word}` is not in: {told}");
        assert!(!vault.join(".keepwatch-replica.json").exists(), "{maps:?}: nothing is touched");
        assert_eq!(stage.house.keepwatch.records().len(), records);
    };
    refused(&["aoc"], "`aoc` is no DIR=HOST:/PATH, as in `aoc=");
    refused(&["aoc=aoc:data"], "is no DIR=HOST:/PATH");
    refused(&["/elsewhere=aoc:/data"], "is no DIR=HOST:/PATH");
    refused(&["aoc=aoc:/data", "aoc/d1=x:/y"], "lie in one another");
    refused(&["aoc=aoc:/data", "icc=aoc:/data"], "both go to aoc:/data");
    refused(&["aoc=preserve-1:/data"], "none of its roots lies in /data");
    let root = stage.house.root();
    refused(&[&format!("aoc=preserve-1:{}", root.display())], "layout = \"mirror\", source_prefix");
    refused(&["aoc=aoc:/data", "xyz=x:/data"], "there is no directory `xyz`");
    assert!(stage.house.told(&["replica", "import", "vault", "--map", "aoc=aoc:/x"], 2).contains("--import-origins"));
    let absolute = format!("{}/icc/=icc:/srv/icc/data", vault.display());
    let maps = ["--map", "aoc=aoc:/data", "--map", &absolute];
    let others = regular(&stage.others[0].2) + regular(&stage.others[1].2);
    assert_eq!(stage.import(&maps)["enrolled"], others);
    stage.assert_known();
    let records = stage.house.keepwatch.records().len();
    assert_eq!(stage.import(&maps)["enrolled"], 0);
    assert_eq!(stage.house.keepwatch.records().len(), records);
    let mut stage = stage;
    stage.house.keepwatch.start_and_settle();
    stage.house.told(&["replica", "sync", "vault"], 0);
    assert_eq!(stage.sent(), 0, "of an identical tree nothing is sent");
    let status = stage.house.told(&["status"], 0);
    assert!(status.contains("vault"), "{status}");
    stage.house.keepwatch.stop();
}
