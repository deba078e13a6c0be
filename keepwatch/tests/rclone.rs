//! `keepwatch mirror` and `keepwatch replica add` to remotes of rclone: its local one, and S3 on our strict server.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::process::{Command, Stdio};

use keepwatch_s3_server::{KEY_ID, REGION, SECRET, Server};
use support::kept::{Kept, said};
use support::{Dice, shake, sized, wait_for};

/// A source and a local remote, unless there is no rclone.
fn pair(test: &str) -> Option<Kept> {
    let rclone = Command::new("rclone").arg("version").stdout(Stdio::null()).status();
    if !rclone.is_ok_and(|status| status.success()) {
        support::skipped(test, "rclone is not installed");
        return None;
    }
    let mut kept = Kept::new("rclone::local:{}");
    kept.env.push(("RCLONE_CONFIG".to_owned(), kept.dir.path().join("rclone.conf").display().to_string()));
    fs::write(kept.dir.path().join("rclone.conf"), "").unwrap();
    Some(kept)
}

/// A tree of which rclone's local remote can hold all as it is: names are text, and links are links.
fn plant(kept: &Kept, files: usize) {
    kept.plant(files);
    for path in [&b"\xff\xfe"[..], b"line\nbreak", b"!x", b" y", b"link"] {
        use std::os::unix::ffi::OsStrExt as _;
        fs::remove_file(kept.source().join(std::ffi::OsStr::from_bytes(path))).unwrap();
    }
}

/// Churn without links, which stand under other names there.
fn churn(kept: &Kept, dice: &mut Dice, operations: usize) {
    shake(&kept.source(), dice, operations);
    let links = support::kept::walk(&kept.source()).into_iter().filter(|(_, (_, time))| time.is_none());
    for (path, _) in links {
        let _ = fs::remove_file(kept.source().join(String::from_utf8(path).unwrap()));
    }
}

#[test]
fn a_local_remote_follows_churn_through_deaths() {
    let Some(mut kept) = pair("a local remote of rclone") else { return };
    plant(&kept, sized(200, 10_000));
    kept.start(&[]);
    kept.wait_same();
    let mut dice = Dice::new(31);
    for round in 0..sized(3, 9) {
        churn(&kept, &mut dice, sized(60, 2_000));
        match round % 3 {
            // What keeps rclone, and rclone with it.
            0 => assert!(Command::new("kill").arg("-9").args(kept.children()).status().unwrap().success()),
            1 => {
                kept.wait_same();
                let before = kept.children();
                kept.kill_amid(round);
                wait_for("rclone ends with us", || before.iter().all(|pid| !is_running(pid)));
                kept.start(&[]);
            }
            _ => {}
        }
        kept.wait_same();
    }
    let children = kept.children();
    kept.stop();
    assert!(!children.iter().any(|pid| is_running(pid)), "nothing is left running");
    assert!(kept.once_fine().contains("0 copied"));
}

fn is_running(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn an_s3_remote_is_kept_and_known_again() {
    let Some(mut kept) = pair("an S3 remote of rclone") else { return };
    let server = Server::start("bucket").unwrap();
    let config = format!(
        "[store]\ntype = s3\nprovider = Other\naccess_key_id = {KEY_ID}\nsecret_access_key = {SECRET}\nregion = {REGION}\n\
         endpoint = {}\nlist_version = 2\n",
        server.endpoint()
    );
    fs::write(kept.dir.path().join("rclone.conf"), config).unwrap();
    kept.url = "rclone:store:bucket/some/where".to_owned();
    kept.plant(60);
    kept.once_fine();
    let keys = server.store.keys("bucket");
    for key in ["empty", "link.rclonelink", "!%FF%FE", "!line%0Abreak", "!!x", "d1/e1/f1", "large"] {
        assert!(keys.contains(&format!("some/where/{key}")), "{key} in {keys:?}");
    }
    let large = server.store.object("bucket", "some/where/large").unwrap();
    assert!(large.bytes() == fs::read(kept.source().join("large")).unwrap());
    assert!(kept.once_fine().contains("0 copied"));
    fs::remove_dir_all(kept.dir.path().join("state")).unwrap();
    server.store.drop_object("bucket", "some/where/.keepwatch-replica.json");
    let said = kept.once_fine();
    assert!(said.contains("0 copied") && said.contains("there already"), "{said}");
}

#[test]
fn what_is_wrong_is_named() {
    let Some(kept) = pair("wrong remotes of rclone") else { return };
    fs::write(kept.source().join("x"), "x").unwrap();
    let refused = |url: &str, flags: &[&str], code: i32, words: &[&str]| {
        let mut command = kept.program();
        command.args(["mirror", "--once"]).args(flags).arg(kept.source()).arg(url);
        let output = command.arg("--state-dir").arg(kept.dir.path().join("state")).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{url}: {}", said(&output));
        for word in words {
            assert!(said(&output).contains(word), "{url}: `{word}` is not in: {}", said(&output));
        }
        assert!(!said(&output).contains("hush"), "{}", said(&output));
    };
    refused("rclone:nosuch:x", &[], 4, &["config", "`rclone config`"]);
    refused("rclone:x", &[], 2, &["names no place", "rclone:REMOTE:PATH"]);
    refused("rclone::s3,secret_access_key=hush:bucket", &[], 2, &["names no place"]);
    refused("rclone::local:/tmp", &["--endpoint=http://127.0.0.1:1"], 4, &["cannot be reached"]);
    let mut bare = kept.command(&["--once"]);
    let output = bare.env("PATH", kept.dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("install rclone"), "{}", said(&output));
}

#[test]
fn a_replica_of_the_service_is_kept_by_rclone() {
    let Some(kept) = pair("a replica by rclone") else { return };
    fs::write(kept.source().join("one"), "1").unwrap();
    let toml = format!("[roots.r]\npath = \"{}\"\n", kept.source().display());
    let mut keepwatch = support::Keepwatch::configured(&kept.dir.path().join("state"), &toml);
    keepwatch.env = kept.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    keepwatch.start_and_settle();
    keepwatch.ok(&["replica", "add", "cloud", &format!("rclone::local:{}", kept.kept().display())]);
    let copy = |name: &str| support::kept::walk(&kept.kept()).into_keys().any(|path| path.ends_with(name.as_bytes()));
    wait_for("the copy", || copy("source/one"));
    fs::write(kept.source().join("two"), "2").unwrap();
    wait_for("the second copy", || copy("source/two"));
    keepwatch.stop();
}
