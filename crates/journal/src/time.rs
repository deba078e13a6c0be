//! Moments as text: RFC 3339, UTC, always nine digits of a second, so that every line has the same shape.
//!
//! Every record carries one, so it is written by hand: the algorithms for civil dates are Howard Hinnant's
//! (<https://howardhinnant.github.io/date_algorithms.html>), checked against `jiff` in the tests.

use std::fmt;
use std::str::FromStr;

use crate::value::Timestamp;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A UTC day: days since 1970-01-01. Journal files are named after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i64);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// Why text is not a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time: write RFC 3339, as 2026-11-05T12:00:00Z")]
pub struct NotATime;

impl Timestamp {
    /// The bytes that [`Timestamp::render`] writes.
    pub const TEXT_LEN: usize = 30;

    /// Writes `2026-11-05T12:34:56.123456789Z`, always [`Timestamp::TEXT_LEN`] bytes.
    pub fn render(self, out: &mut Vec<u8>) {
        let seconds = self.0.div_euclid(NANOS_PER_SECOND);
        let nanos = self.0.rem_euclid(NANOS_PER_SECOND);
        let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        put(&mut text[0..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], second_of_day / 3600);
        put(&mut text[14..16], second_of_day / 60 % 60);
        put(&mut text[17..19], second_of_day % 60);
        put(&mut text[20..29], nanos);
        out.extend_from_slice(&text);
    }

    /// Reads RFC 3339 with any offset and any number of digits; the journal's own shape takes the fast way.
    ///
    /// # Errors
    /// [`NotATime`] for anything else, and for moments beyond what 64 bits of nanoseconds hold (1677 to 2262).
    pub fn parse(text: &[u8]) -> Result<Self, NotATime> {
        if let Some(at) = parse_fixed(text) {
            return Ok(at);
        }
        let text = std::str::from_utf8(text).map_err(|_| NotATime)?;
        let at: jiff::Timestamp = text.parse().map_err(|_| NotATime)?;
        i64::try_from(at.as_nanosecond()).map(Timestamp).map_err(|_| NotATime)
    }

    /// The UTC day it lies in.
    #[must_use]
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(NANOS_PER_SECOND * SECONDS_PER_DAY))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(Timestamp::TEXT_LEN);
        self.render(&mut text);
        f.pad(&String::from_utf8_lossy(&text))
    }
}

impl FromStr for Timestamp {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        Timestamp::parse(text.as_bytes())
    }
}

/// Fills `into` with the decimal digits of `number`, from the right.
fn put(into: &mut [u8], mut number: i64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn parse_fixed(text: &[u8]) -> Option<Timestamp> {
    let text: &[u8; Timestamp::TEXT_LEN] = text.try_into().ok()?;
    let marks = (text[4], text[7], text[10], text[13], text[16], text[19], text[29]);
    if marks != (b'-', b'-', b'T', b':', b':', b'.', b'Z') {
        return None;
    }
    let (year, month, day) = (get(&text[0..4])?, get(&text[5..7])?, get(&text[8..10])?);
    let (hour, minute, second) = (get(&text[11..13])?, get(&text[14..16])?, get(&text[17..19])?);
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    let nanos = i128::from(seconds) * i128::from(NANOS_PER_SECOND) + i128::from(get(&text[20..29])?);
    i64::try_from(nanos).ok().map(Timestamp)
}

fn get(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_other_shapes_of_rfc_3339_and_refuses_the_rest() {
        assert_eq!("1970-01-01T01:00:00.5+01:00".parse(), Ok(Timestamp(500_000_000)));
        for wrong in ["", "2026-02-30T00:00:00.000000000Z", "2026-01-01", "9999-01-01T00:00:00.000000000Z"] {
            assert_eq!(wrong.parse::<Timestamp>(), Err(NotATime), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn writes_what_jiff_writes_and_reads_it_back(nanos: i64) {
            let text = Timestamp(nanos).to_string();
            let theirs = jiff::Timestamp::from_nanosecond(i128::from(nanos)).expect("64 bits of nanoseconds fit");
            prop_assert_eq!(&text, &format!("{theirs:.9}"));
            prop_assert_eq!(text.parse(), Ok(Timestamp(nanos)));
            prop_assert_eq!(&text[..10], Timestamp(nanos).day().to_string());
        }
    }
}
