//! The first screen of the fleet: what it costs, what changed, and what to do first.

use maud::{Markup, html};

use tailor_sizing::pricing::money::PicoDollars;

use super::history;
use super::layout::{delta, unbroken};
use super::time_chart::{TimeChart, Values, axis_count, dollars, per};
use crate::changes::Change;
use crate::query::Query;
use crate::render::units::{change, count, counted, exactly, instant};
use crate::report::FleetReport;
use crate::report::ledger::Ledger;
use crate::report::overview::Overview;
use crate::report::series::{SeriesReport, SeriesTotal};
use crate::store::{FunctionKey, SummaryRow};

/// Groups with a colour of their own.
const GROUP_CLASSES: [&str; 6] = ["g0", "g1", "g2", "g3", "g4", "g5"];

/// Hours of a month: 365.25 days in twelve parts.
const MONTH_HOURS: f64 = 730.5;

pub(super) fn render(overview: &Overview, report: &FleetReport, query: &Query) -> Markup {
    let Overview { series, changes, ledger } = overview;
    html! {
        (tiles(series, report, ledger))
        div.columns.wide {
            div { (cost(series)) (invocations(series)) }
            div.aside { (first_steps(report, query)) (movers(report, query)) (hints(report, query)) }
            div { (history::durations(series, false)) (history::cold_starts(series, false)) }
        }
        (recent_changes(changes, ledger, query))
    }
}

fn tiles(series: &SeriesReport, report: &FleetReport, ledger: &Ledger) -> Markup {
    let (total, before) = (&series.total, series.previous.as_ref());
    let compare = |of: fn(&SeriesTotal) -> f64, is_bad: bool| delta(total, before, of, is_bad);
    let errors = |total: &SeriesTotal| total.errors as f64;
    let month = total.cost_pico_usd.to_dollars() / total.hours.max(1.0) * MONTH_HOURS;
    let saved = ledger.realised_pico_usd;
    html! {
        div.tiles {
            div.tile {
                div.name { "Cost" }
                div.value { (total.cost_pico_usd) }
                (compare(|total| total.cost_pico_usd.to_dollars(), true))
                div.note { (month_at_this_rate(month)) }
            }
            div.tile {
                div.name { "Potential savings" }
                div.value.good[report.total.saving_pico_usd > PicoDollars::ZERO] { (report.total.saving_pico_usd) }
                div.note { (percent(report.total.saving_pico_usd, report.total.cost_pico_usd)) " of the cost" }
            }
            div.tile {
                div.name { "Saved by changes" }
                div.value { (saved) }
                div.note { "predicted: " (ledger.predicted_pico_usd) }
            }
            div.tile {
                div.name { "Invocations" }
                div.value { (count(total.invocations)) }
                (compare(|total| total.invocations as f64, false))
                div.note { (exactly(report.matching_functions, "function")) }
            }
            div.tile {
                div.name { "Errors" }
                div.value.bad[total.errors > 0] { (count(total.errors)) }
                (compare(errors, true))
                div.note { (share(total.errors, total.invocations)) " of invocations" }
            }
            div.tile {
                div.name { "Cold starts" }
                div.value { (count(total.cold_starts)) }
                (compare(|total| total.cold_starts as f64, true))
                div.note { (share(total.cold_starts, total.invocations)) " of invocations" }
            }
        }
    }
}

