//! Counters of invocations per function since the start, with a bounded number of functions.
//!
//! Only the functions that are listed have counters of their own. What the others do is added to one rest. A function that is
//! listed later begins at zero. One that is not listed any more counts in the rest from then on, and its last values are shown
//! for some minutes more: a scrape that comes after it left still sees what was counted since the scrape before. When it is listed
//! again within these minutes, its counters continue. The sum of the increases of all counters has each invocation once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_proto::batch::{Batch, Environment, InitializationType};
use tailor_push::otlp::{Distributions, FunctionTotals};
use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;

use tailor_sizing::telemetry::invocation::{Invocation, Outcome};
use tailor_sizing::units::Architecture;

use crate::clock::now_us;
use crate::store::{FunctionKey, Tenant};

/// Most counters of functions that are not listed any more and wait for their last export.
const MAX_REMOVED: usize = 1_000;

/// How long the last values of a function that is not listed any more are shown: longer than two scrapes of any usual interval.
const LAST_VALUES_US: u64 = 10 * 60 * 1_000_000;

/// Most functions of a tenant whose last values are shown. The oldest make room for others.
const MAX_LAST_VALUES: usize = 100;

/// Upper bounds of the histogram of durations, seconds. Lambda ends an invocation after 900.
pub(super) const DURATION_BUCKETS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];

/// Sums over invocations.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Since when they count, microseconds since the Unix epoch.
    since_us: u64,
    pub(super) invocations: u64,
    pub(super) errors: u64,
    pub(super) timeouts: u64,
    pub(super) out_of_memory: u64,
    pub(super) cold_starts: u64,
    pub(super) billed_ms: u64,
    pub(super) duration_us: u64,
    /// Invocations by duration; the last one is longer than all bounds.
    pub(super) durations: [u64; DURATION_BUCKETS.len() + 1],
    /// What is billed, by region and architecture: each has its own price. The cost is rounded once.
    usage: BTreeMap<(String, &'static str), (Architecture, Usage)>,
    /// Boxed: they are larger than all others together.
    distributions: Box<Distributions>,
}

impl Counters {
    /// Those of one batch.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        let environment = &batch.header.environment;
        let mut sums = Self::default();
        for invocation in &batch.invocations {
            let seconds = invocation.duration_us as f64 / 1e6;
            let bucket = DURATION_BUCKETS.iter().position(|bound| seconds <= *bound);
            sums.durations[bucket.unwrap_or(DURATION_BUCKETS.len())] += 1;
            sums.invocations += 1;
            sums.errors += u64::from(!matches!(invocation.outcome, Outcome::Success | Outcome::Unknown));
            sums.timeouts += u64::from(invocation.outcome == Outcome::Timeout);
            sums.out_of_memory += u64::from(invocation.outcome == Outcome::OutOfMemory);
            sums.cold_starts += u64::from(invocation.is_cold_start());
            sums.billed_ms = sums.billed_ms.saturating_add(invocation.billed_ms);
            sums.duration_us = sums.duration_us.saturating_add(invocation.duration_us);
            record(&mut sums.distributions, invocation);
        }
        // An invocation on a managed instance has no cost of its own.
        if environment.initialization_type != InitializationType::ManagedInstances {
            let Environment { region, architecture, memory, ephemeral_mb, .. } = environment;
            let usage = Usage::of(*memory, sums.billed_ms, sums.invocations, *ephemeral_mb);
            sums.usage.insert((region.clone(), architecture.as_str()), (*architecture, usage));
        }
        sums
    }

    fn add(&mut self, other: Self) {
        self.invocations = self.invocations.saturating_add(other.invocations);
        self.errors = self.errors.saturating_add(other.errors);
        self.timeouts = self.timeouts.saturating_add(other.timeouts);
        self.out_of_memory = self.out_of_memory.saturating_add(other.out_of_memory);
        self.cold_starts = self.cold_starts.saturating_add(other.cold_starts);
        self.billed_ms = self.billed_ms.saturating_add(other.billed_ms);
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
        for (count, more) in self.durations.iter_mut().zip(other.durations) {
            *count = count.saturating_add(more);
        }
        for (place, (architecture, usage)) in other.usage {
            self.usage.entry(place).or_insert_with(|| (architecture, Usage::default())).1.add(&usage);
        }
        self.distributions.add(&other.distributions);
    }

    /// Those that begin now.
    fn started() -> Self {
        Self { since_us: now_us(), ..Self::default() }
    }

    /// Whether they count: the counters of a tenant without batches have not begun.
    pub(super) const fn has_started(&self) -> bool {
        self.since_us > 0
    }

    /// The sums for OTLP.
    pub(super) fn totals(&self, prices: &PriceTable) -> FunctionTotals {
        FunctionTotals {
            start_us: self.since_us,
            invocations: self.invocations,
            errors: self.errors,
            timeouts: self.timeouts,
            out_of_memory: self.out_of_memory,
            cold_starts: self.cold_starts,
            billed_ms: self.billed_ms,
            cost: self.cost(prices),
            distributions: (*self.distributions).clone(),
        }
    }

    /// The cost, without what has no known price.
    pub(super) fn cost(&self, prices: &PriceTable) -> PicoDollars {
        let costs = self.usage.iter().filter_map(|((region, _), (architecture, usage))| {
            Some(prices.rates(region, *architecture).ok()?.bill(usage).total())
        });
        costs.sum()
    }
}

