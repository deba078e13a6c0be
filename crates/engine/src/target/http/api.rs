//! Requests to an HTTP store: signed, tried again, and given up when they take too long.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use super::place::HttpPlace;
use super::sign::{SCHEME, signature};
use crate::clock::{Clock as _, SystemClock};
use crate::target::web::{Patience, client, innermost, jitter};

/// Threads for the network.
const WORKERS: usize = 2;
/// Bytes of a file that are read at once.
const CHUNK: usize = 256 << 10;
/// The longest answer that is not content.
pub(super) const ANSWER_MAX: usize = 64 << 20;
/// Characters of a server's words that are passed on.
const WORDS_MAX: usize = 200;

const DATE: HeaderName = HeaderName::from_static("x-keepwatch-date");
const SHA256: HeaderName = HeaderName::from_static("x-keepwatch-sha256");

/// What a request carries.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Bytes(Bytes),
    /// A file of this length and hash.
    File(PathBuf, u64, [u8; 32]),
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("it cannot be reached: {0}; check the URL and the network")]
    Unreachable(String),
    #[error("the server answers {status}{}{words}", if words.is_empty() { "" } else { ": " })]
    Refused { status: u16, words: String },
}

impl Fault {
    fn is_passing(&self) -> bool {
        match self {
            Fault::Unreachable(_) => true,
            Fault::Refused { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Fault::Refused { status: 404 | 410, .. })
    }
}

/// The way to a store.
pub(super) struct Api {
    pub(super) place: HttpPlace,
    secret: Option<SecretString>,
    http: reqwest::Client,
    patience: Patience,
    /// `None` only while it is being dropped.
    runtime: Option<Runtime>,
}

impl Drop for Api {
    /// Whatever thread drops it: one of its own cannot wait for itself to end.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Api {
    pub(super) fn new(place: HttpPlace, secret: Option<SecretString>, patience: Patience) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(|error| format!("its threads cannot be started: {error}"))?;
        Ok(Api { place, secret, http: client(&patience)?, patience, runtime: Some(runtime) })
    }

    /// Waits for what goes on in the network.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it is taken only by drop").block_on(work)
    }

    /// Sends a request until it is answered, or has been tried often enough. Every request here may arrive twice.
    pub(super) fn send(
        &self,
        method: &Method,
        target: &str,
        body: &Body,
        expected: u64,
    ) -> Result<reqwest::Response, Fault> {
        let mut pause = self.patience.pause;
        let mut tries = 1;
        loop {
            match self.wait(self.send_once(method, target, body, expected)) {
                Err(error) if error.is_passing() && tries < self.patience.tries => {
                    tracing::debug!(%error, %method, target, tries, "tried again");
                }
                answer => return answer,
            }
            std::thread::sleep(pause.mul_f64(jitter()));
            pause *= 2;
            tries += 1;
        }
    }

    async fn send_once(
        &self,
        method: &Method,
        target: &str,
        body: &Body,
        expected: u64,
    ) -> Result<reqwest::Response, Fault> {
        let url = format!("{}{target}", self.place.origin());
        let url = url.parse().map_err(|error| Fault::Unreachable(format!("{error}")))?;
        let mut request = reqwest::Request::new(method.clone(), url);
        let (length, digest) = match body {
            Body::Bytes(bytes) => (bytes.len() as u64, Sha256::digest(bytes).into()),
            Body::File(_, length, digest) => (*length, *digest),
        };
        *request.headers_mut() = self.headers(method, target, digest, length);
        *request.timeout_mut() =
            Some(self.patience.reply + Duration::from_secs((length + expected) / self.patience.rate_min.max(1)));
        *request.body_mut() = match body {
            Body::Bytes(bytes) if bytes.is_empty() => None,
            Body::Bytes(bytes) => Some(bytes.clone().into()),
            Body::File(path, ..) => Some(streamed(path).map_err(|error| Fault::Unreachable(error.to_string()))?),
        };
        let unreachable = |error: reqwest::Error| Fault::Unreachable(innermost(&error.without_url()));
        let response = self.http.execute(request).await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let words = if status == StatusCode::NOT_FOUND { String::new() } else { words(response).await };
        Err(Fault::Refused { status: status.as_u16(), words })
    }

    fn headers(&self, method: &Method, target: &str, digest: [u8; 32], length: u64) -> HeaderMap {
        let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let date = SystemClock.now().to_string();
        let mut headers = HeaderMap::new();
        let signed = self.secret.as_ref().map(|secret| {
            let made = signature(secret.expose_secret().as_bytes(), method.as_str(), target, &date, &sha256);
            format!("{SCHEME} {made}")
        });
        let length = (length > 0 || *method == Method::PUT).then(|| length.to_string());
        let all = [(DATE, Some(date)), (SHA256, Some(sha256)), (AUTHORIZATION, signed), (CONTENT_LENGTH, length)];
        for (name, value) in all {
            if let Some(Ok(mut value)) = value.map(HeaderValue::try_from) {
                value.set_sensitive(name == AUTHORIZATION);
                headers.insert(name, value);
            }
        }
        headers
    }

    /// All of an answer that is not content.
    pub(super) fn answer(&self, mut response: reqwest::Response) -> Result<Vec<u8>, Fault> {
        let unreachable = |error: reqwest::Error| Fault::Unreachable(innermost(&error.without_url()));
        self.wait(async {
            let mut all = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
                all.extend_from_slice(&chunk);
                if all.len() > ANSWER_MAX {
                    return Err(Fault::Unreachable(format!("it answers with more than {ANSWER_MAX} bytes")));
                }
            }
            Ok(all)
        })
    }
}

/// What a server says to a refusal, for people: its first line.
async fn words(mut response: reqwest::Response) -> String {
    let first = response.chunk().await.ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&first);
    let line = text.lines().next().unwrap_or_default().trim();
    line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

/// A file's content, read as it is sent.
fn streamed(path: &PathBuf) -> std::io::Result<reqwest::Body> {
    let file = File::open(path)?;
    let chunks = stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk)?;
        chunk.truncate(read);
        std::io::Result::Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    });
    Ok(reqwest::Body::wrap_stream(chunks))
}
