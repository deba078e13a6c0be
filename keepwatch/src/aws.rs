//! Who asks S3, and where: from the flags, the environment, and the files that AWS's own tools share.
//!
//! In the order of those tools: keys of the environment, a role by a web identity, the profile's keys, the container's agent,
//! the machine's metadata service. Nothing here is ever printed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use keepwatch_engine::target::{Credentials, S3Access, S3Source};
use secrecy::SecretString;

use crate::error::CommandError;
use crate::show::safe::Safe;

/// Where a bucket is looked for unless something says otherwise.
const REGION_DEFAULT: &str = "us-east-1";
/// A file of credentials is not larger.
const FILE_MAX: u64 = 1 << 20;

/// The variables that say how S3, or another store of objects, is reached. Printing them shows their names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        Variables(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }
}

impl Variables {
    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&String> {
        self.0.get(name)
    }
}

/// What was asked for in flags or in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The URL of a store that is not AWS, Google's or Azure's own.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// A profile of the shared files.
    pub profile: Option<String>,
    /// A file of credentials in the place of `~/.aws/credentials`; of Google's, a JSON file; of Azure's, one of variables.
    pub credentials_file: Option<PathBuf>,
}

/// All from which it follows who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// What was asked for.
    pub asked: Asked,
    /// The process's.
    pub variables: Variables,
    /// Where `.aws` is.
    pub home: Option<PathBuf>,
}

impl Source {
    /// How S3 is reached.
    ///
    /// # Errors
    /// If a profile is named that is not there, or that says what cannot be followed.
    pub fn access(&self) -> Result<S3Access, CommandError> {
        access(&self.asked, &self.variables, self.home.as_deref())
    }

    /// For the engine, which asks when it has to.
    #[must_use]
    pub fn for_engine(&self) -> S3Source {
        let source = self.clone();
        S3Source::new(move || {
            source.access().map_err(|error| {
                let hints = error.hints.iter().map(|hint| format!("; {hint}"));
                hints.fold(error.message.clone(), |text, hint| text + &hint)
            })
        })
    }
}

