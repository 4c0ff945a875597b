//! The reports of functions, for people and for programs.

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};

use serde::Serialize;

use tailor_sizing::advice::CurvePoint;
use tailor_sizing::advice::hints::Hint;

use super::columns::{self, FLEET, Style, money};
use super::csv;
use super::initializations::initializations;
use super::output::{Output, Rows};
use super::units::{change, count, counted, duration, duration_of, exactly, instant, kilobytes, shorten};
use crate::changes::{Change, State};
use crate::profiles::Profile;
use crate::query::TableStyle;
use crate::report::{FleetGroup, FleetReport, FunctionReport, hint_code};

/// The legend below the table.
const LEGEND: &str = "MB and PEAK: memory size and highest memory in use, MB. BUSY, STRV, IDLE: busy, starved and idle wall time, %.\n\
                      → MB: recommended size; ±COST, ±TIME: predicted change of cost and mean duration.\n";

/// Narrowest name column.
const MIN_NAME: usize = 12;

impl Output for FleetReport {
    fn value(&self) -> impl Serialize {
        for_list(self)
    }

    fn table(&self, style: TableStyle) -> String {
        fleet_table(self, style)
    }

    fn markdown(&self) -> Rows {
        Rows::new(&columns::titles(), self.functions.iter().map(columns::cells))
    }

    fn csv(&self) -> Rows {
        csv::functions(&self.functions)
    }
}

/// Nine tenths of a fleet's JSON would be curves, and the hints would be there twice. The report of each function has both.
fn for_list(report: &FleetReport) -> FleetReport {
    let mut report = report.clone();
    for advice in report.functions.iter_mut().map(|function| &mut function.advice) {
        let of_verdict = advice.verdict_reasons().len();
        advice.reasons.truncate(of_verdict);
        if let Some(full) = &mut advice.full {
            full.curve.clear();
        }
    }
    report
}

/// The reports of the functions of one name, which several accounts and regions can have, in one document: as JSON an
/// object for one function and an array for several.
pub struct FunctionsOfOneName<'a>(pub &'a [FunctionReport]);

/// One object, or an array.
#[derive(Serialize)]
#[serde(untagged)]
enum OneOrMore<'a, T> {
    One(&'a T),
    More(&'a [T]),
}

/// One item as itself, and several as an array.
pub(super) const fn one_or_more<T: Serialize>(items: &[T]) -> impl Serialize {
    match items {
        [one] => OneOrMore::One(one),
        more => OneOrMore::More(more),
    }
}

impl Output for FunctionsOfOneName<'_> {
    fn value(&self) -> impl Serialize {
        one_or_more(self.0)
    }

    fn table(&self, style: TableStyle) -> String {
        self.0.iter().map(|report| function_table(report, style)).collect()
    }

    fn markdown(&self) -> Rows {
        Rows::new(&CURVE_HEADER, self.0.iter().flat_map(curve_rows))
    }

    fn csv(&self) -> Rows {
        csv::functions(self.0)
    }
}

const CURVE_HEADER: [&str; 6] = ["MEMORY", "", "MEAN", "80 %", "P95", "$/MLN"];

/// The prediction at each size.
fn curve_rows(report: &FunctionReport) -> Vec<[String; 6]> {
    let points = report.advice.full.as_ref().map_or(&[][..], |advice| &advice.curve);
    let row = |point: &CurvePoint| -> [String; 6] {
        let marks = [
            (point.memory == report.memory, "now"),
            (point.memory == report.advice.memory && report.advice.is_change(), "recommended"),
            (point.observed, "measured"),
        ];
        let marks = marks.into_iter().filter(|(applies, _)| *applies).map(|(_, mark)| mark.to_owned());
        let experiments = report.other_recommendations.iter().flat_map(|other| &other.sizes);
        let experiments = experiments.filter(|size| size.memory == point.memory);
        let in_experiment =
            experiments.map(|size| format!("{} in an experiment", duration(size.duration_ms)));
        let marks: Vec<String> = marks.chain(in_experiment).collect();
        let [low, high] = point.mean.interval_80;
        [
            point.memory.to_string(),
            marks.join(", "),
            duration(point.mean.mean_ms),
            format!("{} to {}", duration(low), duration(high)),
            duration(point.p95.mean_ms),
            money(Some(point.cost_per_million)),
        ]
    };
    points.iter().map(row).collect()
}

