//! Both ways to a far side, over pipes: the receiver in threads of this process, sftp with the system's own server.
#![allow(clippy::unwrap_used)]

use std::io::{BufReader, Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::address::FarDir;
use super::receiver::{self, Remote};
use super::{SshAddress, SshOptions, SshTarget, Way, serve};
use crate::model::RelPath;
use crate::target::conformance::{claim, conforms, meta, path};
use crate::target::{Claim, Content, Found, LocalTarget, Nature, Result, Session, Target, TargetError};

/// A target behind a receiver that runs in this process.
#[derive(Debug)]
struct Piped {
    top: PathBuf,
}

/// One connection to a receiver, and the thread that is its far side.
fn connect(top: &Path) -> (Arc<Remote>, UnixStream, JoinHandle<std::io::Result<()>>) {
    let (near, far) = UnixStream::pair().unwrap();
    let top = top.to_owned();
    let side = std::thread::spawn(move || {
        let (mut input, mut output) = (BufReader::new(far.try_clone().unwrap()), far);
        serve(&mut input, &mut output, &|dir: &FarDir| {
            assert_eq!(*dir, FarDir::Home(b"x".to_vec()));
            Ok(Box::new(LocalTarget::new(&top)))
        })
    });
    let (mut input, mut output) = (near.try_clone().unwrap(), near.try_clone().unwrap());
    assert!(receiver::greet(&mut input, &mut output).unwrap().is_some());
    let ended = Box::new(|_| "the pipe was closed".to_owned());
    let remote = receiver::begin("far", Box::new(input), Box::new(output), ended).unwrap();
    (Arc::new(remote), near, side)
}

fn far() -> FarDir {
    FarDir::Home(b"x".to_vec())
}

impl Target for Piped {
    fn nature(&self) -> Nature {
        LocalTarget::new(&self.top).nature()
    }

    fn open(&self, claim: &Claim) -> Result<(Box<dyn Session>, String)> {
        let (session, identity, nature) = connect(&self.top).0.open(&far(), claim)?;
        assert_eq!(nature, self.nature());
        Ok((session, identity))
    }

    fn probe(&self, claim: &Claim) -> Result<Option<String>> {
        connect(&self.top).0.probe(&far(), claim)
    }

    fn survey(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        connect(&self.top).0.survey(&far(), below, each)
    }
}

#[test]
fn a_receiver_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&Piped { top: dir.path().to_owned() });
}

/// A target behind the system's sftp server, which a stand-in for `ssh` starts.
fn sftp(dir: &tempfile::TempDir, top: &Path) -> SshTarget {
    let program = dir.path().join("ssh");
    if !program.exists() {
        std::fs::write(&program, "#!/bin/sh\ncd / && exec /usr/lib/openssh/sftp-server -e\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let url = [b"ssh://far", top.as_os_str().as_encoded_bytes()].concat();
    let options = SshOptions { program: program.into(), way: Way::Sftp, ..SshOptions::default() };
    SshTarget::new(SshAddress::parse(&url).unwrap(), options)
}

#[test]
fn an_sftp_server_conforms() {
    let (dir, top) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    conforms(&sftp(&dir, top.path()));
    assert_eq!(std::fs::read_dir(top.path().join(".keepwatch-tmp")).unwrap().count(), 0);
}

fn file<'a>(bytes: &'a mut &[u8]) -> Content<'a> {
    let size = bytes.len() as u64;
    Content::File { bytes, size, is_sparse: false }
}

#[test]
fn a_large_file_goes_there_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, ..) = connect(dir.path());
    let (session, ..) = remote.open(&far(), &claim("one", None)).unwrap();
    let bytes: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let staged = session.stage(&path("large"), &meta(), file(&mut &bytes[..])).unwrap();
    session.publish(vec![staged], None).pop().unwrap().unwrap();
    let mut back = Vec::new();
    session.read(&path("large")).unwrap().read_to_end(&mut back).unwrap();
    assert!(back == bytes, "{} bytes came back", back.len());
    // One that is not read to its end leaves the connection of use.
    let mut begin = [0; 8];
    session.read(&path("large")).unwrap().read_exact(&mut begin).unwrap();
    assert_eq!(begin, bytes[..8]);
    session.sync().unwrap();
}

#[test]
fn a_listing_of_many_pages_is_complete_and_can_be_left() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..20_000).map(|number| format!("a-name-that-is-not-short-{number:05}")).collect();
    for name in &names {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    let (remote, ..) = connect(dir.path());
    let (session, ..) = remote.open(&far(), &claim("one", None)).unwrap();
    let mut listed = Vec::new();
    let list = |each: &mut dyn FnMut(&RelPath) -> bool| {
        session.list(&RelPath::ROOT, &mut |path, _| match each(path) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    };
    list(&mut |path| {
        listed.push(String::from_utf8(path.as_bytes().to_vec()).unwrap());
        // Others may be asked for meanwhile.
        !listed.len().is_multiple_of(5000) || session.look(path).unwrap().is_some()
    })
    .unwrap();
    assert_eq!(listed, names);
    let mut seen = 0;
    list(&mut |_| {
        seen += 1;
        seen < 7_000
    })
    .unwrap();
    assert_eq!(seen, 7_000);
    session.sync().unwrap();
}

/// Reads zeros, and does something after so many.
struct Tripwire<'a> {
    left: usize,
    at_end: &'a mut dyn FnMut() -> std::io::Result<usize>,
}

