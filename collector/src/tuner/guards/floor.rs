//! The smallest size that a change may set, and why.

use tailor_sizing::advice::Advice;
use tailor_sizing::units::Megabytes;

use super::Facts;
use super::evidence::is_before_evidence_time;
use crate::tuner::limits::Limits;

/// The smallest size that is permitted.
pub(super) struct Floor {
    /// The size.
    pub(super) memory: Megabytes,
    /// The code of a refusal for it.
    pub(super) code: &'static str,
    /// Why it is not smaller, as a part of a sentence.
    pub(super) reason: String,
}

impl Floor {
    /// The largest of the owner's limit, the memory floor of the advice, the highest memory use with its headroom, and the
    /// sizes above each size that ran out of memory in earlier changes.
    pub(super) fn of(facts: &Facts<'_>, advice: &Advice) -> Self {
        let (own, headroom) = (&advice.floor, headroom(facts));
        let peak_mb = own.peak_mb.max(own.environment_peak_mb);
        let seen = Megabytes(megabytes_rounded_up(peak_mb * (1.0 + headroom)));
        let killed =
            facts.history.iter().filter(|change| change.after.is_some_and(|after| after.out_of_memory > 0));
        let killed =
            killed.map(|change| above_out_of_memory(facts, change.to)).max().unwrap_or(Megabytes::MIN);
        let owner = facts.permission.min_memory.max(Megabytes::MIN);
        let memory = owner.max(own.memory).max(seen).max(killed);
        let (code, reason) = if memory == owner {
            ("out-of-bounds", format!("the smallest permitted size is {memory}"))
        } else if memory == seen {
            let percent = 100.0 * headroom;
            let reason =
                format!("the highest memory use is {peak_mb:.0} MB, and {percent:.0} % above it is {memory}");
            ("memory-floor", reason)
        } else if memory == killed {
            ("memory-floor", format!("sizes below {memory} are too close to one that ran out of memory"))
        } else {
            ("memory-floor", format!("the memory floor is {memory}"))
        };
        Self { memory, code, reason }
    }
}

/// The headroom above the highest memory use. Memory use that grows is seen less in a week than in two.
fn headroom(facts: &Facts<'_>) -> f64 {
    let Limits { headroom, headroom_early, .. } = *facts.limits;
    if is_before_evidence_time(facts) { headroom.max(headroom_early) } else { headroom }
}

/// The smallest size above one that ran out of memory.
pub(super) fn above_out_of_memory(facts: &Facts<'_>, size: Megabytes) -> Megabytes {
    let (factor, extra) = facts.limits.out_of_memory_floor;
    let size = f64::from(size.0);
    Megabytes(megabytes_rounded_up((size * factor).max(size + f64::from(extra)))).min(Megabytes::MAX)
}

/// A size in megabytes, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is clamped to the range of sizes before the cast"
)]
pub(super) fn megabytes_rounded_up(mb: f64) -> u32 {
    mb.ceil().clamp(0.0, f64::from(Megabytes::MAX.0)) as u32
}
