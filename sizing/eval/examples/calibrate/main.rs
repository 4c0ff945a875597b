//! Computes the constants of `sizing/src/model/uncertainty.rs` and `sizing/src/model/interval.rs`.
//!
//! `calibrate SOURCE...`, where each SOURCE is a folder as for `evaluate` or a saved run of `cargo xtask bench sizing`.
//! The program predicts every size of every function from every other size. It fits the weights of the uncertainties by
//! maximum likelihood of the errors (Student's t distribution with five degrees of freedom, because a few errors are much
//! larger than most). Then it computes the widths that contain 80 % and 95 % of the errors. It prints the constants, and
//! the coverage of the intervals on functions that were not in the fit.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::ensure;
use tailor_sizing::model::predict::Model;
use tailor_sizing::model::uncertainty::WEIGHTS;
use tailor_sizing_eval::dataset;
use tailor_sizing_eval::role::Role;
use tailor_sizing_eval::score::{Case, enforcement};
use tailor_sizing_eval::truth;

/// Degrees of freedom of the error's distribution.
const FREEDOM: f64 = 5.0;

/// Number of folds of the cross-validation over the functions.
const FOLDS: usize = 8;

/// Indices of weights that are not fitted: the noise of a mean is known, and no measured function was near its memory
/// limit.
const FIXED: [usize; 2] = [0, WEIGHTS.len() - 1];

/// One prediction: its source, function and base size, its uncertainties, and its error as a logarithm.
struct Sample {
    source: usize,
    function: usize,
    base_mb: u32,
    uncertainties: [f64; WEIGHTS.len()],
    error: f64,
}

/// The fitted constants.
struct Fit {
    weights: [f64; WEIGHTS.len()],
    width_80: f64,
    width_95: f64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("calibrate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let sources: Vec<String> = std::env::args().skip(1).collect();
    ensure!(!sources.is_empty(), "usage: calibrate SOURCE...");
    let mut samples = Vec::new();
    for (source, path) in sources.iter().enumerate() {
        let role = tailor_sizing_eval::role::of(path.as_ref())?;
        ensure!(role == Role::Train, "{path} is a {role} set: constants are fitted to training sets only");
        samples.extend(predictions(
            source,
            samples.len(),
            &dataset::read(path.as_ref(), Some(truth::Role::Train))?,
        ));
    }
    // By source, base size and function: number of predictions, and of those within each interval.
    let mut coverage: BTreeMap<(usize, u32), BTreeMap<usize, [f64; 3]>> = BTreeMap::new();
    let mut log_likelihood = 0.0;
    for fold in 0..FOLDS {
        let (left_out, seen): (Vec<&Sample>, Vec<&Sample>) =
            samples.iter().partition(|sample| sample.function % FOLDS == fold);
        let fit = Fit::of(&seen);
        log_likelihood += fit.log_likelihood(&left_out);
        for sample in left_out {
            let off = fit.standardized(sample);
            let by_function = coverage.entry((sample.source, sample.base_mb)).or_default();
            let counts = by_function.entry(sample.function).or_default();
            counts[0] += 1.0;
            counts[1] += f64::from(u8::from(off <= fit.width_80));
            counts[2] += f64::from(u8::from(off <= fit.width_95));
        }
    }
    let Fit { weights, width_80, width_95 } = Fit::of(&samples.iter().collect::<Vec<_>>());
    println!("WEIGHTS {weights:.5?}\nWIDTH_80 {width_80:.2}\nWIDTH_95 {width_95:.2}\n");
    println!("log-likelihood of the errors of held-out functions: {log_likelihood:.0}");
    println!("coverage in percent, and its standard error over the functions");
    for (source, path) in sources.iter().enumerate() {
        println!("\n{path}\nbase MB        in 80         in 95");
        let mut all: BTreeMap<usize, [f64; 3]> = BTreeMap::new();
        for ((_, base), functions) in coverage.iter().filter(|((of, _), _)| *of == source) {
            println!("{base:>7} {} {}", share(functions, 1), share(functions, 2));
            for (&function, counts) in functions {
                let sum = all.entry(function).or_default();
                *sum = std::array::from_fn(|i| sum[i] + counts[i]);
            }
        }
        println!("    all {} {}", share(&all, 1), share(&all, 2));
    }
    Ok(())
}

/// The percentage of predictions within an interval, and its standard error. The errors of one function are correlated, so
/// the standard error is computed over the functions.
fn share(functions: &BTreeMap<usize, [f64; 3]>, which: usize) -> String {
    let sum = |i: usize| functions.values().map(|counts| counts[i]).sum::<f64>();
    let covered = sum(which) / sum(0);
    let off = |counts: &[f64; 3]| (counts[which] - covered * counts[0]).powi(2);
    let error = functions.values().map(off).sum::<f64>().sqrt() / sum(0);
    format!("{:>7.1} ± {:>3.1}", 100.0 * covered, 100.0 * error)
}

/// Predicts every size of every case from every other size. Functions are numbered from `first`.
fn predictions(source: usize, first: usize, cases: &[Case]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        for base in &case.sizes {
            let telemetry = [(base.memory, base.telemetry.clone())];
            let Some(model) = Model::fit(&telemetry, enforcement(cases, base.memory)) else { continue };
            for target in case.sizes.iter().filter(|target| target.memory != base.memory) {
                samples.push(Sample {
                    source,
                    function: first + number,
                    base_mb: base.memory.0,
                    uncertainties: model.uncertainty(target.memory).parts(),
                    error: (target.truth_ms / model.predict(target.memory).mean_ms).ln(),
                });
            }
        }
    }
    samples
}

impl Fit {
    /// Maximizes the likelihood by coordinate ascent: changes one weight at a time, with decreasing factors.
    fn of(samples: &[&Sample]) -> Self {
        let mut fit = Self { weights: WEIGHTS, width_80: 0.0, width_95: 0.0 };
        let mut best = fit.log_likelihood(samples);
        for step in [8.0, 4.0, 2.0, 1.4, 1.15, 1.05] {
            let mut improved = true;
            while improved {
                improved = false;
                for i in (0..WEIGHTS.len()).filter(|i| !FIXED.contains(i)) {
                    for factor in [step, 1.0 / step] {
                        let before = fit.weights[i];
                        fit.weights[i] = before * factor;
                        let now = fit.log_likelihood(samples);
                        if now > best + 1e-6 {
                            best = now;
                            improved = true;
                        } else {
                            fit.weights[i] = before;
                        }
                    }
                }
            }
        }
        let mut offs: Vec<f64> = samples.iter().map(|sample| fit.standardized(sample)).collect();
        offs.sort_by(f64::total_cmp);
        let at = |percent: usize| offs.get(offs.len() * percent / 100).copied().unwrap_or_default();
        (fit.width_80, fit.width_95) = (at(80), at(95));
        fit
    }

    fn deviation(&self, sample: &Sample) -> f64 {
        let variance: f64 = sample
            .uncertainties
            .iter()
            .zip(self.weights)
            .map(|(uncertainty, weight)| uncertainty * weight)
            .sum();
        variance.sqrt().max(1e-6)
    }

    fn standardized(&self, sample: &Sample) -> f64 {
        sample.error.abs() / self.deviation(sample)
    }

    fn log_likelihood(&self, samples: &[&Sample]) -> f64 {
        let one = |sample: &&Sample| {
            let off = self.standardized(sample);
            -(FREEDOM + 1.0) / 2.0 * (1.0 + off * off / FREEDOM).ln() - self.deviation(sample).ln()
        };
        samples.iter().map(one).sum()
    }
}
