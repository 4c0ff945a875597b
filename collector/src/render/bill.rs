//! Bills as text: a table for people, Markdown, CSV, and JSON for programs.

use tailor_sizing::pricing::full_bill::{BillLine, LineStatus};
use tailor_sizing::pricing::meters::Meter;
use tailor_sizing::pricing::money::PicoDollars;

use super::csv::write;
use super::json::json;
use super::markdown::markdown;
use super::table::{lines, plain_table};
use super::text::csv_cell;
use super::units::{count, instant, shorten};
use crate::query::{Format, Look};
use crate::report::bill::{BillReport, FleetBill, FunctionSum, MeterSum};
use crate::report::hint_code;

const HEADER: [&str; 7] = ["METER", "PART", "QUANTITY", "UNIT", "PRICE", "COST", "STATUS"];

const CSV_HEADER: [&str; 13] = [
    "name",
    "account",
    "region",
    "meter",
    "part",
    "quantity",
    "unit",
    "unit_price_pico_usd",
    "cost_pico_usd",
    "status",
    "note",
    "source",
    "date",
];

/// Functions in the table of a fleet.
const SHOWN_FUNCTIONS: usize = 20;

/// The bill of one function, written as `format` asks.
#[must_use]
pub fn function(report: &BillReport, format: Format, look: Look) -> String {
    let all = &report.bill.lines;
    match format {
        Format::Json => json(report, look),
        Format::Csv => write(&CSV_HEADER, all.iter().map(|line| csv_row(report, line))),
        Format::Markdown => markdown(&HEADER, all.iter().map(|line| row(line).to_vec())),
        Format::Table => {
            let mut table = plain_table(&HEADER, look);
            for line in all {
                table.add_row(row(line));
            }
            let heading = format!(
                "{} in {}: {} invocations in {} h from {}\n\n",
                shorten(&report.name, 60),
                report.region,
                count(report.invocations),
                report.hours,
                instant(report.from_us)
            );
            heading + &lines(&table) + "\n" + &notes(report)
        }
    }
}

/// The bill of many functions, written as `format` asks.
#[must_use]
pub fn fleet(bill: &FleetBill, format: Format, look: Look) -> String {
    const METERS: [&str; 5] = ["METER", "QUANTITY", "UNIT", "COST", "FUNCTIONS WITHOUT"];
    const FUNCTIONS: [&str; 5] = ["name", "account", "region", "total_pico_usd", "assumed_pico_usd"];
    match format {
        Format::Json => json(bill, look),
        Format::Csv => write(&FUNCTIONS, bill.functions.iter().map(function_row)),
        Format::Markdown => markdown(&METERS, bill.meters.iter().map(|sum| meter_row(sum).to_vec())),
        Format::Table if bill.functions.is_empty() => "no invocations in this window\n".to_owned(),
        Format::Table => {
            let mut meters = plain_table(&METERS, look);
            for sum in &bill.meters {
                meters.add_row(meter_row(sum));
            }
            let mut functions = plain_table(&["FUNCTION", "REGION", "COST", "NOT KNOWN"], look);
            for function in bill.functions.iter().take(SHOWN_FUNCTIONS) {
                functions.add_row([
                    shorten(&function.name, 40),
                    function.region.clone(),
                    function.total_pico_usd.to_string(),
                    shorten(&names(&function.unknown), look.width.saturating_sub(70).max(20)),
                ]);
            }
            let mut text = format!("{}\n{}", lines(&meters), lines(&functions));
            if bill.functions.len() > SHOWN_FUNCTIONS {
                text.push_str(&format!("and {} more functions\n", bill.functions.len() - SHOWN_FUNCTIONS));
            }
            text.push_str(&format!(
                "\nTotal {}, of which {} assumed.\n",
                bill.total_pico_usd, bill.assumed_pico_usd
            ));
            for sentence in &bill.assumptions {
                text.push_str(&format!("{sentence}\n"));
            }
            text
        }
    }
}

