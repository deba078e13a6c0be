//! Whether a host lives: what it says of itself, and what others conclude from it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::token::Token;
use crate::processes::{self, Process};

/// Own signs of life without which the silence of others means nothing.
const OWN_BEATS_MIN: u64 = 4;
/// Hosts of which is remembered when they were last heard of.
const HEARD_MAX: usize = 10_000;

/// What a host says of itself, again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Its state, which no other has.
    pub state: String,
    /// Its name, for people.
    pub host: String,
    /// Counted up with every start.
    pub life: u64,
    /// Which boot of which machine.
    pub boot: String,
    /// In which namespace the process number counts.
    pub pids: String,
    /// The process.
    pub pid: u32,
    /// When it began, in clock ticks since the machine did.
    pub born: u64,
    /// How often it said so.
    pub beat: u64,
    /// It has ended, and no command of it runs.
    pub has_ended: bool,
}

impl Life {
    /// Of this process, as the host with this state and name.
    #[must_use]
    pub fn of_this_process(state: &str, host: &str, life: u64) -> Life {
        let pid = std::process::id();
        Life {
            state: state.to_owned(),
            host: host.to_owned(),
            life,
            boot: processes::boot_id(),
            pids: pid_namespace(),
            pid,
            born: Process::look(pid).map_or(0, |process| process.born),
            beat: 0,
            has_ended: false,
        }
    }

    /// Whether it is known, without any waiting, that this life is over.
    fn is_known_to_be_over(&self, own: &Life) -> bool {
        let is_near =
            !self.boot.is_empty() && !self.pids.is_empty() && (&self.boot, &self.pids) == (&own.boot, &own.pids);
        self.has_ended || (is_near && Process::look(self.pid).is_none_or(|process| process.born != self.born))
    }
}

fn pid_namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().into_owned()
}

/// When a host was last heard of.
#[derive(Clone, Debug)]
struct Heard {
    said: Option<Life>,
    at: Instant,
    own_beats: u64,
}

/// Listens to hosts, and concludes which of them are over.
#[derive(Debug, Default)]
pub struct Listener(HashMap<String, Heard>);

impl Listener {
    /// Whether the holder of a token is over, given what its host says now; `own` is who listens, `own_beats` how often its own
    /// signs of life have reached the folder so far, `timeout` how long nothing may be heard.
    pub fn is_over(
        &mut self,
        token: &Token,
        said: Option<&Life>,
        (own, own_beats): (&Life, u64),
        timeout: Duration,
        now: Instant,
    ) -> bool {
        if token.state == own.state {
            return token.life <= own.life;
        }
        let is_known =
            |said: &Life| said.life > token.life || (said.life == token.life && said.is_known_to_be_over(own));
        if said.is_some_and(is_known) {
            return true;
        }
        if self.0.len() >= HEARD_MAX && !self.0.contains_key(&token.state) {
            self.0.clear();
        }
        let fresh = Heard { said: said.cloned(), at: now, own_beats };
        let heard = self.0.entry(token.state.clone()).or_insert_with(|| fresh.clone());
        if heard.said.as_ref() != said {
            *heard = fresh;
            return false;
        }
        now.saturating_duration_since(heard.at) >= timeout && own_beats >= heard.own_beats + OWN_BEATS_MIN
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::token::{Content, Stage};
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn token(life: u64) -> Token {
        let content = Content { size: 1, mtime_ns: 1 };
        Token { number: 1, stage: Stage::Runs, content, key: "k".into(), life, state: "far".into(), host: "far".into() }
    }

    fn far(life: u64, beat: u64) -> Life {
        Life { boot: "another".into(), beat, ..Life::of_this_process("far", "far", life) }
    }

    #[test]
    fn silence_counts_only_while_own_signs_reach_the_folder() {
        let own = Life::of_this_process("own", "own", 1);
        let begun = Instant::now();
        let mut listener = Listener::default();
        let mut is_over = |beat, own_beats, seconds| {
            let now = begun + Duration::from_secs(seconds);
            listener.is_over(&token(5), Some(&far(5, beat)), (&own, own_beats), TIMEOUT, now)
        };
        assert!(!is_over(1, 10, 0) && !is_over(1, 20, 59));
        assert!(!is_over(2, 21, 61), "it was heard of");
        assert!(!is_over(2, 22, 200), "for want of own signs");
        assert!(is_over(2, 25, 200));
        assert!(!is_over(3, 99, 999), "and is back");
        assert!(!listener.is_over(&token(5), None, (&own, 0), Duration::ZERO, begun), "one look is no silence");
    }

    #[test]
    fn a_later_life_an_own_word_and_a_process_that_is_gone_are_known_at_once() {
        let own = Life::of_this_process("own", "own", 7);
        let mut listener = Listener::default();
        let mut is_over =
            |token: &Token, said: Life| listener.is_over(token, Some(&said), (&own, 0), TIMEOUT, Instant::now());
        assert!(!is_over(&token(5), far(5, 1)) && is_over(&token(5), far(6, 1)) && !is_over(&token(5), far(4, 1)));
        assert!(is_over(&token(5), Life { has_ended: true, ..far(5, 1) }));
        let near = Life { state: "far".into(), life: 5, ..own.clone() };
        assert!(!is_over(&token(5), near.clone()), "its process is there");
        assert!(is_over(&token(5), Life { born: near.born + 1, ..near.clone() }));
        assert!(!is_over(&token(5), Life { born: 1, pids: "another".into(), ..near }), "its number counts elsewhere");
        let mine = |life| Token { state: "own".into(), ..token(life) };
        assert!(is_over(&mine(6), far(1, 1)) && is_over(&mine(7), far(1, 1)));
    }
}
