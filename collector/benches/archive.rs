//! Writes many invocations into an archive in a real S3 server, kills the collector on the way, and reads them with DuckDB.
//!
//! `cargo xtask bench archive`. It fails when an invocation is lost or twice, or when totals differ. Senders, collector and
//! S3 server share the machine.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/common/fleet.rs"]
mod fleet;
#[expect(dead_code, reason = "the benchmark starts it with arguments and reads no totals")]
#[path = "../tests/common/process.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_proto::batch::Batch;
use fleet::KINDS;
use process::{CollectorProcess, send_batch_within};
use serde_json::Value;
use tailor_archive::DAY_US;
use tailor_collector::archive::request;
use tailor_collector::clock::now_us;
use tailor_sizing::telemetry::invocation::RequestId;
use tailor_test_kit::python;
use tailor_test_kit::random::Random;
use tailor_test_kit::s3::S3Server;

/// Invocations in a batch.
const BATCH: u64 = 1_000;

/// Functions, and days over which their invocations are spread.
const FUNCTIONS: u64 = 200;
const DAYS: u64 = 30;

/// Threads that send.
const SENDERS: u64 = 4;

const ADDRESS: &str = "s3://archive-bench/tailor";

struct Options {
    invocations: u64,
    kills: u64,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self { invocations: 10_000_000, kills: 10 };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--invocations" => options.invocations = arguments.next().unwrap().parse().unwrap(),
                "--kills" => options.kills = arguments.next().unwrap().parse().unwrap(),
                // `cargo bench` adds it.
                "--bench" => {}
                other => panic!("unknown argument {other}: --invocations N, --kills N"),
            }
        }
        options
    }
}

/// A number without a pattern.
fn mixed(seed: u64) -> u64 {
    Random::new(seed).next_u64()
}

/// The batch with a number: of one of the functions, on one of the days, with random request ids.
fn batch(number: u64, start_us: u64) -> Batch {
    let function = number % FUNCTIONS;
    let kind = &KINDS[usize::try_from(function).unwrap() % KINDS.len()];
    let end_us = start_us - number / FUNCTIONS % DAYS * DAY_US - mixed(number) % (DAY_US / 2);
    let mut batch = fleet::batch(kind, number + 1, 1, BATCH, end_us);
    batch.header.environment.function = format!("{}-{function}", kind.name);
    for (index, invocation) in (0u64..).zip(&mut batch.invocations) {
        let seed = number * BATCH + index;
        let id = u128::from(mixed(seed)) << 64 | u128::from(mixed(!seed));
        invocation.request_id = RequestId(id);
        invocation.started_at_us += mixed(seed ^ 0x55) % 1_000_000;
    }
    batch
}

fn start(folder: &Path, server: &S3Server) -> CollectorProcess {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
    program.envs(server.environment());
    CollectorProcess::start_as(program, folder, &["--archive", ADDRESS])
}

/// Sends all batches, each until it is acknowledged, while the collector is killed. Returns the sum of billed time.
fn send(options: &Options, folder: &Path, server: &S3Server) -> u64 {
    let mut collector = start(folder, server);
    let key = std::fs::read_to_string(folder.join("api-key")).unwrap().trim().to_owned();
    let address = Arc::new(Mutex::new(collector.address.clone()));
    let (next, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let batches = options.invocations / BATCH;
    let start_us = now_us();
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (next, done, address) = (Arc::clone(&next), Arc::clone(&done), Arc::clone(&address));
            let key = key.clone();
            std::thread::spawn(move || {
                let mut billed_ms = 0;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= batches {
                        return billed_ms;
                    }
                    let batch = batch(number, start_us);
                    billed_ms += batch.invocations.iter().map(|one| one.billed_ms).sum::<u64>();
                    let body = batch.encode().unwrap();
                    let sent = |address: &Mutex<String>| {
                        let address = address.lock().unwrap().clone();
                        send_batch_within(Duration::from_secs(30), &address, &key, &body) == Some(200)
                    };
                    while !sent(&address) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for kill in 1..=options.kills {
        let until = batches * kill / (options.kills + 1);
        while done.load(Ordering::Relaxed) < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        // It is killed while it seals, uploads, records or removes.
        request::submit(folder).unwrap();
        std::thread::sleep(Duration::from_millis(300 + mixed(kill) % 4_000));
        collector.kill();
        println!("kill {kill}: {} batches acknowledged", done.load(Ordering::Relaxed));
        collector = start(folder, server);
        *address.lock().unwrap() = collector.address.clone();
    }
    let billed_ms = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
    let flushed =
        tailor(server, &["archive", "flush", "--timeout", "3600", "--data", folder.to_str().unwrap()]);
    assert!(flushed.status.success(), "{}", text(&flushed));
    print!("{}", text(&flushed));
    billed_ms
}

fn tailor(server: &S3Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
    command.args(arguments).envs(server.environment()).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn main() {
    let options = Options::parse();
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let server = S3Server::start(&temporary.path().join("s3")).unwrap();
    let folder = temporary.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    let begin = Instant::now();
    let billed_ms = send(&options, &folder, &server);
    println!("{} invocations archived in {:.0} s", options.invocations, begin.elapsed().as_secs_f64());
    let verified = tailor(
        &server,
        &["archive", "verify", "--read", "--archive", ADDRESS, "--data", folder.to_str().unwrap()],
    );
    assert!(verified.status.success(), "{}", text(&verified));
    println!("{}", text(&verified).lines().last().unwrap_or_default());
    let read = read(&server, &temporary.path().join("copy"));
    let rows = options.invocations / BATCH * BATCH;
    assert_eq!((&read["rows"], &read["keys"]), (&rows.into(), &rows.into()), "rows, and different rows");
    assert_eq!(read["billed_ms"], billed_ms);
    let bytes = read["bytes"].as_u64().unwrap();
    println!(
        "DuckDB reads {rows} rows, all different, with the billed time that was sent; {} objects, {:.1} MB, {:.1} bytes \
         per invocation; monthly query by function (count, cost, p99): {} s",
        read["objects"],
        bytes as f64 / 1e6,
        bytes as f64 / rows as f64,
        read["query_seconds"]
    );
}

/// Copies the objects, and reads them with DuckDB.
fn read(server: &S3Server, copy: &Path) -> Value {
    let packages = python::install("archive-readers", &["duckdb==2.0.1", "sqlglot==30.30.0"]).unwrap();
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/archive/measure.py");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).arg(script).arg(server.files_url("archive-bench/tailor")).arg(copy);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
