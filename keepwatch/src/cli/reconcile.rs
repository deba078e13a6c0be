//! `keepwatch reconcile`: walk, journal and report the drift, mend the inventory.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use keepwatch_engine::daemon::preview::preview;
use keepwatch_engine::daemon::sequencer::Difference;
use keepwatch_engine::daemon::service::reconcile_once;
use keepwatch_journal::json::text::{push_bytes_field, push_name, push_string};
use keepwatch_journal::{Body, Reader, RealDisk, RelPath, RootName, Seq, Via};
use serde_json::json;

use super::Context;
use crate::config::Settings;
use crate::control::Request;
use crate::control::client::Client;
use crate::engine;
use crate::error::{CommandError, Kind, Outcome};
use crate::logging::{self, Talk};
use crate::service::{Reconciled, wait_reconciled};
use crate::show::log::{Line, write_json};
use crate::show::progress::ScanBar;
use crate::show::safe::Safe;
use crate::units::count;

/// Flags of `keepwatch reconcile`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 1 if something differed. A running service does it; without one this command does.

Examples:
  keepwatch reconcile
  keepwatch reconcile records -n")]
pub struct Args {
    /// Which root; all unless it is said
    pub root: Option<String>,
    /// Do without a configuration: reconcile this directory
    #[arg(long = "root", value_name = "DIR", id = "dir")]
    pub dirs: Vec<std::path::PathBuf>,
    /// Print only how much differed, not what
    #[arg(long)]
    pub summary: bool,
}

/// Reconciles, or shows what it would journal.
///
/// # Errors
/// If there is no such root, or it cannot be done.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&args.dirs)?.settings;
    logging::start(settings.log, &context.globals, Talk::Command);
    if context.globals.dry_run {
        check_roots(args, &settings)?;
        return show_only(args, &settings, context.globals.json);
    }
    // A running service knows its own roots, which may have been named by flags.
    let request = Request::Reconcile { root: args.root.clone() };
    let bar = ScanBar::new(context.globals.quiet);
    let sum = match Client::new(&settings.state_dir).call(&request, |data| {
        bar.show(serde_json::from_value(data).unwrap_or_default());
        Ok(())
    }) {
        Ok(answer) => serde_json::from_value(answer)
            .map_err(|error| CommandError::failed(format!("the service's answer cannot be understood: {error}")))?,
        Err(error) if error.kind == Kind::Unreachable => {
            check_roots(args, &settings)?;
            alone(args, &settings, &bar)?
        }
        Err(error) => return Err(error),
    };
    bar.end();
    let found = report(args, &settings, context, sum)?;
    match (sum.failed + sum.absent, found) {
        (0, 0) => Ok(Outcome::Fine),
        (0, _) => Ok(Outcome::Findings),
        _ => Ok(Outcome::Partly),
    }
}

/// Whether what is to be reconciled is known here.
fn check_roots(args: &Args, settings: &Settings) -> Result<(), CommandError> {
    if let Some(name) = &args.root
        && settings.roots.iter().all(|root| root.name != *name)
    {
        let names: Vec<&str> = settings.roots.iter().map(|root| root.name.as_str()).collect();
        return Err(CommandError::usage(format!("there is no root `{}`", Safe::text(name)))
            .hint(format!("the roots are: {}", names.join(", "))));
    }
    if settings.roots.is_empty() {
        return Err(CommandError::usage("there is no root to reconcile").hint("name a directory with `--root DIR`"));
    }
    Ok(())
}

/// Without a service: take the state directory and do it.
fn alone(args: &Args, settings: &Settings, bar: &ScanBar) -> Result<Reconciled, CommandError> {
    let root = args.root.as_deref().map(RootName::new);
    let (handle, result) = reconcile_once(engine::settings(settings), root.clone())?;
    let sum = wait_reconciled(&handle.commands(), root.as_ref(), &result, &mut |scan| bar.show(scan)).ok();
    handle.join().map_err(|error| CommandError::failed(engine::with_sources(&error)))?;
    match sum {
        Some(Ok(sum)) => Ok(sum.into()),
        Some(Err(why)) => Err(CommandError::failed(why)),
        None => Err(CommandError::failed("the reconciliation ended before it was complete")),
    }
}

