//! Content on its way to an sftp server: opened, written and closed without waiting for one answer after another.
//!
//! A small file is held until the server has told its handle, which is looked at whenever the next one comes. All of a batch is
//! then made durable, and renamed, by requests that are sent together.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::Read;

use super::super::line::Answers;
use super::super::wire::Out;
use super::protocol::{Attrs, FSYNC, Fault, HARDLINK, code, kind, open};
use super::session::{SftpSession, attrs_of};
use crate::model::{FileType, RelPath};
use crate::target::{Content, Meta, Result, TargetError, set_aside, shown};

/// Files up to so many bytes are held until they are open.
const SMALL_MAX: usize = 64 * 1024;
/// Bytes that are held by all of them; beyond, the eldest is waited for.
const HELD_MAX: usize = 8 * 1024 * 1024;
/// Writes of one large file that are not yet answered.
const WRITES_MAX: usize = 16;
/// Zeros are left out in runs of this length, and at such offsets.
const HOLE: usize = 4096;

/// So many files are synced with all of their file system, where that can be had; fewer one by one.
const SYNCED_TOGETHER_MIN: usize = 8;

/// `S_ISUID` and `S_ISGID`.
const SET_ID: u32 = 0o6000;
/// `S_IRUSR`.
const OWNER_READS: u32 = 0o400;

/// Something on its way.
pub(super) struct Upload {
    temporary: RelPath,
    meta: Meta,
    content: Vec<u8>,
    is_sparse: bool,
    /// `None` once it is answered, and for what is no file.
    opened: Option<Answers>,
    handle: Option<Vec<u8>>,
    is_file: bool,
    sent: Vec<(&'static str, Answers)>,
    /// Its owner, alone or with all other attributes.
    owner_sent: Option<(Answers, bool)>,
    wrong: Option<Fault>,
}

/// What is on its way, by number.
#[derive(Default)]
pub(super) struct Uploads {
    all: HashMap<u64, Upload>,
    /// Those whose content waits for a handle, the eldest first.
    held: VecDeque<u64>,
    held_bytes: usize,
}

impl Uploads {
    pub(super) fn take(&mut self, number: u64) -> Option<Upload> {
        let upload = self.all.remove(&number)?;
        if upload.opened.is_some() {
            self.held.retain(|other| *other != number);
            self.held_bytes -= upload.content.len();
        }
        Some(upload)
    }
}

impl Upload {
    fn new(temporary: RelPath, meta: &Meta, is_sparse: bool) -> Self {
        Upload {
            temporary,
            meta: meta.clone(),
            content: Vec::new(),
            is_sparse,
            opened: None,
            handle: None,
            is_file: false,
            sent: Vec::new(),
            owner_sent: None,
            wrong: None,
        }
    }
}

impl SftpSession {
    /// Begins to take something in.
    pub(super) fn upload(&self, number: u64, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<()> {
        let temporary = self.temporary(number);
        let upload = match content {
            Content::Fifo | Content::Device { .. } => {
                let why = "sftp makes no pipes and devices; with keepwatch on the far side they are kept".to_owned();
                return Err(TargetError::Refused { path: shown(path), why });
            }
            Content::Symlink(to) => {
                // OpenSSH takes the two in the other order than the standard has them.
                let payload = Out::default().bytes(to).bytes(&self.place.full(&temporary));
                let asked = self.place.server.ask(kind::SYMLINK, &payload)?;
                let made = self.place.server.done(&asked)?;
                made.map_err(|fault| self.place.error("make the link", path, fault))?;
                self.set_all(&temporary, FileType::Symlink, meta)?;
                Upload::new(temporary, meta, false)
            }
            Content::File { bytes, size, is_sparse } => {
                let mut upload = Upload::new(temporary, meta, is_sparse);
                let expected = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).min(SMALL_MAX + 1);
                upload.content.reserve_exact(expected);
                let read = bytes.take(SMALL_MAX as u64 + 1).read_to_end(&mut upload.content);
                read.map_err(|source| TargetError::Source { path: shown(path), source })?;
                let flags = open::WRITE | open::CREATE | open::EXCLUSIVE;
                let mode = Attrs { mode: Some(0o600), ..Attrs::default() };
                let payload = mode.put(self.place.named(&upload.temporary).u32(flags));
                upload.opened = Some(self.place.server.ask(kind::OPEN, &payload)?);
                if upload.content.len() > SMALL_MAX {
                    return self.upload_large(number, path, upload, bytes);
                }
                upload
            }
        };
        let mut uploads = self.uploads();
        if upload.opened.is_some() {
            uploads.held.push_back(number);
            uploads.held_bytes += upload.content.len();
        }
        uploads.all.insert(number, upload);
        drop(uploads);
        self.send_held()
    }

