//! Writes the seeds of the kept corpus: `cargo run --manifest-path fuzz/Cargo.toml --example seed`.
//!
//! A seed is a valid input from which the fuzzer starts. Run this again after a change of a format, and commit the
//! files.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use agent_proto::batch::Batch;
use agent_proto::{rollup, wire};
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use tailor_sizing::telemetry::invocation::{Initialization, Invocation, RequestId, Work};
use tailor_sizing::telemetry::rollup::Rollup;

const FOCUS: &str = include_str!("../../billing/tests/data/focus-sample-lambda.csv");

const CUR: &str = r#"line_item_line_item_type,line_item_usage_start_date,line_item_usage_end_date,line_item_product_code,line_item_usage_type,line_item_resource_id,line_item_usage_amount,line_item_unblended_cost,savings_plan_savings_plan_effective_cost
Usage,2026-11-03T00:00:00.000Z,2026-11-03T01:00:00.000Z,AWSLambda,EU-Lambda-GB-Second,arn:aws:lambda:eu-west-1:123456789012:function:pay,142.628,0.0023771381,
SavingsPlanCoveredUsage,2026-11-03T01:00:00.000Z,2026-11-03T02:00:00.000Z,AWSLambda,EU-Request,arn:aws:lambda:eu-west-1:123456789012:function:pay,6.0E1,0.000012,1.0E-5
"#;

const DELIVERY: &str = r#"[
{"time":"2026-01-02T03:04:05.000Z","type":"platform.initStart","record":{"initializationType":"on-demand","phase":"init","runtimeVersion":"python:3.13.v50","functionName":"checkout"}},
{"time":"2026-01-02T03:04:05.100Z","type":"platform.initReport","record":{"phase":"init","metrics":{"durationMs":100.5}}},
{"time":"2026-01-02T03:04:05.160Z","type":"platform.start","record":{"requestId":"6f7f0961-f834-4211-8a5f-9d1c2a1f3c55","version":"$LATEST"}},
{"time":"2026-01-02T03:04:05.200Z","type":"platform.runtimeDone","record":{"requestId":"6f7f0961-f834-4211-8a5f-9d1c2a1f3c55","status":"error","errorType":"Runtime.ExitError","metrics":{"durationMs":40.2,"producedBytes":12}}},
{"time":"2026-01-02T03:04:05.201Z","type":"platform.report","record":{"requestId":"6f7f0961-f834-4211-8a5f-9d1c2a1f3c55","status":"success","metrics":{"durationMs":41.5,"billedDurationMs":42,"memorySizeMB":512,"maxMemoryUsedMB":80,"initDurationMs":100.5,"restoreDurationMs":7}}},
{"time":"2026-01-02T03:04:06Z","type":"platform.restoreStart","record":{}},
{"time":"2026-01-02T03:04:07Z","type":"platform.logsDropped","record":{"droppedRecords":3,"droppedBytes":100,"reason":"x"}},
{"time":"x","type":"function","record":"plain text\n"}]"#;

const LOG: &str = "\
2026-01-02T03:04:05.000Z INIT_START Runtime Version: python:3.13.v50\tRuntime Version ARN: arn:aws:lambda:eu-west-1::runtime:0
2026-01-02T03:04:05.160Z START RequestId: 6f7f0961-f834-4211-8a5f-9d1c2a1f3c55 Version: $LATEST
2026-01-02T03:04:05.201Z REPORT RequestId: 6f7f0961-f834-4211-8a5f-9d1c2a1f3c55\tDuration: 41.50 ms\tBilled Duration: 42 ms\t\
Memory Size: 512 MB\tMax Memory Used: 80 MB\tInit Duration: 100.50 ms\tStatus: timeout\t
2026-01-02T03:04:05.201Z 2026-01-02T03:04:05.201Z 6f7f0961-f834-4211-8a5f-9d1c2a1f3c55 Task timed out after 3.00 seconds
";
const SUBSCRIPTION: &str = r#"{"messageType":"DATA_MESSAGE","owner":"123456789012","logGroup":"/aws/lambda/pay","logStream":"2026/01/02/[$LATEST]0123abcd","logEvents":[{"id":"1","timestamp":1767323045678,"message":"REPORT RequestId: 6f7f0961-f834-4211-8a5f-9d1c2a1f3c55\tDuration: 41.50 ms\tBilled Duration: 42 ms\tMemory Size: 512 MB\tMax Memory Used: 80 MB\t\n"}]}"#;
const INSIGHTS: &str = r#"{"results":[[{"field":"@timestamp","value":"2026-01-02 03:04:05.678"},{"field":"@log","value":"123456789012:/aws/lambda/pay"},{"field":"@requestId","value":"6f7f0961-f834-4211-8a5f-9d1c2a1f3c55"},{"field":"@duration","value":"41.5"},{"field":"@billedDuration","value":"42.0"},{"field":"@memorySize","value":"5.12E8"}]]}"#;
const TABLE: &str = "timestamp,message\n1767323045678,\"REPORT RequestId: 6f7f0961-f834-4211-8a5f-9d1c2a1f3c55\tDuration: 41.50 ms\t\
                     Billed Duration: 42 ms\tMemory Size: 512 MB\tMax Memory Used: 80 MB\n\"\n";

