//! A target that takes no more bytes a second than it may, by a table of the week. A decorator: it knows no other target.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Claim, Content, Found, Meta, Nature, Result, Session, Staged, Stated, Target};
use crate::model::{FileType, RelPath};

const MINUTES_OF_DAY: u16 = 24 * 60;
const MINUTES_OF_WEEK: u16 = 7 * MINUTES_OF_DAY;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// No single read is so long that it takes more than this part of a second.
const READS_A_SECOND: u64 = 10;
/// The least that is read at once.
const READ_MIN: u64 = 1024;
/// Time that was not used stays good for so long.
const CREDIT: Duration = Duration::from_millis(100);

/// How many bytes a second may go, by the minute of the week, which begins on Monday.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timetable {
    /// From which minute on, in ascending order, never empty; `None`: no limit.
    from: Vec<(u16, Option<u64>)>,
    /// As it was written.
    text: String,
}

/// A table that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no bandwidth: write `10M`, `off`, `08:00,20M 19:00,off` or `Mon-08:00,20M Fri-19:00,off` (bytes a second)"
)]
pub struct BadTimetable {
    text: String,
}

impl Timetable {
    /// Reads `10M`, `off` or pairs of a time and a rate, with or without a day of the week, as rclone writes them.
    ///
    /// # Errors
    /// [`BadTimetable`].
    pub fn parse(text: &str) -> std::result::Result<Self, BadTimetable> {
        let read = || {
            let words: Vec<&str> = text.split_whitespace().collect();
            if let [one] = words[..]
                && !one.contains(',')
            {
                return Some(vec![(0, read_rate(one)?)]);
            }
            let mut from = Vec::new();
            for word in words {
                let (when, rate) = word.split_once(',')?;
                let rate = read_rate(rate)?;
                from.extend(read_minutes(when)?.into_iter().map(|minute| (minute, rate)));
            }
            from.sort_by_key(|(minute, _)| *minute);
            from.dedup_by_key(|(minute, _)| *minute);
            Some(from).filter(|from| !from.is_empty())
        };
        read()
            .map(|from| Timetable { from, text: text.to_owned() })
            .ok_or_else(|| BadTimetable { text: text.to_owned() })
    }

    /// Bytes a second at a minute of the week; `None`: as many as there are.
    #[must_use]
    pub fn at(&self, minute: u16) -> Option<u64> {
        // Before the first entry of the week the last of the week before is in force.
        let entry = self.from.iter().rfind(|(from, _)| *from <= minute).or(self.from.last());
        entry.and_then(|(_, rate)| *rate)
    }
}

impl std::fmt::Display for Timetable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Bytes a second.
fn read_rate(text: &str) -> Option<Option<u64>> {
    if text == "off" {
        return Some(None);
    }
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..end].parse().ok()?;
    let unit: u64 = match &text[end..] {
        "B" => 1,
        "k" | "K" => 1000,
        "Ki" => 1 << 10,
        "M" => 1_000_000,
        "Mi" => 1 << 20,
        "G" => 1_000_000_000,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit).filter(|rate| *rate > 0).map(Some)
}

/// The minutes of the week at which `Mon-08:00` or, each day, `08:00` is.
fn read_minutes(text: &str) -> Option<Vec<u16>> {
    let (day, time) = text.split_once('-').map_or((None, text), |(day, time)| (Some(day), time));
    let (hour, minute) = time.split_once(':')?;
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    if hour > 23 || minute > 59 {
        return None;
    }
    let of_day = hour * 60 + minute;
    match day {
        Some(day) => {
            let day = DAYS.iter().zip(0_u16..).find(|(name, _)| day.to_ascii_lowercase() == **name)?.1;
            Some(vec![day * MINUTES_OF_DAY + of_day])
        }
        None => Some((0..MINUTES_OF_WEEK / MINUTES_OF_DAY).map(|day| day * MINUTES_OF_DAY + of_day).collect()),
    }
}

/// Which minute of the week it is where people read the clock, from Monday.
pub type MinuteOfWeek = fn() -> u16;

/// What all that goes to a target, or is read there, is held to together.
#[derive(Debug)]
pub struct Limit {
    table: Timetable,
    now: MinuteOfWeek,
    /// When the next byte may go.
    free: Mutex<Instant>,
}

impl Limit {
    /// Begins now.
    #[must_use]
    pub fn new(table: Timetable, now: MinuteOfWeek) -> Self {
        Limit { table, now, free: Mutex::new(Instant::now()) }
    }

    /// Bytes a second, and how much may be read at once; `None`: as much as there is.
    #[must_use]
    pub fn most(&self) -> Option<(u64, usize)> {
        let rate = self.table.at((self.now)())?;
        Some((rate, usize::try_from((rate / READS_A_SECOND).max(READ_MIN)).unwrap_or(usize::MAX)))
    }

