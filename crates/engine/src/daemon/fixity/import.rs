//! Adopting what lies at a replica already: nothing is sent, nothing there is changed.

use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::copies::look_at_one;
use super::place::{Place, PlacedRoot};
use super::walk::Walk;
use super::{Event, FixityError, Sum, Surroundings};
use crate::fixity::hash::{Hashes, Wanted};
use crate::fixity::read::{self, BUFFER_BYTES, Manner};
use crate::fixity::verdict::{Expected, Look};
use crate::inventory::{Known, View, copy_key};
use crate::model::{Body, Copied, Digest, FileType, Hashed, Proof, RelPath, ReplicaName, Seq};
use crate::target::Found;

/// Acts that are journaled together.
const ACTS_MAX: usize = 4_096;
/// Found things that may wait.
const FOUND_MAX: usize = 4_096;
/// How often it is told how far it is.
pub(super) const TELL_EVERY: Duration = Duration::from_millis(250);

/// By what something is taken for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Size and mtime: it is presumed to be one.
    Attributes,
    /// Its content, read whole: it is proved to be one.
    Content,
}

/// Imports: files whose size and mtime, or content, are the original's become its copies; all else is left alone, and counted as
/// foreign.
pub(super) fn import(
    name: &ReplicaName,
    how: How,
    around: &Surroundings<'_>,
    each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
) -> Result<Sum, FixityError> {
    let view = View::open(&around.inventory)?;
    let place = Place::enrol(around, &view, name)?;
    let sum = import_own(&place, &view, how, around, each)?;
    around.tell.catch_up()?;
    Ok(sum)
}

/// The same for the roots of this host at a place that is open.
pub(super) fn import_own(
    place: &Place<'_>,
    view: &View,
    how: How,
    around: &Surroundings<'_>,
    each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
) -> Result<Sum, FixityError> {
    let mut importer = Importer {
        around,
        view,
        place,
        how,
        each,
        sum: Sum::default(),
        acts: Vec::new(),
        told: Instant::now(),
        buffer: vec![0; BUFFER_BYTES],
        parent: None,
    };
    for root in place.roots.iter().filter(|root| root.host.is_none()) {
        importer.root(root)?;
    }
    Ok(importer.sum)
}

struct Importer<'i, 's> {
    around: &'i Surroundings<'s>,
    view: &'i View,
    place: &'i Place<'s>,
    how: How,
    each: &'i mut dyn FnMut(Event) -> Result<(), FixityError>,
    sum: Sum,
    acts: Vec<Body>,
    told: Instant,
    buffer: Vec<u8>,
    /// The directory of the last name, because names come directory by directory.
    parent: Option<(Vec<u8>, Option<crate::inventory::DirId>)>,
}

