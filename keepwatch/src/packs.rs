//! The scavengers of a running service: a thread for each `[packs.NAME]`. And what waits for them.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keepwatch_pack::{Base, PackError, Report, Scavenger, Status};

use crate::config::packs::PackSettings;
use crate::show::safe::Safe;
use crate::show::status::Pack;

/// How long looking at all bases may take: one may be on a network file system whose server is away.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Scavengers at work; they end when this is dropped, each after the round it is in.
#[derive(Debug, Default)]
pub struct Packs {
    running: Vec<(Sender<()>, JoinHandle<()>)>,
}

impl Packs {
    /// Starts one for each base.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(packs: &[PackSettings]) -> io::Result<Self> {
        let mut started = Packs::default();
        for pack in packs {
            let (stop, stopped) = channel::<()>();
            let pack = pack.clone();
            let run = move || {
                // Until whoever started it lets go.
                while let Err(RecvTimeoutError::Timeout) = {
                    round(&pack);
                    stopped.recv_timeout(pack.every)
                } {}
            };
            let thread = thread::Builder::new().name("pack".to_owned()).spawn(run)?;
            started.running.push((stop, thread));
        }
        Ok(started)
    }
}

impl Drop for Packs {
    fn drop(&mut self) {
        let (stops, threads): (Vec<_>, Vec<_>) = self.running.drain(..).unzip();
        drop(stops);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a scavenger ended with a fault of this program");
            }
        }
    }
}

/// One round. A base that is away is looked for again in the next one.
fn round(pack: &PackSettings) {
    let done: Result<Report, PackError> =
        Scavenger::open(&pack.base, pack.options()).and_then(|scavenger| scavenger.scavenge());
    let name = pack.name.as_str();
    match done {
        Err(error) => tracing::error!(pack = name, "{}", Safe::text(&error.to_string())),
        Ok(report) => {
            for error in &report.errors {
                tracing::error!(pack = name, "{}", Safe::text(&error.to_string()));
            }
            for (file, why) in &report.quarantined {
                tracing::error!(pack = name, %file, "put into quarantine: {}", Safe::text(why));
            }
            if report.members > 0 {
                let (members, archives) = (report.members, report.archives.len());
                tracing::info!(pack = name, members, archives, renamed = report.renamed_count, "packed");
            }
        }
    }
}

/// Looks at what waits to be packed below each base, in their order.
#[must_use]
pub fn look(packs: &[PackSettings]) -> Vec<Pack> {
    let until = Instant::now() + LOOK_MAX;
    let started = packs.iter().map(|pack| {
        let (told, seen) = channel();
        let base = pack.base.clone();
        let looked = thread::Builder::new().name("pack-status".to_owned()).spawn(move || {
            // Who asked may have gone on without it.
            let _ = told.send(Base::open(&base).and_then(|base| base.staging_status()));
        });
        (pack, looked.is_ok().then_some(seen))
    });
    let started: Vec<_> = started.collect();
    let answer = |(pack, seen): (&PackSettings, Option<Receiver<_>>)| {
        let left = until.saturating_duration_since(Instant::now());
        let looked = seen.map(|seen| seen.recv_timeout(left));
        let found = Pack { name: pack.name.clone(), base: pack.base.display().to_string(), ..Pack::default() };
        match looked {
            Some(Ok(Ok(status))) => staged(&status, found),
            Some(Ok(Err(error))) => Pack { error: Some(PackError::to_string(&error)), ..found },
            Some(Err(_)) => {
                let error = format!("the file system did not answer within {} s", LOOK_MAX.as_secs());
                Pack { error: Some(error), ..found }
            }
            None => Pack { error: Some("a thread cannot be started".to_owned()), ..found },
        }
    };
    started.into_iter().map(answer).collect()
}

fn staged(status: &Status, found: Pack) -> Pack {
    let all = [status.closed, status.open, status.dead, status.claimed, status.unfinished];
    Pack {
        staged: all.iter().map(|count| count.files).sum(),
        staged_bytes: all.iter().map(|count| count.bytes).sum(),
        torn: status.dead.files,
        quarantined: status.quarantined.len().try_into().unwrap_or(u64::MAX),
        oldest_s: oldest_s(status),
        ..found
    }
}

/// How long ago the oldest staging file last changed, in seconds, by this host's clock.
#[must_use]
pub fn oldest_s(status: &Status) -> Option<u64> {
    let seconds = |then: i128| (Timestamp::now().as_nanosecond() - then) / 1_000_000_000;
    status.oldest_ns.map(|then| u64::try_from(seconds(then)).unwrap_or(0))
}
