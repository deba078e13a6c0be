//! Holding files against a manifest.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use super::manifest::{Kind, Line};
use super::read::BUFFER_BYTES;

/// What came of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// The content is what the manifest says; so many bytes.
    Fits(u64),
    /// It is another.
    Differs,
    /// There is no such file.
    Missing,
    /// It could not be read.
    Unreadable(String),
}

/// Hashes in the ways that one line may mean.
#[derive(Default)]
struct Hashers {
    md5: Option<Md5>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
    sha512: Option<Sha512>,
    blake3: Option<Box<blake3::Hasher>>,
}

impl Hashers {
    fn new(kind: Kind) -> Self {
        let mut hashers = Hashers::default();
        match kind {
            Kind::Md5 => hashers.md5 = Some(Md5::new()),
            Kind::Sha1 => hashers.sha1 = Some(Sha1::new()),
            Kind::Sha512 => hashers.sha512 = Some(Sha512::new()),
            Kind::Sha256 => hashers.sha256 = Some(Sha256::new()),
            Kind::Blake3 => hashers.blake3 = Some(Box::default()),
            Kind::Either => {
                hashers.sha256 = Some(Sha256::new());
                hashers.blake3 = Some(Box::default());
            }
        }
        hashers
    }

    fn update(&mut self, bytes: &[u8]) {
        self.md5.iter_mut().for_each(|hash| hash.update(bytes));
        self.sha1.iter_mut().for_each(|hash| hash.update(bytes));
        self.sha256.iter_mut().for_each(|hash| hash.update(bytes));
        self.sha512.iter_mut().for_each(|hash| hash.update(bytes));
        self.blake3.iter_mut().for_each(|hash| {
            hash.update(bytes);
        });
    }

    fn has(self, wanted: &[u8]) -> bool {
        self.md5.is_some_and(|hash| hash.finalize()[..] == *wanted)
            || self.sha1.is_some_and(|hash| hash.finalize()[..] == *wanted)
            || self.sha256.is_some_and(|hash| hash.finalize()[..] == *wanted)
            || self.sha512.is_some_and(|hash| hash.finalize()[..] == *wanted)
            || self.blake3.is_some_and(|hash| hash.finalize().as_bytes()[..] == *wanted)
    }
}

/// Holds the files of a manifest, whose names are taken from a directory, against it, in threads; tells of each, in any order.
pub fn hold(lines: &[Line], base: &Path, threads: usize, each: &mut dyn FnMut(&Line, Held)) {
    let next = AtomicUsize::new(0);
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (next, tell) = (&next, tell.clone());
            scope.spawn(move || {
                let mut buffer = vec![0; BUFFER_BYTES];
                while let Some(line) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let held = match hold_one(line, base, &mut buffer) {
                        Ok(held) => held,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => Held::Missing,
                        Err(error) => Held::Unreadable(error.to_string()),
                    };
                    if tell.send((line, held)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        told.iter().for_each(|(line, held)| each(line, held));
    });
}

fn hold_one(line: &Line, base: &Path, buffer: &mut [u8]) -> io::Result<Held> {
    let mut file = File::open(base.join(OsStr::from_bytes(&line.name)))?;
    let mut hashers = Hashers::new(line.kind);
    let mut bytes = 0;
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(read) => {
                hashers.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(if hashers.has(&line.hash) { Held::Fits(bytes) } else { Held::Differs })
}
