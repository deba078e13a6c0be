//! A secret that a target is used with. Printing it shows nothing.

use std::io::Read as _;
use std::path::PathBuf;

use secrecy::SecretString;

/// Bytes of a file with a secret.
const SECRET_BYTES_MAX: u64 = 4096;

/// By what a target knows us.
#[derive(Clone, Debug, Default)]
pub enum Secret {
    /// By nothing.
    #[default]
    None,
    /// The first line of a file, read at each connection.
    File(PathBuf),
    /// This.
    Given(SecretString),
}

impl Secret {
    /// The secret, if there is one.
    ///
    /// # Errors
    /// What is wrong with its file, and what to do.
    pub fn read(&self) -> std::result::Result<Option<SecretString>, String> {
        let path = match self {
            Secret::None => return Ok(None),
            Secret::Given(secret) => return Ok(Some(secret.clone())),
            Secret::File(path) => path,
        };
        let wrong = |why: String| format!("the secret in {} cannot be used: {why}", path.display());
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
        file.take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
        let text = SecretString::from(text);
        let line = secrecy::ExposeSecret::expose_secret(&text).lines().next().unwrap_or_default();
        if line.is_empty() { Err(wrong("its first line is empty".to_owned())) } else { Ok(Some(line.into())) }
    }
}
