//! Reconciliation: what AWS billed beside what was computed from the store.
//!
//! [`tailor_billing`] reads the exports and compares. This module reads the measured side from the store, sums the result up,
//! and keeps the last one in the data folder for the API, the page and the metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tailor_billing::bill::Bill;
use tailor_billing::compare::{self, Inputs, Measured, Reason, ReasonCode, Status};
use tailor_billing::read::{Counts, Problems};
use tailor_billing::{Function, time};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;

use crate::store::{Store, StoreError, Tenant};

mod last;
mod measured;
mod metrics;

pub use last::LastReconciliations;
pub use metrics::ReconciliationMetrics;

/// The result of a reconciliation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// When it was made, microseconds since the Unix epoch.
    pub at_us: u64,
    /// Formats of the exports.
    pub formats: Vec<String>,
    /// Files that were read.
    pub files: u64,
    /// Rows of all services.
    pub rows_read: u64,
    /// Rows of Lambda.
    pub lambda_rows: u64,
    /// Rows of Lambda that several files have. They count once.
    pub repeated_rows: u64,
    /// The first day of the compared usage, UTC; empty without rows.
    pub from: String,
    /// The last day of the compared usage, UTC; empty without rows.
    pub to: String,
    /// The day the prices were compiled.
    pub prices_of: String,
    /// Sums over all rows.
    pub total: Total,
    /// Sums by status.
    pub by_status: Vec<StatusTotal>,
    /// Sums by reason, the largest first.
    pub reasons: Vec<ReasonTotal>,
    /// Rows of the bill that belong to no function or have no usage. They are not compared.
    pub not_compared: Vec<NotCompared>,
    /// What could not be read, by kind.
    pub problems: Vec<ProblemCount>,
    /// The rows. The stored result has the most important ones only.
    pub rows: Vec<RowReport>,
    /// Number of all rows.
    pub row_count: u64,
}

/// Sums over rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// What AWS billed.
    pub billed_pico_usd: PicoDollars,
    /// What was computed.
    pub computed_pico_usd: PicoDollars,
    /// Billed minus computed.
    pub difference_pico_usd: PicoDollars,
    /// Sum of the absolute values of what no reason explains.
    pub unexplained_pico_usd: PicoDollars,
}

impl Total {
    fn add(&mut self, row: &compare::Row) {
        self.billed_pico_usd += row.billed;
        self.computed_pico_usd += row.computed;
        self.difference_pico_usd += row.difference();
        self.unexplained_pico_usd += PicoDollars(row.unexplained.0.abs());
    }

    /// What no reason explains, in percent of the larger of both sides.
    #[must_use]
    pub fn unexplained_percent(&self) -> f64 {
        let largest = self.billed_pico_usd.0.abs().max(self.computed_pico_usd.0.abs());
        if largest == 0 { 0.0 } else { 100.0 * self.unexplained_pico_usd.0 as f64 / largest as f64 }
    }
}

/// Sums over the rows with one status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusTotal {
    /// The status.
    pub status: Status,
    /// Number of rows.
    pub rows: u64,
    /// Sums over them. A flattened struct could not be read again, because serde does not buffer integers of 128 bits.
    pub total: Total,
}

/// Sums over the rows with one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonTotal {
    /// Its code.
    pub code: ReasonCode,
    /// Number of rows.
    pub rows: u64,
    /// Sum of its parts of the differences.
    pub amount_pico_usd: PicoDollars,
    /// What it means.
    pub meaning: String,
}

/// Rows of the bill that are not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotCompared {
    /// What they are.
    pub what: String,
    /// Number of rows.
    pub rows: u64,
    /// Their cost.
    pub billed_pico_usd: PicoDollars,
}

/// A kind of input that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemCount {
    /// The kind.
    pub what: String,
    /// How often.
    pub count: u64,
    /// The first one.
    pub example: String,
}

/// One function, period and meter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowReport {
    /// Function name.
    pub function: String,
    /// AWS account.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// First day of the period, UTC.
    pub from: String,
    /// Length of the period, hours.
    pub hours: i64,
    /// The meter, such as `compute-arm64`.
    pub meter: String,
    /// Billed quantity: GB-seconds or requests.
    pub billed_quantity: f64,
    /// Measured quantity; `null` for a meter that is not measured.
    pub measured_quantity: Option<f64>,
    /// What AWS billed.
    pub billed_pico_usd: PicoDollars,
    /// What was computed.
    pub computed_pico_usd: PicoDollars,
    /// Billed minus computed.
    pub difference_pico_usd: PicoDollars,
    /// The part of the difference without a reason.
    pub unexplained_pico_usd: PicoDollars,
    /// The result.
    pub status: Status,
    /// Why billed and computed differ.
    pub reasons: Vec<Reason>,
}

