//! The measured side: the usage of functions from the store.

use std::collections::BTreeMap;

use agent_proto::batch::BatchHeader;
use agent_proto::limits::MAX_INVOCATIONS;
use tailor_billing::Function;
use tailor_billing::bill::Bill;
use tailor_billing::compare::{Measured, Span};
use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::units::Architecture;

use crate::report::Losses;
use crate::store::{FunctionKey, HOUR_US, Store, StoreError, StoredRollup, Tenant, Window};

/// Hours that are read before and after those of the bill: a day in the store counts when it ends in the window.
const MARGIN_HOURS: i64 = 24;

/// What was measured of the functions in the accounts of a bill.
pub(super) async fn read(
    bill: &Bill,
    store: &dyn Store,
    tenant: &Tenant,
    now_us: u64,
) -> Result<BTreeMap<Function, Measured>, StoreError> {
    let mut measured = BTreeMap::new();
    let hours = bill.hours_by_account.values().copied();
    let Some((first, end)) = hours.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return Ok(measured) };
    let hour = |hour: i64| u64::try_from(hour).unwrap_or(0);
    let window = Window { from_hour: hour(first - MARGIN_HOURS), until_hour: hour(end + MARGIN_HOURS) };
    for key in store.functions(tenant, None, usize::MAX).await? {
        let Some(function) = billed_function(bill, &key) else { continue };
        let environments = store.environments(tenant, Some(&key), window).await?;
        let spans = spans(&store.rollups(tenant, &key, window).await?, environments.newest_header());
        let losses = Losses::of(&environments, window.from_hour.saturating_mul(HOUR_US), now_us);
        let unnumbered =
            [losses.invocations, losses.abandoned, losses.platform_records, losses.undecodable_records];
        let in_batches = losses.batches.saturating_mul(MAX_INVOCATIONS as u64);
        measured.insert(
            function,
            Measured {
                spans,
                lost_invocations: unnumbered.into_iter().fold(in_batches, u64::saturating_add),
                losses: losses.sentences().join("; "),
            },
        );
        tokio::task::yield_now().await;
    }
    Ok(measured)
}

/// The function of the bill; `None` when the bill does not have its account.
fn billed_function(bill: &Bill, key: &FunctionKey) -> Option<Function> {
    let function =
        Function { account: key.account.clone(), region: key.region.clone(), name: key.name.clone() };
    if !key.account.is_empty() {
        return bill.hours_by_account.contains_key(&key.account).then_some(function);
    }
    // Environments and logs do not always have the account.
    let same = |billed: &&Function| billed.region == key.region && billed.name == key.name;
    bill.functions.keys().find(same).cloned()
}

/// Usage by hour or day and architecture.
fn spans(rollups: &[StoredRollup], newest: Option<&BatchHeader>) -> Vec<Span> {
    let mut sums: BTreeMap<(u64, u64, bool), (Usage, u64)> = BTreeMap::new();
    for StoredRollup { key, from_hour, hours, rollup } in rollups {
        let usage = match newest.map(|header| &header.environment) {
            // The price of the instances contains their time.
            Some(environment) if environment.is_managed_instances() => {
                Usage { requests: rollup.invocations, ..Usage::default() }
            }
            environment => {
                let ephemeral_mb = environment.map_or(0, |environment| environment.ephemeral_mb);
                Usage::of(key.memory, rollup.billed_ms, rollup.invocations, ephemeral_mb)
            }
        };
        let is_arm = key.architecture == Architecture::Arm64;
        let (sum, billed_ms) = sums.entry((*from_hour, *hours, is_arm)).or_default();
        sum.add(&usage);
        *billed_ms = billed_ms.saturating_add(rollup.billed_ms);
    }
    let signed = |hour: u64| i64::try_from(hour).unwrap_or(i64::MAX);
    sums.into_iter()
        .map(|((from_hour, hours, is_arm), (usage, billed_ms))| Span {
            from_hour: signed(from_hour),
            hours: signed(hours),
            architecture: if is_arm { Architecture::Arm64 } else { Architecture::X86_64 },
            memory_mb_ms: usage.memory_mb_ms,
            storage_mb_ms: usage.storage_mb_ms,
            requests: usage.requests,
            billed_ms,
        })
        .collect()
}
