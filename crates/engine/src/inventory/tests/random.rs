//! Any records at all, contradictory ones too, in any batches, replayed from anywhere: the same tables, and a past that
//! is what the present was.

use std::sync::Arc;

use keepwatch_journal::Extra;
use proptest::prelude::*;

use super::kit::*;
use crate::inventory::{Inventory, ListQuery, Listed, LogQuery};
use crate::model::{
    Body, By, Change, Config, Evidence, Facts, FileType, Gap, GapClosed, GapReason, OldPlace, Op, Record, RelPath, Seq,
    Settled, Timestamp, Via,
};

fn any_path() -> impl Strategy<Value = RelPath> {
    let name = prop::sample::select(vec![&b"a"[..], b"b", b"c", b"a0", b"a-", b"\xff"]);
    prop::collection::vec(name, 0..4).prop_map(|names| RelPath::new(names.join(&b'/')).unwrap())
}

fn any_root() -> impl Strategy<Value = crate::model::RootName> {
    prop_oneof![4 => Just("r"), 1 => Just("s")].prop_map(root)
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let kind = prop_oneof![
        4 => Just(FileType::File),
        4 => Just(FileType::Dir),
        1 => Just(FileType::Symlink),
    ];
    (kind, 1_u64..8, prop_oneof![9 => 0_u64..3, 1 => Just(u64::MAX)], 1_u32..3, 8_u64..10).prop_map(
        |(kind, inode, size, nlink, dev)| {
            let target = (kind == FileType::Symlink).then(|| b"to/\xfe"[..].into());
            Facts { kind, size, nlink, dev, target, mtime_ns: EPOCH, ..file(inode, 0) }
        },
    )
}

fn any_change() -> impl Strategy<Value = Body> {
    let op = prop_oneof![
        4 => Just(Op::Create),
        1 => Just(Op::Modify),
        1 => Just(Op::Attrib),
        4 => Just(Op::Move),
        2 => Just(Op::Delete),
    ];
    let by =
        prop_oneof![Just(None), Just(Some(Arc::new(By { pid: 7, uid: None, exe: Some(b"/bin/\xff"[..].into()) })))];
    let old = (prop::option::weighted(0.2, any_root()), any_path()).prop_map(|(root, path)| OldPlace { root, path });
    (op, any_root(), any_path(), old, prop::option::weighted(0.8, any_facts()), by, any::<(bool, bool)>()).prop_map(
        |(op, root, path, old, facts, by, (merged, exchange))| {
            let old = (op == Op::Move).then_some(old);
            let facts = facts.filter(|_| op != Op::Delete);
            let (via, subtree, exchange) = (Via::Scan, op == Op::Delete, exchange && op == Op::Move);
            Body::Change(Change { op, root, path, old, facts, via, by, merged, subtree, exchange })
        },
    )
}

fn any_act() -> impl Strategy<Value = Body> {
    let settled = (any_root(), any_path(), any_facts()).prop_map(|(root, path, facts)| {
        let (size, mtime_ns, inode) = (facts.size, facts.mtime_ns, facts.inode);
        Body::Settled(Settled { root, path, evidence: Evidence::Quiet, size, mtime_ns, inode })
    });
    let gap = (prop::option::of(any_root()), any_path()).prop_map(|(root, path)| {
        let (since, note) = (Some(Timestamp(EPOCH)), Some("lost".to_owned()));
        Body::Gap(Gap { root, path, reason: GapReason::Overflow, since, note })
    });
    let closed = (1_u64..30, prop::option::of(any_root()))
        .prop_map(|(gap, root)| Body::GapClosed(GapClosed { gap: Seq(gap), root, scanned: 5, found: 1 }));
    let config = (any_root(), any::<bool>()).prop_map(|(root, watched)| {
        let (dir, identity) = (watched.then(|| b"/srv"[..].into()), Some("uuid:2".to_owned()));
        Body::Config(Config { root, dir, identity, accepted: watched })
    });
    prop_oneof![3 => settled, 1 => gap, 1 => closed, 1 => config, 1 => Just(Body::Other("praised".into()))]
}

fn any_records() -> impl Strategy<Value = Vec<Record>> {
    let extra = prop_oneof![9 => Just(None), 1 => Just(serde_json::json!({"later": [1, "x"]}).as_object().cloned().map(Box::new))];
    let body = prop_oneof![5 => any_change(), 1 => any_act()];
    prop::collection::vec((body, extra), 1..40).prop_map(|bodies: Vec<(Body, Extra)>| {
        (1..).zip(bodies).map(|(seq, (body, extra))| record(seq, body, extra)).collect()
    })
}

fn apply(inventory: &mut Inventory, records: &[Record]) {
    let to = records.last().map_or(0, |record| record.seq.0);
    inventory.apply(records, cursor(to)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batches_and_replays_make_no_difference(
        records in any_records(),
        batches in prop::collection::vec((0_usize..40, 1_usize..12), 1..12),
    ) {
        let mut whole = Kit::new();
        whole.apply_records(&records);
        check(&whole.view().db);

        let mut parts = Kit::new();
        let mut done = 0;
        for (back, length) in batches {
            // From somewhere before the cursor to somewhere behind it.
            let end = (done + length).min(records.len());
            apply(&mut parts.inventory, &records[done.saturating_sub(back)..end]);
            done = end;
            check(&parts.view().db);
            // And once more what was applied already, by a program that was started again.
            parts.inventory = Inventory::open(&parts.path(), &host()).unwrap();
            let before = parts.dump();
            let again = parts.inventory.apply(&records[..done], cursor(done as u64)).unwrap();
            prop_assert_eq!(again.records, 0);
            prop_assert_eq!(parts.dump(), before);
        }
        apply(&mut parts.inventory, &records);
        prop_assert_eq!(parts.dump(), whole.dump());
    }

    #[test]
    fn the_past_is_what_the_present_was(records in any_records()) {
        let mut steps = Kit::new();
        let mut presents = Vec::new();
        for record in &records {
            steps.apply_records(std::slice::from_ref(record));
            presents.push(listed(&steps.view(), &ListQuery::default()));
        }
        let view = steps.view();
        for (record, present) in records.iter().zip(presents) {
            let past = listed(&view, &ListQuery { at: Some(record.at), ..ListQuery::default() });
            // But for kinds: of what was read only later, the past knows them sooner.
            let brief = |all: Vec<Listed>| {
                let brief = |name: Listed| (name.root, name.path, name.file_id, name.facts, name.first_seen);
                all.into_iter().map(brief).collect::<Vec<_>>()
            };
            prop_assert_eq!(brief(past), brief(present), "at {}", record.seq);
        }
    }

    #[test]
    fn the_log_is_the_journal(records in any_records()) {
        let mut kit = Kit::new();
        kit.apply_records(&records);
        prop_assert_eq!(kit.log(&LogQuery::default()), records);
    }
}
