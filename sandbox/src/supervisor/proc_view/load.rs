//! The load averages of an environment, which the kernel computes for the whole machine only.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Interval of the kernel.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// Time constants of the three averages, seconds.
const TIME_CONSTANTS_S: [f64; 3] = [60.0, 300.0, 900.0];

/// Threads of the environment by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tasks {
    pub(super) running: u32,
    pub(super) blocked: u32,
    pub(super) total: u32,
}

/// The averages, and the sample that they were last advanced with.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<([f64; 3], Tasks)>);

impl Load {
    /// Advances the averages by one interval.
    pub(super) fn advance(&self, tasks: Tasks) {
        let mut state = self.lock();
        let active = f64::from(tasks.running + tasks.blocked);
        for (average, constant) in state.0.iter_mut().zip(TIME_CONSTANTS_S) {
            let kept = (-INTERVAL.as_secs_f64() / constant).exp();
            *average = *average * kept + active * (1.0 - kept);
        }
        state.1 = tasks;
    }

    pub(super) fn averages(&self) -> [f64; 3] {
        self.lock().0
    }

    pub(super) fn tasks(&self) -> Tasks {
        self.lock().1
    }

    fn lock(&self) -> MutexGuard<'_, ([f64; 3], Tasks)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the threads in this PID namespace, without those of the supervisor.
pub(super) fn count_tasks() -> Tasks {
    let mut tasks = Tasks::default();
    let Ok(entries) = fs::read_dir("/proc") else { return tasks };
    for entry in entries.flatten() {
        let pid: Option<u32> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if pid.is_none_or(|pid| pid == 1) {
            continue;
        }
        let Ok(threads) = fs::read_dir(entry.path().join("task")) else { continue };
        for thread in threads.flatten() {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
            tasks.running += u32::from(state == Some("R"));
            tasks.blocked += u32::from(state == Some("D"));
            tasks.total += 1;
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_approaches_the_number_of_running_threads() {
        let load = Load::default();
        for _ in 0..60 {
            load.advance(Tasks { running: 2, blocked: 0, total: 4 });
        }
        let [one, five, fifteen] = load.averages();
        assert!((one - 2.0).abs() < 0.05 && five < one && fifteen < five, "{one} {five} {fifteen}");
    }
}
