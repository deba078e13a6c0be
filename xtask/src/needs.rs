//! What tests and checks need besides Rust, installed where it is missing.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::steps::succeeds;

/// A program and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("mke2fs", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mount", "mount"),
    ("losetup", "mount"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("kill", "procps"),
    ("python3", "python3"),
    ("git", "git"),
    ("zstd", "zstd"),
    ("sshfs", "sshfs"),
    ("sftp", "openssh-client"),
    ("/usr/lib/openssh/sftp-server", "openssh-sftp-server"),
];

/// Directories of programs that are not on every user's `PATH`.
const SYSTEM: &[&str] = &["/usr/sbin", "/sbin"];

/// Cargo's parts, which come with the toolchain, and the one tool that does not.
const CARGO_PARTS: &[&str] = &["cargo-fmt", "cargo-clippy"];

/// Installs what is missing.
pub(crate) fn install() -> Result<bool> {
    let mut packages: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    if !packages.is_empty() && !apt(&packages)? {
        bail!("these packages are missing and could not be installed: {}", packages.join(" "));
    }
    for part in CARGO_PARTS {
        if !is_there(part) {
            bail!("{part} is missing: add the toolchain's rustfmt and clippy");
        }
    }
    if !is_there("cargo-deny") {
        println!("cargo-deny is missing and is built now; this takes some minutes once");
        // Without optimisation it builds in a fraction of the time, and is fast enough.
        if !succeeds(crate::cargo(&["install", "--locked", "--debug", "--quiet", "cargo-deny"]))? {
            bail!("cargo-deny could not be installed");
        }
    }
    println!("all that is needed is there");
    Ok(true)
}

fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(|home| Path::new(&home).join("bin"));
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin"));
    env::split_paths(&path)
        .chain(SYSTEM.iter().map(Into::into))
        .chain(cargo_home)
        .chain(home)
        .any(|dir| dir.join(program).exists())
}

fn apt(packages: &[&str]) -> Result<bool> {
    println!("installing {}", packages.join(" "));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
        succeeds(command)
    };
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    Ok(apt(&["update"])? && apt(&install)?)
}
