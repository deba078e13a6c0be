//! Records survive their text, whatever bytes a name has.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use keepwatch_journal::{
    Body, By, Change, Config, Evidence, Facts, FileType, Gap, GapClosed, GapReason, OldPlace, Op, Record, RelPath,
    RootName, Run, RunProcess, RunStep, Seq, Settled, Timestamp, Trigger, TriggerName, Via,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn path() -> impl Strategy<Value = RelPath> {
    let component = vec((1u8..).prop_filter("no slash", |byte| *byte != b'/'), 1..20);
    vec(component, 0..4).prop_filter_map("dots", |parts| RelPath::new(parts.join(&b'/')).ok())
}

fn name() -> impl Strategy<Value = RootName> {
    any::<String>().prop_map(RootName::new)
}

fn bytes() -> impl Strategy<Value = Box<[u8]>> {
    vec(any::<u8>(), 0..30).prop_map(Vec::into_boxed_slice)
}

fn facts() -> impl Strategy<Value = Facts> {
    use FileType::{Block, Char, Dir, Fifo, File, Socket, Symlink};
    let kind = prop::sample::select(vec![File, Dir, Symlink, Fifo, Socket, Block, Char]);
    let numbers = (any::<(u64, i64, i64, u64, u64)>(), any::<(u32, u32, u32, u32)>());
    (kind, numbers, option::of(bytes())).prop_map(|(kind, (wide, narrow), target)| {
        let (size, mtime_ns, ctime_ns, dev, inode) = wide;
        let (mode, uid, gid, nlink) = narrow;
        Facts { kind, size, mtime_ns, ctime_ns, dev, inode, mode, uid, gid, nlink, target }
    })
}

