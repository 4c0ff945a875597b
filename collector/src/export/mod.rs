//! Measured usage in the formats that others read: FOCUS rows, usage files of Infracost, and tables in CSV and Parquet.
//!
//! Rows are made one function at a time and written while the next are read, so memory does not grow with the fleet.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};

use anyhow::Context;
use tailor_billing::focus::{self, FocusRow};
use tailor_billing::infracost::{self, FunctionUsage};
use tailor_billing::table::{self, Encoding};
use tailor_billing::{Function, Meter, MeterKind, decimal};
use tailor_sizing::pricing::bill::{MB_MS_PER_GB_SECOND, Usage};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::{PriceTable, Rates};
use tailor_sizing::units::Architecture;

use crate::store::{FunctionKey, HOUR_US, Store, StoredRollup, Tenant, Window};
use crate::tags::TagTable;

mod rollups;

/// Rows that wait for the writer.
const WAITING_ROWS: usize = 1_000;

/// Hours of Infracost's month.
const MONTH_HOURS: u128 = 730;

/// What is exported.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// The owner of the functions.
    pub tenant: &'a Tenant,
    /// The time. Its end is at most the present hour.
    pub window: Window,
    /// Lambda's prices.
    pub prices: &'a PriceTable,
    /// The tags of functions.
    pub tags: &'a TagTable,
}

/// Length of the time that one row covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Granularity {
    /// One hour, as far as the store has hours: by default the latest 8 days. Before that, one day.
    Hour,
    /// One UTC day.
    #[default]
    Day,
}

impl Granularity {
    /// First hour and length of the row that a rollup belongs to.
    fn period(self, stored: &StoredRollup) -> (u64, u64) {
        match self {
            Self::Day => (stored.from_hour / 24 * 24, 24),
            Self::Hour => (stored.from_hour, stored.hours),
        }
    }
}

/// Writes FOCUS 1.2 rows. Returns the number of functions without a price, which are left out.
///
/// # Errors
/// When the store cannot be read or the output cannot be written.
pub async fn focus<W: Write + Send + 'static>(
    source: Source<'_>,
    granularity: Granularity,
    encoding: Encoding,
    output: W,
) -> anyhow::Result<u64> {
    let writing = Writing::start(move |rows| focus::write(rows, encoding, output));
    let mut without_price = 0;
    for key in source.functions().await? {
        let rollups = source.store.rollups(source.tenant, &key, source.window).await?;
        let ephemeral_mb = source.ephemeral_mb(&key).await?;
        let rows = focus_rows(source, &key, &rollups, ephemeral_mb, granularity);
        without_price += u64::from(!rollups.is_empty() && rows.is_empty());
        if !writing.send(rows) {
            break;
        }
    }
    writing.finish().map(|()| without_price)
}

/// Writes one row per series and hour or day.
///
/// # Errors
/// When the store cannot be read or the output cannot be written.
pub async fn rollups<W: Write + Send + 'static>(
    source: Source<'_>,
    granularity: Granularity,
    encoding: Encoding,
    output: W,
) -> anyhow::Result<()> {
    let writing = Writing::start(move |rows| table::write(&rollups::columns(), rows, encoding, output));
    for key in source.functions().await? {
        let rollups = source.store.rollups(source.tenant, &key, source.window).await?;
        let ephemeral_mb = source.ephemeral_mb(&key).await?;
        if !writing.send(rollups::rows(source.prices, &rollups, ephemeral_mb, granularity)) {
            break;
        }
    }
    writing.finish()
}

/// A usage file of Infracost with the usage of a month at the rate of the window.
///
/// # Errors
/// When the store cannot be read.
pub async fn infracost(source: Source<'_>) -> anyhow::Result<String> {
    let mut functions = vec![];
    for key in source.functions().await? {
        let rollups = source.store.rollups(source.tenant, &key, source.window).await?;
        let (requests, billed_ms) = rollups.iter().fold((0_u128, 0_u128), |(requests, billed_ms), stored| {
            (
                requests + u128::from(stored.rollup.invocations),
                billed_ms + u128::from(stored.rollup.billed_ms),
            )
        });
        if requests == 0 {
            continue;
        }
        let hours = u128::from(source.measured_hours(&key, &rollups).await?);
        let rounded = |amount: u128, by: u128| u64::try_from((amount + by / 2) / by).unwrap_or(u64::MAX);
        functions.push(FunctionUsage {
            name: key.name.clone(),
            resource: source.tags.value(&key, "terraform_resource").unwrap_or_default().to_owned(),
            monthly_requests: rounded(requests * MONTH_HOURS, hours),
            request_duration_ms: rounded(billed_ms, requests),
        });
    }
    let comment = "Usage of a month, from measured invocations. Durations are billed durations, with Init.\n\
                   Terraform's name of each resource is assumed to be the function's name: replace it where it is not.";
    Ok(infracost::usage_file(&functions, comment))
}

