//! `keepwatch mirror` and `keepwatch replica add` to plug-ins: the one of the documentation, as a user starts it, and others that
//! can less, die, hang or talk rubbish.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::kept::{Kept, said, walk};
use support::{Dice, shake, sized, wait_for};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/plugin.py");

/// The example as it stands.
fn example() -> Kept {
    Kept::new(&format!("exec:{EXAMPLE} {{}}"))
}

/// The example after a change of its text.
fn changed(changes: &[(&str, &str)]) -> Kept {
    let mut text = fs::read_to_string(EXAMPLE).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let mut kept = Kept::new("");
    let program = kept.dir.path().join("plugin.py");
    fs::write(&program, text).unwrap();
    kept.url = format!("exec:python3 {} {{}}", program.display());
    kept
}

#[test]
fn the_example_of_the_documentation_follows_churn_through_deaths() {
    let mut kept = example();
    kept.plant(sized(400, 10_000));
    kept.start(&[]);
    kept.wait_same();
    let mut dice = Dice::new(23);
    for round in 0..sized(3, 9) {
        shake(&kept.source(), &mut dice, sized(80, 2_000));
        match round % 3 {
            0 => {
                let all = kept.children();
                assert!(!all.is_empty());
                Command::new("kill").arg("-9").args(all).status().unwrap();
            }
            1 => {
                kept.wait_same();
                kept.kill_amid(round);
                kept.start(&[]);
            }
            _ => {}
        }
        kept.wait_same();
    }
    kept.stop();
    let waiting = fs::read_dir(kept.dir.path().join("state/spool")).unwrap().flatten();
    assert_eq!(
        waiting.flat_map(|dir| fs::read_dir(dir.path()).unwrap()).count(),
        1,
        "nothing is left on the way but the lock"
    );
    assert!(kept.once_fine().contains("0 copied"));
}

#[test]
fn a_tree_is_known_again_and_moves_send_nothing() {
    let mut kept = example();
    kept.plant(100);
    kept.once_fine();
    kept.assert_same();
    let proved =
        journal(&kept).lines().filter(|line| line.contains("\"copied\"") && line.contains("\"proved\"")).count();
    assert_eq!(proved, 111, "it tells the hash of what it stored");
    fs::remove_dir_all(kept.dir.path().join("state")).unwrap();
    fs::remove_file(kept.kept().join(".keepwatch-replica.json")).unwrap();
    let said = kept.once_fine();
    assert!(said.contains("0 copied") && said.contains("there already"), "{said}");
    let inodes = || walk_inodes(&kept.kept());
    let before = inodes();
    fs::rename(kept.source().join("d1"), kept.source().join("e1")).unwrap();
    fs::rename(kept.source().join("large"), kept.source().join("e1/larger")).unwrap();
    kept.once_fine();
    kept.assert_same();
    assert_eq!(inodes(), before, "the same files under other names");
    kept.start(&[]);
    fs::write(kept.source().join("e1/larger"), "now short").unwrap();
    kept.wait_same();
    let trash: Vec<_> = walk(&kept.kept().join(".keepwatch-trash")).into_keys().collect();
    assert!(trash.iter().any(|path| path.ends_with(b"e1/larger")), "the old version is kept: {trash:?}");
}

fn walk_inodes(top: &Path) -> std::collections::BTreeSet<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let all = walk(top).into_keys().map(|path| top.join(std::str::from_utf8(&path).unwrap_or("link")));
    all.filter_map(|path| path.symlink_metadata().ok()).map(|meta| meta.ino()).collect()
}

fn journal(kept: &Kept) -> String {
    let output = kept.program().args(["journal", "cat", "--state-dir"]).arg(kept.dir.path().join("state")).output();
    String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
}

