//! Several collectors with one database.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::KEY;
use common::fleet::{KINDS, batch};
use common::places::{AnyStore, Place};
use common::process::CollectorProcess;
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::report::summaries::Summarizer;
use tailor_collector::store::postgres::{Database, PostgresStore, Secrets};
use tailor_collector::store::summary::SummaryKind;
use tailor_collector::store::{HOUR_US, Lease, NewBatch, Store, Tenant, Window};
use tailor_collector::tuner::orders::{Order, Requests};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::rollup::Rollup;
use tokio::runtime::Runtime;

/// Longer than everything that a test waits for, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn one_collector_holds_a_lease_and_another_takes_it_over() {
    let Some(place) = Place::database() else { return };
    let runtime = Runtime::new().unwrap();
    let (first, second) = (place.open_at(now_us()), place.open_at(now_us()));
    let holds = |store: &AnyStore, lease| runtime.block_on(store.hold(lease)).unwrap();
    assert!(holds(&first, Lease::Tuner) && holds(&first, Lease::Tuner));
    assert!(!holds(&second, Lease::Tuner));
    assert!(holds(&second, Lease::Summaries) && !holds(&first, Lease::Summaries));
    // A collector that stops gives its leases back.
    drop(first);
    assert!(holds(&second, Lease::Tuner));
}

#[test]
fn a_request_to_the_tuner_reaches_every_collector_and_is_carried_out_once() {
    let Some(place) = Place::database() else { return };
    let Place::Database { url, .. } = &place else { unreachable!("it is a database") };
    let open = || {
        let database = Database::new(url, &Secrets::default()).unwrap();
        Arc::new(PostgresStore::open(&database).unwrap()) as Arc<dyn Store>
    };
    let runtime = Runtime::new().unwrap();
    let requests = Requests::Store(open(), Tenant::default());
    let database = Database::new(url, &Secrets::default()).unwrap();
    let reader = Arc::new(PostgresStore::open_to_read(&database).unwrap());
    let command = Requests::Store(reader, Tenant::default());
    let freeze = Order::Freeze { reason: "100 % of a test".to_owned() };
    runtime.block_on(command.submit(&freeze, 2)).unwrap();
    runtime.block_on(command.submit(&Order::Unfreeze { reason: String::new() }, 1)).unwrap();
    let other = Requests::Store(open(), Tenant("other".to_owned()));
    assert!(runtime.block_on(other.pending()).is_empty());
    let pending = runtime.block_on(requests.pending());
    assert_eq!(pending.len(), 2);
    assert_eq!(pending[1].1, freeze, "the oldest comes first");
    runtime.block_on(requests.remove(&pending[0].0));
    assert_eq!(runtime.block_on(command.pending()), pending[1..]);
}

fn new_batch(environment: u64, sequence: u64) -> NewBatch {
    let at_us = now_us();
    let batch = batch(&KINDS[usize::try_from(environment).unwrap() % 3], environment, sequence, 2, at_us);
    let mut rollup = Rollup::default();
    batch.invocations.iter().for_each(|invocation| rollup.record(invocation));
    NewBatch {
        tenant: Tenant::default(),
        received_at_us: at_us,
        rollups: vec![(at_us / HOUR_US, rollup)],
        last_at_us: at_us,
        invocations: 2,
        body: Bytes::from(batch.encode().unwrap()),
        header: batch.header,
    }
}

/// The lists of large fleets are read from summaries, in a database as in a folder.
#[test]
fn summaries_are_kept_current_in_a_database() {
    let Some(place) = Place::database() else { return };
    let Place::Database { url, .. } = &place else { unreachable!("it is a database") };
    let database = Database::new(url, &Secrets::default()).unwrap();
    let store = Arc::new(PostgresStore::open(&database).unwrap());
    let runtime = Runtime::new().unwrap();
    let summarizer = Summarizer {
        store: Arc::clone(&store) as Arc<dyn Store>,
        prices: PriceTable::embedded(),
        clock: Clock::system(),
        enforcements: Arc::default(),
        fleet_sums: Arc::default(),
    };
    for environment in 1..4 {
        runtime.block_on(store.append(new_batch(environment, 1))).unwrap();
    }
    while runtime.block_on(summarizer.step()).unwrap() > 0 {}
    let kind = SummaryKind { hours: 24, strategy: "cost".to_owned() };
    let rows = runtime.block_on(store.summaries(&Tenant::default(), &kind)).unwrap();
    let invocations: u64 = rows.iter().map(|row| row.invocations).sum();
    assert_eq!((rows.len(), invocations), (3, 6));
    assert!(runtime.block_on(store.changed_functions(10)).unwrap().is_empty());
}

