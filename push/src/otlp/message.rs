//! The messages: resources, metrics and data points.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource as WireResource;
use prost::Message as _;
use sha2::{Digest, Sha256};
use tailor_sizing::pricing::money::PicoDollars;

use super::{Distribution, FunctionGauges, FunctionTotals, Temporality};

/// The version of the semantic conventions that names and units are of.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The name of the instrumentation scope.
const SCOPE: &str = "tailor";

/// `faas.name` of all functions without metrics of their own. It is not a name that Lambda accepts.
const REST: &str = "(rest)";

/// Most resources in one request, so that it stays below the usual limit of 4 MiB.
pub const RESOURCES_PER_REQUEST: usize = 200;

/// The collector that sends.
#[derive(Debug, Clone)]
pub struct Exporter {
    /// A random id that stays when the collector starts again.
    pub id: String,
    /// Its version.
    pub version: String,
    /// How sums relate to the exports before.
    pub temporality: Temporality,
}

/// What a resource is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// One function.
    Function {
        /// AWS account; empty when unknown.
        account: &'a str,
        /// AWS region.
        region: &'a str,
        /// Function name.
        name: &'a str,
    },
    /// All functions without metrics of their own.
    Rest,
    /// The fleet.
    Fleet,
}

/// Hints of the fleet with the same code.
#[derive(Debug, Clone, PartialEq)]
pub struct HintGauges {
    /// The code.
    pub code: String,
    /// Functions that have it.
    pub functions: u64,
    /// What acting on it would have saved in the last 30 days.
    pub savings: PicoDollars,
}

/// What is known of the fleet now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FleetGauges {
    /// Functions that were invoked in the last 30 days.
    pub functions: u64,
    /// Whether the tuner is frozen.
    pub is_frozen: bool,
    /// By code.
    pub hints: Vec<HintGauges>,
    /// Number of changes of the tuner by their state now.
    pub changes: Vec<(&'static str, u64)>,
}

/// One resource with what is sent of it.
#[derive(Debug, Clone)]
pub struct Resource<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// What it is about.
    pub subject: Subject<'a>,
    /// Sums.
    pub totals: Option<FunctionTotals>,
    /// Sizes and savings.
    pub gauges: Option<FunctionGauges>,
    /// Only for [`Subject::Fleet`].
    pub fleet: Option<&'a FleetGauges>,
}

/// The requests, encoded as protobuf, for all resources as they are at `now_us`, microseconds since the Unix epoch.
#[must_use]
pub fn requests(exporter: &Exporter, resources: &[Resource<'_>], now_us: u64) -> Vec<Vec<u8>> {
    let message = |resources: &[Resource<'_>]| {
        let resource_metrics = resources.iter().map(|resource| resource_metrics(exporter, resource, now_us));
        ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() }.encode_to_vec()
    };
    resources.chunks(RESOURCES_PER_REQUEST).map(message).collect()
}

fn resource_metrics(exporter: &Exporter, resource: &Resource<'_>, now_us: u64) -> ResourceMetrics {
    let mut metrics =
        Metrics { at_ns: now_us.saturating_mul(1_000), temporality: exporter.temporality, list: vec![] };
    if let Some(totals) = &resource.totals {
        metrics.totals(totals);
    }
    if let Some(gauges) = &resource.gauges {
        metrics.function_gauges(gauges);
    }
    if let Some(fleet) = resource.fleet {
        metrics.fleet(fleet);
    }
    let attributes = attributes(exporter, resource);
    let scope = InstrumentationScope {
        name: SCOPE.to_owned(),
        version: exporter.version.clone(),
        ..Default::default()
    };
    ResourceMetrics {
        resource: Some(WireResource { attributes, ..Default::default() }),
        scope_metrics: vec![ScopeMetrics {
            scope: Some(scope),
            metrics: metrics.list,
            schema_url: SCHEMA_URL.to_owned(),
        }],
        schema_url: SCHEMA_URL.to_owned(),
    }
}

fn attributes(exporter: &Exporter, resource: &Resource<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![];
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            attributes.push(attribute(key, value));
        }
    };
    let (account, region, name) = match resource.subject {
        Subject::Function { account, region, name } => (account, region, name),
        Subject::Rest => ("", "", REST),
        Subject::Fleet => ("", "", ""),
    };
    if !name.is_empty() {
        add("cloud.provider", "aws");
        add("cloud.platform", "aws_lambda");
        add("cloud.account.id", account);
        add("cloud.region", region);
        add("faas.name", name);
        if !account.is_empty() && !region.is_empty() {
            let partition = partition(region);
            add("cloud.resource_id", &format!("arn:{partition}:lambda:{region}:{account}:function:{name}"));
        }
    }
    add("service.name", if name.is_empty() { "tailor" } else { name });
    // Every series has one writer: each collector counts only what it receives.
    add("service.instance.id", &instance_id(&[&exporter.id, resource.tenant, account, region, name]));
    add("tailor.tenant", resource.tenant);
    attributes
}

