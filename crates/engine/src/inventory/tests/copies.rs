//! What acts of replicas come to, told one by one and told together.

use super::kit::*;
use crate::inventory::CopyCounts;
use crate::model::{Body, Copied, Digest, Failed, FileType, Proof, ReplicaName, Seq, Withdrawal, Withdrawn};

fn vault() -> ReplicaName {
    ReplicaName::new("vault")
}

/// A copy of the original that has this id: the number of its first record.
fn copied(path: &str, file: i64, size: u64) -> Body {
    Body::Copied(Box::new(Copied {
        replica: vault(),
        root: root("r"),
        path: rel(path),
        old_path: None,
        file,
        of: Seq(u64::try_from(file).unwrap()),
        kind: FileType::File,
        size,
        mtime_ns: super::kit::file(0, size).mtime_ns,
        sha256: Some(Digest([7; 32])),
        proof: Proof::Written,
    }))
}

fn moved(from: &str, path: &str, file: i64, size: u64) -> Body {
    let Body::Copied(mut act) = copied(path, file, size) else { unreachable!() };
    act.old_path = Some(rel(from));
    Body::Copied(act)
}

fn withdrawn(path: &str) -> Body {
    let kind = FileType::File;
    Body::Withdrawn(Box::new(Withdrawn {
        how: Withdrawal::Trashed,
        replica: vault(),
        root: root("r"),
        path: rel(path),
        kind,
    }))
}

fn failed(path: &str) -> Body {
    Body::Failed(Box::new(Failed { replica: vault(), root: root("r"), path: rel(path), why: "no room".into() }))
}

fn acts() -> Vec<Body> {
    vec![
        create("a", file(10, 100)),
        settled("a", &file(10, 100)),
        create("d", dir(11)),
        create("d/b", file(12, 50)),
        settled("d/b", &file(12, 50)),
        failed("d/b"),
        failed("gone"),
        copied("a", 2, 100),
        copied("d/b", 5, 50),
        modify("a", file(10, 70)),
        copied("a", 2, 70),
        withdrawn("d/b"),
        copied("d/b", 5, 50),
        copied("d/b", 5, 50),
        moved("d/b", "c", 5, 50),
    ]
}

#[test]
fn acts_told_together_come_to_the_same_as_one_by_one() {
    let together = Kit::with(acts());
    let mut single = Kit::with(Vec::new());
    for act in acts() {
        single.apply(vec![act]);
    }
    assert_eq!(together.dump(), single.dump());
    let view = together.view();
    let replica = view.replica(&vault()).unwrap().unwrap();
    assert_eq!(replica.counts, CopyCounts { files: 2, bytes: 120 });
    let failures = view.failures(replica.id, 10).unwrap();
    assert_eq!(failures.iter().map(|failure| failure.path.clone()).collect::<Vec<_>>(), [rel("gone")]);
    assert_eq!(together.at("d/b").unwrap().sha256, Some([7; 32]), "its content is known by its copy");
    assert!(together.at("d/b").unwrap().is_settled(), "in the batch in which it came to be");
}

#[test]
fn one_that_is_at_fault_takes_nothing_of_the_others_along() {
    // A size that SQLite's signed integers cannot hold.
    let mut bad = acts();
    bad.insert(9, create("bad", file(13, u64::MAX)));
    let kit = Kit::with(bad);
    assert_eq!(kit.view().problems().unwrap().len(), 1);
    let replica = kit.view().replica(&vault()).unwrap().unwrap();
    assert_eq!(replica.counts, CopyCounts { files: 2, bytes: 120 });
    assert_eq!(kit.at("d/b").unwrap().sha256, Some([7; 32]));
}
