//! Verifying by itself, at a cadence for each place: what was never read again first (of copies the newest), then what was longest
//! ago. Where it was stands in the inventory, so a restart goes on where the last one ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Event, FixityError, Job, Surroundings, verify};
use crate::daemon::settings::Scrubbing;
use crate::model::{RelPath, ReplicaName, RootName, Unsoundness};
use crate::target::{Limit, MinuteOfWeek};

/// Between two rounds this part of the cadence passes, within these bounds.
const ROUNDS: u32 = 20;
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(600);
/// A root or target that is away is tried again after this time.
const AWAY_WAIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it is to end.
const LOOK_WAIT: Duration = Duration::from_millis(100);

/// A place that is verified by itself.
#[derive(Clone, Debug)]
pub enum Place {
    /// Originals.
    Root(RootName),
    /// Copies.
    Replica(ReplicaName),
}

/// Verifies a place for ever, until it is to end.
pub fn scrub(
    place: &Place,
    scrubbing: &Scrubbing,
    minute: MinuteOfWeek,
    around: &Surroundings<'_>,
    stop: &Arc<AtomicBool>,
) {
    let Some(every) = scrubbing.every else { return };
    let limit = scrubbing.bwlimit.clone().map(|table| Limit::new(table, minute));
    let around = Surroundings {
        settings: around.settings,
        inventory: around.inventory.clone(),
        host: around.host.clone(),
        state: around.state.clone(),
        tag: around.tag,
        tell: around.tell,
        stop,
        limit: limit.as_ref(),
    };
    let job = Job {
        scopes: match place {
            Place::Root(root) => vec![(root.clone(), RelPath::ROOT)],
            Place::Replica(_) => Vec::new(),
        },
        replica: match place {
            Place::Root(_) => None,
            Place::Replica(replica) => Some(replica.clone()),
        },
        max_age: Some(every),
        from_medium: true,
        is_scrubbing: true,
        ..Job::default()
    };
    loop {
        let outcome = verify(&job, &around, &mut |event| {
            if let Event::Finding(found) = event {
                tell(&found.root, &found.path, found.replica.as_ref(), &found.what);
            }
            Ok(())
        });
        let wait = match outcome {
            Ok(_) => (every / ROUNDS).clamp(WAIT_MIN, WAIT_MAX),
            Err(FixityError::Stopped) => return,
            Err(error) => {
                tracing::debug!(?place, %error, "nothing is verified there now");
                AWAY_WAIT.min(every)
            }
        };
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if stop.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(LOOK_WAIT);
        }
    }
}

fn tell(root: &RootName, path: &RelPath, replica: Option<&ReplicaName>, what: &Unsoundness) {
    let path = String::from_utf8_lossy(path.as_bytes()).escape_debug().to_string();
    let replica = replica.map_or("", |replica| replica.as_str());
    tracing::error!(%root, path, replica, "{}: it is not what was recorded", what.as_str());
}
