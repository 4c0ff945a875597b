//! The data set that `cargo xtask truth` measures: functions with their roles, and their invocations at each size.
//!
//! The schema is `tailor-truth/1`: JSON, compressed with gzip. At each size, half of the invocations of every environment is
//! telemetry with all counters, and the other half is the durations to predict.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::score::{Case, SizeCase};
use tailor_sizing::telemetry::invocation::{Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Megabytes;

/// The value of [`Truth::schema`].
pub const SCHEMA: &str = "tailor-truth/1";

/// What a function may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Constants of the model may be fitted to it.
    Train,
    /// Only for scores.
    Validation,
}

/// What a function is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its programming language.
    pub language: String,
    /// What it does most: `one-thread`, `collector`, `child-process` and others.
    pub kind: String,
    /// What it may be used for.
    pub role: Role,
    /// Whether it is a program of a sort that runs on Lambda.
    pub real: bool,
}

/// One measured invocation: duration (µs), billed time (ms), peak memory (KiB), counters in the order of [`Work`], without
/// zeros at the end.
pub type Row = (u64, u64, u64, Vec<u64>);

/// One function at one size.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MeasuredSize {
    /// Invocations that are input of a predictor.
    pub telemetry: Vec<Row>,
    /// Durations of the other invocations, µs.
    pub truth_us: Vec<u64>,
    /// Blocks of invocations that other work on the host disturbed each time.
    pub disturbed_blocks: u32,
}

/// One function at all sizes at which it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredFunction {
    /// What it is.
    #[serde(flatten)]
    pub description: Description,
    /// By size in MB.
    pub sizes: BTreeMap<u32, MeasuredSize>,
}

/// The data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// [`SCHEMA`].
    pub schema: String,
    /// The kernel's version on the host.
    pub kernel: String,
    /// The host's CPUs.
    pub cpus: u32,
    /// By name.
    pub functions: BTreeMap<String, MeasuredFunction>,
}

impl Truth {
    /// The functions of `role`, or all, as cases to score, with their descriptions.
    #[must_use]
    pub fn cases(&self, role: Option<Role>) -> Vec<(Description, Case)> {
        let of_role =
            |function: &&MeasuredFunction| role.is_none_or(|role| function.description.role == role);
        let functions = self.functions.iter().filter(|(_, function)| of_role(function));
        let case = |(name, function): (&String, &MeasuredFunction)| {
            let sizes =
                function.sizes.iter().filter_map(|(&memory_mb, size)| size_case(memory_mb, size)).collect();
            let description = function.description.clone();
            let kind = description.kind.clone();
            (description, Case { name: name.clone(), kind, sizes })
        };
        functions.map(case).filter(|(_, case)| case.sizes.len() > 1).collect()
    }
}

fn size_case(memory_mb: u32, size: &MeasuredSize) -> Option<SizeCase> {
    let mut telemetry = Rollup::default();
    size.telemetry.iter().for_each(|row| telemetry.record(&invocation(row)));
    let truth_us: u64 = size.truth_us.iter().sum();
    let truth_ms = truth_us as f64 / 1e3 / size.truth_us.len() as f64;
    let is_measured = !size.telemetry.is_empty() && !size.truth_us.is_empty();
    is_measured.then_some(SizeCase { memory: Megabytes(memory_mb), telemetry, truth_ms })
}

/// A row as an invocation.
#[must_use]
pub fn invocation((duration_us, billed_ms, peak_kib, counters): &Row) -> Invocation {
    Invocation {
        outcome: Outcome::Success,
        duration_us: *duration_us,
        billed_ms: *billed_ms,
        peak_kib: *peak_kib,
        work: Some(Work::from_counters(counters.iter().copied())),
        ..Invocation::default()
    }
}

/// An invocation as a row.
#[must_use]
pub fn row(invocation: &Invocation) -> Row {
    let mut counters = invocation.work.unwrap_or_default().counters().to_vec();
    let used = counters.iter().rposition(|&counter| counter > 0).map_or(0, |last| last + 1);
    counters.truncate(used);
    (invocation.duration_us, invocation.billed_ms, invocation.peak_kib, counters)
}

/// Reads a data set.
///
/// # Errors
/// When the file cannot be read or is not of this schema.
pub fn read(path: &Path) -> anyhow::Result<Truth> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut text = String::new();
    GzDecoder::new(&bytes[..])
        .read_to_string(&mut text)
        .with_context(|| format!("{} is not compressed with gzip", path.display()))?;
    let truth: Truth = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a data set of `cargo xtask truth`", path.display()))?;
    ensure!(
        truth.schema == SCHEMA,
        "{} has the schema `{}`; this version reads `{SCHEMA}`",
        path.display(),
        truth.schema
    );
    Ok(truth)
}

/// Writes a data set.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, truth: &Truth) -> anyhow::Result<()> {
    let cannot_write = || format!("cannot write {}", path.display());
    let mut encoder = GzEncoder::new(File::create(path).with_context(cannot_write)?, Compression::best());
    serde_json::to_writer(&mut encoder, truth).with_context(cannot_write)?;
    encoder.write_all(b"\n").with_context(cannot_write)?;
    encoder.finish().with_context(cannot_write)?;
    Ok(())
}
