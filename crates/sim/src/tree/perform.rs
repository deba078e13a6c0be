//! What operations do to the simulated tree, and which notices the kernel makes of them.

use super::*;

impl World {
    /// Does an operation; `false`: it could not be done.
    pub fn perform(&mut self, pid: u32, op: &Op) -> bool {
        self.pid = pid;
        self.clock.pass(OPERATION);
        self.attempt(op).is_some()
    }

    fn attempt(&mut self, op: &Op) -> Option<()> {
        match op {
            Op::Write(at, size) => {
                let (dir, name) = self.place(at)?;
                let inode = self.opened(dir, &name)?;
                let place = self.at(dir, &name);
                self.set_size(inode, 0, &place);
                self.write(inode, u64::from(*size), &place);
                self.tell(&place, What::CLOSE_WRITE, inode);
            }
            Op::Append(at) => {
                let (dir, name) = self.place(at)?;
                let inode = self.file(dir, &name)?;
                let size = self.inodes[&inode].facts.size + 1;
                let place = self.at(dir, &name);
                self.write(inode, size, &place);
                self.tell(&place, What::CLOSE_WRITE, inode);
            }
            Op::Open(at) => {
                let (dir, name) = self.place(at)?;
                let inode = self.opened(dir, &name)?;
                self.inodes.get_mut(&inode)?.writers += 1;
                let place = self.at(dir, &name);
                self.open.push(Open { inode, place });
            }
            Op::WriteOpen(which) => {
                let open = self.open.get(usize::from(*which) % self.open.len().max(1))?;
                let (inode, place) = (open.inode, open.place.clone());
                let size = self.inodes[&inode].facts.size + 3;
                self.write(inode, size, &place);
            }
            Op::Close(which) => {
                let which = usize::from(*which) % self.open.len().max(1);
                self.open.get(which)?;
                let Open { inode, place } = self.open.remove(which);
                self.inodes.get_mut(&inode)?.writers -= 1;
                self.tell(&place, What::CLOSE_WRITE, inode);
                self.let_go(inode);
            }
            Op::Truncate(at, size) => {
                let (dir, name) = self.place(at)?;
                let inode = self.file(dir, &name)?;
                let place = self.at(dir, &name);
                self.set_size(inode, u64::from(*size), &place);
            }
            Op::Chmod(at, mode) => self.chmod(at, *mode)?,
            Op::Unlink(at) => {
                let (dir, name) = self.place(at)?;
                let inode = self.child(dir, &name).filter(|inode| !self.is_dir(*inode))?;
                self.unlink(dir, &name, inode);
            }
            Op::Mkdir(at) => {
                let (dir, name) = self.place(at)?;
                self.free(dir, &name)?;
                let inode = self.make(FileType::Dir);
                self.put(dir, &name, inode);
                self.tell_name(dir, &name, What::CREATE, inode);
            }
            Op::Rmdir(at) => {
                let (dir, name) = self.place(at)?;
                let inode = self.child(dir, &name).filter(|inode| self.is_dir(*inode))?;
                self.rmdir(dir, &name, inode)?;
            }
            Op::RemoveAll(at) => {
                let (dir, name) = self.place(at)?;
                let inode = self.child(dir, &name)?;
                self.remove_all(dir, &name, inode);
            }
            Op::Rename(from, to) => self.rename(from, to)?,
            Op::Exchange(one, other) => self.exchange(one, other)?,
            Op::Link(from, to) => {
                let (dir, name) = self.place(from)?;
                let inode = self.child(dir, &name).filter(|inode| !self.is_dir(*inode))?;
                let (dir, name) = self.place(to)?;
                self.free(dir, &name)?;
                self.put(dir, &name, inode);
                let ctime = self.stamp();
                let facts = &mut self.inodes.get_mut(&inode)?.facts;
                (facts.nlink, facts.ctime_ns) = (facts.nlink + 1, ctime);
                self.tell_object(inode, What::ATTRIB);
                self.tell_name(dir, &name, What::CREATE, inode);
            }
            Op::Symlink(at) => {
                let (dir, name) = self.place(at)?;
                self.free(dir, &name)?;
                let inode = self.make(FileType::Symlink);
                self.put(dir, &name, inode);
                self.tell_name(dir, &name, What::CREATE, inode);
            }
        }
        Some(())
    }

