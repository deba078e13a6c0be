//! `keepwatch replica`: the places that hold copies, how they are, and what a person decides about them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keepwatch_engine::daemon::fixity::Sum;
use keepwatch_engine::sync::origin::Map;
use keepwatch_engine::target::{Secret, TargetUrl};
use keepwatch_journal::RelPath;
use serde_json::Value;

use super::{Context, all_hosts, table};
use crate::config::reader::nearest;
use crate::config::replicas::{self, ReplicaSpec, name_for};
use crate::config::{Loaded, load_files, sources};
use crate::control::client::Client;
use crate::control::{Origin, ReplicaWish, Request, VerifyRequest};
use crate::engine;
use crate::error::{CommandError, Kind, Outcome};
use crate::lock;
use crate::service::without_service;
use crate::show::safe::Safe;
use crate::show::status::{Replica, Status, age};
use crate::units::{count, human_size};
use crate::verifying;

/// Flags of `keepwatch replica`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with replicas.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Keep copies at another place: write it to the configuration and let the service take it up
    #[command(after_help = "\
Examples:
  keepwatch replica add /mnt/backup
  keepwatch replica add vault /mnt/vault --on-delete keep --root records")]
    Add(Box<AddArgs>),
    /// List the replicas, and how each gets on
    List(ListArgs),
    /// Show all of one, what failed too
    Show(NameArgs),
    /// Take what lies at a replica's target already for the copies that it is. Nothing is sent
    Import(ImportArgs),
    /// List a replica's target, hold everything against it, copy what differs, and say what that came to
    Sync(NameArgs),
    /// Let a replica go on that waits for a person
    Resume(ResumeArgs),
    /// Take what is at the replica's place now for its target: a disk that was replaced on purpose
    Accept(NameArgs),
    /// Keep a replica no more, and forget it. What lies at its target stays there
    Remove(NameArgs),
}

/// Flags of `keepwatch replica add`.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// A name, if another than the end of the URL, then the place: a directory or a URL
    #[arg(required = true, num_args = 1..=2, value_names = ["NAME", "URL"])]
    pub place: Vec<String>,
    /// Hold this root only; may be given several times
    #[arg(long = "root", value_name = "NAME")]
    pub roots: Vec<String>,
    /// Where originals go: below HOST/ABSOLUTE PATH, or by prefixes
    #[arg(long, value_parser = ["hosts", "mirror"])]
    pub layout: Option<String>,
    /// Cut this text from the front of absolute paths (layout `mirror`)
    #[arg(long, value_name = "TEXT")]
    pub source_prefix: Option<String>,
    /// Put this text in front of what is left (layout `mirror`)
    #[arg(long, value_name = "TEXT")]
    pub target_prefix: Option<String>,
    /// What happens to a copy whose original is gone
    #[arg(long, value_parser = ["trash", "keep", "delete"])]
    pub on_delete: Option<String>,
    /// Bytes a second, such as 10M, or a table: "08:00,20M 19:00,off"
    #[arg(long, value_name = "RATE")]
    pub bwlimit: Option<String>,
    /// File with the secret that signs requests to an http target, on its first line
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<String>,
    /// Take what lies there already for copies, and of other hosts for their originals, as `replica import` does
    #[arg(long)]
    pub import_origins: bool,
    /// Private key to log in with by ssh, and no other
    #[arg(long, value_name = "FILE")]
    pub identity_file: Option<String>,
}

/// Flags of `keepwatch replica list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Ask the shared index about the replicas of all hosts
    #[arg(long)]
    pub all_hosts: bool,
}

/// Flags of `keepwatch replica import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The replica's name
    pub name: String,
    /// Read everything and compare contents: what fits is proved, whatever its mtime. By default size and mtime decide
    #[arg(long)]
    pub content: bool,
    /// Take what lies there of other hosts for their originals: below HOST/ABSOLUTE PATH, or as --map says
    #[arg(long)]
    pub import_origins: bool,
    /// A directory there holds this host's files below this path; may be given several times
    #[arg(long = "map", value_name = "DIR=HOST:/PATH", requires = "import_origins")]
    pub maps: Vec<OsString>,
}

/// A replica's name.
#[derive(Debug, clap::Args)]
pub struct NameArgs {
    /// The replica's name
    pub name: String,
}

/// Flags of `keepwatch replica resume`.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// The replica's name
    pub name: String,
    /// The deletes that wait are meant, however many
    #[arg(long)]
    pub allow_deletes: bool,
}