impl From<&compare::Row> for RowReport {
    fn from(row: &compare::Row) -> Self {
        Self {
            function: row.function.name.clone(),
            account: row.function.account.clone(),
            region: row.function.region.clone(),
            from: time::format_day(row.period.from_hour.saturating_mul(time::HOUR_S)),
            hours: row.period.hours,
            meter: row.meter.to_string(),
            billed_quantity: tailor_billing::decimal::to_float(row.billed_quantity_pico),
            measured_quantity: row.measured_quantity_pico.map(tailor_billing::decimal::to_float),
            billed_pico_usd: row.billed,
            computed_pico_usd: row.computed,
            difference_pico_usd: row.difference(),
            unexplained_pico_usd: row.unexplained,
            status: row.status,
            reasons: row.reasons.clone(),
        }
    }
}

impl RowReport {
    /// How much the row matters: what is unexplained first, then the difference.
    fn weight(&self) -> (u128, u128) {
        (self.unexplained_pico_usd.0.unsigned_abs(), self.difference_pico_usd.0.unsigned_abs())
    }
}

/// What was read from the exports.
pub struct ReadExports {
    /// The sums.
    pub bill: Bill,
    /// Number of files and rows.
    pub counts: Counts,
    /// What could not be read.
    pub problems: Problems,
}

/// Compares a bill with the store.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn reconcile(
    exports: ReadExports,
    store: &dyn Store,
    tenant: &Tenant,
    prices: &PriceTable,
    now_us: u64,
) -> Result<Reconciliation, StoreError> {
    let ReadExports { mut bill, counts, problems } = exports;
    let measured: BTreeMap<Function, Measured> = measured::read(&bill, store, tenant, now_us).await?;
    let rows = compare::compare(&mut bill, &Inputs { measured: &measured, prices });
    let mut result = Reconciliation {
        at_us: now_us,
        formats: counts.formats.iter().map(ToString::to_string).collect(),
        files: counts.files,
        rows_read: counts.rows,
        lambda_rows: counts.lambda_rows,
        repeated_rows: counts.repeated_rows,
        prices_of: prices.compiled().to_owned(),
        row_count: rows.len() as u64,
        ..Reconciliation::default()
    };
    let hour = |hour: i64| time::format_day(hour.saturating_mul(time::HOUR_S));
    result.from = rows.iter().map(|row| row.period.from_hour).min().map(hour).unwrap_or_default();
    result.to = rows.iter().map(|row| row.period.until_hour() - 1).max().map(hour).unwrap_or_default();
    sum_up(&mut result, &rows);
    let rest = bill.rest.into_iter();
    result.not_compared =
        rest.map(|(what, (rows, billed_pico_usd))| NotCompared { what, rows, billed_pico_usd }).collect();
    let problems = problems.iter().map(|(kind, count, example)| ProblemCount {
        what: kind.words().to_owned(),
        count,
        example: example.to_owned(),
    });
    result.problems = problems.collect();
    result.rows = rows.iter().map(RowReport::from).collect();
    Ok(result)
}

fn sum_up(result: &mut Reconciliation, rows: &[compare::Row]) {
    let mut by_reason: BTreeMap<ReasonCode, (u64, PicoDollars)> = BTreeMap::new();
    let mut by_status: BTreeMap<Status, (u64, Total)> = BTreeMap::new();
    for row in rows {
        result.total.add(row);
        let (count, total) = by_status.entry(row.status).or_default();
        *count += 1;
        total.add(row);
        for reason in &row.reasons {
            let (count, amount) = by_reason.entry(reason.code).or_default();
            *count += 1;
            *amount += reason.amount;
        }
    }
    result.by_status =
        by_status.into_iter().map(|(status, (rows, total))| StatusTotal { status, rows, total }).collect();
    let reasons = by_reason.into_iter().map(|(code, (rows, amount_pico_usd))| ReasonTotal {
        code,
        rows,
        amount_pico_usd,
        meaning: code.sentence().to_owned(),
    });
    result.reasons = reasons.collect();
    result.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.amount_pico_usd.0.abs()));
}

impl Reconciliation {
    /// The rows that are not equal, the most important first.
    #[must_use]
    pub fn differing_rows(&self) -> Vec<&RowReport> {
        let mut rows: Vec<&RowReport> = self.rows.iter().filter(|row| row.status != Status::Equal).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.weight()));
        rows
    }

    /// The number of rows with a status.
    #[must_use]
    pub fn rows_with(&self, status: Status) -> u64 {
        self.by_status.iter().find(|total| total.status == status).map_or(0, |total| total.rows)
    }

    /// It in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Total { billed_pico_usd, computed_pico_usd, difference_pico_usd, unexplained_pico_usd } =
            self.total;
        format!(
            "{} to {}: AWS billed {billed_pico_usd}, computed {computed_pico_usd}, difference {difference_pico_usd}, \
             of which {unexplained_pico_usd} is unexplained ({:.2} %)",
            self.from,
            self.to,
            self.total.unexplained_percent()
        )
    }
}
