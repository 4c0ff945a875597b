//! The fleet of one tenant as metrics: what its functions did and cost, what is recommended, and what the tuner did.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::Megabytes;

use super::counters::{Counters, DURATION_BUCKETS, TenantCounters};
use crate::changes::{self, State, fleet as fleet_log};
use crate::http::App;
use crate::http::error::ApiError;
use crate::query::{ListQuery, Query, SortKey};
use crate::report;
use crate::store::{FunctionKey, Tenant};

/// How old the reports behind the gauges may be: they change slowly, and scrapes are frequent.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The value of the label `function` for all functions that are not listed. It is not a name that Lambda accepts.
pub const REST: &str = "(rest)";

/// What is computed from reports and from the change log.
#[derive(Debug, Clone, Default)]
pub(super) struct Reported {
    pub(super) functions: BTreeMap<FunctionKey, Sizes>,
    pub(super) matching_functions: u64,
    /// Savings of all functions.
    pub(super) savings: PicoDollars,
    /// By code: number of functions, and savings.
    pub(super) hints: Vec<(String, u64, PicoDollars)>,
    pub(super) changes: BTreeMap<&'static str, u64>,
    pub(super) is_frozen: bool,
    computed_at_us: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) memory: Megabytes,
    pub(super) recommended: Megabytes,
    pub(super) savings: PicoDollars,
}

/// The reports of all tenants, kept between scrapes.
#[derive(Debug, Default)]
pub struct Reports {
    kept: Mutex<BTreeMap<Tenant, (Instant, Arc<Reported>)>>,
    /// Held while reports are computed. A scrape at the same time uses those of an earlier one.
    computing: tokio::sync::Mutex<()>,
}

impl Reports {
    fn of(&self, tenant: &Tenant) -> Option<(Instant, Arc<Reported>)> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned()
    }

    fn insert(&self, tenant: &Tenant, reported: Reported) {
        let mut tenants = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.insert(tenant.clone(), (Instant::now(), Arc::new(reported)));
    }
}

/// The metrics of a tenant's fleet. When its reports cannot be computed now, those of an earlier scrape are used.
pub(super) async fn of(app: &Arc<App>, tenant: &Tenant) -> FleetMetrics {
    let reports = &app.metrics.reports;
    let is_old = reports.of(tenant).is_none_or(|(at, _)| at.elapsed() > MAX_AGE);
    if let (true, Ok(_computing)) = (is_old, reports.computing.try_lock()) {
        match compute(app, tenant).await {
            Ok(reported) => reports.insert(tenant, reported),
            Err(error) => {
                tracing::warn!(%error, "cannot compute the metrics of the fleet; trying again later")
            }
        }
    }
    let counters = app.metrics.fleet.of(tenant);
    let cost = |counters: &Counters| counters.cost(&app.prices).to_dollars();
    FleetMetrics {
        costs: counters.shown().map(|(_, sums)| cost(sums)).collect(),
        rest_cost: cost(&counters.rest),
        counters,
        reported: reports.of(tenant).map(|(_, reported)| reported),
        refusals: app.refusals.of(tenant),
    }
}

/// Computes the reports as a request for one does: only some run at the same time, on threads of their own.
async fn compute(app: &Arc<App>, tenant: &Tenant) -> Result<Reported, ApiError> {
    let _turn = app.memory.report().await?;
    let runtime = tokio::runtime::Handle::current();
    let (app, tenant) = (Arc::clone(app), tenant.clone());
    let computed = tokio::task::spawn_blocking(move || runtime.block_on(reported(&app, &tenant)));
    computed.await.map_err(|error| ApiError::unavailable("report", error.to_string()))?
}