/// Prints what was found, from the journal; says how many changes that were.
fn report(args: &Args, settings: &Settings, context: &Context, sum: Reconciled) -> Result<u64, CommandError> {
    let json = context.globals.json;
    let mut found = 0;
    let quiet = args.summary || context.globals.quiet;
    super::print(|out| {
        if quiet && !json {
            found = sum.found;
        } else if sum.to > 0 {
            found = print_found(&engine::journal_of(&settings.state_dir), sum, json, quiet, out)?;
        }
        if json {
            let line =
                json!({"scanned": sum.scanned, "found": found, "failed": sum.failed, "absent_roots": sum.absent});
            return writeln!(out, "{line}");
        }
        if context.globals.quiet {
            return Ok(());
        }
        write!(out, "{} looked at, {} found and journaled", count(sum.scanned, "object"), count(found, "change"))?;
        if sum.failed > 0 {
            write!(out, ", {} could not be read (see `keepwatch status`)", sum.failed)?;
        }
        if sum.absent > 0 {
            write!(out, ", {} absent", count(sum.absent, "root"))?;
        }
        writeln!(out)
    })?;
    Ok(found)
}

fn print_found(journal: &Path, sum: Reconciled, json: bool, quiet: bool, out: &mut dyn Write) -> std::io::Result<u64> {
    let mut reader =
        Reader::open(Arc::new(RealDisk), journal, Seq(sum.from.saturating_sub(1))).map_err(std::io::Error::other)?;
    let mut found = 0;
    let mut line = Vec::new();
    while let Some(batch) = reader.next_batch().map_err(std::io::Error::other)? {
        for record in batch.records.iter().filter(|record| (sum.from..=sum.to).contains(&record.seq.0)) {
            if !matches!(&record.body, Body::Change(change) if change.via == Via::Scan) {
                continue;
            }
            found += 1;
            match (quiet, json) {
                (true, _) => {}
                (_, true) => write_json(record, &mut line, out)?,
                (_, false) => writeln!(out, "{}", Line(record))?,
            }
        }
        if batch.cursor.seq.0 >= sum.to {
            break;
        }
    }
    Ok(found)
}

/// What differs now, without journaling it.
fn show_only(args: &Args, settings: &Settings, json: bool) -> Result<Outcome, CommandError> {
    engine::catch_up(&settings.state_dir);
    engine::view(&settings.state_dir)?;
    let told = engine::settings(settings);
    let (mut found, mut failed) = (0_u64, 0);
    for root in told.roots.iter().filter(|root| args.root.as_deref().is_none_or(|name| root.name.as_str() == name)) {
        let mut lines: Vec<u8> = Vec::new();
        let report = preview(&told, root, &RelPath::ROOT, |dir, difference| {
            let (word, name) = match &difference {
                Difference::New { name, .. } => ("new", name),
                Difference::Changed { name, .. } => ("changed", name),
                Difference::Absent { name } => ("absent", name),
            };
            found += 1;
            push_line(&mut lines, root.name.as_str(), word, &dir.join(name), json);
            if lines.len() > LINES_BYTES {
                let _ = super::print(|out| out.write_all(&lines));
                lines.clear();
            }
        })
        .map_err(|error| CommandError::failed(engine::with_sources(&error)))?;
        failed += report.failed;
        super::print(|out| out.write_all(&lines))?;
    }
    if !json {
        super::print(|out| writeln!(out, "{found} names differ; nothing was changed"))?;
    }
    Ok(match (failed, found) {
        (0, 0) => Outcome::Fine,
        (0, _) => Outcome::Findings,
        _ => Outcome::Partly,
    })
}

/// Lines are printed in blocks of this size.
const LINES_BYTES: usize = 1 << 16;

fn push_line(lines: &mut Vec<u8>, root: &str, word: &str, path: &RelPath, json: bool) {
    if json {
        lines.extend_from_slice(b"{\"root\":");
        push_string(lines, root);
        push_name(lines, "differs");
        push_string(lines, word);
        push_bytes_field(lines, "path", path.as_bytes());
        lines.extend_from_slice(b"}\n");
    } else {
        lines.extend_from_slice(format!("{word:<8} {}:{}\n", Safe::text(root), Safe(path.as_bytes())).as_bytes());
    }
}
