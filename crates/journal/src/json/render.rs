//! Writes records: by hand, since this is on the path of every change, and canonical: one record, one text.

use super::{enrolled, fixity};
use crate::json::text::{push_bytes_field, push_i64, push_name, push_string, push_u64, push_value};
use crate::record::{
    Body, By, Change, Config, Copied, Evidence, Facts, Failed, FileType, Gap, GapClosed, GapReason, Op, Proof, Record,
    Replica, Run, RunStep, Settled, Trigger, Via, Withdrawal, Withdrawn,
};
use crate::value::Seq;

impl Record {
    /// Appends its line to `out`, without the newline.
    pub fn render(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"seq\":");
        push_u64(out, self.seq.0);
        out.extend_from_slice(b",\"at\":\"");
        self.at.render(out);
        out.extend_from_slice(b"\",\"do\":");
        match &self.body {
            Body::Change(change) => push_change(out, change),
            Body::Settled(settled) => push_settled(out, settled),
            Body::Gap(gap) => push_gap(out, gap),
            Body::GapClosed(closed) => push_gap_closed(out, closed),
            Body::Config(config) => push_config(out, config),
            Body::Copied(copied) => push_copied(out, copied),
            Body::Withdrawn(withdrawn) => push_withdrawn(out, withdrawn),
            Body::Failed(failed) => push_failed(out, failed),
            Body::Replica(replica) => push_replica(out, replica),
            Body::Run(run) => push_run(out, run),
            Body::Trigger(trigger) => push_trigger(out, trigger),
            Body::Hashed(hashed) => fixity::push_hashed(out, hashed),
            Body::Verified(verified) => fixity::push_verified(out, verified),
            Body::Unsound(unsound) => fixity::push_unsound(out, unsound),
            Body::Repaired(repaired) => fixity::push_repaired(out, repaired),
            Body::Restored(restored) => fixity::push_restored(out, restored),
            Body::Released(released) => fixity::push_released(out, released),
            Body::Enrolled(enrolled) => enrolled::push_enrolled(out, enrolled),
            Body::Other(name) => push_string(out, name),
        }
        for (name, value) in self.extra.iter().flat_map(|fields| fields.iter()) {
            out.push(b',');
            push_string(out, name);
            out.push(b':');
            push_value(out, value);
        }
        out.push(b'}');
    }
}

fn push_change(out: &mut Vec<u8>, change: &Change) {
    push_word(out, change.op.as_str());
    push_string_field(out, "root", change.root.as_str());
    push_bytes_field(out, "path", change.path.as_bytes());
    if let Some(old) = &change.old {
        if let Some(root) = &old.root {
            push_string_field(out, "old_root", root.as_str());
        }
        push_bytes_field(out, "old_path", old.path.as_bytes());
    }
    match &change.facts {
        Some(facts) => push_facts(out, facts),
        None if change.op == Op::Delete => {}
        None => out.extend_from_slice(NO_FACTS.as_bytes()),
    }
    push_word_field(out, "via", change.via.as_str());
    if let Some(by) = &change.by {
        push_by(out, by);
    }
    if change.merged {
        out.extend_from_slice(b",\"merged\":true");
    }
    if change.subtree {
        out.extend_from_slice(b",\"subtree\":true");
    }
    if change.exchange {
        out.extend_from_slice(b",\"exchange\":true");
    }
}

const NO_FACTS: &str = ",\"type\":null,\"size\":null,\"mtime_ns\":null,\"ctime_ns\":null,\"dev\":null,\"inode\":null,\
    \"mode\":null,\"uid\":null,\"gid\":null,\"nlink\":null";

fn push_facts(out: &mut Vec<u8>, facts: &Facts) {
    push_word_field(out, "type", facts.kind.as_str());
    push_u64_field(out, "size", facts.size);
    push_i64_field(out, "mtime_ns", facts.mtime_ns);
    push_i64_field(out, "ctime_ns", facts.ctime_ns);
    push_u64_field(out, "dev", facts.dev);
    push_u64_field(out, "inode", facts.inode);
    push_u64_field(out, "mode", facts.mode.into());
    push_u64_field(out, "uid", facts.uid.into());
    push_u64_field(out, "gid", facts.gid.into());
    push_u64_field(out, "nlink", facts.nlink.into());
    if let Some(target) = &facts.target {
        push_bytes_field(out, "target", target);
    }
}

