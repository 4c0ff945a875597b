//! The floor: the smallest memory size judged safe from running out of memory.
//!
//! Future invocations may need more memory than the measured peaks, so a margin is added, which shrinks with more evidence.
//! When the peak was 95 % of the memory size or more, the true demand is unknown. An out-of-memory kill raises the floor at
//! once.

use serde::{Deserialize, Serialize};

use crate::telemetry::rollup::Rollup;
use crate::units::Megabytes;

/// At this share of its memory, what a function would use with more is unknown.
pub const FULL: f64 = 0.95;

/// Margin that stays with any amount of evidence.
const MIN_MARGIN: f64 = 0.15;

/// Margin on top of it with one invocation; falls with the square root of the evidence.
const EXTRA_MARGIN: f64 = 0.60;

/// How many invocations one more environment counts for: memory grows with an environment's age and differs
/// between environments more than between the requests of one.
const INVOCATIONS_PER_ENVIRONMENT: f64 = 5.0;

/// After an out-of-memory kill the floor rises by at least this much: the share and the step Kubernetes' vertical
/// autoscaler adds (recommender, `OOMBumpUpRatio` and `OOMMinBumpUp`).
const OOM_RATIO: f64 = 1.2;
const OOM_STEP_MB: f64 = 100.0;

/// Invocations at a size that prove it, where less memory used there than elsewhere.
const PROOF: u64 = 200;

/// Which measurement the highest memory in use is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeakSource {
    /// Nothing was measured.
    #[default]
    None,
    /// The extension: resident memory of the function's processes, with pages that they share counted once. It includes
    /// mapped files, and excludes `/tmp` and the page cache of files that are not mapped.
    Processes,
    /// The platform's `maxMemoryUsedMB`: all that the environment's memory limit counts, with extensions and the kernel.
    Environment,
}

/// The floor and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryFloor {
    /// No size below this is recommended.
    pub memory: Megabytes,
    /// Highest memory seen in use, MB; zero when nothing was seen. The larger of the two below.
    pub peak_mb: f64,
    /// Which of the two it is.
    pub peak_source: PeakSource,
    /// Highest memory of the function's processes, MB; zero when unknown.
    pub processes_peak_mb: f64,
    /// Highest memory of the environment that the platform reported, MB; zero when unknown.
    pub environment_peak_mb: f64,
    /// What was added to it, as a share.
    pub margin: f64,
    /// Out-of-memory kills seen.
    pub out_of_memory: u64,
    /// Whether a size was seen filled to 95 % or more, so that the true demand is unknown.
    pub saturated: bool,
    /// Whether no memory was measured: the floor is then the size in use.
    pub unmeasured: bool,
}

/// The floor that `sizes` support; `current` is kept where no memory was measured.
#[must_use]
pub fn memory_floor(current: Megabytes, environments: u64, sizes: &[(Megabytes, Rollup)]) -> MemoryFloor {
    let mut floor = MemoryFloor {
        memory: Megabytes::MIN,
        peak_mb: 0.0,
        peak_source: PeakSource::None,
        processes_peak_mb: 0.0,
        environment_peak_mb: 0.0,
        margin: margin(environments, sizes.iter().map(|(_, rollup)| rollup.invocations).sum()),
        out_of_memory: 0,
        saturated: false,
        unmeasured: true,
    };
    let mut need_mb = f64::from(Megabytes::MIN.0);
    for (memory, rollup) in sizes {
        let size_mb = f64::from(memory.0);
        let used_mb = peak_memory_mb(rollup).min(size_mb);
        floor.processes_peak_mb = floor.processes_peak_mb.max(processes_peak_mb(rollup).min(size_mb));
        floor.environment_peak_mb = floor.environment_peak_mb.max(environment_peak_mb(rollup).min(size_mb));
        if used_mb > 0.0 {
            floor.unmeasured = false;
            floor.peak_mb = floor.peak_mb.max(used_mb);
            need_mb = need_mb.max(used_mb * (1.0 + floor.margin));
        }
        if used_mb >= FULL * size_mb {
            floor.saturated = true;
            need_mb = need_mb.max(size_mb * (1.0 + floor.margin));
        }
        if rollup.out_of_memory > 0 {
            floor.out_of_memory = floor.out_of_memory.saturating_add(rollup.out_of_memory);
            need_mb = need_mb.max((size_mb * OOM_RATIO).max(size_mb + OOM_STEP_MB));
        }
    }
    if floor.unmeasured && floor.out_of_memory == 0 {
        need_mb = need_mb.max(f64::from(current.0));
    }
    if let Some(proven) = proven(sizes, floor.margin) {
        need_mb = need_mb.min(f64::from(proven.0)).max(above_kills(sizes));
    }
    floor.memory = megabytes_up(need_mb);
    floor.peak_source = if floor.unmeasured {
        PeakSource::None
    } else if floor.environment_peak_mb >= floor.processes_peak_mb {
        PeakSource::Environment
    } else {
        PeakSource::Processes
    };
    floor
}

