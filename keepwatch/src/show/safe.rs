//! Names are any bytes; a terminal obeys some of them. What is shown here can neither move a cursor nor end a line.

use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Bytes from outside, shown so that they are harmless and can be told apart.
///
/// Printable UTF-8 stands as it is. Everything else is escaped as in Rust and C: `\n`, `\x1b`, `\xff` for bytes that are
/// not UTF-8, `\u{202e}` for characters that are invisible or turn the direction of writing. A backslash is doubled, so
/// that no two names look the same.
#[derive(Clone, Copy, Debug)]
pub struct Safe<'a>(pub &'a [u8]);

impl<'a> Safe<'a> {
    /// A path.
    #[must_use]
    pub fn path(path: &'a Path) -> Self {
        Safe(path.as_os_str().as_bytes())
    }

    /// Text that may hold what others wrote, such as an error's.
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Safe(text.as_bytes())
    }
}

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            let valid = chunk.valid();
            // Nearly all names are plain, and are written in one piece.
            if valid.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\') {
                f.write_str(valid)?;
            } else {
                valid.chars().try_for_each(|c| escape(c, f))?;
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

fn escape(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match c {
        '\\' => f.write_str("\\\\"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c)),
        c if c.is_control() || is_invisible(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
        c => f.write_char(c),
    }
}

/// Line and paragraph separators, zero-width characters, and those that turn the direction of writing
/// (<https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing>).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        Safe(bytes).to_string()
    }

    #[test]
    fn plain_names_stand_as_they_are() {
        assert_eq!(shown(b"inbox/scan 0001.tif"), "inbox/scan 0001.tif");
        assert_eq!(shown("Größe/数.txt".as_bytes()), "Größe/数.txt");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        assert_eq!(shown(b"a\nb\r\x1b[2Jc\x7f\t"), "a\\nb\\r\\x1b[2Jc\\x7f\\t");
        assert_eq!(shown("\u{9b}31m".as_bytes()), "\\u{9b}31m");
        assert_eq!(shown("gpj.\u{202e}exe".as_bytes()), "gpj.\\u{202e}exe");
    }

    #[test]
    fn names_that_differ_look_different() {
        assert_eq!(shown(b"\xff\xfea"), "\\xff\\xfea");
        assert_eq!(shown(b"\\xff"), "\\\\xff");
    }
}
