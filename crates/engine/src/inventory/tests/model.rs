//! Random operations on a tree that is kept in memory, journaled as a kernel would tell them, held against the inventory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::kit::*;
use crate::inventory::{FileId, ListQuery};
use crate::model::{Body, Facts, Op};

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    inode: u64,
    is_dir: bool,
}

/// Paths by their text, and the objects that they lead to.
#[derive(Clone, Debug, Default)]
struct Model {
    names: BTreeMap<String, Node>,
    sizes: BTreeMap<u64, u64>,
    /// The record that first told of each inode.
    ids: BTreeMap<u64, i64>,
    next_inode: u64,
}

/// An operation; the numbers choose among what is there.
#[derive(Clone, Debug)]
enum Act {
    Make { dir: usize, name: usize },
    MakeDir { dir: usize, name: usize },
    Link { file: usize, dir: usize, name: usize },
    Write { file: usize },
    Rename { old: usize, dir: usize, name: usize },
    Remove { path: usize },
}

fn any_act() -> impl Strategy<Value = Act> {
    let (dir, name, pick) = (0_usize..50, 0_usize..5, 0_usize..50);
    prop_oneof![
        3 => (dir.clone(), name.clone()).prop_map(|(dir, name)| Act::Make { dir, name }),
        3 => (dir.clone(), name.clone()).prop_map(|(dir, name)| Act::MakeDir { dir, name }),
        2 => (pick.clone(), dir.clone(), name.clone()).prop_map(|(file, dir, name)| Act::Link { file, dir, name }),
        2 => pick.clone().prop_map(|file| Act::Write { file }),
        5 => (pick.clone(), dir, name).prop_map(|(old, dir, name)| Act::Rename { old, dir, name }),
        1 => pick.prop_map(|path| Act::Remove { path }),
    ]
}

impl Model {
    fn pick(&self, index: usize, wanted: impl Fn(&Node) -> bool) -> Option<String> {
        let fitting: Vec<&String> = self.names.iter().filter(|(_, node)| wanted(node)).map(|(path, _)| path).collect();
        (!fitting.is_empty()).then(|| fitting[index % fitting.len()].clone())
    }

    fn place(&self, dir: usize, name: usize) -> String {
        let mut dirs: Vec<&str> = vec![""];
        dirs.extend(self.names.iter().filter(|(_, node)| node.is_dir).map(|(path, _)| path.as_str()));
        let (dir, name) = (dirs[dir % dirs.len()], ["a", "b", "c", "a-", "a0"][name]);
        if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
    }

    fn facts(&self, node: Node) -> Facts {
        if node.is_dir {
            return dir(node.inode);
        }
        let nlink = self.names.values().filter(|other| other.inode == node.inode).count();
        linked(node.inode, self.sizes[&node.inode], u32::try_from(nlink).unwrap())
    }

    fn below(&self, path: &str) -> Vec<String> {
        let inside = |name: &&String| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        self.names.keys().filter(inside).cloned().collect()
    }

    fn remove(&mut self, path: &str) {
        for inside in self.below(path) {
            self.names.remove(&inside);
        }
        self.names.remove(path);
    }

    fn make(&mut self, path: &str, is_dir: bool, seq: i64) -> Option<Body> {
        if self.names.contains_key(path) {
            return None;
        }
        self.next_inode += 1;
        let node = Node { inode: self.next_inode, is_dir };
        self.names.insert(path.to_owned(), node);
        self.sizes.insert(node.inode, 1);
        self.ids.insert(node.inode, seq);
        Some(create(path, self.facts(node)))
    }

    /// Does it, and gives the record that tells of it; `None` where the kernel would refuse.
    fn act(&mut self, act: &Act, seq: i64) -> Option<Body> {
        match *act {
            Act::Make { dir, name } => self.make(&self.place(dir, name), false, seq),
            Act::MakeDir { dir, name } => self.make(&self.place(dir, name), true, seq),
            Act::Link { file, dir, name } => {
                let (file, path) = (self.pick(file, |node| !node.is_dir)?, self.place(dir, name));
                if self.names.contains_key(&path) {
                    return None;
                }
                let node = self.names[&file];
                self.names.insert(path.clone(), node);
                Some(create(&path, self.facts(node)))
            }
            Act::Write { file } => {
                let path = self.pick(file, |node| !node.is_dir)?;
                let node = self.names[&path];
                *self.sizes.get_mut(&node.inode)? += 1;
                Some(modify(&path, self.facts(node)))
            }
            Act::Rename { old, dir, name } => {
                let (old, path) = (self.pick(old, |_| true)?, self.place(dir, name));
                let node = self.names[&old];
                let into_itself =
                    path == old || path.starts_with(&format!("{old}/")) || old.starts_with(&format!("{path}/"));
                let victim = self.names.get(&path);
                if into_itself
                    || victim.is_some_and(|victim| victim.inode == node.inode || victim.is_dir != node.is_dir)
                {
                    return None;
                }
                let inside = self.below(&old);
                self.remove(&path);
                for inner in inside {
                    let node = self.names.remove(&inner)?;
                    self.names.insert(format!("{path}{}", &inner[old.len()..]), node);
                }
                self.names.remove(&old);
                self.names.insert(path.clone(), node);
                Some(rename(&old, &path, Some(self.facts(node))))
            }
            Act::Remove { path } => {
                let path = self.pick(path, |_| true)?;
                self.remove(&path);
                Some(change(Op::Delete, &path, None))
            }
        }
    }

    /// Every name with its object, inode and size, in path order.
    fn snapshot(&self) -> Vec<(String, FileId, u64, u64)> {
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_by_key(|(path, _)| path.split('/').map(str::to_owned).collect::<Vec<_>>());
        let size = |node: &Node| if node.is_dir { 0 } else { self.sizes[&node.inode] };
        names
            .iter()
            .map(|(path, node)| ((*path).clone(), FileId(self.ids[&node.inode]), node.inode, size(node)))
            .collect()
    }
}

fn snapshot(kit: &Kit, query: &ListQuery) -> Vec<(String, FileId, u64, u64)> {
    let brief = |name: crate::inventory::Listed| {
        let facts = name.facts.unwrap();
        (String::from_utf8(name.path.as_bytes().to_vec()).unwrap(), name.file_id, facts.inode, facts.size)
    };
    listed(&kit.view(), query).into_iter().map(brief).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_inventory_is_the_tree_now_and_at_every_record(acts in prop::collection::vec(any_act(), 1..80)) {
        let (mut model, mut records, mut snapshots) = (Model::default(), vec![record(1, config("r"), None)], vec![vec![]]);
        for act in acts {
            let seq = records.len() as u64 + 1;
            if let Some(body) = model.act(&act, i64::try_from(seq).unwrap()) {
                records.push(record(seq, body, None));
                snapshots.push(model.snapshot());
            }
        }
        let mut kit = Kit::new();
        kit.apply_records(&records);
        check(&kit.view().db);
        prop_assert_eq!(kit.view().problems().unwrap(), vec![]);
        prop_assert_eq!(snapshot(&kit, &ListQuery::default()), model.snapshot());
        for (record, then) in records.iter().zip(snapshots) {
            let query = ListQuery { at: Some(record.at), ..ListQuery::default() };
            prop_assert_eq!(snapshot(&kit, &query), then, "at {}", record.seq);
        }
    }
}
