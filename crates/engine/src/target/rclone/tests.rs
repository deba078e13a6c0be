//! rclone's own local and S3 remotes through the suite; and an rclone that is not there, dies, or runs already.
#![allow(clippy::unwrap_used)]

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use keepwatch_s3_server::{KEY_ID, REGION, SECRET, Server};

use super::*;
use crate::target::Content;
use crate::target::conformance::{claim, conforms, meta, path};

/// An rclone with a configuration of its own, in which `store` is a server's bucket.
fn rclone(dir: &Path, server: Option<&Server>) -> RcloneAccess {
    let endpoint = server.map(Server::endpoint).unwrap_or_default();
    let config = format!(
        "[store]\ntype = s3\nprovider = Other\naccess_key_id = {KEY_ID}\nsecret_access_key = {SECRET}\nregion = {REGION}\n\
         endpoint = {endpoint}\nlist_version = 2\n[wrong]\ntype = s3\nprovider = Other\naccess_key_id = x\nsecret_access_key = hush\n\
         region = {REGION}\nendpoint = {endpoint}\n"
    );
    std::fs::write(dir.join("rclone.conf"), config).unwrap();
    let program = dir.join("rclone");
    let text = format!("#!/bin/sh\nunset AWS_CA_BUNDLE\nexec rclone --config {}/rclone.conf \"$@\"\n", dir.display());
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    RcloneAccess { program: program.into(), ..RcloneAccess::default() }
}

fn at(place: &str, access: &RcloneAccess, dir: &Path) -> Arc<dyn Target> {
    target(&RclonePlace::parse(place.as_bytes()).unwrap(), access, &Secret::None, &dir.join("spool"))
}

fn is_missing(test: &str) -> bool {
    let is_there =
        Command::new("rclone").arg("version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("KEEPWATCH-SKIPPED: {test}: rclone is not installed");
        assert!(std::env::var_os("KEEPWATCH_REQUIRE_ALL").is_none(), "{test} must run here");
    }
    !is_there
}

#[test]
fn its_local_remote_conforms() {
    if is_missing("rclone's local remote") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let access = rclone(dir.path(), None);
    conforms(&*at(&format!(":local:{}/kept", dir.path().display()), &access, dir.path()));
}

#[test]
fn its_s3_remote_conforms() {
    if is_missing("rclone's S3 remote") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("bucket").unwrap();
    let access = rclone(dir.path(), Some(&server));
    conforms(&*at("store:bucket/some/where", &access, dir.path()));
}

fn why(place: &str, access: &RcloneAccess, dir: &Path) -> String {
    match at(place, access, dir).open(&claim("one", None)).map(|_| ()) {
        Err(error @ TargetError::Away { .. }) => error.to_string(),
        other => panic!("{place}: {other:?}"),
    }
}

#[test]
fn what_is_wrong_is_named() {
    if is_missing("wrong remotes of rclone") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("bucket").unwrap();
    let access = rclone(dir.path(), Some(&server));
    let told = |place: &str| why(place, &access, dir.path());
    assert!(told("nosuch:x").contains("`rclone config`"), "{}", told("nosuch:x"));
    let wrong = told("wrong:bucket");
    assert!(wrong.contains("credentials") && !wrong.contains("hush"), "{wrong}");
    let none = RcloneAccess { program: "/no/such/rclone".into(), ..RcloneAccess::default() };
    assert!(why("store:b", &none, dir.path()).contains("install rclone"));
    let nobody = RcloneAccess { endpoint: Some("http://127.0.0.1:1".to_owned()), ..RcloneAccess::default() };
    assert!(why("store:b", &nobody, dir.path()).contains("cannot be reached"));
}

#[test]
fn one_that_dies_is_started_again_and_one_that_runs_is_used() {
    if is_missing("an rclone that dies") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let access = rclone(dir.path(), None);
    std::fs::write(&access.program, {
        let text = std::fs::read_to_string(&access.program).unwrap();
        text.replace("exec rclone", &format!("echo $$ > {}/pid\nexec rclone", dir.path().display()))
    })
    .unwrap();
    let place = format!(":local:{}/kept", dir.path().display());
    let target = at(&place, &access, dir.path());
    let (session, _) = target.open(&claim("one", None)).unwrap();
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    let error = session.look(&path("x")).unwrap_err();
    assert!(matches!(error, TargetError::Away { .. }), "{error:?}");
    let (session, _) = target.open(&claim("one", None)).unwrap();
    let content = Content::File { bytes: &mut &b"content"[..], size: 7, is_sparse: false };
    let staged = session.stage(&path("x"), &meta(), content).unwrap();
    session.publish(vec![staged], None).pop().unwrap().unwrap();
    drop((session, target));
    // With us it ends.
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).join("exe").exists(), "{pid}");
    // One that somebody else has started, with a user and a password.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut other = Command::new("rclone");
    other.args([
        "rcd",
        "--config",
        "/dev/null",
        "--rc-user",
        "ann",
        "--rc-pass",
        "p:w",
        "--rc-addr",
        &address.to_string(),
    ]);
    let mut other = other.stderr(Stdio::null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(begun.elapsed().as_secs() < 20, "rclone does not listen");
        std::thread::yield_now();
    }
    let secret = dir.path().join("login");
    std::fs::write(&secret, "ann:p:w\n").unwrap();
    let running = RcloneAccess { endpoint: Some(format!("http://{address}/")), ..RcloneAccess::default() };
    assert!(why(&place, &running, dir.path()).contains("USER:PASSWORD"));
    let place = RclonePlace::parse(place.as_bytes()).unwrap();
    let target = super::target(&place, &running, &Secret::File(secret), &dir.path().join("spool"));
    let (session, _) = target.open(&claim("one", None)).unwrap();
    let mut text = String::new();
    session.read(&path("x")).unwrap().read_to_string(&mut text).unwrap();
    drop((session, target));
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(text, "content");
}

#[test]
fn times_have_zones() {
    assert_eq!(nanoseconds("1970-01-01T00:00:01.5Z"), Some(1_500_000_000));
    assert_eq!(nanoseconds("1970-01-01T02:00:01+02:00"), Some(1_000_000_000));
    assert_eq!(nanoseconds("1969-12-31T23:00:00-01:00"), Some(0));
    assert_eq!(nanoseconds("1969-12-31T23:59:58.5Z"), Some(-1_500_000_000));
    assert_eq!(nanoseconds("yesterday"), None);
}
