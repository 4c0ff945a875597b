//! The output of AWS Lambda Power Tuning as a recommendation.

use tailor_sizing::units::Megabytes;

use super::{Recommendation, Tool, dollars};
use crate::experiment::outcome::{self, ReadError};

/// Invocations whose cost is shown.
const MILLION: f64 = 1e6;

/// Reads the output, as it is or below `results`.
///
/// # Errors
/// When the text has another form. A visualization link has the averages of all sizes, and not the recommended one.
pub fn read(text: &str, version: &str, imported_at_us: u64) -> Result<Recommendation, ReadError> {
    let outcome = outcome::read_outcome(text)?;
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
        assert!(read("{}", "", 0).is_err());
    }
}
