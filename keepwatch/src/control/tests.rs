use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::access::Access;
use super::address::{Address, SOCKET};
use super::client::Client;
use super::server::{CONNECTIONS_MAX, Handler, Server};
use super::*;

/// Answers each request in its own way.
struct Example;

impl Handler for Example {
    fn handle(
        &self,
        request: Request,
        progress: &mut dyn FnMut(Value) -> std::io::Result<()>,
    ) -> Result<Value, CommandError> {
        match request {
            Request::Status {} => Ok(json!({"host": "h"})),
            Request::Reconcile { root } => {
                for step in 0..3 {
                    progress(json!(step)).map_err(CommandError::output)?;
                }
                Ok(json!(root))
            }
            Request::RootAccept { name } => {
                Err(CommandError::usage(format!("there is no root `{name}`")).hint("look again"))
            }
            Request::Stop {} => panic!("on purpose"),
            Request::Sync {}
            | Request::Verify(_)
            | Request::Tell { .. }
            | Request::Reload {}
            | Request::Replica { .. }
            | Request::ReplicaForget { .. }
            | Request::Trigger { .. } => Ok(Value::Null),
        }
    }
}

struct Running {
    _base: tempfile::TempDir,
    dir: PathBuf,
    server: Option<Server>,
}

fn start(below: &str, group: Option<u32>) -> Running {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join(below);
    std::fs::create_dir_all(&dir).unwrap();
    let server = Server::start(&dir, Access::of_process(group), Arc::new(Example)).unwrap();
    Running { _base: base, dir, server: Some(server) }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_request_is_answered_with_progress_on_the_way() {
    let running = start("state", None);
    let client = Client::new(&running.dir);
    assert_eq!(client.call(&Request::Status {}, |_| Ok(())).unwrap(), json!({"host": "h"}));
    let mut steps = Vec::new();
    let request = Request::Reconcile { root: Some("records".to_owned()) };
    let done = client.call(&request, |step| {
        steps.push(step);
        Ok(())
    });
    assert_eq!((done.unwrap(), steps), (json!("records"), vec![json!(0), json!(1), json!(2)]));
}

#[test]
fn a_refusal_arrives_whole_and_a_panic_is_a_bug() {
    let running = start("state", None);
    let client = Client::new(&running.dir);
    let refused = client.call(&Request::RootAccept { name: "x".to_owned() }, |_| Ok(())).unwrap_err();
    assert_eq!(refused, CommandError::usage("there is no root `x`").hint("look again"));
    assert_eq!(client.call(&Request::Stop {}, |_| Ok(())).unwrap_err().kind, Kind::Bug);
    assert!(client.call(&Request::Sync {}, |_| Ok(())).is_ok(), "it goes on");
}

#[test]
fn nobody_there_is_unreachable_and_says_what_to_do() {
    let mut running = start("state", None);
    running.server = None;
    assert!(!running.dir.join(SOCKET).exists(), "the socket goes with the server");
    let error = Client::new(&running.dir).call(&Request::Status {}, |_| Ok(())).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable);
    assert!(error.message.contains("no keepwatch service runs") && error.hints[0].contains("keepwatch run"), "{error}");
}

#[test]
fn a_silent_service_is_given_up() {
    let base = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(base.path().join(SOCKET)).unwrap();
    let client = Client::new(base.path()).silence_max(Duration::from_millis(50));
    let error = client.call(&Request::Status {}, |_| Ok(())).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable);
    assert!(error.message.contains("has not answered"), "{error}");
}

#[test]
fn a_socket_left_behind_is_replaced() {
    let mut running = start("state", None);
    running.server = None;
    drop(UnixListener::bind(running.dir.join(SOCKET)).unwrap());
    assert!(running.dir.join(SOCKET).exists());
    running.server = Some(Server::start(&running.dir, Access::of_process(None), Arc::new(Example)).unwrap());
    assert!(Client::new(&running.dir).is_running());
}

#[test]
fn only_the_owner_or_the_group_can_open_the_socket() {
    let running = start("state", None);
    assert_eq!((mode(&running.dir), mode(&running.dir.join(SOCKET))), (0o700, 0o600));
    let shared = start("state", Some(rustix::process::getegid().as_raw()));
    assert_eq!((mode(&shared.dir), mode(&shared.dir.join(SOCKET))), (0o710, 0o660));
}

#[test]
fn a_peer_who_may_not_is_told_so() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("state");
    std::fs::create_dir(&dir).unwrap();
    // Root may always, so as root there is nobody here to turn away.
    let us = rustix::process::geteuid();
    let access = Access { owner: us.as_raw() + 1, group: None };
    let _server = Server::start(&dir, access, Arc::new(Example)).unwrap();
    let answer = Client::new(&dir).call(&Request::Status {}, |_| Ok(()));
    assert_eq!(answer.is_ok(), us.is_root());
}

#[test]
fn a_long_state_directory_is_no_obstacle() {
    let running = start(&"long/".repeat(40), None);
    assert!(running.dir.as_os_str().len() > 150);
    assert!(Client::new(&running.dir).call(&Request::Status {}, |_| Ok(())).is_ok());
}

#[test]
fn more_connections_than_there_is_room_for_are_turned_away() {
    let running = start("state", None);
    let connect = || UnixStream::connect(Address::of(&running.dir).unwrap().path()).unwrap();
    let held: Vec<UnixStream> = (0..CONNECTIONS_MAX).map(|_| connect()).collect();
    let error = Client::new(&running.dir).call(&Request::Status {}, |_| Ok(())).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable);
    assert!(error.message.contains("busy"), "{error}");
    // Their threads see the end of the connection and make room again.
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    while Client::new(&running.dir).call(&Request::Status {}, |_| Ok(())).is_err() {
        assert!(Instant::now() < deadline, "there is no room again");
        std::thread::yield_now();
    }
}

/// Works until it is told to end.
struct Patient(Mutex<Receiver<()>>);

impl Handler for Patient {
    fn handle(&self, _: Request, _: &mut dyn FnMut(Value) -> std::io::Result<()>) -> Result<Value, CommandError> {
        let _ = self.0.lock().unwrap().recv();
        Ok(Value::Null)
    }
}

#[test]
fn a_busy_service_says_that_it_is_still_at_it() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("state");
    std::fs::create_dir(&dir).unwrap();
    let (end, ended) = channel();
    let handler = Arc::new(Patient(Mutex::new(ended)));
    let _server = Server::start(&dir, Access::of_process(None), handler).unwrap();
    let mut stream = UnixStream::connect(Address::of(&dir).unwrap().path()).unwrap();
    stream.write_all(b"{\"request\":\"sync\"}\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), r#"{"reply":"working"}"#);
    drop(end);
    let last = lines.find(|line| !line.contains("working")).unwrap();
    assert_eq!((last.as_str(), lines.next()), (r#"{"reply":"done","data":null}"#, None));
}

#[test]
fn rubbish_is_refused_and_does_no_harm() {
    let running = start("state", None);
    let answer = |line: &[u8]| {
        let mut stream = UnixStream::connect(Address::of(&running.dir).unwrap().path()).unwrap();
        stream.write_all(line).unwrap();
        std::io::read_to_string(stream).unwrap()
    };
    for line in [b"{\"request\":\"dance\"}\n".as_slice(), b"\xff\n", b"{\"request\":\"status\",\"x\":1}\n"] {
        assert!(answer(line).contains(r#""reply":"failed","kind":"usage""#), "{line:?}");
    }
    assert!(Client::new(&running.dir).is_running());
}
