//! What each record means for the tree, case by case.

use super::kit::*;
use crate::inventory::{Counts, FileId};
use crate::model::{Body, Facts};
use crate::model::{Config, FileType, OldPlace, Op, RelPath, Seq};

/// Applies the bodies behind a declared root, and holds the tree against what it should be.
#[track_caller]
fn becomes(bodies: Vec<Body>, tree: &[&str]) -> Kit {
    let kit = Kit::with(bodies);
    check(&kit.view().db);
    assert_eq!(kit.tree(), tree);
    assert_eq!(kit.view().problems().unwrap(), []);
    kit
}

#[test]
fn a_created_name_has_its_record_as_id() {
    let kit = becomes(vec![create("d", dir(2)), create("d/a", file(3, 10))], &["r:d/=2", "r:d/a=3"]);
    let known = kit.at("d/a").unwrap();
    assert_eq!(known.file_id, FileId(3));
    assert_eq!((known.from_seq, known.version_seq, known.last_seq), (Seq(3), Seq(3), Seq(3)));
    assert_eq!(known.facts, Some(file(3, 10)));
    assert!(!known.is_settled());
}

#[test]
fn a_name_seen_again_with_the_same_inode_is_the_same_object() {
    let kit = becomes(vec![create("a", file(3, 10)), create("a", file(3, 11))], &["r:a=3"]);
    let known = kit.at("a").unwrap();
    assert_eq!((known.file_id, known.from_seq, known.version_seq), (FileId(2), Seq(2), Seq(3)));
}

#[test]
fn a_name_seen_with_another_inode_or_kind_is_another_object() {
    let kit = becomes(vec![create("a", file(3, 10)), create("a", file(4, 10))], &["r:a=4"]);
    assert_eq!(kit.at("a").unwrap().file_id, FileId(3));
    let fifo = Facts { kind: FileType::Fifo, ..file(3, 10) };
    let kit = becomes(vec![create("a", file(3, 10)), modify("a", fifo)], &["r:a=3"]);
    assert_eq!(kit.at("a").unwrap().file_id, FileId(3));
}

#[test]
fn only_another_size_or_mtime_is_another_version() {
    let renamed_and_chmodded = Facts { mode: 0o600, ctime_ns: 5, ..file(3, 10) };
    let kit = Kit::with(vec![
        create("a", file(3, 10)),
        rename("a", "b", Some(file(3, 10))),
        change(Op::Attrib, "b", Some(renamed_and_chmodded.clone())),
        modify("b", renamed_and_chmodded.clone()),
    ]);
    let known = kit.at("b").unwrap();
    assert_eq!((known.version_seq, known.last_seq), (Seq(2), Seq(5)));
    assert_eq!(known.facts, Some(renamed_and_chmodded));
    let touched = Facts { mtime_ns: 1, ..file(3, 10) };
    let kit = Kit::with(vec![create("a", file(3, 10)), change(Op::Attrib, "a", Some(touched))]);
    assert_eq!(kit.at("a").unwrap().version_seq, Seq(3));
}

#[test]
fn a_record_without_facts_touches_only_name_and_history() {
    let kit = becomes(
        vec![create("a", file(3, 10)), change(Op::Modify, "a", None), change(Op::Create, "gone", None)],
        &["r:a=3", "r:gone=?"],
    );
    assert_eq!(kit.at("a").unwrap().version_seq, Seq(2));
    assert_eq!(kit.at("gone").unwrap().kind, None);
    // Read at last, it is the same object; and if it is a directory, it holds things from then on.
    becomes(
        vec![change(Op::Create, "d", None), create("d", dir(5)), create("d/a", file(6, 0))],
        &["r:d/=5", "r:d/a=6"],
    );
    becomes(vec![change(Op::Create, "d", None), create("d/a", file(6, 0))], &["r:d/=?", "r:d/a=6"]);
}

