//! Progress on a terminal; where there is none, nothing.

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use keepwatch_engine::daemon::fixity::Sum;
use keepwatch_engine::daemon::fixity::restore::Sum as Restored;
use keepwatch_engine::daemon::replicate::Reading;

use crate::service::Scan;
use crate::units::human_size;

/// How far a scan has come: a bar if it is known how much there is, else a count.
pub struct ScanBar(ProgressBar);

impl ScanBar {
    /// A bar on stderr. It shows nothing before the first [`ScanBar::show`], without a terminal, and if `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style("{spinner} {msg} in {elapsed}"));
        ScanBar(bar)
    }

    /// Shows where the scan is now.
    pub fn show(&self, scan: Scan) {
        if scan.looked == 0 {
            // Between two scans, or while what was found is applied.
            return;
        }
        if scan.known > 0 && self.0.length().is_none() {
            self.0.set_style(style("{bar:32} {msg} in {elapsed}, {eta} to go"));
        }
        if scan.known > 0 {
            self.0.set_length(scan.known.max(scan.looked));
        }
        self.0.set_message(format!("{} objects looked at", HumanCount(scan.looked)));
        self.0.set_position(scan.looked);
        self.0.tick();
    }

    /// Takes it away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// How far copying has come: a bar over all that there is, by bytes, with the rate and the time left.
pub struct CopyBar(ProgressBar);

impl CopyBar {
    /// A bar on stderr. It shows nothing before the first [`CopyBar::show`], without a terminal, and if `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style("{bar:32} {msg} in {elapsed}, {eta} to go"));
        CopyBar(bar)
    }

    /// Whether anybody sees it.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        !self.0.is_hidden()
    }

    /// Shows how far it is. A small file costs about as much as its name.
    pub fn show(&self, reading: &Reading) {
        let work = |objects: u64, bytes: u64| objects * OBJECT_BYTES + bytes;
        self.0.set_length(work(reading.to_pass, reading.to_pass_bytes).max(1));
        self.0.set_position(work(reading.passed, reading.passed_bytes));
        let (copied, rate) = (HumanCount(reading.copied), human_size(reading.rate));
        self.0.set_message(format!("{copied} copied, {}, {rate}/s", human_size(reading.bytes)));
        self.0.tick();
    }

    /// Takes it away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// How far verifying has come: a bar by bytes where it is known how many there are, else a count.
pub struct VerifyBar(ProgressBar);

impl VerifyBar {
    /// A bar on stderr. It shows nothing before the first [`VerifyBar::show`], without a terminal, and if `quiet`.
    #[must_use]
    pub fn new(quiet: bool, bytes: Option<u64>) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(bytes.filter(|bytes| *bytes > 0), target);
        let with_end = bar.length().is_some();
        bar.set_style(style(if with_end {
            "{bar:32} {msg} in {elapsed}, {eta} to go"
        } else {
            "{spinner} {msg} in {elapsed}"
        }));
        VerifyBar(bar)
    }

    /// Shows how far it is.
    pub fn show(&self, sum: &Sum) {
        self.0.set_position(sum.bytes);
        self.0.set_message(format!("{} files, {} read", HumanCount(sum.files), human_size(sum.bytes)));
        self.0.tick();
    }

    /// Lets something be printed beside it.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Takes it away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// How far restoring has come: a bar by files where it is known how many there are, else a count.
pub struct RestoreBar(ProgressBar);

impl RestoreBar {
    /// On stderr. It shows nothing before the first [`RestoreBar::show`], without a terminal, and if `quiet`.
    #[must_use]
    pub fn new(quiet: bool, files: Option<u64>) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(files.filter(|files| *files > 0), target);
        let with_end = bar.length().is_some();
        bar.set_style(style(if with_end {
            "{bar:32} {msg} in {elapsed}, {eta} to go"
        } else {
            "{spinner} {msg} in {elapsed}"
        }));
        RestoreBar(bar)
    }

    /// Shows how far it is.
    pub fn show(&self, sum: &Restored) {
        self.0.set_position(sum.files + sum.there + sum.failed);
        self.0.set_message(format!("{} files, {} restored", HumanCount(sum.files + sum.there), human_size(sum.bytes)));
        self.0.tick();
    }

    /// Lets something be printed beside it.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Takes it away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// What an object weighs besides its bytes.
const OBJECT_BYTES: u64 = 16 * 1024;

fn style(template: &str) -> ProgressStyle {
    // A template of ours that cannot be parsed would only cost the bar its looks.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
