//! `keepwatch init`: a commented configuration and the state directory, so that the first `run` has what it needs.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Context;
use crate::config::example::EXAMPLE;
use crate::config::{load_files, sources};
use crate::error::{CommandError, Outcome};
use crate::lock::make_state_dir;
use crate::show::safe::Safe;

/// Flags of `keepwatch init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What is already there stays as it is.

Examples:
  sudo keepwatch init
  keepwatch init -c ./keepwatch.toml --state-dir ./state")]
pub struct Args {}

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
pub fn run(_args: &Args, context: &Context) -> Result<Outcome, CommandError> {
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
