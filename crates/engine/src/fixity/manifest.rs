//! Lines of manifests as `sha256sum`, `b3sum`, `md5sum` and their relatives write them: pure.
//!
//! A line is `HASH  NAME`, or `HASH *NAME`, or `ALGORITHM (NAME) = HASH`. Where it begins with a backslash, `\\`, `\n` and `\r` in the
//! name stand for a backslash, a line feed and a carriage return (coreutils manual, "cksum output modes").

/// Which algorithms a hash may be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MD5, 16 bytes.
    Md5,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
    /// BLAKE3, 32 bytes.
    Blake3,
    /// 32 bytes of which nothing says whether they are SHA-256 or BLAKE3.
    Either,
}

/// A line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Of which algorithm.
    pub kind: Kind,
    /// The hash.
    pub hash: Vec<u8>,
    /// The name, any bytes.
    pub name: Vec<u8>,
}

/// A line that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no line as sha256sum, b3sum, md5sum, sha1sum or sha512sum write it")]
pub struct BadLine;

const TAGS: [(&[u8], Kind); 5] = [
    (b"MD5", Kind::Md5),
    (b"SHA1", Kind::Sha1),
    (b"SHA256", Kind::Sha256),
    (b"SHA512", Kind::Sha512),
    (b"BLAKE3", Kind::Blake3),
];

/// Reads a line without its line feed; `None` for one that says nothing: empty, or a comment.
///
/// # Errors
/// [`BadLine`].
pub fn parse(line: &[u8]) -> Result<Option<Line>, BadLine> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let (is_escaped, rest) = match line.strip_prefix(b"\\") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let name = |name: &[u8]| if is_escaped { unescaped(name) } else { Some(name.to_vec()) };
    for (tag, kind) in TAGS {
        let Some(rest) = rest.strip_prefix(tag).and_then(|rest| rest.strip_prefix(b" (")) else { continue };
        let at = rest.windows(4).rposition(|part| part == b") = ").ok_or(BadLine)?;
        let hash = from_hex(&rest[at + 4..]).ok_or(BadLine)?;
        let is_sound = length_of(kind) == hash.len();
        return match name(&rest[..at]).filter(|name| is_sound && !name.is_empty()) {
            Some(name) => Ok(Some(Line { kind, hash, name })),
            None => Err(BadLine),
        };
    }
    let space = rest.iter().position(|byte| *byte == b' ').ok_or(BadLine)?;
    let hash = from_hex(&rest[..space]).ok_or(BadLine)?;
    let kind = match hash.len() {
        16 => Kind::Md5,
        20 => Kind::Sha1,
        32 => Kind::Either,
        64 => Kind::Sha512,
        _ => return Err(BadLine),
    };
    let rest = &rest[space + 1..];
    let rest = rest.strip_prefix(b" ").or_else(|| rest.strip_prefix(b"*")).ok_or(BadLine)?;
    match name(rest).filter(|name| !name.is_empty()) {
        Some(name) => Ok(Some(Line { kind, hash, name })),
        None => Err(BadLine),
    }
}

fn length_of(kind: Kind) -> usize {
    match kind {
        Kind::Md5 => 16,
        Kind::Sha1 => 20,
        Kind::Sha256 | Kind::Blake3 | Kind::Either => 32,
        Kind::Sha512 => 64,
    }
}

fn from_hex(hex: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = hex.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn unescaped(name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
            byte => *byte,
        });
    }
    Some(bytes)
}

/// Appends a line as `sha256sum` writes it, with its line feed.
pub fn push_line(out: &mut Vec<u8>, hash: &[u8], name: &[u8]) {
    let is_escaped = name.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r'));
    if is_escaped {
        out.push(b'\\');
    }
    for byte in hash {
        out.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    out.extend_from_slice(b"  ");
    for byte in name {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_whatever_the_name() {
        for name in [&b"a"[..], b"a b", b" lead", b"*star", b"line\nfeed", b"back\\slash\r", b"\xff\xfe", b"a  b) = c"]
        {
            let mut out = Vec::new();
            push_line(&mut out, &[7; 32], name);
            let line = parse(out.strip_suffix(b"\n").unwrap()).unwrap().unwrap();
            assert_eq!((line.kind, line.hash, line.name), (Kind::Either, vec![7; 32], name.to_vec()));
        }
    }

    #[test]
    fn all_that_people_have_is_understood() {
        let kind = |line: String| parse(line.as_bytes()).unwrap().unwrap().kind;
        assert_eq!(kind(format!("{} *a", "0f".repeat(16))), Kind::Md5);
        assert_eq!(kind(format!("{}  a", "0F".repeat(20))), Kind::Sha1);
        assert_eq!(kind(format!("{}  a", "0f".repeat(64))), Kind::Sha512);
        assert_eq!(kind(format!("SHA256 (a (b)) = {}", "0f".repeat(32))), Kind::Sha256);
        assert_eq!(kind(format!("BLAKE3 (a) = {}", "0f".repeat(32))), Kind::Blake3);
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"# made by hand"), Ok(None));
        for wrong in ["hello", "0f  a", "SHA256 (a) = 0f", "\\0f", &format!("{} a", "0f".repeat(32)), &"0f".repeat(32)]
        {
            assert_eq!(parse(wrong.as_bytes()), Err(BadLine), "{wrong}");
        }
        assert_eq!(parse(format!("\\{}  a\\q", "0f".repeat(32)).as_bytes()), Err(BadLine));
    }
}
