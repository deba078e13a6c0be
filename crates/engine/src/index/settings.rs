//! How the shared index is reached.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::error::{IndexError, Result};

/// A longer line is no password.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// The address of a server: `postgres://USER@HOST:PORT/DATABASE`, or `host=… user=…`.
pub type ServerAddress = tokio_postgres::Config;

/// Whether the server is reached without leaving this machine.
#[must_use]
pub fn is_near(server: &ServerAddress) -> bool {
    use tokio_postgres::config::Host;
    let is_near = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
    };
    server.get_hosts().iter().all(is_near) && server.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
}

/// Where the shared index is, and how to get in. Nothing in here is ever printed but host, port, database and user.
#[derive(Clone, Debug)]
pub struct IndexSettings {
    /// The address, without a password.
    pub server: ServerAddress,
    /// The password.
    pub password: Password,
    /// Whether and how the connection is sealed.
    pub tls: Tls,
    /// A statement that takes longer is given up, by both sides.
    pub timeout: Duration,
}

/// Where the password comes from.
#[derive(Clone, Debug)]
pub enum Password {
    /// None is needed, or the server asks for none.
    None,
    /// The first line of a file, read at each connection.
    File(PathBuf),
    /// This one.
    Given(SecretString),
}

/// How the connection is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all: a socket on this machine, or a network that is trusted.
    Off,
    /// The server must prove its name to the system's authorities.
    System,
    /// The server must prove its name to the authorities in this file.
    Authority(PathBuf),
}

impl IndexSettings {
    /// The driver's settings with the password in them.
    pub(super) fn with_password(&self) -> Result<tokio_postgres::Config> {
        let mut config = self.server.clone();
        match &self.password {
            Password::None => {}
            Password::Given(password) => {
                config.password(password.expose_secret());
            }
            Password::File(path) => {
                let read = || {
                    use std::io::Read as _;
                    let mut text = String::new();
                    std::fs::File::open(path)?.take(PASSWORD_BYTES_MAX).read_to_string(&mut text)?;
                    Ok(text)
                };
                let text = read().map_err(|source| IndexError::Password { path: path.clone(), source })?;
                let text = SecretString::from(text);
                config.password(text.expose_secret().lines().next().unwrap_or_default());
            }
        }
        Ok(config)
    }
}
