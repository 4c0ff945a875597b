//! The full bill of a function, and of all functions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use tailor_sizing::advice::hints::{Hint, bill_hints};
use tailor_sizing::pricing::bill::MB_MS_PER_GB_SECOND;
use tailor_sizing::pricing::full_bill::{BillLine, FullBill, Terms, full_bill, full_bill_in_month};
use tailor_sizing::pricing::meters::{Meter, UsedAmounts};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::telemetry::rollup::Rollup;

use super::evaluation::Material;
use super::list::{SUMMARY_HOURS, selects_function};
use super::load::{keys, material};
use super::stored::{stored, stored_with};
use super::{MeasuredBy, Request};
use crate::import::ledger;
use crate::query::ListQuery;
use crate::store::{FunctionKey, StoreError};

mod material;
pub(super) mod spans;
pub mod usage;

pub(super) use material::{BillMaterial, bill_kind};
pub(super) use spans::spans_kind;
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
    /// The functions, the most expensive first: at most the limit of the query. The sums are of all.
    pub functions: Vec<FunctionSum>,
    /// Number of functions that the filters select.
    pub matching_functions: u64,
    /// When the oldest sums were computed that it is from, microseconds since the Unix epoch; `null` when it was computed from
    /// the measurements.
    pub computed_at_us: Option<u64>,
    /// What applies to the whole bill, as sentences.
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

/// What functions of an account in a region used in the month, in the order in which they are billed.
#[derive(Default)]
struct Used {
    /// Memory × billed time by architecture.
    mb_ms: BTreeMap<&'static str, u128>,
    /// Of the other meters with volume tiers.
    amounts: UsedAmounts,
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
    Ok(bill(request, key, &material, basis, log_bytes))
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
        matching_functions: 0,
        computed_at_us: None,
    };
    let is_month = list.hours <= MAX_MONTH_HOURS;
    let log_bytes = all_log_bytes(request, basis).await;
    let (materials, computed_at_us) = materials(request, list).await?;
    fleet.computed_at_us = computed_at_us;
    // Tiers are those of all functions of an account in a region, and those of compute on one architecture.
    let mut used: BTreeMap<(&str, &str), Used> = BTreeMap::new();
    let mut sums: BTreeMap<Meter, MeterSum> = BTreeMap::new();
    for (key, material) in &materials {
        let used = used.entry((key.account.as_str(), key.region.as_str())).or_default();
        if !is_month {
            *used = Used::default();
        }
        let mb_ms = used.mb_ms.entry(material.architecture.as_str()).or_default();
        let used_gb_seconds = u64::try_from(*mb_ms / MB_MS_PER_GB_SECOND).unwrap_or(u64::MAX);
        let terms = Terms { used_gb_seconds, ..basis.terms };
        *mb_ms += material.memory_mb_ms();
        let (_, hours) = material.time(request.window, request.now_us);
        let measured = material.measured(key, log_bytes.get(key).copied(), hours);
        let given = basis.usage.of(key);
        let bill = full_bill_in_month(&measured, &given, request.prices, &terms, &mut used.amounts);
        fleet.add(key, &bill, &mut sums);
        tokio::task::yield_now().await;
    }
    fleet.meters = sums.into_values().collect();
    fleet.meters.sort_by_key(|sum| std::cmp::Reverse(sum.cost_pico_usd));
    fleet.matching_functions = fleet.functions.len() as u64;
    fleet.functions.sort_by_key(|function| std::cmp::Reverse(function.total_pico_usd));
    fleet.functions.truncate(list.limit);
    let tiers = if is_month {
        "The window counts as one month for volume tiers, and other accounts of the organization are not included."
    } else {
        "The window is longer than a month: volume tiers are not those of all functions together."
    };
    fleet.assumptions.push(tiers.to_owned());
    fleet.assumptions.push("The free tier of the account is not subtracted.".to_owned());
    Ok(fleet)
}

