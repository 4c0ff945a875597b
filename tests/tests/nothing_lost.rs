//! Nothing is lost and nothing counted twice: many environments at once, a collector that is killed again and
//! again, connections that then fall silent, answers that never arrive, telemetry that comes twice, reversed and with strangers in it, and a freeze
//! after every invocation.
//!
//! `TAILOR_NOTHING_LOST_INVOCATIONS` sets how many invocations; 2,000 unless it says otherwise.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

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

/// Every so many answers of the collector are thrown away on the way back.
const DROPPED_ANSWER: u64 = 5;

/// Stands between the extensions and the collector, and breaks connections when an answer is due.
struct Proxy {
    address: SocketAddr,
    seen: AtomicU64,
    dropped: AtomicU64,
    honest: AtomicBool,
}

impl Proxy {
    fn start(collector: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            seen: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            honest: AtomicBool::new(false),
        });
        let shared = Arc::clone(&proxy);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let proxy = Arc::clone(&shared);
                // Without a collector the connection just ends, as one to a dead machine does.
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
        let mut answer = [0; 64 * 1024];
        loop {
            // When the collector is killed, the client hears nothing more: the thread above holds its side open,
            // and it waits as it would for a network that lost the route.
            let length = (&server).read(&mut answer)?;
            // The collector answers in one write, so this is one answer.
            let due = self.seen.fetch_add(1, Ordering::Relaxed) % DROPPED_ANSWER == DROPPED_ANSWER - 1;
            let drops = length > 0 && due && !self.honest.load(Ordering::Relaxed);
            if drops {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            if length == 0 || drops {
                return client.shutdown(Shutdown::Both);
            }
            (&*client).write_all(&answer[..length])?;
        }
    }
}

/// What the platform says of all invocations: how many, how many failed, and milliseconds billed.
fn reported(trace: &[Value]) -> [u64; 3] {
    let reports = trace.iter().filter(|line| line["type"] == "platform.report");
    reports.fold([0; 3], |[invocations, errors, billed_ms], line| {
        let record = &line["record"];
        let billed = record["metrics"]["billedDurationMs"].as_u64().unwrap();
        [invocations + 1, errors + u64::from(record["status"] != "success"), billed_ms + billed]
    })
}

/// A function that waits, long enough that all callers are served at once, each by an environment of its own.
fn steady() -> Example {
    let io = EXAMPLES.iter().find(|example| example.workload == "io").unwrap();
    Example { name: "steady", event: r#"{"requests":1,"delay_ms":30}"#, ..io.clone() }
}

#[test]
fn nothing_is_lost_and_nothing_counted_twice() {
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

    let answered = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..ENVIRONMENTS)
        .map(|_| {
            let (lambda, answered, event) = (deployment.lambda.clone(), Arc::clone(&answered), example.event);
            thread::spawn(move || {
                for _ in 0..invocations / ENVIRONMENTS {
                    let answer = lambda.invoke("steady", event).unwrap();
                    assert_eq!(answer.function_error, None, "{}", answer.payload);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut restarts = 0u64;
    // Killed at every sixth of the way, and gone for a while each time.
    while callers.iter().any(|caller| !caller.is_finished()) {
        thread::sleep(Duration::from_millis(50));
        if answered.load(Ordering::Relaxed) * 6 > (restarts + 1) * invocations {
            deployment.kill_collector().unwrap();
            thread::sleep(Duration::from_millis(700));
            deployment.start_collector().unwrap();
            restarts += 1;
        }
    }
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    proxy.honest.store(true, Ordering::Relaxed);
    deployment.stop_sandbox().unwrap();

    let trace = deployment.trace().unwrap();
    let environments: BTreeSet<_> = trace.iter().filter_map(|line| line["environment"].as_str()).collect();
    let dropped = proxy.dropped.load(Ordering::Relaxed);
    let expected = reported(&trace);
    let function = deployment.summary().unwrap()["functions"][0].clone();
    let shown = ["invocations", "errors", "billed_ms"].map(|name| function[name].as_u64().unwrap());
    println!(
        "{} invocations in {} environments; the collector was killed {restarts} times, {dropped} answers were dropped",
        expected[0],
        environments.len()
    );
    assert_eq!(expected[0], invocations / ENVIRONMENTS * ENVIRONMENTS);
    assert_eq!(shown, expected, "{function}");
    assert!(environments.len() as u64 >= ENVIRONMENTS * 9 / 10, "{}", environments.len());
    assert!(restarts >= 4 && dropped > 0, "the faults were not made: {restarts}, {dropped}");
}

/// Environments that are killed outright cannot say a last word. What they had begun is known from the one before.
#[test]
fn what_is_lost_with_a_killed_environment_is_reported() {
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
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
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
        until("they can be used again", &|| count("event", "environment.freeze") >= round * KILLED);
    }
    let _cut_off = invoke_all(r#"{"requests":1,"delay_ms":60000}"#);
    let function = || deployment.summary().unwrap()["functions"][0].clone();
    until("all before it are delivered", &|| function()["invocations"] == KILLED * ROUNDS);
    let begun = count("type", "platform.start");
    assert_eq!(begun, KILLED * (ROUNDS + 1));
    deployment.kill_sandbox().unwrap();

    let function = deployment.summary().unwrap()["functions"][0].clone();
    let counted = ["invocations", "environments"].map(|name| function[name].as_u64().unwrap());
    assert_eq!(counted, [KILLED * ROUNDS, KILLED]);
    assert_eq!(function["lost"]["unsent"], begun - KILLED * ROUNDS, "{function}");
}
