//! How acts lie in the table `acts`.

use keepwatch_journal::Extra;
use serde::{Deserialize, Serialize};

use super::known::unsigned;
use crate::model::{
    Body, Config, Evidence, Gap, GapClosed, GapReason, Record, RelPath, RootName, RunStep, Seq, Settled, Timestamp,
};

/// The fields of an act that are neither root nor path. Which of them are there depends on the act.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Detail {
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scanned: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    accepted: bool,
}

/// An act as columns.
pub(crate) struct Columns<'r> {
    pub(crate) name: &'r str,
    pub(crate) path: Option<&'r [u8]>,
    pub(crate) detail: String,
}

/// The word of an act. A change is not an act.
pub(crate) fn name(body: &Body) -> &str {
    match body {
        Body::Settled(_) => "settled",
        Body::Gap(_) => "gap",
        Body::GapClosed(_) => "gap_closed",
        Body::Config(_) | Body::Replica(_) | Body::Trigger(_) => "config",
        Body::Copied(_) => "copied",
        Body::Withdrawn(withdrawn) => withdrawn.how.as_str(),
        Body::Failed(_) => "failed",
        Body::Run(run) => run.step.as_str(),
        Body::Hashed(_) => "hashed",
        Body::Verified(_) => "verified",
        Body::Unsound(unsound) => unsound.what.as_str(),
        Body::Repaired(_) => "repaired",
        Body::Restored(_) => "restored",
        Body::Released(_) => "released",
        Body::Enrolled(_) => "enrolled",
        Body::Other(name) => name,
        Body::Change(_) => "change",
    }
}

/// An act's columns. A change has none; it is not an act.
pub(crate) fn columns(body: &Body) -> Columns<'_> {
    let (path, detail) = match body {
        Body::Copied(copied) => {
            return Columns { name: name(body), path: Some(copied.path.as_bytes()), detail: as_journaled(body) };
        }
        Body::Withdrawn(gone) => {
            return Columns { name: name(body), path: Some(gone.path.as_bytes()), detail: as_journaled(body) };
        }
        Body::Failed(failed) => {
            return Columns { name: name(body), path: Some(failed.path.as_bytes()), detail: as_journaled(body) };
        }
        Body::Run(run) => {
            return Columns { name: name(body), path: Some(run.path.as_bytes()), detail: as_journaled(body) };
        }
        Body::Replica(_) | Body::Trigger(_) => {
            return Columns { name: name(body), path: None, detail: as_journaled(body) };
        }
        Body::Hashed(_)
        | Body::Verified(_)
        | Body::Unsound(_)
        | Body::Repaired(_)
        | Body::Restored(_)
        | Body::Released(_)
        | Body::Enrolled(_) => {
            let path = body.fixity_place().and_then(|(_, path)| path).map(RelPath::as_bytes);
            return Columns { name: name(body), path, detail: as_journaled(body) };
        }
        Body::Settled(settled) => {
            let detail = Detail {
                evidence: Some(settled.evidence.as_str().to_owned()),
                size: Some(settled.size),
                mtime_ns: Some(settled.mtime_ns),
                inode: Some(settled.inode),
                ..Detail::default()
            };
            (Some(settled.path.as_bytes()), detail)
        }
        Body::Gap(gap) => {
            let detail = Detail {
                reason: Some(gap.reason.as_str().to_owned()),
                since_ns: gap.since.map(|since| since.0),
                note: gap.note.clone(),
                ..Detail::default()
            };
            (Some(gap.path.as_bytes()), detail)
        }
        Body::GapClosed(closed) => {
            let detail = Detail {
                gap: Some(closed.gap.0),
                scanned: Some(closed.scanned),
                found: Some(closed.found),
                ..Detail::default()
            };
            (None, detail)
        }
        Body::Config(config) => {
            let detail = Detail { identity: config.identity.clone(), accepted: config.accepted, ..Detail::default() };
            (config.dir.as_deref(), detail)
        }
        Body::Other(_) | Body::Change(_) => (None, Detail::default()),
    };
    // A struct of numbers and strings always serialises; an empty object would only lose the detail.
    let detail = serde_json::to_string(&detail).unwrap_or_else(|_| "{}".to_owned());
    Columns { name: name(body), path, detail }
}

/// Acts that lie in the table as they stand in the journal.
const JOURNALED: [&str; 14] = [
    "copied",
    "trashed",
    "removed",
    "foreign",
    "failed",
    "hashed",
    "verified",
    "rot",
    "missed",
    "unreadable",
    "repaired",
    "restored",
    "released",
    "enrolled",
];

/// The act that was written as these columns; `None` if they are not what this program writes.
pub(crate) fn body(name: String, root: Option<RootName>, path: Option<Vec<u8>>, detail: &str) -> Option<Body> {
    if JOURNALED.contains(&name.as_str()) || RunStep::from_word(&name).is_some() || (name == "config" && root.is_none())
    {
        return from_journaled(detail);
    }
    let detail: Detail = serde_json::from_str(detail).ok()?;
    let rel_path = |path: Option<Vec<u8>>| RelPath::new(path?).ok();
    Some(match name.as_str() {
        "settled" => Body::Settled(Settled {
            root: root?,
            path: rel_path(path)?,
            evidence: Evidence::from_word(&detail.evidence?)?,
            size: detail.size?,
            mtime_ns: detail.mtime_ns?,
            inode: detail.inode?,
        }),
        "gap" => Body::Gap(Gap {
            root,
            path: rel_path(path)?,
            reason: GapReason::from_word(&detail.reason?)?,
            since: detail.since_ns.map(Timestamp),
            note: detail.note,
        }),
        "gap_closed" => {
            Body::GapClosed(GapClosed { gap: Seq(detail.gap?), root, scanned: detail.scanned?, found: detail.found? })
        }
        "config" => Body::Config(Config {
            root: root?,
            dir: path.map(Into::into),
            identity: detail.identity,
            accepted: detail.accepted,
        }),
        _ => Body::Other(name),
    })
}

/// How an act about a replica or a trigger lies in the table: as it stands in the journal.
fn as_journaled(body: &Body) -> String {
    let mut text = Vec::new();
    Record { seq: Seq::ZERO, at: Timestamp(0), body: body.clone(), extra: None }.render(&mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Undoes [`as_journaled`].
fn from_journaled(detail: &str) -> Option<Body> {
    Record::parse(detail.as_bytes()).ok().map(|record| record.body)
}

/// Fields that this version does not know, as the tables hold them.
pub(crate) fn extra_text(extra: &Extra) -> Option<String> {
    extra.as_ref().and_then(|fields| serde_json::to_string(fields).ok())
}

/// Undoes [`extra_text`].
pub(crate) fn extra_of(text: Option<String>) -> Extra {
    text.and_then(|text| serde_json::from_str(&text).ok())
}

/// A gap's reason as it was written; one that a later version named reads as asked for.
pub(crate) fn reason(word: &str) -> GapReason {
    GapReason::from_word(word).unwrap_or(GapReason::Asked)
}

/// A seq column.
pub(crate) fn seq(number: i64) -> Seq {
    Seq(unsigned(number))
}
