//! What lies below a directory of the far side, in the order of whole paths. The next directories are read ahead, so that a
//! far side that is far away is not waited for at each.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use super::super::line::Answers;
use super::super::wire::Out;
use super::Place;
use super::protocol::{Attrs, Fault, Reply, code, kind};
use crate::model::{FileType, RelPath};
use crate::target::{Found, Result, is_own};

/// Directories that are opened ahead; each is an open handle at the far side.
const AHEAD: usize = 64;
/// Names of one directory that are asked about together.
const TOGETHER: usize = 1024;
/// Pages of one directory that are asked for at once.
const PAGES: usize = 2;

/// A listing under way.
pub(super) struct Listing {
    place: Place,
    ahead: HashMap<RelPath, Answers>,
}

impl Listing {
    pub(super) fn new(place: Place) -> Self {
        Listing { place, ahead: HashMap::new() }
    }

    /// As [`crate::target::Session::list`].
    pub(super) fn list(
        &mut self,
        dir: &RelPath,
        each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut sorted = BTreeMap::new();
        for (name, attrs) in self.entries(dir)? {
            if dir.is_root() && is_own(&dir.join(&name)) {
                continue;
            }
            let is_dir = attrs.kind() == Some(FileType::Dir);
            let key = if is_dir { [&name[..], b"/"].concat() } else { name };
            sorted.insert(key, attrs.found());
        }
        self.follow_links(dir, &mut sorted)?;
        let name_of = |key: &[u8]| dir.join(key.strip_suffix(b"/").unwrap_or(key));
        let dirs: Vec<RelPath> = sorted.keys().filter(|key| key.ends_with(b"/")).map(|key| name_of(key)).collect();
        let (mut next, mut at) = (0, 0);
        for (key, found) in sorted {
            let (path, is_dir) = (name_of(&key), found.kind == FileType::Dir);
            if each(&path, found).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if is_dir {
                next = next.max(at);
                while next < dirs.len() && self.ahead.len() < AHEAD {
                    self.open(&dirs[next])?;
                    next += 1;
                }
                at += 1;
                if self.list(&path, each)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn open(&mut self, dir: &RelPath) -> Result<()> {
        if !self.ahead.contains_key(dir) {
            let asked = self.place.server.ask(kind::OPENDIR, &self.place.named(dir))?;
            self.ahead.insert(dir.clone(), asked);
        }
        Ok(())
    }

    /// Names and attributes in a directory, in any order. One that is not there, or gone since, has none.
    pub(super) fn entries(&mut self, dir: &RelPath) -> Result<Vec<(Vec<u8>, Attrs)>> {
        self.open(dir)?;
        let Some(opened) = self.ahead.remove(dir) else { return Ok(Vec::new()) };
        let server = &self.place.server;
        let handle = match server.handle(&opened)? {
            Ok(handle) => handle,
            Err(Fault { code: code::NO_SUCH_FILE, .. }) => return Ok(Vec::new()),
            Err(fault) => return Err(self.place.error("list", dir, fault)),
        };
        let request = Out::default().bytes(&handle);
        let mut asked = std::collections::VecDeque::new();
        let mut entries = Vec::new();
        let ended = loop {
            while asked.len() < PAGES {
                asked.push_back(server.ask(kind::READDIR, &request)?);
            }
            let Some(page) = asked.pop_front() else { break Ok(()) };
            match server.wait(&page)? {
                Reply::Names(names) => entries.extend(names),
                Reply::Fault(Fault { code: code::EOF, .. }) => break Ok(()),
                Reply::Fault(fault) => break Err(self.place.error("list", dir, fault)),
                _ => break Err(server.garbled()),
            }
        };
        server.close(&handle);
        ended?;
        entries.retain(|(name, _)| name != b"." && name != b"..");
        // A name that leads elsewhere is none that a directory can hold.
        if entries.iter().any(|(name, _)| name.contains(&b'/') || name.is_empty() || name.contains(&0)) {
            return Err(server.garbled());
        }
        self.look_at_untold(dir, &mut entries)?;
        Ok(entries)
    }

    /// Not every server tells in a listing what a name is.
    fn look_at_untold(&self, dir: &RelPath, entries: &mut [(Vec<u8>, Attrs)]) -> Result<()> {
        for entries in entries.chunks_mut(TOGETHER) {
            let mut asked = Vec::new();
            for (name, attrs) in entries.iter_mut().filter(|(_, attrs)| attrs.mode.is_none()) {
                asked.push((attrs, self.place.server.ask(kind::LSTAT, &self.place.named(&dir.join(name)))?));
            }
            for (attrs, answers) in asked {
                if let Ok(Some(told)) = self.place.server.attrs(&answers)? {
                    *attrs = told;
                }
            }
        }
        Ok(())
    }

    /// Where links point.
    fn follow_links(&self, dir: &RelPath, sorted: &mut BTreeMap<Vec<u8>, Found>) -> Result<()> {
        let is_link = |found: &Found| found.kind == FileType::Symlink;
        let links: Vec<Vec<u8>> =
            sorted.iter().filter(|(_, found)| is_link(found)).map(|(name, _)| name.clone()).collect();
        for links in links.chunks(TOGETHER) {
            let ask = |name: &Vec<u8>| self.place.server.ask(kind::READLINK, &self.place.named(&dir.join(name)));
            let asked = links.iter().map(ask).collect::<Result<Vec<_>>>()?;
            for (name, answers) in links.iter().zip(asked) {
                match (self.place.server.wait(&answers)?, sorted.get_mut(name)) {
                    (Reply::Names(names), Some(found)) => found.target = names.into_iter().next().map(|(to, _)| to),
                    // Gone since: it is not known to be there.
                    _ => drop(sorted.remove(name)),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        for (_, opened) in self.ahead.drain() {
            if let Ok(Ok(handle)) = self.place.server.handle(&opened) {
                self.place.server.close(&handle);
            }
        }
    }
}
