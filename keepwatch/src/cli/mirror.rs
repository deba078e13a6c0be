//! `keepwatch mirror`: copies directories to a target, then keeps the copy true, without a configuration.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use keepwatch_engine::daemon::replicate::{Phase, Reading, ReplicaSettings, preview, state_name};
use keepwatch_engine::daemon::service::{self, Command, Mode};
use keepwatch_engine::model::{JournalId, RelPath};
use keepwatch_engine::sync::layout::Layout;
use keepwatch_engine::target::{ExecCommand, TargetUrl, Timetable, UrlError, Way};
use keepwatch_engine::watch::lease::block_sigio;

use super::Context;
use crate::config::replicas::{HTTP_CREDENTIAL, HTTP_VARIABLE, parse_far_side, parse_ssh_command};
use crate::config::replicas::{
    LayoutKind, ReplicaSpec, SpecLimits, lead_of, parse_on_delete, parse_percent, read_rules,
};
use crate::config::secret::SecretFrom;
use crate::config::{SPOOL, Settings, load_files};
use crate::engine;
use crate::error::{CommandError, Kind, Outcome};
use crate::logging::{self, Talk};
use crate::show::progress::CopyBar;
use crate::show::safe::Safe;
use crate::signals;
use crate::units;
use crate::{aws, cloud};

/// Flags of `keepwatch mirror`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every file goes to TARGET under its absolute path; --source-prefix cuts text from the front of it, --target-prefix puts
text in front. What is deleted or overwritten at the target goes to .keepwatch-trash there.

Examples:
  keepwatch mirror /srv/records /mnt/backup
  keepwatch mirror --once --source-prefix=/home/u/mystuff/ /home/u/mystuff /mnt/backup")]
pub struct Args {
    /// The directories to copy, then the target: a directory, ssh://HOST/DIRECTORY, s3://BUCKET/PREFIX,
    /// gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://HOST/PATH, rclone:REMOTE:PATH, or 'exec:PROGRAM ARG…'
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
    /// Copy only what this regular expression matches, on the absolute path, from its start
    #[arg(long, value_name = "REGEX")]
    pub source_filter: Vec<String>,
    /// Copy nothing that this regular expression matches
    #[arg(long, value_name = "REGEX")]
    pub source_exclude: Vec<String>,
    /// Copy only what one of these patterns matches, as rclone writes them
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Copy nothing that one of these patterns matches
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// A rule, `+ PATTERN` or `- PATTERN`; the first that fits decides
    #[arg(long, value_name = "RULE", allow_hyphen_values = true)]
    pub filter: Vec<String>,
    /// Rules from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub filter_from: Vec<PathBuf>,
    /// Files copied at the same time; by default what suits the kind of target
    #[arg(long, visible_alias = "threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub transfers: Option<u16>,
    /// To a directory: have the kernel copy, and compare sizes only; copies are presumed until `keepwatch verify` has read them
    #[arg(long)]
    pub no_hash: bool,
    /// Bytes a second, such as 10M, or a table: "08:00,20M 19:00,off"
    #[arg(long, value_name = "RATE")]
    pub bwlimit: Option<String>,
    /// URL of a store that is not AWS's, Google's or Azure's own, or of the remote control of an rclone that runs
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Region of the S3 bucket
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Profile of ~/.aws that has the credentials for S3
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// File of credentials: for S3 in place of ~/.aws/credentials, for Google a JSON file, for Azure lines of variables
    #[arg(long, value_name = "FILE")]
    pub credentials_file: Option<PathBuf>,
    /// File whose first line is the secret that signs requests by http, or USER:PASSWORD of an rclone that runs
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Program to run as ssh, with arguments, such as "ssh -4"
    #[arg(long, value_name = "COMMAND", value_parser = parse_ssh_command)]
    pub ssh_command: Option<ExecCommand>,
    /// Configuration file for ssh, in place of the user's and the system's
    #[arg(long, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
    /// Private key to log in with by ssh, and no other
    #[arg(long, value_name = "FILE")]
    pub identity_file: Option<PathBuf>,
    /// How to talk to the far side of ssh: to `keepwatch receive` where it is installed, always, or never
    #[arg(long, value_name = "auto|receive|sftp", value_parser = parse_far_side)]
    pub far_side: Option<Way>,
    /// How long a plug-in (60s), a server (30s), ssh (45s) or rclone (5m) may say nothing
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// What happens to a copy whose original is gone
    #[arg(long, value_name = "WHAT", default_value = "trash", value_parser = ["trash", "keep", "delete"])]
    pub on_delete: String,
    /// How long after
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub delete_delay: String,
    /// How long the trash is kept; 0s: for ever
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub trash_keep: String,
    /// Deletes wait for a person if more than this share of the copy would go within an hour
    #[arg(long, value_name = "SHARE", default_value = "10%")]
    pub max_delete: String,
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
    let mut spec = spec(args, target, context)?;
    if let Err((message, hint)) = spec.check_roots(&settings.roots) {
        return Err(CommandError::usage(message).hint(hint));
    }
    service::check(&engine::settings(&settings))?;
    let owned = state_of(&spec, &mut settings, context);
    spec.spool = settings.state_dir.join(SPOOL);
    let mut replica = spec.for_engine(&settings.roots, &engine::host_name());
    replica.check().map_err(|error| CommandError::usage(error.to_string()))?;
    // What was written wrong is told first: no disk that is mounted mends it.
    if let Some(dir) = spec.url.local_dir() {
        check_dir(dir)?;
    }
    replica.once = args.once;
    if let Some(all) = owned.filter(|_| !context.globals.dry_run) {
        replica.owner = Some(owner(&all)?);
    }
    logging::start(settings.log, &context.globals, Talk::Command);
    if !context.globals.quiet {
        tell_first_mapping(&settings, &spec);
    }
    if context.globals.dry_run {
        let lead = spec.lead(&settings.roots, "").unwrap_or_default();
        return dry_run((&spec.url, &lead), &replica, context);
    }
    mirror(&settings, replica, context)
}

