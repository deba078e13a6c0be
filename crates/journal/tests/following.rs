//! Readers beside a live writer.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keepwatch_journal::{
    Body, ChainHash, Cursor, GapClosed, ReadError, Reader, RealDisk, Record, Seq, Timestamp, Writer, WriterOptions,
    compress_closed,
};

fn body(number: u64) -> Body {
    Body::GapClosed(GapClosed { gap: Seq(number), root: None, scanned: 0, found: 0 })
}

fn open(dir: &Path, options: WriterOptions) -> Writer {
    Writer::open(Arc::new(RealDisk), dir, Timestamp(0), options).unwrap().0
}

fn seqs(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.seq.0).collect()
}

#[test]
fn followers_see_every_record_once_whether_they_keep_up_or_lag() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let options =
        WriterOptions { roll_bytes: 20_000, tail_bytes: 3_000, prealloc_bytes: 4_096, ..WriterOptions::new("h") };
    let mut writer = open(&dir, options);
    let (batches, deadline) = (600u64, Instant::now() + Duration::from_secs(60));
    std::thread::scope(|scope| {
        let followers: Vec<_> = (0..3u64)
            .map(|follower| {
                let tail = writer.tail();
                let dir = dir.clone();
                scope.spawn(move || {
                    let mut reader =
                        Reader::open(Arc::new(RealDisk), &dir, Seq::ZERO).unwrap().following(Arc::clone(&tail));
                    let mut next = 1;
                    while next <= batches * 3 {
                        // One keeps up; the others wait until much has gathered.
                        let _ = tail.wait_past(Seq((next + 150 * follower).min(batches * 3) - 1), deadline);
                        assert!(Instant::now() < deadline, "follower {follower} waits at {next}");
                        while let Some(batch) = reader.next_batch().unwrap() {
                            assert!(batch.cursor.seq <= tail.head().seq);
                            for record in batch.records.iter() {
                                assert_eq!((record.seq.0, &record.body), (next, &body(next)));
                                next += 1;
                            }
                        }
                    }
                })
            })
            .collect();
        let mut number = 0;
        for batch in 0..batches {
            for _ in 0..3 {
                number += 1;
                writer.append(Timestamp(0), &body(number));
            }
            let head = writer.commit().unwrap();
            if batch % 100 == 99 {
                compress_closed(&RealDisk, &dir, head).unwrap();
            }
        }
        for follower in followers {
            follower.join().unwrap();
        }
    });
}

#[test]
fn a_reader_begins_anywhere_and_a_foreign_cursor_is_forked() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let mut writer = open(&dir, WriterOptions { roll_bytes: 600, ..WriterOptions::new("h") });
    let mut cursors = vec![writer.head()];
    for batch in 0..6 {
        writer.append(Timestamp(0), &body(batch));
        writer.append(Timestamp(0), &body(batch));
        cursors.push(writer.commit().unwrap());
    }
    for from in 0..=12 {
        let mut reader = Reader::open(Arc::new(RealDisk), &dir, Seq(from)).unwrap();
        let mut found = Vec::new();
        while let Some(batch) = reader.next_batch().unwrap() {
            let lines: Vec<_> = batch.lines().map(|line| Record::parse(line).unwrap()).collect();
            assert_eq!(lines, *batch.records);
            found.extend(seqs(&batch.records));
        }
        assert_eq!(found, (from + 1..=12).collect::<Vec<_>>());
    }
    for cursor in &cursors {
        let mut reader = Reader::open_at(Arc::new(RealDisk), &dir, *cursor).unwrap();
        let first = reader.next_batch().unwrap().map(|batch| batch.records[0].seq);
        assert_eq!(first, (cursor.seq.0 < 12).then(|| cursor.seq.next()));
        assert_eq!(cursor.to_string().parse(), Ok(*cursor));
        let foreign = [
            Cursor { hash: ChainHash([1; 32]), ..*cursor },
            Cursor { seq: cursor.seq.next(), ..*cursor },
            Cursor {
                journal: "0199a3b5-0000-7000-8000-000000000000".parse().map(keepwatch_journal::JournalId).unwrap(),
                ..*cursor
            },
        ];
        for foreign in foreign {
            let opened = Reader::open_at(Arc::new(RealDisk), &dir, foreign).err();
            assert!(matches!(opened, Some(ReadError::Forked { .. })), "{opened:?}");
        }
    }
}

#[test]
fn a_reader_without_the_writers_word_goes_on_when_more_was_written() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let mut writer = open(&dir, WriterOptions { roll_bytes: 500, ..WriterOptions::new("h") });
    let mut reader = Reader::open(Arc::new(RealDisk), &dir, Seq::ZERO).unwrap();
    for number in 1..20 {
        assert!(reader.next_batch().unwrap().is_none());
        writer.append(Timestamp(0), &body(number));
        writer.commit().unwrap();
        assert_eq!(seqs(&reader.next_batch().unwrap().unwrap().records), [number]);
    }
}

#[test]
fn waiting_ends_at_the_deadline_and_when_the_writer_goes() {
    let parent = tempfile::tempdir().unwrap();
    let writer = open(&parent.path().join("journal"), WriterOptions::new("h"));
    let tail = writer.tail();
    assert_eq!(tail.wait_past(Seq::ZERO, Instant::now() + Duration::from_millis(5)).seq, Seq::ZERO);
    assert!(!tail.is_closed());
    writer.close().unwrap();
    assert_eq!(tail.wait_past(Seq::ZERO, Instant::now() + Duration::from_secs(3_600)).seq, Seq::ZERO);
    assert!(tail.is_closed());
}

#[test]
fn a_file_closes_with_its_day_and_a_second_start_goes_on_in_the_last_one() {
    const DAY: i64 = 86_400_000_000_000;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let mut head = None;
    for (at, names) in [(0, 1), (1, 1), (DAY, 2), (DAY + 1, 2)] {
        let (mut writer, recovery) =
            Writer::open(Arc::new(RealDisk), &dir, Timestamp(at), WriterOptions::new("h")).unwrap();
        assert_eq!((recovery.is_new, recovery.torn.len()), (head.is_none(), 0));
        assert_eq!(head.unwrap_or(recovery.head), recovery.head);
        writer.append(Timestamp(at), &body(1));
        head = Some(writer.close().unwrap());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), names, "at {at}");
    }
    let first = std::fs::read(dir.join("1970-01-01.0001.jsonl")).unwrap();
    assert_eq!(first.last(), Some(&b'\n'), "reserved room is given back");
    assert!(dir.join("1970-01-02.0001.jsonl").exists());
}
