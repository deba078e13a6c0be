//! From what a person writes to a target: the scheme says which kind.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    BadAddress, Cloud, CloudPlace, CloudSource, ExecCommand, ExecPatience, HttpPlace, LocalTarget, Patience,
    RcloneAccess, RclonePlace, S3Place, S3Source, S3Target, Secret, SshAddress, SshOptions, SshTarget, Target, cloud,
    exec, http, rclone,
};

/// The kinds of targets, as a person writes them.
const KINDS: &str = "a directory: /PATH or file:///PATH, one of another host: ssh://HOST/PATH, a bucket: \
     s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX, a store reached by HTTP: https://HOST/PATH, a remote of rclone: rclone:REMOTE:PATH, or a plug-in: exec:PROGRAM ARG…";

/// Where a target is. Printing it shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetUrl {
    /// A directory of this machine, absolute.
    Local(PathBuf),
    /// A directory of a host that is reached by ssh.
    Ssh(SshAddress),
    /// A bucket of S3, or what begins with a prefix in one.
    S3(S3Place),
    /// A bucket of Google's or a container of Azure's, or what begins with a prefix in one.
    Cloud(CloudPlace),
    /// A store that is reached by HTTP.
    Http(HttpPlace),
    /// A remote of rclone.
    Rclone(RclonePlace),
    /// A plug-in.
    Exec(ExecCommand),
}

/// What targets take besides their URLs.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Who says how S3 is reached.
    pub s3: S3Source,
    /// Who says how Google's and Azure's stores are reached.
    pub cloud: CloudSource,
    /// A directory for content on its way to targets that take it only when all of it is known. It is made when it is needed.
    pub spool: PathBuf,
    /// The slashes that a layout leaves in front of every path, for targets that take them as they are.
    pub lead: Vec<u8>,
    /// How long a plug-in is waited for.
    pub exec: ExecPatience,
    /// By what requests to an HTTP store are signed, or `USER:PASSWORD` of an rclone that runs.
    pub secret: Secret,
    /// How long an HTTP store, or one of Google's or Azure's, is waited for.
    pub http: Patience,
    /// How rclone is reached.
    pub rclone: RcloneAccess,
    /// How ssh is run.
    pub ssh: SshOptions,
}

/// What cannot be a target. Nothing of it is a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No target is reached in this way.
    #[error("there is no target of the kind `{scheme}`; a target is {KINDS}")]
    Scheme {
        /// What stands in front of `://`.
        scheme: String,
    },
    /// The URL names no place.
    #[error("`{url}` names no place; write it as {example}")]
    Place {
        /// What was written, without secrets.
        url: String,
        /// How it is written.
        example: &'static str,
    },
    /// The URL of a directory reached by ssh is none.
    #[error(transparent)]
    Ssh(#[from] BadAddress),
}

