//! Invocations that are not delivered yet. A batch is kept until the collector has it on disk.

use std::collections::VecDeque;
use std::time::Duration;

use agent_proto::batch::{Batch, BatchHeader, Environment, Lost, Overhead};
use bytes::Bytes;
use tailor_sizing::telemetry::invocation::Invocation;
use tailor_sizing::telemetry::utilization::Interval;
use tokio::time::Instant;

use crate::settings::MAX_FLUSH_ITEMS;

/// The most bytes of pending invocations. The extension's memory is part of the function's memory.
const MAX_PENDING_BYTES: usize = 1 << 20;

/// The most pending invocations.
pub const MAX_PENDING: usize = MAX_PENDING_BYTES / size_of::<Invocation>();

/// The most invocations in one batch. Its size stays far below the collector's limit.
const MAX_BATCH: usize = 1_000;

// A delivery is due before the outbox is full, also when invocations end while it runs.
const _: () = assert!(MAX_FLUSH_ITEMS <= MAX_PENDING / 2);

/// The pending invocations, and the batch that is not acknowledged yet.
#[derive(Debug)]
pub struct Outbox {
    environment: Environment,
    pending: VecDeque<Invocation>,
    oldest: Option<Instant>,
    sealed: Option<SealedBatch>,
    next_sequence: u64,
    lost: Lost,
    interval: Option<Interval>,
}

/// An encoded batch. It is sent unchanged until it is acknowledged, so that the collector recognizes a repeated batch
/// by its sequence. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct SealedBatch {
    /// Counts from 1.
    pub sequence: u64,
    /// The request body.
    pub bytes: Bytes,
    invocations: u64,
}

