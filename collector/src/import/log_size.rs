//! The size of the logs of an import, by function and hour.

use std::collections::BTreeMap;

use tailor_logs::ImportedInvocation;

use crate::store::{FunctionKey, HOUR_US};

/// The size of the logs of an import.
#[derive(Debug, Default)]
pub(super) struct LogSizes {
    functions: BTreeMap<FunctionKey, LogSize>,
}

/// The size of the log of one function.
#[derive(Debug, Default)]
struct LogSize {
    /// Bytes that are not written yet, by hours since the Unix epoch.
    by_hour: BTreeMap<u64, u64>,
    /// Whether the log has events that are not the platform's.
    has_function_events: bool,
}

impl LogSizes {
    /// Notes what the log of a function has, also of invocations that were imported before.
    pub(super) fn note(&mut self, function: &FunctionKey, found: &[ImportedInvocation]) {
        let mut sizes = found.iter().filter_map(|found| found.log_bytes);
        if sizes.any(|size| size.has_function_events) {
            self.functions.entry(function.clone()).or_default().has_function_events = true;
        }
    }

    /// Adds the bytes of new invocations of a function.
    pub(super) fn add(&mut self, function: &FunctionKey, found: &[ImportedInvocation]) {
        let sized = |found: &ImportedInvocation| {
            Some((found.invocation.started_at_us / HOUR_US, found.log_bytes?.bytes))
        };
        let mut sizes = found.iter().filter_map(sized).peekable();
        if sizes.peek().is_none() {
            return;
        }
        let by_hour = &mut self.functions.entry(function.clone()).or_default().by_hour;
        for (hour, bytes) in sizes {
            let sum = by_hour.entry(hour).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }

    /// The bytes of a function that can be written, by hours since the Unix epoch. A log with only the platform's lines was
    /// searched for them, or its function writes nothing: which one is not known, so that it has no size.
    pub(super) fn take(&mut self, function: &FunctionKey) -> BTreeMap<u64, u64> {
        match self.functions.get_mut(function) {
            Some(size) if size.has_function_events => std::mem::take(&mut size.by_hour),
            _ => BTreeMap::new(),
        }
    }

    /// The functions whose log has only the platform's lines so far.
    pub(super) fn without_function_events(&self) -> impl Iterator<Item = &FunctionKey> {
        self.functions.iter().filter(|(_, size)| !size.has_function_events).map(|(function, _)| function)
    }
}
