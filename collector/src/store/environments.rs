//! What is kept of environments: the state of each live one, and totals of those that ended.

use agent_proto::batch::{BatchHeader, Lost, Overhead};

use super::sequences::Sequences;
use super::{FunctionKey, HOUR_US};

/// An environment that is silent for so long has ended, and its state becomes part of its function's totals.
pub(in crate::store) const ENDED_AFTER_US: u64 = 48 * HOUR_US;

/// The same on managed instances, where an environment waits without traffic and is not frozen.
const MANAGED_ENDED_AFTER_US: u64 = 30 * 24 * HOUR_US;

/// The state of one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentState {
    /// The header of its latest batch, with the environment's running totals.
    pub header: BatchHeader,
    /// Which of its batches were stored.
    pub sequences: Sequences,
    /// When the latest batch was received, microseconds since the Unix epoch.
    pub received_at_us: u64,
}

impl EnvironmentState {
    /// The state after the first batch that is known of the environment.
    #[must_use]
    pub fn first(header: BatchHeader, received_at_us: u64) -> Self {
        let mut sequences = Sequences::default();
        sequences.insert(header.sequence, received_at_us);
        Self { header, sequences, received_at_us }
    }

    /// Adds a batch. Returns `false` when it was there before.
    pub fn add(&mut self, header: BatchHeader, received_at_us: u64) -> bool {
        if !self.sequences.insert(header.sequence, received_at_us) {
            return false;
        }
        self.received_at_us = self.received_at_us.max(received_at_us);
        if header.sequence >= self.header.sequence {
            self.header = header;
        }
        true
    }

    /// Whether it has ended at `now_us`, microseconds since the Unix epoch.
    #[must_use]
    pub fn has_ended(&self, now_us: u64) -> bool {
        let limit_us = if self.header.environment.is_managed_instances() {
            MANAGED_ENDED_AFTER_US
        } else {
            ENDED_AFTER_US
        };
        now_us.saturating_sub(self.received_at_us) >= limit_us
    }
}

/// Totals of the environments of one function that ended, by the day of their last batch.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedEnvironments {
    /// The header of the latest batch of them all. Its totals are those of its environment only.
    pub header: BatchHeader,
    /// When that batch was received, microseconds since the Unix epoch.
    pub received_at_us: u64,
    /// Number of environments.
    pub environments: u64,
    /// Batches that did not arrive.
    pub missing_batches: u64,
    /// Invocations that had begun and were never sent.
    pub unsent: u64,
    /// Sum of what they lost.
    pub lost: Lost,
    /// Sum of what the extension used; the highest resident memory.
    pub overhead: Overhead,
}

/// Number of integers that [`EndedEnvironments::encode`] puts before the header.
const INTEGERS: usize = 12;

impl EndedEnvironments {
    /// The totals of one environment.
    #[must_use]
    pub fn of(state: &EnvironmentState) -> Self {
        Self {
            received_at_us: state.received_at_us,
            environments: 1,
            missing_batches: state.sequences.missing_since(0),
            unsent: state.header.unsent,
            lost: state.header.lost,
            overhead: state.header.overhead,
            header: state.header.clone(),
        }
    }

    /// The function of these environments.
    #[must_use]
    pub fn function(&self) -> FunctionKey {
        FunctionKey::of(&self.header.environment)
    }

    /// Adds other totals of the same function.
    pub fn merge(&mut self, other: Self) {
        let (lost, overhead) = (&mut self.lost, &mut self.overhead);
        for (sum, value) in [
            (&mut self.environments, other.environments),
            (&mut self.missing_batches, other.missing_batches),
            (&mut self.unsent, other.unsent),
            (&mut lost.invocations, other.lost.invocations),
            (&mut lost.platform_records, other.lost.platform_records),
            (&mut lost.undecodable_records, other.lost.undecodable_records),
            (&mut lost.failed_deliveries, other.lost.failed_deliveries),
            (&mut overhead.cpu_us, other.overhead.cpu_us),
            (&mut overhead.sent_bytes, other.overhead.sent_bytes),
            (&mut overhead.ticks, other.overhead.ticks),
        ] {
            *sum = sum.saturating_add(value);
        }
        overhead.resident_kib = overhead.resident_kib.max(other.overhead.resident_kib);
        if other.received_at_us >= self.received_at_us {
            self.received_at_us = other.received_at_us;
            self.header = other.header;
        }
    }

    /// The totals as bytes to store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let integers: [u64; INTEGERS] = [
            self.received_at_us,
            self.environments,
            self.missing_batches,
            self.unsent,
            self.lost.invocations,
            self.lost.platform_records,
            self.lost.undecodable_records,
            self.lost.failed_deliveries,
            self.overhead.cpu_us,
            self.overhead.resident_kib,
            self.overhead.sent_bytes,
            self.overhead.ticks,
        ];
        integers.into_iter().flat_map(u64::to_le_bytes).chain(self.header.encode()).collect()
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (integers, header) = bytes.split_at_checked(8 * INTEGERS)?;
        let mut integers = integers.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let mut next = || integers.next();
        Some(Self {
            received_at_us: next()?,
            environments: next()?,
            missing_batches: next()?,
            unsent: next()?,
            lost: Lost {
                invocations: next()?,
                platform_records: next()?,
                undecodable_records: next()?,
                failed_deliveries: next()?,
            },
            overhead: Overhead {
                cpu_us: next()?,
                resident_kib: next()?,
                sent_bytes: next()?,
                ticks: next()?,
            },
            header: BatchHeader::decode(header).ok()?,
        })
    }
}

/// The environments of a window.
#[derive(Debug, Clone, Default)]
pub struct Environments {
    /// The state of each environment that sent a batch since the start of the window and has not ended.
    pub live: Vec<EnvironmentState>,
    /// Totals of those that ended.
    pub ended: Vec<EndedEnvironments>,
}

impl Environments {
    /// The header of the batch that arrived last.
    #[must_use]
    pub fn newest_header(&self) -> Option<&BatchHeader> {
        self.headers().max_by_key(|(received_at_us, _)| *received_at_us).map(|(_, header)| header)
    }

    /// The newest header of each live environment and of each day of ended ones, and when its batch was received (microseconds
    /// since the Unix epoch).
    pub fn headers(&self) -> impl Iterator<Item = (u64, &BatchHeader)> {
        let live = self.live.iter().map(|state| (state.received_at_us, &state.header));
        live.chain(self.ended.iter().map(|ended| (ended.received_at_us, &ended.header)))
    }
}
