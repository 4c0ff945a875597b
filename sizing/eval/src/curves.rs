//! Published duration curves of real AWS Lambda functions, and the scores of predictions on them.
//!
//! The curves have durations only. [`blind`] predicts from the durations of a few sizes, as for imported logs. [`replay`]
//! predicts from one size of functions that only compute, whose CPU time is the wall time times the CPU share.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use flate2::read::GzDecoder;
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::model::predict::Model;
use tailor_sizing::telemetry::invocation::{Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Megabytes, round_to_u64};

/// Memory in MB and mean duration in ms, in ascending order of memory.
pub type Curve = Vec<(u32, f64)>;

/// Curves of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    /// Name of the file, the workload where the file has several, and whether the invocations were cold.
    pub name: String,
    /// The curves with at least [`FEWEST_SIZES`] sizes.
    pub curves: Vec<Curve>,
}

impl Set {
    /// Whether its functions only compute, in one thread.
    #[must_use]
    pub fn only_computes(&self) -> bool {
        self.name.contains(" cpu-intensive ") || self.name == "faasdom-2020"
    }
}

/// Fewest sizes of a curve, so that some remain to be predicted.
pub const FEWEST_SIZES: usize = 4;

/// Assumed number of invocations of a published mean. Not all sets report it.
const INVOCATIONS: u64 = 20;

/// By memory in MB: the number of rows and the sum of their durations in ms.
type Sums = BTreeMap<u32, (f64, f64)>;

/// One file of curves and the names of its columns.
struct File {
    name: &'static str,
    /// Columns that identify the set.
    sets: &'static [&'static str],
    /// Columns that identify the curve within the set.
    curves: &'static [&'static str],
    duration: &'static str,
}

const FILES: [File; 4] = [
    File {
        name: "benchmark-2025-warm-and-cold",
        sets: &["workload", "start"],
        curves: &["run", "runtime", "arch"],
        duration: "duration_ms_mean",
    },
    File {
        name: "cold-start-by-runtime",
        sets: &["package"],
        curves: &["runtime", "arch"],
        duration: "first_duration_ms_mean",
    },
    File { name: "faasdom-2020", sets: &[], curves: &["runtime"], duration: "measured_ms" },
    File { name: "power-tuning-published", sets: &[], curves: &["curve"], duration: "duration_ms" },
];

/// Reads a compressed text file.
///
/// # Errors
/// When it cannot be read or decompressed.
pub fn text(path: &Path) -> anyhow::Result<String> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut text = String::new();
    GzDecoder::new(file)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot decompress {}", path.display()))?;
    Ok(text)
}

/// Reads all sets of `folder`.
///
/// # Errors
/// When a file cannot be read, or has no such column.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Set>> {
    let mut sets = Vec::new();
    for file in &FILES {
        let path = folder.join(format!("{}.csv.gz", file.name));
        sets.extend(parse(file, &text(&path)?).with_context(|| path.display().to_string())?);
    }
    Ok(sets)
}

/// Reads one file: comma-separated, with a header, and no quoted cell before the columns that are used. Several rows of one
/// curve and size are averaged.
fn parse(file: &File, text: &str) -> anyhow::Result<Vec<Set>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &&str| {
        header.iter().position(|cell| cell == name).with_context(|| format!("there is no column `{name}`"))
    };
    let (memory, duration) = (column(&"memory_mb")?, column(&file.duration)?);
    let set_columns = file.sets.iter().map(column).collect::<anyhow::Result<Vec<_>>>()?;
    let curve_columns = file.curves.iter().map(column).collect::<anyhow::Result<Vec<_>>>()?;
    let mut groups: BTreeMap<String, BTreeMap<String, Sums>> = BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |index: usize| cells.get(index).copied().unwrap_or_default();
        let joined = |columns: &[usize]| columns.iter().map(|&at| cell(at)).collect::<Vec<_>>().join(" ");
        let (Ok(memory), Ok(ms)) = (cell(memory).parse::<u32>(), cell(duration).parse::<f64>()) else {
            continue;
        };
        let name = format!("{} {}", file.name, joined(&set_columns)).trim().to_owned();
        let curve = groups.entry(name).or_default().entry(joined(&curve_columns)).or_default();
        let (count, sum) = curve.entry(memory).or_default();
        *count += 1.0;
        *sum += ms;
    }
    let means = |sizes: Sums| -> Curve {
        sizes.into_iter().map(|(mb, (count, sum))| (mb, sum / count)).filter(|(_, ms)| *ms > 0.0).collect()
    };
    let sets = groups.into_iter().map(|(name, curves)| {
        let curves = curves.into_values().map(means).filter(|curve| curve.len() >= FEWEST_SIZES).collect();
        Set { name, curves }
    });
    Ok(sets.filter(|set| !set.curves.is_empty()).collect())
}

/// Mean absolute errors in percent. Each curve counts once, however many sizes it has.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Blind {
    /// Predictions whose errors these are.
    pub predictions: usize,
    /// The model's.
    pub model: f64,
    /// Of straight lines in the logarithms, flat outside.
    pub lines: f64,
    /// Of `a + b / memory` with the least relative error.
    pub hyperbola: f64,
}

