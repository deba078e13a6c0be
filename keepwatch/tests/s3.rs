//! `keepwatch mirror` to S3, over the wire: what the store holds is looked at past the wire, and held against the source.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use keepwatch_s3_server::{Fault, KEY_ID, Order, REGION, SECRET, Server};
use support::{Dice, shake, wait_for};

/// A source, a bucket, and the state of what mirrors one to the other.
struct Pair {
    dir: tempfile::TempDir,
    server: Server,
    url: &'static str,
    child: Option<Child>,
}

/// What an object is: content, mtime and mode as their metadata tell, and whether it is a link.
type Row = (Vec<u8>, String, String, bool);

impl Pair {
    fn new(url: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        Pair { dir, server: Server::start("bucket").unwrap(), url, child: None }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(support::program());
        command.arg("mirror").args(flags).arg(self.source()).arg(self.url);
        command.arg("--state-dir").arg(self.dir.path().join("state"));
        command.env_clear().env("HOME", self.dir.path()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.env("AWS_ENDPOINT_URL", self.server.endpoint()).env("AWS_REGION", REGION);
        command
    }

    /// Below the prefix there is what is in the source, by its path in it.
    fn short(&self) -> String {
        format!("--source-prefix={}/", self.source().display())
    }

    fn once_fine(&self) -> String {
        let output = self.command(&[&self.short(), "--once"]).output().unwrap();
        let text = said(&output);
        assert!(output.status.success(), "{}: {text}", output.status);
        assert!(!text.contains(SECRET), "{text}");
        text
    }

    fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = self.command(&[&self.short(), "--delete-delay=1s", "--max-delete=100%"]);
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What the bucket holds below the prefix, but for Keepwatch's own.
    fn held(&self) -> BTreeMap<String, Row> {
        let prefix = self.url.strip_prefix("s3://bucket").unwrap().trim_start_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let keys = self.server.store.keys("bucket").into_iter();
        let rows = keys.filter_map(|key| {
            let short = key.strip_prefix(&prefix)?.to_owned();
            let object = self.server.store.object("bucket", &key)?;
            let text = |name: &str| object.metadata.get(name).cloned().unwrap_or_default();
            let is_link = text("keepwatch-kind") == "symlink";
            Some((short, (object.bytes(), text("mtime"), text("mode"), is_link)))
        });
        rows.filter(|(key, _)| !key.starts_with(".keepwatch-")).collect()
    }

    fn assert_same(&self) {
        let (held, there) = (self.held(), walk(&self.source()));
        let keys = |rows: &BTreeMap<String, Row>| rows.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&held), keys(&there));
        for (key, row) in &there {
            assert!(&held[key] == row, "{key}: {:?} is not {:?}", &held[key].1, &row.1);
        }
    }

    fn is_same(&self) -> bool {
        self.held() == walk(&self.source())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The files and links of a tree, as their objects are to be.
fn walk(tree: &Path) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let mut pending = vec![tree.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = path.symlink_metadata() else { continue };
            if meta.is_dir() {
                pending.push(path);
                continue;
            }
            let content = match meta.is_symlink() {
                true => fs::read_link(&path).map(|to| to.as_os_str().as_bytes().to_vec()),
                false => fs::read(&path),
            };
            let nanos = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
            let mtime = nanos.trim_end_matches('0').trim_end_matches('.').to_owned();
            let row = (content.unwrap_or_default(), mtime, format!("{:o}", meta.mode()), meta.is_symlink());
            rows.insert(key_of(path.strip_prefix(tree).unwrap()), row);
        }
    }
    rows
}

/// The documented encoding, written once more.
fn key_of(path: &Path) -> String {
    let name = |name: &[u8]| match std::str::from_utf8(name) {
        Ok(text) if !text.starts_with(['!', ' ']) && !text.contains(|c: char| c.is_ascii_control()) => text.to_owned(),
        _ => {
            let escaped = |byte: &u8| match byte {
                b' '..=b'$' | b'&'..=b'~' => char::from(*byte).to_string(),
                byte => format!("%{byte:02X}"),
            };
            format!("!{}", name.iter().map(escaped).collect::<String>())
        }
    };
    path.as_os_str().as_bytes().split(|byte| *byte == b'/').map(name).collect::<Vec<_>>().join("/")
}

