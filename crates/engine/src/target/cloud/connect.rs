//! The way to a store: the library with our client, our patience and the credentials that were found.

use std::sync::Arc;

use object_store::azure::{AzureAccessKey, AzureConfigKey, AzureCredential, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::{ObjectStore, RetryConfig};
use secrecy::ExposeSecret as _;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::wire::{Wire, host_of};
use super::{
    AzureAccess, AzureCredentials, CloudAccess, CloudPlace, CloudSource, CloudStore, GoogleAccess, GoogleCredentials,
    MEMORY_MAX, Patience, UNIT, error,
};
use crate::model::RelPath;
use crate::target::web::innermost;
use crate::target::{Result, TargetError};

/// Where Google's store is.
const GOOGLE: &str = "https://storage.googleapis.com";
/// Threads for the network.
const WORKERS: usize = 2;

/// What the library made.
struct Made {
    host: String,
    objects: Arc<dyn ObjectStore>,
    pages: Arc<dyn PaginatedListStore>,
}

/// Goes to a store, and looks whether it lets us in.
pub(super) fn connect(place: &CloudPlace, source: &CloudSource, patience: Patience) -> Result<CloudStore> {
    let away = |why| TargetError::Away { place: place.to_string(), why };
    let access = source.access(place).map_err(away)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name(place.cloud().scheme())
        .enable_all()
        .build()
        .map_err(|error| away(format!("its threads cannot be started: {error}")))?;
    let made = match &access {
        CloudAccess::Google(access) => google(place, access, patience, &runtime),
        CloudAccess::Azure(access) => azure(place, access, patience, &runtime),
    };
    let Made { host, objects, pages } = made.map_err(away)?;
    let store = CloudStore {
        prefix: place.key_prefix(),
        place: place.clone(),
        patience,
        host,
        objects,
        pages,
        memory: Arc::new(Semaphore::new(MEMORY_MAX / UNIT)),
        runtime: Some(Arc::new(runtime)),
    };
    match store.wait(store.page(&store.prefix, None, Some(1))) {
        Ok(_) => Ok(store),
        Err(error) if error::is_missing(&error) => {
            Err(away(format!("there is no `{}` there: make it, or check its name and `endpoint`", place.bucket())))
        }
        Err(error) => Err(store.error("list", &RelPath::ROOT)(error)),
    }
}

/// The library tries nothing again: the wire does.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn google(place: &CloudPlace, access: &GoogleAccess, patience: Patience, runtime: &Runtime) -> Result<Made, String> {
    let endpoint = access.endpoint.as_deref().unwrap_or(GOOGLE).trim_end_matches('/');
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(place.bucket())
        .with_base_url(endpoint)
        .with_http_connector(Wire::lent(endpoint, None, patience)?)
        .with_retry(once());
    let (builder, whose) = match &access.credentials {
        GoogleCredentials::Token(token) => (builder.with_bearer_token(token.expose_secret()), String::new()),
        GoogleCredentials::File(file) => {
            let whose = format!("the credentials in {} cannot be used: ", file.display());
            (
                builder.with_application_credentials(
                    file.to_str().ok_or_else(|| format!("{whose}its name is not UTF-8"))?,
                ),
                whose,
            )
        }
        // There is no file of credentials where the library looks for one, or it would have been named.
        GoogleCredentials::Machine => (builder, String::new()),
    };
    let remedy = if whose.is_empty() { "" } else { "; get the key anew, as a JSON file" };
    let store = builder.build().map_err(|error| format!("{whose}{}{remedy}", innermost(&error)))?;
    let credential = runtime.block_on(store.credentials().get_credential());
    credential.map_err(|error| error::no_credentials(place.cloud(), &innermost(&error)))?;
    let store = Arc::new(store);
    Ok(Made { host: host_of(endpoint), objects: Arc::clone(&store) as Arc<dyn ObjectStore>, pages: store })
}

fn azure(place: &CloudPlace, access: &AzureAccess, patience: Patience, runtime: &Runtime) -> Result<Made, String> {
    let account = &access.account;
    let endpoint = access.endpoint.clone().unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let signer = match &access.credentials {
        AzureCredentials::Key(key) => {
            let key = AzureAccessKey::try_new(key.expose_secret());
            let key = key.map_err(|_| "the account's key is no base64: copy it again from the portal".to_owned())?;
            Some((account.clone(), Arc::new(AzureCredential::AccessKey(key))))
        }
        _ => None,
    };
    let builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(place.bucket())
        .with_endpoint(endpoint.clone())
        .with_http_connector(Wire::lent(&endpoint, signer, patience)?)
        .with_disable_tagging(true)
        .with_retry(once());
    let builder = match &access.credentials {
        AzureCredentials::Key(key) => builder.with_credential_type("access_key").with_access_key(key.expose_secret()),
        AzureCredentials::Signature(signature) => builder
            .with_credential_type("sas_token")
            .with_config(AzureConfigKey::SasKey, signature.expose_secret().trim_start_matches('?')),
        AzureCredentials::Principal { tenant, client, secret } => builder
            .with_credential_type("client_secret")
            .with_client_secret_authorization(client, secret.expose_secret(), tenant),
        AzureCredentials::Federated { tenant, client, token_file } => builder
            .with_credential_type("workload_identity")
            .with_client_id(client)
            .with_tenant_id(tenant)
            .with_federated_token_file(token_file.display().to_string()),
        AzureCredentials::Machine { client, endpoint } => {
            let builder = builder.with_credential_type("managed_identity");
            let builder = client.iter().fold(builder, MicrosoftAzureBuilder::with_client_id);
            endpoint.iter().fold(builder, MicrosoftAzureBuilder::with_msi_endpoint)
        }
    };
    let store = builder.build().map_err(|error| innermost(&error))?;
    let credential = runtime.block_on(store.credentials().get_credential());
    credential.map_err(|error| error::no_credentials(place.cloud(), &innermost(&error)))?;
    let store = Arc::new(store);
    Ok(Made { host: host_of(&endpoint), objects: Arc::clone(&store) as Arc<dyn ObjectStore>, pages: store })
}
