//! Which bucket, and what of it. Pure.

use std::fmt;

use crate::model::RelPath;

/// A bucket, or what begins with a prefix in one: `s3://BUCKET/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Place {
    bucket: String,
    /// Without a `/` at its ends.
    prefix: String,
}

impl S3Place {
    /// Reads what stands behind `s3://`; `None`: it names no bucket, or its prefix has empty, `.` or `..` parts or control
    /// characters.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_bucket = !bucket.is_empty() && bucket.bytes().all(is_name) && bucket != "." && bucket != "..";
        let is_prefix = RelPath::new(prefix).is_ok() && !prefix.contains(|one: char| one.is_ascii_control());
        (is_bucket && is_prefix).then(|| S3Place { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What all keys begin with: nothing, or something with a `/` at its end.
    pub(super) fn key_prefix(&self) -> String {
        if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) }
    }

    /// Whether one lies in the other, or they are the same.
    #[must_use]
    pub fn overlaps(&self, other: &S3Place) -> bool {
        let (one, other_prefix) = (self.key_prefix(), other.key_prefix());
        self.bucket == other.bucket && (one.starts_with(&other_prefix) || other_prefix.starts_with(&one))
    }
}

impl fmt::Display for S3Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.prefix {
            "" => write!(f, "s3://{}", self.bucket),
            prefix => write!(f, "s3://{}/{prefix}", self.bucket),
        }
    }
}
