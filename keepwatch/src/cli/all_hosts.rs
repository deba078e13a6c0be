//! `ls`, `log`, `status` and `replica list` with `--all-hosts`: the same questions, answered by the shared index.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use keepwatch_engine::index::{
    IndexError, IndexHost, IndexLog, IndexMoment, IndexRoot, IndexSettings, IndexView, Stop,
};
use keepwatch_journal::{RelPath, RootName, Timestamp};

use super::{Context, place, table};
use crate::config::Settings;
use crate::config::postgres::PostgresSettings;
use crate::error::{CommandError, Kind, Outcome};
use crate::show::log::{Line, write_json};
use crate::show::ls::{Listing, Row};
use crate::show::safe::Safe;
use crate::units::human_size;

/// Where the shared index is.
///
/// # Errors
/// A usage error if the configuration names none.
pub fn settings(settings: &Settings) -> Result<IndexSettings, CommandError> {
    settings.postgres.as_ref().and_then(PostgresSettings::for_engine).ok_or_else(|| {
        CommandError::usage("there is no shared index in the configuration")
            .hint("add [postgres] with a `url` to it; docs/sql.md says how")
    })
}

fn open(of: &Settings) -> Result<IndexView, CommandError> {
    Ok(IndexView::open(&settings(of)?, Stop::default())?)
}

/// Every root that an absolute path lies in, on whatever host, with the path in it; without a path, every root whole.
fn places<'h>(
    hosts: &'h [IndexHost],
    path: Option<&Path>,
    context: &Context,
) -> Vec<(&'h IndexHost, &'h IndexRoot, RelPath)> {
    let absolute = path.map(|path| place::clean(&context.environment.current_dir.join(path)));
    let mut places = Vec::new();
    for host in hosts {
        for root in &host.roots {
            let rel = match &absolute {
                None => Some(RelPath::ROOT),
                Some(path) => root.dir.as_deref().and_then(|dir| {
                    let rel = path.strip_prefix(Path::new(std::ffi::OsStr::from_bytes(dir))).ok()?;
                    RelPath::new(rel.as_os_str().as_bytes().to_vec()).ok()
                }),
            };
            places.extend(rel.map(|rel| (host, root, rel)));
        }
    }
    places
}

fn in_no_root(path: &Path) -> CommandError {
    CommandError::usage(format!("{} lies in no root of any host", Safe::path(path)))
        .hint("`keepwatch status --all-hosts` lists the roots")
}

/// A host, what of it was asked for, and when; `None` where its history in the index begins later.
struct Asked<'h> {
    host: &'h IndexHost,
    places: Vec<(&'h IndexRoot, RelPath)>,
    moment: Option<IndexMoment>,
    is_uncertain: bool,
}

