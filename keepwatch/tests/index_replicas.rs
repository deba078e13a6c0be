//! What replicas hold, in the shared index: the same rows as in each host's inventory, through renames, deletes and a replay.
#![allow(clippy::unwrap_used, missing_docs)]

mod postgres;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use keepwatch_engine::inventory::View;
use postgres::{Postgres, host_with, wait_indexed};
use support::pair::{differences, make_tree};
use support::{Keepwatch, sized, wait_for};

/// The copies that a host's inventory knows, as text.
fn own_copies(keepwatch: &Keepwatch) -> BTreeSet<String> {
    let view = View::open(&keepwatch.state.join("inventory.db")).unwrap();
    let mut found = BTreeSet::new();
    for replica in view.replicas().unwrap() {
        for root in view.roots().unwrap() {
            for copy in view.copies_after(replica.id, root.dir_id, b"", usize::MAX >> 1).unwrap() {
                let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
                let digest = copy.sha256.map(|digest| hex(&digest)).unwrap_or_default();
                found.insert(format!(
                    "{}|{}|{}|{}|{}|{:?}|{}|{}|{digest}|{:?}",
                    replica.name,
                    root.name,
                    hex(&copy.key),
                    copy.file_id.0,
                    copy.of,
                    copy.kind,
                    copy.size,
                    copy.mtime_ns,
                    copy.proof
                ));
            }
        }
    }
    found
}

/// The same in the shared index.
fn shared_copies(postgres: &Postgres, host: &str) -> BTreeSet<String> {
    let rows = postgres.sql(&format!(
        "SELECT p.name, r.name, upper(encode(c.path, 'hex')), c.file_id, c.of_seq, \
         CASE c.kind WHEN 1 THEN 'File' WHEN 2 THEN 'Dir' WHEN 3 THEN 'Symlink' WHEN 4 THEN 'Fifo' END, c.size, c.mtime_ns, \
         coalesce(upper(encode(c.sha256, 'hex')), ''), \
         CASE c.proof WHEN 1 THEN 'Presumed' WHEN 2 THEN 'Written' WHEN 3 THEN 'Proved' END FROM copies c JOIN hosts h USING (host_id) \
         JOIN replicas p USING (host_id, replica_id) JOIN roots r ON r.host_id=c.host_id AND r.root_id=c.root_id \
         WHERE h.is_current AND h.name='{host}'"
    ));
    rows.lines().map(|line| line.replace('\t', "|")).collect()
}

fn assert_same(keepwatch: &Keepwatch, postgres: &Postgres, host: &str) {
    wait_indexed(keepwatch);
    let (own, shared) = (own_copies(keepwatch), shared_copies(postgres, host));
    let (lacks, has_more) = (own.difference(&shared).next(), shared.difference(&own).next());
    assert!(own == shared, "{} and {} copies; the index lacks {lacks:?} and has {has_more:?}", own.len(), shared.len());
    let counted = postgres.sql(&format!(
        "SELECT p.files, p.bytes, count(c.kind), coalesce(sum(c.size), 0) FROM hosts h JOIN replicas p USING (host_id) \
         LEFT JOIN copies c ON c.host_id=p.host_id AND c.replica_id=p.replica_id AND c.kind=1 WHERE h.is_current \
         AND h.name='{host}' GROUP BY p.files, p.bytes"
    ));
    let cells: Vec<&str> = counted.trim().split('\t').collect();
    assert_eq!((cells[0], cells[1]), (cells[2], cells[3]), "{counted}");
    assert_ne!(cells[0], "0");
}

#[test]
fn the_index_knows_what_each_replica_holds() {
    let Some(postgres) = Postgres::start("the_index_knows_what_each_replica_holds") else { return };
    let dir = tempfile::tempdir().unwrap();
    let vaults = dir.path().join("vaults");
    let mut hosts = Vec::new();
    for name in ["one", "two"] {
        let vault = vaults.join(name);
        fs::create_dir_all(&vault).unwrap();
        let section = format!(
            "{}\n[replicas.vault]\nurl = \"{}\"\nlayout = \"mirror\"\nsource_prefix = \"{}/\"\ndelete_delay = \"1s\"\nmax_delete = \"100%\"\n",
            postgres.section(),
            vault.display(),
            dir.path().join(name).display(),
        );
        let mut keepwatch = host_with(dir.path(), name, &section);
        make_tree(&dir.path().join(name), sized(200, 5_000));
        keepwatch.start_and_settle();
        hosts.push((name, keepwatch));
    }
    let same = |name: &str| {
        let tree = dir.path().join(name);
        wait_for("the replica is as the root", || differences(&tree, &vaults.join(name)).is_empty());
    };
    for (name, keepwatch) in &hosts {
        same(name);
        assert_same(keepwatch, &postgres, name);
    }

    // Renames of directories and files, changes, deletes.
    for (name, keepwatch) in &hosts {
        change(&dir.path().join(name));
        same(name);
        assert_same(keepwatch, &postgres, name);
    }
    let of = |sql: &str| postgres.number(sql);
    assert_eq!(of("SELECT count(*) FROM original_copies WHERE settled AND replica IS NULL"), 0);
    assert!(of("SELECT count(*) FROM original_copies WHERE proof = 'written' AND sha256 IS NOT NULL") > 100);

    let (_, asked) = &hosts[0];
    let listed = asked.json_lines(&["replica", "list", "--all-hosts", "--json"]);
    let named: Vec<_> =
        listed.iter().map(|one| (one["host"].as_str().unwrap(), one["name"].as_str().unwrap())).collect();
    assert_eq!(named, [("one", "vault"), ("two", "vault")]);
    assert_eq!(
        listed[0]["files"],
        of("SELECT count(*) FROM copies JOIN hosts USING (host_id) WHERE name='one' AND kind=1")
    );
    let table = asked.ask(&["replica", "list", "--all-hosts"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.starts_with("HOST  NAME") && table.lines().count() == 3, "{table}");

    // A replay comes to the same rows.
    let (name, keepwatch) = &mut hosts[0];
    keepwatch.stop();
    let before = shared_copies(&postgres, name);
    let replayed = keepwatch.ask(&["replay", "--to", "postgres"]);
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    assert_eq!(shared_copies(&postgres, name), before);
    assert_eq!(of("SELECT count(*) FROM problems"), 0);
}

/// Renames, writes and deletes in a tree that `make_tree` made.
fn change(tree: &Path) {
    let dirs: Vec<_> = fs::read_dir(tree).unwrap().map(Result::unwrap).filter(|one| one.path().is_dir()).collect();
    let first = dirs.first().unwrap().path();
    fs::rename(&first, tree.join("renamed dir")).unwrap();
    fs::write(tree.join("renamed dir/new"), "new").unwrap();
    fs::rename(tree.join("renamed dir/new"), tree.join("moved up")).unwrap();
    if let Some(last) = dirs.get(1) {
        fs::remove_dir_all(last.path()).unwrap();
    }
}
