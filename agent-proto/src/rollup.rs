//! Converts rollups to bytes for the store, and back. Equal rollups have equal bytes: the order in which they were merged
//! has no effect.

use prost::Message;
use tailor_sizing::telemetry::extension_waits::ExtensionWaits;
use tailor_sizing::telemetry::histogram::{LogHistogram, NoSuchBucket};
use tailor_sizing::telemetry::initialization::Initializations;
use tailor_sizing::telemetry::invocation::Work;
use tailor_sizing::telemetry::rollup::{Rollup, WorkSum};
use tailor_sizing::telemetry::utilization::Utilization;

use crate::wire;

/// Stored bytes that are not a rollup.
#[derive(Debug, thiserror::Error)]
pub enum RollupError {
    /// Not protobuf of this schema.
    #[error("stored rollup is damaged: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A histogram has a bucket with a number that does not exist.
    #[error("stored rollup is damaged: {0}")]
    Bucket(#[from] NoSuchBucket),
}

/// The rollup as bytes.
#[must_use]
pub fn encode(rollup: &Rollup) -> Vec<u8> {
    // Every field is named, so that a new one cannot be left out.
    let Rollup {
        invocations,
        errors,
        timeouts,
        out_of_memory,
        cold_starts,
        initializations,
        estimated,
        billed_ms,
        timeouts_billed_ms,
        init_us,
        unbilled_init_us,
        first_at_us,
        last_at_us,
        max_peak_kib,
        max_memory_used_mb,
        max_tmp_used_kib,
        post_runtime_us,
        extension_waits,
        duration_us,
        warm_duration_us,
        peak_kib,
        warm,
        cold,
        utilization,
    } = rollup;
    wire::Rollup {
        totals: Some(wire::RollupTotals {
            invocations: *invocations,
            errors: *errors,
            timeouts: *timeouts,
            out_of_memory: *out_of_memory,
            cold_starts: *cold_starts,
            estimated: *estimated,
            billed_ms: *billed_ms,
            init_us: *init_us,
            first_at_us: *first_at_us,
            last_at_us: *last_at_us,
            max_peak_kib: *max_peak_kib,
            max_memory_used_mb: *max_memory_used_mb,
            max_tmp_used_kib: *max_tmp_used_kib,
            post_runtime_us: *post_runtime_us,
            on_demand: initializations.on_demand,
            proactive: initializations.proactive,
            provisioned_concurrency: initializations.provisioned_concurrency,
            snap_start: initializations.snap_start,
            inside_invocation: initializations.inside_invocation,
            extension_waits: Some(wire::ExtensionWaits {
                invocations: extension_waits.invocations,
                wait_us: extension_waits.wait_us,
                longest_us: extension_waits.longest_us,
                longest_duration_us: extension_waits.longest_duration_us,
            })
            .filter(|_| *extension_waits != ExtensionWaits::default()),
            unbilled_init_us: *unbilled_init_us,
            timeouts_billed_ms: *timeouts_billed_ms,
        }),
        duration_us: Some(histogram_to_wire(duration_us)),
        warm_duration_us: Some(histogram_to_wire(warm_duration_us)),
        peak_kib: Some(histogram_to_wire(peak_kib)),
        warm: Some(work_to_wire(warm)),
        cold: Some(work_to_wire(cold)),
        utilization: (*utilization != Utilization::default()).then(|| utilization_to_wire(utilization)),
    }
    .encode_to_vec()
}

/// Reads what [`encode`] wrote, in this version or an earlier one.
///
/// # Errors
/// [`RollupError`] when the bytes are damaged.
pub fn decode(bytes: &[u8]) -> Result<Rollup, RollupError> {
    let wire = wire::Rollup::decode(bytes)?;
    let totals = wire.totals.unwrap_or_default();
    let extension_waits = totals.extension_waits.unwrap_or_default();
    Ok(Rollup {
        invocations: totals.invocations,
        errors: totals.errors,
        timeouts: totals.timeouts,
        out_of_memory: totals.out_of_memory,
        cold_starts: totals.cold_starts,
        initializations: Initializations {
            on_demand: totals.on_demand,
            proactive: totals.proactive,
            provisioned_concurrency: totals.provisioned_concurrency,
            snap_start: totals.snap_start,
            inside_invocation: totals.inside_invocation,
        },
        estimated: totals.estimated,
        billed_ms: totals.billed_ms,
        timeouts_billed_ms: totals.timeouts_billed_ms,
        init_us: totals.init_us,
        unbilled_init_us: totals.unbilled_init_us,
        first_at_us: totals.first_at_us,
        last_at_us: totals.last_at_us,
        max_peak_kib: totals.max_peak_kib,
        max_memory_used_mb: totals.max_memory_used_mb,
        max_tmp_used_kib: totals.max_tmp_used_kib,
        post_runtime_us: totals.post_runtime_us,
        extension_waits: ExtensionWaits {
            invocations: extension_waits.invocations,
            wait_us: extension_waits.wait_us,
            longest_us: extension_waits.longest_us,
            longest_duration_us: extension_waits.longest_duration_us,
        },
        duration_us: histogram_from_wire(wire.duration_us.unwrap_or_default())?,
        warm_duration_us: histogram_from_wire(wire.warm_duration_us.unwrap_or_default())?,
        peak_kib: histogram_from_wire(wire.peak_kib.unwrap_or_default())?,
        warm: work_from_wire(wire.warm.unwrap_or_default()),
        cold: work_from_wire(wire.cold.unwrap_or_default()),
        utilization: utilization_from_wire(wire.utilization.unwrap_or_default())?,
    })
}

fn histogram_to_wire(histogram: &LogHistogram) -> wire::Histogram {
    let mut previous = 0u16;
    let (bucket_deltas, counts) = histogram
        .buckets()
        .map(|(bucket, count)| {
            let delta = bucket - previous;
            previous = bucket;
            (u32::from(delta), count)
        })
        .unzip();
    wire::Histogram { bucket_deltas, counts }
}

fn histogram_from_wire(wire: wire::Histogram) -> Result<LogHistogram, NoSuchBucket> {
    let mut bucket = 0u64;
    LogHistogram::from_buckets(wire.bucket_deltas.into_iter().zip(wire.counts).map(|(delta, count)| {
        bucket = bucket.saturating_add(u64::from(delta));
        (bucket, count)
    }))
}

fn utilization_to_wire(sum: &Utilization) -> wire::Utilization {
    wire::Utilization {
        intervals: sum.intervals,
        measured_us: sum.measured_us,
        cpu_us: sum.cpu_us,
        invocations_us: sum.invocations_us,
        max_concurrency: sum.max_concurrency,
        max_peak_kib: sum.max_peak_kib,
        cpu_milli: Some(histogram_to_wire(&sum.cpu_milli)),
        peak_kib: Some(histogram_to_wire(&sum.peak_kib)),
    }
}

fn utilization_from_wire(wire: wire::Utilization) -> Result<Utilization, NoSuchBucket> {
    Ok(Utilization {
        intervals: wire.intervals,
        measured_us: wire.measured_us,
        cpu_us: wire.cpu_us,
        invocations_us: wire.invocations_us,
        max_concurrency: wire.max_concurrency,
        max_peak_kib: wire.max_peak_kib,
        cpu_milli: histogram_from_wire(wire.cpu_milli.unwrap_or_default())?,
        peak_kib: histogram_from_wire(wire.peak_kib.unwrap_or_default())?,
    })
}

fn work_to_wire(sum: &WorkSum) -> wire::WorkSum {
    wire::WorkSum {
        invocations: sum.invocations,
        wall_us: sum.wall_us,
        counters: sum.work.counters().to_vec(),
    }
}

fn work_from_wire(wire: wire::WorkSum) -> WorkSum {
    WorkSum { invocations: wire.invocations, wall_us: wire.wall_us, work: Work::from_counters(wire.counters) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tailor_sizing::telemetry::invocation::{Initialization, Invocation, Outcome};
    use tailor_sizing::telemetry::utilization::Interval;

    proptest! {
        #[test]
        fn stored_rollups_read_back_and_bytes_do_not_depend_on_order(durations in prop::collection::vec(0u64..1 << 40, 0..50)) {
            let invocation = |(index, &duration_us): (usize, &u64)| Invocation {
                outcome: if index % 5 == 0 { Outcome::Timeout } else { Outcome::Success },
                initialization: Initialization::FIRST[index % 5],
                started_at_us: duration_us + 1,
                duration_us,
                runtime_us: duration_us / 3,
                billed_ms: duration_us / 1000 + 1,
                init_us: duration_us / 5,
                peak_kib: duration_us / 3,
                max_memory_used_mb: 70,
                work: Some(Work::from_counters(0..37)),
                ..Invocation::default()
            };
            let (mut forward, mut backward) = (Rollup::default(), Rollup::default());
            durations.iter().enumerate().for_each(|row| forward.record(&invocation(row)));
            durations.iter().enumerate().rev().for_each(|row| backward.record(&invocation(row)));
            let interval = |&peak_kib: &u64| Interval { duration_us: 9, cpu_us: 4, peak_kib, max_concurrency: 3, max_cpu_milli: peak_kib / 7 };
            durations.iter().for_each(|row| forward.utilization.record(&interval(row), *row));
            durations.iter().rev().for_each(|row| backward.utilization.record(&interval(row), *row));
            prop_assert_eq!(encode(&forward), encode(&backward));
            prop_assert_eq!(decode(&encode(&forward)).unwrap(), forward);
        }

        #[test]
        fn any_bytes_are_rejected_or_read_back(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            if let Ok(rollup) = decode(&bytes) {
                prop_assert_eq!(decode(&encode(&rollup)).unwrap(), rollup);
            }
        }
    }

    /// No recorder writes such a rollup, damage can: decoding and encoding must not drop the waits.
    #[test]
    fn waits_without_invocations_read_back() {
        let waits = ExtensionWaits { wait_us: 16, ..ExtensionWaits::default() };
        let rollup = Rollup { invocations: 39, extension_waits: waits, ..Rollup::default() };
        assert_eq!(decode(&encode(&rollup)).unwrap(), rollup);
    }
}
