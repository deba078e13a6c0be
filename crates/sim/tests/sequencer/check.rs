//! What must hold when all has come to rest.

use std::collections::BTreeMap;
use std::path::Path;

use keepwatch_engine::daemon::ledger::Ledger;
use keepwatch_journal::{Body, Change, Facts, FileType, Op as Told, Record, RelPath, RootName, Seq, Via};
use keepwatch_sim::kernel::Flavour;
use keepwatch_sim::service::{Service, Step, root_name};
use keepwatch_sim::tree::Op;

use crate::plan::{Plan, ROOTS};

/// What does not hold, in words; nothing if all does.
pub(crate) fn check(service: &Service, plan: &Plan, replay_in: Option<&Path>) -> Vec<String> {
    let ledger = &service.sequencer.ledger;
    let mut strays = ledger.lies().to_vec();
    holes(ledger.records(), &mut strays);
    for root in 0..ROOTS {
        inventory_is_the_tree(service, plan, root, &mut strays);
    }
    last_records_agree(service, plan, &mut strays);
    all_settled(service, &mut strays);
    let gaps = ledger.view().open_gaps().unwrap();
    if !gaps.is_empty() {
        strays.push(format!("gaps are open still: {gaps:?}"));
    }
    if let Some(dir) = replay_in {
        let (was, again) = ledger.replayed(dir);
        for row in was.iter().filter(|row| !again.contains(row)) {
            strays.push(format!("a replay does not give {row}"));
        }
        for row in again.iter().filter(|row| !was.contains(row)) {
            strays.push(format!("a replay gives {row}"));
        }
    }
    if !strays.is_empty() {
        strays.push("records:".to_owned());
        strays.extend(ledger.records().iter().map(shown));
    }
    strays
}

fn holes(records: &[Record], strays: &mut Vec<String>) {
    for (expected, record) in (1..).map(Seq).zip(records) {
        if record.seq != expected {
            strays.push(format!("{expected} is missing"));
        }
    }
}

/// What is told of. The size of a directory is its file system's own affair.
fn row(facts: &Facts) -> String {
    let Facts { kind, size, mtime_ns, ctime_ns, inode, mode, nlink, target, .. } = facts;
    let target = target.as_ref().map(|target| String::from_utf8_lossy(target).into_owned());
    format!(
        "{kind:?} size {size} mtime {mtime_ns} ctime {ctime_ns} inode {inode} mode {mode:o} links {nlink} {target:?}"
    )
}

/// What inotify lets one know: of what is done through one name of a file it says nothing to who knows it by another.
fn comparable(facts: &Facts, plan: &Plan) -> String {
    let links = |step: &Step| matches!(step, Step::Do(_, Op::Link(..)) | Step::Arm(_, _, Op::Link(..)));
    let is_blind = plan.setting.flavour == Flavour::Inotify && plan.steps.iter().any(links);
    if is_blind && facts.kind != FileType::Dir {
        return row(&Facts { ctime_ns: 0, nlink: 1, ..facts.clone() });
    }
    row(facts)
}

fn inventory_is_the_tree(service: &Service, plan: &Plan, root: usize, strays: &mut Vec<String>) {
    let listed = service.sequencer.ledger.listed(&root_name(root));
    let tree = service.world.borrow().walk(root);
    for (path, facts) in tree.iter().filter(|(path, _)| !path.is_root()) {
        match listed.get(path) {
            None => strays.push(format!("t{root}/{path:?} is there and not known")),
            Some(None) => strays.push(format!("t{root}/{path:?} is known without facts")),
            Some(Some(known)) if comparable(known, plan) != comparable(facts, plan) => {
                strays.push(format!("t{root}/{path:?}\n  is    {}\n  known {}", row(facts), row(known)));
            }
            Some(Some(_)) => {}
        }
    }
    for (path, facts) in listed.iter().filter(|(path, _)| !tree.contains_key(*path)) {
        let facts = facts.as_ref().map(row);
        strays.push(format!("t{root}/{path:?} is known and not there: {facts:?}"));
    }
}

type Last = BTreeMap<(RootName, RelPath), Facts>;

fn below(last: &Last, root: &RootName, dir: &RelPath) -> Vec<(RootName, RelPath)> {
    last.keys().filter(|(of, path)| of == root && path.is_within(dir)).cloned().collect()
}

