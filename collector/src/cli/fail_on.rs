//! `--fail-on`: conditions that make a command end with an exit code of its own, for pipelines.

use std::process::ExitCode;

use clap::Args;

use tailor_sizing::advice::Verdict;
use tailor_sizing::advice::hints::{HintCode, Severity};
use tailor_sizing::pricing::money::PicoDollars;

use super::exit;
use super::streams::note;
use crate::query::{self, AdviceFilter, named};
use crate::report::FunctionReport;
use crate::report::list::advice_code;

/// Functions that are named of each condition.
const MAX_NAMES: usize = 5;

/// Describes the conditions.
const CONDITIONS: &str = "the conditions are saving, cost, errors, timeouts, out-of-memory, lost (each with =NUMBER or =PERCENT%), \
     out-of-memory-risk, hint, hint=CODE, severity=info, severity=warning, severity=error, advice=change, advice=keep, \
     advice=unsure and advice=none";

/// The conditions of a command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pipelines")]
pub(super) struct FailOnArgs {
    /// End with exit code 4 when this condition is met. Can be repeated. For the sum over the functions: `saving=10` (dollars in the
    /// window), `saving=5%` (of the cost), `cost=100`. For any function: `errors`, `errors=10`, `errors=1%` (of its
    /// invocations), the same with `timeouts`, `out-of-memory` and `lost`; `out-of-memory-risk`, `hint`, `hint=CODE`,
    /// `severity=warning` (hints at least of this severity: `info`, `warning` or `error`), `advice=change`.
    #[arg(long, value_name = "CONDITION", value_parser = condition)]
    fail_on: Vec<Condition>,
}

/// What is compared with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Saving,
    Cost,
    Errors,
    Timeouts,
    OutOfMemory,
    Lost,
}

/// The least value with which a condition is met.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Least {
    /// More than nothing.
    Any,
    /// Dollars, or a number.
    Amount(PicoDollars),
    /// A part of the cost or of the invocations.
    Percent(f64),
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    AtLeast(Quantity, Least),
    OutOfMemoryRisk,
    Hint(Option<HintCode>),
    Severity(Severity),
    Advice(AdviceFilter),
}

/// One condition, and how it was written.
#[derive(Debug, Clone, PartialEq)]
struct Condition {
    text: String,
    test: Test,
}

fn condition(text: &str) -> Result<Condition, String> {
    parse(text).map(|test| Condition { text: text.to_owned(), test }).ok_or_else(|| CONDITIONS.to_owned())
}

fn parse(text: &str) -> Option<Test> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let quantity = match (name, value) {
        ("saving", _) => Quantity::Saving,
        ("cost", _) => Quantity::Cost,
        ("errors", _) => Quantity::Errors,
        ("timeouts", _) => Quantity::Timeouts,
        ("out-of-memory", _) => Quantity::OutOfMemory,
        ("lost", _) => Quantity::Lost,
        ("out-of-memory-risk", None) => return Some(Test::OutOfMemoryRisk),
        ("hint", None) => return Some(Test::Hint(None)),
        ("hint", Some(code)) => return named(code).map(|code| Test::Hint(Some(code))),
        ("severity", Some(severity)) => return named(severity).map(Test::Severity),
        ("advice", Some(advice)) => return named(advice).map(Test::Advice),
        _ => return None,
    };
    let least = match value {
        None => Least::Any,
        Some(value) => match value.strip_suffix('%') {
            Some(_) if quantity == Quantity::Cost => return None,
            Some(percent) => {
                let percent = percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))?;
                Least::Percent(percent)
            }
            None => Least::Amount(query::dollars(value)?),
        },
    };
    Some(Test::AtLeast(quantity, least))
}

impl Least {
    /// Whether a number is as large. A count is compared as if it were dollars.
    fn is_reached(self, value: PicoDollars, whole: PicoDollars) -> bool {
        match self {
            _ if value <= PicoDollars::ZERO => false,
            Self::Any => true,
            Self::Amount(least) => value >= least,
            Self::Percent(percent) => value.0 as f64 * 100.0 >= percent * whole.0 as f64,
        }
    }
}

fn of_count(count: u64) -> PicoDollars {
    PicoDollars(i128::from(count) * tailor_sizing::pricing::money::PICO_PER_DOLLAR)
}

