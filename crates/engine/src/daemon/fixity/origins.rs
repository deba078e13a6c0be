//! Enrolling what a backup holds as originals of the hosts whose directories hold it: originals first, then their copies.
//! Nothing is sent, and nothing there is changed.

use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::import::{How, TELL_EVERY, import_own};
use super::place::Place;
use super::{Event, FixityError, Sum, Surroundings};
use crate::daemon::replicate::placements;
use crate::inventory::{DirId, Known, View, copy_key};
use crate::model::{Body, Copied, Enrolled, FileType, Proof, RelPath, Replica, ReplicaName, RootName, Timestamp};
use crate::sync::layout::{Layout, Placement};
use crate::sync::origin::{self, Map, created_by_name};
use crate::target::{Found, STAGING, Stated};

/// Copies that wait until their originals are in the inventory.
const PENDING_MAX: usize = 8_192;
/// Acts that are journaled together.
const ACTS_MAX: usize = 4_096;
/// What stands in front of the place of another host's root, among what a replica says of its roots.
const PLACED: &str = "at:";

/// Where a replica holds another host's root, as it was journaled.
pub(super) fn placement(print: &str) -> Option<Placement> {
    STANDARD.decode(print.strip_prefix(PLACED)?).ok().map(|base| Placement::behind(&base))
}

/// Imports this host's own, then enrols all others'. `maps` say whose each directory is; where there are none, the directories of
/// the first level are the hosts.
pub(super) fn import(
    name: &ReplicaName,
    how: How,
    maps: &[Map],
    around: &Surroundings<'_>,
    each: &mut dyn FnMut(Event) -> Result<(), FixityError>,
) -> Result<Sum, FixityError> {
    let view = View::open(&around.inventory)?;
    let settings = around.settings.replicas.iter().find(|replica| replica.name == *name);
    let settings = settings.ok_or_else(|| FixityError::NoReplica(name.clone()))?;
    origin::check(maps)?;
    if maps.is_empty() && !matches!(settings.layout, Layout::Hosts { .. }) {
        return Err(FixityError::Refused(format!(
            "replica `{name}` has the layout `mirror`, which tells nothing of hosts; say whose each directory is: \
             `--map DIR=HOST:/PATH`"
        )));
    }
    let own = placements(settings, &around.host)?;
    for map in maps {
        check(map, around, name, &own)?;
    }
    // Before the target is marked as ours.
    for map in maps {
        let mut holds_anything = false;
        settings.target.survey(&map.dir, &mut |_, _| {
            holds_anything = true;
            ControlFlow::Break(())
        })?;
        if !holds_anything {
            let dir = shown(map.dir.as_bytes());
            let why = format!(
                "there is no directory `{dir}` at replica `{name}` that holds anything; a map names one as it lies there"
            );
            return Err(FixityError::Refused(why));
        }
    }
    let place = Place::enrol(around, &view, name)?;
    let sum = import_own(&place, &view, how, around, each)?;
    let mut enroller = Enroller {
        around,
        view: &view,
        place: &place,
        each,
        sum,
        acts: Vec::new(),
        pending: Vec::new(),
        told: Instant::now(),
    };
    if maps.is_empty() {
        enroller.hosts()?;
    }
    for map in maps.iter().filter(|map| map.host != around.host) {
        let mut origin = enroller.begin(map)?;
        enroller.list(&map.dir, &mut |enroller, at, found| enroller.one(&mut origin, at, found))?;
        enroller.flush(&origin)?;
    }
    let sum = enroller.sum;
    around.tell.catch_up()?;
    Ok(sum)
}

