//! What tests and checks need besides Rust, installed where it is missing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::steps::succeeds;

/// A program and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("mkfs.ext4", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mount", "mount"),
    ("losetup", "mount"),
    ("blkid", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("kill", "procps"),
    ("python3", "python3"),
    ("/usr/share/doc/python3-venv", "python3-venv"),
    ("git", "git"),
    ("zstd", "zstd"),
    ("unzip", "unzip"),
    ("7zz", "7zip"),
    ("zipdetails", "perl"),
    ("sshfs", "sshfs"),
    ("sftp", "openssh-client"),
    ("/usr/lib/openssh/sftp-server", "openssh-sftp-server"),
    ("sshd", "openssh-server"),
    ("openssl", "openssl"),
    ("rclone", "rclone"),
    ("rsync", "rsync"),
    ("b3sum", "b3sum"),
    (POSTGRES, "postgresql"),
];

/// Stands for the server's programs, whose directory is named after their version.
const POSTGRES: &str = "initdb";
/// Where Debian has these.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// Directories of programs that are not on every user's `PATH`.
const SYSTEM: &[&str] = &["/usr/sbin", "/sbin"];

/// Cargo's parts, which come with the toolchain.
const CARGO_PARTS: &[&str] = &["cargo-fmt", "cargo-clippy"];

/// Tools that are built where they are missing: program, package, version.
const TOOLS: &[(&str, &str, &str)] = &[("cargo-deny", "cargo-deny", "0.20.2"), ("typos", "typos-cli", "1.52.0")];

/// Installs what is missing.
pub(crate) fn install() -> Result<bool> {
    let mut packages: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.contains(&"postgresql") {
        keep_cluster_away()?;
    }
    if !packages.is_empty() && !apt(&packages)? {
        bail!("these packages are missing and could not be installed: {}", packages.join(" "));
    }
    for part in CARGO_PARTS {
        if !is_there(part) {
            bail!("{part} is missing: add the toolchain's rustfmt and clippy");
        }
    }
    for (_, package, version) in TOOLS.iter().filter(|(program, ..)| !is_there(program)) {
        println!("building {package} {version}; this takes a minute or two, once");
        // Without optimisation it builds in a fraction of the time, and is fast enough.
        let args = ["install", "--locked", "--debug", "--quiet", "--version", version, package];
        if !succeeds(crate::cargo(&args))? {
            bail!("{package} could not be installed");
        }
    }
    println!("all that is needed is there");
    Ok(true)
}

/// A tool that was there or has been installed.
pub(crate) fn tool(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.current_dir(crate::top());
    command
}

/// Installing PostgreSQL makes a cluster and starts it, unless it is told not to. The tests make their own.
fn keep_cluster_away() -> Result<()> {
    let settings = Path::new("/etc/postgresql-common/createcluster.conf");
    if let (false, Some(dir)) = (settings.exists(), settings.parent()) {
        std::fs::create_dir_all(dir)?;
        std::fs::write(settings, "create_main_cluster = false\nstart_conf = 'manual'\n")?;
    }
    Ok(())
}

fn is_there(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(|home| Path::new(&home).join("bin"));
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin"));
    if program == POSTGRES {
        let versions = std::fs::read_dir(POSTGRES_VERSIONS).into_iter().flatten().flatten();
        return versions.map(|version| version.path().join("bin").join(program)).find(|path| path.exists());
    }
    env::split_paths(&path)
        .chain(SYSTEM.iter().map(Into::into))
        .chain(cargo_home)
        .chain(home)
        .map(|dir| dir.join(program))
        .find(|path| path.exists())
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
