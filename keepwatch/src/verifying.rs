//! Verifying, by the engine of a running service or by one of our own, and what of it goes over the control socket.

use std::io;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use keepwatch_engine::daemon::fixity::import::How;
use keepwatch_engine::daemon::fixity::{self, Event, FixityTrouble, Job, Sum, Surroundings, TroubleKind};
use keepwatch_engine::daemon::scribe::Scribe;
use keepwatch_engine::daemon::service::Command;
use keepwatch_engine::daemon::settings::Settings;
use keepwatch_engine::daemon::state::inventory_of;
use keepwatch_engine::model::{RelPath, ReplicaName, RootName};
use keepwatch_engine::sync::origin::Map;
use keepwatch_journal::{Body, Record};
use serde_json::{Value, json};

use crate::control::{Origin, VerifyRequest};
use crate::error::{CommandError, Kind};
use crate::telling::text_of;

/// Events that may wait to be shown.
const EVENTS_MAX: usize = 1_024;

/// What a request asks for.
///
/// # Errors
/// If it names what is no path.
pub fn job(asked: &VerifyRequest) -> Result<Job, CommandError> {
    let scope = |(root, path): &(String, Vec<u8>)| {
        let path = RelPath::new(path.clone()).map_err(|error| CommandError::usage(error.to_string()))?;
        Ok((RootName::new(root.as_str()), path))
    };
    let map = |(dir, host, path): &Origin| {
        let dir = RelPath::new(dir.clone()).map_err(|error| CommandError::usage(error.to_string()))?;
        Ok(Map { dir, host: host.clone(), path: path.clone().into() })
    };
    let maps = |all: &Vec<_>| all.iter().map(map).collect::<Result<_, CommandError>>();
    Ok(Job {
        origins: asked.origins.as_ref().map(maps).transpose()?,
        scopes: asked.scopes.iter().map(scope).collect::<Result<_, CommandError>>()?,
        replica: asked.replica.as_deref().map(ReplicaName::new),
        repair: asked.repair,
        import: asked.import.map(|content| if content { How::Content } else { How::Attributes }),
        max_age: asked.max_age_ms.map(Duration::from_millis),
        from_medium: asked.from_medium,
        is_scrubbing: false,
        is_alone: false,
    })
}

/// Has a running engine verify.
///
/// # Errors
/// As the engine says, or if who asked has gone.
pub fn by_engine(
    engine: &Sender<Command>,
    asked: &VerifyRequest,
    progress: &mut dyn FnMut(Value) -> io::Result<()>,
) -> Result<Value, CommandError> {
    let gone = || CommandError::unreachable("the service is ending");
    let (events, heard) = bounded(EVENTS_MAX);
    let (done, result) = bounded(1);
    let job = Box::new(job(asked)?);
    engine.send(Command::Verify { job, events, done }).map_err(|_| gone())?;
    pass_on(&heard, progress).map_err(CommandError::output)?;
    let sum = result.recv().map_err(|_| gone())??;
    serde_json::to_value(sum).map_err(|error| CommandError::failed(error.to_string()))
}

/// Passes events on until there are no more. Where nobody hears them the channel closes, which ends the verification.
fn pass_on(heard: &Receiver<Event>, progress: &mut dyn FnMut(Value) -> io::Result<()>) -> io::Result<()> {
    heard.iter().try_for_each(|event| progress(to_value(event)))
}

/// Verifies without a service: takes the state directory for so long.
///
/// # Errors
/// If it is taken, or verifying ends early.
pub fn alone(
    settings: &Settings,
    asked: &VerifyRequest,
    each: &mut dyn FnMut(Event) -> Result<(), CommandError>,
) -> Result<Sum, CommandError> {
    let job = Job { is_alone: true, ..job(asked)? };
    let scribe = Scribe::open(settings)?;
    let stop = AtomicBool::new(false);
    let inventory = inventory_of(&settings.state_dir);
    let (host, state) = (scribe.identity().host.clone(), scribe.identity().host_id.clone());
    let around =
        Surroundings { settings, inventory, host, state, tag: "alone", tell: &scribe, stop: &stop, limit: None };
    let mut failed = None;
    let outcome = fixity::verify(&job, &around, &mut |event| {
        each(event).map_err(|error| {
            failed = Some(error);
            fixity::FixityError::Stopped
        })
    });
    let closed = scribe.close();
    if let Some(error) = failed {
        return Err(error);
    }
    let sum = outcome.map_err(|error| CommandError::from(FixityTrouble::from(error)))?;
    closed.map_err(|error| CommandError::failed(error.to_string()))?;
    Ok(sum)
}

impl From<FixityTrouble> for CommandError {
    fn from(trouble: FixityTrouble) -> Self {
        let kind = match trouble.kind {
            TroubleKind::Asked => Kind::Usage,
            TroubleKind::Away => Kind::Unreachable,
            TroubleKind::Failed => Kind::Failed,
        };
        CommandError::new(kind, trouble.text)
    }
}

/// An event on the wire: a finding as the text of its record.
fn to_value(event: Event) -> Value {
    match event {
        Event::Progress(sum) => json!({ "sum": sum }),
        Event::Finding(found) => json!({ "record": text_of(Body::Unsound(found)) }),
        Event::Repaired(act) => json!({ "record": text_of(Body::Repaired(act)) }),
        Event::NotRepaired { replica, root, path, why } => json!({
            "unmended": path.as_bytes(), "root": root.as_str(), "why": why,
            "replica": replica.as_ref().map(ReplicaName::as_str),
        }),
    }
}

/// Undoes [`to_value`]; `None` for what a later version tells.
#[must_use]
pub fn from_value(value: &Value) -> Option<Event> {
    if let Some(sum) = value.get("sum") {
        return serde_json::from_value(sum.clone()).ok().map(Event::Progress);
    }
    if let Some(path) = value.get("unmended") {
        return Some(Event::NotRepaired {
            replica: value["replica"].as_str().map(ReplicaName::new),
            root: RootName::new(value["root"].as_str()?),
            path: RelPath::new(serde_json::from_value::<Vec<u8>>(path.clone()).ok()?).ok()?,
            why: value["why"].as_str()?.to_owned(),
        });
    }
    match Record::parse(value.get("record")?.as_str()?.as_bytes()).ok()?.body {
        Body::Unsound(found) => Some(Event::Finding(found)),
        Body::Repaired(act) => Some(Event::Repaired(act)),
        _ => None,
    }
}
