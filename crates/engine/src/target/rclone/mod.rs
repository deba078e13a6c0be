//! A remote of rclone as a target: rclone itself does the work, by its remote control.
//!
//! Content is handed over as a local file, which rclone copies to the remote with its time, and holds against its own hash where
//! the remote has one. A symbolic link is an object `NAME.rclonelink` with where it points as content, as rclone's `--links` has
//! it. Names are written as for buckets ([`crate::target::keys`]).

mod daemon;
mod place;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

pub use daemon::RcloneAccess;
pub use place::RclonePlace;

use super::secret::Secret;
use super::store::{Abilities, Connect, Entry, Item, Spool, SpoolFile, Spooled, Store, StoreTarget, Told};
use super::{Found, Meta, Result, Target, TargetError, keys, shown};
use crate::model::{FileType, Proof, RelPath, Timestamp};
use daemon::{Daemon, Fault};

/// Requests at once.
const AT_ONCE: usize = 8;
/// The longest name that nearly every remote takes.
const NAME_MAX: usize = 255;
/// What the name of a symbolic link's object ends with.
const LINK: &str = ".rclonelink";
/// The longest target of a link (`PATH_MAX`).
const LINK_MAX: u64 = 4096;
/// What rclone's words have in them when it is not about one object; and what to do.
const OF_THE_PLACE: [(&str, &str); 12] = [
    ("status code: 403", "check the remote's credentials"),
    ("didn't find section in config", "make the remote with `rclone config`"),
    ("didn't find backend called", "make the remote with `rclone config`"),
    ("connection refused", "it will be tried later"),
    ("no such host", "check the remote's address"),
    ("i/o timeout", "it will be tried later"),
    ("network is unreachable", "it will be tried later"),
    ("NoSuchBucket", "make the bucket, or check its name"),
    ("AccessDenied", "check the remote's credentials"),
    ("InvalidAccessKeyId", "check the remote's credentials"),
    ("SignatureDoesNotMatch", "check the remote's credentials"),
    ("couldn't login", "check the remote's credentials"),
];
/// What they have in them when there is no room.
const FULL: [&str; 3] = ["no space left on device", "disk quota exceeded", "QuotaExceeded"];

/// A remote as a target.
pub(super) fn target(place: &RclonePlace, access: &RcloneAccess, login: &Secret, spool: &Path) -> Arc<dyn Target> {
    let reached = Reached { place: place.clone(), access: access.clone(), login: login.clone() };
    Arc::new(StoreTarget::new(reached, spool))
}

#[derive(Debug)]
struct Reached {
    place: RclonePlace,
    access: RcloneAccess,
    login: Secret,
}

fn abilities(mtime_step_ns: i64) -> Abilities {
    Abilities {
        read: true,
        rename: true,
        is_sorted: true,
        proof: Proof::Written,
        mtime_step_ns,
        name_max: NAME_MAX,
        at_once: AT_ONCE,
    }
}

impl Connect for Reached {
    type Store = Remote;

    fn place(&self) -> String {
        self.place.to_string()
    }

    fn expected(&self) -> Abilities {
        abilities(1)
    }

    fn connect(&self, spool: &Arc<Spool>) -> Result<Remote> {
        let away = |why| TargetError::Away { place: self.place.to_string(), why };
        let login = self.login.read().map_err(away)?;
        let daemon = Daemon::begin(&self.access, login.as_ref()).map_err(away)?;
        let (place, fs, spool) = (self.place.to_string(), self.place.fs(), Arc::clone(spool));
        let mut remote = Remote { place, fs, daemon, spool, mtime_step_ns: 1 };
        let info = remote.call("operations/fsinfo", &json!({"fs": remote.fs}), 0);
        let info = info.map_err(|fault| match fault {
            Fault::Lost(why) | Fault::Said { error: why, .. } => away(hinted(&why).unwrap_or(why)),
        })?;
        // Where times are not kept it is some hundred years.
        remote.mtime_step_ns = info.get("Precision").and_then(Value::as_i64).filter(|step| *step > 0).unwrap_or(1);
        Ok(remote)
    }
}

