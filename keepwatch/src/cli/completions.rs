//! `keepwatch completions`: what a shell needs to complete our commands and flags.

use clap::CommandFactory as _;

use super::Cli;
use crate::error::{CommandError, Outcome};

/// Flags of `keepwatch completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  keepwatch completions bash > /etc/bash_completion.d/keepwatch
  keepwatch completions zsh > /usr/share/zsh/site-functions/_keepwatch
  keepwatch completions fish > ~/.config/fish/completions/keepwatch.fish")]
pub struct Args {
    /// Which shell
    pub shell: clap_complete::Shell,
}

/// Prints the script.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &Args) -> Result<Outcome, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "keepwatch", &mut script);
    super::print(|out| out.write_all(&script))?;
    Ok(Outcome::Fine)
}
