//! `keepwatch run`: the service.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use keepwatch_engine::daemon::service::{self, Command, Handle, Mode};
use keepwatch_engine::watch::lease::block_sigio;

use super::Context;
use crate::config::Settings;
use crate::control::access::{Access, group_id};
use crate::control::server::Server;
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::logging::{self, Talk};
use crate::service::Running;
use crate::show::safe::Safe;
use crate::signals::{self, Wish};
use crate::systemd;

/// Flags of `keepwatch run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --root no configuration file is needed.

Examples:
  keepwatch run
  keepwatch run --root /srv/records --state-dir /var/lib/keepwatch

Signals:
  TERM, INT  end cleanly: everything noticed is journaled and on disk
  HUP        read the configuration again")]
pub struct Args {
    /// Watch this directory too
    #[arg(long = "root", value_name = "DIR")]
    pub roots: Vec<PathBuf>,
}

/// How often the service is looked at, to notice that it ended by itself.
const ALIVE_WAIT: Duration = Duration::from_secs(3600);

/// Runs until it is told to end.
///
/// # Errors
/// If the configuration cannot be used, or the service does not start or fails.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&args.roots)?.settings;
    if settings.roots.is_empty() {
        return Err(CommandError::usage("there is nothing to watch")
            .hint("name a directory: `keepwatch run --root DIR`, or a [roots.NAME] in the configuration"));
    }
    if context.globals.dry_run {
        super::print(|out| {
            settings.roots.iter().try_for_each(|root| {
                writeln!(out, "would watch {} as `{}`", Safe::path(&root.path), Safe::text(&root.name))
            })
        })?;
        return Ok(Outcome::Fine);
    }
    for root in &settings.roots {
        check_root(root)?;
    }
    logging::start(settings.log, &context.globals, Talk::Service);
    block_sigio().map_err(|error| CommandError::failed(format!("cannot block SIGIO: {error}")))?;
    let (wish, wishes) = wishes()?;
    let mut handle = start(&settings, &wish)?;
    let running = Arc::new(Running::new(handle.commands(), wish.clone(), settings.state_dir.clone()));
    let server = serve(&settings, Arc::clone(&running))?;
    announce(&handle, &settings);
    let outcome = loop {
        match next(&wishes) {
            Some(Wish::Stop) => break stop(handle),
            Some(Wish::Reload) => match reload(args, context, &settings) {
                Ok(settings) => {
                    systemd::reloading();
                    stop(handle)?;
                    handle = start(&settings, &wish)?;
                    running.replace(handle.commands());
                    announce(&handle, &settings);
                }
                Err(error) => tracing::error!("the configuration was not reloaded: {error}"),
            },
            None if handle.is_finished() => break stop(handle),
            None => systemd::alive(),
        }
    };
    drop(server);
    outcome.map(|()| Outcome::Fine)
}

/// A root that is not there at the first start is a slip of the keyboard; one that was there before is absent.
fn check_root(root: &crate::config::RootSettings) -> Result<(), CommandError> {
    let shown = Safe::path(&root.path);
    match std::fs::metadata(&root.path) {
        Ok(meta) if !meta.is_dir() => {
            Err(CommandError::usage(format!("root `{}`: {shown} is not a directory", root.name))
                .hint("watch the directory that holds it"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            tracing::warn!("root `{}`: {shown} is not there now", root.name);
            Ok(())
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn wishes() -> Result<(Sender<Wish>, Receiver<Wish>), CommandError> {
    let signalled =
        signals::listen().map_err(|error| CommandError::failed(format!("cannot listen for signals: {error}")))?;
    let (wish, wishes) = channel();
    let forward = wish.clone();
    std::thread::Builder::new()
        .name("wishes".to_owned())
        .spawn(move || signalled.iter().try_for_each(|signal| forward.send(signal)))
        .map_err(|error| CommandError::failed(format!("cannot start a thread: {error}")))?;
    Ok((wish, wishes))
}

fn next(wishes: &Receiver<Wish>) -> Option<Wish> {
    match wishes.recv_timeout(systemd::alive_interval().unwrap_or(ALIVE_WAIT)) {
        Ok(wish) => Some(wish),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Wish::Stop),
    }
}

fn start(settings: &Settings, wish: &Sender<Wish>) -> Result<Handle, CommandError> {
    let ended = wish.clone();
    // The loop looks whether the service has ended; one that failed wakes it.
    let on_end = move || {
        let _ = ended.send(Wish::Stop);
    };
    let handle = service::start(engine::settings(settings), Mode::Serve, Some(Box::new(on_end)))?;
    for torn in &handle.recovery().torn {
        tracing::warn!(
            bytes = torn.bytes,
            kept = %torn.kept.display(),
            "the journal's end was torn and set aside; what it told is scanned for"
        );
    }
    Ok(handle)
}

fn serve(settings: &Settings, running: Arc<Running>) -> Result<Server, CommandError> {
    let group = settings.control_group.as_deref().map(group_id).transpose().map_err(CommandError::usage)?;
    Server::start(&settings.state_dir, Access::of_process(group), running).map_err(|error| {
        CommandError::failed(format!("cannot open the control socket in {}: {error}", settings.state_dir.display()))
    })
}

fn announce(handle: &Handle, settings: &Settings) {
    handle.wait_ready();
    let count = settings.roots.len();
    systemd::ready(&format!("watching {count} roots as {}", handle.host()));
    tracing::info!(host = handle.host(), roots = count, state_dir = %settings.state_dir.display(), "watching");
}

fn reload(args: &Args, context: &Context, before: &Settings) -> Result<Settings, CommandError> {
    let settings = context.settings(&args.roots)?.settings;
    if settings.state_dir != before.state_dir {
        return Err(CommandError::usage("state_dir cannot change while the service runs").hint("restart it"));
    }
    Ok(settings)
}

fn stop(handle: Handle) -> Result<(), CommandError> {
    systemd::stopping();
    // It has ended already if nobody takes this.
    let _ = handle.commands().send(Command::Stop);
    handle.join().map_err(|error| CommandError::failed(engine::with_sources(&error)))
}
