//! What all targets that are reached by HTTP share: one kind of client, patience, and how text is written in a URL.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// How long a store is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For a reply, besides the time that its bytes may take.
    pub reply: Duration,
    /// For a store that copies or joins large objects by itself.
    pub work: Duration,
    /// Bytes a second that a connection carries at the least.
    pub rate_min: u64,
    /// How often a request is sent in all.
    pub tries: u32,
    /// The pause before the second try, in the mean; doubled with each.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(5),
            reply: Duration::from_secs(30),
            work: Duration::from_secs(300),
            rate_min: 50_000,
            tries: 6,
            pause: Duration::from_millis(200),
        }
    }
}

/// Idle connections that are kept.
const IDLE_MAX: usize = 128;
/// How long an idle connection is kept: stores close theirs after some 20 s or more.
const IDLE_TIME_MAX: Duration = Duration::from_secs(15);
/// Sent bytes that nobody acknowledges for so long mean a dead connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Between a half and one and a half.
pub(super) fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish() % 1000;
    0.5 + f64::from(u16::try_from(random).unwrap_or(500)) / 1000.0
}

/// The last of an error's sources, which says the most.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Text with all but unreserved characters as `%XX` (RFC 3986), which is what a signature is made over.
pub(super) fn escape(text: impl AsRef<[u8]>, keep_slashes: bool, into: &mut String) {
    for byte in text.as_ref().iter().copied() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => into.push(char::from(byte)),
            b'/' if keep_slashes => into.push('/'),
            _ => {
                into.push('%');
                for digit in [byte >> 4, byte & 15] {
                    into.push(char::from_digit(digit.into(), 16).unwrap_or('0').to_ascii_uppercase());
                }
            }
        }
    }
}

/// A client that verifies by the system's roots, follows no redirection and uses no proxy.
pub(super) fn client(patience: &Patience) -> Result<reqwest::Client, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("keepwatch/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .connect_timeout(patience.connect)
        .pool_max_idle_per_host(IDLE_MAX)
        .pool_idle_timeout(IDLE_TIME_MAX)
        .tcp_nodelay(true)
        .tcp_user_timeout(UNACKNOWLEDGED_MAX)
        .build()
        .map_err(|error| innermost(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_as_signatures_want_it() {
        let mut text = String::new();
        escape("a b/ü+~*", true, &mut text);
        assert_eq!(text, "a%20b/%C3%BC%2B~%2A");
    }
}
