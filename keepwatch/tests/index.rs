//! The shared index on a real PostgreSQL: what each host knows is there, once, whatever happens in between.
#![allow(clippy::unwrap_used, missing_docs)]

mod postgres;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use postgres::{Postgres, wait_indexed};
use support::{Dice, Keepwatch, Row, differences, is_change, shake, sized, walk};

/// A host with one root, which follows into the database.
fn host(dir: &Path, name: &str, postgres: &Postgres) -> Keepwatch {
    let tree = dir.join(name);
    fs::create_dir_all(&tree).unwrap();
    let toml = format!(
        "host = \"{name}\"\n{}\n[roots.tree]\npath = {:?}\nsettle = \"1s\"\n",
        postgres.section(),
        tree.to_str().unwrap()
    );
    Keepwatch::configured(&dir.join(format!("{name}-state")), &toml)
}

/// A host's live names in the database, by exact path.
fn originals(postgres: &Postgres, host: &str) -> BTreeMap<Vec<u8>, Row> {
    let sql = format!(
        "SELECT encode(CASE WHEN d.path = '' THEN ''::bytea ELSE d.path || '/'::bytea END || f.name, 'hex'), o.type, o.size, \
         f.mtime_ns, o.inode FROM originals o JOIN hosts h ON h.name = o.host AND h.is_current \
         JOIN files f ON f.host_id = h.host_id AND f.file_id = o.file_id \
         JOIN dirs d ON d.host_id = h.host_id AND d.dir_id = f.dir_id \
         WHERE h.name = '{host}' AND o.path = d.path_text || CASE WHEN d.path_text = '' THEN '' ELSE '/' END \
         || coalesce(f.name_text, convert_from(f.name, 'UTF8'))"
    );
    let rows = postgres.sql(&sql);
    let rows = rows.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    rows.map(|fields| {
        let row = Row {
            kind: if fields[1].is_empty() { "null".to_owned() } else { fields[1].to_owned() },
            size: fields[2].parse().unwrap_or(u64::MAX),
            mtime_ns: fields[3].parse().unwrap_or(i64::MIN),
            inode: fields[4].parse().unwrap_or(0),
        };
        (unhex(fields[0]), row)
    })
    .collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// What stands in the database is what stands in the tree, and its history is the journal's.
fn assert_indexed(keepwatch: &Keepwatch, postgres: &Postgres, name: &str, tree: &Path) {
    keepwatch.assert_same(tree);
    wait_indexed(keepwatch);
    let differences = differences(&originals(postgres, name), &walk(tree));
    assert!(differences.is_empty(), "{name}: {} differences:\n{}", differences.len(), differences.join("\n"));
    let records = keepwatch.records();
    let journaled: Vec<u64> =
        records.iter().filter(|record| is_change(record)).map(|record| record["seq"].as_u64().unwrap()).collect();
    let told = postgres.sql(&format!("SELECT seq FROM file_changes WHERE host = '{name}' ORDER BY seq"));
    let told: Vec<u64> = told.lines().map(|seq| seq.parse().unwrap()).collect();
    assert_eq!(told, journaled, "{name}: the seqs in file_changes");
    let acts = postgres.number(&format!(
        "SELECT count(*) FROM acts a JOIN hosts h ON h.host_id = a.host_id AND h.is_current WHERE h.name = '{name}'"
    ));
    assert_eq!(acts, (records.len() - journaled.len()) as u64, "{name}: acts");
    assert_eq!(postgres.sql("SELECT count(*) FROM problems"), "0");
}

#[test]
fn three_hosts_feed_one_database() {
    let Some(postgres) = Postgres::start("three_hosts_feed_one_database") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut hosts: Vec<(String, Keepwatch)> =
        ["one", "two", "three"].map(|name| (name.to_owned(), host(dir.path(), name, &postgres))).into();
    for (number, (name, keepwatch)) in hosts.iter_mut().enumerate() {
        shake(&dir.path().join(name.as_str()), &mut Dice::new(number as u64), 300);
        keepwatch.start();
    }
    for round in 0..3 {
        for (number, (name, _)) in hosts.iter().enumerate() {
            let tree = dir.path().join(name);
            shake(&tree, &mut Dice::new(100 + round * 10 + number as u64), sized(1_000, 30_000));
        }
    }
    for (name, keepwatch) in &mut hosts {
        assert_indexed(keepwatch, &postgres, name, &dir.path().join(name.as_str()));
        keepwatch.stop();
    }
}
