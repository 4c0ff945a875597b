//! Garbage collection at small sizes.
//!
//! V8 and the JVM size the part of the heap for new objects by the memory that they find. At small sizes it is collected more often,
//! and more objects are still in use each time. The threads of the collector show a part of that CPU time. The main thread uses
//! the rest.

use crate::units::Megabytes;

/// The CPU time that collections add at the smallest sizes, for each unit that the collector's threads are measured to use there.
/// The value of 0.9, 1.3 and 1.8 with the least errors on the functions for training of `truth.json.gz` (decision 0004). The CPU
/// time of those with the busiest collectors shows 1.8, but there the durations at large sizes contain waits for other work.
const ADDED_PER_COLLECTOR: f64 = 0.9;

/// The CPU time that collections add at a size, MB, as a share of that at the smallest sizes: medians over the same functions.
/// Between two points, the logarithm of the size counts.
const ADDED: [(f64, f64); 3] = [(256.0, 1.0), (512.0, 0.7), (1_024.0, 0.03)];

/// What the collector's threads use at a size, MB, as a share of what they use at the smallest sizes: likewise.
const COLLECTOR_SHOWS: [(f64, f64); 4] = [(256.0, 1.0), (512.0, 0.8), (1_024.0, 0.5), (2_048.0, 0.25)];

/// The largest share of the CPU time that collections can add.
const MOST: f64 = 0.65;

/// The share of the collections' time at the smallest sizes that remains at `memory`, from 0 to 1.
pub(crate) fn added_at(memory: Megabytes) -> f64 {
    interpolated(&ADDED, memory)
}

/// The CPU time that collections add at the smallest sizes, in ms, when an invocation used `busy_ms` at `memory` and the collector's
/// threads `collector_ms` of them.
pub(crate) fn added_ms(memory: Megabytes, busy_ms: f64, collector_ms: f64) -> f64 {
    let added_ms = ADDED_PER_COLLECTOR * collector_ms / interpolated(&COLLECTOR_SHOWS, memory);
    // Of what is measured here, at least `1 - MOST` is the function's own work.
    added_ms.min(MOST * busy_ms / added_at(memory).max(MOST))
}

/// The value at `memory` on the lines between points of increasing size; the first or the last value outside of them.
fn interpolated(points: &[(f64, f64)], memory: Megabytes) -> f64 {
    let mb = f64::from(memory.0);
    let above = points.partition_point(|(size, _)| *size < mb);
    match (above.checked_sub(1).and_then(|below| points.get(below)), points.get(above)) {
        (Some(&(low, from)), Some(&(high, to))) => from + (to - from) * (mb / low).ln() / (high / low).ln(),
        (Some(&(_, value)), None) | (None, Some(&(_, value))) => value,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_collector_that_works_at_small_sizes_leaves_less_work_at_large_ones() {
        let (busy_ms, collector_ms) = (100.0, 20.0);
        let added_ms = added_ms(Megabytes(256), busy_ms, collector_ms);
        assert!((added_ms - 18.0).abs() < 1e-9);
        let at = |mb| busy_ms - added_ms + added_ms * added_at(Megabytes(mb));
        let expected = [(128, 100.0), (256, 100.0), (512, 94.6), (1_024, 82.54), (3_008, 82.54)];
        for (mb, expected_ms) in expected {
            assert!((at(mb) - expected_ms).abs() < 1e-9, "{mb} MB: {}", at(mb));
        }
    }

    proptest! {
        /// The function's own work at the measured size is never less than the rest that [`MOST`] leaves.
        #[test]
        fn own_work_remains(mb in 128..10_240u32, busy_ms in 0.0..1e6f64, share in 0.0..1.0f64) {
            let memory = Megabytes(mb);
            let added_ms = added_ms(memory, busy_ms, share * busy_ms);
            prop_assert!(added_ms >= 0.0 && added_ms.is_finite());
            prop_assert!(added_ms * added_at(memory) <= MOST * busy_ms + 1e-9);
        }

        #[test]
        fn more_memory_never_adds_collections(mb in 128..10_000u32, more in 1..240u32) {
            prop_assert!(added_at(Megabytes(mb + more)) <= added_at(Megabytes(mb)));
        }
    }
}
