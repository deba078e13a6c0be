//! Which configuration files there are, and the little of the process's environment that decides it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Overrides;
use crate::error::CommandError;

/// What the process sees of the world around it, gathered once so that everything after it is a function of values.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `KEEPWATCH_*` variables.
    pub vars: BTreeMap<String, OsString>,
    /// All variables.
    pub variables: Vec<(OsString, OsString)>,
    /// `AWS_*` variables, and those that say how Google's and Azure's stores are reached.
    pub aws: crate::aws::Variables,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
    /// `CREDENTIALS_DIRECTORY`, where systemd puts secrets.
    pub credentials: Option<PathBuf>,
    /// Whether the effective user is root.
    pub is_root: bool,
    /// The system's configuration directory, `/etc`.
    pub etc: PathBuf,
    /// Against what relative paths of the command line are taken.
    pub current_dir: PathBuf,
}

impl Environment {
    /// The process's own.
    #[must_use]
    pub fn of_process() -> Self {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let vars = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            name.starts_with(PREFIX).then_some((name, value))
        });
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let aws = std::env::vars_os()
            .filter_map(text)
            .filter(|(name, _)| name.starts_with("AWS_") || crate::cloud::is_variable(name));
        Environment {
            variables: std::env::vars_os().collect(),
            vars: vars.collect(),
            aws: aws.collect(),
            home: absolute("HOME"),
            config_home: absolute("XDG_CONFIG_HOME"),
            state_home: absolute("XDG_STATE_HOME"),
            credentials: absolute("CREDENTIALS_DIRECTORY"),
            is_root: rustix::process::geteuid().is_root(),
            etc: PathBuf::from("/etc"),
            current_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }

    /// The user's own configuration directory, by the XDG base directory specification.
    #[must_use]
    pub fn user_config_dir(&self) -> Option<PathBuf> {
        let base = self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")))?;
        Some(base.join("keepwatch"))
    }

    /// The system's configuration directory.
    #[must_use]
    pub fn system_config_dir(&self) -> PathBuf {
        self.etc.join("keepwatch")
    }

    /// Where state is kept unless it is said: the system's place for root, the user's own for others.
    #[must_use]
    pub fn default_state_dir(&self) -> Option<PathBuf> {
        if self.is_root {
            return Some(PathBuf::from("/var/lib/keepwatch"));
        }
        let base = self.state_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/state")))?;
        Some(base.join("keepwatch"))
    }
}

/// What the names of our environment variables begin with.
pub const PREFIX: &str = "KEEPWATCH_";

/// The name of the main file in a configuration directory.
pub const MAIN_FILE: &str = "keepwatch.toml";

/// The files to read, the main one first, then `conf.d/*.toml` beside it by name: the one given by `-c` or
/// `KEEPWATCH_CONFIG`, else the system's, else the user's. None is no error: flags may say all that is needed.
///
/// # Errors
/// A usage error if the file that was asked for is not there, or a directory cannot be read.
pub fn find(environment: &Environment, overrides: &Overrides) -> Result<Vec<PathBuf>, CommandError> {
    let asked = overrides.config.clone().or_else(|| environment.vars.get("KEEPWATCH_CONFIG").map(PathBuf::from));
    if let Some(asked) = asked {
        let asked = environment.current_dir.join(asked);
        if asked.is_dir() {
            return in_directory(&asked);
        }
        if !asked.exists() {
            return Err(CommandError::usage(format!("there is no configuration file {}", asked.display()))
                .hint("`keepwatch init` writes a commented one"));
        }
        let parent = asked.parent().unwrap_or(Path::new("/")).to_owned();
        return Ok(std::iter::once(asked).chain(drop_ins(&parent)?).collect());
    }
    for directory in [Some(environment.system_config_dir()), environment.user_config_dir()].into_iter().flatten() {
        let files = in_directory(&directory)?;
        if !files.is_empty() {
            return Ok(files);
        }
    }
    Ok(Vec::new())
}

fn in_directory(directory: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let main = directory.join(MAIN_FILE);
    let main = main.exists().then_some(main);
    Ok(main.into_iter().chain(drop_ins(directory)?).collect())
}

/// `conf.d/*.toml` beside the main file, by name.
fn drop_ins(beside: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let directory = beside.join("conf.d");
    let unreadable = |error: std::io::Error| {
        CommandError::usage(format!("cannot read the configuration directory {}: {error}", directory.display()))
    };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|extension| extension == "toml") && !is_hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn world(dir: &Path) -> Environment {
        Environment {
            etc: dir.join("etc"),
            home: Some(dir.join("home")),
            current_dir: dir.to_owned(),
            ..Environment::default()
        }
    }

    fn write(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }

    #[test]
    fn the_system_comes_before_the_user_and_drop_ins_follow_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path());
        assert_eq!(find(&world, &Overrides::default()).unwrap(), Vec::<PathBuf>::new());
        let user = dir.path().join("home/.config/keepwatch/keepwatch.toml");
        write(&user);
        assert_eq!(find(&world, &Overrides::default()).unwrap(), [user]);
        let system = dir.path().join("etc/keepwatch");
        for name in ["keepwatch.toml", "conf.d/b.toml", "conf.d/a.toml", "conf.d/.hidden.toml", "conf.d/a.toml.bak"] {
            write(&system.join(name));
        }
        let expected = ["keepwatch.toml", "conf.d/a.toml", "conf.d/b.toml"].map(|name| system.join(name));
        assert_eq!(find(&world, &Overrides::default()).unwrap(), expected);
    }

    #[test]
    fn a_file_that_was_asked_for_wins_and_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut world = world(dir.path());
        write(&dir.path().join("etc/keepwatch/keepwatch.toml"));
        world.vars.insert("KEEPWATCH_CONFIG".to_owned(), "from-variable.toml".into());
        write(&dir.path().join("from-variable.toml"));
        assert_eq!(find(&world, &Overrides::default()).unwrap(), [dir.path().join("from-variable.toml")]);
        let missing = Overrides { config: Some("missing.toml".into()), ..Overrides::default() };
        assert!(find(&world, &missing).unwrap_err().message.contains("missing.toml"));
    }

    #[test]
    fn state_is_kept_by_user() {
        let mut world = world(Path::new("/w"));
        assert_eq!(world.default_state_dir().unwrap(), Path::new("/w/home/.local/state/keepwatch"));
        world.state_home = Some("/x".into());
        assert_eq!(world.default_state_dir().unwrap(), Path::new("/x/keepwatch"));
        world.is_root = true;
        assert_eq!(world.default_state_dir().unwrap(), Path::new("/var/lib/keepwatch"));
    }
}
