//! The fleet of a tenant at one time, for those who send metrics.

use std::collections::BTreeSet;
use std::sync::Arc;

use tailor_push::otlp::{FleetGauges, FunctionGauges, FunctionTotals, HintGauges};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::Megabytes;

use super::fleet::{self, Reported};
use crate::http::App;
use crate::store::{FunctionKey, Tenant};

/// One function, or all without counters of their own.
#[derive(Debug, Clone)]
pub(crate) struct FunctionSnapshot {
    /// `None` is the rest.
    pub(crate) function: Option<FunctionKey>,
    /// Sums since its counters began.
    pub(crate) totals: FunctionTotals,
    /// Sizes and savings; `None` until there is a report of the function.
    pub(crate) gauges: Option<FunctionGauges>,
}

/// The fleet of a tenant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// The functions, and the rest.
    pub(crate) functions: Vec<FunctionSnapshot>,
    /// The last values of functions whose counters have ended.
    pub(crate) ended: Vec<FunctionSnapshot>,
    /// What is known of the fleet; `None` until there is a report.
    pub(crate) fleet: Option<FleetGauges>,
}

/// From now on, the last values of counters that end are in the next snapshot.
pub(crate) fn keep_ended(app: &App) {
    app.metrics.fleet.keep_removed();
}

/// The tenants that have keys or functions.
pub(crate) fn tenants(app: &App) -> BTreeSet<Tenant> {
    let of_keys = app.keys.get().entries().map(|entry| entry.key.tenant.clone()).collect::<Vec<_>>();
    of_keys.into_iter().chain(app.metrics.fleet.tenants()).collect()
}

/// The fleet of a tenant now. The values of ended counters are taken: the next snapshot does not have them.
pub(crate) async fn take(app: &Arc<App>, tenant: &Tenant) -> Snapshot {
    let metrics = fleet::of(app, tenant).await;
    let ended = app.metrics.fleet.take_removed(tenant);
    let of = |function: &FunctionKey| gauges(metrics.reported.as_deref(), function);
    let listed = metrics.counters.listed.iter().map(|(function, counters)| FunctionSnapshot {
        function: Some(function.clone()),
        totals: counters.totals(&app.prices),
        gauges: of(function),
    });
    let mut functions: Vec<_> = listed.collect();
    if metrics.counters.rest.has_started() {
        functions.push(FunctionSnapshot {
            function: None,
            totals: metrics.counters.rest.totals(&app.prices),
            gauges: None,
        });
    }
    let ended = ended.into_iter().map(|(function, counters)| FunctionSnapshot {
        function: Some(function),
        totals: counters.totals(&app.prices),
        gauges: None,
    });
    Snapshot { functions, ended: ended.collect(), fleet: metrics.reported.as_deref().map(fleet_gauges) }
}

fn gauges(reported: Option<&Reported>, function: &FunctionKey) -> Option<FunctionGauges> {
    let sizes = reported?.functions.get(function)?;
    let bytes = |size: Megabytes| u64::from(size.0) << 20;
    Some(FunctionGauges {
        memory_bytes: bytes(sizes.memory),
        recommended_bytes: bytes(sizes.recommended),
        savings: sizes.savings,
    })
}

fn fleet_gauges(reported: &Reported) -> FleetGauges {
    let hint = |(code, functions, savings): &(String, u64, PicoDollars)| HintGauges {
        code: code.clone(),
        functions: *functions,
        savings: *savings,
    };
    FleetGauges {
        functions: reported.matching_functions,
        is_frozen: reported.is_frozen,
        hints: reported.hints.iter().map(hint).collect(),
        changes: reported.changes.iter().map(|(state, count)| (*state, *count)).collect(),
    }
}
