//! `keepwatch release`: removes originals that enough replicas are proved to hold.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use keepwatch_engine::daemon::fixity::release::{Event, release};
use keepwatch_engine::daemon::fixity::{FixityTrouble, Surroundings};
use keepwatch_engine::daemon::state::inventory_of;

use super::{Context, place};
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::logging::{self, Talk};
use crate::show::safe::Safe;
use crate::telling::Teller;
use crate::units::{count, human_size};

/// Flags of `keepwatch release`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Removes a file only if it is what was recorded and `copies_min` replicas (at least one), read again just before, hold it. The
inventory keeps it, no replica follows, and `keepwatch restore` brings it back. Ends with 3 if something stays.

Examples:
  keepwatch release /srv/records/2019
  keepwatch release -n /srv/records/2019/a.tif")]
pub struct Args {
    /// What to release: files, or directories with all files in them
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// Releases.
///
/// # Errors
/// If what is named is in no root, or the root is absent.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&[])?.settings;
    logging::start(settings.log, &context.globals, Talk::Command);
    if settings.replicas.is_empty() {
        return Err(CommandError::usage("there is no replica that could hold what is released")
            .hint("`keepwatch replica add URL` adds one"));
    }
    let view = engine::view(&settings.state_dir)?;
    let mut scopes = Vec::new();
    for path in &args.paths {
        let place = place::find(path, &context.environment.current_dir, &view)?;
        scopes.push((place.root, place.path));
    }
    let told = engine::settings(&settings);
    let teller = Teller::open(&told)?;
    let stop = AtomicBool::new(false);
    let around = Surroundings {
        settings: &told,
        inventory: inventory_of(&settings.state_dir),
        host: view.host()?,
        state: view.host_id()?,
        tag: "release",
        tell: teller.tell(),
        stop: &stop,
        limit: None,
    };
    let dry_run = context.globals.dry_run;
    let released = release(&scopes, dry_run, &around, &mut |event| {
        tell(&event, context, dry_run);
        Ok(())
    });
    let sum = released.map_err(|error| CommandError::from(FixityTrouble::from(error)))?;
    teller.close()?;
    super::print(|out| {
        if context.globals.json {
            return writeln!(
                out,
                "{}",
                serde_json::json!({"released": sum.released, "bytes": sum.bytes, "kept": sum.kept})
            );
        }
        if context.globals.quiet {
            return Ok(());
        }
        let would = if dry_run { "would be released" } else { "released" };
        writeln!(out, "{}, {} {would}, {} stay", count(sum.released, "file"), human_size(sum.bytes), sum.kept)
    })?;
    Ok(if sum.kept > 0 { Outcome::Partly } else { Outcome::Fine })
}

fn tell(event: &Event, context: &Context, dry_run: bool) {
    match event {
        Event::Released(act) if !context.globals.quiet && !context.globals.json => {
            let copies: Vec<&str> = act.copies.iter().map(keepwatch_journal::ReplicaName::as_str).collect();
            let would = if dry_run { "would release" } else { "released" };
            // What cannot be printed is in the journal.
            let _ = super::print(|out| {
                let place = (Safe::text(act.root.as_str()), Safe(act.path.as_bytes()));
                writeln!(out, "{would} {}:{}, held by {}", place.0, place.1, Safe::text(&copies.join(", ")))
            });
        }
        Event::Released(_) => {}
        Event::Kept { root, path, why } => {
            use std::io::Write as _;
            let place = (Safe::text(root.as_str()), Safe(path.as_bytes()));
            let _ = writeln!(std::io::stderr(), "stays: {}:{}: {}", place.0, place.1, Safe::text(why));
        }
    }
}