fn percent(part: PicoDollars, whole: PicoDollars) -> String {
    let whole = whole.to_dollars();
    if whole > 0.0 { format!("{:.0} %", 100.0 * part.to_dollars() / whole) } else { "0 %".to_owned() }
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.2} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// The cost as bars, in parts when the list is grouped.
fn cost(series: &SeriesReport) -> Markup {
    let of = |points: &[crate::report::series::SeriesPoint]| {
        points.iter().map(|point| Some(point.cost_pico_usd.to_dollars())).collect::<Vec<_>>()
    };
    let groups = series.groups.as_deref().unwrap_or_default();
    let mut parts = vec![];
    let mut names = vec![];
    for (class, group) in GROUP_CLASSES.into_iter().zip(groups) {
        if class == "g5" || group.is_rest {
            break;
        }
        names.push((class, if group.value.is_empty() { "unknown" } else { group.value.as_str() }));
        parts.push(Values { class, name: "", values: of(&group.points) });
    }
    let others = &groups[parts.len()..];
    if !others.is_empty() {
        let values = (0..series.points.len()).map(|index| {
            let costs = others.iter().filter_map(|group| group.points.get(index));
            Some(costs.map(|point| point.cost_pico_usd.to_dollars()).sum())
        });
        names.push(("g5", "others"));
        parts.push(Values { class: "g5", name: "", values: values.collect() });
    }
    if parts.is_empty() {
        parts.push(Values { class: "cost", name: "cost", values: of(&series.points) });
    }
    let highest = series.points.iter().max_by_key(|point| point.cost_pico_usd);
    let description = format!(
        "{} in the window; the highest is {} on {}.",
        series.total.cost_pico_usd,
        highest.map(|point| point.cost_pico_usd).unwrap_or_default(),
        highest.map(|point| instant(point.at_us)).unwrap_or_default()
    );
    let chart = TimeChart {
        id: "fleet-cost",
        title: "Cost over time",
        description,
        report: series,
        parts,
        is_bars: true,
        format: dollars,
        has_labels: false,
    };
    html! {
        section.card {
            h2 { "Cost " (per(series)) }
            (chart.render())
            @if !names.is_empty() {
                p.legend { @for (class, name) in names { span class={ "key " (class) } {} (name) " " } }
            }
            (history::cost_split(&series.total.cost_parts))
            @if !series.changes.is_empty() {
                p.legend { span.flag aria-hidden="true" { "▼" } " change of a memory size: " (series.changes.len()) }
            }
        }
    }
}

fn invocations(series: &SeriesReport) -> Markup {
    let of = |value: fn(&crate::report::series::SeriesPoint) -> u64| {
        series.points.iter().map(|point| Some(value(point) as f64)).collect::<Vec<_>>()
    };
    let chart = TimeChart {
        id: "fleet-invocations",
        title: "Invocations over time",
        description: format!(
            "{} in the window, of which {} failed.",
            counted(series.total.invocations, "invocation"),
            count(series.total.errors)
        ),
        report: series,
        parts: vec![
            Values { class: "errors", name: "failed", values: of(|point| point.errors) },
            Values {
                class: "succeeded",
                name: "succeeded",
                values: of(|point| point.invocations.saturating_sub(point.errors)),
            },
        ],
        is_bars: true,
        format: axis_count,
        has_labels: false,
    };
    html! {
        section.card {
            h2 { "Invocations " (per(series)) }
            (chart.render())
            p.legend { span.key.succeeded {} "succeeded " span.key.errors {} "failed" }
        }
    }
}

/// The functions with the largest savings.
fn first_steps(report: &FleetReport, query: &Query) -> Markup {
    let step = |row: &SummaryRow| {
        let advised = row.advised.as_ref()?;
        Some(html! {
            li {
                div.step {
                    a href=(query.function_link(&row.function)) { (row.function.name) }
                    span.good { (row.saving) }
                }
                p.sub {
                    (unbroken(&row.memory.to_string())) " → " (unbroken(&advised.memory.to_string()))
                    ": cost " (unbroken(&change(advised.cost_change_percent)))
                    ", time " (unbroken(&change(advised.duration_change_percent)))
                }
            }
        })
    };
    let steps: Vec<Markup> = report.top.iter().filter_map(step).collect();
    html! {
        section.card {
            h2 { "What to do first" }
            @if steps.is_empty() {
                p { "No other memory size has a predicted saving." }
            } @else {
                p.sub { "The functions with the largest savings in this window, by changing the memory size." }
                ol.steps { @for step in &steps { (step) } }
            }
        }
    }
}

