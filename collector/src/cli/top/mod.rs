//! `tailor top`: cost per hour, invocations per second, errors, durations and memory of the functions, read again and again.
//!
//! On a terminal it is a live view. Elsewhere it prints rows.

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Args;
use comfy_table::CellAlignment;
use serde::Serialize;

use super::arguments::ShowArgs;
use super::exit;
use super::list::FilterArgs;
use super::show::{page, style};
use super::streams::output;
use crate::clock::now_us;
use crate::query::{self, Format, TableStyle};
use crate::render::output::{Field, Output, Rows, write};
use crate::render::table::{lines, plain_table};
use crate::render::units::{duration, exactly, instant, shorten};
use sample::{Readings, Row, Sums, TopSort, sort};

mod sample;
mod screen;

/// Default length of the window, hours: the present hour and the one before.
const DEFAULT_HOURS: u64 = 1;

/// Least number of functions that are read.
const MIN_READ: usize = 200;

/// What is shown, and how often.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    filters: FilterArgs,
    /// Order of the functions. On a terminal, a key changes it.
    #[arg(long, help_heading = "View", value_enum, default_value_t)]
    sort: TopSort,
    /// Reverse the order.
    #[arg(long, help_heading = "View")]
    reverse: bool,
    /// Seconds between two readings.
    #[arg(long, help_heading = "View", default_value_t = 2.0, value_parser = interval)]
    interval: f64,
    /// Number of readings, then it ends; on a terminal without a limit, elsewhere 1 by default.
    #[arg(long, help_heading = "View", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,
    /// Maximum number of functions.
    #[arg(long, help_heading = "View", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("use a number of seconds from 0.1 to 3600".to_owned()),
    }
}

impl TopArgs {
    fn limit(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }
}

/// The functions at one time.
#[derive(Debug, Clone)]
struct Snapshot {
    at_us: u64,
    sums: Sums,
    rows: Vec<Row>,
}

/// What a reading gave.
type Reading = Result<Snapshot, String>;

pub(super) fn run(mut args: TopArgs) -> anyhow::Result<ExitCode> {
    if args.show.named_hours().is_none() {
        args.show.window.hours = Some(DEFAULT_HOURS);
    }
    let is_live =
        args.show.format == Format::Table && stdout().is_terminal() && std::io::stdin().is_terminal();
    if is_live {
        return screen::run(args);
    }
    let mut readings = Readings::default();
    let mut found = 0;
    for iteration in 0..args.iterations.unwrap_or(1) {
        if iteration > 0 {
            thread::sleep(Duration::from_secs_f64(args.interval));
        }
        let mut snapshot = read(&args, args.sort, &mut readings)?;
        sort(&mut snapshot.rows, args.sort, args.reverse);
        snapshot.rows.truncate(args.limit());
        found = snapshot.rows.len();
        if !output(&write(&snapshot, args.show.format, style(&args.show)))? {
            break;
        }
    }
    Ok(ExitCode::from(if found == 0 { exit::NOTHING } else { exit::SUCCESS }))
}

/// Reads all functions once.
fn read(args: &TopArgs, order: TopSort, readings: &mut Readings) -> anyhow::Result<Snapshot> {
    // More than are shown, because the order by rates differs from that of the window.
    let limit = args.limit().max(MIN_READ);
    let page = page(&args.show, &args.filters, order.list_order(), limit, None)?;
    let at_us = now_us();
    let window_us = query::last_hours(at_us, args.show.window_hours()).from_us();
    let (sums, rows) = readings.add(&page, window_us, at_us);
    Ok(Snapshot { at_us, sums, rows })
}

/// Reads again and again in a thread of its own, so that a slow answer does not block the keys.
fn read_in_background(args: &Arc<TopArgs>, order: &Arc<Mutex<TopSort>>) -> Receiver<Reading> {
    let (sender, receiver) = channel();
    let (args, order) = (Arc::clone(args), Arc::clone(order));
    thread::spawn(move || {
        let mut readings = Readings::default();
        let mut count = 0;
        while args.iterations.is_none_or(|iterations| count < iterations) {
            let order = *order.lock().unwrap_or_else(PoisonError::into_inner);
            let reading = read(&args, order, &mut readings).map_err(|error| format!("{error:#}"));
            // The receiver is gone when the view ends.
            if sender.send(reading).is_err() {
                return;
            }
            count += 1;
            thread::sleep(Duration::from_secs_f64(args.interval));
        }
    });
    receiver
}

const HEADER: [&str; 8] = ["FUNCTION", "$/HOUR", "CALLS/S", "ERR", "ERR %", "P95", "MB", "PEAK"];

impl Snapshot {
    fn columns(&self, name_width: usize) -> Rows {
        let row = |row: &Row| {
            [
                shorten(&row.name, name_width),
                dollars(row.cost_per_hour_usd),
                rate(row.invocations_per_second),
                row.errors.to_string(),
                format!("{:.1}", row.errors_percent),
                duration(row.p95_ms),
                row.memory_mb.to_string(),
                if row.peak_memory_mb > 0 { row.peak_memory_mb.to_string() } else { "-".to_owned() },
            ]
        };
        Rows::new(&HEADER, self.rows.iter().map(row))
    }

    /// The sums over all functions, in one line.
    fn summary(&self) -> String {
        let Sums { functions, cost_per_hour_usd, invocations_per_second, errors } = self.sums;
        format!(
            "{} UTC: {}, ${} per hour, {} invocations per second, {} in the window",
            instant(self.at_us),
            exactly(functions, "function"),
            dollars(cost_per_hour_usd),
            rate(invocations_per_second),
            exactly(errors, "error"),
        )
    }
}

fn dollars(dollars: f64) -> String {
    match dollars {
        d if d >= 100.0 => format!("{d:.0}"),
        d if d >= 1.0 => format!("{d:.2}"),
        d if d >= 0.0001 => format!("{d:.4}"),
        d if d > 0.0 => format!("{d:.1e}"),
        _ => "0".to_owned(),
    }
}

fn rate(rate: f64) -> String {
    match rate {
        r if r >= 100.0 => format!("{r:.0}"),
        r if r >= 1.0 => format!("{r:.1}"),
        r if r > 0.0 => format!("{r:.3}"),
        _ => "0".to_owned(),
    }
}

impl Output for Snapshot {
    fn value(&self) -> impl Serialize {
        serde_json::json!({ "at_us": self.at_us, "total": self.sums, "functions": self.rows })
    }

    fn table(&self, style: TableStyle) -> String {
        let columns = self.columns(style.width.saturating_sub(64).max(12));
        let mut table = plain_table(&columns.header, style);
        for row in columns.rows {
            table.add_row(row.into_iter().map(Field::into_text));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{}\n{}", self.summary(), lines(&table))
    }

    fn markdown(&self) -> Rows {
        self.columns(200)
    }

    fn csv(&self) -> Rows {
        let header = [
            "at_us",
            "name",
            "account",
            "region",
            "cost_per_hour_usd",
            "invocations_per_second",
            "errors",
            "errors_percent",
            "p95_ms",
            "memory_mb",
            "peak_memory_mb",
        ];
        let rows = self.rows.iter().map(|row| {
            [
                Field::from(self.at_us),
                Field::from(&row.name),
                Field::from(&row.account),
                Field::from(&row.region),
                Field::from(row.cost_per_hour_usd),
                Field::from(row.invocations_per_second),
                Field::from(row.errors),
                Field::from(row.errors_percent),
                Field::from(row.p95_ms),
                Field::from(row.memory_mb),
                Field::from(row.peak_memory_mb),
            ]
        });
        Rows::new(&header, rows)
    }
}
