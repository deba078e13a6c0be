//! The configuration that `keepwatch init` writes: every key, commented, with its default.

/// The commented example.
pub const EXAMPLE: &str = include_str!("example.toml");
