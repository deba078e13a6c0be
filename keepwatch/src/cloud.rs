//! Who asks Google's and Azure's stores, and where: from the flags, the environment, and the files that their own tools share.
//!
//! Nothing here is ever printed.

use std::path::{Path, PathBuf};

use keepwatch_engine::target::{
    AzureAccess, AzureCredentials, Cloud, CloudAccess, CloudPlace, CloudSource, GoogleAccess, GoogleCredentials,
    is_account,
};
use secrecy::SecretString;

use crate::aws::{Source, Variables, read_file};
use crate::error::CommandError;
use crate::show::safe::Safe;

/// Whether a variable of the environment says how one of these stores is reached.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    ["GOOGLE_", "CLOUDSDK_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix))
        || ["STORAGE_EMULATOR_HOST", "NO_GCE_CHECK", "IDENTITY_ENDPOINT"].contains(&name)
}

/// For the engine, which asks when it has to.
#[must_use]
pub fn for_engine(source: &Source) -> CloudSource {
    let source = source.clone();
    CloudSource::new(move |place| {
        access(place, &source).map_err(|error| {
            let hints = error.hints.iter().map(|hint| format!("; {hint}"));
            hints.fold(error.message.clone(), |text, hint| text + &hint)
        })
    })
}

/// How a store is reached.
///
/// # Errors
/// If nothing says who asks, or what says it cannot be followed.
pub fn access(place: &CloudPlace, source: &Source) -> Result<CloudAccess, CommandError> {
    match place.cloud() {
        Cloud::Google => google(source).map(CloudAccess::Google),
        Cloud::Azure => azure(place, source).map(CloudAccess::Azure),
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), CommandError> {
    if ["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
        return Ok(());
    }
    let message = format!("the endpoint `{}` is no URL", Safe::text(endpoint));
    Err(CommandError::usage(message).hint("write it as https://HOST or http://HOST:PORT"))
}

fn google(source: &Source) -> Result<GoogleAccess, CommandError> {
    let variables = &source.variables;
    let emulator = variables.get("STORAGE_EMULATOR_HOST").map(|host| match host.contains("://") {
        true => host.clone(),
        false => format!("http://{host}"),
    });
    let endpoint = source.asked.endpoint.clone().or(emulator);
    endpoint.as_deref().map_or(Ok(()), check_endpoint)?;
    Ok(GoogleAccess { endpoint, credentials: google_credentials(source)? })
}

/// In the order of Google's own tools: what was asked for, an access token, the file that a variable names, what
/// `gcloud auth application-default login` left, the machine's service account.
fn google_credentials(source: &Source) -> Result<GoogleCredentials, CommandError> {
    let variables = &source.variables;
    if let Some(file) = &source.asked.credentials_file {
        return google_file(file);
    }
    let token = ["CLOUDSDK_AUTH_ACCESS_TOKEN", "GOOGLE_OAUTH_ACCESS_TOKEN"].iter().find_map(|name| variables.get(name));
    if let Some(token) = token {
        return Ok(GoogleCredentials::Token(SecretString::from(token.as_str())));
    }
    if let Some(file) = variables.get("GOOGLE_APPLICATION_CREDENTIALS") {
        return google_file(Path::new(file));
    }
    let home = || source.home.as_ref().map(|home| home.join(".config/gcloud"));
    let dir = variables.get("CLOUDSDK_CONFIG").map(PathBuf::from).or_else(home);
    let left = dir.map(|dir| dir.join("application_default_credentials.json")).filter(|file| file.exists());
    if let Some(file) = left {
        return google_file(&file);
    }
    if variables.get("NO_GCE_CHECK").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(CommandError::usage("there are no credentials for Google Cloud Storage").hint(
            "name a service account's file as credentials_file or in GOOGLE_APPLICATION_CREDENTIALS, or run \
             `gcloud auth application-default login`",
        ));
    }
    Ok(GoogleCredentials::Machine)
}

/// A file of credentials, if it is of a kind that can be followed.
fn google_file(file: &Path) -> Result<GoogleCredentials, CommandError> {
    let text = read_file(file, true)?.unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    match json.get("type").and_then(serde_json::Value::as_str) {
        Some("service_account" | "authorized_user") => Ok(GoogleCredentials::File(file.to_owned())),
        Some(kind) => {
            let message = format!("the credentials in {} are of the kind `{}`", Safe::path(file), Safe::text(kind));
            Err(CommandError::usage(message).hint(
                "use a service account's key, or give an access token: \
                 CLOUDSDK_AUTH_ACCESS_TOKEN=$(gcloud auth print-access-token)",
            ))
        }
        None => {
            let message = format!("{} holds no credentials of Google's", Safe::path(file));
            Err(CommandError::usage(message).hint("a service account's key is a JSON file with a `type`"))
        }
    }
}