/// Gives it a state directory of its own, unless a person named one; where those of all mirrors are, then.
fn state_of(spec: &ReplicaSpec, settings: &mut Settings, context: &Context) -> Option<PathBuf> {
    if context.globals.state_dir.is_some() || context.environment.vars.contains_key("KEEPWATCH_STATE_DIR") {
        return None;
    }
    let mut parts: Vec<&[u8]> = settings.roots.iter().map(|root| root.path.as_os_str().as_bytes()).collect();
    let place = spec.url.to_bytes();
    parts.push(place.as_bytes());
    parts.extend(spec.aws.asked.endpoint.as_deref().map(str::as_bytes));
    let all = settings.state_dir.join("mirror");
    settings.state_dir = all.join(state_name(&parts));
    Some(all)
}

/// All that one user mirrors belongs to one owner, so that several sources can share a target.
fn owner(dir: &Path) -> Result<String, CommandError> {
    let failed =
        |error: std::io::Error| CommandError::failed(format!("cannot keep state in {}: {error}", dir.display()));
    let path = dir.join("owner");
    if let Ok(text) = std::fs::read_to_string(&path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let id = JournalId::random().to_string();
    // Whole, and never over one that another start has just made.
    let new = dir.join(format!("owner.{}", std::process::id()));
    std::fs::write(&new, &id).map_err(failed)?;
    let made = std::fs::hard_link(&new, &path);
    std::fs::remove_file(&new).map_err(failed)?;
    match made {
        Ok(()) => Ok(id),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok(std::fs::read_to_string(&path).map_err(failed)?.trim().to_owned())
        }
        Err(error) => Err(failed(error)),
    }
}

