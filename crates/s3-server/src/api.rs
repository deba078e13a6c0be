//! What S3 answers, as strictly as the real one: pages of at most 1 000, keys of at most 1 024 bytes, conditions, checksums and
//! the order and size of parts are held to.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use crate::store::{Arriving, Bucket, Object as Stored, State, Store, Upload, joined};

/// Objects or uploads in a page.
const PAGE_MAX: usize = 1000;
/// Bytes of a key.
const KEY_MAX: usize = 1024;
/// Bytes of an object that is copied at once.
const COPY_MAX: u64 = 5 << 30;
/// Bytes of every part but the last.
const PART_MIN: u64 = 5 << 20;
/// Bytes of all metadata of the user's.
const METADATA_MAX: usize = 2048;

/// The operations, on a store.
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) region: String,
    /// Whether `If-None-Match` is heeded, as not every store does.
    pub(crate) is_conditional: bool,
}

fn check_key(key: &str) -> S3Result<()> {
    if key.len() > KEY_MAX {
        return Err(s3_error!(KeyTooLongError, "Your key is too long"));
    }
    Ok(())
}

fn check_metadata(metadata: Option<Metadata>) -> S3Result<BTreeMap<String, String>> {
    let metadata: BTreeMap<String, String> = metadata.unwrap_or_default().into_iter().collect();
    let length: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if length > METADATA_MAX {
        return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size"));
    }
    Ok(metadata)
}

async fn arrive(body: Option<StreamingBlob>, length: Option<i64>, checksum: Option<&String>) -> S3Result<Stored> {
    let mut arriving = Arriving::new();
    if let Some(mut body) = body {
        while let Some(piece) = body.next().await {
            arriving.push(piece.map_err(|error| s3_error!(IncompleteBody, "{error}"))?, checksum.is_some());
        }
    }
    let mut object = arriving.finish();
    if length.is_some_and(|length| u64::try_from(length).ok() != Some(object.size)) {
        return Err(s3_error!(IncompleteBody));
    }
    match checksum {
        Some(sum) if object.sha256.as_ref() != Some(sum) => {
            Err(s3_error!(BadDigest, "The SHA256 you specified did not match the calculated checksum."))
        }
        Some(_) => Ok(object),
        None => {
            object.sha256 = None;
            Ok(object)
        }
    }
}

fn etag(object: &Stored) -> ETag {
    ETag::Strong(object.etag.clone())
}

fn size(object: &Stored) -> Option<i64> {
    i64::try_from(object.size).ok()
}

impl Api {
    fn check_region<T>(&self, request: &S3Request<T>) -> S3Result<()> {
        match &request.region {
            Some(region) if region.as_str() != self.region => Err(s3_error!(
                AuthorizationHeaderMalformed,
                "The authorization header is malformed; the region '{}' is wrong; expecting '{}'",
                region.as_str(),
                self.region
            )),
            _ => Ok(()),
        }
    }

    fn in_bucket<T>(&self, name: &str, act: impl FnOnce(&mut Bucket) -> S3Result<T>) -> S3Result<T> {
        let mut state = self.store.state();
        act(bucket_of(&mut state, name)?)
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Arc<Stored>> {
        self.in_bucket(bucket, |bucket| bucket.objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey)))
    }

    fn condition(
        &self,
        bucket: &Bucket,
        key: &str,
        none: Option<&ETagCondition>,
        only: Option<&ETagCondition>,
    ) -> S3Result<()> {
        let there = bucket.objects.get(key);
        if self.is_conditional && none.is_some_and(ETagCondition::is_any) && there.is_some() {
            return Err(s3_error!(PreconditionFailed));
        }
        match only.and_then(ETagCondition::as_etag) {
            Some(wanted) if there.is_none_or(|there| there.etag != wanted.value()) => {
                Err(s3_error!(PreconditionFailed))
            }
            _ => Ok(()),
        }
    }
}

