//! The JSON of the acts of fixity, both ways.

use serde::de::{self, MapAccess};

use super::parse::{Bytes, Text, fill, keep, required, root, word};
use super::render::{push_i64_field, push_string_field, push_u64_field, push_versions, push_word, push_word_field};
use crate::fixity::{Algorithm, Drift, Hashed, Released, Repaired, Restored, Unsound, Unsoundness, Verified};
use crate::json::text::{push_bytes_field, push_name, push_string};
use crate::record::Extra;
use crate::value::{Digest, RelPath, ReplicaName, RootName, Seq};

fn push_head(out: &mut Vec<u8>, act: &str, replica: Option<&ReplicaName>, root: &RootName) {
    push_word(out, act);
    if let Some(replica) = replica {
        push_string_field(out, "replica", replica.as_str());
    }
    push_string_field(out, "root", root.as_str());
}

fn push_version(out: &mut Vec<u8>, file: i64, of: Seq) {
    push_i64_field(out, "file", file);
    push_u64_field(out, "of", of.0);
}

fn push_seen(out: &mut Vec<u8>, size: u64, mtime_ns: i64) {
    push_u64_field(out, "size", size);
    push_i64_field(out, "mtime_ns", mtime_ns);
}

fn push_digest(out: &mut Vec<u8>, name: &str, digest: Option<&Digest>) {
    if let Some(digest) = digest {
        push_word_field(out, name, &digest.to_string());
    }
}

pub(super) fn push_hashed(out: &mut Vec<u8>, hashed: &Hashed) {
    push_head(out, "hashed", hashed.replica.as_ref(), &hashed.root);
    push_bytes_field(out, "path", hashed.path.as_bytes());
    push_version(out, hashed.file, hashed.of);
    push_seen(out, hashed.size, hashed.mtime_ns);
    push_digest(out, "sha256", hashed.sha256.as_ref());
    push_digest(out, "blake3", hashed.blake3.as_ref());
}

pub(super) fn push_verified(out: &mut Vec<u8>, verified: &Verified) {
    push_head(out, "verified", verified.replica.as_ref(), &verified.root);
    push_versions(out, &verified.files);
}

pub(super) fn push_unsound(out: &mut Vec<u8>, unsound: &Unsound) {
    push_head(out, unsound.what.as_str(), unsound.replica.as_ref(), &unsound.root);
    push_bytes_field(out, "path", unsound.path.as_bytes());
    if let Some((file, of)) = unsound.version {
        push_version(out, file, of);
    }
    if let Unsoundness::Missed(drift) = &unsound.what {
        push_word_field(out, "what", drift.as_str());
    }
    if let Some((size, mtime_ns)) = unsound.seen {
        push_seen(out, size, mtime_ns);
    }
    match &unsound.what {
        Unsoundness::Rot { digest, expected, found, touched } => {
            push_word_field(out, "digest", digest.as_str());
            push_digest(out, "expected", Some(expected));
            push_digest(out, "found", Some(found));
            if *touched {
                out.extend_from_slice(b",\"touched\":true");
            }
        }
        Unsoundness::Missed(_) => {}
        Unsoundness::Unreadable { why } => push_string_field(out, "why", why),
    }
}

pub(super) fn push_repaired(out: &mut Vec<u8>, repaired: &Repaired) {
    push_head(out, "repaired", repaired.replica.as_ref(), &repaired.root);
    push_bytes_field(out, "path", repaired.path.as_bytes());
    push_version(out, repaired.file, repaired.of);
    if let Some(from) = &repaired.from {
        push_string_field(out, "from", from.as_str());
    }
    if let Some(kept) = &repaired.kept {
        push_bytes_field(out, "kept", kept);
    }
    push_seen(out, repaired.size, repaired.mtime_ns);
    push_digest(out, "sha256", Some(&repaired.sha256));
}

pub(super) fn push_restored(out: &mut Vec<u8>, restored: &Restored) {
    push_head(out, "restored", Some(&restored.replica), &restored.root);
    push_bytes_field(out, "path", restored.path.as_bytes());
    if let Some(to) = &restored.to {
        push_bytes_field(out, "to", to);
    }
    push_u64_field(out, "files", restored.files);
    push_u64_field(out, "bytes", restored.bytes);
    push_u64_field(out, "failed", restored.failed);
}

pub(super) fn push_released(out: &mut Vec<u8>, released: &Released) {
    push_head(out, "released", None, &released.root);
    push_bytes_field(out, "path", released.path.as_bytes());
    push_version(out, released.file, released.of);
    push_seen(out, released.size, released.mtime_ns);
    push_digest(out, "sha256", Some(&released.sha256));
    push_name(out, "copies");
    for (index, copy) in released.copies.iter().enumerate() {
        out.push(if index == 0 { b'[' } else { b',' });
        push_string(out, copy.as_str());
    }
    out.extend_from_slice(if released.copies.is_empty() { b"[]" } else { b"]" });
}

