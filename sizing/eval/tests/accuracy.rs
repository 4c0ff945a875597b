//! Limits on the model's errors on the sample functions, so that a change that breaks one fails.

use std::path::Path;

use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::units::{Architecture, Megabytes};
use tailor_sizing_eval::dataset;
use tailor_sizing_eval::score::{Case, enforcement, score};

#[test]
fn predictions_from_one_size_are_within_the_documented_error() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/throttled-functions");
    let cases = tailor_sizing_eval::throttled::read(&folder).unwrap();
    assert_eq!(cases.len(), 41);
    let rates = PriceTable::embedded().rates("us-east-1", Architecture::X86_64).unwrap();
    let bases = [256, 512, 1_024, 2_048, 3_008].map(Megabytes);
    let report = score(&cases, &bases, &rates);
    for (base, score) in &report.by_base {
        assert!(score.mape_mean <= 10.0, "from {base} MB the mean error is {:.1} %", score.mape_mean);
        assert!(score.mape_median <= 7.0, "from {base} MB the median error is {:.1} %", score.mape_median);
        assert!(score.best["pooled"] >= 72.0 && score.best_two_pooled >= 93.0, "{base} MB: {score:?}");
        assert!(score.regret_mean <= 3.0, "from {base} MB the mean regret is {:.1} %", score.regret_mean);
        let (in_80, in_95) = (score.coverage_80.unwrap(), score.coverage_95.unwrap());
        assert!((77.0..87.0).contains(&in_80) && in_95 >= 91.0, "from {base} MB: {in_80:.1}, {in_95:.1}");
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
        assert!(score.mape_mean <= 18.0, "from {base} MB the mean error is {:.1} %", score.mape_mean);
        assert!(score.mape_median <= 9.5, "from {base} MB the median error is {:.1} %", score.mape_median);
        let (in_80, in_95) = (score.coverage_80.unwrap(), score.coverage_95.unwrap());
        assert!((70.0..88.0).contains(&in_80) && in_95 >= 88.0, "from {base} MB: {in_80:.1}, {in_95:.1}");
    }
    // The functions alone identify the kernels of the two hosts.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/throttled-functions");
    let others = tailor_sizing_eval::throttled::read(&folder).unwrap();
    for base in [256, 512].map(Megabytes) {
        assert!(
            enforcement(&cases, base).high_resolution_probability() > 0.9
                && enforcement(&others, base).high_resolution_probability() < 0.02
        );
    }
}
