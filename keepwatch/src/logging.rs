//! Where log lines go: to stderr, as text for people or as JSON for machines.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use crate::args::GlobalArgs;
use crate::config::LogFormat;

/// How much is logged without a flag: a service tells what it does, a command only what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// A service.
    Service,
    /// A command that answers and ends.
    Command,
}

/// Starts logging, once in a process. Under journald, which stamps each line itself, text lines carry no time.
pub fn start(format: LogFormat, globals: &GlobalArgs, talk: Talk) {
    let builder = fmt().with_max_level(level(globals, talk)).with_writer(std::io::stderr).with_target(false);
    let is_stamped = std::env::var_os("JOURNAL_STREAM").is_some();
    // A second start finds logging already set up, as it should be.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text if is_stamped => builder.with_ansi(false).without_time().try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
}

fn level(globals: &GlobalArgs, talk: Talk) -> LevelFilter {
    match (globals.quiet, globals.verbose, talk) {
        (true, ..) => LevelFilter::ERROR,
        (_, 0, Talk::Service) => LevelFilter::INFO,
        (_, 0, Talk::Command) => LevelFilter::WARN,
        (_, 1, _) => LevelFilter::DEBUG,
        (_, 2.., _) => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_decide_how_much_is_said() {
        let with = |quiet, verbose| GlobalArgs { quiet, verbose, ..GlobalArgs::default() };
        assert_eq!(level(&with(false, 0), Talk::Command), LevelFilter::WARN);
        assert_eq!(level(&with(false, 0), Talk::Service), LevelFilter::INFO);
        assert_eq!(level(&with(false, 1), Talk::Command), LevelFilter::DEBUG);
        assert_eq!(level(&with(false, 3), Talk::Command), LevelFilter::TRACE);
        assert_eq!(level(&with(true, 0), Talk::Service), LevelFilter::ERROR);
    }
}