/// Highest memory seen in use at one size, MB: the larger of the extension's figure and the platform's. Each may miss what
/// the other has: the platform's is a mark of the environment and may be late, the extension's has the function's processes
/// only.
#[must_use]
pub fn peak_memory_mb(rollup: &Rollup) -> f64 {
    processes_peak_mb(rollup).max(environment_peak_mb(rollup))
}

fn processes_peak_mb(rollup: &Rollup) -> f64 {
    rollup.max_peak_kib as f64 / 1_024.0
}

fn environment_peak_mb(rollup: &Rollup) -> f64 {
    f64::from(rollup.max_memory_used_mb)
}

/// A size that ran long enough without kills and with free memory: runtimes that collect garbage use
/// more where they are given more, so peaks at a large size overstate what a small one needs.
fn proven(sizes: &[(Megabytes, Rollup)], margin: f64) -> Option<Megabytes> {
    sizes
        .iter()
        .filter(|(memory, rollup)| {
            let used_mb = peak_memory_mb(rollup);
            rollup.invocations >= PROOF
                && rollup.out_of_memory == 0
                && used_mb > 0.0
                && used_mb * (1.0 + margin) <= f64::from(memory.0)
        })
        .map(|(memory, _)| *memory)
        .min()
}

/// The least size that kills and full sizes leave, MB.
fn above_kills(sizes: &[(Megabytes, Rollup)]) -> f64 {
    sizes
        .iter()
        .filter(|(memory, rollup)| {
            rollup.out_of_memory > 0 || peak_memory_mb(rollup) >= FULL * f64::from(memory.0)
        })
        .map(|(memory, _)| f64::from(memory.0) + 1.0)
        .fold(0.0, f64::max)
}

fn margin(environments: u64, invocations: u64) -> f64 {
    let evidence = invocations as f64 + INVOCATIONS_PER_ENVIRONMENT * environments as f64;
    MIN_MARGIN + EXTRA_MARGIN / evidence.max(1.0).sqrt()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to Lambda's sizes")]
fn megabytes_up(mb: f64) -> Megabytes {
    let (least, most) = (f64::from(Megabytes::MIN.0), f64::from(Megabytes::MAX.0));
    Megabytes(mb.ceil().clamp(least, most) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(invocations: u64, peak_mb: u64) -> Rollup {
        Rollup { invocations, max_peak_kib: peak_mb * 1_024, ..Rollup::default() }
    }

    #[test]
    fn margin_shrinks_with_evidence_but_not_to_nothing() {
        let few = memory_floor(Megabytes(1_024), 1, &[(Megabytes(1_024), seen(20, 200))]).memory.0;
        let many = memory_floor(Megabytes(1_024), 50, &[(Megabytes(1_024), seen(100_000, 200))]).memory.0;
        assert!(few > many && many >= 230, "{few} and {many}");
    }

    #[test]
    fn a_full_size_is_not_a_floor() {
        let floor = memory_floor(Megabytes(512), 10, &[(Megabytes(512), seen(10_000, 490))]);
        assert!(floor.saturated && floor.memory > Megabytes(512), "{floor:?}");
    }

    #[test]
    fn a_kill_raises_the_floor_for_any_peaks() {
        let killed = Rollup { out_of_memory: 1, ..seen(10_000, 100) };
        let floor = memory_floor(Megabytes(512), 10, &[(Megabytes(512), killed)]);
        assert!(floor.memory >= Megabytes(614), "{floor:?}");
    }

    #[test]
    fn unmeasured_memory_keeps_the_size() {
        assert_eq!(memory_floor(Megabytes(640), 1, &[(Megabytes(640), seen(100, 0))]).memory, Megabytes(640));
    }

    #[test]
    fn the_larger_of_both_measurements_counts_and_none_exceeds_the_size() {
        let both = |peak_mb, max_memory_used_mb| Rollup { max_memory_used_mb, ..seen(10_000, peak_mb) };
        let floor = |rollup| memory_floor(Megabytes(512), 10, &[(Megabytes(512), rollup)]);
        let hidden = floor(both(40, 300));
        assert_eq!((hidden.peak_mb, hidden.peak_source), (300.0, PeakSource::Environment));
        let late = floor(both(300, 40));
        assert_eq!((late.peak_mb, late.peak_source), (300.0, PeakSource::Processes));
        let impossible = floor(both(1_572, 318));
        assert_eq!((impossible.peak_mb, impossible.processes_peak_mb), (512.0, 512.0));
        assert_eq!(floor(seen(10, 0)).peak_source, PeakSource::None);
    }

    #[test]
    fn a_proven_small_size_overrides_the_peaks_of_a_large_one() {
        let sizes = [(Megabytes(256), seen(10_000, 120)), (Megabytes(2_048), seen(10_000, 700))];
        assert_eq!(memory_floor(Megabytes(2_048), 10, &sizes).memory, Megabytes(256));
    }
}
