//! Paths as keys, and back. Pure.
//!
//! A key is UTF-8 without control characters. A name that is not stands as `!` and the name with what does not fit, and `%`,
//! as `%XX`: `a\n` is `!a%0A`. So do names that begin with `!` or a space, which makes it reversible; all other names stand
//! as they are. Because no plain name begins with a byte below `"`, encoded names come before all others of their directory:
//! a listing in the order of keys is brought into the order of paths by holding back only those (see the listing of `s3`).

use crate::model::RelPath;

/// The longest key that S3 takes, in bytes.
pub(super) const KEY_MAX: usize = 1024;
/// What an encoded name begins with.
const MARKER: u8 = b'!';

/// Whether a name has to be encoded.
fn is_odd(name: &[u8]) -> bool {
    matches!(name.first(), Some(b' ' | &MARKER))
        || name.iter().any(u8::is_ascii_control)
        || std::str::from_utf8(name).is_err()
}

/// The key of a path, without the target's prefix.
pub(super) fn encode(path: &RelPath) -> String {
    let mut key = String::with_capacity(path.as_bytes().len());
    for name in path.components() {
        if !key.is_empty() {
            key.push('/');
        }
        match std::str::from_utf8(name) {
            Ok(text) if !is_odd(name) => key.push_str(text),
            _ => encode_name(name, &mut key),
        }
    }
    key
}

fn encode_name(name: &[u8], key: &mut String) {
    key.push(char::from(MARKER));
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_ascii_control() || character == '%' {
                push_escaped(character as u8, key);
            } else {
                key.push(character);
            }
        }
        for byte in chunk.invalid() {
            push_escaped(*byte, key);
        }
    }
}

fn push_escaped(byte: u8, key: &mut String) {
    key.push('%');
    for digit in [byte >> 4, byte & 15] {
        key.push(char::from_digit(digit.into(), 16).unwrap_or('0').to_ascii_uppercase());
    }
}

/// The path of a key; `None`: no path has this key, somebody else put it there.
pub(super) fn decode(key: &str) -> Option<RelPath> {
    let mut bytes = Vec::with_capacity(key.len());
    for (index, part) in key.split('/').enumerate() {
        if index > 0 {
            bytes.push(b'/');
        }
        match part.as_bytes().split_first() {
            Some((&MARKER, rest)) => decode_name(rest, &mut bytes)?,
            _ => bytes.extend_from_slice(part.as_bytes()),
        }
    }
    // Only the one key that a path has is its key: else two objects would be one file.
    RelPath::new(bytes).ok().filter(|path| encode(path) == key)
}

fn decode_name(text: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let mut digit = || char::from(*rest.next()?).to_digit(16);
        bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(path: &[u8]) -> String {
        encode(&RelPath::new(path).unwrap())
    }

    #[test]
    fn plain_names_stand_as_they_are() {
        for name in ["a/b.c", "100%", "grüße/~x", "a!b", "-x", "a b", "%41", "name with spaces "] {
            assert_eq!(key(name.as_bytes()), name);
        }
    }

    #[test]
    fn what_a_key_cannot_hold_is_encoded() {
        assert_eq!(key(b"a\n/b"), "!a%0A/b");
        assert_eq!(key(b"d/\xff\xfe%"), "d/!%FF%FE%25");
        assert_eq!(key(b"!x"), "!!x");
        assert_eq!(key(b" x"), "! x");
        assert_eq!(key("é\x7f".as_bytes()), "!é%7F");
    }

    #[test]
    fn keys_of_others_are_no_paths() {
        for key in ["a//b", "/a", "a/", "", "../a", "!a", "!%41", "!a%0a", "!a%2", " a", "a\n"] {
            let is_ours = decode(key).is_some_and(|path| !path.is_root());
            assert!(!is_ours, "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn every_path_comes_back(names in proptest::collection::vec(proptest::collection::vec(1_u8.., 1..6), 1..4)) {
            let path = RelPath::new(names.join(&b'/')).ok();
            prop_assume!(path.is_some());
            let path = path.unwrap();
            let key = encode(&path);
            prop_assert!(!key.bytes().any(|byte| byte.is_ascii_control()));
            prop_assert_eq!(decode(&key), Some(path));
        }

        #[test]
        fn encoded_names_come_first_in_their_directory(
            odd in proptest::collection::vec(proptest::sample::select(&b"\x01\n !\x7f\xff\xc3"[..]), 1..4),
            plain in "[#-.0-~]{1,4}",
        ) {
            let (odd, plain) = (RelPath::new(odd).unwrap(), RelPath::new(plain));
            prop_assume!(plain.is_ok());
            prop_assert!(encode(&odd) < encode(&plain.unwrap()));
        }
    }
}
