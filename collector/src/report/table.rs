//! Reports as text: a table for people, Markdown to paste, CSV and JSON for programs.

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};
use serde::{Deserialize, Serialize};

use tailor_sizing::advice::hints::Hint;
use tailor_sizing::advice::{CurvePoint, Verdict};
use tailor_sizing::pricing::money::PicoDollars;

use super::units::{change, count, duration, duration_of, hint_code, instant, share, shorten};
use super::{FleetReport, FunctionReport};
use crate::tuner::change::{Change, State};

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// Everything, for programs.
    Json,
    /// One line per function, for spreadsheets.
    Csv,
    /// The table in Markdown.
    Markdown,
}

/// How a table looks.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Whether the reader understands colours.
    pub colour: bool,
    /// Characters in a line.
    pub width: usize,
}

/// Characters in a line where nobody says.
pub const DEFAULT_WIDTH: usize = 120;

impl Default for Look {
    fn default() -> Self {
        Self { colour: false, width: DEFAULT_WIDTH }
    }
}

const HEADER: [&str; 17] = [
    "FUNCTION", "MB", "CALLS", "ERR", "COLD", "P50", "P95", "BILLED", "COST $", "$/MLN", "PEAK", "BUSY",
    "STRV", "IDLE", "→ MB", "±COST", "±TIME",
];

/// Below the table: what its short headings mean.
const LEGEND: &str = "MB and PEAK: memory size and most in use, MB. BUSY, STRV, IDLE: wall time running, wanting CPU and waiting, %.\n\
                      → MB: recommended size; ±COST, ±TIME: the change of cost and mean duration expected of it.\n";

/// Narrowest name column.
const MIN_NAME: usize = 12;

/// The fleet, written as `format` asks.
#[must_use]
pub fn fleet(report: &FleetReport, format: Format, look: Look) -> String {
    match format {
        Format::Table => fleet_table(report, look),
        Format::Markdown => markdown(&HEADER, report.functions.iter().map(cells)),
        Format::Csv => csv(&report.functions),
        Format::Json => json(&without_curves(report)),
    }
}

/// Nine tenths of a fleet's JSON would be curves; each function's own has its.
fn without_curves(report: &FleetReport) -> FleetReport {
    let mut report = report.clone();
    for advice in report.functions.iter_mut().filter_map(|function| function.advice.full.as_mut()) {
        advice.curve.clear();
    }
    report
}

