//! What the README and the manual show is what happens: their commands are run as a new user would.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{program, wait_for};

const README: &str = include_str!("../../README.md");
const MANUAL: &str = include_str!("../../docs/operations.md");

/// The lines of the terminal that shows this command, from it to the next command or the block's end.
fn shown(command: &str) -> Vec<&'static str> {
    let mut lines = README.lines().skip_while(|line| *line != format!("$ keepwatch {command}"));
    assert!(lines.next().is_some(), "the README does not show `keepwatch {command}`");
    lines.take_while(|line| !line.starts_with("$ ") && !line.starts_with("```")).collect()
}

/// What was done to what: time, process and size differ from run to run, and so does how much the kernel folds.
fn deeds<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let deed = |line: &'a str| {
        let mut columns = line.split("  ").filter(|column| !column.is_empty());
        Some(format!("{} {}", columns.nth(1)?.trim(), columns.next()?.trim()))
    };
    lines
        .into_iter()
        .filter_map(deed)
        .filter(|deed| !deed.starts_with("modify records:inbox") && deed != "modify records:")
        .collect()
}

/// A service or a watcher that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn keepwatch(dir: &Path, args: &str) -> Command {
    let mut command = Command::new(program());
    command.args(args.split(' ')).current_dir(dir).stdin(Stdio::null());
    command.env_clear().env("HOME", dir.join("home")).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command
}

fn output(dir: &Path, args: &str) -> String {
    let output = keepwatch(dir, args).output().unwrap();
    assert!(output.status.success(), "keepwatch {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_first_minute_is_as_the_readme_shows_it() {
    let base = tempfile::tempdir().unwrap();
    let (dir, records) = (base.path(), base.path().join("records"));
    fs::create_dir_all(records.join("inbox")).unwrap();
    let (out, err) = (dir.join("out"), dir.join("err"));
    let mut watch = keepwatch(dir, "watch records");
    watch.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let _watch = Running(watch.spawn().unwrap());
    wait_for("it watches", || fs::read_to_string(&err).unwrap().contains("end with Ctrl-C"));
    let seen = || fs::read_to_string(&out).unwrap();

    fs::write(records.join("inbox/a.csv"), "a,b\n").unwrap();
    wait_for("the file is finished", || seen().contains("settled"));
    fs::rename(records.join("inbox/a.csv"), records.join("inbox/b.csv")).unwrap();
    fs::create_dir(records.join("2026")).unwrap();
    wait_for("the directory is told", || seen().contains("records:2026"));
    fs::remove_file(records.join("inbox/b.csv")).unwrap();
    wait_for("the removal is told", || seen().contains("delete"));
    let lines = shown("watch records");
    assert_eq!(deeds(seen().lines()), deeds(lines.into_iter().skip(1)));
}

#[test]
fn the_service_answers_as_the_readme_shows_it() {
    let base = tempfile::tempdir().unwrap();
    let (dir, records) = (base.path(), base.path().join("records"));
    for below in ["inbox", "2026"] {
        fs::create_dir_all(records.join(below)).unwrap();
    }
    shown("run --root /srv/records --state-dir state");
    let mut run = keepwatch(dir, "run --root records --state-dir state");
    let _run = Running(run.stderr(Stdio::null()).spawn().unwrap());
    let is_ready = || keepwatch(dir, "status --state-dir state").output().unwrap().stdout;
    wait_for("it watches", || String::from_utf8(is_ready()).unwrap().contains("watching by"));

    let log = || output(dir, "log records/inbox/a.csv --state-dir state");
    fs::write(records.join("inbox/a.csv"), "1\n").unwrap();
    wait_for("the file is finished", || {
        keepwatch(dir, "log --do settled --state-dir state").output().unwrap().stdout.len() > 1
    });
    let moment = jiff::Timestamp::now().to_string();
    fs::rename(records.join("inbox/a.csv"), records.join("2026/a.csv")).unwrap();
    wait_for("the move is told", || log().contains("move"));
    fs::write(records.join("2026/a.csv"), "1\n2\n").unwrap();
    wait_for("the second version is finished", || log().matches("settled").count() == 2);
    let told = log();
    let wanted = deeds(shown("log records/inbox/a.csv --state-dir state"));
    let mut told = deeds(told.lines());
    told.dedup();
    assert_eq!(told, wanted);

    shown("ls --at 2026-11-21T00:20:28Z --state-dir state");
    let then = output(dir, &format!("ls --at {moment} --state-dir state"));
    let names: Vec<&str> = then.lines().filter_map(|line| line.split('/').next_back()).collect();
    assert_eq!(names, ["2026", "inbox", "a.csv"], "{then}");
    for (command, words) in [("status", "inventory at "), ("journal verify", "the chain is sound: ")] {
        let command = format!("{command} --state-dir state");
        assert!(shown(&command).iter().any(|line| line.contains(words)), "{command}");
        assert!(output(dir, &command).contains(words), "{command}");
    }
}

#[test]
fn a_bad_configuration_is_refused_as_the_readme_shows_it() {
    let base = tempfile::tempdir().unwrap();
    let text = "hots = \"a\"\n[roots.r]\npath = \"srv\"\npoll = \"10\"\n[server]\nlisten = \"127.0.0.1:80\"\n";
    fs::write(base.path().join("bad.toml"), text).unwrap();
    let output = keepwatch(base.path(), "config check -c bad.toml").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap().replace(base.path().to_str().unwrap(), "/etc/keepwatch");
    assert_eq!(said.lines().collect::<Vec<_>>(), shown("config check -c bad.toml"));
}

#[test]
fn every_command_that_is_named_exists() {
    let base = tempfile::tempdir().unwrap();
    let mut named = 0;
    for text in [README, MANUAL] {
        for (at, word) in text.match_indices("keepwatch ") {
            let before = text[..at].chars().next_back();
            let rest = &text[at + word.len()..];
            let words: Vec<&str> = rest
                .split([' ', '`', '\n', '"', '|', ')'])
                .take_while(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase()))
                .take(2)
                .collect();
            // In prose and in paths it is no command.
            if !matches!(before, Some('`' | '$' | ' ' | '\n' | '(')) || words.is_empty() || !is_command_line(text, at) {
                continue;
            }
            let takes_word = ["journal", "config", "root"].contains(&words[0]);
            let args = format!("{} --help", words[..if takes_word { words.len() } else { 1 }].join(" "));
            output(base.path(), &args);
            named += 1;
        }
    }
    assert!(named > 20, "only {named} commands were found");
}

/// Whether the word at this place begins a command: in a code span, at a prompt, or in a block of commands.
fn is_command_line(text: &str, at: usize) -> bool {
    let line = &text[text[..at].rfind('\n').map_or(0, |end| end + 1)..at];
    line.ends_with('`') || line.ends_with("$ ") || line.ends_with("sudo ") || line.is_empty()
}
