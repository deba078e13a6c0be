//! `keepwatch pack put` and `pickup`.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use keepwatch_pack::{MemberName, Method, Options, Packer, Sync};

use super::super::{Context, print};
use super::Args;
use crate::error::{CommandError, Outcome};
use crate::show::safe::Safe;

/// Standard input is read in pieces of this size, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// Flags of `keepwatch pack put`.
#[derive(Debug, clap::Args)]
pub struct PutArgs {
    /// The member: ARCHIVE/PATH
    #[arg(value_name = "ARCHIVE/PATH")]
    pub name: OsString,
    /// Compress, at this level
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, default_missing_value = "6",
          value_parser = clap::value_parser!(u32).range(1..=9))]
    pub deflate: Option<u32>,
    /// The member's permissions, in octal
    #[arg(long, value_name = "MODE", default_value = "644", value_parser = octal)]
    pub mode: u32,
}

/// Flags of `keepwatch pack pickup`.
#[derive(Debug, clap::Args)]
pub struct PickupArgs {
    /// The finished file
    pub file: PathBuf,
    /// The member: ARCHIVE/PATH
    #[arg(value_name = "ARCHIVE/PATH")]
    pub name: OsString,
}

/// Packs standard input.
pub(super) fn put(put: &PutArgs, args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    if context.globals.dry_run {
        return rehearse(&put.name, args, "standard input");
    }
    let method = put.deflate.map_or(Method::Stored, Method::Deflated);
    let packer = packer(args, method)?;
    let mut member = packer.create(put.name.as_bytes()).map_err(|error| args.fail(&error))?;
    member.set_mode(put.mode);
    let mut input = io::stdin().lock();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = match input.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CommandError::failed(format!("cannot read standard input: {error}"))),
        };
        member
            .write_all(&piece[..count])
            .map_err(|error| CommandError::failed(format!("cannot stage what was read: {error}")))?;
    }
    member.finish().and_then(|()| packer.close()).map_err(|error| args.fail(&error))?;
    Ok(Outcome::Fine)
}

/// Packs a file and removes it.
pub(super) fn pickup(pickup: &PickupArgs, args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    if context.globals.dry_run {
        return rehearse(&pickup.name, args, &Safe::path(&pickup.file).to_string());
    }
    let packer = packer(args, Method::Stored)?;
    let picked = packer.pickup(&pickup.file, pickup.name.as_bytes());
    picked.and_then(|()| packer.close()).map_err(|error| args.fail(&error))?;
    Ok(Outcome::Fine)
}

/// One member, so it is durable when the command ends.
fn packer(args: &Args, method: Method) -> Result<Packer, CommandError> {
    let options = Options { method, sync: Sync::Rotation, ..Options::default() };
    Packer::open(&args.base, options).map_err(|error| args.fail(&error))
}

fn rehearse(name: &OsString, args: &Args, what: &str) -> Result<Outcome, CommandError> {
    let checked = MemberName::parse(name.as_bytes());
    let checked = checked.map_err(|source| keepwatch_pack::PackError::Name { name: name.as_bytes().to_vec(), source });
    let name = checked.map_err(|error| args.fail(&error))?;
    args.open()?;
    print(|out| writeln!(out, "would pack {what} as {}", Safe(name.as_bytes())))?;
    Ok(Outcome::Fine)
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!("`{text}` are no permissions: write them in octal, as in 644")),
    }
}
