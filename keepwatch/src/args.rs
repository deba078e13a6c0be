//! The flags that every command has, and the one liberty taken with the command line before clap sees it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::config::{LogFormat, Overrides};

/// Flags that mean the same for every command.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalArgs {
    /// Read this configuration file (or directory) instead of the system's or the user's
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keep journal, inventory and control socket here
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for all details
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How log lines on stderr look
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log: Option<LogFormat>,
    /// Print JSON: one object, or one object a line for lists
    #[arg(long, global = true)]
    pub json: bool,
    /// Change nothing, say what would be done
    #[arg(short = 'n', long, global = true)]
    pub dry_run: bool,
}

impl GlobalArgs {
    /// What they say about settings, with the roots that a command line names.
    #[must_use]
    pub fn overrides(&self, roots: &[PathBuf]) -> Overrides {
        Overrides {
            config: self.config.clone(),
            state_dir: self.state_dir.clone(),
            log: self.log,
            roots: roots.to_vec(),
            replicas: Vec::new(),
        }
    }
}

/// Writes long flags with dashes: `--source_prefix=a_b` is `--source-prefix=a_b`. People come from tools with either
/// habit, and the other one is never anything else. Values, and whatever stands behind `--`, stay as they are.
pub fn with_dashes(argv: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut is_behind = false;
    argv.map(|arg| {
        is_behind |= arg == OsStr::new("--");
        if is_behind || !arg.as_bytes().starts_with(b"--") {
            return arg;
        }
        let mut bytes = arg.into_vec();
        let name_end = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
        bytes[..name_end].iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = b'-');
        OsString::from_vec(bytes)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dashed(argv: &[&str]) -> Vec<String> {
        with_dashes(argv.iter().map(OsString::from)).into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn only_the_names_of_long_flags_change() {
        assert_eq!(dashed(&["--state_dir=a_b", "a_b", "-a_b"]), ["--state-dir=a_b", "a_b", "-a_b"]);
        assert_eq!(dashed(&["--dry_run", "--", "--keep_this"]), ["--dry-run", "--", "--keep_this"]);
    }

    #[test]
    fn a_flag_that_is_not_utf8_survives() {
        let arg = OsString::from_vec(b"--state_dir=\xff_".to_vec());
        assert_eq!(with_dashes([arg].into_iter())[0].as_bytes(), b"--state-dir=\xff_");
    }
}