/// What the variables say of Azure; a file of credentials goes before the environment.
struct Said {
    file: Variables,
    environment: Variables,
}

impl Said {
    fn get(&self, names: &[&str]) -> Option<&String> {
        [&self.file, &self.environment].iter().find_map(|all| names.iter().find_map(|name| all.get(name)))
    }

    fn secret(&self, names: &[&str]) -> Option<SecretString> {
        self.get(names).map(|text| SecretString::from(text.as_str()))
    }
}

fn azure(place: &CloudPlace, source: &Source) -> Result<AzureAccess, CommandError> {
    let mut said = Said { file: Variables::default(), environment: source.variables.clone() };
    if let Some(file) = &source.asked.credentials_file {
        let text = read_file(file, true)?.unwrap_or_default();
        said.file = text.lines().filter_map(assignment).filter(|(name, _)| name.starts_with("AZURE_")).collect();
        if said.file == Variables::default() {
            let message = format!("{} holds no credentials of Azure's", Safe::path(file));
            return Err(CommandError::usage(message).hint("write lines such as AZURE_STORAGE_ACCOUNT_KEY=…"));
        }
    }
    // What the portal calls a connection string holds several of them.
    let connection: Variables = said
        .get(&["AZURE_STORAGE_CONNECTION_STRING"])
        .iter()
        .flat_map(|text| text.split(';').filter_map(assignment))
        .collect();
    let connected = |name: &str| connection.get(name).cloned();
    let account = place.account().map(str::to_owned);
    let account = account.or_else(|| said.get(&["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"]).cloned());
    let Some(account) = account.or_else(|| connected("AccountName")) else {
        return Err(CommandError::usage(format!("nothing says which storage account {place} is in"))
            .hint("write az://CONTAINER@ACCOUNT/PREFIX, or set AZURE_STORAGE_ACCOUNT"));
    };
    if !is_account(&account) {
        let message = format!("`{}` cannot be the name of a storage account", Safe::text(&account));
        return Err(CommandError::usage(message).hint("it has lower-case letters and digits only"));
    }
    let endpoint = source.asked.endpoint.clone().or_else(|| said.get(&["AZURE_STORAGE_ENDPOINT"]).cloned());
    let endpoint = endpoint.or_else(|| connected("BlobEndpoint"));
    endpoint.as_deref().map_or(Ok(()), check_endpoint)?;
    let credentials = match (connected("AccountKey"), connected("SharedAccessSignature")) {
        (Some(key), _) => AzureCredentials::Key(key.into()),
        (None, Some(signature)) => AzureCredentials::Signature(signature.into()),
        (None, None) => azure_credentials(&said)?,
    };
    Ok(AzureAccess { account, endpoint, credentials })
}

/// In the order of the library: a key, a principal by a file's token, a principal by its secret, a shared access signature,
/// the machine's identity.
fn azure_credentials(said: &Said) -> Result<AzureCredentials, CommandError> {
    let keys = ["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_KEY"];
    if let Some(key) = said.secret(&keys) {
        return Ok(AzureCredentials::Key(key));
    }
    let (tenant, client) = (said.get(&["AZURE_TENANT_ID"]).cloned(), said.get(&["AZURE_CLIENT_ID"]).cloned());
    let (secret, token_file) = (said.secret(&["AZURE_CLIENT_SECRET"]), said.get(&["AZURE_FEDERATED_TOKEN_FILE"]));
    match (tenant, client, token_file, secret) {
        (Some(tenant), Some(client), Some(file), _) => {
            Ok(AzureCredentials::Federated { tenant, client, token_file: PathBuf::from(file) })
        }
        (Some(tenant), Some(client), None, Some(secret)) => Ok(AzureCredentials::Principal { tenant, client, secret }),
        (_, _, None, Some(_)) => {
            Err(CommandError::usage("AZURE_CLIENT_SECRET is set, but not AZURE_TENANT_ID and AZURE_CLIENT_ID"))
        }
        (_, client, ..) => match said.secret(&["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"]) {
            Some(signature) => Ok(AzureCredentials::Signature(signature)),
            None => {
                let endpoint = said.get(&["IDENTITY_ENDPOINT"]).cloned();
                Ok(AzureCredentials::Machine { client, endpoint })
            }
        },
    }
}

