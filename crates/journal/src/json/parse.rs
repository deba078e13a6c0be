//! Reads records: one pass, borrowing from the line, with a reader for the fields of each `do`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::enrolled;
use super::fixity::{self, versions};
use crate::json::text::decode_base64;
use crate::record::{
    Body, By, Change, Config, Copied, Evidence, Extra, Facts, Failed, FileType, Gap, GapClosed, GapReason, OldPlace,
    Op, Proof, Record, Replica, Run, RunProcess, RunStep, Settled, Trigger, Via, Withdrawal, Withdrawn,
};
use crate::value::{Digest, RelPath, ReplicaName, RootName, Seq, Timestamp, TriggerName};

/// Why a line is not a record; the text says which field is wrong and at which column.
#[derive(Debug, thiserror::Error)]
#[error("not a record of a journal: {0}")]
pub struct ParseError(#[from] serde_json::Error);

impl Record {
    /// Reads a line, with or without its newline.
    ///
    /// An unknown `do` becomes [`Body::Other`] with all its fields in `extra`; unknown fields of a known `do` are
    /// kept in `extra`.
    ///
    /// # Errors
    /// [`ParseError`] if it is not JSON, does not begin with `seq`, `at`, `do`, lacks a field, has one twice, or
    /// names a path that is not a [`RelPath`].
    pub fn parse(line: &[u8]) -> Result<Record, ParseError> {
        Ok(serde_json::from_slice(line)?)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Record;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object that begins with seq, at and do")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Record, M::Error> {
                let seq = Seq(leading(&mut map, "seq")?);
                let at = parse_time(&leading::<Text<'de>, M>(&mut map, "at")?)?;
                let name = leading::<Text<'de>, M>(&mut map, "do")?;
                let mut extra = None;
                let body = match &*name.0 {
                    "settled" => Body::Settled(read_settled(&mut map, &mut extra)?),
                    "gap" => Body::Gap(read_gap(&mut map, &mut extra)?),
                    "gap_closed" => Body::GapClosed(read_gap_closed(&mut map, &mut extra)?),
                    "config" => read_config(&mut map, &mut extra)?,
                    "copied" => Body::Copied(Box::new(read_copied(&mut map, &mut extra)?)),
                    "trashed" => read_withdrawn(Withdrawal::Trashed, &mut map, &mut extra)?,
                    "removed" => read_withdrawn(Withdrawal::Removed, &mut map, &mut extra)?,
                    "foreign" => read_withdrawn(Withdrawal::Foreign, &mut map, &mut extra)?,
                    "failed" => Body::Failed(Box::new(read_failed(&mut map, &mut extra)?)),
                    "hashed" => Body::Hashed(Box::new(fixity::read_hashed(&mut map, &mut extra)?)),
                    "verified" => Body::Verified(Box::new(fixity::read_verified(&mut map, &mut extra)?)),
                    "rot" | "missed" | "unreadable" => {
                        Body::Unsound(Box::new(fixity::read_unsound(&name.0, &mut map, &mut extra)?))
                    }
                    "repaired" => Body::Repaired(Box::new(fixity::read_repaired(&mut map, &mut extra)?)),
                    "restored" => Body::Restored(Box::new(fixity::read_restored(&mut map, &mut extra)?)),
                    "enrolled" => Body::Enrolled(Box::new(enrolled::read_enrolled(&mut map, &mut extra)?)),
                    "released" => Body::Released(Box::new(fixity::read_released(&mut map, &mut extra)?)),
                    other => match (Op::from_word(other), RunStep::from_word(other)) {
                        (Some(op), _) => Body::Change(read_change(op, &mut map, &mut extra)?),
                        (None, Some(step)) => Body::Run(Box::new(read_run(step, &mut map, &mut extra)?)),
                        (None, None) => {
                            while let Some(key) = map.next_key::<Text<'de>>()? {
                                keep(&mut map, &mut extra, key)?;
                            }
                            Body::Other(other.to_owned())
                        }
                    },
                };
                Ok(Record { seq, at, body, extra })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A string of the line, borrowed where it has no escapes.
pub(super) struct Text<'de>(pub(super) Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

/// Bytes written once or twice: readable, and exact where they are not UTF-8.
#[derive(Default)]
pub(super) struct Bytes<'de> {
    pub(super) readable: Option<Text<'de>>,
    pub(super) exact: Option<Text<'de>>,
}

impl Bytes<'_> {
    pub(super) fn into_bytes<E: de::Error>(self) -> Result<Option<Vec<u8>>, E> {
        match (self.readable, self.exact) {
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some(text.0.into_owned().into_bytes())),
            (_, Some(base64)) => decode_base64(&base64.0).map(Some).map_err(E::custom),
        }
    }

    pub(super) fn into_path<E: de::Error>(self, name: &'static str) -> Result<RelPath, E> {
        let bytes = self.into_bytes()?.ok_or_else(|| E::missing_field(name))?;
        RelPath::new(bytes).map_err(|wrong| E::custom(format_args!("{name}: {wrong}")))
    }
}