/// The name of a status.
pub(crate) const fn status(status: LineStatus) -> &'static str {
    match status {
        LineStatus::Known => "known",
        LineStatus::Assumed => "assumed",
        LineStatus::Unknown => "unknown",
    }
}

/// A quantity with at most six significant decimals.
pub(crate) fn quantity(quantity: Option<f64>) -> String {
    match quantity {
        None => "-".to_owned(),
        Some(value) if value.fract() == 0.0 || value >= 1_000.0 => format!("{value:.0}"),
        Some(value) if value >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.6}"),
    }
}

/// A price with all its digits.
pub(crate) fn price(price: Option<PicoDollars>) -> String {
    price.map_or_else(|| "-".to_owned(), |price| format!("${}", price.to_decimal()))
}

pub(crate) fn money(cost: Option<PicoDollars>) -> String {
    cost.map_or_else(|| "-".to_owned(), |cost| cost.to_string())
}

fn names(meters: &[Meter]) -> String {
    meters.iter().map(|meter| meter.code()).collect::<Vec<_>>().join(", ")
}

fn row(line: &BillLine) -> [String; 7] {
    [
        line.meter.code().to_owned(),
        line.part.clone(),
        quantity(line.quantity),
        line.unit.to_owned(),
        price(line.unit_price_pico_usd),
        money(line.cost_pico_usd),
        status(line.status).to_owned(),
    ]
}

fn csv_row(report: &BillReport, line: &BillLine) -> Vec<String> {
    let pico = |cost: Option<PicoDollars>| cost.map(|cost| cost.0.to_string()).unwrap_or_default();
    vec![
        csv_cell(&report.name),
        csv_cell(&report.account),
        csv_cell(&report.region),
        line.meter.code().to_owned(),
        line.part.clone(),
        line.quantity.map(|quantity| quantity.to_string()).unwrap_or_default(),
        line.unit.to_owned(),
        pico(line.unit_price_pico_usd),
        pico(line.cost_pico_usd),
        status(line.status).to_owned(),
        line.note.clone(),
        line.source.clone(),
        line.date.clone(),
    ]
}

fn function_row(function: &FunctionSum) -> Vec<String> {
    vec![
        csv_cell(&function.name),
        csv_cell(&function.account),
        csv_cell(&function.region),
        function.total_pico_usd.0.to_string(),
        function.assumed_pico_usd.0.to_string(),
    ]
}

fn meter_row(sum: &MeterSum) -> [String; 5] {
    [
        sum.meter.code().to_owned(),
        quantity(sum.quantity),
        sum.unit.to_owned(),
        money(sum.cost_pico_usd),
        if sum.unknown_functions > 0 { count(sum.unknown_functions) } else { String::new() },
    ]
}

/// The sums, what is assumed and missing, the sources of the prices, and the hints.
fn notes(report: &BillReport) -> String {
    let bill = &report.bill;
    let mut text = format!("Total {}, of which {} assumed.\n", bill.total_pico_usd, bill.assumed_pico_usd);
    for sentence in &bill.assumptions {
        text.push_str(&format!("{sentence}\n"));
    }
    for line in bill.lines.iter().filter(|line| !line.note.is_empty()) {
        text.push_str(&format!("{} ({}): {}\n", line.meter, status(line.status), line.note));
    }
    let mut sources: Vec<String> = bill
        .lines
        .iter()
        .filter(|line| !line.source.is_empty())
        .map(|line| format!("{} of {}", line.source, line.date))
        .collect();
    sources.sort_unstable();
    sources.dedup();
    text.push_str(&format!("Prices: {}.\n", sources.join("; ")));
    for hint in &report.hints {
        let saving =
            hint.saving_per_million.map_or_else(String::new, |saving| format!(" ({saving} per million)"));
        text.push_str(&format!("\n{}: {}; {}{saving}\n", hint_code(hint.code), hint.evidence, hint.action));
    }
    text
}
