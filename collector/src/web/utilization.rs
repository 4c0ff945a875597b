//! CPU, memory and concurrency of environments on managed instances, on a function's page.

use maud::{Markup, html};

use super::chart::round;
use super::layout::tile;
use super::time_chart::{TimeChart, Values, axis_count, per};
use crate::report::utilization::UtilizationReport;
use crate::report::{FunctionReport, SeriesReport};

/// The section; nothing for a function without these measurements.
pub(super) fn utilization(report: &FunctionReport, series: Option<&SeriesReport>) -> Markup {
    html! {
        @if let Some(used) = &report.utilization {
            section.card {
                h2 { "Environments on managed instances" }
                div.tiles {
                    (tile("CPU", &format!("{:.2} vCPU", used.mean_vcpus), &format!("p99 {:.2}", used.p99_vcpus)))
                    (tile("CPU of an invocation", &format!("{:.3} vCPU", used.vcpus_per_invocation), "while it runs"))
                    (tile("At the same time", &format!("{:.1}", used.mean_concurrency), &format!("at most {}", used.max_concurrency)))
                    (tile("Memory", &format!("{} MB", used.peak_memory_mb), &format!("of {}", report.memory)))
                }
                @if let Some(series) = series { (charts(series)) }
            }
        }
    }
}

fn charts(series: &SeriesReport) -> Markup {
    let of = |value: fn(&UtilizationReport) -> f64| {
        series.points.iter().map(|point| point.utilization.as_ref().map(value)).collect::<Vec<_>>()
    };
    let chart = |id, title, parts, format| TimeChart {
        id,
        title,
        description: format!("{title}, one value for each point of time."),
        report: series,
        parts,
        is_bars: false,
        format,
        has_labels: false,
    };
    let two = |value: f64| format!("{}", round(value));
    let cpu = chart(
        "cpu-over-time",
        "vCPUs in use of one environment over time",
        vec![
            Values { class: "p99", name: "p99", values: of(|used| used.p99_vcpus) },
            Values { class: "p50", name: "mean", values: of(|used| used.mean_vcpus) },
        ],
        two as fn(f64) -> String,
    );
    let concurrency = chart(
        "concurrency-over-time",
        "Invocations at the same time in one environment over time",
        vec![
            Values { class: "p99", name: "most", values: of(|used| f64::from(used.max_concurrency)) },
            Values { class: "p50", name: "mean", values: of(|used| used.mean_concurrency) },
        ],
        two,
    );
    let memory = chart(
        "memory-over-time",
        "Highest memory of one environment over time, MB",
        vec![Values { class: "p99", name: "peak", values: of(|used| used.peak_memory_mb as f64) }],
        axis_count,
    );
    let per = per(series);
    html! {
        div.columns {
            figure { figcaption { "vCPUs in use " (per) ": mean and p99" } (cpu.render()) }
            figure { figcaption { "Invocations at the same time " (per) ": mean and most" } (concurrency.render()) }
            figure { figcaption { "Memory, MB, " (per) } (memory.render()) }
        }
    }
}
