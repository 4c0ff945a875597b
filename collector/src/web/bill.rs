//! The full bill on a function's page.

use maud::{Markup, html};

use tailor_sizing::pricing::full_bill::BillLine;

use crate::render::bill::{money, price, quantity, status};
use crate::render::units::share;
use crate::report::bill::BillReport;
use crate::report::hint_code;

/// What the function costs, by meter.
pub(super) fn bill(report: &BillReport) -> Markup {
    let bill = &report.bill;
    let part = |line: &BillLine| {
        let total = u64::try_from(bill.total_pico_usd.0).unwrap_or(u64::MAX);
        let cost = line.cost_pico_usd.filter(|_| total > 0);
        let cost = cost.map(|cost| u64::try_from(cost.0).unwrap_or(0));
        cost.map_or_else(String::new, |cost| format!("{} %", share(cost, total)))
    };
    html! {
        section.card {
            h2 { "Full bill" }
            p.sub {
                (bill.total_pico_usd.to_string()) " in " (report.hours) " h"
                @if bill.assumed_pico_usd.0 > 0 { ", of which " (bill.assumed_pico_usd.to_string()) " assumed" }
                ". Prices of " (report.prices_of) "."
            }
            div.scroll {
                table {
                    thead { tr {
                        th scope="col" { "Meter" }
                        @for name in ["Quantity", "Price", "Cost", "Part"] { th.number scope="col" { (name) } }
                        th scope="col" { "Status" }
                    } }
                    tbody {
                        @for line in &bill.lines {
                            tr {
                                th scope="row" {
                                    (line.meter.code())
                                    @if !line.part.is_empty() { span.sub { (line.part) } }
                                }
                                td.number data-label="Quantity" { (quantity(line.quantity)) " " (line.unit) }
                                td.number data-label="Price" { (price(line.unit_price_pico_usd)) }
                                td.number data-label="Cost" { (money(line.cost_pico_usd)) }
                                td.number data-label="Part" { (part(line)) }
                                td data-label="Status" {
                                    (status(line.status))
                                    @if !line.note.is_empty() { span.sub { (line.note) } }
                                }
                            }
                        }
                    }
                }
            }
            @for hint in &report.hints {
                p { strong { (hint_code(hint.code)) } ": " (hint.evidence) ". " (hint.action) "." }
            }
            @for sentence in &bill.assumptions { p.sub { (sentence) } }
        }
    }
}
