//! The full bill of a function, and of all functions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use tailor_sizing::advice::hints::{Hint, bill_hints};
use tailor_sizing::pricing::bill::{MB_MS_PER_GB_SECOND, Usage};
use tailor_sizing::pricing::full_bill::{BillLine, FullBill, GivenUsage, MeasuredUsage, Terms, full_bill};
use tailor_sizing::pricing::meters::Meter;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::telemetry::initialization::Initializations;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Architecture;

use super::evaluation::Material;
use super::list::selects_function;
use super::load::{keys, material};
use super::{MeasuredBy, Request};
use crate::import::ledger;
use crate::query::ListQuery;
use crate::store::{FunctionKey, HOUR_US, StoreError};

pub mod usage;

use usage::UsageTable;

/// Longest time that counts as one month for volume tiers, hours.
const MAX_MONTH_HOURS: u64 = 31 * 24;

/// What a bill depends on besides measurements and prices.
#[derive(Debug, Clone, Default)]
pub struct BillBasis {
    /// Usage that measurements do not show.
    pub usage: UsageTable,
    /// Discounts.
    pub terms: Terms,
    /// The data folder whose imports have counted log bytes.
    pub imports: Option<PathBuf>,
}

/// The full bill of one function.
#[derive(Debug, Clone, Serialize)]
pub struct BillReport {
    /// Function name.
    pub name: String,
    /// AWS account; empty when unknown.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// How its invocations were measured.
    pub measured_by: MeasuredBy,
    /// When the time of the bill begins, microseconds since the epoch.
    pub from_us: u64,
    /// Its length, hours.
    pub hours: u64,
    /// Number of invocations.
    pub invocations: u64,
    /// The lines and their sums.
    #[serde(flatten)]
    pub bill: FullBill,
    /// What follows from the bill.
    pub hints: Vec<Hint>,
    /// The day the prices were compiled.
    pub prices_of: String,
}

/// The bill of many functions.
#[derive(Debug, Clone, Serialize)]
pub struct FleetBill {
    /// Length of the window, hours.
    pub hours: u64,
    /// The sum over all functions.
    pub total_pico_usd: PicoDollars,
    /// The part of it in which something is assumed.
    pub assumed_pico_usd: PicoDollars,
    /// The sum of each meter.
    pub meters: Vec<MeterSum>,
    /// The functions, the most expensive first.
    pub functions: Vec<FunctionSum>,
    /// What holds for the whole bill, as sentences.
    pub assumptions: Vec<String>,
    /// The day the prices were compiled.
    pub prices_of: String,
}

/// One meter over many functions.
#[derive(Debug, Clone, Serialize)]
pub struct MeterSum {
    /// The meter.
    pub meter: Meter,
    /// The sum of what is known of it; `null` when nothing is.
    pub quantity: Option<f64>,
    /// Its unit.
    pub unit: &'static str,
    /// The cost of what is known of it; `null` when nothing is.
    pub cost_pico_usd: Option<PicoDollars>,
    /// Functions whose cost of this meter is not known.
    pub unknown_functions: u64,
}

/// One function of many.
#[derive(Debug, Clone, Serialize)]
pub struct FunctionSum {
    /// Function name.
    pub name: String,
    /// AWS account; empty when unknown.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Its cost, without what is not known.
    pub total_pico_usd: PicoDollars,
    /// The part of it in which something is assumed.
    pub assumed_pico_usd: PicoDollars,
    /// Meters whose cost is not known.
    pub unknown: Vec<Meter>,
}

/// The full bill of one function; `None` when nothing was measured of it.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn function(
    request: &Request<'_>,
    key: &FunctionKey,
    basis: &BillBasis,
) -> Result<Option<BillReport>, StoreError> {
    let material = material(request, key).await?;
    let log_bytes = log_bytes(request, key, basis).await;
    Ok(bill(request, key, &material, basis, basis.terms, log_bytes))
}

