//! What a visitor may rely on: a directory's calls come in order, and before those of its sub-directories.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use keepwatch_journal::RelPath;

use super::{Recorder, Told, number, with_threads};
use crate::scan::{OpenDir, Options, Step, Summary};

/// Three levels of seven sub-directories, and in each directory five files.
fn bushy(dir: &Path, levels: usize) -> u64 {
    for file in 0..5 {
        File::create(dir.join(format!("file {file}"))).unwrap();
    }
    if levels == 0 {
        return 1;
    }
    let mut dirs = 1;
    for sub in 0..7 {
        let sub = dir.join(format!("sub {sub}"));
        fs::create_dir(&sub).unwrap();
        dirs += bushy(&sub, levels - 1);
    }
    dirs
}

/// Where the calls for each directory stand in what was told: enter, first and last entries, leave.
fn places(told: &[Told]) -> HashMap<Vec<u8>, Vec<(usize, &Told)>> {
    let mut places: HashMap<Vec<u8>, Vec<_>> = HashMap::new();
    for (place, told) in told.iter().enumerate() {
        places.entry(told.dir().to_vec()).or_default().push((place, told));
    }
    places
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |slash| &path[..slash])
}

#[test]
fn a_parent_is_heard_of_in_full_before_any_of_its_sub_directories() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = bushy(dir.path(), 3);
    for (threads, chunk_max) in [(1, 100), (4, 100), (4, 1), (8, 3)] {
        let recorder = Recorder::default();
        let options = Options { chunk_max: number(chunk_max), ..with_threads(threads) };
        let summary = recorder.walk(dir.path(), &options);
        assert_eq!(summary, Summary { directories: dirs, entries: dirs * 6 - 1, ..Summary::default() });
        let told = recorder.told();
        let places = places(&told);
        assert_eq!(places.len() as u64, dirs);
        for (path, calls) in &places {
            let [enter, entries @ .., leave] = &calls[..] else { panic!("{calls:?}") };
            assert!(matches!(enter.1, Told::Enter(_)));
            assert!(!entries.is_empty());
            assert!(entries.iter().all(|(_, told)| matches!(told, Told::Entries { .. })));
            assert_eq!(leave.1, &Told::Leave(path.clone(), "Complete".to_owned()));
            if !path.is_empty() {
                let (left, _) = places[parent(path)].last().unwrap();
                assert!(*left < enter.0, "a sub-directory was entered before its parent was left");
            }
        }
    }
}

#[test]
fn a_chunk_is_whole_exactly_when_it_holds_all_and_is_sorted_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<_> =
        (0..300).map(|n: u32| format!("same start {:x}", n.wrapping_mul(2_654_435_761)).into_bytes()).collect();
    expected.push(b"same start".to_vec());
    for name in &expected {
        File::create(dir.path().join(super::os(name))).unwrap();
    }
    expected.sort();
    for (chunk_max, chunks) in [(1000, 1), (301, 1), (300, 2), (7, 43)] {
        let recorder = Recorder::default();
        recorder.walk(dir.path(), &Options { chunk_max: number(chunk_max), ..with_threads(2) });
        let mut all = Vec::new();
        let mut count = 0;
        for told in recorder.told() {
            if let Told::Entries { names, whole, .. } = told {
                assert_eq!(whole, chunks == 1);
                assert!(names.len() <= chunk_max);
                all.extend(names.into_iter().map(|(name, _)| name));
                count += 1;
            }
        }
        assert_eq!(count, chunks);
        if chunks > 1 {
            all.sort();
        }
        assert_eq!(all, expected);
    }
}

#[test]
fn a_walk_may_start_below_the_root_and_skip_what_it_enters() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("one/two/three/four")).unwrap();
    let on_enter = |dir: &OpenDir<'_>| if dir.depth == 1 { Step::Skip } else { Step::Read };
    let recorder =
        Recorder { start: RelPath::new("one/two").unwrap(), on_enter: Box::new(on_enter), ..Recorder::default() };
    let summary = recorder.walk(dir.path(), &with_threads(2));
    assert_eq!(summary, Summary { directories: 1, entries: 1, ..Summary::default() });
    let told = recorder.told();
    let last = [Told::Leave(b"one/two".to_vec(), "Complete".to_owned()), Told::Enter(b"one/two/three".to_vec())];
    assert_eq!(told[0], Told::Enter(b"one/two".to_vec()));
    assert_eq!(told[2..], last, "a directory that is skipped is not left");
}
