//! `keepwatch replay`: rebuild what follows the journal.

use std::sync::Arc;

use keepwatch_engine::daemon::replay::{rebuild_index, rebuild_inventory};
use keepwatch_engine::daemon::state::StateDir;
use keepwatch_journal::{Disk, RealDisk, Seq};

use super::{Context, all_hosts};
use crate::config::Settings;
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::logging::{self, Talk};
use crate::units::count;

/// Flags of `keepwatch replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What is new is built beside the old and takes its place when it is complete. Stop the service first.

Examples:
  keepwatch replay --to inventory
  keepwatch replay --to postgres
  keepwatch replay --to postgres --from 1000000")]
pub struct Args {
    /// What to rebuild
    #[arg(long, value_name = "FOLLOWER", default_value = "inventory", value_parser = ["inventory", "postgres"])]
    pub to: String,
    /// Write only history behind this record; what stands where is made whole all the same
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub from: u64,
}

/// Rebuilds.
///
/// # Errors
/// If a service runs, or the journal cannot be read.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&[])?.settings;
    logging::start(settings.log, &context.globals, Talk::Command);
    if args.to == "postgres" {
        return to_postgres(args, &settings, context);
    }
    if args.from > 0 {
        return Err(CommandError::usage("`--from` means something with `--to postgres` only"));
    }
    let told = engine::settings(&settings);
    let state = StateDir::take(&told.state_dir, &told.host, told.machine_id.as_deref())?;
    if context.globals.dry_run {
        super::print(|out| writeln!(out, "would rebuild {} from the journal", state.inventory().display()))?;
        return Ok(Outcome::Fine);
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let inventory = rebuild_inventory(&state, &disk)?;
    let seq = inventory.cursor()?.map_or(0, |cursor| cursor.seq.0);
    super::print(|out| {
        if context.globals.json {
            return writeln!(out, "{}", serde_json::json!({"to": "inventory", "seq": seq}));
        }
        if context.globals.quiet {
            return Ok(());
        }
        writeln!(out, "the inventory was rebuilt from {}", count(seq, "record"))
    })?;
    Ok(Outcome::Fine)
}

fn to_postgres(args: &Args, settings: &Settings, context: &Context) -> Result<Outcome, CommandError> {
    let index = all_hosts::settings(settings)?;
    let told = engine::settings(settings);
    let state = StateDir::take(&told.state_dir, &told.host, told.machine_id.as_deref())?;
    let host = &state.identity().host;
    if context.globals.dry_run {
        super::print(|out| writeln!(out, "would make the rows of {host} in the shared index anew from the journal"))?;
        return Ok(Outcome::Fine);
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let replayed = rebuild_index(&state, &disk, &index, Seq(args.from), |seq| tracing::debug!(%seq, "replayed"))?;
    super::print(|out| {
        let (seq, problems) = (replayed.seq, replayed.problems);
        if context.globals.json {
            return writeln!(out, "{}", serde_json::json!({"to": "postgres", "seq": seq.0, "problems": problems}));
        }
        if context.globals.quiet {
            return Ok(());
        }
        writeln!(out, "the rows of {host} in the shared index were made anew from {seq} records")?;
        if problems > 0 {
            writeln!(out, "{problems} records could not be applied in full; the table `problems` says why")?;
        }
        Ok(())
    })?;
    Ok(if replayed.problems > 0 { Outcome::Findings } else { Outcome::Fine })
}
