//! Pairs the two halves of a rename that inotify tells one by one. Pure: time comes from outside.
//!
//! The halves carry the same cookie. They usually stand next to each other, but other directories' events may stand
//! between them, and either half is missing where only one of the two directories is watched. A first half is
//! therefore held back: until its partner comes, until something shows that none will, or until the queue was
//! empty for longer than the kernel needs between the two.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Event, Notice, What};

/// How long a first half waits in an empty queue. The kernel queues the second within microseconds, while it
/// still holds the locks of both directories; the rest is for a machine under load.
pub(crate) const HOLD: Duration = Duration::from_millis(20);

/// How many first halves are held at once; beyond that the oldest goes as moved out.
const HELD_MAX: usize = 1024;

/// What changes the names in a directory, and so cannot happen there between the halves of a rename.
const NAMES: What = What(What::CREATE.0 | What::DELETE.0 | What::MOVED_OUT.0 | What::MOVED_IN.0);

/// Which half of a rename an event is, and its cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// None.
    Neither,
    /// The name it leaves: [`What::MOVED_OUT`] unless the other half comes.
    From(u32),
    /// The name it gets: [`What::MOVED_IN`] unless the other half came.
    To(u32),
}

/// The first halves that wait for their second.
#[derive(Debug, Default)]
pub(crate) struct Pairing {
    held: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    cookie: u32,
    event: Event,
    until: Instant,
}

impl Pairing {
    /// Takes the next event, and lets go, in order, of all that can be told now.
    pub(crate) fn take(&mut self, half: Half, event: Event, now: Instant, out: &mut Vec<Notice>) {
        if let Half::To(cookie) = half
            && let Some(at) = self.held.iter().position(|held| held.cookie == cookie)
            && let Some(Held { event: from, .. }) = self.held.remove(at)
        {
            self.release(|held| is_over(held, &event), out);
            out.push(Notice::Event(Event { to: Some(event.place), what: What::RENAME, ..from }));
            return;
        }
        self.release(|held| is_over(held, &event), out);
        match half {
            Half::From(cookie) => {
                if self.held.len() == HELD_MAX {
                    let oldest = self.held.pop_front();
                    out.extend(oldest.map(|held| Notice::Event(held.event)));
                }
                self.held.push_back(Held { cookie, event, until: now + HOLD });
            }
            Half::To(_) | Half::Neither => out.push(Notice::Event(event)),
        }
    }

    /// The queue is empty at `now`: what has waited long enough was moved out.
    pub(crate) fn drained(&mut self, now: Instant, out: &mut Vec<Notice>) {
        self.release(|held| held.until <= now, out);
    }

    /// Second halves may have been lost: all that is held was moved out, as far as anybody can tell.
    pub(crate) fn give_up(&mut self, out: &mut Vec<Notice>) {
        self.release(|_| true, out);
    }

    /// When [`Pairing::drained`] has something to let go of.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.held.front().map(|held| held.until)
    }

    fn release(&mut self, is_due: impl Fn(&Held) -> bool, out: &mut Vec<Notice>) {
        self.held.retain_mut(|held| {
            let due = is_due(held);
            if due {
                out.push(Notice::Event(held.event.clone()));
            }
            !due
        });
    }
}