/// The sums of the functions that `list` selects, sorted by key, and when the oldest were computed; `None` when all were
/// computed now. A large fleet is read from stored sums: those of the window, or else those of the days and hours in it.
async fn materials(
    request: &Request<'_>,
    list: &ListQuery,
) -> Result<(Vec<(FunctionKey, BillMaterial)>, Option<u64>), StoreError> {
    let tags = request.tag_table();
    let selects = |material: &BillMaterial| {
        let equals =
            |filter: &Option<String>, value: &str| filter.as_deref().is_none_or(|text| text == value);
        equals(&list.runtime, &material.runtime) && equals(&list.architecture, material.architecture.as_str())
    };
    let mut keys = keys(request, None).await?;
    keys.sort_unstable();
    keys.retain(|key| selects_function(list, key, &tags));
    let mut selected = vec![];
    let (stored, oldest_at_us) = if request.computes(keys.len()) {
        (BTreeMap::new(), None)
    } else if SUMMARY_HOURS.contains(&list.hours) {
        stored::<BillMaterial>(request, &bill_kind(list.hours)).await?
    } else {
        let decode = |bytes: &[u8]| spans::decode(bytes, request.window).map(BillMaterial::of_sums);
        stored_with(request, &spans_kind(), decode).await?
    };
    for key in keys {
        let found = match stored.get(&key) {
            Some(known) => known.clone(),
            None => BillMaterial::of(&material(request, &key).await?),
        };
        if let Some(found) = found.filter(&selects) {
            selected.push((key, found));
        }
        tokio::task::yield_now().await;
    }
    Ok((selected, oldest_at_us))
}

impl FleetBill {
    fn add(&mut self, key: &FunctionKey, bill: &FullBill, sums: &mut BTreeMap<Meter, MeterSum>) {
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
            name: key.name.clone(),
            account: key.account.clone(),
            region: key.region.clone(),
            total_pico_usd: bill.total_pico_usd,
            assumed_pico_usd: bill.assumed_pico_usd,
            unknown: bill.unknown.clone(),
        });
    }
}

/// The log bytes that imports have counted of one function. Without them, the bill has an unknown line.
async fn log_bytes(request: &Request<'_>, key: &FunctionKey, basis: &BillBasis) -> Option<u64> {
    let (tenant, key, window) = (request.tenant.clone(), key.clone(), request.window);
    read_imports(basis, move |folder| ledger::log_bytes(folder, &tenant, &key, window)).await.flatten()
}

/// The same of all functions, in one query.
async fn all_log_bytes(request: &Request<'_>, basis: &BillBasis) -> BTreeMap<FunctionKey, u64> {
    let (tenant, window) = (request.tenant.clone(), request.window);
    read_imports(basis, move |folder| ledger::all_log_bytes(folder, &tenant, window))
        .await
        .unwrap_or_default()
}

async fn read_imports<T: Send + 'static>(
    basis: &BillBasis,
    read: impl FnOnce(&Path) -> anyhow::Result<T> + Send + 'static,
) -> Option<T> {
    let folder = basis.imports.clone()?;
    let read = tokio::task::spawn_blocking(move || read(&folder)).await;
    match read.map_err(anyhow::Error::from).flatten() {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::warn!("the bill lacks the log bytes of imports: {error:#}");
            None
        }
    }
}

fn bill(
    request: &Request<'_>,
    key: &FunctionKey,
    material: &Material,
    basis: &BillBasis,
    log_bytes: Option<u64>,
) -> Option<BillReport> {
    let sums = BillMaterial::of(material)?;
    let (from_us, hours) = sums.time(request.window, request.now_us);
    let measured = sums.measured(key, log_bytes, hours);
    let bill = full_bill(&measured, &basis.usage.of(key), request.prices, &basis.terms);
    let mut whole = Rollup::default();
    material.series.iter().for_each(|series| whole.merge(&series.rollup));
    let hints = bill_hints(&bill, &whole);
    Some(BillReport {
        name: key.name.clone(),
        account: key.account.clone(),
        region: key.region.clone(),
        measured_by: sums.measured_by,
        from_us,
        hours,
        invocations: sums.invocations,
        bill,
        hints,
        prices_of: request.prices.compiled().to_owned(),
    })
}
