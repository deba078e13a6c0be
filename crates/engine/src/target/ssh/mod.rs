//! A directory of a host that is reached by ssh, as a target.
//!
//! The system's `ssh` makes the connection, which stays for as long as the replica is kept. Where the far side has `keepwatch`
//! it takes a stream of many objects without a round trip for each; else sftp does, which every ssh server has.

mod address;
mod child;
mod line;
mod receiver;
mod sftp;
mod syncer;
mod wire;

#[cfg(test)]
mod tests;

use std::io::BufReader;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use address::{BadAddress, FarDir, SshAddress};
pub use child::{SshOptions, Way};
pub use receiver::{Places, serve};

use child::FarSide;
use receiver::Greeting;
use receiver::Remote;
use sftp::{Place, Server};
use syncer::Syncer;

use crate::model::{Proof, RelPath};
use crate::target::{Claim, Found, Nature, Result, Session, Target, TargetError};

/// The longest name that Linux has.
const NAME_MAX: usize = 255;
/// Objects that share one sync.
const BATCH_MAX: usize = 1024;
/// What is read from `ssh` at once.
const INPUT_BYTES: usize = 64 * 1024;

/// A directory of a host that is reached by ssh.
#[derive(Debug)]
pub struct SshTarget {
    address: SshAddress,
    options: SshOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    nature: Option<Nature>,
}

/// A connection.
#[derive(Clone)]
enum Link {
    Receiver(Arc<Remote>),
    Sftp(Arc<Server>),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("nature", &self.nature).finish_non_exhaustive()
    }
}

impl SshTarget {
    /// The directory at an address. Nothing is connected until it is opened.
    #[must_use]
    pub fn new(address: SshAddress, options: SshOptions) -> Self {
        SshTarget { address, options, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away(&self, why: impl Into<String>) -> TargetError {
        TargetError::Away { place: self.address.to_string(), why: why.into() }
    }

    /// The connection that there is, or a new one.
    fn link(&self) -> Result<Link> {
        let mut state = self.state();
        if let Some(link) = &state.link
            && !link.is_lost()
        {
            return Ok(link.clone());
        }
        state.link = None;
        let link = self.connect()?;
        state.link = Some(link.clone());
        Ok(link)
    }

    fn connect(&self) -> Result<Link> {
        if self.options.way == Way::Sftp {
            return self.connect_sftp(None);
        }
        match self.connect_receiver()? {
            Ok(remote) => Ok(Link::Receiver(Arc::new(remote))),
            Err((why, _)) if self.options.way == Way::Receiver => {
                Err(self.away(format!("no `keepwatch receive` answers there: {why}")))
            }
            Err((why, syncer)) => {
                tracing::info!(target = %self.address, why, "no `keepwatch receive` answers there, so it is done by sftp");
                self.connect_sftp(syncer)
            }
        }
    }

    fn connect_sftp(&self, syncer: Option<Syncer>) -> Result<Link> {
        let (ssh, to, from) =
            child::start(&self.address, &self.options, FarSide::Sftp).map_err(|e| self.unstarted(&e))?;
        let host = self.address.host.clone();
        let ended = Box::new(move |_| ssh.end(&host).why());
        let from = BufReader::with_capacity(INPUT_BYTES, from);
        let server = Server::begin(&self.address.to_string(), Box::new(from), Box::new(to), ended)?.with(syncer);
        Ok(Link::Sftp(Arc::new(server)))
    }

    fn unstarted(&self, error: &std::io::Error) -> TargetError {
        self.away(format!("`{}` does not run: {error}", self.options.program.to_string_lossy()))
    }

    /// `Ok(Err(_))`: the host was reached, and has no receiver; perhaps a shell.
    fn connect_receiver(&self) -> Result<Result<Remote, (String, Option<Syncer>)>> {
        let (ssh, mut to, from) =
            child::start(&self.address, &self.options, FarSide::Receiver).map_err(|e| self.unstarted(&e))?;
        let mut from = BufReader::with_capacity(INPUT_BYTES, from);
        let host = self.address.host.clone();
        match receiver::greet(&mut from, &mut to) {
            Ok(Some(Greeting::Receiver)) => {}
            Ok(Some(Greeting::Shell)) => {
                return Ok(Err(("it is not in the PATH".to_owned(), Syncer::begin(ssh, to, from))));
            }
            Ok(None) | Err(_) => {
                drop((to, from));
                let end = ssh.end(&host);
                return if end.is_of_far_side() { Ok(Err((end.why(), None))) } else { Err(self.away(end.why())) };
            }
        }
        let ended = Box::new(move |_| ssh.end(&host).why());
        let place = self.address.to_string();
        receiver::begin(&place, Box::new(from), Box::new(to), ended).map(Ok).map_err(|e| self.unstarted(&e))
    }
}

impl Link {
    fn is_lost(&self) -> bool {
        match self {
            Link::Receiver(remote) => remote.is_lost(),
            Link::Sftp(server) => server.is_lost(),
        }
    }
}

impl Target for SshTarget {
    fn nature(&self) -> Nature {
        let expected = Nature {
            mtime_step_ns: 1,
            name_max: NAME_MAX,
            is_filesystem: true,
            batch_max: BATCH_MAX,
            proof: Proof::Written,
        };
        self.state().nature.unwrap_or(expected)
    }

    fn open(&self, claim: &Claim) -> Result<(Box<dyn Session>, String)> {
        let (session, identity, nature) = match self.link()? {
            Link::Receiver(remote) => remote.open(&self.address.dir, claim)?,
            Link::Sftp(server) => {
                let (session, identity) = Place::find(&server, &self.address.dir)?.open(claim)?;
                (Box::new(session) as Box<dyn Session>, identity, sftp::NATURE)
            }
        };
        self.state().nature = Some(nature);
        Ok((session, identity))
    }

    fn probe(&self, claim: &Claim) -> Result<Option<String>> {
        match self.link()? {
            Link::Receiver(remote) => remote.probe(&self.address.dir, claim),
            Link::Sftp(server) => Place::find(&server, &self.address.dir)?.probe(claim),
        }
    }

    fn reach(&self) -> Result<()> {
        self.link().map(drop)
    }

    fn survey(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        match self.link()? {
            Link::Receiver(remote) => remote.survey(&self.address.dir, below, each),
            Link::Sftp(server) => Place::find(&server, &self.address.dir)?.survey(below, each),
        }
    }
}
