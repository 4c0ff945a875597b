//! The last reconciliations as metrics.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use tailor_billing::compare::Status;
use tailor_sizing::pricing::money::PicoDollars;

use super::{LastReconciliations, Reconciliation};

/// Reads the file of the last reconciliations for each response.
#[derive(Debug)]
pub struct ReconciliationMetrics(pub LastReconciliations);

/// An amount or a number of the last reconciliation.
type Value = fn(&Reconciliation) -> f64;

const GAUGES: [(&str, &str, Option<&str>, Value); 5] = [
    (
        "tailor_reconciliation_billed",
        "What AWS billed, by the last reconciliation",
        Some("dollars"),
        |result| dollars(result.total.billed_pico_usd),
    ),
    (
        "tailor_reconciliation_computed",
        "What was computed for the same usage, by the last reconciliation",
        Some("dollars"),
        |result| dollars(result.total.computed_pico_usd),
    ),
    (
        "tailor_reconciliation_difference",
        "Billed minus computed, by the last reconciliation",
        Some("dollars"),
        |result| dollars(result.total.difference_pico_usd),
    ),
    (
        "tailor_reconciliation_unexplained",
        "The absolute differences that no reason explains, by the last reconciliation",
        Some("dollars"),
        |result| dollars(result.total.unexplained_pico_usd),
    ),
    ("tailor_reconciliation_timestamp", "When the last reconciliation was made", Some("seconds"), |result| {
        result.at_us as f64 / 1e6
    }),
];

fn dollars(amount: PicoDollars) -> f64 {
    amount.to_dollars()
}

/// One gauge with one value for each set of labels.
struct Gauges(Vec<(Vec<(&'static str, String)>, f64)>);

impl EncodeMetric for Gauges {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (labels, value) in &self.0 {
            encoder.encode_family(labels)?.encode_gauge(value)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

impl Collector for ReconciliationMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let results = match self.0.read() {
            Ok(results) => results,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "cannot read the last reconciliation");
                return Ok(());
            }
        };
        if results.is_empty() {
            return Ok(());
        }
        for (name, help, unit, value) in GAUGES {
            let values =
                results.iter().map(|(tenant, result)| (vec![("tenant", tenant.clone())], value(result)));
            let gauges = Gauges(values.collect());
            let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
            gauges.encode(encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?)?;
        }
        let mut rows = vec![];
        for (tenant, result) in &results {
            for status in [Status::Equal, Status::Explained, Status::Unexplained] {
                let labels = vec![("tenant", tenant.clone()), ("status", status.code().to_owned())];
                rows.push((labels, result.rows_with(status) as f64));
            }
        }
        let help = "Rows of the last reconciliation, by status";
        Gauges(rows).encode(encoder.encode_descriptor(
            "tailor_reconciliation_rows",
            help,
            None,
            MetricType::Gauge,
        )?)
    }
}
