//! Hints over the fleet: which saves the most, and for which functions.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use tailor_sizing::pricing::money::PicoDollars;

use crate::store::{FunctionKey, SummaryRow};

/// Functions that are named of each hint.
const MAX_FUNCTIONS: usize = 5;

/// One kind of hint over all functions that have it.
#[derive(Debug, Clone, Serialize)]
pub struct FleetHint {
    /// Its stable code.
    pub code: String,
    /// What it means, and what to do; empty for a code that this version does not have.
    pub meaning: &'static str,
    /// Number of functions that have it.
    pub functions: u64,
    /// What acting on it would have saved in the window. Savings of several hints of one function do not add up.
    pub saving_pico_usd: PicoDollars,
    /// The functions with the highest saving: at most five.
    pub examples: Vec<HintedFunction>,
}

/// A function with a hint.
#[derive(Debug, Clone, Serialize)]
pub struct HintedFunction {
    /// The function.
    pub function: FunctionKey,
    /// What acting on the hint would have saved in the window.
    pub saving_pico_usd: PicoDollars,
}

/// What the hints over the fleet are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HintSort {
    /// Saving; the highest first.
    #[default]
    Saving,
    /// Number of functions; the highest first.
    Functions,
    /// Code.
    Code,
}

impl HintSort {
    /// The value of the parameter.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Saving => "saving",
            Self::Functions => "functions",
            Self::Code => "code",
        }
    }

    /// Sorts hints, which are in the default order.
    pub fn sort(self, hints: &mut [FleetHint], is_reversed: bool) {
        match self {
            Self::Saving => {}
            Self::Functions => hints.sort_by_key(|hint| Reverse(hint.functions)),
            Self::Code => hints.sort_by(|a, b| a.code.cmp(&b.code)),
        }
        if is_reversed {
            hints.reverse();
        }
    }
}

/// The hints of some functions, the one with the highest saving first.
pub(super) fn over(rows: &[SummaryRow]) -> Vec<FleetHint> {
    let mut by_code: BTreeMap<&str, Vec<(PicoDollars, &SummaryRow)>> = BTreeMap::new();
    for row in rows {
        for hint in &row.hints {
            by_code.entry(hint.code.as_str()).or_default().push((hint.saving, row));
        }
    }
    let mut hints: Vec<FleetHint> = by_code
        .into_iter()
        .map(|(code, mut functions)| {
            functions.sort_by_key(|(saving, row)| (Reverse(*saving), Reverse(row.invocations)));
            FleetHint {
                code: code.to_owned(),
                meaning: meaning(code),
                functions: functions.len() as u64,
                saving_pico_usd: functions.iter().map(|(saving, _)| *saving).sum(),
                examples: functions
                    .iter()
                    .take(MAX_FUNCTIONS)
                    .map(|(saving, row)| HintedFunction {
                        function: row.function.clone(),
                        saving_pico_usd: *saving,
                    })
                    .collect(),
            }
        })
        .collect();
    hints.sort_by_key(|hint| (Reverse(hint.saving_pico_usd), Reverse(hint.functions)));
    hints
}

/// What a hint means, and what to do, without the figures of a function.
fn meaning(code: &str) -> &'static str {
    match code {
        "memory-underprovisioned" => {
            "Peaks are near the memory size, or invocations ran out of memory: give more memory."
        }
        "memory-overprovisioned" => {
            "Neither the memory nor the CPU that comes with it is used: give less memory."
        }
        "memory-pressure" => "CPU time grows as memory runs out: give more memory.",
        "cpu-starved" => {
            "Threads were ready to run and had no CPU: give more memory, which comes with more CPU."
        }
        "single-threaded" => {
            "One thread is busy where the size gives more CPU: give less memory, or use more threads."
        }
        "idle-dominated" => {
            "Most of the time is waiting: give less memory, or wait for several things at once."
        }
        "connections-per-invocation" => {
            "Connections are opened in every invocation: create clients outside of the handler."
        }
        "cold-starts-dominate" => "Init is a large part of the bill: load less, or use SnapStart.",
        "request-cost-dominates" => {
            "The request price is most of the bill: handle several events in one invocation."
        }
        "arm64-cheaper" => "The same work would cost less on arm64.",
        "timeouts-paid" => {
            "Time is paid for that ends in a timeout or an error: set shorter timeouts of clients."
        }
        "extension-overhead" => {
            "Extensions run for long after the runtime answered: remove them, or let them send later."
        }
        "ephemeral-storage-unused" => "Extra `/tmp` is paid for and not used: set it to 512 MB.",
        _ => "",
    }
}
