//! What a report is asked for: window, strategy, filters and format. Used by the command line, API, pages and tuner.

use serde::Deserialize;

use tailor_sizing::advice::strategy::Strategy;

use crate::render::table::{DEFAULT_WIDTH, Format, Look};
use crate::render::units::path_segment;
use crate::store::{FunctionKey, HOUR_US, Window};

/// The strategy has no such name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{STRATEGIES}")]
pub struct UnknownStrategy;

/// Hours shown when nothing else is asked for: a month.
pub const DEFAULT_HOURS: u64 = 30 * 24;

/// The query of a request for reports: window, strategy and filters, for the command line, API, pages and tuner.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Query {
    /// Hours back from now; 30 days when absent.
    pub(crate) hours: Option<u64>,
    /// `cost`, `speed` or `balanced`; the last when absent.
    pub(crate) strategy: Option<String>,
    /// For `balanced`: 1 is all cost, 0 all speed.
    pub(crate) weight: Option<f64>,
    /// For a function whose name is not unique.
    pub(crate) region: Option<String>,
    /// For a function whose name is not unique.
    pub(crate) account: Option<String>,
    /// Anything but JSON.
    pub(crate) format: Option<Format>,
    /// Rows of a list.
    pub(crate) limit: Option<usize>,
    /// Characters in a line of a table.
    pub(crate) width: Option<usize>,
    /// Whether the table may be coloured.
    colour: bool,
}

impl Query {
    /// The window of the query at `now_us`, without an end: invocations of clocks that run ahead are in it.
    #[must_use]
    pub fn window(&self, now_us: u64) -> Window {
        last_hours(now_us, self.hours.unwrap_or(DEFAULT_HOURS))
    }

    /// The strategy of the query.
    ///
    /// # Errors
    /// [`UnknownStrategy`] for a name that is none.
    pub fn strategy(&self) -> Result<Strategy, UnknownStrategy> {
        strategy(self.strategy.as_deref(), self.weight).ok_or(UnknownStrategy)
    }

    /// The same page with another window and strategy.
    pub(crate) fn link(&self, hours: u64, strategy: &str) -> String {
        let mut link = format!("?hours={hours}&strategy={}", path_segment(strategy));
        for (name, value) in [("region", &self.region), ("account", &self.account)] {
            if let Some(value) = value {
                link.push_str(&format!("&{name}={}", path_segment(value)));
            }
        }
        link
    }

    /// The page of a function, with this window and strategy.
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
        Look { colour: self.colour, width: self.width.unwrap_or(DEFAULT_WIDTH).clamp(40, 1_000) }
    }

    pub(crate) fn names(&self, key: &FunctionKey) -> bool {
        self.region.as_ref().is_none_or(|region| *region == key.region)
            && self.account.as_ref().is_none_or(|account| *account == key.account)
    }
}

/// The window of the last hours before `now_us`, microseconds since the Unix epoch.
#[must_use]
pub fn last_hours(now_us: u64, hours: u64) -> Window {
    let from_us = now_us.saturating_sub(hours.saturating_mul(HOUR_US));
    Window { from_hour: from_us / HOUR_US, ..Window::ALL }
}

/// What a strategy may be called.
pub const STRATEGIES: &str =
    "a strategy is cost, speed, balanced or, for a service level, like p95=300 (milliseconds)";

/// The strategy of a name and a weight; the default of none.
#[must_use]
pub fn strategy(name: Option<&str>, weight: Option<f64>) -> Option<Strategy> {
    match name {
        Some("cost") => Some(Strategy::Cost),
        Some("speed") => Some(Strategy::Speed),
        Some("balanced") | None => {
            Some(weight.map_or_else(Strategy::default, |weight| Strategy::Balanced { weight }))
        }
        Some(objective) => slo(objective),
    }
}

/// `p95=300`: the cheapest size at which that part of all invocations takes at most so many milliseconds.
fn slo(objective: &str) -> Option<Strategy> {
    let (percentile, target_ms) = objective.strip_prefix('p')?.split_once('=')?;
    let (percentile, target_ms): (f64, f64) = (percentile.parse().ok()?, target_ms.parse().ok()?);
    let is_sane = (50.0..100.0).contains(&percentile) && target_ms > 0.0 && target_ms.is_finite();
    is_sane.then_some(Strategy::Slo { quantile: percentile / 100.0, target_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_level_is_a_percentile_and_milliseconds() {
        let slo = |quantile, target_ms| Some(Strategy::Slo { quantile, target_ms });
        assert_eq!(strategy(Some("p95=300"), None), slo(0.95, 300.0));
        assert_eq!(strategy(Some("p50=0.5"), None), slo(0.5, 0.5));
        for nonsense in
            ["p95", "p95=", "p95=-1", "p95=inf", "p95=NaN", "p100=5", "p0=5", "q95=5", "pp=5", "=5", ""]
        {
            assert_eq!(strategy(Some(nonsense), None), None, "{nonsense}");
        }
    }
}
