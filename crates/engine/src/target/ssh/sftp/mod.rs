//! A far side that has nothing but an sftp server. The requests of many objects are sent together and their answers waited for
//! together; what a server of OpenSSH can do beyond the standard (durable writes, renames in one step, second names) is used
//! where it is there.
//!
//! The server follows symbolic links on the way to a file. So each directory is looked at before it is used the first time;
//! somebody who may swap directories at the far side meanwhile is not kept out by that, as a local target keeps them out.

mod list;
mod protocol;
mod read;
mod server;
mod session;
mod upload;

use std::ops::ControlFlow;
use std::sync::Arc;

pub(super) use server::Server;

use super::address::FarDir;
use super::wire::Out;
use crate::model::{FileType, Proof, RelPath};
use crate::target::mark::{BYTES_MAX, fresh, judge};
use crate::target::{Claim, Found, MARK, Nature, Result, STAGING, Session as _, TargetError};
use list::Listing;
use protocol::{Attrs, Reply, kind, open};
use session::SftpSession;

/// Objects that are published together; each is an open file at the far side until then, of which a server allows a thousand.
const BATCH_MAX: usize = 256;

/// What sftp keeps: times in seconds.
pub(super) const NATURE: Nature = Nature {
    mtime_step_ns: 1_000_000_000,
    name_max: super::NAME_MAX,
    is_filesystem: true,
    batch_max: BATCH_MAX,
    proof: Proof::Written,
};

/// A directory at the far side.
#[derive(Clone)]
pub(super) struct Place {
    server: Arc<Server>,
    top: Vec<u8>,
}

impl Place {
    /// The directory, which must be there.
    pub(super) fn find(server: &Arc<Server>, dir: &FarDir) -> Result<Self> {
        let away = |why: &str| TargetError::Away { place: server.place().to_owned(), why: why.to_owned() };
        let top = match dir {
            FarDir::Absolute(path) => path.clone(),
            FarDir::Home(below) => match server.call(kind::REALPATH, &Out::default().bytes(b"."))? {
                Reply::Names(names) if names.len() == 1 => [&names[0].0[..], b"/", below].concat(),
                _ => return Err(away("it does not say where home is; give the path from its top")),
            },
        };
        let length = top.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let place = Place { server: Arc::clone(server), top: top[..length].to_vec() };
        let stat = server.ask(kind::STAT, &place.named(&RelPath::ROOT))?;
        match server.attrs(&stat)? {
            Ok(Some(attrs)) if attrs.kind() == Some(FileType::Dir) => Ok(place),
            Ok(Some(_)) => Err(away("it is not a directory")),
            Ok(None) => Err(away("there is no such directory; make it, or mount what belongs there")),
            Err(fault) => Err(away(&format!("it cannot be looked at: {}", fault.text))),
        }
    }

    /// A path as the server takes it.
    fn full(&self, path: &RelPath) -> Vec<u8> {
        if path.is_root() {
            return if self.top.is_empty() { b"/".to_vec() } else { self.top.clone() };
        }
        [&self.top[..], b"/", path.as_bytes()].concat()
    }

    fn named(&self, path: &RelPath) -> Out {
        Out::default().bytes(&self.full(path))
    }

    fn mark(&self) -> RelPath {
        RelPath::ROOT.join(MARK)
    }

