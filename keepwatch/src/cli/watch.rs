//! `keepwatch watch`: changes as they happen, and nothing kept.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keepwatch_engine::daemon::service::{self, Command, Mode};
use keepwatch_engine::watch::lease::block_sigio;
use keepwatch_journal::{Body, GapReason, Reader, RealDisk, Record, Seq};

use super::Context;
use super::scratch::Scratch;
use crate::config::{WatchMethod, load_files};
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::logging::{self, Talk};
use crate::show::log::{Line, write_json};
use crate::signals;

/// Flags of `keepwatch watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
One line for each change; `settled` says that a file is finished: nobody has it open for writing any more.

Examples:
  keepwatch watch .
  keepwatch watch /srv/inbox --json | jq -r 'select(.do == \"settled\") | .path'")]
pub struct Args {
    /// What to watch
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// How to watch; the best that works unless it is said
    #[arg(long, value_name = "METHOD", value_parser = ["fanotify", "inotify", "poll"])]
    pub method: Option<String>,
}

/// A journal that nobody keeps needs no large files.
const ROLL_BYTES: u64 = 16 << 20;

/// Watches until it is told to end.
///
/// # Errors
/// If a directory cannot be watched.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let mut settings = load_files(Vec::new(), &context.environment, &context.globals.overrides(&args.dirs))?.settings;
    for root in &mut settings.roots {
        if !root.path.is_dir() {
            return Err(CommandError::usage(format!("{} is not a directory", root.path.display())));
        }
        if let Some(method) = &args.method {
            root.watch = WatchMethod::named(method).unwrap_or(root.watch);
        }
    }
    logging::start(settings.log, &context.globals, Talk::Command);
    block_sigio().map_err(|error| CommandError::failed(format!("cannot block SIGIO: {error}")))?;
    let failed = |error: std::io::Error| CommandError::failed(format!("cannot make a temporary directory: {error}"));
    let scratch = Scratch::new().map_err(failed)?;
    scratch.path().clone_into(&mut settings.state_dir);
    settings.journal.roll_bytes = ROLL_BYTES;
    let handle = service::start(engine::settings(&settings), Mode::Look, None)?;
    let tail = handle.tail();
    handle.wait_ready();
    if !context.globals.quiet {
        let names: Vec<String> = settings.roots.iter().map(|root| root.path.display().to_string()).collect();
        let _ = writeln!(std::io::stderr(), "watching {}; end with Ctrl-C", names.join(", "));
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let commands = handle.commands();
    let flag = Arc::clone(&stopped);
    let wishes = signals::listen().map_err(failed)?;
    std::thread::spawn(move || {
        let _ = wishes.recv();
        flag.store(true, Ordering::Release);
        let _ = commands.send(Command::Stop);
    });
    let printed = follow(&scratch.path().join("journal"), &tail, context.globals.json);
    // A closed pipe ends the service too.
    let _ = handle.commands().send(Command::Stop);
    let ended = handle.join();
    if !stopped.load(Ordering::Acquire) {
        printed?;
    }
    ended.map_err(|error| CommandError::failed(engine::with_sources(&error)))?;
    Ok(Outcome::Fine)
}

fn follow(journal: &std::path::Path, tail: &Arc<keepwatch_journal::Tail>, json: bool) -> Result<(), CommandError> {
    let cannot = |error: keepwatch_journal::ReadError| CommandError::failed(engine::with_sources(&error));
    let mut reader = Reader::open(Arc::new(RealDisk), journal, Seq::ZERO).map_err(cannot)?.following(Arc::clone(tail));
    let mut seen = Seq::ZERO;
    let mut line = Vec::new();
    loop {
        while let Some(batch) = reader.next_batch().map_err(cannot)? {
            super::print(|out| {
                for record in batch.records.iter().filter(|record| is_news(record)) {
                    if json {
                        write_json(record, &mut line, out)?;
                    } else {
                        writeln!(out, "{}", Line(record))?;
                    }
                }
                Ok(())
            })?;
            seen = batch.cursor.seq;
        }
        if tail.is_closed() {
            return Ok(());
        }
        let _ = tail.wait_past(seen, std::time::Instant::now() + FOLLOW_WAIT);
    }
}

const FOLLOW_WAIT: std::time::Duration = std::time::Duration::from_secs(3600);

/// What somebody who watches wants to see: changes, finished files, and that something was missed.
fn is_news(record: &Record) -> bool {
    match &record.body {
        Body::Change(_) | Body::Settled(_) => true,
        Body::Gap(gap) => !matches!(gap.reason, GapReason::New | GapReason::Restart),
        Body::GapClosed(_)
        | Body::Config(_)
        | Body::Replica(_)
        | Body::Run(_)
        | Body::Trigger(_)
        | Body::Copied(_)
        | Body::Withdrawn(_)
        | Body::Failed(_)
        | Body::Hashed(_)
        | Body::Verified(_)
        | Body::Unsound(_)
        | Body::Repaired(_)
        | Body::Restored(_)
        | Body::Released(_)
        | Body::Enrolled(_)
        | Body::Other(_) => false,
    }
}
