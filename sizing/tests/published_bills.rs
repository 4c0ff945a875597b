//! The worked examples of AWS's price pages, to the last printed digit.
//!
//! Pages: "AWS Lambda pricing" (<https://aws.amazon.com/lambda/pricing/>, as of 2026-09), "Amazon CloudWatch pricing"
//! (<https://aws.amazon.com/cloudwatch/pricing/>), and "LMI Cost Calculator - Methodology" with its test cases
//! (aws-samples/sample-aws-lambda-managed-instances, 2026-03-19). All are for US East (N. Virginia).

use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::pricing::full_bill::{
    FullBill, GivenUsage, ImportedPart, LineStatus, LogDestination, MeasuredUsage, ProvisionedCapacity,
    Terms, full_bill,
};
use tailor_sizing::pricing::managed_instances::{
    Capacity, Demand, InstanceType, InstancesCost, runtime_limit,
};
use tailor_sizing::pricing::meters::{Amount, HOURS_PER_MONTH, Meter};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::initialization::Initializations;
use tailor_sizing::units::{Architecture, Megabytes};

const GB: u64 = 1 << 30;

/// A function in US East (N. Virginia).
struct Function {
    architecture: Architecture,
    memory_mb: u32,
    /// Requests and the duration of each, ms.
    requests: u64,
    duration_ms: u64,
    storage_mb: u32,
    initializations: Initializations,
    hours: u64,
    given: GivenUsage,
    terms: Terms,
}

impl Default for Function {
    fn default() -> Self {
        Self {
            architecture: Architecture::X86_64,
            memory_mb: 1_024,
            requests: 0,
            duration_ms: 0,
            storage_mb: 512,
            initializations: Initializations::default(),
            hours: HOURS_PER_MONTH,
            given: GivenUsage::default(),
            terms: Terms::default(),
        }
    }
}

impl Function {
    fn bill(&self) -> FullBill {
        let memory = Megabytes(self.memory_mb);
        let usage = Usage::of(memory, self.requests * self.duration_ms, self.requests, self.storage_mb);
        let measured = MeasuredUsage {
            region: "us-east-1",
            runtime: "python3.13",
            memory,
            usage: vec![(self.architecture, usage)],
            initializations: self.initializations,
            restored_mb: u128::from(self.initializations.snap_start) * u128::from(self.memory_mb),
            versions: 1,
            sent_bytes: None,
            log_bytes: None,
            is_managed: false,
            imported: ImportedPart::None,
            hours: self.hours,
        };
        full_bill(&measured, &self.given, &PriceTable::embedded(), &self.terms)
    }
}

const FREE_TIER: Terms =
    Terms { savings_plan_factor: 1.0, discount_factor: 1.0, used_gb_seconds: 0, free_tier: true };

/// Dollars with as many decimals as the page prints.
fn printed(cost: PicoDollars, decimals: usize) -> String {
    let power = |exponent: usize| (0..exponent).fold(1_i128, |product, _| product * 10);
    let unit = power(12 - decimals);
    let rounded = (cost.0 + unit / 2) / unit;
    let scale = power(decimals);
    match decimals {
        0 => rounded.to_string(),
        _ => format!("{}.{:0decimals$}", rounded / scale, rounded % scale),
    }
}

/// Asserts the costs of meters, each with the digits of the page.
fn assert_costs(bill: &FullBill, expected: &[(&[Meter], &str)]) {
    for (meters, dollars) in expected {
        let decimals = dollars.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        assert_eq!(printed(bill.cost_of(meters), decimals), *dollars, "{meters:?}");
    }
}

use Meter::{
    Compute, DurableOperations, DurableRetained, DurableWritten, EphemeralStorage, EventPollersKafka,
    EventPollersSqs, LogDeliveryFirehose, LogDeliveryS3, LogIngestion, LogStorage,
    ProvisionedConcurrencyIdle, ProvisionedConcurrencyUsed, ProvisionedDuration, Requests, ResponseStreaming,
    SnapStartCache, SnapStartRestore, TenantEnvironments,
};

