//! Reads `invocations.csv` of the throttled functions into cases.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use tailor_sizing::invocation::{Invocation, Outcome, Work};
use tailor_sizing::rollup::Rollup;
use tailor_sizing::score::{Case, SizeCase};
use tailor_sizing::units::Megabytes;

/// CPU time of the measuring probe in every invocation, outside of its wall time (data notes), µs.
const PROBE_US: u64 = 450;

struct Row {
    function: u64,
    memory: Megabytes,
    number: u64,
    wall_us: u64,
    invocation: Invocation,
}

pub(crate) fn read(folder: &Path) -> anyhow::Result<Vec<Case>> {
    let path = folder.join("invocations.csv");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = text.lines();
    let header: BTreeMap<&str, usize> =
        lines.next().unwrap_or_default().split(',').enumerate().map(|(i, name)| (name, i)).collect();
    let mut groups: BTreeMap<(u64, Megabytes), Vec<Row>> = BTreeMap::new();
    for (number, line) in lines.enumerate() {
        let row = row(&header, line).with_context(|| format!("{}:{}", path.display(), number + 2))?;
        groups.entry((row.function, row.memory)).or_default().push(row);
    }
    let mut cases: BTreeMap<u64, Case> = BTreeMap::new();
    for ((function, memory), rows) in groups {
        let Some(size) = size(memory, rows) else { continue };
        let case = cases.entry(function).or_default();
        case.name = function.to_string();
        case.sizes.push(size);
    }
    Ok(cases.into_values().filter(|case| case.sizes.len() > 1).collect())
}

/// The first half of the invocations is telemetry, the mean of the second half the truth.
fn size(memory: Megabytes, rows: Vec<Row>) -> Option<SizeCase> {
    let last = rows.iter().map(|row| row.number).max()?;
    let (seen, kept): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| 2 * row.number <= last);
    let mut telemetry = Rollup::default();
    let mut owed_us = 0;
    for mut row in seen {
        if let Some(work) = &mut row.invocation.work {
            owed_us = take_probe(work, owed_us + PROBE_US);
        }
        telemetry.record(&row.invocation);
    }
    let truth_us: u64 = kept.iter().map(|row| row.wall_us).sum();
    (!kept.is_empty()).then(|| SizeCase {
        memory,
        telemetry,
        truth_ms: truth_us as f64 / 1e3 / kept.len() as f64,
    })
}

/// Takes the probe's CPU time out and returns what is still owed: Java's counters tick every 10 ms, so one
/// invocation may show less than the probe used and the next more.
fn take_probe(work: &mut Work, owed_us: u64) -> u64 {
    let user = owed_us.min(work.user_us);
    work.user_us -= user;
    let system = (owed_us - user).min(work.system_us);
    work.system_us -= system;
    owed_us - user - system
}

fn row(header: &BTreeMap<&str, usize>, line: &str) -> anyhow::Result<Row> {
    let cells: Vec<&str> = line.split(',').collect();
    let number = |name: &str| -> anyhow::Result<f64> {
        let index = header.get(name).with_context(|| format!("no column `{name}`"))?;
        let cell = cells.get(*index).with_context(|| format!("no cell for `{name}`"))?;
        cell.parse().with_context(|| format!("`{cell}` in `{name}` is no number"))
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
    let whole = |name: &str, scale: f64| number(name).map(|value| (value * scale).round() as u64);
    let wall_us = whole("wall_ms", 1e3)?;
    let (top_busy_us, top_starved_us) = (whole("ss_top_us", 1.0)?, whole("ss_top_wait_us", 1.0)?);
    let work = Work {
        user_us: whole("user_us", 1.0)?,
        system_us: whole("sys_us", 1.0)?,
        starved_us: whole("ss_wait_us", 1.0)?,
        idle_us: wall_us.saturating_sub(top_busy_us + top_starved_us),
        top_busy_us,
        top_starved_us,
        effective_threads_milli: whole("ss_eff", 1e3)?,
        voluntary_switches: whole("vcs", 1.0)?,
        involuntary_switches: whole("ivcs", 1.0)?,
        timeslices: whole("ss_slices", 1.0)?,
        minor_faults: whole("minflt", 1.0)?,
        ..Work::default()
    };
    let memory = Megabytes(u32::try_from(whole("memory_mb", 1.0)?).context("memory size out of range")?);
    let invocation = Invocation {
        outcome: Outcome::Success,
        duration_us: wall_us,
        billed_ms: wall_us.div_ceil(1_000),
        peak_kib: whole("rss", 1.0 / 1_024.0)?,
        work: Some(work),
        ..Invocation::default()
    };
    Ok(Row { function: whole("fn", 1.0)?, memory, number: whole("inv", 1.0)?, wall_us, invocation })
}
