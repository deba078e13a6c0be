//! Tables for people: words to the left, numbers to the right, what is long last.

use std::io::{self, Write};

/// How wide each column is, in characters.
pub fn widths<const N: usize>(rows: &[[String; N]]) -> [usize; N] {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}

/// Writes a row: the first `words` columns are words, the last one is too and may be of any length, the others are numbers.
///
/// # Errors
/// What the output says.
pub fn write<const N: usize>(
    out: &mut dyn Write,
    row: &[String; N],
    widths: &[usize; N],
    words: usize,
) -> io::Result<()> {
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let gap = if column == 0 { "" } else { "  " };
        match column {
            _ if column + 1 == N => write!(out, "{gap}{cell}")?,
            _ if column < words => write!(out, "{gap}{cell:width$}")?,
            _ => write!(out, "{gap}{cell:>width$}")?,
        }
    }
    writeln!(out)
}
