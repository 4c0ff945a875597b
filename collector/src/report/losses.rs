//! Invocations, records and batches that were lost, or may have been lost, before they were stored.

use agent_proto::batch::Lost;
use serde::{Deserialize, Serialize};

use crate::store::{Environments, HOUR_US};

/// An environment that sent nothing for this time is assumed to have ended: Lambda ends idle environments within the hour,
/// and an environment that ends in order sends a last batch.
const SILENCE_US: u64 = HOUR_US;

/// Losses, over the environments that sent a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Losses {
    /// Invocations dropped because an environment's buffer was full.
    pub invocations: u64,
    /// Invocations that had started when their environment sent its latest batch, and that were not in it. They run, wait
    /// for records of the platform, or were lost with an environment that was killed.
    pub unsent: u64,
    /// Those of them whose environment has sent nothing for an hour: it was killed, or it is frozen.
    pub abandoned: u64,
    /// Telemetry records that the platform dropped.
    pub platform_records: u64,
    /// Telemetry that could not be decoded.
    pub undecodable_records: u64,
    /// Batches that an environment numbered and that did not arrive.
    pub batches: u64,
    /// Deliveries that failed and were retried. They lose nothing.
    pub failed_deliveries: u64,
}

impl Losses {
    /// Sums up what environments lost in a window that starts at `from_us`, as seen at `now_us`, microseconds since the
    /// Unix epoch.
    #[must_use]
    pub fn of(environments: &Environments, from_us: u64, now_us: u64) -> Self {
        let mut sum = Self::default();
        for state in &environments.live {
            let is_silent = now_us.saturating_sub(state.received_at_us) >= SILENCE_US;
            let abandoned = if is_silent { state.header.unsent } else { 0 };
            sum.add(
                &state.header.lost,
                state.header.unsent,
                abandoned,
                state.sequences.missing_since(from_us),
            );
        }
        for ended in &environments.ended {
            sum.add(&ended.lost, ended.unsent, ended.unsent, ended.missing_batches);
        }
        sum
    }

    fn add(&mut self, lost: &Lost, unsent: u64, abandoned: u64, batches: u64) {
        for (sum, count) in [
            (&mut self.invocations, lost.invocations),
            (&mut self.unsent, unsent),
            (&mut self.abandoned, abandoned),
            (&mut self.platform_records, lost.platform_records),
            (&mut self.undecodable_records, lost.undecodable_records),
            (&mut self.batches, batches),
            (&mut self.failed_deliveries, lost.failed_deliveries),
        ] {
            *sum = sum.saturating_add(count);
        }
    }

    /// One sentence for each kind of loss, with its count.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let candidates = [
            (self.invocations, "invocations lost before they were sent"),
            (
                self.abandoned,
                "invocations that started in environments that have sent nothing for an hour (killed or frozen)",
            ),
            (self.batches, "batches that did not arrive"),
            (self.platform_records, "telemetry records dropped by the platform"),
            (self.undecodable_records, "telemetry records that could not be read"),
        ];
        let applying = candidates.into_iter().filter(|(count, _)| *count > 0);
        applying.map(|(count, sentence)| format!("{sentence}: {count}")).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::EnvironmentState;
    use agent_proto::batch::{BatchHeader, Environment, EnvironmentId, Overhead};
    use tailor_sizing::units::{Architecture, Megabytes};

    /// The environment of a typical function.
    pub(crate) fn environment() -> Environment {
        Environment {
            id: EnvironmentId([1; 16]),
            account: String::new(),
            region: "eu-west-1".into(),
            function: "checkout".into(),
            version: "1".into(),
            memory: Megabytes(128),
            architecture: Architecture::X86_64,
            runtime: String::new(),
            initialization_type: agent_proto::batch::InitializationType::OnDemand,
            extension_version: String::new(),
            ephemeral_mb: 512,
            timeout_ms: 0,
        }
    }

    fn state(received_at_us: u64, unsent: u64) -> EnvironmentState {
        let header = BatchHeader {
            environment: environment(),
            sequence: 1,
            sent_at_us: received_at_us,
            lost: Lost::default(),
            overhead: Overhead::default(),
            unsent,
            interval: None,
        };
        EnvironmentState::first(header, received_at_us)
    }

    #[test]
    fn unsent_invocations_of_a_silent_environment_are_reported_as_abandoned() {
        let now_us = 10 * HOUR_US;
        // One that is active, one that was killed, and one that sent its last batch.
        let live = vec![state(now_us - 1, 2), state(now_us - SILENCE_US, 1), state(0, 0)];
        let environments = Environments { live, ended: vec![] };
        let losses = Losses::of(&environments, 0, now_us);
        assert_eq!((losses.unsent, losses.abandoned), (3, 1));
        let sentences = losses.sentences();
        assert!(sentences.len() == 1 && sentences[0].ends_with(": 1"), "{sentences:?}");
        assert!(Losses::of(&environments, 0, now_us - 1).sentences().is_empty());
    }
}
