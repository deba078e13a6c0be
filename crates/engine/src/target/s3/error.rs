//! What S3 says when it says no, for people and for those who try again.

use std::io;

use super::wire::WireError;
use crate::model::RelPath;
use crate::target::{TargetError, shown};

/// What was tried, on which path: errors that concern one object name it, the others name the place.
pub(super) fn target_error(
    place: &str,
    bucket: &str,
    doing: &'static str,
    path: &RelPath,
    error: &WireError,
) -> TargetError {
    let refused = |why: &str| TargetError::Refused { path: shown(path), why: why.to_owned() };
    if let WireError::Refused { status, code, .. } = error {
        match (&**code, status) {
            ("KeyTooLongError", _) => return refused("its key would be longer than 1024 bytes"),
            ("EntityTooLarge", _) => return refused("it is too large for the store"),
            ("MetadataTooLarge", _) => return refused("its metadata is too large for the store"),
            ("QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage", _) | (_, 507) => {
                return TargetError::Full { path: shown(path) };
            }
            _ => {}
        }
    }
    match why_away(bucket, error) {
        Some(why) => TargetError::Away { place: place.to_owned(), why },
        None => {
            let kind = if error.is_missing() { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
            TargetError::Io { doing, path: shown(path), source: io::Error::new(kind, error.to_string()) }
        }
    }
}

/// Why all of the bucket is out of reach, and what to do; `None`: one object is concerned.
pub(super) fn why_away(bucket: &str, error: &WireError) -> Option<String> {
    let (status, code, region) = match error {
        WireError::Unreachable { endpoint, why } => {
            return Some(format!("{endpoint} cannot be reached: {why}; check `endpoint` and the network"));
        }
        WireError::Credentials { why } => {
            return Some(format!(
                "there are no credentials for it ({why}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a `profile`"
            ));
        }
        WireError::Refused { status, code, region, .. } => (*status, &**code, region),
    };
    let elsewhere = match region {
        Some(region) => format!("the bucket is in the region `{region}`: set `region` to that"),
        None => "the bucket is in another region: set `region`, or `endpoint`".to_owned(),
    };
    Some(match (code, status) {
        ("NoSuchBucket", _) => {
            format!("there is no bucket `{bucket}`: make it, or check its name, `endpoint` and `region`")
        }
        ("InvalidBucketName", _) => format!("`{bucket}` cannot be a bucket's name"),
        ("InvalidAccessKeyId", _) => "the access key id is not known there: check the credentials".to_owned(),
        ("SignatureDoesNotMatch", _) => {
            "the secret access key does not belong to the access key id: check the credentials".to_owned()
        }
        ("ExpiredToken" | "TokenRefreshRequired" | "InvalidToken", _) => {
            "the session token is no longer good: get new credentials".to_owned()
        }
        ("RequestTimeTooSkewed", _) => "this host's clock is wrong: set it".to_owned(),
        (
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException",
            _,
        )
        | (_, 301 | 307) => elsewhere,
        ("AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "", 401 | 403) => {
            format!(
                "access to the bucket `{bucket}` is denied: give the key the right to list, read, write and delete there"
            )
        }
        (code, 401 | 403) => format!("access is denied ({code}): check the credentials"),
        (code, 429 | 500..=599) => format!("it answers {status} {code} again and again; it will be tried later"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str, region: Option<&str>) -> WireError {
        let (message, region) = ("said so".to_owned(), region.map(str::to_owned));
        WireError::Refused { status, code: code.to_owned(), message, region }
    }

    fn error(error: &WireError) -> TargetError {
        target_error("s3://b/p", "b", "write", &RelPath::ROOT.join(b"f"), error)
    }

    #[test]
    fn the_thing_and_the_remedy_are_named() {
        let told = |status, code, region| error(&refused(status, code, region)).to_string();
        assert!(told(404, "NoSuchBucket", None).contains("no bucket `b`: make it"));
        assert!(told(403, "SignatureDoesNotMatch", None).contains("secret access key"));
        assert!(told(301, "PermanentRedirect", Some("eu-west-3")).contains("set `region` to that"));
        assert!(told(403, "", None).contains("is denied"));
    }

    #[test]
    fn what_concerns_one_object_is_not_the_place_s_fault() {
        assert!(matches!(error(&refused(400, "KeyTooLongError", None)), TargetError::Refused { .. }));
        assert!(matches!(error(&refused(507, "", None)), TargetError::Full { .. }));
        assert!(
            matches!(error(&refused(404, "NoSuchKey", None)), TargetError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
        );
        assert!(error(&refused(503, "SlowDown", None)).is_of_the_place());
    }
}