/// What the flags say.
fn spec(args: &Args, target: TargetUrl, context: &Context) -> Result<ReplicaSpec, CommandError> {
    let duration = |text: &str| units::parse_duration(text).map_err(|error| CommandError::usage(error.to_string()));
    let mut spec = ReplicaSpec::new(target.to_string(), target);
    spec.layout = LayoutKind::Mirror;
    spec.source_prefix.clone_from(&args.source_prefix);
    spec.target_prefix.clone_from(&args.target_prefix);
    spec.filter.source_filter.clone_from(&args.source_filter);
    spec.filter.source_exclude.clone_from(&args.source_exclude);
    let mut rules = args.filter.clone();
    for path in &args.filter_from {
        rules.extend(read_rules(path).map_err(CommandError::usage)?);
    }
    spec.filter.add_rules(&args.include, &args.exclude, &rules);
    spec.on_delete = parse_on_delete(&args.on_delete).map_err(CommandError::usage)?;
    spec.delete_delay = duration(&args.delete_delay)?;
    spec.trash_keep = duration(&args.trash_keep)?;
    spec.limits = SpecLimits {
        delete_percent_max: parse_percent(&args.max_delete).map_err(CommandError::usage)?,
        may_empty: args.may_empty,
        allow_deletes: args.allow_deletes,
    };
    spec.timeout = args.timeout.as_deref().map(duration).transpose()?;
    spec.transfers = args.transfers.map(u64::from);
    spec.hash = !args.no_hash;
    if let Err((message, hint)) = spec.check_hash() {
        return Err(CommandError::usage(message).hint(hint));
    }
    let table = args.bwlimit.as_deref().map(Timetable::parse).transpose();
    spec.bwlimit = table.map_err(|error| CommandError::usage(error.to_string()))?;
    if let TargetUrl::Rclone(_) = spec.url {
        spec.aws.asked.endpoint.clone_from(&args.endpoint);
    }
    if let TargetUrl::Http(_) | TargetUrl::Rclone(_) = spec.url {
        let file = args.secret_file.as_ref().map(|file| context.environment.current_dir.join(file));
        let elsewhere = || SecretFrom::of(&context.environment, HTTP_VARIABLE, HTTP_CREDENTIAL);
        spec.secret = file.map_or_else(elsewhere, SecretFrom::File);
        spec.target_secret().read().map_err(CommandError::usage)?;
    }
    if let TargetUrl::Ssh(_) = spec.url {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| context.environment.current_dir.join(path));
        (spec.ssh.config, spec.ssh.identity) = (path(&args.ssh_config), path(&args.identity_file));
        spec.ssh.way = args.far_side.unwrap_or_default();
        spec.ssh_command.clone_from(&args.ssh_command);
    }
    if let TargetUrl::S3(_) = spec.url {
        spec.aws = aws_source(args, context);
        // What is wrong with it is told before anything begins.
        spec.aws.access()?;
    }
    if let TargetUrl::Cloud(place) = &spec.url {
        spec.aws = aws_source(args, context);
        cloud::access(place, &spec.aws)?;
    }
    Ok(spec)
}

fn aws_source(args: &Args, context: &Context) -> aws::Source {
    let asked = aws::Asked {
        endpoint: args.endpoint.clone(),
        region: args.region.clone(),
        profile: args.profile.clone(),
        credentials_file: args.credentials_file.as_ref().map(|file| context.environment.current_dir.join(file)),
    };
    aws::Source { asked, variables: context.environment.aws.clone(), home: context.environment.home.clone() }
}

