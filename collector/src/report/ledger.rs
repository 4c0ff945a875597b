//! The ledger of the tuner: what its changes were predicted to save, and what they saved by measurement.

use serde::Serialize;

use tailor_sizing::pricing::money::PicoDollars;

use super::load::Request;
use super::series::fleet_sums::timeline_kind;
use super::series::{Billing, Timeline};
use crate::changes::ledger::realised;
use crate::changes::{Change, State};
use crate::store::{FunctionKey, HOUR_US, StoreError, Window};

/// Maximum number of changes in the ledger: the latest ones.
const MAX_ENTRIES: usize = 50;

/// What the changes of the tuner saved since each took effect.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ledger {
    /// Sum of the predictions.
    pub predicted_pico_usd: PicoDollars,
    /// Sum of the measured savings; negative for a loss.
    pub realised_pico_usd: PicoDollars,
    /// The changes, latest first: at most 50.
    pub entries: Vec<LedgerEntry>,
}

/// What one change saved.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerEntry {
    /// The function.
    pub function: FunctionKey,
    /// Its id within the function.
    pub change_id: String,
    /// Memory size before, MB.
    pub from_mb: u32,
    /// Memory size after, MB.
    pub to_mb: u32,
    /// Its state.
    pub state: State,
    /// When it took effect, microseconds since the Unix epoch.
    pub applied_at_us: u64,
    /// Invocations since then, or until it was rolled back.
    pub invocations: u64,
    /// What it was predicted to save with these invocations; `null` without prices.
    pub predicted_pico_usd: Option<PicoDollars>,
    /// What it saved by the measured costs of an invocation; `null` while there are no measurements.
    pub realised_pico_usd: Option<PicoDollars>,
}

/// The ledger of these changes, which are in any order.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn ledger(request: &Request<'_>, changes: &[Change]) -> Result<Ledger, StoreError> {
    let mut applied: Vec<(u64, &Change)> =
        changes.iter().filter_map(|change| Some((change.applied_at_us?, change))).collect();
    applied.sort_by_key(|(at_us, _)| std::cmp::Reverse(*at_us));
    applied.truncate(MAX_ENTRIES);
    let keys: Vec<FunctionKey> = applied.iter().map(|(_, change)| change.function.clone()).collect();
    let stored = request.store.summary_reports(request.tenant, &keys, &timeline_kind()).await?;
    let mut ledger = Ledger::default();
    for ((applied_at_us, change), bytes) in applied.into_iter().zip(stored) {
        let timeline = match bytes.as_deref().and_then(Timeline::decode) {
            Some(timeline) => timeline,
            None => {
                let window = Window { from_hour: applied_at_us / HOUR_US, ..Window::ALL };
                let rollups = request.store.rollups(request.tenant, &change.function, window).await?;
                Timeline::of(&rollups, Billing::Instances)
            }
        };
        let has_ended = !change.state.is_open() && change.state != State::Settled;
        let until_us = if has_ended { change.moved_at_us } else { u64::MAX };
        let invocations = timeline.invocations(applied_at_us, until_us);
        let entry = entry(change, applied_at_us, invocations);
        ledger.predicted_pico_usd += entry.predicted_pico_usd.unwrap_or(PicoDollars::ZERO);
        ledger.realised_pico_usd += entry.realised_pico_usd.unwrap_or(PicoDollars::ZERO);
        ledger.entries.push(entry);
    }
    Ok(ledger)
}

fn entry(change: &Change, applied_at_us: u64, invocations: u64) -> LedgerEntry {
    let before = change.intent.before.cost_per_million_pico_usd;
    let with_invocations = |per_million: PicoDollars| per_million.scaled(invocations.into(), 1_000_000);
    // A prediction is a percentage with a fraction; thousandths of a percent are exact enough.
    #[expect(clippy::cast_possible_truncation, reason = "a percentage of a cost, and the cast saturates")]
    let permyriad = (change.intent.cost_change_percent * 1_000.0).round() as i128;
    let predicted = before.map(|before| PicoDollars(-before.0.saturating_mul(permyriad) / 100_000));
    let realised = realised(change);
    LedgerEntry {
        function: change.function.clone(),
        change_id: change.id.clone(),
        from_mb: change.from.0,
        to_mb: change.to.0,
        state: change.state,
        applied_at_us,
        invocations,
        predicted_pico_usd: predicted.and_then(with_invocations),
        realised_pico_usd: realised.and_then(with_invocations),
    }
}
