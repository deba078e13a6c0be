//! The service's end of the control socket: who connects is checked, each request is handed to the [`Handler`], and a
//! side thread says that we are still at it.

use std::fs::Permissions;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use serde_json::Value;

use super::access::{Access, Peer};
use super::address::{Address, SOCKET};
use super::{REQUEST_BYTES_MAX, Reply, Request, SILENCE_MAX, WORKING_INTERVAL, WRITE_TIMEOUT};
use crate::error::{CommandError, Kind};

/// What the service does with a request.
pub trait Handler: Send + Sync + 'static {
    /// Does it, reports progress on the way, and returns what `done` shall carry.
    ///
    /// `progress` fails when the client has gone; what only serves that client may then be given up.
    ///
    /// # Errors
    /// What the client shall be told, exit code included.
    fn handle(
        &self,
        request: Request,
        progress: &mut dyn FnMut(Value) -> io::Result<()>,
    ) -> Result<Value, CommandError>;
}

/// More at once are turned away: each takes a thread.
pub(super) const CONNECTIONS_MAX: usize = 16;
/// A client that has connected says what it wants within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The socket, served until this is dropped.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    stop: Arc<OwnedFd>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds the socket in a state directory that this process has taken: no other service can be behind a socket that is
    /// already there.
    ///
    /// # Errors
    /// If the socket cannot be bound or opened to the group.
    pub fn start(dir: &Path, access: Access, handler: Arc<dyn Handler>) -> io::Result<Self> {
        let socket = dir.join(SOCKET);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(Address::of(dir)?.path())?;
        open_to(dir, access)?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let acceptor = Acceptor { listener, stop: Arc::clone(&stop), access, handler, connections: Arc::default() };
        let acceptor = std::thread::Builder::new().name("control".to_owned()).spawn(move || acceptor.run())?;
        Ok(Server { socket, stop, acceptor: Some(acceptor) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Requests that are being handled end by themselves, or with the process.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// The socket is the owner's alone, or the group's too; then the group must also be able to pass the directory.
fn open_to(dir: &Path, access: Access) -> io::Result<()> {
    let socket = dir.join(SOCKET);
    let (dir_mode, socket_mode) = if access.group.is_some() { (0o710, 0o660) } else { (0o700, 0o600) };
    if access.group.is_some() {
        std::os::unix::fs::chown(dir, None, access.group)?;
        std::os::unix::fs::chown(&socket, None, access.group)?;
    }
    std::fs::set_permissions(&socket, Permissions::from_mode(socket_mode))?;
    std::fs::set_permissions(dir, Permissions::from_mode(dir_mode))
}

struct Acceptor {
    listener: UnixListener,
    stop: Arc<OwnedFd>,
    access: Access,
    handler: Arc<dyn Handler>,
    connections: Arc<AtomicUsize>,
}

impl Acceptor {
    fn run(&self) {
        loop {
            let mut waiting = [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&*self.stop, PollFlags::IN)];
            match poll(&mut waiting, None) {
                Ok(_) if !waiting[1].revents().is_empty() => return,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the control socket cannot be waited for; commands cannot reach the service");
                    return;
                }
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection to the control socket could not be taken");
                    // Out of descriptors: the connection stays in the queue, and would be reported without end.
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn admit(&self, stream: UnixStream) {
        let slot = Slot::take(&self.connections);
        let connection = Connection { stream, access: self.access, handler: Arc::clone(&self.handler) };
        let result = match slot {
            Some(slot) => std::thread::Builder::new().name("control-request".to_owned()).spawn(move || {
                let _slot = slot;
                connection.serve();
            }),
            None => {
                connection.answer(&Reply::from(CommandError::unreachable(format!(
                    "the service is busy with {CONNECTIONS_MAX} other requests"
                ))));
                return;
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "no thread could be started for a request on the control socket");
        }
    }
}

/// One of the connections that may be open at once.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(connections: &Arc<AtomicUsize>) -> Option<Self> {
        let slot = Slot(Arc::clone(connections));
        (connections.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_MAX).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Connection {
    stream: UnixStream,
    access: Access,
    handler: Arc<dyn Handler>,
}

impl Connection {
    fn serve(&self) {
        match self.request() {
            Ok(request) => self.work(request),
            Err(error) => self.answer(&Reply::from(error)),
        }
    }

    /// Reads what is asked, by somebody who may.
    fn request(&self) -> Result<Request, CommandError> {
        let failed = |error: io::Error| CommandError::failed(format!("the request could not be read: {error}"));
        let peer = Peer::of(&self.stream).map_err(failed)?;
        if !self.access.allows(&peer) {
            tracing::warn!(uid = peer.uid, "a user who may not use the control socket was turned away");
            return Err(CommandError::unreachable("not allowed to use this service")
                .hint("be root, its user, or a member of its `control_group`"));
        }
        self.stream.set_nonblocking(false).map_err(failed)?;
        self.stream.set_read_timeout(Some(REQUEST_TIMEOUT)).map_err(failed)?;
        self.stream.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(failed)?;
        let mut line = Vec::new();
        BufReader::new(&self.stream).take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)?;
        serde_json::from_slice(&line).map_err(|error| {
            CommandError::usage(format!("the service does not know this request: {error}"))
                .hint("is it of another version? restart it after an upgrade")
        })
    }

    /// Handles the request while a side thread says that we are still at it.
    fn work(&self, request: Request) {
        let out = Mutex::new(&self.stream);
        let (finished, finish) = channel::<()>();
        let reply = std::thread::scope(|scope| {
            let out = &out;
            scope.spawn(move || {
                while finish.recv_timeout(WORKING_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    let _ = send(out, &Reply::Working {});
                }
            });
            let mut progress = |data| send(out, &Reply::Progress { data });
            let result = catch_unwind(AssertUnwindSafe(|| self.handler.handle(request, &mut progress)));
            drop(finished);
            match result {
                Ok(Ok(data)) => Reply::Done { data },
                Ok(Err(error)) => Reply::from(error),
                Err(_) => {
                    Reply::from(CommandError::new(Kind::Bug, "the service failed at this by a bug; its log says more"))
                }
            }
        });
        self.answer(&reply);
    }

    /// The last line. A client that has gone needs no answer.
    fn answer(&self, reply: &Reply) {
        let _ =
            self.stream.set_write_timeout(Some(WRITE_TIMEOUT)).and_then(|()| send(&Mutex::new(&self.stream), reply));
    }
}

fn send(out: &Mutex<&UnixStream>, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    out.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
}

const _: () = assert!(WORKING_INTERVAL.as_secs() * 3 < SILENCE_MAX.as_secs(), "a busy service must not look dead");
