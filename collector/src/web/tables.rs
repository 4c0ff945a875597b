//! The tables of a function's page: its sizes, its changes, its latest invocations.

use maud::{Markup, html};

use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::telemetry::invocation::{Initialization, Outcome};
use tailor_sizing::units::Megabytes;

use super::layout::unbroken;
use crate::api::InvocationReport;
use crate::changes::Change;
use crate::render::units::{change, count, duration, duration_of, instant};
use crate::report::FunctionReport;

pub(super) fn sizes(report: &FunctionReport) -> Markup {
    let predicted = |memory: Megabytes| {
        let curve = report.advice.full.as_ref().map_or(&[][..], |advice| &advice.curve);
        let point = curve.iter().find(|point| point.memory == memory);
        point.map_or_else(|| "–".to_owned(), |point| duration(point.mean.mean_ms))
    };
    let money = |cost: Option<PicoDollars>| cost.map_or_else(|| "–".to_owned(), |cost| cost.to_string());
    html! {
        section.card {
            h2 { "Measured at each size" }
            div.scroll {
                table {
                    thead { tr {
                        th scope="col" { "Memory" }
                        @for name in ["Calls", "Errors", "Warm mean", "p95", "Model", "per million", "Peak"] {
                            th.number scope="col" { (name) }
                        }
                        th.number scope="col" { "Latest" }
                    } }
                    tbody {
                        @for size in &report.sizes {
                            tr {
                                th scope="row" { (unbroken(&size.memory.to_string())) }
                                td.number data-label="Calls" { (count(size.invocations)) }
                                td.number.bad[size.errors > 0] data-label="Errors" { (count(size.errors)) }
                                td.number data-label="Warm mean" { (unbroken(&duration(size.warm_mean_ms))) }
                                td.number data-label="p95" { (unbroken(&duration(size.warm_duration_ms.p95))) }
                                td.number data-label="Model" { (unbroken(&predicted(size.memory))) }
                                td.number data-label="per million" { (money(size.cost_per_million_pico_usd)) }
                                td.number data-label="Peak" {
                                    @if size.peak_memory_mb > 0 { (size.peak_memory_mb) " MB" } @else { "–" }
                                }
                                td.number data-label="Latest" { (instant(size.last_at_us)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn changes(changes: &[Change]) -> Markup {
    let percent = |value: Option<f64>| value.map_or_else(|| "not yet".to_owned(), change);
    html! {
        @if !changes.is_empty() {
            section.card {
                h2 { "Changes" }
                div.scroll {
                    table {
                        thead { tr {
                            @for name in ["When", "From, to", "State"] { th scope="col" { (name) } }
                            @for name in ["Mean before", "predicted", "measured", "Cost predicted", "measured"] {
                                th.number scope="col" { (name) }
                            }
                        } }
                        tbody {
                            @for one in changes {
                                @let before = one.intent.before.mean_ms;
                                @let after = one.after.filter(|after| after.warm > 0).map(|after| duration(after.mean_ms));
                                @let cost = one.intent.cost_change_percent;
                                tr {
                                    th scope="row" { (instant(one.planned_at_us)) }
                                    td data-label="From, to" { (unbroken(&format!("{} → {}", one.from, one.to))) }
                                    td data-label="State" {
                                        span.badge { (one.state.code()) }
                                        @for step in &one.steps {
                                            span.sub {
                                                (instant(step.at_us)) " " (step.state.code()) ": " (step.reason)
                                            }
                                        }
                                    }
                                    td.number data-label="Mean before" { (unbroken(&duration(before))) }
                                    td.number data-label="predicted" { (unbroken(&duration(one.predicted_mean_ms()))) }
                                    td.number data-label="measured" { (unbroken(after.as_deref().unwrap_or("not yet"))) }
                                    td.number data-label="Cost predicted" { (unbroken(&change(cost))) }
                                    td.number data-label="measured" {
                                        (unbroken(&percent(one.measured_cost_change_percent())))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn invocations(recent: &[InvocationReport]) -> Markup {
    let measured = |ms: Option<f64>| ms.map_or_else(|| "–".to_owned(), duration);
    html! {
        @if !recent.is_empty() {
            section.card {
                h2 { "Latest invocations" }
                div.scroll {
                    table {
                        thead { tr {
                            th scope="col" { "Began" } th scope="col" { "Request" } th scope="col" { "Outcome" }
                            @for name in ["Memory", "Duration", "Init", "Billed", "Busy", "Starved", "Idle", "Peak"] {
                                th.number scope="col" { (name) }
                            }
                        } }
                        tbody {
                            @for one in recent {
                                tr {
                                    th scope="row" { (instant(one.started_at_us)) }
                                    td data-label="Request" {
                                        code title=(one.request_id) { (one.request_id.get(..8).unwrap_or_default()) }
                                    }
                                    td data-label="Outcome" { (outcome(one)) }
                                    td.number data-label="Memory" { (unbroken(&one.memory.to_string())) }
                                    td.number data-label="Duration" { (unbroken(&duration(one.duration_ms))) }
                                    td.number data-label="Init" { (unbroken(&measured((one.init_ms > 0.0).then_some(one.init_ms)))) }
                                    td.number data-label="Billed" { (unbroken(&duration_of(one.billed_ms))) }
                                    td.number data-label="Busy" { (unbroken(&measured(one.busy_ms))) }
                                    td.number data-label="Starved" { (unbroken(&measured(one.starved_ms))) }
                                    td.number data-label="Idle" { (unbroken(&measured(one.idle_ms))) }
                                    td.number data-label="Peak" {
                                        @if one.peak_kib > 0 { (one.peak_kib.div_ceil(1_024)) " MB" } @else { "–" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn outcome(one: &InvocationReport) -> Markup {
    let (name, bad) = match one.outcome {
        Outcome::Success => ("ok", false),
        Outcome::Unknown => ("unknown", false),
        Outcome::Error => ("error", true),
        Outcome::Timeout => ("timeout", true),
        Outcome::OutOfMemory => ("out of memory", true),
    };
    html! {
        span.bad[bad] { (name) }
        @if one.cold_start { " " span.badge { "cold" } }
        @if !matches!(one.initialization, Initialization::Warm | Initialization::OnDemand) {
            " " span.badge { (one.initialization.as_str()) }
        }
    }
}