/// The functions whose cost changed the most.
fn movers(report: &FleetReport, query: &Query) -> Markup {
    let line = |row: &SummaryRow| {
        let change = row.cost_change.unwrap_or_default();
        let is_more = change > PicoDollars::ZERO;
        html! {
            li {
                div.step {
                    a href=(query.function_link(&row.function)) { (row.function.name) }
                    span class=(if is_more { "bad" } else { "good" }) { (if is_more { "+" } else { "" }) (change) }
                }
                @if let Some(cost) = row.cost { p.sub { "cost now " (cost) } }
            }
        }
    };
    html! {
        @if !report.movers.is_empty() {
            section.card {
                h2 { "What changed the most" }
                p.sub { "Cost against the time of the same length before." }
                ol.steps { @for row in &report.movers { (line(row)) } }
            }
        }
    }
}

/// The hints over all functions.
fn hints(report: &FleetReport, query: &Query) -> Markup {
    const SHOWN: usize = 4;
    let link = |function: &FunctionKey| html! { a href=(query.function_link(function)) { (function.name) } };
    html! {
        section.card {
            h2 { "Hints" }
            @if report.hints.is_empty() { p { "None." } }
            ul.hints {
                @for hint in report.hints.iter().take(SHOWN) {
                    li {
                        div.step {
                            code { (hint.code) }
                            @if hint.saving_pico_usd > PicoDollars::ZERO { span.good { (hint.saving_pico_usd) } }
                        }
                        p { (hint.meaning) }
                        p.sub {
                            (exactly(hint.functions, "function")) ": "
                            @for (index, example) in hint.examples.iter().take(3).enumerate() {
                                @if index > 0 { ", " }
                                (link(&example.function))
                            }
                            @if hint.functions > 3 { " …" }
                        }
                    }
                }
            }
            @if report.hints.len() > SHOWN {
                details {
                    summary { "Others: " (report.hints.len() - SHOWN) }
                    ul.plain {
                        @for hint in &report.hints[SHOWN..] {
                            li { code { (hint.code) } ": " (exactly(hint.functions, "function")) ", " (hint.saving_pico_usd) }
                        }
                    }
                }
            }
        }
    }
}

fn recent_changes(changes: &[Change], ledger: &Ledger, query: &Query) -> Markup {
    if changes.is_empty() {
        return html! {};
    }
    html! {
        section.card {
            h2 { "Recent changes" }
            p.sub {
                "The tuner's changes of memory sizes. With the invocations since then, they were predicted to save "
                (ledger.predicted_pico_usd) " and saved " (ledger.realised_pico_usd) " by measurement."
            }
            div.scroll {
                table {
                    thead { tr {
                        th scope="col" { "Function" } th scope="col" { "When" }
                        th scope="col" { "From, to" } th scope="col" { "State" }
                        @for name in ["Invocations", "Predicted savings", "Measured savings"] {
                            th.number scope="col" { (name) }
                        }
                    } }
                    tbody { @for one in changes { (change_row(one, ledger, query)) } }
                }
            }
        }
    }
}

fn change_row(one: &Change, ledger: &Ledger, query: &Query) -> Markup {
    let entry =
        ledger.entries.iter().find(|entry| entry.function == one.function && entry.change_id == one.id);
    let money =
        |amount: Option<PicoDollars>| amount.map_or_else(|| "–".to_owned(), |amount| amount.to_string());
    html! {
        tr {
            th scope="row" { a href=(query.function_link(&one.function)) { (one.function.name) } }
            td data-label="When" { (instant(one.planned_at_us)) }
            td data-label="From, to" { (unbroken(&format!("{} → {}", one.from, one.to))) }
            td data-label="State" { span.badge { (one.state.code()) } span.sub { (one.reason) } }
            td.number data-label="Invocations" { (entry.map_or_else(|| "–".to_owned(), |entry| count(entry.invocations))) }
            td.number data-label="Predicted savings" { (money(entry.and_then(|entry| entry.predicted_pico_usd))) }
            td.number data-label="Measured savings" { (money(entry.and_then(|entry| entry.realised_pico_usd))) }
        }
    }
}

fn month_at_this_rate(dollars: f64) -> String {
    if dollars >= 100.0 { format!("${dollars:.0} a month") } else { format!("${dollars:.2} a month") }
}
