//! `keepwatch run`: the service.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use keepwatch_engine::daemon::service::{self, Command, Handle, Mode};
use keepwatch_engine::watch::lease::block_sigio;

use super::Context;
use crate::config::triggers::check_programs;
use crate::config::{Loaded, Settings, load};
use crate::control::access::{Access, group_id};
use crate::control::server::Server;
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::logging::{self, Talk};
use crate::packs::Packs;
use crate::service::Running;
use crate::show::safe::Safe;
use crate::signals::{self, Wish};
use crate::systemd;
use crate::units;

/// Flags of `keepwatch run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --root no configuration file is needed.

Examples:
  keepwatch run
  keepwatch run --root /srv/records --state-dir /var/lib/keepwatch
  keepwatch run --root /srv/records --replica /mnt/backup

Signals:
  TERM, INT  end cleanly: everything noticed is journaled and on disk
  HUP        read the configuration again")]
pub struct Args {
    /// Watch this directory too
    #[arg(long = "root", value_name = "DIR")]
    pub roots: Vec<PathBuf>,
    /// Keep a replica here too: a directory or a URL
    #[arg(long = "replica", value_name = "URL")]
    pub replicas: Vec<String>,
}

/// How often the service is looked at, to notice that it ended by itself.
const ALIVE_WAIT: Duration = Duration::from_secs(3600);

/// Runs until it is told to end.
///
/// # Errors
/// If the configuration cannot be used, or the service does not start or fails.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    let mut settings = usable_settings(args, context)?;
    if context.globals.dry_run {
        super::print(|out| {
            settings.roots.iter().try_for_each(|root| {
                writeln!(out, "would watch {} as `{}`", Safe::path(&root.path), Safe::text(&root.name))
            })?;
            settings.replicas.iter().try_for_each(|replica| {
                writeln!(out, "would keep replica `{}` at {}", Safe::text(&replica.name), replica.url)
            })?;
            settings.packs.iter().try_for_each(|pack| {
                writeln!(out, "would pack `{}` in {}", Safe::text(&pack.name), Safe::path(&pack.base))
            })?;
            settings.triggers.iter().try_for_each(|trigger| {
                let words: Vec<_> = trigger.command.iter().map(|word| word.to_string_lossy()).collect();
                writeln!(out, "would run for trigger `{}`: {}", trigger.name, Safe::text(&words.join(" ")))
            })
        })?;
        return Ok(Outcome::Fine);
    }
    logging::start(settings.log, &context.globals, Talk::Service);
    block_sigio().map_err(|error| CommandError::failed(format!("cannot block SIGIO: {error}")))?;
    let (wish, wishes) = wishes()?;
    let mut service = Service::start(&settings, &wish)?;
    let running = Arc::new(Running::new(service.handle.commands(), wish.clone(), settings.state_dir.clone()));
    let server = serve(&settings, Arc::clone(&running))?;
    let mut packs = packs(&settings)?;
    service.announce(&settings);
    let outcome = loop {
        match next(&wishes) {
            Some(Wish::Stop) => break service.stop(),
            Some(Wish::Reload) => match reload(args, context, &settings) {
                Ok(changed) => {
                    systemd::reloading();
                    service = service.restart(&mut settings, changed, &wish)?;
                    running.replace(service.handle.commands());
                    // The old ones end before the new ones begin.
                    drop(std::mem::take(&mut packs));
                    packs = self::packs(&settings)?;
                    service.announce(&settings);
                }
                Err(error) => tracing::error!("the configuration was not reloaded: {error}"),
            },
            None if service.handle.is_finished() => break service.stop(),
            None => systemd::alive(),
        }
    };
    drop(packs);
    drop(server);
    outcome.map(|()| Outcome::Fine)
}

fn packs(settings: &Settings) -> Result<Packs, CommandError> {
    Packs::start(&settings.packs).map_err(|error| CommandError::failed(format!("cannot start a thread: {error}")))
}

/// The settings, if there is something to watch and all of it can be.
fn usable_settings(args: &Args, context: &Context) -> Result<Settings, CommandError> {
    let mut overrides = context.globals.overrides(&args.roots);
    overrides.replicas.clone_from(&args.replicas);
    let Loaded { settings, origins, .. } = load(&context.environment, &overrides)?;
    if settings.roots.is_empty() {
        return Err(CommandError::usage("there is nothing to watch")
            .hint("name a directory: `keepwatch run --root DIR`, or a [roots.NAME] in the configuration"));
    }
    check_roots(args, &settings)?;
    check_programs(&settings.triggers, &origins)?;
    service::check(&engine::settings(&settings))?;
    Ok(settings)
}