fn mirror(settings: &Settings, replica: ReplicaSettings, context: &Context) -> Result<Outcome, CommandError> {
    block_sigio().map_err(|error| CommandError::failed(format!("cannot block SIGIO: {error}")))?;
    let signalled =
        signals::listen().map_err(|error| CommandError::failed(format!("cannot listen for signals: {error}")))?;
    let (meter, once) = (Arc::clone(&replica.meter), replica.once);
    let mut engine = engine::settings(settings);
    engine.replicas = vec![replica];
    let handle = service::start(engine, Mode::Serve, None)?;
    let bar = CopyBar::new(context.globals.quiet || context.globals.json);
    let mut told = std::time::Instant::now();
    let mut last = Phase::Waiting;
    loop {
        match signalled.recv_timeout(LOOK_WAIT) {
            Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let reading = meter.read();
        // A target that was never reached is a slip, or is told to the one who waits.
        let is_unreachable = reading.trouble.is_some() && !reading.was_reached;
        if reading.phase == Phase::Ended || reading.is_refused || is_unreachable || handle.is_finished() {
            break;
        }
        if reading.phase == Phase::Comparing {
            bar.show(&reading);
        }
        let is_there = reading.phase == Phase::Following && last == Phase::Comparing;
        if is_there {
            bar.end();
        }
        let is_time = reading.phase == Phase::Comparing && !bar.is_seen() && told.elapsed() > TELL_EVERY;
        if (is_there && !once) || is_time {
            told = std::time::Instant::now();
            tell(&reading, context);
        }
        last = reading.phase;
    }
    bar.end();
    let _ = handle.commands().send(Command::Stop);
    let ended = handle.join();
    let reading = meter.read();
    ended.map_err(|error| CommandError::failed(engine::with_sources(&error)))?;
    outcome(&reading, context)
}

/// How far it is, on the way.
fn tell(reading: &Reading, context: &Context) {
    if context.globals.json {
        // A closed pipe shows at the next line that matters.
        let _ = super::print(|out| writeln!(out, "{}", json(reading)));
    } else if !context.globals.quiet {
        let _ = writeln!(std::io::stderr(), "{}", summary(reading));
    }
}

fn json(reading: &Reading) -> serde_json::Value {
    let phase = match reading.phase {
        Phase::Waiting => "waiting",
        Phase::Comparing => "comparing",
        Phase::Following => "following",
        Phase::Ended => "ended",
    };
    serde_json::json!({
        "phase": phase,
        "copied": reading.copied,
        "bytes": reading.bytes,
        "adopted": reading.adopted,
        "moved": reading.moved,
        "withdrawn": reading.withdrawn,
        "failed": reading.failed,
        "failures": reading.failures,
        "paused": reading.paused,
        "trouble": reading.trouble,
    })
}

/// What it came to.
fn outcome(reading: &Reading, context: &Context) -> Result<Outcome, CommandError> {
    for (path, why) in &reading.failures {
        let _ = writeln!(std::io::stderr(), "not copied: {}: {}", Safe::text(path), Safe::text(why));
    }
    if let Some(trouble) = &reading.trouble {
        let kind = if reading.is_refused { Kind::Usage } else { Kind::Unreachable };
        return Err(CommandError::new(kind, trouble.clone()));
    }
    if context.globals.json {
        super::print(|out| writeln!(out, "{}", json(reading)))?;
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
        match std::fs::metadata(source) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => {
                let message = format!("{} is not a directory", Safe::path(source));
                return Err(CommandError::usage(message).hint("name the directory that holds it, and --include=NAME"));
            }
            Err(error) => {
                let message = format!("the source {} cannot be read: {error}", Safe::path(source));
                return Err(CommandError::usage(message).hint("name a directory that is there; is its disk mounted?"));
            }
        }
    }
    let target = TargetUrl::parse(target, &context.environment.current_dir).map_err(CommandError::from)?;
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

/// Shows by the first file where all will go, and how the path would be shorter.
fn tell_first_mapping(settings: &Settings, spec: &ReplicaSpec) {
    let (target, layout) = (&spec.url, &spec.layout(""));
    let Some(root) = settings.roots.first() else { return };
    let Ok(entries) = std::fs::read_dir(&root.path) else { return };
    let Some(name) = entries.flatten().map(|entry| entry.file_name()).min() else { return };
    let from = root.path.join(&name);
    let absolute = from.as_os_str().as_bytes();
    let place = |layout: &Layout| {
        let placement = layout.placement(root.path.as_os_str().as_bytes()).ok()?;
        let place = placement.place(&RelPath::new(name.as_bytes()).ok()?);
        Some(at_target(target, &lead_of(target, layout, &root.path), &place))
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
        let top = PathBuf::from(OsString::from_vec(top));
        let _ = writeln!(err, "for {} give --source-prefix={}", Safe::text(&shorter), Safe::path(&top));
    }
}

/// A place at a target, for people.
fn at_target(target: &TargetUrl, lead: &[u8], place: &RelPath) -> String {
    if target.keeps_lead() {
        return format!("{target}: {}", String::from_utf8_lossy(&[lead, place.as_bytes()].concat()));
    }
    format!("{}/{}", target.to_string().trim_end_matches('/'), String::from_utf8_lossy(place.as_bytes()))
}

/// Says what would be copied, by what lies there now. Nothing is written, not even state.
fn dry_run(
    (target, lead): (&TargetUrl, &[u8]),
    replica: &ReplicaSettings,
    context: &Context,
) -> Result<Outcome, CommandError> {
    let mut listed = Ok(());
    super::print(|out| {
        let mut written = Ok(());
        listed = preview(replica, &mut |from, to| {
            let to = at_target(target, lead, to);
            if written.is_err() {
                return;
            }
            written = if context.globals.json {
                let line = serde_json::json!({"would": "copy", "from": from.to_string_lossy(), "to": to});
                writeln!(out, "{line}")
            } else {
                writeln!(out, "would copy {} → {}", Safe::path(from), Safe::text(&to))
            };
        });
        written
    })?;
    listed.map_err(|error| CommandError::unreachable(engine::with_sources(&error)))?;
    Ok(Outcome::Fine)
}