/// The bill of the functions that the filters of `list` select.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn fleet(
    request: &Request<'_>,
    list: &ListQuery,
    basis: &BillBasis,
) -> Result<FleetBill, StoreError> {
    let mut fleet = FleetBill {
        hours: list.hours,
        total_pico_usd: PicoDollars::ZERO,
        assumed_pico_usd: PicoDollars::ZERO,
        meters: vec![],
        functions: vec![],
        assumptions: vec![],
        prices_of: request.prices.compiled().to_owned(),
    };
    let is_month = list.hours <= MAX_MONTH_HOURS;
    let tags = request.tag_table();
    // Tiers are those of all functions of an account in a region on one architecture.
    let mut used: BTreeMap<(String, String, &'static str), u128> = BTreeMap::new();
    let mut sums: BTreeMap<Meter, MeterSum> = BTreeMap::new();
    for key in keys(request, None).await? {
        if !selects_function(list, &key, &tags) {
            continue;
        }
        let material = material(request, &key).await?;
        let Some(latest) = material.latest() else { continue };
        let runtime = material.environments.newest_header().map(|header| header.environment.runtime.as_str());
        let equals =
            |filter: &Option<String>, value: &str| filter.as_ref().is_none_or(|filter| filter == value);
        if !equals(&list.runtime, runtime.unwrap_or_default())
            || !equals(&list.architecture, latest.key.architecture.as_str())
        {
            continue;
        }
        let group = (key.account.clone(), key.region.clone(), latest.key.architecture.as_str());
        let used = used.entry(group).or_default();
        let gb_seconds = u64::try_from(*used / MB_MS_PER_GB_SECOND).unwrap_or(u64::MAX);
        let terms = Terms { used_gb_seconds: if is_month { gb_seconds } else { 0 }, ..basis.terms };
        let log_bytes = log_bytes(request, &key, basis).await;
        let Some(report) = bill(request, &key, &material, basis, terms, log_bytes) else { continue };
        *used += usage(&material).iter().map(|(_, usage)| usage.memory_mb_ms).sum::<u128>();
        fleet.add(&report, &mut sums);
        tokio::task::yield_now().await;
    }
    fleet.meters = sums.into_values().collect();
    fleet.meters.sort_by_key(|sum| std::cmp::Reverse(sum.cost_pico_usd));
    fleet.functions.sort_by_key(|function| std::cmp::Reverse(function.total_pico_usd));
    fleet.assumptions.push(match is_month {
        true => "The window counts as one month for volume tiers, and other accounts of the organization are not included."
            .to_owned(),
        false => "The window is longer than a month: every price is that of the first volume tier.".to_owned(),
    });
    fleet.assumptions.push("The free tier of the account is not subtracted.".to_owned());
    Ok(fleet)
}

impl FleetBill {
    fn add(&mut self, report: &BillReport, sums: &mut BTreeMap<Meter, MeterSum>) {
        let BillReport { name, account, region, bill, .. } = report;
        self.total_pico_usd += bill.total_pico_usd;
        self.assumed_pico_usd += bill.assumed_pico_usd;
        for BillLine { meter, quantity, unit, cost_pico_usd, .. } in &bill.lines {
            let sum = sums.entry(*meter).or_insert_with(|| MeterSum {
                meter: *meter,
                quantity: None,
                unit,
                cost_pico_usd: None,
                unknown_functions: 0,
            });
            if let Some(quantity) = quantity {
                sum.quantity = Some(sum.quantity.unwrap_or(0.0) + quantity);
            }
            if let Some(cost) = cost_pico_usd {
                sum.cost_pico_usd = Some(sum.cost_pico_usd.unwrap_or_default() + *cost);
            }
        }
        for meter in &bill.unknown {
            if let Some(sum) = sums.get_mut(meter) {
                sum.unknown_functions += 1;
            }
        }
        self.functions.push(FunctionSum {
            name: name.clone(),
            account: account.clone(),
            region: region.clone(),
            total_pico_usd: bill.total_pico_usd,
            assumed_pico_usd: bill.assumed_pico_usd,
            unknown: bill.unknown.clone(),
        });
    }
}

/// The log bytes that imports have counted. Without them, the bill has an unknown line.
async fn log_bytes(request: &Request<'_>, key: &FunctionKey, basis: &BillBasis) -> Option<u64> {
    let (folder, tenant) = (basis.imports.clone()?, request.tenant.clone());
    let (key, window) = (key.clone(), request.window);
    let read = tokio::task::spawn_blocking(move || ledger::log_bytes(&folder, &tenant, &key, window)).await;
    match read.map_err(anyhow::Error::from).flatten() {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::warn!("the bill lacks the log bytes of imports: {error:#}");
            None
        }
    }
}

