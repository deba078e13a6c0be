//! Names and paths as people read them. PostgreSQL's text is UTF-8 without NUL; a name is any bytes.

use std::borrow::Cow;

/// Longer endings are no file type.
const EXTENSION_BYTES_MAX: usize = 16;

/// Bytes as text, and whether that is exact: wrong sequences and NULs become U+FFFD.
pub(super) fn readable(bytes: &[u8]) -> (Cow<'_, str>, bool) {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) if !text.contains('\0') => (Cow::Borrowed(text), true),
        text => (Cow::Owned(text.replace('\0', "\u{fffd}")), false),
    }
}

/// What stands behind the last dot of a file's name, in small letters; nothing where it is no plain word.
pub(super) fn extension(name: &[u8]) -> Option<String> {
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0)?;
    let word = &name[dot + 1..];
    let plain = !word.is_empty()
        && word.len() <= EXTENSION_BYTES_MAX
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-');
    plain.then(|| word.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}
