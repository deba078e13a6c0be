//! `keepwatch pack` as people use it, and `[packs.NAME]` under the service.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::{Keepwatch, program, sh, wait_for};

/// Runs `keepwatch pack` on a base.
fn pack(base: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(program());
    command.arg("pack").args(args).arg("-d").arg(base).env_clear().env("HOME", base).env("TZ", "UTC");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn ok(base: &Path, args: &[&str], input: &[u8]) -> String {
    let output = pack(base, args, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_log_goes_in_by_a_pipe_and_comes_out_of_a_zip() {
    let base = tempfile::tempdir().unwrap();
    ok(base.path(), &["put", "logs.zip/run1/out.txt"], b"all is well\n");
    ok(base.path(), &["put", "logs.zip/run2/out.txt", "--deflate", "--mode", "600"], &b"again ".repeat(1000));
    fs::write(base.path().join("report"), "picked up\n").unwrap();
    let report = base.path().join("report").to_str().unwrap().to_owned();
    ok(base.path(), &["pickup", &report, "logs.zip/report"], b"");
    assert!(!base.path().join("report").exists());
    // While it is staged, and packed.
    for round in ["(staged)", ""] {
        assert_eq!(
            ok(base.path(), &["cat", "logs.zip/run1/out.txt", "logs.zip/report"], b""),
            "all is well\npicked up\n"
        );
        let listed = ok(base.path(), &["ls", "logs.zip"], b"");
        assert_eq!(listed.lines().filter(|line| line.contains("run") && line.contains(round)).count(), 2, "{listed}");
        ok(base.path(), &["status"], b"");
        ok(base.path(), &["scavenge"], b"");
    }
    let archive = base.path().join("logs.zip");
    assert_eq!(sh("unzip", &["-p", archive.to_str().unwrap(), "run1/out.txt"]), "all is well\n");
    assert!(fs::metadata(&archive).unwrap().len() < 2000);
    assert!(ok(base.path(), &["verify"], b"").starts_with("all is sound: 3 members in 1 file"));
    assert_eq!(ok(base.path(), &["ls", "-0"], b""), "logs.zip\0");
    let line: serde_json::Value =
        serde_json::from_str(ok(base.path(), &["ls", "logs.zip", "--json"], b"").lines().next().unwrap()).unwrap();
    assert_eq!((&line["path"], &line["staged"], &line["mode"]), (&"run1/out.txt".into(), &false.into(), &0o644.into()));
}

#[test]
fn what_is_wrong_is_said_by_word_and_exit_code() {
    let base = tempfile::tempdir().unwrap();
    for (args, code, word) in [
        (&["put", "x/y"][..], 2, "no archive part"),
        (&["put", "ar.zip/../y"], 2, "`..`"),
        (&["put", "/ar.zip/y"], 2, "absolute"),
        (&["put", "ar.zip"], 2, "ends with the archive"),
        (&["pickup", "/", "ar.zip/x"], 2, "not a regular file"),
        (&["pickup", "/no such file", "ar.zip/x"], 3, "No such file"),
        (&["cat", "ar.zip/x"], 1, "neither packed nor staged"),
        (&["ls", "ar.zip"], 1, "neither packed nor staged"),
    ] {
        let output = pack(base.path(), args, b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(word)), (Some(code), true), "{args:?}: {said}");
    }
    let output = pack(Path::new("/no such base"), &["scavenge"], b"");
    assert_eq!(output.status.code(), Some(2));
    // Damage is a finding, and what is sound is packed.
    ok(base.path(), &["put", "ar.zip/x"], b"content");
    fs::write(base.path().join(".keepwatch-pack/garbage.closed"), "garbage").unwrap();
    assert_eq!(pack(base.path(), &["scavenge"], b"").status.code(), Some(1));
    assert_eq!(pack(base.path(), &["status"], b"").status.code(), Some(1));
    assert_eq!(ok(base.path(), &["cat", "ar.zip/x"], b""), "content");
}

/// What `keepwatch status` says of the first base; its exit code must be this one.
fn pack_status(keepwatch: &Keepwatch, code: i32) -> serde_json::Value {
    let output = keepwatch.ask(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["packs"][0].clone()
}

#[test]
fn the_service_packs_what_is_staged() {
    let dir = tempfile::tempdir().unwrap();
    let (root, base) = (dir.path().join("root"), dir.path().join("root/packs"));
    fs::create_dir_all(&base).unwrap();
    let toml = format!("[roots.tree]\npath = {root:?}\n[packs.logs]\nbase = {base:?}\nevery = \"50ms\"\n");
    let mut keepwatch = Keepwatch::configured(&dir.path().join("state"), &toml);
    keepwatch.start_and_settle();
    ok(&base, &["put", "logs.zip/x"], b"content");
    wait_for("it is packed", || base.join("logs.zip").exists());
    assert_eq!(ok(&base, &["cat", "logs.zip/x"], b""), "content");
    wait_for("the archive is in the inventory", || keepwatch.listed().contains_key(&b"packs/logs.zip"[..]));
    let listed = keepwatch.listed();
    assert!(listed.keys().all(|path| !path.starts_with(b"packs/.keepwatch-pack/")), "what is staged is no original");
    assert!(keepwatch.log_text().contains("packed"));
    wait_for("nothing is staged", || pack_status(&keepwatch, 0)["staged"] == 0);
    fs::write(base.join(".keepwatch-pack/garbage.closed"), "garbage").unwrap();
    wait_for("it is in quarantine", || base.join(".keepwatch-pack/quarantine/garbage.closed.reason").exists());
    wait_for("it is let go", || fs::read_dir(base.join(".keepwatch-pack/work")).unwrap().count() == 0);
    let seen = pack_status(&keepwatch, 1);
    assert_eq!((&seen["name"], &seen["quarantined"], &seen["torn"]), (&"logs".into(), &1.into(), &0.into()));
    assert_eq!(seen["base"], base.to_str().unwrap());
    keepwatch.stop();
    // Without the service too; here nobody packs it.
    fs::remove_dir_all(base.join(".keepwatch-pack/quarantine")).unwrap();
    ok(&base, &["put", "logs.zip/y"], &[b'y'; 1000]);
    let seen = pack_status(&keepwatch, 0);
    assert_eq!((&seen["staged"], &seen["error"]), (&1.into(), &serde_json::Value::Null));
    assert!(seen["staged_bytes"].as_u64() > Some(1000) && seen["oldest_s"].as_u64() < Some(100), "{seen}");
    fs::remove_dir_all(&base).unwrap();
    assert!(pack_status(&keepwatch, 1)["error"].is_string());
}
