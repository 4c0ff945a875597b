//! Hints: one finding each, with a stable code, the evidence, what to do and what it saves.
//!
//! A hint is shown only when its measurement is clear. The thresholds are constants next to their hints. The
//! recommended memory size is not a hint: see [`crate::advice::recommendation`].

mod bill;
mod cpu;
mod full_bill;
mod hint;
mod input;
mod memory;
mod waste;

use std::cmp::Ordering;

pub use full_bill::bill_hints;
pub use hint::{Hint, HintCode, Severity};
pub(crate) use input::HintInput;

/// Every hint that applies, the most important first, and none that contradicts the recommended size or an
/// earlier hint: those that point to more memory come before those that point to less.
pub(crate) fn hints(input: &HintInput<'_>) -> Vec<Hint> {
    let all = [
        memory::underprovisioned,
        memory::pressure,
        cpu::starved,
        waste::timeouts,
        memory::overprovisioned,
        cpu::single_threaded,
        cpu::idle,
        bill::cold_starts,
        bill::requests,
        bill::arm64,
        waste::extensions,
        waste::connections,
        waste::storage,
    ];
    let mut towards = match input.recommended.cmp(&input.evidence.memory) {
        Ordering::Equal => None,
        changed => Some(changed),
    };
    let mut agrees = |hint: &Hint| {
        let direction = hint.code.direction();
        let agreed = direction.is_none() || towards.is_none() || direction == towards;
        towards = towards.or(direction);
        agreed
    };
    all.into_iter().filter_map(|hint| hint(input)).filter(|hint| agrees(hint)).collect()
}
