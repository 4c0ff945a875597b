//! Saved predictions, and the difference in error between two versions of the model, function by function.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// One prediction and the measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// Data set.
    pub set: String,
    /// Function.
    pub function: String,
    /// Its kind.
    pub kind: String,
    /// Size with telemetry, MB.
    pub base_mb: u32,
    /// Predicted size, MB.
    pub target_mb: u32,
    /// Mean duration that was measured, ms.
    pub truth_ms: f64,
    /// Mean duration that was predicted, ms.
    pub predicted_ms: f64,
    /// Whether the 80 % interval has the measured value.
    pub in_80: bool,
    /// Whether the 95 % interval has it.
    pub in_95: bool,
}

impl Predicted {
    /// Absolute relative error, percent.
    #[must_use]
    pub fn error(&self) -> f64 {
        100.0 * (self.predicted_ms / self.truth_ms - 1.0).abs()
    }
}

/// Mean and standard error of one value per function.
struct Mean {
    mean: f64,
    error: f64,
}

impl Mean {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count.max(1.0);
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, error: (squares / (count - 1.0).max(1.0) / count.max(1.0)).sqrt() }
    }
}

/// Rows by base size and kind; `all` has every kind.
fn groups(rows: &[Predicted]) -> BTreeMap<(u32, &str), Vec<&Predicted>> {
    let mut groups: BTreeMap<(u32, &str), Vec<&Predicted>> = BTreeMap::new();
    for row in rows {
        for kind in [row.kind.as_str(), "all"] {
            groups.entry((row.base_mb, kind)).or_default().push(row);
        }
    }
    groups
}

/// The mean of `value` of each function.
fn by_function(rows: &[&Predicted], value: impl Fn(&Predicted) -> f64) -> BTreeMap<(String, String), f64> {
    let mut sums: BTreeMap<(String, String), (f64, f64)> = BTreeMap::new();
    for row in rows {
        let sum = sums.entry((row.set.clone(), row.function.clone())).or_default();
        *sum = (sum.0 + value(row), sum.1 + 1.0);
    }
    sums.into_iter().map(|(function, (sum, count))| (function, sum / count)).collect()
}

/// Error and coverage by base size and kind, with the standard error over the functions.
#[must_use]
pub fn by_kind(rows: &[Predicted]) -> String {
    let mut out = format!(
        "{:>8} {:<18} {:>9} {:>14} {:>6} {:>6}\n",
        "base MB", "kind", "functions", "error %", "in 80", "in 95"
    );
    for ((base, kind), rows) in groups(rows) {
        let errors: Vec<f64> = by_function(&rows, Predicted::error).into_values().collect();
        let Mean { mean, error } = Mean::of(&errors);
        let within = |has: fn(&Predicted) -> bool| {
            100.0 * rows.iter().filter(|row| has(row)).count() as f64 / rows.len() as f64
        };
        let _ = writeln!(
            out,
            "{base:>8} {kind:<18} {:>9} {mean:>7.1} ± {error:>4.1} {:>6.1} {:>6.1}",
            errors.len(),
            within(|row| row.in_80),
            within(|row| row.in_95)
        );
    }
    out
}

/// What `new` adds to the error of `old`, in percentage points by base size and kind, paired by function. Negative is better.
#[must_use]
pub fn differences(new: &[Predicted], old: &[Predicted]) -> String {
    let mut out = format!("{:>8} {:<18} {:>9} {:>16}\n", "base MB", "kind", "functions", "new − old, %");
    let before = groups(old);
    for (group, rows) in groups(new) {
        let Some(old_rows) = before.get(&group) else { continue };
        let old = by_function(old_rows, Predicted::error);
        let pairs: Vec<f64> = by_function(&rows, Predicted::error)
            .iter()
            .filter_map(|(function, error)| Some(error - old.get(function)?))
            .collect();
        let Mean { mean, error } = Mean::of(&pairs);
        let (base, kind) = group;
        let _ = writeln!(out, "{base:>8} {kind:<18} {:>9} {mean:>+9.2} ± {error:>4.2}", pairs.len());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(function: &str, kind: &str, predicted_ms: f64) -> Predicted {
        Predicted {
            set: "set".to_owned(),
            function: function.to_owned(),
            kind: kind.to_owned(),
            base_mb: 256,
            target_mb: 512,
            truth_ms: 100.0,
            predicted_ms,
            in_80: predicted_ms < 120.0,
            in_95: true,
        }
    }

    #[test]
    fn differences_are_paired_by_function_and_kind() {
        let old = [row("a", "one thread", 110.0), row("b", "one thread", 150.0), row("c", "pool", 130.0)];
        let new = [row("a", "one thread", 108.0), row("b", "one thread", 146.0), row("c", "pool", 70.0)];
        let text = differences(&new, &old);
        let line = |kind: &str| text.lines().find(|line| line.contains(kind)).unwrap_or_default().to_owned();
        assert!(line("one thread").contains("-3.00 ± 1.00"), "{text}");
        assert!(line("pool").contains("+0.00"), "{text}");
        assert!(
            by_kind(&new).lines().any(|line| line.contains("all") && line.contains("66.7")),
            "{}",
            by_kind(&new)
        );
    }
}
