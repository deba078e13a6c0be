//! A bucket of Google Cloud Storage, or a container of Azure Blob Storage, as a target, by the library that speaks to both.
//!
//! A path's key is its bytes behind the target's prefix ([`crate::target::keys`]), its metadata the object's ([`meta`]). Each
//! request that carries content carries its MD5, which the store holds it against; an object appears whole or not at all.

mod access;
mod connect;
mod error;
mod meta;
mod parts;
mod place;
mod reader;
mod wire;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path as Key;
use object_store::{
    GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

pub use access::{AzureAccess, AzureCredentials, CloudAccess, CloudSource, GoogleAccess, GoogleCredentials};
pub use place::{Cloud, CloudPlace, is_account};

use super::store::{Abilities, Connect, Entry, Item, Spool, Spooled, Store, StoreTarget, Told, not_there};
use super::stretches::Stretches;
use super::{Found, MARK, Meta, Patience, Result, Target, TargetError, keys, shown};
use crate::model::{FileType, Proof, RelPath};
use wire::CopyStatus;

/// Requests at once.
const AT_ONCE: usize = 32;
/// The largest file that goes in one request.
const WHOLE_MAX: u64 = 5 << 20;
/// Memory for content that is on its way.
const MEMORY_MAX: usize = 96 << 20;
/// It is counted in such units.
const UNIT: usize = 64 << 10;
/// The longest target of a link (`PATH_MAX`).
const LINK_MAX: u64 = 4096;
/// The longest pause before it is looked again whether a copy is done.
const COPY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A bucket or container as a target.
pub(super) fn target(place: &CloudPlace, source: &CloudSource, patience: Patience, spool: &Path) -> Arc<dyn Target> {
    let reached = Reached { place: place.clone(), source: source.clone(), patience };
    Arc::new(StoreTarget::new(reached, spool))
}

#[derive(Debug)]
struct Reached {
    place: CloudPlace,
    source: CloudSource,
    patience: Patience,
}

impl Connect for Reached {
    type Store = CloudStore;

    fn place(&self) -> String {
        self.place.to_string()
    }

    fn expected(&self) -> Abilities {
        abilities()
    }

    fn connect(&self, _: &Arc<Spool>) -> Result<CloudStore> {
        connect::connect(&self.place, &self.source, self.patience)
    }
}

fn abilities() -> Abilities {
    Abilities {
        read: true,
        rename: true,
        // They list in the order of keys, which is not that of paths where names had to be encoded.
        is_sorted: false,
        proof: Proof::Proved,
        mtime_step_ns: 1,
        name_max: keys::KEY_MAX,
        at_once: AT_ONCE,
    }
}

/// A bucket or container at work.
struct CloudStore {
    place: CloudPlace,
    patience: Patience,
    /// Host and port of the store.
    host: String,
    /// What all keys begin with: nothing, or something with a `/` at its end.
    prefix: String,
    objects: Arc<dyn ObjectStore>,
    pages: Arc<dyn PaginatedListStore>,
    /// For content that is on its way, in units.
    memory: Arc<Semaphore>,
    /// `None` only while it is being dropped.
    runtime: Option<Arc<Runtime>>,
}

impl Drop for CloudStore {
    /// Whatever thread drops it: one of its own cannot wait for itself to end.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take().and_then(Arc::into_inner) {
            runtime.shutdown_background();
        }
    }
}

impl CloudStore {
    fn runtime(&self) -> &Arc<Runtime> {
        self.runtime.as_ref().expect("it is taken only by drop")
    }