/// Adds an invocation to the histograms. What was not measured is not recorded.
fn record(distributions: &mut Distributions, invocation: &Invocation) {
    distributions.duration.record(invocation.duration_us);
    if invocation.init_us > 0 {
        distributions.init.record(invocation.init_us);
    }
    if invocation.peak_kib > 0 {
        distributions.memory.record(invocation.peak_kib.saturating_mul(1_024));
    }
    if let Some(work) = &invocation.work {
        distributions.cpu.record(work.busy_us());
        distributions.network.record(work.network_rx_bytes.saturating_add(work.network_tx_bytes));
    }
}

/// The counters of one tenant.
#[derive(Debug, Clone, Default)]
pub(super) struct TenantCounters {
    /// Those of the listed functions.
    pub(super) listed: BTreeMap<FunctionKey, Counters>,
    /// Those of all others.
    pub(super) rest: Counters,
    /// The last values of functions that are not listed any more, and since when, microseconds since the Unix epoch.
    last_values: BTreeMap<FunctionKey, (u64, Counters)>,
    /// Those of functions that are not listed any more, until they are taken.
    removed: Vec<(FunctionKey, Counters)>,
}

impl TenantCounters {
    fn started() -> Self {
        Self { rest: Counters::started(), ..Self::default() }
    }

    /// The counters of functions that a scrape sees: those that count, and last values.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&FunctionKey, &Counters)> {
        self.listed
            .iter()
            .chain(self.last_values.iter().map(|(function, (_, counters))| (function, counters)))
    }

    /// Ends the counters of functions that are not in the ranking. Returns their last values.
    fn end(&mut self, ranking: &[FunctionKey], now_us: u64) -> Vec<(FunctionKey, Counters)> {
        let ended: Vec<_> = self.listed.extract_if(.., |function, _| !ranking.contains(function)).collect();
        for (function, counters) in &ended {
            self.last_values.insert(function.clone(), (now_us, counters.clone()));
        }
        ended
    }

    /// Begins the counters of a function. They continue when their last values are still shown.
    fn begin(&mut self, function: &FunctionKey) {
        if !self.listed.contains_key(function) {
            let last = self.last_values.remove(function).map(|(_, counters)| counters);
            self.listed.insert(function.clone(), last.unwrap_or_else(Counters::started));
        }
    }

    /// Forgets last values that every scrape has seen, and the oldest of too many.
    fn forget_last_values(&mut self, now_us: u64) {
        self.last_values.retain(|_, (since_us, _)| now_us.saturating_sub(*since_us) < LAST_VALUES_US);
        while self.last_values.len() > MAX_LAST_VALUES {
            let oldest = self.last_values.iter().min_by_key(|(_, (since_us, _))| *since_us);
            let Some(oldest) = oldest.map(|(function, _)| function.clone()) else { break };
            self.last_values.remove(&oldest);
        }
    }
}

