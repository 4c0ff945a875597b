//! The history of a function: cost, duration, errors and cold starts over time, the parts of its cost, and the distribution
//! of its duration. The overview of the fleet has some of them.

use maud::{Markup, html};

use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::telemetry::histogram::LogHistogram;

use super::chart::round;
use super::time_chart::{TimeChart, Values, axis_count, dollars, per};
use crate::render::units::{count, counted, duration};
use crate::report::Quantiles;
use crate::report::series::{CostParts, SeriesPoint, SeriesReport};

/// The charts over time.
pub(super) fn charts(series: &SeriesReport) -> Markup {
    let bars = |id, title, description, class, name, value: fn(&SeriesPoint) -> f64, format| TimeChart {
        id,
        title,
        description,
        report: series,
        parts: vec![Values {
            class,
            name,
            values: series.points.iter().map(|point| Some(value(point))).collect(),
        }],
        is_bars: true,
        format,
        has_labels: true,
    };
    let cost = bars(
        "cost-over-time",
        "Cost over time",
        format!("{} in the window.", series.total.cost_pico_usd),
        "cost",
        "cost",
        |point| point.cost_pico_usd.to_dollars(),
        dollars as fn(f64) -> String,
    );
    let errors = bars(
        "errors-over-time",
        "Errors over time",
        format!(
            "{} of {} failed.",
            count(series.total.errors),
            counted(series.total.invocations, "invocation")
        ),
        "errors",
        "failed",
        |point| point.errors as f64,
        axis_count,
    );
    let per = per(series);
    html! {
        div.columns {
            section.card { h2 { "Cost " (per) } (cost.render()) (cost_split(&series.total.cost_parts)) }
            (durations(series, true))
            section.card { h2 { "Errors " (per) } (errors.render()) }
            (cold_starts(series, true))
        }
    }
}

/// Quantiles of duration over time. With `has_labels`, changes have a label with their sizes.
pub(super) fn durations(series: &SeriesReport, has_labels: bool) -> Markup {
    let quantiles = [
        quantile(series, "p99", |of| of.p99),
        quantile(series, "p95", |of| of.p95),
        quantile(series, "p50", |of| of.p50),
    ];
    let chart = TimeChart {
        id: "duration-over-time",
        title: "Duration over time",
        description: "The median and the 95th and 99th percentile of duration.".to_owned(),
        report: series,
        parts: quantiles.into(),
        is_bars: false,
        format: duration,
        has_labels,
    };
    html! {
        section.card {
            h2 { "Duration " (per(series)) }
            (chart.render())
            p.legend { span.key.p50 {} "p50 " span.key.p95 {} "p95 " span.key.p99 {} "p99" }
        }
    }
}

/// Cold starts over time. With `has_labels`, changes have a label with their sizes.
pub(super) fn cold_starts(series: &SeriesReport, has_labels: bool) -> Markup {
    let values = series.points.iter().map(|point| Some(point.cold_starts as f64)).collect();
    let chart = TimeChart {
        id: "cold-starts-over-time",
        title: "Cold starts over time",
        description: format!("{} in the window.", counted(series.total.cold_starts, "cold start")),
        report: series,
        parts: vec![Values { class: "cold", name: "cold starts", values }],
        is_bars: true,
        format: axis_count,
        has_labels,
    };
    html! { section.card { h2 { "Cold starts " (per(series)) } (chart.render()) } }
}

/// One quantile of duration over time. Its name is also its class.
fn quantile(series: &SeriesReport, name: &'static str, value: fn(&Quantiles) -> f64) -> Values {
    let values = series.points.iter().map(|point| point.duration_ms.as_ref().map(value)).collect();
    Values { class: name, name, values }
}

