//! The output of AWS Lambda Power Tuning as a recommendation.

use tailor_sizing::units::Megabytes;

use super::{MeasuredSize, Recommendation, Tool, dollars};
use crate::experiment::outcome::{self, ReadError};

/// Invocations whose cost is shown.
const MILLION: f64 = 1e6;

/// Reads the output, as it is or below `results`.
///
/// # Errors
/// When the text has another form. A visualization link has the averages of all sizes, and not the recommended one.
pub fn read(text: &str, version: &str, imported_at_us: u64) -> Result<Recommendation, ReadError> {
    let outcome = outcome::read_outcome(text)?;
    // Outputs without averages have the recommended size only.
    let stats = outcome::read(text).unwrap_or_default();
    let sizes = stats.iter().filter(|stat| stat.average_duration.is_finite() && stat.average_duration > 0.0);
    let sizes = sizes.map(|stat| MeasuredSize {
        memory: Megabytes(stat.value),
        duration_ms: stat.average_duration,
        cost_per_million_pico_usd: dollars(stat.average_price, MILLION),
    });
    Ok(Recommendation {
        tool: Tool::PowerTuning,
        version: version.to_owned(),
        memory: Some(Megabytes(outcome.power)),
        current: None,
        duration_ms: Some(outcome.duration),
        cost_per_million_pico_usd: dollars(outcome.cost, MILLION),
        monthly_saving_pico_usd: None,
        finding: String::new(),
        made_at: String::new(),
        imported_at_us,
        sizes: sizes.collect(),
    })
}

#[cfg(test)]
mod tests {
    use tailor_sizing::pricing::money::PicoDollars;

    use super::*;

    #[test]
    fn the_recommended_size_its_cost_and_duration_are_read() {
        let text = r#"{"power": "512", "cost": 0.0000002083, "duration": 2.906, "stateMachine": {"lambdaCost": 0.1}}"#;
        for text in [text.to_owned(), format!(r#"{{"results": {text}}}"#)] {
            let read = read(&text, "7", 9).unwrap();
            assert_eq!((read.memory, read.duration_ms), (Some(Megabytes(512)), Some(2.906)));
            assert_eq!(read.cost_per_million_pico_usd, Some(PicoDollars(208_300_000_000)));
            assert_eq!(
                read.sentence(),
                "AWS Lambda Power Tuning recommends 512 MB for version 7 (mean duration 2.9 ms, $0.208 for a million \
                 invocations)"
            );
        }
        let stats = r#"{"power": 512, "cost": 1e-7, "duration": 3, "stateMachine": {},
            "stats": [{"averagePrice": 0.00000025, "averageDuration": 2.5, "value": 128}]}"#;
        let at_128 = MeasuredSize {
            memory: Megabytes(128),
            duration_ms: 2.5,
            cost_per_million_pico_usd: Some(PicoDollars(250_000_000_000)),
        };
        assert_eq!(read(stats, "", 0).unwrap().sizes, [at_128]);
        assert!(read("{}", "", 0).is_err());
    }
}