#[test]
fn a_path_is_proof_of_the_directories_above_it() {
    let kit = becomes(vec![create("x/y/a", file(3, 10))], &["r:x/=?", "r:x/y/=?", "r:x/y/a=3"]);
    let (x, y) = (kit.at("x").unwrap().file_id, kit.at("x/y").unwrap().file_id);
    assert!(x.0 < 0 && y.0 < 0 && x != y);
    let kit = becomes(vec![create("x/y/a", file(3, 10)), create("x", dir(2))], &["r:x/=2", "r:x/y/=?", "r:x/y/a=3"]);
    assert_eq!(kit.at("x").unwrap().file_id, x);
    // Of a file that turns out to be a directory by a path below it, the file is gone.
    becomes(vec![create("x", file(3, 10)), create("x/a", file(4, 1))], &["r:x/=?", "r:x/a=4"]);
}

#[test]
fn a_deleted_directory_takes_all_it_held() {
    let tree = vec![
        create("d", dir(2)),
        create("d/e", dir(3)),
        create("d/e/a", file(4, 9)),
        create("d0", file(5, 1)),
        create("d-", file(6, 1)),
    ];
    becomes([tree.clone(), vec![delete("d")]].concat(), &["r:d-=6", "r:d0=5"]);
    becomes([tree, vec![delete("")]].concat(), &[]);
    becomes(vec![delete("never/was"), delete("never")], &[]);
}

#[test]
fn a_moved_file_keeps_its_id_and_ends_its_victim() {
    let kit =
        becomes(vec![create("a", file(3, 1)), create("b", file(4, 2)), rename("a", "b", Some(file(3, 1)))], &["r:b=3"]);
    assert_eq!(kit.at("b").unwrap().file_id, FileId(2));
    becomes(
        vec![create("a", file(3, 1)), create("d", dir(5)), create("d/x", file(6, 2)), rename("a", "d", None)],
        &["r:d=3"],
    );
}

#[test]
fn a_moved_directory_takes_its_paths_along() {
    let kit = becomes(
        vec![
            create("d", dir(2)),
            create("d/e", dir(3)),
            create("d/e/a", file(4, 1)),
            create("d0", dir(5)),
            create("to", dir(6)),
            rename("d", "to/d2", Some(dir(2))),
        ],
        &["r:d0/=5", "r:to/=6", "r:to/d2/=2", "r:to/d2/e/=3", "r:to/d2/e/a=4"],
    );
    assert_eq!(kit.at("to/d2/e/a").unwrap().last_seq, Seq(4));
    becomes(
        vec![create("a", dir(2)), create("a/b", dir(3)), create("a/b/c", file(4, 1)), rename("a", "ab", None)],
        &["r:ab/=2", "r:ab/b/=3", "r:ab/b/c=4"],
    );
}

#[test]
fn a_move_whose_source_is_not_where_it_says_is_found_by_inode() {
    // The name was used again before the move was read: what was told of it then is told again.
    let kit =
        becomes(vec![create("a", file(3, 1)), create("b", file(4, 1)), rename("b", "c", Some(file(3, 1)))], &["r:c=3"]);
    assert_eq!(kit.at("c").unwrap().file_id, FileId(2));
    let kit = becomes(vec![create("a", file(3, 1)), rename("unknown", "c", Some(file(3, 1)))], &["r:c=3"]);
    assert_eq!(kit.at("c").unwrap().file_id, FileId(2));
    let kit = becomes(vec![rename("unknown/x", "d/c", Some(file(3, 1)))], &["r:d/=?", "r:d/c=3"]);
    assert_eq!(kit.at("d/c").unwrap().file_id, FileId(2));
    becomes(vec![rename("unknown", "c", None)], &["r:c=?"]);
    // Whatever it was, it ended what had the name.
    becomes(vec![create("c", file(3, 1)), rename("unknown", "c", None)], &["r:c=?"]);
    // Another device's inode is another file.
    let elsewhere = Facts { dev: 9, ..file(3, 1) };
    becomes(vec![create("a", file(3, 1)), rename("unknown", "c", Some(elsewhere))], &["r:a=3", "r:c=3"]);
}