/// The parts of the cost as one bar.
pub(super) fn cost_split(parts: &CostParts) -> Markup {
    let parts = [
        ("compute", "Compute", parts.compute_pico_usd),
        ("init", "Init", parts.init_pico_usd),
        ("requests", "Requests", parts.requests_pico_usd),
        ("storage", "Storage", parts.storage_pico_usd),
    ];
    let total: PicoDollars = parts.iter().map(|(_, _, amount)| *amount).sum();
    let percent =
        |amount: PicoDollars| 100.0 * amount.to_dollars() / total.to_dollars().max(f64::MIN_POSITIVE);
    let words: Vec<String> = parts
        .iter()
        .map(|(_, name, amount)| format!("{name} {amount} ({:.0} %)", percent(*amount)))
        .collect();
    let mut from = 0.0;
    let rects = parts.map(|(class, _, amount)| {
        let (start, width) = (from, percent(amount));
        from += width;
        (class, start, width)
    });
    html! {
        @if total > PicoDollars::ZERO {
            svg.split viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-labelledby="cost-split" {
                title id="cost-split" { (words.join(", ")) }
                @for (class, from, width) in rects {
                    rect class=(class) x=(round(from)) y="0" width=(round(width)) height="10" {}
                }
            }
            p.legend {
                @for ((class, ..), words) in parts.iter().zip(&words) { span.part { span class={ "key " (*class) } {} (words) } " " }
            }
        }
    }
}

/// The distribution of the duration of all invocations; its axis is logarithmic.
pub(super) fn distribution(durations: &LogHistogram) -> Markup {
    const BARS: usize = 48;
    const WIDTH: f64 = 640.0;
    let (base, top, left, right) = (142.0, 30.0, 10.0, WIDTH - 10.0);
    let values: Vec<(f64, u64)> = durations.values().filter(|(us, _)| *us > 0.0).collect();
    let (Some((least, _)), Some((most, _))) = (values.first(), values.last()) else { return html! {} };
    let (least, most) = (least / 1.1, (most * 1.1).max(least * 1.5));
    let place = |us: f64| ((us / least).ln() / (most / least).ln()).clamp(0.0, 1.0);
    let mut bars = [0u64; BARS];
    for (us, count) in &values {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bars")]
        let bar = (place(*us) * BARS as f64).clamp(0.0, BARS as f64 - 1.0) as usize;
        bars[bar] = bars[bar].saturating_add(*count);
    }
    let tallest = bars.iter().copied().max().unwrap_or(0).max(1) as f64;
    let x = |us: f64| left + (right - left) * place(us);
    let width = (right - left) / BARS as f64;
    let Quantiles { p50, p95, p99 } = Quantiles::of(durations);
    let description = format!(
        "Half of {} invocations take at most {}, 95 % at most {}, 99 % at most {}.",
        count(durations.count()),
        duration(p50),
        duration(p95),
        duration(p99)
    );
    html! {
        section.card {
            h2 { "Distribution of duration" }
            svg.memory viewBox={ "0 0 " (WIDTH) " 170" } role="img" aria-labelledby="distribution-title distribution-desc" {
                title id="distribution-title" { "Distribution of duration" }
                desc id="distribution-desc" { (description) }
                @for (index, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
                    // A single invocation stays visible among millions.
                    @let height = ((base - top) * *count as f64 / tallest).max(2.0);
                    rect.bar x=(round(left + width * index as f64 + 0.5)) y=(round(base - height))
                        width=(round(width - 1.0)) height=(round(height)) {}
                }
                line.base x1=(left) x2=(right) y1=(base) y2=(base) {}
                text.tick x=(left) y=(base + 18.0) { (duration(least * 1.1 / 1_000.0)) }
                text.tick x=(right) y=(base + 18.0) text-anchor="end" { (duration(most / 1.1 / 1_000.0)) }
                @for (index, (name, ms)) in [("p50", p50), ("p95", p95), ("p99", p99)].into_iter().enumerate() {
                    @let position = x(ms * 1_000.0);
                    @let is_right = position > WIDTH * 0.7;
                    line.mark.now x1=(round(position)) x2=(round(position)) y1=(4.0 + 15.0 * index as f64) y2=(base) {}
                    text.mark.now x=(round(if is_right { position - 5.0 } else { position + 5.0 }))
                        y=(14.0 + 15.0 * index as f64) text-anchor=(if is_right { "end" } else { "start" }) {
                        (name) " " (duration(ms))
                    }
                }
            }
            p.sub { "All invocations, cold starts and failures included; the axis is logarithmic." }
        }
    }
}