    /// Waits for what goes on in the network. Each request ends by its own patience.
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime().block_on(work)
    }

    /// An error of the library as one of the target.
    fn error<'s>(
        &'s self,
        doing: &'static str,
        path: &'s RelPath,
    ) -> impl Fn(object_store::Error) -> TargetError + use<'s> {
        move |error| error::target_error(&self.place, &self.host, doing, path, &error)
    }

    /// The key of a path.
    fn key(&self, path: &RelPath) -> Result<Key> {
        let refused = |why: String| TargetError::Refused { path: shown(path), why };
        let text = format!("{}{}", self.prefix, keys::encode(path));
        if text.len() > keys::KEY_MAX {
            let why = format!("its key would have {} bytes, and {} is the most", text.len(), keys::KEY_MAX);
            return Err(refused(why));
        }
        if self.place.cloud() == Cloud::Azure {
            // Azure takes a dot at a name's end away, and turns a backslash into a slash: two files would be one.
            if text.split('/').any(|name| name.ends_with('.')) || text.contains('\\') {
                return Err(refused("Azure keeps no name that ends with a dot or has a backslash".to_owned()));
            }
        }
        Key::parse(&text).map_err(|error| refused(error.to_string()))
    }

    /// What the keys of all below a directory begin with.
    fn below(&self, dir: &RelPath) -> String {
        if dir.is_root() { self.prefix.clone() } else { format!("{}{}/", self.prefix, keys::encode(dir)) }
    }

    /// The path of a key; `None`: somebody else put it there.
    fn path(&self, key: &Key) -> Option<RelPath> {
        keys::decode(key.as_ref().strip_prefix(&self.prefix)?).filter(|path| !path.is_root())
    }

    /// A page of what begins so, and by what the next is asked for.
    async fn page(
        &self,
        prefix: &str,
        token: Option<String>,
        max: Option<usize>,
    ) -> object_store::Result<(Vec<ObjectMeta>, Option<String>)> {
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        let options = PaginatedListOptions { page_token: token, max_keys: max, ..PaginatedListOptions::default() };
        let page = self.pages.list_paginated(prefix, options).await?;
        Ok((page.result.objects, page.page_token))
    }

    /// What a store tells of an object; `None`: it is not there.
    async fn head(&self, key: &Key) -> object_store::Result<Option<GetResult>> {
        match self.objects.get_opts(key, GetOptions { head: true, ..GetOptions::default() }).await {
            Ok(head) => Ok(Some(head)),
            Err(error) if error::is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn entry(&self, key: &Key) -> object_store::Result<Option<Entry>> {
        let Some(head) = self.head(key).await? else { return Ok(None) };
        let kept = meta::kept(&head.attributes);
        let target = match kept.is_symlink && head.meta.size <= LINK_MAX {
            true => Some(self.objects.get(key).await?.bytes().await?.to_vec()),
            false => None,
        };
        let came_ns = || head.meta.last_modified.timestamp_nanos_opt();
        let found = Found {
            kind: if target.is_some() { FileType::Symlink } else { FileType::File },
            size: head.meta.size,
            mtime_ns: kept.mtime_ns.or_else(came_ns).unwrap_or(0),
            target,
        };
        Ok(Some(Entry { found, mode: kept.mode, uid: kept.uid, gid: kept.gid }))
    }

    /// Memory for so many bytes; what is larger than all of it has all of it.
    async fn room(&self, bytes: u64) -> OwnedSemaphorePermit {
        let bytes = usize::try_from(bytes).unwrap_or(MEMORY_MAX).min(MEMORY_MAX);
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(1);
        let room = Arc::clone(&self.memory).acquire_many_owned(units).await;
        room.expect("it is never closed")
    }

    /// Copies, and looks whether all of it is there: Azure may go on with it after it has answered.
    async fn copy(&self, from: &Key, to: &Key) -> object_store::Result<()> {
        let size = self.objects.head(from).await?.size;
        self.objects.copy(from, to).await?;
        let (began, mut pause) = (Instant::now(), self.patience.pause);
        while began.elapsed() < self.patience.work {
            let head = self.objects.get_opts(to, GetOptions { head: true, ..GetOptions::default() }).await?;
            match head.extensions.get::<CopyStatus>() {
                Some(CopyStatus(status)) if status == "pending" => tokio::time::sleep(pause).await,
                Some(CopyStatus(status)) if status != "success" => break,
                _ if head.meta.size == size => return Ok(()),
                _ => break,
            }
            pause = COPY_PAUSE_MAX.min(pause * 2);
        }
        let store = self.place.cloud().scheme();
        Err(object_store::Error::Generic { store, source: "the store did not copy all of it".into() })
    }
}

impl Store for CloudStore {
    fn place(&self) -> String {
        self.place.to_string()
    }

    fn abilities(&self) -> Abilities {
        abilities()
    }

    /// Each request stands for itself.
    fn is_lost(&self) -> bool {
        false
    }

    fn list(&self, below: &RelPath, told: &mut Told<'_>) -> Result<()> {
        let prefix = self.below(below);
        let mut token = None;
        loop {
            let (objects, next) = self.wait(self.page(&prefix, token, None)).map_err(self.error("list", below))?;
            let ours = objects.into_iter().filter_map(|object| Some((self.path(&object.location)?, object.location)));
            // Their metadata is not in the listing.
            let looked = futures_util::stream::iter(ours).map(async |(path, key)| (path, self.entry(&key).await));
            let entries: Vec<_> = self.wait(looked.buffered(AT_ONCE).collect());
            for (path, entry) in entries {
                // What went away meanwhile is not there.
                let Some(entry) = entry.map_err(self.error("look at", &path))? else { continue };
                if told(Item { path, entry }).is_break() {
                    return Ok(());
                }
            }
            match next {
                Some(next) => token = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn look(&self, path: &RelPath) -> Result<Option<Entry>> {
        self.wait(self.entry(&self.key(path)?)).map_err(self.error("look at", path))
    }

    fn holds(&self, dir: &RelPath) -> Result<bool> {
        let prefix = self.below(dir);
        let mut token = None;
        loop {
            let (objects, next) = self.wait(self.page(&prefix, token, Some(1))).map_err(self.error("list", dir))?;
            match next {
                _ if !objects.is_empty() => return Ok(true),
                Some(next) => token = Some(next),
                None => return Ok(false),
            }
        }
    }

    fn put(&self, path: &RelPath, meta: &Meta, what: &Spooled) -> Result<()> {
        let key = self.key(path)?;
        let kind = if matches!(what, Spooled::Symlink(_)) { FileType::Symlink } else { FileType::File };
        let attributes = meta::attributes(kind, meta, &Uuid::now_v7().simple().to_string());
        let (_room, bytes) = match what {
            Spooled::Symlink(to) => (None, to.clone()),
            Spooled::File { file, size, sha256 } if *size <= WHOLE_MAX => {
                let room = self.wait(self.room(*size));
                (Some(room), parts::whole(path, file, *size, sha256)?)
            }
            Spooled::File { file, size, sha256 } => {
                return parts::send(self, path, &key, attributes, (file, *size, sha256));
            }
        };
        // The first mark stays: whose it is, is looked at when it is there.
        let is_mark = path.as_bytes() == MARK;
        let mode = if is_mark { PutMode::Create } else { PutMode::Overwrite };
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        let put = self.wait(self.objects.put_opts(&key, PutPayload::from(bytes), options));
        match put {
            Err(error) if is_mark && error::is_there_already(&error) => Ok(()),
            put => put.map(|_| ()).map_err(self.error("write", path)),
        }
    }

    fn read(&self, path: &RelPath, _: &Spool) -> Result<Box<dyn Read + Send>> {
        let key = self.key(path)?;
        let head = self.wait(self.head(&key)).map_err(self.error("read", path))?;
        let head = head.ok_or_else(|| not_there("read", path))?;
        let (runtime, objects) = (Arc::clone(self.runtime()), Arc::clone(&self.objects));
        let object = reader::Object::new(runtime, objects, key, &head.meta);
        Ok(Box::new(Stretches::new(head.meta.size, move |at, length| object.stretch(at, length))))
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let (source, place) = (self.key(from)?, self.key(to)?);
        match self.wait(self.copy(&source, &place)) {
            // It was done, and the reply lost.
            Err(error) if error::is_missing(&error) && self.look(to)?.is_some() => return Ok(()),
            copied => copied.map_err(self.error("rename", from))?,
        }
        self.delete(from)
    }

    fn delete(&self, path: &RelPath) -> Result<()> {
        match self.wait(self.objects.delete(&self.key(path)?)) {
            Err(error) if error::is_missing(&error) => Ok(()),
            deleted => deleted.map_err(self.error("remove", path)),
        }
    }
}
