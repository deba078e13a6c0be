//! `keepwatch wait`: pauses a script until a file is finished.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use keepwatch_engine::daemon::service::{self, Command, Mode};
use keepwatch_engine::model::{Body, RelPath};
use keepwatch_engine::trigger::{RuleText, Rules};
use keepwatch_engine::watch::lease::block_sigio;
use keepwatch_journal::{Reader, RealDisk, Seq, Tail};

use super::scratch::Scratch;
use super::{Context, place};
use crate::config::load_files;
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::logging::{self, Talk};
use crate::signals::{self, Wish};
use crate::units;

/// Flags of `keepwatch wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file that is there already and finished counts. Exit code 3: none was finished in time.

Examples:
  file=$(keepwatch wait /srv/inbox --match 'run-*.h5' --timeout 10m) && process \"$file\"")]
pub struct Args {
    /// The directory to watch
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// A file that matches this pattern; may be given several times
    #[arg(long = "match", value_name = "GLOB")]
    pub matches: Vec<String>,
    /// Wait no longer; for ever unless it is said
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// End the name with a NUL rather than a line break
    #[arg(short = '0', long)]
    pub null: bool,
}

/// A journal that nobody keeps needs no large files.
const ROLL_BYTES: u64 = 16 << 20;
/// How often it is looked whether it is time.
const LOOK_WAIT: Duration = Duration::from_millis(100);

/// Waits for one finished file, and prints its absolute path.
///
/// # Errors
/// If the directory cannot be watched, or a pattern cannot be understood.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let dir = place::directory(&args.dir, context)?;
    let timeout = args.timeout.as_deref().map(units::parse_duration).transpose();
    let timeout = timeout.map_err(|error| CommandError::usage(error.to_string()))?;
    let rules = Rules::new(&RuleText { matches: args.matches.clone(), ..RuleText::default() })
        .map_err(|error| CommandError::usage(error.to_string()))?;
    let until = timeout.map(|timeout| Instant::now() + timeout);
    let mut settings =
        load_files(Vec::new(), &context.environment, &context.globals.overrides(std::slice::from_ref(&dir)))?.settings;
    logging::start(settings.log, &context.globals, Talk::Command);
    block_sigio().map_err(|error| CommandError::failed(format!("cannot block SIGIO: {error}")))?;
    let failed = |error: std::io::Error| CommandError::failed(format!("cannot make a temporary directory: {error}"));
    let scratch = Scratch::new().map_err(failed)?;
    scratch.path().clone_into(&mut settings.state_dir);
    settings.journal.roll_bytes = ROLL_BYTES;
    let signalled = signals::listen().map_err(failed)?;
    let handle = service::start(engine::settings(&settings), Mode::Serve, None)?;
    let found = first(&scratch.path().join("journal"), &handle.tail(), &rules, (until, &signalled));
    let _ = handle.commands().send(Command::Stop);
    let ended = handle.join();
    let found = found?;
    ended.map_err(|error| CommandError::failed(engine::with_sources(&error)))?;
    let Some(path) = found else {
        let _ = writeln!(std::io::stderr(), "no file was finished in time");
        return Ok(Outcome::Partly);
    };
    let path = dir.join(OsStr::from_bytes(path.as_bytes()));
    super::print(|out| {
        out.write_all(path.as_os_str().as_bytes())?;
        out.write_all(if args.null { b"\0" } else { b"\n" })
    })?;
    Ok(Outcome::Fine)
}

/// The first finished file; `None`: it is time, or somebody does not want to wait any more.
fn first(
    journal: &std::path::Path,
    tail: &Arc<Tail>,
    rules: &Rules,
    (until, signalled): (Option<Instant>, &Receiver<Wish>),
) -> Result<Option<RelPath>, CommandError> {
    let cannot = |error: keepwatch_journal::ReadError| CommandError::failed(engine::with_sources(&error));
    let mut reader = Reader::open(Arc::new(RealDisk), journal, Seq::ZERO).map_err(cannot)?.following(Arc::clone(tail));
    let mut seen = Seq::ZERO;
    loop {
        while let Some(batch) = reader.next_batch().map_err(cannot)? {
            seen = batch.cursor.seq;
            let mut settled = batch.records.iter().filter_map(|record| match &record.body {
                Body::Settled(settled) => Some(&settled.path),
                _ => None,
            });
            if let Some(path) = settled.find(|path| rules.match_path(path)) {
                return Ok(Some(path.clone()));
            }
        }
        let is_time = until.is_some_and(|until| Instant::now() >= until);
        if is_time || tail.is_closed() || signalled.try_recv().is_ok() {
            return Ok(None);
        }
        let _ = tail.wait_past(seen, Instant::now() + LOOK_WAIT);
    }
}