async fn reported(app: &App, tenant: &Tenant) -> Result<Reported, ApiError> {
    let request = app.report_request(tenant, &Query::default())?;
    let limit = (2 * app.metrics_functions).max(1);
    let list = ListQuery { sort: SortKey::Cost, limit, ..ListQuery::default() };
    let fleet = report::fleet(&request, &list).await?;
    let ranking: Vec<FunctionKey> = fleet.functions.iter().map(report::FunctionReport::key).collect();
    app.metrics.fleet.list(tenant, &ranking, app.metrics_functions, request.now_us);
    let functions = fleet.functions.iter().map(|function| {
        let saving = function.saving().max(PicoDollars::ZERO);
        let sizes = Sizes { memory: function.memory, recommended: function.advice.memory, savings: saving };
        (function.key(), sizes)
    });
    let functions = functions.collect();
    let log = app.store.changes(tenant, None).await?;
    let is_frozen = fleet_log::frozen(&log).is_some();
    let mut changes: BTreeMap<&'static str, u64> = State::ALL.iter().map(|state| (state.code(), 0)).collect();
    for change in changes::fold(log) {
        *changes.entry(change.state.code()).or_default() += 1;
    }
    let hints = fleet.hints.into_iter();
    Ok(Reported {
        functions,
        matching_functions: fleet.matching_functions,
        savings: fleet.total.saving_pico_usd,
        hints: hints.map(|hint| (hint.code, hint.functions, hint.saving_pico_usd)).collect(),
        changes,
        is_frozen,
        computed_at_us: request.now_us,
    })
}

/// The metrics of a tenant's fleet at one scrape.
#[derive(Debug)]
pub(super) struct FleetMetrics {
    pub(super) counters: TenantCounters,
    /// In the order of `counters.shown()`, dollars.
    costs: Vec<f64>,
    rest_cost: f64,
    pub(super) reported: Option<Arc<Reported>>,
    refusals: BTreeMap<&'static str, u64>,
}

/// The labels of a function.
fn labels(function: &FunctionKey) -> [(&'static str, &str); 3] {
    [("function", &function.name), ("region", &function.region), ("account", &function.account)]
}

const REST_LABELS: [(&str, &str); 3] = [("function", REST), ("region", ""), ("account", "")];

/// A counter: name, description, unit, and its value.
type CounterOf = (&'static str, &'static str, Option<Unit>, fn(&Counters) -> f64);

fn counters() -> [CounterOf; 6] {
    [
        ("tailor_function_invocations", "Invocations since the start of the collector", None, |sums| {
            sums.invocations as f64
        }),
        (
            "tailor_function_errors",
            "Failed invocations, with timeouts and those that ran out of memory",
            None,
            |sums| sums.errors as f64,
        ),
        ("tailor_function_timeouts", "Invocations that the timeout ended", None, |sums| sums.timeouts as f64),
        ("tailor_function_out_of_memory", "Invocations that ran out of memory", None, |sums| {
            sums.out_of_memory as f64
        }),
        (
            "tailor_function_cold_starts",
            "Invocations whose caller waited for an environment to be initialized",
            None,
            |sums| sums.cold_starts as f64,
        ),
        ("tailor_function_billed", "Billed time", Some(Unit::Seconds), |sums| sums.billed_ms as f64 / 1e3),
    ]
}

impl Collector for FleetMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, unit, value) in counters() {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for (function, sums) in self.counters.shown() {
                let labels = labels(function);
                let mut metric = family.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, _, f64>(&value(sums), None)?;
            }
            let mut metric = family.encode_family(&REST_LABELS)?;
            metric.encode_counter::<NoLabelSet, _, f64>(&value(&self.counters.rest), None)?;
        }
        self.encode_costs(&mut encoder)?;
        self.encode_durations(&mut encoder)?;
        self.encode_refusals(&mut encoder)?;
        match &self.reported {
            Some(reported) => self.encode_reported(&mut encoder, reported),
            None => Ok(()),
        }
    }
}

