//! A bucket of S3, or of what speaks like it, as a target.
//!
//! A path's key is its bytes behind the target's prefix ([`crate::target::keys`]), its metadata the object's ([`meta`]). A store of objects has
//! no directories: they are there as long as something is below them. What is put comes with its SHA-256, which the store holds
//! it against, and appears whole or not at all.

mod bucket;
mod error;
mod listing;
mod mark;
mod meta;
mod moves;
mod objects;
mod place;
mod reply;
mod session;
mod stage;
mod upload;
mod wire;

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;

use super::{Claim, Found, Nature, Patience, Result, Session, Target, TargetError, keys};
use crate::model::{Proof, RelPath};
use bucket::Bucket;
pub use place::S3Place;

/// Objects that are published together: enough to keep all connections busy.
const BATCH_MAX: usize = 1024;

/// Who asks.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A key, and the token that goes with a passing one.
    Keys {
        /// The access key's id.
        key_id: String,
        /// The secret access key.
        secret: SecretString,
        /// The session's token.
        token: Option<SecretString>,
    },
    /// A role, by the token that a file holds.
    WebIdentity {
        /// The file.
        token_file: PathBuf,
        /// The role.
        role_arn: String,
    },
    /// What the container's agent gives out at this path.
    Container {
        /// With a `/` in front.
        path: String,
    },
    /// What the machine's metadata service gives out.
    Instance {
        /// Where it is; `None`: where all clouds have it.
        endpoint: Option<String>,
    },
}

/// How S3 is reached.
#[derive(Clone, Debug)]
pub struct S3Access {
    /// The bucket's region.
    pub region: String,
    /// The URL of a store that is not AWS; the bucket's name becomes the path's first part.
    pub endpoint: Option<String>,
    /// Who asks.
    pub credentials: Credentials,
}

/// Who says how S3 is reached. It is asked again after the store could not be reached: files of credentials change.
#[derive(Clone)]
pub struct S3Source(Arc<dyn Fn() -> std::result::Result<S3Access, String> + Send + Sync>);

impl S3Source {
    /// Asks this. What it answers instead of an access is for people, and names the remedy.
    pub fn new(ask: impl Fn() -> std::result::Result<S3Access, String> + Send + Sync + 'static) -> Self {
        S3Source(Arc::new(ask))
    }
}

impl Default for S3Source {
    fn default() -> Self {
        S3Source::new(|| Err("there are no credentials for S3".to_owned()))
    }
}

impl std::fmt::Debug for S3Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("S3Source")
    }
}

/// A bucket, or what begins with a prefix in one.
#[derive(Debug)]
pub struct S3Target {
    place: S3Place,
    source: S3Source,
    patience: Patience,
    bucket: Mutex<Option<Arc<Bucket>>>,
}

impl S3Target {
    /// The bucket. Nothing is asked of it yet.
    #[must_use]
    pub fn new(place: &S3Place, source: &S3Source) -> Self {
        S3Target::patient(place, source, Patience::default())
    }

    /// The same, with another patience.
    #[must_use]
    pub fn patient(place: &S3Place, source: &S3Source, patience: Patience) -> Self {
        S3Target { place: place.clone(), source: source.clone(), patience, bucket: Mutex::default() }
    }

    fn bucket(&self) -> Result<Arc<Bucket>> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = &*bucket {
            return Ok(Arc::clone(bucket));
        }
        let away = |why| TargetError::Away { place: self.place.to_string(), why };
        let new = Arc::new(Bucket::new(&self.place, &(self.source.0)().map_err(away)?, self.patience)?);
        Ok(Arc::clone(bucket.insert(new)))
    }

    /// Does something with the bucket. One that could not be reached is made anew the next time.
    fn with<T>(&self, work: impl FnOnce(&Arc<Bucket>) -> Result<T>) -> Result<T> {
        let bucket = self.bucket()?;
        let result = work(&bucket);
        if matches!(result, Err(TargetError::Away { .. })) {
            *self.bucket.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }
}

impl Target for S3Target {
    fn nature(&self) -> Nature {
        Nature {
            mtime_step_ns: 1,
            name_max: keys::KEY_MAX,
            is_filesystem: false,
            batch_max: BATCH_MAX,
            proof: Proof::Proved,
        }
    }

    fn open(&self, claim: &Claim) -> Result<(Box<dyn Session>, String)> {
        self.with(|bucket| {
            let identity = match mark::check(bucket, claim)? {
                Some(identity) => identity,
                None => mark::make(bucket, claim)?,
            };
            bucket.get_to_know(claim, &identity)?;
            let session: Box<dyn Session> = Box::new(session::S3Session::new(Arc::clone(bucket)));
            Ok((session, identity))
        })
    }

    fn probe(&self, claim: &Claim) -> Result<Option<String>> {
        self.with(|bucket| mark::check(bucket, claim))
    }

    fn survey(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        self.with(|bucket| listing::list(bucket, below, each))
    }
}
