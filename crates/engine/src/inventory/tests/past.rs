//! Moments, gaps, and the log across renames.

use super::kit::*;
use crate::inventory::past::seq_at;
use crate::inventory::{ListQuery, LogQuery};
use crate::model::{Body, Gap, GapClosed, GapReason, Record, RelPath, Seq, Timestamp};

fn gap(name: Option<&str>, path: &str) -> Body {
    let (root, path) = (name.map(root), rel(path));
    Body::Gap(Gap { root, path, reason: GapReason::Restart, since: None, note: None })
}

fn closed(gap: u64, name: Option<&str>) -> Body {
    Body::GapClosed(GapClosed { gap: Seq(gap), root: name.map(root), scanned: 1, found: 0 })
}

fn seqs(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.seq.0).collect()
}

fn of(path: &str) -> LogQuery {
    LogQuery { path: Some(rel(path)), follow: true, ..LogQuery::default() }
}

#[test]
fn a_moment_is_the_last_record_whose_running_maximum_is_not_after_it() {
    // More records than lie between two marks; the clock steps back for a while, and stands still.
    let at = |seq: u64| match seq {
        500..1500 => 300,
        2100..2200 => 2100,
        seq => i64::try_from(seq).unwrap(),
    };
    let mut kit = Kit::new();
    let records: Vec<Record> = (1..3000)
        .map(|seq| Record { at: Timestamp(at(seq)), ..record(seq, Body::Other("later".into()), None) })
        .collect();
    for batch in records.chunks(700) {
        kit.apply_records(batch);
    }
    let view = kit.view();
    for asked in [0, 1, 298, 299, 300, 301, 499, 500, 1499, 1500, 2047, 2048, 2099, 2100, 2101, 2199, 2200, 2999, 9999]
    {
        let mut max = i64::MIN;
        let expected = records.iter().take_while(|record| {
            max = max.max(record.at.0);
            max <= asked
        });
        let expected = expected.last().map_or(Seq::ZERO, |record| record.seq);
        assert_eq!(seq_at(&view.db, Timestamp(asked)).unwrap(), expected, "{asked}");
    }
}

#[test]
fn a_listing_inside_a_gap_says_so() {
    // Records are a second apart: 2 a, 3 gap below d, 4 b, 5 closed, 6 c.
    let kit = Kit::with(vec![
        create("a", file(3, 1)),
        gap(Some("r"), "d"),
        create("b", file(4, 1)),
        closed(3, Some("r")),
        create("c", file(5, 1)),
    ]);
    let at = |seconds: f64, path: &str| {
        let at = Some(Timestamp(EPOCH + (seconds * 1e9) as i64));
        let query = ListQuery { at, path: rel(path), ..ListQuery::default() };
        kit.view().list(&query, |_| std::ops::ControlFlow::Continue(())).unwrap()
    };
    assert_eq!((at(2.5, "").uncertain, at(2.5, "").seq), (false, Seq(2)));
    assert!(at(3.0, "").uncertain && at(4.9, "").uncertain);
    assert!(at(3.5, "d/e").uncertain && at(3.5, "d").uncertain && !at(3.5, "d2").uncertain);
    assert!(!at(5.0, "").uncertain && !at(9.0, "").uncertain);
}

#[test]
fn a_gap_that_began_unnoticed_makes_the_time_before_it_uncertain() {
    let mut kit = Kit::with(vec![create("a", file(3, 1))]);
    let Body::Gap(gap) = gap(None, "") else { unreachable!() };
    kit.apply(vec![Body::Gap(Gap { since: Some(Timestamp(EPOCH + SECOND)), ..gap })]);
    let at = |ns: i64| {
        let query = ListQuery { at: Some(Timestamp(ns)), ..ListQuery::default() };
        kit.view().list(&query, |_| std::ops::ControlFlow::Continue(())).unwrap().uncertain
    };
    assert!(!at(EPOCH + SECOND - 1));
    assert!(at(EPOCH + SECOND) && at(EPOCH + 2 * SECOND));
}

#[test]
fn a_gap_in_all_roots_closes_root_by_root() {
    let mut kit = Kit::with(vec![config("s"), gap(None, "")]);
    let open = |kit: &Kit| {
        let gaps = kit.view().open_gaps().unwrap();
        gaps.iter().map(|gap| (gap.seq.0, gap.root.as_ref().map(ToString::to_string))).collect::<Vec<_>>()
    };
    assert_eq!(open(&kit), [(3, Some("r".into())), (3, Some("s".into()))]);
    kit.apply(vec![closed(3, Some("s"))]);
    assert_eq!(open(&kit), [(3, Some("r".into()))]);
    kit.apply(vec![closed(99, None), closed(3, None)]);
    assert_eq!(open(&kit), []);
}

#[test]
fn a_files_log_follows_it_and_its_directories() {
    let kit = Kit::with(vec![
        create("d", dir(2)),                    // 2
        create("d/a", file(3, 1)),              // 3
        create("other", file(9, 1)),            // 4
        rename("d", "e", None),                 // 5
        rename("e/a", "e/b", Some(file(3, 1))), // 6
        settled("e/b", &file(3, 1)),            // 7
        modify("e/b", file(3, 2)),              // 8
        create("e/a", file(4, 1)),              // 9: another file under the old name
        delete("e"),                            // 10
    ]);
    let log = kit.log(&of("e/b"));
    assert_eq!(seqs(&log), [3, 6, 7, 8, 10]);
    let Body::Change(first) = &log[0].body else { panic!() };
    assert_eq!(first.path, rel("d/a"), "the path as it was then");
    // Both files that ever had this name.
    assert_eq!(seqs(&kit.log(&of("e/a"))), [3, 6, 7, 8, 9, 10]);
    // By name alone, without following.
    let by_name = LogQuery { follow: false, ..of("e/b") };
    assert_eq!(seqs(&kit.log(&by_name)), [6, 7, 8]);
    // A directory, with all below it, under all its names.
    assert_eq!(seqs(&kit.log(&of("e"))), [2, 3, 5, 6, 7, 8, 9, 10]);
    assert_eq!(kit.log(&of("never")), []);
}

#[test]
fn a_log_is_cut_by_time_word_and_root() {
    let kit = Kit::with(vec![
        create("a", file(3, 1)),
        config("s"),
        within("s", create("a", file(4, 1))),
        settled("a", &file(3, 1)),
        Body::Other("praised".into()),
    ]);
    let at = |seq: i64| Some(Timestamp(EPOCH + seq * SECOND));
    assert_eq!(seqs(&kit.log(&LogQuery { since: at(3), until: at(5), ..LogQuery::default() })), [3, 4, 5]);
    let words = vec!["create".to_owned(), "praised".to_owned()];
    assert_eq!(seqs(&kit.log(&LogQuery { words, ..LogQuery::default() })), [2, 4, 6]);
    assert_eq!(seqs(&kit.log(&LogQuery { root: Some(root("s")), ..LogQuery::default() })), [3, 4]);
    assert_eq!(seqs(&kit.log(&LogQuery { root: Some(root("s")), ..of("a") })), [4]);
    assert_eq!(seqs(&kit.log(&LogQuery { path: Some(RelPath::ROOT), ..LogQuery::default() })), [2, 4, 5]);
}
