//! What a command said: the end of it.

use std::collections::VecDeque;

/// Bytes that are kept of each of stdout and stderr: the last ones.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// The end of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    kept: VecDeque<u8>,
    all: u64,
}

impl Output {
    /// Takes more of it.
    pub fn push(&mut self, bytes: &[u8]) {
        self.all += bytes.len() as u64;
        let new = &bytes[bytes.len().saturating_sub(OUTPUT_BYTES_MAX)..];
        let over = (self.kept.len() + new.len()).saturating_sub(OUTPUT_BYTES_MAX);
        self.kept.drain(..over);
        self.kept.extend(new);
    }

    /// Bytes that came in all.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.all
    }

    /// What is kept.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.kept.into()
    }

    /// The last line that says something, for people.
    #[must_use]
    pub fn last_line(&self) -> Option<String> {
        let bytes: Vec<u8> = self.kept.iter().copied().collect();
        let line = bytes.split(|byte| *byte == b'\n').rev().find(|line| !line.trim_ascii().is_empty())?;
        let cut = &line[..line.len().min(LINE_BYTES_MAX)];
        Some(String::from_utf8_lossy(cut).trim().to_owned())
    }
}

/// A line that is journaled is no longer than this.
const LINE_BYTES_MAX: usize = 400;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_no_more() {
        let mut output = Output::default();
        for number in 0..100_000_u32 {
            output.push(&number.to_le_bytes());
        }
        output.push(b"\nthe end\n\n");
        assert_eq!((output.all(), output.kept.len()), (400_010, OUTPUT_BYTES_MAX));
        assert_eq!(output.last_line().unwrap(), "the end");
        output.push(&vec![b'x'; 3 * OUTPUT_BYTES_MAX]);
        assert_eq!(output.last_line().unwrap().len(), LINE_BYTES_MAX);
        assert_eq!(output.into_bytes(), vec![b'x'; OUTPUT_BYTES_MAX]);
        assert_eq!(Output::default().last_line(), None);
    }
}