/// Lambda pricing, "Lambda Ephemeral Storage Pricing", examples 1 to 3.
#[test]
fn compute_requests_and_ephemeral_storage() {
    let mobile = Function {
        memory_mb: 1_536,
        requests: 3_000_000,
        duration_ms: 120,
        terms: FREE_TIER,
        ..Function::default()
    };
    assert_costs(
        &mobile.bill(),
        &[(&[Compute], "2.33"), (&[Requests], "0.40"), (&[Compute, Requests], "2.73")],
    );

    let vehicles = Function { requests: 7_440_000, duration_ms: 2_000, ..Function::default() };
    assert_costs(
        &vehicles.bill(),
        &[(&[Requests], "1.488"), (&[Compute], "248.00"), (&[Compute, Requests], "249.49")],
    );

    let support = Function {
        memory_mb: 4_096,
        requests: 6_000_000,
        duration_ms: 280,
        storage_mb: 2_048,
        terms: FREE_TIER,
        ..Function::default()
    };
    assert_costs(
        &support.bill(),
        &[
            (&[Compute], "105.33"),
            (&[Requests], "1"),
            (&[EphemeralStorage], "0.08"),
            (&[Compute, Requests, EphemeralStorage], "106.41"),
        ],
    );
}

/// Lambda pricing, "Provisioned Concurrency Pricing", examples 1 and 2.
#[test]
fn provisioned_concurrency() {
    let all_provisioned = Initializations { provisioned_concurrency: 1, ..Initializations::default() };
    let capacity = |concurrency, hours| GivenUsage {
        provisioned_concurrency: Some(vec![ProvisionedCapacity { concurrency, hours, memory_mb: None }]),
        ..GivenUsage::default()
    };
    // The page computes the launch day and the rest of the month apart. The free tier belongs to the rest of the month; of
    // requests, one million of the three million are free.
    let launch = Function {
        memory_mb: 1_536,
        requests: 500_000,
        duration_ms: 100,
        initializations: all_provisioned,
        given: capacity(100, 8),
        ..Function::default()
    };
    let rest = Function {
        memory_mb: 1_536,
        requests: 2_500_000,
        duration_ms: 120,
        terms: FREE_TIER,
        ..Function::default()
    };
    let (launch, rest) = (launch.bill(), rest.bill());
    assert_costs(
        &launch,
        &[
            (&[ProvisionedConcurrencyUsed, ProvisionedConcurrencyIdle], "18"),
            (&[ProvisionedDuration], "0.73"),
        ],
    );
    assert_costs(&rest, &[(&[Compute], "0.83")]);
    assert_eq!(printed(launch.cost_of(&[Requests]) + rest.cost_of(&[Requests]), 2), "0.40");
    assert_eq!(printed(launch.total_pico_usd + rest.total_pico_usd, 2), "19.96");
    // Idle is what the 50,000 seconds of invocations on 1.5 GB leave of 4,320,000 GB-seconds.
    let idle = launch.quantity_of(ProvisionedConcurrencyIdle).unwrap();
    assert!((idle - (4_320_000.0 - 75_000.0)).abs() < 1e-6, "{idle}");

    let sale = Function {
        memory_mb: 4_096,
        requests: 2_000_000,
        duration_ms: 280,
        initializations: all_provisioned,
        given: capacity(7, 24),
        ..Function::default()
    };
    assert_costs(
        &sale.bill(),
        &[
            (&[ProvisionedConcurrencyUsed, ProvisionedConcurrencyIdle], "10.08"),
            (&[ProvisionedDuration], "21.78"),
            (&[Requests], "0.40"),
            (
                &[ProvisionedConcurrencyUsed, ProvisionedConcurrencyIdle, ProvisionedDuration, Requests],
                "32.26",
            ),
        ],
    );
}

/// Lambda pricing, "SnapStart Pricing". A month of 31 days.
#[test]
fn snap_start() {
    let bill = Function {
        requests: 7_440_000,
        duration_ms: 2_000,
        initializations: Initializations { snap_start: 74_400, ..Initializations::default() },
        hours: 31 * 24,
        given: GivenUsage { snap_start_versions: Some(1), ..GivenUsage::default() },
        ..Function::default()
    };
    assert_costs(
        &bill.bill(),
        &[
            (&[Requests], "1.49"),
            (&[Compute], "248.00"),
            (&[SnapStartCache], "4.03"),
            (&[SnapStartRestore], "10.4"),
            (&[SnapStartCache, SnapStartRestore], "14.43"),
            (&[Requests, Compute, SnapStartCache, SnapStartRestore], "263.92"),
        ],
    );
}

