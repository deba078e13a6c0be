//! `keepwatch pack`: many small files into zip archives.

mod read;
mod scavenge;
mod status;
mod store;
mod verify;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use keepwatch_pack::{ArchiveName, Base, PackError, escape};

use super::Context;
use crate::error::{CommandError, Kind, Outcome};
use crate::show::safe::Safe;
use crate::units;

/// Flags of `keepwatch pack`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Names are ARCHIVE/PATH, as in logs.zip/run1/out.txt: the first component that ends in .zip is the archive.

Examples:
  make test 2>&1 | keepwatch pack put logs.zip/run1/out.txt -d /nfs/logs
  keepwatch pack scavenge -d /nfs/logs --every 5m
  keepwatch pack cat logs.zip/run1/out.txt -d /nfs/logs")]
pub struct Args {
    /// The directory that the archives are in
    #[arg(short = 'd', long, global = true, value_name = "DIR", default_value = ".")]
    pub base: PathBuf,
    /// What.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with archives.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Pack standard input as one member
    Put(store::PutArgs),
    /// Pack a finished file, and remove it once it is safe on disk
    Pickup(store::PickupArgs),
    /// List the archives, or an archive's members: packed ones and staged ones
    Ls(read::LsArgs),
    /// Print members, from where they are packed or still staged
    Cat(read::CatArgs),
    /// Bring what is staged into its archives: once, or again and again
    Scavenge(scavenge::Args),
    /// Say what is staged, what could not be read, and what the archives are made of
    Status,
    /// Read every member of every archive, or of one, and tell what is damaged
    Verify(verify::Args),
}

/// Does it.
///
/// # Errors
/// Whatever the command ends in.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    match &args.command {
        Command::Put(put) => store::put(put, args, context),
        Command::Pickup(pickup) => store::pickup(pickup, args, context),
        Command::Ls(ls) => read::ls(ls, args, context),
        Command::Cat(cat) => read::cat(cat, args),
        Command::Scavenge(scavenge) => scavenge::run(scavenge, args, context),
        Command::Status => status::run(args, context),
        Command::Verify(verify) => verify::run(verify, args, context),
    }
}

impl Args {
    /// The base, for reading.
    fn open(&self) -> Result<Base, CommandError> {
        Base::open(&self.base).map_err(|error| self.fail(&error))
    }

    /// An error of the packer, with what to do about it.
    #[must_use]
    pub fn fail(&self, error: &PackError) -> CommandError {
        let message = Safe::text(&error.to_string()).to_string();
        match error {
            PackError::Io { doing: "open the base", source, .. } => {
                let error = CommandError::usage(message);
                match source.kind() {
                    std::io::ErrorKind::NotFound => error.hint("make the directory, or name another one with `-d DIR`"),
                    _ => error,
                }
            }
            PackError::Name { .. } | PackError::NotAFile { .. } => CommandError::usage(message),
            PackError::Absent(_) => CommandError::new(Kind::Findings, message)
                .hint(format!("`keepwatch pack ls -d {}` lists the archives", Safe::path(&self.base))),
            PackError::Damaged { .. } => CommandError::new(Kind::Findings, message),
            PackError::Io { doing: "list" | "hand on what was read from", source, .. }
                if source.kind() == std::io::ErrorKind::BrokenPipe =>
            {
                CommandError::new(Kind::ClosedPipe, message)
            }
            PackError::Io { .. }
            | PackError::Changed { .. }
            | PackError::Contended { .. }
            | PackError::TakenOver { .. } => CommandError::failed(message),
        }
    }
}

/// An archive that somebody named.
fn archive(name: &OsStr) -> Result<ArchiveName, CommandError> {
    ArchiveName::parse(name.as_bytes()).map_err(|error| {
        CommandError::usage(format!("`{}` is no archive: {error}", escape(name.as_bytes())))
            .hint("an archive is named by its path below the base, as in `logs.zip`")
    })
}

/// A duration, where a bare number is seconds, as in other packers.
fn rotation(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => duration(text),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<u64, String> {
    units::parse_size(text).map_err(|error| error.to_string())
}