#[cfg(test)]
impl SealedBatch {
    /// A batch with any bytes.
    pub(crate) fn of(sequence: u64, bytes: Vec<u8>) -> Self {
        Self { sequence, bytes: bytes.into(), invocations: 0 }
    }
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            pending: VecDeque::new(),
            oldest: None,
            sealed: None,
            next_sequence: 1,
            lost: Lost::default(),
            interval: None,
        }
    }

    /// The environment in the header of each batch.
    pub fn environment_mut(&mut self) -> &mut Environment {
        &mut self.environment
    }

    /// Running totals of what was lost.
    pub fn lost_mut(&mut self) -> &mut Lost {
        &mut self.lost
    }

    /// Whether the next call of [`Outbox::seal`] makes a new batch.
    #[must_use]
    pub fn makes_new_batch(&self) -> bool {
        self.sealed.is_none() && !self.pending.is_empty()
    }

    /// What the environment used since the last batch, for the header of the next one.
    pub const fn set_interval(&mut self, interval: Interval) {
        self.interval = Some(interval);
    }

    /// Adds invocations; when full, the oldest are dropped and counted.
    pub fn add(&mut self, invocations: impl IntoIterator<Item = Invocation>) {
        for invocation in invocations {
            if self.pending.len() >= MAX_PENDING {
                self.pending.pop_front();
                self.lost.invocations += 1;
            }
            self.pending.push_back(invocation);
            self.oldest.get_or_insert_with(Instant::now);
        }
    }

    /// Whether to send now: `items` invocations are pending, one is pending for `age`, or a batch is not acknowledged.
    #[must_use]
    pub fn is_due(&self, items: usize, age: Duration) -> bool {
        let unsent = self.sealed.is_some();
        unsent || self.pending.len() >= items || self.oldest.is_some_and(|oldest| oldest.elapsed() >= age)
    }

    /// The number of invocations that are not acknowledged.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        let sealed = self.sealed.as_ref().map_or(0, |sealed| sealed.invocations);
        self.pending.len() as u64 + sealed
    }

    /// Whether every invocation is acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.sealed.is_none()
    }

    /// The batch to send now: the one that is not acknowledged, or a new one of the pending invocations.
    ///
    /// `open` is the number of invocations that have begun and are not in the outbox yet; `now_us` is microseconds since
    /// the Unix epoch.
    pub fn seal(&mut self, overhead: Overhead, open: usize, now_us: u64) -> Option<SealedBatch> {
        if self.makes_new_batch() {
            let count = self.pending.len().min(MAX_BATCH);
            let unsent = (self.pending.len() - count + open) as u64;
            let batch = Batch {
                header: BatchHeader {
                    environment: self.environment.clone(),
                    sequence: self.next_sequence,
                    sent_at_us: now_us,
                    lost: self.lost,
                    overhead,
                    unsent,
                    interval: self.interval.take(),
                },
                invocations: self.pending.drain(..count).collect(),
            };
            if self.pending.is_empty() {
                self.oldest = None;
            }
            self.next_sequence += 1;
            match batch.encode() {
                Ok(bytes) => {
                    let invocations = count as u64;
                    self.sealed = Some(SealedBatch {
                        sequence: batch.header.sequence,
                        bytes: bytes.into(),
                        invocations,
                    });
                }
                Err(error) => {
                    // Only a bug can cause this. It must lose these invocations and nothing else.
                    tracing::error!(%error, invocations = count, "cannot encode the batch: its invocations are lost");
                    self.lost.invocations += count as u64;
                }
            }
        }
        self.sealed.clone()
    }

    /// The collector has everything up to `sequence` on disk.
    pub fn acknowledge(&mut self, sequence: u64) {
        self.sealed.take_if(|sealed| sealed.sequence <= sequence);
    }

    /// The collector will never accept this batch: drops it and counts its invocations as lost.
    pub fn reject(&mut self, sequence: u64) {
        if let Some(sealed) = self.sealed.take_if(|sealed| sealed.sequence == sequence) {
            self.lost.invocations += sealed.invocations;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use agent_proto::batch::EnvironmentId;
    use tailor_sizing::telemetry::invocation::RequestId;
    use tailor_sizing::units::{Architecture, Megabytes};

    /// A typical environment.
    pub(crate) fn environment() -> Environment {
        Environment {
            id: EnvironmentId([1; 16]),
            account: String::new(),
            region: "eu-west-1".into(),
            function: "checkout".into(),
            version: "$LATEST".into(),
            memory: Megabytes(128),
            architecture: Architecture::X86_64,
            runtime: String::new(),
            initialization_type: agent_proto::batch::InitializationType::OnDemand,
            extension_version: "0.1.0".into(),
            ephemeral_mb: 0,
            timeout_ms: 0,
        }
    }

    fn outbox() -> Outbox {
        Outbox::new(environment())
    }

    fn invocations(ids: std::ops::Range<u128>) -> impl Iterator<Item = Invocation> {
        ids.map(|id| Invocation { request_id: RequestId(id), ..Invocation::default() })
    }

    fn sent(outbox: &mut Outbox) -> (u64, Vec<u128>) {
        let sealed = outbox.seal(Overhead::default(), 3, 1).unwrap();
        let batch = Batch::decode(&sealed.bytes).unwrap();
        assert!(batch.header.unsent >= 3);
        assert_eq!(batch.header.sequence, sealed.sequence);
        (sealed.sequence, batch.invocations.iter().map(|row| row.request_id.0).collect())
    }

    #[test]
    fn a_batch_is_sent_unchanged_until_it_is_acknowledged() {
        let mut outbox = outbox();
        outbox.add(invocations(0..3));
        assert_eq!(sent(&mut outbox), (1, vec![0, 1, 2]));
        outbox.add(invocations(3..4));
        assert_eq!(sent(&mut outbox), (1, vec![0, 1, 2]), "a retry sends the same batch");
        outbox.acknowledge(0);
        assert!(!outbox.is_empty());
        outbox.acknowledge(1);
        assert_eq!(sent(&mut outbox), (2, vec![3]));
        outbox.acknowledge(2);
        assert!(outbox.is_empty() && !outbox.is_due(1, Duration::ZERO));
    }

    #[test]
    fn sealing_again_shares_the_bytes_instead_of_copying_them() {
        let mut outbox = outbox();
        outbox.add(invocations(0..3));
        let mut seal = || outbox.seal(Overhead::default(), 0, 1).unwrap();
        assert_eq!(seal().bytes.as_ptr(), seal().bytes.as_ptr());
    }

    #[test]
    fn a_full_outbox_drops_the_oldest_and_counts_them() {
        let mut outbox = outbox();
        let extra = 10;
        outbox.add(invocations(0..(MAX_PENDING as u128 + extra)));
        let mut received = vec![];
        while !outbox.is_empty() {
            let (sequence, ids) = sent(&mut outbox);
            received.extend(ids);
            outbox.acknowledge(sequence);
        }
        assert_eq!(received, (extra..MAX_PENDING as u128 + extra).collect::<Vec<_>>());
        assert_eq!(u128::from(outbox.lost.invocations), extra);
    }

    #[test]
    fn a_rejected_batch_is_counted_as_lost() {
        let mut outbox = outbox();
        outbox.add(invocations(0..5));
        let (sequence, _) = sent(&mut outbox);
        outbox.reject(sequence);
        assert!(outbox.is_empty());
        assert_eq!(outbox.lost.invocations, 5);
    }
}
