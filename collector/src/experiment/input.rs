//! The input of an experiment, in the form of AWS Lambda Power Tuning.

use serde::Deserialize;
use serde_json::Value;

use tailor_sizing::units::Megabytes;

/// The sizes that are measured when none are given, MB.
pub const DEFAULT_SIZES: [u32; 6] = [128, 256, 512, 1_024, 1_536, 3_008];
/// Fewest invocations at each size, as in Power Tuning.
pub const MIN_INVOCATIONS: u32 = 5;

/// The input. Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Input {
    /// Name or ARN of the function, also with a version or an alias.
    #[serde(rename = "lambdaARN")]
    pub function: String,
    /// The sizes, MB.
    pub power_values: Option<PowerValues>,
    /// Invocations at each size.
    pub num: Option<u32>,
    /// The event, or a list of `{"payload", "weight"}`.
    pub payload: Option<Value>,
    /// The event as an object of S3: `s3://BUCKET/KEY`.
    #[serde(rename = "payloadS3")]
    pub payload_s3: Option<String>,
    /// Whether the invocations at one size run at the same time.
    pub parallel_invocation: bool,
    /// What is optimized.
    pub strategy: Strategy,
    /// Weight of cost for `balanced`, from 0 to 1.
    pub balanced_weight: Option<f64>,
    /// The share of the fastest and of the slowest invocations that are left out, from 0 to 0.4.
    pub discard_top_bottom: Option<f64>,
    /// Whether the function is invoked only once, at its present size.
    pub dry_run: bool,
    /// Whether every invocation is the first of an environment.
    pub only_cold_starts: bool,
    /// Whether the function gets the best size at the end.
    pub auto_optimize: bool,
    /// The alias that then gets a version with that size.
    pub auto_optimize_alias: Option<String>,
    /// A function that is invoked before each invocation. What it returns is the event.
    #[serde(rename = "preProcessorARN")]
    pub pre_processor: Option<String>,
    /// A function that is invoked after each invocation, with its response.
    #[serde(rename = "postProcessorARN")]
    pub post_processor: Option<String>,
    /// Error types that count as success.
    pub allowed_exceptions: Vec<String>,
    /// Pause between two invocations, ms.
    pub sleep_between_runs_ms: u64,
}

/// A list of sizes, or the text `ALL`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum PowerValues {
    /// These sizes, MB.
    List(Vec<u32>),
    /// `ALL`: from 128 to 3,008 MB in steps of 64 MB.
    Text(String),
}

/// What is optimized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The cheapest size.
    #[default]
    Cost,
    /// The fastest size.
    Speed,
    /// Both, by a weight.
    Balanced,
}

/// Why an input is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InputError(String);

impl Input {
    /// The sizes in rising order, each once.
    ///
    /// # Errors
    /// When a size is not from 128 to 10,240 MB, or there is none.
    pub fn sizes(&self) -> Result<Vec<Megabytes>, InputError> {
        let mut sizes = match &self.power_values {
            None => DEFAULT_SIZES.to_vec(),
            Some(PowerValues::List(list)) => list.clone(),
            Some(PowerValues::Text(text)) if text.eq_ignore_ascii_case("all") => {
                (128..=3_008).step_by(64).collect()
            }
            Some(PowerValues::Text(text)) => {
                return Err(InputError(format!("`powerValues` is a list of MB or `ALL`, not `{text}`")));
            }
        };
        sizes.sort_unstable();
        sizes.dedup();
        match sizes.iter().find(|size| !(128..=10_240).contains(*size)) {
            Some(size) => Err(InputError(format!("{size} MB is not a memory size: use 128 to 10240"))),
            None if sizes.is_empty() => Err(InputError("`powerValues` has no sizes".to_owned())),
            None => Ok(sizes.into_iter().map(Megabytes).collect()),
        }
    }

    /// Invocations at each size.
    #[must_use]
    pub fn invocations(&self) -> u32 {
        self.num.unwrap_or(20)
    }

