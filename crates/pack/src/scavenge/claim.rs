//! Taking staging files: by a rename to a name that nobody else has.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::work::WorkDir;
use super::{Report, ScavengeOptions};
use crate::error::{During, PackError};
use crate::files::{Files, Kind, if_there, is_absent};
use crate::owner::Owner;
use crate::place::{self, Staging, staging_kind};

/// Claims all that can be; the claims in the order in which their writers began them, with those of work directories that
/// were taken over.
pub(super) fn claim(
    files: &dyn Files,
    work: &mut WorkDir<'_>,
    options: &ScavengeOptions,
    report: &mut Report,
) -> Result<Vec<PathBuf>, PackError> {
    let dir = place::staging_dir();
    let own = Owner::of_process();
    for name in files.list(dir).during("read", dir)? {
        let path = dir.join(&name);
        let may_take = match staging_kind(&name) {
            Staging::Closed => true,
            Staging::Open(owner) => may_take_open(work, &path, owner.as_ref(), &own, options, report)?,
            Staging::Spill(owner) => {
                // What was never finished is nobody's when its writer is dead.
                if owner.is_some_and(|owner| owner.is_dead()) {
                    if_there(files.remove(&path)).during("remove", &path)?;
                }
                false
            }
            Staging::Own | Staging::Stray => false,
        };
        if may_take
            && is_file(files, &path)?
            && let Err(error) = take(files, &path, &work.path().join(&name))
        {
            // It is one of many: the others do not wait for it.
            report.errors.push(error);
        }
        work.beat()?;
    }
    claims(files, work.path(), report)
}

/// What is claimed, as the work directory itself tells: a rename whose answer was lost has happened or has not.
fn claims(files: &dyn Files, work: &Path, report: &mut Report) -> Result<Vec<PathBuf>, PackError> {
    let names = files.list(work).during("read", work)?;
    let is_claim = |name: &OsString| matches!(staging_kind(name), Staging::Closed | Staging::Open(_));
    let mut names: Vec<OsString> = names.into_iter().filter(is_claim).collect();
    names.sort_by_cached_key(|name| (place::owner_of(name).map(|owner| owner.uuid), name.clone()));
    report.claimed += names.len() as u64;
    Ok(names.into_iter().map(|name| work.join(name)).collect())
}

fn may_take_open(
    work: &mut WorkDir<'_>,
    path: &Path,
    owner: Option<&Owner>,
    own: &Owner,
    options: &ScavengeOptions,
    report: &mut Report,
) -> Result<bool, PackError> {
    // On this machine what a writer has written can be read at once, so that taking its file is safe even when it lives.
    let is_near = owner.is_some_and(|owner| owner.boot == own.boot && own.boot != 0);
    let may = owner.is_some_and(Owner::is_dead) || (options.flush && is_near) || work.is_stale(path)?;
    report.left_open += u64::from(!may);
    Ok(may)
}

fn is_file(files: &dyn Files, path: &Path) -> Result<bool, PackError> {
    let facts = if_there(files.stat(path)).during("look at", path)?;
    Ok(facts.is_some_and(|facts| facts.kind == Kind::File))
}

/// Renames; whoever else was faster is right, and what was said about it is not: the directory tells.
fn take(files: &dyn Files, path: &Path, to: &Path) -> Result<(), PackError> {
    match files.rename(path, to) {
        Ok(()) => Ok(()),
        // So says the server. What the client of a network file system still believes to see is of before.
        Err(error) if is_absent(&error) => Ok(()),
        Err(_) if if_there(files.stat(path)).during("look at", path)?.is_none() => Ok(()),
        Err(error) => Err(error).during("claim", path),
    }
}
