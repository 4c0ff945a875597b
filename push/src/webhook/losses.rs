//! When a loss is an event.

use serde::{Deserialize, Serialize};

use super::Losses;

/// Shortest time between two events, microseconds.
const PAUSE_US: u64 = 3_600_000_000;

/// What is known of losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LossState {
    /// The counts when they were read last. They may fall, when what was lost leaves the window.
    seen: Losses,
    /// What was added to them since the last event.
    unsent: Losses,
    /// When the last event was made, microseconds since the Unix epoch.
    at_us: u64,
}

impl LossState {
    /// Losses that are known from the beginning.
    #[must_use]
    pub fn known(seen: Losses) -> Self {
        Self { seen, ..Self::default() }
    }

    /// Takes the counts as they are now. Returns what was lost since the last event, at most once an hour.
    pub fn next_event(&mut self, now: Losses, now_us: u64) -> Option<Losses> {
        let seen = std::mem::replace(&mut self.seen, now);
        let Losses {
            invocations,
            abandoned_invocations,
            batches,
            platform_records,
            undecodable_records,
            damaged_rows,
        } = &mut self.unsent;
        for (unsent, seen, now) in [
            (invocations, seen.invocations, now.invocations),
            (abandoned_invocations, seen.abandoned_invocations, now.abandoned_invocations),
            (batches, seen.batches, now.batches),
            (platform_records, seen.platform_records, now.platform_records),
            (undecodable_records, seen.undecodable_records, now.undecodable_records),
            (damaged_rows, seen.damaged_rows, now.damaged_rows),
        ] {
            *unsent = unsent.saturating_add(now.saturating_sub(seen));
        }
        let is_due = now_us >= self.at_us.saturating_add(PAUSE_US);
        if self.unsent == Losses::default() || !is_due {
            return None;
        }
        self.at_us = now_us;
        Some(std::mem::take(&mut self.unsent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_added_up_to_one_event_an_hour() {
        let batches = |batches| Losses { batches, ..Losses::default() };
        let mut state = LossState::known(batches(5));
        assert_eq!(state.next_event(batches(5), PAUSE_US), None);
        assert_eq!(state.next_event(batches(7), PAUSE_US), Some(batches(2)));
        assert_eq!(state.next_event(batches(8), PAUSE_US + 1), None);
        assert_eq!(state.next_event(batches(1), PAUSE_US + 2), None, "what is older than the window");
        assert_eq!(state.next_event(batches(4), 2 * PAUSE_US), Some(batches(1 + 3)));
        assert_eq!(state.next_event(batches(4), 9 * PAUSE_US), None);
    }
}