    /// Sends the content of those that are open by now. Nobody else takes one away meanwhile.
    fn send_held(&self) -> Result<()> {
        let mut uploads = self.uploads();
        while let Some(first) = uploads.held.front().copied() {
            let is_ready = uploads.all.get(&first).and_then(|one| one.opened.as_ref()).is_none_or(Answers::is_ready);
            if !is_ready && uploads.held_bytes <= HELD_MAX {
                break;
            }
            let Some(mut upload) = uploads.take(first) else { break };
            let sent = self.send(&mut upload);
            uploads.all.insert(first, upload);
            sent?;
        }
        Ok(())
    }

    /// Waits until a file is open, and sends what it holds with all its attributes.
    fn send(&self, upload: &mut Upload) -> Result<()> {
        let Some(opened) = upload.opened.take() else { return Ok(()) };
        let content = std::mem::take(&mut upload.content);
        match self.place.server.handle(&opened)? {
            Ok(handle) => upload.handle = Some(handle),
            Err(fault) => {
                upload.wrong = Some(fault);
                return Ok(());
            }
        }
        self.begin_file(upload)?;
        self.write(upload, 0, &content)?;
        self.send_attrs(upload, content.len() as u64)
    }

    /// Before anything is written to a file.
    ///
    /// A file that was cut to nothing and then written is given its blocks by ext4, XFS and btrfs when it is closed: they take it
    /// for one that is being replaced. So a batch of small files is on its way to the disk when the first is synced, rather than
    /// each with a commit of its own (`auto_da_alloc` in ext4(5)). It is no more than that: each is synced nevertheless. Where
    /// all are synced together there is nothing to gain.
    fn begin_file(&self, upload: &mut Upload) -> Result<()> {
        upload.is_file = true;
        let Some(handle) = upload.handle.as_ref().filter(|_| !self.place.server.can_sync_all()) else { return Ok(()) };
        let cut = Attrs { size: Some(0), ..Attrs::default() }.put(Out::default().bytes(handle));
        upload.sent.push(("write", self.place.server.ask(kind::FSETSTAT, &cut)?));
        Ok(())
    }

    /// Sends writes, without runs of zeros where there may be holes.
    fn write(&self, upload: &mut Upload, from: u64, content: &[u8]) -> Result<()> {
        let Some(handle) = upload.handle.clone() else { return Ok(()) };
        let is_hole = |block: &[u8]| upload.is_sparse && block.iter().all(|byte| *byte == 0);
        let mut pieces: Vec<(usize, &[u8])> = Vec::new();
        if upload.is_sparse {
            let blocks = content.chunks(HOLE).enumerate().map(|(number, block)| (number * HOLE, block));
            pieces.extend(blocks.filter(|(_, block)| !is_hole(block)));
        } else {
            let chunk = self.place.server.chunk;
            pieces.extend(content.chunks(chunk).enumerate().map(|(number, piece)| (number * chunk, piece)));
        }
        for (at, piece) in pieces {
            let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let head = Out::default().bytes(&handle).u64(from + at as u64).u32(length);
            upload.sent.push(("write", self.place.server.ask_with(kind::WRITE, &head, piece)?));
        }
        Ok(())
    }