impl Importer<'_, '_> {
    fn root(&mut self, root: &PlacedRoot) -> Result<(), FixityError> {
        self.parent = None;
        let session = &*self.place.session;
        let (give, listed) = bounded(FOUND_MAX);
        let imported = std::thread::scope(|scope| {
            let lister = scope.spawn(move || {
                session.list(&root.placement.dir(), &mut |at, found| {
                    let Some(path) = root.placement.path_of(at) else { return ControlFlow::Continue(()) };
                    match give.send((at.clone(), path, found)) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    }
                })
            });
            // The lister ends when nobody hears it any more.
            let outcome = listed.into_iter().try_for_each(|(at, path, found)| {
                self.around.check_stop()?;
                self.one(root, &at, path, &found)
            });
            let listed = lister.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome?;
            Ok::<_, FixityError>(listed?)
        });
        self.view.let_go()?;
        imported?;
        self.flush()
    }

    fn one(&mut self, root: &PlacedRoot, at: &RelPath, path: RelPath, found: &Found) -> Result<(), FixityError> {
        self.view.hold()?;
        if self.view.copy_at(self.place.row.id, root.dir, &copy_key(&path, found.kind))?.is_some() {
            return Ok(());
        }
        let Some(known) = self.original(root, &path)?.filter(|known| known.kind == Some(found.kind)) else {
            self.sum.foreign += u64::from(found.kind != FileType::Dir);
            return Ok(());
        };
        match self.judged(root, at, &path, &known, found)? {
            Some((proof, sha256)) => self.adopt(root, path, &known, found, proof, sha256),
            None => self.sum.foreign += 1,
        }
        if self.acts.len() >= ACTS_MAX {
            self.flush()?;
        }
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            (self.each)(Event::Progress(self.sum))?;
        }
        Ok(())
    }

    fn original(&mut self, root: &PlacedRoot, path: &RelPath) -> Result<Option<Known>, FixityError> {
        let Some((above, name)) = path.split() else { return Ok(None) };
        if self.parent.as_ref().is_none_or(|(last, _)| last != above) {
            let dir = self.view.dir_by_path(&root.name, &RelPath::new(above).unwrap_or_default())?;
            self.parent = Some((above.to_vec(), dir));
        }
        match self.parent {
            Some((_, Some(dir))) => Ok(self.view.child(dir, name)?),
            _ => Ok(None),
        }
    }

    /// How far it is proved to be the original's copy, with its hash; `None`: it is none.
    fn judged(
        &mut self,
        root: &PlacedRoot,
        at: &RelPath,
        path: &RelPath,
        known: &Known,
        found: &Found,
    ) -> Result<Option<(Proof, Option<Digest>)>, FixityError> {
        let presumed = Some((Proof::Presumed, None));
        let facts = match (&known.facts, found.kind) {
            (_, FileType::Dir) => return Ok(presumed),
            (Some(facts), FileType::File) => facts,
            (Some(facts), FileType::Symlink) => {
                return Ok(presumed.filter(|_| facts.target.as_deref() == found.target.as_deref()));
            }
            _ => return Ok(None),
        };
        let step = self.place.step_ns().max(1);
        let fits = facts.size == found.size && facts.mtime_ns.div_euclid(step) == found.mtime_ns.div_euclid(step);
        // What is not complete yet, as far as is known, has no content to be held against.
        if self.how == How::Attributes || facts.size != found.size || !known.is_settled() {
            return Ok(presumed.filter(|_| fits));
        }
        let Some(wanted) = self.hash_of(root, path, known)? else { return Ok(presumed.filter(|_| fits)) };
        let hashes = Hashes { sha256: Some(wanted), blake3: None };
        let expected = Expected { size: found.size, mtime_ns: found.mtime_ns, ctime_ns: None, inode: None, hashes };
        let look = look_at_one(self.place, at, &expected, self.around.limit, &mut self.buffer)?;
        self.sum.files += 1;
        self.sum.bytes += found.size;
        let is_it = matches!(look, Look::Content(_, hashes) if hashes.sha256 == Some(wanted));
        Ok(is_it.then_some((Proof::Proved, Some(wanted))))
    }

    /// The original's hash; it is read if that is not known yet.
    fn hash_of(&mut self, root: &PlacedRoot, path: &RelPath, known: &Known) -> Result<Option<Digest>, FixityError> {
        if let Some(sha256) = known.sha256 {
            return Ok(Some(Digest(sha256)));
        }
        let Some(settings) = self.around.settings.roots.iter().find(|one| one.name == root.name) else {
            return Ok(None);
        };
        let Some((above, name)) = path.split() else { return Ok(None) };
        let algorithm = crate::model::Algorithm::Sha256;
        let walk = Walk { view: self.view, algorithm, fresh_since: None, takes_unsettled: false };
        let Ok(item) = walk.item(root.dir, name.to_vec(), known)? else { return Ok(None) };
        let dir = read::open_top(&settings.path)
            .and_then(|top| read::open_dir(top.as_fd(), &RelPath::new(above).unwrap_or_default()));
        let Ok(dir) = dir else { return Ok(None) };
        let wanted = Wanted { sha256: true, blake3: false };
        let look = read::read(dir.as_fd(), name, &item.expected, wanted, Manner::default(), &mut self.buffer);
        let Look::Content(_, Hashes { sha256: Some(sha256), .. }) = look else { return Ok(None) };
        self.acts.push(Body::Hashed(Box::new(Hashed {
            replica: None,
            root: root.name.clone(),
            path: path.clone(),
            file: item.file,
            of: item.version,
            size: item.expected.size,
            mtime_ns: item.expected.mtime_ns,
            sha256: Some(sha256),
            blake3: None,
        })));
        Ok(Some(sha256))
    }

    fn adopt(
        &mut self,
        root: &PlacedRoot,
        path: RelPath,
        known: &Known,
        found: &Found,
        proof: Proof,
        sha256: Option<Digest>,
    ) {
        match (found.kind, proof) {
            (FileType::File, Proof::Proved) => self.sum.verified += 1,
            (FileType::File, _) => self.sum.presumed += 1,
            _ => {}
        }
        // A directory's attributes are not compared; it gets them at the next pass, which sends nothing.
        let of = if found.kind == FileType::Dir { Seq::ZERO } else { known.last_seq };
        self.acts.push(Body::Copied(Box::new(Copied {
            replica: self.place.name().clone(),
            root: root.name.clone(),
            path,
            old_path: None,
            file: known.file_id.0,
            of,
            kind: found.kind,
            size: if found.kind == FileType::Dir { 0 } else { found.size },
            mtime_ns: found.mtime_ns,
            sha256,
            proof,
        })));
    }

    fn flush(&mut self) -> Result<(), FixityError> {
        self.view.let_go()?;
        Ok(self.around.tell.tell(std::mem::take(&mut self.acts))?)
    }
}
