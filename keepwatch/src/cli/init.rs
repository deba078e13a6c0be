//! `keepwatch init`: a commented configuration and the state directory, so that the first `run` has what it needs; and
//! the new epoch, for a journal that cannot go on.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use keepwatch_engine::daemon::epoch;
use keepwatch_engine::daemon::state::StateError;
use serde::Serialize;

use super::Context;
use crate::config::example::EXAMPLE;
use crate::config::{load_files, sources};
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::lock::{holder, make_state_dir};
use crate::show::safe::Safe;

/// Flags of `keepwatch init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What is already there stays as it is.

Examples:
  sudo keepwatch init
  keepwatch init -c ./keepwatch.toml --state-dir ./state
  keepwatch init --new-epoch -n")]
pub struct Args {
    /// Set the journal and the inventory aside, so that the next `run` begins a new journal and looks at every file anew
    ///
    /// For a journal that is damaged, a state directory that was restored from a backup, or one that was copied to
    /// another machine. Nothing is deleted: the journal's files go to a folder below its own, the inventory stays beside
    /// the new one under the journal's id.
    #[arg(long)]
    pub new_epoch: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    config: &'a Path,
    config_written: bool,
    state_dir: &'a Path,
    state_dir_made: bool,
    dry_run: bool,
}

/// Writes and makes what is missing.
///
/// # Errors
/// If there is a configuration that cannot be used, or something cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    if args.new_epoch {
        return begin_epoch(context);
    }
    let is_dry = context.globals.dry_run;
    let config = config_path(context)?;
    let is_new = !config.exists();
    let overrides = context.globals.overrides(&[]);
    let files = if is_new { Vec::new() } else { sources::find(&context.environment, &overrides)? };
    let settings = load_files(files, &context.environment, &overrides)?.settings;
    let is_new_state_dir = !settings.state_dir.exists();
    if !is_dry {
        if is_new {
            write_example(&config)?;
        }
        make_state_dir(&settings.state_dir)?;
    }
    super::print(|out| {
        if context.globals.json {
            let report = Report {
                config: &config,
                config_written: is_new,
                state_dir: &settings.state_dir,
                state_dir_made: is_new_state_dir,
                dry_run: is_dry,
            };
            return writeln!(out, "{}", serde_json::to_string(&report)?);
        }
        if context.globals.quiet {
            return Ok(());
        }
        let did = |is_new: bool, verb: &str| match (is_new, is_dry) {
            (false, _) => "is there already:".to_owned(),
            (true, true) => format!("would be {verb}:"),
            (true, false) => format!("{verb}:"),
        };
        writeln!(out, "configuration   {} {}", did(is_new, "written"), Safe::path(&config))?;
        writeln!(out, "state directory {} {}", did(is_new_state_dir, "made"), Safe::path(&settings.state_dir))?;
        writeln!(out, "next: name what to watch in the configuration, then `keepwatch config check`")
    })?;
    Ok(Outcome::Fine)
}

#[derive(Serialize)]
struct EpochReport<'a> {
    state_dir: &'a Path,
    journal_id: Option<String>,
    journal_kept: Option<&'a Path>,
    journal_files: usize,
    inventory_kept: Option<&'a Path>,
    dry_run: bool,
}

/// Sets journal and inventory aside, and binds the state directory to this machine.
fn begin_epoch(context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&[])?.settings;
    let (state_dir, is_dry) = (&settings.state_dir, context.globals.dry_run);
    if !state_dir.is_dir() {
        return Err(CommandError::usage(format!("there is no state directory {}", state_dir.display()))
            .hint("name it with `--state-dir DIR`; a first journal needs no `--new-epoch`"));
    }
    let kept = if is_dry {
        if let Some(pid) = holder(state_dir) {
            let (path, pid) = (state_dir.clone(), pid.to_string());
            return Err(StateError::InUse { path, pid }.into());
        }
        epoch::survey(state_dir)?
    } else {
        let host = settings.host.clone().unwrap_or_else(engine::host_name);
        epoch::begin(state_dir, &host, engine::machine_id().as_deref())?
    };
    let report = EpochReport {
        state_dir,
        journal_id: kept.journal.as_ref().and_then(|aside| aside.journal).map(|id| id.to_string()),
        journal_kept: kept.journal.as_ref().map(|aside| aside.kept.as_path()),
        journal_files: kept.journal.as_ref().map_or(0, |aside| aside.files),
        inventory_kept: kept.inventory.as_deref(),
        dry_run: is_dry,
    };
    super::print(|out| {
        if context.globals.json {
            return writeln!(out, "{}", serde_json::to_string(&report)?);
        }
        if context.globals.quiet {
            return Ok(());
        }
        let did = if is_dry { "would be kept" } else { "kept" };
        match report.journal_kept {
            Some(place) => {
                let files = if report.journal_files == 1 { "file" } else { "files" };
                writeln!(out, "journal   {did}: {} {files} in {}", report.journal_files, Safe::path(place))?;
            }
            None => writeln!(out, "journal   there is none")?,
        }
        match report.inventory_kept {
            Some(place) => writeln!(out, "inventory {did}: {}", Safe::path(place))?,
            None => writeln!(out, "inventory there is none")?,
        }
        writeln!(out, "next: `keepwatch run` begins a new journal and looks at every file anew")
    })?;
    Ok(Outcome::Fine)
}

/// The file that `-c` names, else the system's for root and the user's for others.
fn config_path(context: &Context) -> Result<PathBuf, CommandError> {
    let environment = &context.environment;
    if let Some(asked) = &context.globals.config {
        return Ok(environment.current_dir.join(asked));
    }
    let directory =
        if environment.is_root { Some(environment.system_config_dir()) } else { environment.user_config_dir() };
    directory.map(|directory| directory.join(sources::MAIN_FILE)).ok_or_else(|| {
        CommandError::usage("there is no place for a configuration: HOME is not set").hint("name a file with `-c FILE`")
    })
}

fn write_example(path: &Path) -> Result<(), CommandError> {
    let write = || {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?.write_all(EXAMPLE.as_bytes())
    };
    write().map_err(|error: std::io::Error| {
        CommandError::failed(format!("cannot write the configuration {}: {error}", path.display()))
    })
}
