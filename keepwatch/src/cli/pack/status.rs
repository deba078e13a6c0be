//! `keepwatch pack status`.

use std::io::{self, Write};

use keepwatch_pack::{ArchiveStatus, Count, Status};
use serde_json::{Value, json};

use super::super::{Context, print};
use super::Args;
use crate::error::{CommandError, Outcome};
use crate::packs::oldest_s;
use crate::show::safe::Safe;
use crate::show::status::age;
use crate::units::{count, human_size};

/// Says how things are.
pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let status = args.open()?.status().map_err(|error| args.fail(&error))?;
    let oldest = oldest_s(&status);
    print(|out| {
        if context.globals.json {
            return writeln!(out, "{}", as_json(&status, oldest));
        }
        shown(&status, oldest, out)
    })?;
    Ok(if status.needs_attention() { Outcome::Findings } else { Outcome::Fine })
}

fn shown(status: &Status, oldest: Option<u64>, out: &mut dyn Write) -> io::Result<()> {
    let kinds = [
        ("staged, ready to be packed", status.closed),
        ("staged, being written", status.open),
        ("staged, of writers that died", status.dead),
        ("claimed by a scavenger", status.claimed),
        ("large members being written", status.unfinished),
    ];
    for (what, Count { files, bytes }) in kinds.iter().filter(|(_, count)| count.files > 0) {
        writeln!(out, "{what}: {}, {}", count(*files, "file"), human_size(*bytes))?;
    }
    match oldest {
        Some(seconds) => writeln!(out, "oldest: changed {} ago", age(seconds))?,
        None => writeln!(out, "nothing is staged")?,
    }
    for archive in &status.archives {
        shown_archive(archive, out)?;
    }
    for name in &status.strays {
        writeln!(out, "not the packer's: {}/{}", keepwatch_pack::STAGING_DIR, Safe::text(name))?;
    }
    for (name, reason) in &status.quarantined {
        writeln!(out, "in quarantine: {}", Safe::text(name))?;
        reason.lines().try_for_each(|line| writeln!(out, "  {}", Safe::text(line)))?;
    }
    Ok(())
}

fn shown_archive(archive: &ArchiveStatus, out: &mut dyn Write) -> io::Result<()> {
    let members = archive.parts.iter().map(|part| part.members).sum();
    let bytes = archive.parts.iter().map(|part| part.bytes).sum();
    write!(out, "{}: {}, {}", Safe(archive.name.as_bytes()), count(members, "member"), human_size(bytes))?;
    let others: Vec<_> = archive.parts.iter().filter(|part| part.path != archive.name.path()).collect();
    if !others.is_empty() {
        let names: Vec<_> = others.iter().map(|part| Safe::path(&part.path).to_string()).collect();
        write!(out, ", with {}", names.join(", "))?;
    }
    writeln!(out)?;
    for path in &archive.missing {
        writeln!(out, "  {} is gone", Safe::path(path))?;
    }
    for (path, why) in &archive.strange {
        writeln!(out, "  {} is not used: {}", Safe::path(path), Safe::text(why))?;
    }
    archive.error.iter().try_for_each(|error| writeln!(out, "  cannot be read: {}", Safe::text(error)))
}

fn as_json(status: &Status, oldest: Option<u64>) -> Value {
    let of = |count: &Count| json!({"files": count.files, "bytes": count.bytes});
    let archives: Vec<_> = status
        .archives
        .iter()
        .map(|archive| {
            let parts: Vec<_> = archive
                .parts
                .iter()
                .map(|part| json!({"path": part.path.to_string_lossy(), "members": part.members, "bytes": part.bytes}))
                .collect();
            let missing: Vec<_> = archive.missing.iter().map(|path| path.to_string_lossy()).collect();
            let strange: Vec<_> =
                archive.strange.iter().map(|(path, why)| json!({"path": path.to_string_lossy(), "why": why})).collect();
            json!({
                "archive": String::from_utf8_lossy(archive.name.as_bytes()), "generation": archive.generation,
                "parts": parts, "missing": missing, "strange": strange, "error": archive.error,
            })
        })
        .collect();
    let quarantined: Vec<_> =
        status.quarantined.iter().map(|(name, reason)| json!({"name": name, "reason": reason})).collect();
    json!({
        "staged": of(&status.closed), "open": of(&status.open), "dead": of(&status.dead),
        "claimed": of(&status.claimed), "unfinished": of(&status.unfinished), "oldest_s": oldest,
        "quarantined": quarantined, "strays": status.strays, "archives": archives,
    })
}
