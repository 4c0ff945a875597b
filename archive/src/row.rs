//! One invocation with what is known of its environment.

use agent_proto::batch::BatchHeader;
use tailor_sizing::pricing::prices::{PriceTable, Rates};
use tailor_sizing::telemetry::invocation::{Invocation, Outcome};

/// One row of the archive.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The batch that brought it.
    pub header: &'a BatchHeader,
    /// Its measurements.
    pub invocation: &'a Invocation,
    /// Its cost in pico-dollars; `None` on managed instances and without a price.
    pub cost_picodollars: Option<i64>,
}

impl<'a> Row<'a> {
    /// The rows of the invocations of one batch.
    pub fn of_batch(
        header: &'a BatchHeader,
        invocations: &'a [Invocation],
        prices: &PriceTable,
    ) -> impl Iterator<Item = Self> {
        let environment = &header.environment;
        let rates = if environment.is_managed_instances() {
            None
        } else {
            prices.rates(&environment.region, environment.architecture).ok()
        };
        invocations.iter().map(move |invocation| {
            let cost_picodollars = rates.as_ref().and_then(|rates| cost(rates, header, invocation));
            Self { header, invocation, cost_picodollars }
        })
    }
}

fn cost(rates: &Rates, header: &BatchHeader, invocation: &Invocation) -> Option<i64> {
    let environment = &header.environment;
    let cost = rates.cost(environment.memory, invocation.billed_ms, 1, environment.ephemeral_mb);
    i64::try_from(cost.0).ok()
}

/// The name of an outcome in the archive, as in JSON.
pub(crate) const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unknown => "unknown",
        Outcome::Success => "success",
        Outcome::Error => "error",
        Outcome::Timeout => "timeout",
        Outcome::OutOfMemory => "out_of_memory",
    }
}
