//! `keepwatch man`: the manual pages, made from the same text as `--help`.

use std::path::PathBuf;

use clap::CommandFactory as _;

use super::Cli;
use crate::error::{CommandError, Outcome};

/// Flags of `keepwatch man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  keepwatch man | man -l -
  keepwatch man --dir /usr/local/share/man/man1")]
pub struct Args {
    /// Write a page for each command into this directory, which must exist
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Prints the main page, or writes all.
///
/// # Errors
/// If it cannot be written.
pub fn run(args: &Args) -> Result<Outcome, CommandError> {
    match &args.dir {
        Some(dir) => clap_mangen::generate_to(Cli::command(), dir).map_err(|error| {
            CommandError::failed(format!("cannot write manual pages to {}: {error}", dir.display()))
        })?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(CommandError::output)?;
            super::print(|out| out.write_all(&page))?;
        }
    }
    Ok(Outcome::Fine)
}