#[test]
fn a_move_out_of_what_it_replaces_ends_the_rest() {
    becomes(
        vec![create("x", dir(2)), create("x/y", dir(3)), create("x/z", file(4, 1)), rename("x/y", "x", Some(dir(3)))],
        &["r:x/=3"],
    );
}

#[test]
fn a_directory_cannot_move_into_itself() {
    let kit = Kit::with(vec![
        create("d", dir(2)),
        create("d/e", dir(3)),
        rename("d", "d/e/d", None),
        create("a", file(9, 1)),
    ]);
    check(&kit.view().db);
    assert_eq!(kit.tree(), ["r:a=9", "r:d/=2", "r:d/e/=3"]);
    let problems = kit.view().problems().unwrap();
    assert_eq!(problems.iter().map(|problem| problem.seq).collect::<Vec<_>>(), [Seq(4)]);
}

#[test]
fn a_directory_moves_between_roots_with_all_it_holds() {
    let mut kit =
        Kit::with(vec![config("s"), create("d", dir(2)), create("d/e", dir(3)), create("d/e/a", file(4, 100))]);
    let Body::Change(mut moved) = within("s", rename("d", "in/d", Some(dir(2)))) else { unreachable!() };
    moved.old = Some(OldPlace { root: Some(root("r")), path: rel("d") });
    kit.apply(vec![Body::Change(moved)]);
    check(&kit.view().db);
    assert_eq!(kit.tree(), ["s:in/=?", "s:in/d/=2", "s:in/d/e/=3", "s:in/d/e/a=4"]);
    let counts: Vec<Counts> = kit.view().roots().unwrap().iter().map(|root| root.counts).collect();
    assert_eq!(counts, [Counts::default(), Counts { files: 1, dirs: 3, others: 0, bytes: 100 }]);
}

#[test]
fn names_of_one_inode_share_id_facts_version_and_settling() {
    let mut kit = becomes(
        vec![
            create("d", dir(2)),
            create("a", file(3, 1)),
            create("d/b", linked(3, 1, 2)),
            modify("a", linked(3, 7, 2)),
        ],
        &["r:a=3", "r:d/=2", "r:d/b=3"],
    );
    let (a, b) = (kit.at("a").unwrap(), kit.at("d/b").unwrap());
    assert_eq!((a.file_id, b.file_id), (FileId(3), FileId(3)));
    assert_eq!(b.facts, Some(linked(3, 7, 2)));
    assert_eq!((a.version_seq, b.version_seq, b.from_seq), (Seq(5), Seq(5), Seq(4)));
    kit.apply(vec![settled("d/b", &linked(3, 7, 2))]);
    assert!(kit.at("a").unwrap().is_settled());
    kit.apply(vec![delete("a")]);
    check(&kit.view().db);
    assert_eq!(kit.tree(), ["r:d/=2", "r:d/b=3"]);
    // The same inode on another device, or of a file with one name, is another file.
    let elsewhere = Facts { dev: 9, ..linked(3, 1, 2) };
    let kit = becomes(
        vec![create("a", linked(3, 1, 2)), create("b", elsewhere), create("c", file(3, 1))],
        &["r:a=3", "r:b=3", "r:c=3"],
    );
    assert_eq!([2, 3, 4].map(FileId), ["a", "b", "c"].map(|name| kit.at(name).unwrap().file_id));
}

#[test]
fn settling_holds_only_for_the_version_it_saw() {
    let mut kit = Kit::with(vec![create("a", file(3, 1)), settled("a", &file(3, 2))]);
    assert!(!kit.at("a").unwrap().is_settled());
    kit.apply(vec![settled("a", &file(4, 1))]);
    assert!(!kit.at("a").unwrap().is_settled());
    kit.apply(vec![settled("a", &file(3, 1))]);
    assert!(kit.at("a").unwrap().is_settled());
    kit.apply(vec![rename("a", "b", Some(file(3, 1)))]);
    assert!(kit.at("b").unwrap().is_settled());
    kit.apply(vec![modify("b", file(3, 2))]);
    assert!(!kit.at("b").unwrap().is_settled());
    let unsettled = kit.view().unsettled(Seq::ZERO, 10).unwrap();
    assert_eq!(unsettled.iter().map(|file| file.path.clone()).collect::<Vec<_>>(), [rel("b")]);
    assert_eq!(kit.view().unsettled(Seq(7), 10).unwrap(), []);
}

