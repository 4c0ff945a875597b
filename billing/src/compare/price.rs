//! Reasons of a difference of the price: what the bill itself shows.

use tailor_sizing::pricing::money::PicoDollars;

use super::usage::shown;
use super::{EQUAL_PARTS, Reason, ReasonCode, times};
use crate::bill::{Billed, Part};
use crate::decimal::{self, PICO};
use crate::meter::MeterKind;

/// Why the cost of the billed usage is not its quantity × `price`.
pub(super) fn reasons(billed: &Billed, price: PicoDollars, kind: MeterKind, prices_of: &str) -> Vec<Reason> {
    let unit = if kind == MeterKind::Requests { "requests" } else { "GB-seconds" };
    let mut reasons = vec![];
    let mut discount = billed.discount;
    for (part, sum) in &billed.parts {
        let at_price = times(sum.quantity_pico, price);
        let quantity = || format!("{} {unit}", shown(sum.quantity_pico));
        let (code, amount, detail) = match part {
            Part::Free => (ReasonCode::FreeTier, sum.cost - at_price, quantity()),
            Part::Covered => (ReasonCode::SavingsPlan, sum.cost - at_price, quantity()),
            Part::Provisioned => (ReasonCode::ProvisionedConcurrency, sum.list_cost - at_price, quantity()),
            Part::Tier(tier) if *tier > 1 => {
                (ReasonCode::VolumeTier, sum.list_cost - at_price, format!("{} in tier {tier}", quantity()))
            }
            Part::Tier(_) => {
                let shown = unit_price(sum.list_cost, sum.quantity_pico);
                let detail = format!(
                    "${shown} in the bill, ${} in the table of {prices_of}",
                    decimal::format(price.0)
                );
                (ReasonCode::OtherPrice, sum.list_cost - at_price, detail)
            }
        };
        if matches!(part, Part::Provisioned | Part::Tier(_)) {
            discount += sum.cost - sum.list_cost;
        }
        // A price of the first tier that differs by less is only rounded.
        if amount.0.abs() > (at_price.0.abs() / EQUAL_PARTS).max(rounding(billed)) {
            reasons.push(Reason::new(code, amount, detail));
        }
    }
    if discount.0.abs() > (billed.cost.0.abs() / EQUAL_PARTS).max(rounding(billed)) {
        reasons.push(Reason::new(ReasonCode::Discount, discount, percent(discount, billed)));
    }
    reasons
}

fn rounding(billed: &Billed) -> i128 {
    super::ROW_ROUNDING_PICO * i128::from(billed.rows)
}

fn unit_price(cost: PicoDollars, quantity_pico: i128) -> String {
    let quantity = quantity_pico.unsigned_abs();
    let price = cost.scaled(PICO.unsigned_abs(), quantity);
    // Ten decimals, as in AWS's price list.
    price.map_or_else(|| "?".to_owned(), |price| decimal::format((price.0 + 50) / 100 * 100))
}

/// The discount in percent of the cost before it.
fn percent(discount: PicoDollars, billed: &Billed) -> String {
    let before = (billed.cost - discount).to_dollars();
    if before > 0.0 { format!("{:.1} %", 100.0 * -discount.to_dollars() / before) } else { String::new() }
}