/// One function, written as `format` asks.
#[must_use]
pub fn function(report: &FunctionReport, format: Format, look: Look) -> String {
    let header = ["MEMORY", "", "MEAN", "80 %", "P95", "$/MLN"];
    let points = report.advice.full.as_ref().map_or(&[][..], |advice| &advice.curve);
    let row = |point: &CurvePoint| -> [String; 6] {
        let marks = [
            (point.memory == report.memory, "now"),
            (point.memory == report.advice.memory && report.advice.is_change(), "recommended"),
            (point.observed, "measured"),
        ];
        let marks: Vec<_> = marks.into_iter().filter(|(applies, _)| *applies).map(|(_, mark)| mark).collect();
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
    match format {
        Format::Json => json(report),
        Format::Csv => csv(std::slice::from_ref(report)),
        Format::Markdown => markdown(&header, points.iter().map(row)),
        Format::Table => {
            let mut table = plain_table(&header, look);
            for point in points {
                table.add_row(row(point));
            }
            let from_to = match report.advice.is_change() {
                true => format!("{} → {}", report.memory, report.advice.memory),
                false => format!("stays at {}", report.memory),
            };
            let expected = match report.advice.is_change() {
                true => format!(
                    ", cost {}, duration {}",
                    self::change(report.advice.cost_change_percent),
                    self::change(report.advice.duration_change_percent)
                ),
                false => String::new(),
            };
            let name = shorten(&report.name, look.width);
            format!("{name}: {from_to}{expected}\n{}\n{}", lines_about(in_full(report), look), lines(&table))
        }
    }
}

/// A value as indented JSON with a final newline.
#[must_use]
pub fn json(value: &impl Serialize) -> String {
    // Reports hold no maps with other keys than text, which is all that could fail.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn cells(report: &FunctionReport) -> [String; 17] {
    let advice = &report.advice;
    let split = report.wall_split();
    let wall = split.iter().sum();
    let moves = advice.is_change();
    let verdict = advice.full.as_ref().map(|advice| advice.verdict);
    let recommended = match verdict {
        Some(Verdict::Change | Verdict::RaiseForMemory) => advice.memory.0.to_string(),
        Some(Verdict::AlreadyBest) => "keep".to_owned(),
        _ => "-".to_owned(),
    };
    let percent = |value: f64| if moves { change(value).replace(' ', "") } else { String::new() };
    [
        report.name.clone(),
        report.memory.0.to_string(),
        count(report.invocations),
        count(report.errors),
        count(report.cold_starts),
        duration(report.duration_ms.p50),
        duration(report.duration_ms.p95),
        duration_of(report.billed_ms),
        money(report.cost_pico_usd),
        money(report.cost_per_million_pico_usd),
        if report.peak_memory_mb > 0 { report.peak_memory_mb.to_string() } else { "-".to_owned() },
        percent_of(split[0], wall),
        percent_of(split[1], wall),
        percent_of(split[2], wall),
        recommended,
        percent(advice.cost_change_percent),
        percent(advice.duration_change_percent),
    ]
}

/// A part of a whole, `-` where nothing was measured.
fn percent_of(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { share(part, whole) + "%" }
}

/// Dollars in at most seven characters, without their sign.
fn money(amount: Option<PicoDollars>) -> String {
    let Some(amount) = amount else { return "-".to_owned() };
    let dollars = amount.to_dollars();
    match dollars.abs() {
        0.0 => "0".to_owned(),
        d if d < 0.000_1 => format!("{dollars:.1e}"),
        d if d < 0.01 => format!("{dollars:.5}"),
        d if d < 1.0 => format!("{dollars:.4}"),
        d if d < 1_000.0 => format!("{dollars:.2}"),
        _ => format!("{dollars:.0}"),
    }
}

fn fleet_table(report: &FleetReport, look: Look) -> String {
    if report.functions.is_empty() {
        return "no invocations yet: add the layer to a function, set TAILOR_ENDPOINT and invoke it\n"
            .to_owned();
    }
    let mut rows: Vec<[String; 17]> = report.functions.iter().map(cells).collect();
    let widths = (1..HEADER.len()).map(|column| {
        rows.iter().map(|row| row[column].chars().count()).chain([HEADER[column].len()]).max().unwrap_or(0)
    });
    // One space follows each column.
    let others: usize = widths.map(|width| width + 1).sum();
    let name_width = look.width.saturating_sub(others + 1).max(MIN_NAME);
    for row in &mut rows {
        row[0] = shorten(&row[0], name_width);
    }
    let mut table = plain_table(&HEADER, look);
    for (row, function) in rows.into_iter().zip(&report.functions) {
        table.add_row(row.into_iter().enumerate().map(|(column, text)| paint(column, text, function, look)));
    }
    let mut text = lines(&table) + LEGEND;
    let total = &report.total;
    text.push_str(&format!(
        "\n{} functions, {} invocations, {} errors, {} cold starts; billed {}, {}\nto save: {}; to spend for speed: {}\n",
        report.functions.len(),
        count(total.invocations),
        count(total.errors),
        count(total.cold_starts),
        duration_of(total.billed_ms),
        total.cost_pico_usd,
        total.saving_pico_usd,
        total.spending_pico_usd,
    ));
    for function in &report.functions {
        let details = lines_about(brief(function), look);
        if !details.is_empty() {
            text.push_str(&format!("\n{}\n{details}", shorten(&function.name, look.width)));
        }
    }
    text.push_str("\n`tailor advise FUNCTION` says what to do about each, and what every size would cost.\n");
    text
}

/// Colour only repeats what the text says.
fn paint(column: usize, text: String, report: &FunctionReport, look: Look) -> Cell {
    let bad = match column {
        3 => report.errors > 0,
        12 => report.starved_ms > report.busy_ms,
        _ => false,
    };
    let cell = Cell::new(text);
    let cell = if column == 0 { cell } else { cell.set_alignment(CellAlignment::Right) };
    match (look.colour, column) {
        (true, _) if bad => cell.fg(Color::Red),
        (true, 14..=16) if report.advice.is_change() => cell.fg(Color::Green),
        _ => cell,
    }
}

type Said = (&'static str, String);

/// Everything about a function that does not fit a row.
fn in_full(report: &FunctionReport) -> Vec<Said> {
    let reasons = report.advice.reasons.iter().map(|reason| ("advice", reason.clone()));
    reasons.chain(remarks(report)).collect()
}

/// The same with the first hints only, and without what to do: that is in the advice on the function.
fn brief(report: &FunctionReport) -> Vec<Said> {
    const HINTS: usize = 2;
    let Some(advice) = &report.advice.full else { return in_full(report) };
    let mut said: Vec<Said> = advice.reasons.iter().map(|reason| ("advice", reason.clone())).collect();
    let code = |hint: &Hint| hint_code(hint.code);
    let first = advice.hints.iter().take(HINTS);
    said.extend(first.map(|hint| ("why", format!("{}: {}", code(hint), hint.evidence))));
    let others: Vec<String> = advice.hints.iter().skip(HINTS).map(code).collect();
    if !others.is_empty() {
        said.push(("also", others.join(", ")));
    }
    said.extend(remarks(report));
    said
}

/// What is known only in part, and what was changed.
fn remarks(report: &FunctionReport) -> impl Iterator<Item = Said> + '_ {
    let caveats = report.caveats.iter().map(|caveat| ("caveat", caveat.clone()));
    caveats.chain(report.changes.iter().map(|change| ("change", change_line(change))))
}

fn lines_about(said: Vec<Said>, look: Look) -> String {
    let mut text = String::new();
    for (kind, sentence) in said {
        for (index, line) in wrap(&sentence, look.width.saturating_sub(11)).iter().enumerate() {
            let kind = if index == 0 { kind } else { "" };
            text.push_str(&format!("  {kind:<7}  {line}\n"));
        }
    }
    text
}

/// Breaks a text between words into lines of at most `width` characters; a longer word has its own line.
fn wrap(text: &str, width: usize) -> Vec<String> {
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
    if change.intent.before.warm == 0 || matches!(change.state, State::Planned | State::Abandoned) {
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

/// The change log, written as `format` asks.
#[must_use]
pub fn changes(changes: &[Change], format: Format, look: Look) -> String {
    const HEADER: [&str; 7] = ["TIME (UTC)", "FUNCTION", "FROM", "TO", "STATE", "COST", "TIME"];
    let row = |change: &Change| -> [String; 7] {
        let pair = |predicted: f64, measured: Option<f64>| {
            format!("{} → {}", self::change(predicted), measured.map_or_else(|| "?".to_owned(), self::change))
        };
        [
            instant(change.planned_at_us),
            shorten(&change.function.name, 40),
            change.from.to_string(),
            change.to.to_string(),
            change.state.code().to_owned(),
            pair(change.intent.cost_change_percent, change.measured_cost_change_percent()),
            pair(change.intent.duration_change_percent, change.measured_duration_change_percent()),
        ]
    };
    match format {
        Format::Json => json(&serde_json::json!({ "changes": changes })),
        Format::Markdown => markdown(&HEADER, changes.iter().map(row)),
        Format::Csv => {
            let mut text = "planned_at_us,function,from_mb,to_mb,state,reason\n".to_owned();
            for change in changes {
                let fields = [
                    change.planned_at_us.to_string(),
                    csv_text(&change.function.name),
                    change.from.0.to_string(),
                    change.to.0.to_string(),
                    change.state.code().to_owned(),
                    csv_text(&change.reason),
                ];
                text.push_str(&(fields.join(",") + "\n"));
            }
            text
        }
        Format::Table if changes.is_empty() => "no changes\n".to_owned(),
        Format::Table => {
            let mut table = plain_table(&HEADER, look);
            for change in changes {
                table.add_row(row(change));
            }
            let mut text = lines(&table) + "COST and TIME: predicted → measured change.\n";
            for change in changes {
                let name = shorten(&change.function.name, 40);
                text.push_str(&format!("\n{name}, change {}\n", change.id));
                for step in &change.steps {
                    let line = format!("{} {}: {}", instant(step.at_us), step.state.code(), step.reason);
                    for (index, line) in wrap(&line, look.width.saturating_sub(4)).iter().enumerate() {
                        text.push_str(if index == 0 { "  " } else { "    " });
                        text.push_str(line);
                        text.push('\n');
                    }
                }
            }
            text
        }
    }
}

fn plain_table(header: &[&str], look: Look) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if look.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().enumerate().map(|(column, name)| {
        let cell = Cell::new(name);
        let cell = if column == 0 { cell } else { cell.set_alignment(CellAlignment::Right) };
        if look.colour { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    table
}

fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn markdown<const N: usize>(header: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(header.iter().map(|&name| name.to_owned()).collect());
    text.push_str(&line(vec!["---".to_owned(); N]));
    for row in rows {
        let escape = |cell: &String| shorten(cell, 1_000).replace('|', "\\|").replace('<', "&lt;");
        text.push_str(&line(row.iter().map(escape).collect()));
    }
    text
}

fn csv(functions: &[FunctionReport]) -> String {
    let mut text =
        "name,account,region,runtime,architecture,memory_mb,invocations,errors,cold_starts,p50_ms,\
                    p95_ms,billed_ms,cost_pico_usd,peak_memory_mb,busy_ms,starved_ms,idle_ms,\
                    advised_memory_mb,cost_change_percent,duration_change_percent\n"
            .to_owned();
    for function in functions {
        let fields = [
            csv_text(&function.name),
            csv_text(&function.account),
            csv_text(&function.region),
            csv_text(&function.runtime),
            function.architecture.to_string(),
            function.memory.0.to_string(),
            function.invocations.to_string(),
            function.errors.to_string(),
            function.cold_starts.to_string(),
            function.duration_ms.p50.to_string(),
            function.duration_ms.p95.to_string(),
            function.billed_ms.to_string(),
            function.cost_pico_usd.map(|cost| cost.0.to_string()).unwrap_or_default(),
            function.peak_memory_mb.to_string(),
            function.busy_ms.to_string(),
            function.starved_ms.to_string(),
            function.idle_ms.to_string(),
            function.advice.memory.0.to_string(),
            function.advice.cost_change_percent.to_string(),
            function.advice.duration_change_percent.to_string(),
        ];
        text.push_str(&(fields.join(",") + "\n"));
    }
    text
}

/// Quoted for CSV, and harmless to a spreadsheet: a text that begins like a formula is not run as one.
fn csv_text(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}