/// The partition of a region in ARNs.
fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// A UUID of version 8 from a digest: the same parts give the same id.
fn instance_id(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut bytes = digest.finalize();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(&bytes[..16]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

/// Dollars with the exactness of a float.
fn dollars(amount: PicoDollars) -> Number {
    Number::AsDouble(amount.to_dollars())
}

/// An integer; the largest of OTLP for a number above it.
fn integer(value: u64) -> Number {
    Number::AsInt(i64::try_from(value).unwrap_or(i64::MAX))
}

/// A name, a unit and a description.
type Names = (&'static str, &'static str, &'static str);

struct Metrics {
    at_ns: u64,
    temporality: Temporality,
    list: Vec<Metric>,
}

impl Metrics {
    fn totals(&mut self, totals: &FunctionTotals) {
        let start_ns = totals.start_us.saturating_mul(1_000);
        let of_conventions = [
            (
                ("faas.invocations", "{invocation}", "Number of successful invocations"),
                integer(totals.successes()),
            ),
            (("faas.errors", "{error}", "Number of invocation errors"), integer(totals.errors)),
            (("faas.timeouts", "{timeout}", "Number of invocation timeouts"), integer(totals.timeouts)),
            (
                ("faas.coldstarts", "{coldstart}", "Number of invocation cold starts"),
                integer(totals.cold_starts),
            ),
        ];
        for (names, value) in of_conventions {
            self.sum(names, start_ns, trigger(), value);
        }
        let distributions = &totals.distributions;
        let histograms = [
            (
                ("faas.invoke_duration", "s", "Duration of the function's logic execution"),
                &distributions.duration,
            ),
            (("faas.init_duration", "s", "Duration of the function's initialization"), &distributions.init),
            (("faas.mem_usage", "By", "Highest memory usage per invocation"), &distributions.memory),
            (("faas.cpu_usage", "s", "CPU usage per invocation"), &distributions.cpu),
            (
                ("faas.net_io", "By", "Network bytes per invocation, received and sent"),
                &distributions.network,
            ),
        ];
        for (names, distribution) in histograms {
            self.histogram(names, start_ns, distribution);
        }
        let own = [
            (
                ("tailor.function.out_of_memory", "{error}", "Invocations that ran out of memory"),
                integer(totals.out_of_memory),
            ),
            (
                ("tailor.function.billed_duration", "s", "Billed time"),
                Number::AsDouble(totals.billed_ms as f64 / 1e3),
            ),
            (
                ("tailor.function.cost", "{USD}", "Cost, without invocations whose price is not known"),
                dollars(totals.cost),
            ),
        ];
        for (names, value) in own {
            self.sum(names, start_ns, vec![], value);
        }
    }

    fn function_gauges(&mut self, gauges: &FunctionGauges) {
        let list = [
            (
                ("tailor.function.memory_size", "By", "Memory size of the latest invocations"),
                integer(gauges.memory_bytes),
            ),
            (
                (
                    "tailor.function.recommended_memory_size",
                    "By",
                    "Recommended memory size; the present one when no other is recommended",
                ),
                integer(gauges.recommended_bytes),
            ),
            (
                (
                    "tailor.function.potential_savings",
                    "{USD}",
                    "How much less the invocations of the last 30 days would have cost at the recommended memory size",
                ),
                dollars(gauges.savings),
            ),
        ];
        for (names, value) in list {
            self.gauge(names, vec![(vec![], value)]);
        }
    }

    fn fleet(&mut self, fleet: &FleetGauges) {
        let names = ("tailor.functions", "{function}", "Functions that were invoked in the last 30 days");
        self.gauge(names, vec![(vec![], integer(fleet.functions))]);
        let names = ("tailor.tuner.frozen", "1", "Whether the tuner is frozen: 1 or 0");
        self.gauge(names, vec![(vec![], integer(fleet.is_frozen.into()))]);
        let names = ("tailor.changes", "{change}", "Changes of the tuner, by their state now");
        let points = fleet
            .changes
            .iter()
            .map(|(state, count)| (vec![attribute("tailor.change.state", state)], integer(*count)));
        self.gauge(names, points.collect());
        let hint = |hint: &HintGauges| vec![attribute("tailor.hint.code", &hint.code)];
        let names = ("tailor.hint.functions", "{function}", "Functions that have the hint");
        self.gauge(names, fleet.hints.iter().map(|found| (hint(found), integer(found.functions))).collect());
        let names = (
            "tailor.hint.potential_savings",
            "{USD}",
            "What acting on the hint would have saved in the last 30 days; savings of several hints do not add up",
        );
        self.gauge(names, fleet.hints.iter().map(|found| (hint(found), dollars(found.savings))).collect());
    }

    fn add(&mut self, (name, unit, description): Names, data: Data) {
        self.list.push(Metric {
            name: name.to_owned(),
            description: description.to_owned(),
            unit: unit.to_owned(),
            data: Some(data),
            ..Default::default()
        });
    }

    fn sum(&mut self, names: Names, start_ns: u64, attributes: Vec<KeyValue>, value: Number) {
        let point = NumberDataPoint { start_time_unix_nano: start_ns, ..self.point(attributes, value) };
        let aggregation_temporality = self.temporality() as i32;
        self.add(
            names,
            Data::Sum(Sum { data_points: vec![point], aggregation_temporality, is_monotonic: true }),
        );
    }

    fn gauge(&mut self, names: Names, points: Vec<(Vec<KeyValue>, Number)>) {
        let data_points: Vec<_> =
            points.into_iter().map(|(attributes, value)| self.point(attributes, value)).collect();
        if !data_points.is_empty() {
            self.add(names, Data::Gauge(Gauge { data_points }));
        }
    }

    fn point(&self, attributes: Vec<KeyValue>, value: Number) -> NumberDataPoint {
        NumberDataPoint { attributes, time_unix_nano: self.at_ns, value: Some(value), ..Default::default() }
    }

    fn histogram(&mut self, names: Names, start_ns: u64, distribution: &Distribution) {
        let point = HistogramDataPoint {
            attributes: trigger(),
            start_time_unix_nano: start_ns,
            time_unix_nano: self.at_ns,
            count: distribution.count(),
            sum: Some(distribution.sum()),
            bucket_counts: distribution.counts().to_vec(),
            explicit_bounds: distribution.bounds(),
            ..Default::default()
        };
        let aggregation_temporality = self.temporality() as i32;
        self.add(names, Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality }));
    }

    const fn temporality(&self) -> AggregationTemporality {
        match self.temporality {
            Temporality::Cumulative => AggregationTemporality::Cumulative,
            Temporality::Delta => AggregationTemporality::Delta,
        }
    }
}

/// The conventions require the trigger, which is not measured.
fn trigger() -> Vec<KeyValue> {
    vec![attribute("faas.trigger", "other")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::Distributions;

    #[test]
    fn ids_of_instances_differ_by_writer_and_function() {
        let ids = [&["a", "b"][..], &["ab", ""], &["a", "c"], &["b", "b"]].map(instance_id);
        assert!(ids.iter().enumerate().all(|(index, id)| !ids[..index].contains(id)), "{ids:?}");
        assert_eq!(ids[0], instance_id(&["a", "b"]));
        assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'8'), "{ids:?}");
    }

    #[test]
    fn requests_are_split_and_sums_are_exact() {
        let mut distributions = Distributions::default();
        for duration_us in [5_000, 5_001, 10_000_001] {
            distributions.duration.record(duration_us);
        }
        let totals = FunctionTotals {
            start_us: 1,
            invocations: 3,
            errors: 1,
            timeouts: 1,
            out_of_memory: 0,
            cold_starts: 1,
            billed_ms: 10_012,
            cost: PicoDollars(2_000_000),
            distributions,
        };
        let subject = Subject::Function { account: "123456789012", region: "cn-north-1", name: "f" };
        let resource =
            Resource { tenant: "default", subject, totals: Some(totals), gauges: None, fleet: None };
        let exporter =
            Exporter { id: "1".to_owned(), version: "0".to_owned(), temporality: Temporality::Cumulative };
        let many = vec![resource; RESOURCES_PER_REQUEST + 1];
        let sent = requests(&exporter, &many, 5);
        assert_eq!(sent.len(), 2);
        let last = ExportMetricsServiceRequest::decode(sent[1].as_slice()).unwrap();
        let [resource] = last.resource_metrics.as_slice() else { panic!("not one resource") };
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        assert!(attributes.contains(&attribute(
            "cloud.resource_id",
            "arn:aws-cn:lambda:cn-north-1:123456789012:function:f"
        )));
        let metrics = &resource.scope_metrics[0].metrics;
        let histogram = metrics.iter().find(|metric| metric.name == "faas.invoke_duration").unwrap();
        let Some(Data::Histogram(histogram)) = &histogram.data else { panic!("no histogram") };
        let point = &histogram.data_points[0];
        // A bound belongs to its bucket.
        assert_eq!((point.bucket_counts[0], point.bucket_counts[1], point.bucket_counts[14]), (1, 1, 1));
        assert_eq!((point.count, point.sum), (3, Some(10.010_002)));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    }
}