/// How S3 is reached.
///
/// # Errors
/// If a profile is named that is not there, or that says what cannot be followed.
fn access(asked: &Asked, variables: &Variables, home: Option<&Path>) -> Result<S3Access, CommandError> {
    let (name, profile) = read_profile(asked, variables, home)?;
    let setting = |asked: &Option<String>, names: &[&str], key: &str| {
        let variable = || names.iter().find_map(|name| variables.get(name));
        asked.as_ref().or_else(variable).or_else(|| profile.get(key)).cloned()
    };
    let endpoint = setting(&asked.endpoint, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"], "endpoint_url");
    if let Some(endpoint) = &endpoint
        && !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
    {
        let message = format!("the endpoint `{}` is no URL", Safe::text(endpoint));
        return Err(CommandError::usage(message).hint("write it as https://HOST or http://HOST:PORT"));
    }
    let region = setting(&asked.region, &["AWS_REGION", "AWS_DEFAULT_REGION"], "region");
    let region = region.unwrap_or_else(|| REGION_DEFAULT.to_owned());
    Ok(S3Access { region, endpoint, credentials: credentials(asked, variables, &name, &profile)? })
}

fn credentials(
    asked: &Asked,
    variables: &Variables,
    name: &str,
    profile: &Profile,
) -> Result<Credentials, CommandError> {
    let keys = |id: &str, secret: &str, token: Option<&String>| Credentials::Keys {
        key_id: id.to_owned(),
        secret: SecretString::from(secret),
        token: token.map(|token| SecretString::from(token.as_str())),
    };
    // A profile that was asked for goes before the environment.
    let is_asked = asked.profile.is_some() || asked.credentials_file.is_some();
    if !is_asked {
        match (variables.get("AWS_ACCESS_KEY_ID"), variables.get("AWS_SECRET_ACCESS_KEY")) {
            (Some(id), Some(secret)) => return Ok(keys(id, secret, variables.get("AWS_SESSION_TOKEN"))),
            (Some(_), None) => {
                return Err(CommandError::usage("AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY"));
            }
            (None, Some(_)) => {
                return Err(CommandError::usage("AWS_SECRET_ACCESS_KEY is set, but not AWS_ACCESS_KEY_ID"));
            }
            (None, None) => {}
        }
        if let (Some(file), Some(role)) = (variables.get("AWS_WEB_IDENTITY_TOKEN_FILE"), variables.get("AWS_ROLE_ARN"))
        {
            return Ok(Credentials::WebIdentity { token_file: PathBuf::from(file), role_arn: role.clone() });
        }
    }
    if let (Some(id), Some(secret)) = (profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")) {
        return Ok(keys(id, secret, profile.get("aws_session_token")));
    }
    for key in ["role_arn", "sso_session", "sso_start_url", "credential_process"] {
        if profile.contains_key(key) {
            let message =
                format!("the profile `{}` has no keys but a `{key}`, which is not followed", Safe::text(name));
            let hint = "`aws configure export-credentials --format env` turns it into variables";
            return Err(CommandError::usage(message).hint(hint));
        }
    }
    if is_asked {
        let message = format!("the profile `{}` has no access key", Safe::text(name));
        return Err(CommandError::usage(message).hint("give it aws_access_key_id and aws_secret_access_key"));
    }
    if let Some(path) = variables.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Ok(Credentials::Container { path: path.clone() });
    }
    if variables.get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(CommandError::usage("there are no credentials for S3")
            .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a --profile"));
    }
    Ok(Credentials::Instance { endpoint: variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").cloned() })
}

/// The settings of a section.
type Profile = BTreeMap<String, String>;

/// The profile that is meant, and its name. One that was named must be there.
fn read_profile(asked: &Asked, variables: &Variables, home: Option<&Path>) -> Result<(String, Profile), CommandError> {
    let named = asked.profile.as_ref().or_else(|| variables.get("AWS_PROFILE"));
    let name = named.cloned().unwrap_or_else(|| "default".to_owned());
    let in_home = |file: &str| home.map(|home| home.join(".aws").join(file));
    let file = |variable: &str, name: &str| variables.get(variable).map(PathBuf::from).or_else(|| in_home(name));
    let config = file("AWS_CONFIG_FILE", "config");
    let shared = asked.credentials_file.clone().or_else(|| file("AWS_SHARED_CREDENTIALS_FILE", "credentials"));
    let mut profile = Profile::new();
    let mut is_there = false;
    for (path, is_config) in [(config, true), (shared, false)] {
        let Some(path) = path else { continue };
        let must_exist = !is_config && asked.credentials_file.is_some();
        let Some(text) = read_file(&path, must_exist)? else { continue };
        let section = if is_config && name != "default" { format!("profile {name}") } else { name.clone() };
        if let Some(found) = parse(&text).remove(&section) {
            is_there = true;
            profile.extend(found);
        }
    }
    if !is_there && let Some(named) = named {
        let message = format!("there is no profile `{}` in ~/.aws/config or ~/.aws/credentials", Safe::text(named));
        return Err(CommandError::usage(message).hint("`aws configure list-profiles` names those that are there"));
    }
    Ok((name, profile))
}

/// The text of a file of credentials; `None`: it is not there and need not be.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read_file(path: &Path, must_exist: bool) -> Result<Option<String>, CommandError> {
    use std::io::Read as _;
    let read = std::fs::File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text).map(|_| text)
    });
    match read {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(error) => Err(CommandError::usage(format!("cannot read {}: {error}", Safe::path(path)))),
    }
}

