//! `keepwatch mirror`: copies directories to a target, then keeps the copy true, without a configuration.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use keepwatch_engine::daemon::replicate::{Meter, OnDelete, Phase, Reading, ReplicaSettings, preview, state_name};
use keepwatch_engine::daemon::service::{self, Command, Mode};
use keepwatch_engine::model::{RelPath, ReplicaName};
use keepwatch_engine::sync::guards::Limits;
use keepwatch_engine::sync::layout::Layout;
use keepwatch_engine::target::{TargetUrl, UrlError};
use keepwatch_engine::watch::lease::block_sigio;
use keepwatch_journal::RootName;

use super::Context;
use crate::config::{Settings, load_files};
use crate::engine;
use crate::error::{CommandError, Kind, Outcome};
use crate::logging::{self, Talk};
use crate::show::safe::Safe;
use crate::signals;
use crate::units;

/// Flags of `keepwatch mirror`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every file goes to TARGET under its absolute path; --source-prefix cuts text from the front of it, --target-prefix puts
text in front. What is deleted or overwritten at the target goes to .keepwatch-trash there.

Examples:
  keepwatch mirror /srv/records /mnt/backup
  keepwatch mirror --once --source-prefix=/home/u/mystuff/ /home/u/mystuff /mnt/backup")]
pub struct Args {
    /// The directories to copy, then the target: a directory, or file:///DIRECTORY
    #[arg(required = true, num_args = 2.., value_names = ["SRC", "TARGET"])]
    pub places: Vec<OsString>,
    /// End when all is copied
    #[arg(long)]
    pub once: bool,
    /// Cut this text from the front of absolute paths
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub source_prefix: OsString,
    /// Put this text in front of what is left
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub target_prefix: OsString,
    /// Files copied at the same time
    #[arg(long, visible_alias = "threads", value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub transfers: u16,
    /// What happens to a copy whose original is gone
    #[arg(long, value_name = "WHAT", default_value = "trash", value_parser = ["trash", "keep", "delete"])]
    pub on_delete: String,
    /// How long after
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub delete_delay: String,
    /// The target may follow when the last file of a source goes
    #[arg(long)]
    pub may_empty: bool,
    /// The deletes that wait are meant, however many
    #[arg(long)]
    pub allow_deletes: bool,
}

/// How often it is looked whether there is news of the copying.
const LOOK_WAIT: Duration = Duration::from_millis(50);
/// How often a line tells how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Mirrors until it is told to end, or once.
///
/// # Errors
/// If the sources or the target cannot be used.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let (sources, target) = places(args, context)?;
    let overrides = context.globals.overrides(&sources);
    let mut settings = load_files(Vec::new(), &context.environment, &overrides)?.settings;
    check_places(&settings, &target)?;
    let layout = Layout::Mirror {
        source_prefix: args.source_prefix.as_bytes().to_vec(),
        target_prefix: args.target_prefix.as_bytes().to_vec(),
    };
    let replica = replica(args, &settings, &target, &layout)?;
    let is_named = context.globals.state_dir.is_some() || context.environment.vars.contains_key("KEEPWATCH_STATE_DIR");
    if !is_named {
        let mut parts: Vec<&[u8]> = settings.roots.iter().map(|root| root.path.as_os_str().as_bytes()).collect();
        let place = target.to_bytes();
        parts.extend([place.as_bytes(), args.source_prefix.as_bytes(), args.target_prefix.as_bytes()]);
        settings.state_dir = settings.state_dir.join("mirror").join(state_name(&parts));
    }
    logging::start(settings.log, &context.globals, Talk::Command);
    if !context.globals.quiet {
        tell_first_mapping(&settings, &target, &layout);
    }
    if context.globals.dry_run {
        return dry_run(&target, &replica);
    }
    mirror(&settings, replica, context)
}

