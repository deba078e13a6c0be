//! Requests on their way: signed, tried again, and given up when they take too long.
//!
//! Every request here may be sent twice: what is put is the same both times, and where the store says at the second time that
//! something is there, or gone, already, the caller looks whose work that was.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{ClientOptions, HttpClient, HttpConnector, HttpRequest, HttpRequestBody};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::reply::{self, ErrorReply};
use super::{Credentials, Patience, S3Access};
use crate::target::web::{client, escape, innermost, jitter};

/// A request.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// Of which object; `None`: of the bucket.
    pub(super) key: Option<String>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
    /// The SHA-256 of the body, where it is known.
    pub(super) digest: Option<[u8; 32]>,
    /// Bytes that the reply may have.
    pub(super) expected: u64,
    /// Whether the store has to copy or join something large.
    pub(super) is_work: bool,
}

impl Ask {
    pub(super) fn new(method: Method, key: Option<&str>) -> Self {
        Ask { method, key: key.map(str::to_owned), ..Ask::default() }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// With a header, if its value can be one: what comes here is ASCII.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (HeaderName::from_static(name), value)));
        self
    }

    pub(super) fn headers(mut self, headers: &[(HeaderName, HeaderValue)]) -> Self {
        self.headers.extend_from_slice(headers);
        self
    }

    pub(super) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// What came back, whole.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("{endpoint} cannot be reached: {why}")]
    Unreachable { endpoint: String, why: String },
    #[error("no credentials: {why}")]
    Credentials { why: String },
    #[error("the store answers {status} {code}: {message}")]
    Refused { status: u16, code: String, message: String, region: Option<String> },
}

impl WireError {
    /// Whether the object that was asked for is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, WireError::Refused { status: 404, code, .. } if matches!(&**code, "" | "NoSuchKey" | "NotFound"))
    }

    /// Whether a condition did not hold.
    pub(super) fn is_condition(&self) -> bool {
        matches!(self, WireError::Refused { status: 412, .. })
            || matches!(self, WireError::Refused { code, .. } if code == "ConditionalRequestConflict")
    }

    pub(super) fn has_code(&self, wanted: &str) -> bool {
        matches!(self, WireError::Refused { code, .. } if code == wanted)
    }

    fn is_passing(&self) -> bool {
        match self {
            WireError::Unreachable { .. } => true,
            WireError::Credentials { .. } => false,
            WireError::Refused { status, code, .. } => {
                matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
                    || matches!(&**code, "RequestTimeout" | "InternalError" | "SlowDown" | "ServiceUnavailable")
            }
        }
    }
}

/// The way to a bucket.
pub(super) struct Wire {
    http: reqwest::Client,
    credentials: AwsCredentialProvider,
    region: String,
    endpoint: String,
    /// The bucket's URL.
    base: String,
    patience: Patience,
}

impl Wire {
    pub(super) fn new(bucket: &str, access: &S3Access, patience: Patience) -> Result<Self, String> {
        let http = client(&patience)?;
        let (endpoint, base) = addresses(bucket, access);
        let credentials = credentials(bucket, access, &http)?;
        Ok(Wire { credentials, http, region: access.region.clone(), endpoint, base, patience })
    }

