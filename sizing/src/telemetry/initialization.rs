//! How the environment of an invocation was initialized.

use serde::{Deserialize, Serialize};

/// How the environment was initialized for an invocation, and whether its caller waited for that.
#[doc = include_str!("../../../docs/initialization.md")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initialization {
    /// Not the first invocation of its environment.
    #[default]
    Warm,
    /// The first, and waited for the Init.
    OnDemand,
    /// The first of an on-demand environment that Lambda initialized ahead.
    Proactive,
    /// The first of an environment that was initialized ahead for provisioned concurrency.
    ProvisionedConcurrency,
    /// The first of an environment that was restored from a snapshot, and waited for the restore.
    SnapStart,
    /// The Init ran inside the invocation.
    InsideInvocation,
}

impl Initialization {
    /// Every class but [`Initialization::Warm`].
    pub const FIRST: [Self; 5] = [
        Self::OnDemand,
        Self::Proactive,
        Self::ProvisionedConcurrency,
        Self::SnapStart,
        Self::InsideInvocation,
    ];

    /// Whether the caller waited for the environment.
    #[must_use]
    pub const fn is_cold_start(self) -> bool {
        matches!(self, Self::OnDemand | Self::SnapStart | Self::InsideInvocation)
    }

    /// Whether the invocation is the first of its environment.
    #[must_use]
    pub const fn is_first(self) -> bool {
        !matches!(self, Self::Warm)
    }

    /// The name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::OnDemand => "on-demand",
            Self::Proactive => "proactive",
            Self::ProvisionedConcurrency => "provisioned-concurrency",
            Self::SnapStart => "snap-start",
            Self::InsideInvocation => "inside-invocation",
        }
    }
}

/// First invocations by the class of their initialization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Initializations {
    /// [`Initialization::OnDemand`].
    pub on_demand: u64,
    /// [`Initialization::Proactive`].
    pub proactive: u64,
    /// [`Initialization::ProvisionedConcurrency`].
    pub provisioned_concurrency: u64,
    /// [`Initialization::SnapStart`].
    pub snap_start: u64,
    /// [`Initialization::InsideInvocation`].
    pub inside_invocation: u64,
}

impl Initializations {
    /// One invocation, unless it is warm.
    #[must_use]
    pub fn of_one(class: Initialization) -> Self {
        let mut one = Self::default();
        if let Some(count) = one.count_mut(class) {
            *count = 1;
        }
        one
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for class in Initialization::FIRST {
            let added = other.of(class);
            if let Some(count) = self.count_mut(class) {
                *count = count.saturating_add(added);
            }
        }
    }

    /// The number of invocations of one class; zero for [`Initialization::Warm`], which is not counted.
    #[must_use]
    pub fn of(mut self, class: Initialization) -> u64 {
        self.count_mut(class).map_or(0, |count| *count)
    }

    /// First invocations of all classes.
    #[must_use]
    pub fn total(self) -> u64 {
        Initialization::FIRST.into_iter().fold(0, |total: u64, class| total.saturating_add(self.of(class)))
    }

    const fn count_mut(&mut self, class: Initialization) -> Option<&mut u64> {
        match class {
            Initialization::Warm => None,
            Initialization::OnDemand => Some(&mut self.on_demand),
            Initialization::Proactive => Some(&mut self.proactive),
            Initialization::ProvisionedConcurrency => Some(&mut self.provisioned_concurrency),
            Initialization::SnapStart => Some(&mut self.snap_start),
            Initialization::InsideInvocation => Some(&mut self.inside_invocation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the document has each class once, with the same name and the same answer.
    #[test]
    fn the_documented_table_is_true() {
        let document = include_str!("../../../docs/initialization.md");
        let rows: Vec<Vec<&str>> = document
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
            .collect();
        let classes: Vec<Initialization> =
            [Initialization::Warm].into_iter().chain(Initialization::FIRST).collect();
        assert_eq!(rows.len(), classes.len());
        for (row, class) in rows.iter().zip(classes) {
            assert_eq!(row[1], class.as_str());
            assert_eq!(row[3] == "yes", class.is_cold_start(), "{}", class.as_str());
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
    }
}