/// Scores predictions of all other sizes from the durations of `observed` sizes, for at most `most` choices of these sizes
/// per curve.
#[must_use]
pub fn blind(set: &Set, observed: usize, most: usize) -> Blind {
    let (mut total, mut curves, mut predictions) = ([0.0; 3], 0.0_f64, 0);
    for curve in &set.curves {
        let all = choices(curve.len(), observed);
        let (mut errors, mut count) = ([0.0; 3], 0_usize);
        for chosen in all.iter().step_by(all.len().div_ceil(most.max(1)).max(1)) {
            let seen: Curve = chosen.iter().filter_map(|&i| curve.get(i).copied()).collect();
            let Some(model) = durations_only(&seen) else { continue };
            for &(memory, truth_ms) in curve.iter().filter(|point| !seen.contains(point)) {
                let mb = f64::from(memory);
                let model_ms = model.predict(Megabytes(memory)).mean_ms;
                for (sum, ms) in errors.iter_mut().zip([model_ms, lines(&seen, mb), hyperbola(&seen, mb)]) {
                    *sum += error(ms, truth_ms);
                }
                count += 1;
            }
        }
        if count > 0 {
            total.iter_mut().zip(errors).for_each(|(total, sum)| *total += sum / count as f64);
            curves += 1.0;
            predictions += count;
        }
    }
    let [model, lines, hyperbola] = total.map(|sum| sum / curves.max(1.0));
    Blind { predictions, model, lines, hyperbola }
}

/// Mean absolute error in percent of predictions from `base` alone of the other sizes of curves of functions that only
/// compute; `None` when no curve has this size. The base must be below one vCPU.
#[must_use]
pub fn replay(curves: &[Curve], base: Megabytes) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_usize);
    for curve in curves {
        let Some(&(_, base_ms)) = curve.iter().find(|(memory, _)| *memory == base.0) else { continue };
        let Some(model) = computing(base, base_ms) else { continue };
        for &(memory, truth_ms) in curve.iter().filter(|(memory, _)| *memory != base.0) {
            sum += error(model.predict(Megabytes(memory)).mean_ms, truth_ms);
            count += 1;
        }
    }
    (count > 0).then(|| sum / count as f64)
}

fn error(predicted_ms: f64, truth_ms: f64) -> f64 {
    100.0 * (predicted_ms / truth_ms - 1.0).abs()
}

/// The model of a function of one thread that was throttled whenever it did not run.
fn computing(memory: Megabytes, ms: f64) -> Option<Model> {
    let (wall_us, busy_us) = (us(ms), us(ms * memory.share().min(1.0)));
    let starved_us = wall_us.saturating_sub(busy_us);
    let work = Work {
        user_us: busy_us,
        starved_us,
        top_busy_us: busy_us,
        top_starved_us: starved_us,
        effective_threads_milli: 1_000,
        voluntary_switches: 1,
        ..Work::default()
    };
    let mut rollup = Rollup::default();
    for _ in 0..INVOCATIONS {
        rollup.record(&Invocation {
            outcome: Outcome::Success,
            duration_us: wall_us,
            billed_ms: wall_us.div_ceil(1_000),
            work: Some(work),
            ..Invocation::default()
        });
    }
    Model::fit(&[(memory, rollup)], Enforcement::default())
}

fn durations_only(seen: &Curve) -> Option<Model> {
    let size = |&(memory, ms): &(u32, f64)| {
        let mut rollup = Rollup { invocations: INVOCATIONS, ..Rollup::default() };
        rollup.duration_us.record_many(us(ms), INVOCATIONS);
        rollup.warm_duration_us.record_many(us(ms), INVOCATIONS);
        (Megabytes(memory), rollup)
    };
    Model::fit(&seen.iter().map(size).collect::<Vec<_>>(), Enforcement::default())
}

fn us(ms: f64) -> u64 {
    round_to_u64(ms * 1e3)
}

/// Straight lines between the observed sizes in the logarithms of memory and duration, flat outside.
fn lines(seen: &Curve, memory: f64) -> f64 {
    let after = seen.partition_point(|&(size, _)| f64::from(size) < memory);
    match (after.checked_sub(1).and_then(|before| seen.get(before)), seen.get(after)) {
        (Some(&(m0, d0)), Some(&(m1, d1))) => {
            let (m0, m1) = (f64::from(m0).ln(), f64::from(m1).ln());
            let t = (memory.ln() - m0) / (m1 - m0);
            (d0.ln() * (1.0 - t) + d1.ln() * t).exp()
        }
        (Some(&(_, ms)), None) | (None, Some(&(_, ms))) => ms,
        (None, None) => f64::NAN,
    }
}

/// `a + b/m`, fitted by least squares of the relative error, with both coefficients at least zero.
fn hyperbola(seen: &Curve, memory: f64) -> f64 {
    let (mut uu, mut uv, mut vv, mut u, mut v) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for &(size, ms) in seen {
        let (x, y) = (1.0 / ms, 1.0 / (f64::from(size) * ms));
        uu += x * x;
        uv += x * y;
        vv += y * y;
        u += x;
        v += y;
    }
    let determinant = uu * vv - uv * uv;
    let (mut a, mut b) = ((u * vv - v * uv) / determinant, (v * uu - u * uv) / determinant);
    if a.is_nan() || a < 0.0 {
        (a, b) = (0.0, v / vv);
    } else if b < 0.0 {
        (a, b) = (u / uu, 0.0);
    }
    a + b / memory
}

/// All ways to choose `k` of `n` positions, in order.
fn choices(n: usize, k: usize) -> Vec<Vec<usize>> {
    if k == 0 {
        return vec![Vec::new()];
    }
    (k..=n)
        .flat_map(|end| {
            choices(end - 1, k - 1).into_iter().map(move |mut chosen| {
                chosen.push(end - 1);
                chosen
            })
        })
        .collect()
}