fn bucket_of<'s>(state: &'s mut State, name: &str) -> S3Result<&'s mut Bucket> {
    state.buckets.get_mut(name).ok_or_else(|| s3_error!(NoSuchBucket))
}

fn source(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, .. } => Ok((bucket, key)),
        _ => Err(s3_error!(NotImplemented)),
    }
}

#[async_trait::async_trait]
impl S3 for Api {
    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.store.make_bucket(&request.input.bucket);
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.check_region(&request)?;
        self.in_bucket(&request.input.bucket, |_| Ok(S3Response::new(HeadBucketOutput::default())))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.in_bucket(&request.input.bucket, |_| Ok(S3Response::new(GetBucketLocationOutput::default())))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let names: Vec<String> = self.store.state().buckets.keys().cloned().collect();
        let buckets =
            names.into_iter().map(|name| s3s::dto::Bucket { name: Some(name), ..Default::default() }).collect();
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..Default::default() }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.check_region(&request)?;
        let input = request.input;
        check_key(&input.key)?;
        let metadata = check_metadata(input.metadata)?;
        self.in_bucket(&input.bucket, |_| Ok(()))?;
        let mut object = arrive(input.body, input.content_length, input.checksum_sha256.as_ref()).await?;
        object.metadata = metadata;
        object.content_type = input.content_type;
        let output = PutObjectOutput {
            e_tag: Some(etag(&object)),
            checksum_sha256: object.sha256.clone(),
            ..Default::default()
        };
        self.in_bucket(&input.bucket, |bucket| {
            self.condition(bucket, &input.key, input.if_none_match.as_ref(), input.if_match.as_ref())?;
            bucket.objects.insert(input.key.clone(), Arc::new(object));
            Ok(())
        })?;
        Ok(S3Response::new(output))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.check_region(&request)?;
        let input = request.input;
        let object = self.find(&input.bucket, &input.key)?;
        if let Some(wanted) = input.if_match.as_ref().and_then(ETagCondition::as_etag)
            && wanted.value() != object.etag
        {
            return Err(s3_error!(PreconditionFailed));
        }
        let (range, content_range) = match input.range {
            None => (0..object.size, None),
            Some(range) => {
                let range = range.check(object.size).map_err(|_| s3_error!(InvalidRange))?;
                let told = format!("bytes {}-{}/{}", range.start, range.end - 1, object.size);
                (range, Some(told))
            }
        };
        let (mut at, mut pieces) = (0, Vec::new());
        for piece in &object.pieces {
            let length = piece.len() as u64;
            let (from, to) = (range.start.clamp(at, at + length) - at, range.end.clamp(at, at + length) - at);
            if from < to {
                pieces.push(Ok::<_, std::io::Error>(piece.slice(index(from)..index(to))));
            }
            at += length;
        }
        let mut output = GetObjectOutput {
            body: Some(StreamingBlob::wrap(futures_util::stream::iter(pieces))),
            content_length: i64::try_from(range.end - range.start).ok(),
            content_range,
            content_type: object.content_type.clone(),
            e_tag: Some(etag(&object)),
            last_modified: Some(object.modified.into()),
            metadata: Some(object.metadata.clone().into_iter().collect()),
            ..Default::default()
        };
        if input.checksum_mode.is_some() {
            output.checksum_sha256 = object.sha256.clone();
        }
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.check_region(&request)?;
        let object = self.find(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: size(&object),
            content_type: object.content_type.clone(),
            e_tag: Some(etag(&object)),
            last_modified: Some(object.modified.into()),
            metadata: Some(object.metadata.clone().into_iter().collect()),
            checksum_sha256: request.input.checksum_mode.as_ref().and_then(|_| object.sha256.clone()),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.check_region(&request)?;
        self.in_bucket(&request.input.bucket, |bucket| {
            bucket.objects.remove(&request.input.key);
            Ok(S3Response::new(DeleteObjectOutput::default()))
        })
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.check_region(&request)?;
        let Delete { objects, .. } = request.input.delete;
        if objects.len() > PAGE_MAX {
            return Err(s3_error!(MalformedXML));
        }
        self.in_bucket(&request.input.bucket, |bucket| {
            for object in &objects {
                bucket.objects.remove(&object.key);
            }
            Ok(S3Response::new(DeleteObjectsOutput::default()))
        })
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        self.check_region(&request)?;
        let input = request.input;
        check_key(&input.key)?;
        let (from_bucket, from_key) = source(&input.copy_source)?;
        let from = self.find(from_bucket, from_key)?;
        if from.size > COPY_MAX {
            return Err(s3_error!(
                InvalidRequest,
                "The specified copy source is larger than the maximum allowable size"
            ));
        }
        let replaces = input.metadata_directive.as_ref().is_some_and(|how| how.as_str() == "REPLACE");
        if !replaces && (from_bucket, from_key) == (&*input.bucket, &*input.key) {
            return Err(s3_error!(
                InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself"
            ));
        }
        let mut object = Stored { modified: SystemTime::now(), ..(*from).clone() };
        if replaces {
            object.metadata = check_metadata(input.metadata)?;
            object.content_type = input.content_type;
        }
        let result = CopyObjectResult {
            e_tag: Some(etag(&object)),
            last_modified: Some(object.modified.into()),
            ..Default::default()
        };
        self.in_bucket(&input.bucket, |bucket| {
            bucket.objects.insert(input.key.clone(), Arc::new(object));
            Ok(())
        })?;
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.check_region(&request)?;
        let input = request.input;
        let max = usize::try_from(input.max_keys.unwrap_or(1000)).unwrap_or(0).min(PAGE_MAX);
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.clone().or(input.start_after.clone()).unwrap_or_default();
        let encode = input.encoding_type.as_ref().is_some_and(|how| how.as_str() == "url");
        let shown = |key: &str| if encode { url_encoded(key) } else { key.to_owned() };
        self.in_bucket(&input.bucket, |bucket| {
            let from = if after.as_bytes() >= prefix.as_bytes() {
                Bound::Excluded(after)
            } else {
                Bound::Included(prefix.clone())
            };
            let (mut contents, mut folders): (Vec<s3s::dto::Object>, Vec<CommonPrefix>) = (Vec::new(), Vec::new());
            let (mut last, mut is_truncated) = (String::new(), false);
            let mut within: Option<String> = from_folder(&from, &prefix, input.delimiter.as_deref());
            for (key, object) in bucket.objects.range((from, Bound::Unbounded)) {
                let Some(rest) = key.strip_prefix(&*prefix) else { break };
                if within.as_ref().is_some_and(|folder| key.starts_with(&**folder)) {
                    last.clone_from(key);
                    continue;
                }
                if contents.len() + folders.len() >= max {
                    is_truncated = true;
                    break;
                }
                last.clone_from(key);
                let cut = input.delimiter.as_ref().and_then(|delimiter| Some((delimiter, rest.find(&**delimiter)?)));
                if let Some((delimiter, at)) = cut {
                    let folder = format!("{prefix}{}", &rest[..at + delimiter.len()]);
                    folders.push(CommonPrefix { prefix: Some(shown(&folder)) });
                    within = Some(folder);
                    continue;
                }
                contents.push(s3s::dto::Object {
                    key: Some(shown(key)),
                    size: size(object),
                    e_tag: Some(etag(object)),
                    last_modified: Some(object.modified.into()),
                    ..Default::default()
                });
            }
            Ok(S3Response::new(ListObjectsV2Output {
                name: Some(input.bucket.clone()),
                prefix: Some(shown(&prefix)),
                max_keys: i32::try_from(max).ok(),
                key_count: i32::try_from(contents.len() + folders.len()).ok(),
                next_continuation_token: is_truncated.then_some(last),
                is_truncated: Some(is_truncated),
                contents: Some(contents),
                common_prefixes: Some(folders),
                encoding_type: input.encoding_type.clone(),
                ..Default::default()
            }))
        })
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.check_region(&request)?;
        let input = request.input;
        check_key(&input.key)?;
        let upload = Upload {
            key: input.key.clone(),
            metadata: check_metadata(input.metadata)?,
            content_type: input.content_type,
            is_checked: input.checksum_algorithm.as_ref().is_some_and(|how| how.as_str() == "SHA256"),
            began: SystemTime::now(),
            parts: BTreeMap::new(),
        };
        let mut state = self.store.state();
        state.next_upload += 1;
        let id = format!("upload-{:08}", state.next_upload);
        bucket_of(&mut state, &input.bucket)?.uploads.insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.check_region(&request)?;
        let input = request.input;
        let part = arrive(input.body, input.content_length, input.checksum_sha256.as_ref()).await?;
        let output =
            UploadPartOutput { e_tag: Some(etag(&part)), checksum_sha256: part.sha256.clone(), ..Default::default() };
        self.put_part(&input.bucket, &input.key, &input.upload_id, input.part_number, part)?;
        Ok(S3Response::new(output))
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.check_region(&request)?;
        let input = request.input;
        let (from_bucket, from_key) = source(&input.copy_source)?;
        let from = self.find(from_bucket, from_key)?;
        let range = match &input.copy_source_range {
            None => 0..from.size,
            Some(range) => {
                let range = Range::parse(range).map_err(|_| s3_error!(InvalidArgument))?;
                range.check(from.size).map_err(|_| s3_error!(InvalidRange))?
            }
        };
        let mut arriving = Arriving::new();
        arriving.push(from.bytes()[index(range.start)..index(range.end)].to_vec().into(), true);
        let part = arriving.finish();
        let result = CopyPartResult {
            e_tag: Some(etag(&part)),
            checksum_sha256: part.sha256.clone(),
            last_modified: Some(part.modified.into()),
            ..Default::default()
        };
        self.put_part(&input.bucket, &input.key, &input.upload_id, input.part_number, part)?;
        Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.check_region(&request)?;
        let input = request.input;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        self.in_bucket(&input.bucket, |bucket| {
            self.condition(bucket, &input.key, input.if_none_match.as_ref(), input.if_match.as_ref())?;
            let upload = bucket.uploads.get(&input.upload_id).filter(|upload| upload.key == input.key);
            let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
            let mut parts: Vec<&Stored> = Vec::new();
            let mut last = 0;
            for part in &named {
                let number = u32::try_from(part.part_number.unwrap_or(0)).unwrap_or(0);
                if number <= last {
                    return Err(s3_error!(InvalidPartOrder));
                }
                last = number;
                let there = upload.parts.get(&number).ok_or_else(|| s3_error!(InvalidPart))?;
                let is_same = part.e_tag.as_ref().is_some_and(|etag| etag.value() == there.etag)
                    && (!upload.is_checked || part.checksum_sha256 == there.sha256);
                if !is_same {
                    return Err(s3_error!(InvalidPart));
                }
                parts.push(there);
            }
            if parts.is_empty() {
                return Err(s3_error!(MalformedXML));
            }
            if parts.iter().rev().skip(1).any(|part| part.size < PART_MIN) {
                return Err(s3_error!(EntityTooSmall));
            }
            let object = joined(upload, &parts);
            let output = CompleteMultipartUploadOutput {
                bucket: Some(input.bucket.clone()),
                key: Some(input.key.clone()),
                e_tag: Some(etag(&object)),
                ..Default::default()
            };
            bucket.uploads.remove(&input.upload_id);
            bucket.objects.insert(input.key.clone(), Arc::new(object));
            Ok(S3Response::new(output))
        })
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.in_bucket(&request.input.bucket, |bucket| match bucket.uploads.remove(&request.input.upload_id) {
            Some(_) => Ok(S3Response::new(AbortMultipartUploadOutput::default())),
            None => Err(s3_error!(NoSuchUpload)),
        })
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.check_region(&request)?;
        let input = request.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let encode = input.encoding_type.as_ref().is_some_and(|how| how.as_str() == "url");
        let after = (input.key_marker.clone().unwrap_or_default(), input.upload_id_marker.clone().unwrap_or_default());
        self.in_bucket(&input.bucket, |bucket| {
            let mut all: Vec<(String, String, SystemTime, bool)> = bucket
                .uploads
                .iter()
                .map(|(id, upload)| (upload.key.clone(), id.clone(), upload.began, upload.is_checked))
                .filter(|(key, id, ..)| key.starts_with(&*prefix) && (key.clone(), id.clone()) > after)
                .collect();
            all.sort();
            let is_truncated = all.len() > PAGE_MAX;
            all.truncate(PAGE_MAX);
            let last = all.last().cloned();
            let uploads = all.into_iter().map(|(key, id, began, is_checked)| MultipartUpload {
                key: Some(if encode { url_encoded(&key) } else { key }),
                upload_id: Some(id),
                initiated: Some(began.into()),
                checksum_algorithm: is_checked.then(|| ChecksumAlgorithm::from_static("SHA256")),
                ..Default::default()
            });
            Ok(S3Response::new(ListMultipartUploadsOutput {
                uploads: Some(uploads.collect()),
                is_truncated: Some(is_truncated),
                next_key_marker: last.as_ref().map(|last| last.0.clone()),
                next_upload_id_marker: last.map(|last| last.1),
                encoding_type: input.encoding_type.clone(),
                ..Default::default()
            }))
        })
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.check_region(&request)?;
        let input = request.input;
        let after = u32::try_from(input.part_number_marker.unwrap_or(0)).unwrap_or(0);
        self.in_bucket(&input.bucket, |bucket| {
            let upload = bucket.uploads.get(&input.upload_id).filter(|upload| upload.key == input.key);
            let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
            let mut page: Vec<(i32, &Stored)> = upload
                .parts
                .range(after + 1..)
                .take(PAGE_MAX + 1)
                .filter_map(|(number, part)| Some((i32::try_from(*number).ok()?, part)))
                .collect();
            let is_truncated = page.len() > PAGE_MAX;
            page.truncate(PAGE_MAX);
            let next = page.last().map(|(number, _)| *number);
            let parts = page.into_iter().map(|(number, part)| Part {
                part_number: Some(number),
                size: size(part),
                e_tag: Some(etag(part)),
                checksum_sha256: part.sha256.clone(),
                last_modified: Some(part.modified.into()),
                ..Default::default()
            });
            Ok(S3Response::new(ListPartsOutput {
                parts: Some(parts.collect()),
                is_truncated: Some(is_truncated),
                next_part_number_marker: next,
                ..Default::default()
            }))
        })
    }
}

