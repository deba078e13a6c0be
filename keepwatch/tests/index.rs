//! The shared index on a real PostgreSQL: what each host knows is there, once, and all hosts can be asked.
#![allow(clippy::unwrap_used, missing_docs)]

mod postgres;
mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keepwatch_engine::index::{Index, IndexError, IndexSettings, Password, Stop, Tls, Writer};
use keepwatch_journal::{
    Body, ChainHash, Change, Config, Cursor, Evidence, Facts, FileType, JournalId, OldPlace, Op, Record, RelPath,
    RootName, Seq, Settled, Timestamp, Via,
};
use postgres::{Postgres, assert_indexed, digests, host, index_status, lag, originals, wait_indexed};
use support::{Dice, Keepwatch, Row, bytes, is_change, sh, shake, sized, wait_for};

#[test]
fn three_hosts_feed_one_database_and_can_be_asked_together() {
    let Some(postgres) = Postgres::start("three_hosts_feed_one_database_and_can_be_asked_together") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut hosts: Vec<(String, Keepwatch)> =
        ["one", "two", "three"].map(|name| (name.to_owned(), host(dir.path(), name, &postgres))).into();
    for (number, (name, keepwatch)) in hosts.iter_mut().enumerate() {
        let tree = dir.path().join(name.as_str());
        plant(&tree, number);
        shake(&tree, &mut Dice::new(number as u64), 300);
        keepwatch.start();
    }
    for round in 0..3 {
        for (number, (name, _)) in hosts.iter().enumerate() {
            let tree = dir.path().join(name);
            work_in(&tree);
            shake(&tree, &mut Dice::new(100 + round * 10 + number as u64), sized(300, 30_000));
        }
    }
    for (name, keepwatch) in &mut hosts {
        assert_indexed(keepwatch, &postgres, name, &dir.path().join(name.as_str()));
    }
    assert_answers_for_all(&hosts, dir.path());
    assert_questions_run(&postgres);
    for (_, keepwatch) in &mut hosts {
        keepwatch.stop();
        assert_views_agree(&postgres, keepwatch);
    }
}

/// Real trees of the system, one for each host; and the small one that every run can afford.
const REAL: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/perl", "/usr/lib/python3"];
const REAL_SMALL: &str = "/etc/ssl";

/// Puts a real tree, with its links and times, into a host's.
fn plant(tree: &Path, number: usize) {
    let is_full = sized(0, 1) == 1 && Path::new(REAL[number]).is_dir();
    let from = if is_full { REAL[number] } else { REAL_SMALL };
    sh("cp", &["-a", from, tree.join("real").to_str().unwrap()]);
}

/// What people do to a tree with the programs that they have: copies, archives, renames, edits, removals.
fn work_in(tree: &Path) {
    let script = "set -e; cd \"$1\"; cp -a real copy; mv real renamed; mkdir unpacked; \
                  tar -C renamed -cf - . | tar -C unpacked -xf -; \
                  find renamed -type f -size -64k -print0 | head -z -n 500 | xargs -0 -r sed -i '$a more'; \
                  find copy -type f -print0 | head -z -n 500 | xargs -0 -r chmod u+w,o-r; \
                  cp -al copy linked; rm -r copy; mv linked unpacked/linked; \
                  mv renamed real; rm -r unpacked";
    sh("sh", &["-c", script, "sh", tree.to_str().unwrap()]);
}

/// Every question in docs/sql.md runs as it stands, as somebody who may only read.
fn assert_questions_run(postgres: &Postgres) {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sql.md")).unwrap();
    let blocks: Vec<&str> = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 8, "{} questions", blocks.len());
    for question in blocks {
        postgres.sql(&format!("SET ROLE keepwatch_read; {question}"));
    }
    let denied = postgres.psql("postgres", "SET ROLE keepwatch_read; DELETE FROM files");
    assert!(!denied.status.success());
    let columns = |view: &str| {
        let sql = format!(
            "SELECT string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns \
             WHERE table_name = '{view}'"
        );
        postgres.sql(&sql)
    };
    for view in ["originals", "file_changes"] {
        assert!(page.contains(&format!("`{}`", columns(view))), "{view}: {}", columns(view));
    }
}

