//! The report as text.

use std::fmt::Write;

use tailor_sizing_eval::score::{BaseScore, Report};

pub(crate) fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{} functions; errors and shares in percent\n", report.functions);
    let _ = writeln!(
        out,
        "{:>8} {:>6} {:>6}  {:>5} {:>5} {:>5} {:>6}  {:>6}  {:>6} {:>6}  {:>5} {:>5}  by target",
        "base MB",
        "mean",
        "median",
        "0.75",
        "0.5",
        "0.25",
        "best",
        "best 2",
        "regret",
        "p95",
        "in 80",
        "in 95"
    );
    for (base, score) in &report.by_base {
        let _ = writeln!(out, "{}", line(&base.to_string(), score));
    }
    let _ = writeln!(out, "{}", line("ceiling", &report.noise_ceiling));
    out
}

fn line(name: &str, score: &BaseScore) -> String {
    let best = |weight: &str| score.best.get(weight).copied().unwrap_or_default();
    let covered = |coverage: Option<f64>| coverage.map_or_else(|| "-".to_owned(), |c| format!("{c:.1}"));
    let targets: Vec<String> =
        score.by_target.iter().map(|(target, error)| format!("{target}: {error:.1}")).collect();
    format!(
        "{name:>8} {:>6.1} {:>6.1}  {:>5.1} {:>5.1} {:>5.1} {:>6.1}  {:>6.1}  {:>6.1} {:>6.1}  {:>5} {:>5}  {}",
        score.mape_mean,
        score.mape_median,
        best("0.75"),
        best("0.5"),
        best("0.25"),
        best("pooled"),
        score.best_two_pooled,
        score.regret_mean,
        score.regret_p95,
        covered(score.coverage_80),
        covered(score.coverage_95),
        targets.join(", ")
    )
}