fn push_by(out: &mut Vec<u8>, by: &By) {
    out.extend_from_slice(b",\"by\":{\"pid\":");
    push_u64(out, by.pid.into());
    if let Some(uid) = by.uid {
        push_u64_field(out, "uid", uid.into());
    }
    if let Some(exe) = &by.exe {
        push_bytes_field(out, "exe", exe);
    }
    out.push(b'}');
}

fn push_settled(out: &mut Vec<u8>, settled: &Settled) {
    push_word(out, "settled");
    push_string_field(out, "root", settled.root.as_str());
    push_bytes_field(out, "path", settled.path.as_bytes());
    push_word_field(out, "evidence", settled.evidence.as_str());
    push_u64_field(out, "size", settled.size);
    push_i64_field(out, "mtime_ns", settled.mtime_ns);
    push_u64_field(out, "inode", settled.inode);
}

fn push_gap(out: &mut Vec<u8>, gap: &Gap) {
    push_word(out, "gap");
    if let Some(root) = &gap.root {
        push_string_field(out, "root", root.as_str());
    }
    push_bytes_field(out, "path", gap.path.as_bytes());
    push_word_field(out, "reason", gap.reason.as_str());
    if let Some(since) = gap.since {
        push_name(out, "since");
        out.push(b'"');
        since.render(out);
        out.push(b'"');
    }
    if let Some(note) = &gap.note {
        push_string_field(out, "note", note);
    }
}

fn push_gap_closed(out: &mut Vec<u8>, closed: &GapClosed) {
    push_word(out, "gap_closed");
    push_u64_field(out, "gap", closed.gap.0);
    if let Some(root) = &closed.root {
        push_string_field(out, "root", root.as_str());
    }
    push_u64_field(out, "scanned", closed.scanned);
    push_u64_field(out, "found", closed.found);
}

fn push_config(out: &mut Vec<u8>, config: &Config) {
    push_word(out, "config");
    push_string_field(out, "root", config.root.as_str());
    match &config.dir {
        Some(dir) => push_bytes_field(out, "dir", dir),
        None => out.extend_from_slice(b",\"dir\":null"),
    }
    if let Some(identity) = &config.identity {
        push_string_field(out, "identity", identity);
    }
    if config.accepted {
        out.extend_from_slice(b",\"accepted\":true");
    }
}

fn push_copied(out: &mut Vec<u8>, copied: &Copied) {
    push_word(out, "copied");
    push_string_field(out, "replica", copied.replica.as_str());
    push_string_field(out, "root", copied.root.as_str());
    push_bytes_field(out, "path", copied.path.as_bytes());
    if let Some(old_path) = &copied.old_path {
        push_bytes_field(out, "old_path", old_path.as_bytes());
    }
    push_i64_field(out, "file", copied.file);
    push_u64_field(out, "of", copied.of.0);
    push_word_field(out, "type", copied.kind.as_str());
    push_u64_field(out, "size", copied.size);
    push_i64_field(out, "mtime_ns", copied.mtime_ns);
    if let Some(sha256) = &copied.sha256 {
        push_word_field(out, "sha256", &sha256.to_string());
    }
    push_word_field(out, "proof", copied.proof.as_str());
}

fn push_withdrawn(out: &mut Vec<u8>, withdrawn: &Withdrawn) {
    push_word(out, withdrawn.how.as_str());
    push_string_field(out, "replica", withdrawn.replica.as_str());
    push_string_field(out, "root", withdrawn.root.as_str());
    push_bytes_field(out, "path", withdrawn.path.as_bytes());
    push_word_field(out, "type", withdrawn.kind.as_str());
}

fn push_failed(out: &mut Vec<u8>, failed: &Failed) {
    push_word(out, "failed");
    push_string_field(out, "replica", failed.replica.as_str());
    push_string_field(out, "root", failed.root.as_str());
    push_bytes_field(out, "path", failed.path.as_bytes());
    push_string_field(out, "why", &failed.why);
}

