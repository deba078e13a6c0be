//! How Google's or Azure's store is reached, and by whom. Nothing here is ever printed.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

use super::CloudPlace;

/// How a store is reached.
#[derive(Clone, Debug)]
pub enum CloudAccess {
    /// Google Cloud Storage.
    Google(GoogleAccess),
    /// Azure Blob Storage.
    Azure(AzureAccess),
}

/// How Google Cloud Storage is reached.
#[derive(Clone, Debug)]
pub struct GoogleAccess {
    /// The URL of a store that speaks like it.
    pub endpoint: Option<String>,
    /// Who asks.
    pub credentials: GoogleCredentials,
}

/// Who asks Google Cloud Storage.
#[derive(Clone, Debug)]
pub enum GoogleCredentials {
    /// Whoever has this access token; it is not renewed.
    Token(SecretString),
    /// The service account or the user whose key a JSON file holds.
    File(PathBuf),
    /// The service account of this machine, as the metadata server tells.
    Machine,
}

/// How Azure Blob Storage is reached.
#[derive(Clone, Debug)]
pub struct AzureAccess {
    /// The storage account.
    pub account: String,
    /// The URL of a store that is not at `https://ACCOUNT.blob.core.windows.net`.
    pub endpoint: Option<String>,
    /// Who asks.
    pub credentials: AzureCredentials,
}

/// Who asks Azure Blob Storage.
#[derive(Clone, Debug)]
pub enum AzureCredentials {
    /// Whoever has a key of the account, in base64.
    Key(SecretString),
    /// Whoever has this shared access signature: a query, with or without the `?`.
    Signature(SecretString),
    /// A service principal by its secret.
    Principal {
        /// Its directory.
        tenant: String,
        /// Its id.
        client: String,
        /// Its secret.
        secret: SecretString,
    },
    /// A service principal by the token that a file holds, as Kubernetes writes it.
    Federated {
        /// Its directory.
        tenant: String,
        /// Its id.
        client: String,
        /// The file.
        token_file: PathBuf,
    },
    /// The managed identity of this machine.
    Machine {
        /// Which, where it has several.
        client: Option<String>,
        /// Where identities are given out; `None`: where all machines of Azure's have it.
        endpoint: Option<String>,
    },
}

/// What is asked for an access, and answers with one or with what is wrong and what to do.
type Ask = dyn Fn(&CloudPlace) -> Result<CloudAccess, String> + Send + Sync;

/// Who says how a store is reached. It is asked again after the store could not be reached: files of credentials change.
#[derive(Clone)]
pub struct CloudSource(Arc<Ask>);

impl CloudSource {
    /// Asks this. What it answers instead of an access is for people, and names the remedy.
    pub fn new(ask: impl Fn(&CloudPlace) -> Result<CloudAccess, String> + Send + Sync + 'static) -> Self {
        CloudSource(Arc::new(ask))
    }

    pub(super) fn access(&self, place: &CloudPlace) -> Result<CloudAccess, String> {
        (self.0)(place)
    }
}

impl Default for CloudSource {
    fn default() -> Self {
        CloudSource::new(|place| Err(format!("there are no credentials for {place}")))
    }
}

impl std::fmt::Debug for CloudSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CloudSource")
    }
}
