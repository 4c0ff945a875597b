//! Bills as text: a table for people, Markdown, CSV, and JSON for programs.

use serde::Serialize;

use tailor_sizing::pricing::full_bill::{BillLine, LineStatus};
use tailor_sizing::pricing::meters::Meter;
use tailor_sizing::pricing::money::PicoDollars;

use super::output::{Field, Output, Rows, write};
use super::table::{lines, plain_table};
use super::units::{count, counted, instant, shorten};
use crate::query::{Format, TableStyle};
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

/// The bill of one function, written in `format`.
#[must_use]
pub fn function(report: &BillReport, format: Format, style: TableStyle) -> String {
    write(report, format, style)
}

/// The bill of many functions, written in `format`.
#[must_use]
pub fn fleet(bill: &FleetBill, format: Format, style: TableStyle) -> String {
    write(bill, format, style)
}

impl Output for BillReport {
    fn value(&self) -> impl Serialize {
        self
    }

    fn table(&self, style: TableStyle) -> String {
        let mut table = plain_table(&HEADER, style);
        for line in &self.bill.lines {
            table.add_row(row(line));
        }
        let heading = format!(
            "{} in {}: {} in {} h from {}\n\n",
            shorten(&self.name, 60),
            self.region,
            counted(self.invocations, "invocation"),
            self.hours,
            instant(self.from_us)
        );
        heading + &lines(&table) + "\n" + &notes(self)
    }

    fn markdown(&self) -> Rows {
        Rows::new(&HEADER, self.bill.lines.iter().map(row))
    }

    fn csv(&self) -> Rows {
        Rows::new(&CSV_HEADER, self.bill.lines.iter().map(|line| csv_row(self, line)))
    }
}

const METERS: [&str; 5] = ["METER", "QUANTITY", "UNIT", "COST", "FUNCTIONS WITHOUT"];

impl Output for FleetBill {
    fn value(&self) -> impl Serialize {
        self
    }

    fn table(&self, style: TableStyle) -> String {
        if self.functions.is_empty() {
            return "no invocations in this window\n".to_owned();
        }
        let mut meters = plain_table(&METERS, style);
        for sum in &self.meters {
            meters.add_row(meter_row(sum));
        }
        let mut functions = plain_table(&["FUNCTION", "REGION", "COST", "NOT KNOWN"], style);
        for function in self.functions.iter().take(SHOWN_FUNCTIONS) {
            functions.add_row([
                shorten(&function.name, 40),
                function.region.clone(),
                function.total_pico_usd.to_string(),
                shorten(&names(&function.unknown), style.width.saturating_sub(70).max(20)),
            ]);
        }
        let mut text = format!("{}\n{}", lines(&meters), lines(&functions));
        let shown = self.functions.len().min(SHOWN_FUNCTIONS) as u64;
        if self.matching_functions > shown {
            text.push_str(&format!("and {} more functions\n", self.matching_functions - shown));
        }
        if let Some(at_us) = self.computed_at_us {
            text.push_str(&format!("\nFrom stored sums; the oldest is of {}.\n", instant(at_us)));
        }
        text.push_str(&format!(
            "\nTotal {}, of which {} assumed.\n",
            self.total_pico_usd, self.assumed_pico_usd
        ));
        for sentence in &self.assumptions {
            text.push_str(&format!("{sentence}\n"));
        }
        text
    }

    fn markdown(&self) -> Rows {
        Rows::new(&METERS, self.meters.iter().map(meter_row))
    }

    fn csv(&self) -> Rows {
        let header = ["name", "account", "region", "total_pico_usd", "assumed_pico_usd"];
        Rows::new(&header, self.functions.iter().map(function_row))
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

fn csv_row(report: &BillReport, line: &BillLine) -> [Field; 13] {
    let pico = |cost: Option<PicoDollars>| Field::number(cost.map(|cost| cost.0));
    [
        Field::from(&report.name),
        Field::from(&report.account),
        Field::from(&report.region),
        Field::from(line.meter.code()),
        Field::from(&line.part),
        Field::number(line.quantity),
        Field::from(line.unit),
        pico(line.unit_price_pico_usd),
        pico(line.cost_pico_usd),
        Field::from(status(line.status)),
        Field::from(&line.note),
        Field::from(&line.source),
        Field::from(&line.date),
    ]
}

fn function_row(function: &FunctionSum) -> [Field; 5] {
    [
        Field::from(&function.name),
        Field::from(&function.account),
        Field::from(&function.region),
        Field::from(function.total_pico_usd.0),
        Field::from(function.assumed_pico_usd.0),
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