/// A remote at work.
struct Remote {
    place: String,
    fs: String,
    daemon: Daemon,
    spool: Arc<Spool>,
    mtime_step_ns: i64,
}

/// An object that rclone lists.
struct Object {
    size: u64,
    mtime_ns: i64,
    is_link: bool,
}

impl Remote {
    fn call(&self, what: &str, arguments: &Value, bytes: u64) -> Result<Value, Fault> {
        self.daemon.call(what, arguments, bytes)
    }

    fn error(&self, doing: &'static str, path: &RelPath, fault: Fault) -> TargetError {
        let away = |why| TargetError::Away { place: self.place.clone(), why };
        let (status, error) = match fault {
            Fault::Lost(why) => return away(why),
            Fault::Said { status, error } => (status, error),
        };
        if FULL.iter().any(|words| error.contains(words)) {
            return TargetError::Full { path: shown(path) };
        }
        if let Some(why) = hinted(&error) {
            return away(why);
        }
        let kind = if status == 404 { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
        TargetError::Io { doing, path: shown(path), source: io::Error::new(kind, error) }
    }

    /// What lies in a directory: objects, and whether a name is a directory's.
    fn names(&self, dir: &RelPath) -> Result<BTreeMap<Vec<u8>, Option<Object>>> {
        let arguments = json!({"fs": self.fs, "remote": keys::encode(dir), "opt": {"noMimeType": true}});
        let answer = match self.call("operations/list", &arguments, 0) {
            Err(Fault::Said { status: 404, .. }) => return Ok(BTreeMap::new()),
            answer => answer.map_err(|fault| self.error("list", dir, fault))?,
        };
        let mut names = BTreeMap::new();
        for one in answer.get("list").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = one.get("Name").and_then(Value::as_str) else { continue };
            let is_dir = one.get("IsDir").and_then(Value::as_bool).unwrap_or(false);
            let (plain, is_link) = match name.strip_suffix(LINK).filter(|plain| !is_dir && !plain.is_empty()) {
                Some(plain) => (plain, true),
                None => (name, false),
            };
            // What no path of ours is called is somebody else's.
            let Some(mut name) = keys::decode(plain).map(|name| name.as_bytes().to_vec()) else { continue };
            if name.is_empty() || name.contains(&b'/') {
                continue;
            }
            if is_dir {
                name.push(b'/');
                names.insert(name, None);
            } else {
                names.insert(name, Some(object(one, is_link)));
            }
        }
        Ok(names)
    }