/// Until a service has taken a new configuration up.
const RELOAD_MAX: Duration = Duration::from_secs(30);
/// It is looked for this often.
const LOOK_WAIT: Duration = Duration::from_millis(100);

/// Does it.
///
/// # Errors
/// If the configuration cannot be used, there is no such replica, or the service does not do it.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let loaded = context.settings(&[])?;
    match &args.command {
        Command::Add(args) => add(args, &loaded, context),
        Command::List(args) if args.all_hosts => all_hosts::replicas(&loaded.settings, context),
        Command::List(_) => list(&loaded, context),
        Command::Show(args) => show(&args.name, &loaded, context),
        Command::Import(args) => import(args, &loaded, context),
        Command::Sync(args) => ask(&args.name, ReplicaWish::Sync, &loaded, context),
        Command::Resume(args) => {
            ask(&args.name, ReplicaWish::Resume { allow_deletes: args.allow_deletes }, &loaded, context)
        }
        Command::Accept(args) => ask(&args.name, ReplicaWish::Accept, &loaded, context),
        Command::Remove(args) => remove(&args.name, &loaded, context),
    }
}

/// Adopts what lies at a target, by the service or here.
fn import(args: &ImportArgs, loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    super::refuse_dry_run(context, "replica import", "it sends and changes no file, and only records what lies there")?;
    let settings = &loaded.settings;
    replicas::known(&settings.replicas, &args.name)?;
    let asked = VerifyRequest {
        replica: Some(args.name.clone()),
        import: Some(args.content),
        origins: origins(args, loaded, context)?,
        ..VerifyRequest::default()
    };
    let sum: Sum = match Client::new(&settings.state_dir).call(&Request::Verify(asked.clone()), |_| Ok(())) {
        Ok(answer) => serde_json::from_value(answer)
            .map_err(|error| CommandError::failed(format!("the service's answer cannot be understood: {error}")))?,
        Err(error) if error.kind == Kind::Unreachable && lock::holder(&settings.state_dir).is_none() => {
            verifying::alone(&engine::settings(settings), &asked, &mut |_| Ok(()))?
        }
        Err(error) => return Err(error),
    };
    super::print(|out| {
        if context.globals.json {
            let line = serde_json::json!({"proved": sum.verified, "presumed": sum.presumed, "foreign": sum.foreign,
                "enrolled": sum.enrolled, "bytes_read": sum.bytes});
            return writeln!(out, "{line}");
        }
        if args.import_origins {
            writeln!(out, "{} enrolled as originals of other hosts", count(sum.enrolled, "file"))?;
        }
        let (proved, presumed) = (count(sum.verified, "file"), sum.presumed);
        writeln!(out, "{proved} proved, {presumed} presumed to be copies, {} foreign and left alone", sum.foreign)
    })?;
    Ok(Outcome::Fine)
}

/// Whose the directories at the target are, as they lie there.
fn origins(args: &ImportArgs, loaded: &Loaded, context: &Context) -> Result<Option<Vec<Origin>>, CommandError> {
    if !args.import_origins {
        return Ok(None);
    }
    let top = find(&args.name, loaded)?.url.local_dir().map(Path::to_owned);
    let relative = |dir: &[u8]| {
        let dir = match (&top, dir.starts_with(b"/")) {
            (Some(top), true) => {
                let dir = super::place::clean(&context.environment.current_dir.join(OsStr::from_bytes(dir)));
                dir.strip_prefix(super::place::clean(top)).ok()?.as_os_str().as_bytes().to_vec()
            }
            _ => dir.strip_suffix(b"/").unwrap_or(dir).to_vec(),
        };
        RelPath::new(dir).ok()
    };
    let read = |text: &OsString| {
        let map = Map::parse(text.as_bytes(), relative).map_err(|error| {
            CommandError::usage(error.to_string()).hint("DIR is a directory at the target, by its path there")
        })?;
        Ok((map.dir.as_bytes().to_vec(), map.host, map.path.to_vec()))
    };
    args.maps.iter().map(read).collect::<Result<_, CommandError>>().map(Some)
}