/// Lambda pricing, "Lambda HTTP Response Stream Pricing": one million responses with 1 MB beyond the free 6 MB.
#[test]
fn response_streaming() {
    let bill = Function {
        memory_mb: 1_536,
        requests: 3_000_000,
        duration_ms: 500,
        terms: FREE_TIER,
        given: GivenUsage { streamed_bytes: Some(1_000_000 << 20), ..GivenUsage::default() },
        ..Function::default()
    }
    .bill();
    assert_costs(&bill, &[(&[Compute], "30.83"), (&[Requests], "0.40"), (&[ResponseStreaming], "7.81")]);
    // The page adds the rounded parts, $30.83, $0.40 and $7.81, to $39.04. Without the rounding they are $39.0459.
    assert_eq!(bill.cost_of(&[Compute, Requests, ResponseStreaming]), PicoDollars(39_045_895_000_000));
    assert!((bill.quantity_of(ResponseStreaming).unwrap() - 976.5625).abs() < 1e-9);
}

/// Lambda pricing, "Lambda Durable Functions Pricing". The page counts a GB as a million KB in this example, so the amounts are
/// given in its GB.
#[test]
fn durable_functions() {
    let kept_gb_days = 104 * 7 + 104 * 14;
    let bill = Function {
        architecture: Architecture::Arm64,
        requests: 2_000_000,
        duration_ms: 16_000,
        terms: FREE_TIER,
        given: GivenUsage {
            durable_operations: Some(4_000_000),
            durable_written_bytes: Some(104 * GB),
            durable_kept_bytes: Some(kept_gb_days * GB / 30),
            ..GivenUsage::default()
        },
        ..Function::default()
    };
    assert_costs(
        &bill.bill(),
        &[
            (&[Compute], "421.34"),
            (&[Requests], "0.20"),
            (&[DurableOperations], "32.00"),
            (&[DurableWritten], "26.00"),
            (&[DurableRetained], "10.92"),
            (&[Compute, Requests, DurableOperations, DurableWritten, DurableRetained], "490.46"),
        ],
    );
}

/// Lambda pricing, "Tenant Isolation Pricing". The page rounds the price to $0.000167; the price list has $0.000166667, with
/// which 200,000 environments cost $33.33 and not $33.40.
#[test]
fn tenant_isolation() {
    let bill = Function {
        requests: 10_000_000,
        duration_ms: 2_000,
        given: GivenUsage { tenant_environments: Some(200_000), ..GivenUsage::default() },
        ..Function::default()
    }
    .bill();
    assert_costs(&bill, &[(&[Requests], "2"), (&[Compute], "333.33"), (&[TenantEnvironments], "33.33")]);
    // The page prints $333.34 for 20 million GB-seconds: 20,000,000 × 0.0000166667 is 333.334.
    assert_eq!(bill.cost_of(&[Compute]), PicoDollars(333_334_000_000_000));
    assert_eq!(printed(Amount::units(200_000).at(PicoDollars(167_000_000)), 1), "33.4");
}

