//! Limits on the errors on published measurements of real AWS Lambda functions.

use std::path::PathBuf;

use tailor_sizing::model::cfs_simulation::{Kernel, TICK_MS};
use tailor_sizing::units::Megabytes;
use tailor_sizing_eval::curves::{self, blind, replay};
use tailor_sizing_eval::throttling::Iterations;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/aws-curves")
}

/// Without CPU counters, two sizes predict the others at least as well as `a + b / memory` does.
#[test]
fn durations_of_two_sizes_predict_no_worse_than_a_hyperbola() {
    let sets = curves::read(&folder()).unwrap();
    assert_eq!(sets.len(), 10, "{:?}", sets.iter().map(|set| &set.name).collect::<Vec<_>>());
    let mut worse = Vec::new();
    for set in &sets {
        // All choices of small sets, and few of large ones, so that the test takes seconds.
        let most = match set.name.as_str() {
            "power-tuning-published" => 8,
            name if name.starts_with("cold-start") => 2,
            _ => 28,
        };
        let score = blind(set, 2, most);
        assert!(score.predictions >= 24, "{}: {score:?}", set.name);
        if score.model > score.hyperbola {
            worse.push((&set.name, score));
        }
    }
    assert!(worse.is_empty(), "{worse:?}");
}

/// The limits are those that were reached: warm durations of the benchmark scatter more than cold ones.
#[test]
fn functions_that_only_compute_are_predicted_from_one_size() {
    for set in curves::read(&folder()).unwrap().iter().filter(|set| set.only_computes()) {
        let limit = if set.name.ends_with("cold") { 3.2 } else { 6.1 };
        for base in [256, 512, 1_024].map(Megabytes) {
            let error = replay(&set.curves, base).unwrap();
            assert!(error <= limit, "{} from {base}: {error:.1} %", set.name);
        }
    }
}

/// The kernel of real Lambda is tick-based, and 4 ms explain it better than the neighbouring ticks.
#[test]
fn throttling_on_lambda_is_explained_by_the_timer_tick_of_the_model() {
    let iterations = Iterations::read(&folder()).unwrap();
    let of_the_model = iterations.log_likelihood(Kernel::TickBased, TICK_MS);
    let high_resolution = iterations.log_likelihood(Kernel::HighResolution, TICK_MS);
    assert!(of_the_model > high_resolution + 100.0, "{of_the_model} and {high_resolution}");
    for tick_ms in [1.0, 2.0, 3.0, 6.0] {
        let other = iterations.log_likelihood(Kernel::TickBased, tick_ms);
        assert!(of_the_model > other + 20.0, "tick of {tick_ms} ms: {other}, of the model: {of_the_model}");
    }
}
