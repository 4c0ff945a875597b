//! Which changes a list has, and their order.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::{Change, State};

/// What a list of changes is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeSort {
    /// Time of the plan; the oldest first.
    #[default]
    Time,
    /// Function name, then time.
    Name,
    /// State, then time.
    State,
    /// Expected saving of a million invocations; the highest first.
    Saving,
}

impl ChangeSort {
    /// The value of the parameter.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Name => "name",
            Self::State => "state",
            Self::Saving => "saving",
        }
    }
}

/// Which changes a list has.
#[derive(Debug, Clone, Default)]
pub struct ChangeSelection {
    /// A part of the function's name, in any case.
    pub name: Option<String>,
    /// The account.
    pub account: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The state.
    pub state: Option<State>,
    /// Earliest time of the plan, microseconds since the Unix epoch.
    pub since_us: u64,
    /// The order.
    pub sort: ChangeSort,
    /// Whether the order is reversed.
    pub is_reversed: bool,
    /// Maximum number of changes; all when absent.
    pub limit: Option<usize>,
}

impl ChangeSelection {
    /// The changes that are selected, in order.
    #[must_use]
    pub fn of(&self, mut changes: Vec<Change>) -> Vec<Change> {
        let equals =
            |filter: &Option<String>, value: &String| filter.as_ref().is_none_or(|filter| filter == value);
        changes.retain(|change| {
            let name = change.function.name.to_lowercase();
            self.name.as_ref().is_none_or(|part| name.contains(&part.to_lowercase()))
                && equals(&self.account, &change.function.account)
                && equals(&self.region, &change.function.region)
                && self.state.is_none_or(|state| state == change.state)
                && change.planned_at_us >= self.since_us
        });
        // The sort keeps the order of equal changes, which is that of their plans.
        match self.sort {
            ChangeSort::Time => {}
            ChangeSort::Name => changes.sort_by(|a, b| a.function.name.cmp(&b.function.name)),
            ChangeSort::State => changes.sort_by_key(|change| change.state.code()),
            ChangeSort::Saving => changes.sort_by_key(|change| Reverse(change.intent.saving_per_million)),
        }
        if self.is_reversed {
            changes.reverse();
        }
        changes.truncate(self.limit.unwrap_or(usize::MAX));
        changes
    }
}
