//! The same store as Azure Blob Storage tells of it: requests signed with the account's key, `x-ms-meta-…`, blocks and lists of
//! them, deletes in batches, copies that go on after the answer.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use sha2::Sha256;

use crate::plain::{Asked, No, Reply, check_key, date_time, escaped, http_date, no, quoted, refusal, reply};
use crate::store::{Bucket, Object, Store, Upload, joined};

/// The storage account, that of Azure's own emulator.
pub const ACCOUNT: &str = "devstoreaccount1";
/// Its key.
pub const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Blobs in a page.
const PAGE_MAX: usize = 5000;
/// What the user's metadata begin with.
const META: &str = "x-ms-meta-";
/// Whether a copy goes on.
const COPY_STATUS: &str = "x-ms-copy-status";

/// Answers a request.
pub(crate) async fn answer(store: &Store, request: Request<Incoming>) -> Reply {
    let is_head = request.method() == Method::HEAD;
    let answered = match Asked::of(request).await {
        Ok(asked) => check_signature(&asked).and_then(|()| act(store, &asked)),
        Err(no) => Err(no),
    };
    answered.unwrap_or_else(|no| {
        let mut refused = refusal(&no, is_head);
        if let Ok(code) = no.1.try_into() {
            refused.headers_mut().insert("x-ms-error-code", code);
        }
        refused
    })
}

/// Shared Key authorization: the account's key has signed method, headers and resource.
fn check_signature(asked: &Asked) -> Result<(), No> {
    let denied = || no(StatusCode::FORBIDDEN, "AuthenticationFailed");
    let told = asked.header("authorization").and_then(|told| told.strip_prefix(&format!("SharedKey {ACCOUNT}:")));
    let told = told.and_then(|told| STANDARD.decode(told).ok()).ok_or_else(denied)?;
    let header = |name: &str| asked.header(name).unwrap_or_default();
    let length = Some(header("content-length")).filter(|length| *length != "0").unwrap_or_default();
    let mut text = format!("{}\n", asked.method);
    let plain =
        ["content-encoding", "content-language", "", "content-md5", "content-type", "date", "if-modified-since"];
    for name in plain.into_iter().chain(["if-match", "if-none-match", "if-unmodified-since", "range"]) {
        text += if name.is_empty() { length } else { header(name) };
        text.push('\n');
    }
    let named = asked.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-ms-"));
    let named: BTreeMap<&str, &str> =
        named.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
    for (name, value) in named {
        text += &format!("{name}:{value}\n");
    }
    text += &format!("/{ACCOUNT}{}", asked.path);
    for (name, value) in &asked.query {
        text += &format!("\n{}:{value}", name.to_lowercase());
    }
    let key = STANDARD.decode(ACCOUNT_KEY).unwrap_or_default();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| denied())?;
    mac.update(text.as_bytes());
    mac.verify_slice(&told).map_err(|_| denied())
}

