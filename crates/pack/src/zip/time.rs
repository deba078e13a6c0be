//! Times in zip archives. DOS time has two-second steps and knows 1980 to 2107; the Unix extra field has 32 bits; NTFS's
//! knows all else. Every member has the first, and the narrowest of the other two that holds its time.

use super::{EXTRA_NTFS, EXTRA_UNIX_TIME, u16_at, u32_at, u64_at};

/// Seconds from NTFS's epoch (1601) to 1970.
const NTFS_EPOCH_SECS: i64 = 11_644_473_600;
const TICKS_PER_SECOND: i64 = 10_000_000;
/// What DOS time begins and ends with, in seconds since 1970, UTC.
const DOS_MIN_SECS: i64 = 315_532_800;
const DOS_MAX_SECS: i64 = 4_354_819_198;

/// Longest extra field that [`extra`] writes.
pub(crate) const EXTRA_LEN_MAX: usize = 36;

/// DOS date and time of a moment, in UTC; the nearest one that DOS knows.
pub(crate) fn to_dos(secs: i64) -> (u16, u16) {
    let secs = secs.clamp(DOS_MIN_SECS, DOS_MAX_SECS);
    let (year, month, day) = civil(secs.div_euclid(86_400));
    let of_day = secs.rem_euclid(86_400);
    let date = ((year - 1980) << 9) | (month << 5) | day;
    let time = ((of_day / 3600) << 11) | ((of_day / 60 % 60) << 5) | ((of_day % 60) / 2);
    (u16::try_from(date).unwrap_or(0x21), u16::try_from(time).unwrap_or(0))
}

/// The moment of a DOS date and time, taken as UTC.
pub(crate) fn of_dos(date: u16, time: u16) -> i64 {
    let (date, time) = (i64::from(date), i64::from(time));
    let days = days(1980 + (date >> 9), (date >> 5 & 15).clamp(1, 12), (date & 31).max(1));
    days * 86_400 + (time >> 11) * 3600 + (time >> 5 & 63) * 60 + (time & 31) * 2
}

/// Appends the extra field with the exact time.
pub(crate) fn extra(secs: i64, out: &mut Vec<u8>) {
    if let Ok(secs) = i32::try_from(secs) {
        out.extend_from_slice(&EXTRA_UNIX_TIME.to_le_bytes());
        out.extend_from_slice(&5_u16.to_le_bytes());
        // The modification time is what follows, and all that follows.
        out.push(1);
        out.extend_from_slice(&secs.to_le_bytes());
        return;
    }
    let ticks = secs.saturating_add(NTFS_EPOCH_SECS).saturating_mul(TICKS_PER_SECOND).max(0).to_le_bytes();
    out.extend_from_slice(&EXTRA_NTFS.to_le_bytes());
    out.extend_from_slice(&32_u16.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&1_u16.to_le_bytes());
    out.extend_from_slice(&24_u16.to_le_bytes());
    (0..3).for_each(|_| out.extend_from_slice(&ticks));
}

/// The time that extra fields tell, in seconds since 1970.
pub(crate) fn of_extra(extra: &[u8]) -> Option<i64> {
    let mut found = None;
    for (id, content) in super::extras(extra) {
        match id {
            EXTRA_UNIX_TIME if content.first().is_some_and(|flags| flags & 1 == 1) => {
                found = u32_at(content, 1).map(|secs| i64::from(secs.cast_signed()));
            }
            EXTRA_NTFS if u16_at(content, 4) == Some(1) => {
                let ticks = i64::try_from(u64_at(content, 8)?).ok()?;
                return Some(ticks.div_euclid(TICKS_PER_SECOND) - NTFS_EPOCH_SECS);
            }
            _ => {}
        }
    }
    found
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970 of a date; the same source.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}
