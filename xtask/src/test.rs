//! `cargo xtask test`: all that must hold before a change lands.

use std::process::Command;

use anyhow::Result;

use crate::leftovers::TempDir;
use crate::steps::Steps;
use crate::{cargo, needs, python};

/// Runs all of it; whether it holds.
pub(crate) fn run() -> Result<bool> {
    let mut steps = Steps::default();
    steps.step("what the tests need", needs::install);
    steps.run("format", cargo(&["fmt", "--all", "--check"]));
    steps.run("spelling", needs::tool("typos"));
    steps.run("clippy", lean(cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])));
    steps.run("dependencies", cargo(&["deny", "--workspace", "check", "bans", "licenses", "sources"]));
    steps.run("documentation", documentation());
    let temp = TempDir::new()?;
    steps.tests("tests", tests(&["--workspace"], &temp));
    steps.step("python", || python::test(&temp, python::Size::Small));
    steps.always("leftovers", || temp.check());
    Ok(steps.finish())
}

/// `cargo test` for everything that these flags choose. Goes on after a failure, so that all failures are seen.
pub(crate) fn tests(flags: &[&str], temp: &TempDir) -> Command {
    let mut command = lean(cargo(&["test", "--locked", "--no-fail-fast"]));
    command.args(flags);
    // A test that cannot run here fails, and a snapshot that differs is not accepted.
    command.env("KEEPWATCH_REQUIRE_ALL", "1").env("INSTA_UPDATE", "no");
    command.env("TMPDIR", temp.path());
    // Python's unbuffered print drops the rest of what a pipe takes only in part.
    command.env_remove("PYTHONUNBUFFERED");
    command
}

fn documentation() -> Command {
    let mut command = lean(cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]));
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");
    command
}

/// Where nobody builds a second time, what makes a second build fast is only a cost.
fn lean(mut command: Command) -> Command {
    if std::env::var_os("CI").is_some() {
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}
