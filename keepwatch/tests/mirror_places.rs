//! Where `keepwatch mirror` puts files, and which: prefixes, filters, what it says before it does anything.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::pair::walk;

/// A home directory with a tree of files, and a place for targets.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Home { dir: tempfile::tempdir().unwrap() };
        for path in ["1", "a/2", "a/b/3", "c/4"] {
            let file = home.source().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, path).unwrap();
        }
        fs::create_dir(home.target()).unwrap();
        home
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("home/u/mystuff")
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    /// State lies where it does without flags.
    fn mirror(&self, flags: &[String]) -> Output {
        let mut command = Command::new(support::program());
        command.arg("mirror").args(flags).arg("--once").arg(self.source()).arg(self.target());
        command.env_clear().env("HOME", self.dir.path()).env("XDG_STATE_HOME", self.dir.path().join("state"));
        if rustix::process::geteuid().is_root() {
            // Root's state is the system's, which a test leaves alone.
            command.env("KEEPWATCH_STATE_DIR", self.dir.path().join("state/keepwatch"));
        }
        command.output().unwrap()
    }

    fn fine(&self, flags: &[&str]) -> String {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let output = self.mirror(&flags);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{flags:?}: {text}");
        text
    }

    /// The regular files at the target.
    fn files(&self) -> BTreeSet<String> {
        let all = walk(&self.target());
        let files = all.keys().filter(|path| self.target().join(Path::new(path)).is_file());
        files.map(|path| path.to_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn prefixes_are_cut_and_put_in_front_as_text_and_recognised_at_the_next_start() {
    let home = Home::new();
    let base = home.dir.path().to_str().unwrap().to_owned();
    let inside = base.trim_start_matches('/').to_owned();
    let cases = [
        (vec![], format!("{inside}/home/u/mystuff/"), false),
        (vec![format!("--source-prefix={base}/home/")], "u/mystuff/".to_owned(), false),
        (vec![format!("--source-prefix={base}/home/u/mystuff/")], String::new(), false),
        (vec![format!("--source_prefix={base}/home/u/mystuff")], String::new(), true),
        (
            vec![format!("--source-prefix={base}/home/u/mystuff/"), "--target-prefix=/foo/bar/".to_owned()],
            "foo/bar/".to_owned(),
            false,
        ),
    ];
    for (flags, prefix, warns) in cases {
        let home = Home::new();
        let base_now = home.dir.path().to_str().unwrap();
        let flags: Vec<String> = flags.iter().map(|flag| flag.replace(&base, base_now)).collect();
        let prefix = prefix.replace(&inside, base_now.trim_start_matches('/'));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let told = home.fine(&flags);
        let expected: BTreeSet<String> = ["1", "a/2", "a/b/3", "c/4"].map(|file| format!("{prefix}{file}")).into();
        assert_eq!(home.files(), expected, "{flags:?}");
        assert_eq!(told.contains("leaves a `/` in front"), warns, "{told}");
        assert!(told.contains("4 copied"), "{told}");
        let again = home.fine(&flags);
        assert!(again.contains("0 copied") && !again.contains("removed"), "{again}");
        assert_eq!(home.files(), expected);
        // Another state directory finds them, too.
        fs::remove_dir_all(home.dir.path().join("state")).unwrap();
        fs::remove_file(home.target().join(".keepwatch-replica.json")).unwrap();
        let anew = home.fine(&flags);
        assert!(anew.contains("0 copied") && anew.contains("there already"), "{anew}");
    }
}

#[test]
fn another_prefix_leaves_what_is_there_and_copies_to_the_new_place() {
    let home = Home::new();
    let source = format!("--source-prefix={}/", home.source().display());
    home.fine(&[&source]);
    let told = home.fine(&[&source, "--target-prefix=new/"]);
    assert!(told.contains("4 copied"), "{told}");
    let files = home.files();
    assert!(files.contains("a/2") && files.contains("new/a/2"), "{files:?}");
    // What is foreign now is not deleted with its original.
    fs::remove_file(home.source().join("a/2")).unwrap();
    home.fine(&[&source, "--target-prefix=new/", "--delete-delay=0s"]);
    let files = home.files();
    assert!(files.contains("a/2") && !files.contains("new/a/2"), "{files:?}");
}

#[test]
fn filters_choose_and_what_they_leave_out_later_stays() {
    let home = Home::new();
    let base = home.source().display().to_string();
    let prefix = format!("--source-prefix={base}/");
    let only = format!("--source-filter={base}/a/.*");
    home.fine(&[&prefix, &only]);
    assert_eq!(home.files(), ["a/2", "a/b/3"].map(str::to_owned).into());
    let modes = |path: &str| fs::metadata(home.target().join(path)).unwrap().permissions();
    assert_eq!(
        modes("a/b"),
        fs::metadata(home.source().join("a/b")).unwrap().permissions(),
        "a directory made on the way"
    );
    // Without the filter the rest comes; with another one nothing goes.
    home.fine(&[&prefix]);
    assert_eq!(home.files().len(), 4);
    let told = home.fine(&[&prefix, "--exclude", "/a/", "--delete-delay=0s"]);
    assert!(!told.contains("removed"), "{told}");
    assert_eq!(home.files().len(), 4);
    fs::remove_dir_all(home.source().join("a")).unwrap();
    fs::write(home.source().join("c/5"), "5").unwrap();
    home.fine(&[&prefix, "--exclude", "/a/", "--delete-delay=0s"]);
    assert_eq!(home.files().len(), 5, "what left by configuration is not deleted with its original");
    let told = home.fine(&[&prefix, "--include=*.none"]);
    assert!(told.contains("0 copied"), "{told}");
}

#[test]
fn a_dry_run_says_what_would_be_copied_and_writes_nothing() {
    let home = Home::new();
    let prefix = format!("--source-prefix={}/", home.source().display());
    let told = home.fine(&[&prefix, "-n", "--exclude=c/"]);
    assert_eq!(told.matches("would copy").count(), 3, "{told}");
    let lines = home.fine(&[&prefix, "-n", "--json", "-q"]);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["to"], format!("{}/1", home.target().display()));
    assert_eq!(fs::read_dir(home.target()).unwrap().count(), 0);
    assert!(!home.dir.path().join("state").exists());
}

#[test]
fn wrong_flags_are_named_and_nothing_is_touched() {
    let home = Home::new();
    for (flag, words) in [
        ("--source-filter=(", "the regular expression `(`"),
        ("--filter=*.jpg", "a rule is"),
        ("--bwlimit=fast", "`fast` is no bandwidth"),
        ("--max-delete=many", "`many` is no share"),
        ("--delete-delay=5", "`5`"),
        ("--filter-from=/nowhere/rules", "/nowhere/rules"),
    ] {
        let output = home.mirror(&[flag.to_owned()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{flag}: {text}");
        assert!(text.contains(words), "{flag}: {text}");
    }
    assert_eq!(fs::read_dir(home.target()).unwrap().count(), 0);
}

#[test]
fn bandwidth_is_held() {
    let home = Home::new();
    fs::write(home.source().join("big"), vec![7; 1_500_000]).unwrap();
    let start = std::time::Instant::now();
    home.fine(&["--bwlimit=1M"]);
    assert!(start.elapsed() >= std::time::Duration::from_millis(1300), "{:?}", start.elapsed());
}
