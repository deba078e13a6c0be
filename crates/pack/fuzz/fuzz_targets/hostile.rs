//! Any bytes as a staging file or as an archive do no harm: the check that the tests make of zips they damage, for what
//! libFuzzer comes up with. The first byte says where the others are found.
//!
//! `cargo +nightly fuzz run hostile -- -max_total_time=3600 -detect_leaks=0`, in `crates/pack`: each packer has a thread that
//! rotates, and one that is just ending looks like a leak.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use libfuzzer_sys::fuzz_target;
use support::hostile::{Place, survives};

fuzz_target!(|input: &[u8]| {
    if let Some((place, bytes)) = input.split_first() {
        let place = if place % 2 == 0 { Place::Staging } else { Place::Archive };
        survives(bytes, place, "fuzzed");
    }
});