/// All replicas, by the service, or by the inventory where none runs.
fn replicas(loaded: &Loaded) -> Result<Vec<Replica>, CommandError> {
    let dir = &loaded.settings.state_dir;
    let status = match Client::new(dir).call(&Request::Status {}, |_| Ok(())) {
        Ok(answer) => Status::from_answer(answer)?,
        Err(error) if error.kind == Kind::Unreachable && lock::holder(dir).is_none() => match engine::view(dir) {
            Ok(view) => without_service(&view, String::new(), dir)?,
            Err(_) => Status::default(),
        },
        Err(error) => return Err(error),
    };
    let mut all: BTreeMap<String, Replica> =
        status.replicas.into_iter().map(|replica| (replica.name.clone(), replica)).collect();
    for spec in &loaded.settings.replicas {
        all.entry(spec.name.clone()).or_insert_with(|| Replica {
            name: spec.name.clone(),
            url: spec.url.to_string(),
            roots: spec.roots.clone(),
            state: "not loaded".to_owned(),
            ..Replica::default()
        });
    }
    Ok(all.into_values().collect())
}

fn list(loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    let replicas = replicas(loaded)?;
    super::print(|out| {
        if context.globals.json {
            return replicas.iter().try_for_each(|replica| writeln!(out, "{}", serde_json::to_string(replica)?));
        }
        let header = ["NAME", "STATE", "FILES", "BYTES", "PENDING", "FAILED", "LAG", "RATE", "LAST ERROR"];
        let mut rows = vec![header.map(str::to_owned)];
        rows.extend(replicas.iter().map(row));
        table::write(out, &rows, |index| {
            replicas[index].paused.as_ref().map(|why| format!("waits: {}", Safe::text(why)))
        })
    })?;
    Ok(Outcome::Fine)
}

fn row(replica: &Replica) -> [String; 9] {
    [
        Safe::text(&replica.name).to_string(),
        replica.state.clone(),
        replica.files.to_string(),
        human_size(replica.bytes),
        replica.pending.to_string(),
        replica.failed.to_string(),
        if replica.lag_s == 0 { "-".to_owned() } else { age(replica.lag_s) },
        if replica.rate == 0 { "-".to_owned() } else { format!("{}/s", human_size(replica.rate)) },
        replica.last_error.as_ref().map(|error| Safe::text(error).to_string()).unwrap_or_default(),
    ]
}

fn show(name: &str, loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    let replicas = replicas(loaded)?;
    let Some(replica) = replicas.iter().find(|replica| replica.name == name) else {
        return Err(unknown(name, replicas.iter().map(|replica| replica.name.as_str())));
    };
    let failures = failures(name, loaded);
    super::print(|out| {
        if context.globals.json {
            let mut value = serde_json::to_value(replica)?;
            value["failures"] = serde_json::to_value(&failures)?;
            return writeln!(out, "{value}");
        }
        write!(out, "{}", replica.to_string().trim_start_matches('\n'))?;
        if !replica.roots.is_empty() {
            writeln!(out, "  holds {}", replica.roots.join(", "))?;
        }
        if !replica.on_delete.is_empty() {
            writeln!(out, "  on delete: {}", replica.on_delete)?;
        }
        if replica.copied > 0 {
            let (objects, bytes) = (count(replica.copied, "object"), human_size(replica.copied_bytes));
            writeln!(out, "  copied since the start: {objects}, {bytes}")?;
        }
        failures.iter().try_for_each(|(path, why)| writeln!(out, "  failed: {}: {}", Safe::text(path), Safe::text(why)))
    })?;
    Ok(if failures.is_empty() && replica.paused.is_none() { Outcome::Fine } else { Outcome::Findings })
}

/// What could not be copied, by the inventory.
fn failures(name: &str, loaded: &Loaded) -> BTreeMap<String, String> {
    let read = || {
        let view = engine::view(&loaded.settings.state_dir).ok()?;
        let row = view.replica(&keepwatch_engine::model::ReplicaName::new(name)).ok()??;
        let shown = |row: keepwatch_engine::inventory::FailureRow| {
            (format!("{}/{}", row.root, String::from_utf8_lossy(row.path.as_bytes())), row.why)
        };
        Some(view.failures(row.id, FAILURES_SHOWN).ok()?.into_iter().map(shown).collect())
    };
    read().unwrap_or_default()
}

/// More are a matter for `log --do failed`.
const FAILURES_SHOWN: usize = 1_000;

