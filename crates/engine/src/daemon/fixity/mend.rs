//! Mending: good bytes are fetched and found good first, the bad ones are kept aside, and what was put there is read again.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, Timespec, Timestamps};

use super::copies::{Item as CopyItem, look_at_one};
use super::place::{Place, PlacedRoot};
use super::walk::Item;
use super::{Event, FixityError, Sum, Surroundings};
use crate::beneath::open_beneath;
use crate::clock::{Clock as _, SystemClock};
use crate::daemon::replicate::trash_of;
use crate::fixity::hash::{Hasher, Wanted};
use crate::fixity::read::{self, BUFFER_BYTES, Manner};
use crate::fixity::verdict::{Expected, Verdict, judge};
use crate::inventory::{FileId, Known, Named, View, copy_key};
use crate::model::{Body, Copied, Digest, FileType, RelPath, Repaired, ReplicaName, RootName, Seq};
use crate::sync::copy::Source;
use crate::sync::plan::Original;
use crate::target::{Content, Meta, TargetError};

/// Why something was not mended, in words.
type Why = String;

/// Mends what was found.
pub(super) struct Mender<'m, 's> {
    around: &'m Surroundings<'s>,
    view: &'m View,
    /// The replicas that were needed: open, or not to be had.
    places: Vec<(ReplicaName, Option<Place<'s>>)>,
}

impl<'m, 's> Mender<'m, 's> {
    pub(super) fn new(around: &'m Surroundings<'s>, view: &'m View) -> Self {
        Mender { around, view, places: Vec::new() }
    }

    /// Mends copies of a root, has that journaled, and tells of each.
    pub(super) fn mend_copies(
        &mut self,
        place: &Place<'_>,
        root: &PlacedRoot,
        bad: Vec<CopyItem>,
        sum: &mut Sum,
        each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
    ) -> Result<(), FixityError> {
        for item in bad {
            self.around.check_stop()?;
            let path = item.paths.first().cloned().unwrap_or_default();
            match self.mend_copy(place, root, &item)? {
                Ok(act) => self.mended(act, sum, each)?,
                Err(why) => not_mended(Some(place.name()), &root.name, path, why, sum, each)?,
            }
        }
        Ok(())
    }

    fn mended(
        &self,
        act: Repaired,
        sum: &mut Sum,
        each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
    ) -> Result<(), FixityError> {
        sum.repaired += 1;
        self.around.tell.tell(vec![Body::Repaired(Box::new(act.clone()))])?;
        each(Event::Repaired(Box::new(act)))
    }

    fn mend_copy(
        &mut self,
        place: &Place<'_>,
        root: &PlacedRoot,
        item: &CopyItem,
    ) -> Result<Result<Repaired, Why>, FixityError> {
        let Some((first, others)) = item.paths.split_first() else { return Ok(Err("it has no name".to_owned())) };
        let Some(wanted) = item.expected.hashes.sha256 else { return Ok(Err("its hash is not known".to_owned())) };
        let at = root.placement.place(first);
        let names = self.view.names_of(FileId(item.file))?;
        let trash = trash_of(SystemClock.now());
        let was_there = place.session.look(&at)?.is_some();
        let mut from = None;
        let mut staged = self.stage_original(place, &at, &names, wanted)?;
        if staged.is_none() {
            let others: Vec<ReplicaName> = self.around.settings.replicas.iter().map(|one| one.name.clone()).collect();
            for other in others.into_iter().filter(|other| other != place.name()) {
                let Some(good) = self.fetch(&other, &root.name, item.file, wanted, item.expected.size)? else {
                    continue;
                };
                let meta = meta_of(&names, &item.expected);
                let mut bytes = &good;
                let content = Content::File { bytes: &mut bytes, size: item.expected.size, is_sparse: false };
                staged = Some(place.session.stage(&at, &meta, content)?);
                from = Some(other);
                break;
            }
        }
        let Some(staged) = staged else {
            return Ok(Err("neither the original nor another replica has it as it was".to_owned()));
        };
        let parents = parents(root, &item.paths);
        // Directories get other times by what is put into them.
        let mut times = Vec::new();
        for dir in parents {
            if place.session.look(&dir)?.is_some()
                && let Some(meta) = place.session.meta(&dir)?
            {
                times.push((dir, meta));
            }
        }
        // Until they have their times again they are told of as copies that lack something: after a crash their keeper sees to it.
        let dirs = self.dirs_of(place, root, &item.paths)?;
        self.around.tell.tell(dirs.iter().map(|dir| told(Copied { of: Seq::ZERO, ..dir.clone() })).collect())?;
        for result in place.session.publish(vec![staged], trash.as_ref()) {
            match result {
                Err(error) if error.is_of_the_place() => return Err(error.into()),
                Err(error) => return Ok(Err(error.to_string())),
                Ok(()) => {}
            }
        }
        for other in others {
            if let Err(error) = place.session.link(&at, &root.placement.place(other)) {
                return Ok(Err(error.to_string()));
            }
        }
        let mut are_set = true;
        for (dir, meta) in times {
            if let Err(error) = place.session.set_meta(&dir, FileType::Dir, &meta) {
                tracing::debug!(%error, "a directory's times were not put back");
                are_set = false;
            }
        }
        if are_set {
            self.around.tell.tell(dirs.into_iter().map(told).collect())?;
        }
        let look = look_at_one(place, &at, &item.expected, None, &mut vec![0; BUFFER_BYTES])?;
        if !matches!(judge(&item.expected, &look), Verdict::Sound(_)) {
            return Ok(Err(format!("what was put there is not what was read again: {look:?}")));
        }
        let kept = trash.filter(|_| was_there).map(|trash| at.components().fold(trash, |path, name| path.join(name)));
        Ok(Ok(Repaired {
            replica: Some(place.name().clone()),
            root: root.name.clone(),
            path: first.clone(),
            file: item.file,
            of: item.of,
            from,
            kept: kept.map(|kept| kept.as_bytes().into()),
            size: item.expected.size,
            mtime_ns: item.expected.mtime_ns,
            sha256: wanted,
        }))
    }

