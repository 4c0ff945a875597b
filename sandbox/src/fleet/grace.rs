//! How long an invocation waits for an environment that has sent its response and whose runtime or extensions have not
//! requested their next event.
//!
//! On Lambda they have the time of the network to the caller and back. Here the caller comes back at once, and at small
//! memory sizes the CPU quota alone delays a runtime by several periods. Wall time therefore does not show whether it
//! still works. What counts is the CPU time that the environment uses, and the time in which it waits for something that
//! is not the CPU.

use std::collections::HashMap;
use std::time::Duration;

use crate::environment::Environment;

/// Longer than a round trip to Lambda.
const LIMIT: Duration = Duration::from_millis(25);

/// Interval between looks at the environments.
pub(super) const INTERVAL: Duration = Duration::from_millis(5);

/// What the environments have used since an invocation waits for one of them.
#[derive(Debug, Default)]
pub(super) struct Grace(HashMap<String, Used>);

#[derive(Debug)]
struct Used {
    cpu_at_start: Duration,
    waited: Duration,
}

impl Grace {
    /// Whether it is worthwhile to wait for this environment.
    pub(super) fn is_left(&mut self, environment: &Environment) -> bool {
        let cpu = environment.cpu_time();
        let new = || Used { cpu_at_start: cpu, waited: Duration::ZERO };
        let used = self.0.entry(environment.id.clone()).or_insert_with(new);
        cpu.saturating_sub(used.cpu_at_start) + used.waited < LIMIT
    }

    /// One interval has passed. It counts for environments in which no thread was ready to run; for the others their CPU
    /// time counts.
    pub(super) fn pass(&mut self, environments: &[Environment]) {
        for environment in environments.iter().filter(|environment| !environment.is_runnable()) {
            if let Some(used) = self.0.get_mut(&environment.id) {
                used.waited += INTERVAL;
            }
        }
    }
}
