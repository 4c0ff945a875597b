//! Averages of a size, the choice between sizes, and when the choice is settled.

use tailor_sizing::units::Megabytes;

use super::input::Strategy;

/// Invocations at a size before its interval is used.
const MIN_COUNT: usize = 4;
/// Width of the intervals: two standard errors contain the mean with about 95 %.
const STANDARD_ERRORS: f64 = 2.0;
/// Sizes whose objectives differ by less than this share are equally good.
const EQUAL: f64 = 0.02;

/// The results of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Average {
    /// The size.
    pub memory: Megabytes,
    /// Mean duration, ms.
    pub duration_ms: f64,
    /// Mean cost of an invocation, pico-dollars.
    pub cost_pico: f64,
    /// Half of the interval of both means, as a share of them.
    pub half_width: f64,
    /// Number of invocations in them.
    pub count: usize,
}

/// The mean of the values without the lowest and the highest, and its standard error.
#[must_use]
pub fn trimmed(values: &[f64], discarded: f64) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
    let cut = ((sorted.len() as f64 * discarded) as usize).min(sorted.len().saturating_sub(1) / 2);
    let kept = &sorted[cut..sorted.len() - cut];
    let count = kept.len() as f64;
    let mean = kept.iter().sum::<f64>() / count.max(1.0);
    let variance = kept.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    (mean, (variance / count.max(1.0)).sqrt())
}

/// The value that is minimized, for each size, as in Power Tuning.
#[must_use]
pub fn objectives(averages: &[Average], strategy: Strategy, weight: f64) -> Vec<f64> {
    let highest = |of: fn(&Average) -> f64| averages.iter().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let (cost, duration) = (highest(|a| a.cost_pico), highest(|a| a.duration_ms));
    let objective = |average: &Average| match strategy {
        Strategy::Cost => average.cost_pico,
        Strategy::Speed => average.duration_ms,
        Strategy::Balanced => {
            weight * average.cost_pico / cost + (1.0 - weight) * average.duration_ms / duration
        }
    };
    averages.iter().map(objective).collect()
}

/// The index of the best size. Of equal ones, the better in the other respect.
#[must_use]
pub fn best(averages: &[Average], strategy: Strategy, weight: f64) -> Option<usize> {
    let objectives = objectives(averages, strategy, weight);
    let other = |average: &Average| match strategy {
        Strategy::Speed => average.cost_pico,
        _ => average.duration_ms,
    };
    (0..averages.len()).min_by(|a, b| {
        let by_objective = objectives[*a].total_cmp(&objectives[*b]);
        by_objective.then(other(&averages[*a]).total_cmp(&other(&averages[*b])))
    })
}

/// The sizes that can still be the best: the others are worse even at the ends of the intervals. One is left when the
/// choice is settled.
#[must_use]
pub fn open(averages: &[Average], strategy: Strategy, weight: f64) -> Vec<Megabytes> {
    let Some(best) = best(averages, strategy, weight) else { return Vec::new() };
    let objectives = objectives(averages, strategy, weight);
    let low = |index: usize| objectives[index] * (1.0 - STANDARD_ERRORS * averages[index].half_width);
    let high = |index: usize| objectives[index] * (1.0 + STANDARD_ERRORS * averages[index].half_width);
    let is_equal =
        |index: usize| high(index) < high(best) * (1.0 + EQUAL) && low(index) > low(best) * (1.0 - EQUAL);
    (0..averages.len())
        .filter(|index| {
            let few = averages[*index].count < MIN_COUNT || averages[best].count < MIN_COUNT;
            *index == best || few || (low(*index) <= high(best) && !is_equal(*index))
        })
        .map(|index| averages[index].memory)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_settled_when_intervals_are_apart() {
        let average = |mb, cost_pico, half_width, count| Average {
            memory: Megabytes(mb),
            duration_ms: 10.0,
            cost_pico,
            half_width,
            count,
        };
        let open = |averages: &[Average]| open(averages, Strategy::Cost, 0.5);
        let (a, b) = (average(128, 100.0, 0.05, 5), average(256, 115.0, 0.05, 5));
        assert_eq!(open(&[a.clone(), b.clone()]), [Megabytes(128), Megabytes(256)]);
        let (c, d) = (average(256, 200.0, 0.05, 5), average(512, 400.0, 0.0, 2));
        assert_eq!(open(&[a.clone(), c]), [Megabytes(128)]);
        assert_eq!(open(&[a, d]).len(), 2, "too few invocations");
        let equal = [average(128, 100.0, 0.001, 9), average(256, 100.5, 0.001, 9)];
        assert_eq!(open(&equal), [Megabytes(128)]);
        assert_eq!(trimmed(&[1.0, 2.0, 3.0, 4.0, 1_000.0], 0.2).0, 3.0);
    }
}
