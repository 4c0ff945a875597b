//! Hints on what the bill is made of: init, requests, and the price of the architecture.

use super::hint::{Hint, HintCode};
use super::input::{HintInput, positive, share};
use crate::pricing::cost_model::MILLION;
use crate::units::Architecture;

/// Share of the billed time from which init is called dominant.
const INIT: f64 = 0.20;

/// Share of the cost from which the request price is called dominant.
const REQUESTS: f64 = 0.40;

/// Records handled at once in the estimate of what batching saves: SQS and streams deliver ten by default.
const BATCH: i128 = 10;

/// Share of the cost that arm64 must save to be worth a rebuild and its tests.
const ARM64: f64 = 0.05;

pub(super) fn cold_starts(input: &HintInput<'_>) -> Option<Hint> {
    let init_ms = input.costs.billed_init_ms();
    let part = share(init_ms, input.costs.billed_ms(input.now_ms()));
    if part < INIT {
        return None;
    }
    let with_init = share(input.rollup.inits() as f64, input.rollup.invocations as f64);
    let each = share(input.costs.init_ms(), with_init);
    let ready = input.costs.rates().provisioned_break_even().map_or_else(String::new, |busy| {
        format!(
            "; provisioned concurrency pays where an environment is busy {:.0} % of the time",
            100.0 * busy
        )
    });
    Some(Hint {
        code: HintCode::ColdStartsDominate,
        evidence: format!(
            "Init takes {:.0} % of the billed time: {:.0} % of invocations have one, {each:.0} ms each",
            100.0 * part,
            100.0 * with_init
        ),
        action: format!("load less during Init, make the package smaller, or use SnapStart{ready}"),
        saving_per_million: input.saving_of_billed_ms(init_ms),
    })
}

pub(super) fn requests(input: &HintInput<'_>) -> Option<Hint> {
    let price = input.costs.rates().request.times(MILLION);
    let part = share(price.to_dollars(), input.cost_now().to_dollars());
    (part >= REQUESTS).then(|| Hint {
        code: HintCode::RequestCostDominates,
        evidence: format!("{:.0} % of the cost is the price of requests, not of their work", 100.0 * part),
        action: format!("handle several records in one invocation; the saving is for batches of {BATCH}"),
        saving_per_million: price.scaled((BATCH - 1).unsigned_abs(), BATCH.unsigned_abs()).and_then(positive),
    })
}

pub(super) fn arm64(input: &HintInput<'_>) -> Option<Hint> {
    let there = input.on_arm64.as_ref()?;
    let memory = input.evidence.memory;
    let saving = positive(input.cost_now() - there.per_million(memory, input.now_ms()))?;
    let part = share(saving.to_dollars(), input.cost_now().to_dollars());
    (part >= ARM64).then(|| Hint {
        code: HintCode::Arm64Cheaper,
        evidence: format!(
            "the same time on {} costs {:.0} % less than on {}",
            Architecture::Arm64,
            100.0 * part,
            Architecture::X86_64
        ),
        action: "build it for arm64 and measure: the saving assumes that it is as fast there".to_owned(),
        saving_per_million: Some(saving),
    })
}
