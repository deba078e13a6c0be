//! A line of `keepwatch ls`: for people, as JSON, or a bare path.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use keepwatch_journal::json::text::{push_bytes_field, push_hex, push_i64, push_name, push_string, push_u64};
use keepwatch_journal::{Facts, FileType};

use super::safe::Safe;

/// One name in the inventory.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// On which host.
    pub host: &'a str,
    /// In which root.
    pub root: &'a str,
    /// The root's absolute path.
    pub root_path: &'a [u8],
    /// The path below it; empty for the root itself.
    pub path: &'a [u8],
    /// What was last found there; `None` where it was gone before it could be read.
    pub facts: Option<&'a Facts>,
    /// The digest of its content, where it is known.
    pub sha256: Option<&'a [u8; 32]>,
}

/// Lines as `ls -l` would print them.
#[derive(Debug)]
pub struct Long {
    zone: TimeZone,
    full: Vec<u8>,
}

/// Lines of JSON.
#[derive(Debug, Default)]
pub struct JsonLines {
    line: Vec<u8>,
}

/// Bare absolute paths, raw bytes, each ended by a NUL: for `xargs -0`.
#[derive(Debug, Default)]
pub struct Null {
    full: Vec<u8>,
}

/// A way to write rows.
pub trait Listing {
    /// Writes one row.
    ///
    /// # Errors
    /// If `out` cannot be written.
    fn row(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()>;
}

impl Row<'_> {
    /// Appends the absolute path.
    fn push_full(&self, full: &mut Vec<u8>) {
        full.extend_from_slice(self.root_path);
        if !self.path.is_empty() {
            if full.last() != Some(&b'/') {
                full.push(b'/');
            }
            full.extend_from_slice(self.path);
        }
    }
}

impl Long {
    /// With times in this zone.
    #[must_use]
    pub fn new(zone: TimeZone) -> Self {
        Long { zone, full: Vec::new() }
    }
}

impl Listing for Long {
    fn row(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
        self.full.clear();
        row.push_full(&mut self.full);
        let Some(facts) = row.facts else {
            return writeln!(
                out,
                "?????????? {:>3} {:>5} {:>5} {:>13} {:>16} {}",
                "?",
                "?",
                "?",
                "?",
                "?",
                Safe(&self.full)
            );
        };
        let Facts { nlink, uid, gid, size, .. } = facts;
        let when = Timestamp::from_nanosecond(i128::from(facts.mtime_ns)).unwrap_or_default();
        let when = when.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string();
        let mode = mode_text(facts);
        write!(out, "{mode} {nlink:>3} {uid:>5} {gid:>5} {size:>13} {when} {}", Safe(&self.full))?;
        if let Some(target) = &facts.target {
            write!(out, " -> {}", Safe(target))?;
        }
        writeln!(out)
    }
}

impl Listing for JsonLines {
    fn row(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(b"{\"host\":");
        push_string(line, row.host);
        push_name(line, "root");
        push_string(line, row.root);
        push_bytes_field(line, "path", row.path);
        match row.facts {
            Some(facts) => push_facts(line, facts),
            None => line.extend_from_slice(UNKNOWN),
        }
        push_name(line, "sha256");
        match row.sha256 {
            Some(digest) => {
                line.push(b'"');
                push_hex(line, digest);
                line.push(b'"');
            }
            None => line.extend_from_slice(b"null"),
        }
        let mut full = Vec::with_capacity(row.root_path.len() + 1 + row.path.len());
        row.push_full(&mut full);
        push_bytes_field(line, "full", &full);
        line.extend_from_slice(b"}\n");
        out.write_all(line)
    }
}

impl Listing for Null {
    fn row(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
        self.full.clear();
        row.push_full(&mut self.full);
        self.full.push(0);
        out.write_all(&self.full)
    }
}

const UNKNOWN: &[u8] =
    b",\"type\":null,\"size\":null,\"mtime_ns\":null,\"inode\":null,\"mode\":null,\"uid\":null,\"gid\":null,\"nlink\":null";

fn push_facts(line: &mut Vec<u8>, facts: &Facts) {
    push_name(line, "type");
    push_string(line, facts.kind.as_str());
    push_name(line, "size");
    push_u64(line, facts.size);
    push_name(line, "mtime_ns");
    push_i64(line, facts.mtime_ns);
    let numbers = [
        ("inode", facts.inode),
        ("mode", u64::from(facts.mode)),
        ("uid", u64::from(facts.uid)),
        ("gid", u64::from(facts.gid)),
        ("nlink", u64::from(facts.nlink)),
    ];
    for (name, number) in numbers {
        push_name(line, name);
        push_u64(line, number);
    }
    if let Some(target) = &facts.target {
        push_bytes_field(line, "target", target);
    }
}

