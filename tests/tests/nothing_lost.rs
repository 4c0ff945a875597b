//! No invocation is lost or counted twice, under these faults: many concurrent environments, a collector that is killed
//! several times, connections without a response, lost responses, telemetry that is duplicated, reordered and contains
//! unknown records, and a freeze after every invocation.
//!
//! `TAILOR_NOTHING_LOST_INVOCATIONS` sets the number of invocations. The default is 2,000.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::functions::{EXAMPLES, Example};
use tailor_test_kit::process::free_address;
use tailor_test_kit::workspace;

const ENVIRONMENTS: u64 = 50;

/// The proxy drops one of this many responses of the collector.
const RESPONSES_PER_DROP: u64 = 5;

/// A proxy between the extensions and the collector. It closes some connections instead of relaying the response.
struct Proxy {
    address: SocketAddr,
    responses: AtomicU64,
    dropped: AtomicU64,
    /// Whether all responses are relayed.
    is_transparent: AtomicBool,
}

impl Proxy {
    fn start(collector: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            responses: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            is_transparent: AtomicBool::new(false),
        });
        let shared = Arc::clone(&proxy);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let proxy = Arc::clone(&shared);
                // While the collector does not run, the connection is closed.
                thread::spawn(move || drop(proxy.relay(&client, collector)));
            }
        });
        proxy
    }

    fn relay(&self, client: &TcpStream, collector: SocketAddr) -> std::io::Result<()> {
        let server = TcpStream::connect(collector)?;
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Both);
        });
        let mut response = [0; 64 * 1024];
        loop {
            // When the collector is killed, the client receives no more data and its connection stays open, because the
            // thread above still has it. The client waits as after a network failure.
            let length = (&server).read(&mut response)?;
            // The collector sends each response in one write, so this is one response.
            let due =
                self.responses.fetch_add(1, Ordering::Relaxed) % RESPONSES_PER_DROP == RESPONSES_PER_DROP - 1;
            let drops = length > 0 && due && !self.is_transparent.load(Ordering::Relaxed);
            if drops {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            if length == 0 || drops {
                return client.shutdown(Shutdown::Both);
            }
            (&*client).write_all(&response[..length])?;
        }
    }
}

/// Totals of the platform's reports: invocations, errors, and billed milliseconds.
fn reported(trace: &[Value]) -> [u64; 3] {
    let reports = trace.iter().filter(|line| line["type"] == "platform.report");
    reports.fold([0; 3], |[invocations, errors, billed_ms], line| {
        let record = &line["record"];
        let billed = record["metrics"]["billedDurationMs"].as_u64().unwrap();
        [invocations + 1, errors + u64::from(record["status"] != "success"), billed_ms + billed]
    })
}

