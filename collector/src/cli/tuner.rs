//! The arguments of the tuner, and its settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use tailor_sizing::units::Megabytes;

use super::arguments::strategy;
use crate::clock::DAY_US;
use crate::files::read_text;
use crate::query;
use crate::store::Tenant;
use crate::tuner::Settings;
use crate::tuner::aws::{AwsLambda, Role};
use crate::tuner::limits::{CanaryStep, Limits, OpenChanges};
use crate::tuner::mode::Mode;
use crate::tuner::policy_file::{self, FilePolicy};
use crate::tuner::requests::RequestStore;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tuner")]
pub(super) struct TunerArgs {
    /// What the tuner may do. It changes only functions with the tag `tailor:tune = apply` or `apply-up`.
    #[arg(long, env = "TAILOR_TUNER", value_enum, default_value_t)]
    pub(super) tuner: Mode,
    /// Policy file (`tailor.yaml`) that lowers what the tuner may do. `tailor policy check` checks it.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Seconds between two rounds of the tuner.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    tuner_interval: u64,
    /// Before a change: minimum number of warm invocations at the present size.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..))]
    tuner_evidence: u64,
    /// Minimum number of days with measurements of the present size before a change. Half of it with five times as many
    /// invocations and environments.
    #[arg(long, default_value_t = 14.0, value_parser = number)]
    tuner_evidence_days: f64,
    /// Minimum number of environments at the present size before a change.
    #[arg(long, default_value_t = 20)]
    tuner_evidence_environments: u64,
    /// After a change: minimum number of warm invocations at the new size before it is compared with its prediction.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(10..))]
    tuner_comparison: u64,
    /// Hours for which the new size serves all invocations before the change is settled.
    #[arg(long, default_value_t = 24.0, value_parser = number)]
    tuner_soak_hours: f64,
    /// Minutes at each weight of a canary.
    #[arg(long, default_value_t = 10.0, value_parser = number)]
    tuner_canary_minutes: f64,
    /// Weights of a canary, percent, in rising order, each with the invocations of the new version that it needs, together
    /// with those at earlier weights.
    #[arg(long, value_name = "PERCENT=INVOCATIONS,...", value_delimiter = ',', value_parser = canary_step, default_value = "1=50,5=150,25=450,50=900")]
    tuner_canary_steps: Vec<CanaryStep>,
    /// Smallest saving for which a function is changed, dollars a month. When several changes lead to the recommended size, all
    /// together must save this amount, and each at least a quarter of it.
    #[arg(long, default_value_t = 5.0, value_parser = number)]
    tuner_min_saving: f64,
    /// Largest memory size that the tuner sets, MB.
    #[arg(long, default_value_t = 3008, value_parser = clap::value_parser!(u32).range(128..=10_240))]
    tuner_max_memory: u32,
    /// Minimum number of minutes between the promotion of a reduction and the next change of the function. After an increase the
    /// minimum is at most one day.
    #[arg(long, default_value_t = 7 * 1_440)]
    tuner_cooldown: u64,
    /// Minutes after a deployment in which a function is not changed.
    #[arg(long, default_value_t = 60)]
    tuner_after_deployment: u64,
    /// Maximum number of changes that are open at the same time. Without it: 2 % of the functions that the tuner may change, at
    /// least 5 and at most 50, and 5 more for increases after out-of-memory.
    #[arg(long)]
    tuner_max_open_changes: Option<usize>,
    /// Maximum number of changes of one function in 30 days. Increases after out-of-memory do not count.
    #[arg(long, default_value_t = 2)]
    tuner_max_changes: usize,
    /// Largest share of the fleet's cost that open changes may concern, percent. Functions with a larger share are changed one at
    /// a time, beside the others.
    #[arg(long, default_value_t = 5.0, value_parser = percent)]
    tuner_max_open_spend: f64,
    /// Optimization goal: `cost`, `speed`, `balanced`, or a latency target such as `p95=300` (milliseconds). `cost` takes the
    /// fastest size within 3 % of the cheapest, `cost=5` within 5 %. `p95=300,cold` counts cold starts.
    #[arg(long, value_parser = strategy, default_value = query::DEFAULT_STRATEGY)]
    tuner_strategy: String,
    /// Tenant whose functions are changed. There is only one, because the AWS credentials are for its accounts.
    #[arg(long, default_value = "default")]
    tuner_tenant: String,
    /// Role that is assumed for the calls to Lambda; `{account}` in its ARN stands for the account of the function.
    #[arg(long, value_name = "ARN")]
    tuner_role: Option<String>,
    /// External id of the role's trust policy.
    #[arg(long, requires = "tuner_role")]
    tuner_external_id: Option<String>,
    /// Largest number of requests to Lambda a second. Lambda permits 15 for an account and region.
    #[arg(long, default_value_t = 2.0, value_parser = rate)]
    tuner_max_requests: f64,
    /// URL of the Lambda API, if it is not AWS; `AWS_ENDPOINT_URL_LAMBDA` does the same.
    #[arg(long)]
    lambda_endpoint: Option<String>,
}

fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=10_000.0).contains(&number) => Ok(number),
        _ => Err("use a number from 0 to 10000".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok(number),
        _ => Err("use a number from 0 to 100".to_owned()),
    }
}

/// Parses `5=150`: a weight in percent, and a number of invocations.
fn canary_step(text: &str) -> Result<CanaryStep, String> {
    let wrong = || "use PERCENT=INVOCATIONS with a weight from 0.01 to 99, such as 5=150".to_owned();
    let (weight, invocations) = text.trim().split_once('=').ok_or_else(wrong)?;
    let weight: f64 = weight.parse().map_err(|_| wrong())?;
    let invocations: u64 = invocations.parse().map_err(|_| wrong())?;
    if !(0.01..=99.0).contains(&weight) || invocations == 0 {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the weight has bounds")]
    Ok(CanaryStep { weight: (weight * 100.0).round() as u32, invocations })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.1..=1_000.0).contains(&number) => Ok(number),
        _ => Err("use a number from 0.1 to 1000".to_owned()),
    }
}

impl TunerArgs {
    /// The settings of the tuner.
    pub(super) fn settings(&self, data: &Path) -> anyhow::Result<Settings> {
        let minutes = |minutes: u64| minutes.saturating_mul(60_000_000);
        let defaults = Limits::default();
        let steps = &self.tuner_canary_steps;
        if !steps.is_sorted_by(|a, b| a.weight < b.weight && a.invocations <= b.invocations) {
            bail!("--tuner-canary-steps: the weights and their invocations must rise");
        }
        let cooldown_us = minutes(self.tuner_cooldown);
        let limits = Limits {
            evidence_invocations: self.tuner_evidence,
            evidence_us: part(self.tuner_evidence_days, DAY_US),
            evidence_environments: self.tuner_evidence_environments,
            soak_invocations: self.tuner_comparison,
            soak_us: part(self.tuner_soak_hours, DAY_US / 24),
            canary_step_us: part(self.tuner_canary_minutes, 60_000_000),
            canary_steps: steps.clone(),
            max_open_spend: self.tuner_max_open_spend / 100.0,
            min_saving_usd_month: self.tuner_min_saving,
            max_memory: Megabytes(self.tuner_max_memory),
            cooldown_down_us: cooldown_us,
            cooldown_up_us: cooldown_us.min(defaults.cooldown_up_us),
            after_deployment_us: minutes(self.tuner_after_deployment),
            open_changes: self.tuner_max_open_changes.map_or(defaults.open_changes, OpenChanges::fixed),
            max_changes_per_month: self.tuner_max_changes,
            ..defaults
        };
        Ok(Settings {
            tenant: Tenant(self.tuner_tenant.clone()),
            mode: self.tuner,
            policy: self.policy.as_deref().map(load_policy).transpose()?.unwrap_or_default(),
            interval: Duration::from_secs(self.tuner_interval),
            limits,
            // clap validated the argument.
            strategy: query::strategy(Some(&self.tuner_strategy), None).unwrap_or_default(),
            requests: Some(RequestStore::in_data_folder(data)),
            ..Settings::default()
        })
    }

    /// The client of Lambda.
    pub(super) async fn lambda(&self) -> AwsLambda {
        let role = self.tuner_role.as_ref();
        let role = role.map(|arn| Role { arn: arn.clone(), external_id: self.tuner_external_id.clone() });
        AwsLambda::new(self.lambda_endpoint.clone(), role, self.tuner_max_requests).await
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the arguments have bounds")]
fn part(number: f64, unit_us: u64) -> u64 {
    (number * unit_us as f64) as u64
}

/// Reads and checks a policy file.
pub(super) fn load_policy(path: &Path) -> anyhow::Result<FilePolicy> {
    let text = read_text(path).with_context(|| format!("cannot read the policy {}", path.display()))?;
    match policy_file::parse(&text) {
        Ok(policy) => Ok(policy),
        Err(faults) => bail!("the policy {} is not valid:\n  {}", path.display(), faults.join("\n  ")),
    }
}