/// `ls --all-hosts`, now or as it was at a moment.
///
/// # Errors
/// If the index cannot be read, or the path lies in no root.
pub fn list(
    of: &Settings,
    context: &Context,
    path: Option<&Path>,
    at: Option<Timestamp>,
    listing: &mut dyn Listing,
) -> Result<Outcome, CommandError> {
    let view = open(of)?;
    let hosts = view.hosts()?;
    let places = places(&hosts, path, context);
    if let (true, Some(path)) = (places.is_empty(), path) {
        return Err(in_no_root(path));
    }
    let wants_one = places.iter().any(|(_, _, rel)| !rel.is_root());
    let mut asked: Vec<Asked<'_>> = Vec::new();
    for (host, root, rel) in places {
        match asked.last_mut().filter(|asked| asked.host.name == host.name) {
            Some(asked) => asked.places.push((root, rel)),
            None => {
                let moment = view.moment(host, at)?;
                asked.push(Asked { host, places: vec![(root, rel)], moment, is_uncertain: false });
            }
        }
    }
    let mut rows = 0_u64;
    let mut failed: Option<IndexError> = None;
    super::print(|out| {
        for Asked { host, places, moment, is_uncertain } in &mut asked {
            let Some(moment) = *moment else { continue };
            match list_host(&view, host, places, moment, listing, out) {
                Ok(told) => rows += told?,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            let of: Vec<_> = places.iter().map(|(root, rel)| (*root, rel)).collect();
            match view.is_uncertain(host, &of, moment) {
                Ok(found) => *is_uncertain = found,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        Ok(())
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if !context.globals.quiet {
        asked.iter().for_each(|asked| tell_doubts(asked, at.is_some()));
    }
    let lacks_one = asked.iter().any(|asked| asked.moment.is_none());
    if rows == 0 && wants_one && !lacks_one {
        return Err(CommandError::new(Kind::Findings, "the shared index knows nothing of that name"));
    }
    Ok(if lacks_one { Outcome::Findings } else { Outcome::Fine })
}

/// Writes what stands or stood on one host; how many rows, and whether they could be written.
fn list_host(
    view: &IndexView,
    host: &IndexHost,
    places: &[(&IndexRoot, RelPath)],
    moment: IndexMoment,
    listing: &mut dyn Listing,
    out: &mut dyn Write,
) -> Result<io::Result<u64>, IndexError> {
    let mut rows = 0;
    for (root, rel) in places {
        let mut result = Ok(());
        view.list(host, root, rel, moment, |name| {
            let row = Row {
                host: &host.name,
                root: root.name.as_str(),
                root_path: root.dir.as_deref().unwrap_or_default(),
                path: name.path.as_bytes(),
                facts: name.facts.as_ref(),
                sha256: name.sha256.as_ref(),
            };
            rows += 1;
            result = listing.row(&row, out);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if let Err(error) = result {
            return Ok(Err(error));
        }
    }
    Ok(Ok(rows))
}

fn tell_doubts(asked: &Asked<'_>, past: bool) {
    let host = Safe::text(&asked.host.name);
    let mut err = io::stderr();
    if asked.moment.is_none() {
        let _ = writeln!(
            err,
            "{host}: its history in the shared index begins later, so what stood there then is not known; ask on the host \
             itself"
        );
    } else if asked.is_uncertain {
        let when = if past { "was" } else { "is" };
        let _ = writeln!(
            err,
            "uncertain on {host}: a gap {when} open then, so changes may have been missed; see \
             `keepwatch log --all-hosts --do gap`"
        );
    }
}

/// `log --all-hosts`.
///
/// # Errors
/// If the index cannot be read, or the path lies in no root.
pub fn log(of: &Settings, context: &Context, path: Option<&Path>, query: &IndexLog) -> Result<Outcome, CommandError> {
    let view = open(of)?;
    let hosts = view.hosts()?;
    let mut asked: Vec<(&IndexHost, IndexLog)> = Vec::new();
    match path {
        None => asked.extend(hosts.iter().map(|host| (host, query.clone()))),
        Some(path) => {
            let places = places(&hosts, Some(path), context);
            if places.is_empty() {
                return Err(in_no_root(path));
            }
            let with = |root: RootName, path| IndexLog { root: Some(root), path: Some(path), ..query.clone() };
            asked.extend(places.into_iter().map(|(host, root, path)| (host, with(root.name.clone(), path))));
        }
    }
    let mut failed: Option<IndexError> = None;
    let mut line = Vec::new();
    super::print(|out| {
        for (host, query) in &asked {
            let mut result = Ok(());
            let done = view.log(host, query, |record| {
                result = if context.globals.json {
                    // The record as it stands, with the host before it.
                    let name = serde_json::Value::from(host.name.as_str());
                    let mut own = Vec::new();
                    write_json(&record, &mut line, &mut own)
                        .and_then(|()| write!(out, "{{\"host\":{name},"))
                        .and_then(|()| out.write_all(own.get(1..).unwrap_or_default()))
                } else {
                    writeln!(out, "{}  {}", Safe::text(&host.name), Line(&record))
                };
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            result?;
            if let Err(error) = done {
                failed = Some(error);
                break;
            }
        }
        Ok(())
    })?;
    failed.map_or(Ok(Outcome::Fine), |error| Err(error.into()))
}

/// `status --all-hosts`.
///
/// # Errors
/// If the index cannot be read.
pub fn status(of: &Settings, context: &Context) -> Result<Outcome, CommandError> {
    let hosts = open(of)?.hosts()?;
    super::print(|out| {
        for host in &hosts {
            let behind = host.head.0.saturating_sub(host.seq.0);
            if context.globals.json {
                let roots: Vec<_> = host
                    .roots
                    .iter()
                    .map(|root| {
                        let path = String::from_utf8_lossy(root.dir.as_deref().unwrap_or_default()).into_owned();
                        serde_json::json!({"name": root.name.as_str(), "path": path, "watched": root.watched,
                            "files": root.files, "dirs": root.dirs, "bytes": root.bytes})
                    })
                    .collect();
                let line = serde_json::json!({"host": host.name, "seq": host.seq.0, "lag_records": behind,
                    "last_heard": host.moved.to_string(), "problems": host.problems, "roots": roots});
                writeln!(out, "{line}")?;
                continue;
            }
            write!(out, "{}: at {}", Safe::text(&host.name), host.seq)?;
            if behind > 0 {
                write!(out, ", {behind} records behind")?;
            }
            write!(out, ", last heard of at {}", host.moved)?;
            if host.problems > 0 {
                write!(out, ", {} records not applied in full", host.problems)?;
            }
            writeln!(out)?;
            for root in &host.roots {
                let path = Safe(root.dir.as_deref().unwrap_or_default());
                let watched = if root.watched { "" } else { ", not watched" };
                let (name, size) = (Safe::text(root.name.as_str()), human_size(root.bytes));
                writeln!(
                    out,
                    "  root {name}  {path}  {} files in {} directories, {size}{watched}",
                    root.files, root.dirs
                )?;
            }
        }
        Ok(())
    })?;
    let has_problems = hosts.iter().any(|host| host.problems > 0);
    Ok(if has_problems { Outcome::Findings } else { Outcome::Fine })
}

/// `replica list --all-hosts`.
///
/// # Errors
/// If the index cannot be read.
pub fn replicas(of: &Settings, context: &Context) -> Result<Outcome, CommandError> {
    let replicas = open(of)?.replicas()?;
    super::print(|out| {
        if context.globals.json {
            return replicas.iter().try_for_each(|replica| {
                let line = serde_json::json!({"host": replica.host, "name": replica.name, "url": replica.url,
                    "files": replica.files, "bytes": replica.bytes, "failed": replica.failed});
                writeln!(out, "{line}")
            });
        }
        let mut rows = vec![["HOST", "NAME", "FILES", "BYTES", "FAILED", "URL"].map(str::to_owned)];
        rows.extend(replicas.iter().map(|replica| {
            [
                Safe::text(&replica.host).to_string(),
                Safe::text(&replica.name).to_string(),
                replica.files.to_string(),
                human_size(replica.bytes),
                replica.failed.to_string(),
                replica.url.as_ref().map_or_else(|| "-".to_owned(), |url| Safe::text(url).to_string()),
            ]
        }));
        table::write(out, &rows, |_| None)
    })?;
    let has_failed = replicas.iter().any(|replica| replica.failed > 0);
    Ok(if has_failed { Outcome::Findings } else { Outcome::Fine })
}