const STAT: &str = "4021 (a) (b) S 4000 4021 4021 0 -1 4194304 2417 9211 3 0 51 17 8 2 20 0 9 0 71234 1130987520 \
                    12001 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0";
const STATUS: &str = "Name:\tnode\nVmHWM:\t   81234 kB\nVmRSS:\t   80112 kB\nThreads:\t11\n\
                      voluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t12\n";
const NET_DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
                       face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
                       lo:    1200      12    0    0    0     0          0         0     1200      12    0\n\
                       vinternal_1:  91234     301    0    0    0     0          0         0    40021     204    0\n";
const NET_SNMP: &str =
    "Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens\nTcp: 1 200 120000 -1 17 4\n";

fn invocations(count: u64) -> impl Iterator<Item = Invocation> {
    (0..count).map(|index| Invocation {
        request_id: RequestId(u128::from(index) << 64 | 77),
        started_at_us: 1_767_323_045_160_000 + index * 1_000_000,
        initialization: if index == 0 { Initialization::OnDemand } else { Initialization::Warm },
        duration_us: 41_500 + 1_000 * index,
        billed_ms: 42 + index,
        peak_kib: 80_112,
        work: (index % 3 != 2).then(|| Work { user_us: 30_000, idle_us: 9_000, ..Work::default() }),
        ..Invocation::default()
    })
}

fn batch(count: u64) -> wire::Batch {
    let rows: Vec<_> = invocations(count).collect();
    let per_row = |value: fn(&Invocation) -> u64| rows.iter().map(value).collect::<Vec<_>>();
    let header = wire::BatchHeader {
        environment: Some(wire::Environment {
            id: vec![7; 16],
            account: "123456789012".into(),
            region: "eu-west-1".into(),
            function: "checkout".into(),
            version: "$LATEST".into(),
            memory_mb: 512,
            architecture: "arm64".into(),
            runtime: "python:3.13.v50".into(),
            initialization_type: "on-demand".into(),
            ..wire::Environment::default()
        }),
        sequence: 9,
        lost: Some(wire::Lost { invocations: 3, ..wire::Lost::default() }),
        overhead: Some(wire::Overhead { cpu_us: 120, ..wire::Overhead::default() }),
        sent_at_us: 1_767_323_099_000_000,
        unsent: 2,
        interval: None,
    };
    wire::Batch {
        header: Some(header),
        invocations: Some(wire::Invocations {
            count: u32::try_from(count).unwrap_or_default(),
            request_ids: rows.iter().flat_map(|row| row.request_id.0.to_be_bytes()).collect(),
            started_at_us_delta: rows.iter().map(|_| 1_000_000).collect(),
            duration_us: per_row(|row| row.duration_us),
            billed_ms: per_row(|row| row.billed_ms),
            peak_kib: per_row(|row| row.peak_kib),
            ..wire::Invocations::default()
        }),
    }
}

fn write(target: &str, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    for count in [0, 1, 20] {
        let plain = batch(count).encode_to_vec();
        Batch::decode(&plain)?;
        write("batch", &format!("seed-{count}"), &plain)?;

        let mut totals = Rollup::default();
        invocations(count).for_each(|invocation| totals.record(&invocation));
        let bytes = rollup::encode(&totals);
        rollup::decode(&bytes)?;
        write("rollup", &format!("seed-{count}"), &bytes)?;

        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&plain)?;
        let bodies = [plain.clone(), gzip.finish()?, zstd::encode_all(plain.as_slice(), 3)?];
        for (encoding, body) in (0u8..).zip(&bodies) {
            write("body", &format!("seed-{encoding}-{count}"), &[&[encoding], body.as_slice()].concat())?;
        }
    }
    write("telemetry", "seed-delivery", DELIVERY.as_bytes())?;
    for (name, text) in [
        ("stat", STAT),
        ("status", STATUS),
        ("schedstat", "9211 77 12\n"),
        ("net-dev", NET_DEV),
        ("net-snmp", NET_SNMP),
    ] {
        write("proc", &format!("seed-{name}"), text.as_bytes())?;
    }
    let events: String =
        DELIVERY.lines().skip(1).map(|line| format!("{}\n", line.trim_end_matches([',', ']']))).collect();
    for (name, text) in [
        ("text", LOG),
        ("events", events.as_str()),
        ("delivery", DELIVERY),
        ("subscription", SUBSCRIPTION),
        ("insights", INSIGHTS),
        ("table", TABLE),
    ] {
        write("logs", &format!("seed-{name}"), text.as_bytes())?;
    }
    write("bills", "seed-focus", FOCUS.as_bytes())?;
    write("bills", "seed-cur", CUR.as_bytes())?;
    write("logs", "seed-zstd", &zstd::encode_all(SUBSCRIPTION.as_bytes(), 3)?)?;
    Ok(())
}