/// Follows the records alone, as a reader of the journal would; and says which directories they wrongly end.
fn last_records_agree(service: &Service, plan: &Plan, strays: &mut Vec<String>) {
    let world = service.world.borrow();
    let mut last = Last::new();
    let mut parked: Option<Vec<(RelPath, Facts)>> = None;
    // What went while one root was away, on a file system that another root is on still, is told of as gone there.
    let away = plan.steps.iter().any(|step| matches!(step, Step::Away(..)));
    let watched = plan.setting.flavour == Flavour::Fanotify && !plan.setting.reuses_inodes && !away;
    for record in service.sequencer.ledger.records() {
        let Body::Change(change) = &record.body else { continue };
        let Change { op, root, path, old, facts, exchange, .. } = change;
        let mut carried = Vec::new();
        if let (Told::Move, Some(old)) = (op, old) {
            let from = old.root.as_ref().unwrap_or(root);
            let away = parked.take();
            if *exchange && away.is_none() {
                // What has the other name is set aside; the next record takes it to its place.
                let kept = below(&last, root, path).into_iter();
                parked = Some(kept.map(|key| (key.1.clone(), last.remove(&key).unwrap())).collect());
            }
            for (was, facts) in away.into_iter().flatten() {
                let rest = &was.as_bytes()[old.path.as_bytes().len()..];
                let to = RelPath::new([path.as_bytes(), rest].concat()).unwrap();
                carried.push(((root.clone(), to), facts));
            }
            if *exchange && parked.is_none() {
                last.extend(carried);
                if let Some(facts) = facts {
                    last.insert((root.clone(), path.clone()), facts.clone());
                }
                continue;
            }
            for key in below(&last, from, &old.path) {
                let rest = &key.1.as_bytes()[old.path.as_bytes().len()..];
                let to = RelPath::new([path.as_bytes(), rest].concat()).unwrap();
                carried.push(((root.clone(), to), last.remove(&key).unwrap()));
            }
        }
        if *op == Told::Delete || (*op == Told::Move && !exchange) {
            for key in below(&last, root, path) {
                let gone = last.remove(&key).unwrap();
                // Who looks at one root does not know yet what will be met in another.
                let was_looked_at = change.merged || change.via == Via::Scan;
                let is_elsewhere = was_looked_at && world.changed_root(gone.inode);
                if watched && gone.kind == FileType::Dir && world.always_stayed(gone.inode) && !is_elsewhere {
                    strays.push(format!("{} ends {key:?}, which is there still", record.seq));
                }
            }
        }
        last.extend(carried);
        if let (Some(facts), true) = (facts, *op != Told::Delete) {
            last.insert((root.clone(), path.clone()), facts.clone());
        }
    }
    for root in 0..ROOTS {
        for (path, facts) in world.walk(root).iter().filter(|(path, _)| !path.is_root()) {
            let content = |facts: &Facts| (facts.kind, facts.inode, facts.size, facts.mtime_ns);
            match last.get(&(root_name(root), path.clone())) {
                // Another name of it may have been written to.
                Some(told) if facts.nlink > 1 && told.inode == facts.inode => {}
                Some(told) if content(told) == content(facts) => {}
                Some(told) => strays.push(format!("the last record of t{root}/{path:?} says {}", row(told))),
                None => strays.push(format!("no record of t{root}/{path:?}")),
            }
        }
    }
}

/// Nobody writes any more: every file's version is complete, and that is journaled.
fn all_settled(service: &Service, strays: &mut Vec<String>) {
    for unsettled in service.sequencer.ledger.view().unsettled(Seq::ZERO, 100).unwrap() {
        strays.push(format!("{}/{:?} never settled", unsettled.root, unsettled.path));
    }
    debug_assert_eq!(service.sequencer.ledger.pending(), 0);
}

fn shown(record: &Record) -> String {
    match &record.body {
        Body::Change(change) => {
            let Change { op, root, path, old, facts, via, merged, subtree, exchange, .. } = change;
            let old = old.as_ref().map(|old| format!(" from {:?}/{:?}", old.root.as_ref().unwrap_or(root), old.path));
            let flags = [(*merged, " merged"), (*subtree, " subtree"), (*exchange, " exchange")];
            let flags: String = flags.iter().filter_map(|(set, word)| set.then_some(*word)).collect();
            let facts = facts.as_ref().map_or_else(|| "unread".to_owned(), row);
            format!("  {} {op:?} {root}/{path:?}{} {via:?}{flags}: {facts}", record.seq, old.unwrap_or_default())
        }
        Body::Settled(settled) => {
            format!("  {} Settled {}/{:?} {:?}", record.seq, settled.root, settled.path, settled.evidence)
        }
        other => format!("  {} {other:?}", record.seq),
    }
}
