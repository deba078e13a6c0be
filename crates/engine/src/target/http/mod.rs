//! A store that is reached by HTTP as a target: PUT, DELETE, GET, and a list in pages; signed where there is a secret.
//! `docs/http-target.md` is the server's side of the story.

mod api;
mod place;
mod sign;

#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use reqwest::Method;
use serde_json::Value;

pub use place::HttpPlace;

use super::secret::Secret;
use super::store::names::Names;
use super::store::{Abilities, Connect, Entry, Item, Spool, Spooled, Store, StoreTarget, Told, item};
use super::web::Patience;
use super::{Meta, Result, Target, TargetError, shown};
use crate::model::{Proof, RelPath};
use api::{Api, Body, Fault};

/// Objects in a page.
const PAGE: usize = 1000;
/// Requests at once.
const AT_ONCE: usize = 16;
/// The longest name: most of a request's line of 8 KiB, each byte of it written as three.
const NAME_MAX: usize = 255;
/// The largest file whose content is held in memory while it is sent.
const WHOLE_MAX: u64 = 256 << 10;
/// An HTTP store as a target.
pub(super) fn target(
    place: &HttpPlace,
    lead: &[u8],
    secret: &Secret,
    patience: Patience,
    spool: &Path,
) -> Arc<dyn Target> {
    let reached = Reached { place: place.clone(), names: Names::new(lead), secret: secret.clone(), patience };
    Arc::new(StoreTarget::new(reached, spool))
}

#[derive(Debug)]
struct Reached {
    place: HttpPlace,
    names: Names,
    secret: Secret,
    patience: Patience,
}

/// What a server says of itself with each page.
#[derive(Clone, Copy, Debug, Default)]
struct Says {
    renames: bool,
    checks_sha256: bool,
    mtime_step_ns: Option<i64>,
}

fn abilities(says: Says) -> Abilities {
    Abilities {
        read: true,
        rename: says.renames,
        is_sorted: true,
        proof: if says.checks_sha256 { Proof::Proved } else { Proof::Written },
        // Where times are not kept all are the same.
        mtime_step_ns: says.mtime_step_ns.unwrap_or(i64::MAX),
        name_max: NAME_MAX,
        at_once: AT_ONCE,
    }
}

impl Connect for Reached {
    type Store = HttpStore;

    fn place(&self) -> String {
        self.place.to_string()
    }

    fn expected(&self) -> Abilities {
        abilities(Says::default())
    }

    fn connect(&self, _: &Arc<Spool>) -> Result<HttpStore> {
        let away = |why| TargetError::Away { place: self.place.to_string(), why };
        if self.place.is_open() {
            tracing::warn!(place = %self.place, "plain http: all that goes there can be read on the way; https seals it");
        }
        let secret = self.secret.read().map_err(away)?;
        let is_signed = secret.is_some();
        let api = Arc::new(Api::new(self.place.clone(), secret, self.patience).map_err(away)?);
        let mut store = HttpStore { api, names: self.names.clone(), is_signed, says: Says::default() };
        let (_, says, _) = store.page(b"", b"", 1, &RelPath::ROOT)?;
        store.says = says;
        Ok(store)
    }
}

/// An HTTP store at work.
struct HttpStore {
    api: Arc<Api>,
    names: Names,
    is_signed: bool,
    says: Says,
}

type Page = (Vec<item::Listed>, Says, bool);

impl HttpStore {
    fn error(&self, doing: &'static str, path: &RelPath, fault: &Fault) -> TargetError {
        let away = |why: String| TargetError::Away { place: self.place(), why };
        let Fault::Refused { status, .. } = fault else { return away(fault.to_string()) };
        match status {
            401 | 403 if self.is_signed => {
                away(format!("{fault}; is the secret the server's, and are the clocks of both right?"))
            }
            401 | 403 => away(format!("{fault}; does it want a secret? Name its file as `secret_file`")),
            413 | 414 | 422 => TargetError::Refused { path: shown(path), why: fault.to_string() },
            507 => TargetError::Full { path: shown(path) },
            300..=399 => away(format!("{fault}; it is elsewhere: give the URL at which it is")),
            408 | 429 | 500..=599 => away(format!("{fault}, again and again; it will be tried later")),
            _ => {
                let kind = if fault.is_missing() { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
                TargetError::Io { doing, path: shown(path), source: io::Error::new(kind, fault.to_string()) }
            }
        }
    }

    fn simple(&self, method: &Method, target: &str, body: &Body) -> Result<(), Fault> {
        let response = self.api.send(method, target, body, 0)?;
        self.api.answer(response).map(|_| ())
    }

    /// A page of the objects whose names begin so and come after a name; and whether there are more.
    fn page(&self, prefix: &[u8], after: &[u8], limit: usize, path: &RelPath) -> Result<Page> {
        let mut query = vec![("list", b"1".to_vec()), ("limit", limit.to_string().into_bytes())];
        query.push(("prefix", prefix.to_vec()));
        if !after.is_empty() {
            query.push(("after", after.to_vec()));
        }
        let target = self.api.place.target(None, &query);
        let got = self.api.send(&Method::GET, &target, &Body::Bytes(Bytes::new()), 0);
        let got = got.and_then(|response| self.api.answer(response));
        let text = got.map_err(|fault| match fault.is_missing() {
            true => TargetError::Away {
                place: self.place(),
                why: "there is no such place: check the URL's path".to_owned(),
            },
            false => self.error("list", path, &fault),
        })?;
        let wrong = |why: String| TargetError::Away {
            place: self.place(),
            why: format!("its list makes no sense ({why}): is this a store for Keepwatch?"),
        };
        let page: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let items = page.get("items").and_then(Value::as_array).ok_or_else(|| wrong("it has no `items`".to_owned()))?;
        let items = items.iter().map(item::listed).collect::<std::result::Result<Vec<_>, _>>().map_err(wrong)?;
        let abilities = page.get("abilities").and_then(Value::as_array);
        let says = Says {
            renames: abilities.is_some_and(|all| all.iter().any(|one| one == "rename")),
            checks_sha256: page.get("checks").is_some_and(|checks| checks == "sha256"),
            mtime_step_ns: page.get("mtime_step_ns").and_then(Value::as_i64).filter(|step| *step > 0),
        };
        let is_more = page.get("more").and_then(Value::as_bool).unwrap_or(false);
        Ok((items, says, is_more))
    }
}

impl Store for HttpStore {
    fn place(&self) -> String {
        self.api.place.to_string()
    }