    fn send_attrs(&self, upload: &mut Upload, length: u64) -> Result<()> {
        let Some(handle) = &upload.handle else { return Ok(()) };
        let server = &self.place.server;
        let ask = |attrs: Attrs| server.ask(kind::FSETSTAT, &attrs.put(Out::default().bytes(handle)));
        if upload.is_sparse {
            upload.sent.push(("write", ask(Attrs { size: Some(length), ..Attrs::default() })?));
        }
        let attrs = attrs_of(&upload.meta);
        match server.owner(upload.meta.uid, upload.meta.gid) {
            // Owner first: changing it takes set-id bits away.
            Some(owner) if upload.meta.mode & SET_ID != 0 => {
                upload.owner_sent = Some((ask(owner)?, false));
                upload.sent.push(("set the attributes of", ask(attrs)?));
            }
            Some(Attrs { owner, .. }) => upload.owner_sent = Some((ask(Attrs { owner, ..attrs })?, true)),
            None => upload.sent.push(("set the attributes of", ask(attrs)?)),
        }
        // One that its owner may not read is not opened again to be synced.
        if upload.meta.mode & OWNER_READS != 0
            && let Some(handle) = upload.handle.take()
        {
            upload.sent.push(("write", server.ask(kind::CLOSE, &Out::default().bytes(&handle))?));
        }
        Ok(())
    }

    /// A large file, whose beginning was read already.
    fn upload_large(&self, number: u64, path: &RelPath, mut upload: Upload, bytes: &mut dyn Read) -> Result<()> {
        let filled = self.fill(path, &mut upload, bytes);
        match filled {
            Ok(()) => {
                self.uploads().all.insert(number, upload);
                Ok(())
            }
            Err(error) => {
                self.drop_upload(upload);
                Err(error)
            }
        }
    }

    fn fill(&self, path: &RelPath, upload: &mut Upload, bytes: &mut dyn Read) -> Result<()> {
        let Some(opened) = upload.opened.take() else { return Ok(()) };
        let handle = self.place.server.handle(&opened)?;
        upload.handle = Some(handle.map_err(|fault| self.place.error("write", path, fault))?);
        self.begin_file(upload)?;
        let mut chunk = std::mem::take(&mut upload.content);
        let mut length = 0;
        while !chunk.is_empty() {
            self.write(upload, length, &chunk)?;
            length += chunk.len() as u64;
            let over = upload.sent.len().saturating_sub(WRITES_MAX);
            for (doing, answers) in upload.sent.drain(..over) {
                self.place.server.done(&answers)?.map_err(|fault| self.place.error(doing, path, fault))?;
            }
            chunk.clear();
            let read = bytes.take(self.place.server.chunk as u64).read_to_end(&mut chunk);
            read.map_err(|source| TargetError::Source { path: shown(path), source })?;
        }
        self.send_attrs(upload, length)
    }

    /// Gives up what is on its way.
    pub(super) fn drop_upload(&self, mut upload: Upload) {
        if let Some(opened) = upload.opened.take() {
            upload.handle = self.place.server.handle(&opened).ok().and_then(Result::ok);
        }
        if let Some(handle) = &upload.handle {
            self.place.server.close(handle);
        }
        let removed = self.place.server.ask(kind::REMOVE, &self.place.named(&upload.temporary));
        let _ = removed.and_then(|removed| self.place.server.done(&removed));
    }