fn change() -> impl Strategy<Value = Body> {
    let op = prop::sample::select(vec![Op::Create, Op::Modify, Op::Attrib, Op::Move, Op::Delete]);
    let via = prop::sample::select(vec![Via::Fanotify, Via::Inotify, Via::Poll, Via::Scan]);
    let by = (any::<u32>(), any::<Option<u32>>(), option::of(bytes())).prop_map(|(pid, uid, exe)| By { pid, uid, exe });
    let old = (option::of(name()), path()).prop_map(|(root, path)| OldPlace { root, path });
    let flags = any::<(bool, bool, bool)>();
    (op, name(), path(), option::of(old), option::of(facts()), via, option::of(by), flags).prop_map(
        |(op, root, path, old, facts, via, by, (merged, subtree, exchange))| {
            let by = by.map(Arc::new);
            Body::Change(Change { op, root, path, old, facts, via, by, merged, subtree, exchange })
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    let evidence = prop::sample::select(vec![Evidence::Lease, Evidence::Quiet, Evidence::Rename]);
    let settled = (name(), path(), evidence, any::<(u64, i64, u64)>()).prop_map(
        |(root, path, evidence, (size, mtime_ns, inode))| {
            Body::Settled(Settled { root, path, evidence, size, mtime_ns, inode })
        },
    );
    let reason = prop::sample::select(vec![GapReason::Restart, GapReason::Torn, GapReason::Asked, GapReason::Journal]);
    let gap = (option::of(name()), path(), reason, any::<Option<i64>>(), any::<Option<String>>()).prop_map(
        |(root, path, reason, since, note)| Body::Gap(Gap { root, path, reason, since: since.map(Timestamp), note }),
    );
    let closed = (any::<(u64, u64, u64)>(), option::of(name()))
        .prop_map(|((gap, scanned, found), root)| Body::GapClosed(GapClosed { gap: Seq(gap), root, scanned, found }));
    let config = (name(), option::of(bytes()), any::<Option<String>>(), any::<bool>())
        .prop_map(|(root, dir, identity, accepted)| Body::Config(Config { root, dir, identity, accepted }));
    let step = prop::sample::select(vec![RunStep::Started, RunStep::Ran, RunStep::Dead, RunStep::Resumed]);
    let process = (any::<String>(), any::<u32>(), any::<u64>(), any::<String>())
        .prop_map(|(key, group, born, boot)| RunProcess { key, group, born, boot });
    let about = (any::<String>().prop_map(TriggerName::new), name(), path(), any::<(i64, u64)>());
    let more = prop::collection::vec((any::<i64>(), 0..=i64::MAX as u64), 0..3);
    let run = (step, about, more, option::of(process), any::<Option<String>>()).prop_map(
        |(step, (trigger, root, path, (file, version)), more, process, why)| {
            let more = more.into_iter().map(|(file, version)| (file, Seq(version))).collect();
            Body::Run(Box::new(Run { step, trigger, root, path, file, version: Seq(version), more, process, why }))
        },
    );
    let since = option::of(prop::collection::btree_map(any::<String>(), any::<u64>(), 0..3));
    let trigger = (any::<String>(), since)
        .prop_map(|(trigger, roots)| Body::Trigger(Box::new(Trigger { trigger: TriggerName::new(trigger), roots })));
    prop_oneof![4 => change(), 1 => settled, 1 => gap, 1 => closed, 1 => config, 1 => run, 1 => trigger]
}

fn text(record: &Record) -> String {
    let mut out = Vec::new();
    record.render(&mut out);
    String::from_utf8(out).unwrap()
}

proptest! {
    #[test]
    fn a_record_survives_its_text(seq: u64, at: i64, body in body(), unknown in any::<Option<(String, u32)>>()) {
        let extra = unknown.map(|(text, number)| {
            let value = serde_json::json!({ "text": [text, null, true], "number": number });
            Box::new(serde_json::Map::from_iter([("zeta".to_owned(), value), ("alpha".to_owned(), 1.into())]))
        });
        let record = Record { seq: Seq(seq), at: Timestamp(at), body, extra };
        let line = text(&record);
        prop_assert!(!line.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')), "{}", line);
        let again = Record::parse(line.as_bytes()).unwrap();
        prop_assert_eq!(&again, &record, "{}", line);
        prop_assert_eq!(text(&again), line);
    }

    #[test]
    fn no_line_makes_the_parser_panic(line in vec(any::<u8>(), 0..80), cut in 0..300usize, at in 0..300usize, byte: u8) {
        let _ = Record::parse(&line);
        let mut line = CREATE.as_bytes()[..cut.min(CREATE.len())].to_vec();
        if let Some(place) = line.get_mut(at) {
            *place = byte;
        }
        let _ = Record::parse(&line);
    }
}

const CREATE: &str = r#"{"seq":7,"at":"2026-11-05T12:34:56.000000789Z","do":"create","root":"records","path":"caf�","path_b64":"Y2Fm6Q==","type":"file","size":10,"mtime_ns":-1,"ctime_ns":2,"dev":3,"inode":18446744073709551615,"mode":420,"uid":0,"gid":0,"nlink":1,"via":"fanotify","by":{"pid":9,"uid":1000,"exe":"/bin/cp"},"merged":true,"colour":"red"}"#;

/// Lines of format 1, byte for byte. They never change: every format that was ever written stays readable.
#[test]
fn lines_of_format_1_are_read_and_written_for_ever() {
    let lines = [
        CREATE,
        r#"{"seq":8,"at":"2026-11-05T12:34:56.000000000Z","do":"modify","root":"r","path":"a\u0007b","type":null,"size":null,"mtime_ns":null,"ctime_ns":null,"dev":null,"inode":null,"mode":null,"uid":null,"gid":null,"nlink":null,"via":"inotify"}"#,
        r#"{"seq":9,"at":"2026-11-05T12:34:56.000000000Z","do":"move","root":"r","path":"b","old_root":"q","old_path":"a","type":"symlink","size":1,"mtime_ns":0,"ctime_ns":0,"dev":1,"inode":2,"mode":511,"uid":0,"gid":0,"nlink":1,"target":"x","via":"scan"}"#,
        r#"{"seq":10,"at":"2026-11-05T12:34:56.000000000Z","do":"delete","root":"r","path":"","via":"poll","subtree":true}"#,
        r#"{"seq":11,"at":"2026-11-05T12:34:56.000000000Z","do":"settled","root":"r","path":"a","evidence":"lease","size":1,"mtime_ns":2,"inode":3}"#,
        r#"{"seq":12,"at":"2026-11-05T12:34:56.000000000Z","do":"gap","path":"","reason":"restart","since":"2026-11-05T12:00:00.000000000Z","note":"n"}"#,
        r#"{"seq":13,"at":"2026-11-05T12:34:56.000000000Z","do":"gap_closed","gap":12,"scanned":5,"found":1}"#,
        r#"{"seq":14,"at":"2026-11-05T12:34:56.000000000Z","do":"config","root":"r","dir":"/srv","identity":"uuid:1","accepted":true}"#,
        r#"{"seq":15,"at":"2026-11-05T12:34:56.000000000Z","do":"praised","root":"r","path":"a","proof":"proved","n":[1.5,{"x":null}]}"#,
        r#"{"seq":16,"at":"2026-11-05T12:34:56.000000000Z","do":"copied","replica":"/mnt/b","root":"r","path":"a","file":-7,"of":9,"type":"file","size":5,"mtime_ns":6,"sha256":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","proof":"written"}"#,
        r#"{"seq":17,"at":"2026-11-05T12:34:56.000000000Z","do":"copied","replica":"/mnt/b","root":"r","path":"b","old_path":"a","file":8,"of":9,"type":"dir","size":0,"mtime_ns":6,"proof":"presumed"}"#,
        r#"{"seq":18,"at":"2026-11-05T12:34:56.000000000Z","do":"trashed","replica":"/mnt/b","root":"r","path":"b","type":"file"}"#,
        r#"{"seq":19,"at":"2026-11-05T12:34:56.000000000Z","do":"config","replica":"/mnt/b","url":"file:///mnt/b","identity":"i","roots":{"r":"x","s":"y:\"z\""}}"#,
        r#"{"seq":21,"at":"2026-11-05T12:34:56.000000000Z","do":"failed","replica":"/mnt/b","root":"r","path":"a","why":"it cannot be read"}"#,
        r#"{"seq":22,"at":"2026-11-05T12:34:56.000000000Z","do":"foreign","replica":"/mnt/b","root":"r","path":"","type":"dir"}"#,
        r#"{"seq":20,"at":"2026-11-05T12:34:56.000000000Z","do":"config","replica":"/mnt/b","url":null,"identity":"i"}"#,
        r#"{"seq":23,"at":"2026-11-05T12:34:56.000000000Z","do":"config","trigger":"t","since":{"r":0,"s":7}}"#,
        r#"{"seq":24,"at":"2026-11-05T12:34:56.000000000Z","do":"config","trigger":"t","since":null}"#,
        r#"{"seq":25,"at":"2026-11-05T12:34:56.000000000Z","do":"started","trigger":"t","root":"r","path":"a","file":8,"version":9,"key":"16b8","group":14166,"born":3721412,"boot":"7c3c"}"#,
        r#"{"seq":26,"at":"2026-11-05T12:34:56.000000000Z","do":"ran","trigger":"t","root":"r","path":"a","file":8,"version":9}"#,
        r#"{"seq":27,"at":"2026-11-05T12:34:56.000000000Z","do":"dead","trigger":"t","root":"r","path":"a","file":8,"version":9,"why":"exit code 1"}"#,
        r#"{"seq":28,"at":"2026-11-05T12:34:56.000000000Z","do":"resumed","trigger":"t","root":"r","path":"a","file":8,"version":9}"#,
        r#"{"seq":23,"at":"2026-11-05T12:34:56.000000000Z","do":"hashed","root":"r","path":"a","file":8,"of":9,"size":5,"mtime_ns":6,"sha256":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","blake3":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}"#,
        r#"{"seq":24,"at":"2026-11-05T12:34:56.000000000Z","do":"hashed","replica":"/mnt/b","root":"r","path":"a","file":8,"of":9,"size":5,"mtime_ns":6,"sha256":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}"#,
        r#"{"seq":25,"at":"2026-11-05T12:34:56.000000000Z","do":"verified","root":"r","files":[8,9,10,12]}"#,
        r#"{"seq":26,"at":"2026-11-05T12:34:56.000000000Z","do":"verified","replica":"/mnt/b","root":"r","files":[8,9]}"#,
        r#"{"seq":27,"at":"2026-11-05T12:34:56.000000000Z","do":"rot","root":"r","path":"a","file":8,"of":9,"size":5,"mtime_ns":6,"digest":"sha256","expected":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","found":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","touched":true}"#,
        r#"{"seq":28,"at":"2026-11-05T12:34:56.000000000Z","do":"missed","replica":"/mnt/b","root":"r","path":"a","file":8,"of":9,"what":"missing"}"#,
        r#"{"seq":29,"at":"2026-11-05T12:34:56.000000000Z","do":"missed","root":"r","path":"a","what":"foreign","size":5,"mtime_ns":6}"#,
        r#"{"seq":30,"at":"2026-11-05T12:34:56.000000000Z","do":"unreadable","root":"r","path":"a","file":8,"of":9,"size":5,"mtime_ns":6,"why":"w"}"#,
        r#"{"seq":31,"at":"2026-11-05T12:34:56.000000000Z","do":"repaired","replica":"/mnt/b","root":"r","path":"a","file":8,"of":9,"from":"/mnt/c","kept":"x\u0007","size":5,"mtime_ns":6,"sha256":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}"#,
        r#"{"seq":32,"at":"2026-11-05T12:34:56.000000000Z","do":"restored","replica":"/mnt/b","root":"r","path":"a","to":"/x","files":1,"bytes":2,"failed":0}"#,
        r#"{"seq":33,"at":"2026-11-05T12:34:56.000000000Z","do":"restored","replica":"/mnt/b","root":"r","path":"","files":1,"bytes":2,"failed":0}"#,
        r#"{"seq":34,"at":"2026-11-05T12:34:56.000000000Z","do":"released","root":"r","path":"a","file":8,"of":9,"size":5,"mtime_ns":6,"sha256":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","copies":["/mnt/b","c"]}"#,
        r#"{"seq":35,"at":"2026-11-05T12:34:56.000000000Z","do":"enrolled","root":"aoc:/data","path":"","host":"aoc","dir":"/data","type":"dir","size":0,"mtime_ns":0,"mode":493,"uid":0,"gid":0}"#,
        r#"{"seq":36,"at":"2026-11-05T12:34:56.000000000Z","do":"enrolled","root":"aoc:/data","path":"a","type":"symlink","size":1,"mtime_ns":-6,"mode":511,"uid":1,"gid":2,"target":"x","created_ns":-7}"#,
    ];
    for line in lines {
        assert_eq!(text(&Record::parse(line.as_bytes()).unwrap()), line);
    }
    let Body::Change(change) = Record::parse(CREATE.as_bytes()).unwrap().body else { panic!("a change") };
    assert_eq!(change.path.as_bytes(), b"caf\xe9");
    assert_eq!(Record::parse(lines[8].as_bytes()).unwrap().body, Body::Other("praised".to_owned()));
}

#[test]
fn what_is_no_record_is_refused_with_the_reason() {
    let wrong = [
        (CREATE.replace(r#""path_b64":"Y2Fm6Q==""#, r#""path_b64":"Li4vYQ==""#), "not a relative path"),
        (CREATE.replace(r#""size":10"#, r#""size":10,"size":11"#), "duplicate field `size`"),
        (CREATE.replace(r#""size":10,"#, ""), "missing field `size`"),
        (CREATE.replace("\"file\"", "\"blob\""), "type is"),
        (CREATE.replace(r#","do":"create""#, ""), "missing field `do`"),
        (CREATE.replace("colour", "seq"), "seq stands twice"),
        (CREATE[..CREATE.len() - 1].to_owned(), "EOF"),
    ];
    for (line, reason) in wrong {
        let error = Record::parse(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}: {line}");
    }
}
