//! The suite over the wire, against servers that speak as the two stores do; faults on order; and what is refused.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::time::Duration;

use keepwatch_s3_server::{ACCOUNT, ACCOUNT_KEY, Dialect, Fault, Order, Server, TOKEN};

use super::*;
use crate::target::conformance::{claim, conforms, meta, path};
use crate::target::{Content, Session};

fn little_patience() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        reply: Duration::from_secs(20),
        work: Duration::from_secs(20),
        rate_min: 50_000_000,
        pause: Duration::from_millis(10),
        tries: 6,
    }
}

fn google(server: &Server) -> CloudAccess {
    let credentials = GoogleCredentials::Token(TOKEN.into());
    CloudAccess::Google(GoogleAccess { endpoint: Some(server.endpoint()), credentials })
}

/// A place and a spool.
fn at(place: (Cloud, &str), access: CloudAccess, spool: &Path) -> Arc<dyn Target> {
    let place = CloudPlace::parse(place.0, place.1.as_bytes()).unwrap();
    target(&place, &CloudSource::new(move |_| Ok(access.clone())), little_patience(), spool)
}

#[test]
fn a_bucket_of_google_s_conforms() {
    for place in ["bucket", "bucket/some/where"] {
        let server = Server::speaking(Dialect::Google, "bucket").unwrap();
        let spool = tempfile::tempdir().unwrap();
        conforms(&*at((Cloud::Google, place), google(&server), spool.path()));
        assert_eq!(server.store.uploads("bucket"), []);
    }
}

fn azure(server: &Server, key: &str) -> CloudAccess {
    let (account, credentials) = (ACCOUNT.to_owned(), AzureCredentials::Key(key.into()));
    CloudAccess::Azure(AzureAccess { account, endpoint: Some(server.endpoint()), credentials })
}

/// A server of each kind with an empty bucket, and the bucket as a target.
fn both() -> [(Server, Arc<dyn Target>, tempfile::TempDir); 2] {
    [Cloud::Google, Cloud::Azure].map(|cloud| {
        let dialect = if cloud == Cloud::Google { Dialect::Google } else { Dialect::Azure };
        let (server, spool) = (Server::speaking(dialect, "bucket").unwrap(), tempfile::tempdir().unwrap());
        let access = if cloud == Cloud::Google { google(&server) } else { azure(&server, ACCOUNT_KEY) };
        let target = at((cloud, "bucket/p"), access, spool.path());
        (server, target, spool)
    })
}

fn put(session: &dyn Session, at: &str, mut bytes: &[u8]) -> Result<()> {
    let size = bytes.len() as u64;
    let content = Content::File { bytes: &mut bytes, size, is_sparse: false };
    let staged = session.stage(&path(at), &meta(), content)?;
    session.publish(vec![staged], None).pop().unwrap()
}

#[test]
fn a_container_of_azure_s_conforms() {
    for place in ["bucket", "bucket@devstoreaccount1/some/where"] {
        let server = Server::speaking(Dialect::Azure, "bucket").unwrap();
        let spool = tempfile::tempdir().unwrap();
        conforms(&*at((Cloud::Azure, place), azure(&server, ACCOUNT_KEY), spool.path()));
    }
}