/// `-rwxr-x--t`, as `ls(1)` shows a mode.
fn mode_text(facts: &Facts) -> String {
    let kind = match facts.kind {
        FileType::File => '-',
        FileType::Dir => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::Block => 'b',
        FileType::Char => 'c',
    };
    let mut text = String::from(kind);
    for (shift, special, mark) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = facts.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, facts.mode & special != 0) {
            (true, true) => mark,
            (false, true) => mark.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            kind: FileType::File,
            size: 4096,
            mtime_ns: 1_767_225_600_123_456_789,
            ctime_ns: 0,
            dev: 1,
            inode: 42,
            mode: 0o644,
            uid: 1000,
            gid: 100,
            nlink: 1,
            target: None,
        }
    }

    fn shown(mut listing: impl Listing, path: &[u8], facts: Option<&Facts>) -> Vec<u8> {
        let row = Row {
            host: "preserve-1",
            root: "records",
            root_path: b"/srv/records",
            path,
            facts,
            sha256: Some(&[0xab; 32]),
        };
        let mut out = Vec::new();
        listing.row(&row, &mut out).unwrap();
        out
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn long_lines_look_like_those_of_ls() {
        let long = || Long::new(TimeZone::UTC);
        assert_eq!(
            text(shown(long(), b"a b\n.csv", Some(&facts()))),
            "-rw-r--r--   1  1000   100          4096 2026-01-01 00:00 /srv/records/a b\\n.csv\n"
        );
        let link =
            Facts { kind: FileType::Symlink, mode: 0o777, target: Some(b"../x\x1b".as_slice().into()), ..facts() };
        let line = text(shown(long(), b"l", Some(&link)));
        assert!(line.starts_with("lrwxrwxrwx") && line.ends_with("/srv/records/l -> ../x\\x1b\n"), "{line}");
        assert!(text(shown(long(), b"gone", None)).ends_with(" /srv/records/gone\n"));
    }

    #[test]
    fn modes_show_their_special_bits() {
        let of = |kind, mode| mode_text(&Facts { kind, mode, ..facts() });
        assert_eq!(of(FileType::Dir, 0o1777), "drwxrwxrwt");
        assert_eq!(of(FileType::File, 0o6711), "-rws--s--x");
        assert_eq!(of(FileType::File, 0o7000), "---S--S--T");
    }

    #[test]
    fn json_lines_hold_what_was_promised_and_keep_any_name() {
        let line = text(shown(JsonLines::default(), b"a\"\\\n\xff", Some(&facts())));
        assert!(!line.trim_end().contains('\n'));
        let hostile = text(shown(JsonLines::default(), "\u{7f}\u{9b}31m\u{2028}".as_bytes(), None));
        assert!(hostile.contains(r#""path":"\u007f\u009b31m\u2028""#), "what a terminal obeys is escaped: {hostile}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "host": "preserve-1", "root": "records", "path": "a\"\\\n\u{fffd}", "path_b64": "YSJcCv8=",
            "type": "file", "size": 4096, "mtime_ns": 1_767_225_600_123_456_789_i64, "inode": 42, "mode": 420,
            "uid": 1000, "gid": 100, "nlink": 1, "sha256": "ab".repeat(32),
            "full": "/srv/records/a\"\\\n\u{fffd}", "full_b64": "L3Nydi9yZWNvcmRzL2EiXAr/",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn what_was_never_read_is_null_and_extremes_are_exact() {
        let value =
            |facts| serde_json::from_slice::<serde_json::Value>(&shown(JsonLines::default(), b"", facts)).unwrap();
        let unknown = value(None);
        assert!(["type", "size", "nlink"].iter().all(|key| unknown[key].is_null()));
        assert_eq!(unknown["full"], "/srv/records");
        let extreme = value(Some(&Facts { size: u64::MAX, mtime_ns: i64::MIN, ..facts() }));
        assert_eq!((extreme["size"].as_u64(), extreme["mtime_ns"].as_i64()), (Some(u64::MAX), Some(i64::MIN)));
    }

    #[test]
    fn null_ended_paths_are_raw() {
        assert_eq!(shown(Null::default(), b"\x1b\n\xff", None), b"/srv/records/\x1b\n\xff\0");
    }
}
