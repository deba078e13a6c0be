//! Freeing an original's space: only when enough replicas, read again just before, hold what it is.

use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, OFlags};

use super::copies::look_at_one;
use super::place::Place;
use super::walk::{Item, Passed, Walk};
use super::{FixityError, Surroundings};
use crate::beneath::open_beneath;
use crate::daemon::service::{check_identity, look_at_top};
use crate::fixity::hash::{Hashes, Wanted};
use crate::fixity::read::{self, BUFFER_BYTES, Manner};
use crate::fixity::verdict::{Expected, Look, Verdict, judge};
use crate::inventory::{FileId, View};
use crate::model::{Body, Digest, FileType, RelPath, Released, ReplicaName, RootName};

/// What releasing came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Originals that were removed.
    pub released: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Originals that stay.
    pub kept: u64,
}

/// What is told of each file.
#[derive(Clone, Debug)]
pub enum Event {
    /// It was removed, or would be.
    Released(Box<Released>),
    /// It stays.
    Kept {
        /// Its root.
        root: RootName,
        /// Its path there.
        path: RelPath,
        /// Why, for people.
        why: String,
    },
}

/// Releases files: what is named, and all below it. If `only_tell`, nothing is changed.
///
/// # Errors
/// [`FixityError`]; each file that was told of is released, or as it was.
pub fn release(
    scopes: &[(RootName, RelPath)],
    only_tell: bool,
    around: &Surroundings<'_>,
    each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
) -> Result<Sum, FixityError> {
    around.tell.catch_up()?;
    let view = View::open(&around.inventory)?;
    let mut places = Vec::new();
    for replica in &around.settings.replicas {
        match Place::open(around, &view, &replica.name) {
            Ok(place) => places.push(place),
            Err(error) => tracing::warn!(replica = %replica.name, %error, "it is not asked for its copies"),
        }
    }
    let mut releaser = Releaser { around, view: &view, places, only_tell, each, sum: Sum::default() };
    for (root, path) in scopes {
        releaser.below(root, path)?;
    }
    let sum = releaser.sum;
    around.tell.catch_up()?;
    Ok(sum)
}

struct Releaser<'r, 's> {
    around: &'r Surroundings<'s>,
    view: &'r View,
    places: Vec<Place<'s>>,
    only_tell: bool,
    each: &'r mut dyn FnMut(Event) -> Result<(), FixityError>,
    sum: Sum,
}

impl Releaser<'_, '_> {
    fn below(&mut self, root: &RootName, top: &RelPath) -> Result<(), FixityError> {
        let settings = self.around.settings.roots.iter().find(|one| one.name == *root);
        let settings = settings.ok_or_else(|| FixityError::NoRoot(root.clone()))?;
        let rows = self.view.roots()?;
        let row = rows.iter().find(|row| row.name == *root).ok_or_else(|| FixityError::NoRoot(root.clone()))?;
        let absent = |why| FixityError::Absent { root: root.clone(), why };
        let found = look_at_top(&settings.path).map_err(absent)?;
        check_identity(settings, row.identity.as_deref(), &found.identity).map_err(absent)?;
        let open = read::open_top(&settings.path).map_err(|error| absent(error.to_string()))?;
        let mut paths = Vec::new();
        let query = crate::inventory::ListQuery { root: Some(root.clone()), path: top.clone(), at: None };
        self.view.list(&query, |listed| {
            if listed.kind == Some(FileType::File) {
                paths.push(listed.path);
            }
            std::ops::ControlFlow::Continue(())
        })?;
        if paths.is_empty() {
            let path = String::from_utf8_lossy(top.as_bytes()).into_owned();
            return Err(FixityError::Nothing(format!("the inventory knows no file at `{path}` in root `{root}`")));
        }
        for path in paths {
            self.around.check_stop()?;
            match self.one(root, open.as_fd(), &path, settings.copies_min.max(1))? {
                Ok(None) => {}
                Ok(Some(act)) => {
                    self.sum.released += 1;
                    self.sum.bytes += act.size;
                    (self.each)(Event::Released(Box::new(act)))?;
                }
                Err(why) => {
                    self.sum.kept += 1;
                    (self.each)(Event::Kept { root: root.clone(), path, why })?;
                }
            }
        }
        Ok(())
    }

