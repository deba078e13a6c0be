//! The two lines of a journal file that are not records: its header, and the commit line that closes a batch.
//!
//! A commit line has exactly one shape, so that its hash has one place:
//! `{"commit":SEQ,"records":N,"prev":"HASH","sha256":"HASH"}`. Its `sha256` covers every byte of the file after the
//! commit line before it (from the file's first byte, the header included, where there is none) up to and with the
//! quotation mark that opens the hash itself. The line's own `prev` is among those bytes, so all files form one chain.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::json::text::{push_name, push_string, push_u64};
use crate::time::Day;
use crate::value::{ChainHash, JournalId, Seq, Timestamp};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u64 = 1;

/// How every commit line begins.
pub(crate) const COMMIT: &[u8] = b"{\"commit\":";
/// How every record begins.
pub(crate) const RECORD: &[u8] = b"{\"seq\":";

/// Seqs stay within 63 bits, as SQL has them.
const SEQ_MAX: u64 = i64::MAX as u64;
const HEX_LEN: usize = 64;
const CLOSING: &[u8] = b"\"}";

/// The first line of a file: which journal, and where in it the file begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Which journal.
    pub(crate) journal: JournalId,
    /// The host that wrote it.
    pub(crate) host: String,
    /// The seq of its first record, once it has one.
    pub(crate) first_seq: Seq,
    /// The hash of the commit line that it follows: where the file before it validly ends.
    pub(crate) prev: ChainHash,
    /// Its number: files are in the order of their numbers. Numbers rise; some may be left out.
    pub(crate) number: u64,
    /// When it was opened.
    pub(crate) at: Timestamp,
}

/// Why a first line is not a header that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("its header cannot be read: {0}")]
    Malformed(String),
    #[error("it has format {0}")]
    Newer(u64),
}

impl Header {
    /// The line, with its newline.
    pub(crate) fn render(&self) -> Vec<u8> {
        let mut out = b"{\"keepwatch_journal\":".to_vec();
        push_u64(&mut out, FORMAT);
        push_name(&mut out, "journal_id");
        push_string(&mut out, &self.journal.to_string());
        push_name(&mut out, "host");
        push_string(&mut out, &self.host);
        push_name(&mut out, "first_seq");
        push_u64(&mut out, self.first_seq.0);
        push_name(&mut out, "prev");
        push_string(&mut out, &self.prev.to_string());
        push_name(&mut out, "file");
        push_u64(&mut out, self.number);
        push_name(&mut out, "at");
        push_string(&mut out, &self.at.to_string());
        out.extend_from_slice(b"}\n");
        out
    }

    /// Reads the line. Unknown fields are fine; a newer format is told from a line that is no header at all.
    pub(crate) fn parse(line: &[u8]) -> Result<Header, HeaderError> {
        #[derive(Deserialize)]
        struct Version {
            keepwatch_journal: u64,
        }
        #[derive(Deserialize)]
        struct Fields {
            journal_id: String,
            host: String,
            first_seq: u64,
            prev: String,
            file: u64,
            at: String,
        }
        let malformed = |error: &dyn std::fmt::Display| HeaderError::Malformed(error.to_string());
        let version: Version = serde_json::from_slice(line).map_err(|error| malformed(&error))?;
        if version.keepwatch_journal != FORMAT {
            return Err(HeaderError::Newer(version.keepwatch_journal));
        }
        let fields: Fields = serde_json::from_slice(line).map_err(|error| malformed(&error))?;
        if fields.first_seq == 0 || fields.first_seq > SEQ_MAX {
            return Err(malformed(&"first_seq is out of range"));
        }
        Ok(Header {
            journal: JournalId(fields.journal_id.parse().map_err(|error| malformed(&error))?),
            host: fields.host,
            first_seq: Seq(fields.first_seq),
            prev: ChainHash::from_hex(fields.prev.as_bytes()).ok_or_else(|| malformed(&"prev is not a hash"))?,
            number: fields.file,
            at: fields.at.parse().map_err(|error| malformed(&error))?,
        })
    }

    /// The day after which the file is named.
    pub(crate) fn day(&self) -> Day {
        self.at.day()
    }
}

/// What a commit line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// The last record it covers.
    pub(crate) seq: Seq,
    /// How many records it closes.
    pub(crate) records: u64,
    /// The hash of the commit line before.
    pub(crate) prev: ChainHash,
    /// Its own hash.
    pub(crate) hash: ChainHash,
}

impl Commit {
    /// Appends the line that closes a batch to the batch's text, and returns its hash. `uncovered` is what stands
    /// before that text and after the last commit line: a new file's header, or nothing.
    pub(crate) fn append(uncovered: &[u8], text: &mut Vec<u8>, seq: Seq, records: u64, prev: ChainHash) -> ChainHash {
        text.extend_from_slice(COMMIT);
        push_u64(text, seq.0);
        push_name(text, "records");
        push_u64(text, records);
        push_name(text, "prev");
        push_string(text, &prev.to_string());
        push_name(text, "sha256");
        text.push(b'"');
        let hash = ChainHash(Sha256::new().chain_update(uncovered).chain_update(&text).finalize().into());
        text.extend_from_slice(hash.to_string().as_bytes());
        text.extend_from_slice(CLOSING);
        text.push(b'\n');
        hash
    }

    /// Reads a line without its newline; `None` if it is not exactly of a commit line's shape.
    pub(crate) fn parse(line: &[u8]) -> Option<Commit> {
        let (seq, line) = number(line.strip_prefix(COMMIT)?)?;
        let (records, line) = number(line.strip_prefix(b",\"records\":")?)?;
        let (prev, line) = line.strip_prefix(b",\"prev\":\"")?.split_at_checked(HEX_LEN)?;
        let (hash, line) = line.strip_prefix(b"\",\"sha256\":\"")?.split_at_checked(HEX_LEN)?;
        (line == CLOSING && seq <= SEQ_MAX).then_some(())?;
        let (prev, hash) = (ChainHash::from_hex(prev)?, ChainHash::from_hex(hash)?);
        Some(Commit { seq: Seq(seq), records, prev, hash })
    }

    /// What its hash should be: `text` is everything it covers and its own line, with the newline.
    pub(crate) fn expected_hash(text: &[u8]) -> ChainHash {
        let covered = text.len() - (HEX_LEN + CLOSING.len() + 1);
        ChainHash(Sha256::digest(&text[..covered]).into())
    }
}

/// Reads a canonical decimal number off the front.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let len = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(len);
    if digits.is_empty() || (digits[0] == b'0' && len > 1) {
        return None;
    }
    let number =
        digits.iter().try_fold(0u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    Some((number, rest))
}
