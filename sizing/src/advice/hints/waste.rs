//! Hints on costs without a benefit: timeouts, connections that are opened again, unused storage.

use super::hint::{Hint, HintCode};
use super::input::{HintInput, positive, share};
use crate::pricing::bill::FREE_STORAGE_MB;
use crate::pricing::cost_model::money;

/// Share of the billed time that must end in timeouts to be shown.
const TIMED_OUT: f64 = 0.02;

/// Connections per warm invocation from which a client is taken to be made anew each time.
const CONNECTIONS: f64 = 0.9;

/// What opening one connection takes at least, ms: round trips within a region for TCP and TLS, and the CPU
/// of the handshake. An assumption on the low side.
const CONNECT_MS: f64 = 3.0;

/// Share of the warm duration after the runtime answered from which it is shown.
const EXTENSION_SHARE: f64 = 0.10;

/// Least post-runtime time that is shown, ms: less is the platform's own.
const EXTENSION_MS: f64 = 2.0;

/// Share of the configured `/tmp` below which some of it is called unused.
const STORAGE_USED: f64 = 0.70;

pub(super) fn timeouts(input: &HintInput<'_>) -> Option<Hint> {
    let rollup = input.rollup;
    let timeout_ms = input.evidence.timeout_ms? as f64;
    let lost_ms = match rollup.timeouts_billed_ms {
        // Rollups of earlier versions do not have it, and an Init before the timeout is not known.
        0 => rollup.timeouts as f64 * timeout_ms,
        billed_ms => billed_ms as f64,
    };
    let part = share(lost_ms, rollup.billed_ms as f64).min(1.0);
    (rollup.timeouts > 0 && part >= TIMED_OUT).then(|| Hint {
        code: HintCode::TimeoutsPaid,
        evidence: format!(
            "{} of {} invocations ran into the timeout of {timeout_ms:.0} ms: {:.0} % of the billed time",
            rollup.timeouts,
            rollup.invocations,
            100.0 * part
        ),
        action: "find the call that does not return and give its client a shorter timeout; callers may retry"
            .to_owned(),
        saving_per_million: positive(money(input.cost_now().0 as f64 * part)),
    })
}

pub(super) fn connections(input: &HintInput<'_>) -> Option<Hint> {
    let warm = &input.rollup.warm;
    let opened = share(warm.work.sockets_opened as f64, warm.invocations as f64);
    (opened >= CONNECTIONS).then(|| Hint {
        code: HintCode::ConnectionsPerInvocation,
        evidence: format!("{opened:.1} TCP connections are opened in a warm invocation"),
        action: "create clients outside the handler and keep their connections alive".to_owned(),
        saving_per_million: input.saving_of_ms((opened * CONNECT_MS).min(input.profile.wall_ms)),
    })
}

pub(super) fn extensions(input: &HintInput<'_>) -> Option<Hint> {
    let rollup = input.rollup;
    let mean_us = share(rollup.post_runtime_us as f64, rollup.warm_duration_us.count() as f64);
    let mean_ms = mean_us / 1_000.0;
    let part = share(mean_us, rollup.warm_duration_us.mean().unwrap_or(0.0));
    let of_warm = (part >= EXTENSION_SHARE && mean_ms >= EXTENSION_MS).then(|| {
        format!(
            "extensions run for {mean_ms:.1} ms after the runtime answered: {:.0} % of the duration of a warm invocation",
            100.0 * part
        )
    });
    let waits = &rollup.extension_waits;
    let of_single = (waits.invocations > 0).then(|| {
        let seconds = |us: u64| us as f64 / 1e6;
        format!(
            "{} of {} invocations waited most of their duration for an extension, the longest {:.1} of {:.1} s",
            waits.invocations,
            rollup.invocations,
            seconds(waits.longest_us),
            seconds(waits.longest_duration_us)
        )
    });
    let evidence: Vec<String> = [of_warm, of_single].into_iter().flatten().collect();
    let single_ms = share(waits.wait_us as f64, rollup.invocations as f64) / 1_000.0;
    (!evidence.is_empty()).then(|| Hint {
        code: HintCode::ExtensionOverhead,
        evidence: evidence.join("; "),
        action:
            "find the extension that delays the end of the invocation; let it send its data in the background"
                .to_owned(),
        saving_per_million: input.saving_of_ms(mean_ms.max(single_ms)),
    })
}

pub(super) fn storage(input: &HintInput<'_>) -> Option<Hint> {
    let configured = input.evidence.ephemeral_mb;
    let used = input.evidence.sizes.iter().map(|(_, rollup)| rollup.max_tmp_used_kib).max()?.div_ceil(1_024);
    // `/tmp` is measured only together with the processes.
    let is_measured = input.rollup.warm.invocations + input.rollup.cold.invocations > 0;
    if !is_measured || configured <= FREE_STORAGE_MB || used as f64 >= STORAGE_USED * f64::from(configured) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below `configured`")]
    let enough = ((used as f64 / STORAGE_USED).ceil() as u32).clamp(FREE_STORAGE_MB, configured);
    let less = input.costs.with_storage(enough);
    let saving = input.cost_now() - less.per_million(input.evidence.memory, input.now_ms());
    Some(Hint {
        code: HintCode::EphemeralStorageUnused,
        evidence: format!(
            "at most {used} of {configured} MB of /tmp were in use, and {FREE_STORAGE_MB} are free"
        ),
        action: format!("configure {enough} MB"),
        saving_per_million: positive(saving),
    })
}
