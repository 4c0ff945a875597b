//! Reads `invocations.csv` of the data set `throttled-functions` into cases.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::kind;
use crate::score::{Case, SizeCase};
use anyhow::Context;
use tailor_sizing::model::cfs_simulation::PERIOD_MS;
use tailor_sizing::telemetry::invocation::{ClassWork, Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Megabytes, round_to_u64};

/// CPU time of the measuring probe in every invocation, µs. It is not in the wall time (see the README of the data set).
const PROBE_US: u64 = 450;

/// The kernel's timer tick on the host of the measurements, ms.
const TICK_MS: f64 = 4.0;

struct Row {
    function: u64,
    memory: Megabytes,
    number: u64,
    wall_us: u64,
    invocation: Invocation,
}

/// The functions of the data set in `folder`.
///
/// # Errors
/// When `invocations.csv` and `invocations.csv.gz` are missing or a line cannot be read.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Case>> {
    let (path, text) = invocations(folder)?;
    let kinds = kind::read(folder)?;
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
        case.kind = kinds.get(&function).copied().unwrap_or(kind::UNKNOWN).to_owned();
        case.sizes.push(size);
    }
    Ok(cases.into_values().filter(|case| case.sizes.len() > 1).collect())
}

/// The text of the measurements and where it was read, compressed or not.
fn invocations(folder: &Path) -> anyhow::Result<(PathBuf, String)> {
    let plain = folder.join("invocations.csv");
    if let Ok(text) = std::fs::read_to_string(&plain) {
        return Ok((plain, text));
    }
    let path = folder.join("invocations.csv.gz");
    let file = std::fs::File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok((path, text))
}

/// The first half of the invocations is the telemetry. The mean of the second half is the true value.
fn size(memory: Megabytes, rows: Vec<Row>) -> Option<SizeCase> {
    let last = rows.iter().map(|row| row.number).max()?;
    let (first_half, second_half): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|row| 2 * row.number <= last);
    let mut telemetry = Rollup::default();
    let mut remaining_us = 0;
    for mut row in first_half {
        if let Some(work) = &mut row.invocation.work {
            remaining_us = subtract_probe(work, remaining_us + PROBE_US);
            subtract_probe_wait(work, memory, row.wall_us);
        }
        telemetry.record(&row.invocation);
    }
    let truth_us: u64 = second_half.iter().map(|row| row.wall_us).sum();
    (!second_half.is_empty()).then(|| SizeCase {
        memory,
        telemetry,
        truth_ms: truth_us as f64 / 1e3 / second_half.len() as f64,
    })
}

/// Subtracts the probe's CPU time `probe_us` from `work`. Returns the part that could not be subtracted: Java's counters
/// have a resolution of 10 ms, so an invocation may show less CPU time than the probe used, and the next one more.
fn subtract_probe(work: &mut Work, probe_us: u64) -> u64 {
    let user = probe_us.min(work.user_us);
    work.user_us -= user;
    let system = (probe_us - user).min(work.system_us);
    work.system_us -= system;
    // The probe runs in the main thread, and per-thread CPU times do not have the coarse resolution.
    work.top_busy_us = work.top_busy_us.saturating_sub(PROBE_US);
    probe_us - user - system
}