/// The sections of a file of AWS's: `[NAME]`, `key = value`, `#` and `;` for remarks. Indented lines belong to a key that has
/// settings of its own, of which none is used here.
fn parse(text: &str) -> BTreeMap<String, Profile> {
    let mut sections: BTreeMap<String, Profile> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if line.starts_with([' ', '\t', '#', ';']) || line.trim().is_empty() {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.split(']').next().unwrap_or_default();
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            sections.entry(name.clone()).or_default();
            current = Some(name);
            continue;
        }
        let (Some(section), Some((key, value))) = (&current, line.split_once('=')) else { continue };
        let value = value.split(" #").next().unwrap_or_default().trim();
        sections.entry(section.clone()).or_default().insert(key.trim().to_lowercase(), value.to_owned());
    }
    sections
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn home(config: &str, credentials: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".aws")).unwrap();
        std::fs::write(dir.path().join(".aws/config"), config).unwrap();
        std::fs::write(dir.path().join(".aws/credentials"), credentials).unwrap();
        dir
    }

    fn key_of(access: &S3Access) -> (String, String) {
        match &access.credentials {
            Credentials::Keys { key_id, secret, .. } => (key_id.clone(), secret.expose_secret().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile store]\nregion=us-west-2 # there\nendpoint_url = http://store:9000\ns3 =\n  region = nowhere\n[profile sso]\nsso_session = x\n";
    const KEYS: &str = "# keys\n[default]\naws_access_key_id = AK1\naws_secret_access_key = s1=/+\n[store]\naws_access_key_id=AK2\naws_secret_access_key=s2\n";

    #[test]
    fn the_environment_goes_before_the_files_and_a_profile_before_both() {
        let home = home(CONFIG, KEYS);
        let set =
            variables(&[("AWS_ACCESS_KEY_ID", "AK0"), ("AWS_SECRET_ACCESS_KEY", "s0"), ("AWS_REGION", "eu-north-1")]);
        let plain = access(&Asked::default(), &set, Some(home.path())).unwrap();
        assert_eq!((key_of(&plain), &*plain.region), (("AK0".to_owned(), "s0".to_owned()), "eu-north-1"));
        let files = access(&Asked::default(), &variables(&[]), Some(home.path())).unwrap();
        assert_eq!((key_of(&files), &*files.region), (("AK1".to_owned(), "s1=/+".to_owned()), "eu-west-1"));
        let asked = Asked { profile: Some("store".to_owned()), ..Asked::default() };
        let store = access(
            &asked,
            &variables(&[("AWS_ACCESS_KEY_ID", "AK0"), ("AWS_SECRET_ACCESS_KEY", "s0")]),
            Some(home.path()),
        )
        .unwrap();
        assert_eq!(key_of(&store).0, "AK2");
        assert_eq!((&*store.region, store.endpoint.as_deref()), ("us-west-2", Some("http://store:9000")));
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let home = home(CONFIG, KEYS);
        let refused = |profile: &str| {
            let asked = Asked { profile: Some(profile.to_owned()), ..Asked::default() };
            access(&asked, &variables(&[]), Some(home.path())).unwrap_err().to_string()
        };
        assert!(refused("nobody").contains("no profile `nobody`"));
        assert!(refused("sso").contains("`sso_session`"));
        let half = access(&Asked::default(), &variables(&[("AWS_ACCESS_KEY_ID", "x")]), None).unwrap_err();
        assert!(half.to_string().contains("not AWS_SECRET_ACCESS_KEY"));
    }

    #[test]
    fn without_anything_the_machine_is_asked_unless_that_is_forbidden() {
        let machine = access(&Asked::default(), &variables(&[]), None).unwrap();
        assert!(matches!(machine.credentials, Credentials::Instance { endpoint: None }));
        assert_eq!(machine.region, "us-east-1");
        assert!(access(&Asked::default(), &variables(&[("AWS_EC2_METADATA_DISABLED", "true")]), None).is_err());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let set = variables(&[("AWS_ACCESS_KEY_ID", "AK0"), ("AWS_SECRET_ACCESS_KEY", "hush")]);
        let access = access(&Asked::default(), &set, None).unwrap();
        assert!(!format!("{set:?} {access:?}").contains("hush"));
    }
}
