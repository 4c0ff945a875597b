//! Faults that are made on request, from the command line or while the sandbox serves.
//!
//! Lambda may deliver telemetry twice, late, out of order or not at all, may add event types, may end an
//! environment without SHUTDOWN, and runs it on a shared CPU. Software that cannot handle this should fail here
//! first.

mod neighbours;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use clap::Args;
use serde::{Deserialize, Serialize};

pub use neighbours::{Neighbours, SUBCOMMAND, spin};

/// A hundred years, in milliseconds. Later times may not fit into Lambda's time format.
const MAX_CLOCK_OFFSET_MS: u64 = 100 * 365 * 24 * 3_600_000;

/// The requested faults. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Faults (also settable while serving: /sandbox/faults)")]
pub struct Settings {
    /// Deliver every Nth telemetry batch twice.
    #[arg(long = "fault-duplicate-telemetry", value_name = "N")]
    pub duplicate_telemetry: Option<u64>,
    /// Deliver every telemetry batch late by this many milliseconds.
    #[arg(long = "fault-delay-telemetry-ms", value_name = "MS")]
    pub delay_telemetry_ms: Option<u64>,
    /// Reverse the events of every telemetry batch.
    #[arg(long = "fault-reorder-telemetry")]
    pub reorder_telemetry: bool,
    /// Do not deliver telemetry events of this type, for example platform.report; may be repeated.
    #[arg(long = "fault-lose-telemetry", value_name = "TYPE")]
    pub lose_telemetry: Vec<String>,
    /// Add an event of an unknown type to every telemetry batch.
    #[arg(long = "fault-unknown-telemetry")]
    pub unknown_telemetry: bool,
    /// Respond to telemetry subscriptions with this HTTP status: 202 as AWS's emulator does, 400, 403 or 500.
    #[arg(long = "fault-refuse-subscription", value_name = "STATUS")]
    pub refuse_subscription: Option<u16>,
    /// Send SHUTDOWN late by this many milliseconds; the deadline does not change.
    #[arg(long = "fault-shutdown-delay-ms", value_name = "MS")]
    pub shutdown_delay_ms: Option<u64>,
    /// Do not send SHUTDOWN: extensions are killed at the deadline.
    #[arg(long = "fault-lose-shutdown")]
    pub lose_shutdown: bool,
    /// Add this offset to every time that is sent to environments, as if the platform's clock differed from
    /// theirs: deadlines, the times of telemetry, the expiration of credentials. Their own clock is the machine's.
    #[arg(
        long = "fault-clock-offset-ms",
        value_name = "MS",
        default_value_t = 0,
        allow_hyphen_values = true
    )]
    pub clock_offset_ms: i64,
    /// Number of busy processes that compete for CPU, each with the scheduler weight of one environment.
    #[arg(long = "fault-cpu-contention", value_name = "PROCESSES", default_value_t = 0)]
    pub cpu_contention: usize,
}

/// The faults in force.
#[derive(Debug, Default)]
pub struct Faults {
    settings: RwLock<Arc<Settings>>,
    batches: AtomicU64,
}

impl Faults {
    /// The current settings.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the settings. This does not start processes that compete for CPU: `environment::Platform::set_faults`
    /// does that.
    pub fn set(&self, settings: Settings) {
        crate::time::set_offset_ms(settings.clock_offset_ms);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Whether the batch that was just delivered is delivered again.
    pub fn repeats_batch(&self) -> bool {
        let Some(every) = self.settings().duplicate_telemetry else { return false };
        (self.batches.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every.max(1))
    }
}

impl Settings {
    /// Fails on values that cannot be applied.
    pub fn check(&self) -> anyhow::Result<()> {
        let offset_ms = self.clock_offset_ms;
        anyhow::ensure!(
            offset_ms.unsigned_abs() <= MAX_CLOCK_OFFSET_MS,
            "clock_offset_ms is {offset_ms}, allowed are {MAX_CLOCK_OFFSET_MS} either way"
        );
        if let Some(status) = self.refuse_subscription {
            anyhow::ensure!(
                (200..=599).contains(&status),
                "refuse_subscription is {status}, allowed is an HTTP status from 200 to 599"
            );
        }
        Ok(())
    }
}
