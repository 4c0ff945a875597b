//! What the store keeps, and for how long.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::fleet::{KINDS, Kind, batch};
use common::places::{AnyStore, Place};
use common::received;
use tailor_collector::clock::{Clock, DAY_US, now_us};
use tailor_collector::report::Losses;
use tailor_collector::store::{ChangedFunction, HOUR_US, NewBatch, Receipt, Tenant, Window};
use tokio::runtime::Runtime;

/// The beginning of a day, microseconds since the Unix epoch.
const START_US: u64 = 20_000 * DAY_US;

/// A store with a clock that the test moves.
struct Fixture {
    runtime: Runtime,
    store: AnyStore,
    now_us: Arc<AtomicU64>,
    place: Place,
}

impl Fixture {
    fn new(place: Place) -> Self {
        let now_us = Arc::new(AtomicU64::new(START_US));
        let clock = Arc::clone(&now_us);
        let store = place.open(Clock::from_fn(move || clock.load(Ordering::Relaxed)));
        Self { runtime: Runtime::new().unwrap(), store, now_us, place }
    }

    /// With each kind of store.
    fn each() -> impl Iterator<Item = Self> {
        Place::each().map(Self::new)
    }

    fn send(&self, kind: &Kind, environment: u64, sequence: u64, at_us: u64) -> Receipt {
        let new_batch = self.new_batch(kind, environment, sequence, at_us);
        self.runtime.block_on(self.store.append(new_batch)).unwrap()
    }

    /// A batch that is received at `at_us`. The clock advances to that time.
    fn new_batch(&self, kind: &Kind, environment: u64, sequence: u64, at_us: u64) -> NewBatch {
        self.now_us.store(at_us, Ordering::Relaxed);
        // The first of three invocations, which start a second apart, starts at `at_us`.
        let mut batch = batch(kind, environment, sequence, 3, at_us + 3_000_000);
        batch.header.lost.invocations = 5;
        received(Tenant::default(), &batch, at_us)
    }

    /// Does all maintenance at this time. A function of another tenant sends a batch then: the clock alone deletes nothing.
    fn maintain_at(&self, now_us: u64) {
        self.now_us.store(now_us, Ordering::Relaxed);
        let batch = batch(&KINDS[0], now_us, 1, 0, now_us);
        let of_other = received(Tenant("other".to_owned()), &batch, now_us);
        self.runtime.block_on(self.store.append(of_other)).unwrap();
        self.runtime.block_on(self.store.maintain()).unwrap();
    }

    fn invocations(&self, from_us: u64) -> u64 {
        let window = Window { from_hour: from_us / HOUR_US, ..Window::ALL };
        let series = self.runtime.block_on(self.store.series(&Tenant::default(), None, window)).unwrap();
        series.iter().map(|series| series.rollup.invocations).sum()
    }

    fn rows(&self, table: &str) -> i64 {
        self.place.rows(&format!("{table} WHERE tenant = 'default'"))
    }

    /// The functions whose summaries are out of date.
    fn changed(&self) -> Vec<ChangedFunction> {
        let changed = self.runtime.block_on(self.store.changed_functions(100)).unwrap();
        changed.into_iter().filter(|one| one.tenant == Tenant::default()).collect()
    }
}

