//! The command line of Keepwatch: it turns what the user typed, the environment and the configuration files into
//! validated settings, calls the engine with them, and shows what comes back.
//!
//! Only here are the environment, the terminal and the current directory looked at. `cli` holds a file for each
//! command, `config` the way to [`config::Settings`], `show` how things look, `control` the socket by which commands
//! reach the running service.

// Only `main` is for others; `pub` further down says what the rest of the program may use.
#![allow(unreachable_pub)]

use std::any::Any;
use std::ffi::OsString;
use std::io::Write as _;
use std::panic;
use std::process::ExitCode;

use clap::Parser as _;
use rustix::process::{Resource, Rlimit};

mod args;
mod aws;
mod cli;
mod cloud;
mod config;
mod control;
mod engine;
mod error;
mod lock;
mod logging;
mod packs;
mod service;
mod show;
mod signals;
mod systemd;
mod telling;
mod units;
mod verifying;

use error::{CommandError, Kind, Outcome};

/// Files that are ever open at the same time.
const OPEN_FILES: u64 = 32_768;

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(report_panic));
    let result = panic::catch_unwind(|| run(std::env::args_os())).unwrap_or_else(|payload| Err(of_panic(&*payload)));
    if let Err(error) = &result
        && !matches!(error.kind, Kind::ClosedPipe)
    {
        // Nobody is left to tell if stderr is gone too.
        let _ = writeln!(std::io::stderr(), "{error}");
    }
    ExitCode::from(error::exit_code(&result))
}

/// Runs a command line.
fn run(argv: impl Iterator<Item = OsString>) -> Result<Outcome, CommandError> {
    allow_open_files();
    keepwatch_engine::watch::memory::give_back_large_blocks();
    let argv = args::with_dashes(argv);
    match cli::Cli::try_parse_from(argv) {
        Ok(cli) => {
            let environment = config::Environment::of_process();
            cli.command.run(&cli::Context { globals: cli.globals, environment })
        }
        Err(error) => refuse(&error),
    }
}

/// Lets this process have as many files open as it may: what is copied is held open until all of its batch is durable. The limit
/// that shells set by default is for programs that use select(2), which this is not.
fn allow_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        // Without it, less is held open.
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
    // A table of open files that grows while threads use it halts them all each time: it gets its size now.
    let last = i32::try_from(wanted).unwrap_or(i32::MAX) - 1;
    drop(rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last));
}

/// Help and version go to stdout and are fine; all else that clap ends with is a usage error, in its own words.
fn refuse(error: &clap::Error) -> Result<Outcome, CommandError> {
    error.print().map_err(CommandError::output)?;
    if error.use_stderr() {
        // The words are said; the exit code is left.
        std::process::exit(i32::from(error::exit_code(&Err(CommandError::usage("")))));
    }
    Ok(Outcome::Fine)
}

/// Says that a panic is a fault of this program, wherever it happens. It does not end the process: a thread that
/// watches is started again by the engine, and the main thread's panic becomes exit code 70.
fn report_panic(info: &panic::PanicHookInfo<'_>) {
    let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
    let thread = std::thread::current();
    let message = panic_text(info.payload());
    let name = thread.name().unwrap_or("unnamed").to_owned();
    let _ = writeln!(
        std::io::stderr(),
        "keepwatch {}: thread `{name}` panicked{place}: {message}",
        env!("CARGO_PKG_VERSION")
    );
}

fn of_panic(payload: &(dyn Any + Send)) -> CommandError {
    CommandError::new(Kind::Bug, format!("this is a bug in keepwatch: {}", panic_text(payload)))
        .hint("what the journal holds is safe; please report it with the lines above")
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_bug_and_ends_with_70() {
        let payload = panic::catch_unwind(|| panic!("one and {}", 1)).expect_err("it panics");
        let error = of_panic(&*payload);
        assert_eq!(error::exit_code(&Err(error.clone())), 70);
        assert!(error.message.contains("bug") && error.message.contains("one and 1"), "{error}");
    }
}
