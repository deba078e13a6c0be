//! Against the strict server, over the wire: faults, large objects, moves, and what is refused.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::ops::ControlFlow;

use keepwatch_s3_server::{Fault, Order, Server, Settings};

use super::testing::{access, bucket, little_patience};
use super::{Credentials, Patience, S3Access, S3Place, S3Source, S3Target};
use crate::model::{FileType, RelPath};
use crate::target::{Claim, Content, Meta, Session, Staged, Target, TargetError};

const MIB: usize = 1 << 20;

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn claim() -> Claim {
    Claim { owner: "one".to_owned(), state: "s".to_owned(), host: "h".to_owned(), identity: None }
}

fn meta(mtime_ns: i64) -> Meta {
    Meta { mode: 0o644, uid: 1, gid: 2, mtime_ns, xattrs: Vec::new() }
}

fn open(server: &Server) -> Box<dyn Session> {
    bucket(server, "p", Patience::default()).open(&claim()).unwrap().0
}

fn stage(session: &dyn Session, at: &str, bytes: &[u8]) -> Result<Staged, TargetError> {
    let content = Content::File { bytes: &mut &*bytes, size: bytes.len() as u64, is_sparse: false };
    session.stage(&path(at), &meta(5), content)
}

fn put(session: &dyn Session, at: &str, bytes: &[u8]) -> Result<(), TargetError> {
    let staged = stage(session, at, bytes)?;
    session.publish(vec![staged], Some(&path(".keepwatch-trash/day"))).pop().unwrap()
}

fn read(session: &dyn Session, at: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    session.read(&path(at)).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn order(server: &Server, method: &'static str, contains: &str, after: usize, times: usize, fault: Fault) {
    server.faults.order(Order { method, contains: contains.to_owned(), after, times, fault });
}

fn noise(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8 ^ seed).collect()
}

fn trash(server: &Server) -> Vec<String> {
    server.store.keys("bucket").into_iter().filter(|key| key.contains("keepwatch-trash")).collect()
}

#[test]
fn faults_that_pass_leave_nothing_amiss() {
    let faults = [Fault::InternalError, Fault::SlowDown, Fault::ReplyLost, Fault::BlackHole, Fault::Cut];
    for fault in faults {
        let server = Server::start("bucket").unwrap();
        let session = bucket(&server, "p", little_patience()).open(&claim()).unwrap().0;
        let large = noise(20 * MIB, 1);
        order(&server, "PUT", "/small", 0, 2, fault);
        put(&*session, "small", b"small").unwrap();
        order(&server, "POST", "uploads", 0, 1, fault);
        order(&server, "PUT", "partNumber=2", 0, 1, fault);
        order(&server, "POST", "uploadId", 0, 1, fault);
        put(&*session, "large", &large).unwrap();
        order(&server, "HEAD", "/large", 0, 1, fault);
        order(&server, "GET", "/large", 1, 1, fault);
        assert_eq!(read(&*session, "large"), large, "{fault:?}");
        order(&server, "PUT", "/moved", 0, 1, fault);
        order(&server, "DELETE", "/large", 0, 1, fault);
        session.rename(&path("large"), &path("moved")).unwrap();
        assert_eq!(server.store.object("bucket", "p/moved").unwrap().bytes(), large);
        assert!(server.store.object("bucket", "p/large").is_none());
        order(&server, "GET", "list-type", 0, 1, fault);
        let mut listed = Vec::new();
        let mut each = |path: &RelPath, _| {
            listed.push(path.clone());
            ControlFlow::Continue(())
        };
        session.list(&RelPath::ROOT, &mut each).unwrap();
        assert_eq!(listed, [path("moved"), path("small")], "{fault:?}");
        assert_eq!(trash(&server), Vec::<String>::new(), "a reply that was lost makes no old version: {fault:?}");
    }
}

#[test]
fn a_store_that_is_gone_is_away() {
    let server = Server::start("bucket").unwrap();
    let session = bucket(&server, "p", little_patience()).open(&claim()).unwrap().0;
    order(&server, "PUT", "", 0, usize::MAX, Fault::SlowDown);
    let error = put(&*session, "file", b"x").unwrap_err();
    assert!(matches!(&error, TargetError::Away { why, .. } if why.contains("503 SlowDown")), "{error}");
    let target = bucket(&server, "", little_patience());
    drop(server);
    let error = target.open(&claim()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, TargetError::Away { why, .. } if why.contains("cannot be reached")), "{error}");
}

