//! The summary line: what the layer tells without a collector, one JSON object in the function's log.

use serde::Serialize;
use tailor_sizing::prices::PriceTable;

use crate::agent::Agent;

/// One line for one environment's life. Times are milliseconds, memory MB, money pico-dollars.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    /// Tells the line apart from the function's own.
    #[serde(rename = "type")]
    kind: &'static str,
    function: &'a str,
    version: &'a str,
    memory_mb: u32,
    invocations: u64,
    errors: u64,
    cold_starts: u64,
    duration_ms: Quantiles,
    billed_ms: u64,
    /// Absent when the price of the region is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_pico_usd: Option<i128>,
    peak_memory_mb: u64,
    busy_ms: u64,
    starved_ms: u64,
    idle_ms: u64,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p95: f64,
}

/// Prints the line; nothing when nothing was invoked.
pub fn print(agent: &mut Agent) {
    if let Some(line) = line(agent) {
        println!("{line}");
    }
}

fn line(agent: &mut Agent) -> Option<String> {
    let (rollup, environment) = agent.totals();
    if rollup.invocations == 0 {
        return None;
    }
    let quantile_ms = |q| rollup.duration_us.quantile(q).unwrap_or_default() / 1_000.0;
    let work = {
        let mut work = rollup.warm.work;
        work.add(&rollup.cold.work);
        work
    };
    let cost =
        PriceTable::embedded().rates(&environment.region, environment.architecture).ok().map(|rates| {
            rates.cost(environment.memory, rollup.billed_ms, rollup.invocations, environment.ephemeral_mb)
        });
    let summary = Summary {
        kind: "tailor.summary",
        function: &environment.function,
        version: &environment.version,
        memory_mb: environment.memory.0,
        invocations: rollup.invocations,
        errors: rollup.errors,
        cold_starts: rollup.cold_starts,
        duration_ms: Quantiles { p50: quantile_ms(0.5), p95: quantile_ms(0.95) },
        billed_ms: rollup.billed_ms,
        cost_pico_usd: cost.map(|cost| cost.0),
        peak_memory_mb: rollup.max_peak_kib.div_ceil(1_024),
        busy_ms: work.busy_us() / 1_000,
        starved_ms: work.starved_us / 1_000,
        idle_ms: work.idle_us / 1_000,
    };
    serde_json::to_string(&summary).ok()
}
