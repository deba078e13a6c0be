//! Manifests that others write are understood, and ours by others.
#![allow(clippy::unwrap_used)]

mod house;
mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output};

use house::House;
use support::pair::make_tree;

fn verify(house: &House, args: &[&str]) -> Output {
    house.keepwatch.command(&[&["verify"], args].concat()).current_dir(house.root()).output().unwrap()
}

#[test]
fn what_coreutils_write_is_understood_and_ours_by_them() {
    let mut house = House::new("");
    make_tree(&house.root(), 50);
    for name in [&b"line\nfeed"[..], b"back\\slash", b"cr\rname", b"not \xff utf8", b" blank "] {
        fs::write(house.root().join(OsStr::from_bytes(name)), name).unwrap();
    }
    for program in ["sha256sum", "sha512sum", "sha1sum", "md5sum", "b3sum"] {
        if Command::new(program).arg("--version").output().is_err() {
            support::skipped(program, "it is not installed");
            continue;
        }
        // b3sum writes names that are not UTF-8 in a way that not even it can read again.
        let (but, count) = if program == "b3sum" { ("! -name 'not*'", 54) } else { ("", 55) };
        let script = format!("find . -type f {but} -print0 | xargs -0 {program} > ../manifest.{program}");
        assert!(Command::new("sh").args(["-c", &script]).current_dir(house.root()).status().unwrap().success());
        let output = verify(&house, &["--against", &format!("../manifest.{program}")]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.starts_with(&format!("{count} files")), "{program}: {text}");
    }
    fs::write(house.root().join("d1/e1/f1"), "another").unwrap();
    fs::remove_file(house.root().join("d2/e2/f2")).unwrap();
    let output = verify(&house, &["--against", "../manifest.sha256sum"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("differs    ./d1/e1/f1") && text.contains("missing    ./d2/e2/f2"), "{text}");
    house.keepwatch.start_and_settle();
    house.settle();
    let ours = house.keepwatch.ok(&["verify", "--export"]);
    fs::write(house.dir.path().join("ours"), &ours).unwrap();
    let checked = Command::new("sha256sum")
        .args(["--check", "--quiet", "--strict", "ours"])
        .current_dir(house.dir.path())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert!(verify(&house, &["--against", "../ours"]).status.success());
    for (text, what) in [("rubbish\n", "line 1"), ("", "names no file")] {
        fs::write(house.dir.path().join("bad"), text).unwrap();
        let output = verify(&house, &["--against", "../bad"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(what));
    }
}

#[test]
fn what_has_no_dry_run_says_so_and_does_nothing() {
    let house = House::new("");
    let to = house.dir.path().join("restored");
    for args in [
        &["verify", "-n"][..],
        &["restore", "-n", ".", "--from", "vault", "--to", to.to_str().unwrap()],
        &["replica", "import", "-n", "vault"],
    ] {
        let output = house.keepwatch.ask(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains("has no --dry-run") && text.contains("hint:"), "{args:?}: {text}");
    }
    assert!(!to.exists());
}
