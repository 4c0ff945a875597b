//! Hints on the full bill of a function: logs, provisioned concurrency that waits, and Inits that few invocations use.

use super::hint::{Hint, HintCode};
use super::input::{positive, share};
use crate::pricing::cost_model::MILLION;
use crate::pricing::full_bill::FullBill;
use crate::pricing::meters::Meter;
use crate::pricing::money::PicoDollars;
use crate::telemetry::rollup::Rollup;

/// Share of provisioned capacity that must be idle to be shown. Below about 40 %, provisioned concurrency is cheaper than
/// on-demand invocations.
const IDLE: f64 = 0.40;

/// Share of Inits that follow a timeout or a crash from which it is shown.
const AFTER_TIMEOUT: f64 = 0.10;

/// Invocations per Init below which an environment serves few.
const FEW: f64 = 2.0;

/// Share of the cost that Init must have, so that rarely used ones are worth a hint.
const INIT: f64 = 0.10;

/// Meters of compute.
const COMPUTE: [Meter; 3] = [Meter::Compute, Meter::Init, Meter::ProvisionedDuration];

/// Meters of logs.
const LOGS: [Meter; 4] =
    [Meter::LogIngestion, Meter::LogStorage, Meter::LogDeliveryS3, Meter::LogDeliveryFirehose];

/// Meters of the bytes that are logged.
const LOGGED: [Meter; 3] = [Meter::LogIngestion, Meter::LogDeliveryS3, Meter::LogDeliveryFirehose];

/// The hints that follow from the full bill, the most expensive finding first. `rollup` has the invocations of the bill.
#[must_use]
pub fn bill_hints(bill: &FullBill, rollup: &Rollup) -> Vec<Hint> {
    let mut hints: Vec<Hint> =
        [logs(bill, rollup), idle(bill, rollup), after_timeout(bill, rollup), rarely_used(bill, rollup)]
            .into_iter()
            .flatten()
            .collect();
    hints.sort_by_key(|hint| std::cmp::Reverse(hint.saving_per_million));
    hints
}

/// An amount of the bill, for a million invocations.
fn per_million(amount: PicoDollars, rollup: &Rollup) -> Option<PicoDollars> {
    amount.scaled(u128::from(MILLION), rollup.invocations.into()).and_then(positive)
}

fn logs(bill: &FullBill, rollup: &Rollup) -> Option<Hint> {
    let (logs, compute) = (bill.cost_of(&LOGS), bill.cost_of(&COMPUTE));
    let logged_gb: f64 = LOGGED.iter().filter_map(|meter| bill.quantity_of(*meter)).sum();
    (logs > compute && logs > PicoDollars::ZERO).then(|| Hint {
        code: HintCode::LogCostDominates,
        evidence: format!(
            "logs cost {logs}, and compute {compute}; an invocation logs {:.1} KB",
            share(logged_gb * 1024.0 * 1024.0, rollup.invocations as f64)
        ),
        action: "raise the log level (`ApplicationLogLevel`, `SystemLogLevel` of the JSON format), set a retention \
                 of the log group, or use the infrequent access class"
            .to_owned(),
        // Logs as expensive as compute would still be many.
        saving_per_million: per_million(logs - compute, rollup),
    })
}

fn idle(bill: &FullBill, rollup: &Rollup) -> Option<Hint> {
    let idle = bill.quantity_of(Meter::ProvisionedConcurrencyIdle)?;
    let used = bill.quantity_of(Meter::ProvisionedConcurrencyUsed).unwrap_or(0.0);
    let part = share(idle, idle + used);
    (part >= IDLE).then(|| Hint {
        code: HintCode::ProvisionedConcurrencyIdle,
        evidence: format!("{:.0} % of the provisioned capacity waited for invocations", 100.0 * part),
        action:
            "lower the provisioned concurrency, or schedule it for the busy hours: `tailor where` shows them; the saving is an \
             upper bound, the cost of all idle capacity"
                .to_owned(),
        saving_per_million: per_million(bill.cost_of(&[Meter::ProvisionedConcurrencyIdle]), rollup),
    })
}

fn after_timeout(bill: &FullBill, rollup: &Rollup) -> Option<Hint> {
    // A timeout and a crash end the environment. The next Init runs inside an invocation.
    let repeated = rollup.initializations.inside_invocation;
    let ended = rollup.timeouts.saturating_add(rollup.out_of_memory);
    let all = rollup.first_invocations();
    let part = share(repeated.min(ended) as f64, all as f64);
    (part >= AFTER_TIMEOUT).then(|| Hint {
        code: HintCode::InitAfterTimeout,
        evidence: format!(
            "{} of {all} Inits followed a timeout or an out-of-memory kill, which end the environment",
            repeated.min(ended)
        ),
        action: "let the handler stop before the timeout, so that its environment can serve more invocations"
            .to_owned(),
        saving_per_million: bill
            .cost_of(&[Meter::Init])
            .scaled(repeated.min(ended).into(), all.into())
            .and_then(|saving| per_million(saving, rollup)),
    })
}