/// `NAME=VALUE`, the value quoted or not.
fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.trim().trim_start_matches("export ").split_once('=')?;
    let value = value.trim();
    let plain = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    (!name.starts_with('#')).then(|| (name.trim().to_owned(), plain.unwrap_or(value).to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::aws::Asked;

    fn source(pairs: &[(&str, &str)]) -> Source {
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Source { variables, ..Source::default() }
    }

    fn asking(file: &Path, text: &str, more: &[(&str, &str)]) -> Source {
        std::fs::write(file, text).unwrap();
        Source { asked: Asked { credentials_file: Some(file.to_owned()), ..Asked::default() }, ..source(more) }
    }

    fn place(cloud: Cloud, text: &str) -> CloudPlace {
        CloudPlace::parse(cloud, text.as_bytes()).unwrap()
    }

    fn azure_of(text: &str, source: &Source) -> Result<AzureAccess, String> {
        azure(&place(Cloud::Azure, text), source).map_err(|error| error.to_string())
    }

    #[test]
    fn google_is_asked_by_the_nearest_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key.json");
        let asked = asking(&file, r#"{"type": "service_account"}"#, &[("CLOUDSDK_AUTH_ACCESS_TOKEN", "hush")]);
        assert!(matches!(google_credentials(&asked), Ok(GoogleCredentials::File(found)) if found == file));
        let token = google_credentials(&source(&[("CLOUDSDK_AUTH_ACCESS_TOKEN", "hush")])).unwrap();
        assert!(matches!(&token, GoogleCredentials::Token(token) if token.expose_secret() == "hush"));
        assert!(!format!("{token:?}").contains("hush"));
        let gcloud = dir.path().join(".config/gcloud");
        std::fs::create_dir_all(&gcloud).unwrap();
        let mut home = Source { home: Some(dir.path().to_owned()), ..source(&[]) };
        assert!(matches!(google_credentials(&home), Ok(GoogleCredentials::Machine)));
        std::fs::write(gcloud.join("application_default_credentials.json"), r#"{"type": "authorized_user"}"#).unwrap();
        assert!(matches!(google_credentials(&home), Ok(GoogleCredentials::File(_))));
        home.home = None;
        home.variables = source(&[("NO_GCE_CHECK", "true")]).variables;
        let none = google_credentials(&home).unwrap_err();
        assert!(none.to_string().contains("no credentials"), "{none}");
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key.json");
        let told = |source: &Source| google_credentials(source).unwrap_err().to_string();
        assert!(told(&asking(&file, r#"{"type": "external_account"}"#, &[])).contains("`external_account`"));
        assert!(told(&asking(&file, "secret stuff", &[])).contains("holds no credentials"));
        assert!(told(&source(&[("GOOGLE_APPLICATION_CREDENTIALS", "/no/such")])).contains("/no/such"));
        assert!(google(&source(&[("STORAGE_EMULATOR_HOST", "host:1")])).unwrap().endpoint.unwrap() == "http://host:1");
        assert!(azure_of("box", &source(&[])).unwrap_err().contains("which storage account"));
        let half = source(&[("AZURE_STORAGE_ACCOUNT", "acct"), ("AZURE_CLIENT_SECRET", "hush")]);
        let half = azure_of("box", &half).unwrap_err();
        assert!(half.contains("not AZURE_TENANT_ID") && !half.contains("hush"), "{half}");
        let odd = source(&[("AZURE_STORAGE_ACCOUNT", "a.b/c")]);
        assert!(azure_of("box", &odd).unwrap_err().contains("cannot be the name"));
    }

    #[test]
    fn azure_is_asked_by_the_nearest_credentials() {
        let all = [
            ("AZURE_STORAGE_ACCOUNT", "acct"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5"),
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_CLIENT_SECRET", "hush"),
            ("AZURE_STORAGE_SAS_TOKEN", "?sig=x"),
        ];
        let by = |from: usize| azure_of("box", &source(&[&all[..1], &all[from..]].concat())).unwrap().credentials;
        assert!(matches!(by(1), AzureCredentials::Key(_)));
        assert!(matches!(by(2), AzureCredentials::Principal { .. }) && !format!("{:?}", by(2)).contains("hush"));
        assert!(matches!(by(5), AzureCredentials::Signature(_)));
        assert!(matches!(by(6), AzureCredentials::Machine { client: None, endpoint: None }));
        assert_eq!(azure_of("box@other", &source(&all)).unwrap().account, "other");
        let connection = "DefaultEndpointsProtocol=http;AccountName=dev;AccountKey=a2V5==;BlobEndpoint=http://h:1/dev;";
        let access = azure_of("box", &source(&[("AZURE_STORAGE_CONNECTION_STRING", connection)])).unwrap();
        assert_eq!((&*access.account, access.endpoint.as_deref()), ("dev", Some("http://h:1/dev")));
        assert!(matches!(&access.credentials, AzureCredentials::Key(key) if key.expose_secret() == "a2V5=="));
        let dir = tempfile::tempdir().unwrap();
        let text = "# mine\nexport AZURE_STORAGE_SAS_TOKEN='?sig=y'\n";
        let asked = asking(&dir.path().join("azure.env"), text, &all[..1]);
        assert!(matches!(azure_of("box", &asked).unwrap().credentials, AzureCredentials::Signature(_)));
    }
}