/// Whether `event` shows that the second half of `held` will not come: it tells of the same name, or of another
/// change of names in that directory, whose lock the rename would still hold.
fn is_over(held: &Held, event: &Event) -> bool {
    let from = &held.event.place;
    event.place.dir == from.dir && (event.place.name == from.name || event.what.has(NAMES))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::{DirKey, Place};

    /// One line of a script, as `KIND [COOKIE] DIR/NAME`; `idle` is an empty queue for longer than the hold,
    /// `empty` one for a moment, `overflow` a loss.
    fn told(script: &[&str]) -> Vec<String> {
        let mut pairing = Pairing::default();
        let mut now = Instant::now();
        let mut out = Vec::new();
        for line in script {
            let words: Vec<&str> = line.split(' ').collect();
            let (half, what, path) = match words[..] {
                ["idle"] => {
                    now += HOLD;
                    pairing.drained(now, &mut out);
                    continue;
                }
                ["empty"] => {
                    pairing.drained(now + HOLD / 2, &mut out);
                    continue;
                }
                ["overflow"] => {
                    pairing.give_up(&mut out);
                    continue;
                }
                ["from", cookie, path] => (Half::From(cookie.parse().unwrap()), What::MOVED_OUT, path),
                ["to", cookie, path] => (Half::To(cookie.parse().unwrap()), What::MOVED_IN, path),
                ["create", path] => (Half::Neither, What::CREATE, path),
                ["modify", path] => (Half::Neither, What::MODIFY, path),
                _ => panic!("{line}"),
            };
            let event = Event { place: place(path), to: None, what, is_dir: false, object: None, by: None };
            pairing.take(half, event, now, &mut out);
        }
        assert_eq!(pairing.deadline().is_some(), !pairing.held.is_empty());
        out.iter().map(show).collect()
    }

    fn place(path: &str) -> Place {
        let (dir, name) = path.split_once('/').unwrap();
        Place { dir: DirKey(dir.as_bytes().into()), name: name.as_bytes().into() }
    }

    fn show(notice: &Notice) -> String {
        let Notice::Event(event) = notice else { panic!("{notice:?}") };
        let show = |place: &Place| {
            format!("{}/{}", String::from_utf8_lossy(&place.dir.0), String::from_utf8_lossy(&place.name))
        };
        let place = show(&event.place);
        match event.what {
            What::RENAME => format!("{place} -> {}", show(event.to.as_ref().unwrap())),
            What::MOVED_OUT => format!("out {place}"),
            What::MOVED_IN => format!("in {place}"),
            What::CREATE => format!("create {place}"),
            What::MODIFY => format!("modify {place}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn halves_are_paired_by_cookie_whatever_stands_between() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("next to each other", &["from 1 a/x", "to 1 b/y"], &["a/x -> b/y"]),
            ("a write in between", &["from 1 a/x", "modify a/z", "to 1 b/y"], &["modify a/z", "a/x -> b/y"]),
            ("an empty queue in between", &["from 1 a/x", "empty", "to 1 b/y"], &["a/x -> b/y"]),
            ("crossed", &["from 1 a/x", "from 2 c/x", "to 2 d/y", "to 1 b/y"], &["c/x -> d/y", "a/x -> b/y"]),
            ("exchanged", &["from 1 a/x", "to 1 b/y", "from 2 b/y", "to 2 a/x"], &["a/x -> b/y", "b/y -> a/x"]),
            ("within a directory", &["from 1 a/x", "to 1 a/y", "create a/x"], &["a/x -> a/y", "create a/x"]),
        ];
        for (name, script, expected) in cases {
            assert_eq!(told(script), *expected, "{name}");
        }
    }

    #[test]
    fn a_half_without_the_other_is_told_when_none_can_come() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("held for now", &["from 1 a/x", "empty"], &[]),
            ("moved out", &["from 1 a/x", "idle"], &["out a/x"]),
            ("moved in", &["to 1 a/x"], &["in a/x"]),
            ("out, and its name given away", &["from 1 a/x", "create a/x"], &["out a/x", "create a/x"]),
            ("out, and a sibling made", &["from 1 a/x", "create a/y"], &["out a/x", "create a/y"]),
            ("out, and replaced by a rename", &["from 1 a/x", "from 2 b/y", "to 2 a/x"], &["out a/x", "b/y -> a/x"]),
            ("not the other's partner", &["from 1 a/x", "to 2 b/y", "idle"], &["in b/y", "out a/x"]),
            ("lost", &["from 1 a/x", "overflow", "to 1 b/y"], &["out a/x", "in b/y"]),
        ];
        for (name, script, expected) in cases {
            assert_eq!(told(script), *expected, "{name}");
        }
    }

    #[test]
    fn the_number_held_is_bounded() {
        let script: Vec<String> = (0..=HELD_MAX).map(|n| format!("from {n} d{n}/x")).collect();
        let script: Vec<&str> = script.iter().map(String::as_str).collect();
        assert_eq!(told(&script), ["out d0/x"]);
    }
}
