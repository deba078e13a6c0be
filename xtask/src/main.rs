//! What developers of Keepwatch repeat: `cargo xtask test`, `prove`, `bench`.

fn main() {}
