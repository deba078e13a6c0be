//! The same store as Google Cloud Storage's XML API tells of it: an access token, `x-goog-meta-…`, uploads in parts.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};

use crate::plain::{Asked, No, Reply, check_key, date_time, escaped, no, quoted, refusal, reply};
use crate::store::{Bucket, Object, Store, Upload, joined};

/// The access token of the one who may ask.
pub const TOKEN: &str = "ya29.an-access-token-for-tests";

/// Objects in a page.
const PAGE_MAX: usize = 1000;
/// Bytes of every part but the last.
const PART_MIN: u64 = 5 << 20;
/// What the user's metadata begin with.
const META: &str = "x-goog-meta-";

/// Answers a request.
pub(crate) async fn answer(store: &Store, request: Request<Incoming>) -> Reply {
    let is_head = request.method() == Method::HEAD;
    let answered = match Asked::of(request).await {
        Ok(asked) => act(store, &asked),
        Err(no) => Err(no),
    };
    answered.unwrap_or_else(|no| refusal(&no, is_head))
}

fn act(store: &Store, asked: &Asked) -> Result<Reply, No> {
    if asked.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return Err(No(StatusCode::UNAUTHORIZED, "AuthenticationRequired", "Authentication required.".to_owned()));
    }
    let mut state = store.state();
    state.next_upload += 1;
    let next = state.next_upload;
    let bucket = state.buckets.get_mut(&asked.bucket).ok_or_else(|| no(StatusCode::NOT_FOUND, "NoSuchBucket"))?;
    let missing = || no(StatusCode::NOT_FOUND, "NoSuchKey");
    match (asked.method.as_str(), asked.query.get("uploadId")) {
        ("GET", _) if asked.key.is_empty() => Ok(list(bucket, asked)),
        ("GET" | "HEAD", _) => {
            let object = bucket.objects.get(&asked.key).ok_or_else(missing)?;
            let named = object.metadata.iter().map(|(name, value)| (format!("{META}{name}"), value.clone()));
            let named: Vec<(String, String)> = named.collect();
            let mut headers: Vec<(&str, String)> =
                named.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            headers.push(("x-goog-generation", "1".to_owned()));
            asked.content(object, headers)
        }
        ("PUT", Some(id)) => put_part(bucket, asked, id),
        ("PUT", None) => {
            check_key(&asked.key)?;
            if asked.header("x-goog-if-generation-match") == Some("0") && bucket.objects.contains_key(&asked.key) {
                return Err(no(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
            }
            let object = match asked.header("x-goog-copy-source") {
                Some(source) => copied(bucket, asked, source)?,
                None => asked.object(META)?,
            };
            let headers = [("etag", quoted(&object.etag)), ("x-goog-generation", "1".to_owned())];
            bucket.objects.insert(asked.key.clone(), Arc::new(object));
            Ok(reply(StatusCode::OK, &headers, ""))
        }
        ("POST", None) if asked.has("uploads") => {
            check_key(&asked.key)?;
            let id = format!("upload-{next:08}");
            let upload = Upload {
                key: asked.key.clone(),
                metadata: asked.metadata(META)?,
                content_type: None,
                is_checked: false,
                began: SystemTime::now(),
                parts: BTreeMap::new(),
            };
            bucket.uploads.insert(id.clone(), upload);
            let text =
                format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
            Ok(reply(StatusCode::OK, &[], text))
        }
        ("POST", Some(id)) => complete(bucket, asked, id),
        ("DELETE", Some(id)) => {
            bucket.uploads.remove(id).ok_or_else(|| no(StatusCode::NOT_FOUND, "NoSuchUpload"))?;
            Ok(reply(StatusCode::NO_CONTENT, &[], ""))
        }
        ("DELETE", None) => {
            bucket.objects.remove(&asked.key).ok_or_else(missing)?;
            Ok(reply(StatusCode::NO_CONTENT, &[], ""))
        }
        _ => Err(no(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed")),
    }
}

fn copied(bucket: &Bucket, asked: &Asked, source: &str) -> Result<Object, No> {
    let wrong = || no(StatusCode::BAD_REQUEST, "InvalidArgument");
    let uri: hyper::Uri = format!("http://here/{}", source.trim_start_matches('/')).parse().map_err(|_| wrong())?;
    let (from, key) = Asked::place(uri.path()).ok_or_else(wrong)?;
    let object = bucket.objects.get(&key).filter(|_| from == asked.bucket);
    let object = object.ok_or_else(|| no(StatusCode::NOT_FOUND, "NoSuchKey"))?;
    Ok(Object { modified: SystemTime::now(), ..(**object).clone() })
}

fn put_part(bucket: &mut Bucket, asked: &Asked, id: &str) -> Result<Reply, No> {
    let number = asked.query.get("partNumber").and_then(|number| number.parse().ok());
    let number = number.filter(|number| (1..=10_000).contains(number));
    let number: u32 = number.ok_or_else(|| no(StatusCode::BAD_REQUEST, "InvalidArgument"))?;
    let part = asked.object(META)?;
    let upload = bucket.uploads.get_mut(id).filter(|upload| upload.key == asked.key);
    let upload = upload.ok_or_else(|| no(StatusCode::NOT_FOUND, "NoSuchUpload"))?;
    let headers = [("etag", quoted(&part.etag))];
    upload.parts.insert(number, part);
    Ok(reply(StatusCode::OK, &headers, ""))
}

fn complete(bucket: &mut Bucket, asked: &Asked, id: &str) -> Result<Reply, No> {
    let upload = bucket.uploads.get(id).filter(|upload| upload.key == asked.key);
    let upload = upload.ok_or_else(|| no(StatusCode::NOT_FOUND, "NoSuchUpload"))?;
    let text = String::from_utf8_lossy(&asked.body).replace("&quot;", "\"");
    let within = |part: &str, tag: &str| {
        let (_, rest) = part.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once(&format!("</{tag}>"))?.0.to_owned())
    };
    let mut parts = Vec::new();
    for named in text.split("<Part>").skip(1) {
        let number = within(named, "PartNumber").and_then(|number| number.parse().ok());
        let part = number.and_then(|number: u32| upload.parts.get(&number));
        let part = part.filter(|part| within(named, "ETag").is_some_and(|etag| etag.trim_matches('"') == part.etag));
        parts.push(part.ok_or_else(|| no(StatusCode::BAD_REQUEST, "InvalidPart"))?);
    }
    if parts.is_empty() || parts.iter().rev().skip(1).any(|part| part.size < PART_MIN) {
        return Err(no(StatusCode::BAD_REQUEST, "EntityTooSmall"));
    }
    let object = joined(upload, &parts);
    let text =
        format!("<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>", quoted(&object.etag));
    bucket.uploads.remove(id);
    bucket.objects.insert(asked.key.clone(), Arc::new(object));
    Ok(reply(StatusCode::OK, &[("x-goog-generation", "1".to_owned())], text))
}

fn list(bucket: &Bucket, asked: &Asked) -> Reply {
    let text = |name: &str| asked.query.get(name).cloned().unwrap_or_default();
    let max = asked.query.get("max-keys").and_then(|max| max.parse().ok()).unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let (prefix, after) = (text("prefix"), text("start-after").max(text("continuation-token")));
    let from = if after >= prefix { Bound::Excluded(after) } else { Bound::Included(prefix.clone()) };
    let mut found = bucket.objects.range((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(&prefix));
    let page: Vec<_> = found.by_ref().take(max).collect();
    let contents: String = page
        .iter()
        .map(|(key, object)| {
            format!(
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                escaped(key),
                date_time(object.modified),
                quoted(&object.etag),
                object.size
            )
        })
        .collect();
    let next = page.last().filter(|_| found.next().is_some());
    let next = next.map(|(key, _)| format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(key)));
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>{}{contents}</ListBucketResult>",
        next.unwrap_or_default()
    );
    reply(StatusCode::OK, &[("content-type", "application/xml".to_owned())], text)
}
