//! A far side that is a `keepwatch receive`: it does what a local target does, so nothing is read back and no round trip is made
//! for each file.

mod client;
mod messages;
mod serve;

use std::io::{self, Read, Write};

pub(super) use client::Remote;
pub use serve::{Places, serve};

use super::line::{Ended, Line};
use super::syncer::GREETING;

/// What a shell may print before the far side begins.
const NOISE_MAX: usize = 8 * 1024;

/// Who answers.
pub(super) enum Greeting {
    Receiver,
    /// A shell that can sync.
    Shell,
}

/// Greets what may be a `keepwatch receive`. `None`: it is none, or none that we understand.
pub(super) fn greet(input: &mut dyn Read, output: &mut dyn Write) -> io::Result<Option<Greeting>> {
    let hello = [&messages::SENDER[..], &messages::VERSION.to_be_bytes()].concat();
    // Whoever does not listen has its reason, which is told when all is read.
    let _ = output.write_all(&hello).and_then(|()| output.flush());
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(messages::RECEIVER) {
        if seen.ends_with(GREETING) {
            return Ok(Some(Greeting::Shell));
        }
        if seen.len() == NOISE_MAX || input.read(&mut byte)? == 0 {
            return Ok(None);
        }
        seen.push(byte[0]);
    }
    let mut version = [0; 4];
    input.read_exact(&mut version)?;
    Ok((u32::from_be_bytes(version) >= messages::VERSION).then_some(Greeting::Receiver))
}

/// Goes to work over what was greeted.
pub(super) fn begin(
    place: &str,
    input: Box<dyn Read + Send>,
    output: Box<dyn Write + Send>,
    ended: Ended,
) -> io::Result<Remote> {
    Ok(Remote::new(Line::begin(place, input, output, ended)?))
}

/// A session that was never opened.
#[cfg(test)]
pub(super) fn session(remote: &std::sync::Arc<Remote>) -> client::RemoteSession {
    client::RemoteSession::over(remote)
}
