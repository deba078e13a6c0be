//! Holds a whole journal against its chain, changing nothing.
//!
//! Records are not parsed unless asked for: the chain, the seqs and the counts show every change of a byte.
//! `docs/verify_journal.py` is the same judge in another language; a test holds both against each other.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskError};
use crate::files::{Chain, Placed};
use crate::format::HeaderError;
use crate::frames::{Flaw, Frames, Step};
use crate::record::Record;
use crate::value::{ChainHash, Cursor, JournalId, Seq};

/// What to hold the journal against.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// A head that was kept elsewhere: the journal must hold it.
    pub head: Option<Cursor>,
    /// Parse every record, too.
    pub deep: bool,
}

/// What verification found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The last commit that the chain reaches; `None` if nothing was ever committed.
    pub head: Option<Cursor>,
    /// How many files were read.
    pub files: u64,
    /// How many sound records.
    pub records: u64,
    /// What is wrong. Empty: the journal verifies.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In which file.
    pub file: PathBuf,
    /// At which line of it, from 1; 0 where no single line is to blame.
    pub line: u64,
    /// The record that should stand there.
    pub seq: Seq,
    /// What kind.
    pub kind: FindingKind,
    /// What is wrong, for people.
    pub what: String,
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// Something was changed or is missing.
    Damaged,
    /// The end is torn, as by a crash; the next start sets that aside.
    Torn,
    /// The journal does not hold the head that it was held against.
    Head,
    /// A later version wrote the file.
    Newer,
}

impl FindingKind {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::Damaged => "damaged",
            FindingKind::Torn => "torn",
            FindingKind::Head => "head",
            FindingKind::Newer => "newer",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: seq {}: {}: {}", self.file.display(), self.line, self.seq, self.kind.as_str(), self.what)
    }
}

/// Verifies the journal in `dir`. Beside a live writer, what is just being written may look torn.
///
/// # Errors
/// [`DiskError`] where a file cannot be read at all.
pub fn verify(disk: &dyn Disk, dir: &Path, options: &VerifyOptions) -> Result<Report, DiskError> {
    let chain = Chain::load(disk, dir)?;
    let mut verifier = Verifier {
        disk,
        dir,
        options,
        report: Report { head: None, files: 0, records: 0, findings: Vec::new() },
        head_met: false,
    };
    verifier.files_that_do_not_count(&chain)?;
    let journal = chain.files.first().or(chain.uncommitted.first()).map(|file| file.header.journal);
    for (index, file) in chain.files.iter().enumerate() {
        verifier.beginning(file, index, journal);
        verifier.file(file, chain.files.get(index + 1))?;
    }
    verifier.hold_against_head(journal);
    Ok(verifier.report)
}

struct Verifier<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    options: &'a VerifyOptions,
    report: Report,
    head_met: bool,
}

