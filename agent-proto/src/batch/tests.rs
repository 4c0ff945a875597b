use super::*;
use proptest::prelude::*;
use tailor_sizing::telemetry::invocation::ClassWork;

fn environment() -> Environment {
    Environment {
        id: EnvironmentId([7; 16]),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        function: "checkout".into(),
        version: "$LATEST".into(),
        memory: Megabytes(512),
        architecture: Architecture::Arm64,
        runtime: "python:3.13.v50".into(),
        initialization_type: InitializationType::OnDemand,
        extension_version: "0.1.0".into(),
        ephemeral_mb: 512,
        timeout_ms: 3_000,
    }
}

fn batch(invocations: Vec<Invocation>) -> Batch {
    Batch {
        header: BatchHeader {
            environment: environment(),
            sequence: 9,
            sent_at_us: 1_790_000_000_000_000,
            lost: Lost { invocations: 3, ..Lost::default() },
            overhead: Overhead { cpu_us: 120, ..Overhead::default() },
            unsent: 2,
            interval: Some(Interval {
                duration_us: 5_000_000,
                cpu_us: 70,
                max_cpu_milli: 9,
                peak_kib: 8,
                max_concurrency: 3,
            }),
        },
        invocations,
    }
}

fn invocation() -> impl Strategy<Value = Invocation> {
    let times = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let outcome = prop::sample::select(vec![
        Outcome::Unknown,
        Outcome::Success,
        Outcome::Error,
        Outcome::Timeout,
        Outcome::OutOfMemory,
    ]);
    let work = prop::option::of(prop::collection::vec(any::<u64>(), Work::COUNTERS));
    let first = prop::sample::select(Initialization::FIRST.to_vec());
    // Times up to the year 200,000: a difference of two always fits the signed delta.
    (any::<u128>(), 0u64..1 << 62, outcome, first, flags, times, any::<[u32; 3]>(), work).prop_map(
        |(id, at, outcome, first, flags, times, small, work)| Invocation {
            request_id: RequestId(id),
            started_at_us: at,
            outcome,
            initialization: if flags.0 { first } else { Initialization::Warm },
            caveats: Caveats {
                estimated: flags.1,
                report_missing: flags.2,
                starved_inferred: flags.3,
                peak_sampled: flags.4,
                work_estimated: flags.5,
            },
            duration_us: times.0,
            runtime_us: times.1,
            billed_ms: times.2,
            init_us: times.3,
            restore_us: times.0 / 2,
            produced_bytes: times.1 / 2,
            max_memory_used_mb: small[0],
            peak_kib: times.2 / 2,
            start_kib: times.3 / 2,
            threads: small[1],
            descriptors: small[2],
            tmp_used_kib: times.0 / 3,
            work: work.map(Work::from_counters),
        },
    )
}

proptest! {
    #[test]
    fn conversion_is_lossless(invocations in prop::collection::vec(invocation(), 0..20)) {
        let batch = batch(invocations);
        prop_assert_eq!(Batch::decode(&batch.encode().unwrap()).unwrap(), batch);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Batch::decode(&bytes);
    }

    #[test]
    fn a_damaged_batch_never_panics(invocations in prop::collection::vec(invocation(), 1..5), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = batch(invocations).encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Batch::decode(&bytes);
    }
}

/// Encodes what `damage` made of a good message.
fn damaged(damage: impl FnOnce(&mut wire::Batch)) -> Result<Batch, BatchError> {
    let good = batch(vec![Invocation { duration_us: 5, ..Invocation::default() }]);
    let mut message = wire::Batch::decode(good.encode().unwrap().as_slice()).unwrap();
    damage(&mut message);
    Batch::decode(&message.encode_to_vec())
}

#[test]
fn limits_are_enforced_with_the_field_named() {
    let cases: [(Result<Batch, BatchError>, &str); 8] = [
        (damaged(|m| m.header.as_mut().unwrap().sequence = 0), "sequences count from 1"),
        (damaged(|m| m.header.as_mut().unwrap().environment = None), "no `environment`"),
        (
            damaged(|m| m.header.as_mut().unwrap().environment.as_mut().unwrap().function = "x".repeat(513)),
            "environment.function",
        ),
        (damaged(|m| m.header.as_mut().unwrap().environment.as_mut().unwrap().id = vec![1; 15]), "15 bytes"),
        (
            damaged(|m| {
                m.header.as_mut().unwrap().environment.as_mut().unwrap().architecture = "mips".into()
            }),
            "`mips`",
        ),
        (damaged(|m| m.header.as_mut().unwrap().environment.as_mut().unwrap().memory_mb = 64), "64 MB"),
        (damaged(|m| m.invocations.as_mut().unwrap().count = 1_000_000), "1000000 invocations"),
        (damaged(|m| m.invocations.as_mut().unwrap().count = 2), "column"),
    ];
    for (result, expected) in cases {
        let message = result.expect_err(expected).to_string();
        assert!(message.contains(expected), "`{message}` does not contain `{expected}`");
    }
    assert!(matches!(Batch::decode(&vec![0; MAX_BATCH_BYTES + 1]), Err(BatchError::TooLarge(_))));
}

#[test]
fn a_typical_invocation_costs_few_bytes_on_the_wire() {
    let row = Invocation {
        request_id: RequestId(0x1111_2222_3333_4444_5555_6666_7777_8888),
        started_at_us: 1_790_000_000_000_000,
        outcome: Outcome::Success,
        duration_us: 25_400,
        runtime_us: 25_100,
        billed_ms: 26,
        max_memory_used_mb: 71,
        peak_kib: 64_000,
        start_kib: 62_000,
        work: Some(Work {
            user_us: 9_000,
            system_us: 900,
            idle_us: 15_000,
            main: ClassWork { busy_us: 9_500, starved_us: 120, threads: 1 },
            collector: ClassWork { busy_us: 350, starved_us: 90, threads: 2 },
            unseen_busy_us: 20,
            ..Work::default()
        }),
        ..Invocation::default()
    };
    let size = |count| batch(vec![row; count]).encode().unwrap().len();
    assert!(size(1_001) - size(1) <= 64 * 1_000, "{} bytes each", (size(1_001) - size(1)) / 1_000);
}

#[test]
fn an_unknown_initialization_type_is_kept() {
    for name in
        ["on-demand", "provisioned-concurrency", "snap-start", "lambda-managed-instances", "one-to-come", ""]
    {
        let parsed = InitializationType::from(name.to_owned());
        assert_eq!(parsed.as_str(), name);
        assert_eq!(matches!(parsed, InitializationType::Other(_)), name.is_empty() || name == "one-to-come");
    }
}
