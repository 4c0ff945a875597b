//! The names of strategies.

use tailor_sizing::advice::strategy::Strategy;

/// Describes the valid strategy names.
pub const STRATEGIES: &str = "a strategy is cost, cost=5 (at most 5 % above the cheapest), speed, balanced, or a latency \
     target such as p95=300 (milliseconds; p95=300,cold counts cold starts)";

/// Name of the default strategy.
pub const DEFAULT_STRATEGY: &str = "cost";

/// Largest tolerance of `cost`, percent.
const MAX_TOLERANCE_PERCENT: f64 = 100.0;

/// Parses a strategy name; the default strategy when there is none. A weight selects `balanced` in place of the default.
#[must_use]
pub fn strategy(name: Option<&str>, weight: Option<f64>) -> Option<Strategy> {
    match name {
        Some("cost") | None => {
            Some(weight.map_or_else(Strategy::default, |weight| Strategy::Balanced { weight }))
        }
        Some("speed") => Some(Strategy::Speed),
        Some("balanced") => Some(Strategy::Balanced { weight: weight.unwrap_or(0.5) }),
        Some(other) => parse_tolerance(other).or_else(|| parse_slo(other)),
    }
}

/// Parses `cost=5`: the fastest size that costs at most 5 % more than the cheapest.
fn parse_tolerance(text: &str) -> Option<Strategy> {
    let percent: f64 = text.strip_prefix("cost=")?.parse().ok()?;
    (0.0..=MAX_TOLERANCE_PERCENT).contains(&percent).then_some(Strategy::Cost { tolerance: percent / 100.0 })
}

/// Parses a latency target: `p95=300` is the cheapest size at which 95 % of warm invocations take at most 300 ms, and
/// `p95=300,cold` the cheapest at which 95 % of all invocations do.
fn parse_slo(target: &str) -> Option<Strategy> {
    let warm = target.strip_suffix(",cold");
    let (percentile, target_ms) = warm.unwrap_or(target).strip_prefix('p')?.split_once('=')?;
    let (percentile, target_ms): (f64, f64) = (percentile.parse().ok()?, target_ms.parse().ok()?);
    let is_valid = (50.0..100.0).contains(&percentile) && target_ms > 0.0 && target_ms.is_finite();
    let (quantile, cold_starts) = (percentile / 100.0, warm.is_some());
    is_valid.then_some(Strategy::Slo { quantile, target_ms, cold_starts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_has_a_tolerance_and_is_the_default() {
        let cost = |tolerance| Some(Strategy::Cost { tolerance });
        assert_eq!(strategy(None, None), cost(0.03));
        assert_eq!(strategy(Some(DEFAULT_STRATEGY), None), cost(0.03));
        assert_eq!(strategy(Some("cost=5"), None), cost(0.05));
        assert_eq!(strategy(Some("cost=0"), None), cost(0.0));
        assert_eq!(strategy(None, Some(0.2)), Some(Strategy::Balanced { weight: 0.2 }));
        for invalid in ["cost=", "cost=-1", "cost=101", "cost=NaN", "costs"] {
            assert_eq!(strategy(Some(invalid), None), None, "{invalid}");
        }
    }

    #[test]
    fn a_latency_target_is_a_percentile_and_milliseconds() {
        let slo = |quantile, target_ms| Some(Strategy::Slo { quantile, target_ms, cold_starts: false });
        assert_eq!(strategy(Some("p95=300"), None), slo(0.95, 300.0));
        assert_eq!(strategy(Some("p50=0.5"), None), slo(0.5, 0.5));
        let cold = Some(Strategy::Slo { quantile: 0.95, target_ms: 300.0, cold_starts: true });
        assert_eq!(strategy(Some("p95=300,cold"), None), cold);
        for invalid in [
            "p95",
            "p95=",
            "p95=300,",
            "p95=300,warm",
            "p95=-1",
            "p95=inf",
            "p95=NaN",
            "p100=5",
            "p0=5",
            "q95=5",
            "pp=5",
            "=5",
            "",
        ] {
            assert_eq!(strategy(Some(invalid), None), None, "{invalid}");
        }
    }
}