#[test]
fn an_upload_goes_on_after_a_restart_and_sends_no_part_twice() {
    let server = Server::start("bucket").unwrap();
    let large = noise(40 * MIB + 7, 2);
    {
        let session = open(&server);
        // Staged, and never published: as if the process had been killed.
        let _staged = stage(&*session, "large", &large).unwrap();
        assert_eq!(server.store.uploads("bucket"), [("p/large".to_owned(), vec![1, 2, 3, 4, 5, 6])]);
        std::mem::forget(session);
    }
    let before = server.seen().bytes;
    let session = open(&server);
    // Another part is another now; the rest is as it was.
    let mut changed = large.clone();
    changed[9 * MIB] ^= 1;
    put(&*session, "large", &changed).unwrap();
    let sent = server.seen().bytes - before;
    assert!(sent < 9 * MIB as u64, "{sent} bytes were sent again");
    assert_eq!(server.store.object("bucket", "p/large").unwrap().bytes(), changed);
    assert_eq!(server.store.uploads("bucket"), []);
    assert_eq!(server.store.object("bucket", "p/large").unwrap().metadata["mtime"], "0.000000005");
}

#[test]
fn what_is_not_wanted_any_more_is_given_up() {
    let server = Server::start("bucket").unwrap();
    let session = open(&server);
    let staged = stage(&*session, "large", &noise(20 * MIB, 3)).unwrap();
    session.discard(staged);
    assert_eq!(server.store.uploads("bucket"), []);
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("a bad sector"))
        }
    }
    let content = Content::File { bytes: &mut Broken, size: 20 << 20, is_sparse: false };
    assert!(matches!(session.stage(&path("bad"), &meta(0), content), Err(TargetError::Source { .. })));
    assert_eq!(server.store.uploads("bucket"), []);
}

#[test]
fn old_versions_are_kept_also_where_the_store_knows_no_conditions() {
    for is_conditional in [true, false] {
        let server = Server::with(&Settings { is_conditional, ..Settings::default() }).unwrap();
        server.store.make_bucket("bucket");
        let session = open(&server);
        for text in ["one", "two", "three"] {
            put(&*session, "file", text.as_bytes()).unwrap();
        }
        assert_eq!(read(&*session, "file"), b"three");
        assert_eq!(read(&*session, ".keepwatch-trash/day/file"), b"one", "{is_conditional}");
        assert_eq!(read(&*session, ".keepwatch-trash/day/file~2"), b"two");
        let large = noise(17 * MIB, 4);
        put(&*session, "file", &large).unwrap();
        assert_eq!(read(&*session, ".keepwatch-trash/day/file~3"), b"three");
        assert_eq!(trash(&server).len(), 3);
    }
}

#[test]
fn a_directory_is_renamed_by_the_store_also_when_that_is_interrupted() {
    let server = Server::start("bucket").unwrap();
    let session = bucket(&server, "p", little_patience()).open(&claim()).unwrap().0;
    let staged: Vec<Staged> = (0..2500).map(|n| stage(&*session, &format!("d/{n:04}"), &[7; 100]).unwrap()).collect();
    for result in session.publish(staged, None) {
        result.unwrap();
    }
    let before = server.seen().bytes;
    order(&server, "PUT", "/e/", 1200, usize::MAX, Fault::SlowDown);
    assert!(matches!(session.rename(&path("d"), &path("e")), Err(TargetError::Away { .. })));
    server.faults.clear();
    let count = |dir: &str| server.store.keys("bucket").iter().filter(|key| key.starts_with(dir)).count();
    assert!(count("p/d/") > 0 && count("p/e/") > 0);
    session.rename(&path("d"), &path("e")).unwrap();
    assert_eq!((count("p/d/"), count("p/e/"), count("p/.keepwatch-tmp/")), (0, 2500, 0));
    assert!(server.seen().bytes - before < 1000, "content was sent");
    // What is in the way of another is not taken for its own.
    put(&*session, "f/x", b"x").unwrap();
    assert!(matches!(session.rename(&path("e"), &path("f")), Err(TargetError::Refused { .. })));
}