impl Source<'_> {
    async fn functions(&self) -> anyhow::Result<Vec<FunctionKey>> {
        Ok(self.store.functions(self.tenant, None, usize::MAX).await?)
    }

    /// The hours in which a function was measured. One that is newer than the window has a shorter time, and a log ends with its
    /// last invocation.
    async fn measured_hours(&self, key: &FunctionKey, rollups: &[StoredRollup]) -> anyhow::Result<u64> {
        let environments = self.store.environments(self.tenant, Some(key), self.window).await?;
        let mut headers = environments.headers().map(|(_, header)| header).peekable();
        let is_log = headers.peek().is_some() && headers.all(|header| header.environment.is_imported());
        let Window { from_hour, mut until_hour } = self.window;
        let mut first = rollups.iter().map(|stored| stored.from_hour).min().unwrap_or(from_hour);
        if is_log {
            // A rollup can be of a whole day.
            let first_us = rollups.iter().map(|stored| stored.rollup.first_at_us).min().unwrap_or(0);
            let last_us = rollups.iter().map(|stored| stored.rollup.last_at_us).max().unwrap_or(0);
            first = first.max(first_us / HOUR_US);
            until_hour = until_hour.min(last_us / HOUR_US + 1);
        }
        Ok(until_hour.saturating_sub(first.max(from_hour)).max(1))
    }

    /// The size of `/tmp`, MB; `None` on managed instances, whose price contains their time.
    async fn ephemeral_mb(&self, key: &FunctionKey) -> anyhow::Result<Option<u32>> {
        let environments = self.store.environments(self.tenant, Some(key), self.window).await?;
        Ok(match environments.newest_header().map(|header| &header.environment) {
            Some(environment) if environment.is_managed_instances() => None,
            environment => Some(environment.map_or(0, |environment| environment.ephemeral_mb)),
        })
    }
}

/// The billed usage of a rollup; `ephemeral_mb` is `None` on managed instances.
pub(crate) fn usage(stored: &StoredRollup, ephemeral_mb: Option<u32>) -> Usage {
    match ephemeral_mb {
        Some(ephemeral_mb) => {
            Usage::of(stored.key.memory, stored.rollup.billed_ms, stored.rollup.invocations, ephemeral_mb)
        }
        None => Usage { requests: stored.rollup.invocations, ..Usage::default() },
    }
}

fn focus_rows(
    source: Source<'_>,
    key: &FunctionKey,
    rollups: &[StoredRollup],
    ephemeral_mb: Option<u32>,
    granularity: Granularity,
) -> Vec<FocusRow> {
    let mut sums: BTreeMap<(u64, u64, bool), Usage> = BTreeMap::new();
    for stored in rollups {
        let (from_hour, hours) = granularity.period(stored);
        let is_arm = stored.key.architecture == Architecture::Arm64;
        sums.entry((from_hour, hours, is_arm)).or_default().add(&usage(stored, ephemeral_mb));
    }
    let function =
        Function { account: key.account.clone(), region: key.region.clone(), name: key.name.clone() };
    let tags = source.tags.of(key);
    let mut rows = vec![];
    for ((from_hour, hours, is_arm), usage) in sums {
        let architecture = if is_arm { Architecture::Arm64 } else { Architecture::X86_64 };
        let Ok(rates) = source.prices.rates(&key.region, architecture) else { continue };
        let second = |hour: u64| i64::try_from(hour * 3_600).unwrap_or(i64::MAX);
        for (kind, quantity_pico, unit_price) in meters(&usage, &rates) {
            rows.push(FocusRow {
                function: function.clone(),
                tags: tags.clone(),
                from_s: second(from_hour),
                until_s: second(from_hour + hours),
                meter: Meter { kind, architecture: Some(architecture) },
                quantity_pico,
                unit_price,
            });
        }
    }
    rows
}

/// The meters of usage with quantity and price.
fn meters(usage: &Usage, rates: &Rates) -> Vec<(MeterKind, i128, PicoDollars)> {
    let storage = rates.storage_gb_second.unwrap_or(PicoDollars::ZERO);
    let mut meters = vec![
        (MeterKind::Compute, gb_seconds_pico(usage.memory_mb_ms), rates.gb_second()),
        (MeterKind::Requests, i128::from(usage.requests) * decimal::PICO, rates.request),
        (MeterKind::EphemeralStorage, gb_seconds_pico(usage.storage_mb_ms), storage),
    ];
    meters.retain(|(_, quantity, _)| *quantity > 0);
    meters
}

/// MB·ms as GB-seconds of 10⁻¹².
fn gb_seconds_pico(mb_ms: u128) -> i128 {
    let (whole, rest) = (mb_ms / MB_MS_PER_GB_SECOND, mb_ms % MB_MS_PER_GB_SECOND);
    let whole = i128::try_from(whole).unwrap_or(i128::MAX).saturating_mul(decimal::PICO);
    let part = rest * decimal::PICO.unsigned_abs() / MB_MS_PER_GB_SECOND;
    whole.saturating_add(i128::try_from(part).unwrap_or(0))
}

/// A thread that writes rows.
struct Writing<T> {
    rows: SyncSender<T>,
    thread: std::thread::JoinHandle<io::Result<()>>,
}

impl<T: Send + 'static> Writing<T> {
    fn start(write: impl FnOnce(std::sync::mpsc::IntoIter<T>) -> io::Result<()> + Send + 'static) -> Self {
        let (rows, receiver) = sync_channel(WAITING_ROWS);
        Self { rows, thread: std::thread::spawn(move || write(receiver.into_iter())) }
    }

    /// Passes rows to the writer. Returns whether it still writes.
    fn send(&self, rows: Vec<T>) -> bool {
        rows.into_iter().all(|row| self.rows.send(row).is_ok())
    }

    fn finish(self) -> anyhow::Result<()> {
        drop(self.rows);
        let written = self.thread.join().map_err(|_| anyhow::anyhow!("the writer failed"))?;
        match written {
            // The reader closed the pipe, as `head` does. This is not an error.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot write the output"),
        }
    }
}