/// Subtracts the probe's own wait for the CPU, which is not in the wall time. The probe runs after the handler: either a
/// burst has just used up the quota and the probe waits, or idle time has passed and it does not. The data does not
/// contain which case occurred, so the probability of each is its share of starved and idle time.
fn subtract_probe_wait(work: &mut Work, memory: Megabytes, wall_us: u64) {
    let wait_us = probe_wait_ms(memory) * 1e3;
    let starved_us = work.top_starved_us as f64;
    let idle_us = (wall_us as f64 + wait_us - work.top_busy_us as f64 - starved_us).max(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
    let outside_us = (wait_us * starved_us / (starved_us + idle_us).max(1.0)) as u64;
    work.top_starved_us = work.top_starved_us.saturating_sub(outside_us);
    work.starved_us = work.starved_us.saturating_sub(outside_us);
}

/// Mean wait of the probe after a burst that was throttled, ms. A run lasts until a timer tick finds that the quota is
/// used up, and the burst can end at any moment of a run. The overrun of the quota is paid back before the probe can run.
///
/// Measured CPU time and wait exceed the wall time by 24, 8, 4 and 0 ms at 128, 256, 512 and 1,024 MB (eight
/// single-threaded functions compared with themselves at 2,048 MB and above). This function returns 21, 7, 4 and 0.6.
fn probe_wait_ms(memory: Megabytes) -> f64 {
    const MOMENTS: u32 = 100;
    let quota_ms = PERIOD_MS * memory.share();
    if memory.share() >= 1.0 {
        return 0.0;
    }
    let run_ms = TICK_MS * (quota_ms / TICK_MS).ceil();
    let wait_ms = |moment: u32| {
        let used_ms = run_ms * (f64::from(moment) + 0.5) / f64::from(MOMENTS);
        let refills = ((used_ms + PROBE_US as f64 / 1e3) / quota_ms - 1.0).ceil().max(0.0);
        (refills * PERIOD_MS - used_ms).max(0.0)
    };
    (0..MOMENTS).map(wait_ms).sum::<f64>() / f64::from(MOMENTS)
}

fn row(header: &BTreeMap<&str, usize>, line: &str) -> anyhow::Result<Row> {
    let cells: Vec<&str> = line.split(',').collect();
    let number = |name: &str| -> anyhow::Result<f64> {
        let index = header.get(name).with_context(|| format!("no column `{name}`"))?;
        let cell = cells.get(*index).with_context(|| format!("no cell for `{name}`"))?;
        cell.parse().with_context(|| format!("`{cell}` in `{name}` is not a number"))
    };
    let scaled = |name: &str, scale: f64| number(name).map(|value| round_to_u64(value * scale));
    let wall_us = scaled("wall_ms", 1e3)?;
    let (top_busy_us, top_starved_us) = (scaled("ss_top_us", 1.0)?, scaled("ss_top_wait_us", 1.0)?);
    let work = Work {
        user_us: scaled("user_us", 1.0)?,
        system_us: scaled("sys_us", 1.0)?,
        starved_us: scaled("ss_wait_us", 1.0)?,
        idle_us: wall_us.saturating_sub(top_busy_us + top_starved_us),
        top_busy_us,
        top_starved_us,
        effective_threads_milli: scaled("ss_eff", 1e3)?,
        voluntary_switches: scaled("vcs", 1.0)?,
        involuntary_switches: scaled("ivcs", 1.0)?,
        timeslices: scaled("ss_slices", 1.0)?,
        minor_faults: scaled("minflt", 1.0)?,
        main: main_thread(scaled("m_run_us", 1.0).ok(), scaled("m_wait_us", 1.0).ok()),
        ..Work::default()
    };
    let memory = Megabytes(u32::try_from(scaled("memory_mb", 1.0)?).context("memory size out of range")?);
    let invocation = Invocation {
        outcome: Outcome::Success,
        duration_us: wall_us,
        billed_ms: wall_us.div_ceil(1_000),
        peak_kib: scaled("rss", 1.0 / 1_024.0)?,
        work: Some(work),
        ..Invocation::default()
    };
    Ok(Row { function: scaled("fn", 1.0)?, memory, number: scaled("inv", 1.0)?, wall_us, invocation })
}

/// The main thread, where the data set has it.
fn main_thread(busy_us: Option<u64>, starved_us: Option<u64>) -> ClassWork {
    match (busy_us, starved_us) {
        (Some(busy_us), Some(starved_us)) => ClassWork { busy_us, starved_us, threads: 1 },
        _ => ClassWork::default(),
    }
}
