//! `keepwatch receive`: the far side of a replica that is reached by ssh. It speaks on standard input and output with the
//! Keepwatch that copies.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use keepwatch_engine::beneath::open_beneath;
use keepwatch_engine::model::RelPath;
use keepwatch_engine::target::{
    Claim, FarDir, Found, LocalTarget, Nature, Places, Session, Target, TargetError, serve,
};
use rustix::fs::{Mode, OFlags};

use super::Context;
use crate::config::LogFormat;
use crate::error::{CommandError, Outcome};
use crate::logging::{self, Talk};

/// Flags of `keepwatch receive`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nobody types this: a replica `ssh://HOST/DIRECTORY` runs it on HOST if `keepwatch` is on the PATH there. Without it the replica
is kept by sftp. It needs no configuration and keeps no state.

With DIR it takes nothing outside of DIR, which a key can be bound to in authorized_keys:
  restrict,command=\"keepwatch receive /archive\" ssh-ed25519 AAAA... backup@studio")]
pub struct Args {
    /// Serve this directory and those below it only
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Serves one connection.
///
/// # Errors
/// If the other side is no Keepwatch, or the connection breaks.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    logging::start(LogFormat::Text, &context.globals, Talk::Command);
    let home = context.environment.home.clone();
    let fence = args.dir.as_ref().map(|dir| context.environment.current_dir.join(dir)).map(Fence::open).transpose()?;
    let places = |dir: &FarDir| place(dir, home.as_deref(), fence.as_ref());
    converse(&places).map_err(|error| {
        CommandError::failed(format!("the conversation with the sender broke off: {error}"))
            .hint("`keepwatch receive` is started by ssh, for a replica `ssh://HOST/DIRECTORY` of another host")
    })?;
    Ok(Outcome::Fine)
}

/// Past the buffers that the standard library has for lines of text.
fn converse(places: Places<'_>) -> io::Result<()> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // The more there is room for, the less often the server waits for us, whose own buffers grow slowly.
    let _ = rustix::pipe::fcntl_setpipe_size(&input, PIPE_BYTES);
    serve(&mut io::BufReader::with_capacity(INPUT_BYTES, input), &mut io::BufWriter::new(output), places)
}

/// What may wait in the pipe: as much as anybody may ask for.
const PIPE_BYTES: usize = 1024 * 1024;

/// What is read at once.
const INPUT_BYTES: usize = 256 * 1024;

/// A directory that nothing is taken outside of.
struct Fence {
    dir: PathBuf,
    open: OwnedFd,
}

impl Fence {
    fn open(dir: PathBuf) -> Result<Self, CommandError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&dir, flags, Mode::empty()) {
            Ok(open) => Ok(Fence { dir, open }),
            Err(error) => Err(CommandError::unreachable(format!("{}: {error}", dir.display()))
                .hint("make the directory, or mount what belongs there")),
        }
    }
}

/// A local target in a directory that is held open.
#[derive(Debug)]
struct Held {
    target: LocalTarget,
    _open: OwnedFd,
}

fn place(dir: &FarDir, home: Option<&Path>, fence: Option<&Fence>) -> Result<Box<dyn Target>, TargetError> {
    let away = |why: &str| TargetError::Away { place: String::new(), why: why.to_owned() };
    let dir = match (dir, home) {
        (FarDir::Absolute(path), _) => PathBuf::from(OsStr::from_bytes(path)),
        (FarDir::Home(path), Some(home)) => home.join(OsStr::from_bytes(path)),
        (FarDir::Home(_), None) => return Err(away("the far side has no home directory; give the path from its top")),
    };
    if !dir.is_absolute() || dir.as_os_str().as_bytes().contains(&0) {
        return Err(away("it is no directory's path"));
    }
    let Some(fence) = fence else { return Ok(Box::new(LocalTarget::new(&dir))) };
    let outside = || away(&format!("the far side takes nothing outside of {}", fence.dir.display()));
    let below = dir.strip_prefix(&fence.dir).map_err(|_| outside())?;
    if below.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(outside());
    }
    let below: PathBuf = below.components().collect();
    let below = RelPath::new(below.as_os_str().as_bytes()).map_err(|_| outside())?;
    // No link that was put there leads out, not even one that is swapped in now.
    let open = open_beneath(fence.open.as_fd(), &below, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|error| away(&format!("it cannot be opened: {error}")))?;
    let target = LocalTarget::new(Path::new(&format!("/proc/self/fd/{}", open.as_raw_fd())));
    Ok(Box::new(Held { target, _open: open }))
}

impl Target for Held {
    fn nature(&self) -> Nature {
        self.target.nature()
    }

    fn open(&self, claim: &Claim) -> Result<(Box<dyn Session>, String), TargetError> {
        self.target.open(claim)
    }

    fn probe(&self, claim: &Claim) -> Result<Option<String>, TargetError> {
        self.target.probe(claim)
    }

    fn survey(
        &self,
        below: &RelPath,
        each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>,
    ) -> Result<(), TargetError> {
        self.target.survey(below, each)
    }
}
