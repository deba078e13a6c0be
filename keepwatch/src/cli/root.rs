//! `keepwatch root`: the watched trees, and the word that a replaced disk is meant to be there.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::Context;
use crate::config::reader::nearest;
use crate::config::{RootSettings, Settings};
use crate::control::Request;
use crate::control::client::Client;
use crate::error::{CommandError, Kind, Outcome};
use crate::show::safe::Safe;
use crate::show::status::{RootState, Status};

/// Flags of `keepwatch root`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with roots.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the configured roots, and how they are if the service runs
    List,
    /// Take the disk that is at a root's path now as the right one
    ///
    /// A root whose file system is another than before is absent: nothing is recorded as deleted, and its path is not
    /// watched. If the disk was replaced on purpose, say so with this command; what differs is then journaled.
    #[command(after_help = "\
Example:
  keepwatch root accept records")]
    Accept(AcceptArgs),
}

/// Flags of `keepwatch root accept`.
#[derive(Debug, clap::Args)]
pub struct AcceptArgs {
    /// The root's name in the configuration
    pub name: String,
}

/// Lists or accepts.
///
/// # Errors
/// If the configuration cannot be used, there is no such root, or the service does not do it.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&[])?.settings;
    match &args.command {
        Command::List => list(&settings, context),
        Command::Accept(args) => accept(&args.name, &settings, context),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    path: &'a Path,
    watch: &'static str,
    state: Option<RootState>,
}

fn list(settings: &Settings, context: &Context) -> Result<Outcome, CommandError> {
    let states = states(settings)?;
    super::print(|out| {
        let width = settings.roots.iter().map(|root| root.name.len()).max().unwrap_or(0);
        for root in &settings.roots {
            let state = states.as_ref().and_then(|states| states.get(root.name.as_str()).copied());
            if context.globals.json {
                let line = Line { name: &root.name, path: &root.path, watch: root.watch.as_str(), state };
                writeln!(out, "{}", serde_json::to_string(&line)?)?;
            } else {
                let word = state.map_or(if states.is_some() { "not loaded" } else { "not running" }, RootState::as_str);
                writeln!(out, "{:width$}  {word:<11}  {}", root.name, Safe::path(&root.path))?;
            }
        }
        Ok(())
    })?;
    Ok(Outcome::Fine)
}

/// How the roots are, by the service; `None` if none runs.
fn states(settings: &Settings) -> Result<Option<BTreeMap<String, RootState>>, CommandError> {
    let answer = match Client::new(&settings.state_dir).call(&Request::Status {}, |_| Ok(())) {
        Ok(answer) => answer,
        Err(error) if error.kind == Kind::Unreachable => return Ok(None),
        Err(error) => return Err(error),
    };
    let status = Status::from_answer(answer)?;
    Ok(Some(status.roots.into_iter().map(|root| (root.name, root.state)).collect()))
}

fn accept(name: &str, settings: &Settings, context: &Context) -> Result<Outcome, CommandError> {
    let root = find(name, &settings.roots)?;
    if context.globals.dry_run {
        super::print(|out| writeln!(out, "would accept what is at {} as root `{name}`", Safe::path(&root.path)))?;
        return Ok(Outcome::Fine);
    }
    Client::new(&settings.state_dir).call(&Request::RootAccept { name: name.to_owned() }, |_| Ok(()))?;
    if !context.globals.quiet {
        super::print(|out| writeln!(out, "accepted what is at {} as root `{name}`", Safe::path(&root.path)))?;
    }
    Ok(Outcome::Fine)
}

/// The root of this name.
fn find<'a>(name: &str, roots: &'a [RootSettings]) -> Result<&'a RootSettings, CommandError> {
    roots.iter().find(|root| root.name == name).ok_or_else(|| {
        let error = CommandError::usage(format!("there is no root `{}`", Safe::text(name)));
        match nearest(name, roots.iter().map(|root| root.name.as_str())) {
            Some(known) => error.hint(format!("did you mean `{known}`?")),
            None => error.hint("`keepwatch root list` lists them"),
        }
    })
}