/// Whether a map does not contradict where the replica keeps this host's own roots.
fn check(
    map: &Map,
    around: &Surroundings<'_>,
    name: &ReplicaName,
    placed: &[(RootName, Placement, String)],
) -> Result<(), FixityError> {
    let path = shown(&map.path);
    let root = map.root();
    if around.settings.roots.iter().any(|one| one.name == root) {
        return Err(FixityError::Refused(format!("a root of this host is called `{root}`; give it another name")));
    }
    if map.host != around.host {
        return Ok(());
    }
    let mut has_root = false;
    for (own, placement, _) in placed {
        let Some(settings) = around.settings.roots.iter().find(|one| one.name == *own) else { continue };
        let top = settings.path.as_os_str().as_bytes();
        let Some(below) = below(top, &map.path) else { continue };
        has_root = true;
        let wanted = [&map.base()[..], below, if below.is_empty() { b"" } else { b"/" }].concat();
        if placement.base() != wanted {
            let (kept, source, target) = (shown(placement.base()), shown(&[top, b"/"].concat()), shown(&wanted));
            return Err(FixityError::Refused(format!(
                "this is host `{}`, and replica `{name}` keeps its root `{}` in `{kept}`, not in `{target}`; configure \
                 layout = \"mirror\", source_prefix = \"{source}\", target_prefix = \"{target}\"",
                around.host, own
            )));
        }
    }
    if has_root {
        return Ok(());
    }
    Err(FixityError::Refused(format!(
        "this is host `{}`, and none of its roots lies in {path}; its originals are what its roots hold: configure one \
         with path = \"{path}\"",
        around.host
    )))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

/// What is left of a path below another; empty if they are the same.
fn below<'p>(path: &'p [u8], above: &[u8]) -> Option<&'p [u8]> {
    match path.strip_prefix(above)? {
        b"" => Some(b""),
        rest if above.ends_with(b"/") => Some(rest),
        rest => rest.strip_prefix(b"/"),
    }
}

/// A root of another host.
struct Origin {
    root: RootName,
    dir: DirId,
    placement: Placement,
    /// The directory of the last name, because names come directory by directory.
    parent: Option<(Vec<u8>, Option<DirId>)>,
}

struct Enroller<'e, 's> {
    around: &'e Surroundings<'s>,
    view: &'e View,
    place: &'e Place<'s>,
    each: &'e mut dyn FnMut(Event) -> Result<(), FixityError>,
    sum: Sum,
    /// Originals that are not journaled yet.
    acts: Vec<Body>,
    /// What is there of them and of others that have no copy yet.
    pending: Vec<(RelPath, Found)>,
    told: Instant,
}

/// What is to be done about something that lies in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It is known, as it is.
    Nothing,
    /// It is a copy of what is known.
    Copy,
    /// It is an original that is not known, or not so.
    Original,
    /// Something later is known of.
    Foreign,
}

