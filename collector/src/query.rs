//! The parameters of a report: window, strategy, filters and output format. Command line, API, pages and tuner use them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use tailor_sizing::advice::strategy::Strategy;

use crate::store::{FunctionKey, HOUR_US, Window};

/// The name is not a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{STRATEGIES}")]
pub struct UnknownStrategy;

/// Default length of the window, hours: 30 days.
pub const DEFAULT_HOURS: u64 = 30 * 24;

/// The output format of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// Everything, for programs.
    Json,
    /// One line per function, for spreadsheets.
    Csv,
    /// The table in Markdown.
    Markdown,
}

/// The width and the colours of a table.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Whether it has colours.
    pub colour: bool,
    /// Maximum number of characters in a line.
    pub width: usize,
}

/// Default width of a line, characters.
pub const DEFAULT_WIDTH: usize = 120;

impl Default for Look {
    fn default() -> Self {
        Self { colour: false, width: DEFAULT_WIDTH }
    }
}

/// Maximum number of rows of an answer.
const MAX_LIMIT: usize = 1_000;

/// The query of a request for a report.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Length of the window before now, hours; [`DEFAULT_HOURS`] when absent.
    pub(crate) hours: Option<u64>,
    /// `cost`, `speed`, `balanced` or a latency target such as `p95=300`; `balanced` when absent.
    pub(crate) strategy: Option<String>,
    /// Weight of cost for `balanced`, 0 to 1; the rest is the weight of speed.
    pub(crate) weight: Option<f64>,
    /// Region, for a function whose name is not unique.
    pub(crate) region: Option<String>,
    /// Account, for a function whose name is not unique.
    pub(crate) account: Option<String>,
    /// Output format; JSON when absent.
    pub(crate) format: Option<Format>,
    /// Maximum number of rows.
    pub(crate) limit: Option<usize>,
    /// Width of a table, characters.
    pub(crate) width: Option<usize>,
    /// Whether the table may have colours.
    colour: bool,
}

impl Query {
    /// The window of the query at `now_us` (microseconds since the Unix epoch). It has no end, so that it includes
    /// invocations of environments whose clocks are ahead.
    #[must_use]
    pub fn window(&self, now_us: u64) -> Window {
        last_hours(now_us, self.hours.unwrap_or(DEFAULT_HOURS))
    }

    /// The strategy of the query.
    ///
    /// # Errors
    /// [`UnknownStrategy`] when the name is not a strategy.
    pub fn strategy(&self) -> Result<Strategy, UnknownStrategy> {
        strategy(self.strategy.as_deref(), self.weight).ok_or(UnknownStrategy)
    }

    /// Checks the values that have a range.
    ///
    /// # Errors
    /// The name of the parameter and its range.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let weight = self.weight.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&weight) {
            return Err("`weight` is a number from 0 to 1");
        }
        if self.hours == Some(0) {
            return Err("`hours` is 1 or more");
        }
        if self.limit.is_some_and(|limit| !(1..=MAX_LIMIT).contains(&limit)) {
            return Err("`limit` is a number from 1 to 1000");
        }
        if self.width.is_some_and(|width| !(40..=1_000).contains(&width)) {
            return Err("`width` is a number from 40 to 1000");
        }
        Ok(())
    }

    /// A relative link to the same page with another window and strategy.
    pub(crate) fn link(&self, hours: u64, strategy: &str) -> String {
        let mut link = format!("?hours={hours}&strategy={}", path_segment(strategy));
        for (name, value) in [("region", &self.region), ("account", &self.account)] {
            if let Some(value) = value {
                link.push_str(&format!("&{name}={}", path_segment(value)));
            }
        }
        link
    }

    /// The path of a function's page, with the window and strategy of this query.
    pub(crate) fn function_link(&self, key: &FunctionKey) -> String {
        let hours = self.hours.unwrap_or(DEFAULT_HOURS);
        let strategy = self.strategy.as_deref().unwrap_or("balanced");
        format!(
            "/functions/{}?hours={hours}&strategy={}&region={}&account={}",
            path_segment(&key.name),
            path_segment(strategy),
            path_segment(&key.region),
            path_segment(&key.account)
        )
    }

    pub(crate) fn look(&self) -> Look {
        Look { colour: self.colour, width: self.width.unwrap_or(DEFAULT_WIDTH) }
    }

    pub(crate) fn names(&self, key: &FunctionKey) -> bool {
        self.region.as_ref().is_none_or(|region| *region == key.region)
            && self.account.as_ref().is_none_or(|account| *account == key.account)
    }
}

/// The window that starts `hours` before `now_us` (microseconds since the Unix epoch) and has no end.
#[must_use]
pub fn last_hours(now_us: u64, hours: u64) -> Window {
    let from_us = now_us.saturating_sub(hours.saturating_mul(HOUR_US));
    Window { from_hour: from_us / HOUR_US, ..Window::ALL }
}

/// The characters that a path segment or query value may contain unencoded, beside letters and digits.
const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'$');

/// A name as one part of a path, percent-encoded.
#[must_use]
pub fn path_segment(name: &str) -> String {
    utf8_percent_encode(name, UNRESERVED).to_string()
}

/// Describes the valid strategy names.
pub const STRATEGIES: &str =
    "a strategy is cost, speed, balanced, or a latency target such as p95=300 (milliseconds)";

/// Parses a strategy name; the default strategy when there is none.
#[must_use]
pub fn strategy(name: Option<&str>, weight: Option<f64>) -> Option<Strategy> {
    match name {
        Some("cost") => Some(Strategy::Cost),
        Some("speed") => Some(Strategy::Speed),
        Some("balanced") | None => {
            Some(weight.map_or_else(Strategy::default, |weight| Strategy::Balanced { weight }))
        }
        Some(target) => parse_slo(target),
    }
}

/// Parses a latency target: `p95=300` is the cheapest size at which 95 % of invocations take at most 300 ms.
fn parse_slo(target: &str) -> Option<Strategy> {
    let (percentile, target_ms) = target.strip_prefix('p')?.split_once('=')?;
    let (percentile, target_ms): (f64, f64) = (percentile.parse().ok()?, target_ms.parse().ok()?);
    let is_valid = (50.0..100.0).contains(&percentile) && target_ms > 0.0 && target_ms.is_finite();
    is_valid.then_some(Strategy::Slo { quantile: percentile / 100.0, target_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_target_is_a_percentile_and_milliseconds() {
        let slo = |quantile, target_ms| Some(Strategy::Slo { quantile, target_ms });
        assert_eq!(strategy(Some("p95=300"), None), slo(0.95, 300.0));
        assert_eq!(strategy(Some("p50=0.5"), None), slo(0.5, 0.5));
        for invalid in
            ["p95", "p95=", "p95=-1", "p95=inf", "p95=NaN", "p100=5", "p0=5", "q95=5", "pp=5", "=5", ""]
        {
            assert_eq!(strategy(Some(invalid), None), None, "{invalid}");
        }
    }
}