impl TargetUrl {
    /// Reads a URL or a path. A relative path is taken against `current_dir`.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(text: &OsStr, current_dir: &Path) -> Result<Self, UrlError> {
        let bytes = text.as_bytes();
        if let Some(command) = bytes.strip_prefix(b"exec:") {
            let wrong = || UrlError::Place {
                url: text.to_string_lossy().into_owned(),
                example: "exec:PROGRAM ARG…, with every quote closed",
            };
            return ExecCommand::parse(command).map(TargetUrl::Exec).ok_or_else(wrong);
        }
        if let Some(remote) = bytes.strip_prefix(b"rclone:") {
            let wrong = || UrlError::Place {
                // What stands behind a comma may be a secret.
                url: text.to_string_lossy().split(',').next().unwrap_or_default().to_owned(),
                example: "rclone:REMOTE:PATH, with a REMOTE that `rclone config` has made",
            };
            return RclonePlace::parse(remote).map(TargetUrl::Rclone).ok_or_else(wrong);
        }
        let Some((scheme, rest)) = split_scheme(bytes) else { return Ok(TargetUrl::Local(plain(text, current_dir))) };
        match scheme {
            b"file" if rest.starts_with(b"/") => Ok(TargetUrl::Local(plain(OsStr::from_bytes(rest), current_dir))),
            b"file" => Err(UrlError::Place { url: text.to_string_lossy().into_owned(), example: "file:///DIRECTORY" }),
            b"s3" => S3Place::parse(rest).map(TargetUrl::S3).ok_or_else(|| UrlError::Place {
                url: text.to_string_lossy().into_owned(),
                example: "s3://BUCKET/PREFIX",
            }),
            b"gs" => CloudPlace::parse(Cloud::Google, rest).map(TargetUrl::Cloud).ok_or_else(|| UrlError::Place {
                url: text.to_string_lossy().into_owned(),
                example: "gs://BUCKET/PREFIX",
            }),
            b"az" => CloudPlace::parse(Cloud::Azure, rest).map(TargetUrl::Cloud).ok_or_else(|| UrlError::Place {
                url: text.to_string_lossy().into_owned(),
                example: "az://CONTAINER/PREFIX, or az://CONTAINER@ACCOUNT/PREFIX",
            }),
            b"http" | b"https" => {
                let wrong = || UrlError::Place { url: without_user(rest, scheme), example: "https://HOST/PATH" };
                HttpPlace::parse(rest, scheme == b"https").map(TargetUrl::Http).ok_or_else(wrong)
            }
            b"ssh" => Ok(TargetUrl::Ssh(SshAddress::parse(bytes)?)),
            other => Err(UrlError::Scheme { scheme: String::from_utf8_lossy(other).into_owned() }),
        }
    }

    /// The target itself. Nothing is looked at yet.
    #[must_use]
    pub fn target(&self, access: &Access) -> Arc<dyn Target> {
        match self {
            TargetUrl::Local(dir) => Arc::new(LocalTarget::new(dir)),
            TargetUrl::S3(place) => Arc::new(S3Target::new(place, &access.s3)),
            TargetUrl::Cloud(place) => cloud::target(place, &access.cloud, access.http, &access.spool),
            TargetUrl::Http(place) => http::target(place, &access.lead, &access.secret, access.http, &access.spool),
            TargetUrl::Rclone(place) => rclone::target(place, &access.rclone, &access.secret, &access.spool),
            TargetUrl::Exec(command) => exec::target(command, &access.lead, access.exec, &access.spool),
            TargetUrl::Ssh(address) => Arc::new(SshTarget::new(address.clone(), access.ssh.clone())),
        }
    }

    /// The directory, if it is one of this machine.
    #[must_use]
    pub fn local_dir(&self) -> Option<&Path> {
        match self {
            TargetUrl::Local(dir) => Some(dir),
            TargetUrl::S3(_)
            | TargetUrl::Cloud(_)
            | TargetUrl::Ssh(_)
            | TargetUrl::Http(_)
            | TargetUrl::Rclone(_)
            | TargetUrl::Exec(_) => None,
        }
    }

    /// Files copied at the same time, unless a person says otherwise.
    #[must_use]
    pub fn transfers(&self) -> usize {
        match self {
            TargetUrl::Local(_) | TargetUrl::Http(_) => 16,
            TargetUrl::Cloud(_) => 32,
            TargetUrl::S3(_) => 100,
            TargetUrl::Ssh(_) | TargetUrl::Rclone(_) | TargetUrl::Exec(_) => 8,
        }
    }

    /// Whether paths keep slashes in front that a layout leaves there.
    #[must_use]
    pub fn keeps_lead(&self) -> bool {
        matches!(self, TargetUrl::Http(_) | TargetUrl::Exec(_))
    }

    /// Whether one lies in the other, or they are the same, as far as their texts tell.
    #[must_use]
    pub fn overlaps(&self, other: &TargetUrl) -> bool {
        match (self, other) {
            (TargetUrl::Local(one), TargetUrl::Local(other)) => one.starts_with(other) || other.starts_with(one),
            (TargetUrl::Ssh(one), TargetUrl::Ssh(other)) => one.overlaps(other),
            (TargetUrl::S3(one), TargetUrl::S3(other)) => one.overlaps(other),
            (TargetUrl::Cloud(one), TargetUrl::Cloud(other)) => one.overlaps(other),
            (TargetUrl::Http(one), TargetUrl::Http(other)) => one.overlaps(other),
            (TargetUrl::Rclone(one), TargetUrl::Rclone(other)) => one.overlaps(other),
            (TargetUrl::Exec(one), TargetUrl::Exec(other)) => one == other,
            _ => false,
        }
    }

    /// Exactly this place as one string of bytes, by which it is told from others.
    #[must_use]
    pub fn to_bytes(&self) -> OsString {
        match self {
            TargetUrl::Local(dir) => dir.clone().into_os_string(),
            TargetUrl::S3(place) => place.to_string().into(),
            TargetUrl::Cloud(place) => place.to_string().into(),
            TargetUrl::Http(place) => place.to_string().into(),
            TargetUrl::Rclone(place) => place.to_string().into(),
            TargetUrl::Exec(command) => [OsStr::new("exec:"), command.as_written()].into_iter().collect(),
            TargetUrl::Ssh(address) => address.to_string().into(),
        }
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetUrl::Local(dir) => dir.display().fmt(f),
            TargetUrl::S3(place) => place.fmt(f),
            TargetUrl::Cloud(place) => place.fmt(f),
            TargetUrl::Http(place) => place.fmt(f),
            TargetUrl::Rclone(place) => place.fmt(f),
            TargetUrl::Exec(command) => command.fmt(f),
            TargetUrl::Ssh(address) => address.fmt(f),
        }
    }
}