/// The views of the database have the columns of those of the inventory.
fn assert_views_agree(postgres: &Postgres, keepwatch: &Keepwatch) {
    for view in ["originals", "file_changes"] {
        let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]).execute(f'SELECT * FROM {sys.argv[2]} LIMIT 0'); \
                      print(' '.join(d[0] for d in c.description))";
        let own = sh("python3", &["-c", script, keepwatch.state.join("inventory.db").to_str().unwrap(), view]);
        let sql = format!(
            "SELECT string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns \
             WHERE table_name = '{view}'"
        );
        assert_eq!(postgres.sql(&sql), own.trim());
    }
}

/// `ls`, `log` and `status` with `--all-hosts`, asked on one host, say what each host says of itself.
fn assert_answers_for_all(hosts: &[(String, Keepwatch)], dir: &Path) {
    let (first, asked) = &hosts[0];
    let mut listed: BTreeMap<String, BTreeMap<Vec<u8>, Row>> = BTreeMap::new();
    for line in asked.json_lines(&["ls", "--json", "--all-hosts"]) {
        let host = line["host"].as_str().unwrap().to_owned();
        listed.entry(host).or_default().insert(bytes(&line, "path"), Row::of_json(&line));
    }
    for (name, keepwatch) in hosts {
        assert_eq!(listed[name], keepwatch.listed(), "ls of {name}");
    }
    let told = asked.json_lines(&["log", "--json", "--all-hosts"]);
    for (name, keepwatch) in hosts {
        let of_it: Vec<_> = told.iter().filter(|record| record["host"] == **name).cloned().collect();
        let mut records = keepwatch.records();
        records.iter_mut().for_each(|record| record["host"] = name.as_str().into());
        // A file may have settled since the question.
        assert!(!of_it.is_empty() && of_it.len() <= records.len(), "log of {name}");
        records.truncate(of_it.len());
        assert_eq!(of_it, records, "log of {name}");
    }
    // One file of a host that is not asked, across its renames and those of directories above it, and what stood there before.
    let (second, keepwatch) = &hosts[1];
    let tree = dir.join(second);
    let steps: [(&str, &str); 5] = [
        ("followed", "dd/in/renamed"),
        ("dd", "ee"),
        ("ee/in", "inner"),
        ("inner/renamed", "inner/again"),
        ("inner", "dd/in"),
    ];
    fs::create_dir_all(tree.join("dd/in")).unwrap();
    fs::write(tree.join("followed"), "1").unwrap();
    keepwatch.caught_up();
    for (number, (from, to)) in steps.iter().enumerate() {
        fs::create_dir_all(tree.join(to).parent().unwrap()).unwrap();
        fs::rename(tree.join(from), tree.join(to)).unwrap();
        keepwatch.caught_up();
        if number == 1 {
            fs::write(tree.join("ee/in/renamed"), "22").unwrap();
            keepwatch.caught_up();
        }
    }
    fs::write(tree.join("dd/in/again"), "333").unwrap();
    // Another file where the first one was, gone with its directory.
    fs::create_dir_all(tree.join("inner")).unwrap();
    fs::write(tree.join("inner/again"), "4").unwrap();
    keepwatch.caught_up();
    fs::remove_dir_all(tree.join("inner")).unwrap();
    wait_indexed(keepwatch);
    let ask = |args: &[&str], path: &str| -> Vec<serde_json::Value> {
        let output = asked.command(args).arg(tree.join(path)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for path in ["dd/in/again", "inner/again", "ee/in/renamed", "followed"] {
        let mut own = keepwatch.log_of(&tree.join(path));
        own.iter_mut().for_each(|record| record["host"] = second.as_str().into());
        assert!(own.len() >= 5, "log of {path}: {own:?}");
        let told = ask(&["log", "--json", "--all-hosts"], path);
        // A version may settle between the two questions.
        assert_eq!(told[..own.len().min(told.len())], own, "log of {path}");
        assert!(ask(&["log", "--json", "--all-hosts", "--no-follow"], path).len() < own.len(), "{path}");
    }
    let status = asked.json_lines(&["status", "--json", "--all-hosts"]);
    assert_eq!(status.len(), hosts.len());
    assert!(status.iter().any(|host| host["host"] == **first && host["lag_records"] == 0), "{status:?}");
    let output = asked.ask(&["ls", "--all-hosts", "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_replay_gives_the_tables_that_following_gave() {
    let Some(postgres) = Postgres::start("a_replay_gives_the_tables_that_following_gave") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut keepwatch = host(dir.path(), "one", &postgres);
    let tree = dir.path().join("one");
    keepwatch.start_and_settle();
    for seed in 0..3 {
        shake(&tree, &mut Dice::new(seed), sized(300, 20_000));
        wait_indexed(&keepwatch);
    }
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    keepwatch.stop();
    let live = digests(&postgres, "postgres", "one");
    assert!(live.iter().all(|table| !table.contains("\t0\t") || table.starts_with("problems")), "{live:?}");

    let told = String::from_utf8(keepwatch.ok(&["replay", "--to", "postgres"])).unwrap();
    assert!(told.contains("made anew"), "{told}");
    assert_eq!(digests(&postgres, "postgres", "one"), live);
    assert_eq!(postgres.sql("SELECT count(*) FROM hosts"), "1", "what was there before is gone");

    postgres.sql("CREATE DATABASE empty");
    let other = fs::read_to_string(dir.path().join("one-state.toml")).unwrap();
    fs::write(dir.path().join("one-state.toml"), other.replace("/postgres\"", "/empty\"")).unwrap();
    keepwatch.ok(&["replay", "--to", "postgres"]);
    assert_eq!(digests(&postgres, "empty", "one"), live);

    // Without the first half of its history, everything stands where it stood.
    let seq = keepwatch.records().len() / 2;
    keepwatch.ok(&["replay", "--to", "postgres", "--from", &seq.to_string()]);
    let without = digests(&postgres, "empty", "one");
    assert_eq!(without[..5], live[..5]);
    let count = |database: &str| postgres.sql_in(database, "SELECT min(seq) FROM changes").parse::<usize>().unwrap();
    assert!(count("empty") > seq && count("postgres") <= seq);
    // And the service goes on from there.
    keepwatch.start_and_settle();
    fs::write(tree.join("afterwards"), "x").unwrap();
    wait_indexed(&keepwatch);
    assert_eq!(postgres.sql_in("empty", "SELECT count(*) FROM originals WHERE path = 'afterwards'"), "1");
    keepwatch.stop();
}

#[test]
fn names_in_all_bytes_and_long_paths_are_exact_and_can_be_read() {
    let Some(postgres) = Postgres::start("names_in_all_bytes_and_long_paths_are_exact_and_can_be_read") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut keepwatch = host(dir.path(), "one", &postgres);
    let tree = dir.path().join("one");
    for byte in (1..=255_u8).filter(|byte| *byte != b'/' && *byte != b'.') {
        fs::write(tree.join(OsStr::from_bytes(&[byte])), "x").unwrap();
        fs::write(tree.join(OsStr::from_bytes(&[b'a', byte, byte, b'.', b'T'])), "x").unwrap();
    }
    for name in ["back\\slash", "new\nline", "quote'\"", "%s $1 \\x41", "tab\there", "Ünï.PDF", "-rf", " ", "a.tar.gz"]
    {
        fs::write(tree.join(name), "x").unwrap();
    }
    // Down to the longest path that can be written at once (PATH_MAX, its NUL included).
    let deep = ["d".repeat(200), "\u{e9}".repeat(100), "e".repeat(250)];
    let mut rel = std::path::PathBuf::new();
    keepwatch.start_and_settle();
    let rest = |rel: &Path| 4_095 - tree.join(rel).as_os_str().len() - 1;
    for name in deep.iter().cycle() {
        if rest(&rel) <= 600 {
            break;
        }
        rel.push(name);
        fs::create_dir(tree.join(&rel)).unwrap();
    }
    rel.push("l".repeat(250));
    fs::create_dir(tree.join(&rel)).unwrap();
    let last = rest(&rel).checked_sub(256).map(|more| more.max(1));
    if let Some(more) = last {
        rel.push("m".repeat(more));
        fs::create_dir(tree.join(&rel)).unwrap();
    }
    rel.push(format!("{}.txt", "f".repeat(rest(&rel) - 4)));
    assert_eq!(tree.join(&rel).as_os_str().len(), 4_095);
    fs::write(tree.join(&rel), "x").unwrap();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    let longest = postgres.number("SELECT max(octet_length(path)) FROM file_changes");
    assert_eq!(longest, rel.as_os_str().len() as u64);
    assert!(longest >= 4_000, "{longest}");
    let exact = format!("SELECT count(*) FROM originals WHERE path = '{}'", rel.to_str().unwrap());
    assert_eq!(postgres.sql(&exact), "1");
    assert_eq!(postgres.sql("SELECT count(*) FROM originals WHERE path LIKE '%.PDF'"), "1");
    assert_eq!(
        postgres.sql("SELECT path FROM file_changes WHERE path LIKE 'back%' AND change = 'create'"),
        "back\\slash"
    );
    assert_eq!(postgres.sql("SELECT count(*) FROM files WHERE ext = 'gz'"), "1");
    // What is renamed at the top of it changes directories only, and all paths.
    let files = postgres.sql("SELECT md5(string_agg(concat_ws(' ', dir_id, name, file_id, size, from_seq, version_seq), '' ORDER BY file_id)) FROM files WHERE kind = 1");
    fs::rename(tree.join(&deep[0]), tree.join("top")).unwrap();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    assert_eq!(postgres.sql("SELECT md5(string_agg(concat_ws(' ', dir_id, name, file_id, size, from_seq, version_seq), '' ORDER BY file_id)) FROM files WHERE kind = 1"), files);
    keepwatch.stop();
}

/// The bug that filled 27 GB: rows that a constraint refuses were tried again for ever, and the others with them. At the
/// longest pause between two tries, 30 s, an hour holds 120 of them: as many turns stand for it, each of which is applied
/// before the next begins, so that no hour has to be waited for.
#[test]
fn rows_that_are_refused_hold_up_no_others_and_a_replay_mends_them() {
    let Some(postgres) = Postgres::start("rows_that_are_refused_hold_up_no_others_and_a_replay_mends_them") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut keepwatch = host(dir.path(), "one", &postgres);
    let tree = dir.path().join("one");
    keepwatch.start_and_settle();
    fs::write(tree.join("before"), "x").unwrap();
    wait_indexed(&keepwatch);
    postgres.sql("ALTER TABLE files ADD CONSTRAINT none CHECK (false) NOT VALID");
    let before = keepwatch.caught_up();
    shake(&tree, &mut Dice::new(7), sized(150, 5_000));
    wait_indexed(&keepwatch);
    for turn in 0..sized(3, 200) {
        fs::write(tree.join("again"), turn.to_string()).unwrap();
        wait_indexed(&keepwatch);
    }
    let journaled: Vec<u64> = keepwatch
        .records()
        .iter()
        .filter(|record| is_change(record))
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    let told = postgres.sql("SELECT seq FROM file_changes ORDER BY seq");
    assert_eq!(told.lines().map(|seq| seq.parse::<u64>().unwrap()).collect::<Vec<_>>(), journaled);
    let changes = journaled.iter().filter(|seq| **seq >= before).count() as u64;
    let problems = postgres.number("SELECT count(*) FROM problems WHERE part = 'inventory'");
    assert!(problems > 0 && problems <= changes + 1_000, "{problems} problems of {changes} changes");
    assert_eq!(postgres.sql("SELECT count(*) FROM problems WHERE reason NOT LIKE '%none%'"), "0");
    let status = keepwatch.status().unwrap();
    assert!(status["needs"].to_string().contains("could not be applied to `index` in full"), "{status}");
    let output = keepwatch.ask(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    keepwatch.stop();

    postgres.sql("ALTER TABLE files DROP CONSTRAINT none");
    keepwatch.ok(&["replay", "--to", "postgres"]);
    keepwatch.start_and_settle();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    keepwatch.stop();
}

/// A refused row of the history does not hold up what stands where.
#[test]
fn history_that_is_refused_holds_up_no_names() {
    let Some(postgres) = Postgres::start("history_that_is_refused_holds_up_no_names") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut keepwatch = host(dir.path(), "one", &postgres);
    let tree = dir.path().join("one");
    keepwatch.start_and_settle();
    wait_indexed(&keepwatch);
    postgres.sql("ALTER TABLE changes ADD CONSTRAINT odd CHECK (path NOT LIKE '%odd%') NOT VALID");
    for number in 0..200 {
        fs::write(tree.join(format!("f{number}{}", if number % 20 == 0 { "odd" } else { "" })), "x").unwrap();
    }
    wait_indexed(&keepwatch);
    assert_eq!(postgres.sql("SELECT count(*) FROM originals WHERE path LIKE '%odd%'"), "10");
    assert_eq!(postgres.sql("SELECT count(*) FROM file_changes WHERE path LIKE '%odd%'"), "0");
    assert_eq!(postgres.sql("SELECT count(DISTINCT path) FROM file_changes WHERE path LIKE 'f%'"), "190");
    assert!(postgres.number("SELECT count(*) FROM problems WHERE part = 'audit'") >= 10);
    keepwatch.stop();
}

/// The engine's own writer, for what a service cannot be made to do.
fn index_of(postgres: &Postgres, journal: JournalId) -> Result<Index, IndexError> {
    let settings = IndexSettings {
        server: postgres.url("postgres", "postgres").parse().unwrap(),
        password: Password::None,
        tls: Tls::Off,
        timeout: Duration::from_secs(30),
    };
    let writer = Writer { name: "one".to_owned(), identity: "one's".to_owned(), journal };
    Index::open(&settings, &writer, |_| false, Stop::default())
}

fn record(seq: u64, body: Body) -> Record {
    let at = Timestamp(1_790_000_000_000_000_000 + i64::try_from(seq).unwrap());
    Record { seq: Seq(seq), at, body, extra: None }
}

fn change(op: Op, path: &str, facts: Option<Facts>) -> Body {
    let (path, root) = (RelPath::new(path.as_bytes()).unwrap(), RootName::new("tree"));
    let (old, by, merged, subtree, exchange) = (None, None, false, false, false);
    Body::Change(Change { op, root, path, old, facts, via: Via::Scan, by, merged, subtree, exchange })
}

fn facts(inode: u64) -> Facts {
    Facts {
        kind: FileType::File,
        size: inode,
        mtime_ns: 1,
        ctime_ns: 1,
        dev: 1,
        inode,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        target: None,
    }
}

fn cursor(journal: JournalId, seq: u64) -> Cursor {
    Cursor { journal, seq: Seq(seq), hash: ChainHash([u8::try_from(seq % 251).unwrap(); 32]) }
}

#[test]
fn what_vanished_before_it_could_be_read_has_no_size() {
    let Some(postgres) = Postgres::start("what_vanished_before_it_could_be_read_has_no_size") else { return };
    let journal = JournalId::random();
    let mut index = index_of(&postgres, journal).unwrap();
    let dir = Some(b"/srv".as_slice().into());
    let records = [
        record(1, Body::Config(Config { root: RootName::new("tree"), dir, identity: None, accepted: false })),
        record(2, change(Op::Create, "gone", None)),
        record(3, change(Op::Create, "d/there", Some(facts(7)))),
        record(4, change(Op::Modify, "d/there", None)),
        record(5, change(Op::Delete, "never seen", None)),
    ];
    assert_eq!(index.apply(&records, cursor(journal, 5), Seq(5)).unwrap(), 0);
    let told = postgres.sql("SELECT seq, path, size, inode FROM file_changes ORDER BY seq");
    assert_eq!(told, "2\tgone\t\t\n3\td/there\t7\t7\n4\td/there\t\t\n5\tnever seen\t\t");
    let stands = postgres.sql("SELECT path, type, size, inode FROM originals ORDER BY path");
    assert_eq!(stands, "d\tdir\t\t\nd/there\tfile\t7\t7\ngone\t\t\t");

    // What is looked at and found as it is costs no write: a row's xmin is the transaction that wrote it.
    let writers = "SELECT string_agg(xmin::text, ' ' ORDER BY name) FROM files";
    let before = postgres.sql(writers);
    let (root, path) = (RootName::new("tree"), RelPath::new(b"d/there").unwrap());
    let outdated = Settled { root, path, evidence: Evidence::Quiet, size: 6, mtime_ns: 1, inode: 7 };
    index.apply(&[record(6, Body::Settled(outdated))], cursor(journal, 6), Seq(6)).unwrap();
    assert_eq!(postgres.sql(writers), before);
    assert_eq!(postgres.sql("SELECT count(*) FROM acts WHERE act = 'settled'"), "1");
}

/// A transaction hangs in the server, its client gives up, another client applies the same records, and then the first
/// one is committed after all, or before: nothing is there twice.
#[test]
fn a_transaction_that_commits_late_does_no_harm() {
    let Some(postgres) = Postgres::start("a_transaction_that_commits_late_does_no_harm") else { return };
    let postgres = Arc::new(postgres);
    let journal = JournalId::random();
    let records: Arc<Vec<Record>> =
        Arc::new((1..=100).map(|seq| record(seq, change(Op::Create, &format!("f{seq}"), Some(facts(seq))))).collect());
    let mut hung = index_of(&postgres, journal).unwrap();
    let mut second = index_of(&postgres, journal).unwrap();
    // The first partition, so that the hung one hangs in the middle, and not before it began.
    hung.apply(&records[..1], cursor(journal, 1), Seq(1)).unwrap();
    assert!(matches!(second.apply(&records[..1], cursor(journal, 1), Seq(1)), Err(IndexError::Moved { .. })));
    let mut second = index_of(&postgres, journal).unwrap();
    assert_eq!(second.cursor(), cursor(journal, 1));
    let lock = {
        let postgres = Arc::clone(&postgres);
        std::thread::spawn(move || {
            postgres.sql("BEGIN; LOCK TABLE past_names, changes IN SHARE MODE; SELECT pg_sleep(3); COMMIT");
        })
    };
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    wait_for("the table is locked", || postgres.number("SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock'") > 0);
    let late = {
        let records = Arc::clone(&records);
        std::thread::spawn(move || hung.apply(&records[1..], cursor(journal, 100), Seq(100)))
    };
    wait_for("the transaction hangs", || postgres.number(waiting) > 0);
    let again = second.apply(&records[1..], cursor(journal, 100), Seq(100));
    assert!(matches!(again, Err(IndexError::Moved { .. })), "{again:?}");
    late.join().unwrap().unwrap();
    lock.join().unwrap();
    assert_eq!(index_of(&postgres, journal).unwrap().cursor(), cursor(journal, 100));
    assert_eq!(postgres.sql("SELECT count(*), count(DISTINCT seq) FROM file_changes"), "100\t100");
    assert_eq!(postgres.sql("SELECT count(*) FROM originals"), "100");
    assert_eq!(postgres.sql("SELECT count(*) FROM problems"), "0");
}

/// While the server knows nothing of how much there is, a batch must still be read by its keys.
#[test]
fn a_batch_reads_no_more_rows_than_it_is_about() {
    let Some(postgres) = Postgres::start("a_batch_reads_no_more_rows_than_it_is_about") else { return };
    let journal = JournalId::random();
    let mut index = index_of(&postgres, journal).unwrap();
    // Paths longer than any program may write at once are no trouble here.
    let long = vec!["long"; 2_000].join("/");
    let files = sized(20_000, 200_000) as u64;
    let path = |number: u64| if number == 1 { long.clone() } else { format!("d{}/f{number}", number % 100) };
    let records: Vec<Record> =
        (1..=files).map(|seq| record(seq, change(Op::Create, &path(seq), Some(facts(seq))))).collect();
    for batch in records.chunks(5_000) {
        let last = batch.last().unwrap().seq.0;
        assert_eq!(index.apply(batch, cursor(journal, last), Seq(last)).unwrap(), 0);
    }
    assert_eq!(postgres.number("SELECT max(octet_length(path)) FROM file_changes"), long.len() as u64);
    // What a session did is counted when it ends.
    drop(index);
    let sum = |column: &str| format!("SELECT coalesce({column}, 0) FROM pg_stat_user_tables WHERE relname = 'files'");
    let read = sum("idx_tup_fetch + seq_tup_read");
    wait_for("all is counted", || postgres.number(&sum("n_tup_ins")) >= files);
    let before = postgres.number(&read);
    let mut index = index_of(&postgres, journal).unwrap();
    let (batches, size) = (20, 100);
    for batch in 0..batches {
        let first = files + 1 + batch * size;
        let records: Vec<Record> = (first..first + size)
            .map(|seq| record(seq, change(Op::Modify, &path(seq - files), Some(facts(seq - files)))))
            .collect();
        let last = first + size - 1;
        assert_eq!(index.apply(&records, cursor(journal, last), Seq(last)).unwrap(), 0);
    }
    drop(index);
    wait_for("all is counted", || postgres.number(&sum("n_tup_upd")) >= batches * size);
    let read = postgres.number(&read) - before;
    assert!(read <= 8 * batches * size, "{read} rows were read for {batches} batches of {size}, {before} before");
    assert!(postgres.number(&sum("n_tup_hot_upd")) * 2 > batches * size, "most rows stay in their page");
}

/// The same where names end, of files and of directories.
#[test]
fn a_batch_that_ends_names_reads_no_more_rows_than_it_is_about() {
    let Some(postgres) = Postgres::start("a_batch_that_ends_names_reads_no_more_rows_than_it_is_about") else { return };
    postgres.sql("ALTER SYSTEM SET autovacuum = off");
    postgres.sql("SELECT pg_reload_conf()");
    let journal = JournalId::random();
    let mut index = index_of(&postgres, journal).unwrap();
    let (names, ends) = (12_000, 1_000);
    let path = |number: u64| if number.is_multiple_of(2) { format!("d{number}") } else { format!("f{number}") };
    let what = |number: u64| Facts {
        kind: if number.is_multiple_of(2) { FileType::Dir } else { FileType::File },
        ..facts(number)
    };
    let made: Vec<Record> =
        (1..=names).map(|seq| record(seq, change(Op::Create, &path(seq), Some(what(seq))))).collect();
    let ended: Vec<Record> =
        (1..=ends).map(|number| record(names + number, change(Op::Delete, &path(number), None))).collect();
    for batch in made.chunks(4_000).chain(ended.chunks(100)) {
        let last = batch.last().unwrap().seq.0;
        assert_eq!(index.apply(batch, cursor(journal, last), Seq(last)).unwrap(), 0);
    }
    // What a session did is counted when it ends.
    drop(index);
    let of = |table: &str, columns: &str| {
        postgres.number(&format!("SELECT coalesce({columns}, 0) FROM pg_stat_user_tables WHERE relname = '{table}'"))
    };
    wait_for("all is counted", || of("files", "n_tup_del") >= ends);
    for (table, ended) in [("files", ends), ("dirs", ends / 2), ("dir_names", ends / 2)] {
        let read = of(table, "idx_tup_fetch + seq_tup_read");
        assert!(read <= 8 * ended, "{read} rows of {table} were read for {ended} that ended");
    }
    assert_eq!(postgres.number("SELECT count(*) FROM dir_names WHERE to_seq IS NULL"), (names - ends) / 2);
    assert_eq!(postgres.number("SELECT count(*) FROM originals WHERE path <> ''"), names - ends);
}

/// However often a directory was renamed, the next time costs no more.
#[test]
fn a_directory_that_is_renamed_again_and_again_costs_the_same_each_time() {
    let test = "a_directory_that_is_renamed_again_and_again_costs_the_same_each_time";
    let Some(postgres) = Postgres::start(test) else { return };
    let journal = JournalId::random();
    let mut index = index_of(&postgres, journal).unwrap();
    let renames = sized(1_000, 10_000) as u64;
    let dir = || Some(Facts { kind: FileType::Dir, ..facts(1) });
    let mut records = vec![record(1, change(Op::Create, "d1", dir()))];
    records.extend((2..=renames).map(|seq| {
        let Body::Change(moved) = change(Op::Move, &format!("d{seq}"), dir()) else { unreachable!() };
        let from = RelPath::new(format!("d{}", seq - 1).into_bytes()).unwrap();
        record(seq, Body::Change(Change { old: Some(OldPlace { root: None, path: from }), ..moved }))
    }));
    records.push(record(renames + 1, change(Op::Delete, &format!("d{renames}"), None)));
    for batch in records.chunks(500) {
        let last = batch.last().unwrap().seq.0;
        assert_eq!(index.apply(batch, cursor(journal, last), Seq(last)).unwrap(), 0);
    }
    // What a session did is counted when it ends.
    drop(index);
    let of = |columns: &str| {
        postgres.number(&format!("SELECT coalesce({columns}, 0) FROM pg_stat_user_tables WHERE relname = 'dir_names'"))
    };
    wait_for("all is counted", || of("n_tup_upd") >= renames);
    let read = of("idx_tup_fetch + seq_tup_read");
    assert!(read <= 8 * renames, "{read} rows were read for {renames} renames");
    assert_eq!(postgres.number("SELECT count(*) FROM dir_names WHERE to_seq = from_seq + 1"), renames);
}

#[test]
fn unchanged_rows_cost_no_write_and_a_directory_s_rename_touches_directories_only() {
    let test = "unchanged_rows_cost_no_write_and_a_directory_s_rename_touches_directories_only";
    let Some(postgres) = Postgres::start(test) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut keepwatch = host(dir.path(), "one", &postgres);
    let tree = dir.path().join("one");
    fs::create_dir_all(tree.join("big/inner")).unwrap();
    for number in 0..sized(300, 20_000) {
        fs::write(tree.join(format!("big/inner/f{number}")), "x").unwrap();
    }
    keepwatch.start_and_settle();
    wait_for("all is settled", || {
        keepwatch.caught_up();
        lag(&keepwatch) == Some(0)
            && postgres.sql("SELECT count(*) FROM originals WHERE NOT settled AND type='file'") == "0"
    });
    // xmin is the transaction that wrote a row.
    let writers =
        "SELECT md5(string_agg(xmin::text || ctid::text, ' ' ORDER BY dir_id, name)) FROM files WHERE kind = 1";
    let before = postgres.sql(writers);
    fs::rename(tree.join("big"), tree.join("moved")).unwrap();
    keepwatch.ok(&["reconcile"]);
    wait_indexed(&keepwatch);
    assert_eq!(postgres.sql(writers), before);
    assert_eq!(originals(&postgres, "one"), keepwatch.listed());
    assert!(index_status(&keepwatch).unwrap()["stopped"].is_null());
    keepwatch.stop();
}
