//! Which program a plug-in is, and its arguments. Pure.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// A plug-in's command line: `exec:PROGRAM ARG…`. No shell reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecCommand {
    words: Vec<OsString>,
    text: OsString,
}

impl ExecCommand {
    /// Reads what stands behind `exec:`: words with blanks between; `'…'`, `"…"` and `\` keep a blank in a word, as in a shell,
    /// and nothing else means anything. `None`: there is no program, or a quote is not closed.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut words = Vec::new();
        let mut word: Option<Vec<u8>> = None;
        let mut bytes = text.iter().copied();
        while let Some(byte) = bytes.next() {
            match byte {
                b' ' | b'\t' | b'\n' => words.extend(word.take()),
                b'\'' | b'"' => {
                    let word = word.get_or_insert_default();
                    loop {
                        match bytes.next()? {
                            end if end == byte => break,
                            b'\\' if byte == b'"' => word.push(bytes.next()?),
                            inner => word.push(inner),
                        }
                    }
                }
                b'\\' => word.get_or_insert_default().push(bytes.next()?),
                byte => word.get_or_insert_default().push(byte),
            }
        }
        words.extend(word);
        let is_sound =
            words.first().is_some_and(|program| !program.is_empty()) && words.iter().all(|word| !word.contains(&0));
        let words = words.into_iter().map(OsString::from_vec).collect();
        is_sound.then(|| ExecCommand { words, text: OsString::from_vec(text.to_vec()) })
    }

    /// The program; looked up in `PATH` if it is a bare name.
    #[must_use]
    pub fn program(&self) -> &OsString {
        // It was found to be there.
        &self.words[0]
    }

    /// Its arguments.
    #[must_use]
    pub fn arguments(&self) -> &[OsString] {
        &self.words[1..]
    }

    /// Whether the program is found wherever this is run: a bare name, or an absolute path.
    #[must_use]
    pub fn is_found_anywhere(&self) -> bool {
        let program = self.program().as_bytes();
        program.starts_with(b"/") || !program.contains(&b'/')
    }

    /// As it was written, behind `exec:`.
    #[must_use]
    pub fn as_written(&self) -> &OsString {
        &self.text
    }
}

impl fmt::Display for ExecCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exec:{}", self.text.to_string_lossy())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_and_nothing_is_expanded() {
        let words = |text: &str| ExecCommand::parse(text.as_bytes()).map(|command| command.words);
        let of = |all: &[&str]| Some(all.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(words("prog a  b"), of(&["prog", "a", "b"]));
        assert_eq!(words("'my prog' \"a \\\" b\" c\\ d ''"), of(&["my prog", "a \" b", "c d", ""]));
        assert_eq!(words("prog $HOME `x` *"), of(&["prog", "$HOME", "`x`", "*"]));
        for wrong in ["", "  ", "'", "prog \"a", "''", "x\\"] {
            assert_eq!(words(wrong), None, "{wrong}");
        }
        assert!(!ExecCommand::parse(b"./x").unwrap().is_found_anywhere());
        assert_eq!(ExecCommand::parse(b"a  b").unwrap().to_string(), "exec:a  b");
    }
}