fn function_table(report: &FunctionReport, style: TableStyle) -> String {
    let mut table = plain_table(&CURVE_HEADER, style);
    for row in curve_rows(report) {
        table.add_row(row);
    }
    let from_to = if report.advice.is_change() {
        format!("{} → {}", report.memory, report.advice.memory)
    } else {
        format!("stays at {}", report.memory)
    };
    let expected = if report.advice.is_change() {
        format!(
            ", cost {}, duration {}",
            self::change(report.advice.cost_change_percent),
            self::change(report.advice.duration_change_percent)
        )
    } else {
        String::new()
    };
    let name = shorten(&report.name, style.width);
    format!("{name}: {from_to}{expected}\n{}\n{}", lines_about(in_full(report), style), lines(&table))
}

fn fleet_table(report: &FleetReport, style: TableStyle) -> String {
    if report.functions.is_empty() {
        return match report.summaries {
            // A collector computes them in the background.
            Some(_) => "no function is in the list: none matches the filters, or the list is not computed yet\n",
            None => {
                "no function was invoked in the window, or none matches the filters. --since names an earlier start of the window. To measure a function: add the layer, set TAILOR_ENDPOINT and invoke it\n"
            }
        }
        .to_owned();
    }
    let mut rows: Vec<Vec<String>> = report.functions.iter().map(columns::cells).collect();
    let widths = (1..FLEET.len()).map(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([FLEET[column].title.len()])
            .max()
            .unwrap_or(0)
    });
    // One space follows each column.
    let others: usize = widths.map(|width| width + 1).sum();
    let name_width = style.width.saturating_sub(others + 1).max(MIN_NAME);
    for row in &mut rows {
        row[0] = shorten(&row[0], name_width);
    }
    let mut table = plain_table(&columns::titles(), style);
    for (row, function) in rows.into_iter().zip(&report.functions) {
        table.add_row(
            row.into_iter()
                .zip(FLEET)
                .map(|(text, column)| paint(text, column.is_text, (column.style)(function), style)),
        );
    }
    let mut text = lines(&table) + LEGEND;
    let total = &report.total;
    text.push_str(&format!(
        "\n{}, {}, {}, {}; billed {}, {}\nPotential savings: {}. Extra cost for speed: {}.\n",
        exactly(report.matching_functions, "function"),
        counted(total.invocations, "invocation"),
        counted(total.errors, "error"),
        counted(total.cold_starts, "cold start"),
        duration_of(total.billed_ms),
        total.cost_pico_usd,
        total.saving_pico_usd,
        total.spending_pico_usd,
    ));
    text.push_str(&list_notes(report));
    if let Some(groups) = &report.groups {
        text.push_str(&group_table(groups, style));
    }
    for function in &report.functions {
        let details = lines_about(brief(function), style);
        if !details.is_empty() {
            text.push_str(&format!("\n{}\n{details}", shorten(&function.name, style.width)));
        }
    }
    text.push_str(
        "\n`tailor function NAME` shows what to do, and the cost and duration at each memory size.\n",
    );
    text
}

/// What is known only in part of a list: its page, the age of its summaries, and damage.
fn list_notes(report: &FleetReport) -> String {
    let mut text = String::new();
    if let Some(next) = &report.next {
        text.push_str(&format!("Shown: {}. The next ones: --cursor {next}\n", report.functions.len()));
    }
    if let Some(summaries) = &report.summaries {
        text.push_str(&format!(
            "Order and sums are of {} hours with the strategy {}; the oldest summary is of {}.\n",
            summaries.hours,
            summaries.strategy,
            instant(summaries.oldest_at_us)
        ));
    }
    if report.damage.rows > 0 {
        let first = report.damage.named.first().map_or("", String::as_str);
        text.push_str(&format!(
            "The store has damaged rows, which are left out: {}. The first: {}. `tailor check` lists them.\n",
            report.damage.rows,
            shorten(first, 200)
        ));
    }
    text
}

fn group_table(groups: &[FleetGroup], style: TableStyle) -> String {
    const HEADER: [&str; 6] = ["GROUP", "FUNCTIONS", "CALLS", "ERR", "COST $", "SAVING $"];
    let mut table = plain_table(&HEADER, style);
    for FleetGroup { value, functions, total } in groups {
        let value = if value.is_empty() { "unknown".to_owned() } else { shorten(value, 40) };
        table.add_row([
            value,
            functions.to_string(),
            count(total.invocations),
            count(total.errors),
            money(Some(total.cost_pico_usd)),
            money(Some(total.saving_pico_usd)),
        ]);
    }
    format!("\n{}", lines(&table))
}

