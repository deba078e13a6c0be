//! Roots that come and go, and file systems mounted below them.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use keepwatch_journal::{Body, Config, Gap, GapReason, RelPath};
use rustix::fs::{Mode, OFlags, RawDir, fstat, open};

use super::root::{Nested, OpenGap, Presence, Present, Top, check_identity, choose, look_at_top};
use super::{ABSENT_WAIT, Result, Service};
use crate::daemon::ledger::Ledger;
use crate::daemon::sequencer::ScanWanted;
use crate::watch::handle::fsid_of;
use crate::watch::magic::FsMagic;
use crate::watch::mounts::mounts;
use crate::watch::probe::Method;

impl Service {
    /// Looks at every root: whether it is there, and what is mounted below it.
    pub(super) fn check_roots(&mut self) -> Result<()> {
        for index in 0..self.roots.len() {
            if self.only.as_ref().is_none_or(|only| *only == self.roots[index].settings.name) {
                self.check_root(index)?;
            }
        }
        let absent = self.roots.iter().any(|root| root.present().is_none());
        self.absent_due = absent.then(|| self.clock.instant() + ABSENT_WAIT);
        Ok(())
    }

    fn check_root(&mut self, index: usize) -> Result<()> {
        let path = self.roots[index].settings.path.clone();
        let top = look_at_top(&path);
        if let Some(present) = self.roots[index].present() {
            match top {
                Ok(top) if top.object == present.object => return self.check_nested(index),
                Ok(_) => self.leave(index, &format!("another directory is at {} now", path.display()))?,
                Err(why) => return self.leave(index, &why),
            }
        }
        let arrived = look_at_top(&path).and_then(|top| self.may_arrive(index, &top).map(|present| (top, present)));
        match arrived {
            Ok((top, present)) => self.arrive(index, &top, present),
            Err(why) => self.leave(index, &why),
        }
    }

    fn may_arrive(&mut self, index: usize, top: &Top) -> std::result::Result<Present, String> {
        let root = &self.roots[index];
        let accepted = self.accepted_identity(index);
        check_identity(&root.settings, accepted.as_deref(), &top.identity)?;
        if self.roots[index].hollow && !self.roots[index].trust_empty && is_empty(&root.settings.path) {
            return Err(format!(
                "{} is empty though files are known in it; if that is meant, accept it with `keepwatch root accept {}`",
                root.settings.path.display(),
                root.settings.name
            ));
        }
        choose(&root.settings, top)
    }

    /// A root that was found empty though files are known in it is absent until something is in it, or a person
    /// accepts it.
    pub(super) fn check_hollow(&mut self, index: usize) -> Result<()> {
        let root = &mut self.roots[index];
        root.presence = Presence::Absent { why: String::new(), since: self.clock.now() };
        self.check_root(index)
    }

    fn accepted_identity(&self, index: usize) -> Option<String> {
        let name = &self.roots[index].settings.name;
        if let Some(identity) = &self.roots[index].identity {
            return Some(identity.to_string());
        }
        let roots = self.sequencer.ledger.view().roots().ok()?;
        roots.into_iter().find(|root| root.name == *name).and_then(|root| root.identity)
    }

    /// The root is there: watch it first, scan it afterwards.
    fn arrive(&mut self, index: usize, top: &Top, present: Present) -> Result<()> {
        let no = self.roots[index].no;
        let settings = self.roots[index].settings.clone();
        if let Err(why) = self.watch_top(&present, top) {
            return self.leave(index, &why);
        }
        let tree = &mut self.sequencer.tree;
        tree.set_top(no, Some(present.object));
        tree.set_entry((present.fsid, present.object.0), &settings.path);
        self.sequencer.dirs.set_root(&present.key, no)?;
        let shared = present.choice.filesystem.is_network();
        self.sequencer.set_method(no, present.via(), shared);
        self.tell_config(index, top, false);
        let now = self.clock.instant();
        let root = &mut self.roots[index];
        root.identity = Some(top.identity.clone());
        root.hollow = false;
        root.poll_due = present.poll.map(|every| now + every);
        root.presence = Presence::Present(present);
        root.scan_wanted = true;
        let is_new = self.first_gap != GapReason::Epoch && self.is_new_root(index);
        let reason = if is_new { GapReason::New } else { self.first_gap };
        self.open_gap(index, reason, None);
        self.check_nested(index)
    }

