//! The JSON of `enrolled`, both ways.

use serde::de::MapAccess;

use super::parse::{Bytes, Text, fill, keep, required, root, word};
use super::render::{push_i64_field, push_string_field, push_u64_field, push_word, push_word_field};
use crate::fixity::Enrolled;
use crate::json::text::push_bytes_field;
use crate::record::{Extra, FileType};
use crate::value::Timestamp;

pub(super) fn push_enrolled(out: &mut Vec<u8>, enrolled: &Enrolled) {
    push_word(out, "enrolled");
    push_string_field(out, "root", enrolled.root.as_str());
    push_bytes_field(out, "path", enrolled.path.as_bytes());
    if let Some((host, dir)) = &enrolled.place {
        push_string_field(out, "host", host);
        push_bytes_field(out, "dir", dir);
    }
    push_word_field(out, "type", enrolled.kind.as_str());
    push_u64_field(out, "size", enrolled.size);
    push_i64_field(out, "mtime_ns", enrolled.mtime_ns);
    push_u64_field(out, "mode", enrolled.mode.into());
    push_u64_field(out, "uid", enrolled.uid.into());
    push_u64_field(out, "gid", enrolled.gid.into());
    if let Some(target) = &enrolled.target {
        push_bytes_field(out, "target", target);
    }
    if let Some(created) = enrolled.created {
        push_i64_field(out, "created_ns", created.0);
    }
}

pub(super) fn read_enrolled<'de, M: MapAccess<'de>>(map: &mut M, extra: &mut Extra) -> Result<Enrolled, M::Error> {
    let (mut root_name, mut host, mut kind) = (None, None::<String>, None);
    let (mut path, mut dir, mut target) = (Bytes::default(), Bytes::default(), Bytes::default());
    let (mut size, mut mtime_ns, mut mode, mut uid, mut gid, mut created) = (None, None, None, None, None, None);
    while let Some(key) = map.next_key::<Text<'de>>()? {
        match &*key.0 {
            "root" => fill(map, &mut root_name, "root")?,
            "path" => fill(map, &mut path.readable, "path")?,
            "path_b64" => fill(map, &mut path.exact, "path_b64")?,
            "host" => fill(map, &mut host, "host")?,
            "dir" => fill(map, &mut dir.readable, "dir")?,
            "dir_b64" => fill(map, &mut dir.exact, "dir_b64")?,
            "type" => fill(map, &mut kind, "type")?,
            "size" => fill(map, &mut size, "size")?,
            "mtime_ns" => fill(map, &mut mtime_ns, "mtime_ns")?,
            "mode" => fill(map, &mut mode, "mode")?,
            "uid" => fill(map, &mut uid, "uid")?,
            "gid" => fill(map, &mut gid, "gid")?,
            "target" => fill(map, &mut target.readable, "target")?,
            "target_b64" => fill(map, &mut target.exact, "target_b64")?,
            "created_ns" => fill(map, &mut created, "created_ns")?,
            _ => keep(map, extra, key)?,
        }
    }
    let boxed = |bytes: Vec<u8>| bytes.into_boxed_slice();
    Ok(Enrolled {
        root: root(&required(root_name, "root")?),
        path: path.into_path("path")?,
        place: host.zip(dir.into_bytes()?.map(boxed)),
        kind: word(&required(kind, "type")?, FileType::from_word, "type")?,
        size: required(size, "size")?,
        mtime_ns: required(mtime_ns, "mtime_ns")?,
        mode: required(mode, "mode")?,
        uid: required(uid, "uid")?,
        gid: required(gid, "gid")?,
        target: target.into_bytes()?.map(boxed),
        created: created.map(Timestamp),
    })
}