/// The fields of all these acts, as they come in. Which of them are there depends on the act.
#[derive(Default)]
struct Slots<'de> {
    replica: Option<Text<'de>>,
    root: Option<Text<'de>>,
    path: Bytes<'de>,
    file: Option<i64>,
    of: Option<u64>,
    size: Option<u64>,
    mtime_ns: Option<i64>,
    sha256: Option<Text<'de>>,
    blake3: Option<Text<'de>>,
    what: Option<Text<'de>>,
    digest: Option<Text<'de>>,
    expected: Option<Text<'de>>,
    found: Option<Text<'de>>,
    touched: Option<bool>,
    why: Option<String>,
    from: Option<Text<'de>>,
    kept: Bytes<'de>,
    to: Bytes<'de>,
    bytes: Option<u64>,
    failed: Option<u64>,
    copies: Option<Vec<String>>,
    numbers: Option<Vec<i64>>,
    count: Option<u64>,
}

impl<'de> Slots<'de> {
    /// Reads the fields that an act has, by their names; keeps the others.
    fn read<M: MapAccess<'de>>(known: &[&str], map: &mut M, extra: &mut Extra) -> Result<Self, M::Error> {
        let mut slots = Slots::default();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            let name = key.0.strip_suffix("_b64").unwrap_or(&key.0);
            if !known.contains(&name) {
                keep(map, extra, key)?;
                continue;
            }
            match &*key.0 {
                "replica" => fill(map, &mut slots.replica, "replica")?,
                "root" => fill(map, &mut slots.root, "root")?,
                "path" => fill(map, &mut slots.path.readable, "path")?,
                "path_b64" => fill(map, &mut slots.path.exact, "path_b64")?,
                "file" => fill(map, &mut slots.file, "file")?,
                "of" => fill(map, &mut slots.of, "of")?,
                "size" => fill(map, &mut slots.size, "size")?,
                "mtime_ns" => fill(map, &mut slots.mtime_ns, "mtime_ns")?,
                "sha256" => fill(map, &mut slots.sha256, "sha256")?,
                "blake3" => fill(map, &mut slots.blake3, "blake3")?,
                "what" => fill(map, &mut slots.what, "what")?,
                "digest" => fill(map, &mut slots.digest, "digest")?,
                "expected" => fill(map, &mut slots.expected, "expected")?,
                "found" => fill(map, &mut slots.found, "found")?,
                "touched" => fill(map, &mut slots.touched, "touched")?,
                "why" => fill(map, &mut slots.why, "why")?,
                "from" => fill(map, &mut slots.from, "from")?,
                "kept" => fill(map, &mut slots.kept.readable, "kept")?,
                "kept_b64" => fill(map, &mut slots.kept.exact, "kept_b64")?,
                "to" => fill(map, &mut slots.to.readable, "to")?,
                "to_b64" => fill(map, &mut slots.to.exact, "to_b64")?,
                "bytes" => fill(map, &mut slots.bytes, "bytes")?,
                "failed" => fill(map, &mut slots.failed, "failed")?,
                "copies" => fill(map, &mut slots.copies, "copies")?,
                "files" if known.contains(&"bytes") => fill(map, &mut slots.count, "files")?,
                "files" => fill(map, &mut slots.numbers, "files")?,
                _ => keep(map, extra, key)?,
            }
        }
        Ok(slots)
    }

    fn replica(&self) -> Option<ReplicaName> {
        self.replica.as_ref().map(|name| ReplicaName::new(&*name.0))
    }

    fn root<E: de::Error>(&mut self) -> Result<RootName, E> {
        Ok(root(&required(self.root.take(), "root")?))
    }

    fn path<E: de::Error>(&mut self) -> Result<RelPath, E> {
        std::mem::take(&mut self.path).into_path("path")
    }

    fn version<E: de::Error>(&self) -> Result<(i64, Seq), E> {
        Ok((required(self.file, "file")?, Seq(required(self.of, "of")?)))
    }

    fn seen<E: de::Error>(&self) -> Result<(u64, i64), E> {
        Ok((required(self.size, "size")?, required(self.mtime_ns, "mtime_ns")?))
    }
}

fn digest<E: de::Error>(text: Option<&Text<'_>>, name: &'static str) -> Result<Option<Digest>, E> {
    let read = |text: &Text<'_>| {
        Digest::from_hex(text.0.as_bytes()).ok_or_else(|| E::custom(format_args!("{name}: not 64 hexadecimal digits")))
    };
    text.map(read).transpose()
}

