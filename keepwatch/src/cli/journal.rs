//! `keepwatch journal`: the chain, its head, its records.

use std::sync::Arc;

use keepwatch_journal::{Cursor, Reader, RealDisk, Seq, VerifyOptions, verify};
use serde_json::json;

use super::Context;
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::show::safe::Safe;
use crate::units::count;

/// Flags of `keepwatch journal`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do with it.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with the journal.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check the chain from its first byte to its last
    ///
    /// A chain alone cannot show that somebody who may write the files has made all of it anew, or cut it off. Keep
    /// `keepwatch journal head` elsewhere from time to time, and hold the journal against it with --head.
    Verify(VerifyArgs),
    /// Print where the journal ends: to be kept elsewhere
    Head,
    /// Print records as they stand
    Cat(CatArgs),
}

/// Flags of `keepwatch journal verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// A head that was kept elsewhere, as `keepwatch journal head` printed it; the journal must hold it
    #[arg(long, value_name = "HEAD")]
    pub head: Option<Cursor>,
    /// Read every record, not only the chain
    #[arg(long)]
    pub deep: bool,
}

/// Flags of `keepwatch journal cat`.
#[derive(Debug, clap::Args)]
pub struct CatArgs {
    /// Begin with this record
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    pub from: u64,
    /// End with this record
    #[arg(long, value_name = "SEQ")]
    pub to: Option<u64>,
}

/// Does it.
///
/// # Errors
/// If there is no journal, or it cannot be read.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&[])?.settings;
    let dir = engine::journal_of(&settings.state_dir);
    if !dir.is_dir() {
        return Err(CommandError::failed(format!("there is no journal in {}", settings.state_dir.display()))
            .hint("`keepwatch run` makes one; name another state directory with `--state-dir DIR`"));
    }
    match &args.command {
        Command::Verify(verify) => check(verify, &dir, context),
        Command::Head => head(&dir, context),
        Command::Cat(cat) => print_records(cat, &dir),
    }
}

fn check(args: &VerifyArgs, dir: &std::path::Path, context: &Context) -> Result<Outcome, CommandError> {
    let options = VerifyOptions { head: args.head, deep: args.deep };
    let report =
        verify(&RealDisk, dir, &options).map_err(|error| CommandError::failed(engine::with_sources(&error)))?;
    let sound = report.findings.is_empty();
    super::print(|out| {
        if context.globals.json {
            let findings: Vec<_> = report
                .findings
                .iter()
                .map(|finding| {
                    json!({
                        "file": finding.file.display().to_string(), "line": finding.line,
                        "seq": finding.seq.0, "kind": finding.kind.as_str(), "what": finding.what,
                    })
                })
                .collect();
            let line = json!({
                "sound": sound, "records": report.records, "files": report.files,
                "head": report.head.map(|head| head.to_string()), "findings": findings,
            });
            return writeln!(out, "{line}");
        }
        for finding in &report.findings {
            writeln!(out, "{}", Safe::text(&finding.to_string()))?;
        }
        if context.globals.quiet {
            return Ok(());
        }
        let verdict = if sound { "the chain is sound" } else { "the chain does NOT verify" };
        write!(out, "{verdict}: {} in {}", count(report.records, "record"), count(report.files, "file"))?;
        match report.head {
            Some(head) => writeln!(out, ", head {head}"),
            None => writeln!(out),
        }
    })?;
    Ok(if sound { Outcome::Fine } else { Outcome::Findings })
}

fn head(dir: &std::path::Path, context: &Context) -> Result<Outcome, CommandError> {
    let options = VerifyOptions::default();
    let report =
        verify(&RealDisk, dir, &options).map_err(|error| CommandError::failed(engine::with_sources(&error)))?;
    let head = report.head;
    super::print(|out| match (head, context.globals.json) {
        (None, _) => writeln!(out, "the journal is empty"),
        (Some(head), true) => {
            let line = json!({
                "journal_id": head.journal.to_string(), "seq": head.seq.0, "hash": head.hash.to_string()
            });
            writeln!(out, "{line}")
        }
        (Some(head), false) => writeln!(out, "{head}"),
    })?;
    Ok(Outcome::Fine)
}

fn print_records(args: &CatArgs, dir: &std::path::Path) -> Result<Outcome, CommandError> {
    let failed = |error: keepwatch_journal::ReadError| CommandError::failed(engine::with_sources(&error));
    let mut reader = Reader::open(Arc::new(RealDisk), dir, Seq(args.from.saturating_sub(1))).map_err(failed)?;
    while let Some(batch) = reader.next_batch().map_err(failed)? {
        super::print(|out| {
            for (record, line) in batch.records.iter().zip(batch.lines()) {
                if record.seq.0 >= args.from && args.to.is_none_or(|to| record.seq.0 <= to) {
                    out.write_all(line)?;
                    out.write_all(b"\n")?;
                }
            }
            Ok(())
        })?;
        if args.to.is_some_and(|to| batch.cursor.seq.0 >= to) {
            break;
        }
    }
    Ok(Outcome::Fine)
}