/// Two collectors receive the same batches, and both compact all the time: whatever the order of an insert, a compaction
/// and a repetition, a batch counts once, also for readers in between.
#[test]
fn batches_count_once_when_two_collectors_receive_and_compact_them() {
    const ENVIRONMENTS: u64 = 6;
    const SEQUENCES: u64 = 40;
    let Some(place) = Place::database() else { return };
    let stores = Arc::new([place.open_at(now_us()), place.open_at(now_us())]);
    let runtime = Runtime::new().unwrap();
    let is_sending = Arc::new(AtomicBool::new(true));
    let invocations = |store: &AnyStore, runtime: &Runtime| -> u64 {
        let series = runtime.block_on(store.series(&Tenant::default(), None, Window::ALL)).unwrap();
        series.iter().map(|series| series.rollup.invocations).sum()
    };
    std::thread::scope(|threads| {
        for store in &*stores {
            let is_sending = Arc::clone(&is_sending);
            threads.spawn(move || {
                let runtime = Runtime::new().unwrap();
                while is_sending.load(Ordering::Relaxed) {
                    runtime.block_on(store.maintain()).unwrap();
                    assert!(invocations(store, &runtime) <= 2 * ENVIRONMENTS * SEQUENCES);
                }
            });
        }
        let senders: Vec<_> = (1..=ENVIRONMENTS)
            .flat_map(|environment| [(environment, 0), (environment, 1)])
            .map(|(environment, number)| {
                let stores = Arc::clone(&stores);
                threads.spawn(move || {
                    let runtime = Runtime::new().unwrap();
                    for sequence in 1..=SEQUENCES {
                        runtime.block_on(stores[number].append(new_batch(environment, sequence))).unwrap();
                        // A repetition some time later, when it may be compacted.
                        if sequence > 5 {
                            let again = new_batch(environment, sequence - 5);
                            runtime.block_on(stores[1 - number].append(again)).unwrap();
                        }
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        is_sending.store(false, Ordering::Relaxed);
    });
    assert_eq!(invocations(&stores[0], &runtime), 2 * ENVIRONMENTS * SEQUENCES);
    runtime.block_on(stores[1].maintain()).unwrap();
    assert_eq!(invocations(&stores[0], &runtime), 2 * ENVIRONMENTS * SEQUENCES);
    assert_eq!(place.rows("pending"), 0);
}

/// Starts a collector with the database of `place` and the keys in `keys`.
fn start(place: &Place, folder: &Path, keys: &Path) -> CollectorProcess {
    let Place::Database { url, .. } = place else { unreachable!("it is a database") };
    let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
    program.env("TAILOR_DATABASE", url);
    CollectorProcess::start_as(program, folder, &["--api-key-file", keys.to_str().unwrap()])
}

fn post(address: &str, body: &[u8]) -> Option<u16> {
    let sent = ureq::post(format!("{address}/v1/batches"))
        .config()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .header("Authorization", format!("Bearer {KEY}"))
        .header("Content-Type", agent_proto::CONTENT_TYPE)
        .send(body);
    sent.ok().map(|response| response.status().as_u16())
}

/// Sends batches of one environment until `stop`, each to one or both collectors; returns what was acknowledged.
fn send(
    environment: u64,
    addresses: &Mutex<Vec<String>>,
    stop: &AtomicBool,
    acknowledged: &AtomicU64,
) -> u64 {
    let mut invocations = 0;
    for sequence in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let kind = &KINDS[usize::try_from(environment).unwrap() % 3];
        let batch = batch(kind, environment, sequence, 1 + sequence % 7, now_us());
        let body = batch.encode().unwrap();
        // Every third batch is sent to all, as after a lost acknowledgement.
        let mut is_done = false;
        let mut turn = usize::try_from(sequence).unwrap();
        while !is_done || (sequence % 3 == 0 && turn < usize::try_from(sequence).unwrap() + 2) {
            let all = addresses.lock().unwrap().clone();
            match post(&all[turn % all.len()], &body) {
                Some(200) => is_done = true,
                // Connections are refused by a killed collector; 503 while the database is not reached.
                None | Some(503) => std::thread::sleep(Duration::from_millis(5)),
                Some(status) => panic!("refused with {status}"),
            }
            turn += 1;
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
        invocations += batch.invocations.len() as u64;
    }
    invocations
}

#[test]
fn a_killed_collector_loses_nothing_and_another_takes_over() {
    const SENDERS: u64 = 4;
    let Some(place) = Place::database() else { return };
    let Place::Database { server, url } = &place else { unreachable!("it is a database") };
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("shared-keys");
    std::fs::write(&keys, format!("{KEY}\n")).unwrap();
    let holder = || server.sql(url, "SELECT holder FROM tailor_lease WHERE name = 'maintenance'").unwrap();
    let wait = |what: &str, is_done: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !is_done() {
            assert!(start.elapsed() < DEADLINE, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
        start.elapsed()
    };
    let mut first = start(&place, &folder.path().join("first"), &keys);
    wait("the first collector takes the lease", &|| !holder().is_empty());
    let killed = holder();
    let second = start(&place, &folder.path().join("second"), &keys);
    let addresses = Arc::new(Mutex::new(vec![first.address.clone(), second.address.clone()]));
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let senders: Vec<_> = (1..=SENDERS)
        .map(|environment| {
            let (addresses, stop) = (Arc::clone(&addresses), Arc::clone(&stop));
            let acknowledged = Arc::clone(&acknowledged);
            std::thread::spawn(move || send(environment, &addresses, &stop, &acknowledged))
        })
        .collect();
    wait("batches are acknowledged", &|| acknowledged.load(Ordering::Relaxed) > 100);
    assert_eq!(holder(), killed);
    first.kill();
    let before = acknowledged.load(Ordering::Relaxed);
    wait("the second collector goes on", &|| acknowledged.load(Ordering::Relaxed) > before + 20);
    let waited = wait("another collector takes over the lease", &|| holder() != killed);
    println!("the lease was taken over after {:.1} s", waited.as_secs_f64());
    let third = start(&place, &folder.path().join("third"), &keys);
    *addresses.lock().unwrap() = vec![second.address.clone(), third.address.clone()];
    let before = acknowledged.load(Ordering::Relaxed);
    wait("both go on", &|| acknowledged.load(Ordering::Relaxed) > before + 20);
    stop.store(true, Ordering::Relaxed);
    let sent: u64 = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
    assert_eq!(third.total()["invocations"], sent);
    wait("the new holder compacts", &|| place.rows("pending") == 0);
    assert_eq!(second.total()["invocations"], sent);
}