pub(super) fn read_hashed<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Hashed, M::Error> {
    let known = ["replica", "root", "path", "file", "of", "size", "mtime_ns", "sha256", "blake3"];
    let mut slots = Slots::read(&known, map, extra)?;
    let ((file, of), (size, mtime_ns)) = (slots.version()?, slots.seen()?);
    Ok(Hashed {
        replica: slots.replica(),
        root: slots.root()?,
        path: slots.path()?,
        file,
        of,
        size,
        mtime_ns,
        sha256: digest(slots.sha256.as_ref(), "sha256")?,
        blake3: digest(slots.blake3.as_ref(), "blake3")?,
    })
}

pub(super) fn read_verified<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Verified, M::Error> {
    let mut slots = Slots::read(&["replica", "root", "files"], map, extra)?;
    let numbers = required(slots.numbers.take(), "files")?;
    Ok(Verified { replica: slots.replica(), root: slots.root()?, files: versions(&numbers)? })
}

/// What the field `files` holds.
pub(super) fn versions<E: de::Error>(numbers: &[i64]) -> Result<Vec<(i64, Seq)>, E> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    let pair = |[file, of]: &[i64; 2]| u64::try_from(*of).ok().map(|of| (*file, Seq(of)));
    match pairs.iter().map(pair).collect::<Option<Vec<_>>>() {
        Some(files) if rest.is_empty() => Ok(files),
        _ => Err(de::Error::custom("files: not pairs of a file id and a seq")),
    }
}

pub(super) fn read_unsound<'de, M: MapAccess<'de>>(
    act: &str,
    map: &mut M,
    extra: &mut Extra,
) -> Result<Unsound, M::Error> {
    let mut known = vec!["replica", "root", "path", "file", "of", "size", "mtime_ns"];
    known.extend_from_slice(match act {
        "rot" => &["digest", "expected", "found", "touched"],
        "missed" => &["what"],
        _ => &["why"],
    });
    let mut slots = Slots::read(&known, map, extra)?;
    let what = match act {
        "rot" => Unsoundness::Rot {
            digest: word(&required(slots.digest.take(), "digest")?, Algorithm::from_word, "digest")?,
            expected: required(digest(slots.expected.as_ref(), "expected")?, "expected")?,
            found: required(digest(slots.found.as_ref(), "found")?, "found")?,
            touched: slots.touched.unwrap_or(false),
        },
        "missed" => Unsoundness::Missed(word(&required(slots.what.take(), "what")?, Drift::from_word, "what")?),
        _ => Unsoundness::Unreadable { why: required(slots.why.take(), "why")? },
    };
    Ok(Unsound {
        replica: slots.replica(),
        root: slots.root()?,
        path: slots.path()?,
        version: slots.file.is_some().then(|| slots.version()).transpose()?,
        seen: slots.size.is_some().then(|| slots.seen()).transpose()?,
        what,
    })
}

pub(super) fn read_repaired<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Repaired, M::Error> {
    let known = ["replica", "root", "path", "file", "of", "from", "kept", "size", "mtime_ns", "sha256"];
    let mut slots = Slots::read(&known, map, extra)?;
    let ((file, of), (size, mtime_ns)) = (slots.version()?, slots.seen()?);
    Ok(Repaired {
        replica: slots.replica(),
        root: slots.root()?,
        path: slots.path()?,
        file,
        of,
        from: slots.from.as_ref().map(|name| ReplicaName::new(&*name.0)),
        kept: std::mem::take(&mut slots.kept).into_bytes()?.map(Vec::into_boxed_slice),
        size,
        mtime_ns,
        sha256: required(digest(slots.sha256.as_ref(), "sha256")?, "sha256")?,
    })
}

pub(super) fn read_restored<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Restored, M::Error> {
    let known = ["replica", "root", "path", "to", "files", "bytes", "failed"];
    let mut slots = Slots::read(&known, map, extra)?;
    Ok(Restored {
        replica: required(slots.replica(), "replica")?,
        root: slots.root()?,
        path: slots.path()?,
        to: std::mem::take(&mut slots.to).into_bytes()?.map(Vec::into_boxed_slice),
        files: required(slots.count, "files")?,
        bytes: required(slots.bytes, "bytes")?,
        failed: required(slots.failed, "failed")?,
    })
}

pub(super) fn read_released<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Released, M::Error> {
    let known = ["root", "path", "file", "of", "size", "mtime_ns", "sha256", "copies"];
    let mut slots = Slots::read(&known, map, extra)?;
    let ((file, of), (size, mtime_ns)) = (slots.version()?, slots.seen()?);
    Ok(Released {
        root: slots.root()?,
        path: slots.path()?,
        file,
        of,
        size,
        mtime_ns,
        sha256: required(digest(slots.sha256.as_ref(), "sha256")?, "sha256")?,
        copies: required(slots.copies.take(), "copies")?.into_iter().map(ReplicaName::new).collect(),
    })
}
