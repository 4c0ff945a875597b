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

/// The codes of the guard-rails for times.
const TIME_CODES: [&str; 2] = ["freeze-date", "outside-window"];

/// Whether this is the code of a guard-rail for times: a window, or dates without changes.
#[must_use]
pub fn is_time_code(code: &str) -> bool {
    TIME_CODES.contains(&code)
}

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
    /// Whether the size may be reduced for all invocations at once, where there is no alias.
    pub latest_down: bool,
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
        max_memory: Megabytes,
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
            max_memory: limits.max_memory.unwrap_or(max_memory).min(max_memory),
            p95_slo_ms: limits.p95_slo_ms,
            strategy: match limits.p95_slo_ms {
                Some(target_ms) => {
                    limits.strategy.unwrap_or(Strategy::Slo { quantile: 0.95, target_ms, cold_starts: false })
                }
                None => limits.strategy.unwrap_or(strategy),
            },
            window: limits.window,
            needs_approval: limits.needs_approval,
            latest_down: limits.latest_down.unwrap_or(false),
            freeze_dates: file.freeze_dates.clone(),
            accounts: file.accounts.clone(),
            regions: file.regions.clone(),
        }
    }
}

impl Permission {
    /// Why the size is not changed at a time, microseconds since the Unix epoch: the code of a guard-rail and a sentence without
    /// its full stop. `None` when it may be changed.
    #[must_use]
    pub fn closed(&self, at_us: u64) -> Option<(&'static str, &'static str)> {
        let [date, window] = TIME_CODES;
        if self.freeze_dates.iter().any(|dates| dates.contains(at_us)) {
            return Some((date, "the policy has no changes on this date"));
        }
        let is_open = |periods: &Vec<Period>| periods.iter().any(|period| period.contains(at_us));
        if self.window.as_ref().is_none_or(is_open) {
            return None;
        }
        Some((window, "the time is outside of the change window of the function"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::HOUR_US;
    use crate::tuner::policy_file::Rule;

    fn of(tags: &[(&str, &str)], mode: Mode, file: &FilePolicy) -> Permission {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Permission::of("orders", &tags, mode, Megabytes(3_008), Strategy::default(), file)
    }

    #[test]
    fn windows_and_dates_have_the_codes_of_their_guard_rails() {
        /// Saturday, 2026-11-28, 12:00 UTC.
        const NOON_US: u64 = 1_795_867_200_000_000;
        let mut permission = of(&[(TAG, "apply")], Mode::Apply, &FilePolicy::default());
        let code = |permission: &Permission, at_us: u64| permission.closed(at_us).map(|(code, _)| code);
        assert_eq!(code(&permission, NOON_US), None);
        permission.window = Period::parse_list("Sat,Sun 11:00-13:00").ok();
        assert_eq!(code(&permission, NOON_US), None);
        assert_eq!(code(&permission, NOON_US + HOUR_US), Some("outside-window"));
        permission.freeze_dates = Dates::parse("2026-11-28").into_iter().collect();
        assert_eq!(code(&permission, NOON_US), Some("freeze-date"));
        assert!(is_time_code("outside-window") && is_time_code("freeze-date") && !is_time_code("frozen"));
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
        let rule = |latest_down| {
            let limits = FunctionLimits { latest_down, ..FunctionLimits::default() };
            FilePolicy { rules: vec![Rule { pattern: "*".to_owned(), limits }], ..FilePolicy::default() }
        };
        for (tag, file, expected) in [
            ("refuse", None, false),
            ("allow", None, true),
            ("allow", Some(true), true),
            ("allow", Some(false), false),
            ("refuse", Some(true), false),
        ] {
            let permission = of(&[("tailor:latest-down", tag)], Mode::Apply, &rule(file));
            assert_eq!(permission.latest_down, expected, "{tag} {file:?}");
        }
        assert!(
            !of(&[], Mode::Apply, &open).latest_down && of(&[], Mode::Apply, &rule(Some(true))).latest_down
        );
        let bounds = of(&[(TAG, "apply"), ("tailor:max-memory", "9000")], Mode::Apply, &open);
        assert_eq!(bounds.max_memory, Megabytes(3_008), "a tag does not raise the ceiling");
    }
}