    /// The share that is left out at each end.
    #[must_use]
    pub fn discarded(&self) -> f64 {
        self.discard_top_bottom.unwrap_or(0.2).clamp(0.0, 0.4)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first value that is not valid.
    pub fn check(&self) -> Result<(), InputError> {
        self.sizes()?;
        if self.invocations() < MIN_INVOCATIONS {
            return Err(InputError(format!("`num` is at least {MIN_INVOCATIONS}")));
        }
        if self.balanced_weight.is_some_and(|weight| !(0.0..=1.0).contains(&weight)) {
            return Err(InputError("`balancedWeight` is from 0 to 1".to_owned()));
        }
        if self.payload.is_some() && self.payload_s3.is_some() {
            return Err(InputError("`payload` and `payloadS3` exclude each other".to_owned()));
        }
        if self.auto_optimize_alias.is_some() && !self.auto_optimize {
            return Err(InputError("`autoOptimizeAlias` needs `autoOptimize`".to_owned()));
        }
        self.payloads().map(drop)
    }

    /// The events of the invocations at one size, in their order. Weighted events are spread evenly, so that a part of
    /// the list has nearly the same weights.
    ///
    /// # Errors
    /// When the weights are not valid, or there are more events than invocations.
    pub fn payloads(&self) -> Result<Vec<Value>, InputError> {
        let count = self.invocations() as usize;
        let payload = self.payload.clone().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let Some(weighted) = weighted(&payload) else { return Ok(vec![payload; count]) };
        let total: f64 = weighted.iter().map(|(_, weight)| weight).sum();
        if weighted.len() > count {
            return Err(InputError(format!("{} payloads need `num` of at least as much", weighted.len())));
        }
        if !total.is_finite() || total <= 0.0 || weighted.iter().any(|(_, weight)| *weight < 0.0) {
            return Err(InputError("the weights of the payloads are positive numbers".to_owned()));
        }
        // Each event at least once, then always the event that is furthest behind its share.
        let mut counts = vec![0_u32; weighted.len()];
        let mut payloads = Vec::with_capacity(count);
        for done in 0..count {
            let behind = |index: usize| {
                let due = weighted[index].1 / total * (done + 1) as f64;
                due - f64::from(counts[index])
            };
            let missing = counts.iter().filter(|count| **count == 0).count();
            let candidates =
                (0..weighted.len()).filter(|index| missing < count - done || counts[*index] == 0);
            let next = candidates.max_by(|a, b| behind(*a).total_cmp(&behind(*b))).unwrap_or(0);
            counts[next] += 1;
            payloads.push(weighted[next].0.clone());
        }
        Ok(payloads)
    }
}

/// The events and weights, if the payload is a list of them.
fn weighted(payload: &Value) -> Option<Vec<(Value, f64)>> {
    let list = payload.as_array().filter(|list| !list.is_empty())?;
    list.iter().map(|item| Some((item.get("payload")?.clone(), item.get("weight")?.as_f64()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_tunings_input_is_read() {
        let input: Input = serde_json::from_str(
            r#"{"lambdaARN": "arn:aws:lambda:eu-west-1:123456789012:function:shop:3", "powerValues": [512, 128, 512],
                "num": 10, "strategy": "balanced", "balancedWeight": 0.7, "parallelInvocation": true,
                "preProcessorARN": "before", "allowedExceptions": ["Busy"], "payload":
                [{"payload": "a", "weight": 5}, {"payload": "b", "weight": 15}, {"payload": "c", "weight": 0.1}]}"#,
        )
        .unwrap();
        input.check().unwrap();
        assert_eq!(input.sizes().unwrap(), [Megabytes(128), Megabytes(512)]);
        let payloads = input.payloads().unwrap();
        let count = |name: &str| payloads.iter().filter(|payload| **payload == name).count();
        assert_eq!([count("a"), count("b"), count("c")], [2, 7, 1]);
        let all = Input { power_values: Some(PowerValues::Text("ALL".to_owned())), ..Input::default() };
        assert_eq!(all.sizes().unwrap().len(), 46);
        let small = Input { num: Some(2), ..input };
        assert!(small.check().is_err() && small.payloads().is_err());
    }
}