fn leading<'de, T: Deserialize<'de>, M: MapAccess<'de>>(map: &mut M, name: &'static str) -> Result<T, M::Error> {
    match map.next_key::<Text<'de>>()? {
        Some(key) if key.0 == name => map.next_value(),
        Some(_) | None => Err(de::Error::missing_field(name)),
    }
}

fn parse_time<E: de::Error>(text: &Text<'_>) -> Result<Timestamp, E> {
    Timestamp::parse(text.0.as_bytes()).map_err(E::custom)
}

/// Fills a slot with the next value, once.
pub(super) fn fill<'de, T: Deserialize<'de>, M: MapAccess<'de>>(
    map: &mut M,
    slot: &mut Option<T>,
    name: &'static str,
) -> Result<(), M::Error> {
    if slot.is_some() {
        return Err(de::Error::duplicate_field(name));
    }
    *slot = map.next_value()?;
    Ok(())
}

/// Keeps a field that this version does not know.
pub(super) fn keep<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra, key: Text<'de>) -> Result<(), M::Error> {
    if matches!(&*key.0, "seq" | "at" | "do") {
        return Err(de::Error::custom(format_args!("field {} stands twice", key.0)));
    }
    let value: Value = map.next_value()?;
    match extra.get_or_insert_default().insert(key.0.into_owned(), value) {
        Some(_) => Err(de::Error::custom("an unknown field stands twice")),
        None => Ok(()),
    }
}

pub(super) fn required<T, E: de::Error>(slot: Option<T>, name: &'static str) -> Result<T, E> {
    slot.ok_or_else(|| E::missing_field(name))
}

pub(super) fn word<T, E: de::Error>(
    text: &Text<'_>,
    from_word: fn(&str) -> Option<T>,
    name: &'static str,
) -> Result<T, E> {
    from_word(&text.0).ok_or_else(|| E::custom(format_args!("{name} is {:?}, which is not known", text.0)))
}

pub(super) fn root(text: &Text<'_>) -> RootName {
    RootName::new(&*text.0)
}

/// The fields of [`Facts`], as they come in.
#[derive(Default)]
struct FactSlots<'de> {
    kind: Option<Text<'de>>,
    size: Option<u64>,
    mtime_ns: Option<i64>,
    ctime_ns: Option<i64>,
    dev: Option<u64>,
    inode: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    nlink: Option<u32>,
    target: Bytes<'de>,
}

impl FactSlots<'_> {
    fn finish<E: de::Error>(self) -> Result<Option<Facts>, E> {
        let Some(kind) = self.kind else { return Ok(None) };
        Ok(Some(Facts {
            kind: word(&kind, FileType::from_word, "type")?,
            size: required(self.size, "size")?,
            mtime_ns: required(self.mtime_ns, "mtime_ns")?,
            ctime_ns: required(self.ctime_ns, "ctime_ns")?,
            dev: required(self.dev, "dev")?,
            inode: required(self.inode, "inode")?,
            mode: required(self.mode, "mode")?,
            uid: required(self.uid, "uid")?,
            gid: required(self.gid, "gid")?,
            nlink: required(self.nlink, "nlink")?,
            target: self.target.into_bytes()?.map(Vec::into_boxed_slice),
        }))
    }
}