    fn walk(&self, dir: &RelPath, told: &mut Told<'_>) -> Result<ControlFlow<()>> {
        for (name, object) in self.names(dir)? {
            let path = dir.join(name.strip_suffix(b"/").unwrap_or(&name));
            let flow = match object {
                None => self.walk(&path, told)?,
                Some(object) => {
                    let entry = self.entry(&path, &object)?;
                    told(Item { path, entry })
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn entry(&self, path: &RelPath, object: &Object) -> Result<Entry> {
        let target = match object.is_link && object.size <= LINK_MAX {
            true => Some(self.link_target(path)?),
            false => None,
        };
        let kind = if target.is_some() { FileType::Symlink } else { FileType::File };
        let found = Found { kind, size: object.size, mtime_ns: object.mtime_ns, target };
        Ok(Entry { found, mode: None, uid: None, gid: None })
    }

    fn link_target(&self, path: &RelPath) -> Result<Vec<u8>> {
        let failed = |source| TargetError::Io { doing: "read", path: shown(path), source };
        let mut text = Vec::new();
        self.fetch(path, &link_key(path), LINK_MAX, &self.spool)?
            .take(LINK_MAX)
            .read_to_end(&mut text)
            .map_err(failed)?;
        Ok(text)
    }

    /// The object with a key.
    fn stat(&self, key: &str, path: &RelPath, is_link: bool) -> Result<Option<Object>> {
        let arguments = json!({"fs": self.fs, "remote": key, "opt": {"noMimeType": true, "filesOnly": true}});
        match self.call("operations/stat", &arguments, 0) {
            Err(Fault::Said { status: 404, .. }) => Ok(None),
            Err(fault) => Err(self.error("look at", path, fault)),
            Ok(answer) => {
                let item = answer.get("item").filter(|item| item.is_object());
                let item = item.filter(|item| item.get("IsDir").and_then(Value::as_bool) == Some(false));
                Ok(item.map(|item| object(item, is_link)))
            }
        }
    }

    /// Which object stands for a path.
    fn object(&self, path: &RelPath) -> Result<Option<Object>> {
        match self.stat(&keys::encode(path), path, false)? {
            Some(object) => Ok(Some(object)),
            None if !may_be_link(path) => Ok(None),
            None => self.stat(&link_key(path), path, true),
        }
    }

    /// Copies an object, or a local file, to another place.
    fn copy(&self, from: (&str, &str), to: (&str, &str), bytes: u64) -> Result<(), Fault> {
        // It is copied whatever its size and time are.
        let arguments = json!({"srcFs": from.0, "srcRemote": from.1, "dstFs": to.0, "dstRemote": to.1,
            "_config": {"IgnoreTimes": true}});
        self.call("operations/copyfile", &arguments, bytes).map(|_| ())
    }

    fn fetch(&self, path: &RelPath, key: &str, size: u64, spool: &Spool) -> Result<std::fs::File> {
        let failed = |source| TargetError::Io { doing: "read", path: shown(path), source };
        let file = spool.place().map_err(failed)?;
        let (dir, name) = local(&file);
        self.copy((&self.fs, key), (&dir, &name), size).map_err(|fault| self.error("read", path, fault))?;
        // It stays readable when its name is gone.
        file.open().map_err(failed)
    }

    fn delete_key(&self, key: &str, path: &RelPath) -> Result<()> {
        match self.call("operations/deletefile", &json!({"fs": self.fs, "remote": key}), 0) {
            Err(Fault::Said { status: 404, .. }) => Ok(()),
            deleted => deleted.map(|_| ()).map_err(|fault| self.error("remove", path, fault)),
        }
    }
}

impl Store for Remote {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn abilities(&self) -> Abilities {
        abilities(self.mtime_step_ns)
    }

    fn is_lost(&self) -> bool {
        self.daemon.is_lost()
    }

    fn list(&self, below: &RelPath, told: &mut Told<'_>) -> Result<()> {
        self.walk(below, told).map(|_| ())
    }

    fn look(&self, path: &RelPath) -> Result<Option<Entry>> {
        match self.object(path)? {
            Some(object) => self.entry(path, &object).map(Some),
            None => Ok(None),
        }
    }

    fn holds(&self, dir: &RelPath) -> Result<bool> {
        let names = self.names(dir)?;
        if names.values().any(Option::is_some) {
            return Ok(true);
        }
        for name in names.keys() {
            if self.holds(&dir.join(name.strip_suffix(b"/").unwrap_or(name)))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn put(&self, path: &RelPath, meta: &Meta, what: &Spooled) -> Result<()> {
        let (plain, link) = (keys::encode(path), link_key(path));
        if path.as_bytes().ends_with(LINK.as_bytes()) {
            let why = format!("a name that ends with `{LINK}` stands for a symbolic link there");
            return Err(TargetError::Refused { path: shown(path), why });
        }
        let (key, other, size) = match what {
            Spooled::File { size, .. } => (&plain, &link, *size),
            Spooled::Symlink(_) if !may_be_link(path) => {
                let why = format!("its name with `{LINK}` would be longer than {NAME_MAX} bytes");
                return Err(TargetError::Refused { path: shown(path), why });
            }
            Spooled::Symlink(_) => (&link, &plain, 0),
        };
        let kept;
        let file = match what {
            Spooled::File { file, .. } => file,
            Spooled::Symlink(to) => {
                kept = self.spool.keep(path, to, meta.mtime_ns)?;
                &kept
            }
        };
        let (dir, name) = local(file);
        self.copy((&dir, &name), (&self.fs, key), size).map_err(|fault| self.error("write", path, fault))?;
        if may_be_link(path) { self.delete_key(other, path) } else { Ok(()) }
    }

    fn read(&self, path: &RelPath, spool: &Spool) -> Result<Box<dyn Read + Send>> {
        let Some(object) = self.object(path)? else { return Err(super::store::not_there("read", path)) };
        let key = if object.is_link { link_key(path) } else { keys::encode(path) };
        Ok(Box::new(self.fetch(path, &key, object.size, spool)?))
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let Some(object) = self.object(from)? else { return Err(super::store::not_there("rename", from)) };
        let key = |path: &RelPath| if object.is_link { link_key(path) } else { keys::encode(path) };
        let arguments = json!({"srcFs": self.fs, "srcRemote": key(from), "dstFs": self.fs, "dstRemote": key(to),
            "_config": {"IgnoreTimes": true}});
        let moved = self.call("operations/movefile", &arguments, object.size);
        moved.map(|_| ()).map_err(|fault| self.error("rename", from, fault))
    }

    fn delete(&self, path: &RelPath) -> Result<()> {
        self.delete_key(&keys::encode(path), path)?;
        if may_be_link(path) { self.delete_key(&link_key(path), path) } else { Ok(()) }
    }

    fn tidy(&self, dir: &RelPath) {
        if !dir.is_root() {
            let arguments = json!({"fs": self.fs, "remote": keys::encode(dir), "leaveRoot": false});
            if let Err(fault) = self.call("operations/rmdirs", &arguments, 0) {
                tracing::debug!(?fault, dir = shown(dir), "an empty directory stays");
            }
        }
    }
}

/// The key of a symbolic link's object.
fn link_key(path: &RelPath) -> String {
    keys::encode(path) + LINK
}

/// Whether such a name is not too long.
fn may_be_link(path: &RelPath) -> bool {
    path.split().is_none_or(|(_, name)| name.len() + LINK.len() <= NAME_MAX)
}

/// A file of the spool, as rclone names it.
fn local(file: &SpoolFile) -> (String, String) {
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    (part(file.path().parent().map(Path::as_os_str)), part(file.path().file_name()))
}

/// What rclone says of an object.
fn object(item: &Value, is_link: bool) -> Object {
    // Where it does not know the size it says -1.
    let size = item.get("Size").and_then(Value::as_u64).unwrap_or(0);
    let mtime_ns = item.get("ModTime").and_then(Value::as_str).and_then(nanoseconds).unwrap_or(0);
    Object { size, mtime_ns, is_link }
}

/// Nanoseconds since 1970 of a time as RFC 3339 has it.
fn nanoseconds(text: &str) -> Option<i64> {
    let (plain, offset_s) = match text.strip_suffix('Z') {
        Some(plain) => (plain, 0),
        None => {
            let (plain, zone) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            (plain, if zone.starts_with('-') { -seconds } else { seconds })
        }
    };
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let exact: Timestamp = format!("{whole}.{fraction:0<9}Z").parse().ok()?;
    exact.0.checked_sub(offset_s.checked_mul(1_000_000_000)?)
}

/// rclone's words with what to do, where they are not about one object.
fn hinted(error: &str) -> Option<String> {
    let (_, what) = OF_THE_PLACE.iter().find(|(words, _)| error.contains(words))?;
    Some(format!("{error}; {what}"))
}
