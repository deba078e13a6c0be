//! `cargo xtask prove`: the tests at full size on the release build. `cargo xtask bench`: comparisons.

use std::process::Command;

use anyhow::Result;

use crate::leftovers::TempDir;
use crate::steps::{Steps, succeeds};
use crate::test::tests;
use crate::{cargo, needs, python, target, top};

/// Runs all of it; whether it holds.
pub(crate) fn run() -> Result<bool> {
    let mut steps = Steps::default();
    steps.step("what the tests need", needs::install);
    steps.run("release build", cargo(&["build", "--release", "--locked", "--package", "keepwatch"]));
    let temp = TempDir::new()?;
    let mut full = tests(&["--workspace", "--release", "--", "--test-threads=1"], &temp);
    full.env("KEEPWATCH_FULL", "1").env("KEEPWATCH_PROGRAM", target().join("release/keepwatch"));
    steps.tests("tests at full size", full);
    steps.step("python", || python::test(&temp, python::Size::Full));
    steps.always("leftovers", || temp.check());
    steps.step("comparisons, each to be run by itself on a machine at rest: cargo xtask bench NAME", || bench(&[]));
    Ok(steps.finish())
}

/// Runs a comparison, or says which there are.
pub(crate) fn bench(args: &[&str]) -> Result<bool> {
    let mut command = Command::new("python3");
    command.arg("bench/bench.py").args(if args.is_empty() { &["--help"] } else { args }).current_dir(top());
    succeeds(command)
}
