//! Builds the report of one function.

use std::collections::BTreeMap;

use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::{PriceTable, Rates};
use tailor_sizing::telemetry::invocation::Work;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use super::evaluation::{Basis, Evaluated, Material, evaluate};
use super::{
    AdviceReport, Evaluation, ExtensionReport, FunctionReport, Losses, MeasuredBy, NotMeasured, Overheads,
    Quantiles, Resources, SizeReport, UtilizationReport, round_to_micros,
};
use crate::store::{Environments, FunctionKey, Series};

/// Computes one report of a window that starts at `from_us`. `None` when nothing was measured.
pub(super) fn report(
    key: &FunctionKey,
    material: &Material,
    basis: &Basis<'_>,
    from_us: u64,
    now_us: u64,
) -> Option<FunctionReport> {
    let Evaluated { evaluation, whole, sizes, is_managed, newest, ephemeral_mb } =
        evaluate(key, material, basis)?;
    let Evaluation { memory, architecture, versions, measured_by, unaccounted, advice, .. } = evaluation;
    let cost = total_cost(key, material, basis.prices, ephemeral_mb).filter(|_| !is_managed);
    let advice = AdviceReport::new(advice, memory);
    let rates = basis.prices.rates(&key.region, architecture).ok().filter(|_| !is_managed);
    let TimeShares { measured_ms, busy_ms, starved_ms, idle_ms } = TimeShares::of(&whole);
    let lost = Losses::of(&material.environments, from_us, now_us);
    Some(FunctionReport {
        name: key.name.clone(),
        account: key.account.clone(),
        region: key.region.clone(),
        runtime: newest.map(|header| header.environment.runtime.clone()).unwrap_or_default(),
        architecture,
        tags: crate::tags::Tags::new(),
        versions: versions.into_iter().map(|version| version.name).collect(),
        memory,
        invocations: whole.invocations,
        errors: whole.errors,
        timeouts: whole.timeouts,
        out_of_memory: whole.out_of_memory,
        cold_starts: whole.cold_starts,
        initializations: whole.initializations,
        duration_ms: Quantiles::of(&whole.duration_us),
        billed_ms: whole.billed_ms,
        cost_pico_usd: cost,
        cost_per_million_pico_usd: cost.and_then(|cost| per_million(cost, whole.invocations)),
        peak_memory_mb: peak_mb(&whole),
        busy_ms,
        starved_ms,
        idle_ms,
        measured_ms,
        utilization: UtilizationReport::of(&whole.utilization),
        resources: Resources::of(&whole),
        first_at_us: whole.first_at_us,
        last_at_us: whole.last_at_us,
        environments: material.environment_count(),
        measured_by,
        sizes: size_reports(&sizes, rates.as_ref(), ephemeral_mb),
        lost,
        overhead: overheads(&material.environments),
        extension: extension(
            &material.environments,
            unaccounted.percent(),
            not_measured(&whole, measured_by, is_managed),
        ),
        caveats: caveats(
            &whole,
            measured_by,
            &lost,
            missing_prices(key, material, basis.prices).filter(|_| !is_managed),
        ),
        advice,
        other_recommendations: vec![],
        profiles: None,
        changes: material.changes.clone(),
        duration_us: whole.duration_us,
        peak_kib: whole.peak_kib,
    })
}

/// What the measured time of all invocations was used for, milliseconds.
struct TimeShares {
    measured_ms: u64,
    busy_ms: u64,
    starved_ms: u64,
    idle_ms: u64,
}

impl TimeShares {
    fn of(whole: &Rollup) -> Self {
        let work = |of: fn(&Work) -> u64| (of(&whole.warm.work) + of(&whole.cold.work)) / 1_000;
        let measured_ms = (whole.warm.wall_us + whole.cold.wall_us) / 1_000;
        let busy_ms = work(|work| work.busy_us());
        let idle_ms = work(|work| work.idle_us).min(measured_ms);
        let starved_ms = measured_ms.saturating_sub(idle_ms).saturating_sub(busy_ms);
        Self { measured_ms, busy_ms, starved_ms, idle_ms }
    }
}

/// The cost of all invocations. It is rounded once for each architecture, because each has its own price.
fn total_cost(
    key: &FunctionKey,
    material: &Material,
    prices: &PriceTable,
    ephemeral_mb: u32,
) -> Option<PicoDollars> {
    let mut usage: BTreeMap<&'static str, (Architecture, Usage)> = BTreeMap::new();
    for Series { key, rollup } in &material.series {
        let (_, usage) =
            usage.entry(key.architecture.as_str()).or_insert_with(|| (key.architecture, Usage::default()));
        usage.add(&Usage::of(key.memory, rollup.billed_ms, rollup.invocations, ephemeral_mb));
    }
    usage
        .values()
        .map(|(architecture, usage)| {
            prices.rates(&key.region, *architecture).ok().map(|rates| rates.bill(usage).total())
        })
        .sum()
}

/// A report of each memory size; without costs where there are no `rates`.
fn size_reports(sizes: &[(Megabytes, Rollup)], rates: Option<&Rates>, ephemeral_mb: u32) -> Vec<SizeReport> {
    let report = |(memory, rollup): &(Megabytes, Rollup)| {
        let cost = rates.map(|rates| rates.cost(*memory, rollup.billed_ms, rollup.invocations, ephemeral_mb));
        size_report(*memory, rollup, cost)
    };
    sizes.iter().map(report).collect()
}