#[test]
fn a_root_is_its_first_config_record() {
    let mut kit = Kit::with(vec![create("a", file(3, 1)), change(Op::Attrib, "", Some(dir(1)))]);
    let view = kit.view();
    assert_eq!(view.root_dir(&root("r")).unwrap().unwrap().0, 1);
    assert_eq!(view.dir_path(view.root_dir(&root("r")).unwrap().unwrap()).unwrap(), Some((root("r"), RelPath::ROOT)));
    // No longer watched: the files stay.
    kit.apply(vec![Body::Config(Config { root: root("r"), dir: None, identity: None, accepted: false })]);
    let row = kit.view().roots().unwrap().remove(0);
    assert_eq!(
        (row.watched, row.dir.as_deref(), row.identity.as_deref()),
        (false, Some(&b"/srv/r"[..]), Some("uuid:1"))
    );
    assert_eq!(kit.tree(), ["r:a=3"]);
}

#[test]
fn roots_that_no_record_declared_are_made() {
    let mut kit = Kit::new();
    let Body::Change(mut moved) = within("s", rename("d/a", "e/a", Some(file(3, 1)))) else { unreachable!() };
    moved.old = Some(OldPlace { root: Some(root("r")), path: rel("d/a") });
    kit.apply(vec![Body::Change(moved), config("s")]);
    check(&kit.view().db);
    assert_eq!(kit.tree(), ["s:e/=?", "s:e/a=3"]);
    assert_eq!(kit.view().problems().unwrap(), []);
    assert_eq!(kit.view().roots().unwrap().iter().map(|root| root.watched).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_row_that_breaks_a_constraint_stands_in_no_others_way() {
    // A size that SQLite's signed integers cannot hold, on the quick way and on the other.
    let kit = Kit::with(vec![
        create("a", file(3, 1)),
        create("bad", file(4, u64::MAX)),
        modify("a", file(3, u64::MAX)),
        create("d/bad", file(5, u64::MAX)),
        create("b", file(6, 1)),
    ]);
    check(&kit.view().db);
    assert_eq!(kit.tree(), ["r:a=3", "r:b=6"]);
    let problems = kit.view().problems().unwrap();
    assert_eq!(problems.iter().map(|problem| problem.seq.0).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(problems[0].reason.contains("CHECK"), "{}", problems[0].reason);
    // The audit part has them all, exactly.
    assert_eq!(kit.log(&crate::inventory::LogQuery::default()).len(), 6);
}

#[test]
fn names_are_any_bytes() {
    let mut kit = Kit::with(vec![]);
    let bytes = |path: &[u8]| RelPath::new(path).unwrap();
    let named = |body: Body, path: &[u8]| {
        let Body::Change(change) = body else { unreachable!() };
        Body::Change(crate::model::Change { path: bytes(path), ..change })
    };
    kit.apply(vec![
        named(create("x", dir(2)), b"\xff\xfe"),
        named(create("x", dir(3)), b"\xff\xfe/%_'\""),
        named(create("x", file(4, 1)), b"\xff\xfe/%_'\"/a\nb"),
        named(create("x", dir(5)), b"\xff\xff\xff"),
        named(rename("x", "y", Some(dir(2))), b"\xff\xff\xff/\xe9\x80"),
    ]);
    // The move's old path is not known: it is found by its inode.
    check(&kit.view().db);
    let found = kit.view().dir_by_path(&root("r"), &bytes(b"\xff\xff\xff/\xe9\x80/%_'\"")).unwrap().unwrap();
    assert_eq!(kit.view().child(found, b"a\nb").unwrap().unwrap().file_id, FileId(4));
    kit.apply(vec![named(delete("x"), b"\xff\xff\xff")]);
    assert_eq!(kit.tree(), Vec::<String>::new());
}