    /// The copies of the directories that hold these paths, as they are known.
    fn dirs_of(&self, place: &Place<'_>, root: &PlacedRoot, paths: &[RelPath]) -> Result<Vec<Copied>, FixityError> {
        let above: BTreeSet<RelPath> = paths.iter().filter_map(|path| RelPath::new(path.split()?.0).ok()).collect();
        let mut dirs = Vec::new();
        for path in above {
            let row = self.view.copy_at(place.row.id, root.dir, &copy_key(&path, FileType::Dir))?;
            dirs.extend(row.map(|row| Copied {
                replica: place.name().clone(),
                root: root.name.clone(),
                path,
                old_path: None,
                file: row.file_id.0,
                of: row.of,
                kind: row.kind,
                size: row.size,
                mtime_ns: row.mtime_ns,
                sha256: None,
                proof: row.proof,
            }));
        }
        Ok(dirs)
    }

    /// Has the original staged at a target, if it is what the copy has to be.
    fn stage_original(
        &self,
        place: &Place<'_>,
        at: &RelPath,
        names: &[Named],
        wanted: Digest,
    ) -> Result<Option<crate::target::Staged>, FixityError> {
        for name in names {
            let Some(root) = self.around.settings.roots.iter().find(|root| root.name == name.root) else { continue };
            let (Ok(source), Some(original)) = (Source::open(&root.path), original_of(&name.known)) else { continue };
            match source.take(&name.path, &original, &*place.session, at) {
                Ok(taken) if taken.sha256 == Some(wanted) => return Ok(Some(taken.staged)),
                Ok(taken) => place.session.discard(taken.staged),
                Err(crate::sync::copy::CopyError::Target(error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// A copy's bytes from a replica, in a file without a name, if they are what they have to be.
    fn fetch(
        &mut self,
        name: &ReplicaName,
        root: &RootName,
        file: i64,
        wanted: Digest,
        size: u64,
    ) -> Result<Option<File>, FixityError> {
        if self.places.iter().all(|(known, _)| known != name) {
            let place = Place::open(self.around, self.view, name);
            let place = place.inspect_err(|error| tracing::debug!(replica = %name, %error, "not to be had")).ok();
            self.places.push((name.clone(), place));
        }
        let Some((_, Some(place))) = self.places.iter().find(|(known, _)| known == name) else { return Ok(None) };
        let Some(placed) = place.root(root) else { return Ok(None) };
        for row in self.view.copies_of(place.row.id, placed.dir, FileId(file))? {
            let is_it = row.kind == FileType::File && row.size == size && row.sha256 == Some(wanted.0);
            let Some(path) = RelPath::new(row.key).ok().filter(|_| is_it) else { continue };
            let Ok(mut bytes) = place.session.read(&placed.placement.place(&path)) else { continue };
            match self.spool(&mut *bytes) {
                Ok((good, digest)) if digest == Some(wanted) => return Ok(Some(good)),
                Ok(_) => {}
                Err(error) => {
                    return Err(
                        TargetError::Io { doing: "spool", path: "the state directory".into(), source: error }.into()
                    );
                }
            }
        }
        Ok(None)
    }

    /// Reads all into a file of the state directory that has no name, and hashes it. What cannot be read ends it early.
    fn spool(&self, bytes: &mut dyn Read) -> io::Result<(File, Option<Digest>)> {
        let at = self.kept_dir().join(format!("spool.{}", std::process::id()));
        make_dirs(&self.kept_dir())?;
        let mut file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&at)?;
        fs::remove_file(&at)?;
        let mut hasher = Hasher::new(Wanted { sha256: true, blake3: false });
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = match bytes.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Ok((file, None)),
            };
            hasher.update(&buffer[..read]);
            io::Write::write_all(&mut file, &buffer[..read])?;
        }
        file.seek(SeekFrom::Start(0))?;
        Ok((file, hasher.finish().sha256))
    }

    /// Where bad bytes of originals are kept.
    fn kept_dir(&self) -> PathBuf {
        self.around.settings.state_dir.join("kept")
    }

    /// Mends an original, which was named by who asked.
    pub(super) fn mend_original(
        &mut self,
        root: (&RootName, &Path),
        path: &RelPath,
        item: &Item,
        known: &Known,
        sum: &mut Sum,
        each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
    ) -> Result<(), FixityError> {
        match self.try_original(root, path, item, known)? {
            Ok(act) => self.mended(act, sum, each),
            Err(why) => not_mended(None, root.0, path.clone(), why, sum, each),
        }
    }

    fn try_original(
        &mut self,
        (root, top): (&RootName, &Path),
        path: &RelPath,
        item: &Item,
        known: &Known,
    ) -> Result<Result<Repaired, Why>, FixityError> {
        let Some(wanted) = item.expected.hashes.sha256 else { return Ok(Err("its SHA-256 is not known".to_owned())) };
        let replicas: Vec<ReplicaName> = self.around.settings.replicas.iter().map(|one| one.name.clone()).collect();
        let mut good = None;
        for name in replicas {
            if let Some(file) = self.fetch(&name, root, item.file, wanted, item.expected.size)? {
                good = Some((name, file));
                break;
            }
        }
        let Some((from, good)) = good else { return Ok(Err("no replica has it as it was".to_owned())) };
        let kept = self.kept_dir().join(SystemClock.now().to_string().get(..10).unwrap_or_default());
        let kept = kept.join(root.as_str()).join(std::ffi::OsStr::from_bytes(path.as_bytes()));
        let mended = (|| {
            let top = read::open_top(top)?;
            let kept = match open_beneath(top.as_fd(), path, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK) {
                Ok(bad) => {
                    let (bad, kept) = (File::from(bad), free_name(&kept)?);
                    keep_aside(&bad, &kept)?;
                    write_over(&bad, &good, &item.expected)?;
                    Some(kept)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    put_back(&top, path, &good, known, &item.expected)?;
                    None
                }
                Err(error) => return Err(error),
            };
            let (above, name) = path.split().unwrap_or_default();
            let dir = read::open_dir(top.as_fd(), &RelPath::new(above).unwrap_or_default())?;
            let expected = Expected { inode: None, ..item.expected };
            let manner = Manner { from_medium: true, ..Manner::default() };
            let wanted = Wanted { sha256: true, blake3: false };
            let look = read::read(dir.as_fd(), name, &expected, wanted, manner, &mut Vec::new());
            Ok((kept, judge(&expected, &look)))
        })();
        match mended {
            Ok((kept, Verdict::Sound(_))) => Ok(Ok(Repaired {
                replica: None,
                root: root.clone(),
                path: path.clone(),
                file: item.file,
                of: item.version,
                from: Some(from),
                kept: kept.map(|kept| kept.as_os_str().as_bytes().into()),
                size: item.expected.size,
                mtime_ns: item.expected.mtime_ns,
                sha256: wanted,
            })),
            Ok((_, verdict)) => Ok(Err(format!("what was written is not what was read again: {verdict:?}"))),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

fn told(copied: Copied) -> Body {
    Body::Copied(Box::new(copied))
}

/// The directories at a replica that hold these paths of a root; not the top of the target.
fn parents(root: &PlacedRoot, paths: &[RelPath]) -> BTreeSet<RelPath> {
    let above = paths.iter().filter_map(|path| RelPath::new(root.placement.place(path).split()?.0).ok());
    above.filter(|dir| !dir.is_root()).collect()
}

fn not_mended(
    replica: Option<&ReplicaName>,
    root: &RootName,
    path: RelPath,
    why: Why,
    sum: &mut Sum,
    each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
) -> Result<(), FixityError> {
    sum.unmended += 1;
    each(Event::NotRepaired { replica: replica.cloned(), root: root.clone(), path, why })
}

/// What a copier needs of an original.
fn original_of(known: &Known) -> Option<Original> {
    let facts = known.facts.as_ref().filter(|facts| facts.kind == FileType::File)?;
    Some(Original {
        file: known.file_id.0,
        kind: facts.kind,
        size: facts.size,
        mtime_ns: facts.mtime_ns,
        inode: facts.inode,
        nlink: facts.nlink,
        target: None,
        version: known.version_seq,
        last: known.last_seq,
        is_settled: known.is_settled(),
    })
}

/// The attributes of a copy, as far as they are known of its original.
fn meta_of(names: &[Named], expected: &Expected) -> Meta {
    let facts = names.first().and_then(|name| name.known.facts.as_ref());
    Meta {
        mode: facts.map_or(0o600, |facts| facts.mode),
        uid: facts.map_or_else(|| rustix::process::geteuid().as_raw(), |facts| facts.uid),
        gid: facts.map_or_else(|| rustix::process::getegid().as_raw(), |facts| facts.gid),
        mtime_ns: expected.mtime_ns,
        xattrs: Vec::new(),
    }
}

fn make_dirs(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A name that nothing has, beginning with this one.
fn free_name(wanted: &Path) -> io::Result<PathBuf> {
    make_dirs(wanted.parent().unwrap_or(wanted))?;
    let named = |number: u32| match number {
        1 => wanted.to_owned(),
        _ => {
            let mut name = wanted.as_os_str().to_owned();
            name.push(format!("~{number}"));
            PathBuf::from(name)
        }
    };
    let free = (1..=KEPT_MAX).map(named).find(|path| path.symlink_metadata().is_err());
    free.ok_or_else(|| io::Error::other("too many bad versions of it are kept already"))
}

/// Bad versions of one name that are kept in a day.
const KEPT_MAX: u32 = 1_000;

/// Copies what can be read of bad bytes; a hole stands for what cannot.
fn keep_aside(bad: &File, kept: &Path) -> io::Result<()> {
    let copy = File::options().write(true).create_new(true).mode(0o600).open(kept)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let size = bad.metadata()?.len();
    let mut at = 0;
    while at < size {
        match bad.read_at(&mut buffer, at) {
            Ok(0) => break,
            Ok(read) => {
                copy.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => at += BUFFER_BYTES as u64,
        }
    }
    copy.set_len(size)?;
    copy.sync_all()
}

/// Writes the good bytes over those that differ, and puts the mtime back. The object stays the one that it was.
fn write_over(bad: &File, good: &File, expected: &Expected) -> io::Result<()> {
    let (mut ours, mut theirs) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut at = 0;
    while at < expected.size {
        let length = usize::try_from(expected.size - at).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        good.read_exact_at(&mut theirs[..length], at)?;
        let is_same = bad.read_exact_at(&mut ours[..length], at).is_ok() && ours[..length] == theirs[..length];
        if !is_same {
            bad.write_all_at(&theirs[..length], at)?;
        }
        at += length as u64;
    }
    bad.set_len(expected.size)?;
    set_mtime(bad, expected.mtime_ns)?;
    bad.sync_all()
}

/// Puts a file back that is gone, whole at once.
fn put_back(
    top: &impl std::os::fd::AsFd,
    path: &RelPath,
    good: &File,
    known: &Known,
    expected: &Expected,
) -> io::Result<()> {
    let (above, name) = path.split().unwrap_or_default();
    let dir = open_beneath(top.as_fd(), &RelPath::new(above).unwrap_or_default(), OFlags::RDONLY | OFlags::DIRECTORY)?;
    let temporary = [b".keepwatch-", name, b".tmp"].concat();
    let temporary = &temporary[..temporary.len().min(255)];
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&dir, temporary, flags, rustix::fs::Mode::from(0o600))?);
    io::copy(&mut &*good, &mut &file)?;
    if let Some(facts) = &known.facts {
        let (uid, gid) = (rustix::fs::Uid::from_raw(facts.uid), rustix::fs::Gid::from_raw(facts.gid));
        // Only who may give files away can; the rest is theirs.
        let _ = rustix::fs::fchown(&file, Some(uid), Some(gid));
        rustix::fs::fchmod(&file, rustix::fs::Mode::from(facts.mode))?;
    }
    set_mtime(&file, expected.mtime_ns)?;
    file.sync_all()?;
    rustix::fs::renameat_with(&dir, temporary, &dir, name, rustix::fs::RenameFlags::NOREPLACE)?;
    Ok(rustix::fs::fsync(&dir)?)
}

fn set_mtime(file: &File, mtime_ns: i64) -> io::Result<()> {
    let mtime = Timespec { tv_sec: mtime_ns.div_euclid(1_000_000_000), tv_nsec: mtime_ns.rem_euclid(1_000_000_000) };
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: mtime })?)
}
