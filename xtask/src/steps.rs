//! Steps, one after the other: a heading, the command's own output, how long it took; in the end a summary, and totals as
//! the last line.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What was done so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration, bool)>,
    tests: Totals,
}

/// The sums of cargo's `test result` lines.
#[derive(Clone, Copy, Default)]
struct Totals {
    passed: u64,
    failed: u64,
}

impl Steps {
    /// Does a step that is no command, unless one before it failed.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<bool>) {
        if !self.failed() {
            self.always(name, work);
        }
    }

    /// Does a step whatever happened before.
    pub(crate) fn always(&mut self, name: &str, work: impl FnOnce() -> Result<bool>) {
        println!("\n=== {name} ===");
        let start = Instant::now();
        let fine = work().unwrap_or_else(|error| {
            println!("{error:#}");
            false
        });
        if !fine {
            println!("=== {name}: FAILED ===");
        }
        self.done.push((name.to_owned(), start.elapsed(), fine));
    }

    /// Runs a command to its end.
    pub(crate) fn run(&mut self, name: &str, command: Command) {
        self.step(name, || succeeds(command));
    }

    /// Runs a command that runs tests, and counts them.
    pub(crate) fn tests(&mut self, name: &str, command: Command) {
        let mut totals = self.tests;
        self.step(name, || counted(command, &mut totals));
        self.tests = totals;
    }

    fn failed(&self) -> bool {
        self.done.iter().any(|(_, _, fine)| !fine)
    }

    /// Says what it all came to; whether everything was fine.
    pub(crate) fn finish(self) -> bool {
        println!("\n=== summary ===");
        for (name, took, fine) in &self.done {
            println!("{:>7.1} s  {:6}  {name}", took.as_secs_f64(), if *fine { "ok" } else { "FAILED" });
        }
        let total: Duration = self.done.iter().map(|(_, took, _)| *took).sum();
        println!("{:>7.1} s  in all", total.as_secs_f64());
        // A step that failed without a failed test counts as one, so that the totals and the exit code agree.
        let failed = self.tests.failed.max(u64::from(self.failed()));
        println!("{} passed, {failed} failed", self.tests.passed);
        failed == 0
    }
}

/// Runs a command without input; whether it succeeded.
pub(crate) fn succeeds(mut command: Command) -> Result<bool> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{command:?} did not start"))?;
    Ok(status.success())
}

fn counted(mut command: Command, totals: &mut Totals) -> Result<bool> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?} did not start"))?;
    let out = child.stdout.take().context("its output")?;
    for line in BufReader::new(out).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        totals.add(&line);
    }
    Ok(child.wait()?.success())
}

impl Totals {
    /// `test result: ok. 59 passed; 0 failed; 0 ignored; …`
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.split(';') {
            match count.trim().split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse::<u64>().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse::<u64>().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_cargos_own() {
        let mut totals = Totals::default();
        totals.add("test result: ok. 59 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2.02s");
        totals.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        totals.add("a line that says 7 passed; 7 failed");
        assert_eq!((totals.passed, totals.failed), (61, 1));
    }

    #[test]
    fn a_step_that_fails_is_a_failure_and_ends_the_rest() {
        let mut steps = Steps::default();
        steps.step("fails", || Ok(false));
        steps.step("is not reached", || panic!("it was reached"));
        assert!(!steps.finish());
    }
}