    fn is_new_root(&self, index: usize) -> bool {
        let name = &self.roots[index].settings.name;
        let dir = self.sequencer.ledger.view().dir_by_path(name, &RelPath::ROOT);
        dir.is_ok_and(|dir| dir.is_none())
    }

    /// Journals where the root is, if that is not what the inventory has.
    pub(super) fn tell_config(&mut self, index: usize, top: &Top, accepted: bool) {
        let settings = &self.roots[index].settings;
        let dir = settings.path.as_os_str().as_bytes();
        let identity = top.identity.to_string();
        let known = self.sequencer.ledger.view().roots().unwrap_or_default();
        let same = known.iter().any(|root| {
            root.name == settings.name
                && root.watched
                && root.dir.as_deref() == Some(dir)
                && root.identity.as_deref() == Some(identity.as_str())
        });
        if !same || accepted {
            let config =
                Config { root: settings.name.clone(), dir: Some(dir.into()), identity: Some(identity), accepted };
            self.sequencer.ledger.append(Body::Config(config));
        }
    }

    fn watch_top(&mut self, present: &Present, top: &Top) -> std::result::Result<(), String> {
        if self.mode == super::Mode::Reconcile {
            return Ok(());
        }
        match present.choice.method {
            Method::Fanotify => self.sources.mark(top.fd.as_fd()),
            Method::Inotify => self.sources.start_inotify(),
            Method::Poll => Ok(()),
        }
    }

    /// The root is not there, or cannot be watched: nothing in it is deleted, and its return is waited for.
    pub(super) fn leave(&mut self, index: usize, why: &str) -> Result<()> {
        let no = self.roots[index].no;
        let was_present = self.roots[index].present().is_some();
        let known_why = match &self.roots[index].presence {
            Presence::Absent { why, .. } => Some(why.clone()),
            Presence::Present(_) => None,
        };
        if known_why.as_deref() == Some(why) {
            return Ok(());
        }
        tracing::warn!(root = %self.roots[index].settings.name, why, "the root is absent: nothing is taken for deleted");
        self.sequencer.tree.set_top(no, None);
        let path = self.roots[index].settings.path.clone();
        self.sequencer.tree.close_entry(&path);
        if was_present {
            self.scans.cancel_root(no);
        }
        let since = self.clock.now();
        let root = &mut self.roots[index];
        root.presence = Presence::Absent { why: why.to_owned(), since };
        root.scan_wanted = false;
        root.poll_due = None;
        root.nested.clear();
        self.open_gap(index, GapReason::Absent, Some(why.to_owned()));
        self.absent_due = Some(self.clock.instant() + ABSENT_WAIT);
        Ok(())
    }

    /// From here on changes of this root may have been missed. An open gap stays open, with its first reason.
    pub(super) fn open_gap(&mut self, index: usize, reason: GapReason, note: Option<String>) {
        let root = &self.roots[index];
        if root.gap.is_some() {
            return;
        }
        let reason =
            if self.mode == super::Mode::Look && reason == GapReason::Restart { GapReason::New } else { reason };
        let since = if matches!(reason, GapReason::Restart | GapReason::Torn) { self.sure_until() } else { None };
        let gap = Gap { root: Some(root.settings.name.clone()), path: RelPath::ROOT, reason, since, note };
        let seq = self.sequencer.ledger.append(Body::Gap(gap));
        self.roots[index].gap = Some(OpenGap { seq, reason });
        self.roots[index].closing = None;
    }

