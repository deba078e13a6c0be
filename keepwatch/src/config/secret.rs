//! Where a secret comes from: never from the configuration itself, nor from a command line.

use std::path::PathBuf;

use secrecy::SecretString;

use super::sources::Environment;

/// Where a secret comes from: the first of these that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFrom {
    /// A file that the configuration names.
    File(PathBuf),
    /// A variable.
    Variable(Hidden),
    /// A systemd credential.
    Credential(PathBuf),
    /// There is none.
    Nowhere,
}

/// A secret that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// For whoever needs it.
    #[must_use]
    pub fn secret(&self) -> SecretString {
        self.0.as_str().into()
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl SecretFrom {
    /// By this variable, or this systemd credential.
    #[must_use]
    pub fn of(environment: &Environment, variable: &str, credential: &str) -> Self {
        let text = environment.vars.get(variable).and_then(|value| value.to_str()).filter(|text| !text.is_empty());
        let path = environment.credentials.as_ref().map(|dir| dir.join(credential)).filter(|path| path.exists());
        match (text, path) {
            (Some(text), _) => SecretFrom::Variable(Hidden(text.to_owned())),
            (None, Some(path)) => SecretFrom::Credential(path),
            (None, None) => SecretFrom::Nowhere,
        }
    }
}
