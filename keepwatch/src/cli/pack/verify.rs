//! `keepwatch pack verify`.

use std::ffi::OsString;

use keepwatch_pack::{Finding, Verified};
use serde_json::json;

use super::super::{Context, print};
use crate::error::{CommandError, Outcome};
use crate::show::safe::Safe;
use crate::units::{count, human_size};

/// Flags of `keepwatch pack verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// These archives; all unless any is named
    #[arg(value_name = "ARCHIVE")]
    pub archives: Vec<OsString>,
}

/// Reads everything.
pub(super) fn run(args: &Args, pack: &super::Args, context: &Context) -> Result<Outcome, CommandError> {
    let base = pack.open()?;
    let archives = match args.archives.as_slice() {
        [] => base.packed_archives().map_err(|error| pack.fail(&error))?,
        names => names.iter().map(|name| super::archive(name)).collect::<Result<_, _>>()?,
    };
    let mut sum = Verified::default();
    let mut done = Ok(());
    print(|out| {
        let mut told = Ok(());
        for archive in &archives {
            let verified = base.verify(archive, &mut |finding| {
                if told.is_ok() {
                    told = tell(finding, context.globals.json, out);
                }
            });
            match verified {
                Ok(verified) => {
                    sum.parts += verified.parts;
                    sum.members += verified.members;
                    sum.bytes += verified.bytes;
                    sum.findings += verified.findings;
                }
                Err(error) => {
                    done = Err(pack.fail(&error));
                    break;
                }
            }
        }
        told?;
        if !context.globals.quiet && !context.globals.json && done.is_ok() {
            let verdict = if sum.findings == 0 { "all is sound" } else { "NOT all is sound" };
            let (members, parts) = (count(sum.members, "member"), count(sum.parts, "file"));
            writeln!(out, "{verdict}: {members} in {parts}, {}", human_size(sum.bytes))?;
        }
        Ok(())
    })?;
    done?;
    Ok(if sum.findings == 0 { Outcome::Fine } else { Outcome::Findings })
}

fn tell(finding: &Finding, json: bool, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    let Finding { path, member, what } = finding;
    if json {
        return writeln!(out, "{}", json!({"path": path.to_string_lossy(), "member": member, "what": what}));
    }
    match member {
        Some(member) => writeln!(out, "{}: {}: {}", Safe::path(path), Safe::text(member), Safe::text(what)),
        None => writeln!(out, "{}: {}", Safe::path(path), Safe::text(what)),
    }
}
