//! `keepwatch trigger`: the hand-off queue: what waits, what was given up, and what a person decides about it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keepwatch_engine::daemon::scribe::Scribe;
use keepwatch_engine::daemon::tell::{Tell as _, TellError};
use keepwatch_engine::daemon::triggers::{Said, Wish, acts, queue_of, said};
use keepwatch_engine::inventory::{FileId, RunRow, RunState, View};
use keepwatch_engine::model::{RelPath, RootName, TriggerName};
use serde_json::Value;

use super::{Context, place, table};
use crate::config::Loaded;
use crate::config::reader::nearest;
use crate::config::triggers::TriggerSpec;
use crate::control::client::Client;
use crate::control::{Request, TriggerWish};
use crate::engine;
use crate::error::{CommandError, Kind, Outcome};
use crate::lock;
use crate::service::without_service;
use crate::show::safe::Safe;
use crate::show::status::{Status, Trigger};

/// Flags of `keepwatch trigger`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with triggers.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the triggers, and how each gets on
    List,
    /// Show all of one: what was given up and why, and what its last runs said
    Show(ShowArgs),
    /// Try again what was given up, and at once what waits for another attempt
    Retry(AboutArgs),
    /// Do not run for what waits or was given up
    Skip(AboutArgs),
    /// Say which triggers are about a path, what each would run, and what became of it
    Test(TestArgs),
}

/// Flags of `keepwatch trigger show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The trigger's name
    pub name: String,
    /// Show what the last runs for this file said, in full
    pub path: Option<PathBuf>,
}

/// A trigger, and what of it.
#[derive(Debug, clap::Args)]
pub struct AboutArgs {
    /// The trigger's name
    pub name: String,
    /// Only this file, or what is in this directory
    pub path: Option<PathBuf>,
}

/// Flags of `keepwatch trigger test`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// A file
    pub path: PathBuf,
}

/// Files that are shown of those that were given up.
const DEAD_SHOWN: usize = 1_000;
/// Runs of which is shown what they said.
const SAID_SHOWN: usize = 20;

/// Does it.
///
/// # Errors
/// If the configuration cannot be used, there is no such trigger, or the service does not do it.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let loaded = context.settings(&[])?;
    match &args.command {
        Command::List => list(&loaded, context),
        Command::Show(args) => show(args, &loaded, context),
        Command::Retry(args) => ask(args, true, &loaded, context),
        Command::Skip(args) => ask(args, false, &loaded, context),
        Command::Test(args) => test(args, &loaded, context),
    }
}

/// All triggers, by the service, or by the inventory where none runs.
fn triggers(loaded: &Loaded) -> Result<Vec<Trigger>, CommandError> {
    let dir = &loaded.settings.state_dir;
    let status = match Client::new(dir).call(&Request::Status {}, |_| Ok(())) {
        Ok(answer) => Status::from_answer(answer)?,
        Err(error) if error.kind == Kind::Unreachable && lock::holder(dir).is_none() => match engine::view(dir) {
            Ok(view) => without_service(&view, String::new(), dir)?,
            Err(_) => Status::default(),
        },
        Err(error) => return Err(error),
    };
    let mut all: BTreeMap<String, Trigger> =
        status.triggers.into_iter().map(|trigger| (trigger.name.clone(), trigger)).collect();
    for spec in &loaded.settings.triggers {
        let entry = all.entry(spec.name.clone()).or_insert_with(|| Trigger {
            name: spec.name.clone(),
            state: "not loaded".to_owned(),
            ..Trigger::default()
        });
        if entry.command.is_empty() {
            entry.command = words(spec);
            entry.roots.clone_from(&spec.roots);
        }
    }
    Ok(all.into_values().collect())
}

