//! `keepwatch pack ls` and `cat`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keepwatch_pack::{ArchiveName, Base, Listed, PackError, escape};
use serde_json::{Value, json};

use super::super::{Context, print};
use super::Args;
use crate::error::{CommandError, Outcome};
use crate::show::safe::Safe;

/// Flags of `keepwatch pack ls`.
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// The archive; the archives themselves unless it is said
    pub archive: Option<OsString>,
    /// Only names, raw, each ended by a NUL byte
    #[arg(short = '0', long, conflicts_with = "json")]
    pub null: bool,
}

/// Flags of `keepwatch pack cat`.
#[derive(Debug, clap::Args)]
pub struct CatArgs {
    /// Members; of an archive alone, all of them
    #[arg(value_name = "ARCHIVE[/PATH]", required = true)]
    pub names: Vec<OsString>,
}

/// Lists.
pub(super) fn ls(ls: &LsArgs, args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let base = args.open()?;
    let Some(name) = &ls.archive else { return ls_archives(&base, ls, args, context) };
    let archive = super::archive(name)?;
    let zone = TimeZone::system();
    let mut listed = Ok(false);
    print(|out| {
        listed = base.list(&archive, &mut |member| match (context.globals.json, ls.null) {
            (true, _) => writeln!(out, "{}", as_json(&archive, member)),
            (_, true) => out.write_all(&[&member.name, &b"\0"[..]].concat()),
            _ => long(member, &zone, out),
        });
        Ok(())
    })?;
    match listed {
        Ok(true) => Ok(Outcome::Fine),
        Ok(false) => Err(args.fail(&PackError::Absent(archive.to_string()))),
        Err(error) => Err(args.fail(&error)),
    }
}

fn ls_archives(base: &Base, ls: &LsArgs, args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let archives = base.archives().map_err(|error| args.fail(&error))?;
    print(|out| {
        archives.iter().try_for_each(|archive| match (context.globals.json, ls.null) {
            (true, _) => writeln!(out, "{}", with_bytes(json!({}), "archive", archive.as_bytes())),
            (_, true) => out.write_all(&[archive.as_bytes(), b"\0"].concat()),
            _ => writeln!(out, "{}", Safe(archive.as_bytes())),
        })
    })?;
    Ok(Outcome::Fine)
}

fn long(member: &Listed, zone: &TimeZone, out: &mut dyn Write) -> io::Result<()> {
    let when = Timestamp::from_second(member.mtime_secs).unwrap_or_default();
    let when = when.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M");
    let mode = member.mode.map_or_else(|| "????".to_owned(), |mode| format!("{mode:04o}"));
    let staged = if member.part.is_none() { "  (staged)" } else { "" };
    writeln!(out, "{mode} {:>13} {when} {}{staged}", member.size, Safe(&member.name))
}

fn as_json(archive: &ArchiveName, member: &Listed) -> Value {
    let line = json!({
        "size": member.size, "packed": member.packed, "crc32": format!("{:08x}", member.crc), "mode": member.mode,
        "mtime": member.mtime_secs, "staged": member.part.is_none(),
        "part": member.part.as_ref().map(|part| part.to_string_lossy()),
    });
    with_bytes(with_bytes(line, "archive", archive.as_bytes()), "path", &member.name)
}

/// Adds a field with a name: readable, and exact besides where it is not UTF-8.
fn with_bytes(mut line: Value, field: &str, bytes: &[u8]) -> Value {
    line[field] = String::from_utf8_lossy(bytes).into();
    if std::str::from_utf8(bytes).is_err() {
        line[format!("{field}_b64")] = STANDARD.encode(bytes).into();
    }
    line
}

/// Prints members.
pub(super) fn cat(cat: &CatArgs, args: &Args) -> Result<Outcome, CommandError> {
    let base = args.open()?;
    for name in &cat.names {
        let (archive, member) = ArchiveName::parse_with_member(name.as_bytes())
            .map_err(|source| args.fail(&PackError::Name { name: name.as_bytes().to_vec(), source }))?;
        match member {
            Some(member) => write_member(&base, &archive, &member, args)?,
            None => write_all(&base, &archive, args)?,
        }
    }
    Ok(Outcome::Fine)
}

fn write_member(base: &Base, archive: &ArchiveName, member: &[u8], args: &Args) -> Result<(), CommandError> {
    let mut done = Ok(());
    print(|out| {
        done = base.read(archive, member, &mut |piece| out.write_all(piece));
        Ok(())
    })?;
    done.map_err(|error| args.fail(&error))
}

fn write_all(base: &Base, archive: &ArchiveName, args: &Args) -> Result<(), CommandError> {
    let mut names = Vec::new();
    let listed = base.list(archive, &mut |member| {
        names.push(member.name.clone());
        Ok(())
    });
    if !listed.map_err(|error| args.fail(&error))? {
        return Err(args.fail(&PackError::Absent(escape(archive.as_bytes()))));
    }
    names.iter().try_for_each(|member| write_member(base, archive, member, args))
}