    /// Sends a request until it is answered, or has been tried often enough.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Reply, WireError> {
        let mut pause = self.patience.pause;
        let mut tries = 1;
        loop {
            match self.send_once(ask).await {
                Err(error) if error.is_passing() && tries < self.patience.tries => {
                    tracing::debug!(%error, method = %ask.method, key = ask.key, tries, "tried again");
                }
                answer => return answer,
            }
            tokio::time::sleep(pause.mul_f64(jitter())).await;
            pause *= 2;
            tries += 1;
        }
    }

    async fn send_once(&self, ask: &Ask) -> Result<Reply, WireError> {
        let mut request = reqwest::Request::new(ask.method.clone(), self.url(ask)?);
        *request.headers_mut() = self.signed(ask, request.url()).await?;
        let bytes = ask.body.len() as u64 + ask.expected;
        let more = if ask.is_work { self.patience.work } else { Duration::ZERO };
        let time = self.patience.reply + more + Duration::from_secs(bytes / self.patience.rate_min.max(1));
        *request.timeout_mut() = Some(time);
        if !ask.body.is_empty() || ask.method == Method::PUT {
            *request.body_mut() = Some(ask.body.clone().into());
        }
        let unreachable = |error: reqwest::Error| WireError::Unreachable {
            endpoint: self.endpoint.clone(),
            why: innermost(&error.without_url()),
        };
        let response = self.http.execute(request).await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(unreachable)?;
        // A copy, or an upload that is joined, may answer 200 and fail afterwards.
        let is_late_error = status == StatusCode::OK && ask.is_work && reply::is_error(&body);
        if status.is_success() && !is_late_error {
            return Ok(Reply { headers, body });
        }
        let said = reply::error(&body).unwrap_or_default();
        Err(refused(if is_late_error { 500 } else { status.as_u16() }, &headers, said))
    }

    fn url(&self, ask: &Ask) -> Result<reqwest::Url, WireError> {
        let mut url = self.base.clone();
        url.push('/');
        if let Some(key) = &ask.key {
            escape(key, true, &mut url);
        }
        for (index, (name, value)) in ask.query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            escape(value, false, &mut url);
        }
        let wrong = |error| WireError::Unreachable { endpoint: self.endpoint.clone(), why: format!("{error}") };
        url.parse().map_err(wrong)
    }

    async fn signed(&self, ask: &Ask, url: &reqwest::Url) -> Result<HeaderMap, WireError> {
        let no_credentials = |error: object_store::Error| WireError::Credentials { why: innermost(&error) };
        let credential = self.credentials.get_credential().await.map_err(no_credentials)?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = url.as_str().parse().unwrap_or_default();
        request.headers_mut().extend(ask.headers.iter().cloned());
        let digest = ask.digest.unwrap_or_else(|| Sha256::digest(&ask.body).into());
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, Some(&digest))
            .map_err(no_credentials)?;
        Ok(std::mem::take(request.headers_mut()))
    }
}

fn refused(status: u16, headers: &HeaderMap, said: ErrorReply) -> WireError {
    let told = headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
    WireError::Refused {
        status,
        code: said.code,
        message: said.message,
        region: told.map(str::to_owned).or(said.region),
    }
}

/// The endpoint for people, and the bucket's URL.
fn addresses(bucket: &str, access: &S3Access) -> (String, String) {
    let region = &access.region;
    match &access.endpoint {
        Some(endpoint) => {
            let endpoint = endpoint.trim_end_matches('/');
            (endpoint.to_owned(), format!("{endpoint}/{bucket}"))
        }
        // A name with a dot does not fit the certificate.
        None if bucket.contains('.') => {
            let endpoint = format!("https://s3.{region}.amazonaws.com");
            (endpoint.clone(), format!("{endpoint}/{bucket}"))
        }
        None => {
            let base = format!("https://{bucket}.s3.{region}.amazonaws.com");
            (base.clone(), base)
        }
    }
}

/// Lends our client to the library that fetches credentials.
#[derive(Debug)]
struct Lent(reqwest::Client);

impl HttpConnector for Lent {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

fn credentials(bucket: &str, access: &S3Access, http: &reqwest::Client) -> Result<AwsCredentialProvider, String> {
    let builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&access.region)
        .with_http_connector(Lent(http.clone()));
    use object_store::aws::AmazonS3ConfigKey as Key;
    let builder = match &access.credentials {
        Credentials::Keys { key_id, secret, token } => {
            let builder = builder.with_access_key_id(key_id).with_secret_access_key(secret.expose_secret().to_owned());
            match token {
                Some(token) => builder.with_token(token.expose_secret().to_owned()),
                None => builder,
            }
        }
        Credentials::WebIdentity { token_file, role_arn } => builder
            .with_config(Key::WebIdentityTokenFile, token_file.display().to_string())
            .with_config(Key::RoleArn, role_arn),
        Credentials::Container { path } => builder.with_config(Key::ContainerCredentialsRelativeUri, path),
        Credentials::Instance { endpoint: Some(endpoint) } => builder.with_metadata_endpoint(endpoint),
        Credentials::Instance { endpoint: None } => builder,
    };
    let store = builder.build().map_err(|error| innermost(&error))?;
    Ok(std::sync::Arc::clone(store.credentials()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_pass_are_tried_again_and_others_not() {
        let refused = |status, code: &str| {
            let (code, message, region) = (code.to_owned(), String::new(), None);
            WireError::Refused { status, code, message, region }
        };
        assert!(refused(503, "SlowDown").is_passing());
        assert!(refused(400, "RequestTimeout").is_passing());
        assert!(!refused(403, "AccessDenied").is_passing());
        assert!(!refused(501, "NotImplemented").is_passing());
        assert!(refused(404, "").is_missing());
        assert!(!refused(404, "NoSuchBucket").is_missing());
    }
}
