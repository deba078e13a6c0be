//! `keepwatch on`: runs a command for every finished file of a directory, without a configuration.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use keepwatch_engine::daemon::replicate::state_name;
use keepwatch_engine::daemon::service::{self, Command, Mode};
use keepwatch_engine::daemon::triggers::Existing;
use keepwatch_engine::watch::lease::block_sigio;

use super::Context;
use crate::config::load_files;
use crate::config::triggers::{TriggerSpec, find_program};
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::logging::{self, Talk};
use crate::show::safe::Safe;
use crate::signals;
use crate::units;

/// Flags of `keepwatch on`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command runs without a shell, once for every finished version of a matching file, also for those that were there before
and those that come while nothing runs. What was done is remembered; what fails is tried again.
Placeholders: {path} {rel} {root} {name} {dir} {sha256} {seq} {key}

Examples:
  keepwatch on /srv/inbox --match '*.csv' -- /usr/local/bin/import {path}
  keepwatch on . --existing skip -- sh -c 'echo \"$1 is finished\"' sh {path}")]
pub struct Args {
    /// The directory to watch
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Only files that match this pattern; may be given several times
    #[arg(long = "match", value_name = "GLOB")]
    pub matches: Vec<String>,
    /// No files that match this pattern: what the command writes itself, for one
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// What is done about files that are there already when it runs for the first time
    #[arg(long, value_name = "WHAT", default_value = "run", value_parser = ["run", "skip"])]
    pub existing: String,
    /// Runs at the same time
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// How often a run that failed is tried again
    #[arg(long, value_name = "N", default_value = "5")]
    pub retries: u32,
    /// How long a run may take
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub timeout: String,
    /// The program and its arguments, with placeholders
    #[arg(required = true, last = true, value_name = "PROG")]
    pub command: Vec<OsString>,
}

/// What so many commands said may wait to be printed.
const SAID_MAX: usize = 16;
/// How long the end waits until it is printed.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked whether a run failed.
const LOOK_WAIT: Duration = Duration::from_millis(200);

/// Runs until it is told to end.
///
/// # Errors
/// If the directory or the program cannot be used, or the engine fails.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let dir = super::place::directory(&args.dir, context)?;
    let overrides = context.globals.overrides(std::slice::from_ref(&dir));
    let mut settings = load_files(Vec::new(), &context.environment, &overrides)?.settings;
    let mut words = args.command.clone();
    let program = find_program(&words[0], &context.environment);
    words[0] = program.map_err(|(message, hint)| CommandError::usage(message).hint(hint))?.into();
    let mut spec = TriggerSpec::new("on".to_owned(), words);
    spec.rules.matches.clone_from(&args.matches);
    spec.rules.exclude.clone_from(&args.exclude);
    spec.existing = Existing::from_word(&args.existing).unwrap_or_default();
    spec.pace.concurrency = args.concurrency.into();
    spec.pace.retries = args.retries;
    spec.pace.timeout = units::parse_duration(&args.timeout).map_err(|error| CommandError::usage(error.to_string()))?;
    spec.run_as.dir.clone_from(&context.environment.current_dir);
    // Somebody's own command has somebody's own environment, but for what is said to Keepwatch.
    let is_ours = |name: &OsString| name.as_bytes().starts_with(b"KEEPWATCH_");
    spec.run_as.environment =
        context.environment.variables.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
    let mut trigger = spec.for_engine(&settings.roots);
    trigger.check().map_err(|error| CommandError::usage(error.to_string()))?;
    service::check(&engine::settings(&settings))?;
    if context.globals.dry_run {
        let words: Vec<_> = spec.command.iter().map(|word| word.to_string_lossy()).collect();
        super::print(|out| writeln!(out, "would run {}", Safe::text(&words.join(" "))))?;
        return Ok(Outcome::Fine);
    }
    let is_named = context.globals.state_dir.is_some() || context.environment.vars.contains_key("KEEPWATCH_STATE_DIR");
    if !is_named {
        let mut parts: Vec<&[u8]> = vec![dir.as_os_str().as_bytes()];
        parts.extend(args.matches.iter().map(String::as_bytes));
        parts.push(b"--");
        parts.extend(args.command.iter().map(|word| word.as_bytes()));
        settings.state_dir = settings.state_dir.join("on").join(state_name(&parts));
    }
    logging::start(settings.log, &context.globals, Talk::Command);
    block_sigio().map_err(|error| CommandError::failed(format!("cannot block SIGIO: {error}")))?;
    let signalled =
        signals::listen().map_err(|error| CommandError::failed(format!("cannot listen for signals: {error}")))?;
    let mut engine = engine::settings(&settings);
    let meter = Arc::clone(&trigger.meter);
    let (hears, said) = bounded(SAID_MAX);
    trigger.hears = Some(hears);
    let heard = move || {
        for (stdout, stderr) in said {
            let _ = std::io::stderr().write_all(&stderr);
            if super::print(|out| out.write_all(&stdout)).is_err() {
                return;
            }
        }
    };
    let printer = std::thread::Builder::new()
        .name("said".to_owned())
        .spawn(heard)
        .map_err(|error| CommandError::failed(format!("no thread can be started: {error}")))?;
    engine.triggers = vec![trigger];
    let handle = service::start(engine, Mode::Serve, None)?;
    let mut told = None;
    while !handle.is_finished() {
        match signalled.recv_timeout(LOOK_WAIT) {
            Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let error = meter.read().last_error;
        if error != told {
            if let Some((_, why)) = &error {
                let _ = writeln!(std::io::stderr(), "{}", Safe::text(why));
            }
            told = error;
        }
    }
    let _ = handle.commands().send(Command::Stop);
    handle.join().map_err(|error| CommandError::failed(engine::with_sources(&error)))?;
    // What was said last is printed, unless nobody reads it.
    let until = Instant::now() + LAST_WORDS_WAIT;
    while !printer.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    let reading = meter.read();
    if !context.globals.quiet {
        let (done, failed) = (units::count(reading.done, "file"), reading.failed);
        let _ = writeln!(std::io::stderr(), "{done} done, {failed} runs failed");
    }
    Ok(if reading.failed > 0 { Outcome::Partly } else { Outcome::Fine })
}