impl Api {
    fn put_part(&self, bucket: &str, key: &str, id: &str, number: i32, part: Stored) -> S3Result<()> {
        let number = u32::try_from(number).ok().filter(|number| (1..=10_000).contains(number));
        let number = number.ok_or_else(|| s3_error!(InvalidArgument, "Part number must be between 1 and 10000"))?;
        self.in_bucket(bucket, |bucket| {
            let upload = bucket.uploads.get_mut(id).filter(|upload| upload.key == key);
            let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
            if upload.is_checked && part.sha256.is_none() {
                return Err(s3_error!(
                    InvalidRequest,
                    "The upload was created using a sha256 checksum, but this part has none"
                ));
            }
            upload.parts.insert(number, part);
            Ok(())
        })
    }
}

/// The folder that a page began in: all of it was told of as one by the page before.
fn from_folder(from: &Bound<String>, prefix: &str, delimiter: Option<&str>) -> Option<String> {
    let (Bound::Excluded(after), Some(delimiter)) = (from, delimiter) else { return None };
    let rest = after.strip_prefix(prefix)?;
    let at = rest.find(delimiter)?;
    Some(format!("{prefix}{}", &rest[..at + delimiter.len()]))
}

fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn url_encoded(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b'*' => {
                text.push(char::from(byte));
            }
            b' ' => text.push('+'),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
