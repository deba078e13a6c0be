//! The rules that hold the house together, for all crates: which module may use which, where `unsafe` and printing may
//! stand, what may depend on what. They are read from the sources, as text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each module of the engine, and the modules that it may use.
const ENGINE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &[]),
    ("beneath", &["model"]),
    ("processes", &[]),
    ("watch", &["clock", "model", "processes"]),
    ("scan", &["beneath", "clock", "model"]),
    ("apply", &["model"]),
    ("inventory", &["apply", "clock", "model"]),
    ("index", &["apply", "clock", "model"]),
    ("target", &["beneath", "clock", "model"]),
    ("fixity", &["beneath", "model", "target"]),
    ("sync", &["beneath", "clock", "model", "target"]),
    ("trigger", &["beneath", "model", "processes"]),
    (
        "daemon",
        &[
            "beneath",
            "clock",
            "fixity",
            "index",
            "inventory",
            "model",
            "processes",
            "scan",
            "sync",
            "target",
            "trigger",
            "watch",
        ],
    ),
];

/// Siblings that do the same in different ways, and never use one another.
const STRANGERS: &[(&str, &[&str])] = &[
    ("crates/engine/src/watch", &["fanotify", "inotify", "poll"]),
    ("crates/engine/src/target", &["cloud", "exec", "http", "local", "memory", "rclone", "s3", "ssh", "throttle"]),
    (
        "keepwatch/src/cli",
        &[
            "completions",
            "config",
            "hold",
            "init",
            "journal",
            "log",
            "ls",
            "man",
            "mirror",
            "pack",
            "on",
            "receive",
            "reconcile",
            "release",
            "replay",
            "replica",
            "restore",
            "root",
            "run",
            "status",
            "trigger",
            "wait",
            "verify",
            "watch",
        ],
    ),
];

/// What decides without touching the world: given values, it returns values.
const NO_IO: &[&str] = &[
    "crates/engine/src/model/",
    "crates/engine/src/apply/",
    "crates/engine/src/daemon/sequencer/",
    "crates/engine/src/fixity/manifest.rs",
    "crates/engine/src/fixity/verdict.rs",
    "crates/engine/src/sync/guards.rs",
    "crates/engine/src/sync/layout.rs",
    "crates/engine/src/sync/origin.rs",
    "crates/engine/src/sync/plan.rs",
    "crates/engine/src/trigger/claim/token.rs",
    "crates/engine/src/trigger/rules.rs",
    "crates/engine/src/watch/rename.rs",
    "crates/engine/src/watch/settle.rs",
];

/// What the engine must never be built with: command lines, terminals, servers.
const NOT_IN_THE_ENGINE: &[&str] =
    &["anstream", "anyhow", "axum", "clap", "crossterm", "indicatif", "toml", "tracing-subscriber"];

const LINES_MAX: usize = 700;

/// A source file of the workspace.
struct Source {
    /// From the top of the repository.
    path: String,
    text: String,
    /// The text without comments, strings and, for files of the library itself, without its tests.
    code: String,
}

#[test]
fn modules_of_the_engine_use_only_what_they_may() {
    let mut seen = BTreeSet::new();
    for source in sources() {
        let Some(place) = source.path.strip_prefix("crates/engine/src/") else { continue };
        let module = place.split(['/', '.']).next().unwrap_or_default();
        if module == "lib" {
            continue;
        }
        seen.insert(module.to_owned());
        let allowed = ENGINE.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("the module `{module}` is not in the table"));
        for used in used_modules(&source.code, "crate") {
            assert!(used == module || allowed.contains(&used.as_str()), "{} may not use `{used}`", source.path);
        }
    }
    assert_eq!(seen, ENGINE.iter().map(|(name, _)| (*name).to_owned()).collect(), "the table is the modules there are");
}

#[test]
fn siblings_stay_strangers() {
    for source in sources() {
        for (dir, names) in STRANGERS {
            let Some(place) = source.path.strip_prefix(dir).and_then(|place| place.strip_prefix('/')) else { continue };
            let me = place.split(['/', '.']).next().unwrap_or_default();
            if !names.contains(&me) {
                continue;
            }
            let parent = dir.rsplit('/').next().unwrap_or_default();
            let by_path = used_modules(&source.code, &format!("crate::{parent}"));
            // In a file of a folder, `super` is the folder itself.
            let by_super = if place.contains('/') { "super::super" } else { "super" };
            for used in by_path.into_iter().chain(used_modules(&source.code, by_super)) {
                assert!(used == me || !names.contains(&used.as_str()), "{} may not use `{used}`", source.path);
            }
        }
    }
}

