//! Strings, bytes and numbers as JSON text.
//!
//! A line never holds a raw control character, so that it can be shown on a terminal: besides what JSON asks for,
//! DEL, the C1 controls (U+0080 to U+009F) and the line separators U+2028 and U+2029 are escaped. Written by hand, because
//! these are on the path of every change and of every line of a listing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Bytes at which [`push_escaped`] must look twice.
const SUSPECT: [bool; 256] = {
    let mut suspect = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        suspect[byte] = byte < 0x20 || matches!(byte as u8, b'"' | b'\\' | 0x7f | 0xc2 | 0xe2);
        byte += 1;
    }
    suspect
};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes a number.
pub fn push_u64(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Writes a number with its sign.
pub fn push_i64(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    push_u64(out, number.unsigned_abs());
}

/// Writes a string with its quotes.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// Writes `,"name":"readable"`, and `,"name_b64":"exact"` after it where the bytes are not UTF-8.
pub fn push_bytes_field(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    push_name(out, name);
    out.push(b'"');
    if let Ok(text) = std::str::from_utf8(bytes) {
        push_escaped(out, text);
        out.push(b'"');
        return;
    }
    for chunk in bytes.utf8_chunks() {
        push_escaped(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.extend_from_slice(b"\",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"_b64\":\"");
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Reads what [`push_bytes_field`] wrote as the exact bytes.
pub(crate) fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    STANDARD.decode(text)
}

/// Writes `,"name":`, for a name that needs no escape.
pub fn push_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes bytes as lower-case hexadecimal digits, without quotes.
pub fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
    }
}

/// Writes any JSON value under the same rules.
pub(crate) fn push_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => push_string(out, text),
        Value::Array(values) => {
            out.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                push_value(out, value);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (index, (name, value)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                push_string(out, name);
                out.push(b':');
                push_value(out, value);
            }
            out.push(b'}');
        }
    }
}

fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        if !SUSPECT[bytes[at] as usize] {
            at += 1;
            continue;
        }
        let (code, len) = match &bytes[at..] {
            [0xc2, second @ 0x80..=0x9f, ..] => (u16::from(*second), 2),
            [0xe2, 0x80, third @ 0xa8..=0xa9, ..] => (0x2000 | u16::from(third & 0x3f), 3),
            [0xc2 | 0xe2, ..] => {
                at += 1;
                continue;
            }
            [byte, ..] => (u16::from(*byte), 1),
            [] => break,
        };
        out.extend_from_slice(&bytes[plain..at]);
        push_escape(out, code);
        at += len;
        plain = at;
    }
    out.extend_from_slice(&bytes[plain..]);
}

fn push_escape(out: &mut Vec<u8>, code: u16) {
    let short = match code {
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        0x22 => b'"',
        0x5c => b'\\',
        _ => {
            out.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                out.push(DIGITS[usize::from(code >> shift & 0xf)]);
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_stands_raw() {
        for code in (0..0x20).chain([0x22, 0x5c]).chain(0x7f..0xa0).chain([0x2028, 0x2029]) {
            let text = format!("é{}—", char::from_u32(code).expect("a character"));
            let mut out = Vec::new();
            push_string(&mut out, &text);
            let line = String::from_utf8(out).expect("text stays UTF-8");
            assert!(!line.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')), "{code:x}: {line}");
            assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), text);
        }
    }
}
