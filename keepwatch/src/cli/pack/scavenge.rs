//! `keepwatch pack scavenge`.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use keepwatch_pack::{Limits, Report, ScavengeOptions, Scavenger};
use serde_json::json;

use super::super::{Context, print};
use crate::error::{CommandError, Outcome};
use crate::show::safe::Safe;
use crate::signals::{self, Wish};
use crate::units::{count, human_size};

/// Flags of `keepwatch pack scavenge`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on for ever, with this much time between two rounds
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    pub every: Option<Duration>,
    /// Take staging files from living writers on this machine too: they go on in new ones
    #[arg(long)]
    pub flush: bool,
    /// The rotation of the workers; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = super::rotation)]
    pub rotation: Duration,
    /// Take what has not changed for so long from writers that cannot be asked, on other machines [default: 12 rotations,
    /// at least 2m]
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    pub stale_after: Option<Duration>,
    /// Begin another file of an archive at so many bytes
    #[arg(long, value_name = "SIZE", default_value = "50Gi", value_parser = super::size)]
    pub part_size: u64,
    /// Begin another file of an archive at so many members
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub part_members: u64,
}

/// Brings what is staged into archives.
pub(super) fn run(args: &Args, pack: &super::Args, context: &Context) -> Result<Outcome, CommandError> {
    let options = ScavengeOptions {
        rotation: args.rotation,
        stale_after: args.stale_after,
        flush: args.flush,
        limits: Limits { bytes: args.part_size, members: args.part_members, ..Limits::default() },
    };
    let scavenger = Scavenger::open(&pack.base, options).map_err(|error| pack.fail(&error))?;
    if context.globals.dry_run {
        return rehearse(args, pack);
    }
    let Some(every) = args.every else {
        let report = scavenger.scavenge().map_err(|error| pack.fail(&error))?;
        return tell(&report, context);
    };
    let wishes =
        signals::listen().map_err(|error| CommandError::failed(format!("cannot listen for signals: {error}")))?;
    loop {
        match scavenger.scavenge() {
            Ok(report) if report.is_idle() => {}
            Ok(report) => drop(tell(&report, context)?),
            // The next round may find it mended: a network that was away, a disk that was full.
            Err(error) => complain(&error.to_string()),
        }
        if is_over(&wishes, every) {
            return Ok(Outcome::Fine);
        }
    }
}

fn is_over(wishes: &Receiver<Wish>, every: Duration) -> bool {
    match wishes.recv_timeout(every) {
        Ok(Wish::Stop) | Err(RecvTimeoutError::Disconnected) => true,
        Ok(Wish::Reload) | Err(RecvTimeoutError::Timeout) => false,
    }
}

fn rehearse(args: &Args, pack: &super::Args) -> Result<Outcome, CommandError> {
    let status = pack.open()?.status().map_err(|error| pack.fail(&error))?;
    let taken = status.closed.files + status.dead.files + if args.flush { status.open.files } else { 0 };
    print(|out| writeln!(out, "would take {}", count(taken, "staging file")))?;
    Ok(Outcome::Fine)
}

/// Says what a round did; what went wrong goes to stderr.
fn tell(report: &Report, context: &Context) -> Result<Outcome, CommandError> {
    report.errors.iter().for_each(|error| complain(&error.to_string()));
    for (name, why) in &report.quarantined {
        complain(&format!("{name} could not be read in full, what is damaged is in quarantine: {why}"));
    }
    print(|out| {
        if context.globals.json {
            let renamed: Vec<_> =
                report.renamed.iter().map(|(archive, path)| json!({"archive": archive, "path": path})).collect();
            let errors: Vec<_> = report.errors.iter().map(ToString::to_string).collect();
            let line = json!({
                "claimed": report.claimed, "members": report.members, "bytes": report.bytes, "known": report.known,
                "renamed": renamed, "renamed_count": report.renamed_count, "archives": report.archives.len(),
                "bytes_written": report.bytes_written, "quarantined": report.quarantined.len(),
                "left_open": report.left_open, "errors": errors,
            });
            return writeln!(out, "{line}");
        }
        for (archive, path) in &report.renamed {
            writeln!(out, "{archive}: another member had the name, this one is {path}")?;
        }
        if context.globals.quiet {
            return Ok(());
        }
        write!(out, "packed {} ({})", count(report.members, "member"), human_size(report.bytes))?;
        write!(out, " into {}", count(report.archives.len() as u64, "archive"))?;
        write!(out, " from {}", count(report.claimed, "staging file"))?;
        for (number, what) in [(report.known, "packed before"), (report.left_open, "left to its writer")] {
            if number > 0 {
                write!(out, "; {number} {what}")?;
            }
        }
        writeln!(out)
    })?;
    Ok(match (report.errors.is_empty(), report.quarantined.is_empty()) {
        (false, _) => Outcome::Partly,
        (true, false) => Outcome::Findings,
        (true, true) => Outcome::Fine,
    })
}

fn complain(what: &str) {
    // Nobody is left to tell if stderr is gone.
    let _ = writeln!(std::io::stderr(), "warning: {}", Safe::text(what));
}
