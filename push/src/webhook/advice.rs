//! Which recommendations are events: those that are new, and those that changed materially.

use serde::{Deserialize, Serialize};
use tailor_sizing::pricing::money::PicoDollars;

/// Shortest time between two events about one function, microseconds.
const PAUSE_US: u64 = 24 * 3_600_000_000;

/// A recommendation as it is now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurrentAdvice {
    /// Present memory size, MB.
    pub memory_mb: u32,
    /// Recommended memory size, MB.
    pub recommended_mb: u32,
    /// What it would have saved in the last 30 days.
    pub saving: PicoDollars,
}

/// A recommendation as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAdvice {
    /// Memory size then, MB.
    pub memory_mb: u32,
    /// Recommended memory size, MB.
    pub recommended_mb: u32,
    /// The saving then.
    pub saving: PicoDollars,
    /// When it was sent, microseconds since the Unix epoch.
    pub at_us: u64,
}

/// Which event a recommendation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdviceEvent {
    /// It was not sent before, or the function has another memory size since.
    New,
    /// The recommended size changed, or the saving has doubled or halved.
    Changed,
}

impl CurrentAdvice {
    /// Whether it recommends more memory without a saving, because the function needs it.
    #[must_use]
    pub fn is_for_memory(&self) -> bool {
        self.recommended_mb > self.memory_mb && self.saving <= PicoDollars::ZERO
    }

    /// What is kept of it when it is sent.
    #[must_use]
    pub const fn known(&self, at_us: u64) -> KnownAdvice {
        let Self { memory_mb, recommended_mb, saving } = *self;
        KnownAdvice { memory_mb, recommended_mb, saving, at_us }
    }
}

/// Whether a recommendation is an event. One with a smaller saving than `min_saving` is not, unless the function needs more
/// memory, and a function has one event a day at most: what changed in the meantime is judged again after that.
#[must_use]
pub fn advice_event(
    known: Option<&KnownAdvice>,
    current: &CurrentAdvice,
    min_saving: PicoDollars,
    now_us: u64,
) -> Option<AdviceEvent> {
    if current.saving < min_saving && !current.is_for_memory() {
        return None;
    }
    let Some(known) = known else { return Some(AdviceEvent::New) };
    if now_us < known.at_us.saturating_add(PAUSE_US) {
        return None;
    }
    if known.memory_mb != current.memory_mb {
        return Some(AdviceEvent::New);
    }
    let (old, new) = (known.saving.0.max(0), current.saving.0.max(0));
    let difference = PicoDollars(new.abs_diff(old).try_into().unwrap_or(i128::MAX));
    let is_large = difference > PicoDollars::ZERO && difference >= min_saving;
    let has_doubled_or_halved = new >= old.saturating_mul(2) || new <= old / 2;
    let has_changed = known.recommended_mb != current.recommended_mb || is_large && has_doubled_or_halved;
    has_changed.then_some(AdviceEvent::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_US: u64 = PAUSE_US;
    const DOLLAR: i128 = 1_000_000_000_000;

    fn current(memory_mb: u32, recommended_mb: u32, dollars: i128) -> CurrentAdvice {
        CurrentAdvice { memory_mb, recommended_mb, saving: PicoDollars(dollars * DOLLAR) }
    }

    #[test]
    fn only_material_changes_are_events_and_at_most_one_a_day() {
        let min = PicoDollars(DOLLAR);
        let sent = current(1_024, 512, 10);
        assert_eq!(advice_event(None, &sent, min, 0), Some(AdviceEvent::New));
        assert_eq!(advice_event(None, &current(1_024, 512, 0), min, 0), None, "too small");
        assert_eq!(advice_event(None, &current(128, 256, -3), min, 0), Some(AdviceEvent::New), "for memory");
        let known = sent.known(DAY_US);
        let event = |now: CurrentAdvice, at_us| advice_event(Some(&known), &now, min, at_us);
        for (now, expected) in [
            (sent, None),
            (current(1_024, 512, 19), None),
            (current(1_024, 512, 20), Some(AdviceEvent::Changed)),
            (current(1_024, 512, 6), None),
            (current(1_024, 512, 5), Some(AdviceEvent::Changed)),
            (current(1_024, 640, 10), Some(AdviceEvent::Changed)),
            (current(512, 384, 3), Some(AdviceEvent::New)),
        ] {
            assert_eq!(event(now, 2 * DAY_US), expected, "{now:?}");
            assert_eq!(event(now, 2 * DAY_US - 1), None, "a day has not passed");
        }
        // Without a limit, savings of zero are no change.
        let free = current(1_024, 512, 0);
        assert_eq!(advice_event(Some(&free.known(0)), &free, PicoDollars::ZERO, DAY_US), None);
    }
}