/// A cell of the table. Colour only repeats what the text contains.
fn paint(text: String, is_text: bool, style: Style, table: TableStyle) -> Cell {
    let cell = Cell::new(text);
    let cell = if is_text { cell } else { cell.set_alignment(CellAlignment::Right) };
    match style {
        Style::Bad if table.colour => cell.fg(Color::Red),
        Style::Good if table.colour => cell.fg(Color::Green),
        _ => cell,
    }
}

type Remark = (&'static str, String);

/// Everything about a function that does not fit a row.
fn in_full(report: &FunctionReport) -> Vec<Remark> {
    let reasons = report.advice.reasons.iter().map(|reason| ("advice", reason.clone()));
    let trade = report.advice.full.iter().map(|full| ("advice", full.trade.clone()));
    let init = initializations(report.initializations).map(|line| ("init", line));
    let trial = report.advice.full.iter().filter_map(|full| Some(("trial", full.trial?.sentence())));
    let others = report.other_recommendations.iter().map(|other| ("others", other.sentence()));
    let profiles = report.profiles.iter().flatten().map(|profile| ("profile", profile_line(profile)));
    reasons
        .chain(trade)
        .chain(trial)
        .chain(others)
        .chain(init)
        .chain(profiles)
        .chain(remarks(report))
        .collect()
}

fn profile_line(profile: &Profile) -> String {
    let of =
        profile.request_id.as_ref().map_or_else(|| "of Init".to_owned(), |id| format!("of request {id}"));
    let (name, format, size) = (&profile.name, &profile.format, kilobytes(profile.bytes));
    format!("{}: {name} ({format}, {size}) {of}: {}", instant(profile.completed_at_us), profile.download)
}

/// The same with the first hints only, and without what to do: that is in the advice on the function.
fn brief(report: &FunctionReport) -> Vec<Remark> {
    const HINTS: usize = 2;
    let Some(advice) = &report.advice.full else { return in_full(report) };
    let reasons = report.advice.verdict_reasons().iter();
    let mut lines: Vec<Remark> = reasons.map(|reason| ("advice", reason.clone())).collect();
    let code = |hint: &Hint| hint_code(hint.code);
    let first = advice.hints.iter().take(HINTS);
    lines.extend(first.map(|hint| ("why", format!("{}: {}", code(hint), hint.evidence))));
    let others: Vec<String> = advice.hints.iter().skip(HINTS).map(code).collect();
    if !others.is_empty() {
        lines.push(("also", others.join(", ")));
    }
    // That cold starts wait for an Init is the usual case.
    let counts = report.initializations;
    let init = initializations(counts).filter(|_| counts.total() > counts.on_demand);
    lines.extend(init.map(|line| ("init", line)));
    lines.extend(remarks(report));
    lines
}

/// What is known only in part, and what was changed.
fn remarks(report: &FunctionReport) -> impl Iterator<Item = Remark> + '_ {
    let caveats = report.caveats.iter().map(|caveat| ("caveat", caveat.clone()));
    caveats.chain(report.changes.iter().map(|change| ("change", change_line(change))))
}

fn lines_about(remarks: Vec<Remark>, style: TableStyle) -> String {
    let mut text = String::new();
    for (kind, sentence) in remarks {
        for (index, line) in wrap(&sentence, style.width.saturating_sub(11)).iter().enumerate() {
            let kind = if index == 0 { kind } else { "" };
            text.push_str(&format!("  {kind:<7}  {line}\n"));
        }
    }
    text
}

/// Breaks a text between words into lines of at most `width` characters; a longer word has its own line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in shorten(text, 2_000).split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A change in one line, predicted against measured.
#[must_use]
pub fn change_line(change: &Change) -> String {
    let head = format!("{} → {}, {}", change.from, change.to, change.state.code());
    if change.intent.before.warm == 0 || matches!(change.state, State::Planned | State::Blocked) {
        return format!("{head}: {}", change.reason);
    }
    let percent = |value: Option<f64>| value.map_or_else(|| "not yet".to_owned(), self::change);
    let after = change.after.filter(|after| after.warm > 0);
    format!(
        "{head}: mean {} measured before, {} predicted, {} measured after; cost predicted {}, measured {}",
        duration(change.intent.before.mean_ms),
        duration(change.predicted_mean_ms()),
        after.map_or_else(|| "nothing".to_owned(), |after| duration(after.mean_ms)),
        self::change(change.intent.cost_change_percent),
        percent(change.measured_cost_change_percent()),
    )
}

pub(crate) fn plain_table(header: &[&str], style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if style.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().enumerate().map(|(column, name)| {
        let cell = Cell::new(name);
        let cell = if column == 0 { cell } else { cell.set_alignment(CellAlignment::Right) };
        if style.colour { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    table
}

pub(crate) fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
