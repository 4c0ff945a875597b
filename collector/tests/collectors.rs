//! Several collectors with one database.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::fleet::{KINDS, batch};
use common::places::{AnyStore, Place};
use common::process::{CollectorProcess, send_batch_within};
use common::{KEY, received};
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::report::summaries::Summarizer;
use tailor_collector::store::postgres::{Database, PostgresStore, Secrets};
use tailor_collector::store::summary::SummaryKind;
use tailor_collector::store::{Lease, NewBatch, Store, Tenant, Window};
use tailor_collector::tuner::requests::{RequestStore, TunerRequest};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_test_kit::postgres::{PostgresServer, Shutdown};
use tailor_test_kit::skip;
use tokio::runtime::Runtime;

/// Longer than everything that a test waits for, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long a sender waits for a response before it sends the batch to the other collector.
const POST_TIMEOUT: Duration = Duration::from_secs(20);

/// How long work of which only one collector has the lease may wait after that collector was killed.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(30);

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
    let requests = RequestStore::Store(open(), Tenant::default());
    let database = Database::new(url, &Secrets::default()).unwrap();
    let reader = Arc::new(PostgresStore::open_to_read(&database).unwrap());
    let command = RequestStore::Store(reader, Tenant::default());
    let freeze = TunerRequest::Freeze { reason: "100 % of a test".to_owned() };
    runtime.block_on(command.submit(&freeze, 2)).unwrap();
    runtime.block_on(command.submit(&TunerRequest::Unfreeze { reason: String::new() }, 1)).unwrap();
    let other = RequestStore::Store(open(), Tenant("other".to_owned()));
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
    received(Tenant::default(), &batch, at_us)
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

/// Starts a collector with a database and the keys in `keys`.
fn start(url: &str, folder: &Path, keys: &Path) -> CollectorProcess {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
    program.env("TAILOR_DATABASE", url);
    CollectorProcess::start_as(program, folder, &["--api-key-file", keys.to_str().unwrap()])
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
            match send_batch_within(POST_TIMEOUT, &all[turn % all.len()], KEY, &body) {
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

fn wait(what: &str, is_done: &dyn Fn() -> bool) {
    let start = Instant::now();
    while !is_done() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Threads that send batches, one environment each, until they are stopped.
struct Load {
    addresses: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    senders: Vec<JoinHandle<u64>>,
}

impl Load {
    fn start(environments: u64, addresses: Vec<String>) -> Self {
        let addresses = Arc::new(Mutex::new(addresses));
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let senders = (1..=environments)
            .map(|environment| {
                let (addresses, stop) = (Arc::clone(&addresses), Arc::clone(&stop));
                let acknowledged = Arc::clone(&acknowledged);
                std::thread::spawn(move || send(environment, &addresses, &stop, &acknowledged))
            })
            .collect();
        Self { addresses, stop, acknowledged, senders }
    }

    /// Waits until this many more batches are acknowledged.
    fn wait_for(&self, what: &str, batches: u64) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        wait(what, &|| self.acknowledged.load(Ordering::Relaxed) > before + batches);
    }

    /// Stops it; returns the number of acknowledged invocations.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    }
}

/// A failover seen by a collector: all connections end, and after a pause there is a server with the committed data.
#[test]
fn a_database_that_restarts_under_load_loses_nothing_acknowledged() {
    if !PostgresServer::is_installed() {
        return skip("PostgreSQL is not installed");
    }
    // With fsync: one of the restarts is that after a crash.
    let mut server = PostgresServer::start(&[]).unwrap();
    let url = server.new_database().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("shared-keys");
    std::fs::write(&keys, format!("{KEY}\n")).unwrap();
    let collector = start(&url, &folder.path().join("data"), &keys);
    let load = Load::start(4, vec![collector.address.clone()]);
    load.wait_for("batches are acknowledged", 50);
    for shutdown in [Shutdown::Fast, Shutdown::Immediate] {
        server.restart(shutdown).unwrap();
        load.wait_for("batches are acknowledged after the restart", 20);
    }
    let sent = load.stop();
    assert_eq!(collector.total()["invocations"], sent);
    let pending = || server.sql(&url, "SELECT COUNT(*) FROM tailor_pending").unwrap();
    wait("maintenance continues", &|| pending().trim() == "0");
    assert_eq!(collector.total()["invocations"], sent);
    let ready = ureq::get(format!("{}/readyz", collector.address)).call().unwrap();
    assert_eq!(ready.status().as_u16(), 200);
}

#[test]
fn a_killed_collector_loses_nothing_and_another_takes_over() {
    let Some(place) = Place::database() else { return };
    let Place::Database { server, url } = &place else { unreachable!("it is a database") };
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("shared-keys");
    std::fs::write(&keys, format!("{KEY}\n")).unwrap();
    let holder = || server.sql(url, "SELECT holder FROM tailor_lease WHERE name = 'maintenance'").unwrap();
    let held_by = |holder: &str| {
        let sql = format!("SELECT COUNT(*) FROM tailor_lease WHERE holder = '{}'", holder.trim());
        server.sql(url, &sql).unwrap().trim().parse::<u64>().unwrap()
    };
    let mut first = start(url, &folder.path().join("first"), &keys);
    // Those of maintenance and of summaries.
    wait("the first collector takes both leases", &|| held_by(&holder()) == 2);
    let killed = holder();
    let second = start(url, &folder.path().join("second"), &keys);
    let load = Load::start(4, vec![first.address.clone(), second.address.clone()]);
    load.wait_for("batches are acknowledged", 100);
    assert_eq!(holder(), killed);
    let killed_at = Instant::now();
    first.kill();
    load.wait_for("the second collector continues", 20);
    wait("another collector takes over both leases", &|| held_by(&killed) == 0);
    let waited = killed_at.elapsed();
    println!("the leases were taken over after {:.1} s", waited.as_secs_f64());
    assert!(waited < TAKEOVER_LIMIT, "{waited:?}");
    let third = start(url, &folder.path().join("third"), &keys);
    *load.addresses.lock().unwrap() = vec![second.address.clone(), third.address.clone()];
    load.wait_for("both go on", 20);
    let sent = load.stop();
    assert_eq!(third.total()["invocations"], sent);
    wait("the new holder compacts", &|| place.rows("pending") == 0);
    assert_eq!(second.total()["invocations"], sent);
}