fn push_replica(out: &mut Vec<u8>, replica: &Replica) {
    push_word(out, "config");
    push_string_field(out, "replica", replica.replica.as_str());
    match &replica.url {
        Some(url) => push_string_field(out, "url", url),
        None => out.extend_from_slice(b",\"url\":null"),
    }
    if let Some(identity) = &replica.identity {
        push_string_field(out, "identity", identity);
    }
    if !replica.roots.is_empty() {
        push_name(out, "roots");
        for (index, (root, text)) in replica.roots.iter().enumerate() {
            out.push(if index == 0 { b'{' } else { b',' });
            push_string(out, root);
            out.push(b':');
            push_string(out, text);
        }
        out.push(b'}');
    }
}

fn push_run(out: &mut Vec<u8>, run: &Run) {
    push_word(out, run.step.as_str());
    push_string_field(out, "trigger", run.trigger.as_str());
    push_string_field(out, "root", run.root.as_str());
    push_bytes_field(out, "path", run.path.as_bytes());
    push_i64_field(out, "file", run.file);
    push_u64_field(out, "version", run.version.0);
    if !run.more.is_empty() {
        push_versions(out, &run.more);
    }
    if let Some(process) = &run.process {
        push_string_field(out, "key", &process.key);
        push_u64_field(out, "group", process.group.into());
        push_u64_field(out, "born", process.born);
        push_string_field(out, "boot", &process.boot);
    }
    if let Some(why) = &run.why {
        push_string_field(out, "why", why);
    }
}

/// The field `files`: of each its file id, and the record that made the version.
pub(super) fn push_versions(out: &mut Vec<u8>, files: &[(i64, Seq)]) {
    push_name(out, "files");
    for (index, (file, of)) in files.iter().enumerate() {
        out.push(if index == 0 { b'[' } else { b',' });
        push_i64(out, *file);
        out.push(b',');
        push_u64(out, of.0);
    }
    out.extend_from_slice(if files.is_empty() { b"[]" } else { b"]" });
}

fn push_trigger(out: &mut Vec<u8>, trigger: &Trigger) {
    push_word(out, "config");
    push_string_field(out, "trigger", trigger.trigger.as_str());
    push_name(out, "since");
    let Some(roots) = &trigger.roots else { return out.extend_from_slice(b"null") };
    out.push(b'{');
    for (index, (root, since)) in roots.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_string(out, root);
        out.push(b':');
        push_u64(out, *since);
    }
    out.push(b'}');
}

/// Writes one of our own words: nothing in it needs an escape.
pub(super) fn push_word(out: &mut Vec<u8>, word: &str) {
    out.push(b'"');
    out.extend_from_slice(word.as_bytes());
    out.push(b'"');
}

pub(super) fn push_word_field(out: &mut Vec<u8>, name: &str, word: &str) {
    push_name(out, name);
    push_word(out, word);
}

pub(super) fn push_string_field(out: &mut Vec<u8>, name: &str, text: &str) {
    push_name(out, name);
    push_string(out, text);
}

pub(super) fn push_u64_field(out: &mut Vec<u8>, name: &str, number: u64) {
    push_name(out, name);
    push_u64(out, number);
}

pub(super) fn push_i64_field(out: &mut Vec<u8>, name: &str, number: i64) {
    push_name(out, name);
    push_i64(out, number);
}

/// Gives an enumeration its words in the journal, both ways.
macro_rules! words {
    ($($type:ident { $($variant:ident = $word:literal),+ $(,)? })+) => {$(
        impl $type {
            /// Its word in the journal.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word),+ }
            }

            /// The value that a word of the journal stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some($type::$variant),)+ _ => None }
            }
        }
    )+};
}

words! {
    Op { Create = "create", Modify = "modify", Attrib = "attrib", Move = "move", Delete = "delete" }
    FileType {
        File = "file", Dir = "dir", Symlink = "symlink", Fifo = "fifo", Socket = "socket", Block = "block",
        Char = "char",
    }
    Via { Fanotify = "fanotify", Inotify = "inotify", Poll = "poll", Scan = "scan" }
    Proof { Presumed = "presumed", Written = "written", Proved = "proved" }
    RunStep { Started = "started", Ran = "ran", Dead = "dead", Resumed = "resumed" }
    Withdrawal { Trashed = "trashed", Removed = "removed", Foreign = "foreign" }
    Evidence { Lease = "lease", Quiet = "quiet", Rename = "rename" }
    GapReason {
        Restart = "restart", New = "new", Overflow = "overflow", Absent = "absent", Mount = "mount", Watch = "watch",
        Journal = "journal", Torn = "torn", Epoch = "epoch", Asked = "asked",
    }
}
