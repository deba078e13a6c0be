//! From what the user wrote (files, environment, flags) to validated [`Settings`].
//!
//! The way is: find the files ([`sources`]), read them with every key's place remembered ([`reader`], [`raw`]), lay
//! environment and flags over them, check the whole ([`settings`], [`overlap`]). All that is wrong is reported at once.

pub mod example;
pub mod overlap;
pub mod packs;
pub mod postgres;
pub mod problem;
pub mod raw;
pub mod reader;
pub mod replicas;
pub mod secret;
pub mod settings;
pub mod show;
pub mod sources;
pub mod triggers;

use std::path::PathBuf;

use replicas::{HTTP_CREDENTIAL, HTTP_VARIABLE};
use secret::SecretFrom;
pub use settings::{LogFormat, Poll, RootSettings, Settings, WatchMethod};
pub use sources::Environment;

use crate::error::CommandError;

/// What the command line says about settings; it wins over the environment and the files.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `-c FILE`.
    pub config: Option<PathBuf>,
    /// `--state-dir DIR`.
    pub state_dir: Option<PathBuf>,
    /// `--log FORMAT`.
    pub log: Option<LogFormat>,
    /// `--root DIR`, each.
    pub roots: Vec<PathBuf>,
    /// `--replica URL`, each.
    pub replicas: Vec<String>,
}

/// Settings and where they came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the engine and the commands see.
    pub settings: Settings,
    /// Where each setting came from, by its dotted key.
    pub origins: settings::Origins,
    /// The files that were read, in the order in which later ones win.
    pub files: Vec<PathBuf>,
}

/// Where content waits that is on its way, in the state directory.
pub const SPOOL: &str = "spool";

/// Loads the configuration.
///
/// # Errors
/// A usage error that lists every problem with its file and line.
pub fn load(environment: &Environment, overrides: &Overrides) -> Result<Loaded, CommandError> {
    load_files(sources::find(environment, overrides)?, environment, overrides)
}

/// Loads the configuration from these files alone, with environment and flags over them.
///
/// # Errors
/// As [`load`].
pub fn load_files(
    files: Vec<PathBuf>,
    environment: &Environment,
    overrides: &Overrides,
) -> Result<Loaded, CommandError> {
    let mut problems = Vec::new();
    let mut raw = raw::RawConfig::default();
    for path in &files {
        let text = std::fs::read_to_string(path).map_err(|error| {
            CommandError::usage(format!("cannot read the configuration {}: {error}", path.display()))
        })?;
        raw.read_file(path, &text, &mut problems);
    }
    raw.read_environment(&environment.vars, &mut problems);
    raw.read_flags(overrides, &mut problems);
    let (mut settings, origins) = settings::validate(raw, environment, &mut problems);
    for replica in &mut settings.replicas {
        replica.aws.variables.clone_from(&environment.aws);
        replica.aws.home.clone_from(&environment.home);
        if replica.secret == SecretFrom::Nowhere {
            replica.secret = SecretFrom::of(environment, HTTP_VARIABLE, HTTP_CREDENTIAL);
        }
        replica.spool = settings.state_dir.join(SPOOL);
    }
    match problem::into_error(problems) {
        Some(error) => Err(error),
        None => Ok(Loaded { settings, origins, files }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
