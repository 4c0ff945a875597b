//! Test data: batches as extensions send them, from several kinds of functions.

use agent_proto::batch::{Batch, BatchHeader, Environment, EnvironmentId, Lost, Overhead};
use tailor_sizing::telemetry::invocation::{
    Caveats, ClassWork, Initialization, Invocation, Outcome, RequestId, Work,
};
use tailor_sizing::units::{Architecture, Megabytes};

/// A kind of function.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) runtime: &'static str,
    /// CPU time of one invocation, microseconds.
    pub(crate) cpu_us: u64,
    /// Idle time of one invocation, microseconds.
    pub(crate) idle_us: u64,
    /// Peak memory, MB.
    pub(crate) peak_mb: u32,
    pub(crate) memory: u32,
}

#[allow(dead_code, reason = "not every file that includes this module uses it")]
pub(crate) const KINDS: [Kind; 6] = [
    Kind {
        name: "checkout-price",
        runtime: "python3.14",
        cpu_us: 42_000,
        idle_us: 3_000,
        peak_mb: 61,
        memory: 256,
    },
    Kind {
        name: "thumbnails",
        runtime: "nodejs24.x",
        cpu_us: 310_000,
        idle_us: 25_000,
        peak_mb: 402,
        memory: 1024,
    },
    Kind {
        name: "orders-webhook",
        runtime: "java25",
        cpu_us: 4_000,
        idle_us: 180_000,
        peak_mb: 141,
        memory: 2048,
    },
    Kind {
        name: "ledger-rollup-nightly",
        runtime: "provided.al2023",
        cpu_us: 900_000,
        idle_us: 40_000,
        peak_mb: 480,
        memory: 512,
    },
    Kind { name: "auth", runtime: "provided.al2023", cpu_us: 1_100, idle_us: 400, peak_mb: 12, memory: 128 },
    Kind {
        name: "search-suggest-with-a-long-name-production-eu",
        runtime: "nodejs24.x",
        cpu_us: 9_000,
        idle_us: 22_000,
        peak_mb: 88,
        memory: 3008,
    },
];

/// An environment of a function.
pub(crate) fn environment(kind: &Kind, id: u64) -> Environment {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.to_be_bytes());
    bytes[8..].copy_from_slice(&(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
    Environment {
        id: EnvironmentId(bytes),
        account: "123456789012".to_owned(),
        region: "eu-west-1".to_owned(),
        function: kind.name.to_owned(),
        version: "$LATEST".to_owned(),
        memory: Megabytes(kind.memory),
        architecture: Architecture::X86_64,
        runtime: kind.runtime.to_owned(),
        initialization_type: agent_proto::batch::InitializationType::OnDemand,
        extension_version: "0.1.0".to_owned(),
        ephemeral_mb: 512,
        timeout_ms: 30_000,
    }
}

/// An invocation; its times vary slightly with `index`.
pub(crate) fn invocation(kind: &Kind, index: u64, started_at_us: u64) -> Invocation {
    let varied = |value: u64| value * (900 + index * 7_919 % 201) / 1_000;
    let memory = u64::from(kind.memory).min(1_769);
    let (busy_us, idle_us) = (varied(kind.cpu_us), varied(kind.idle_us));
    let starved_us = busy_us * (1_769 - memory) / memory;
    let duration_us = busy_us + starved_us + idle_us;
    let (initialization, init_us) =
        if index == 0 { (Initialization::OnDemand, 180_000) } else { (Initialization::Warm, 0) };
    Invocation {
        request_id: RequestId(u128::from(index) << 64 | u128::from(started_at_us)),
        started_at_us,
        outcome: if index % 211 == 210 { Outcome::Error } else { Outcome::Success },
        initialization,
        caveats: Caveats::default(),
        duration_us,
        runtime_us: duration_us.saturating_sub(varied(400)),
        produced_bytes: varied(1_800),
        billed_ms: (duration_us + init_us).div_ceil(1_000),
        init_us,
        max_memory_used_mb: kind.peak_mb + 30,
        peak_kib: varied(u64::from(kind.peak_mb) * 930),
        start_kib: u64::from(kind.peak_mb) * 700,
        threads: 1,
        descriptors: 14,
        tmp_used_kib: 2_048,
        work: Some(Work {
            user_us: busy_us * 9 / 10,
            system_us: busy_us / 10,
            starved_us,
            idle_us,
            top_busy_us: busy_us,
            top_starved_us: starved_us,
            effective_threads_milli: 1_000,
            timeslices: 5,
            voluntary_switches: varied(4_000) / 1_000,
            involuntary_switches: varied(2_000) / 1_000,
            minor_faults: varied(300),
            major_faults: varied(3_000) / 1_000,
            // A new connection for each tenth invocation: clients are kept.
            sockets_opened: u64::from(index % 10 == 1),
            network_rx_bytes: varied(6_000),
            network_tx_bytes: varied(2_500),
            disk_read_bytes: varied(40_960),
            disk_written_bytes: varied(8_192),
            unaccounted_us: busy_us / 200,
            main: class(busy_us * 8 / 10, starved_us * 8 / 10),
            pool: class(busy_us / 10, starved_us / 10),
            collector: class(busy_us / 20, starved_us / 20),
            compiler: class(busy_us / 40, starved_us / 40),
            other: class(busy_us / 80, starved_us / 80),
            unseen_busy_us: busy_us / 80,
            pressure_us: starved_us * 9 / 10 + 1_000,
            quota_periods: duration_us / 20_000 + 1,
            throttled_periods: starved_us / 20_000 + 1,
        }),
        ..Invocation::default()
    }
}

fn class(busy_us: u64, starved_us: u64) -> ClassWork {
    ClassWork { busy_us: busy_us + 1, starved_us, threads: 1 }
}

/// The batch an environment sends with this sequence: `count` invocations, one second apart, ending at `end_us`.
pub(crate) fn batch(kind: &Kind, id: u64, sequence: u64, count: u64, end_us: u64) -> Batch {
    let first = (sequence - 1) * count;
    Batch {
        header: BatchHeader {
            environment: environment(kind, id),
            sequence,
            sent_at_us: end_us,
            lost: Lost::default(),
            overhead: Overhead { cpu_us: 200 * (first + count), resident_kib: 2_100, ..Overhead::default() },
            unsent: 1,
            interval: None,
        },
        invocations: (0..count)
            .map(|index| invocation(kind, first + index, end_us - (count - index) * 1_000_000))
            .collect(),
    }
}