fn act(store: &Store, asked: &Asked) -> Result<Reply, No> {
    let mut state = store.state();
    let bucket = state.buckets.get_mut(&asked.bucket).ok_or_else(|| no(StatusCode::NOT_FOUND, "ContainerNotFound"))?;
    let part = asked.query.get("comp").map(String::as_str);
    match (asked.method.as_str(), part) {
        ("GET", Some("list")) => Ok(list(bucket, asked)),
        ("POST", Some("batch")) => Ok(batch(bucket, asked)),
        ("GET" | "HEAD", None) => {
            let object = bucket.objects.get(&asked.key).ok_or_else(missing)?;
            let named: Vec<(String, String)> =
                object.metadata.iter().map(|(name, value)| (format!("{META}{name}"), value.clone())).collect();
            let mut headers: Vec<(&str, String)> =
                named.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            if bucket.copying.remove(&asked.key) {
                headers.push((COPY_STATUS, "pending".to_owned()));
                let nothing = Object { pieces: Vec::new(), size: 0, ..(**object).clone() };
                return asked.content(&nothing, headers);
            }
            asked.content(object, headers)
        }
        ("PUT", Some("block")) => {
            check_key(&asked.key)?;
            let id = asked.query.get("blockid").cloned().unwrap_or_default();
            let number = u32::try_from(bucket.blocks.len()).unwrap_or(u32::MAX);
            let part = asked.object(META)?;
            let number = *bucket.blocks.entry((asked.key.clone(), id)).or_insert(number);
            upload(bucket, &asked.key).parts.insert(number, part);
            Ok(reply(StatusCode::CREATED, &[], ""))
        }
        ("PUT", Some("blocklist")) => put_list(bucket, asked),
        ("PUT", None) => {
            check_key(&asked.key)?;
            if asked.header("if-none-match") == Some("*") && bucket.objects.contains_key(&asked.key) {
                return Err(no(StatusCode::CONFLICT, "BlobAlreadyExists"));
            }
            let (status, object) = match asked.header("x-ms-copy-source") {
                Some(source) => (StatusCode::ACCEPTED, copied(bucket, asked, source)?),
                None if asked.header("x-ms-blob-type") == Some("BlockBlob") => {
                    (StatusCode::CREATED, asked.object(META)?)
                }
                None => return Err(no(StatusCode::BAD_REQUEST, "MissingRequiredHeader")),
            };
            check_metadata(&object)?;
            Ok(taken(bucket, &asked.key, object, status))
        }
        ("DELETE", None) => {
            bucket.objects.remove(&asked.key).ok_or_else(missing)?;
            Ok(reply(StatusCode::ACCEPTED, &[], ""))
        }
        _ => Err(no(StatusCode::METHOD_NOT_ALLOWED, "UnsupportedHttpVerb")),
    }
}

fn missing() -> No {
    no(StatusCode::NOT_FOUND, "BlobNotFound")
}

/// Names of metadata are such as C# has: letters, digits and `_`, and no digit first.
fn check_metadata(object: &Object) -> Result<(), No> {
    let is_name = |name: &String| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !name.starts_with(|first: char| first.is_ascii_digit())
    };
    match object.metadata.keys().all(is_name) {
        true => Ok(()),
        false => Err(no(StatusCode::BAD_REQUEST, "InvalidMetadata")),
    }
}

fn taken(bucket: &mut Bucket, key: &str, object: Object, status: StatusCode) -> Reply {
    let mut headers = vec![("etag", quoted(&object.etag)), ("last-modified", http_date(object.modified))];
    bucket.copying.remove(key);
    if status == StatusCode::ACCEPTED {
        headers.push((COPY_STATUS, "pending".to_owned()));
        bucket.copying.insert(key.to_owned());
    }
    bucket.objects.insert(key.to_owned(), Arc::new(object));
    reply(status, &headers, "")
}

/// The blocks of a blob that are not in a list yet.
fn upload<'b>(bucket: &'b mut Bucket, key: &str) -> &'b mut Upload {
    bucket.uploads.entry(key.to_owned()).or_insert_with(|| Upload {
        key: key.to_owned(),
        metadata: BTreeMap::new(),
        content_type: None,
        is_checked: false,
        began: SystemTime::now(),
        parts: BTreeMap::new(),
    })
}

fn put_list(bucket: &mut Bucket, asked: &Asked) -> Result<Reply, No> {
    let invalid = || no(StatusCode::BAD_REQUEST, "InvalidBlockList");
    // The list itself comes with its checksum as well.
    let list = asked.object(META)?;
    let text = String::from_utf8_lossy(&asked.body).into_owned();
    let mut upload = bucket.uploads.get(&asked.key).cloned().ok_or_else(invalid)?;
    let mut parts = Vec::new();
    for named in text.split("<Uncommitted>").skip(1) {
        let id = named.split('<').next().unwrap_or_default().to_owned();
        let number = bucket.blocks.get(&(asked.key.clone(), id));
        parts.push(number.and_then(|number| upload.parts.get(number)).cloned().ok_or_else(invalid)?);
    }
    upload.metadata = list.metadata;
    let object = joined(&upload, &parts.iter().collect::<Vec<_>>());
    check_metadata(&object)?;
    bucket.uploads.remove(&asked.key);
    bucket.blocks.retain(|(key, _), _| *key != asked.key);
    Ok(taken(bucket, &asked.key, object, StatusCode::CREATED))
}

