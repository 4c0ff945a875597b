//! Hints on memory: too little, too much, or so tight that the runtime works to keep within it.

use super::hint::{Hint, HintCode};
use super::input::{HintInput, share};
use crate::model::memory_floor::peak_memory_mb;
use crate::model::profile::Profile;
use crate::units::Megabytes;

/// A floor below this share of the size means that memory is bought for its CPU alone.
const UNUSED: f64 = 0.60;

/// From this share of its memory on, a runtime that collects garbage may spend CPU on staying below it.
const TIGHT: f64 = 0.85;

/// CPU time relative to a roomier size from which that shows: beyond what small sizes cost anyway.
const PRESSED: f64 = 1.20;

/// Page faults read from disk per invocation from which the page cache no longer fits.
const RELOADED: f64 = 10.0;

pub(super) fn underprovisioned(input: &HintInput<'_>) -> Option<Hint> {
    let (floor, memory) = (input.floor, input.evidence.memory);
    // Kills at a smaller size in the past leave the floor at or below the current size.
    if floor.memory <= memory {
        return None;
    }
    let kills = match floor.out_of_memory {
        0 => String::new(),
        1 => ", and there was one out-of-memory kill".to_owned(),
        n => format!(", and there were {n} out-of-memory kills"),
    };
    Some(Hint {
        code: HintCode::MemoryUnderprovisioned,
        evidence: format!("up to {:.0} MB of {memory} were in use{kills}", floor.peak_mb),
        action: format!("set at least {}, or reduce the memory that the function needs", floor.memory),
        saving_per_million: None,
    })
}

pub(super) fn overprovisioned(input: &HintInput<'_>) -> Option<Hint> {
    let (floor, memory) = (input.floor, input.evidence.memory);
    let has_unused = f64::from(floor.memory.0) < UNUSED * f64::from(memory.0);
    // Memory may be bought for the CPU that comes with it: only where less is recommended is it too much.
    if floor.unmeasured || !has_unused || input.recommended >= memory {
        return None;
    }
    let saving = input.saving_at(input.recommended)?;
    Some(Hint {
        code: HintCode::MemoryOverprovisioned,
        evidence: format!(
            "at most {:.0} MB of {memory} were in use; {} is enough with a margin of {:.0} %",
            floor.peak_mb,
            floor.memory,
            100.0 * floor.margin
        ),
        action: format!("reduce the memory size to {}", input.recommended),
        saving_per_million: Some(saving),
    })
}

pub(super) fn pressure(input: &HintInput<'_>) -> Option<Hint> {
    let memory = input.evidence.memory;
    let used = peak_memory_mb(input.rollup);
    if input.profile.memory != memory || share(used, f64::from(memory.0)) < TIGHT {
        return None;
    }
    let busy_ms = input.profile.busy_ms;
    let roomy = roomier_busy_ms(input).filter(|&roomy_ms| busy_ms > PRESSED * roomy_ms);
    let measured = input.rollup.warm.invocations.max(1) as f64;
    let reloads = input.rollup.warm.work.major_faults as f64 / measured;
    let symptom = match roomy {
        Some(roomy_ms) => {
            format!("an invocation takes {busy_ms:.0} ms of CPU, and {roomy_ms:.0} ms where it has more")
        }
        None if reloads >= RELOADED => format!("{reloads:.0} pages an invocation are read again from disk"),
        None => return None,
    };
    Some(Hint {
        code: HintCode::MemoryPressure,
        evidence: format!("up to {used:.0} MB of {memory} are in use: {symptom}"),
        action: "increase the memory size: garbage collection and page reloads take less time".to_owned(),
        saving_per_million: roomy
            .and_then(|roomy_ms| input.saving_of_ms((busy_ms - roomy_ms) / memory.share().clamp(1e-3, 1.0))),
    })
}

/// CPU time of an invocation at the smallest larger size where memory was not tight.
fn roomier_busy_ms(input: &HintInput<'_>) -> Option<f64> {
    let mut roomier: Vec<(Megabytes, f64)> = input
        .evidence
        .sizes
        .iter()
        .filter(|(size, rollup)| {
            *size > input.evidence.memory && share(peak_memory_mb(rollup), f64::from(size.0)) < TIGHT
        })
        .filter_map(|(size, rollup)| Profile::of(*size, rollup, input.profile.kernel))
        .filter(|profile| profile.measured)
        .map(|profile| (profile.memory, profile.busy_ms))
        .collect();
    roomier.sort_by_key(|(size, _)| *size);
    roomier.first().map(|(_, busy_ms)| *busy_ms)
}
