//! The lines that go to a plug-in and come from it. Pure. Names are bytes: what is not UTF-8 is written twice, readable and, with
//! `_b64` behind the key, exactly.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::target::Meta;
use crate::target::store::item::{Listed, listed};

/// The version of the protocol.
pub(super) const VERSION: u64 = 1;
/// Requests that are sent at once, whatever a plug-in takes.
const AT_ONCE_MAX: u64 = 64;
/// The longest name, unless a plug-in says otherwise.
const NAME_MAX: u64 = 255;

/// A request, without its id.
#[derive(Clone, Debug)]
pub(super) struct Ask(Map<String, Value>);

impl Ask {
    pub(super) fn new(what: &str) -> Self {
        Ask(Map::new()).text("do", what)
    }

    pub(super) fn hello() -> Self {
        let ask = Ask::new("hello").number("version", Some(VERSION));
        ask.text("keepwatch", env!("CARGO_PKG_VERSION"))
    }

    pub(super) fn text(mut self, key: &str, text: &str) -> Self {
        self.0.insert(key.to_owned(), text.into());
        self
    }

    pub(super) fn number(mut self, key: &str, number: Option<u64>) -> Self {
        self.0.extend(number.map(|number| (key.to_owned(), number.into())));
        self
    }

    /// Bytes, as text and where that is not exact as base64 too.
    pub(super) fn bytes(self, key: &str, bytes: &[u8]) -> Self {
        let plain = self.text(key, &String::from_utf8_lossy(bytes));
        if std::str::from_utf8(bytes).is_ok() {
            plain
        } else {
            plain.text(&format!("{key}_b64"), &STANDARD.encode(bytes))
        }
    }

    pub(super) fn path(self, key: &str, path: &Path) -> Self {
        self.bytes(key, path.as_os_str().as_encoded_bytes())
    }

    pub(super) fn meta(mut self, meta: &Meta) -> Self {
        self.0.insert("mtime_ns".to_owned(), meta.mtime_ns.into());
        let numbers = [("mode", meta.mode), ("uid", meta.uid), ("gid", meta.gid)];
        self.0.extend(numbers.map(|(key, number)| (key.to_owned(), number.into())));
        self
    }

    /// The line.
    pub(super) fn line(&self, id: u64) -> Vec<u8> {
        let mut all = Map::from_iter([("id".to_owned(), id.into())]);
        all.extend(self.0.clone());
        let mut line = Value::Object(all).to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

/// The line that takes a request back.
pub(super) fn cancel(id: u64) -> Vec<u8> {
    format!("{{\"cancel\":{id}}}\n").into_bytes()
}

/// What a plug-in says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) reads: bool,
    pub(super) renames: bool,
    pub(super) takes_symlinks: bool,
    pub(super) is_sorted: bool,
    pub(super) checks_sha256: bool,
    /// `None`: times are not kept.
    pub(super) mtime_step_ns: Option<i64>,
    pub(super) name_max: usize,
    pub(super) at_once: usize,
}

impl Default for Hello {
    fn default() -> Self {
        Hello {
            reads: false,
            renames: false,
            takes_symlinks: false,
            is_sorted: false,
            checks_sha256: false,
            mtime_step_ns: None,
            name_max: 255,
            at_once: 1,
        }
    }
}

/// The end of a request that went well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) sha256: Option<String>,
    all: Map<String, Value>,
}

/// What a plug-in's error means for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// This object can never be there.
    Refused,
    /// There is no room.
    Full,
    /// What it stores in cannot be reached.
    Away,
    /// The object is not there.
    Missing,
    /// Anything else: it is tried again.
    Other,
}

/// What a line says of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Done(Done),
    Item(Box<Listed>),
    Failed {
        kind: Kind,
        message: String,
    },
    /// It is still at it.
    Alive,
}

/// Reads a line: whose answer it is, and what it says. `Err`: what is wrong with it.
pub(super) fn read(line: &[u8]) -> Result<(u64, Said), String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("it is no JSON: {error}"))?;
    let Value::Object(mut all) = value else { return Err("it is no JSON object".to_owned()) };
    let id = all.get("id").and_then(Value::as_u64).ok_or("it has no `id`")?;
    if let Some(item) = all.get("item") {
        return Ok((id, Said::Item(Box::new(listed(item)?))));
    }
    if let Some(error) = all.get("error") {
        let kind = match error.as_str().ok_or("its `error` is no text")? {
            "refused" => Kind::Refused,
            "full" => Kind::Full,
            "away" => Kind::Away,
            "missing" => Kind::Missing,
            _ => Kind::Other,
        };
        let message = all.get("message").and_then(Value::as_str).or(error.as_str()).unwrap_or_default();
        let message = message.chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect();
        return Ok((id, Said::Failed { kind, message }));
    }
    match (all.get("ok"), all.get("alive")) {
        (Some(Value::Bool(true)), _) => {
            let sha256 = all.get("sha256").and_then(Value::as_str).map(str::to_owned);
            all.remove("id");
            Ok((id, Said::Done(Done { sha256, all })))
        }
        (_, Some(Value::Bool(true))) => Ok((id, Said::Alive)),
        _ => Err("it has none of `ok`, `item`, `error` and `alive`".to_owned()),
    }
}

