//! What changes were expected to save, and what they saved.

use serde::Serialize;

use tailor_sizing::pricing::money::PicoDollars;

use super::{Change, State};
use crate::store::FunctionKey;

/// What one change saves of a million invocations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Saving {
    /// The function.
    pub function: FunctionKey,
    /// The change.
    pub change_id: String,
    /// Its state.
    pub state: State,
    /// Predicted saving of a million invocations, pico-dollars.
    pub predicted_per_million: PicoDollars,
    /// Measured saving of a million invocations against the previous size, pico-dollars; `None` until measured.
    pub realised_per_million: Option<PicoDollars>,
}

/// The measured saving of a million warm invocations, against the version that served at the same time or, without one,
/// against the time before the change.
#[must_use]
pub fn realised(change: &Change) -> Option<PicoDollars> {
    let new = change.after?.cost_per_million_pico_usd?;
    let baseline = change.baseline.filter(|baseline| baseline.warm > 0).unwrap_or(change.intent.before);
    let old = baseline.cost_per_million_pico_usd?;
    Some(PicoDollars(old.0.saturating_sub(new.0)))
}

/// The entries of all changes that reached an end, oldest first.
#[must_use]
pub fn entries(changes: &[Change]) -> Vec<Saving> {
    let ended = changes.iter().filter(|change| !change.state.is_open());
    ended
        .map(|change| Saving {
            function: change.function.clone(),
            change_id: change.id.clone(),
            state: change.state,
            predicted_per_million: change.intent.saving_per_million,
            realised_per_million: realised(change),
        })
        .collect()
}
