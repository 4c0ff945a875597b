//! Invocations that spent most of their time waiting for an extension.

use super::invocation::Invocation;

/// The share of the duration after the runtime answered from which an invocation waited for an extension.
const SHARE: f64 = 0.5;

/// The shortest wait that counts alone, microseconds. The mean over warm invocations shows shorter ones.
const LEAST_US: u64 = 1_000_000;

/// Invocations that waited for an extension for at least a second and half of their duration, of any outcome. Timeouts
/// because an extension did not end are among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionWaits {
    /// Their number.
    pub invocations: u64,
    /// Their time after the runtime answered, microseconds.
    pub wait_us: u64,
    /// The longest such time of one of them, microseconds.
    pub longest_us: u64,
    /// Its duration, microseconds.
    pub longest_duration_us: u64,
}

impl ExtensionWaits {
    /// One invocation, if it waited so long.
    #[must_use]
    pub fn of_one(invocation: &Invocation) -> Self {
        let wait_us = invocation.post_runtime_us();
        let duration_us = invocation.duration_without_init_us();
        if wait_us < LEAST_US || (wait_us as f64) < SHARE * duration_us as f64 {
            return Self::default();
        }
        Self { invocations: 1, wait_us, longest_us: wait_us, longest_duration_us: duration_us }
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        self.invocations = self.invocations.saturating_add(other.invocations);
        self.wait_us = self.wait_us.saturating_add(other.wait_us);
        let longest = (self.longest_us, self.longest_duration_us);
        (self.longest_us, self.longest_duration_us) =
            longest.max((other.longest_us, other.longest_duration_us));
    }
}