#[test]
fn a_silent_environment_becomes_part_of_the_totals_of_its_function() {
    for fixture in Fixture::each() {
        for environment in 1..=100 {
            assert_eq!(fixture.send(&KINDS[0], environment, 1, START_US + environment), Receipt::Stored);
            // The second batch does not arrive.
            assert_eq!(fixture.send(&KINDS[0], environment, 3, START_US + HOUR_US), Receipt::Stored);
        }
        let losses = |from_us: u64| {
            let window = Window { from_hour: from_us / HOUR_US, ..Window::ALL };
            let tenant = Tenant::default();
            let environments =
                fixture.runtime.block_on(fixture.store.environments(&tenant, None, window)).unwrap();
            let ended: u64 = environments.ended.iter().map(|ended| ended.environments).sum();
            let losses = Losses::of(&environments, from_us, START_US + DAY_US);
            (environments.live.len() as u64, ended, losses.invocations, losses.batches, losses.abandoned)
        };
        fixture.maintain_at(START_US + DAY_US);
        assert_eq!(losses(START_US), (100, 0, 500, 100, 100));
        fixture.maintain_at(START_US + 3 * DAY_US);
        assert_eq!((fixture.rows("environment"), fixture.rows("ended")), (0, 1));
        assert_eq!(losses(START_US), (0, 100, 500, 100, 100));
        assert_eq!(losses(START_US + 2 * HOUR_US), (0, 0, 0, 0, 0));
        // A batch that arrives even later begins a new state.
        assert_eq!(fixture.send(&KINDS[0], 1, 4, START_US + 3 * DAY_US), Receipt::Stored);
        assert_eq!(fixture.send(&KINDS[0], 1, 4, START_US + 3 * DAY_US), Receipt::Duplicate);
        assert_eq!(fixture.invocations(0), 603);
    }
}

#[test]
fn hours_become_days_and_days_are_deleted() {
    for fixture in Fixture::each() {
        for hour in 0..72u64 {
            let receipt = fixture.send(&KINDS[1], 1, hour + 1, START_US + hour * HOUR_US);
            assert_eq!(receipt, Receipt::Stored);
        }
        fixture.maintain_at(START_US + 3 * DAY_US);
        assert_eq!((fixture.rows("rollup"), fixture.invocations(0)), (72, 216));
        // Eight whole days after the second day, two days are merged.
        fixture.maintain_at(START_US + 10 * DAY_US);
        assert_eq!((fixture.rows("rollup"), fixture.invocations(0)), (26, 216));
        // A window that begins within a merged day includes the whole day.
        assert_eq!(fixture.invocations(START_US + DAY_US + 5 * HOUR_US), 144);
        assert_eq!(fixture.invocations(START_US + 2 * DAY_US), 72);
        // A late batch of a merged hour is added to its day.
        assert_eq!(fixture.send(&KINDS[1], 2, 1, START_US), Receipt::Stored);
        fixture.maintain_at(START_US + 12 * DAY_US);
        assert_eq!((fixture.rows("rollup"), fixture.invocations(0)), (3, 219));
        fixture.maintain_at(START_US + 401 * DAY_US);
        assert_eq!((fixture.rows("rollup"), fixture.invocations(0)), (2, 144));
        fixture.maintain_at(START_US + 500 * DAY_US);
        for table in ["rollup", "environment", "ended", "recent", "function", "pending"] {
            assert_eq!(fixture.rows(table), 0, "{table}");
        }
    }
}

/// The clock is twenty years ahead from the second start on. The measurements are of now, also for the clock of the database.
#[test]
fn a_clock_that_is_ahead_deletes_nothing() {
    let runtime = Runtime::new().unwrap();
    for place in Place::each() {
        let newest_us = now_us() / HOUR_US * HOUR_US - 1_000_000;
        let ahead_us = newest_us + 20 * 365 * DAY_US;
        let send = |store: &AnyStore, sequence: u64, sent_us: u64, received_us: u64| {
            let batch = batch(&KINDS[1], 1, sequence, 3, sent_us);
            let of_now = received(Tenant::default(), &batch, received_us);
            assert_eq!(runtime.block_on(store.append(of_now)), Ok(Receipt::Stored));
        };
        let store = place.open(Clock::system());
        for sequence in 1..=24 {
            let at_us = newest_us - (24 - sequence) * HOUR_US;
            send(&store, sequence, at_us, at_us);
        }
        runtime.block_on(store.maintain()).unwrap();
        let rows = || ["rollup", "environment", "ended", "function"].map(|table| place.rows(table));
        assert_eq!(rows(), [24, 1, 0, 1]);
        drop(store);
        // Before a batch arrives; after it arrived, with a time of the wrong clock; and after a start that reads this time.
        let store = place.open_at(ahead_us);
        runtime.block_on(store.maintain()).unwrap();
        assert_eq!(rows(), [24, 1, 0, 1]);
        send(&store, 25, newest_us, ahead_us);
        runtime.block_on(store.maintain()).unwrap();
        assert_eq!(rows(), [24, 1, 0, 1]);
        drop(store);
        let store = place.open_at(ahead_us);
        runtime.block_on(store.maintain()).unwrap();
        assert_eq!(rows(), [24, 1, 0, 1]);
    }
}

