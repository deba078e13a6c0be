//! Durations, sizes and times as people type them: `10m`, `10Mi`, `2h ago`.

use std::fmt;
use std::time::Duration;

use jiff::civil;
use jiff::{Timestamp, Zoned};

/// A quantity that could not be read; its text says what was typed and what would be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadQuantity(String);

impl fmt::Display for BadQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadQuantity {}

/// How many of something: `1 file`, `2 files`, `2 directories`.
#[must_use]
pub fn count(number: u64, one: &str) -> String {
    match (number, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {one}s"),
    }
}

/// Units of a duration, the largest first, in milliseconds.
const DURATION_UNITS: [(&str, u64); 6] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of a size: decimal ones as disks are sold, binary ones with an `i`.
const SIZE_UNITS: [(&str, u64); 12] = [
    ("Pi", 1 << 50),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1_000),
    ("k", 1_000),
    ("", 1),
];

/// Reads a duration: `500ms`, `90s`, `10m`, `1h30m`, `90d`, `2w`. A number without a unit is refused, because
/// one program's `10` is seconds and another's minutes.
///
/// # Errors
/// [`BadQuantity`] if it is not a sequence of whole numbers with units, or too long to count in milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, BadQuantity> {
    let bad =
        || BadQuantity(format!("`{text}` is no duration: write for example \"500ms\", \"90s\", \"10m\" or \"1h30m\""));
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| bad())?;
        if unit.is_empty() {
            return Err(BadQuantity(format!(
                "`{text}` has no unit: write \"{text}s\" for seconds, \"{text}m\" for minutes"
            )));
        }
        let (_, scale_ms) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        total_ms = number.checked_mul(*scale_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(bad)?;
        rest = tail;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration so that [`parse_duration`] reads the same one back; parts of a millisecond are cut.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, scale_ms) in DURATION_UNITS {
        // Weeks are read but not written: "90d" is what people say.
        if unit != "w" && rest_ms >= scale_ms {
            text.push_str(&format!("{}{unit}", rest_ms / scale_ms));
            rest_ms %= scale_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads a size in bytes: `4096`, `10M` (10 000 000), `10Mi` (10 × 1024²), `1.5G`; a final `B` may follow.
///
/// # Errors
/// [`BadQuantity`] if it is no number with such a unit, or more than 64 bits hold.
pub fn parse_size(text: &str) -> Result<u64, BadQuantity> {
    let bad = || {
        BadQuantity(format!("`{text}` is no size: write for example \"4096\", \"10M\" (millions) or \"10Mi\" (1024²)"))
    };
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = trimmed.split_at(digits);
    let unit = unit.trim_start();
    let unit = unit.strip_suffix('B').unwrap_or(unit);
    let (_, scale) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9 {
        return Err(bad());
    }
    let tenths = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| bad())?;
    let bytes = digits.checked_mul(u128::from(*scale)).ok_or_else(bad)? / tenths;
    u64::try_from(bytes).map_err(|_| bad())
}

/// Writes a size exactly, with the largest unit that leaves no remainder, so that [`parse_size`] reads it back.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    SIZE_UNITS
        .iter()
        .filter(|(unit, _)| *unit != "k")
        .find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale))
        .map_or_else(|| bytes.to_string(), |(unit, scale)| format!("{}{unit}", bytes / scale))
}

/// A size for people, to three digits: `4.21 GB`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Reads a moment: RFC 3339 (`2026-01-31T12:00:00Z`), a date or a date and time in the time zone of `now`
/// (`2026-01-31`, `2026-01-31 12:00`), `now`, or so long ago (`2h ago`, `1d12h ago`).
///
/// # Errors
/// [`BadQuantity`] if it is none of these.
pub fn parse_time(text: &str, now: &Zoned) -> Result<Timestamp, BadQuantity> {
    let bad = || {
        BadQuantity(format!(
            "`{text}` is no time: write for example \"2026-01-31T12:00:00Z\", \"2026-01-31\", \"2026-01-31 12:00\" or \"2h ago\""
        ))
    };
    let trimmed = text.trim();
    if trimmed == "now" {
        return Ok(now.timestamp());
    }
    if let Some(ago) = trimmed.strip_suffix("ago") {
        let ago = parse_duration(ago)?;
        return now.timestamp().checked_sub(ago).map_err(|_| bad());
    }
    if let Ok(moment) = trimmed.parse::<Timestamp>() {
        return Ok(moment);
    }
    let civil = trimmed
        .parse::<civil::DateTime>()
        .or_else(|_| trimmed.parse::<civil::Date>().map(|date| date.to_datetime(civil::Time::midnight())))
        .map_err(|_| bad())?;
    civil.to_zoned(now.time_zone().clone()).map(|zoned| zoned.timestamp()).map_err(|_| bad())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_back() {
        for (text, ms) in [("0s", 0), ("500ms", 500), ("90s", 90_000), ("10m", 600_000), ("1h30m", 5_400_000)] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        assert_eq!(parse_duration("2w").unwrap(), parse_duration("14d").unwrap());
        for ms in [0, 1, 1_500, 61_000, 90_061_001, 7_776_000_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(duration)).unwrap(), duration);
        }
        assert_eq!(format_duration(Duration::from_secs(90 * 86_400)), "90d");
    }

    #[test]
    fn a_duration_needs_a_unit_that_exists() {
        assert!(parse_duration("10").unwrap_err().to_string().contains("no unit"));
        for text in ["", "m", "10 m", "1.5h", "10x", "-1s", "99999999999999999999s", "9999999999999999w"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_decimal_unless_they_say_i() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("10K", 10_000),
            ("10k", 10_000),
            ("10Ki", 10_240),
            ("10M", 10_000_000),
            ("10MiB", 10 << 20),
            ("10 MB", 10_000_000),
            ("1.5G", 1_500_000_000),
            ("2Ti", 2 << 40),
            ("512B", 512),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "10X", "10KK", "10KiKi", "-1", "1.2.3M", ".5M", "99999999P", "10i"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for bytes in [0, 1, 1000, 1024, 1 << 30, 1_500_000_000, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!((format_size(1 << 30), format_size(20_000_000)), ("1Gi".to_owned(), "20M".to_owned()));
    }

    #[test]
    fn sizes_for_people_have_three_digits() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_999, "1.00 MB"), (12_345_678, "12.3 MB")];
        for (bytes, text) in cases {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(human_size(u64::MAX), "18.4 EB");
    }

    #[test]
    fn times_are_absolute_local_or_ago() {
        let now: Zoned = "2026-03-01T12:00:00+02:00[+02:00]".parse().unwrap();
        let cases = [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00.123456789+01:00", "2026-01-31T11:00:00.123456789Z"),
            ("2026-01-31", "2026-01-30T22:00:00Z"),
            ("2026-01-31 12:00", "2026-01-31T10:00:00Z"),
            ("2026-01-31T12:00:30", "2026-01-31T10:00:30Z"),
            ("2h ago", "2026-03-01T08:00:00Z"),
            ("1d12h ago", "2026-02-27T22:00:00Z"),
            ("now", "2026-03-01T10:00:00Z"),
        ];
        for (text, moment) in cases {
            assert_eq!(parse_time(text, &now).unwrap(), moment.parse::<Timestamp>().unwrap(), "{text}");
        }
        for text in ["", "yesterday-ish", "2026-13-01", "ago", "2026", "12:00"] {
            assert!(parse_time(text, &now).is_err(), "{text}");
        }
    }
}
