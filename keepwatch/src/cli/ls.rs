//! `keepwatch ls`: the inventory.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use keepwatch_engine::inventory::{InventoryError, ListQuery, Listed as Name, Listing as Listed, View};
use keepwatch_journal::{FileType, RelPath};

use super::{Context, all_hosts, moment, place};
use crate::config::Settings;
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::show::ls::{JsonLines, Listing, Long, Null, Row};

/// Flags of `keepwatch ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  keepwatch ls /srv/records/2024
  keepwatch ls --at 2026-11-01T12:00:00Z
  keepwatch ls --at '2h ago' --json")]
pub struct Args {
    /// What to list, with all below it; everything unless it is said
    pub path: Option<PathBuf>,
    /// As it was at this moment: RFC 3339, a date, or `2h ago`
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Only paths, raw, each ended by a NUL byte
    #[arg(short = '0', long, conflicts_with = "json")]
    pub null: bool,
    /// Only files that fewer than `copies_min` replicas are proved to hold
    #[arg(long, conflicts_with_all = ["at", "all_hosts"])]
    pub under_copied: bool,
    /// Of every host, from the shared index
    #[arg(long)]
    pub all_hosts: bool,
}

/// Lists.
///
/// # Errors
/// If there is no inventory, or the path lies in no root.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&[])?.settings;
    let now = jiff::Zoned::now();
    let mut listing: Box<dyn Listing> = match (context.globals.json, args.null) {
        (true, _) => Box::new(JsonLines::default()),
        (_, true) => Box::new(Null::default()),
        _ => Box::new(Long::new(now.time_zone().clone())),
    };
    let at = args.at.as_deref().map(|at| moment(at, &now)).transpose()?;
    if args.all_hosts {
        return all_hosts::list(&settings, context, args.path.as_deref(), at, &mut *listing);
    }
    engine::catch_up(&settings.state_dir);
    let view = engine::view(&settings.state_dir)?;
    let place = match &args.path {
        Some(path) => Some(place::find(path, &context.environment.current_dir, &view)?),
        None => None,
    };
    let host = view.host()?;
    let roots = view.roots()?.into_iter().map(|root| {
        let dir = root.dir.unwrap_or_default();
        // Where the host has no field of its own it stands in front.
        let shown = match &root.host {
            Some(host) if !context.globals.json => [host.as_bytes(), b":", &dir].concat(),
            _ => dir.to_vec(),
        };
        (root.name, (root.host, shown))
    });
    let dirs: HashMap<_, _> = roots.collect();
    let query = ListQuery {
        root: place.as_ref().map(|place| place.root.clone()),
        path: place.map_or(RelPath::ROOT, |place| place.path),
        at,
    };
    if args.under_copied && settings.roots.iter().all(|root| root.copies_min == 0) {
        return Err(CommandError::usage("no root says how many copies its files need")
            .hint("set it: `copies_min = 2` in [roots.NAME]"));
    }
    // Another connection, because the listing holds this one.
    let counting = engine::view(&settings.state_dir)?;
    let mut listed: Option<Listed> = None;
    let mut rows = 0_u64;
    super::print(|out| {
        let mut result = Ok(());
        let done = view.list(&query, |name| {
            if name.path.is_root() {
                return ControlFlow::Continue(());
            }
            if args.under_copied {
                match is_under_copied(&name, &settings, &counting) {
                    Ok(true) => {}
                    Ok(false) => return ControlFlow::Continue(()),
                    Err(error) => {
                        result = Err(std::io::Error::other(error));
                        return ControlFlow::Break(());
                    }
                }
            }
            let (of, dir) = dirs.get(&name.root).map_or((None, &b""[..]), |(of, dir)| (of.as_deref(), &dir[..]));
            let row = Row {
                host: of.unwrap_or(&host),
                root: name.root.as_str(),
                root_path: dir,
                path: name.path.as_bytes(),
                facts: name.facts.as_ref(),
                sha256: name.sha256.as_ref(),
            };
            rows += 1;
            result = listing.row(&row, out);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        listed = Some(done.map_err(std::io::Error::other)?);
        result
    })?;
    let uncertain = listed.is_some_and(|listed| listed.uncertain);
    if uncertain && !context.globals.quiet {
        tell_uncertain(args.at.is_some());
    }
    if args.under_copied {
        return Ok(if rows > 0 { Outcome::Findings } else { Outcome::Fine });
    }
    if rows == 0 && args.path.is_some() && !query.path.is_root() {
        return Err(CommandError::new(crate::error::Kind::Findings, "the inventory knows nothing of that name")
            .hint("`keepwatch log PATH` tells whether it ever did"));
    }
    Ok(Outcome::Fine)
}

/// Whether fewer replicas than its root asks for are proved to hold the current version of a file.
fn is_under_copied(name: &Name, settings: &Settings, view: &View) -> Result<bool, InventoryError> {
    let wanted = settings.roots.iter().find(|root| root.name == name.root.as_str()).map_or(0, |root| root.copies_min);
    if wanted == 0 || name.kind != Some(FileType::File) {
        return Ok(false);
    }
    let names = view.names_of(name.file_id)?;
    let Some(named) = names.into_iter().next() else { return Ok(true) };
    Ok(view.proved_copies(&named.known)? < wanted)
}

fn tell_uncertain(past: bool) {
    use std::io::Write as _;
    let when = if past { "was" } else { "is" };
    let _ = writeln!(
        std::io::stderr(),
        "uncertain: a gap {when} open then, so changes may have been missed; see `keepwatch log --do gap`"
    );
}
