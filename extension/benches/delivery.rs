//! The size of a batch, and what compression would save and cost: bytes and CPU microseconds by number of invocations.
//! Columns of varints and random request ids do not compress well, so batches are sent uncompressed. This benchmark
//! checks that decision.
//!
//! `cargo bench -p tailor-extension --bench delivery` prints a table.

#![allow(clippy::unwrap_used, reason = "a failed benchmark may panic")]

use agent_proto::batch::{Batch, BatchHeader, Environment, EnvironmentId, Lost, Overhead};
use miniz_oxide::deflate::compress_to_vec;
use nix::time::{ClockId, clock_gettime};
use tailor_sizing::telemetry::invocation::{Invocation, Outcome, RequestId, Work};
use tailor_sizing::units::{Architecture, Megabytes};
use tailor_test_kit::random::Random;

const ROUNDS: u32 = 200;

fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 * 1e6 + time.tv_nsec() as f64 / 1e3
}

fn cost(mut action: impl FnMut()) -> f64 {
    let before = cpu_us();
    (0..ROUNDS).for_each(|_| action());
    (cpu_us() - before) / f64::from(ROUNDS)
}

/// Pseudo-random numbers, the same in every run.
struct Numbers(Random);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A value within a fifth of `middle`.
    fn around(&mut self, middle: u64) -> u64 {
        middle - middle / 5 + self.0.below(middle / 5 * 2)
    }
}

/// A typical invocation of 40 ms that calls a database.
fn invocation(index: u64, numbers: &mut Numbers) -> Invocation {
    let duration_us = numbers.around(40_000);
    let work = [
        numbers.around(6_000),
        numbers.around(900),
        numbers.around(2_000),
        numbers.around(30_000),
        numbers.around(6_500),
        numbers.around(1_900),
        1_000 + numbers.next() % 300,
        numbers.around(40),
        numbers.around(9),
        numbers.around(60),
        numbers.around(120),
        0,
        numbers.next() % 2,
        numbers.around(9_000),
        numbers.around(3_000),
        0,
        0,
    ];
    Invocation {
        request_id: RequestId(u128::from(numbers.next()) << 64 | u128::from(numbers.next())),
        started_at_us: 1_790_000_000_000_000 + index * 1_000_000 + numbers.next() % 500_000,
        outcome: Outcome::Success,
        duration_us,
        runtime_us: duration_us - numbers.next() % 1_000,
        billed_ms: duration_us.div_ceil(1_000),
        produced_bytes: numbers.around(700),
        max_memory_used_mb: 92,
        peak_kib: numbers.around(68_000),
        start_kib: numbers.around(66_000),
        threads: 11,
        descriptors: 24,
        tmp_used_kib: 12,
        work: Some(Work::from_counters(work)),
        ..Invocation::default()
    }
}

fn batch(invocations: u64) -> Vec<u8> {
    let mut numbers = Numbers(Random::new(1));
    let header = BatchHeader {
        environment: Environment {
            id: EnvironmentId([7; 16]),
            account: "123456789012".into(),
            region: "eu-central-1".into(),
            function: "checkout-service".into(),
            version: "$LATEST".into(),
            memory: Megabytes(512),
            architecture: Architecture::X86_64,
            runtime: "nodejs22.v41".into(),
            initialization_type: agent_proto::batch::InitializationType::OnDemand,
            extension_version: "0.1.0".into(),
            ephemeral_mb: 512,
            timeout_ms: 30_000,
        },
        sequence: 3,
        sent_at_us: 1_790_000_000_000_000,
        lost: Lost::default(),
        overhead: Overhead { cpu_us: 120_000, resident_kib: 2_100, sent_bytes: 80_000, ticks: 40 },
        unsent: 1,
        interval: None,
    };
    let invocations = (0..invocations).map(|index| invocation(index, &mut numbers)).collect();
    Batch { header, invocations }.encode().unwrap()
}

fn main() {
    // `cargo test` starts this program, too; then it does nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("{:>12}{:>10}{:>12}{:>10}{:>12}", "invocations", "bytes", "deflate -6", "saved", "CPU us");
    for invocations in [1, 5, 20, 60, 200, 500, 1_000] {
        let plain = batch(invocations);
        let small = compress_to_vec(&plain, 6).len();
        let us = cost(|| drop(compress_to_vec(&plain, 6)));
        let saved = 100.0 - small as f64 * 100.0 / plain.len() as f64;
        println!("{invocations:>12}{:>10}{small:>12}{saved:>9.0}%{us:>12.0}", plain.len());
    }
}