/// The usage of a function on each architecture.
fn usage(material: &Material) -> Vec<(Architecture, Usage)> {
    let ephemeral_mb =
        material.environments.newest_header().map_or(0, |header| header.environment.ephemeral_mb);
    let mut usage: BTreeMap<Architecture, Usage> = BTreeMap::new();
    for series in &material.series {
        let (memory, rollup) = (series.key.memory, &series.rollup);
        let one = Usage::of(memory, rollup.billed_ms, rollup.invocations, ephemeral_mb)
            .with_init(memory, rollup.init_us / 1_000);
        usage.entry(series.key.architecture).or_default().add(&one);
    }
    usage.into_iter().collect()
}

fn bill(
    request: &Request<'_>,
    key: &FunctionKey,
    material: &Material,
    basis: &BillBasis,
    terms: Terms,
    log_bytes: Option<u64>,
) -> Option<BillReport> {
    let latest = material.latest()?;
    let newest = material.environments.newest_header();
    let mut whole = Rollup::default();
    let mut initializations = Initializations::default();
    let mut restored_mb = 0_u128;
    for series in &material.series {
        whole.merge(&series.rollup);
        initializations.merge(&series.rollup.initializations);
        restored_mb += u128::from(series.rollup.initializations.snap_start) * u128::from(series.key.memory.0);
    }
    let mut versions: Vec<&str> = material.series.iter().map(|series| series.key.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let measured_by = material.measured_by();
    // The bill begins with the window or with the first invocation. A log ends with its last invocation; a function with the
    // layer is measured until now.
    let from_us = request.window.from_hour.saturating_mul(HOUR_US).max(whole.first_at_us / HOUR_US * HOUR_US);
    let last_us = whole.last_at_us.saturating_add(1);
    let until_us = if measured_by == MeasuredBy::Logs { last_us } else { request.now_us.max(last_us) };
    let until_us = until_us.min(request.window.until_hour.saturating_mul(HOUR_US));
    let hours = until_us.saturating_sub(from_us).div_ceil(HOUR_US).max(1);
    let measured_invocations = whole.warm.invocations + whole.cold.invocations;
    let sent_bytes = whole.warm.work.network_tx_bytes.saturating_add(whole.cold.work.network_tx_bytes);
    let measured = MeasuredUsage {
        region: &key.region,
        runtime: newest.map_or("", |header| header.environment.runtime.as_str()),
        memory: latest.key.memory,
        usage: usage(material),
        initializations,
        restored_mb,
        versions: versions.len() as u64,
        sent_bytes: (measured_invocations > 0).then_some(sent_bytes),
        log_bytes,
        is_managed: newest.is_some_and(|header| header.environment.is_managed_instances()),
        hours,
    };
    let given: GivenUsage = basis.usage.of(key);
    let bill = full_bill(&measured, &given, request.prices, &terms);
    let hints = bill_hints(&bill, &whole);
    Some(BillReport {
        name: key.name.clone(),
        account: key.account.clone(),
        region: key.region.clone(),
        measured_by,
        from_us,
        hours,
        invocations: whole.invocations,
        bill,
        hints,
        prices_of: request.prices.compiled().to_owned(),
    })
}