#[test]
fn what_decides_does_no_io() {
    let doors =
        ["std::fs", "std::net", "std::process", "std::os", "rustix", "libc", "rusqlite", "File::", "SystemTime::now"];
    for source in sources().iter().filter(|source| NO_IO.iter().any(|place| source.path.starts_with(place))) {
        for door in doors {
            assert!(!source.code.contains(door), "{} decides, it may not use `{door}`", source.path);
        }
    }
}

#[test]
fn the_network_is_spoken_to_in_few_places() {
    // Threads and channels do the work on disks; what waits for a server has a room of its own.
    for source in sources().iter().filter(|source| source.path.starts_with("crates/engine/src/")) {
        for door in ["tokio::", "tokio_postgres", "rustls", "async fn"] {
            let rooms = ["index/", "target/cloud/", "target/http/", "target/rclone/", "target/s3/", "target/web.rs"];
            let place = source.path.trim_start_matches("crates/engine/src/");
            let may = rooms.iter().any(|room| place.starts_with(room));
            assert!(may || !source.code.contains(door), "{} may not use `{door}`", source.path);
        }
    }
}

#[test]
fn unsafe_code_stands_in_one_place() {
    for source in sources().iter().filter(|source| !source.path.starts_with("crates/engine/src/watch/sys/")) {
        assert!(!has_word(&source.code, "unsafe"), "{} may not hold unsafe code", source.path);
    }
}

#[test]
fn libraries_neither_print_nor_read_the_environment() {
    let libraries = ["crates/journal/src/", "crates/engine/src/", "crates/pack/src/"];
    for source in sources().iter().filter(|source| libraries.iter().any(|place| source.path.starts_with(place))) {
        for door in [
            "println!",
            "print!",
            "eprintln!",
            "eprint!",
            "dbg!",
            "stdout()",
            "stderr()",
            "stdin()",
            "std::env",
            "env::var",
        ] {
            assert!(!source.code.contains(door), "{} may not use `{door}`", source.path);
        }
    }
}

#[test]
fn crates_depend_only_downwards() {
    let ours = |package: &str| -> BTreeSet<String> {
        dependencies(package).into_iter().filter(|name| name.starts_with("keepwatch") && name != package).collect()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(ours("keepwatch-journal"), set(&[]));
    assert_eq!(ours("keepwatch-pack"), set(&[]), "worker programs link it alone");
    assert_eq!(ours("keepwatch-engine"), set(&["keepwatch-journal"]));
    assert_eq!(
        ours("keepwatch"),
        set(&["keepwatch-engine", "keepwatch-journal", "keepwatch-pack"]),
        "what simulates is not shipped"
    );
    for forbidden in NOT_IN_THE_ENGINE {
        assert!(!dependencies("keepwatch-engine").contains(*forbidden), "the engine may not depend on {forbidden}");
    }
}

#[test]
fn files_hold_one_idea_and_no_loose_ends() {
    let loose = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!"), concat!("unimple", "mented!")];
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", source.path);
        for word in loose {
            assert!(!source.text.contains(word), "{} holds a `{word}`", source.path);
        }
        for name in source.path.split(['/', '.']) {
            assert!(
                !["utils", "util", "helpers", "common", "misc"].contains(&name),
                "{} says nothing by its name",
                source.path
            );
        }
    }
}