fn read_change<'de, M: MapAccess<'de>>(op: Op, map: &mut M, extra: &mut Extra) -> Result<Change, M::Error> {
    let (mut root_name, mut old_root, mut via) = (None, None, None);
    let (mut path, mut old_path) = (Bytes::default(), Bytes::default());
    let (mut by, mut merged, mut subtree, mut exchange) = (None, None, None, None);
    let mut facts = FactSlots::default();
    while let Some(key) = map.next_key::<Text<'de>>()? {
        match &*key.0 {
            "root" => fill(map, &mut root_name, "root")?,
            "path" => fill(map, &mut path.readable, "path")?,
            "path_b64" => fill(map, &mut path.exact, "path_b64")?,
            "old_root" => fill(map, &mut old_root, "old_root")?,
            "old_path" => fill(map, &mut old_path.readable, "old_path")?,
            "old_path_b64" => fill(map, &mut old_path.exact, "old_path_b64")?,
            "type" => fill(map, &mut facts.kind, "type")?,
            "size" => fill(map, &mut facts.size, "size")?,
            "mtime_ns" => fill(map, &mut facts.mtime_ns, "mtime_ns")?,
            "ctime_ns" => fill(map, &mut facts.ctime_ns, "ctime_ns")?,
            "dev" => fill(map, &mut facts.dev, "dev")?,
            "inode" => fill(map, &mut facts.inode, "inode")?,
            "mode" => fill(map, &mut facts.mode, "mode")?,
            "uid" => fill(map, &mut facts.uid, "uid")?,
            "gid" => fill(map, &mut facts.gid, "gid")?,
            "nlink" => fill(map, &mut facts.nlink, "nlink")?,
            "target" => fill(map, &mut facts.target.readable, "target")?,
            "target_b64" => fill(map, &mut facts.target.exact, "target_b64")?,
            "via" => fill(map, &mut via, "via")?,
            "by" => fill(map, &mut by, "by")?,
            "merged" => fill(map, &mut merged, "merged")?,
            "subtree" => fill(map, &mut subtree, "subtree")?,
            "exchange" => fill(map, &mut exchange, "exchange")?,
            _ => keep(map, extra, key)?,
        }
    }
    let has_old = old_path.readable.is_some() || old_path.exact.is_some();
    let old = match has_old {
        true => Some(OldPlace { root: old_root.as_ref().map(root), path: old_path.into_path("old_path")? }),
        false => None,
    };
    Ok(Change {
        op,
        root: root(&required(root_name, "root")?),
        path: path.into_path("path")?,
        old,
        facts: facts.finish()?,
        via: word(&required(via, "via")?, Via::from_word, "via")?,
        by: by.map(|SomeBy(by)| Arc::new(by)),
        merged: merged.unwrap_or(false),
        subtree: subtree.unwrap_or(false),
        exchange: exchange.unwrap_or(false),
    })
}

/// A process, as an object inside a record.
struct SomeBy(By);

impl<'de> Deserialize<'de> for SomeBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = SomeBy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a pid")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<SomeBy, M::Error> {
                let (mut pid, mut uid, mut exe) = (None, None, Bytes::default());
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match &*key.0 {
                        "pid" => fill(&mut map, &mut pid, "pid")?,
                        "uid" => fill(&mut map, &mut uid, "uid")?,
                        "exe" => fill(&mut map, &mut exe.readable, "exe")?,
                        "exe_b64" => fill(&mut map, &mut exe.exact, "exe_b64")?,
                        _ => drop(map.next_value::<de::IgnoredAny>()?),
                    }
                }
                let exe = exe.into_bytes()?.map(Vec::into_boxed_slice);
                Ok(SomeBy(By { pid: required(pid, "pid")?, uid, exe }))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn read_settled<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Settled, M::Error> {
    let (mut root_name, mut path, mut evidence) = (None, Bytes::default(), None);
    let (mut size, mut mtime_ns, mut inode) = (None, None, None);
    while let Some(key) = map.next_key::<Text<'de>>()? {
        match &*key.0 {
            "root" => fill(map, &mut root_name, "root")?,
            "path" => fill(map, &mut path.readable, "path")?,
            "path_b64" => fill(map, &mut path.exact, "path_b64")?,
            "evidence" => fill(map, &mut evidence, "evidence")?,
            "size" => fill(map, &mut size, "size")?,
            "mtime_ns" => fill(map, &mut mtime_ns, "mtime_ns")?,
            "inode" => fill(map, &mut inode, "inode")?,
            _ => keep(map, extra, key)?,
        }
    }
    Ok(Settled {
        root: root(&required(root_name, "root")?),
        path: path.into_path("path")?,
        evidence: word(&required(evidence, "evidence")?, Evidence::from_word, "evidence")?,
        size: required(size, "size")?,
        mtime_ns: required(mtime_ns, "mtime_ns")?,
        inode: required(inode, "inode")?,
    })
}

fn read_gap<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Gap, M::Error> {
    let (mut root_name, mut path, mut reason) = (None, Bytes::default(), None);
    let (mut since, mut note) = (None, None);
    while let Some(key) = map.next_key::<Text<'de>>()? {
        match &*key.0 {
            "root" => fill(map, &mut root_name, "root")?,
            "path" => fill(map, &mut path.readable, "path")?,
            "path_b64" => fill(map, &mut path.exact, "path_b64")?,
            "reason" => fill(map, &mut reason, "reason")?,
            "since" => fill(map, &mut since, "since")?,
            "note" => fill(map, &mut note, "note")?,
            _ => keep(map, extra, key)?,
        }
    }
    Ok(Gap {
        root: root_name.as_ref().map(root),
        path: path.into_path("path")?,
        reason: word(&required(reason, "reason")?, GapReason::from_word, "reason")?,
        since: since.map(|text| parse_time(&text)).transpose()?,
        note,
    })
}