impl Condition {
    /// What is met, as a sentence; `None` when the condition is not met.
    fn holds(&self, reports: &[FunctionReport]) -> Option<String> {
        match &self.test {
            Test::AtLeast(quantity @ (Quantity::Saving | Quantity::Cost), least) => {
                let cost = reports.iter().filter_map(|report| report.cost_pico_usd).sum();
                let saving = reports.iter().map(|report| report.saving().max(PicoDollars::ZERO)).sum();
                let (value, what) = match quantity {
                    Quantity::Saving => (saving, "the potential savings are"),
                    _ => (cost, "the functions cost"),
                };
                least.is_reached(value, cost).then(|| format!("{what} {value}"))
            }
            Test::AtLeast(quantity, least) => each(reports, |report| {
                let value = match quantity {
                    Quantity::Timeouts => report.timeouts,
                    Quantity::OutOfMemory => report.out_of_memory,
                    Quantity::Lost => report.lost.invocations.saturating_add(report.lost.abandoned),
                    _ => report.errors,
                };
                least.is_reached(of_count(value), of_count(report.invocations))
            }),
            Test::OutOfMemoryRisk => each(reports, |report| {
                report.out_of_memory > 0
                    || report.advice.verdict() == Some(Verdict::RaiseForMemory)
                    || has_hint(report, |code| {
                        matches!(code, HintCode::MemoryUnderprovisioned | HintCode::MemoryPressure)
                    })
            }),
            Test::Hint(expected) => each(reports, |report| {
                has_hint(report, |code| expected.is_none_or(|expected| expected == code))
            }),
            Test::Severity(least) => {
                each(reports, |report| has_hint(report, |code| code.severity() >= *least))
            }
            Test::Advice(advice) => each(reports, |report| advice_code(report) == advice.code()),
        }
    }
}

fn has_hint(report: &FunctionReport, is: impl Fn(HintCode) -> bool) -> bool {
    report.advice.full.iter().flat_map(|advice| &advice.hints).any(|hint| is(hint.code))
}

/// Names the functions that meet a condition.
fn each(reports: &[FunctionReport], holds: impl Fn(&FunctionReport) -> bool) -> Option<String> {
    let names: Vec<String> =
        reports.iter().filter(|report| holds(report)).map(|report| short(&report.name)).collect();
    match names.len() {
        0 => None,
        count if count <= MAX_NAMES => Some(names.join(", ")),
        count => Some(format!("{} and {} more", names[..MAX_NAMES].join(", "), count - MAX_NAMES)),
    }
}

fn short(name: &str) -> String {
    crate::render::units::shorten(name, 64)
}

impl FailOnArgs {
    /// The exit code of a command that ended with `code`: that of `--fail-on` when the reports meet a condition.
    ///
    /// # Errors
    /// The reports cannot be read.
    pub(super) fn check(
        &self,
        code: ExitCode,
        reports: impl FnOnce() -> anyhow::Result<Vec<FunctionReport>>,
    ) -> anyhow::Result<ExitCode> {
        if self.fail_on.is_empty() || code != ExitCode::SUCCESS {
            return Ok(code);
        }
        let reports = reports()?;
        let mut code = code;
        for condition in &self.fail_on {
            if let Some(what) = condition.holds(&reports) {
                note(format_args!("tailor: --fail-on {}: {what}", condition.text));
                code = ExitCode::from(exit::CONDITION);
            }
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_or_refused() {
        for text in [
            "saving",
            "saving=10",
            "saving=0.5%",
            "cost=100",
            "errors",
            "errors=1%",
            "timeouts=3",
            "out-of-memory",
            "lost=1",
            "out-of-memory-risk",
            "hint",
            "hint=cpu-starved",
            "severity=warning",
            "advice=change",
        ] {
            assert!(parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "savings",
            "saving=",
            "saving=-1",
            "saving=101%",
            "saving=NaN%",
            "cost=5%",
            "hint=luck",
            "severity",
            "out-of-memory-risk=1",
            "advice=maybe",
            "errors>1",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_limit_is_reached_at_its_value() {
        let whole = of_count(1_000);
        assert!(Least::Any.is_reached(of_count(1), whole) && !Least::Any.is_reached(of_count(0), whole));
        assert!(Least::Amount(of_count(5)).is_reached(of_count(5), whole));
        assert!(!Least::Amount(of_count(5)).is_reached(of_count(4), whole));
        assert!(Least::Percent(1.0).is_reached(of_count(10), whole));
        assert!(!Least::Percent(1.0).is_reached(of_count(9), whole));
        assert!(!Least::Percent(0.0).is_reached(of_count(0), whole));
    }
}