    /// All of a batch: what is wrong with each, or nothing.
    pub(super) fn publish_all(
        &self,
        uploads: Vec<(RelPath, Option<Upload>)>,
        keep: Option<&RelPath>,
    ) -> Result<Vec<Result<()>>> {
        let mut results: Vec<Option<Result<()>>> = uploads.iter().map(|_| None).collect();
        let mut batch = Vec::with_capacity(uploads.len());
        for (at, (path, upload)) in uploads.into_iter().enumerate() {
            match upload {
                Some(upload) => batch.push((at, path, upload)),
                None => {
                    let why = "it was never staged".to_owned();
                    results[at] = Some(Err(TargetError::Refused { path: shown(&path), why }));
                }
            }
        }
        for (_, _, upload) in &mut batch {
            self.send(upload)?;
        }
        let mut whole = Vec::with_capacity(batch.len());
        for (at, path, mut upload) in batch {
            match self.is_taken(&path, &mut upload)? {
                Ok(()) => whole.push((at, path, upload)),
                Err(error) => {
                    results[at] = Some(Err(error));
                    self.drop_upload(upload);
                }
            }
        }
        let durable = self.make_durable(whole, &mut results)?;
        let dirs: BTreeSet<RelPath> = durable.iter().map(|(_, path, _)| above(path)).collect();
        let mut made = self.make_sure(&dirs, true)?;
        made.retain(|_, result| result.is_err());
        let place = &self.place;
        let mut renamed = Vec::with_capacity(durable.len());
        for (at, path, upload) in durable {
            let payload = place.named(&upload.temporary).bytes(&place.full(&path));
            let wrong = wrong_above(&made, &path);
            // What is renamed over a link that leads nowhere would replace it unseen.
            match wrong {
                None if upload.is_file => {
                    let asked = place.server.ask(kind::RENAME, &payload)?;
                    renamed.push((at, path, upload, Some(asked)));
                }
                None => renamed.push((at, path, upload, None)),
                Some(error) => {
                    results[at] = Some(Err(error));
                    self.drop_upload(upload);
                }
            }
        }
        let mut touched = BTreeSet::new();
        for (at, path, upload, asked) in renamed {
            let done = match asked {
                Some(asked) => place.server.done(&asked)?.is_ok(),
                None => false,
            };
            let result = if done { Ok(()) } else { self.put_in_place(&upload.temporary, &path, keep) };
            match result {
                Ok(()) => drop(touched.insert(above(&path))),
                Err(TargetError::Away { place, why }) => return Err(TargetError::Away { place, why }),
                Err(_) => self.remove_temporary(&upload.temporary)?,
            }
            results[at] = Some(result);
        }
        self.sync_dirs(touched.into_iter())?;
        Ok(results.into_iter().map(|result| result.unwrap_or(Ok(()))).collect())
    }

    /// Waits for all that was asked for one object.
    fn is_taken(&self, path: &RelPath, upload: &mut Upload) -> Result<Result<()>> {
        if let Some((owner, is_all)) = upload.owner_sent.take() {
            let set = self.place.server.done(&owner)?;
            self.place.server.owner_set(&set);
            if is_all && set.is_err() {
                let request = attrs_of(&upload.meta).put(self.place.named(&upload.temporary));
                upload.sent.push(("set the attributes of", self.place.server.ask(kind::SETSTAT, &request)?));
            }
        }
        let mut wrong = upload.wrong.take().map(|fault| ("write", fault));
        for (doing, answers) in upload.sent.drain(..) {
            if let Err(fault) = self.place.server.done(&answers)? {
                wrong.get_or_insert((doing, fault));
            }
        }
        Ok(match wrong {
            Some((doing, fault)) => Err(self.place.error(doing, path, fault)),
            None => Ok(()),
        })
    }

