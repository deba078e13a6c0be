//! Which bucket or container, and what of it. Pure.

use std::fmt;

use crate::model::RelPath;

/// A bucket of Google's, a container of Azure's, or what begins with a prefix in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudPlace {
    cloud: Cloud,
    bucket: String,
    /// Azure's storage account, where the URL names it.
    account: Option<String>,
    /// Without a `/` at its ends.
    prefix: String,
}

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Google Cloud Storage: `gs://BUCKET/PREFIX`.
    Google,
    /// Azure Blob Storage: `az://CONTAINER/PREFIX`, or `az://CONTAINER@ACCOUNT/PREFIX`.
    Azure,
}

impl Cloud {
    /// What stands in front of `://`.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Cloud::Google => "gs",
            Cloud::Azure => "az",
        }
    }
}

impl CloudPlace {
    /// Reads what stands behind `gs://` or `az://`; `None`: it names no bucket, or its prefix has empty, `.` or `..` parts or
    /// control characters.
    #[must_use]
    pub fn parse(cloud: Cloud, text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (place, prefix) = text.split_once('/').unwrap_or((text, ""));
        let (bucket, account) = match place.split_once('@') {
            Some((container, account)) if cloud == Cloud::Azure => (container, Some(account)),
            _ => (place, None),
        };
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_bucket = match cloud {
            Cloud::Google => is_name(bucket, b"-._"),
            Cloud::Azure => is_name(bucket, b"-$"),
        };
        let is_account = account.is_none_or(is_account);
        let is_prefix = RelPath::new(prefix).is_ok() && !prefix.contains(|one: char| one.is_ascii_control());
        let account = account.map(str::to_owned);
        (is_bucket && is_account && is_prefix).then(|| CloudPlace {
            cloud,
            bucket: bucket.to_owned(),
            account,
            prefix: prefix.to_owned(),
        })
    }

    /// Whose store it is.
    #[must_use]
    pub fn cloud(&self) -> Cloud {
        self.cloud
    }

    /// The bucket's or container's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Azure's storage account, where the URL names it.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// What all keys begin with: nothing, or something with a `/` at its end.
    pub(super) fn key_prefix(&self) -> String {
        if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) }
    }

    /// Whether one lies in the other, or they are the same, as far as their texts tell.
    #[must_use]
    pub fn overlaps(&self, other: &CloudPlace) -> bool {
        let (one, two) = (self.key_prefix(), other.key_prefix());
        let is_same_account = self.account.is_none() || other.account.is_none() || self.account == other.account;
        self.cloud == other.cloud
            && self.bucket == other.bucket
            && is_same_account
            && (one.starts_with(&two) || two.starts_with(&one))
    }
}

/// Whether it can be the name of an account of Azure's.
#[must_use]
pub fn is_account(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_name(text: &str, more: &[u8]) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
    !text.is_empty() && text.bytes().all(is_name) && text != "." && text != ".."
}

impl fmt::Display for CloudPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.cloud.scheme(), self.bucket)?;
        if let Some(account) = &self.account {
            write!(f, "@{account}")?;
        }
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place(cloud: Cloud, text: &str) -> Option<CloudPlace> {
        CloudPlace::parse(cloud, text.as_bytes())
    }

    #[test]
    fn a_place_has_a_bucket_and_maybe_an_account() {
        let shown = |cloud, text| place(cloud, text).map(|place| place.to_string());
        assert_eq!(shown(Cloud::Google, "my_b.c/a/b/"), Some("gs://my_b.c/a/b".to_owned()));
        assert_eq!(shown(Cloud::Azure, "box@acct1/a"), Some("az://box@acct1/a".to_owned()));
        assert_eq!(shown(Cloud::Azure, "box"), Some("az://box".to_owned()));
        for wrong in ["", "/a", "b/a//c", "b/../c", "b c", "..", "b/a\nc", "b@c"] {
            assert_eq!(shown(Cloud::Google, wrong), None, "{wrong}");
        }
        for wrong in ["", "@acct", "box@", "box@a.b", "a.b", "box@acct@x"] {
            assert_eq!(shown(Cloud::Azure, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn places_of_one_container_overlap_unless_their_accounts_are_known_to_differ() {
        let overlap = |one, two| place(Cloud::Azure, one).unwrap().overlaps(&place(Cloud::Azure, two).unwrap());
        assert!(overlap("box", "box@a/p") && overlap("box@a", "box@a/p"));
        assert!(!overlap("box@a", "box@b") && !overlap("box/p", "box/pq") && !overlap("box", "other"));
        assert!(!place(Cloud::Google, "box").unwrap().overlaps(&place(Cloud::Azure, "box").unwrap()));
    }
}
