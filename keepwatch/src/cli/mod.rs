//! The commands, a file for each: its flags, and `run`, which does it.

pub mod all_hosts;
pub mod completions;
pub mod config;
pub mod hold;
pub mod init;
pub mod journal;
pub mod log;
pub mod ls;
pub mod man;
pub mod manifest;
pub mod mirror;
pub mod on;
pub mod pack;
pub mod place;
pub mod receive;
pub mod reconcile;
pub mod release;
pub mod replay;
pub mod replica;
pub mod restore;
pub mod root;
pub mod run;
mod scratch;
pub mod status;
mod table;
pub mod trigger;
pub mod verify;
pub mod wait;
pub mod watch;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::args::GlobalArgs;
use crate::config::{Environment, Loaded, load};
use crate::error::{CommandError, Outcome};
use crate::units;

/// Keeps watch over files that nobody can afford to lose.
///
/// Keepwatch records every change to a file tree in a durable journal and keeps an inventory of every file.
#[derive(Debug, Parser)]
#[command(name = "keepwatch", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    /// Flags that mean the same everywhere.
    #[command(flatten)]
    pub globals: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0   fine
  1   findings: drift, differences, rot, a chain that does not verify
  2   the command line or the configuration is wrong
  3   some of it failed
  4   the service or a target cannot be reached
  70  a bug in keepwatch";

/// Each command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: watch, journal, keep the inventory
    Run(run::Args),
    /// Print changes as they happen, keep nothing
    Watch(watch::Args),
    /// Copy directories to a target, then keep the copy true
    Mirror(Box<mirror::Args>),
    /// Run a command for every finished file of a directory
    On(Box<on::Args>),
    /// Wait for a finished file, and print it
    Wait(wait::Args),
    /// Say how the service is, and what needs a person
    Status(status::Args),
    /// Print a file's history, across renames
    Log(log::Args),
    /// List the inventory, now or at a time
    Ls(ls::Args),
    /// Compare a root with the inventory, journal and report what differs
    Reconcile(reconcile::Args),
    /// Read originals or copies again and hold them against what is recorded
    Verify(verify::Args),
    /// Rebuild the inventory, or this host's part of the shared index, from the journal
    Replay(replay::Args),
    /// Verify the journal's chain, print its head or its records
    Journal(journal::Args),
    /// Write a commented configuration and make the state directory
    Init(init::Args),
    /// Check the configuration, or show what is in force
    Config(config::Args),
    /// Keep replicas: add, list, sync, resume, accept, remove
    Replica(replica::Args),
    /// Pack many small files into zip archives, from many processes
    Pack(Box<pack::Args>),
    /// The hand-off queue: list, show, retry, skip, test
    Trigger(trigger::Args),
    /// Free the space of originals that enough replicas are proved to hold
    Release(release::Args),
    /// Get files back from a replica, verified
    Restore(restore::Args),
    /// List the roots, or accept a replaced disk
    Root(root::Args),
    /// Take copies in for a Keepwatch on another host: what `ssh` starts on this side
    Receive(receive::Args),
    /// Lead the process group of a trigger's command: what the service starts by itself
    #[command(hide = true)]
    Hold {},
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual page, or write all of them
    Man(man::Args),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// Whatever the command ends in.
    pub fn run(&self, context: &Context) -> Result<Outcome, CommandError> {
        match self {
            Command::Run(args) => run::run(args, context),
            Command::Watch(args) => watch::run(args, context),
            Command::Mirror(args) => mirror::run(args, context),
            Command::On(args) => on::run(args, context),
            Command::Wait(args) => wait::run(args, context),
            Command::Status(args) => status::run(args, context),
            Command::Log(args) => log::run(args, context),
            Command::Ls(args) => ls::run(args, context),
            Command::Reconcile(args) => reconcile::run(args, context),
            Command::Verify(args) => verify::run(args, context),
            Command::Replay(args) => replay::run(args, context),
            Command::Journal(args) => journal::run(args, context),
            Command::Init(args) => init::run(args, context),
            Command::Config(args) => config::run(args, context),
            Command::Replica(args) => replica::run(args, context),
            Command::Pack(args) => pack::run(args, context),
            Command::Trigger(args) => trigger::run(args, context),
            Command::Release(args) => release::run(args, context),
            Command::Restore(args) => restore::run(args, context),
            Command::Root(args) => root::run(args, context),
            Command::Receive(args) => receive::run(args, context),
            Command::Hold {} => hold::run(),
            Command::Completions(args) => completions::run(args),
            Command::Man(args) => man::run(args),
        }
    }
}

/// What every command is given.
#[derive(Debug)]
pub struct Context {
    /// The flags that mean the same everywhere.
    pub globals: GlobalArgs,
    /// What the process sees of the world around it.
    pub environment: Environment,
}

impl Context {
    /// The settings in force, with the roots that this command line adds.
    ///
    /// # Errors
    /// A usage error that lists all that is wrong with the configuration.
    pub fn settings(&self, roots: &[PathBuf]) -> Result<Loaded, CommandError> {
        load(&self.environment, &self.globals.overrides(roots))
    }
}

/// A moment that a person named.
///
/// # Errors
/// A usage error that shows the ways to write one.
pub fn moment(text: &str, now: &jiff::Zoned) -> Result<keepwatch_journal::Timestamp, CommandError> {
    let moment = units::parse_time(text, now).map_err(|error| CommandError::usage(error.to_string()))?;
    Ok(keepwatch_journal::Timestamp(i64::try_from(moment.as_nanosecond()).unwrap_or(i64::MAX)))
}

/// Refuses `--dry-run` where nobody could keep to it: a command that went on would do what was not to be done.
///
/// # Errors
/// A usage error, if it was asked for.
pub fn refuse_dry_run(context: &Context, command: &str, instead: &str) -> Result<(), CommandError> {
    if context.globals.dry_run {
        return Err(CommandError::usage(format!("`keepwatch {command}` has no --dry-run")).hint(instead));
    }
    Ok(())
}

/// Prints to standard output, in blocks; a closed pipe ends the command quietly.
///
/// # Errors
/// What `write` ends in, or a failed write.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), CommandError> {
    let mut out = BufWriter::with_capacity(OUTPUT_BYTES, io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).map_err(CommandError::output)
}

/// Large enough that a million lines cost few system calls.
const OUTPUT_BYTES: usize = 64 * 1024;