    /// Asks for all of them to be on disk, then waits.
    fn make_durable(
        &self,
        whole: Vec<(usize, RelPath, Upload)>,
        results: &mut [Option<Result<()>>],
    ) -> Result<Vec<(usize, RelPath, Upload)>> {
        let server = &self.place.server;
        if whole.len() >= SYNCED_TOGETHER_MIN && server.sync_all(&self.place.full(&RelPath::ROOT)) {
            for handle in whole.iter().filter_map(|(_, _, upload)| upload.handle.as_ref()) {
                server.close(handle);
            }
            return Ok(whole);
        }
        let mut opened = Vec::with_capacity(whole.len());
        for (at, path, upload) in whole {
            let reopen = upload.is_file && upload.handle.is_none() && server.has(FSYNC);
            let request = Attrs::default().put(self.place.named(&upload.temporary).u32(open::READ));
            let asked = if reopen { Some(server.ask(kind::OPEN, &request)?) } else { None };
            opened.push((at, path, upload, asked));
        }
        let mut synced = Vec::with_capacity(opened.len());
        for (at, path, mut upload, asked) in opened {
            match asked.map(|asked| server.handle(&asked)).transpose()? {
                Some(Ok(handle)) => upload.handle = Some(handle),
                Some(Err(fault)) => {
                    results[at] = Some(Err(self.place.error("make durable", &path, fault)));
                    self.remove_temporary(&upload.temporary)?;
                    continue;
                }
                None => {}
            }
            let asked = match &upload.handle {
                Some(handle) if server.has(FSYNC) => Some(server.ask_extension(FSYNC, &Out::default().bytes(handle))?),
                _ => None,
            };
            if let Some(handle) = &upload.handle {
                server.close(handle);
            }
            synced.push((at, path, upload, asked));
        }
        let mut durable = Vec::with_capacity(synced.len());
        for (at, path, upload, asked) in synced {
            match asked.map(|asked| server.done(&asked)).transpose()?.unwrap_or(Ok(())) {
                Ok(()) => durable.push((at, path, upload)),
                Err(fault) => {
                    results[at] = Some(Err(self.place.error("make durable", &path, fault)));
                    self.remove_temporary(&upload.temporary)?;
                }
            }
        }
        Ok(durable)
    }

    fn remove_temporary(&self, temporary: &RelPath) -> Result<()> {
        let removed = self.place.server.ask(kind::REMOVE, &self.place.named(temporary))?;
        self.place.server.done(&removed).map(drop)
    }

    /// To where something stands, perhaps. It goes, or is kept.
    fn put_in_place(&self, temporary: &RelPath, path: &RelPath, keep: Option<&RelPath>) -> Result<()> {
        let looked = self.place.server.ask(kind::LSTAT, &self.place.named(path))?;
        let found = self.place.server.attrs(&looked)?;
        match found.map_err(|fault| self.place.error("put in place", path, fault))? {
            None => return self.rename_to_nothing(temporary, path),
            Some(attrs) if attrs.kind() == Some(FileType::Dir) => {
                let why = "something else stands in its way".to_owned();
                return Err(TargetError::Refused { path: shown(path), why });
            }
            Some(_) => {}
        }
        if let Some(trash) = keep {
            self.keep(path, trash)?;
        }
        self.rename_over(temporary, path)
    }

    /// Gives what stands at a path a second name in the trash, so that it is never without one; where that cannot be had it
    /// goes there first.
    fn keep(&self, path: &RelPath, trash: &RelPath) -> Result<()> {
        let wanted = path.components().fold(trash.clone(), |at, name| at.join(name));
        self.dir(&above(&wanted), true)?;
        if self.place.server.has(HARDLINK) {
            match self.second_name(path, &wanted)? {
                Ok(()) | Err(Fault { code: code::NO_SUCH_FILE, .. }) => return Ok(()),
                Err(_) => {}
            }
        }
        set_aside(self, path, trash).map(drop)
    }
}

/// The directory that holds a path.
fn above(path: &RelPath) -> RelPath {
    path.split().and_then(|(dir, _)| RelPath::new(dir).ok()).unwrap_or_default()
}

/// What is wrong with a directory above a path.
fn wrong_above(wrong: &HashMap<RelPath, Result<bool>>, path: &RelPath) -> Option<TargetError> {
    if wrong.is_empty() {
        return None;
    }
    let mut at = RelPath::ROOT;
    for name in path.components() {
        if let Some(Err(error)) = wrong.get(&at) {
            let why = match error {
                TargetError::Refused { why, .. } => why.clone(),
                other => other.to_string(),
            };
            return Some(TargetError::Refused { path: shown(path), why });
        }
        at = at.join(name);
    }
    None
}
