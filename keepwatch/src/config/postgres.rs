//! `[postgres]`: where the shared index is, and how to get in.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use keepwatch_engine::index::{IndexSettings, Password, ServerAddress, Tls};

use super::problem::{Origin, Problem, Sourced};
use super::reader::Table;
use super::secret::SecretFrom;
use super::settings::Taker;
use super::sources::Environment;

/// The variable that can hold the password.
pub const PASSWORD_VARIABLE: &str = "KEEPWATCH_POSTGRES_PASSWORD";
/// The systemd credential that can hold it: `LoadCredential=keepwatch.postgres:/path`.
pub const PASSWORD_CREDENTIAL: &str = "keepwatch.postgres";

/// A server that takes longer for one statement hangs.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Less is no time for a batch on a busy server.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// `[postgres]` as it was written.
#[derive(Clone, Debug)]
pub struct RawPostgres {
    /// Where its section begins.
    pub origin: Origin,
    /// `url`.
    pub url: Option<Sourced<String>>,
    /// `password_file`.
    pub password_file: Option<Sourced<PathBuf>>,
    /// `ca_file`.
    pub ca_file: Option<Sourced<PathBuf>>,
    /// `tls`.
    pub tls: Option<Sourced<bool>>,
    /// `timeout`.
    pub timeout: Option<Sourced<Duration>>,
}

/// The shared index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSettings {
    /// The server's address, without a password.
    pub url: String,
    /// Where the password comes from.
    pub password: SecretFrom,
    /// The authorities that the server's certificate must come from, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether the connection is sealed.
    pub tls: bool,
    /// A statement that takes longer is given up.
    pub timeout: Duration,
}

impl RawPostgres {
    /// Reads the section.
    #[must_use]
    pub fn read(origin: Origin, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Self {
        let raw = RawPostgres {
            origin,
            url: table.string("url", problems),
            password_file: table.string("password_file", problems).map(|path| path.map(PathBuf::from)),
            ca_file: table.string("ca_file", problems).map(|path| path.map(PathBuf::from)),
            tls: table.boolean("tls", problems),
            timeout: table.duration("timeout", problems),
        };
        table.finish(&[], problems);
        raw
    }

    /// Fills in the defaults and checks the section.
    pub(super) fn validate(
        self,
        environment: &Environment,
        take: &mut Taker<'_>,
        problems: &mut Vec<Problem>,
    ) -> Option<PostgresSettings> {
        let Some(url) = self.url else {
            let hint = "add to [postgres]: url = \"postgres://USER@HOST/DATABASE\"";
            problems.push(Problem::new(self.origin, "the shared index has no `url`").hint(hint));
            return None;
        };
        let mut wrong = |origin: &Origin, message: String| problems.push(Problem::new(origin.clone(), message));
        let is_near = match ServerAddress::from_str(&url.value) {
            Err(error) => {
                // The driver's words name the part, never its value.
                wrong(&url.origin, format!("postgres.url: {error}"));
                false
            }
            Ok(server) if server.get_password().is_some() => {
                let message = format!(
                    "postgres.url: a password does not belong in the address; use `password_file`, {PASSWORD_VARIABLE} or \
                     the systemd credential `{PASSWORD_CREDENTIAL}`"
                );
                wrong(&url.origin, message);
                return None;
            }
            Ok(server) => keepwatch_engine::index::is_near(&server),
        };
        for (key, path) in [("password_file", &self.password_file), ("ca_file", &self.ca_file)] {
            if let Some(path) = path.as_ref().filter(|path| !path.value.is_absolute()) {
                wrong(
                    &path.origin,
                    format!("postgres.{key}: must be an absolute path, not `{}`", path.value.display()),
                );
            }
        }
        if let Some(timeout) = self.timeout.as_ref().filter(|timeout| timeout.value < TIMEOUT_MIN) {
            wrong(&timeout.origin, "postgres.timeout: must be at least 1s".to_owned());
        }
        // Between machines nothing goes in the clear unless somebody says so.
        let tls = self.ca_file.is_some() || !is_near;
        if let (Some(tls), Some(_)) = (self.tls.as_ref().filter(|tls| !tls.value), &self.ca_file) {
            wrong(&tls.origin, "postgres.tls: `ca_file` means nothing with `tls = false`".to_owned());
        }
        Some(PostgresSettings {
            url: take.or("postgres.url", Some(url), String::new()),
            password: match take.or("postgres.password_file", self.password_file.map(|path| path.map(Some)), None) {
                Some(path) => SecretFrom::File(path),
                None => SecretFrom::of(environment, PASSWORD_VARIABLE, PASSWORD_CREDENTIAL),
            },
            ca_file: take.or("postgres.ca_file", self.ca_file.map(|path| path.map(Some)), None),
            tls: take.or("postgres.tls", self.tls, tls),
            timeout: take.or("postgres.timeout", self.timeout, TIMEOUT),
        })
    }
}

impl PostgresSettings {
    /// What the engine is told; `None` where the address is none, which [`RawPostgres::validate`] has told.
    #[must_use]
    pub fn for_engine(&self) -> Option<IndexSettings> {
        let password = match &self.password {
            SecretFrom::File(path) | SecretFrom::Credential(path) => Password::File(path.clone()),
            SecretFrom::Variable(password) => Password::Given(password.secret()),
            SecretFrom::Nowhere => Password::None,
        };
        let tls = match (self.tls, &self.ca_file) {
            (false, _) => Tls::Off,
            (true, Some(path)) => Tls::Authority(path.clone()),
            (true, None) => Tls::System,
        };
        Some(IndexSettings { server: ServerAddress::from_str(&self.url).ok()?, password, tls, timeout: self.timeout })
    }
}
