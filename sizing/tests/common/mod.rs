//! Synthetic workloads for the tests.

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::advice::{Advice, FunctionEvidence, advise};
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::invocation::{Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

/// A successful invocation of one thread at `memory` MB, with this CPU time, idle time and peak memory.
pub(crate) fn invocation(memory: u32, busy_us: u64, idle_us: u64, peak_mb: u64) -> Invocation {
    let share = Megabytes(memory).share().min(1.0);
    let starved_us = (busy_us as f64 * (1.0 / share - 1.0)) as u64;
    let duration_us = busy_us + idle_us + starved_us;
    Invocation {
        outcome: Outcome::Success,
        duration_us,
        billed_ms: duration_us.div_ceil(1_000),
        peak_kib: peak_mb * 1_024,
        work: Some(Work {
            user_us: busy_us,
            starved_us,
            idle_us,
            top_busy_us: busy_us,
            top_starved_us: starved_us,
            effective_threads_milli: 1_000,
            voluntary_switches: 3,
            ..Work::default()
        }),
        ..Invocation::default()
    }
}

/// Thirty invocations whose times vary by a few percent.
pub(crate) fn rollup(memory: u32, busy_us: u64, idle_us: u64, peak_mb: u64) -> Rollup {
    rollup_of(|vary| invocation(memory, vary(busy_us), vary(idle_us), peak_mb))
}

/// Thirty invocations from `create`, whose argument varies a time by a few percent.
pub(crate) fn rollup_of(create: impl Fn(&dyn Fn(u64) -> u64) -> Invocation) -> Rollup {
    let mut rollup = Rollup::default();
    for i in 0..30 {
        rollup.record(&create(&|us| us * (96 + i * 7 % 9) / 100));
    }
    rollup
}

/// A function that was measured at these sizes and has the first of them now.
pub(crate) fn evidence(sizes: &[(Megabytes, Rollup)]) -> FunctionEvidence<'_> {
    FunctionEvidence {
        region: "us-east-1",
        architecture: Architecture::X86_64,
        memory: sizes[0].0,
        ephemeral_mb: 512,
        timeout_ms: Some(10_000),
        environments: 1,
        enforcement: Enforcement::default(),
        sizes,
    }
}

pub(crate) fn advice_of(evidence: &FunctionEvidence<'_>, strategy: Strategy) -> Advice {
    advise(evidence, &PriceTable::embedded(), strategy).unwrap()
}
