//! What every target does, tried on each: one suite, so that none is special.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use keepwatch_s3_server::Server;

use super::memory::MemoryTarget;
use super::s3::testing::bucket;
use super::{Claim, Content, LocalTarget, Meta, Session, Target, TargetError, set_aside};
use crate::model::{FileType, RelPath};

pub(super) fn path(text: impl AsRef<[u8]>) -> RelPath {
    RelPath::new(text.as_ref()).unwrap()
}

pub(super) fn claim(owner: &str, identity: Option<&str>) -> Claim {
    Claim {
        owner: owner.to_owned(),
        state: "s".to_owned(),
        host: "h".to_owned(),
        identity: identity.map(str::to_owned),
    }
}

pub(super) fn meta() -> Meta {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Meta { mode: 0o640, uid, gid, mtime_ns: 1_234_567_890_123_456_789, xattrs: Vec::new() }
}

fn put(session: &dyn Session, at: &RelPath, bytes: &[u8], keep: Option<&RelPath>) {
    put_with(session, at, &meta(), bytes, keep);
}

fn put_with(session: &dyn Session, at: &RelPath, meta: &Meta, mut bytes: &[u8], keep: Option<&RelPath>) {
    let size = bytes.len() as u64;
    let content = Content::File { bytes: &mut bytes, size, is_sparse: false };
    let staged = session.stage(at, meta, content).unwrap();
    for result in session.publish(vec![staged], keep) {
        result.unwrap();
    }
}

fn read(session: &dyn Session, at: &RelPath) -> Vec<u8> {
    let mut bytes = Vec::new();
    session.read(at).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn keys(session: &dyn Session, below: &RelPath) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    session
        .list(below, &mut |path, found| {
            let mut key = path.as_bytes().to_vec();
            if found.kind == FileType::Dir {
                key.push(b'/');
            }
            keys.push(key);
            ControlFlow::Continue(())
        })
        .unwrap();
    keys
}

/// All of it, on an empty target.
pub(super) fn conforms(target: &dyn Target) {
    let (session, identity) = target.open(&claim("one", None)).unwrap();
    let (session, is_filesystem) = (&*session, target.nature().is_filesystem);
    assert_eq!(target.probe(&claim("one", Some(&identity))).unwrap().as_deref(), Some(&*identity));
    assert!(matches!(target.open(&claim("other", None)), Err(TargetError::Owned { .. })));
    assert!(matches!(target.open(&claim("one", Some("another"))), Err(TargetError::Away { .. })));
    assert_eq!(keys(session, &RelPath::ROOT), Vec::<Vec<u8>>::new());
    put_and_overwrite(session, is_filesystem, target.nature().mtime_step_ns);
    many_at_once(session);
    names_and_order(session);
    links_and_attributes(session, target.nature().mtime_step_ns);
    rename_and_remove(session, is_filesystem);
    let mut surveyed = 0;
    let mut count = |_: &RelPath, _| {
        surveyed += 1;
        ControlFlow::Continue(())
    };
    target.survey(&RelPath::ROOT, &mut count).unwrap();
    assert_eq!(surveyed, keys(session, &RelPath::ROOT).len());
}

fn put_and_overwrite(session: &dyn Session, is_filesystem: bool, step_ns: i64) {
    let (file, trash) = (path("p/file"), path(".keepwatch-trash/2026-01-01"));
    put(session, &file, b"first", None);
    assert_eq!(read(session, &file), b"first");
    let found = session.look(&file).unwrap().unwrap();
    let mtime_ns = meta().mtime_ns.div_euclid(step_ns) * step_ns;
    assert_eq!((found.kind, found.size, found.mtime_ns), (FileType::File, 5, mtime_ns));
    put(session, &file, b"second", Some(&trash));
    assert_eq!(read(session, &file), b"second");
    assert_eq!(read(session, &path(".keepwatch-trash/2026-01-01/p/file")), b"first");
    put(session, &path("p/empty"), b"", None);
    assert_eq!(session.look(&path("p/empty")).unwrap().unwrap().size, 0);
    // What is not published is nowhere.
    let mut half: &[u8] = b"half";
    let content = Content::File { bytes: &mut half, size: 4, is_sparse: false };
    let staged = session.stage(&path("p/half"), &meta(), content).unwrap();
    session.discard(staged);
    assert_eq!(session.look(&path("p/half")).unwrap(), None);
    assert_eq!(session.look(&path("nowhere/at/all")).unwrap(), None);
    // A file is not put in the place of a directory.
    let content = Content::File { bytes: &mut &b"x"[..], size: 1, is_sparse: false };
    let staged = session.stage(&path("p"), &meta(), content).unwrap();
    let result = session.publish(vec![staged], None).pop().unwrap();
    assert!(result.is_err() || !is_filesystem);
    assert_eq!(read(session, &file), b"second");
}

