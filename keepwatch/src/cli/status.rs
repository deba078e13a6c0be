//! `keepwatch status`: how the service is.

use keepwatch_journal::RootName;

use super::{Context, all_hosts};
use crate::control::Request;
use crate::control::client::Client;
use crate::error::{CommandError, Kind, Outcome};
use crate::service::without_service;
use crate::show::status::{Copies, Status};
use crate::{engine, lock, packs};

/// Flags of `keepwatch status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 1 if something needs attention: a root is absent, a follower has stopped, files are in quarantine, a person has to decide.")]
pub struct Args {
    /// Of every host, from the shared index
    #[arg(long)]
    pub all_hosts: bool,
}

/// Asks the service, or the inventory where none runs.
///
/// # Errors
/// If neither can be read.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&[])?.settings;
    if args.all_hosts {
        return all_hosts::status(&settings, context);
    }
    let dir = &settings.state_dir;
    let mut status = match Client::new(dir).call(&Request::Status {}, |_| Ok(())) {
        Ok(answer) => Status::from_answer(answer)?,
        Err(error) if error.kind == Kind::Unreachable && lock::holder(dir).is_none() => {
            let host = settings.host.clone().unwrap_or_else(engine::host_name);
            without_service(&engine::view(dir)?, host, dir)?
        }
        Err(error) => return Err(error),
    };
    status.packs = packs::look(&settings.packs);
    for root in &mut status.roots {
        let min = settings.roots.iter().find(|one| one.name == root.name).map_or(0, |one| one.copies_min);
        if min > 0 {
            // Here and not in the service, which it would keep from its work: all files are counted.
            let under_copied = engine::view(dir)?.under_copied(&RootName::new(root.name.as_str()), min)?;
            root.copies = Some(Copies { min, under_copied });
        }
    }
    super::print(|out| {
        if context.globals.json {
            writeln!(out, "{}", serde_json::to_string(&status)?)
        } else {
            write!(out, "{status}")
        }
    })?;
    Ok(if status.has_findings() { Outcome::Findings } else { Outcome::Fine })
}