    /// File systems that were mounted or unmounted below a root.
    fn check_nested(&mut self, index: usize) -> Result<()> {
        let top = self.roots[index].settings.path.clone();
        let Ok(all) = mounts() else { return Ok(()) };
        let mut seen = BTreeSet::new();
        for mount in all {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&mount.mount_point));
            let Some(rel) = below(&top, &path) else { continue };
            if self.sequencer.roots[index].rules.leave_out(&rel, true) {
                continue;
            }
            seen.insert(path.clone());
            if self.roots[index].nested.get(&path).is_some_and(|nested| nested.present) {
                continue;
            }
            if let Some(key) = self.roots[index].present().map(|present| present.key.clone()) {
                self.sequencer.look_again(&key, &rel)?;
            }
            self.mounted(index, &path, rel);
        }
        let gone: Vec<PathBuf> = self.roots[index]
            .nested
            .iter()
            .filter(|(path, nested)| nested.present && !seen.contains(*path))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.unmounted(index, &path);
        }
        Ok(())
    }

    fn mounted(&mut self, index: usize, path: &Path, rel: RelPath) {
        let Ok(fd) = open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else { return };
        if FsMagic::of(fd.as_fd()).is_ok_and(FsMagic::is_pseudo) {
            return;
        }
        let (Ok(fsid), Ok(stat)) = (fsid_of(fd.as_fd()), fstat(&fd)) else { return };
        self.sequencer.tree.set_entry((fsid, stat.st_dev), path);
        let marks = self.roots[index].present().is_some_and(|present| present.choice.method == Method::Fanotify);
        let mut note = None;
        if marks
            && self.mode != super::Mode::Reconcile
            && let Err(why) = self.sources.mark(fd.as_fd())
        {
            let why = format!("changes below {} are found by scans only: {why}", path.display());
            tracing::warn!(why);
            note = Some(why);
        }
        let root = &mut self.roots[index];
        let new = !root.nested.contains_key(path);
        let nested =
            root.nested.entry(path.to_owned()).or_insert(Nested { path: rel, present: true, gap: None, blind: None });
        nested.present = true;
        nested.blind = note;
        let known_gap = nested.gap;
        let wanted = ScanWanted { root: root.no, path: nested.path.clone(), dir: None };
        if known_gap.is_none() && !(new && root.scan_wanted) {
            let gap = Gap {
                root: Some(root.settings.name.clone()),
                path: nested.path.clone(),
                reason: GapReason::Mount,
                since: None,
                note: Some(format!("{} was mounted", path.display())),
            };
            nested.gap = Some(self.sequencer.ledger.append(Body::Gap(gap)));
        }
        if !self.roots[index].scan_wanted {
            self.scans.want(wanted);
        }
    }

    /// A scan met the bare directory on which a file system was mounted when the service last ran.
    pub(super) fn not_mounted(&mut self, index: usize, rel: RelPath) {
        let root = &mut self.roots[index];
        let path = root.settings.path.join(std::ffi::OsStr::from_bytes(rel.as_bytes()));
        if !root.nested.contains_key(&path) {
            let gap = self.sequencer.ledger.view().open_gaps().unwrap_or_default().into_iter();
            let gap = gap.filter(|gap| gap.root.as_ref() == Some(&root.settings.name) && gap.path == rel).last();
            let gap = gap.map(|gap| gap.seq);
            root.nested.insert(path.clone(), Nested { path: rel, present: true, gap, blind: None });
            self.unmounted(index, &path);
        }
    }

    fn unmounted(&mut self, index: usize, path: &Path) {
        tracing::warn!(path = %path.display(), "a file system below a root went: nothing in it is taken for deleted");
        self.sequencer.tree.close_entry(path);
        let root = &mut self.roots[index];
        let Some(nested) = root.nested.get_mut(path) else { return };
        nested.present = false;
        if nested.gap.is_none() {
            let gap = Gap {
                root: Some(root.settings.name.clone()),
                path: nested.path.clone(),
                reason: GapReason::Absent,
                since: None,
                note: Some(format!("{} was unmounted", path.display())),
            };
            nested.gap = Some(self.sequencer.ledger.append(Body::Gap(gap)));
        }
    }
}

/// The path of `path` below `top`; `None` if it is not below it.
fn below(top: &Path, path: &Path) -> Option<RelPath> {
    let rel = path.strip_prefix(top).ok()?;
    RelPath::new(rel.as_os_str().as_bytes()).ok().filter(|rel| !rel.is_root())
}

fn is_empty(path: &Path) -> bool {
    let Ok(fd) = open(path, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty()) else { return true };
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return false;
        }
    }
    true
}
