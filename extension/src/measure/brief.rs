//! Which invocations are too brief to read everything after each of them.
//!
//! Disk, descriptors, `/tmp`, network and contention are half of what is read after an empty invocation, and next to nothing
//! happens there in so little CPU time. Their counters are running totals, so what a brief invocation did counts for a later
//! one, and nothing is lost. CPU time, memory and threads are read after each invocation.

/// The CPU time of the function since the last complete reading, nanoseconds, up to which a reading may be left out: the
/// time of a few requests on an open connection.
const MAX_RAN_NS: u64 = 1_000_000;

/// How many in a row are left out.
const MAX_SKIPPED: u32 = 3;

/// The invocations since the last complete reading.
#[derive(Debug, Default)]
pub(super) struct BriefInvocations {
    ran_ns: u64,
    skipped: u32,
}

impl BriefInvocations {
    /// Whether this reading may leave something out. The function ran for `ran_ns` since the last one; `is_other` is whether
    /// the processes are others.
    pub(super) fn skip(&mut self, ran_ns: u64, is_other: bool) -> bool {
        self.ran_ns = self.ran_ns.saturating_add(ran_ns);
        let skips = !is_other && self.skipped < MAX_SKIPPED && self.ran_ns <= MAX_RAN_NS;
        *self = if skips { Self { skipped: self.skipped + 1, ..*self } } else { Self::default() };
        skips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_brief_invocations_every_fourth_is_read_completely() {
        let mut brief = BriefInvocations::default();
        let skips: Vec<_> = (0..8).map(|_| brief.skip(1_000, false)).collect();
        assert_eq!(skips, [true, true, true, false, true, true, true, false]);
        assert!(!brief.skip(1_000, true), "there is a new process");
        let half = MAX_RAN_NS / 2 + 1;
        assert_eq!(
            [half, half, half, u64::MAX].map(|ran_ns| brief.skip(ran_ns, false)),
            [true, false, true, false]
        );
    }
}