impl FleetMetrics {
    fn encode_costs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let unit = Unit::Other("dollars".to_owned());
        let help = "Cost, without invocations whose price is not known";
        let mut family =
            encoder.encode_descriptor("tailor_function_cost", help, Some(&unit), MetricType::Counter)?;
        for ((function, _), cost) in self.counters.shown().zip(&self.costs) {
            family.encode_family(&labels(function))?.encode_counter::<NoLabelSet, _, f64>(cost, None)?;
        }
        family.encode_family(&REST_LABELS)?.encode_counter::<NoLabelSet, _, f64>(&self.rest_cost, None)
    }

    fn encode_durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = ("tailor_function_duration", "Duration, with cold starts and failures");
        let mut family =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let listed = self.counters.shown().map(|(function, sums)| (labels(function), sums));
        for (labels, sums) in listed.chain([(REST_LABELS, &self.counters.rest)]) {
            let bounds = DURATION_BUCKETS.into_iter().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(sums.durations).collect();
            let sum = sums.duration_us as f64 / 1e6;
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(sum, sums.invocations, &buckets, None)?;
        }
        Ok(())
    }

    fn encode_refusals(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help =
            "Changes that a guard-rail of the tuner refused, by its code: once for each function and round";
        let mut family =
            encoder.encode_descriptor("tailor_tuner_refusals", help, None, MetricType::Counter)?;
        for (code, count) in &self.refusals {
            let labels = [("code", *code)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, f64>(count, None)?;
        }
        Ok(())
    }

    fn encode_reported(&self, encoder: &mut DescriptorEncoder<'_>, reported: &Reported) -> fmt::Result {
        let bytes = |size: Megabytes| f64::from(size.0) * 1_048_576.0;
        let listed: Vec<(&FunctionKey, &Sizes)> = reported
            .functions
            .iter()
            .filter(|(function, _)| self.counters.listed.contains_key(function))
            .collect();
        let help = "Memory size of the latest invocations";
        let name = "tailor_function_memory_size";
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
        for (function, sizes) in &listed {
            family.encode_family(&labels(function))?.encode_gauge(&bytes(sizes.memory))?;
        }
        let help = "Recommended memory size; the present one when no other is recommended";
        let name = "tailor_function_recommended_memory_size";
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
        for (function, sizes) in &listed {
            family.encode_family(&labels(function))?.encode_gauge(&bytes(sizes.recommended))?;
        }
        let dollars = Unit::Other("dollars".to_owned());
        let help = "How much less the invocations of the last 30 days would have cost at the recommended memory size";
        let name = "tailor_function_potential_savings";
        let mut family = encoder.encode_descriptor(name, help, Some(&dollars), MetricType::Gauge)?;
        let mut rest = reported.savings;
        for (function, sizes) in &listed {
            family.encode_family(&labels(function))?.encode_gauge(&sizes.savings.to_dollars())?;
            rest = rest - sizes.savings;
        }
        let rest = rest.max(PicoDollars::ZERO);
        family.encode_family(&REST_LABELS)?.encode_gauge(&rest.to_dollars())?;
        encode_hints(encoder, reported, &dollars)?;
        encode_states(encoder, reported)
    }
}

fn encode_hints(encoder: &mut DescriptorEncoder<'_>, reported: &Reported, dollars: &Unit) -> fmt::Result {
    let help = "Functions that have the hint";
    let mut family = encoder.encode_descriptor("tailor_hint_functions", help, None, MetricType::Gauge)?;
    for (code, functions, _) in &reported.hints {
        family.encode_family(&[("hint", code.as_str())])?.encode_gauge(functions)?;
    }
    let help = "What acting on the hint would have saved in the last 30 days; savings of several hints do not add up";
    let name = "tailor_hint_potential_savings";
    let mut family = encoder.encode_descriptor(name, help, Some(dollars), MetricType::Gauge)?;
    for (code, _, saving) in &reported.hints {
        family.encode_family(&[("hint", code.as_str())])?.encode_gauge(&saving.to_dollars())?;
    }
    Ok(())
}

fn encode_states(encoder: &mut DescriptorEncoder<'_>, reported: &Reported) -> fmt::Result {
    let help = "Changes of the tuner, by their state now";
    let mut family = encoder.encode_descriptor("tailor_changes", help, None, MetricType::Gauge)?;
    for (state, count) in &reported.changes {
        family.encode_family(&[("state", *state)])?.encode_gauge(count)?;
    }
    let help = "Whether the tuner is frozen: 1 or 0";
    let mut metric = encoder.encode_descriptor("tailor_tuner_frozen", help, None, MetricType::Gauge)?;
    metric.encode_gauge(&u64::from(reported.is_frozen))?;
    let help = "Functions that were invoked in the last 30 days";
    let mut metric = encoder.encode_descriptor("tailor_functions", help, None, MetricType::Gauge)?;
    metric.encode_gauge(&reported.matching_functions)?;
    let help = "When sizes, savings, hints and changes were computed";
    let name = "tailor_fleet_computed_timestamp";
    let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
    metric.encode_gauge(&(reported.computed_at_us as f64 / 1e6))
}