    /// Waits until so many bytes more may have gone.
    pub fn take(&self, bytes: usize, rate: u64) {
        let now = Instant::now();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // Who slept a little too long makes up for it.
        let from = (*free).max(now.checked_sub(CREDIT).unwrap_or(now));
        *free = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
        drop(free);
        std::thread::sleep(from.saturating_duration_since(now));
    }
}

/// A target behind a limit.
#[derive(Debug)]
pub struct Throttled {
    inner: Arc<dyn Target>,
    bucket: Arc<Limit>,
}

impl Throttled {
    /// Holds a target to a table.
    #[must_use]
    pub fn new(inner: Arc<dyn Target>, table: Timetable, now: MinuteOfWeek) -> Self {
        Throttled { inner, bucket: Arc::new(Limit::new(table, now)) }
    }
}

impl Target for Throttled {
    fn nature(&self) -> Nature {
        self.inner.nature()
    }

    fn open(&self, claim: &Claim) -> Result<(Box<dyn Session>, String)> {
        let (inner, identity) = self.inner.open(claim)?;
        Ok((Box::new(ThrottledSession { inner, bucket: Arc::clone(&self.bucket) }), identity))
    }

    fn probe(&self, claim: &Claim) -> Result<Option<String>> {
        self.inner.probe(claim)
    }

    fn reach(&self) -> Result<()> {
        self.inner.reach()
    }

    fn survey(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        self.inner.survey(below, each)
    }
}

struct ThrottledSession {
    inner: Box<dyn Session>,
    bucket: Arc<Limit>,
}

/// Reads as slowly as it must.
struct Slowly<'a> {
    inner: &'a mut dyn Read,
    bucket: &'a Limit,
}

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((rate, most)) = self.bucket.most() else { return self.inner.read(buffer) };
        let end = buffer.len().min(most);
        let read = self.inner.read(&mut buffer[..end])?;
        self.bucket.take(read, rate);
        Ok(read)
    }
}

impl Session for ThrottledSession {
    fn list(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        self.inner.list(below, each)
    }

    fn look(&self, path: &RelPath) -> Result<Option<Found>> {
        self.inner.look(path)
    }

    fn read(&self, path: &RelPath) -> Result<Box<dyn Read + Send>> {
        self.inner.read(path)
    }

    fn meta(&self, path: &RelPath) -> Result<Option<Meta>> {
        self.inner.meta(path)
    }

    fn stat(&self, path: &RelPath) -> Result<Option<Stated>> {
        self.inner.stat(path)
    }

    fn staging(&self) -> Option<BorrowedFd<'_>> {
        self.inner.staging()
    }

    fn stage(&self, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<Staged> {
        match content {
            Content::File { bytes, size, is_sparse } => {
                let mut slowly = Slowly { inner: bytes, bucket: &self.bucket };
                self.inner.stage(path, meta, Content::File { bytes: &mut slowly, size, is_sparse })
            }
            other => self.inner.stage(path, meta, other),
        }
    }

    fn discard(&self, staged: Staged) {
        self.inner.discard(staged);
    }

    fn publish(&self, staged: Vec<Staged>, keep: Option<&RelPath>) -> Vec<Result<()>> {
        self.inner.publish(staged, keep)
    }

    fn make_dir(&self, path: &RelPath) -> Result<()> {
        self.inner.make_dir(path)
    }

    fn set_meta(&self, path: &RelPath, kind: FileType, meta: &Meta) -> Result<()> {
        self.inner.set_meta(path, kind, meta)
    }

    fn link(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.inner.link(from, to)
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &RelPath) -> Result<bool> {
        self.inner.remove(path)
    }

    fn can_set_aside(&self) -> Result<()> {
        self.inner.can_set_aside()
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_is_in_force() {
        let daily = Timetable::parse("08:00,20M 19:00,off").unwrap();
        assert_eq!((daily.at(0), daily.at(8 * 60), daily.at(19 * 60)), (None, Some(20_000_000), None));
        let weekly = Timetable::parse("Mon-08:00,512Ki Fri-19:00,off").unwrap();
        assert_eq!((weekly.at(0), weekly.at(3 * 1440), weekly.at(6 * 1440)), (None, Some(512 << 10), None));
        assert_eq!(Timetable::parse("10M").unwrap().at(77), Some(10_000_000));
        for wrong in ["", "10", "fast", "25:00,1M", "08:00", "08:00,1M,2M", "0M", "Foo-08:00,1M"] {
            assert!(Timetable::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_wait_for_their_turn() {
        let table = Timetable::parse("1M").unwrap();
        let bucket = Limit { table, now: || 0, free: Mutex::new(Instant::now()) };
        let start = Instant::now();
        let mut slowly = Slowly { inner: &mut &vec![0; 300_000][..], bucket: &bucket };
        assert_eq!(io::copy(&mut slowly, &mut io::sink()).unwrap(), 300_000);
        assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
    }
}