    fn chmod(&mut self, at: &Path, mode: u8) -> Option<()> {
        // Also a top directory.
        let (inode, place) = match self.place(at) {
            Some((dir, name)) => (self.child(dir, &name)?, (dir, name)),
            None if at.1.is_empty() => {
                (*self.tops.get(usize::from(at.0))?, (TOP, format!("t{}", at.0).into_bytes().into()))
            }
            None => return None,
        };
        let ctime = self.stamp();
        let facts = &mut self.inodes.get_mut(&inode)?.facts;
        (facts.mode, facts.ctime_ns) = (0o600 | u32::from(mode), ctime);
        self.tell_name(place.0, &place.1, What::ATTRIB, inode);
        Some(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Option<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (self.place(from)?, self.place(to)?);
        let inode = self.child(from_dir, &from_name)?;
        let victim = self.child(to_dir, &to_name);
        if victim == Some(inode) || self.is_within(to_dir, inode) {
            return None;
        }
        if let Some(victim) = victim {
            let empty = self.inodes[&victim].names.is_empty();
            if self.is_dir(victim) != self.is_dir(inode) || !empty || self.is_within(from_dir, victim) {
                return None;
            }
            self.take(to_dir, &to_name);
            self.drop_name(victim);
        }
        self.take(from_dir, &from_name);
        self.put(to_dir, &to_name, inode);
        let ctime = self.stamp();
        self.inodes.get_mut(&inode)?.facts.ctime_ns = ctime;
        let (from, to) = (self.at(from_dir, &from_name), self.at(to_dir, &to_name));
        for open in self.open.iter_mut().filter(|open| open.inode == inode && open.place == from) {
            open.place = to.clone();
        }
        self.tell_rename((from_dir, &from_name), (to_dir, &to_name), inode);
        if let Some(victim) = victim {
            self.tell_object(victim, What::ATTRIB);
        }
        self.tell_object(inode, What::MOVE_SELF);
        if let Some(victim) = victim {
            self.let_go(victim);
        }
        Some(())
    }

    fn exchange(&mut self, one: &Path, other: &Path) -> Option<()> {
        let ((a_dir, a_name), (b_dir, b_name)) = (self.place(one)?, self.place(other)?);
        let (a, b) = (self.child(a_dir, &a_name)?, self.child(b_dir, &b_name)?);
        if a == b || self.is_within(b_dir, a) || self.is_within(a_dir, b) {
            return None;
        }
        self.take(a_dir, &a_name);
        self.take(b_dir, &b_name);
        self.put(a_dir, &a_name, b);
        self.put(b_dir, &b_name, a);
        let ctime = self.stamp();
        for inode in [a, b] {
            self.inodes.get_mut(&inode)?.facts.ctime_ns = ctime;
        }
        let (a_place, b_place) = (self.at(a_dir, &a_name), self.at(b_dir, &b_name));
        for open in &mut self.open {
            if open.inode == a && open.place == a_place {
                open.place = b_place.clone();
            } else if open.inode == b && open.place == b_place {
                open.place = a_place.clone();
            }
        }
        self.tell_rename((a_dir, &a_name), (b_dir, &b_name), a);
        self.tell_object(a, What::MOVE_SELF);
        self.tell_rename((b_dir, &b_name), (a_dir, &a_name), b);
        self.tell_object(b, What::MOVE_SELF);
        Some(())
    }

    fn remove_all(&mut self, dir: u64, name: &[u8], inode: u64) {
        if !self.is_dir(inode) {
            return self.unlink(dir, name, inode);
        }
        for (below, child) in self.names(inode) {
            self.remove_all(inode, &below, child);
        }
        self.clock.pass(OPERATION);
        let _ = self.rmdir(dir, name, inode);
    }

    fn unlink(&mut self, dir: u64, name: &[u8], inode: u64) {
        self.take(dir, name);
        self.drop_name(inode);
        self.tell_object(inode, What::ATTRIB);
        self.tell_name(dir, name, What::DELETE, inode);
        self.let_go(inode);
    }

    fn rmdir(&mut self, dir: u64, name: &[u8], inode: u64) -> Option<()> {
        if !self.inodes[&inode].names.is_empty() {
            return None;
        }
        self.take(dir, name);
        self.drop_name(inode);
        self.tell_name(dir, name, What::DELETE, inode);
        self.let_go(inode);
        Some(())
    }

    // Inodes.

    fn stamp(&self) -> i64 {
        let now = self.clock.now().0;
        now - now % self.manners.stamp_ns
    }

    pub(super) fn inode(&mut self, number: u64, kind: FileType) -> Inode {
        self.generation += 1;
        let now = self.stamp();
        let (size, nlink, target) = match kind {
            FileType::Dir => (4096, 2, None),
            FileType::Symlink => (4, 1, Some(Box::from(&b"away"[..]))),
            _ => (0, 1, None),
        };
        let facts = Facts {
            kind,
            size,
            mtime_ns: now,
            ctime_ns: now,
            dev: DEVICE,
            inode: number,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink,
            target,
        };
        Inode {
            generation: self.generation,
            facts,
            born_ns: now,
            names: BTreeMap::new(),
            parent: TOP,
            writers: 0,
            was_outside: false,
            home: None,
            changed_root: false,
        }
    }

    pub(super) fn make(&mut self, kind: FileType) -> u64 {
        let number = if self.manners.reuses_inodes {
            (FIRST..).find(|number| !self.inodes.contains_key(number)).unwrap_or(self.next)
        } else {
            self.next
        };
        self.next += 1;
        let inode = self.inode(number, kind);
        self.inodes.insert(number, inode);
        number
    }

    /// Puts a name into a directory.
    pub(super) fn put(&mut self, dir: u64, name: &[u8], inode: u64) {
        let is_dir = self.is_dir(inode);
        let now = self.stamp();
        if let Some(dir) = self.inodes.get_mut(&dir) {
            dir.names.insert(name.into(), inode);
            (dir.facts.mtime_ns, dir.facts.ctime_ns) = (now, now);
            dir.facts.nlink += u32::from(is_dir);
        }
        if is_dir {
            if let Some(inode) = self.inodes.get_mut(&inode) {
                inode.parent = dir;
            }
            let top = self.tops.iter().copied().find(|top| self.is_within(inode, *top));
            self.note_top(inode, top);
        }
    }

    /// A directory with all below it is below this top directory now.
    fn note_top(&mut self, dir: u64, top: Option<u64>) {
        let outside = top.is_some() && top == self.tops.last().copied();
        if let Some(inode) = self.inodes.get_mut(&dir) {
            inode.was_outside |= outside;
            inode.changed_root |= inode.home.is_some() && inode.home != top;
            inode.home = inode.home.or(top);
        }
        for (_, child) in self.names(dir) {
            if self.is_dir(child) {
                self.note_top(child, top);
            }
        }
    }

    /// Takes a name out of a directory.
    fn take(&mut self, dir: u64, name: &[u8]) {
        let now = self.stamp();
        let Some(holder) = self.inodes.get_mut(&dir) else { return };
        (holder.facts.mtime_ns, holder.facts.ctime_ns) = (now, now);
        if let Some(inode) = holder.names.remove(name)
            && self.is_dir(inode)
            && let Some(holder) = self.inodes.get_mut(&dir)
        {
            holder.facts.nlink -= 1;
        }
    }

    /// An object has a name less.
    fn drop_name(&mut self, inode: u64) {
        let now = self.stamp();
        if let Some(inode) = self.inodes.get_mut(&inode) {
            let facts = &mut inode.facts;
            facts.nlink = if facts.kind == FileType::Dir { 0 } else { facts.nlink - 1 };
            facts.ctime_ns = now;
        }
    }

    /// An inode that has no name and no user is free.
    fn let_go(&mut self, inode: u64) {
        let free = self.inodes.get(&inode).is_some_and(|inode| inode.facts.nlink == 0 && inode.writers == 0);
        if free {
            self.tell_object(inode, What::DELETE_SELF);
            self.inodes.remove(&inode);
        }
    }

    /// Opens a file for writing, making it if need be.
    fn opened(&mut self, dir: u64, name: &[u8]) -> Option<u64> {
        if self.child(dir, name).is_some() {
            return self.file(dir, name);
        }
        self.free(dir, name)?;
        let inode = self.make(FileType::File);
        self.put(dir, name, inode);
        self.tell_name(dir, name, What::CREATE, inode);
        Some(inode)
    }

    fn set_size(&mut self, inode: u64, size: u64, place: &Place) {
        if self.inodes[&inode].facts.size != size {
            self.write(inode, size, place);
        }
    }

    fn write(&mut self, inode: u64, size: u64, place: &Place) {
        self.clock.pass(OPERATION);
        let now = self.stamp();
        if let Some(inode) = self.inodes.get_mut(&inode) {
            let facts = &mut inode.facts;
            (facts.size, facts.mtime_ns, facts.ctime_ns) = (size, now, now);
        }
        self.tell(place, What::MODIFY, inode);
    }

    // Names.

    fn place(&self, path: &Path) -> Option<(u64, Box<[u8]>)> {
        let (name, dirs) = path.1.split_last()?;
        let mut dir = *self.tops.get(usize::from(path.0))?;
        for name in dirs {
            dir = self.child(dir, &[b'a' + name]).filter(|inode| self.is_dir(*inode))?;
        }
        Some((dir, Box::from([b'a' + name])))
    }

    pub(super) fn is_dir(&self, inode: u64) -> bool {
        self.inodes.get(&inode).is_some_and(|inode| inode.facts.kind == FileType::Dir)
    }

    fn file(&self, dir: u64, name: &[u8]) -> Option<u64> {
        self.child(dir, name).filter(|inode| self.inodes[inode].facts.kind == FileType::File)
    }

    fn free(&self, dir: u64, name: &[u8]) -> Option<()> {
        self.child(dir, name).is_none().then_some(())
    }

    /// Whether a directory is another one, or below it.
    fn is_within(&self, mut dir: u64, above: u64) -> bool {
        while dir != above && dir != TOP {
            match self.inodes.get(&dir) {
                Some(inode) => dir = inode.parent,
                None => return false,
            }
        }
        dir == above
    }

    // What the kernel is told.

    fn at(&self, dir: u64, name: &[u8]) -> Place {
        Place { dir: self.key(dir), name: name.into() }
    }

    fn tell_name(&mut self, dir: u64, name: &[u8], what: What, inode: u64) {
        self.tell(&self.at(dir, name), what, inode);
    }

    fn tell(&mut self, place: &Place, what: What, inode: u64) {
        let (is_dir, object) = (self.is_dir(inode), self.key(inode));
        // inotify is asked to leave out what is done through names that are gone (`IN_EXCL_UNLINK`).
        let by_name = self.by_key(&place.dir).and_then(|dir| self.child(dir, &place.name));
        let written = what.has(What::MODIFY.with(What::CLOSE_WRITE));
        if written && by_name != Some(inode) && self.kernel.flavour() == Flavour::Inotify {
            return;
        }
        let place = Some(place.clone());
        self.kernel.hear(Signal { place, to: None, what, is_dir, object, pid: self.pid });
    }

    fn tell_object(&mut self, inode: u64, what: What) {
        let (is_dir, object) = (self.is_dir(inode), self.key(inode));
        self.kernel.hear(Signal { place: None, to: None, what, is_dir, object, pid: self.pid });
    }

    fn tell_rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), inode: u64) {
        let (is_dir, object) = (self.is_dir(inode), self.key(inode));
        let (place, to) = (Some(self.at(from.0, from.1)), Some(self.at(to.0, to.1)));
        self.kernel.hear(Signal { place, to, what: What::RENAME, is_dir, object, pid: self.pid });
    }

    pub(super) fn by_key(&self, key: &DirKey) -> Option<u64> {
        // The inode stands behind the tag, the file system and the type, or behind the tag and the device.
        let from = if self.manners.has_handles { 13 } else { 9 };
        let number = u64::from_ne_bytes(key.0.get(from..from + 8)?.try_into().ok()?);
        let there = self.facts(number).is_some_and(|facts| facts.nlink > 0);
        (there && self.key(number) == *key).then_some(number)
    }

    pub(super) fn enter(&self, dir: DirAt<'_>) -> Result<u64, Look> {
        let root = usize::from(dir.root.0);
        if self.away[root] {
            return Err(Look::Unavailable);
        }
        if self.manners.has_handles {
            return self.by_key(dir.key).ok_or(Look::Gone);
        }
        let mut here = self.tops[root];
        for name in dir.path.components() {
            here = self.child(here, name).filter(|inode| self.is_dir(*inode)).ok_or(Look::Gone)?;
        }
        if self.key(here) == *dir.key { Ok(here) } else { Err(Look::Gone) }
    }
}