fn size_report(memory: Megabytes, rollup: &Rollup, cost: Option<PicoDollars>) -> SizeReport {
    SizeReport {
        memory,
        invocations: rollup.invocations,
        errors: rollup.errors,
        out_of_memory: rollup.out_of_memory,
        cold_starts: rollup.cold_starts,
        warm_duration_ms: Quantiles::of(&rollup.warm_duration_us),
        warm_mean_ms: round_to_micros(rollup.warm_duration_us.mean().unwrap_or(0.0) / 1_000.0),
        billed_ms: rollup.billed_ms,
        cost_pico_usd: cost,
        cost_per_million_pico_usd: cost.and_then(|cost| per_million(cost, rollup.invocations)),
        peak_memory_mb: rollup.max_peak_kib.div_ceil(1_024),
        last_at_us: rollup.last_at_us,
    }
}

fn peak_mb(rollup: &Rollup) -> u64 {
    match rollup.max_peak_kib.max(rollup.utilization.max_peak_kib) {
        0 => u64::from(rollup.max_memory_used_mb),
        kib => kib.div_ceil(1_024),
    }
}

fn overheads(environments: &Environments) -> Overheads {
    let live = environments.live.iter().map(|state| &state.header.overhead);
    let ended = environments.ended.iter().map(|ended| &ended.overhead);
    live.chain(ended).fold(Overheads::default(), |sum, overhead| Overheads {
        cpu_us: sum.cpu_us.saturating_add(overhead.cpu_us),
        resident_kib: sum.resident_kib.max(overhead.resident_kib),
        sent_bytes: sum.sent_bytes.saturating_add(overhead.sent_bytes),
    })
}

fn extension(
    environments: &Environments,
    unaccounted_percent: u8,
    not_measured: Option<NotMeasured>,
) -> ExtensionReport {
    let live = environments.live.iter().map(|state| (state.received_at_us, &state.header));
    let ended = environments.ended.iter().map(|ended| (ended.received_at_us, &ended.header));
    let measured = live.chain(ended).filter(|(_, header)| !header.environment.is_imported());
    let mut versions = Vec::new();
    let mut received_at_us = 0;
    let mut delivery_ms: Option<i64> = None;
    for (at_us, header) in measured {
        versions.push(header.environment.extension_version.clone());
        received_at_us = received_at_us.max(at_us);
        let difference_us = i128::from(at_us) - i128::from(header.sent_at_us);
        let difference_ms = i64::try_from(difference_us / 1_000).unwrap_or(i64::MAX);
        delivery_ms = Some(delivery_ms.map_or(difference_ms, |least| least.min(difference_ms)));
    }
    versions.sort_unstable();
    versions.dedup();
    ExtensionReport { versions, received_at_us, unaccounted_percent, delivery_ms, not_measured }
}

fn not_measured(whole: &Rollup, measured_by: MeasuredBy, is_managed: bool) -> Option<NotMeasured> {
    let measured = whole.warm.invocations + whole.cold.invocations;
    match measured_by {
        _ if measured > 0 || whole.utilization.intervals > 0 => None,
        MeasuredBy::Logs => Some(NotMeasured::Logs),
        _ if is_managed => Some(NotMeasured::ManagedInstances),
        _ => (whole.invocations > 0).then_some(NotMeasured::Unreadable),
    }
}

/// The caveat for the first architecture of the function without a price.
fn missing_prices(key: &FunctionKey, material: &Material, prices: &PriceTable) -> Option<String> {
    let architectures = material.series.iter().map(|series| series.key.architecture);
    let missing =
        architectures.into_iter().find(|architecture| prices.rates(&key.region, *architecture).is_err())?;
    Some(format!(
        "no {missing} price is known for region {}: costs are left out; use newer prices with --prices",
        key.region
    ))
}

fn caveats(
    whole: &Rollup,
    measured_by: MeasuredBy,
    lost: &Losses,
    missing_prices: Option<String>,
) -> Vec<String> {
    let measured = whole.warm.invocations + whole.cold.invocations;
    let candidates = [
        (
            whole.estimated > 0,
            format!(
                "invocations whose duration is the extension's estimate, without telemetry of the platform: {}",
                whole.estimated
            ),
        ),
        (
            measured_by != MeasuredBy::Layer,
            "invocations were imported from logs: they have no CPU time and no memory of the function's processes, \
             errors that the handler returned are successes, and the instruction set is that of the import"
                .to_owned(),
        ),
        (
            measured_by == MeasuredBy::Layer
                && measured == 0
                && whole.invocations > 0
                && whole.utilization.intervals == 0,
            "CPU time could not be measured: busy, starved and idle are unknown".to_owned(),
        ),
    ];
    let applying = candidates.into_iter().filter(|(applies, _)| *applies).map(|(_, sentence)| sentence);
    missing_prices.into_iter().chain(applying).chain(lost.sentences()).collect()
}

/// The cost of a million invocations when `count` invocations cost this; `None` when `count` is zero.
#[must_use]
pub fn per_million(cost: PicoDollars, count: u64) -> Option<PicoDollars> {
    cost.scaled(1_000_000, u128::from(count))
}
