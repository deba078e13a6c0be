//! What S3 answers, read. Pure.

use serde::Deserialize;

/// `<Error>`, as far as it is of use.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorReply {
    #[serde(rename = "Code", default)]
    pub(super) code: String,
    #[serde(rename = "Message", default)]
    pub(super) message: String,
    #[serde(rename = "Region")]
    pub(super) region: Option<String>,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) size: u64,
}

/// A page of a listing, and the token of the next.
#[derive(Debug, Default)]
pub(super) struct ListPage {
    pub(super) objects: Vec<Listed>,
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBucketResult {
    #[serde(default)]
    contents: Vec<Contents>,
    next_continuation_token: Option<String>,
    #[serde(default)]
    is_truncated: bool,
    encoding_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    key: String,
    size: u64,
}

/// An upload in parts that was not completed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OpenUpload {
    pub(super) key: String,
    pub(super) upload_id: String,
    /// When it began (RFC 3339).
    #[serde(default)]
    pub(super) initiated: String,
    #[serde(default)]
    pub(super) checksum_algorithm: String,
}

/// A page of unfinished uploads, and where the next begins.
#[derive(Debug, Default)]
pub(super) struct UploadPage {
    pub(super) uploads: Vec<OpenUpload>,
    pub(super) next: Option<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListMultipartUploadsResult {
    #[serde(default, rename = "Upload")]
    uploads: Vec<OpenUpload>,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(default)]
    is_truncated: bool,
    encoding_type: Option<String>,
}

/// A part that is there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Part {
    #[serde(rename = "PartNumber")]
    pub(super) number: u32,
    #[serde(rename = "Size", default)]
    pub(super) size: u64,
    #[serde(rename = "ETag")]
    pub(super) etag: String,
    #[serde(rename = "ChecksumSHA256")]
    pub(super) sha256: Option<String>,
}

/// A page of parts, and the number behind which the next begins.
#[derive(Debug, Default)]
pub(super) struct PartPage {
    pub(super) parts: Vec<Part>,
    pub(super) next: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListPartsResult {
    #[serde(default, rename = "Part")]
    parts: Vec<Part>,
    next_part_number_marker: Option<u32>,
    #[serde(default)]
    is_truncated: bool,
}

#[derive(Deserialize)]
struct Started {
    #[serde(rename = "UploadId")]
    upload_id: String,
}

#[derive(Deserialize)]
struct Copied {
    #[serde(rename = "ETag")]
    etag: String,
    #[serde(rename = "ChecksumSHA256")]
    sha256: Option<String>,
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    quick_xml::de::from_str(text).map_err(|error| error.to_string())
}

/// Whether a reply tells of an error, whatever its status.
pub(super) fn is_error(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&body[..body.len().min(512)]);
    text.contains("<Error>") || text.contains("<Error ")
}

/// The error that a reply tells of.
pub(super) fn error(body: &[u8]) -> Option<ErrorReply> {
    parse(body).ok()
}

/// Reads a page of `ListObjectsV2`.
pub(super) fn list_page(body: &[u8]) -> Result<ListPage, String> {
    let page: ListBucketResult = parse(body)?;
    let is_encoded = page.encoding_type.as_deref() == Some("url");
    let objects = page.contents.into_iter();
    let objects = objects.map(|one| Listed { key: plain(one.key, is_encoded), size: one.size }).collect();
    Ok(ListPage { objects, next: page.next_continuation_token.filter(|_| page.is_truncated) })
}

/// Reads a page of `ListMultipartUploads`.
pub(super) fn upload_page(body: &[u8]) -> Result<UploadPage, String> {
    let page: ListMultipartUploadsResult = parse(body)?;
    let is_encoded = page.encoding_type.as_deref() == Some("url");
    let uploads = page.uploads.into_iter();
    let uploads = uploads.map(|one| OpenUpload { key: plain(one.key.clone(), is_encoded), ..one }).collect();
    let key = page.next_key_marker.map(|key| plain(key, is_encoded)).filter(|_| page.is_truncated);
    Ok(UploadPage { uploads, next: key.map(|key| (key, page.next_upload_id_marker.unwrap_or_default())) })
}

/// Reads a page of `ListParts`.
pub(super) fn part_page(body: &[u8]) -> Result<PartPage, String> {
    let page: ListPartsResult = parse(body)?;
    Ok(PartPage { parts: page.parts, next: page.next_part_number_marker.filter(|_| page.is_truncated) })
}

/// Reads the id of an upload that began.
pub(super) fn upload_id(body: &[u8]) -> Result<String, String> {
    parse::<Started>(body).map(|started| started.upload_id)
}

/// Reads what became of a part that was copied.
pub(super) fn copied_part(body: &[u8], number: u32) -> Result<Part, String> {
    parse::<Copied>(body).map(|copied| Part { number, size: 0, etag: copied.etag, sha256: copied.sha256 })
}

/// What completes an upload.
pub(super) fn completion(parts: &[Part]) -> String {
    let mut text = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for part in parts {
        let etag = part.etag.replace('&', "&amp;").replace('<', "&lt;");
        text.push_str(&format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag>", part.number));
        if let Some(sum) = &part.sha256 {
            text.push_str(&format!("<ChecksumSHA256>{sum}</ChecksumSHA256>"));
        }
        text.push_str("</Part>");
    }
    text.push_str("</CompleteMultipartUpload>");
    text
}

/// A key as it is: in replies it comes as in a form, so that XML can hold it.
fn plain(key: String, is_encoded: bool) -> String {
    if !is_encoded || !key.contains(['%', '+']) {
        return key;
    }
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).unwrap_or(0);
                bytes.push(u8::try_from(digit() * 16 + digit()).unwrap_or(b'?'));
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap_or(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_keys_is_read() {
        let text = b"<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Name>b</Name><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
            <NextContinuationToken>t=</NextContinuationToken>\
            <Contents><Key>a+b%2Bc%0A</Key><Size>3</Size><ETag>&quot;x&quot;</ETag></Contents>\
            <Contents><Key>d</Key><Size>0</Size></Contents></ListBucketResult>";
        let page = list_page(text).unwrap();
        let listed = |key: &str, size| Listed { key: key.to_owned(), size };
        assert_eq!(page.objects, [listed("a b+c\n", 3), listed("d", 0)]);
        assert_eq!(page.next.as_deref(), Some("t="));
        let last = list_page(b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>").unwrap();
        assert!(last.objects.is_empty() && last.next.is_none());
    }

    #[test]
    fn what_is_not_a_listing_is_an_error() {
        assert!(
            list_page(b"<html>sign in</html>").is_ok_and(|page| page.objects.is_empty()) || list_page(b"").is_err()
        );
        assert!(upload_id(b"<html/>").is_err());
    }

    #[test]
    fn an_error_is_told_from_a_success() {
        let text = b"<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>m</Message></Error>";
        assert!(is_error(text));
        assert_eq!(error(text).unwrap().code, "SlowDown");
        assert!(!is_error(b"<CopyObjectResult><ETag>x</ETag></CopyObjectResult>"));
    }
}
