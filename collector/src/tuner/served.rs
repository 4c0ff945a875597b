//! What was measured of the code that is served. Measurements of code that was replaced show little about it.

use tailor_sizing::units::Megabytes;

use super::Tuner;
use super::guards::Served;
use super::lambda::Live;
use crate::changes::{Cause, Change, State};
use crate::lambda_functions::LATEST;
use crate::store::{FunctionKey, StoreError};

/// What was measured of the code that is served at a size, and how many of its invocations ran out of memory since the last
/// increase was rolled back; all of them when none was.
pub(super) async fn served(
    tuner: &Tuner,
    key: &FunctionKey,
    live: &Live,
    memory: Megabytes,
    history: &[Change],
) -> Result<(Served, u64), StoreError> {
    let (version, since_us) = version_of(live, history);
    let telemetry = tuner.telemetry.as_ref();
    let served = Served::of(&telemetry.measured(key, version, memory, since_us).await?);
    let rolled_back = history.iter().rev().find(|change| change.is_rolled_back_increase());
    let recent_kills = match rolled_back {
        Some(change) if served.out_of_memory > 0 => {
            let since_us = since_us.max(change.moved_at_us);
            telemetry.measured(key, version, memory, since_us).await?.out_of_memory
        }
        _ => served.out_of_memory,
    };
    Ok((served, recent_kills))
}

/// The version that the invocations get, and since when it has its code, microseconds since the Unix epoch.
fn version_of<'a>(live: &'a Live, history: &[Change]) -> (&'a str, u64) {
    let mut released = live.aliases.values().map(|alias| alias.version.as_str());
    let mut next = || released.find(|version| *version != LATEST);
    match (next(), next()) {
        // The code of a version never changes.
        (Some(version), None) => (version, 0),
        _ => (LATEST, code_since_us(live, history)),
    }
}

/// Since when `$LATEST` has its code, microseconds since the Unix epoch: since its last modification, unless that was a write of
/// the changes of this code.
fn code_since_us(live: &Live, history: &[Change]) -> u64 {
    let is_of_code = |change: &&Change| {
        let is_replaced = change.state == State::ExternalChange && change.cause == Some(Cause::External);
        change.intent.is_of_code(&live.latest.code_sha256, &live.latest.digest) && !is_replaced
    };
    let first = history.iter().rev().take_while(is_of_code).last();
    first.map_or(live.modified_at_us, |change| change.planned_at_us.min(live.modified_at_us))
}
