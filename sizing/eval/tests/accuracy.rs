//! Limits on the model's errors on validation and training functions, so that a change that breaks one fails.

use std::path::Path;

use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::units::{Architecture, Megabytes};
use tailor_sizing_eval::dataset;
use tailor_sizing_eval::paired::Predicted;
use tailor_sizing_eval::role::{self, Role};
use tailor_sizing_eval::score::{Case, enforcement, predictions, score};
use tailor_sizing_eval::truth;

#[test]
fn predictions_from_one_size_are_within_the_documented_error() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/throttled-functions");
    let cases = tailor_sizing_eval::throttled::read(&folder).unwrap();
    assert_eq!(cases.len(), 41);
    let rates = PriceTable::embedded().rates("us-east-1", Architecture::X86_64).unwrap();
    let bases = [256, 512, 1_024, 2_048, 3_008].map(Megabytes);
    let report = score(&cases, &bases, &rates);
    for (base, score) in &report.by_base {
        assert!(score.mape_mean <= 11.7, "from {base} MB the mean error is {:.1} %", score.mape_mean);
        assert!(score.mape_median <= 7.0, "from {base} MB the median error is {:.1} %", score.mape_median);
        assert!(score.best["pooled"] >= 65.0 && score.best_two_pooled >= 92.0, "{base} MB: {score:?}");
        assert!(score.regret_mean <= 5.0, "from {base} MB the mean regret is {:.1} %", score.regret_mean);
        let (in_80, in_95) = (score.coverage_80.unwrap(), score.coverage_95.unwrap());
        assert!((80.0..92.0).contains(&in_80) && in_95 >= 92.0, "from {base} MB: {in_80:.1}, {in_95:.1}");
    }
}

/// The published accuracy: no constant is fitted to these functions.
#[test]
fn unseen_functions_are_predicted_within_the_published_error() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/validation-functions");
    assert_eq!(role::of(&folder).unwrap(), Role::Validation);
    let cases = tailor_sizing_eval::throttled::read(&folder).unwrap();
    assert_eq!(cases.len(), 37);
    let rates = PriceTable::embedded().rates("us-east-1", Architecture::X86_64).unwrap();
    let limits = [(128, 30.2), (256, 15.3), (512, 11.4), (1_024, 12.8), (2_048, 12.1)];
    let report = score(&cases, &limits.map(|(base, _)| Megabytes(base)), &rates);
    for (base, limit) in limits {
        let score = &report.by_base[&base];
        assert!(score.mape_mean <= limit, "from {base} MB the mean error is {:.1} %", score.mape_mean);
        let median_limit = if base == 128 { 16.0 } else { 9.0 };
        assert!(
            score.mape_median <= median_limit,
            "from {base} MB the median error is {:.1} %",
            score.mape_median
        );
        let (in_80, in_95) = (score.coverage_80.unwrap(), score.coverage_95.unwrap());
        assert!((77.0..88.5).contains(&in_80) && in_95 >= 92.0, "from {base} MB: {in_80:.1}, {in_95:.1}");
    }
    // With a second size far away.
    for base in [256, 512].map(Megabytes) {
        let rows = predictions("validation", &cases, base, Some(Megabytes(2_048)));
        let mean = rows.iter().map(Predicted::error).sum::<f64>() / rows.len() as f64;
        assert!(mean <= 9.3, "from {base} and 2,048 MB the mean error is {mean:.1} %");
    }
}

/// The saved run of `cargo xtask bench sizing`: another kernel, telemetry of the extension itself.
#[test]
fn functions_of_the_sandbox_are_predicted_within_the_documented_error() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sandbox-functions.json");
    let measured = dataset::from_json(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases: Vec<Case> = measured.iter().filter_map(|(name, sizes)| dataset::case(name, sizes)).collect();
    assert_eq!(cases.len(), 22);
    let rates = PriceTable::embedded().rates("us-east-1", Architecture::X86_64).unwrap();
    let bases = [256, 512, 1_024, 2_048].map(Megabytes);
    let report = score(&cases, &bases, &rates);
    for (base, score) in &report.by_base {
        assert!(score.mape_mean <= 16.5, "from {base} MB the mean error is {:.1} %", score.mape_mean);
        assert!(score.mape_median <= 9.5, "from {base} MB the median error is {:.1} %", score.mape_median);
        let (in_80, in_95) = (score.coverage_80.unwrap(), score.coverage_95.unwrap());
        assert!((70.0..95.0).contains(&in_80) && in_95 >= 88.0, "from {base} MB: {in_80:.1}, {in_95:.1}");
    }
    // The functions alone identify the kernels of the two hosts.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/throttled-functions");
    let others = tailor_sizing_eval::throttled::read(&folder).unwrap();
    for base in [256, 512].map(Megabytes) {
        assert!(
            enforcement(&cases, base).high_resolution_probability() > 0.9
                && enforcement(&others, base).high_resolution_probability() < 0.1
        );
    }
}

/// Programs of the sorts that run on Lambda, measured by the extension where the kernel shows pressure.
#[test]
fn programs_with_pressure_are_predicted_within_the_published_error() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/truth.json.gz");
    let rates = PriceTable::embedded().rates("us-east-1", Architecture::X86_64).unwrap();
    let limits = [(128, 24.8), (256, 15.5), (512, 14.7), (1_024, 14.6), (2_048, 16.0)];
    let cases = dataset::read(&path, Some(truth::Role::Validation)).unwrap();
    assert_eq!(cases.len(), 38);
    let report = score(&cases, &limits.map(|(base, _)| Megabytes(base)), &rates);
    for (base, limit) in limits {
        let score = &report.by_base[&base];
        assert!(score.mape_mean <= limit, "from {base} MB the mean error is {:.1} %", score.mape_mean);
        assert!(score.mape_median <= 14.4, "from {base} MB the median error is {:.1} %", score.mape_median);
        assert!(
            score.coverage_80.unwrap() >= 79.0 && score.coverage_95.unwrap() >= 88.0,
            "{base} MB: {score:?}"
        );
    }
}