fn ask(name: &str, wish: ReplicaWish, loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    find(name, loaded)?;
    if context.globals.dry_run {
        super::print(|out| writeln!(out, "would ask the service to go on with replica `{}`", Safe::text(name)))?;
        return Ok(Outcome::Fine);
    }
    let request = Request::Replica { name: name.to_owned(), wish };
    let answer = Client::new(&loaded.settings.state_dir).call(&request, |_| Ok(()))?;
    let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or(0);
    let paused = answer.get("paused").and_then(Value::as_str).map(str::to_owned);
    super::print(|out| {
        if context.globals.json {
            return writeln!(out, "{answer}");
        }
        if context.globals.quiet {
            return Ok(());
        }
        let (copied, withdrawn) = (number("copied"), number("withdrawn"));
        writeln!(
            out,
            "replica `{}`: {} copied, {copied} in all since the start, {withdrawn} removed, {} failed",
            Safe::text(name),
            human_size(number("bytes")),
            number("failed"),
        )
    })?;
    if let Some(why) = paused {
        let _ = writeln!(std::io::stderr(), "nothing was deleted: {}", Safe::text(&why));
        let _ = writeln!(std::io::stderr(), "hint: if that is meant: keepwatch replica resume {name} --allow-deletes");
        return Ok(Outcome::Partly);
    }
    Ok(if number("failed") > 0 { Outcome::Partly } else { Outcome::Fine })
}

fn find<'a>(name: &str, loaded: &'a Loaded) -> Result<&'a ReplicaSpec, CommandError> {
    let all = &loaded.settings.replicas;
    all.iter().find(|spec| spec.name == name).ok_or_else(|| unknown(name, all.iter().map(|spec| spec.name.as_str())))
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> CommandError {
    let error = CommandError::usage(format!("there is no replica `{}`", Safe::text(name)));
    match nearest(name, known) {
        Some(known) => error.hint(format!("did you mean `{known}`?")),
        None => error.hint("`keepwatch replica list` lists them"),
    }
}

fn add(args: &AddArgs, loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    let (name, place) = match &args.place[..] {
        [name, place] => (Some(name.clone()), place),
        [place, ..] => (None, place),
        [] => return Err(CommandError::usage("there is no URL")),
    };
    let url = TargetUrl::parse(OsStr::new(place), &context.environment.current_dir)
        .map_err(|error| CommandError::usage(error.to_string()))?;
    if let Some(dir) = url.local_dir()
        && !dir.is_dir()
    {
        return Err(CommandError::unreachable(format!("there is no directory {}", Safe::path(dir)))
            .hint("make it, or mount what belongs there"));
    }
    if let Some(file) = &args.secret_file {
        Secret::File(PathBuf::from(file)).read().map_err(CommandError::usage)?;
    }
    let name = name.unwrap_or_else(|| name_for(&url));
    check_name(&name)?;
    let path = drop_in(&name, context, loaded);
    if path.exists() || loaded.settings.replicas.iter().any(|spec| spec.name == name) {
        return Err(CommandError::usage(format!("there is a replica `{}` already", Safe::text(&name)))
            .hint("give this one another name: `keepwatch replica add NAME URL`"));
    }
    let text = section(&name, &url, args);
    if context.globals.dry_run {
        super::print(|out| write!(out, "would write {}:\n{text}", Safe::path(&path)))?;
        return Ok(Outcome::Fine);
    }
    let failed = |error: std::io::Error| CommandError::failed(format!("cannot write {}: {error}", path.display()));
    let parent = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent).map_err(failed)?;
    // Hidden names are not read: it is tried with the rest before it counts.
    let trial = parent.join(format!(".{name}.toml.new"));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&trial).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    let overrides = context.globals.overrides(&[]);
    let files = loaded.files.iter().cloned().chain([trial.clone()]).collect();
    if let Err(error) = load_files(files, &context.environment, &overrides) {
        let _ = std::fs::remove_file(&trial);
        return Err(error);
    }
    std::fs::rename(&trial, &path).map_err(failed)?;
    let is_running = reload(&name, true, loaded)?;
    if !context.globals.quiet {
        let after = if is_running { "the service keeps it" } else { "the service keeps it when it starts" };
        super::print(|out| writeln!(out, "replica `{name}` at {url}: written to {}; {after}", Safe::path(&path)))?;
    }
    if args.import_origins {
        let asked = ImportArgs { name, content: false, import_origins: true, maps: Vec::new() };
        return import(&asked, &context.settings(&[])?, context);
    }
    Ok(Outcome::Fine)
}

/// A name that can be a file's and a key's.
fn check_name(name: &str) -> Result<(), CommandError> {
    let is_fine = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if is_fine {
        return Ok(());
    }
    let message = format!("`{}` is no name for a replica", Safe::text(name));
    Err(CommandError::usage(message).hint("use letters, digits, `-`, `_` and `.`, a letter or digit first"))
}