/// A directory on the command line that is not there, and never was watched, is a slip of the keyboard. One that was
/// watched before, or that a configuration names, is absent: it is waited for.
fn check_roots(args: &Args, settings: &Settings) -> Result<(), CommandError> {
    let known = engine::view(&settings.state_dir).and_then(|view| Ok(view.roots()?)).unwrap_or_default();
    for root in &settings.roots {
        let shown = Safe::path(&root.path);
        match std::fs::metadata(&root.path) {
            Ok(meta) if !meta.is_dir() => {
                return Err(CommandError::usage(format!("root `{}`: {shown} is not a directory", root.name))
                    .hint("watch the directory that holds it"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let is_typed =
                    args.roots.iter().any(|typed| std::path::absolute(typed).is_ok_and(|typed| typed == root.path));
                let dir = root.path.as_os_str().as_encoded_bytes();
                if is_typed && known.iter().all(|known| known.dir.as_deref() != Some(dir)) {
                    return Err(CommandError::usage(format!("there is no directory {shown}")).hint(
                        "a directory that comes later, as on a disk that is plugged in, belongs in the \
                               configuration",
                    ));
                }
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
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

/// A running engine.
struct Service {
    handle: Handle,
    /// Its end is not the program's: another takes its place.
    is_replaced: Arc<AtomicBool>,
}

impl Service {
    fn start(settings: &Settings, wish: &Sender<Wish>) -> Result<Self, CommandError> {
        let is_replaced = Arc::new(AtomicBool::new(false));
        let (replaced, ended) = (Arc::clone(&is_replaced), wish.clone());
        // One that ends by itself takes the program along.
        let on_end = move || {
            if !replaced.load(Ordering::Acquire) {
                let _ = ended.send(Wish::Stop);
            }
        };
        let handle = service::start(engine::settings(settings), Mode::Serve, Some(Box::new(on_end)))?;
        for torn in &handle.recovery().torn {
            tracing::warn!(
                bytes = torn.bytes,
                kept = %torn.kept.display(),
                "the journal's end was torn and set aside; what it told is scanned for"
            );
        }
        Ok(Service { handle, is_replaced })
    }

    /// Ends this one and starts another with the changed settings; with the old ones if it does not start.
    fn restart(self, settings: &mut Settings, changed: Settings, wish: &Sender<Wish>) -> Result<Self, CommandError> {
        self.is_replaced.store(true, Ordering::Release);
        self.finish()?;
        match Service::start(&changed, wish) {
            Ok(service) => {
                *settings = changed;
                Ok(service)
            }
            Err(error) => {
                tracing::error!("the configuration was not reloaded, the old one stays in force: {error}");
                Service::start(settings, wish)
            }
        }
    }

    fn announce(&self, settings: &Settings) {
        self.handle.wait_ready();
        let count = settings.roots.len();
        let host = self.handle.host();
        systemd::ready(&format!("watching {} as {host}", units::count(count as u64, "root")));
        tracing::info!(host, roots = count, state_dir = %settings.state_dir.display(), "watching");
    }

    fn stop(self) -> Result<(), CommandError> {
        systemd::stopping();
        self.finish()
    }

    fn finish(self) -> Result<(), CommandError> {
        // It has ended already if nobody takes this.
        let _ = self.handle.commands().send(Command::Stop);
        self.handle.join().map_err(|error| CommandError::failed(engine::with_sources(&error)))
    }
}

fn serve(settings: &Settings, running: Arc<Running>) -> Result<Server, CommandError> {
    let group = settings.control_group.as_deref().map(group_id).transpose().map_err(CommandError::usage)?;
    Server::start(&settings.state_dir, Access::of_process(group), running).map_err(|error| {
        CommandError::failed(format!("cannot open the control socket in {}: {error}", settings.state_dir.display()))
    })
}

fn reload(args: &Args, context: &Context, before: &Settings) -> Result<Settings, CommandError> {
    let settings = usable_settings(args, context)?;
    if settings.state_dir != before.state_dir {
        return Err(CommandError::usage("state_dir cannot change while the service runs").hint("restart it"));
    }
    Ok(settings)
}
