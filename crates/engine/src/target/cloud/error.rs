//! What a store says when it says no, for people and for those who try again.

use std::io;

use super::CloudPlace;
use super::place::Cloud;
use super::wire::WireError;
use crate::model::RelPath;
use crate::target::web::innermost;
use crate::target::{TargetError, shown};

/// The wire's error within one of the library.
fn wire(error: &object_store::Error) -> Option<&WireError> {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = at {
        if let Some(wire) = one.downcast_ref::<WireError>() {
            return Some(wire);
        }
        at = one.source();
    }
    None
}

/// Whether the object that was asked for is not there.
pub(super) fn is_missing(error: &object_store::Error) -> bool {
    match wire(error) {
        Some(WireError::Refused { status: 404, code, .. }) => {
            matches!(&**code, "" | "NoSuchKey" | "BlobNotFound" | "ResourceNotFound")
        }
        Some(_) => false,
        None => matches!(error, object_store::Error::NotFound { .. }),
    }
}

/// Whether the store does not know of the parts that it is to join: it may have joined them already.
pub(super) fn is_upload_gone(error: &object_store::Error) -> bool {
    let is_list_wrong = matches!(wire(error), Some(WireError::Refused { code, .. }) if code == "InvalidBlockList");
    has_status(error, 404) || is_list_wrong
}

/// Whether the store answered with this status.
fn has_status(error: &object_store::Error, wanted: u16) -> bool {
    matches!(wire(error), Some(WireError::Refused { status, .. }) if *status == wanted)
}

/// Whether something stands where something was to be put only if nothing does.
pub(super) fn is_there_already(error: &object_store::Error) -> bool {
    has_status(error, 412) || has_status(error, 409)
}

/// What was tried, on which path: errors that concern one object name it, the others name the place.
pub(super) fn target_error(
    place: &CloudPlace,
    store_host: &str,
    doing: &'static str,
    path: &RelPath,
    error: &object_store::Error,
) -> TargetError {
    let away = |why| TargetError::Away { place: place.to_string(), why };
    let refused = |why: &str| TargetError::Refused { path: shown(path), why: why.to_owned() };
    let io = |kind, why: String| TargetError::Io { doing, path: shown(path), source: io::Error::new(kind, why) };
    let Some(wire) = wire(error) else {
        let kind = if is_missing(error) { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
        return io(kind, innermost(error));
    };
    if wire.host() != store_host {
        return away(no_credentials(place.cloud(), &wire.to_string()));
    }
    let WireError::Refused { status, code, .. } = wire else {
        return away(format!("{wire}; check `endpoint` and the network"));
    };
    let bucket = place.bucket();
    match (&**code, status) {
        ("NoSuchBucket", _) => away(format!("there is no bucket `{bucket}`: make it, or check its name")),
        ("ContainerNotFound", _) => {
            away(format!("there is no container `{bucket}` in the account: make it, or check both names"))
        }
        ("ContainerBeingDeleted" | "ContainerDisabled" | "AccountIsDisabled", _) => {
            away(format!("the container `{bucket}` cannot be used now ({code})"))
        }
        ("InvalidBucketName", _) => away(format!("`{bucket}` cannot be a bucket's name")),
        ("KeyTooLongError" | "InvalidObjectName" | "InvalidUri" | "OutOfRangeInput" | "InvalidResourceName", _) => {
            refused(&format!("the store takes no such name ({code})"))
        }
        ("EntityTooLarge" | "RequestBodyTooLarge" | "BlockCountExceedsLimit", _) => {
            refused("it is too large for the store")
        }
        ("MetadataTooLarge" | "InvalidMetadata", _) => refused("its metadata is too large for the store"),
        ("BlobArchived" | "BlobImmutableDueToPolicy" | "LeaseIdMissing", _) => {
            io(io::ErrorKind::Other, format!("the store keeps it from being used: {wire}"))
        }
        ("QuotaExceeded" | "InsufficientStorage", _) | (_, 507) => TargetError::Full { path: shown(path) },
        (_, 401) => away(format!("{wire}; {}", credentials(place.cloud()))),
        ("AuthenticationFailed" | "InvalidAuthenticationInfo" | "SignatureDoesNotMatch" | "InvalidSecurity", 403) => {
            away(format!("the credentials are not right ({wire}); {}", credentials(place.cloud())))
        }
        (_, 403) => away(format!(
            "access to `{bucket}` is denied ({wire}): give whoever asks the right to list, read, write and delete there"
        )),
        (_, 429 | 408 | 500..=599) => away(format!("{wire}, again and again; it will be tried later")),
        (_, 300..=399) => away(format!("{wire}; it is elsewhere: check `endpoint`")),
        _ => {
            let kind = if is_missing(error) { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
            io(kind, wire.to_string())
        }
    }
}

/// That nobody gives out credentials.
pub(super) fn no_credentials(cloud: Cloud, why: &str) -> String {
    format!("there are no credentials for it ({why}); {}", credentials(cloud))
}

/// How credentials are named.
fn credentials(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Google => {
            "name a service account's file as `credentials_file` or in GOOGLE_APPLICATION_CREDENTIALS, or run \
             `gcloud auth application-default login`"
        }
        Cloud::Azure => {
            "set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and \
             AZURE_CLIENT_SECRET, or name a file with them as `credentials_file`"
        }
    }
}