fn words(spec: &TriggerSpec) -> String {
    spec.command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn list(loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    let triggers = triggers(loaded)?;
    super::print(|out| {
        if context.globals.json {
            return triggers.iter().try_for_each(|trigger| writeln!(out, "{}", serde_json::to_string(trigger)?));
        }
        let mut rows = vec![["NAME", "STATE", "QUEUED", "RUNNING", "DONE", "DEAD", "COMMAND"].map(str::to_owned)];
        rows.extend(triggers.iter().map(row));
        table::write(out, &rows, |index| {
            triggers[index].trouble.as_ref().map(|why| format!("stuck: {}", Safe::text(why)))
        })
    })?;
    Ok(Outcome::Fine)
}

fn row(trigger: &Trigger) -> [String; 7] {
    [
        Safe::text(&trigger.name).to_string(),
        trigger.state.clone(),
        trigger.queued.to_string(),
        trigger.running.to_string(),
        trigger.done.to_string(),
        trigger.dead.to_string(),
        Safe::text(&trigger.command).to_string(),
    ]
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> CommandError {
    let error = CommandError::usage(format!("there is no trigger `{}`", Safe::text(name)));
    match nearest(name, known) {
        Some(known) => error.hint(format!("did you mean `{known}`?")),
        None => error.hint("`keepwatch trigger list` lists them"),
    }
}

fn find(name: &str, loaded: &Loaded) -> Result<(), CommandError> {
    let all = &loaded.settings.triggers;
    match all.iter().any(|spec| spec.name == name) {
        true => Ok(()),
        false => Err(unknown(name, all.iter().map(|spec| spec.name.as_str()))),
    }
}

/// What was given up.
fn dead(view: &View, name: &str) -> Result<Vec<RunRow>, CommandError> {
    match view.trigger(&TriggerName::new(name))? {
        Some(row) => Ok(view.runs_after(row.id, RunState::Dead, FileId(i64::MIN), DEAD_SHOWN)?),
        None => Ok(Vec::new()),
    }
}

fn show(args: &ShowArgs, loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    let triggers = triggers(loaded)?;
    let Some(trigger) = triggers.iter().find(|trigger| trigger.name == args.name) else {
        return Err(unknown(&args.name, triggers.iter().map(|trigger| trigger.name.as_str())));
    };
    let queue = queue_of(&loaded.settings.state_dir, &args.name);
    if let Some(path) = &args.path {
        let view = engine::view(&loaded.settings.state_dir)?;
        let place = place::find(path, &context.environment.current_dir, &view)?;
        return show_said(&said(&queue, Some((place.root.as_str(), &place.path)), SAID_SHOWN), context);
    }
    let dead = match engine::view(&loaded.settings.state_dir) {
        Ok(view) => dead(&view, &args.name)?,
        Err(_) => Vec::new(),
    };
    let said = said(&queue, None, SAID_SHOWN);
    super::print(|out| {
        if context.globals.json {
            let mut value = serde_json::to_value(trigger)?;
            value["given_up"] = dead.iter().map(dead_json).collect();
            value["said"] = said.iter().map(said_json).collect();
            return writeln!(out, "{value}");
        }
        write!(out, "{}", trigger.to_string().trim_start_matches('\n'))?;
        writeln!(out, "  runs {}", Safe::text(&trigger.command))?;
        for row in &dead {
            let why = row.why.as_deref().unwrap_or_default();
            let shown = Safe(row.path.as_bytes());
            writeln!(out, "  given up after {} attempts: {}/{shown}: {}", row.attempts, row.root, Safe::text(why))?;
        }
        for said in &said {
            let how = said.why.as_deref().unwrap_or("fine");
            let shown = Safe(said.path.as_bytes());
            writeln!(out, "  {} {}/{shown}: {}", said.at, said.root, Safe::text(how))?;
        }
        Ok(())
    })?;
    Ok(if trigger.dead == 0 && trigger.trouble.is_none() { Outcome::Fine } else { Outcome::Findings })
}

fn show_said(said: &[Said], context: &Context) -> Result<Outcome, CommandError> {
    super::print(|out| {
        for said in said {
            if context.globals.json {
                writeln!(out, "{}", said_json(said))?;
                continue;
            }
            let how = said.why.as_deref().unwrap_or("fine");
            writeln!(out, "{} version {} in {} ms: {}", said.at, said.version, said.took_ms, Safe::text(how))?;
            for (stream, bytes) in [("stdout", &said.stdout), ("stderr", &said.stderr)] {
                for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    writeln!(out, "  {stream}: {}", Safe(line))?;
                }
            }
        }
        Ok(())
    })?;
    Ok(Outcome::Fine)
}

fn dead_json(row: &RunRow) -> Value {
    serde_json::json!({
        "root": row.root,
        "path": text(&row.path),
        "version": row.version.0,
        "attempts": row.attempts,
        "at": row.at.to_string(),
        "why": row.why,
    })
}

fn said_json(said: &Said) -> Value {
    serde_json::json!({
        "at": said.at.to_string(),
        "root": said.root,
        "path": text(&said.path),
        "version": said.version.0,
        "why": said.why,
        "took_ms": said.took_ms,
        "stdout": String::from_utf8_lossy(&said.stdout),
        "stderr": String::from_utf8_lossy(&said.stderr),
    })
}

fn text(path: &RelPath) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

fn ask(args: &AboutArgs, is_retry: bool, loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    find(&args.name, loaded)?;
    let place = match &args.path {
        Some(path) => {
            let view = engine::view(&loaded.settings.state_dir)?;
            Some(place::find(path, &context.environment.current_dir, &view)?)
        }
        None => None,
    };
    if context.globals.dry_run {
        let what = if is_retry { "try again" } else { "skip" };
        super::print(|out| writeln!(out, "would {what} files of trigger `{}`", args.name))?;
        return Ok(Outcome::Fine);
    }
    let place = place.map(|place| (place.root, place.path));
    let request = Request::Trigger { name: args.name.clone(), wish: TriggerWish::about(is_retry, place.clone()) };
    let state_dir = &loaded.settings.state_dir;
    let count = match Client::new(state_dir).call(&request, |_| Ok(())) {
        Ok(answer) => answer.as_u64().unwrap_or(0),
        Err(error) if error.kind == Kind::Unreachable && lock::holder(state_dir).is_none() => {
            alone(&args.name, is_retry, place, loaded)?
        }
        Err(error) => return Err(error),
    };
    super::print(|out| match (context.globals.json, context.globals.quiet) {
        (true, _) => writeln!(out, "{}", serde_json::json!({"files": count})),
        (false, true) => Ok(()),
        (false, false) => {
            let what = if is_retry { "tried again" } else { "skipped" };
            writeln!(out, "trigger `{}`: {} {what}", args.name, crate::units::count(count, "file"))
        }
    })?;
    Ok(Outcome::Fine)
}

/// The same where no service runs: it takes effect at the next start.
fn alone(name: &str, is_retry: bool, place: Option<(RootName, RelPath)>, loaded: &Loaded) -> Result<u64, CommandError> {
    let scribe = Scribe::open(&engine::settings(&loaded.settings))?;
    let wish = if is_retry { Wish::Retry(place) } else { Wish::Skip(place) };
    let acts = acts(&engine::view(&loaded.settings.state_dir)?, &TriggerName::new(name), &wish)?;
    let count = acts.len() as u64;
    let failed = |error: TellError| CommandError::failed(error.to_string());
    scribe.tell(acts).map_err(failed)?;
    scribe.close().map_err(failed)?;
    Ok(count)
}

fn test(args: &TestArgs, loaded: &Loaded, context: &Context) -> Result<Outcome, CommandError> {
    let absolute = place::clean(&context.environment.current_dir.join(&args.path));
    let root = loaded.settings.roots.iter().filter(|root| absolute.starts_with(&root.path));
    let Some(root) = root.max_by_key(|root| root.path.as_os_str().len()) else {
        return Err(CommandError::usage(format!("{} lies in no root", Safe::path(&absolute)))
            .hint("`keepwatch root list` lists them"));
    };
    let rel = absolute.strip_prefix(&root.path).unwrap_or(&absolute).as_os_str().as_encoded_bytes();
    let path = RelPath::new(rel).map_err(|error| CommandError::usage(error.to_string()))?;
    let name = keepwatch_engine::model::RootName::new(root.name.as_str());
    let view = engine::view(&loaded.settings.state_dir).ok();
    let known = match &view {
        Some(view) => view.at_path(&name, &path)?,
        None => None,
    };
    let mut about = Vec::new();
    for spec in &loaded.settings.triggers {
        let settings = spec.for_engine(&loaded.settings.roots);
        let is_about = settings.is_about(&name, &path).map_err(|error| CommandError::usage(error.to_string()))?;
        if !is_about {
            continue;
        }
        let words = settings.filled(&name, &path).map_err(|error| CommandError::usage(error.to_string()))?;
        let run = match (&view, &known) {
            (Some(view), Some(known)) => match view.trigger(&settings.name)? {
                Some(row) => view.run_of(row.id, known.file_id)?.filter(|run| run.version == known.version_seq),
                None => None,
            },
            _ => None,
        };
        let state = match (&known, run.as_ref().map(|run| run.state)) {
            (None, _) => "not in the inventory",
            (Some(known), None) if !known.is_settled() => "not complete yet",
            (Some(_), None | Some(RunState::Resumed)) => "due",
            (Some(_), Some(RunState::Started)) => "started",
            (Some(_), Some(RunState::Done)) => "done",
            (Some(_), Some(RunState::Dead)) => "given up",
        };
        about.push((spec.name.clone(), state, words));
    }
    super::print(|out| {
        if about.is_empty() && !context.globals.json {
            return writeln!(out, "no trigger is about {}", Safe::path(&absolute));
        }
        about.iter().try_for_each(|(name, state, words)| {
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            if context.globals.json {
                return writeln!(out, "{}", serde_json::json!({"trigger": name, "state": state, "command": words}));
            }
            let shown: Vec<String> = words.iter().map(|word| Safe::text(word).to_string()).collect();
            writeln!(out, "{name}: {state}: {}", shown.join(" "))
        })
    })?;
    Ok(if about.is_empty() { Outcome::Findings } else { Outcome::Fine })
}