    fn abilities(&self) -> Abilities {
        abilities(self.says)
    }

    /// Each request stands for itself.
    fn is_lost(&self) -> bool {
        false
    }

    fn list(&self, below: &RelPath, told: &mut Told<'_>) -> Result<()> {
        let prefix = self.names.below(below);
        let mut after = Vec::new();
        loop {
            let (items, _, is_more) = self.page(&prefix, &after, PAGE, below)?;
            let last = items.last().map(|listed| listed.name.clone());
            for item::Listed { name, entry } in items {
                let Some(path) = self.names.path(&name) else { continue };
                if told(Item { path, entry }).is_break() {
                    return Ok(());
                }
            }
            match last.filter(|_| is_more) {
                None => return Ok(()),
                Some(last) if last <= after => {
                    let why = "its pages are not in the order of the names' bytes".to_owned();
                    return Err(TargetError::Away { place: self.place(), why });
                }
                Some(last) => after = last,
            }
        }
    }

    fn look(&self, path: &RelPath) -> Result<Option<Entry>> {
        let name = self.names.name(path);
        // In order, what has just this name comes first of all that begin with it.
        let (items, ..) = self.page(&name, b"", 1, path)?;
        Ok(items.into_iter().find(|item| item.name == name).map(|item| item.entry))
    }

    fn holds(&self, dir: &RelPath) -> Result<bool> {
        let prefix = self.names.below(dir);
        let (items, ..) = self.page(&prefix, b"", 1, dir)?;
        Ok(items.iter().any(|item| item.name.starts_with(&prefix)))
    }

    fn put(&self, path: &RelPath, meta: &Meta, what: &Spooled) -> Result<()> {
        let failed = |source| TargetError::Io { doing: "send", path: shown(path), source };
        let (kind, body) = match what {
            Spooled::Symlink(to) => ("symlink", Body::Bytes(to.clone().into())),
            Spooled::File { file, size, .. } if *size <= WHOLE_MAX => {
                ("file", Body::Bytes(std::fs::read(file.path()).map_err(failed)?.into()))
            }
            Spooled::File { file, size, sha256 } => ("file", Body::File(file.path().to_owned(), *size, *sha256)),
        };
        let query = [
            ("mtime_ns", meta.mtime_ns.to_string().into_bytes()),
            ("mode", meta.mode.to_string().into_bytes()),
            ("uid", meta.uid.to_string().into_bytes()),
            ("gid", meta.gid.to_string().into_bytes()),
            ("kind", kind.as_bytes().to_vec()),
        ];
        let target = self.api.place.target(Some(&self.names.name(path)), &query);
        self.simple(&Method::PUT, &target, &body).map_err(|fault| self.error("write", path, &fault))
    }

    fn read(&self, path: &RelPath, _: &Spool) -> Result<Box<dyn Read + Send>> {
        let size = self.look(path)?.map_or(0, |entry: Entry| entry.found.size);
        let target = self.api.place.target(Some(&self.names.name(path)), &[]);
        let response = self.api.send(&Method::GET, &target, &Body::Bytes(Bytes::new()), size);
        let response = response.map_err(|fault| self.error("read", path, &fault))?;
        Ok(Box::new(Reading { api: Arc::clone(&self.api), response, here: Bytes::new() }))
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let query = [("rename", self.names.name(to))];
        let target = self.api.place.target(Some(&self.names.name(from)), &query);
        match self.simple(&Method::POST, &target, &Body::Bytes(Bytes::new())) {
            // It was done, and the reply lost.
            Err(fault) if fault.is_missing() && self.look(to)?.is_some() => Ok(()),
            renamed => renamed.map_err(|fault| self.error("rename", from, &fault)),
        }
    }

    fn delete(&self, path: &RelPath) -> Result<()> {
        let target = self.api.place.target(Some(&self.names.name(path)), &[]);
        match self.simple(&Method::DELETE, &target, &Body::Bytes(Bytes::new())) {
            Err(fault) if fault.is_missing() => Ok(()),
            deleted => deleted.map_err(|fault| self.error("remove", path, &fault)),
        }
    }
}

/// An object's content on its way.
struct Reading {
    api: Arc<Api>,
    response: reqwest::Response,
    here: Bytes,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.here.is_empty() {
            match self.api.wait(self.response.chunk()).map_err(io::Error::other)? {
                Some(chunk) => self.here = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.here.len());
        self.here.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