fn mirror(settings: &Settings, replica: ReplicaSettings, context: &Context) -> Result<Outcome, CommandError> {
    block_sigio().map_err(|error| CommandError::failed(format!("cannot block SIGIO: {error}")))?;
    let signalled =
        signals::listen().map_err(|error| CommandError::failed(format!("cannot listen for signals: {error}")))?;
    let (meter, once) = (Arc::clone(&replica.meter), replica.once);
    let mut engine = engine::settings(settings);
    engine.replicas = vec![replica];
    let handle = service::start(engine, Mode::Serve, None)?;
    let mut told = std::time::Instant::now();
    let mut last = Phase::Waiting;
    loop {
        match signalled.recv_timeout(LOOK_WAIT) {
            Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let reading = meter.read();
        if reading.phase == Phase::Ended || reading.is_refused || handle.is_finished() {
            break;
        }
        let is_news = reading.phase == Phase::Following && last == Phase::Comparing && !once;
        if !context.globals.quiet && (is_news || (reading.phase == Phase::Comparing && told.elapsed() > TELL_EVERY)) {
            told = std::time::Instant::now();
            let _ = writeln!(std::io::stderr(), "{}", summary(&reading));
        }
        last = reading.phase;
    }
    let _ = handle.commands().send(Command::Stop);
    let ended = handle.join();
    let reading = meter.read();
    ended.map_err(|error| CommandError::failed(engine::with_sources(&error)))?;
    outcome(&reading, context)
}

/// What it came to.
fn outcome(reading: &Reading, context: &Context) -> Result<Outcome, CommandError> {
    for failure in &reading.failures {
        let _ = writeln!(std::io::stderr(), "not copied: {}: {}", Safe::text(&failure.path), Safe::text(&failure.why));
    }
    if let Some(trouble) = &reading.trouble {
        let kind = if reading.is_refused { Kind::Usage } else { Kind::Unreachable };
        return Err(CommandError::new(kind, trouble.clone()));
    }
    if context.globals.json {
        super::print(|out| {
            writeln!(
                out,
                "{{\"copied\":{},\"bytes\":{},\"adopted\":{},\"moved\":{},\"withdrawn\":{},\"failed\":{}}}",
                reading.copied, reading.bytes, reading.adopted, reading.moved, reading.withdrawn, reading.failed
            )
        })?;
    } else if !context.globals.quiet {
        super::print(|out| writeln!(out, "{}", summary(reading)))?;
    }
    if let Some(why) = &reading.paused {
        let _ = writeln!(std::io::stderr(), "nothing was deleted: {why}");
        let _ = writeln!(std::io::stderr(), "hint: if that is meant, run it again with --allow-deletes");
        return Ok(Outcome::Partly);
    }
    Ok(if reading.failed > 0 { Outcome::Partly } else { Outcome::Fine })
}

fn summary(reading: &Reading) -> String {
    let mut text = format!("{} copied, {}", reading.copied, units::human_size(reading.bytes));
    for (count, what) in [
        (reading.adopted, "there already"),
        (reading.moved, "renamed"),
        (reading.withdrawn, "removed"),
        (reading.failed, "failed"),
    ] {
        if count > 0 {
            text = format!("{text}; {count} {what}");
        }
    }
    text
}

/// The sources and the target, made absolute.
fn places(args: &Args, context: &Context) -> Result<(Vec<PathBuf>, TargetUrl), CommandError> {
    let (target, sources) = args.places.split_last().ok_or_else(|| CommandError::usage("there is no target"))?;
    let sources: Vec<PathBuf> = sources.iter().map(|source| context.environment.current_dir.join(source)).collect();
    for source in &sources {
        if !source.is_dir() {
            return Err(CommandError::usage(format!("{} is not a directory", Safe::path(source))));
        }
    }
    let target = TargetUrl::parse(target, &context.environment.current_dir).map_err(CommandError::from)?;
    if let Some(dir) = target.local_dir() {
        check_dir(dir)?;
    }
    Ok((sources, target))
}

/// A directory that is not there is a slip of the keyboard, or not mounted.
fn check_dir(dir: &Path) -> Result<(), CommandError> {
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(CommandError::usage(format!("the target {} is not a directory", Safe::path(dir)))),
        Err(error) => {
            let message = format!("the target {} cannot be reached: {error}", Safe::path(dir));
            Err(CommandError::unreachable(message).hint("make the directory, or mount what belongs there"))
        }
    }
}

impl From<UrlError> for CommandError {
    fn from(error: UrlError) -> Self {
        CommandError::usage(Safe::text(&error.to_string()).to_string())
    }
}

/// A target in a source would be copied into itself; a source in a target would be taken for copies.
fn check_places(settings: &Settings, target: &TargetUrl) -> Result<(), CommandError> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    for root in &settings.roots {
        let Some(target) = target.local_dir() else { break };
        let (source, target_real) = (real(&root.path), real(target));
        if target_real.starts_with(&source) || source.starts_with(&target_real) {
            let (source, target) = (Safe::path(&root.path), Safe::path(target));
            return Err(CommandError::usage(format!("the target {target} and the source {source} lie in one another"))
                .hint("choose a target outside of every source"));
        }
    }
    service::check(&engine::settings(settings))?;
    Ok(())
}

