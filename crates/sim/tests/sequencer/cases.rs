//! The cases of `cases.txt`: starting state, operations, expected records.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use keepwatch_engine::clock::Clock as _;
use keepwatch_engine::watch::settle::Patience;
use keepwatch_journal::{Body, FileType, Op as Told, Record, RelPath};
use keepwatch_sim::clock::SimClock;
use keepwatch_sim::kernel::{Flavour, Kernel};
use keepwatch_sim::service::{Service, Step};
use keepwatch_sim::tree::{Manners, Op, Path, World};

use crate::plan::{REST_MAX, ROOTS};

/// What `wait` in a case lets pass: longer than a new file is left alone.
const WAIT_MS: u32 = 2_500;

#[test]
fn each_case_gives_the_records_that_it_names() {
    let cases = include_str!("cases.txt");
    let mut failed = Vec::new();
    for case in cases.split("\n== ").skip(1) {
        let (name, script) = case.split_once('\n').unwrap();
        let (told, expected) = play(script);
        if told != expected {
            failed.push(format!("{name}\n  expected {expected:#?}\n  told {told:#?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

fn play(script: &str) -> (Vec<String>, Vec<String>) {
    let lines = || script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let clock = SimClock::default();
    let manners = Manners { reuses_inodes: true, has_handles: true, stamp_ns: 1 };
    let world = Rc::new(RefCell::new(World::new(clock.clone(), manners, Kernel::new(Flavour::Fanotify), ROOTS)));
    for line in lines().filter_map(|line| line.strip_prefix("given ")) {
        assert!(world.borrow_mut().perform(1, &operation(line)), "{line}");
    }
    world.borrow_mut().kernel.reset();
    let patience = Patience {
        settle: Duration::from_secs(60),
        settle_closed: Duration::from_secs(2),
        settle_min: Duration::ZERO,
        open_max: Duration::from_secs(3600),
        lease: true,
    };
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::new(&clock, &world, ROOTS, patience, dir.path());
    service.come_to_rest().unwrap();
    let before = service.sequencer.ledger.records().len();
    for line in lines().filter(|line| !line.starts_with("given ") && !line.starts_with('>')) {
        match line {
            "hear" => {
                service.step(&Step::Drain(u8::MAX));
                service.step(&Step::Hear);
            }
            "wait" => {
                service.step(&Step::Pass(WAIT_MS));
                service.step(&Step::KeepUp);
            }
            _ => {
                let (pid, line) = line.strip_prefix("@2 ").map_or((1, line), |line| (2, line));
                assert!(world.borrow_mut().perform(pid, &operation(line)), "{line}");
            }
        }
    }
    let since = clock.instant();
    service.come_to_rest().unwrap();
    let took = clock.instant().duration_since(since);
    assert!(took < REST_MAX, "it rests after {took:?}:\n{script}");
    let told = service.sequencer.ledger.records()[before..].iter().filter_map(shown).collect();
    let expected = lines().filter_map(|line| line.strip_prefix("> ")).map(str::to_owned).collect();
    (told, expected)
}

fn operation(line: &str) -> Op {
    let words: Vec<&str> = line.split(' ').collect();
    let size = |word: &str| word.parse::<u8>().unwrap();
    match words[..] {
        ["write", at, bytes] => Op::Write(path(at), size(bytes)),
        ["append", at] => Op::Append(path(at)),
        ["open", at] => Op::Open(path(at)),
        ["writeopen"] => Op::WriteOpen(0),
        ["closeopen"] => Op::Close(0),
        ["truncate", at, bytes] => Op::Truncate(path(at), size(bytes)),
        ["chmod", at, mode] => Op::Chmod(path(at), size(mode)),
        ["unlink", at] => Op::Unlink(path(at)),
        ["mkdir", at] => Op::Mkdir(path(at)),
        ["rmdir", at] => Op::Rmdir(path(at)),
        ["remove", at] => Op::RemoveAll(path(at)),
        ["rename", from, to] => Op::Rename(path(from), path(to)),
        ["exchange", one, other] => Op::Exchange(path(one), path(other)),
        ["link", from, to] => Op::Link(path(from), path(to)),
        ["symlink", at] => Op::Symlink(path(at)),
        _ => panic!("not an operation: {line}"),
    }
}

fn path(text: &str) -> Path {
    let mut parts = text.split('/');
    let top = parts.next().unwrap().strip_prefix('t').unwrap().parse().unwrap();
    Path(top, parts.map(|name| name.as_bytes()[0] - b'a').collect())
}

/// A record as a case names it; none of what only tells that a directory's own times changed, or of gaps.
fn shown(record: &Record) -> Option<String> {
    let text = |path: &RelPath| String::from_utf8_lossy(path.as_bytes()).into_owned();
    match &record.body {
        Body::Settled(settled) => Some(format!("settled {}/{}", settled.root, text(&settled.path))),
        Body::Change(change) => {
            let is_dir = change.facts.as_ref().is_some_and(|facts| facts.kind == FileType::Dir);
            let word = match change.op {
                Told::Modify | Told::Attrib if is_dir => return None,
                Told::Create => "create",
                Told::Modify => "modify",
                Told::Attrib => "attrib",
                Told::Move => "move",
                Told::Delete => "delete",
            };
            let mut line = format!("{word} {}/{}", change.root, text(&change.path));
            if let Some(old) = &change.old {
                line += &format!(" from {}/{}", old.root.as_ref().unwrap_or(&change.root), text(&old.path));
            }
            let unread = change.facts.is_none() && change.op != Told::Delete;
            for (set, word) in [(unread, " unread"), (change.subtree, " subtree"), (change.exchange, " exchange")] {
                line += if set { word } else { "" };
            }
            Some(line)
        }
        _ => None,
    }
}
