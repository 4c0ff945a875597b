//! The last comparison of AWS's bill with the store, as one line of the fleet's page.

use maud::{Markup, html};

use crate::reconcile::Reconciliation;
use crate::render::units::instant;

/// The line.
pub(super) fn line(result: &Reconciliation) -> Markup {
    html! {
        p.note {
            "Bill: " (result.sentence()) ". Compared at " (instant(result.at_us)) " UTC."
            @if !result.reasons.is_empty() {
                " Reasons: "
                @for (index, reason) in result.reasons.iter().enumerate() {
                    @if index > 0 { ", " }
                    span title=(reason.meaning) { (reason.code.code()) " " (reason.amount_pico_usd) }
                }
                "."
            }
        }
    }
}
