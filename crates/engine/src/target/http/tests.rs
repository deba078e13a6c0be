//! The server of the documentation through the suite, with a secret and without; and servers that are wrong.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::target::conformance::{claim, conforms};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/http_server.py");

fn little_patience() -> Patience {
    Patience { pause: Duration::from_millis(10), reply: Duration::from_secs(20), tries: 3, ..Patience::default() }
}

/// The example, running.
struct Server {
    dir: tempfile::TempDir,
    child: Child,
    url: String,
}

impl Server {
    fn start(secret: Option<&str>, changes: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut text = std::fs::read_to_string(EXAMPLE).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        std::fs::write(dir.path().join("server.py"), text).unwrap();
        let mut command = Command::new("python3");
        command.arg(dir.path().join("server.py")).arg(dir.path().join("kept")).arg("0").stdout(Stdio::piped());
        if let Some(secret) = secret {
            std::fs::write(dir.path().join("secret"), format!("{secret}\n")).unwrap();
            command.arg(dir.path().join("secret"));
        }
        let mut child = command.spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Server { dir, child, url: url.trim().to_owned() }
    }

    fn target(&self, lead: &[u8], secret: &Secret) -> Arc<dyn Target> {
        at(&self.url, self.dir.path(), lead, secret)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn at(url: &str, dir: &Path, lead: &[u8], secret: &Secret) -> Arc<dyn Target> {
    let place = HttpPlace::parse(url.strip_prefix("http://").unwrap().as_bytes(), false).unwrap();
    target(&place, lead, secret, little_patience(), &dir.join("spool"))
}

fn given(secret: &str) -> Secret {
    Secret::Given(secret.into())
}

fn why(target: &dyn Target) -> String {
    match target.open(&claim("one", None)).map(|_| ()) {
        Err(error @ TargetError::Away { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_example_conforms() {
    let server = Server::start(Some("correct horse"), &[]);
    conforms(&*server.target(b"", &given("correct horse")));
}

#[test]
fn one_without_a_secret_that_renames_nothing_keeps_whole_seconds_and_gets_slashes_in_front_conforms() {
    let changes = [
        ("\"abilities\": [\"rename\"], ", ""),
        ("\"mtime_step_ns\": 1}", "\"mtime_step_ns\": 1000000000}"),
        ("(int(asked[\"mtime_ns\"]),) * 2", "(int(asked[\"mtime_ns\"]) // 10**9 * 10**9,) * 2"),
        ("int(asked[\"limit\"])", "min(3, int(asked[\"limit\"]))"),
        ("def place(name):", "def place(name):\n    assert not name or name.startswith((b'/', b'.keepwatch-')), name"),
    ];
    let server = Server::start(None, &changes);
    conforms(&*server.target(b"/", &Secret::None));
}

#[test]
fn a_wrong_secret_is_named_and_never_told() {
    let server = Server::start(Some("right"), &[]);
    let wrong = why(&*server.target(b"", &given("hush")));
    assert!(wrong.contains("signature is wrong") && wrong.contains("is the secret the server's"), "{wrong}");
    assert!(!wrong.contains("hush"), "{wrong}");
    assert!(why(&*server.target(b"", &Secret::None)).contains("`secret_file`"));
    assert!(!format!("{:?}", server.target(b"", &given("hush"))).contains("hush"));
    let missing = Secret::File(server.dir.path().join("no secret"));
    assert!(why(&*server.target(b"", &missing)).contains("no secret cannot be used"));
    std::fs::write(server.dir.path().join("empty"), "\n").unwrap();
    let empty = Secret::File(server.dir.path().join("empty"));
    assert!(why(&*server.target(b"", &empty)).contains("first line is empty"));
    server.target(b"", &Secret::File(server.dir.path().join("secret"))).open(&claim("one", None)).unwrap();
    let late = Server::start(Some("right"), &[("))) > 300", "))) > -1")]);
    assert!(why(&*late.target(b"", &given("right"))).contains("five minutes"));
}

#[test]
fn what_is_no_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (reply, told) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "makes no sense"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "no `items`"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "no such place"),
        ("HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "elsewhere"),
        ("HTTP/1.1 503 Later\r\nContent-Length: 4\r\n\r\nbusy", "busy, again and again"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"items\":", "cannot be reached"),
        ("SSH-2.0-OpenSSH\r\n", "cannot be reached"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
                while request.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let _ = stream.write_all(reply.as_bytes());
            }
        });
        let error = why(&*at(&url, dir.path(), b"", &Secret::None));
        assert!(error.contains(told), "{error}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(why(&*at(&format!("http://{nobody}/"), dir.path(), b"", &Secret::None)).contains("refused"));
}