/// A URL that was not understood, without what stands in front of an `@`: that may be a password.
fn without_user(rest: &[u8], scheme: &[u8]) -> String {
    let rest = rest.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    format!("{}://{}", String::from_utf8_lossy(scheme), String::from_utf8_lossy(rest))
}

/// What stands in front of `://`, and behind.
fn split_scheme(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(3).position(|three| three == b"://")?;
    let is_scheme = end > 0 && bytes[..end].iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    is_scheme.then_some((&bytes[..end], &bytes[end + 3..]))
}

/// Absolute, without `.` components or doubled slashes.
fn plain(path: &OsStr, current_dir: &Path) -> PathBuf {
    current_dir.join(path).components().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TargetUrl, UrlError> {
        TargetUrl::parse(OsStr::new(text), Path::new("/home/u"))
    }

    #[test]
    fn directories_are_written_in_three_ways() {
        let local = |path: &str| Ok(TargetUrl::Local(PathBuf::from(path)));
        assert_eq!(parse("/mnt//backup/"), local("/mnt/backup"));
        assert_eq!(parse("file:///mnt/backup"), local("/mnt/backup"));
        assert_eq!(parse("backup"), local("/home/u/backup"));
        assert_eq!(parse("odd:name"), local("/home/u/odd:name"));
        assert!(matches!(parse("file://backup"), Err(UrlError::Place { .. })));
        assert_eq!(parse("gopher://x/y"), Err(UrlError::Scheme { scheme: "gopher".to_owned() }));
    }

    #[test]
    fn a_bucket_has_a_prefix_or_none() {
        let shown = |text: &str| parse(text).map(|url| url.to_string());
        assert_eq!(shown("s3://bucket/a//b/"), Err(wrong("s3://bucket/a//b/")));
        assert_eq!(shown("s3://bucket/a/b/"), Ok("s3://bucket/a/b".to_owned()));
        assert_eq!(shown("s3://bucket"), Ok("s3://bucket".to_owned()));
        for text in ["s3://", "s3:///a", "s3://b/../c"] {
            assert_eq!(parse(text), Err(wrong(text)));
        }
    }

    fn wrong(url: &str) -> UrlError {
        UrlError::Place { url: url.to_owned(), example: "s3://BUCKET/PREFIX" }
    }

    #[test]
    fn places_that_lie_in_one_another_overlap() {
        let overlap = |one: &str, other: &str| parse(one).unwrap().overlaps(&parse(other).unwrap());
        assert!(overlap("/a/b", "/a") && overlap("/a", "/a/b") && overlap("/a", "file:///a"));
        assert!(!overlap("/a/b", "/a/bc"));
        assert!(overlap("s3://b/p", "s3://b/p/q/") && overlap("s3://b", "s3://b/p"));
        assert!(!overlap("s3://b/p", "s3://c/p") && !overlap("s3://b/p", "s3://b/pq") && !overlap("s3://b/p", "/b/p"));
        assert!(overlap("ssh://h/a", "ssh://h//a/b/") && overlap("ssh://h/~", "ssh://h/~/x"));
        assert!(
            !overlap("ssh://h/a", "ssh://g/a") && !overlap("ssh://h/a", "/a") && !overlap("ssh://h/a", "ssh://h/ab")
        );
    }
}