impl Enroller<'_, '_> {
    fn list(
        &mut self,
        dir: &RelPath,
        each: &mut dyn FnMut(&mut Self, &RelPath, &Found) -> Result<(), FixityError>,
    ) -> Result<(), FixityError> {
        let mut outcome = Ok(());
        let session = &self.place.session;
        session.list(dir, &mut |at, found| {
            outcome = self.around.check_stop().and_then(|()| each(self, at, &found));
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome
    }

    /// Every directory of the first level is a host.
    fn hosts(&mut self) -> Result<(), FixityError> {
        let mut current: Option<(Vec<u8>, Option<Origin>)> = None;
        self.list(&RelPath::ROOT, &mut |enroller, at, found| {
            let mut parts = at.components();
            let Some(top) = parts.next() else { return Ok(()) };
            if top.starts_with(b".keepwatch-") || top == STAGING {
                return Ok(());
            }
            if current.as_ref().is_none_or(|(host, _)| host != top) {
                if let Some((_, Some(origin))) = &current {
                    enroller.flush(origin)?;
                }
                let is_host = parts.next().is_some() || found.kind == FileType::Dir;
                let host = std::str::from_utf8(top).ok().filter(|host| is_host && *host != enroller.around.host);
                let origin = match (host, RelPath::new(top)) {
                    (Some(host), Ok(dir)) => {
                        Some(enroller.begin(&Map { dir, host: host.to_owned(), path: b"/"[..].into() })?)
                    }
                    _ => None,
                };
                current = Some((top.to_vec(), origin));
            }
            match &mut current {
                Some((_, Some(origin))) => enroller.one(origin, at, found),
                _ => {
                    let is_ours = |root: &super::place::PlacedRoot| root.placement.path_of(at).is_some();
                    let is_left = found.kind != FileType::Dir && !enroller.place.roots.iter().any(is_ours);
                    enroller.sum.foreign += u64::from(is_left);
                    Ok(())
                }
            }
        })?;
        match &current {
            Some((_, Some(origin))) => self.flush(origin),
            _ => Ok(()),
        }
    }

    /// Makes a root known, and where the replica has it.
    fn begin(&mut self, map: &Map) -> Result<Origin, FixityError> {
        let root = map.root();
        let mut acts = Vec::new();
        if self.view.root_dir(&root)?.is_none() {
            acts.push(Body::Enrolled(Box::new(Enrolled {
                root: root.clone(),
                path: RelPath::ROOT,
                place: Some((map.host.clone(), map.path.clone())),
                kind: FileType::Dir,
                size: 0,
                mtime_ns: 0,
                mode: 0o755,
                uid: 0,
                gid: 0,
                target: None,
                created: None,
            })));
        }
        let base = map.base();
        let print = format!("{PLACED}{}", STANDARD.encode(&base));
        let row = self.view.replica(self.place.name())?.unwrap_or_else(|| self.place.row.clone());
        if row.roots.get(root.as_str()) != Some(&print) {
            if let Some(dir) = self.view.root_dir(&root)?
                && self.view.has_copies(row.id, dir)?
            {
                return Err(FixityError::Refused(format!(
                    "replica `{}` holds `{root}` in another directory already; each replica holds an original once",
                    row.name
                )));
            }
            let mut roots = row.roots.clone();
            roots.insert(root.to_string(), print);
            let (replica, url, identity) = (row.name.clone(), row.url.clone(), row.identity.clone());
            acts.push(Body::Replica(Box::new(Replica { replica, url, identity, roots })));
        }
        if !acts.is_empty() {
            self.around.tell.tell(acts)?;
            self.around.tell.catch_up()?;
        }
        let dir = self.view.root_dir(&root)?.ok_or_else(|| FixityError::NoRoot(root.clone()))?;
        Ok(Origin { root, dir, placement: Placement::behind(&base), parent: None })
    }

    fn known(&self, origin: &mut Origin, path: &RelPath) -> Result<Option<Known>, FixityError> {
        let Some((above, name)) = path.split() else { return Ok(None) };
        if origin.parent.as_ref().is_none_or(|(last, _)| last != above) {
            let dir = self.view.dir_by_path(&origin.root, &RelPath::new(above).unwrap_or_default())?;
            origin.parent = Some((above.to_vec(), dir));
        }
        match origin.parent {
            Some((_, Some(dir))) => Ok(self.view.child(dir, name)?),
            _ => Ok(None),
        }
    }

    fn one(&mut self, origin: &mut Origin, at: &RelPath, found: &Found) -> Result<(), FixityError> {
        let Some(path) = origin.placement.path_of(at).filter(|_| found.kind != FileType::Socket) else { return Ok(()) };
        let known = self.known(origin, &path)?;
        let is_held = self.view.copy_at(self.place.row.id, origin.dir, &copy_key(&path, found.kind))?.is_some();
        match due(known.as_ref(), is_held, found, self.place.step_ns()) {
            Due::Nothing => return Ok(()),
            Due::Foreign => {
                self.sum.foreign += 1;
                return Ok(());
            }
            Due::Copy => {}
            Due::Original => {
                let stated = self.place.session.stat(at)?;
                self.acts.push(Body::Enrolled(Box::new(enrolled(&origin.root, &path, found, stated))));
                self.sum.enrolled += u64::from(found.kind == FileType::File);
            }
        }
        self.pending.push((path, found.clone()));
        if self.pending.len() >= PENDING_MAX {
            self.flush(origin)?;
            origin.parent = None;
        }
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            (self.each)(Event::Progress(self.sum))?;
        }
        Ok(())
    }

    /// Journals originals, and when they are in the inventory, by whose numbers copies are told of, their copies.
    fn flush(&mut self, origin: &Origin) -> Result<(), FixityError> {
        if !self.acts.is_empty() {
            let originals = std::mem::take(&mut self.acts);
            self.tell_all(originals)?;
            self.around.tell.catch_up()?;
        }
        let mut again =
            Origin { root: origin.root.clone(), placement: origin.placement.clone(), parent: None, ..*origin };
        let mut acts = Vec::new();
        for (path, found) in std::mem::take(&mut self.pending) {
            let Some(known) = self.known(&mut again, &path)? else { continue };
            self.sum.presumed += u64::from(found.kind == FileType::File);
            acts.push(Body::Copied(Box::new(Copied {
                replica: self.place.name().clone(),
                root: origin.root.clone(),
                path,
                old_path: None,
                file: known.file_id.0,
                of: known.last_seq,
                kind: found.kind,
                size: found.size,
                mtime_ns: found.mtime_ns,
                sha256: None,
                proof: Proof::Presumed,
            })));
        }
        self.tell_all(acts)
    }

    fn tell_all(&self, mut acts: Vec<Body>) -> Result<(), FixityError> {
        while !acts.is_empty() {
            let rest = acts.split_off(acts.len().min(ACTS_MAX));
            self.around.tell.tell(std::mem::replace(&mut acts, rest))?;
        }
        Ok(())
    }
}

/// Decides about what lies in a backup, by what is known of it.
fn due(known: Option<&Known>, is_held: bool, found: &Found, step_ns: i64) -> Due {
    let Some((known, facts)) = known.and_then(|known| Some((known, known.facts.as_ref()?))) else {
        return Due::Original;
    };
    let step = step_ns.max(1);
    let is_same = known.kind == Some(found.kind)
        && match found.kind {
            FileType::File => {
                facts.size == found.size && facts.mtime_ns.div_euclid(step) == found.mtime_ns.div_euclid(step)
            }
            FileType::Symlink => facts.target.as_deref() == found.target.as_deref(),
            _ => true,
        };
    match (is_same, is_held) {
        (true, true) => Due::Nothing,
        (true, false) => Due::Copy,
        // The backup was brought up to date since; or another one knows of something later.
        (false, true) => Due::Original,
        (false, false) if found.mtime_ns >= facts.mtime_ns => Due::Original,
        (false, false) => Due::Foreign,
    }
}

/// The original that something in a backup is a copy of. It came to be when its name says so; else no later than it was written
/// last, nor than it came into the backup.
fn enrolled(root: &RootName, path: &RelPath, found: &Found, stated: Option<Stated>) -> Enrolled {
    let name = path.split().map(|(_, name)| name).unwrap_or_default();
    let born_ns = stated.and_then(|stated| stated.born_ns).unwrap_or(found.mtime_ns);
    let created = created_by_name(name).unwrap_or(Timestamp(born_ns.min(found.mtime_ns)));
    let usual = match found.kind {
        FileType::Dir => 0o755,
        FileType::Symlink => 0o777,
        _ => 0o644,
    };
    Enrolled {
        root: root.clone(),
        path: path.clone(),
        place: None,
        kind: found.kind,
        size: found.size,
        mtime_ns: found.mtime_ns,
        mode: stated.map_or(usual, |stated| stated.mode),
        uid: stated.map_or(0, |stated| stated.uid),
        gid: stated.map_or(0, |stated| stated.gid),
        target: found.target.clone().map(Into::into),
        created: Some(created),
    }
}