/// What is written.
fn section(name: &str, url: &TargetUrl, args: &AddArgs) -> String {
    let value = |text: &str| toml::Value::from(text).to_string();
    let mut text = format!("[replicas.{}]\nurl = {}\n", value(name), value(&url.to_string()));
    if !args.roots.is_empty() {
        text += &format!("roots = {}\n", toml::Value::from(args.roots.clone()));
    }
    let is_mirror = args.source_prefix.is_some() || args.target_prefix.is_some();
    let layout = args.layout.as_deref().or(is_mirror.then_some("mirror"));
    for (key, given) in [
        ("layout", layout),
        ("source_prefix", args.source_prefix.as_deref()),
        ("target_prefix", args.target_prefix.as_deref()),
        ("on_delete", args.on_delete.as_deref()),
        ("bwlimit", args.bwlimit.as_deref()),
        ("secret_file", args.secret_file.as_deref()),
        ("identity_file", args.identity_file.as_deref()),
    ] {
        if let Some(given) = given {
            text += &format!("{key} = {}\n", value(given));
        }
    }
    text
}

/// The file of a replica that this program writes: in `conf.d` beside the main file.
fn drop_in(name: &str, context: &Context, loaded: &Loaded) -> PathBuf {
    let main = loaded.files.iter().find(|path| path.file_name() == Some(OsStr::new(sources::MAIN_FILE)));
    let main = context.globals.config.as_ref().map(|path| context.environment.current_dir.join(path)).or(main.cloned());
    let dir = match main {
        Some(path) if path.is_dir() => path,
        Some(path) => path.parent().unwrap_or(Path::new("/")).to_owned(),
        None if context.environment.is_root => context.environment.system_config_dir(),
        None => context.environment.user_config_dir().unwrap_or_else(|| context.environment.system_config_dir()),
    };
    dir.join("conf.d").join(format!("{name}.toml"))
}

/// Has a running service read the configuration again, and waits until it has; whether one runs.
fn reload(name: &str, is_there: bool, loaded: &Loaded) -> Result<bool, CommandError> {
    let client = Client::new(&loaded.settings.state_dir);
    match client.call(&Request::Reload {}, |_| Ok(())) {
        Ok(_) => {}
        Err(error) if error.kind == Kind::Unreachable && lock::holder(&loaded.settings.state_dir).is_none() => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    let until = Instant::now() + RELOAD_MAX;
    while Instant::now() < until {
        // While it takes the configuration up it may not answer.
        if let Ok(answer) = client.call(&Request::Status {}, |_| Ok(())) {
            let status = Status::from_answer(answer)?;
            if status.replicas.iter().any(|replica| replica.name == name) == is_there {
                return Ok(true);
            }
        }
        std::thread::sleep(LOOK_WAIT);
    }
    Err(CommandError::failed("the service has not taken the configuration up").hint("its log says why"))
}

fn remove(name: &str, loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    let path = drop_in(name, context, loaded);
    let is_configured = loaded.settings.replicas.iter().any(|spec| spec.name == name);
    if is_configured && !path.exists() {
        let origin = loaded.origins.get(&format!("replicas.{name}.url")).map(ToString::to_string).unwrap_or_default();
        return Err(CommandError::usage(format!("replica `{}` was not added by `replica add`", Safe::text(name)))
            .hint(format!("take [replicas.{name}] out of the configuration ({origin}), then remove it again")));
    }
    if context.globals.dry_run {
        super::print(|out| writeln!(out, "would forget replica `{}`; its files would stay", Safe::text(name)))?;
        return Ok(Outcome::Fine);
    }
    if is_configured {
        std::fs::remove_file(&path)
            .map_err(|error| CommandError::failed(format!("cannot remove {}: {error}", path.display())))?;
        if !reload(name, false, loaded)? {
            super::print(|out| writeln!(out, "replica `{}` is not kept any more; its files stay", Safe::text(name)))?;
            return Ok(Outcome::Fine);
        }
    }
    let request = Request::ReplicaForget { name: name.to_owned() };
    Client::new(&loaded.settings.state_dir).call(&request, |_| Ok(()))?;
    if !context.globals.quiet {
        super::print(|out| writeln!(out, "replica `{}` is forgotten; its files stay", Safe::text(name)))?;
    }
    Ok(Outcome::Fine)
}
