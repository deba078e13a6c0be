//! `keepwatch mirror` and `keepwatch replica add` to the HTTP server of the documentation, as a user starts it.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::kept::{Kept, said, walk};
use support::{Dice, shake, sized, wait_for};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/http_server.py");
const SECRET: &str = "correct horse battery staple";

/// The example, running.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// With a file that has the secret, beside the directory in which things are kept.
    fn start(kept: &Path, port: &str) -> Self {
        let secret = kept.with_file_name("server.secret");
        fs::write(&secret, format!("{SECRET}\n")).unwrap();
        let mut command = Command::new("python3");
        command.arg(EXAMPLE).arg(kept).arg(port).arg(secret).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://"), "{url}");
        Server { child, url: url.trim().to_owned() }
    }

    fn port(&self) -> &str {
        self.url.trim_end_matches('/').rsplit(':').next().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A source, and a server that keeps it.
fn pair() -> (Kept, Server) {
    let mut kept = Kept::new("");
    let server = Server::start(&kept.kept(), "0");
    kept.url.clone_from(&server.url);
    let secret = kept.dir.path().join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    kept.flags.push(format!("--secret-file={}", secret.display()));
    (kept, server)
}

#[test]
fn the_server_of_the_documentation_follows_churn_through_deaths() {
    let (mut kept, mut server) = pair();
    kept.plant(sized(300, 10_000));
    kept.start(&["--timeout=5s"]);
    kept.wait_same();
    let mut dice = Dice::new(29);
    for round in 0..sized(3, 9) {
        shake(&kept.source(), &mut dice, sized(80, 2_000));
        match round % 3 {
            0 => {
                let port = server.port().to_owned();
                drop(server);
                shake(&kept.source(), &mut dice, 20);
                server = Server::start(&kept.kept(), &port);
            }
            1 => {
                kept.wait_same();
                kept.kill_amid(round);
                kept.start(&["--timeout=5s"]);
            }
            _ => {}
        }
        kept.wait_same();
    }
    kept.stop();
    assert!(kept.log().contains("plain http"), "{}", kept.log());
    assert!(!kept.log().contains(SECRET));
    assert!(kept.once_fine().contains("0 copied"));
    fs::remove_dir_all(kept.dir.path().join("state")).unwrap();
    fs::remove_file(kept.kept().join(".keepwatch-replica.json")).unwrap();
    let said = kept.once_fine();
    assert!(said.contains("0 copied") && said.contains("there already"), "{said}");
    let output = kept.program().args(["journal", "cat", "--state-dir"]).arg(kept.dir.path().join("state")).output();
    assert!(!String::from_utf8_lossy(&output.unwrap().stdout).contains(SECRET));
}

#[test]
fn what_is_wrong_is_named_and_no_secret_told() {
    let (kept, server) = pair();
    kept.plant(3);
    let refused = |secret: Option<&str>, url: &str, code: i32, words: &[&str]| {
        let file = kept.dir.path().join("hush.secret");
        fs::write(&file, secret.unwrap_or_default()).unwrap();
        let mut command = kept.program();
        command.args(["mirror", "--once", "--timeout=1s"]).arg(kept.source()).arg(url);
        if secret.is_some() {
            command.arg("--secret-file").arg(file);
        }
        let output = command.arg("--state-dir").arg(kept.dir.path().join("state")).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{url}: {}", said(&output));
        for word in words {
            assert!(said(&output).contains(word), "{url}: `{word}` is not in: {}", said(&output));
        }
        assert!(!said(&output).contains("hush hush"), "{}", said(&output));
    };
    refused(Some("hush hush"), &server.url, 4, &["signature is wrong", "is the secret the server's", "plain http"]);
    refused(None, &server.url, 4, &["`secret_file`"]);
    refused(Some(""), &server.url, 2, &["hush.secret cannot be used", "empty"]);
    refused(None, "http://ann:hush hush@host/", 2, &["names no place", "https://HOST/PATH"]);
    refused(None, "https://host/a?b", 2, &["names no place"]);
    refused(None, "http://127.0.0.1:1/", 4, &["cannot be reached"]);
    assert_eq!(walk(&kept.kept()).len(), 0);
    let mut variable = kept.command(&["--once"]);
    variable.env("KEEPWATCH_HTTP_SECRET", SECRET);
    assert!(variable.output().unwrap().status.success());
    kept.assert_same();
}

#[test]
fn slashes_in_front_are_passed_on_as_they_are() {
    let (mut kept, _server) = pair();
    fs::write(kept.source().join("2"), "2").unwrap();
    let source = kept.source().display().to_string();
    let secret = kept.flags.pop().unwrap();
    for (prefix, place) in [(source.clone(), ": /2"), (format!("{source}/"), ": 2")] {
        kept.flags = vec![format!("--source-prefix={prefix}"), secret.clone()];
        let _ = fs::remove_dir_all(kept.dir.path().join("state"));
        let _ = fs::remove_file(kept.kept().join(".keepwatch-replica.json"));
        assert!(kept.once_fine().contains(place));
        kept.assert_same();
        assert!(kept.once_fine().contains("0 copied"));
    }
}

#[test]
fn a_replica_of_the_service_is_kept_by_http() {
    let dir = tempfile::tempdir().unwrap();
    let (root, kept) = (dir.path().join("root"), dir.path().join("kept"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("one"), "1").unwrap();
    let server = Server::start(&kept, "0");
    let toml = format!("[roots.r]\npath = \"{}\"\n", root.display());
    let mut keepwatch = support::Keepwatch::configured(&dir.path().join("state"), &toml);
    let wrong = keepwatch.ask(&["replica", "add", "web", &server.url, "--secret-file", "/no/such/file"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    assert!(said(&wrong).contains("/no/such/file cannot be used"), "{}", said(&wrong));
    keepwatch.start_and_settle();
    let secret = dir.path().join("server.secret").display().to_string();
    keepwatch.ok(&["replica", "add", "web", &server.url, "--secret-file", &secret]);
    let copy = |name: &str| walk(&kept).into_iter().any(|(path, _)| path.ends_with(name.as_bytes()));
    wait_for("the copy", || copy("root/one"));
    fs::write(root.join("two"), "2").unwrap();
    wait_for("the second copy", || copy("root/two"));
    for args in [&["status"][..], &["replica", "show", "web"], &["config", "show"]] {
        assert!(!said(&keepwatch.ask(args)).contains(SECRET), "{args:?}");
    }
    keepwatch.stop();
}