/// The counters of all tenants.
#[derive(Debug, Default)]
pub struct FleetCounters {
    tenants: Mutex<BTreeMap<Tenant, TenantCounters>>,
    /// Whether there is a consumer of the counters of functions that are not listed any more.
    keeps_removed: AtomicBool,
}

impl FleetCounters {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Tenant, TenantCounters>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch that was stored.
    pub fn add(&self, tenant: &Tenant, function: &FunctionKey, sums: Counters) {
        let mut tenants = self.lock();
        let counters = tenants.entry(tenant.clone()).or_insert_with(TenantCounters::started);
        counters.listed.get_mut(function).unwrap_or(&mut counters.rest).add(sums);
    }

    /// Lists at most `limit` functions: those of `ranking` that are listed already, then the first others. The ranking has
    /// up to twice as many functions, so that two functions with nearly the same cost do not replace each other all the
    /// time. `now_us` is in microseconds since the Unix epoch.
    pub(super) fn list(&self, tenant: &Tenant, ranking: &[FunctionKey], limit: usize, now_us: u64) {
        let mut tenants = self.lock();
        let counters = tenants.entry(tenant.clone()).or_insert_with(TenantCounters::started);
        let ended = counters.end(ranking, now_us);
        if self.keeps_removed.load(Ordering::Relaxed) {
            counters.removed.extend(ended);
            counters.removed.truncate(MAX_REMOVED);
        }
        for function in ranking {
            if counters.listed.len() >= limit {
                break;
            }
            counters.begin(function);
        }
        counters.forget_last_values(now_us);
    }

    /// From now on, counters of functions that are not listed any more are kept until they are taken.
    pub(super) fn keep_removed(&self) {
        self.keeps_removed.store(true, Ordering::Relaxed);
    }

    /// Takes the counters of functions that are not listed any more.
    pub(super) fn take_removed(&self, tenant: &Tenant) -> Vec<(FunctionKey, Counters)> {
        self.lock().get_mut(tenant).map(|counters| std::mem::take(&mut counters.removed)).unwrap_or_default()
    }

    /// The tenants whose functions have sent batches.
    pub(super) fn tenants(&self) -> Vec<Tenant> {
        self.lock().keys().cloned().collect()
    }