#[test]
fn more_than_a_page_is_listed_in_order_past_the_trash_and_what_others_put_there() {
    let server = Server::start("bucket").unwrap();
    let session = open(&server);
    for number in 0..2100 {
        server.store.put("bucket", &format!("p/.keepwatch-trash/day/{number}"), b"old");
    }
    for key in ["p//odd", "p/a//b", "p/!x", "q/elsewhere", "p/folder/", "p/!%0A"] {
        server.store.put("bucket", key, b"theirs");
    }
    for number in 0..1500 {
        server.store.put("bucket", &format!("p/z/{number:04}"), b"");
    }
    let requests = server.seen().of("HEAD");
    let mut listed = Vec::new();
    let mut each = |path: &RelPath, found: crate::target::Found| {
        listed.push((path.as_bytes().to_vec(), found.kind));
        ControlFlow::Continue(())
    };
    session.list(&RelPath::ROOT, &mut each).unwrap();
    let first = [(b"\n".to_vec(), FileType::File), (b"folder".to_vec(), FileType::Dir), (b"z".to_vec(), FileType::Dir)];
    assert_eq!(listed[..3], first);
    assert_eq!(listed.len(), 1503);
    assert_eq!(server.seen().of("HEAD") - requests, 1501, "the trash is not looked at");
}

#[test]
fn what_a_bucket_cannot_hold_is_refused_one_by_one() {
    let server = Server::start("bucket").unwrap();
    let session = open(&server);
    let long = vec!["x".repeat(250); 5].join("/");
    assert!(matches!(stage(&*session, &long, b"x"), Err(TargetError::Refused { .. })));
    let pipe = session.stage(&path("pipe"), &meta(0), Content::Fifo);
    assert!(matches!(pipe, Err(TargetError::Refused { .. })));
    put(&*session, "fine", b"x").unwrap();
}

#[test]
fn what_is_wrong_is_named_and_no_secret_with_it() {
    let server = Server::start("bucket").unwrap();
    let why = |place: &str, change: &dyn Fn(&mut S3Access)| {
        let mut access = access(&server);
        change(&mut access);
        let place = S3Place::parse(place.as_bytes()).unwrap();
        let shown = access.clone();
        let target = S3Target::patient(&place, &S3Source::new(move || Ok(access.clone())), little_patience());
        let error = target.open(&claim()).map(|_| ()).unwrap_err();
        assert!(matches!(error, TargetError::Away { .. }), "{error:?}");
        let text = format!("{error} {error:?} {shown:?} {target:?}");
        assert!(!text.contains("hush") && !text.contains(keepwatch_s3_server::SECRET), "{text}");
        error.to_string()
    };
    let keys = |id: &str, secret: &str| Credentials::Keys { key_id: id.to_owned(), secret: secret.into(), token: None };
    assert!(why("nobucket/p", &|_| {}).contains("no bucket `nobucket`: make it"));
    let wrong = why("bucket", &|access| access.credentials = keys(keepwatch_s3_server::KEY_ID, "hush"));
    assert!(wrong.contains("secret access key does not belong"), "{wrong}");
    let unknown = why("bucket", &|access| access.credentials = keys("AKNOBODY", "hush"));
    assert!(unknown.contains("access key id is not known"), "{unknown}");
    let region = why("bucket", &|access| access.region = "mars-1".to_owned());
    assert!(region.contains("region"), "{region}");
    let nowhere = why("bucket", &|access| {
        access.credentials = Credentials::Instance { endpoint: Some("http://127.0.0.1:1".to_owned()) }
    });
    assert!(nowhere.contains("no credentials"), "{nowhere}");
}

#[test]
fn no_request_outgrows_its_memory_and_all_come_through() {
    let server = Server::start("bucket").unwrap();
    let session = open(&server);
    // Many more bytes than may wait in memory: some go in one request, some in parts.
    let content = noise(5 * MIB, 9);
    let staged: Vec<Staged> = (0..30).map(|n| stage(&*session, &format!("{n}"), &content).unwrap()).collect();
    assert!(!server.store.uploads("bucket").is_empty());
    assert!(session.publish(staged, None).into_iter().all(|result| result.is_ok()));
    for number in 0..30 {
        assert_eq!(server.store.object("bucket", &format!("p/{number}")).unwrap().bytes(), content);
    }
    assert_eq!(server.store.uploads("bucket"), []);
}
