//! The command line from outside: help, refusals and exit codes, in a world without a home, a configuration or variables.

use std::path::Path;
use std::process::{Command, Output, Stdio};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = World { dir: tempfile::tempdir().expect("a temporary directory") };
        world.write("none.toml", "");
        world
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("a file in the temporary directory");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keepwatch"));
        command.args(args).current_dir(self.path()).env_clear().env("HOME", self.path()).env("TZ", "UTC");
        // An empty configuration, so that one that is installed on this machine is not read.
        command.env("KEEPWATCH_CONFIG", "none.toml").stdin(Stdio::null());
        command
    }

    /// Exit code, stdout and stderr, with the temporary directory called `WORLD`.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&self.path().display().to_string(), "WORLD");
        (status.code().expect("it ended by itself"), text(&stdout), text(&stderr))
    }
}

/// The heading of the flags that all commands take.
const COMMON_OPTIONS: &str = "Options of every command:";

#[test]
fn help_is_kept_true() {
    let world = World::new();
    let mut all = String::new();
    let commands = "|run|watch|status|log|ls|reconcile|replay|journal|journal verify|journal head|journal cat|init|config|\
        config show|root|root accept";
    for words in commands.split('|') {
        let args: Vec<&str> = words.split_whitespace().chain(["-h"]).collect();
        let (code, stdout, stderr) = world.run(&args);
        assert_eq!((code, stderr.as_str()), (0, ""));
        // What every command has is shown once.
        let paragraphs = stdout.split("\n\n").filter(|text| words.is_empty() || !text.starts_with(COMMON_OPTIONS));
        let own: Vec<&str> = paragraphs.map(str::trim_end).collect();
        all.push_str(&format!("$ keepwatch {}\n{}\n\n", args.join(" "), own.join("\n\n")));
    }
    insta::assert_snapshot!("help", all);
}

#[test]
fn refusals_say_what_and_what_to_do() {
    let world = World::new();
    world.write(
        "bad.toml",
        "hots = \"a\"\n[roots.r]\npath = \"srv\"\npoll = \"10\"\n[server]\nlisten = \"127.0.0.1:80\"\n",
    );
    world.write("good.toml", "[roots.records]\npath = \"/srv/records\"\n");
    let mut all = String::new();
    for args in [
        vec![],
        vec!["watsh"],
        vec!["config", "check", "-c", "bad.toml"],
        vec!["config", "check", "-c", "missing.toml"],
        vec!["config", "show", "--root", "a", "--root", "a/b"],
        vec!["root", "accept", "recodrs", "-c", "good.toml"],
        vec!["root", "list", "--quiet", "--verbose"],
    ] {
        let (code, stdout, stderr) = world.run(&args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}");
        all.push_str(&format!("$ keepwatch {}\n{stderr}\n", args.join(" ")));
    }
    insta::assert_snapshot!("refusals", all);
}

#[test]
fn every_exit_code_is_the_promised_one() {
    let world = World::new();
    world
        .write("here.toml", &format!("state_dir = \"{0}/state\"\n[roots.r]\npath = \"{0}\"\n", world.path().display()));
    world.write(
        "gone.toml",
        &format!("state_dir = \"{0}/state\"\n[roots.r]\npath = \"{0}/gone\"\n", world.path().display()),
    );
    world.write("file", "");
    let code = |args: &[&str]| world.run(args).0;
    assert_eq!(code(&["--version"]), 0);
    assert_eq!(code(&["config", "check", "-c", "here.toml"]), 0);
    assert_eq!(code(&["config", "check", "-c", "gone.toml"]), 1);
    assert_eq!(code(&["config", "--no-such-flag"]), 2);
    assert_eq!(code(&["init", "-c", "new.toml", "--state-dir", "file/state"]), 3);
    assert_eq!(code(&["root", "accept", "r", "-c", "here.toml"]), 4);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let world = World::new();
    let mut child = world
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

#[test]
fn a_full_disk_is_not_taken_for_a_closed_pipe() {
    let world = World::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full is there");
    let output = world.command(&["config", "show"]).stdout(full).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
}

#[test]
fn underscores_do_as_well_in_long_flags() {
    let world = World::new();
    let (code, stdout, _) = world.run(&["config", "show", "--state_dir=/a_b"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("state_dir = \"/a_b\""), "{stdout}");
}

#[test]
fn init_writes_what_run_needs_and_touches_nothing_that_is_there() {
    let world = World::new();
    let args = ["init", "-c", "etc/keepwatch.toml", "--state-dir", "state"];
    let (code, stdout, _) = world.run(&[&args[..], &["-n"]].concat());
    assert_eq!((code, stdout.contains("would be written: WORLD/etc/keepwatch.toml")), (0, true), "{stdout}");
    assert!(!world.path().join("etc").exists() && !world.path().join("state").exists());

    assert_eq!(world.run(&args).0, 0);
    assert!(world.path().join("state").is_dir());
    assert_eq!(world.run(&["config", "show", "-c", "etc/keepwatch.toml"]).0, 0);

    world.write("etc/keepwatch.toml", "host = \"mine\"\n");
    let (code, stdout, _) = world.run(&args);
    assert_eq!((code, stdout.contains("is there already")), (0, true), "{stdout}");
    assert_eq!(std::fs::read(world.path().join("etc/keepwatch.toml")).expect("it is there"), b"host = \"mine\"\n");
}

#[test]
fn roots_are_listed_even_when_nothing_runs() {
    let world = World::new();
    world.write("a.toml", "state_dir = \"/nowhere/state\"\n[roots.records]\npath = \"/srv/rec\\u001bords\"\n");
    let (code, stdout, _) = world.run(&["root", "list", "-c", "a.toml"]);
    assert_eq!((code, stdout.as_str()), (0, "records  not running  /srv/rec\\x1bords\n"));
    let (_, json, _) = world.run(&["root", "list", "-c", "a.toml", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&json).expect("a line of JSON");
    assert_eq!((line["name"].as_str(), line["state"].is_null()), (Some("records"), true));
}

#[test]
fn pages_and_completions_cover_every_command() {
    let world = World::new();
    assert_eq!(world.run(&["man", "--dir", "."]).0, 0);
    for page in ["keepwatch.1", "keepwatch-init.1", "keepwatch-root-accept.1"] {
        assert!(world.path().join(page).exists(), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = world.run(&["completions", shell]);
        assert_eq!((code, script.contains("accept")), (0, true), "{shell}");
    }
}

/// Every key of the settings stands in the table of `docs/operations.md`, with its default.
#[test]
fn the_manual_names_every_setting() {
    let world = World::new();
    let (_, shown, _) = world.run(&["config", "show", "--root", "r", "--json"]);
    let entries: Vec<serde_json::Value> = serde_json::from_str(&shown).expect("a JSON array");
    let manual =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).expect("the manual");
    assert!(entries.len() > 12, "{shown}");
    for entry in entries {
        let key = entry["key"].as_str().expect("a key");
        let key = if entry["section"] == "journal" { format!("journal.{key}") } else { key.to_owned() };
        let row = manual.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("`{key}` has no row in docs/operations.md"));
        let default = entry["value"].to_string();
        assert!(
            ["state_dir", "path"].contains(&key.as_str()) || row.contains(&format!("| `{default}` |")),
            "{row}: {default}"
        );
    }
}