    fn away(&self, why: String) -> TargetError {
        TargetError::Away { place: self.server.place().to_owned(), why }
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
    fn error(&self, doing: &'static str, path: &RelPath, fault: protocol::Fault) -> TargetError {
        self.server.error(doing, path, &self.full(&RelPath::ROOT), &fault)
    }

    /// As [`crate::target::Target::probe`].
    pub(super) fn probe(&self, claim: &Claim) -> Result<Option<String>> {
        let mark = self.server.ask(kind::LSTAT, &self.named(&self.mark()))?;
        let text = match self.server.attrs(&mark)? {
            Ok(None) => None,
            Ok(Some(attrs)) if attrs.kind() == Some(FileType::File) => {
                let mut text = Vec::new();
                let file = read::Reading::open(self, &self.mark())?;
                let read = std::io::Read::read_to_end(&mut std::io::Read::take(file, BYTES_MAX), &mut text);
                read.map_err(|error| self.away(format!("its mark cannot be read: {error}")))?;
                Some(text)
            }
            Ok(Some(_)) => return Err(self.away("its mark is no file".to_owned())),
            Err(fault) => return Err(self.away(format!("its mark cannot be read: {}", fault.text))),
        };
        judge(self.server.place(), text.as_deref(), claim)
    }

    /// As [`crate::target::Target::survey`].
    pub(super) fn survey(
        &self,
        below: &RelPath,
        each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>,
    ) -> Result<()> {
        SftpSession::new(self.clone(), "").list(below, each)
    }

    /// As [`crate::target::Target::open`].
    pub(super) fn open(&self, claim: &Claim) -> Result<(SftpSession, String)> {
        let known = self.probe(claim)?;
        let staging = RelPath::ROOT.join(STAGING);
        let mode = Attrs { mode: Some(0o700), ..Attrs::default() };
        let made = self.server.ask(kind::MKDIR, &mode.put(self.named(&staging)))?;
        // What it was that failed is seen when the directory is listed.
        let _ = self.server.done(&made)?;
        let looked = self.server.ask(kind::LSTAT, &self.named(&staging))?;
        match self.server.attrs(&looked)? {
            Ok(Some(attrs)) if attrs.kind() == Some(FileType::Dir) => {}
            Ok(_) => return Err(self.away("it cannot be written: no directory can be made in it".to_owned())),
            Err(fault) => return Err(self.away(format!("it cannot be written: {}", fault.text))),
        }
        // What an earlier session of this state left is dropped.
        let mut removed = Vec::new();
        let tag = tag(&claim.state);
        let entries = Listing::new(self.clone()).entries(&staging)?;
        for (name, _) in entries.iter().filter(|(name, _)| name.starts_with(tag.as_bytes())) {
            removed.push(self.server.ask(kind::REMOVE, &self.named(&staging.join(name)))?);
        }
        for one in &removed {
            let _ = self.server.done(one)?;
        }
        let session = SftpSession::new(self.clone(), &tag);
        let identity = match known {
            Some(identity) => identity,
            None => session.make_mark(claim)?,
        };
        Ok((session, identity))
    }
}

/// What the names of all that a state stages begin with: its id, as far as it fits, which has 32 digits.
fn tag(state: &str) -> String {
    let fit: String = state.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    format!("{fit}.")
}

impl SftpSession {
    /// Marks a place that was never used.
    fn make_mark(&self, claim: &Claim) -> Result<String> {
        let (id, text) = fresh(claim).map_err(|error| self.place.away(format!("it cannot be marked: {error}")))?;
        let unwritable = |error: TargetError| match error {
            TargetError::Away { .. } => error,
            error => self.place.away(format!("it cannot be written: {error}")),
        };
        let (mark, new) = (self.place.mark(), RelPath::ROOT.join(&[MARK, b".new"].concat()));
        let server = &self.place.server;
        // A torn one of an earlier try.
        server.done(&server.ask(kind::REMOVE, &self.place.named(&new))?)?.ok();
        let flags = open::WRITE | open::CREATE | open::EXCLUSIVE;
        let mode = Attrs { mode: Some(0o644), ..Attrs::default() };
        let asked = server.ask(kind::OPEN, &mode.put(self.place.named(&new).u32(flags)))?;
        let failed = |fault| unwritable(self.place.error("write", &new, fault));
        let handle = server.handle(&asked)?.map_err(failed)?;
        let written = server.ask(kind::WRITE, &Out::default().bytes(&handle).u64(0).bytes(text.as_bytes()))?;
        server.done(&written)?.map_err(failed)?;
        self.fsync(&handle)?.map_err(failed)?;
        server.close(&handle);
        let renamed = server.ask(kind::RENAME, &self.place.named(&new).bytes(&self.place.full(&mark)))?;
        server.done(&renamed)?.map_err(failed)?;
        self.sync_dirs([RelPath::ROOT].into_iter())?;
        Ok(id)
    }
}
