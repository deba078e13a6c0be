//! Requests of the library on their way: with the checksum of what they carry, tried again, and given up when they take too
//! long. Every request here may be sent twice, and every reply is read whole.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RANGE};
use http::{Method, StatusCode};
use md5::{Digest as _, Md5};
use object_store::azure::{AzureAuthorizer, AzureCredential};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};

use crate::target::Patience;
use crate::target::stretches::STRETCH;
use crate::target::web::{client, innermost, jitter};

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
/// By which Azure says that a copy goes on after it has answered.
const COPY_STATUS: HeaderName = HeaderName::from_static("x-ms-copy-status");
/// By which Azure names what is wrong where a reply has no body.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
/// How often one who gives out credentials is asked.
const CREDENTIAL_TRIES: u32 = 2;
/// Bytes that any other reply may have, such as a page of a listing.
const PAGE_MAX: u64 = 1 << 20;
/// Bytes of a message that are told.
const MESSAGE_MAX: usize = 300;

/// Why a request came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("{host} cannot be reached: {why}")]
    Unreachable { host: String, why: String },
    #[error("{host} answers {status}{}{code}{message}", if code.is_empty() { "" } else { " " })]
    Refused { host: String, status: u16, code: String, message: String },
}

impl WireError {
    /// Who was asked.
    pub(super) fn host(&self) -> &str {
        match self {
            WireError::Unreachable { host, .. } | WireError::Refused { host, .. } => host,
        }
    }

    fn is_passing(&self) -> bool {
        match self {
            WireError::Unreachable { .. } => true,
            WireError::Refused { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
        }
    }
}

/// What Azure said of the copy that an object came from: it is read from a reply's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopyStatus(pub(super) String);

/// An account of Azure's and its key, by which a request is signed again when its checksum was added.
pub(super) type Signer = (String, Arc<AzureCredential>);

/// The way to a store, and to those who give out credentials for it.
pub(super) struct Wire {
    http: HttpClient,
    patience: Patience,
    /// Of the store.
    host: String,
    signer: Option<Signer>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Wire").field(&self.host).finish()
    }
}

/// Lends the library one way for all that it does.
#[derive(Clone, Debug)]
pub(super) struct Lent(HttpClient);

impl HttpConnector for Lent {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

impl Wire {
    /// A way to the store at this URL.
    pub(super) fn lent(endpoint: &str, signer: Option<Signer>, patience: Patience) -> Result<Lent, String> {
        let http = HttpClient::new(client(&patience)?);
        let wire = Wire { http, patience, host: host_of(endpoint), signer };
        Ok(Lent(HttpClient::new(wire)))
    }

    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, WireError> {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let is_store = host == self.host;
        let length = request.body().content_length() as u64;
        if is_store && *request.method() == Method::PUT && length > 0 {
            self.add_checksum(&mut request, &host).await?;
        }
        let tries = if is_store { self.patience.tries } else { CREDENTIAL_TRIES };
        let mut pause = self.patience.pause;
        for attempt in 1.. {
            match self.send_once(request.clone(), &host, length).await {
                Err(error) if error.is_passing() && attempt < tries => {
                    tracing::debug!(%error, method = %request.method(), attempt, "tried again");
                }
                answer => return answer,
            }
            tokio::time::sleep(pause.mul_f64(jitter())).await;
            pause *= 2;
        }
        unreachable!("the loop ends by its last try")
    }

    /// By it the store knows whether all came as it was sent, and takes it only then.
    async fn add_checksum(&self, request: &mut HttpRequest, host: &str) -> Result<(), WireError> {
        let broken = |why: String| WireError::Unreachable { host: host.to_owned(), why };
        let body = HttpResponseBody::new(request.body().clone()).bytes().await;
        let body = body.map_err(|error| broken(error.to_string()))?;
        let sum =
            HeaderValue::from_str(&STANDARD.encode(Md5::digest(&body))).map_err(|error| broken(error.to_string()))?;
        request.headers_mut().insert(CONTENT_MD5, sum);
        // One piece goes with its length; several would be sent in chunks of unknown number.
        *request.body_mut() = body.into();
        if let Some((account, credential)) = &self.signer {
            request.headers_mut().remove(AUTHORIZATION);
            let signed = AzureAuthorizer::new(credential, account).try_authorize(request);
            signed.map_err(|error| broken(innermost(&error)))?;
        }
        Ok(())
    }

    async fn send_once(&self, request: HttpRequest, host: &str, length: u64) -> Result<HttpResponse, WireError> {
        // A stretch of an object or a page of a listing; what the store copies by itself may take longer.
        let asked = if request.headers().contains_key(RANGE) { STRETCH } else { PAGE_MAX };
        let more = if *request.method() == Method::PUT && length == 0 { self.patience.work } else { Duration::ZERO };
        let time = self.patience.reply + more + Duration::from_secs((length + asked) / self.patience.rate_min.max(1));
        let unreachable = |why| WireError::Unreachable { host: host.to_owned(), why };
        let answer = tokio::time::timeout(time, async {
            let (mut parts, body) = self.http.execute(request).await?.into_parts();
            if let Some(status) = parts.headers.get(COPY_STATUS).and_then(|status| status.to_str().ok()) {
                let status = CopyStatus(status.to_owned());
                parts.extensions.insert(status);
            }
            Ok((parts, body.bytes().await?))
        });
        let (parts, body) = match answer.await {
            Ok(answer) => answer.map_err(|error: HttpError| unreachable(innermost(&error)))?,
            Err(_) => return Err(unreachable(format!("no answer within {} s", time.as_secs()))),
        };
        match parts.status.is_success() {
            true => Ok(HttpResponse::from_parts(parts, body.into())),
            false => Err(refused(host, parts.status, &parts.headers, &body)),
        }
    }
}

impl HttpService for Wire {
    /// What `async_trait` makes of `async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError>`.
    fn call<'s, 'f>(
        &'s self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            // Of this kind nothing is tried again by the library.
            self.send(request).await.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))
        })
    }
}

/// Host and port of a URL.
pub(super) fn host_of(url: &str) -> String {
    let uri: http::Uri = url.parse().unwrap_or_default();
    uri.authority().map(ToString::to_string).unwrap_or_default()
}

fn refused(host: &str, status: StatusCode, headers: &HeaderMap, body: &Bytes) -> WireError {
    let text = String::from_utf8_lossy(body);
    let within = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once(&format!("</{tag}>"))?.0.to_owned())
    };
    let code = headers.get(ERROR_CODE).and_then(|code| code.to_str().ok()).map(str::to_owned);
    let message = within("Message").map(|text| text.split('\n').next().unwrap_or_default().to_owned());
    let message = message.map(|text| format!(": {}", text.chars().take(MESSAGE_MAX).collect::<String>()));
    WireError::Refused {
        host: host.to_owned(),
        status: status.as_u16(),
        code: code.or_else(|| within("Code")).unwrap_or_default(),
        message: message.unwrap_or_default(),
    }
}
