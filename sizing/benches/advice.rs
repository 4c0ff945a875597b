//! How long advice takes: one function with ten sizes of rollups, and a fleet of ten thousand functions.
//!
//! Targets: under 1 ms, and under 5 s on one core.
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "made-up work")]

use divan::{Bencher, black_box};
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::advice::{FunctionEvidence, advise};
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::invocation::{Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

const SIZES: [u32; 10] = [128, 256, 512, 768, 1_024, 1_536, 1_769, 2_048, 3_008, 5_307];
const FLEET: u64 = 10_000;

fn main() {
    divan::main();
}

/// A thousand invocations of function `number` at one size; no two functions are alike.
fn rollup(number: u64, memory: u32) -> Rollup {
    let busy_us = 500 + 7_919 * number % 200_000;
    let idle_us = 1_000 + 6_007 * number % 150_000;
    let share = Megabytes(memory).share().min(1.0);
    let starved_us = (busy_us as f64 * (1.0 / share - 1.0)) as u64;
    let mut rollup = Rollup::default();
    for i in 0..1_000 {
        let duration_us = (busy_us + idle_us + starved_us) * (90 + i * 7 % 21) / 100;
        rollup.record(&Invocation {
            outcome: Outcome::Success,
            started_at_us: 1 + i * 60_000_000,
            duration_us,
            billed_ms: duration_us.div_ceil(1_000),
            peak_kib: 90 * 1_024,
            work: Some(Work {
                user_us: busy_us,
                starved_us,
                top_busy_us: busy_us,
                top_starved_us: starved_us,
                effective_threads_milli: 1_000 + 500 * (number % 4),
                voluntary_switches: 1 + number % 50,
                ..Work::default()
            }),
            ..Invocation::default()
        });
    }
    rollup
}

fn advise_on(sizes: &[(Megabytes, Rollup)], enforcement: Enforcement, prices: &PriceTable) -> u32 {
    let evidence = FunctionEvidence {
        region: "eu-central-1",
        architecture: Architecture::X86_64,
        memory: sizes[0].0,
        ephemeral_mb: 512,
        timeout_ms: Some(30_000),
        environments: 5,
        enforcement,
        sizes,
    };
    advise(black_box(&evidence), prices, Strategy::default()).map_or(0, |advice| advice.memory.0)
}

#[divan::bench]
fn one_function_with_ten_sizes(bencher: Bencher<'_, '_>) {
    let prices = PriceTable::embedded();
    let sizes = SIZES.map(|memory| (Megabytes(memory), rollup(3, memory)));
    bencher.bench(|| advise_on(&sizes, Enforcement::default(), &prices));
}

#[divan::bench(sample_count = 5)]
fn ten_thousand_functions(bencher: Bencher<'_, '_>) {
    let prices = PriceTable::embedded();
    let fleet: Vec<_> = (0..FLEET)
        .map(|number| {
            let memory = SIZES[(number % SIZES.len() as u64) as usize];
            [(Megabytes(memory), rollup(number, memory))]
        })
        .collect();
    bencher.bench(|| {
        let telemetry = fleet.iter().flatten().map(|(memory, rollup)| (*memory, rollup));
        let enforcement = Enforcement::of(telemetry);
        fleet.iter().map(|sizes| u64::from(advise_on(sizes, enforcement, &prices))).sum::<u64>()
    });
}
