//! What is permitted for one function: the collector's settings, the policy file and the function's tags together.
//!
//! Files and tags lower what the collector permits. They never raise it.

use std::collections::HashMap;

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::units::Megabytes;

use super::dates::{Dates, Period};
use super::mode::Mode;
use super::policy_file::{FilePolicy, FunctionLimits, matches};

/// The tag with the mode of a function. Without it, nothing is written.
pub const TAG: &str = "tailor:tune";

/// The effective permission.
#[derive(Debug, Clone, PartialEq)]
pub struct Permission {
    /// The mode.
    pub mode: Mode,
    /// Whether a tag permits writes.
    pub tagged: bool,
    /// A fault of a tag. Then nothing is written.
    pub fault: Option<String>,
    /// Smallest size.
    pub min_memory: Megabytes,
    /// Largest size.
    pub max_memory: Megabytes,
    /// Target of the 95th percentile of duration, ms.
    pub p95_slo_ms: Option<f64>,
    /// The optimization goal.
    pub strategy: Strategy,
    /// When the size may be reduced; always when absent.
    pub window: Option<Vec<Period>>,
    /// Whether a person must approve each change. An increase for memory needs no approval.
    pub needs_approval: bool,
    /// Dates without changes.
    pub freeze_dates: Vec<Dates>,
    /// Accounts; all when empty.
    pub accounts: Vec<String>,
    /// Regions; all when empty.
    pub regions: Vec<String>,
}

impl Permission {
    /// The permission of the function `name` with these tags.
    #[must_use]
    pub fn of(
        name: &str,
        tags: &HashMap<String, String>,
        mode: Mode,
        ceiling: Megabytes,
        strategy: Strategy,
        file: &FilePolicy,
    ) -> Self {
        let rule = file.rules.iter().find(|rule| matches(&rule.pattern, name));
        let from_tags = FunctionLimits::parse(|key| tags.get(&format!("tailor:{key}")).cloned());
        let (from_tags, fault) = match from_tags {
            Ok(limits) => (limits, None),
            Err(faults) => (FunctionLimits::default(), Some(faults.join("; "))),
        };
        let tagged = from_tags.mode.is_some_and(Mode::may_write);
        // Without the tag the function may be planned for, but nothing is written.
        let own = from_tags.mode.unwrap_or(Mode::Patch);
        let limits = from_tags.and(rule.map(|rule| rule.limits.clone()).unwrap_or_default());
        let mode = mode.min(file.mode).min(own).min(limits.mode.unwrap_or(Mode::Apply));
        Self {
            mode: if fault.is_some() { mode.min(Mode::Observe) } else { mode },
            tagged,
            fault,
            min_memory: limits.min_memory.unwrap_or(Megabytes::MIN),
            max_memory: limits.max_memory.unwrap_or(ceiling).min(ceiling),
            p95_slo_ms: limits.p95_slo_ms,
            strategy: match limits.p95_slo_ms {
                Some(target_ms) => {
                    limits.strategy.unwrap_or(Strategy::Slo { quantile: 0.95, target_ms, cold_starts: false })
                }
                None => limits.strategy.unwrap_or(strategy),
            },
            window: limits.window,
            needs_approval: limits.needs_approval,
            freeze_dates: file.freeze_dates.clone(),
            accounts: file.accounts.clone(),
            regions: file.regions.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuner::policy_file::Rule;

    fn of(tags: &[(&str, &str)], mode: Mode, file: &FilePolicy) -> Permission {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Permission::of("orders", &tags, mode, Megabytes(3_008), Strategy::default(), file)
    }

    #[test]
    fn files_and_tags_lower_the_mode_and_never_raise_it() {
        let open = FilePolicy::default();
        for mode in Mode::ALL {
            for tag in Mode::ALL {
                for file in Mode::ALL {
                    for rule in Mode::ALL {
                        let limits = FunctionLimits { mode: Some(rule), ..FunctionLimits::default() };
                        let rules = vec![Rule { pattern: "ord*".to_owned(), limits }];
                        let policy = FilePolicy { mode: file, rules, ..FilePolicy::default() };
                        let permission = of(&[(TAG, tag.as_str())], mode, &policy);
                        assert_eq!(permission.mode, mode.min(tag).min(file).min(rule));
                    }
                }
            }
            assert!(!of(&[], mode, &open).mode.may_write(), "no write without the tag");
            assert!(!of(&[(TAG, "yes")], mode, &open).mode.may_write(), "no write with a wrong tag");
            let wrong = of(&[(TAG, "apply"), ("tailor:max-memory", "lots")], mode, &open);
            assert!(!wrong.mode.may_write() && wrong.fault.is_some());
        }
        let bounds = of(&[(TAG, "apply"), ("tailor:max-memory", "9000")], Mode::Apply, &open);
        assert_eq!(bounds.max_memory, Megabytes(3_008), "a tag does not raise the ceiling");
    }
}