impl Verifier<'_> {
    fn find(&mut self, file: &Path, line: u64, seq: Seq, kind: FindingKind, what: impl Into<String>) {
        self.report.findings.push(Finding { file: file.to_owned(), line, seq, kind, what: what.into() });
    }

    fn files_that_do_not_count(&mut self, chain: &Chain) -> Result<(), DiskError> {
        for file in &chain.headless {
            let path = file.entry.path(self.dir);
            let kind = match file.error {
                HeaderError::Newer(_) => FindingKind::Newer,
                HeaderError::Malformed(_) if file.committed => FindingKind::Damaged,
                HeaderError::Malformed(_) if file.written => FindingKind::Torn,
                HeaderError::Malformed(_) => continue,
            };
            self.find(&path, 1, Seq::ZERO, kind, file.error.to_string());
        }
        for file in &chain.uncommitted {
            let Ok(mut frames) = Frames::open(self.disk, self.dir, &file.entry)? else { continue };
            if !frames.rest_is_free()? {
                let what = "the file holds nothing that was ever committed";
                self.find(&file.entry.path(self.dir), 2, file.header.first_seq, FindingKind::Torn, what);
            }
        }
        Ok(())
    }

    fn beginning(&mut self, file: &Placed, index: usize, journal: Option<JournalId>) {
        let path = file.entry.path(self.dir);
        let header = &file.header;
        if index == 0 && (header.first_seq, header.prev) != (Seq(1), ChainHash::ZERO) {
            let what = format!("the journal begins with seq {}: what stood before is missing", header.first_seq);
            self.find(&path, 1, Seq(1), FindingKind::Damaged, what);
        }
        if Some(header.journal) != journal {
            let what = format!("it belongs to another journal, {}", header.journal);
            self.find(&path, 1, header.first_seq, FindingKind::Damaged, what);
        }
    }

    /// Walks through a file to where the next one begins, or to its end.
    fn file(&mut self, file: &Placed, next: Option<&Placed>) -> Result<(), DiskError> {
        self.report.files += 1;
        let path = file.entry.path(self.dir);
        let Ok(mut frames) = Frames::open(self.disk, self.dir, &file.entry)? else { return Ok(()) };
        let end = next.map(|next| (next.header.first_seq, next.header.prev));
        let mut torn_is_possible = next.is_none() && !file.entry.packed;
        loop {
            if Some(frames.place()) == end {
                return Ok(());
            }
            let flaw = match frames.step()? {
                Step::Batch(found) => {
                    let text = &frames.text(&found)[found.header_len..];
                    let cursor = Cursor { journal: file.header.journal, seq: found.last, hash: found.hash };
                    if self.options.deep {
                        let line = found.line + u64::from(found.header_len > 0);
                        self.parse_all(&path, text, line, found.first);
                    }
                    self.report.records += found.last.0 - found.first.0 + 1;
                    self.report.head = Some(cursor);
                    self.head_met |= self.options.head == Some(cursor);
                    continue;
                }
                Step::Flawed(flaw) => flaw,
                Step::Free => {
                    let seq = frames.place().0;
                    let line = frames.line();
                    if frames.rest_is_free()? {
                        if let Some((first_seq, _)) = end {
                            let what = format!("the file ends, and the next one begins with seq {first_seq} elsewhere");
                            self.find(&path, line, seq, FindingKind::Damaged, what);
                        }
                        return Ok(());
                    }
                    Flaw::hole(line, seq)
                }
            };
            let expected_prev = frames.place().1;
            let commit = frames.skip_to_commit()?;
            let is_torn = torn_is_possible
                && match commit {
                    None => true,
                    Some(commit) => commit.prev == expected_prev && frames.rest_is_free()?,
                };
            let kind = if is_torn { FindingKind::Torn } else { FindingKind::Damaged };
            self.find(&path, flaw.line, flaw.seq, kind, flaw.what.to_string());
            if is_torn || commit.is_none() {
                return Ok(());
            }
            // Behind damage the chain goes on from what the commit line claims; a tail may still be torn.
            torn_is_possible = next.is_none();
        }
    }

    fn parse_all(&mut self, path: &Path, text: &[u8], line: u64, first: Seq) {
        let lines = text.split(|byte| *byte == b'\n').take_while(|line| line.starts_with(crate::format::RECORD));
        for (index, text) in (0..).zip(lines) {
            if let Err(error) = Record::parse(text) {
                self.find(path, line + index, Seq(first.0 + index), FindingKind::Damaged, error.to_string());
            }
        }
    }

    fn hold_against_head(&mut self, journal: Option<JournalId>) {
        let Some(head) = self.options.head else { return };
        let at_the_start = head.seq == Seq::ZERO && head.hash == ChainHash::ZERO && journal == Some(head.journal);
        if !self.head_met && !at_the_start {
            let what = format!("the journal does not hold the head {head}: it was cut, rolled back or rewritten");
            let dir = self.dir.to_owned();
            self.find(&dir, 0, head.seq, FindingKind::Head, what);
        }
    }
}
