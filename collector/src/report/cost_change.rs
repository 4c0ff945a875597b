//! How much the cost of a function changed against the time before.

use agent_proto::batch::BatchHeader;
use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;

use super::load::Request;
use crate::store::{FunctionKey, HOUR_US, StoreError, StoredRollup, Window};

/// Hours before the two spans from which rollups are read: they show whether the function was measured before.
const LOOK_BACK_HOURS: u64 = 7 * 24;

/// The cost of the last `hours` hours less that of as many hours before them. Both are those of whole stored hours and days, scaled to
/// this length. `None` when the measurements begin later, where no price is known, and on managed instances.
pub(super) fn cost_change(
    rollups: &[StoredRollup],
    header: Option<&BatchHeader>,
    prices: &PriceTable,
    now_us: u64,
    hours: u64,
) -> Option<PicoDollars> {
    let environment = &header?.environment;
    if environment.is_managed_instances() {
        return None;
    }
    let from_hour = aligned(rollups, (now_us / HOUR_US).checked_sub(hours)?);
    let before_hour = aligned(rollups, from_hour.checked_sub(hours)?);
    if rollups.iter().all(|stored| stored.from_hour > before_hour) {
        return None;
    }
    let cost = |from: u64, until: u64| {
        let within = rollups.iter().filter(|stored| (from..until).contains(&stored.from_hour));
        let costs = within.map(|StoredRollup { key, rollup, .. }| {
            let rates = prices.rates(&key.function.region, key.architecture).ok()?;
            let ephemeral_mb = environment.ephemeral_mb;
            let usage = Usage::of(key.memory, rollup.billed_ms, rollup.invocations, ephemeral_mb);
            Some(rates.bill(&usage).total())
        });
        costs.sum::<Option<PicoDollars>>()
    };
    let (length_us, measured_us) = (hours.checked_mul(HOUR_US)?, now_us - from_hour * HOUR_US);
    let now = cost(from_hour, u64::MAX)?.scaled(length_us.into(), measured_us.into())?;
    let before = cost(before_hour, from_hour)?.scaled(hours.into(), (from_hour - before_hour).into())?;
    Some(now - before)
}

/// The start of the stored day or hour that contains an hour.
fn aligned(rollups: &[StoredRollup], hour: u64) -> u64 {
    let has_hour = |stored: &&StoredRollup| {
        stored.from_hour <= hour && hour < stored.from_hour.saturating_add(stored.hours)
    };
    rollups.iter().filter(has_hour).map(|stored| stored.from_hour).min().unwrap_or(hour)
}

/// How much the cost of a function of a store changed: the last `hours` hours against as many hours before them. `None` when the time
/// before was not measured, where no price is known, and on managed instances.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn of_function(
    request: &Request<'_>,
    key: &FunctionKey,
    hours: u64,
) -> Result<Option<PicoDollars>, StoreError> {
    let Request { store, tenant, prices, now_us, .. } = *request;
    let read_hours = hours.saturating_mul(2).saturating_add(LOOK_BACK_HOURS);
    let window = Window { from_hour: (now_us / HOUR_US).saturating_sub(read_hours), ..Window::ALL };
    let rollups = store.rollups(tenant, key, window).await?;
    let environments = store.environments(tenant, Some(key), window).await?;
    Ok(cost_change(&rollups, environments.newest_header(), prices, now_us, hours))
}

#[cfg(test)]
mod tests {
    use agent_proto::batch::{Lost, Overhead};
    use tailor_sizing::telemetry::rollup::Rollup;
    use tailor_sizing::units::{Architecture, Megabytes};

    use super::*;
    use crate::store::SeriesKey;

    /// A rollup with this billed time at 1,024 MB, and no request.
    fn rollup(from_hour: u64, hours: u64, billed_ms: u64) -> StoredRollup {
        let function =
            FunctionKey { account: String::new(), region: "us-east-1".to_owned(), name: "pay".to_owned() };
        let key = SeriesKey {
            function,
            version: "1".to_owned(),
            memory: Megabytes(1_024),
            architecture: Architecture::X86_64,
        };
        StoredRollup { key, from_hour, hours, rollup: Rollup { billed_ms, ..Rollup::default() } }
    }

    #[test]
    fn a_steady_cost_does_not_change_and_a_new_function_has_no_change() {
        let header = BatchHeader {
            environment: crate::report::losses::tests::environment(),
            sequence: 1,
            sent_at_us: 0,
            lost: Lost::default(),
            overhead: Overhead::default(),
            unsent: 0,
            interval: None,
        };
        let prices = PriceTable::embedded();
        // At noon of day 100. Days before day 92, hours since then: an hour bills 1,000 ms.
        let now_hour = 100 * 24 + 12;
        let mut rollups: Vec<_> = (0..92).map(|day| rollup(day * 24, 24, 24_000)).collect();
        rollups.extend((92 * 24..now_hour).map(|hour| rollup(hour, 1, 1_000)));
        let change = |rollups: &[StoredRollup], hours: u64| {
            cost_change(rollups, Some(&header), &prices, now_hour * HOUR_US, hours)
        };
        for hours in [1, 24, 168, 720] {
            assert_eq!(change(&rollups, hours), Some(PicoDollars::ZERO), "{hours} h");
        }
        // Two seconds more in the last day, at 0.0000166667 dollars for each.
        rollups.push(rollup(now_hour - 3, 1, 2_000));
        assert_eq!(change(&rollups, 24), Some(PicoDollars(33_333_400)));
        // From day 60: the time before the last 30 days is known in part.
        rollups.retain(|stored| stored.from_hour >= 60 * 24);
        assert_eq!(change(&rollups, 720), None);
        assert!(change(&rollups, 168).is_some());
    }
}