/// Lambda pricing, "Provisioned Mode for Event Source Mapping (ESM) Pricing", examples 1 to 3.
#[test]
fn event_pollers() {
    let kafka = Function {
        requests: 30_000_000,
        duration_ms: 2_000,
        terms: FREE_TIER,
        given: GivenUsage { kafka_poller_hours: Some(800), ..GivenUsage::default() },
        ..Function::default()
    };
    assert_costs(&kafka.bill(), &[(&[Compute], "993.3"), (&[EventPollersKafka], "148")]);

    let sqs = Function {
        requests: 30_000_000,
        duration_ms: 1_000,
        given: GivenUsage { sqs_poller_hours: Some(8_000), ..GivenUsage::default() },
        ..Function::default()
    };
    assert_costs(
        &sqs.bill(),
        &[
            (&[Compute], "500"),
            (&[Requests], "6"),
            (&[EventPollersSqs], "74"),
            (&[Compute, Requests, EventPollersSqs], "580"),
        ],
    );

    let ten_topics = Function {
        requests: 300_000_000,
        duration_ms: 200,
        given: GivenUsage { kafka_poller_hours: Some(720), ..GivenUsage::default() },
        ..Function::default()
    };
    assert_costs(
        &ten_topics.bill(),
        &[
            (&[Compute], "1000"),
            (&[Requests], "60.00"),
            (&[EventPollersKafka], "133.2"),
            (&[Compute, Requests, EventPollersKafka], "1193.2"),
        ],
    );
}

/// CloudWatch pricing: 72 TB of vended logs to CloudWatch Logs and to S3. Lambda's logs have these prices since 2025-05-01.
#[test]
fn logs() {
    let logs = |destination, stored| Function {
        given: GivenUsage {
            log_bytes: Some(72 << 40),
            log_destination: destination,
            log_stored_bytes: stored,
            ..GivenUsage::default()
        },
        ..Function::default()
    };
    let bill = logs(LogDestination::Cloudwatch, Some(30 << 40)).bill();
    let tiers: Vec<String> = bill
        .lines
        .iter()
        .filter(|line| line.meter == LogIngestion)
        .map(|line| printed(line.cost_pico_usd.unwrap(), 2))
        .collect();
    assert_eq!(tiers, ["5120.00", "5120.00", "2048.00", "1126.40"]);
    assert_costs(
        &bill,
        &[(&[LogIngestion], "13414.40"), (&[LogStorage], "921.6"), (&[LogIngestion, LogStorage], "14336")],
    );
    for (destination, meter) in
        [(LogDestination::S3, LogDeliveryS3), (LogDestination::Firehose, LogDeliveryFirehose)]
    {
        assert_costs(&logs(destination, None).bill(), &[(&[meter], "8294.40")]);
    }
}

/// AWS's announcement of the tiers for Lambda's logs: 60 TB cost $12,500 instead of $30,000 where a TB is 1,000 GB. With
/// 1,024 GB they cost 2.4 % more.
#[test]
fn sixty_terabytes_of_logs() {
    let price = PriceTable::embedded();
    let price = price.meter("us-east-1", LogIngestion).unwrap();
    assert_eq!(printed(price.cost(Amount::units(60 * 1_024)), 0), "12800");
}

/// Lambda pricing, "Lambda Managed Instances", example "High-throughput API service". The page rounds the discounted price of an
/// hour to $0.0457; 28 % of $0.1632 is $0.045696, so the instances cost $91.39 and not $91.40.
#[test]
fn managed_instances() {
    let cost = InstancesCost::of(
        1,
        PicoDollars(163_200_000_000),
        2_000,
        100_000_000,
        PicoDollars(200_000),
        (28, 100),
    );
    let cost = cost.unwrap();
    assert_eq!(printed(cost.requests, 0), "20");
    assert_eq!(printed(cost.fee, 2), "48.96");
    assert_eq!(printed(cost.instances, 2), "91.39");
    assert_eq!(
        printed(Amount::units(2_000).at(PicoDollars(45_700_000_000)) + cost.fee + cost.requests, 2),
        "160.36"
    );
}

