//! Usage that measurements do not show, as the user gives it.

use serde::{Deserialize, Serialize};

use crate::pricing::meters::HOURS_PER_MONTH;

/// Usage of one function in a month of 30 days. A field that is absent is not known. Zero means that it is not used.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GivenUsage {
    /// Provisioned concurrency; an empty list when there is none.
    pub provisioned_concurrency: Option<Vec<ProvisionedCapacity>>,
    /// Published versions with a cached snapshot.
    pub snap_start_versions: Option<u64>,
    /// Bytes of streamed responses beyond the first 6 MB of each response.
    pub streamed_bytes: Option<u64>,
    /// Operations of durable executions.
    pub durable_operations: Option<u64>,
    /// Bytes that durable executions write.
    pub durable_written_bytes: Option<u64>,
    /// Bytes that durable executions keep on average.
    pub durable_kept_bytes: Option<u64>,
    /// Environments that are created with tenant isolation.
    pub tenant_environments: Option<u64>,
    /// Bytes of logs. They replace the bytes that an import counted.
    pub log_bytes: Option<u64>,
    /// Where its logs go.
    pub log_destination: LogDestination,
    /// Bytes that its log group keeps, compressed, as CloudWatch shows them (`storedBytes`).
    pub log_stored_bytes: Option<u64>,
    /// Bytes that leave the region.
    pub transfer_out_bytes: Option<u64>,
    /// Hours of event poller units of event source mappings of Kafka.
    pub kafka_poller_hours: Option<u64>,
    /// Hours of event poller units of event source mappings of SQS.
    pub sqs_poller_hours: Option<u64>,
}

/// Provisioned concurrency in a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvisionedCapacity {
    /// Environments.
    pub concurrency: u32,
    /// Hours in a month of 30 days for which it is enabled; the whole month when absent.
    #[serde(default = "whole_month")]
    pub hours: u64,
    /// Memory of an environment, MB; the present size of the function when absent.
    #[serde(default)]
    pub memory_mb: Option<u32>,
}

const fn whole_month() -> u64 {
    HOURS_PER_MONTH
}

/// Where the logs of a function go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDestination {
    /// CloudWatch Logs, the default of Lambda.
    #[default]
    Cloudwatch,
    /// S3, through the delivery of CloudWatch.
    S3,
    /// Firehose, through the delivery of CloudWatch.
    Firehose,
    /// Nowhere.
    None,
}

/// An amount of a month, for a time of `hours`, rounded half up.
pub(super) fn in_hours(amount: u64, hours: u64) -> u128 {
    let month = u128::from(HOURS_PER_MONTH);
    (u128::from(amount) * u128::from(hours) + month / 2) / month
}
