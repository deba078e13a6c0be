//! Which parts of an archive are written anew together with new members. Pure.
//!
//! An archive of which each small batch would make a new file would soon be many files; one that is written anew for each
//! batch would be written for ever. So parts are merged when they are not much larger than what is written anyway, as in a
//! log-structured merge tree: a part joins if it costs at most [`Limits::ratio`] times what is to be written so far, or
//! if it is small, whatever is to be written. What this bounds stands in docs/pack-format.md.

/// How large parts become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A part has at most so many members.
    pub members: u64,
    /// A part has at most so many bytes, unless a single member is larger.
    pub bytes: u64,
    /// A part that costs no more than this is always merged. In bytes.
    pub small_bytes: u64,
    /// Otherwise a part is merged if it costs at most so many times what is written besides it.
    pub ratio: u64,
}

impl Default for Limits {
    /// 1 000 000 members, 50 GiB; 64 MiB; 4.
    fn default() -> Self {
        Limits { members: 1_000_000, bytes: 50 << 30, small_bytes: 64 << 20, ratio: 4 }
    }
}

/// Writing a member costs as much as writing so many bytes, besides its own.
const MEMBER_COST_BYTES: u64 = 512;

/// What there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) members: u64,
    pub(crate) bytes: u64,
}

impl Amount {
    fn cost(self) -> u64 {
        self.bytes.saturating_add(self.members.saturating_mul(MEMBER_COST_BYTES))
    }

    fn plus(self, other: Amount) -> Amount {
        Amount { members: self.members.saturating_add(other.members), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn is_within(self, limits: &Limits) -> bool {
        self.members <= limits.members && self.bytes <= limits.bytes
    }
}

/// The parts, by their numbers and ascending, that are written anew with a batch.
pub(crate) fn merged(parts: &[(u32, Amount)], batch: Amount, limits: &Limits) -> Vec<u32> {
    let mut by_cost: Vec<_> = parts.to_vec();
    by_cost.sort_by_key(|(number, amount)| (amount.cost(), *number));
    let (mut sum, mut merged) = (batch, Vec::new());
    for (number, amount) in by_cost {
        if amount.cost() > limits.small_bytes.max(limits.ratio.saturating_mul(sum.cost())) {
            break;
        }
        let with = sum.plus(amount);
        if with.is_within(limits) {
            sum = with;
            merged.push(number);
        }
    }
    merged.sort_unstable();
    merged
}

/// How many of the members, whose sizes are these, fit into one part; at least one.
pub(crate) fn fitting(sizes: impl Iterator<Item = u64>, limits: &Limits) -> usize {
    let mut sum = Amount::default();
    let mut count = 0;
    for bytes in sizes {
        sum = sum.plus(Amount { members: 1, bytes });
        if count > 0 && !sum.is_within(limits) {
            break;
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn amount(mib: u64) -> Amount {
        Amount { members: mib, bytes: mib * MIB }
    }

    #[test]
    fn small_parts_are_always_merged_and_large_ones_wait() {
        let limits = Limits::default();
        assert_eq!(merged(&[(0, amount(60))], amount(0), &limits), [0]);
        assert_eq!(merged(&[(0, amount(65))], amount(1), &limits), []);
        assert_eq!(merged(&[(0, amount(65))], amount(17), &limits), [0]);
        assert_eq!(merged(&[(0, amount(1000)), (1, amount(50))], amount(1), &limits), [1]);
        assert_eq!(merged(&[(0, amount(200)), (1, amount(50))], amount(1), &limits), [0, 1]);
    }

    #[test]
    fn nothing_grows_over_the_limits() {
        let limits = Limits { members: 100, ..Limits::default() };
        assert_eq!(merged(&[(0, amount(90)), (1, amount(20))], amount(15), &limits), [1]);
        assert_eq!(merged(&[(0, amount(100))], amount(1), &limits), []);
        assert_eq!(fitting([MIB; 300].into_iter(), &limits), 100);
        assert_eq!(fitting([60 << 30, 1].into_iter(), &limits), 1);
        assert_eq!(fitting([1, 60 << 30].into_iter(), &limits), 1);
    }

    /// What the documentation promises of an archive that grows batch by batch.
    #[test]
    fn what_is_written_is_bounded() {
        let limits = Limits { small_bytes: 8 * MIB, bytes: 4096 * MIB, members: u64::MAX, ratio: 4 };
        for batch in [1, 3, 10, 64, 500] {
            let mut parts: Vec<(u32, Amount)> = Vec::new();
            let (mut written, mut added, mut next, mut most) = (0, 0, 0, 0);
            while added < 20_000 {
                let chosen = merged(&parts, amount(batch), &limits);
                let number = chosen.first().copied().unwrap_or(next);
                next = next.max(number + 1);
                let taken = parts.iter().filter(|(number, _)| chosen.contains(number));
                let sum = taken.fold(amount(batch), |sum, (_, amount)| sum.plus(*amount));
                parts.retain(|(number, _)| !chosen.contains(number));
                parts.push((number, sum));
                assert!(sum.bytes <= limits.bytes);
                written += sum.bytes / MIB;
                added += batch;
                let open = parts.iter().filter(|(_, amount)| amount.bytes < limits.bytes / 2).count();
                most = most.max(open);
            }
            assert!(most <= 8, "{most} parts in batches of {batch}");
            assert!(written / added <= 25, "{written} written for {added} in batches of {batch}");
        }
    }
}
