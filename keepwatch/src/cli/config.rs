//! `keepwatch config`: whether the configuration is sound, and what is in force.

use std::path::PathBuf;

use serde::Serialize;

use super::Context;
use crate::config::{Loaded, show};
use crate::control::access;
use crate::error::{CommandError, Outcome};
use crate::show::safe::Safe;

/// Flags of `keepwatch config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with the configuration.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Say all that is wrong with the configuration
    ///
    /// Exits with 2 if it cannot be used, and with 1 if it can but something it names is not there.
    Check(RootArgs),
    /// Print the settings in force and where each comes from
    #[command(after_help = "\
Examples:
  keepwatch config show
  keepwatch config show -c /etc/keepwatch/keepwatch.toml --json")]
    Show(RootArgs),
}

/// The roots that `run` would take from its command line.
#[derive(Debug, clap::Args)]
pub struct RootArgs {
    /// Add this directory as a root, as `run` does; may be given several times
    #[arg(long = "root", value_name = "DIR")]
    pub roots: Vec<PathBuf>,
}

/// Checks or shows.
///
/// # Errors
/// A usage error that lists all problems.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    match &args.command {
        Command::Check(roots) => check(&context.settings(&roots.roots)?, context),
        Command::Show(roots) => show(&context.settings(&roots.roots)?, context),
    }
}

#[derive(Serialize)]
struct CheckReport<'a> {
    files: &'a [PathBuf],
    roots: usize,
    findings: &'a [String],
}

fn check(loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    crate::config::triggers::check_programs(&loaded.settings.triggers, &loaded.origins)?;
    let findings = findings(loaded);
    super::print(|out| {
        if context.globals.json {
            let report = CheckReport { files: &loaded.files, roots: loaded.settings.roots.len(), findings: &findings };
            return writeln!(out, "{}", serde_json::to_string(&report)?);
        }
        for finding in &findings {
            writeln!(out, "{finding}")?;
        }
        if !context.globals.quiet {
            for file in &loaded.files {
                writeln!(out, "read {}", Safe::path(file))?;
            }
            if loaded.files.is_empty() {
                writeln!(out, "there is no configuration file; defaults are in force")?;
            }
            let roots = loaded.settings.roots.len();
            writeln!(out, "{roots} {}, {} to look at", plural(roots, "root"), findings.len())?;
        }
        Ok(())
    })?;
    Ok(if findings.is_empty() { Outcome::Fine } else { Outcome::Findings })
}

/// What is written soundly and names something that is not there.
fn findings(loaded: &Loaded) -> Vec<String> {
    let settings = &loaded.settings;
    let mut findings = Vec::new();
    if settings.roots.is_empty() {
        findings.push("no root is configured: add [roots.NAME] with a path, or use `--root DIR`".to_owned());
    }
    for root in &settings.roots {
        let finding = match std::fs::metadata(&root.path) {
            Ok(facts) if facts.is_dir() => continue,
            Ok(_) => "is not a directory".to_owned(),
            Err(error) => format!("cannot be looked at: {error}"),
        };
        findings.push(format!("root `{}`: {} {finding}", root.name, Safe::path(&root.path)));
    }
    if let Some(group) = &settings.control_group
        && let Err(error) = access::group_id(group)
    {
        findings.push(format!("control_group: {error}"));
    }
    findings
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn show(loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    super::print(|out| {
        if context.globals.json {
            return writeln!(out, "{}", serde_json::to_string(&show::entries(loaded))?);
        }
        for file in &loaded.files {
            writeln!(out, "# read {}", Safe::path(file))?;
        }
        write!(out, "{}", show::to_toml(loaded))
    })?;
    Ok(Outcome::Fine)
}
