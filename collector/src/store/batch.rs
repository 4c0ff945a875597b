//! A batch to store, and the result of storing it.

use std::collections::BTreeMap;

use agent_proto::batch::BatchHeader;
use bytes::Bytes;
use tailor_sizing::telemetry::invocation::Invocation;
use tailor_sizing::telemetry::rollup::Rollup;

use super::{HOUR_US, Tenant};

/// A batch to store: already authenticated, decoded and summarized.
#[derive(Debug, Clone)]
pub struct NewBatch {
    /// The owner.
    pub tenant: Tenant,
    /// The environment that sent it, its sequence and the environment's running totals.
    pub header: BatchHeader,
    /// When it arrived, microseconds since the Unix epoch by the collector's clock.
    pub received_at_us: u64,
    /// One rollup for each hour in which an invocation started, with the hour since the Unix epoch.
    pub rollups: Vec<(u64, Rollup)>,
    /// Start time of its latest invocation, microseconds since the Unix epoch; `received_at_us` when it has none.
    pub last_at_us: u64,
    /// Number of invocations in the batch.
    pub invocations: u64,
    /// The batch as protobuf. It is kept for a limited time so that single invocations can be shown.
    pub body: Bytes,
}

impl NewBatch {
    /// A batch with its rollups. `body` is the same batch as protobuf.
    #[must_use]
    pub fn new(
        tenant: Tenant,
        header: BatchHeader,
        invocations: &[Invocation],
        body: Bytes,
        received_at_us: u64,
    ) -> Self {
        let mut rollups: BTreeMap<u64, Rollup> = BTreeMap::new();
        for invocation in invocations {
            rollups.entry(invocation.started_at_us / HOUR_US).or_default().record(invocation);
        }
        let last_at_us = invocations.iter().map(|invocation| invocation.started_at_us).max();
        Self {
            tenant,
            header,
            received_at_us,
            rollups: rollups.into_iter().collect(),
            last_at_us: last_at_us.unwrap_or(received_at_us),
            invocations: invocations.len() as u64,
            body,
        }
    }
}

/// The result of storing a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// The batch was new.
    Stored,
    /// The same batch of the same environment was stored before. Nothing is counted twice.
    Duplicate,
}