/// The test cases of AWS's calculator: CPU percent, concurrency, millions of requests, paid percent of the instance price; and
/// environments, base instances, instances, and the total.
#[test]
fn the_calculator_of_managed_instances() {
    let cases = [
        (25.0, 100.0, 1, 100, 25, 9, 14, "1704.385"),
        (12.5, 100.0, 1, 100, 13, 5, 8, "974.020"),
        (50.0, 100.0, 1, 100, 50, 17, 26, "3165.115"),
        (25.0, 100.0, 10, 68, 25, 9, 14, "1231.977"),
        (25.0, 100.0, 10, 35, 25, 9, 14, "742.950"),
        (25.0, 50.0, 1, 100, 13, 5, 8, "974.020"),
        (25.0, 200.0, 1, 100, 50, 17, 26, "3165.115"),
        // Five zones need at least five instances, which fourteen are.
        (25.0, 100.0, 1, 100, 25, 9, 14, "1704.385"),
    ];
    let instance = InstanceType::of("c7g.xlarge", PicoDollars(145_000_000_000)).unwrap();
    for (cpu, concurrency, millions, paid, environments, base, instances, total) in cases {
        let demand = Demand {
            concurrency,
            cpu: cpu / 100.0,
            memory_mb: 512,
            runtime_limit: runtime_limit("python3.13"),
        };
        let capacity = Capacity::of(&demand, &instance).unwrap();
        assert_eq!(
            (capacity.environments, capacity.base_instances, capacity.instances),
            (environments, base, instances)
        );
        assert_eq!((capacity.environment_mb, capacity.environments_per_instance), (2_048, 3));
        let cost = InstancesCost::of(
            capacity.instances,
            instance.hour,
            730,
            millions * 1_000_000,
            PicoDollars(200_000),
            (paid, 100),
        );
        assert_eq!(printed(cost.unwrap().total(), 3), total);
    }
}

/// The calculator prints $408 for the compute of 30 million GB-seconds on arm64, and the price list gives $400.00: it multiplies
/// the price of 128 MB for one ms, which it rounds to $0.0000000017, by four. The rounding is 2 %.
#[test]
fn the_calculator_rounds_the_price_of_lambda_by_two_percent() {
    let bill = Function {
        architecture: Architecture::Arm64,
        memory_mb: 512,
        requests: 1_000_000,
        duration_ms: 60_000,
        ..Function::default()
    }
    .bill();
    assert_eq!(bill.cost_of(&[Compute]), PicoDollars(400_002_000_000_000));
    let rounded = PicoDollars(1_700).times(4).times(60_000_000_000);
    assert_eq!(printed(rounded, 0), "408");
}

#[test]
fn what_is_not_known_is_listed_and_has_no_cost() {
    let bill = Function { requests: 10, duration_ms: 100, ..Function::default() }.bill();
    assert_eq!(
        bill.unknown,
        [ResponseStreaming, DurableOperations, LogIngestion, LogStorage, Meter::DataTransferOut]
    );
    assert!(
        bill.lines.iter().all(|line| (line.status == LineStatus::Unknown) == line.cost_pico_usd.is_none())
    );
    assert_eq!(bill.total_pico_usd, bill.cost_of(&[Compute, Requests]));
}

#[test]
fn discounts_lower_only_what_they_cover() {
    let function = Function { requests: 1_000_000, duration_ms: 1_000, ..Function::default() };
    let list = function.bill();
    let terms = Terms { savings_plan_factor: 0.88, discount_factor: 0.9, ..Terms::default() };
    let bill = Function { terms, ..function }.bill();
    assert_eq!(Some(bill.cost_of(&[Compute])), list.cost_of(&[Compute]).scaled(792, 1_000));
    assert_eq!(Some(bill.cost_of(&[Requests])), list.cost_of(&[Requests]).scaled(9, 10));
    // The price that AWS publishes for a Compute Savings Plan without upfront payment: $0.0000147 for $0.0000166667.
    let plan = PicoDollars(16_666_700).scaled(88, 100).unwrap();
    assert_eq!(printed(plan, 7), "0.0000147");
}

#[test]
fn later_tiers_have_their_own_lines() {
    let terms = Terms { used_gb_seconds: 5_999_999_000, ..Terms::default() };
    let bill = Function { requests: 2_000, duration_ms: 1_000, terms, ..Function::default() }.bill();
    let parts: Vec<(&str, Option<f64>)> = bill
        .lines
        .iter()
        .filter(|line| line.meter == Compute)
        .map(|line| (line.part.as_str(), line.quantity))
        .collect();
    assert_eq!(parts, [("x86_64", Some(1_000.0)), ("x86_64, tier 2", Some(1_000.0))]);
    assert_eq!(bill.cost_of(&[Compute]), PicoDollars(1_000 * (16_666_700 + 15_000_000)));
}
