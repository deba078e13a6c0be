//! The Python package: built as a wheel, installed into an environment of its own, and tested there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cargo;
use crate::leftovers::TempDir;
use crate::steps::succeeds;

/// What builds and tests it, from PyPI; the last is the package whose test modules are the job of `test_job.py`.
const TOOLS: &[&str] = &["maturin>=1.9,<2", "pytest>=8,<10", "networkx==3.4.2"];

/// How much its tests do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// What each run can afford.
    Small,
    /// All of the job.
    Full,
}

/// Builds, installs and tests it; whether all went well.
pub(crate) fn test(temp: &TempDir, size: Size) -> Result<bool> {
    let manifest = crate::top().join("python/Cargo.toml");
    let manifest = manifest.to_string_lossy();
    let target = crate::top().join("target/python");
    let venv = target.join("venv");
    let wheels = target.join("wheels");
    let in_venv = |program: &str, args: &[&str]| {
        let mut command = Command::new(venv.join("bin").join(program));
        command.args(args).current_dir(crate::top().join("python")).env("CARGO_TARGET_DIR", &target);
        command.env("VIRTUAL_ENV", &venv).env("TMPDIR", temp.path());
        command
    };
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&venv);
    let clippy = cargo(&["clippy", "--quiet", "--locked", "--manifest-path", &manifest, "--", "-D", "warnings"]);
    // One wheel: of the last build there may be another.
    let _ = std::fs::remove_dir_all(&wheels);
    let program = crate::target().join("debug/keepwatch");
    let ready = succeeds(cargo(&["build", "--quiet", "--locked", "--package", "keepwatch"]))?
        && succeeds(cargo(&["fmt", "--check", "--manifest-path", &manifest]))?
        && succeeds(make)?
        && succeeds(in_venv("pip", &[&["install", "--quiet"], TOOLS].concat()))?
        && succeeds(with_target(clippy, &target))?
        && succeeds(in_venv("maturin", &["build", "--quiet", "--locked", "--out", &wheels.to_string_lossy()]))?;
    if !ready {
        return Ok(false);
    }
    let wheel = the_wheel(&wheels)?;
    // pytest keeps the directories of its last runs: not where things are counted as left behind.
    let kept = target.join("pytest");
    let mut tests =
        in_venv("pytest", &["-q", "-p", "no:cacheprovider", "--basetemp", &kept.to_string_lossy(), "tests"]);
    tests.env("KEEPWATCH_PROGRAM", program).env("KEEPWATCH_REQUIRE_ALL", "1");
    if size == Size::Full {
        tests.env("KEEPWATCH_FULL", "1");
    }
    Ok(succeeds(in_venv("pip", &["install", "--quiet", "--force-reinstall", &wheel.to_string_lossy()]))?
        && succeeds(tests)?)
}

fn with_target(mut command: Command, target: &Path) -> Command {
    command.env("CARGO_TARGET_DIR", target);
    command
}

fn the_wheel(dir: &Path) -> Result<PathBuf> {
    let mut found = std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
    Ok(found.next().ok_or_else(|| anyhow::anyhow!("maturin made no wheel in {}", dir.display()))??)
}