/// A function that waits long enough that the concurrent callers each get their own environment.
fn steady() -> Example {
    let io = EXAMPLES.iter().find(|example| example.workload == "io").unwrap();
    Example { name: "steady", event: r#"{"requests":1,"delay_ms":30}"#, ..io.clone() }
}

#[test]
fn no_invocation_is_lost_or_counted_twice() {
    let invocations: u64 = std::env::var("TAILOR_NOTHING_LOST_INVOCATIONS")
        .map_or(2_000, |text| text.parse().expect("TAILOR_NOTHING_LOST_INVOCATIONS is a number"));
    let folder = tempfile::tempdir().unwrap();
    let example = steady();
    let collector = free_address().unwrap();
    let proxy = Proxy::start(collector);
    let (programs, project) = (build::programs().unwrap(), workspace::project().unwrap());
    let listen = collector.to_string();
    let mut deployment = Deployment::start(&Plan {
        endpoint: Some(format!("http://{}", proxy.address)),
        collector_listen: &listen,
        flush_interval_ms: 200,
        ..Plan::new(programs, &project, folder.path(), std::slice::from_ref(&example))
    })
    .unwrap();
    ureq::put(format!("{}/sandbox/faults", deployment.sandbox_url()))
        .send(r#"{"duplicate_telemetry":3,"reorder_telemetry":true,"unknown_telemetry":true}"#)
        .unwrap();

    let completed = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..ENVIRONMENTS)
        .map(|_| {
            let (lambda, completed, event) =
                (deployment.lambda.clone(), Arc::clone(&completed), example.event);
            thread::spawn(move || {
                for _ in 0..invocations / ENVIRONMENTS {
                    let answer = lambda.invoke("steady", event).unwrap();
                    assert_eq!(answer.function_error, None, "{}", answer.payload);
                    completed.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut restarts = 0u64;
    // The collector is killed after each sixth of the invocations and restarted after 700 ms.
    while callers.iter().any(|caller| !caller.is_finished()) {
        thread::sleep(Duration::from_millis(50));
        if completed.load(Ordering::Relaxed) * 6 > (restarts + 1) * invocations {
            deployment.kill_collector().unwrap();
            thread::sleep(Duration::from_millis(700));
            deployment.start_collector().unwrap();
            restarts += 1;
        }
    }
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    proxy.is_transparent.store(true, Ordering::Relaxed);
    deployment.stop_sandbox().unwrap();

    let trace = deployment.trace().unwrap();
    let environments: BTreeSet<_> = trace.iter().filter_map(|line| line["environment"].as_str()).collect();
    let dropped = proxy.dropped.load(Ordering::Relaxed);
    let expected = reported(&trace);
    let function = deployment.summary().unwrap()["functions"][0].clone();
    let shown = ["invocations", "errors", "billed_ms"].map(|name| function[name].as_u64().unwrap());
    println!(
        "{} invocations in {} environments; the collector was killed {restarts} times, {dropped} responses were dropped",
        expected[0],
        environments.len()
    );
    assert_eq!(expected[0], invocations / ENVIRONMENTS * ENVIRONMENTS);
    assert_eq!(shown, expected, "{function}");
    assert!(environments.len() as u64 >= ENVIRONMENTS * 9 / 10, "{}", environments.len());
    assert!(restarts >= 4 && dropped > 0, "too few faults: {restarts} restarts, {dropped} dropped responses");
}

/// An environment that is killed cannot send its last batch. The earlier batches contain the number of started
/// invocations.
#[test]
fn invocations_lost_with_a_killed_environment_are_reported() {
    const KILLED: u64 = 5;
    const ROUNDS: u64 = 3;
    let folder = tempfile::tempdir().unwrap();
    let example = steady();
    let (programs, project) = (build::programs().unwrap(), workspace::project().unwrap());
    let mut deployment = Deployment::start(&Plan {
        // Each invocation is delivered during the next.
        flush_interval_ms: 0,
        ..Plan::new(programs, &project, folder.path(), std::slice::from_ref(&example))
    })
    .unwrap();
    let invoke_all = |event: &'static str| -> Vec<_> {
        let callers = (0..KILLED).map(|_| {
            let lambda = deployment.lambda.clone();
            thread::spawn(move || lambda.invoke("steady", event))
        });
        callers.collect()
    };
    let wait_until = |what: &str, condition: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(50));
        }
    };
    let count = |field: &str, value: &str| {
        let trace = deployment.trace().unwrap();
        trace.iter().filter(|line| line[field] == value).count() as u64
    };
    for round in 1..=ROUNDS {
        let callers = invoke_all(r#"{"requests":1,"delay_ms":500}"#);
        callers
            .into_iter()
            .for_each(|caller| assert_eq!(caller.join().unwrap().unwrap().function_error, None));
        wait_until("all environments are frozen", &|| count("event", "environment.freeze") >= round * KILLED);
    }
    let _interrupted = invoke_all(r#"{"requests":1,"delay_ms":60000}"#);
    let function = || deployment.summary().unwrap()["functions"][0].clone();
    wait_until("all completed invocations are delivered", &|| function()["invocations"] == KILLED * ROUNDS);
    let started = count("type", "platform.start");
    assert_eq!(started, KILLED * (ROUNDS + 1));
    deployment.kill_sandbox().unwrap();

    let function = deployment.summary().unwrap()["functions"][0].clone();
    let counted = ["invocations", "environments"].map(|name| function[name].as_u64().unwrap());
    assert_eq!(counted, [KILLED * ROUNDS, KILLED]);
    assert_eq!(function["lost"]["unsent"], started - KILLED * ROUNDS, "{function}");
}
