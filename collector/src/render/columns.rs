//! The columns of the fleet's table as data: a new column is one entry.

use tailor_sizing::advice::Verdict;
use tailor_sizing::pricing::money::PicoDollars;

use super::units::{change, count, duration, duration_of, share};
use crate::report::{FunctionReport, MeasuredBy};

/// How a cell is emphasized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Not at all.
    Plain,
    /// Something needs attention.
    Bad,
    /// Something would improve.
    Good,
}

/// One column of the fleet's table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Whether it is aligned to the left.
    pub is_text: bool,
    /// What a function has in it.
    pub value: fn(&FunctionReport) -> String,
    /// How that is emphasized.
    pub style: fn(&FunctionReport) -> Style,
}

impl Column {
    const fn number(title: &'static str, value: fn(&FunctionReport) -> String) -> Self {
        Self { title, is_text: false, value, style: |_| Style::Plain }
    }

    const fn styled(mut self, style: fn(&FunctionReport) -> Style) -> Self {
        self.style = style;
        self
    }
}

/// The columns of the fleet's table, in order.
pub const FLEET: [Column; 17] = [
    Column { title: "FUNCTION", is_text: true, value: name, style: |_| Style::Plain },
    Column::number("MB", |report| report.memory.0.to_string()),
    Column::number("CALLS", |report| count(report.invocations)),
    Column::number("ERR", |report| count(report.errors)).styled(|report| bad_if(report.errors > 0)),
    Column::number("COLD", |report| count(report.cold_starts)),
    Column::number("P50", |report| duration(report.duration_ms.p50)),
    Column::number("P95", |report| duration(report.duration_ms.p95)),
    Column::number("BILLED", |report| duration_of(report.billed_ms)),
    Column::number("COST $", |report| money(report.cost_pico_usd)),
    Column::number("$/MLN", |report| money(report.cost_per_million_pico_usd)),
    Column::number("PEAK", peak),
    Column::number("BUSY", |report| wall_share(report, 0)),
    Column::number("STRV", |report| wall_share(report, 1))
        .styled(|report| bad_if(report.starved_ms > report.busy_ms)),
    Column::number("IDLE", |report| wall_share(report, 2)),
    Column::number("→ MB", advised).styled(good_if_advised),
    Column::number("±COST", |report| if_advised(report, report.advice.cost_change_percent))
        .styled(good_if_advised),
    Column::number("±TIME", |report| if_advised(report, report.advice.duration_change_percent))
        .styled(good_if_advised),
];

/// The headings of [`FLEET`].
#[must_use]
pub fn titles() -> Vec<&'static str> {
    FLEET.iter().map(|column| column.title).collect()
}

/// One function's row of [`FLEET`].
#[must_use]
pub fn cells(report: &FunctionReport) -> Vec<String> {
    FLEET.iter().map(|column| (column.value)(report)).collect()
}

const fn bad_if(is_bad: bool) -> Style {
    if is_bad { Style::Bad } else { Style::Plain }
}

fn good_if_advised(report: &FunctionReport) -> Style {
    if report.advice.is_change() { Style::Good } else { Style::Plain }
}

/// The name, and whether the invocations are not from the layer.
fn name(report: &FunctionReport) -> String {
    match report.measured_by {
        MeasuredBy::Layer => report.name.clone(),
        MeasuredBy::Logs => format!("{} (logs)", report.name),
        MeasuredBy::LayerAndLogs => format!("{} (partly logs)", report.name),
    }
}

fn peak(report: &FunctionReport) -> String {
    if report.peak_memory_mb > 0 { report.peak_memory_mb.to_string() } else { "-".to_owned() }
}

/// One of the three parts of the wall time, `-` where nothing was measured.
fn wall_share(report: &FunctionReport, part: usize) -> String {
    let split = report.wall_split();
    match split.iter().sum() {
        0 => "-".to_owned(),
        wall => share(split[part], wall) + "%",
    }
}

fn advised(report: &FunctionReport) -> String {
    match report.advice.verdict() {
        Some(Verdict::Change | Verdict::RaiseForMemory) => report.advice.memory.0.to_string(),
        Some(Verdict::AlreadyBest) => "keep".to_owned(),
        Some(
            Verdict::TooUncertain
            | Verdict::TooLittleEvidence
            | Verdict::CpuUnaccounted
            | Verdict::NoCpuTelemetry,
        )
        | None => "-".to_owned(),
    }
}

fn if_advised(report: &FunctionReport, percent: f64) -> String {
    if report.advice.is_change() { change(percent).replace(' ', "") } else { String::new() }
}

/// Dollars in at most seven characters, without their sign.
pub(super) fn money(amount: Option<PicoDollars>) -> String {
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
