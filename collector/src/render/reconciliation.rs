//! A reconciliation as text.

use tailor_billing::compare::Status;
use tailor_sizing::pricing::money::PicoDollars;

use super::csv::csv;
use super::json::json;
use super::markdown::markdown;
use super::output::{Field, Rows, yaml};
use super::table::{lines, plain_table};
use super::text::visible;
use super::units::{count, shorten};
use crate::query::{Format, TableStyle};
use crate::reconcile::{Reconciliation, RowReport};

/// Rows that a table shows.
const MAX_SHOWN: usize = 20;

/// Longest function name in a table, characters.
const NAME_WIDTH: usize = 34;

const ROW_HEADER: [&str; 7] = ["FUNCTION", "FROM", "METER", "BILLED", "COMPUTED", "DIFFERENCE", "STATUS"];

const CSV_HEADER: [&str; 14] = [
    "function",
    "account",
    "region",
    "from",
    "hours",
    "meter",
    "billed_quantity",
    "measured_quantity",
    "billed_pico_usd",
    "computed_pico_usd",
    "difference_pico_usd",
    "unexplained_pico_usd",
    "status",
    "reasons",
];

/// A reconciliation, written in `format`.
#[must_use]
pub fn reconciliation(result: &Reconciliation, format: Format, style: TableStyle) -> String {
    match format {
        Format::Json => json(result, style),
        Format::Yaml => yaml(result),
        Format::Csv => csv(&csv_rows(result)),
        Format::Table => text(result, |header, rows| aligned(header, rows, style)),
        Format::Markdown => text(result, |header, rows| markdown(&Rows::new(header, rows))),
    }
}

fn csv_rows(result: &Reconciliation) -> Rows {
    let fields = |row: &RowReport| -> Vec<Field> {
        vec![
            Field::from(&row.function),
            Field::from(&row.account),
            Field::from(&row.region),
            Field::from(&row.from),
            Field::number(Some(row.hours)),
            Field::from(&row.meter),
            Field::number(Some(row.billed_quantity)),
            Field::number(row.measured_quantity),
            Field::from(row.billed_pico_usd.0),
            Field::from(row.computed_pico_usd.0),
            Field::from(row.difference_pico_usd.0),
            Field::from(row.unexplained_pico_usd.0),
            Field::from(row.status.code()),
            Field::from(reasons(row)),
        ]
    };
    Rows::new(&CSV_HEADER, result.rows.iter().map(fields))
}

/// A table with aligned columns.
fn aligned(header: &[&str], rows: Vec<Vec<String>>, style: TableStyle) -> String {
    let mut table = plain_table(header, style);
    for row in rows {
        table.add_row(row);
    }
    lines(&table)
}

/// The reasons of a row with their parts of the difference.
fn reasons(row: &RowReport) -> String {
    let reason = |reason: &tailor_billing::compare::Reason| {
        let detail = if reason.detail.is_empty() { String::new() } else { format!(" ({})", reason.detail) };
        format!("{} {}{detail}", reason.code.code(), reason.amount)
    };
    row.reasons.iter().map(reason).collect::<Vec<_>>().join("; ")
}

fn text(result: &Reconciliation, table: impl Fn(&[&'static str], Vec<Vec<String>>) -> String) -> String {
    let mut text = header(result);
    if result.row_count == 0 {
        text.push_str("No usage of a Lambda function is in these files.\n");
        text.push_str(&rest(result));
        return text;
    }
    let rows = result.by_status.iter().map(|total| {
        vec![
            total.status.code().to_owned(),
            count(total.rows),
            total.total.billed_pico_usd.to_string(),
            total.total.computed_pico_usd.to_string(),
            total.total.difference_pico_usd.to_string(),
            total.total.unexplained_pico_usd.to_string(),
        ]
    });
    let titles = ["STATUS", "ROWS", "BILLED", "COMPUTED", "DIFFERENCE", "UNEXPLAINED"];
    text.push_str(&table(&titles, rows.collect()));
    if !result.reasons.is_empty() {
        text.push('\n');
        let rows = result.reasons.iter().map(|reason| {
            vec![
                reason.code.code().to_owned(),
                count(reason.rows),
                reason.amount_pico_usd.to_string(),
                reason.meaning.clone(),
            ]
        });
        text.push_str(&table(&["REASON", "ROWS", "AMOUNT", "MEANING"], rows.collect()));
    }
    let differing = result.differing_rows();
    if !differing.is_empty() {
        text.push('\n');
        let shown = &differing[..differing.len().min(MAX_SHOWN)];
        text.push_str(&table(&ROW_HEADER, shown.iter().map(|row| cells(row)).collect()));
        text.push('\n');
        for (row, reasons) in shown.iter().map(|row| (row, reasons(row))).filter(|(_, text)| !text.is_empty())
        {
            text.push_str(&format!("{} {} {}: {reasons}\n", visible(&row.function), row.from, row.meter));
        }
        let differing_count = result.row_count - result.rows_with(Status::Equal);
        let more = differing_count.saturating_sub(MAX_SHOWN as u64);
        if more > 0 {
            text.push_str(&format!("{} more rows differ: --format csv or json shows all\n", count(more)));
        }
    }
    text.push_str(&rest(result));
    text
}

fn header(result: &Reconciliation) -> String {
    let sentence = if result.row_count > 0 { result.sentence() + "\n" } else { String::new() };
    let mut text = sentence;
    text.push_str(&format!(
        "{} rows in {} files ({}), {} of Lambda; prices of {}\n\n",
        count(result.rows_read),
        result.files,
        if result.formats.is_empty() { "no known format".to_owned() } else { result.formats.join(", ") },
        count(result.lambda_rows),
        result.prices_of
    ));
    text
}

fn rest(result: &Reconciliation) -> String {
    let mut lines = vec![];
    if result.repeated_rows > 0 {
        lines.push(format!("rows that several files have, counted once: {}", count(result.repeated_rows)));
    }
    for rest in &result.not_compared {
        lines.push(format!(
            "not compared: {}: {} rows, {}",
            rest.what,
            count(rest.rows),
            rest.billed_pico_usd
        ));
    }
    for problem in &result.problems {
        lines.push(format!("{}: {}, such as {}", problem.what, count(problem.count), problem.example));
    }
    if lines.is_empty() { String::new() } else { format!("\n{}\n", lines.join("\n")) }
}

fn cells(row: &RowReport) -> Vec<String> {
    let signed = |amount: PicoDollars| {
        if amount > PicoDollars::ZERO { format!("+{amount}") } else { amount.to_string() }
    };
    vec![
        shorten(&row.function, NAME_WIDTH),
        row.from.clone(),
        row.meter.clone(),
        row.billed_pico_usd.to_string(),
        row.computed_pico_usd.to_string(),
        signed(row.difference_pico_usd),
        row.status.code().to_owned(),
    ]
}
