//! The output of an experiment, in the form of AWS Lambda Power Tuning.

use serde::{Deserialize, Serialize};

use super::visualization;

/// The average of one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stat {
    /// The size, MB.
    pub value: u32,
    /// Mean cost of an invocation, dollars.
    pub average_price: f64,
    /// Mean duration, ms.
    pub average_duration: f64,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The best size, MB.
    #[serde(deserialize_with = "number")]
    pub power: u32,
    /// Its mean cost of an invocation, dollars.
    pub cost: f64,
    /// Its mean duration, ms.
    pub duration: f64,
    /// What the experiment cost.
    #[serde(rename = "stateMachine")]
    pub execution: Execution,
    /// Number of invocations. Power Tuning does not have it.
    #[serde(default)]
    pub invocations: u64,
    /// The averages of the measured sizes.
    #[serde(default)]
    pub stats: Vec<Stat>,
}

/// What an experiment cost, and its picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// Cost of the state machine, dollars; zero here, because there is none.
    #[serde(default)]
    pub execution_cost: f64,
    /// Cost of the invocations, dollars.
    #[serde(default)]
    pub lambda_cost: f64,
    /// Link of the visualization.
    #[serde(default)]
    pub visualization: String,
}

fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u32),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// Why a result of Power Tuning cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not Power Tuning's JSON.
    #[error("this is not the output of Power Tuning: {0}")]
    Json(serde_json::Error),
    /// It has no averages and no link with them.
    #[error("the output has no `stats` and no visualization link with them")]
    NoStats,
}

/// Reads the output of Power Tuning, as it is or below `results`, or a visualization link. The averages are from `stats`, or
/// else from the link.
///
/// # Errors
/// When the text has another form.
pub fn read(text: &str) -> Result<Vec<Stat>, ReadError> {
    if let Some(stats) = visualization::read(text.trim()) {
        return Ok(stats);
    }
    let outcome = read_outcome(text)?;
    if !outcome.stats.is_empty() {
        return Ok(outcome.stats);
    }
    visualization::read(&outcome.execution.visualization).ok_or(ReadError::NoStats)
}

/// Reads the output of Power Tuning, as it is or below `results`.
///
/// # Errors
/// When the text has another form.
pub fn read_outcome(text: &str) -> Result<Outcome, ReadError> {
    let mut value: serde_json::Value = serde_json::from_str(text).map_err(ReadError::Json)?;
    if let Some(results) = value.get_mut("results") {
        value = results.take();
    }
    serde_json::from_value(value).map_err(ReadError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_power_tuning_are_read() {
        let stats = [Stat { value: 128, average_price: 0.25, average_duration: 2.5 }];
        let link = visualization::link(&stats);
        let documented = format!(
            r#"{{"results": {{"power": "128", "cost": 0.0000002083, "duration": 2.9, "stateMachine":
                {{"executionCost": 0.00045, "lambdaCost": 0.0005252, "visualization": "{link}"}}}}}}"#
        );
        assert_eq!(read(&documented).unwrap(), stats);
        assert_eq!(read(&link).unwrap(), stats);
        let with_stats = r#"{"power": 256, "cost": 1e-7, "duration": 3, "stateMachine": {},
            "stats": [{"averagePrice": 0.25, "averageDuration": 2.5, "value": 128, "totalCost": 1}]}"#;
        assert_eq!(read(with_stats).unwrap(), stats);
        assert!(read("{}").is_err());
    }
}
