//! An object as a store lists it in JSON. Pure. Names are bytes: what is not UTF-8 is written with `_b64` behind the key, exactly.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Entry;
use crate::model::FileType;
use crate::target::Found;

/// An object as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::target) struct Listed {
    pub(in crate::target) name: Vec<u8>,
    pub(in crate::target) entry: Entry,
}

/// Reads an object of a list. `Err`: what is wrong with it.
pub(in crate::target) fn listed(item: &Value) -> Result<Listed, String> {
    let name = bytes(item, "path")?.ok_or("an item has no `path`")?;
    let number = |key: &str| item.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    let is_link = match item.get("kind").map(|kind| kind.as_str().unwrap_or_default()) {
        None | Some("file") => false,
        Some("symlink") => true,
        Some(kind) => return Err(format!("an item is of the kind `{kind}`, which is neither `file` nor `symlink`")),
    };
    let target = if is_link { Some(bytes(item, "target")?.ok_or("a symbolic link has no `target`")?) } else { None };
    let size = item.get("size").and_then(Value::as_u64);
    let found = Found {
        kind: if is_link { FileType::Symlink } else { FileType::File },
        size: match &target {
            Some(target) => target.len() as u64,
            None => size.ok_or_else(|| format!("the item `{}` has no `size`", String::from_utf8_lossy(&name)))?,
        },
        mtime_ns: item.get("mtime_ns").and_then(Value::as_i64).unwrap_or(0),
        target,
    };
    Ok(Listed { name, entry: Entry { found, mode: number("mode"), uid: number("uid"), gid: number("gid") } })
}

/// The exact bytes of a key.
fn bytes(value: &Value, key: &str) -> Result<Option<Vec<u8>>, String> {
    let exact = value.get(format!("{key}_b64")).and_then(Value::as_str);
    match exact {
        Some(exact) => {
            STANDARD.decode(exact).map(Some).map_err(|error| format!("its `{key}_b64` is no base64: {error}"))
        }
        None => Ok(value.get(key).and_then(Value::as_str).map(|text| text.as_bytes().to_vec())),
    }
}