#[test]
fn a_large_file_goes_in_parts_through_faults_and_is_whole_or_not_there() {
    let content: Vec<u8> = (0..20_000_003_usize).map(|at| (at.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    for (server, target, _spool) in both() {
        let (session, _) = target.open(&claim("one", None)).unwrap();
        let order = |method, contains: &str, fault| {
            server.faults.order(Order { method, contains: contains.to_owned(), after: 0, times: 1, fault });
        };
        for fault in [Fault::InternalError, Fault::SlowDown, Fault::ReplyLost, Fault::Cut] {
            order("PUT", "", fault);
        }
        // What joins the parts is done, and its reply lost.
        order("POST", "uploadId", Fault::ReplyLost);
        order("PUT", "blocklist", Fault::ReplyLost);
        put(&*session, "large", &content).unwrap();
        let object = server.store.object("bucket", "p/large").unwrap();
        assert!(object.bytes() == content && object.etag.ends_with("-3"), "{}", object.etag);
        order("GET", "large", Fault::Cut);
        order("GET", "large", Fault::InternalError);
        let mut read = Vec::new();
        session.read(&path("large")).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == content);
        server.faults.order(Order {
            method: "PUT",
            contains: "other".to_owned(),
            after: 1,
            times: 100,
            fault: Fault::SlowDown,
        });
        let error = put(&*session, "other", &content).unwrap_err();
        assert!(error.is_of_the_place() && error.to_string().contains("again and again"), "{error}");
        assert!(server.store.object("bucket", "p/other").is_none());
        let is_google = server.store.uploads("bucket").is_empty();
        let is_azure = target.nature().proof == Proof::Proved && !server.store.uploads("bucket").is_empty();
        assert!(is_google || is_azure, "Google's upload is given up; Azure forgets its blocks by itself");
    }
}

#[test]
fn a_copy_whose_source_is_gone_after_a_lost_reply_is_known_to_be_done() {
    for (server, target, _spool) in both() {
        let (session, _) = target.open(&claim("one", None)).unwrap();
        put(&*session, "from", b"content").unwrap();
        for method in ["PUT", "DELETE", "POST"] {
            let order = Order { method, contains: String::new(), after: 0, times: 2, fault: Fault::ReplyLost };
            server.faults.order(order);
        }
        session.rename(&path("from"), &path("to")).unwrap();
        assert_eq!(server.store.object("bucket", "p/to").unwrap().bytes(), b"content");
        assert!(server.store.object("bucket", "p/from").is_none());
    }
}

#[test]
fn the_first_mark_stays() {
    for (server, target, _spool) in both() {
        // The mark is put, and the reply lost: asked again, the store says that it is there.
        let order = Order { method: "PUT", contains: String::new(), after: 0, times: 1, fault: Fault::ReplyLost };
        server.faults.order(order);
        let (_, identity) = target.open(&claim("one", None)).unwrap();
        let key = "p/.keepwatch-replica.json";
        let mark = server.store.object("bucket", key).unwrap();
        assert_eq!(mark.metadata.len(), 5, "{:?}", mark.metadata);
        assert_eq!(target.probe(&claim("one", Some(&identity))).unwrap().as_deref(), Some(&*identity));
        assert!(matches!(target.open(&claim("two", None)), Err(TargetError::Owned { .. })));
        assert_eq!(server.store.object("bucket", key).unwrap().etag, mark.etag);
    }
}

#[test]
fn a_listing_of_many_pages_is_in_the_order_of_paths() {
    for (server, target, _spool) in both() {
        for number in 0..1100 {
            server.store.put("bucket", &format!("p/{:02}/{number}", number % 13), b"x");
        }
        server.store.put("bucket", "p/!a%0A", b"x");
        server.store.put("bucket", "elsewhere", b"x");
        let mut last: Option<RelPath> = None;
        let mut files = 0;
        target
            .survey(&RelPath::ROOT, &mut |path, found| {
                assert!(last.as_ref().is_none_or(|last| last < path));
                last = Some(path.clone());
                files += usize::from(found.kind == FileType::File && found.mtime_ns > 0);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(files, 1101);
    }
}

fn why(place: (Cloud, &str), access: CloudAccess) -> String {
    let spool = tempfile::tempdir().unwrap();
    match at(place, access, spool.path()).open(&claim("one", None)).map(|_| ()) {
        Err(error @ TargetError::Away { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_wrong_is_named_with_the_remedy_and_no_secret() {
    let server = Server::speaking(Dialect::Google, "bucket").unwrap();
    let endpoint = Some(server.endpoint());
    let none = why((Cloud::Google, "other"), google(&server));
    assert!(none.contains("no bucket `other`: make it"), "{none}");
    let credentials = GoogleCredentials::Token("hush".into());
    let wrong = why((Cloud::Google, "bucket"), CloudAccess::Google(GoogleAccess { endpoint, credentials }));
    assert!(wrong.contains("401") && wrong.contains("credentials_file") && !wrong.contains("hush"), "{wrong}");
    let server = Server::speaking(Dialect::Azure, "bucket").unwrap();
    let none = why((Cloud::Azure, "other"), azure(&server, ACCOUNT_KEY));
    assert!(none.contains("no container `other`"), "{none}");
    let wrong = why((Cloud::Azure, "bucket"), azure(&server, "aHVzaA=="));
    assert!(wrong.contains("not right") && wrong.contains("AZURE_STORAGE_ACCOUNT_KEY"), "{wrong}");
    assert!(!wrong.contains("aHVzaA=="), "{wrong}");
    assert!(why((Cloud::Azure, "bucket"), azure(&server, "h u s h")).contains("no base64"));
    let endpoint = Some("http://127.0.0.1:1".to_owned());
    let credentials = GoogleCredentials::Token(TOKEN.into());
    let away =
        why((Cloud::Google, "bucket"), CloudAccess::Google(GoogleAccess { endpoint: endpoint.clone(), credentials }));
    assert!(away.contains("127.0.0.1:1 cannot be reached") && away.contains("check `endpoint`"), "{away}");
    let credentials = AzureCredentials::Machine { client: None, endpoint: Some("http://127.0.0.1:1/token".to_owned()) };
    let machine = AzureAccess { account: ACCOUNT.to_owned(), endpoint: Some(server.endpoint()), credentials };
    let nobody = why((Cloud::Azure, "bucket"), CloudAccess::Azure(machine));
    assert!(nobody.contains("no credentials"), "{nobody}");
    let file = GoogleCredentials::File("/no/such/key.json".into());
    let file = why((Cloud::Google, "bucket"), CloudAccess::Google(GoogleAccess { endpoint, credentials: file }));
    assert!(file.contains("/no/such/key.json cannot be used") && file.contains("get the key anew"), "{file}");
}

/// Changes the last byte of each file that waits.
fn spoil(spool: &Path) {
    for dir in std::fs::read_dir(spool).unwrap().flatten() {
        for file in std::fs::read_dir(dir.path()).unwrap().flatten().filter(|file| file.file_name() != "lock") {
            let mut bytes = std::fs::read(file.path()).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(file.path(), bytes).unwrap();
        }
    }
}

#[test]
fn what_changes_while_it_waits_to_be_sent_is_not_put() {
    for (server, target, spool) in both() {
        let (session, _) = target.open(&claim("one", None)).unwrap();
        for size in [100, 9_000_000] {
            let bytes = vec![7; size];
            let content = Content::File { bytes: &mut &bytes[..], size: size as u64, is_sparse: false };
            let staged = session.stage(&path("file"), &meta(), content).unwrap();
            spoil(spool.path());
            let error = session.publish(vec![staged], None).pop().unwrap().unwrap_err();
            assert!(error.to_string().contains("changed while it waited"), "{error}");
            assert!(server.store.object("bucket", "p/file").is_none());
        }
    }
}

#[test]
fn names_that_azure_would_change_are_refused_one_by_one() {
    let [_, (server, target, _spool)] = both();
    let (session, _) = target.open(&claim("one", None)).unwrap();
    for name in ["dot.", "d./x", "back\\slash"] {
        assert!(matches!(put(&*session, name, b"x"), Err(TargetError::Refused { .. })), "{name}");
    }
    put(&*session, "fine", b"x").unwrap();
    assert!(server.store.object("bucket", "p/fine").is_some());
}
