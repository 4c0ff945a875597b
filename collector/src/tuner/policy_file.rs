//! The policy file `tailor.yaml`: what the tuner may do, kept with the functions' sources.

use serde::Deserialize;

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::units::Megabytes;

use super::dates::{Dates, Period};
use super::mode::Mode;
use crate::query;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicyFile {
    /// The version of the format: 1.
    pub version: u32,
    /// The highest mode.
    #[serde(default)]
    mode: Option<String>,
    /// The accounts whose functions may be changed; all when absent.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// The regions in which functions may be changed; all when absent.
    #[serde(default)]
    pub regions: Vec<String>,
    /// Dates without changes, such as `2026-12-20..2027-01-05`.
    #[serde(default)]
    freeze_dates: Vec<String>,
    /// Rules of functions. The first rule whose pattern matches the name counts.
    #[serde(default)]
    functions: Vec<RuleFile>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RuleFile {
    name: String,
    mode: Option<String>,
    min_memory: Option<u32>,
    max_memory: Option<u32>,
    p95_slo_ms: Option<f64>,
    strategy: Option<String>,
    window: Option<String>,
    approval: Option<String>,
    latest_down: Option<String>,
}

/// The checked content of a policy file.
#[derive(Debug, Clone, PartialEq)]
pub struct FilePolicy {
    /// The highest mode.
    pub mode: Mode,
    /// The accounts whose functions may be changed; all when empty.
    pub accounts: Vec<String>,
    /// The regions in which functions may be changed; all when empty.
    pub regions: Vec<String>,
    /// Dates without changes.
    pub freeze_dates: Vec<Dates>,
    /// Rules of functions, the first match counts.
    pub rules: Vec<Rule>,
}

impl Default for FilePolicy {
    fn default() -> Self {
        Self {
            mode: Mode::Apply,
            accounts: Vec::new(),
            regions: Vec::new(),
            freeze_dates: Vec::new(),
            rules: Vec::new(),
        }
    }
}

/// The rule of the functions whose name matches a pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The pattern of names; `*` stands for any characters.
    pub pattern: String,
    /// The limits.
    pub limits: FunctionLimits,
}

/// What an owner requires for one function, in a file or in tags.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FunctionLimits {
    /// The highest mode.
    pub mode: Option<Mode>,
    /// Smallest size.
    pub min_memory: Option<Megabytes>,
    /// Largest size.
    pub max_memory: Option<Megabytes>,
    /// Target of the 95th percentile of duration, ms.
    pub p95_slo_ms: Option<f64>,
    /// The optimization goal.
    pub strategy: Option<Strategy>,
    /// When the size may be reduced.
    pub window: Option<Vec<Period>>,
    /// Whether a person must approve each change.
    pub needs_approval: bool,
    /// Whether the size may be reduced for all invocations at once, where there is no alias.
    pub latest_down: Option<bool>,
}

/// Parses and checks the text of a policy file.
///
/// # Errors
/// All faults of the file, one sentence each.
pub fn parse(text: &str) -> Result<FilePolicy, Vec<String>> {
    let file: PolicyFile = serde_saphyr::from_str(text).map_err(|error| vec![error.to_string()])?;
    let mut faults = Vec::new();
    if file.version != 1 {
        faults.push(format!("`version` is {}, this program supports version 1", file.version));
    }
    let mode = file.mode.as_deref().and_then(|text| take(&mut faults, "mode", parse_mode(text)));
    for account in &file.accounts {
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            faults.push(format!("`accounts`: `{account}` is not an account of 12 digits; put it in quotes"));
        }
    }
    let freeze_dates =
        file.freeze_dates.iter().filter_map(|text| take(&mut faults, "freeze-dates", Dates::parse(text)));
    let freeze_dates = freeze_dates.collect();
    let mut rules = Vec::new();
    for rule in file.functions {
        let limits = limits_of(&rule).unwrap_or_else(|found| {
            faults.extend(found.into_iter().map(|fault| format!("function `{}`: {fault}", rule.name)));
            FunctionLimits::default()
        });
        rules.push(Rule { pattern: rule.name, limits });
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mode = mode.unwrap_or(Mode::Apply);
    Ok(FilePolicy { mode, accounts: file.accounts, regions: file.regions, freeze_dates, rules })
}

fn limits_of(rule: &RuleFile) -> Result<FunctionLimits, Vec<String>> {
    let text = |number: Option<u32>| number.map(|number| number.to_string());
    let number = |number: Option<f64>| number.map(|number| number.to_string());
    FunctionLimits::parse(|name| match name {
        "tune" => rule.mode.clone(),
        "min-memory" => text(rule.min_memory),
        "max-memory" => text(rule.max_memory),
        "p95-slo-ms" => number(rule.p95_slo_ms),
        "strategy" => rule.strategy.clone(),
        "approval" => rule.approval.clone(),
        "latest-down" => rule.latest_down.clone(),
        _ => rule.window.clone(),
    })
}

