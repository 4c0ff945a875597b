//! How often functions are changed.

use super::Change;
use crate::store::HOUR_US;

/// Days in which changes are counted.
pub const DAYS: u64 = 30;

/// Microseconds in these days.
pub const SPAN_US: u64 = DAYS * 24 * HOUR_US;

/// Most changes in any [`DAYS`] days, of those that the caller counts. `changes` are of one function.
#[must_use]
pub fn most_in_30_days(changes: &[Change], counts: impl Fn(&Change) -> bool) -> usize {
    let counted: Vec<u64> =
        changes.iter().filter(|change| counts(change)).map(|change| change.planned_at_us).collect();
    let from = |first_us: &u64| {
        let until_us = first_us.saturating_add(SPAN_US);
        counted.iter().filter(|at_us| (*first_us..until_us).contains(*at_us)).count()
    };
    counted.iter().map(from).max().unwrap_or(0)
}

/// Whether a change counts for the largest number of changes in a month: invocations used its size, and it was no repair.
#[must_use]
pub const fn counts(change: &Change) -> bool {
    change.was_in_force() && !change.is_repair()
}
