//! The fleet page: the overview, then every function in one table, the one with most to save first.

use maud::{Markup, html};

use tailor_sizing::advice::Verdict;
use tailor_sizing::pricing::money::PicoDollars;

use super::layout::{choices, document, unbroken};
use super::{chart, list, overview, reconciliation};
use crate::query::{Query, SortKey};
use crate::reconcile::Reconciliation;
use crate::render::units::{change, count, duration, exactly};
use crate::report::overview::Overview;
use crate::report::{FleetReport, FunctionReport};

pub(super) fn render(
    report: &FleetReport,
    overview: Option<&Overview>,
    bill: Option<&Reconciliation>,
    query: &Query,
    tag_keys: &[&str],
) -> Markup {
    let is_empty = report.functions.is_empty();
    let body = html! {
        div.heading { h1 { "Fleet" } (choices(query)) }
        (list::damage(report))
        div id="overview" {
            @if let Some(overview) = overview.filter(|_| !is_empty) { (overview::render(overview, report, query)) }
            @if let Some(bill) = bill { (reconciliation::line(bill)) }
        }
        h2.list id="functions" { "Functions" }
        (list::filters(query, tag_keys))
        p.sub id="found" role="status" {
            (exactly(report.matching_functions, "function"))
        }
        div id="list" {
            (list::groups(report, query))
            @if is_empty && query.is_filtered() {
                section.card { p { "No function matches the filters." } }
            } @else if is_empty && report.summaries.is_some() {
                section.card {
                    h2 { "The list is being computed" }
                    p { "A list of more than 50 functions is computed in the background. It has its first functions within a "
                        "minute: reload the page." }
                }
            } @else if is_empty {
                section.card {
                    h2 { "No invocations yet" }
                    p { "Add the layer to a function, set " code { "TAILOR_ENDPOINT" } " to this address and "
                        code { "TAILOR_API_KEY" } " to a key, and invoke it. It appears here within a minute." }
                }
            } @else {
                (table(report, query))
                (list::pages(report, query))
                p.legend {
                    span.key.busy {} "busy " span.key.starved {} "starved " span.key.idle {} "idle"
                }
                p.sub { "Prices of " (report.prices_of) ". Extra cost for speed, if all advice is followed: "
                    (report.total.spending_pico_usd) "." }
            }
        }
    };
    document("Fleet", &body)
}

fn table(report: &FleetReport, query: &Query) -> Markup {
    let total = &report.total;
    html! {
        div.scroll {
            table.fleet {
                thead {
                    tr {
                        th scope="col" { (list::sort_link(query, "Function", SortKey::Name)) }
                        th.number scope="col" { (list::sort_link(query, "Memory", SortKey::Memory)) }
                        th.number scope="col" { (list::sort_link(query, "Calls", SortKey::Invocations)) }
                        th.number scope="col" { (list::sort_link(query, "Errors", SortKey::Errors)) }
                        th.number scope="col" { (list::sort_link(query, "Cold", SortKey::ColdStarts)) }
                        th.number scope="col" { "p50" }
                        th.number scope="col" { (list::sort_link(query, "p95", SortKey::P95)) }
                        th scope="col" { "Time" }
                        th.number scope="col" { "Peak" }
                        th.number scope="col" { (list::sort_link(query, "Cost", SortKey::Cost)) }
                        th.number scope="col" { "per million" }
                        th.number scope="col" { "Advice" }
                        th.number scope="col" { (list::sort_link(query, "Potential savings", SortKey::Saving)) }
                    }
                }
                tbody {
                    @for (index, function) in report.functions.iter().enumerate() { (row(index, function, query)) }
                }
                tfoot {
                    tr {
                        th scope="row" { "Total" }
                        td.number data-label="Memory" {}
                        td.number data-label="Calls" { (count(total.invocations)) }
                        td.number data-label="Errors" { (count(total.errors)) }
                        td.number data-label="Cold" { (count(total.cold_starts)) }
                        td {} td {} td {} td {}
                        td.number data-label="Cost" { (total.cost_pico_usd) }
                        td {} td {}
                        td.number.good data-label="Potential savings" { (total.saving_pico_usd) }
                    }
                }
            }
        }
    }
}

fn row(index: usize, function: &FunctionReport, query: &Query) -> Markup {
    let money =
        |amount: Option<PicoDollars>| amount.map_or_else(|| "–".to_owned(), |amount| amount.to_string());
    let peak = if function.peak_memory_mb > 0 {
        format!("{} MB", function.peak_memory_mb)
    } else {
        "–".to_owned()
    };
    html! {
        tr {
            th scope="row" {
                a href=(query.function_link(&function.key())) { (function.name) }
                span.sub {
                    (function.runtime) " " (function.architecture) " "
                    // Regions do not break at their hyphens.
                    (function.region.replace('-', "\u{2011}"))
                    @for (key, value) in &function.tags {
                        " " a.tag href=(query.list_link(&[("tag", Some(format!("{key}={value}")))])) { (key) "=" (value) }
                    }
                    @if !function.caveats.is_empty() {
                        " · " span.warn title=(function.caveats.join("; ")) {
                            (exactly(function.caveats.len() as u64, "caveat"))
                        }
                    }
                }
            }
            td.number data-label="Memory" { (unbroken(&function.memory.to_string())) }
            td.number data-label="Calls" { (count(function.invocations)) }
            td.number.bad[function.errors > 0] data-label="Errors" { (count(function.errors)) }
            td.number data-label="Cold" { (count(function.cold_starts)) }
            td.number data-label="p50" { (unbroken(&duration(function.duration_ms.p50))) }
            td.number data-label="p95" { (unbroken(&duration(function.duration_ms.p95))) }
            td.bar data-label="Time" {
                (split(function, index))
            }
            td.number data-label="Peak" { (unbroken(&peak)) }
            td.number data-label="Cost" { (money(function.cost_pico_usd)) }
            td.number data-label="per million" { (money(function.cost_per_million_pico_usd)) }
            td.number data-label="Advice" { (advice(function)) }
            td.number data-label="Potential savings" {
                @if function.saving() > PicoDollars::ZERO { span.good { (function.saving()) } } @else { "–" }
            }
        }
    }
}

fn advice(function: &FunctionReport) -> Markup {
    let advice = &function.advice;
    match advice.verdict() {
        Some(Verdict::Change | Verdict::RaiseForMemory) => html! {
            span.badge.move { "→ " (unbroken(&advice.memory.to_string())) }
            span.sub {
                "cost " (unbroken(&change(advice.cost_change_percent))) ", time "
                (unbroken(&change(advice.duration_change_percent)))
            }
        },
        Some(Verdict::AlreadyBest) => html! { span.badge.keep { "keep" } },
        Some(_) => html! { span.badge { "uncertain" } },
        None => html! { span.badge { "no price" } },
    }
}

/// Where its wall time goes, as a bar.
fn split(function: &FunctionReport, index: usize) -> Markup {
    let [busy_ms, starved_ms, idle_ms] = function.wall_split();
    chart::split(busy_ms, starved_ms, idle_ms, &format!("split-{index}"))
}
