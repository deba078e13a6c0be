//! S3's operations, as far as they are used.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use http::header::{HeaderName, HeaderValue};

use super::meta::Head;
use super::reply::{self, ListPage, Part, PartPage, UploadPage};
use super::wire::{Ask, Wire, WireError};
use crate::target::web::escape;

/// An object's headers: metadata and the kind of its content.
pub(super) type Headers = [(HeaderName, HeaderValue)];

/// What a copy has for metadata.
pub(super) enum Metadata<'h> {
    /// That of what is copied.
    Same,
    /// Other.
    Other(&'h Headers),
}

fn unreadable(why: String) -> WireError {
    WireError::Refused { status: 200, code: "unreadable reply".to_owned(), message: why, region: None }
}

impl Wire {
    /// What is known of an object; `None`: it is not there.
    pub(super) async fn head(&self, key: &str) -> Result<Option<Head>, WireError> {
        match self.send(&Ask::new(Method::HEAD, Some(key))).await {
            Ok(reply) => {
                let length = reply.headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
                Ok(Some(Head::of(&reply.headers, length.and_then(|length| length.parse().ok()).unwrap_or(0))))
            }
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The headers that an object carries with it: its metadata and the kind of its content.
    pub(super) async fn carried(&self, key: &str) -> Result<Vec<(HeaderName, HeaderValue)>, WireError> {
        let reply = self.send(&Ask::new(Method::HEAD, Some(key))).await?;
        let is_carried =
            |name: &HeaderName| name.as_str().starts_with("x-amz-meta-") || *name == http::header::CONTENT_TYPE;
        let headers = reply.headers.iter().filter(|(name, _)| is_carried(name));
        Ok(headers.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// All of a small object; `None`: it is not there.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Bytes>, WireError> {
        match self.send(&Ask::new(Method::GET, Some(key))).await {
            Ok(reply) => Ok(Some(reply.body)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A stretch of an object that is still the one with this tag.
    pub(super) async fn get_range(&self, key: &str, etag: &str, from: u64, length: u64) -> Result<Bytes, WireError> {
        let mut ask = Ask::new(Method::GET, Some(key))
            .header("range", &format!("bytes={from}-{}", (from + length).saturating_sub(1)))
            .header("if-match", etag);
        ask.expected = length;
        Ok(self.send(&ask).await?.body)
    }

    /// Puts an object, with its checksum. With `only_new` it fails where one is there.
    pub(super) async fn put(
        &self,
        key: &str,
        headers: &Headers,
        body: Bytes,
        digest: [u8; 32],
        only_new: bool,
    ) -> Result<(), WireError> {
        let mut ask = Ask::new(Method::PUT, Some(key))
            .headers(headers)
            .header("x-amz-checksum-sha256", &STANDARD.encode(digest))
            .body(body);
        if only_new {
            ask = ask.header("if-none-match", "*");
        }
        ask.digest = Some(digest);
        self.send(&ask).await.map(|_| ())
    }

    /// Copies an object of up to 5 GiB within the bucket.
    pub(super) async fn copy(
        &self,
        bucket: &str,
        from: &str,
        to: &str,
        metadata: &Metadata<'_>,
    ) -> Result<(), WireError> {
        let mut ask = Ask::new(Method::PUT, Some(to)).header("x-amz-copy-source", &copy_source(bucket, from));
        if let Metadata::Other(headers) = metadata {
            ask = ask.headers(headers).header("x-amz-metadata-directive", "REPLACE");
        }
        ask.is_work = true;
        self.send(&ask).await.map(|_| ())
    }

    /// Deletes an object. That it is not there is fine.
    pub(super) async fn delete(&self, key: &str) -> Result<(), WireError> {
        match self.send(&Ask::new(Method::DELETE, Some(key))).await {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    /// A page of the keys that begin so, in the order of their bytes: the first behind `after`, or that of the token.
    pub(super) async fn list(
        &self,
        prefix: &str,
        after: &str,
        token: Option<&str>,
        max: u32,
    ) -> Result<ListPage, WireError> {
        let mut ask = Ask::new(Method::GET, None).query("encoding-type", "url").query("list-type", "2");
        ask = ask.query("max-keys", max.to_string()).query("prefix", prefix);
        match token {
            Some(token) => ask = ask.query("continuation-token", token),
            None if !after.is_empty() => ask = ask.query("start-after", after),
            None => {}
        }
        reply::list_page(&self.send(&ask).await?.body).map_err(unreadable)
    }

    /// Begins an upload in parts, each of which comes with its SHA-256.
    pub(super) async fn begin_upload(&self, key: &str, headers: &Headers) -> Result<String, WireError> {
        let ask = Ask::new(Method::POST, Some(key)).query("uploads", "").headers(headers);
        let reply = self.send(&ask.header("x-amz-checksum-algorithm", "SHA256")).await?;
        reply::upload_id(&reply.body).map_err(unreadable)
    }

    /// Sends a part.
    pub(super) async fn put_part(
        &self,
        key: &str,
        upload: &str,
        number: u32,
        body: Bytes,
        digest: [u8; 32],
    ) -> Result<Part, WireError> {
        let (sum, size) = (STANDARD.encode(digest), body.len() as u64);
        let mut ask = Ask::new(Method::PUT, Some(key))
            .query("partNumber", number.to_string())
            .query("uploadId", upload)
            .header("x-amz-checksum-sha256", &sum)
            .body(body);
        ask.digest = Some(digest);
        let reply = self.send(&ask).await?;
        let etag = reply.headers.get(http::header::ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default();
        Ok(Part { number, size, etag: etag.to_owned(), sha256: Some(sum) })
    }

    /// Makes a part of a stretch of another object.
    pub(super) async fn copy_part(
        &self,
        (bucket, from): (&str, &str),
        (key, upload): (&str, &str),
        number: u32,
        range: std::ops::Range<u64>,
    ) -> Result<Part, WireError> {
        let mut ask = Ask::new(Method::PUT, Some(key))
            .query("partNumber", number.to_string())
            .query("uploadId", upload)
            .header("x-amz-copy-source", &copy_source(bucket, from))
            .header("x-amz-copy-source-range", &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        ask.is_work = true;
        reply::copied_part(&self.send(&ask).await?.body, number).map_err(unreadable)
    }

    /// Makes an object of the parts.
    pub(super) async fn complete_upload(&self, key: &str, upload: &str, parts: &[Part]) -> Result<(), WireError> {
        let ask = Ask::new(Method::POST, Some(key)).query("uploadId", upload).body(reply::completion(parts));
        self.send(&Ask { is_work: true, ..ask }).await.map(|_| ())
    }

    /// Gives an upload up. That there is none is fine.
    pub(super) async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), WireError> {
        match self.send(&Ask::new(Method::DELETE, Some(key)).query("uploadId", upload)).await {
            Err(error) if !error.has_code("NoSuchUpload") => Err(error),
            _ => Ok(()),
        }
    }

    /// A page of the uploads that are not complete, behind those of the marker.
    pub(super) async fn uploads(
        &self,
        prefix: &str,
        after: Option<&(String, String)>,
    ) -> Result<UploadPage, WireError> {
        let mut ask = Ask::new(Method::GET, None).query("encoding-type", "url");
        if let Some((key, upload)) = after {
            ask = ask.query("key-marker", key).query("upload-id-marker", upload);
        }
        let ask = ask.query("prefix", prefix).query("uploads", "");
        reply::upload_page(&self.send(&ask).await?.body).map_err(unreadable)
    }

    /// A page of an upload's parts.
    pub(super) async fn parts(&self, key: &str, upload: &str, after: u32) -> Result<PartPage, WireError> {
        let ask =
            Ask::new(Method::GET, Some(key)).query("part-number-marker", after.to_string()).query("uploadId", upload);
        reply::part_page(&self.send(&ask).await?.body).map_err(unreadable)
    }
}

fn copy_source(bucket: &str, key: &str) -> String {
    let mut text = format!("/{bucket}/");
    escape(key, true, &mut text);
    text
}