fn copied(bucket: &Bucket, asked: &Asked, source: &str) -> Result<Object, No> {
    let wrong = || no(StatusCode::BAD_REQUEST, "InvalidHeaderValue");
    let uri: hyper::Uri = source.parse().map_err(|_| wrong())?;
    let (from, key) = Asked::place(uri.path()).ok_or_else(wrong)?;
    let object = bucket.objects.get(&key).filter(|_| from == asked.bucket).ok_or_else(missing)?;
    Ok(Object { modified: SystemTime::now(), ..(**object).clone() })
}

/// Deletes in one request, an answer for each.
fn batch(bucket: &mut Bucket, asked: &Asked) -> Reply {
    let boundary = asked.header("content-type").and_then(|kind| kind.split_once("boundary="));
    let boundary = boundary.map(|(_, boundary)| boundary.to_owned()).unwrap_or_default();
    let text = String::from_utf8_lossy(&asked.body);
    let mut answers = String::new();
    for part in text.split(&format!("--{boundary}\r\n")).skip(1) {
        let line = |begin: &str| part.lines().find_map(|line| line.strip_prefix(begin)).unwrap_or_default();
        let path = line("DELETE ").split([' ', '?']).next().unwrap_or_default();
        let (from, key) = Asked::place(path).unwrap_or_default();
        let was_there = from == asked.bucket && bucket.objects.remove(&key).is_some();
        let status = if was_there { "202 Accepted" } else { "404 The specified blob does not exist." };
        answers += &format!(
            "--{boundary}\r\nContent-Type: application/http\r\nContent-ID: {}\r\n\r\nHTTP/1.1 {status}\r\n\
             x-ms-request-id: here\r\n\r\n",
            line("Content-ID: ")
        );
    }
    answers += &format!("--{boundary}--\r\n");
    let kind = format!("multipart/mixed; boundary={boundary}");
    reply(StatusCode::ACCEPTED, &[("content-type", kind)], answers)
}

fn list(bucket: &Bucket, asked: &Asked) -> Reply {
    let text = |name: &str| asked.query.get(name).cloned().unwrap_or_default();
    let max = asked.query.get("maxresults").and_then(|max| max.parse().ok()).unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let prefix = text("prefix");
    let from = text("marker").max(prefix.clone());
    let found = bucket.objects.range((Bound::Included(from), Bound::Unbounded));
    let mut found = found.take_while(|(key, _)| key.starts_with(&prefix));
    let blobs: String = found
        .by_ref()
        .take(max)
        .map(|(key, object)| {
            format!(
                "<Blob><Name>{}</Name><Properties><Creation-Time>{}</Creation-Time><Last-Modified>{}</Last-Modified>\
                 <Etag>{}</Etag><Content-Length>{}</Content-Length><Content-Type>x/y</Content-Type></Properties></Blob>",
                escaped(key),
                date_time(object.modified),
                http_date(object.modified),
                object.etag,
                object.size
            )
        })
        .collect();
    let next = found.next().map(|(key, _)| escaped(key)).unwrap_or_default();
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Prefix>{}</Prefix><Blobs>{blobs}</Blobs>\
         <NextMarker>{next}</NextMarker></EnumerationResults>",
        escaped(&prefix)
    );
    reply(StatusCode::OK, &[("content-type", "application/xml".to_owned())], text)
}