fn plant(tree: &Path) {
    for number in 0..300 {
        let dir = tree.join(format!("d{}", number % 7));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file {number}")), vec![number as u8; number * 37]).unwrap();
    }
    fs::write(tree.join("empty"), b"").unwrap();
    let large: Vec<u8> = (0..20_000_003_usize).map(|at| (at.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    fs::write(tree.join("large"), large).unwrap();
    symlink("../elsewhere", tree.join("link")).unwrap();
    fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o640)).unwrap();
    for name in [&b"line\nbreak"[..], b"\xff\xfe%", b"!mark", b" space", b"quote\"'<&>", "gr\u{fc}\u{df}e".as_bytes()] {
        fs::write(tree.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
}

#[test]
fn a_tree_is_copied_once_and_known_again() {
    let pair = Pair::new("s3://bucket/some/where");
    plant(&pair.source());
    pair.once_fine();
    pair.assert_same();
    let mut journal = Command::new(support::program());
    journal
        .env_clear()
        .env("HOME", pair.dir.path())
        .args(["journal", "cat", "--state-dir"])
        .arg(pair.dir.path().join("state"));
    let journal = String::from_utf8(journal.output().unwrap().stdout).unwrap();
    let proved = journal.lines().filter(|line| line.contains("\"do\":\"copied\"") && line.contains("\"proved\""));
    assert_eq!(proved.count(), 308, "the store has held each file against its hash");
    let before = pair.server.seen();
    pair.once_fine();
    let after = pair.server.seen();
    // Each start tries at the mark what the store can do.
    assert!(after.bytes - before.bytes < 1000 && after.of("PUT") == before.of("PUT") + 1, "{after:?}");
    // Without its state it finds what is there.
    fs::remove_dir_all(pair.dir.path().join("state")).unwrap();
    pair.server.store.drop_object("bucket", "some/where/.keepwatch-replica.json");
    pair.once_fine();
    pair.assert_same();
    assert!(pair.server.seen().bytes - before.bytes < 10_000, "content was sent again");
    assert_eq!(pair.server.store.uploads("bucket"), []);
}

#[test]
fn changes_are_followed_through_faults_and_deaths() {
    let mut pair = Pair::new("s3://bucket");
    plant(&pair.source());
    pair.start();
    wait_for("the first copy", || pair.is_same());
    let mut dice = Dice::new(11);
    let faults = [Fault::InternalError, Fault::SlowDown, Fault::ReplyLost, Fault::Cut];
    for round in 0..6 {
        for (index, method) in ["PUT", "DELETE", "GET", "HEAD"].into_iter().enumerate() {
            let fault = faults[(round + index) % faults.len()];
            pair.server.faults.order(Order { method, contains: String::new(), after: 1, times: 2, fault });
        }
        shake(&pair.source(), &mut dice, 60);
        if round % 2 == 1 {
            pair.kill();
            shake(&pair.source(), &mut dice, 20);
            pair.start();
        }
        wait_for("the copy to follow", || pair.is_same());
        pair.server.faults.clear();
    }
    assert_eq!(pair.server.store.uploads("bucket"), []);
}

#[test]
fn a_move_sends_no_content() {
    let mut pair = Pair::new("s3://bucket/p");
    plant(&pair.source());
    pair.start();
    wait_for("the first copy", || pair.is_same());
    let before = pair.server.seen().bytes;
    fs::rename(pair.source().join("d1"), pair.source().join("e1")).unwrap();
    fs::rename(pair.source().join("large"), pair.source().join("e1/larger")).unwrap();
    wait_for("the moves", || pair.is_same());
    let sent = pair.server.seen().bytes - before;
    assert!(sent < 10_000, "{sent} bytes were sent");
}

#[test]
fn prefixes_are_text_and_a_leading_slash_is_dropped() {
    let pair = Pair::new("s3://bucket");
    fs::create_dir(pair.source().join("a")).unwrap();
    fs::write(pair.source().join("a/2"), b"2").unwrap();
    let source = pair.source().display().to_string();
    let full = source.trim_start_matches('/').to_owned();
    for (flags, key) in [
        (vec![], format!("{full}/a/2")),
        (vec![format!("--source-prefix={source}/")], "a/2".to_owned()),
        (vec![format!("--source-prefix={source}")], "a/2".to_owned()),
        (vec![format!("--source-prefix={source}/"), "--target-prefix=/foo/bar/".to_owned()], "foo/bar/a/2".to_owned()),
    ] {
        pair.server.store.drop_bucket("bucket");
        pair.server.store.make_bucket("bucket");
        let _ = fs::remove_dir_all(pair.dir.path().join("state"));
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--once"]).collect();
        let output = pair.command(&flags).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(pair.held().into_keys().collect::<Vec<_>>(), [key]);
        let put = pair.server.seen().of("PUT");
        assert!(pair.command(&flags).output().unwrap().status.success());
        assert_eq!(pair.server.seen().of("PUT"), put + 1, "only the mark is put again");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let pair = Pair::new("s3://bucket");
    fs::write(pair.source().join("file"), b"x").unwrap();
    let refused = |code: i32, change: &dyn Fn(&mut Command)| {
        let mut command = pair.command(&["--once"]);
        change(&mut command);
        let output = command.output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(!text.contains("hush"), "{text}");
        text
    };
    let wrong = refused(4, &|command| {
        command.env("AWS_SECRET_ACCESS_KEY", "hush");
    });
    assert!(wrong.contains("secret access key does not belong"), "{wrong}");
    let region = refused(4, &|command| {
        command.env("AWS_REGION", "mars-1");
    });
    assert!(region.contains("region"), "{region}");
    let half = refused(2, &|command| {
        command.env_remove("AWS_SECRET_ACCESS_KEY");
    });
    assert!(half.contains("AWS_SECRET_ACCESS_KEY"), "{half}");
    let profile = refused(2, &|command| {
        command.args(["--profile", "nobody"]);
    });
    assert!(profile.contains("no profile `nobody`"), "{profile}");
    let endpoint = refused(2, &|command| {
        command.args(["--endpoint", "store:9000"]);
    });
    assert!(endpoint.contains("is no URL"), "{endpoint}");
    pair.server.store.drop_bucket("bucket");
    let missing = refused(4, &|_| {});
    assert!(missing.contains("there is no bucket `bucket`: make it"), "{missing}");
}
