//! What the tuner reads of a real store about the code that is served.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/control_plane.rs"]
mod control_plane;
#[path = "common/faults.rs"]
mod faults;

use std::sync::Arc;
use std::time::Duration;

use common::places::Place;
use common::{fleet, history};
use control_plane::{ControlPlane, Foreign};
use tailor_collector::clock::{Clock, HOUR_US, now_us};
use tailor_collector::store::Store;
use tailor_collector::tuner::limits::Limits;
use tailor_collector::tuner::{Settings, Tuner};
use tailor_sizing::pricing::prices::PriceTable;
use tokio::runtime::Runtime;

/// A function of the history whose size is reduced.
const REDUCED: usize = 8;

#[test]
fn hours_with_invocations_before_a_deployment_are_not_measurements_of_its_code() {
    for place in Place::each() {
        let (runtime, now_us) = (Runtime::new().unwrap(), now_us());
        let store = Arc::new(place.open_at(now_us));
        runtime.block_on(history::write(&store, 12, 10, 96, now_us));
        let plane = ControlPlane::new(Duration::ZERO);
        let name = history::name(REDUCED);
        plane.add(&name, fleet::KINDS[2].memory, false);
        let limits = Limits {
            evidence_us: 0,
            evidence_environments: 0,
            min_saving_usd_month: 0.0,
            after_deployment_us: 0,
            max_price_age_days: i64::MAX,
            ..Limits::default()
        };
        let settings = Settings { limits, ..Settings::default() };
        let shared: Arc<dyn Store> = store.shared();
        let prices = PriceTable::embedded();
        let tuner =
            Tuner::new(shared, Arc::clone(&plane) as _, prices, settings, Clock::from_fn(move || now_us));
        let plan = || {
            let text = runtime.block_on(tuner.plan()).unwrap().text();
            let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("{name}:")));
            let first = lines.next().unwrap().to_owned();
            lines
                .take_while(|line| line.starts_with("  "))
                .fold(first, |text, line| format!("{text}\n{line}"))
        };
        assert!(plan().contains("MB to"), "{}", plan());
        for (deployed_us, is_refused) in [(now_us - 9 * HOUR_US, false), (now_us - 1, true)] {
            plane.lock().now_us = deployed_us;
            plane.foreign(&name, Foreign::Code);
            assert_eq!(plan().contains("new-code: 0 warm"), is_refused, "{}", plan());
            assert_eq!(plan().contains("MB to"), !is_refused, "{}", plan());
        }
    }
}
