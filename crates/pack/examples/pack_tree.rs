//! Packs every file of a directory into an archive, as a worker would, and then collects: for measurements.
//!
//! `pack_tree DIR BASE ARCHIVE.zip [worker|scavenger|both|read NAME]`

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use keepwatch_pack::{ArchiveName, Base, Options, Packer, ScavengeOptions, Scavenger};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [dir, base, archive, rest @ ..] = &args[..] else {
        return Err("pack_tree DIR BASE ARCHIVE.zip [worker|scavenger|both|read NAME]".into());
    };
    let start = Instant::now();
    let what = rest.first().map_or("both".into(), |what| what.to_string_lossy());
    if what == "read" {
        let archive = ArchiveName::parse(archive.as_os_str().as_bytes())?;
        let mut bytes = 0;
        let member = rest[1].as_os_str().as_bytes();
        Base::open(base)?.read(&archive, member, &mut |piece| {
            bytes += piece.len();
            Ok(())
        })?;
        println!("read {bytes} bytes in {:?}", start.elapsed());
    }
    if what == "worker" || what == "both" {
        let packer = Packer::open(base, Options::default())?;
        let count = pack(&packer, dir, archive)?;
        packer.close()?;
        println!("packed {count} files in {:?}", start.elapsed());
    }
    if what == "scavenger" || what == "both" {
        let start = Instant::now();
        let report = Scavenger::open(base, ScavengeOptions::default())?.scavenge()?;
        println!("collected {} members in {:?} {:?}", report.members, start.elapsed(), report.errors);
    }
    Ok(())
}

fn pack(packer: &Packer, dir: &Path, archive: &Path) -> Result<u64, Box<dyn Error>> {
    let mut pending = vec![dir.to_owned()];
    let mut count = 0;
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(at)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
                continue;
            }
            let name = archive.join(entry.path().strip_prefix(dir)?);
            let mut member = packer.create(name.as_os_str().as_bytes())?;
            member.write_all(&fs::read(entry.path())?)?;
            member.finish()?;
            count += 1;
        }
    }
    Ok(count)
}