fn replica(
    args: &Args,
    settings: &Settings,
    target: &TargetUrl,
    layout: &Layout,
) -> Result<ReplicaSettings, CommandError> {
    let mut roots = Vec::new();
    for root in &settings.roots {
        let placement = layout
            .placement(root.path.as_os_str().as_bytes())
            .map_err(|error| CommandError::usage(error.to_string()))?;
        roots.push((RootName::new(root.name.as_str()), root.path.clone(), placement));
    }
    for (index, (one, _, placement)) in roots.iter().enumerate() {
        if let Some((other, ..)) = roots[..index].iter().find(|(_, _, other)| placement.overlaps(other)) {
            return Err(CommandError::usage(format!("the sources `{other}` and `{one}` would mix at the target"))
                .hint("a shorter --source-prefix keeps them apart"));
        }
    }
    let delete_delay =
        units::parse_duration(&args.delete_delay).map_err(|error| CommandError::usage(error.to_string()))?;
    Ok(ReplicaSettings {
        name: ReplicaName::new(target.to_string()),
        url: target.to_string(),
        target: target.target(),
        roots,
        on_delete: match args.on_delete.as_str() {
            "keep" => OnDelete::Keep,
            "delete" => OnDelete::Delete,
            _ => OnDelete::Trash,
        },
        delete_delay,
        limits: Limits { may_empty: args.may_empty, allow_deletes: args.allow_deletes, ..Limits::default() },
        transfers: usize::from(args.transfers),
        once: args.once,
        meter: Arc::new(Meter::default()),
    })
}

/// Shows by the first file where all will go, and how the path would be shorter.
fn tell_first_mapping(settings: &Settings, target: &TargetUrl, layout: &Layout) {
    let Some(root) = settings.roots.first() else { return };
    let Ok(entries) = std::fs::read_dir(&root.path) else { return };
    let Some(name) = entries.flatten().map(|entry| entry.file_name()).min() else { return };
    let from = root.path.join(&name);
    let absolute = from.as_os_str().as_bytes();
    let place = |layout: &Layout| {
        let placement = layout.placement(root.path.as_os_str().as_bytes()).ok()?;
        let place = placement.place(&RelPath::new(name.as_bytes()).ok()?);
        Some(at_target(target, &place))
    };
    let Some(to) = place(layout) else { return };
    let mut err = std::io::stderr();
    let _ = writeln!(err, "{} → {}", Safe::path(&from), Safe::text(&to));
    if layout.leaves_slash(absolute) {
        let _ = writeln!(err, "the source prefix leaves a `/` in front; end it with one");
    }
    let top = [root.path.as_os_str().as_bytes(), b"/"].concat();
    let short = Layout::Mirror { source_prefix: top.clone(), target_prefix: Vec::new() };
    if let Layout::Mirror { source_prefix, target_prefix } = layout
        && source_prefix.is_empty()
        && target_prefix.is_empty()
        && let Some(shorter) = place(&short)
    {
        let top = PathBuf::from(OsStr::from_bytes(&top));
        let _ = writeln!(err, "for {} give --source-prefix={}", Safe::text(&shorter), Safe::path(&top));
    }
}

/// A place at a target, for people.
fn at_target(target: &TargetUrl, place: &RelPath) -> String {
    format!("{}/{}", target.to_string().trim_end_matches('/'), String::from_utf8_lossy(place.as_bytes()))
}

/// Says what would be copied, by what lies there now. Nothing is written, not even state.
fn dry_run(target: &TargetUrl, replica: &ReplicaSettings) -> Result<Outcome, CommandError> {
    let mut listed = Ok(());
    super::print(|out| {
        let mut written = Ok(());
        listed = preview(&*replica.target, &replica.roots, &mut |from, to| {
            if written.is_ok() {
                written = writeln!(out, "would copy {} → {}", Safe::path(from), Safe::text(&at_target(target, to)));
            }
        });
        written
    })?;
    listed.map_err(|error| CommandError::unreachable(engine::with_sources(&error)))?;
    Ok(Outcome::Fine)
}
