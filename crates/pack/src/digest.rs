//! The 64-bit digest of names and tails in the packer's own formats: FNV-1a, with the finaliser of MurmurHash3 so that
//! all bits depend on all bytes. It guards against mistakes, not against an enemy: what is found by it is compared.

/// A digest that is being made.
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Digest(0xCBF2_9CE4_8422_2325)
    }
}

impl Digest {
    /// Takes more bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3));
    }

    /// The digest of all that was taken.
    pub(crate) fn finish(self) -> u64 {
        let hash = (self.0 ^ self.0 >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        let hash = (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        hash ^ hash >> 33
    }
}

/// The digest of some bytes.
#[must_use]
pub(crate) fn digest64(bytes: &[u8]) -> u64 {
    let mut digest = Digest::default();
    digest.update(bytes);
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::digest64;

    /// These stand in files: they must never change.
    #[test]
    fn the_digest_is_the_one_of_the_format() {
        let known = [
            (&b""[..], 0xEFD0_1F60_BA99_2926_u64),
            (b"a", 0x82A2_A958_A9BE_CE5B),
            (b"run1/out.txt", 0x154C_3CB9_33C7_1F7F),
        ];
        for (bytes, digest) in known {
            assert_eq!(format!("{:016x}", digest64(bytes)), format!("{digest:016x}"));
        }
    }
}