fn read_gap_closed<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<GapClosed, M::Error> {
    let (mut gap, mut root_name, mut scanned, mut found) = (None, None, None, None);
    while let Some(key) = map.next_key::<Text<'de>>()? {
        match &*key.0 {
            "gap" => fill(map, &mut gap, "gap")?,
            "root" => fill(map, &mut root_name, "root")?,
            "scanned" => fill(map, &mut scanned, "scanned")?,
            "found" => fill(map, &mut found, "found")?,
            _ => keep(map, extra, key)?,
        }
    }
    Ok(GapClosed {
        gap: Seq(required(gap, "gap")?),
        root: root_name.as_ref().map(root),
        scanned: required(scanned, "scanned")?,
        found: required(found, "found")?,
    })
}

/// A root's, a replica's or a trigger's.
fn read_config<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Body, M::Error> {
    let (mut root_name, mut dir, mut identity, mut accepted) = (None, Bytes::default(), None, None);
    let (mut replica, mut url, mut roots) = (None::<Text<'de>>, None::<String>, None::<BTreeMap<String, String>>);
    let (mut trigger, mut since) = (None::<Text<'de>>, None::<BTreeMap<String, u64>>);
    while let Some(key) = map.next_key::<Text<'de>>()? {
        match &*key.0 {
            "root" => fill(map, &mut root_name, "root")?,
            "dir" => fill(map, &mut dir.readable, "dir")?,
            "dir_b64" => fill(map, &mut dir.exact, "dir_b64")?,
            "identity" => fill(map, &mut identity, "identity")?,
            "accepted" => fill(map, &mut accepted, "accepted")?,
            "replica" => fill(map, &mut replica, "replica")?,
            "url" if replica.is_some() => fill(map, &mut url, "url")?,
            "roots" if replica.is_some() => fill(map, &mut roots, "roots")?,
            "trigger" => fill(map, &mut trigger, "trigger")?,
            "since" if trigger.is_some() => fill(map, &mut since, "since")?,
            _ => keep(map, extra, key)?,
        }
    }
    if let (Some(trigger), None) = (&trigger, &root_name) {
        let trigger = TriggerName::new(&*trigger.0);
        return Ok(Body::Trigger(Box::new(Trigger { trigger, roots: since })));
    }
    if let (Some(replica), None) = (&replica, &root_name) {
        return Ok(Body::Replica(Box::new(Replica {
            replica: ReplicaName::new(&*replica.0),
            url,
            identity,
            roots: roots.unwrap_or_default(),
        })));
    }
    Ok(Body::Config(Config {
        root: root(&required(root_name, "root")?),
        dir: dir.into_bytes()?.map(Vec::into_boxed_slice),
        identity,
        accepted: accepted.unwrap_or(false),
    }))
}

fn read_copied<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Copied, M::Error> {
    let (mut replica, mut root_name) = (None::<Text<'de>>, None);
    let (mut path, mut old_path) = (Bytes::default(), Bytes::default());
    let (mut file, mut of, mut kind, mut size, mut mtime_ns) = (None, None, None, None, None);
    let (mut sha256, mut proof) = (None::<Text<'de>>, None);
    while let Some(key) = map.next_key::<Text<'de>>()? {
        match &*key.0 {
            "replica" => fill(map, &mut replica, "replica")?,
            "root" => fill(map, &mut root_name, "root")?,
            "path" => fill(map, &mut path.readable, "path")?,
            "path_b64" => fill(map, &mut path.exact, "path_b64")?,
            "old_path" => fill(map, &mut old_path.readable, "old_path")?,
            "old_path_b64" => fill(map, &mut old_path.exact, "old_path_b64")?,
            "file" => fill(map, &mut file, "file")?,
            "of" => fill(map, &mut of, "of")?,
            "type" => fill(map, &mut kind, "type")?,
            "size" => fill(map, &mut size, "size")?,
            "mtime_ns" => fill(map, &mut mtime_ns, "mtime_ns")?,
            "sha256" => fill(map, &mut sha256, "sha256")?,
            "proof" => fill(map, &mut proof, "proof")?,
            _ => keep(map, extra, key)?,
        }
    }
    let has_old = old_path.readable.is_some() || old_path.exact.is_some();
    let digest = |hex: Text<'_>| Digest::from_hex(hex.0.as_bytes()).ok_or_else(|| de::Error::custom("sha256: not one"));
    Ok(Copied {
        replica: ReplicaName::new(&*required(replica, "replica")?.0),
        root: root(&required(root_name, "root")?),
        path: path.into_path("path")?,
        old_path: has_old.then(|| old_path.into_path("old_path")).transpose()?,
        file: required(file, "file")?,
        of: Seq(required(of, "of")?),
        kind: word(&required(kind, "type")?, FileType::from_word, "type")?,
        size: required(size, "size")?,
        mtime_ns: required(mtime_ns, "mtime_ns")?,
        sha256: sha256.map(digest).transpose()?,
        proof: word(&required(proof, "proof")?, Proof::from_word, "proof")?,
    })
}

fn read_failed<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Failed, M::Error> {
    let (mut replica, mut root_name, mut path, mut why) = (None::<Text<'de>>, None, Bytes::default(), None);
    while let Some(key) = map.next_key::<Text<'de>>()? {
        match &*key.0 {
            "replica" => fill(map, &mut replica, "replica")?,
            "root" => fill(map, &mut root_name, "root")?,
            "path" => fill(map, &mut path.readable, "path")?,
            "path_b64" => fill(map, &mut path.exact, "path_b64")?,
            "why" => fill(map, &mut why, "why")?,
            _ => keep(map, extra, key)?,
        }
    }
    Ok(Failed {
        replica: ReplicaName::new(&*required(replica, "replica")?.0),
        root: root(&required(root_name, "root")?),
        path: path.into_path("path")?,
        why: required(why, "why")?,
    })
}

fn read_run<'de, M: MapAccess<'de>>(step: RunStep, map: &mut M, extra: &mut Extra) -> Result<Run, M::Error> {
    let (mut trigger, mut root_name, mut path) = (None::<Text<'de>>, None, Bytes::default());
    let (mut file, mut version, mut why) = (None, None, None);
    let (mut key, mut group, mut born, mut boot) = (None, None, None, None);
    let mut more = None::<Vec<i64>>;
    while let Some(name) = map.next_key::<Text<'de>>()? {
        match &*name.0 {
            "trigger" => fill(map, &mut trigger, "trigger")?,
            "root" => fill(map, &mut root_name, "root")?,
            "path" => fill(map, &mut path.readable, "path")?,
            "path_b64" => fill(map, &mut path.exact, "path_b64")?,
            "file" => fill(map, &mut file, "file")?,
            "version" => fill(map, &mut version, "version")?,
            "files" => fill(map, &mut more, "files")?,
            "key" => fill(map, &mut key, "key")?,
            "group" => fill(map, &mut group, "group")?,
            "born" => fill(map, &mut born, "born")?,
            "boot" => fill(map, &mut boot, "boot")?,
            "why" => fill(map, &mut why, "why")?,
            _ => keep(map, extra, name)?,
        }
    }
    let process = match key {
        Some(key) => Some(RunProcess {
            key,
            group: required(group, "group")?,
            born: required(born, "born")?,
            boot: required(boot, "boot")?,
        }),
        None => None,
    };
    Ok(Run {
        step,
        trigger: TriggerName::new(&*required(trigger, "trigger")?.0),
        root: root(&required(root_name, "root")?),
        path: path.into_path("path")?,
        file: required(file, "file")?,
        version: Seq(required(version, "version")?),
        more: versions(&more.unwrap_or_default())?,
        process,
        why,
    })
}

fn read_withdrawn<'de, M: MapAccess<'de>>(how: Withdrawal, map: &mut M, extra: &mut Extra) -> Result<Body, M::Error> {
    let (mut replica, mut root_name, mut path, mut kind) = (None::<Text<'de>>, None, Bytes::default(), None);
    while let Some(key) = map.next_key::<Text<'de>>()? {
        match &*key.0 {
            "replica" => fill(map, &mut replica, "replica")?,
            "root" => fill(map, &mut root_name, "root")?,
            "path" => fill(map, &mut path.readable, "path")?,
            "path_b64" => fill(map, &mut path.exact, "path_b64")?,
            "type" => fill(map, &mut kind, "type")?,
            _ => keep(map, extra, key)?,
        }
    }
    Ok(Body::Withdrawn(Box::new(Withdrawn {
        how,
        replica: ReplicaName::new(&*required(replica, "replica")?.0),
        root: root(&required(root_name, "root")?),
        path: path.into_path("path")?,
        kind: word(&required(kind, "type")?, FileType::from_word, "type")?,
    })))
}
