//! What was lost between the handler and the store, and what may have been.

use serde::Serialize;

use crate::store::{EnvironmentState, HOUR_US};

/// An environment that is silent for so long is taken to be gone: Lambda ends idle ones within the hour, and an
/// environment that ends says so in a last batch.
const SILENCE_US: u64 = HOUR_US;

/// Losses, over the environments heard from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Losses {
    /// Invocations dropped because an environment's buffer was full.
    pub invocations: u64,
    /// Invocations that had begun when their environment was last heard of, and that no batch has brought: they
    /// run, wait for what the platform says of them, or were lost with an environment that was killed.
    pub unsent: u64,
    /// Those of them whose environment has been silent for an hour: killed without a word, or frozen since.
    pub abandoned: u64,
    /// Telemetry records the platform dropped.
    pub platform_records: u64,
    /// Telemetry that could not be decoded.
    pub undecodable_records: u64,
    /// Batches that were counted by an environment and never came.
    pub batches: u64,
    /// Deliveries that failed and were tried again: nothing is lost by these.
    pub failed_deliveries: u64,
}

impl Losses {
    /// Sums up what environments lost, as seen at `now_us`, microseconds since the Unix epoch.
    #[must_use]
    pub fn of(environments: &[EnvironmentState], now_us: u64) -> Self {
        environments.iter().fold(Self::default(), |sum, state| {
            let is_silent = now_us.saturating_sub(state.received_at_us) >= SILENCE_US;
            let abandoned = if is_silent { state.header.unsent } else { 0 };
            Self {
                invocations: sum.invocations.saturating_add(state.header.lost.invocations),
                unsent: sum.unsent.saturating_add(state.header.unsent),
                abandoned: sum.abandoned.saturating_add(abandoned),
                platform_records: sum.platform_records.saturating_add(state.header.lost.platform_records),
                undecodable_records: sum
                    .undecodable_records
                    .saturating_add(state.header.lost.undecodable_records),
                batches: sum.batches.saturating_add(state.missing_batches),
                failed_deliveries: sum.failed_deliveries.saturating_add(state.header.lost.failed_deliveries),
            }
        })
    }

    /// What of it is worth a sentence.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let candidates = [
            (self.invocations, "invocations lost before they were sent"),
            (
                self.abandoned,
                "invocations that environments, silent for an hour, had begun and never sent: killed, or frozen since",
            ),
            (self.batches, "batches that never arrived"),
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
    use agent_proto::batch::{BatchHeader, Environment, EnvironmentId, Lost, Overhead};
    use tailor_sizing::units::{Architecture, Megabytes};

    /// That of a function like many.
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
        EnvironmentState {
            header: BatchHeader {
                environment: environment(),
                sequence: 3,
                sent_at_us: received_at_us,
                lost: Lost::default(),
                overhead: Overhead::default(),
                unsent,
            },
            missing_batches: 0,
            received_at_us,
        }
    }

    #[test]
    fn what_a_silent_environment_had_not_sent_is_said_to_be_abandoned() {
        let now_us = 10 * HOUR_US;
        // One that works, one that was killed, and one that said its last word.
        let environments = [state(now_us - 1, 2), state(now_us - SILENCE_US, 1), state(0, 0)];
        let losses = Losses::of(&environments, now_us);
        assert_eq!((losses.unsent, losses.abandoned), (3, 1));
        let sentences = losses.sentences();
        assert!(sentences.len() == 1 && sentences[0].ends_with(": 1"), "{sentences:?}");
        assert!(Losses::of(&environments, now_us - 1).sentences().is_empty());
    }
}
