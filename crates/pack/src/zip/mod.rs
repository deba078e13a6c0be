//! The zip format, as far as the packer writes and reads it. Pure: bytes in, bytes out; [`central`] and [`window`] read
//! through [`crate::files::File`].
//!
//! Source: APPNOTE.TXT 6.3.10 (PKWARE), and Info-ZIP's `extrafld.txt` for the extra fields.

pub(crate) mod central;
pub(crate) mod local;
pub(crate) mod method;
pub(crate) mod time;
pub(crate) mod window;

/// Sizes and offsets from here on stand in the zip64 field.
pub(crate) const ZIP64_FROM: u64 = 0xFFFF_FFFF;
/// Numbers of members from here on stand in the zip64 record.
pub(crate) const ZIP64_MEMBERS_FROM: u64 = 0xFFFF;

/// The extra field with 64-bit sizes and offset.
const EXTRA_ZIP64: u16 = 0x0001;
/// The extra field with NTFS's times: hundreds of nanoseconds since 1601.
const EXTRA_NTFS: u16 = 0x000A;
/// The extra field with a time in seconds since 1970, 32 bits.
const EXTRA_UNIX_TIME: u16 = 0x5455;
/// The packer's own extra field, in staging files alone.
const EXTRA_STAGED: u16 = 0x574B;

/// General purpose flag: the name is UTF-8.
const FLAG_UTF8: u16 = 1 << 11;
/// General purpose flag: sizes and sum follow the data.
pub(crate) const FLAG_DESCRIPTOR: u16 = 1 << 3;
/// General purpose flag: the data is encrypted.
pub(crate) const FLAG_ENCRYPTED: u16 = 1;

/// Members as they are.
pub(crate) const STORED: u16 = 0;
/// Members compressed by DEFLATE.
pub(crate) const DEFLATED: u16 = 8;

/// "Version needed to extract" for plain members, and where zip64 is used.
const NEEDED: u16 = 20;
const NEEDED_ZIP64: u16 = 45;
/// "Version made by": Unix, 4.5. It makes the upper half of the external attributes a Unix mode.
pub(crate) const MADE_BY: u16 = 3 << 8 | 45;

/// A regular file, in a Unix mode.
pub(crate) const MODE_FILE: u32 = 0o100_000;

/// Little-endian numbers at a place; `None` where the bytes end before that.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// See [`u16_at`].
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// See [`u16_at`].
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A number where only 32 bits are: saturated, which says that it stands in the zip64 field.
pub(crate) fn low32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The extra fields one after the other: id and content. Ends at the first that does not fit.
pub(crate) fn extras(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (id, len) = (u16_at(bytes, 0)?, usize::from(u16_at(bytes, 2)?));
        let content = bytes.get(4..4 + len)?;
        bytes = &bytes[4 + len..];
        Some((id, content))
    })
}

/// Whether a name needs the flag for UTF-8: ASCII needs none, other bytes are written as they are, without it.
fn name_flag(name: &[u8]) -> u16 {
    if !name.is_ascii() && std::str::from_utf8(name).is_ok() { FLAG_UTF8 } else { 0 }
}

#[cfg(test)]
mod tests;