    /// `None`: it was released before.
    fn one(
        &self,
        root: &RootName,
        top: std::os::fd::BorrowedFd<'_>,
        path: &RelPath,
        wanted: u64,
    ) -> Result<Result<Option<Released>, String>, FixityError> {
        let Some((above, name)) = path.split() else { return Ok(Err("it is the root".to_owned())) };
        let above = RelPath::new(above).unwrap_or_default();
        let known = match self.view.dir_by_path(root, &above)? {
            Some(parent) => self.view.child(parent, name)?,
            None => None,
        };
        let (Some(known), Some(root_dir)) = (known, self.view.root_dir(root)?) else {
            return Ok(Err("it is gone".to_owned()));
        };
        if self.view.is_released(known.file_id)? {
            return Ok(Ok(None));
        }
        let algorithm = crate::model::Algorithm::Sha256;
        let walk = Walk { view: self.view, algorithm, fresh_since: None, takes_unsettled: false };
        let item = match walk.item(root_dir, name.to_vec(), &known)? {
            Ok(item) => item,
            Err(Passed::Busy) => return Ok(Err("it is being written".to_owned())),
            Err(Passed::Over) => return Ok(Err("nothing is known of it".to_owned())),
        };
        if known.facts.as_ref().is_some_and(|facts| facts.nlink > 1) {
            return Ok(Err("it has other names, so removing this one frees nothing".to_owned()));
        }
        let dir = match open_beneath(top, &above, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(dir) => dir,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let wants = Wanted { sha256: true, blake3: false };
        let look = read::read(dir.as_fd(), name, &item.expected, wants, Manner::default(), &mut Vec::new());
        let sha256 = match (judge(&item.expected, &look), &look) {
            (Verdict::Sound(_) | Verdict::New(_), Look::Content(_, Hashes { sha256: Some(sha256), .. })) => *sha256,
            (verdict, _) => {
                return Ok(Err(format!("it is not what was recorded ({verdict:?}); see `keepwatch verify`")));
            }
        };
        let copies = self.proved(root, &item, sha256, wanted)?;
        if (copies.len() as u64) < wanted {
            let have = copies.len();
            return Ok(Err(format!("{have} of the {wanted} replicas that have to hold it are proved to")));
        }
        let act = Released {
            root: root.clone(),
            path: path.clone(),
            file: item.file,
            of: item.version,
            size: item.expected.size,
            mtime_ns: item.expected.mtime_ns,
            sha256,
            copies,
        };
        if self.only_tell {
            return Ok(Ok(Some(act)));
        }
        self.around.tell.tell(vec![Body::Released(Box::new(act.clone()))])?;
        // Whoever has written meanwhile keeps what was written.
        let still = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            Some(stat.st_ino) == item.expected.inode
                && u64::try_from(stat.st_size).ok() == Some(item.expected.size)
                && crate::target::attributes::mtime_of(&stat) == item.expected.mtime_ns
        });
        if !still {
            return Ok(Err("it changed just now".to_owned()));
        }
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()).and_then(|()| rustix::fs::fsync(&dir)) {
            Ok(()) => Ok(Ok(Some(act))),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// The replicas that hold this content, read again now, as many as are wanted.
    fn proved(
        &self,
        root: &RootName,
        item: &Item,
        sha256: Digest,
        wanted: u64,
    ) -> Result<Vec<ReplicaName>, FixityError> {
        let mut proved = Vec::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        for place in &self.places {
            if proved.len() as u64 >= wanted {
                break;
            }
            let Some(placed) = place.root(root) else { continue };
            for row in self.view.copies_of(place.row.id, placed.dir, FileId(item.file))? {
                let Ok(path) = RelPath::new(row.key.clone()) else { continue };
                if row.of < item.version || row.size != item.expected.size || row.mtime_ns != item.expected.mtime_ns {
                    continue;
                }
                let hashes = Hashes { sha256: Some(sha256), blake3: None };
                let expected = Expected { size: row.size, mtime_ns: row.mtime_ns, ctime_ns: None, inode: None, hashes };
                let at = placed.placement.place(&path);
                let look = look_at_one(place, &at, &expected, self.around.limit, &mut buffer);
                match look.map(|look| judge(&expected, &look)) {
                    Ok(Verdict::Sound(_)) => {
                        proved.push(place.name().clone());
                        break;
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(replica = %place.name(), %error, "its copy was not read"),
                }
            }
        }
        Ok(proved)
    }
}
