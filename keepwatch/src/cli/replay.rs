//! `keepwatch replay`: rebuild what follows the journal.

use std::sync::Arc;

use keepwatch_engine::daemon::replay::rebuild_inventory;
use keepwatch_engine::daemon::state::StateDir;
use keepwatch_journal::{Disk, RealDisk};

use super::Context;
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::logging::{self, Talk};

/// Flags of `keepwatch replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The new inventory is built beside the old one and takes its place when it is complete. Stop the service first.

Example:
  keepwatch replay --to inventory")]
pub struct Args {
    /// What to rebuild
    #[arg(long, value_name = "FOLLOWER", default_value = "inventory", value_parser = ["inventory"])]
    pub to: String,
}

/// Rebuilds.
///
/// # Errors
/// If a service runs, or the journal cannot be read.
pub fn run(_args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&[])?.settings;
    logging::start(settings.log, &context.globals, Talk::Command);
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
        writeln!(out, "the inventory was rebuilt from {seq} records")
    })?;
    Ok(Outcome::Fine)
}
