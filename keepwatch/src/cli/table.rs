//! Tables for people: words to the left, numbers to the right, what is long last.

use std::io::{self, Write};

/// The columns to the left that hold words.
const WORDS: usize = 2;

/// Writes rows, the first of which is the header: the first two columns are words, the last one is too and may be of any
/// length, the others are numbers. A row's note, if it has one, stands below it.
///
/// # Errors
/// What the output says.
pub fn write<const N: usize>(
    out: &mut dyn Write,
    rows: &[[String; N]],
    note: impl Fn(usize) -> Option<String>,
) -> io::Result<()> {
    let widths = widths(rows);
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            match column {
                _ if column + 1 == N => write!(out, "{gap}{cell}")?,
                _ if column < WORDS => write!(out, "{gap}{cell:width$}")?,
                _ => write!(out, "{gap}{cell:>width$}")?,
            }
        }
        writeln!(out)?;
        if let Some(note) = index.checked_sub(1).and_then(&note) {
            writeln!(out, "  {note}")?;
        }
    }
    Ok(())
}

/// How wide each column is, in characters.
fn widths<const N: usize>(rows: &[[String; N]]) -> [usize; N] {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}