#[test]
fn summaries_of_a_clock_that_was_set_back_are_computed_again() {
    for fixture in Fixture::each() {
        fixture.send(&KINDS[0], 1, 1, START_US + HOUR_US);
        fixture.maintain_at(START_US + 5 * DAY_US);
        let changed = fixture.changed();
        assert_eq!(changed.len(), 1);
        let without_rows = changed.into_iter().map(|function| (function, vec![])).collect();
        fixture.runtime.block_on(fixture.store.put_summaries(without_rows)).unwrap();
        fixture.maintain_at(START_US + 5 * DAY_US);
        assert_eq!(fixture.changed(), []);
        fixture.maintain_at(START_US + 4 * DAY_US);
        assert_eq!(fixture.changed().len(), 1);
    }
}

#[test]
fn no_function_waits_for_another() {
    std::thread::scope(|threads| {
        for fixture in Fixture::each() {
            threads.spawn(move || check_that_no_function_waits(&fixture));
        }
    });
}

fn check_that_no_function_waits(fixture: &Fixture) {
    // One function has much to compact, and sorts before the others.
    let appends = (1..=1_200)
        .map(|sequence| fixture.store.append(fixture.new_batch(&KINDS[4], 1, sequence, START_US + sequence)));
    for receipt in fixture.runtime.block_on(futures_util::future::join_all(appends)) {
        assert_eq!(receipt, Ok(Receipt::Stored));
    }
    for kind in &KINDS[..4] {
        assert_eq!(fixture.send(kind, 2, 1, START_US), Receipt::Stored);
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    // Without a request for maintenance: the store does it by itself.
    while fixture.rows("pending") > 0 {
        assert!(std::time::Instant::now() < deadline, "{} pending", fixture.rows("pending"));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(fixture.invocations(0), 1_204 * 3);
}

/// A function that is invoked once a day has environments that live long.
#[test]
fn an_environment_that_sends_once_a_day_does_not_end() {
    for fixture in Fixture::each() {
        for day in 0..40u64 {
            assert_eq!(fixture.send(&KINDS[0], 1, day + 1, START_US + day * DAY_US), Receipt::Stored);
            fixture.maintain_at(START_US + day * DAY_US + 23 * HOUR_US);
        }
        let tenant = Tenant::default();
        let environments = fixture.store.environments(&tenant, None, Window::ALL);
        let environments = fixture.runtime.block_on(environments).unwrap();
        assert_eq!((environments.live.len(), environments.ended.len()), (1, 0));
        assert_eq!(environments.live[0].sequences.missing_since(0), 0);
    }
}

#[test]
fn free_space_is_returned() {
    const BATCHES: u64 = 200;
    let fixture = Fixture::new(Place::folder());
    let mut sent_bytes = 0;
    for sequence in 1..=BATCHES {
        let batch = batch(&KINDS[0], 1, sequence, 1_000, START_US);
        let new_batch = received(Tenant::default(), &batch, START_US);
        sent_bytes += new_batch.body.len();
        fixture.runtime.block_on(fixture.store.append(new_batch)).unwrap();
    }
    fixture.maintain_at(START_US + DAY_US);
    let Place::Folder(folder) = &fixture.place else { unreachable!("it was made so") };
    let file = rusqlite::Connection::open(folder.path().join("tailor.sqlite")).unwrap();
    let pages: u32 = file.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    assert!(pages as usize * 4_096 < sent_bytes / 2, "{pages} pages after {sent_bytes} bytes");
}
