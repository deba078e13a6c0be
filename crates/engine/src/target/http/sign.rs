//! How a request is signed. Pure.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The name of the way: the first line of what is signed, and the scheme in the header.
pub(super) const SCHEME: &str = "Keepwatch-HMAC-SHA256";

/// What is signed: five lines with `\n` between, and none behind the last. `target` is the path and the query, as they stand in
/// the request line; `date` and `sha256`, the body's in hex, as in their headers.
fn string_to_sign(method: &str, target: &str, date: &str, sha256: &str) -> String {
    format!("{SCHEME}\n{method}\n{target}\n{date}\n{sha256}")
}

/// The signature of a request, in hex.
pub(super) fn signature(secret: &[u8], method: &str, target: &str, date: &str, sha256: &str) -> String {
    // A key of any length will do (RFC 2104).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(string_to_sign(method, target, date, sha256).as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `docs/http-target.md`, made with `openssl dgst -sha256 -hmac`.
    #[test]
    fn the_example_of_the_documentation_is_right() {
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let target = "/archive/a%20b?mtime_ns=1767225600000000000&mode=420&uid=1000&gid=1000&kind=file";
        let made = signature(b"correct horse", "PUT", target, "2026-01-02T03:04:05.000000000Z", sha256);
        let docs = include_str!("../../../../../docs/http-target.md");
        assert!(docs.contains(&format!("{SCHEME} {made}")), "{made}");
    }
}
