//! A file's content on its way from the spool, held against its hash again; a large one in parts, given up if it fails.

use std::fs::File;
use std::io::{self, Read};

use object_store::path::Path as Key;
use object_store::{Attributes, MultipartUpload, PutMultipartOptions, PutPayload};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::{CloudStore, WHOLE_MAX, error, meta};
use crate::model::RelPath;
use crate::target::store::SpoolFile;
use crate::target::{Result, TargetError, shown};

/// Parts that an upload may have at Google's; Azure takes more.
const COUNT_MAX: u64 = 10_000;
/// Bytes of a part, unless the file is so large that there would be too many.
const PART: u64 = 8 << 20;
/// Parts of one file that are under way at once.
const AT_ONCE: usize = 4;
/// The largest object at Google's; Azure takes more.
const SIZE_MAX: u64 = 5 << 40;

/// Why a part was not sent.
enum Fault {
    Spool(io::Error),
    Store(object_store::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Spool(error)
    }
}

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        Fault::Store(error)
    }
}

fn spool_error(path: &RelPath, source: io::Error) -> TargetError {
    TargetError::Io { doing: "send", path: shown(path), source }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it changed while it waited to be sent: is the state's disk sound?")
}

/// All of a small file.
pub(super) fn whole(path: &RelPath, file: &SpoolFile, size: u64, sha256: &[u8; 32]) -> Result<Vec<u8>> {
    let failed = |source| spool_error(path, source);
    let mut bytes = Vec::new();
    file.open().map_err(failed)?.take(size + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 != size || Sha256::digest(&bytes)[..] != sha256[..] {
        return Err(failed(changed()));
    }
    Ok(bytes)
}

/// Bytes of a part: as few as go into the most parts there may be, in whole MiB.
fn part_size(size: u64) -> u64 {
    size.div_ceil(COUNT_MAX).next_multiple_of(1 << 20).max(PART)
}

/// Sends a large file in parts. It is there when all of them are, or not at all.
pub(super) fn send(
    store: &CloudStore,
    path: &RelPath,
    key: &Key,
    attributes: Attributes,
    (file, size, sha256): (&SpoolFile, u64, &[u8; 32]),
) -> Result<()> {
    if size > SIZE_MAX {
        let why = format!("it has {size} bytes, and {SIZE_MAX} is the most");
        return Err(TargetError::Refused { path: shown(path), why });
    }
    let mut file = file.open().map_err(|source| spool_error(path, source))?;
    let sent = store.wait(async {
        let put = meta::kept(&attributes).put;
        let mut upload = store.objects.put_multipart_opts(key, PutMultipartOptions::from(attributes)).await?;
        let sent = match send_parts(store, &mut *upload, &mut file, size, sha256).await {
            Ok(()) => upload.complete().await.map_err(Fault::Store),
            Err(fault) => Err(fault),
        };
        let Err(fault) = sent else { return Ok(()) };
        // It was joined, and the reply lost: asked again, the store knows of no such upload.
        if let Fault::Store(error) = &fault
            && error::is_upload_gone(error)
            && let Some(head) = store.head(key).await?
            && head.meta.size == size
            && meta::kept(&head.attributes).put == put
        {
            return Ok(());
        }
        if let Err(error) = upload.abort().await {
            tracing::debug!(%error, %key, "an upload was not given up");
        }
        Err(fault)
    });
    sent.map_err(|fault| match fault {
        Fault::Spool(source) => spool_error(path, source),
        Fault::Store(error) => store.error("write", path)(error),
    })
}

async fn send_parts(
    store: &CloudStore,
    upload: &mut dyn MultipartUpload,
    file: &mut File,
    size: u64,
    sha256: &[u8; 32],
) -> Result<(), Fault> {
    let (mut hash, mut left) = (Sha256::new(), size);
    let mut under_way: JoinSet<object_store::Result<()>> = JoinSet::new();
    let joined = |done: Result<object_store::Result<()>, tokio::task::JoinError>| -> Result<(), Fault> {
        done.map_err(io::Error::other)??;
        Ok(())
    };
    while left > 0 {
        let length = part_size(size).min(left);
        let room = store.room(length).await;
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        file.take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(changed().into());
        }
        hash.update(&bytes);
        left -= length;
        let part = upload.put_part(PutPayload::from(bytes));
        under_way.spawn(async move {
            let _room = room;
            part.await
        });
        if under_way.len() >= AT_ONCE
            && let Some(done) = under_way.join_next().await
        {
            joined(done)?;
        }
    }
    while let Some(done) = under_way.join_next().await {
        joined(done)?;
    }
    if hash.finalize()[..] == sha256[..] { Ok(()) } else { Err(changed().into()) }
}

const _: () = assert!(WHOLE_MAX <= PART, "every part but the last is as large as a store wants it");
