//! `keepwatch log`: what happened to a file, across renames.

use std::ops::ControlFlow;
use std::path::PathBuf;

use keepwatch_engine::index::IndexLog;
use keepwatch_engine::inventory::LogQuery;
use keepwatch_journal::{Record, RootName};

use super::{Context, all_hosts, moment, place};
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::show::log::{Line, write_json};

/// Flags of `keepwatch log`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  keepwatch log /srv/records/2024/report.pdf
  keepwatch log --since 2026-11-01 --do delete
  keepwatch log --root records --json")]
pub struct Args {
    /// Whose history, of a directory with all below it; everything unless it is said
    pub path: Option<PathBuf>,
    /// Not before this moment: RFC 3339, a date, or `2h ago`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Not after this moment
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only records of this kind: create, modify, attrib, move, delete, settled, gap …
    #[arg(long = "do", value_name = "WHAT")]
    pub what: Vec<String>,
    /// Only of this root
    #[arg(long, value_name = "NAME")]
    pub root: Option<String>,
    /// Only what had this very name, not what the file was called before and after
    #[arg(long)]
    pub no_follow: bool,
    /// Of every host, from the shared index
    #[arg(long)]
    pub all_hosts: bool,
}

/// Prints records.
///
/// # Errors
/// If there is no inventory, or the path lies in no root.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&[])?.settings;
    let now = jiff::Zoned::now();
    let at = |text: &Option<String>| text.as_deref().map(|text| moment(text, &now)).transpose();
    let (since, until) = (at(&args.since)?, at(&args.until)?);
    if args.all_hosts {
        let query = IndexLog {
            root: args.root.as_deref().map(RootName::new),
            path: None,
            follow: !args.no_follow,
            since,
            until,
            words: args.what.clone(),
        };
        return all_hosts::log(&settings, context, args.path.as_deref(), &query);
    }
    engine::catch_up(&settings.state_dir);
    let view = engine::view(&settings.state_dir)?;
    let place = match &args.path {
        Some(path) => Some(place::find(path, &context.environment.current_dir, &view)?),
        None => None,
    };
    let root = args.root.as_deref().map(RootName::new);
    if let Some(root) = &root
        && view.roots()?.iter().all(|known| known.name != *root)
    {
        return Err(CommandError::usage(format!("the inventory knows no root `{root}`"))
            .hint("`keepwatch root list` lists them"));
    }
    let query = LogQuery {
        root: place.as_ref().map(|place| place.root.clone()).or(root),
        path: place.map(|place| place.path),
        follow: !args.no_follow,
        since,
        until,
        words: args.what.clone(),
    };
    let mut line = Vec::new();
    super::print(|out| {
        let mut result = Ok(());
        view.log(&query, |record: Record| {
            result = if context.globals.json {
                write_json(&record, &mut line, out)
            } else {
                writeln!(out, "{}", Line(&record))
            };
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .map_err(std::io::Error::other)?;
        result
    })?;
    Ok(Outcome::Fine)
}
