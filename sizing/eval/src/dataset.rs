//! Reads and writes measurements of functions at several sizes, which a benchmark saves for scoring.
//!
//! Each invocation contains only the values that the scores need, with its counters by position. The schema is
//! `tailor-bench-sizing/1`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::kind;
use crate::score::{Case, SizeCase};
use crate::truth;
use tailor_sizing::telemetry::invocation::{Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Megabytes;

/// Warm invocations by function and size in MB.
pub type Measured = BTreeMap<String, BTreeMap<u32, Vec<Invocation>>>;

/// Fewest invocations in the first half of a size that is scored.
const MIN_TELEMETRY: usize = 2;

/// Duration and billed time (µs and ms), peak memory in KiB, counters.
type Row = (u64, u64, u64, Vec<u64>);

#[derive(Deserialize)]
struct Saved {
    functions: BTreeMap<String, BTreeMap<u32, Vec<Row>>>,
}

/// The measurements as JSON.
#[must_use]
pub fn to_json(measured: &Measured) -> Value {
    let row = |invocation: &Invocation| {
        let counters = invocation.work.unwrap_or_default().counters();
        json!([invocation.duration_us, invocation.billed_ms, invocation.peak_kib, counters.to_vec()])
    };
    let sizes = |by_size: &BTreeMap<u32, Vec<Invocation>>| -> Map<String, Value> {
        let rows = |invocations: &Vec<Invocation>| invocations.iter().map(row).collect::<Value>();
        by_size.iter().map(|(size, invocations)| (size.to_string(), rows(invocations))).collect()
    };
    let functions: Map<String, Value> =
        measured.iter().map(|(name, by_size)| (name.clone(), sizes(by_size).into())).collect();
    json!({ "schema": "tailor-bench-sizing/1", "functions": functions })
}

/// Reads measurements that [`to_json`] wrote.
///
/// # Errors
/// When the text is not JSON of this schema.
pub fn from_json(text: &str) -> Result<Measured, serde_json::Error> {
    let saved: Saved = serde_json::from_str(text)?;
    let invocation = |(duration_us, billed_ms, peak_kib, counters): Row| Invocation {
        outcome: Outcome::Success,
        duration_us,
        billed_ms,
        peak_kib,
        work: Some(Work::from_counters(counters)),
        ..Invocation::default()
    };
    let sizes = |by_size: BTreeMap<u32, Vec<Row>>| -> BTreeMap<u32, Vec<Invocation>> {
        by_size.into_iter().map(|(size, rows)| (size, rows.into_iter().map(invocation).collect())).collect()
    };
    Ok(saved.functions.into_iter().map(|(name, by_size)| (name, sizes(by_size))).collect())
}

/// The functions of a data set: of a folder as [`crate::throttled`] reads it, of a file that `cargo xtask truth` wrote (those
/// with `role`, or all), or of a file that [`to_json`] wrote.
///
/// # Errors
/// When the files are missing or cannot be read.
pub fn read(path: &Path, role: Option<truth::Role>) -> anyhow::Result<Vec<Case>> {
    if path.is_dir() {
        return crate::throttled::read(path);
    }
    if let Ok(truth) = truth::read(path) {
        return Ok(truth.cases(role).into_iter().map(|(_, case)| case).collect());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let measured = from_json(&text).with_context(|| format!("{} is not a saved run", path.display()))?;
    Ok(measured.iter().filter_map(|(name, by_size)| case(name, by_size)).collect())
}

/// One function as a case to score: the first half of the invocations at a size is its telemetry, the mean of
/// the second half is the true value. `None` when a size has too few invocations.
#[must_use]
pub fn case(name: &str, by_size: &BTreeMap<u32, Vec<Invocation>>) -> Option<Case> {
    let size = |(&memory_mb, invocations): (&u32, &Vec<Invocation>)| {
        let (first_half, second_half) = invocations.split_at(invocations.len() / 2);
        let mut telemetry = Rollup::default();
        first_half.iter().for_each(|invocation| telemetry.record(invocation));
        let truth_us: u64 = second_half.iter().map(|invocation| invocation.duration_us).sum();
        let truth_ms = truth_us as f64 / 1e3 / second_half.len().max(1) as f64;
        (first_half.len() >= MIN_TELEMETRY).then_some(SizeCase {
            memory: Megabytes(memory_mb),
            telemetry,
            truth_ms,
        })
    };
    let sizes: Option<Vec<SizeCase>> = by_size.iter().map(size).collect();
    Some(Case { name: name.to_owned(), kind: kind::UNKNOWN.to_owned(), sizes: sizes? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_measurements_are_read_back() {
        let invocation = |duration_us: u64| Invocation {
            outcome: Outcome::Success,
            duration_us,
            billed_ms: duration_us.div_ceil(1_000),
            peak_kib: 40_000,
            work: Some(Work { user_us: duration_us / 2, minor_faults: 7, ..Work::default() }),
            ..Invocation::default()
        };
        let rows: Vec<Invocation> = [1_000, 3_000, 5_000, 7_000].map(invocation).to_vec();
        let measured = Measured::from([("f".to_owned(), BTreeMap::from([(512, rows)]))]);
        assert_eq!(from_json(&to_json(&measured).to_string()).unwrap(), measured);
        let case = case("f", &measured["f"]).unwrap();
        assert!((case.sizes[0].truth_ms - 6.0).abs() < 1e-9);
        assert_eq!(case.sizes[0].telemetry.invocations, 2);
        assert!(from_json("{}").is_err());
    }
}
