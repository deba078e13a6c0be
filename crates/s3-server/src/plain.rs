//! What the dialects that are spoken here without a library share: requests taken apart, and replies.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use md5::{Digest as _, Md5};

use crate::store::{Arriving, Object};

/// Bytes of a key.
pub(crate) const KEY_MAX: usize = 1024;
/// Bytes of all metadata of the user's.
const METADATA_MAX: usize = 8192;

/// A request, taken apart and decoded.
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// The path as it came.
    pub(crate) path: String,
    /// The first part of the path, and the rest.
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What is answered.
pub(crate) type Reply = Response<s3s::Body>;

/// A refusal: status, code and message.
#[derive(Debug)]
pub(crate) struct No(pub(crate) StatusCode, pub(crate) &'static str, pub(crate) String);

/// A refusal without more to say.
pub(crate) fn no(status: StatusCode, code: &'static str) -> No {
    No(status, code, "so it is".to_owned())
}

impl Asked {
    /// Takes a request apart.
    pub(crate) async fn of(request: Request<Incoming>) -> Result<Self, No> {
        let (parts, body) = request.into_parts();
        let bad = |what: &str| No(StatusCode::BAD_REQUEST, "InvalidArgument", what.to_owned());
        let body = body.collect().await.map_err(|_| bad("the body broke off"))?.to_bytes();
        let path = parts.uri.path().to_owned();
        let text = |encoded: &str| decoded(encoded).ok_or_else(|| bad("what is encoded is no UTF-8"));
        let mut query = BTreeMap::new();
        for pair in parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            query.insert(text(name)?, text(&value.replace('+', " "))?);
        }
        let (bucket, key) = Asked::place(&path).ok_or_else(|| bad("what is encoded is no UTF-8"))?;
        Ok(Asked { method: parts.method, path, bucket, key, query, headers: parts.headers, body })
    }

    /// The first part of a path and the rest, decoded.
    pub(crate) fn place(path: &str) -> Option<(String, String)> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        Some((decoded(bucket)?, decoded(key)?))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    /// The content as an object. What comes without its MD5, or with another, is not taken: the real ones take the first.
    pub(crate) fn object(&self, prefix: &str) -> Result<Object, No> {
        let sum = STANDARD.encode(Md5::digest(&self.body));
        match self.header("content-md5") {
            Some(told) if told == sum => {}
            None if self.body.is_empty() => {}
            Some(_) => return Err(no(StatusCode::BAD_REQUEST, "BadDigest")),
            None => return Err(No(StatusCode::BAD_REQUEST, "InvalidDigest", "there is no Content-MD5".to_owned())),
        }
        let mut arriving = Arriving::new();
        arriving.push(self.body.clone(), false);
        Ok(Object { metadata: self.metadata(prefix)?, sha256: None, ..arriving.finish() })
    }

    /// The user's metadata: the headers that begin so.
    pub(crate) fn metadata(&self, prefix: &str) -> Result<BTreeMap<String, String>, No> {
        let named = |(name, value): (&HeaderName, &HeaderValue)| {
            let name = name.as_str().strip_prefix(prefix)?.to_owned();
            Some((name, value.to_str().ok()?.to_owned()))
        };
        let metadata: BTreeMap<String, String> = self.headers.iter().filter_map(named).collect();
        let length: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if length > METADATA_MAX { Err(no(StatusCode::BAD_REQUEST, "MetadataTooLarge")) } else { Ok(metadata) }
    }

    /// An object, or the stretch of it that is asked for; of HEAD the headers alone.
    pub(crate) fn content(&self, object: &Object, mut headers: Vec<(&str, String)>) -> Result<Reply, No> {
        if self.header("if-match").is_some_and(|wanted| wanted != quoted(&object.etag)) {
            return Err(no(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
        }
        let all = object.bytes();
        let (mut status, mut content) = (StatusCode::OK, &all[..]);
        if let Some(range) = self.header("range").or_else(|| self.header("x-ms-range")) {
            let invalid = || no(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
            let (from, to) =
                range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or_else(invalid)?;
            let (from, to): (usize, usize) = (from.parse().map_err(|_| invalid())?, to.parse().map_err(|_| invalid())?);
            let end = all.len().min(to + 1);
            content = all.get(from..end).filter(|content| !content.is_empty()).ok_or_else(invalid)?;
            status = StatusCode::PARTIAL_CONTENT;
            headers.push(("content-range", format!("bytes {from}-{}/{}", end - 1, all.len())));
        }
        headers.push(("etag", quoted(&object.etag)));
        headers.push(("last-modified", http_date(object.modified)));
        headers.push(("content-length", content.len().to_string()));
        let body = if self.method == Method::HEAD { Bytes::new() } else { Bytes::copy_from_slice(content) };
        Ok(reply(status, &headers, body))
    }
}

/// Whether it can be a key: neither empty nor too long.
pub(crate) fn check_key(key: &str) -> Result<(), No> {
    if key.is_empty() || key.len() > KEY_MAX { Err(no(StatusCode::BAD_REQUEST, "InvalidObjectName")) } else { Ok(()) }
}

pub(crate) fn reply(status: StatusCode, headers: &[(&str, String)], body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(s3s::Body::from(body.into()));
    *reply.status_mut() = status;
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(*name), HeaderValue::try_from(value)) {
            reply.headers_mut().insert(name, value);
        }
    }
    reply
}

/// A refusal as it is told.
pub(crate) fn refusal(No(status, code, message): &No, is_head: bool) -> Reply {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    reply(*status, &[("content-type", "application/xml".to_owned())], if is_head { String::new() } else { text })
}

pub(crate) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

pub(crate) fn http_date(at: SystemTime) -> String {
    time(at, s3s::dto::TimestampFormat::HttpDate)
}

/// A time as RFC 3339 has it.
pub(crate) fn date_time(at: SystemTime) -> String {
    time(at, s3s::dto::TimestampFormat::DateTime)
}

fn time(at: SystemTime, format: s3s::dto::TimestampFormat) -> String {
    let mut text = Vec::new();
    let _ = s3s::dto::Timestamp::from(at).format(format, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Text as it stands in XML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