#[test]
fn the_least_of_plug_ins_is_enough_where_nothing_has_to_be_kept() {
    let least = [
        ("\"read\", \"delete\", \"rename\", \"symlinks\"", "\"delete\", \"symlinks\""),
        (", \"checks\": \"sha256\"", ""),
    ];
    let mut kept = changed(&least);
    kept.plant(60);
    let (code, said) = kept.once(&[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("neither rename nor read") && said.contains("on_delete"), "{said}");
    kept.start(&["--on-delete=delete"]);
    kept.wait_same();
    fs::rename(kept.source().join("d1"), kept.source().join("e1")).unwrap();
    fs::rename(kept.source().join("large"), kept.source().join("e1/larger")).unwrap();
    fs::hard_link(kept.source().join("empty"), kept.source().join("also empty")).unwrap();
    fs::write(kept.source().join("-rf"), "another").unwrap();
    fs::remove_dir_all(kept.source().join("d2")).unwrap();
    kept.wait_same();
    let mut dice = Dice::new(3);
    shake(&kept.source(), &mut dice, 100);
    kept.wait_same();
    kept.stop();
    let journal = journal(&kept);
    let is_copy = |line: &&str| line.contains("\"copied\"") && line.contains("\"type\":\"file\"");
    let copies: Vec<_> = journal.lines().filter(is_copy).collect();
    assert!(copies.len() > 60);
    let others: Vec<_> = copies.iter().filter(|line| !line.contains("\"presumed\"")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn slashes_in_front_are_passed_on_as_they_are() {
    let log = "open(sys.argv[1] + '/../told', 'ab').write(name(m) + b'\\n')\n        os.makedirs(os.path.dirname(new)";
    let kept = changed(&[("os.makedirs(os.path.dirname(new)", log)]);
    fs::create_dir(kept.source().join("a")).unwrap();
    fs::write(kept.source().join("a/2"), "2").unwrap();
    let source = kept.source().display().to_string();
    for (flags, place) in [
        (vec![], format!("{source}/a/2")),
        (vec![format!("--source-prefix={source}/")], "a/2".to_owned()),
        (vec![format!("--source-prefix={source}")], "/a/2".to_owned()),
        (vec![format!("--source-prefix={source}/"), "--target-prefix=/foo/bar/".to_owned()], "/foo/bar/a/2".to_owned()),
    ] {
        let mut kept =
            Kept { dir: tempfile::tempdir().unwrap(), url: kept.url.clone(), flags, env: vec![], child: None };
        fs::create_dir(kept.kept()).unwrap();
        let run = |kept: &Kept| {
            let mut command = kept.program();
            command.arg("mirror").args(&kept.flags).arg("--once").arg(&source);
            command.arg(kept.url.replace("{}", &kept.kept().display().to_string()));
            let output = command.arg("--state-dir").arg(kept.dir.path().join("state")).output().unwrap();
            assert!(output.status.success(), "{}", said(&output));
            said(&output)
        };
        let first = run(&kept);
        assert!(first.contains(place.trim_end_matches("/2")), "the first mapping shows it: {first}");
        let told = fs::read_to_string(kept.dir.path().join("told")).unwrap();
        assert_eq!(told.lines().collect::<Vec<_>>(), [".keepwatch-replica.json", &place]);
        assert!(run(&kept).contains("0 copied"));
        fs::remove_dir_all(kept.dir.path().join("state")).unwrap();
        fs::remove_file(kept.kept().join(".keepwatch-replica.json")).unwrap();
        let again = run(&kept);
        assert!(again.contains("0 copied") && again.contains("there already"), "{place}: {again}");
        kept.flags.clear();
    }
}

#[test]
fn what_is_wrong_is_named_and_tried_again() {
    let kept = example();
    kept.plant(5);
    let refused = |url: &str, code: i32, words: &[&str]| {
        let mut command = kept.program();
        command.args(["mirror", "--once", "--timeout=1s"]).arg(kept.source()).arg(url);
        let output = command.arg("--state-dir").arg(kept.dir.path().join("state")).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{url}: {}", said(&output));
        for word in words {
            assert!(said(&output).contains(word), "{url}: `{word}` is not in: {}", said(&output));
        }
    };
    refused("exec:", 2, &["names no place", "exec:PROGRAM"]);
    refused("exec:prog 'x", 2, &["every quote closed"]);
    refused("exec:/no/such/plug-in", 4, &["does not run", "executable"]);
    refused("exec:sh -c 'echo no disk >&2; exit 5'", 4, &["status 5: no disk"]);
    refused("exec:echo hello", 4, &["rubbish"]);
    refused("exec:sleep 60", 4, &["said nothing for 1 s"]);
    assert_eq!(fs::read_dir(kept.kept()).unwrap().count(), 0);
    // A service goes on trying, and nothing is lost.
    let once = "if m[\"path\"].endswith(\"f3\") and not os.path.exists(sys.argv[1] + \"/../healed\"):\n            print(\"what?\")\n        os.makedirs(os.path.dirname(new)";
    let mut kept = changed(&[("os.makedirs(os.path.dirname(new)", once)]);
    kept.plant(5);
    kept.start(&[]);
    wait_for("the trouble is told", || kept.log().contains("rubbish") || !kept.log().is_empty());
    fs::write(kept.dir.path().join("healed"), "").unwrap();
    kept.wait_same();
}

#[test]
fn a_replica_of_the_service_is_kept_by_a_plug_in() {
    let dir = tempfile::tempdir().unwrap();
    let (root, kept) = (dir.path().join("root"), dir.path().join("kept"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&kept).unwrap();
    fs::write(root.join("one"), "1").unwrap();
    let toml = format!("[roots.r]\npath = \"{}\"\n", root.display());
    let mut keepwatch = support::Keepwatch::configured(&dir.path().join("state"), &toml);
    let wrong = keepwatch.ask(&["replica", "add", "plug", "exec:./plugin.py"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    keepwatch.start_and_settle();
    keepwatch.ok(&["replica", "add", "plug", &format!("exec:{EXAMPLE} '{}'", kept.display())]);
    let copy = |name: &str| walk(&kept).into_iter().any(|(path, _)| path.ends_with(name.as_bytes()));
    wait_for("the copy", || copy("root/one"));
    fs::write(root.join("two"), "2").unwrap();
    wait_for("the second copy", || copy("root/two"));
    let shown = String::from_utf8(keepwatch.ok(&["replica", "list"])).unwrap();
    assert!(shown.contains("following"), "{shown}");
    keepwatch.stop();
}
