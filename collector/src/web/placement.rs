//! Where functions should run: a section of a function's page, and a page with the table of the fleet.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use super::layout::document;
use super::{Page, page};
use crate::http::App;
use crate::http::auth::PageReader;
use crate::http::error::ApiError;
use crate::query::Query;
use crate::render::placement::{limit, row, summary};
use crate::render::units::change;
use crate::report::placement::PlacementReport;
use crate::report::placement::fleet::{self, FleetPlacement, PlaceSum};

/// `GET /where`: the functions that may be cheaper in another place, those with the largest savings first.
pub async fn fleet(
    State(app): State<Arc<App>>,
    PageReader(tenant): PageReader,
    query: Result<Query, ApiError>,
) -> Result<Response, Page> {
    let query = query?;
    let list = crate::api::list(&query)?;
    let request = app.report_request(&tenant, &query)?;
    let report = fleet::fleet(&request, &list).await.map_err(ApiError::from)?;
    Ok(page(StatusCode::OK, &document("Where functions should run", &table(&report, &query))))
}

fn table(report: &FleetPlacement, query: &Query) -> Markup {
    html! {
        p.crumb { a href="/" { "Fleet" } }
        h1 { "Where functions should run" }
        p.sub {
            "The cost of a month where a function runs now, and in its best other place, from the measured load, CPU and memory of the last "
            (report.hours) " h. Prices of " (report.prices_of) "."
        }
        p { (summary(report)) }
        @if !report.functions.is_empty() {
            section.card {
                div.scroll {
                    table {
                        thead { tr {
                            th scope="col" { "Function" }
                            th.number scope="col" { "Now" }
                            th scope="col" { "Place" }
                            @for name in ["Month", "80 % interval", "Saves"] { th.number scope="col" { (name) } }
                            th scope="col" { "Verdict" }
                        } }
                        tbody { @for sum in &report.functions { (fleet_row(sum, query)) } }
                    }
                }
            }
        }
    }
}

fn fleet_row(sum: &PlaceSum, query: &Query) -> Markup {
    let Some(best) = &sum.best else { return html! {} };
    let [place, month, interval, _, verdict] = row(best);
    html! {
        tr {
            th scope="row" {
                a href={ (query.function_link(&sum.key())) "#places" } { (sum.name) }
                span.sub { (sum.region) }
            }
            td.number data-label="Now" {
                (sum.now.map_or_else(String::new, |month| month.expected_pico_usd.to_string()))
            }
            td data-label="Place" { (place) span.sub { (best.summary) } }
            td.number data-label="Month" { (month) }
            td.number data-label="80 % interval" { (interval) }
            td.number data-label="Saves" { (sum.saving_pico_usd.to_string()) }
            td data-label="Verdict" { (verdict) }
        }
    }
}

/// The places of one function, with their assumptions.
pub(super) fn places(report: &PlacementReport) -> Markup {
    html! {
        section.card id="places" {
            h2 { "Where it should run" }
            @if let Some(reason) = &report.reason { p { (reason) "." } }
            (settings(report))
            @if let Some(placement) = &report.placement {
                p.sub {
                    "The cost of a month of 730 hours, from " (placement.measured_hours) " measured hours. "
                    "Prices of " (report.prices_of) "."
                }
                div.scroll {
                    table {
                        thead { tr {
                            th scope="col" { "Place" }
                            @for name in ["Month", "80 % interval", "Change"] { th.number scope="col" { (name) } }
                            th scope="col" { "Verdict" }
                        } }
                        tbody {
                            @for place in &placement.places {
                                @let [_, month, interval, _, verdict] = row(place);
                                tr {
                                    th scope="row" { (place.place.code()) span.sub { (place.summary) } }
                                    td.number data-label="Month" { (month) }
                                    td.number data-label="80 % interval" { (interval) }
                                    td.number data-label="Change" { (place.change_percent.map_or_else(|| "–".to_owned(), change)) }
                                    td data-label="Verdict" { (verdict) }
                                }
                            }
                        }
                    }
                }
                details {
                    summary { "What is assumed" }
                    ul {
                        @for place in placement.places.iter() {
                            @for assumption in &place.assumptions { li { strong { (place.place.code()) } ": " (assumption) "." } }
                        }
                    }
                }
                @if let Some(plan) = &placement.managed {
                    p.sub {
                        "Settings for managed instances: " code { "ExecutionEnvironmentMemoryGiBPerVCpu" } " " (plan.gib_per_vcpu) ", "
                        code { "PerExecutionEnvironmentMaxConcurrency" } " " (plan.max_concurrency) ", memory "
                        (plan.capacity.environment_mb) " MB."
                    }
                }
                @for remark in &placement.remarks { p.sub { (remark) } }
            }
        }
    }
}

/// Settings for environments on managed instances.
fn settings(report: &PlacementReport) -> Markup {
    html! {
        @if let Some(settings) = &report.settings {
            @let [low, high] = settings.max_concurrency_interval;
            @let [few, many] = settings.gib_per_vcpu_interval;
            p {
                code { "ExecutionEnvironmentMemoryGiBPerVCpu" } " " strong { (settings.gib_per_vcpu) } " (" (few) " to " (many) "), "
                code { "PerExecutionEnvironmentMaxConcurrency" } " " strong { (settings.max_concurrency) } " (" (low) " to " (high)
                "), which " (limit(settings.limited_by)) " limits."
            }
            details {
                summary { "What is assumed for the settings" }
                ul { @for assumption in &settings.assumptions { li { (assumption) "." } } }
            }
        }
        @if let Some(reason) = &report.no_settings { p { "No settings: " (reason) "." } }
    }
}
