//! A plug-in as a target: a program that keeps objects in whatever way it likes, and is told what to do in lines of JSON on its
//! standard input. `docs/plugin-protocol.md` is its side of the story.

mod command;
mod message;
mod plugin;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use command::ExecCommand;

use super::store::{Abilities, Connect, Entry, Spool, Spooled, Store, StoreTarget, Told, names::Names};
use super::{Meta, Result, Target, TargetError, shown};
use crate::model::{Proof, RelPath};
use message::{Ask, Hello, Kind};
use plugin::{Plugin, plugin_error};

/// How long a plug-in is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecPatience {
    /// Without a word about a request, besides the time that its bytes may take.
    pub silence: Duration,
    /// Bytes a second that it moves at the least.
    pub rate_min: u64,
}

impl Default for ExecPatience {
    fn default() -> Self {
        ExecPatience { silence: Duration::from_secs(60), rate_min: 50_000 }
    }
}

/// A plug-in as a target.
///
/// `lead` is what stands in front of every path that it is told: nothing, or the slashes that a layout leaves there.
pub(super) fn target(command: &ExecCommand, lead: &[u8], patience: ExecPatience, spool: &Path) -> Arc<dyn Target> {
    let places = Arc::new(Places { command: command.clone(), names: Names::new(lead), patience });
    Arc::new(StoreTarget::new(Reached(places), spool))
}

/// Which program, and how it is spoken to.
#[derive(Debug)]
struct Places {
    command: ExecCommand,
    names: Names,
    patience: ExecPatience,
}

#[derive(Debug)]
struct Reached(Arc<Places>);

impl Connect for Reached {
    type Store = Plugged;

    fn place(&self) -> String {
        self.0.command.to_string()
    }

    fn expected(&self) -> Abilities {
        abilities(&Hello::default())
    }

    fn connect(&self, _: &Arc<Spool>) -> Result<Plugged> {
        let plugin = Plugin::start(&self.0.command, self.0.patience)?;
        Ok(Plugged { places: Arc::clone(&self.0), plugin })
    }
}

/// What a plug-in's own words come to.
fn abilities(hello: &Hello) -> Abilities {
    let proof = match (hello.checks_sha256, hello.reads) {
        (true, _) => Proof::Proved,
        (false, true) => Proof::Written,
        // Nobody will ever be able to tell.
        (false, false) => Proof::Presumed,
    };
    Abilities {
        read: hello.reads,
        rename: hello.renames,
        is_sorted: hello.is_sorted,
        proof,
        // Where times are not kept all are the same.
        mtime_step_ns: hello.mtime_step_ns.unwrap_or(i64::MAX),
        name_max: hello.name_max,
        at_once: hello.at_once,
    }
}

/// A plug-in at work.
struct Plugged {
    places: Arc<Places>,
    plugin: Plugin,
}

impl Plugged {
    fn simple(&self, ask: &Ask, doing: &'static str, path: &RelPath, bytes: u64) -> Result<message::Done> {
        self.plugin.ask(ask, bytes).map_err(|error| plugin_error(&self.place(), doing, path, error))
    }

    /// The objects whose names begin so, from this process.
    fn begin_with(&self, prefix: &[u8], limit: Option<u64>, path: &RelPath, told: &mut Told<'_>) -> Result<()> {
        let ask = Ask::new("list").bytes("prefix", prefix).number("limit", limit);
        let listed = self.plugin.list(&ask, &|name| self.places.names.path(name), told);
        listed.map(|_| ()).map_err(|error| plugin_error(&self.place(), "list", path, error))
    }
}

impl Store for Plugged {
    fn place(&self) -> String {
        self.places.command.to_string()
    }

    fn abilities(&self) -> Abilities {
        abilities(&self.plugin.hello)
    }

    fn is_lost(&self) -> bool {
        self.plugin.is_lost()
    }

    /// By a process of its own: one that does one thing after another would keep the rest waiting.
    fn list(&self, below: &RelPath, told: &mut Told<'_>) -> Result<()> {
        let lister = Plugin::start(&self.places.command, self.places.patience)?;
        let ask = Ask::new("list").bytes("prefix", &self.places.names.below(below));
        let listed = lister.list(&ask, &|name| self.places.names.path(name), told);
        if listed.as_ref().is_ok_and(ControlFlow::is_break) {
            lister.kill();
        }
        listed.map(|_| ()).map_err(|error| plugin_error(&self.place(), "list", below, error))
    }

    fn look(&self, path: &RelPath) -> Result<Option<Entry>> {
        // In order, what has just this name comes first of all that begin with it.
        let limit = self.plugin.hello.is_sorted.then_some(1);
        let mut found = None;
        self.begin_with(&self.places.names.name(path), limit, path, &mut |item| {
            if item.path != *path {
                return ControlFlow::Continue(());
            }
            found = Some(item.entry);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn holds(&self, dir: &RelPath) -> Result<bool> {
        let mut holds = false;
        self.begin_with(&self.places.names.below(dir), Some(1), dir, &mut |item| {
            holds = item.path.is_within(dir) && item.path != *dir;
            if holds { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(holds)
    }

    fn put(&self, path: &RelPath, meta: &Meta, what: &Spooled) -> Result<()> {
        let ask = Ask::new("upload").bytes("path", &self.places.names.name(path)).meta(meta);
        match what {
            Spooled::Symlink(to) => {
                if !self.plugin.hello.takes_symlinks {
                    let why = "the plug-in takes no symbolic links".to_owned();
                    return Err(TargetError::Refused { path: shown(path), why });
                }
                self.simple(&ask.text("kind", "symlink").bytes("target", to), "write", path, 0).map(|_| ())
            }
            Spooled::File { file, size, sha256 } => {
                let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
                let ask = ask.text("kind", "file").number("size", Some(*size)).text("sha256", &hex);
                let done = self.simple(&ask.path("file", file.path()), "write", path, *size)?;
                match done.sha256 {
                    Some(found) if !found.eq_ignore_ascii_case(&hex) => {
                        Err(plugin::wrong(path, format!("what the plug-in stored has another hash: {found}")))
                    }
                    None if self.plugin.hello.checks_sha256 => {
                        let why = "the plug-in says that it checks sha256, and does not say which it found";
                        Err(plugin::wrong(path, why.to_owned()))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    fn read(&self, path: &RelPath, spool: &Spool) -> Result<Box<dyn Read + Send>> {
        let failed = |source| TargetError::Io { doing: "read", path: shown(path), source };
        let size = self.look(path)?.map_or(0, |entry| entry.found.size);
        let file = spool.place().map_err(failed)?;
        std::fs::File::create_new(file.path()).map_err(failed)?;
        let ask = Ask::new("read").bytes("path", &self.places.names.name(path)).path("file", file.path());
        self.simple(&ask, "read", path, size)?;
        // It stays readable when its name is gone.
        Ok(Box::new(file.open().map_err(failed)?))
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let ask =
            Ask::new("rename").bytes("path", &self.places.names.name(from)).bytes("to", &self.places.names.name(to));
        self.simple(&ask, "rename", from, 0).map(|_| ())
    }

    fn delete(&self, path: &RelPath) -> Result<()> {
        let deleted = self.plugin.ask(&Ask::new("delete").bytes("path", &self.places.names.name(path)), 0);
        match deleted {
            Err(plugin::Fault::Said { kind: Kind::Missing, .. }) => Ok(()),
            Err(error) => Err(plugin_error(&self.place(), "remove", path, error)),
            Ok(_) => Ok(()),
        }
    }
}
