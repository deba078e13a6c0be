#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::local::{self, Attributes, Content, Staged};
use super::{STORED, central, time};

fn content(packed: u64, size: u64) -> Content {
    Content { method: STORED, crc: 0x1234_5678, packed, size }
}

#[test]
fn dos_time_is_exact_to_two_seconds_and_ends_where_dos_does() {
    for (secs, date, dos_time) in [
        (0, 0x0021, 0),
        (315_532_800, 0x0021, 0),
        (1_700_000_000, 22382, 45_482),
        (4_354_819_199, 0xFF9F, 0xBF7D),
        (i64::MAX, 0xFF9F, 0xBF7D),
    ] {
        assert_eq!(time::to_dos(secs), (date, dos_time), "{secs}");
    }
    for secs in [315_532_800_i64, 951_782_400, 1_709_164_800, 1_700_000_000, 4_354_819_198] {
        let (date, dos_time) = time::to_dos(secs);
        assert_eq!(time::of_dos(date, dos_time), secs);
    }
}

#[test]
fn any_time_since_1601_survives_in_an_extra_field() {
    for secs in [0, -1, 1_700_000_001, -11_000_000_000, i64::from(i32::MIN), 5_000_000_000, 253_402_300_799] {
        let mut extra = Vec::new();
        time::extra(secs, &mut extra);
        assert_eq!(time::of_extra(&extra), Some(secs));
        assert!(extra.len() <= time::EXTRA_LEN_MAX);
    }
}

#[test]
fn sizes_of_four_gigabytes_and_more_survive() {
    for size in [0, 1, super::ZIP64_FROM - 1, super::ZIP64_FROM, 1 << 40] {
        let mut bytes = Vec::new();
        local::encode(b"n", &content(size, size), 7, &mut bytes);
        let header = local::parse(&bytes).unwrap();
        assert_eq!((header.content, header.len), (content(size, size), bytes.len()));
        assert_eq!(bytes.len(), local::encoded_len(b"n", &content(size, size), 7));
    }
}

#[test]
fn any_flipped_bit_of_a_staged_header_is_noticed() {
    let attributes = Attributes { mode: 0o755, mtime_secs: -5, mtime_nanos: 9 };
    let mut bytes = Vec::new();
    local::encode_staged(b"ar.zip/x", &content(3, 3), &attributes, 77, Some(120), &mut bytes);
    let header = local::parse(&bytes).unwrap();
    assert_eq!((header.attributes, header.staged, header.len), (attributes, Staged::Sound(77), bytes.len()));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let sound = local::parse(&flipped).is_ok_and(|header| header.staged == Staged::Sound(77));
        assert!(!sound, "bit {bit}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut header = local::SIGNATURE.to_le_bytes().to_vec();
        header.extend_from_slice(&bytes);
        let _ = local::parse(&header);
        let _ = time::of_extra(&bytes);
    }

    #[test]
    fn an_entry_survives(name in proptest::collection::vec(1_u8.., 1..300), size: u64, offset: u64, secs in -100_000_000_000_i64..900_000_000_000) {
        let size = size / 2;
        let mut bytes = Vec::new();
        central::encode(&name, &content(size, size), 0o640, secs, offset, &mut bytes);
        let end = central::End {
            directory_at: 0, directory_len: bytes.len() as u64, members: 1, comment: b"c".to_vec(),
        };
        central::encode_end(&end, &mut bytes);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("z"), &bytes).unwrap();
        let files = crate::files::RealFiles::open(dir.path()).unwrap();
        let file = crate::files::Files::open(&files, std::path::Path::new("z")).unwrap();
        let found = central::find_end(&*file, bytes.len() as u64).unwrap();
        prop_assert_eq!(&found, &end);
        let mut seen = 0;
        central::each(&*file, &found, &mut |entry| {
            assert_eq!((entry.name, entry.content, entry.offset), (&name[..], content(size, size), offset));
            assert_eq!((entry.mode(), entry.mtime_secs()), (Some(0o640), secs.max(-11_644_473_600)));
            seen += 1;
            Ok(())
        }).unwrap();
        prop_assert_eq!(seen, 1);
    }
}