/// Nothing that is true on one machine only.
#[test]
fn no_file_names_somebodys_machine() {
    let homes = [concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    for path in files() {
        let Ok(text) = fs::read_to_string(top().join(&path)) else { continue };
        for home in homes {
            assert!(!text.contains(home), "{path} names {home}");
        }
        if path == "Cargo.lock" {
            let sources: BTreeSet<&str> = text.lines().filter(|line| line.starts_with("source = ")).collect();
            let registry = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
            assert_eq!(sources, BTreeSet::from([registry]), "packages come from crates.io");
        }
        if path.starts_with(".cargo/") {
            assert!(!text.contains("[source") && !text.contains("[registr"), "{path} replaces the registry");
        }
    }
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file of the repository that is not built or fetched, from its top.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(top().join(&dir)).expect("a directory of the repository").flatten() {
            let path = dir.join(entry.file_name());
            let text = path.to_str().expect("names in the repository are UTF-8");
            let kind = entry.file_type().expect("what it is");
            match text {
                ".git" | "target" | "tmp" => {}
                _ if kind.is_dir() => pending.push(path),
                _ => found.push(text.to_owned()),
            }
        }
    }
    assert!(found.len() > 100, "{found:?}");
    found
}

/// Every Rust file.
fn sources() -> Vec<Source> {
    let rust = files().into_iter().filter(|path| Path::new(path).extension().is_some_and(|ending| ending == "rs"));
    rust.map(|path| {
        let text = fs::read_to_string(top().join(&path)).expect("a source file");
        let mut code = without_comments(&text);
        let of_tests = ["/tests/", "/tests.rs", "/testing.rs", "/examples/"].iter().any(|part| path.contains(part));
        if of_tests && path.contains("/src/") {
            code.clear();
        }
        if let Some(tests) = code.find("#[cfg(test)]\n#[allow").or_else(|| code.find("#[cfg(test)]\nmod tests {")) {
            code.truncate(tests);
        }
        Source { path, text, code }
    })
    .collect()
}

/// The names of all packages that a package is built from.
fn dependencies(package: &str) -> BTreeSet<String> {
    let args = ["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none", "--package", package];
    let output = Command::new(env!("CARGO")).args(args).current_dir(top()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo speaks UTF-8");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The first names that follow `prefix::`, with those of `prefix::{a::…, b}`.
fn used_modules(code: &str, prefix: &str) -> Vec<String> {
    let flat: String = code.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ::", "::").replace(":: ", "::");
    let mut used = Vec::new();
    for (at, _) in flat.match_indices(&format!("{prefix}::")) {
        let preceded = flat[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        let rest = &flat[at + prefix.len() + 2..];
        if preceded {
            continue;
        }
        match rest.strip_prefix('{') {
            None => used.push(name_at(rest)),
            Some(list) => used.extend(heads(list)),
        }
    }
    used
}

/// The first name of each item of a list that has been opened.
fn heads(list: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut start) = (0, true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            ' ' => {}
            _ if start => {
                heads.push(name_at(&list[at..]));
                start = false;
            }
            _ => {}
        }
    }
    heads
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

/// The text with comments gone and strings empty.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let token = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            code.push_str("\"\"");
            string_end(rest)
        } else if let Some(end) = raw_string_end(rest) {
            code.push_str("\"\"");
            end
        } else if c == '\'' {
            // A character, or a lifetime.
            let character = rest[1..].starts_with('\\').then(|| rest[3..].find('\'').map(|end| end + 4)).flatten();
            let plain = rest[1..].chars().next().map(|c| 1 + c.len_utf8()).filter(|end| rest[*end..].starts_with('\''));
            let end = character.or(plain.map(|end| end + 1)).unwrap_or(1);
            code.push('\'');
            end
        } else {
            code.push(c);
            c.len_utf8()
        };
        rest = &rest[token..];
    }
    code
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_end(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?.bytes().take_while(|byte| *byte == b'#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&close).map_or(text.len(), |end| 2 + hashes + end + close.len()))
}

#[test]
fn the_scanner_sees_code_and_nothing_else() {
    let text = "use crate::a::{B, c}; // crate::no\nlet s = \"crate::no \\\" crate::no\"; /* crate::no */\n\
        use crate::{d::E, f, g::{h, i}}; fn k<'x>() { let q = '\"'; crate\n  ::l(); r#\"crate::no\"#; super::m; mycrate::no }";
    let code = without_comments(text);
    assert_eq!(used_modules(&code, "crate"), ["a", "d", "f", "g", "l"], "{code}");
    assert_eq!(used_modules(&code, "super"), ["m"]);
    assert!(has_word("an unsafe fn", "unsafe") && !has_word("unsafe_code", "unsafe"));
}
