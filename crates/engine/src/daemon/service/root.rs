//! The life of a root: present or absent, with or without a gap, scanned or waiting to be.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keepwatch_journal::{GapReason, RelPath, Seq, Timestamp};
use rustix::fs::{Mode, OFlags, fstat, open};

use crate::daemon::dirs::RootNo;
use crate::daemon::settings::{PollEvery, RootSettings};
use crate::watch::DirKey;
use crate::watch::handle::{dir_key, fsid_of};
use crate::watch::identity::{Identity, Sameness, root_identity};
use crate::watch::probe::{Choice, Method, probe};

/// How often a root is scanned where others' changes are invisible.
const POLL_DEFAULT: Duration = Duration::from_secs(600);

/// A root as the service sees it.
pub(super) struct RootRun {
    pub(super) no: RootNo,
    pub(super) settings: RootSettings,
    pub(super) presence: Presence,
    /// The gap that is open for all of it.
    pub(super) gap: Option<OpenGap>,
    /// A scan of all of it is needed.
    pub(super) scan_wanted: bool,
    /// Somebody asked for a scan that believes an empty directory.
    pub(super) trust_empty: bool,
    pub(super) poll_due: Option<Instant>,
    pub(super) last_scan: Option<LastScan>,
    /// Other file systems mounted below it.
    pub(super) nested: BTreeMap<PathBuf, Nested>,
    /// Its file system and top directory, once it was found.
    pub(super) identity: Option<Identity>,
    /// Its scan is over; the gap closes when all that came of it is journaled: scanned, found.
    pub(super) closing: Option<(u64, u64)>,
    /// It was found empty though files are known in it.
    pub(super) hollow: bool,
    /// Events and what was met ahead of them contradicted each other since its last scan began.
    pub(super) contradicted: bool,
    /// When it may be scanned for that again.
    pub(super) mend_due: Option<Instant>,
    /// How long its last full scan took.
    pub(super) scan_took: Duration,
}

/// Whether the root is there.
pub(super) enum Presence {
    /// It is.
    Present(Present),
    /// It is not, for this reason.
    Absent { why: String, since: Timestamp },
}

/// A root that is there.
pub(super) struct Present {
    pub(super) object: (u64, u64),
    pub(super) key: DirKey,
    pub(super) fsid: [u8; 8],
    pub(super) choice: Choice,
    pub(super) poll: Option<Duration>,
}

/// A gap that is open.
#[derive(Clone, Debug)]
pub(super) struct OpenGap {
    pub(super) seq: Seq,
    pub(super) reason: GapReason,
}

/// A file system mounted below a root.
pub(super) struct Nested {
    pub(super) path: RelPath,
    pub(super) present: bool,
    pub(super) gap: Option<Seq>,
    /// Why its changes are not told of.
    pub(super) blind: Option<String>,
}

/// The last full scan.
#[derive(Clone, Debug)]
pub(super) struct LastScan {
    pub(super) at: Timestamp,
    pub(super) scanned: u64,
    pub(super) found: u64,
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
}

/// What was found at a root's path.
pub(in crate::daemon) struct Top {
    pub(super) fd: OwnedFd,
    pub(in crate::daemon) object: (u64, u64),
    pub(in crate::daemon) identity: Identity,
}

impl RootRun {
    pub(super) fn new(no: RootNo, settings: RootSettings, at: Timestamp) -> Self {
        RootRun {
            no,
            settings,
            presence: Presence::Absent { why: "not looked at yet".to_owned(), since: at },
            gap: None,
            scan_wanted: false,
            trust_empty: false,
            poll_due: None,
            last_scan: None,
            nested: BTreeMap::new(),
            identity: None,
            closing: None,
            hollow: false,
            contradicted: false,
            mend_due: None,
            scan_took: Duration::ZERO,
        }
    }

    pub(super) fn present(&self) -> Option<&Present> {
        match &self.presence {
            Presence::Present(present) => Some(present),
            Presence::Absent { .. } => None,
        }
    }

    /// Whether nothing but quiet times would tell that a directory was emptied while nobody looked.
    pub(super) fn doubts_empty(&self) -> bool {
        let witnessed = matches!(
            self.gap.as_ref().map(|gap| gap.reason),
            Some(GapReason::Overflow | GapReason::Watch | GapReason::Journal)
        );
        !witnessed && !self.trust_empty
    }
}

/// Opens what is at the root's path and says what it is. `Err`: why the root is absent.
pub(in crate::daemon) fn look_at_top(path: &Path) -> Result<Top, String> {
    let shown = path.display();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let fd = open(path, flags, Mode::empty()).map_err(|error| format!("{shown}: {error}"))?;
    let stat = fstat(&fd).map_err(|error| format!("{shown}: {error}"))?;
    let identity = root_identity(fd.as_fd()).map_err(|error| format!("{shown}: {error}"))?;
    Ok(Top { fd, object: (stat.st_dev, stat.st_ino), identity })
}

/// Whether the root that was accepted before is what is there now. `Err`: why not.
pub(in crate::daemon) fn check_identity(
    settings: &RootSettings,
    accepted: Option<&str>,
    found: &Identity,
) -> Result<(), String> {
    let Some(accepted) = accepted else { return Ok(()) };
    let Ok(accepted) = accepted.parse::<Identity>() else { return Ok(()) };
    match accepted.compare(found) {
        Sameness::Different => Err(format!(
            "another file system or directory is at {} now: {found} in place of {accepted}; if that is meant, accept \
             it with `keepwatch root accept {}`",
            settings.path.display(),
            settings.name
        )),
        Sameness::Same | Sameness::Unsure => Ok(()),
    }
}

/// Chooses how to watch it.
pub(super) fn choose(settings: &RootSettings, top: &Top) -> Result<Present, String> {
    let choice = probe(top.fd.as_fd(), settings.method).map_err(|error| with_source(&error))?;
    let key = dir_key(top.fd.as_fd()).map_err(|error| error.to_string())?;
    let fsid = fsid_of(top.fd.as_fd()).map_err(|error| error.to_string())?;
    let poll = match settings.poll {
        PollEvery::Never => None,
        PollEvery::Every(every) => Some(every),
        PollEvery::WhereNeeded => choice.polls.then_some(POLL_DEFAULT),
    };
    Ok(Present { object: top.object, key, fsid, choice, poll })
}

impl Present {
    pub(super) fn via(&self) -> keepwatch_journal::Via {
        match self.choice.method {
            Method::Fanotify => keepwatch_journal::Via::Fanotify,
            Method::Inotify => keepwatch_journal::Via::Inotify,
            Method::Poll => keepwatch_journal::Via::Poll,
        }
    }
}

/// An error with what caused it.
pub(super) fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