impl std::io::Read for Tripwire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return (self.at_end)();
        }
        let read = buffer.len().min(self.left);
        buffer[..read].fill(0);
        self.left -= read;
        Ok(read)
    }
}

#[test]
fn what_cannot_be_read_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, ..) = connect(dir.path());
    let (session, ..) = remote.open(&far(), &claim("one", None)).unwrap();
    let mut broken = || Err(std::io::Error::from_raw_os_error(5));
    let mut bytes = Tripwire { left: 3_000_000, at_end: &mut broken };
    let content = Content::File { bytes: &mut bytes, size: 4_000_000, is_sparse: false };
    assert!(matches!(session.stage(&path("x"), &meta(), content), Err(TargetError::Source { .. })));
    let staged = session.stage(&path("y"), &meta(), file(&mut &b"y"[..])).unwrap();
    session.publish(vec![staged], None).pop().unwrap().unwrap();
    let staging = dir.path().join(".keepwatch-tmp");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::fs::read_dir(&staging).unwrap().next().is_some() {
        assert!(std::time::Instant::now() < until, "what was staged is still there");
        std::thread::yield_now();
    }
}

#[test]
fn a_connection_lost_at_any_step_is_a_target_that_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let is_away = |result: Result<()>| matches!(result, Err(TargetError::Away { .. }));
    // In the middle of a file.
    let (remote, near, side) = connect(dir.path());
    let (session, ..) = remote.open(&far(), &claim("one", None)).unwrap();
    let mut cut = || {
        near.shutdown(std::net::Shutdown::Both)?;
        Ok(0)
    };
    let mut bytes = Tripwire { left: 9_000_000, at_end: &mut cut };
    let content = Content::File { bytes: &mut bytes, size: 9_000_000, is_sparse: false };
    let staged = session.stage(&path("x"), &meta(), content);
    let published = staged.and_then(|staged| session.publish(vec![staged], None).pop().unwrap());
    assert!(is_away(published));
    let _ = side.join().unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join(".keepwatch-tmp")).unwrap().count(), 0, "the far side has cleaned up");
    // With something staged; then every other request.
    let (remote, near, side) = connect(dir.path());
    let (session, ..) = remote.open(&far(), &claim("one", None)).unwrap();
    let staged = session.stage(&path("x"), &meta(), file(&mut &b"x"[..])).unwrap();
    assert!(session.look(&path("x")).unwrap().is_none());
    near.shutdown(std::net::Shutdown::Both).unwrap();
    let _ = side.join().unwrap();
    assert!(is_away(session.publish(vec![staged], None).pop().unwrap()));
    assert!(is_away(session.look(&path("x")).map(drop)));
    assert!(is_away(session.list(&RelPath::ROOT, &mut |_, _| ControlFlow::Continue(()))));
    assert!(is_away(session.read(&path("x")).map(drop)));
    assert!(is_away(session.make_dir(&path("x"))));
    assert!(is_away(session.rename(&path("x"), &path("y"))));
    assert!(is_away(session.remove(&path("x")).map(drop)));
    assert!(is_away(session.sync()));
    assert!(remote.is_lost());
    assert_eq!(std::fs::read_dir(dir.path().join(".keepwatch-tmp")).unwrap().count(), 0);
}

#[test]
fn a_far_side_that_is_hostile_or_noisy_is_survived() {
    // A shell's greeting comes before ours.
    let mut noisy = &b"Welcome to vault!\nkeepwatch\nkeepwatch takes\n\0\0\0\x01"[..];
    assert!(receiver::greet(&mut noisy, &mut std::io::sink()).unwrap().is_some());
    assert!(receiver::greet(&mut &b"keepwatch: command not found"[..], &mut std::io::sink()).unwrap().is_none());
    assert!(receiver::greet(&mut std::io::repeat(b'x'), &mut std::io::sink()).unwrap().is_none());
    // Paths with `..` in a listing, a frame that is too long, answers that make no sense.
    for answer in [
        &b"\0\0\0\x17\x6d\0\0\0\0\0\0\0\x04../x\0\0\0\0\0\0\0\0\0"[..],
        b"\xff\xff\xff\xff\x6d\0\0\0\0",
        b"\0\0\0\x05\x03\0\0\0\0",
        b"\0\0\0\x05\x66\0\0\0\0",
    ] {
        let (near, mut far) = UnixStream::pair().unwrap();
        let ended = Box::new(|error: Option<std::io::Error>| format!("{error:?}"));
        let (input, output) = (Box::new(near.try_clone().unwrap()), Box::new(near));
        let remote = Arc::new(receiver::begin("far", input, output, ended).unwrap());
        let session = super::receiver::session(&remote);
        far.write_all(answer).unwrap();
        let side = std::thread::spawn(move || {
            // Nothing is asked if the first answer was seen to be wrong before.
            far.set_read_timeout(Some(Duration::from_secs(1)))?;
            let _ = far.read(&mut [0; 64]);
            far.write_all(answer)
        });
        let mut seen = 0;
        let listed = session.list(&RelPath::ROOT, &mut |_, _| {
            seen += 1;
            ControlFlow::Continue(())
        });
        assert!(matches!(listed, Err(TargetError::Away { .. })), "{answer:?}: {listed:?}");
        assert_eq!(seen, 0);
        drop((session, remote));
        let _ = side.join().unwrap();
    }
}