fn rarely_used(bill: &FullBill, rollup: &Rollup) -> Option<Hint> {
    let inits = rollup.inits();
    let each = share(rollup.invocations as f64, inits as f64);
    let init = bill.cost_of(&[Meter::Init]);
    let part = share(init.to_dollars(), bill.total_pico_usd.to_dollars());
    (inits > 0 && each < FEW && part >= INIT).then(|| Hint {
        code: HintCode::InitRarelyUsed,
        evidence: format!(
            "an environment serves {each:.1} invocations, and Init is {:.0} % of the cost",
            100.0 * part
        ),
        action:
            "invoke it less often with more work each, spread bursts over time with a queue, or use SnapStart"
                .to_owned(),
        saving_per_million: per_million(init, rollup),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pricing::bill::Usage;
    use crate::pricing::full_bill::{
        GivenUsage, ImportedPart, LogDestination, MeasuredUsage, ProvisionedCapacity, Terms, full_bill,
    };
    use crate::pricing::prices::PriceTable;
    use crate::telemetry::initialization::Initialization;
    use crate::telemetry::invocation::{Invocation, Outcome};
    use crate::units::{Architecture, Megabytes};

    fn hints(rollup: &Rollup, given: &GivenUsage) -> Vec<Hint> {
        let memory = Megabytes(512);
        let usage = Usage::of(memory, rollup.billed_ms, rollup.invocations, 512)
            .with_init(memory, rollup.billed_init_us() / 1_000);
        let measured = MeasuredUsage {
            region: "us-east-1",
            runtime: "nodejs24.x",
            memory,
            usage: vec![(Architecture::X86_64, usage)],
            initializations: rollup.initializations,
            restored_mb: 0,
            versions: 1,
            sent_bytes: None,
            log_bytes: None,
            is_managed: false,
            imported: ImportedPart::None,
            hours: 720,
        };
        let bill = full_bill(&measured, given, &PriceTable::embedded(), &Terms::default());
        bill_hints(&bill, rollup)
    }

    fn codes(rollup: &Rollup, given: &GivenUsage) -> Vec<HintCode> {
        hints(rollup, given).into_iter().map(|hint| hint.code).collect()
    }

    fn rollup(count: u64, change: impl Fn(u64, &mut Invocation)) -> Rollup {
        let mut rollup = Rollup::default();
        for n in 0..count {
            let mut invocation = Invocation {
                duration_us: 100_000,
                billed_ms: 100,
                outcome: Outcome::Success,
                started_at_us: n + 1,
                ..Invocation::default()
            };
            change(n, &mut invocation);
            rollup.record(&invocation);
        }
        rollup
    }

    #[test]
    fn each_finding_has_its_hint() {
        let warm = rollup(1_000, |_, _| {});
        assert_eq!(codes(&warm, &GivenUsage::default()), []);
        // 100 s on 512 MB cost $0.0008, and 10 MB of logs $0.005.
        let logs = GivenUsage { log_bytes: Some(10 << 20), ..GivenUsage::default() };
        assert_eq!(codes(&warm, &logs), [HintCode::LogCostDominates]);
        for log_destination in [LogDestination::Cloudwatch, LogDestination::S3, LogDestination::Firehose] {
            let hint = hints(&warm, &GivenUsage { log_destination, ..logs.clone() }).remove(0);
            assert!(hint.evidence.ends_with("an invocation logs 10.2 KB"), "{}", hint.evidence);
        }
        let capacity = ProvisionedCapacity { concurrency: 1, hours: 720, memory_mb: None };
        let provisioned =
            GivenUsage { provisioned_concurrency: Some(vec![capacity]), ..GivenUsage::default() };
        let first = rollup(1_000, |n, invocation| {
            if n == 0 {
                invocation.initialization = Initialization::ProvisionedConcurrency;
            }
        });
        assert_eq!(codes(&first, &provisioned), [HintCode::ProvisionedConcurrencyIdle]);
        assert!(hints(&first, &provisioned)[0].action.contains("upper bound"));
        let timeouts = rollup(1_000, |n, invocation| {
            if n % 10 == 0 {
                invocation.outcome = Outcome::Timeout;
            }
            if n % 10 == 1 {
                invocation.initialization = Initialization::InsideInvocation;
                invocation.init_us = 50_000;
            }
        });
        assert_eq!(codes(&timeouts, &GivenUsage::default()), [HintCode::InitAfterTimeout]);
        let bursts = rollup(1_000, |_, invocation| {
            invocation.initialization = Initialization::OnDemand;
            invocation.init_us = 50_000;
            invocation.billed_ms = 150;
        });
        assert_eq!(codes(&bursts, &GivenUsage::default()), [HintCode::InitRarelyUsed]);
    }
}