impl FunctionLimits {
    /// The limits that `value` returns for the names `tune`, `min-memory`, `max-memory`, `p95-slo-ms`, `strategy`,
    /// `approval`, `latest-down` and `window`.
    ///
    /// # Errors
    /// All faults, one sentence each.
    pub fn parse(value: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let get = |name: &str| value(name);
        let mode = get("tune").and_then(|text| take(&mut faults, "tune", parse_mode(&text)));
        let min_memory =
            get("min-memory").and_then(|text| take(&mut faults, "min-memory", parse_memory(&text)));
        let max_memory =
            get("max-memory").and_then(|text| take(&mut faults, "max-memory", parse_memory(&text)));
        let p95_slo_ms = get("p95-slo-ms").and_then(|text| take(&mut faults, "p95-slo-ms", parse_ms(&text)));
        let strategy = get("strategy").and_then(|text| {
            let parsed = query::strategy(Some(&text), None).ok_or_else(|| query::STRATEGIES.to_owned());
            take(&mut faults, "strategy", parsed)
        });
        let window = get("window").and_then(|text| take(&mut faults, "window", Period::parse_list(&text)));
        let approval = get("approval").and_then(|text| take(&mut faults, "approval", parse_approval(&text)));
        let latest_down =
            get("latest-down").and_then(|text| take(&mut faults, "latest-down", parse_latest_down(&text)));
        if min_memory.zip(max_memory).is_some_and(|(min, max)| min > max) {
            faults.push("`min-memory` is larger than `max-memory`".to_owned());
        }
        let needs_approval = approval.unwrap_or(false);
        let limits =
            Self { mode, min_memory, max_memory, p95_slo_ms, strategy, window, needs_approval, latest_down };
        if faults.is_empty() { Ok(limits) } else { Err(faults) }
    }

    /// Both limits together: the stricter one counts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let lower = |one: Option<_>, other: Option<_>| match (one, other) {
            (Some(one), Some(other)) => Some(if one < other { one } else { other }),
            (one, other) => one.or(other),
        };
        Self {
            mode: match (self.mode, other.mode) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            min_memory: self.min_memory.max(other.min_memory),
            max_memory: match (self.max_memory, other.max_memory) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            p95_slo_ms: lower(self.p95_slo_ms, other.p95_slo_ms),
            strategy: self.strategy.or(other.strategy),
            // Both must permit the time: the periods of the first are kept, and the second is checked as well.
            window: match (self.window, other.window) {
                (Some(one), Some(other)) => Some(Period::intersection(&one, &other)),
                (one, other) => one.or(other),
            },
            needs_approval: self.needs_approval || other.needs_approval,
            latest_down: match (self.latest_down, other.latest_down) {
                (Some(one), Some(other)) => Some(one && other),
                (one, other) => one.or(other),
            },
        }
    }
}

fn take<T>(faults: &mut Vec<String>, name: &str, parsed: Result<T, String>) -> Option<T> {
    parsed.map_err(|fault| faults.push(format!("`{name}`: {fault}"))).ok()
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    let names = Mode::ALL.map(Mode::as_str).join(", ");
    Mode::parse(text).ok_or_else(|| format!("`{text}` is no mode; use one of {names}"))
}

fn parse_approval(text: &str) -> Result<bool, String> {
    match text {
        "required" => Ok(true),
        "none" => Ok(false),
        _ => Err(format!("`{text}` is not known; use required or none")),
    }
}

fn parse_latest_down(text: &str) -> Result<bool, String> {
    match text {
        "allow" => Ok(true),
        "refuse" => Ok(false),
        _ => Err(format!("`{text}` is not known; use allow or refuse")),
    }
}

fn parse_memory(text: &str) -> Result<Megabytes, String> {
    let size =
        text.parse().ok().map(Megabytes).filter(|size| (Megabytes::MIN..=Megabytes::MAX).contains(size));
    size.ok_or_else(|| format!("`{text}` is no memory size; use a number from 128 to 10240"))
}

fn parse_ms(text: &str) -> Result<f64, String> {
    let ms = text.parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms > 0.0);
    ms.ok_or_else(|| format!("`{text}` is no duration; use a number of milliseconds, such as 300"))
}

/// Whether a name matches a pattern in which `*` stands for any characters.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_policy_file_is_checked_as_a_whole() {
        let good = "version: 1\nmode: apply-up\naccounts: [\"123456789012\"]\nfreeze-dates: [2026-12-20..2027-01-05]\n\
                    functions:\n  - name: \"checkout-*\"\n    mode: recommend\n    min-memory: 256\n    window: Sat,Sun 00:00-06:00\n    approval: required\n    latest-down: allow\n";
        let policy = parse(good).unwrap();
        assert_eq!(policy.mode, Mode::ApplyUp);
        assert_eq!(policy.rules[0].limits.min_memory, Some(Megabytes(256)));
        assert!(policy.rules[0].limits.needs_approval);
        assert_eq!(policy.rules[0].limits.latest_down, Some(true));
        let bad = "version: 2\nmode: all\naccounts: [12]\nfunctions:\n  - name: a\n    min-memory: 100\n    window: never\n    latest-down: yes\n";
        let faults = parse(bad).unwrap_err();
        assert_eq!(faults.len(), 6, "{faults:?}");
        assert!(parse("version: 1\nmodes: apply\n").unwrap_err()[0].contains("modes"));
        for (pattern, name, expected) in [
            ("a*", "abc", true),
            ("*-prod", "a-prod", true),
            ("a*c", "abd", false),
            ("a", "ab", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