fn many_at_once(session: &dyn Session) {
    let staged = std::thread::scope(|scope| {
        let put = |thread: usize| {
            move || -> Vec<_> {
                let one = |number: usize| {
                    let bytes = vec![number as u8; 1000];
                    let content = Content::File { bytes: &mut &bytes[..], size: 1000, is_sparse: false };
                    session.stage(&path(format!("m/{thread}/{number}")), &meta(), content).unwrap()
                };
                (0..50).map(one).collect()
            }
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(put(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(staged.len(), 200);
    for result in session.publish(staged, None) {
        result.unwrap();
    }
    assert_eq!(read(session, &path("m/3/49")), vec![49; 1000]);
}

fn names_and_order(session: &dyn Session) {
    let odd: &[&[u8]] = &[b"a", b"a-b", b"a\n'\"", b"-x", b"\xff\xfe", b"a.b", b"a0"];
    for name in odd {
        put(session, &path("n").join(name), name, None);
    }
    session.make_dir(&path("n/dir")).unwrap();
    session.make_dir(&path("n/dir")).unwrap();
    put(session, &path("n/dir/x"), b"x", None);
    put(session, &path("n/dir-x"), b"x", None);
    put(session, &path("n/dir0"), b"x", None);
    put(session, &path("n").join(&[b'l'; 255]), b"long", None);
    let listed = keys(session, &path("n"));
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(listed, sorted);
    assert_eq!(listed.len(), odd.len() + 5);
    assert_eq!(read(session, &path("n").join(b"\xff\xfe")), b"\xff\xfe");
    let all = keys(session, &RelPath::ROOT);
    assert!(all.contains(&b"n/dir/".to_vec()) && !all.iter().any(|key| key.starts_with(b".keepwatch")));
}

fn links_and_attributes(session: &dyn Session, step_ns: i64) {
    let (link, to) = (path("l/link"), b"../some/where \xff".as_slice());
    let staged = session.stage(&link, &meta(), Content::Symlink(to)).unwrap();
    session.publish(vec![staged], None).pop().unwrap().unwrap();
    let found = session.look(&link).unwrap().unwrap();
    assert_eq!((found.kind, found.target.as_deref()), (FileType::Symlink, Some(to)));
    let other = path("l/other-link");
    if session.link(&link, &other).is_ok() {
        let found = session.look(&other).unwrap().unwrap();
        assert_eq!((found.kind, found.target.as_deref()), (FileType::Symlink, Some(to)), "not what it points to");
        assert!(session.remove(&other).unwrap());
    }
    put(session, &path("l/file"), b"file", None);
    // What keeps whole seconds keeps none before 1970.
    let mtime_ns = if step_ns == 1 { -1_500_000_000 } else { 1_500_000_000 * step_ns };
    let later = Meta { mtime_ns, mode: 0o600, ..meta() };
    match session.set_meta(&path("l/file"), FileType::File, &later) {
        // Where attributes come with the content alone, it is put again.
        Err(TargetError::Unable { .. }) => put_with(session, &path("l/file"), &later, b"file", None),
        set => set.unwrap(),
    }
    session.set_meta(&path("l/file"), FileType::File, &later).unwrap();
    assert_eq!(session.look(&path("l/file")).unwrap().unwrap().mtime_ns, later.mtime_ns);
    assert_eq!(read(session, &path("l/file")), b"file");
    assert_eq!(keys(session, &path("l")), [&b"l/file"[..], b"l/link"]);
}

fn rename_and_remove(session: &dyn Session, is_filesystem: bool) {
    let refused = |result: super::Result<()>| matches!(result, Err(TargetError::Refused { .. }));
    session.rename(&path("n/dir"), &path("r/s/dir")).unwrap();
    assert_eq!(read(session, &path("r/s/dir/x")), b"x");
    assert!(refused(session.rename(&path("n/a"), &path("n/a0"))), "nothing is renamed over");
    assert!(session.rename(&path("n/never"), &path("n/more")).is_err());
    assert!(refused(session.remove(&path("r/s/dir")).map(|_| ())), "a directory that holds something stays");
    assert!(session.remove(&path("r/s/dir/x")).unwrap());
    // Where there are only objects, a directory goes with the last of them.
    assert_eq!(session.remove(&path("r/s/dir")).unwrap(), is_filesystem);
    assert!(!session.remove(&path("r/s/dir")).unwrap());
    put(session, &path("r/s/dir"), b"a file where a directory was", None);
    assert!(session.remove(&path("r/s/dir")).unwrap());
    let trash = path(".keepwatch-trash/day");
    for _ in 0..2 {
        put(session, &path("r/t"), b"t", None);
        assert!(set_aside(session, &path("r/t"), &trash).unwrap());
    }
    assert_eq!(read(session, &path(".keepwatch-trash/day/r/t~2")), b"t");
    assert!(!set_aside(session, &path("r/t"), &trash).unwrap());
    assert!(
        keys(session, &trash).ends_with(&[b".keepwatch-trash/day/r/t~2".to_vec()]),
        "the trash is listed if asked for"
    );
    session.sync().unwrap();
}

#[test]
fn a_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&LocalTarget::new(dir.path()));
}

#[test]
fn a_bucket_conforms() {
    for prefix in ["", "some/where"] {
        let server = Server::start("bucket").unwrap();
        conforms(&bucket(&server, prefix, super::Patience::default()));
    }
}

#[test]
fn memory_conforms() {
    conforms(&MemoryTarget::default());
}
