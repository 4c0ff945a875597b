//! Scores predictions from a few observed sizes on published duration curves of real AWS Lambda functions.
//!
//! `curves DIR`, where DIR contains the three files named in [`sets`]. The curves have no CPU counters, so the scores show
//! the accuracy with durations only. The model is compared with straight lines in the logarithms and with `a + b/m`.

mod sets;

use std::process::ExitCode;

use anyhow::Context;
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::model::predict::Model;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Megabytes;

use sets::{Curve, Set};

/// Assumed number of invocations of a published mean. Not all sets report it.
const INVOCATIONS: u64 = 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("curves: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("usage: curves DIR")?;
    println!("mean (median) absolute error in percent over the sizes that were not observed\n");
    println!(
        "{:<34} {:>8} {:>7}  {:>13} {:>13} {:>13}",
        "set", "observed", "fits", "model", "lines", "a + b/m"
    );
    for set in sets::read(folder.as_ref())? {
        for observed in [2, 3] {
            report(&set, observed);
        }
    }
    Ok(())
}

/// Prints one line with the errors for every choice of `observed` sizes of every curve.
fn report(set: &Set, observed: usize) {
    let mut errors: [Vec<f64>; 3] = Default::default();
    let mut fits = 0;
    for curve in &set.curves {
        for chosen in choices(curve.len(), observed) {
            let seen: Curve = chosen.iter().map(|&i| curve[i]).collect();
            let Some(model) = fit(&seen) else { continue };
            fits += 1;
            for (i, &(memory, truth_ms)) in curve.iter().enumerate() {
                if chosen.contains(&i) {
                    continue;
                }
                let predicted = [
                    model.predict(Megabytes(memory)).mean_ms,
                    lines(&seen, f64::from(memory)),
                    hyperbola(&seen, f64::from(memory)),
                ];
                for (errors, predicted_ms) in errors.iter_mut().zip(predicted) {
                    errors.push(100.0 * (predicted_ms / truth_ms - 1.0).abs());
                }
            }
        }
    }
    let cells = errors.map(|mut errors| {
        errors.sort_by(f64::total_cmp);
        let median = errors.get(errors.len() / 2).copied().unwrap_or_default();
        format!("{:.1} ({:.1})", errors.iter().sum::<f64>() / errors.len().max(1) as f64, median)
    });
    println!(
        "{:<34} {:>8} {:>7}  {:>13} {:>13} {:>13}",
        set.name, observed, fits, cells[0], cells[1], cells[2]
    );
}

fn fit(seen: &Curve) -> Option<Model> {
    let sizes: Vec<(Megabytes, Rollup)> = seen
        .iter()
        .map(|&(memory, ms)| {
            let mut rollup = Rollup { invocations: INVOCATIONS, ..Rollup::default() };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "casts of floats saturate"
            )]
            let us = (ms * 1e3).round() as u64;
            rollup.duration_us.record_many(us, INVOCATIONS);
            rollup.warm_duration_us.record_many(us, INVOCATIONS);
            (Megabytes(memory), rollup)
        })
        .collect();
    Model::fit(&sizes, Enforcement::default())
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