    /// The counters of a tenant.
    pub(super) fn of(&self, tenant: &Tenant) -> TenantCounters {
        self.lock().get(tenant).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> FunctionKey {
        FunctionKey { account: String::new(), region: "eu-west-1".to_owned(), name: name.to_owned() }
    }

    fn invocations(count: u64) -> Counters {
        Counters { invocations: count, ..Counters::default() }
    }

    /// A minute, microseconds.
    const MINUTE_US: u64 = 60_000_000;

    /// What a scraper adds up: the increase of each counter, from zero for a new one.
    #[derive(Default)]
    struct Scraper {
        before: BTreeMap<Option<FunctionKey>, u64>,
        seen: u64,
    }

    impl Scraper {
        fn scrape(&mut self, counters: &TenantCounters) {
            let shown = counters.shown().map(|(function, sums)| (Some(function.clone()), sums.invocations));
            let now: BTreeMap<_, _> = shown.chain([(None, counters.rest.invocations)]).collect();
            for (series, value) in &now {
                self.seen += value.checked_sub(self.before.get(series).copied().unwrap_or(0)).unwrap();
            }
            self.before = now;
        }
    }

    #[test]
    fn every_invocation_counts_once_while_the_list_changes() {
        let (fleet, tenant) = (FleetCounters::default(), Tenant::default());
        let [a, b, c] = ["a", "b", "c"].map(key);
        let (mut sent, mut often, mut seldom) = (0, Scraper::default(), Scraper::default());
        for step in 0..120 {
            for (function, count) in [(&a, 3), (&b, 5), (&c, 7)] {
                fleet.add(&tenant, function, invocations(count));
                sent += count;
            }
            // A scrape changes the list before it reads the counters: the last values have increased since the scrape before.
            let orders = [[&a, &b], [&c, &a], [&b, &c]];
            let ranking: Vec<_> = orders[step / 5 % 3].iter().map(|&function| function.clone()).collect();
            fleet.list(&tenant, &ranking, 1 + step % 2, step as u64 * MINUTE_US);
            let now = fleet.of(&tenant);
            assert!(now.listed.keys().all(|function| !now.last_values.contains_key(function)));
            often.scrape(&now);
            if step % 4 == 3 {
                seldom.scrape(&now);
            }
        }
        assert_eq!((often.seen, seldom.seen), (sent, sent));
        assert!(fleet.of(&Tenant("other".to_owned())).listed.is_empty());
    }

    #[test]
    fn last_values_are_shown_for_some_minutes_and_are_bounded() {
        let (fleet, tenant) = (FleetCounters::default(), Tenant::default());
        let shown = || fleet.of(&tenant).shown().map(|(key, _)| key.name.clone()).collect::<Vec<_>>();
        fleet.list(&tenant, &[key("a")], 1, 0);
        fleet.add(&tenant, &key("a"), invocations(3));
        fleet.list(&tenant, &[key("b")], 1, MINUTE_US);
        fleet.add(&tenant, &key("a"), invocations(4));
        assert_eq!(shown(), ["b", "a"]);
        let now = fleet.of(&tenant);
        assert_eq!((now.last_values[&key("a")].1.invocations, now.rest.invocations), (3, 4));
        fleet.list(&tenant, &[key("b")], 1, MINUTE_US + LAST_VALUES_US);
        assert_eq!(shown(), ["b"]);
        for number in 0..2 * MAX_LAST_VALUES {
            fleet.list(&tenant, &[key(&number.to_string())], 1, number as u64);
        }
        let last = fleet.of(&tenant).last_values;
        assert!(
            last.len() == MAX_LAST_VALUES && last.contains_key(&key("198")) && !last.contains_key(&key("98"))
        );
    }

    #[test]
    fn a_listed_function_stays_while_it_is_in_the_ranking() {
        let (fleet, tenant) = (FleetCounters::default(), Tenant::default());
        let names = |fleet: &FleetCounters| {
            fleet.of(&tenant).listed.into_keys().map(|key| key.name).collect::<Vec<_>>()
        };
        let list = |ranking: &[FunctionKey], limit| fleet.list(&tenant, ranking, limit, 0);
        list(&[key("a"), key("b")], 1);
        list(&[key("b"), key("a")], 1);
        assert_eq!(names(&fleet), ["a"]);
        list(&[key("b"), key("c")], 1);
        assert_eq!(names(&fleet), ["b"]);
        list(&[key("b"), key("c")], 0);
        assert!(names(&fleet).len() <= 1);
    }

    #[test]
    fn the_last_values_of_a_function_that_is_not_listed_any_more_can_be_taken_once() {
        let (fleet, tenant) = (FleetCounters::default(), Tenant::default());
        let taken = || {
            let removed = fleet.take_removed(&tenant).into_iter();
            removed.map(|(function, counters)| (function.name, counters.invocations)).collect::<Vec<_>>()
        };
        fleet.list(&tenant, &[key("a")], 1, 0);
        fleet.add(&tenant, &key("a"), invocations(3));
        fleet.list(&tenant, &[key("b")], 1, 0);
        assert!(taken().is_empty(), "they are kept only for a reader");
        fleet.keep_removed();
        fleet.add(&tenant, &key("b"), invocations(5));
        // After the last values of the function are forgotten, its counters begin again.
        fleet.list(&tenant, &[key("b")], 1, LAST_VALUES_US);
        fleet.list(&tenant, &[key("a")], 1, LAST_VALUES_US);
        assert_eq!(taken(), [("b".to_owned(), 5)]);
        assert!(taken().is_empty());
        let now = fleet.of(&tenant);
        assert!(now.rest.has_started() && now.listed[&key("a")].has_started());
        assert_eq!(now.listed[&key("a")].invocations, 0);
    }
}
