//! The log events of a log group of CloudWatch Logs.

use std::io::Write as _;

use anyhow::{Context, bail};
use aws_sdk_cloudwatchlogs::{Client, types};
use serde_json::json;
use tailor_logs::Origin;
use tailor_sizing::pricing::meters::Meter;
use tailor_sizing::pricing::prices::PriceTable;

use crate::causes;
use crate::s3::shared_config;

/// Events that one request returns at most, which is AWS's limit.
const PAGE: i32 = 10_000;

/// Bytes of a GB of data transfer.
const GB: f64 = 1_073_741_824.0;

/// Only these lines are read: those of the platform, in text and in JSON logs. The size of the log is therefore not known.
const PATTERN: &str =
    "?\"REPORT\" ?\"INIT_START\" ?\"START\" ?\"Task timed out\" ?\"platform.\" ?\"Runtime exited\"";

/// A log group.
#[derive(Debug, Clone)]
pub struct LogGroup {
    client: Client,
    /// Its name.
    pub name: String,
    /// Its region; empty when it is not known.
    pub region: String,
    /// Where its events come from, as its ARN states it: region, account, and the function of `/aws/lambda/NAME`.
    pub origin: Origin,
    /// What is stored of it, bytes.
    pub stored_bytes: u64,
}

/// A page of events.
#[derive(Debug, Clone)]
pub struct Page {
    /// The events as a document of `aws logs filter-log-events`.
    pub document: Vec<u8>,
    /// What the next request needs; `None` after the last page.
    next: Option<String>,
}

impl LogGroup {
    /// Finds a log group.
    ///
    /// # Errors
    /// When it does not exist, or CloudWatch Logs refuses or cannot be reached.
    pub async fn find(name: &str, region: Option<&str>) -> anyhow::Result<Self> {
        let shared = shared_config(region).await;
        let client = Client::new(&shared);
        let groups = client.describe_log_groups().log_group_name_prefix(name).send().await;
        let groups = groups.map_err(|error| anyhow::anyhow!(causes::of_aws(&error)));
        let groups = groups.with_context(|| {
            format!("cannot read the log group {name}: the credentials need logs:DescribeLogGroups and logs:FilterLogEvents")
        })?;
        let group = groups.log_groups().iter().find(|group| group.log_group_name() == Some(name));
        let Some(group) = group else {
            bail!("there is no log group {name}: correct the name or the region (--region)");
        };
        let stored_bytes = u64::try_from(group.stored_bytes().unwrap_or(0)).unwrap_or(0);
        let region = shared.region().map(ToString::to_string).unwrap_or_default();
        let origin = origin(group, name, &region);
        Ok(Self { client, name: name.to_owned(), region, origin, stored_bytes })
    }

    /// What it would cost if everything that is stored left the region, as a sentence. The price is that of the first tier of
    /// data transfer; where the table has none for the region, the price of us-east-1.
    #[must_use]
    pub fn transfer_cost(&self, prices: &PriceTable) -> String {
        let price = |region| {
            let price = prices.meter(region, Meter::DataTransferOut)?;
            Some((region, price.tiers.first()?.price, &price.source))
        };
        let Some((region, gb, source)) = price(self.region.as_str()).or_else(|| price("us-east-1")) else {
            return "No price of data transfer is known".to_owned();
        };
        let dollars = self.stored_bytes as f64 / GB * gb.to_dollars();
        format!(
            "If all of it left the region, data transfer would cost {dollars:.2} dollars: {} dollars per GB in {region} ({}, {})",
            gb.to_decimal(),
            source.name,
            source.date
        )
    }

    /// The events from `from_us` on, microseconds since the Unix epoch, after `previous`. `None` when there are no more.
    ///
    /// # Errors
    /// When CloudWatch Logs refuses or cannot be reached.
    pub async fn page(&self, from_us: u64, previous: Option<&Page>) -> anyhow::Result<Option<Page>> {
        let token = match previous {
            None => None,
            Some(Page { next: None, .. }) => return Ok(None),
            Some(Page { next, .. }) => next.clone(),
        };
        let page = self
            .client
            .filter_log_events()
            .log_group_name(&self.name)
            .filter_pattern(PATTERN)
            .start_time(i64::try_from(from_us / 1_000).unwrap_or(i64::MAX))
            .limit(PAGE)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| anyhow::anyhow!(causes::of_aws(&error)))
            .with_context(|| format!("cannot read the log group {}", self.name))?;
        let events: Vec<_> = page
            .events()
            .iter()
            .map(|event| {
                json!({
                    "logStreamName": event.log_stream_name(),
                    "timestamp": event.timestamp(),
                    "message": event.message(),
                    "eventId": event.event_id(),
                })
            })
            .collect();
        let mut document = vec![];
        writeln!(document, "{}", json!({ "events": events }))?;
        Ok(Some(Page { document, next: page.next_token().map(str::to_owned) }))
    }
}

/// Where the events of a log group come from. Custom log groups name no function, but their log streams do.
fn origin(group: &types::LogGroup, name: &str, region: &str) -> Origin {
    let mut origin = Origin::default();
    origin.set_group(group.log_group_arn().or_else(|| group.arn()).unwrap_or(name));
    if origin.region.is_empty() {
        region.clone_into(&mut origin.region);
    }
    origin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arn_of_a_log_group_states_region_and_account() {
        let of = |arn: Option<&str>, name: &str| {
            let group = types::LogGroup::builder().set_arn(arn.map(str::to_owned)).build();
            let Origin { account, region, function, .. } = origin(&group, name, "us-east-1");
            [account, region, function]
        };
        let arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/pay:*";
        assert_eq!(of(Some(arn), "/aws/lambda/pay"), ["123456789012", "eu-west-1", "pay"]);
        let custom = "arn:aws:logs:eu-west-1:123456789012:log-group:/shop/all:*";
        assert_eq!(of(Some(custom), "/shop/all"), ["123456789012", "eu-west-1", ""]);
        assert_eq!(of(None, "/aws/lambda/pay"), ["", "us-east-1", "pay"]);
    }
}