/// Characters of a plug-in's message that are passed on.
const MESSAGE_MAX: usize = 400;

/// Reads the answer to `hello`. `Err`: why it cannot be worked with.
pub(super) fn hello(done: &Done) -> Result<Hello, String> {
    let version = done.all.get("version").and_then(Value::as_u64).unwrap_or(0);
    if version != VERSION {
        return Err(format!("it speaks version {version} of the protocol, and this Keepwatch version {VERSION}"));
    }
    let empty = Vec::new();
    let abilities = done.all.get("abilities").and_then(Value::as_array).unwrap_or(&empty);
    let can = |ability: &str| abilities.iter().any(|one| one.as_str() == Some(ability));
    for needed in ["list", "upload", "delete"] {
        if !can(needed) {
            return Err(format!("its `abilities` do not have `{needed}`, which every plug-in needs"));
        }
    }
    let number = |key: &str, or: u64| done.all.get(key).and_then(Value::as_u64).unwrap_or(or);
    let usize_of = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Hello {
        reads: can("read"),
        renames: can("rename"),
        takes_symlinks: can("symlinks"),
        is_sorted: done.all.get("sorted") == Some(&Value::Bool(true)),
        checks_sha256: done.all.get("checks").and_then(Value::as_str) == Some("sha256"),
        mtime_step_ns: done.all.get("mtime_step_ns").and_then(Value::as_i64).filter(|step| *step > 0),
        name_max: usize_of(number("name_max", NAME_MAX)),
        at_once: usize_of(number("at_once", 1).clamp(1, AT_ONCE_MAX)),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_text_are_exact() {
        let line = Ask::new("delete").bytes("path", b"a\xff\n").line(7);
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "one line");
        let value: Value = serde_json::from_slice(&line).unwrap();
        let expected = serde_json::json!({"do": "delete", "id": 7, "path": "a\u{fffd}\n", "path_b64": "Yf8K"});
        assert_eq!(value, expected);
        let item = br#"{"id":7,"item":{"path":"?","path_b64":"Yf8K","size":3,"mtime_ns":-5,"mode":420}}"#;
        let (id, Said::Item(item)) = read(item).unwrap() else { panic!() };
        assert_eq!((id, &item.name[..], item.entry.mode), (7, &b"a\xff\n"[..], Some(0o644)));
        assert_eq!((item.entry.found.size, item.entry.found.mtime_ns), (3, -5));
    }

    #[test]
    fn rubbish_is_named() {
        for (line, why) in [
            (&b"Traceback (most recent call last):"[..], "no JSON"),
            (b"[1]", "no JSON object"),
            (b"{\"ok\":true}", "no `id`"),
            (b"{\"id\":1}", "none of `ok`"),
            (b"{\"id\":1,\"ok\":false}", "none of `ok`"),
            (b"{\"id\":1,\"item\":{\"size\":1}}", "no `path`"),
            (b"{\"id\":1,\"item\":{\"path\":\"a\"}}", "no `size`"),
            (b"{\"id\":1,\"item\":{\"path\":\"a\",\"path_b64\":\"*\",\"size\":1}}", "no base64"),
            (b"{\"id\":1,\"item\":{\"path\":\"a\",\"kind\":\"socket\"}}", "`socket`"),
            (b"{\"id\":1,\"error\":5}", "no text"),
        ] {
            let said = read(line).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_plug_in_needs_three_abilities_and_the_version() {
        let of = |text: &str| {
            let (_, Said::Done(done)) = read(text.as_bytes()).unwrap() else { panic!() };
            hello(&done)
        };
        assert!(of(r#"{"id":0,"ok":true,"version":2}"#).unwrap_err().contains("version 2"));
        let few = of(r#"{"id":0,"ok":true,"version":1,"abilities":["list","upload"]}"#);
        assert!(few.unwrap_err().contains("`delete`"));
        let least = of(r#"{"id":0,"ok":true,"version":1,"abilities":["list","upload","delete"]}"#).unwrap();
        assert_eq!(least, Hello::default());
    }
}
