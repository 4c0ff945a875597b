//! Joins what is known of each invocation, in any order.
//!
//! There are three sources for one invocation: our own INVOKE event, the platform's telemetry (which may come before it,
//! an hour later, twice or never) and the reading of the processes at the next INVOKE. They are joined by request id in a
//! bounded queue. Invocations that do not fit any more are counted as lost.

use std::collections::VecDeque;

use tailor_sizing::telemetry::invocation::{Caveats, Invocation, Outcome, RequestId, Work};
use tailor_sizing::units::Megabytes;

use crate::lambda::telemetry::EndRecord;
use crate::measure::Measured;

/// The most open invocations. On demand one or two are open. On managed instances up to 64 run in one environment for each
/// vCPU; with more open invocations than this, the report of the oldest will not come.
const MAX_OPEN: usize = 1_024;

/// The number of finished requests that are remembered, so that repeated telemetry does not open them again. Older ones
/// are recognized by their time.
const MAX_FINISHED: usize = 512;

/// After this many later invocations, and this many microseconds after the first of them, a missing `platform.report` is
/// not expected any more. It usually comes with the next thaw. But the platform buffers for at least 25 ms of running
/// time, in which a fast function has many invocations.
const REPORT_TIMEOUT_INVOKES: u64 = 64;
const REPORT_TIMEOUT_US: u64 = 5_000_000;

/// The same for an invocation without an INVOKE event, as on managed instances, where invocations run at the same time:
/// longer than any function may run, counted from the start of the next invocation.
const UNINVOKED_TIMEOUT_US: u64 = 960_000_000;

/// The most suppressed Inits that are kept until their invocation is reported. Only one runs at a time.
const MAX_INITS: usize = 8;

/// The fraction of the CPU share from which a function counts as limited by it.
const CAP_FRACTION: f64 = 0.8;

/// All open invocations.
#[derive(Debug, Default)]
pub struct Ledger {
    open: VecDeque<Entry>,
    finished: VecDeque<Finished>,
    /// The time of the latest record of the requests that are not remembered any more, microseconds. An earlier record of
    /// an unknown request is a repeated one, because the platform delivers in the order of events.
    forgotten_us: u64,
    /// Records that are too late to be distinguished from repeated ones.
    stale: u64,
    /// The time by our own clock, microseconds since the Unix epoch.
    now_us: u64,
    /// The number of INVOKE events. The age of an entry is counted in these.
    invokes: u64,
    memory_mb: u32,
    /// Invocations that did not fit any more.
    evicted: u64,
    /// The platform delivers no telemetry.
    no_reports: bool,
    inits: VecDeque<SuppressedInit>,
}

/// A suppressed Init: it ran during an invocation, because the runtime crashed in the previous one.
#[derive(Debug, Clone, Copy)]
struct SuppressedInit {
    ended_at_us: u64,
    took_us: u64,
}

#[derive(Debug, Clone, Copy)]
struct Finished {
    request_id: RequestId,
    last_record_us: u64,
}

/// The source of an event.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The extension itself, whose events are never repeated.
    Extension,
    /// The platform, with the time of the record in microseconds since the Unix epoch.
    Platform(u64),
}

#[derive(Debug, Default)]
struct Entry {
    request_id: RequestId,
    started_at_us: u64,
    /// The time of the platform's latest record of it, microseconds since the Unix epoch.
    last_record_us: u64,
    /// The value of `Ledger::invokes` at its INVOKE; `None` without one.
    invoke: Option<u64>,
    /// When the next invocation began, microseconds. The report may come from then on.
    followed_at_us: Option<u64>,
    cold_start: bool,
    runtime_done: Option<EndRecord>,
    report: Option<EndRecord>,
    measurement: Measurement,
}

#[derive(Debug, Default)]
enum Measurement {
    /// Its processes have not been read yet.
    #[default]
    Pending,
    /// They ended before they could be read.
    Impossible,
    Done(Box<Measured>),
}

impl Ledger {
    /// A ledger for a function with this memory size.
    #[must_use]
    pub fn new(memory_mb: u32) -> Self {
        Self { memory_mb, ..Self::default() }
    }

    /// No telemetry comes: an invocation is finished when its processes are read.
    pub const fn expect_no_reports(&mut self) {
        self.no_reports = true;
    }

    /// Sets the time by our own clock, microseconds since the Unix epoch. Call it before telemetry is added.
    pub const fn set_time(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// An INVOKE event; `now_us` is microseconds since the Unix epoch.
    pub fn on_invoke(&mut self, request_id: &str, now_us: u64, cold_start: bool) {
        self.invokes += 1;
        let invoke = Some(self.invokes);
        self.set_time(now_us);
        self.followed();
        if let Some(entry) = self.entry(request_id, Source::Extension) {
            entry.invoke = invoke;
            entry.started_at_us = now_us;
            entry.cold_start = cold_start;
            entry.followed_at_us = None;
        }
    }

    /// Another invocation began: the reports of the earlier ones may come from now on.
    fn followed(&mut self) {
        for entry in &mut self.open {
            entry.followed_at_us.get_or_insert(self.now_us);
        }
    }

    /// The processes were read at the end of the invocation; `None` when they had ended.
    pub fn on_measured(&mut self, request_id: &str, measured: Option<Measured>) {
        if let Some(entry) = self.entry(request_id, Source::Extension) {
            entry.measurement =
                measured.map_or(Measurement::Impossible, |measured| Measurement::Done(Box::new(measured)));
        }
    }

    /// `platform.start`.
    pub fn on_start(&mut self, request_id: &str, time_us: u64) {
        if let Some(entry) = self.entry(request_id, Source::Platform(time_us))
            && entry.started_at_us == 0
        {
            entry.started_at_us = time_us;
        }
    }

    /// `platform.runtimeDone`, recorded at `time_us`.
    pub fn on_runtime_done(&mut self, record: EndRecord, time_us: u64) {
        if let Some(entry) = self.entry(&record.request_id, Source::Platform(time_us)) {
            entry.runtime_done = Some(record);
        }
    }

    /// `platform.report`, recorded at `time_us`.
    pub fn on_report(&mut self, record: EndRecord, time_us: u64) {
        if let Some(entry) = self.entry(&record.request_id, Source::Platform(time_us)) {
            entry.report = Some(record);
        }
    }

    /// `platform.initReport` of a suppressed Init, recorded at `time_us`. It has no request id.
    pub fn on_suppressed_init(&mut self, took_ms: f64, time_us: u64) {
        if self.inits.len() == MAX_INITS {
            self.inits.pop_front();
        }
        self.inits.push_back(SuppressedInit { ended_at_us: time_us, took_us: microseconds(took_ms) });
    }

    /// Takes the invocations for which nothing more is expected.
    pub fn take_finished(&mut self) -> Vec<Invocation> {
        let (invokes, now_us) = (self.invokes, self.now_us);
        let no_reports = self.no_reports;
        self.take(|entry| entry.is_complete(no_reports) || entry.is_given_up(invokes, now_us))
    }

    /// Takes all invocations, because the environment ends.
    pub fn take_all(&mut self) -> Vec<Invocation> {
        self.take(|_| true)
    }

    /// The number of invocations that have begun and are not finished.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The number of invocations dropped since the last call because too many were open.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// The number of records since the last call that came too late to be distinguished from repeated ones.
    pub fn take_stale(&mut self) -> u64 {
        std::mem::take(&mut self.stale)
    }

    /// Whether a report is still expected.
    #[must_use]
    pub fn awaits_report(&self) -> bool {
        !self.no_reports && self.open.iter().any(|entry| entry.report.is_none())
    }

    fn take(&mut self, should_take: impl Fn(&Entry) -> bool) -> Vec<Invocation> {
        let mut taken = vec![];
        let mut index = 0;
        while let Some(entry) = self.open.get(index) {
            if should_take(entry) {
                taken.extend(self.open.remove(index));
            } else {
                index += 1;
            }
        }
        taken.iter().map(|entry| self.close(entry)).collect()
    }

    fn close(&mut self, entry: &Entry) -> Invocation {
        if self.finished.len() == MAX_FINISHED
            && let Some(forgotten) = self.finished.pop_front()
        {
            self.forgotten_us = self.forgotten_us.max(forgotten.last_record_us);
        }
        let Entry { request_id, last_record_us, .. } = *entry;
        self.finished.push_back(Finished { request_id, last_record_us });
        let inside = self.inits.iter().position(|init| entry.contains(init));
        let init_inside_us = inside.and_then(|index| self.inits.remove(index)).map_or(0, |init| init.took_us);
        entry.to_invocation(self.memory_mb, init_inside_us)
    }

    /// The open entry of this request, created if it is new; `None` when the request is finished or has no id.
    fn entry(&mut self, request_id: &str, source: Source) -> Option<&mut Entry> {
        if request_id.is_empty() {
            return None;
        }
        let request_id = RequestId::parse(request_id).unwrap_or_else(|| fingerprint(request_id));
        let found = self.open.iter().position(|entry| entry.request_id == request_id);
        let index = match found {
            Some(index) => index,
            None => self.open(request_id, source)?,
        };
        let entry = self.open.get_mut(index)?;
        if let Source::Platform(time_us) = source {
            entry.last_record_us = entry.last_record_us.max(time_us);
        }
        Some(entry)
    }

    fn open(&mut self, request_id: RequestId, source: Source) -> Option<usize> {
        if self.finished.iter().any(|finished| finished.request_id == request_id) {
            return None;
        }
        if let Source::Platform(time_us) = source {
            if time_us <= self.forgotten_us {
                self.stale += 1;
                return None;
            }
            self.followed();
        }
        if self.open.len() == MAX_OPEN {
            // Only on managed instances, when reports are lost. Too little is known of the oldest, so it is
            // counted as lost.
            self.open.pop_front();
            self.evicted += 1;
        }
        self.open.push_back(Entry { request_id, ..Entry::default() });
        Some(self.open.len() - 1)
    }
}

impl Entry {
    /// Whether everything has come: the report, and the reading of the processes if one is expected.
    const fn is_complete(&self, no_reports: bool) -> bool {
        let unmeasured = matches!(self.measurement, Measurement::Pending) && self.invoke.is_some();
        (self.report.is_some() || no_reports) && !unmeasured
    }

    /// Whether the report is not expected any more.
    fn is_given_up(&self, invokes: u64, now_us: u64) -> bool {
        let waited_us = self.followed_at_us.map_or(0, |since| now_us.saturating_sub(since));
        match self.invoke {
            Some(own) => invokes - own > REPORT_TIMEOUT_INVOKES && waited_us >= REPORT_TIMEOUT_US,
            None => waited_us >= UNINVOKED_TIMEOUT_US,
        }
    }

    /// Whether the Init ended during this invocation, which ended at its latest record. An Init that the report has itself
    /// is not part of the report's duration.
    fn contains(&self, init: &SuppressedInit) -> bool {
        let Some(EndRecord { metrics, .. }) = &self.report else { return false };
        let duration_us = metrics.duration_ms.map_or(0, microseconds);
        let began_at_us = self.last_record_us.saturating_sub(duration_us);
        metrics.init_duration_ms.is_none()
            && (began_at_us..=self.last_record_us).contains(&init.ended_at_us)
            && init.took_us <= duration_us
    }

    /// `init_inside_us` is the duration of a suppressed Init. Like any other Init it is not part of the duration: it ended
    /// before our INVOKE, so its CPU time was not measured.
    fn to_invocation(&self, memory_mb: u32, init_inside_us: u64) -> Invocation {
        let metrics = self.report.as_ref().map(|report| report.metrics).unwrap_or_default();
        let runtime = self.runtime_done.as_ref().map(|done| done.metrics).unwrap_or_default();
        let reported_us = metrics.duration_ms.or(runtime.duration_ms).map(microseconds);
        let reported_us = reported_us.map(|reported_us| reported_us.saturating_sub(init_inside_us));
        let measured = match &self.measurement {
            Measurement::Done(measured) => Some(**measured)
                .filter(|measured| represents(measured, reported_us))
                .map(|measured| limit_ended_children(measured, reported_us, Megabytes(memory_mb))),
            Measurement::Pending | Measurement::Impossible => None,
        };
        // Without a report the duration is at least the time of the busiest thread.
        let least_us = measured.map_or(0, |m| m.work.top_busy_us + m.work.top_starved_us);
        let duration_us = reported_us.unwrap_or(least_us);
        let init_us = metrics.init_duration_ms.map_or(init_inside_us, microseconds);
        let most_runtime_us = if init_inside_us > 0 { duration_us } else { u64::MAX };
        let billed_ms =
            metrics.billed_duration_ms.map_or_else(|| (duration_us + init_us).div_ceil(1_000), whole);
        let max_memory_used_mb =
            u32::try_from(metrics.max_memory_used_mb.map_or(0, whole)).unwrap_or(u32::MAX);
        Invocation {
            request_id: self.request_id,
            started_at_us: self.started_at_us,
            outcome: self.outcome(max_memory_used_mb, memory_mb),
            cold_start: self.cold_start || init_us > 0,
            caveats: Caveats {
                estimated: reported_us.is_none(),
                report_missing: self.report.is_none(),
                starved_inferred: measured.is_some_and(|measured| measured.starved_inferred),
                peak_sampled: measured.is_some_and(|measured| measured.peak_sampled),
                work_estimated: measured.is_some_and(|measured| measured.sampled_at_us.is_some()),
            },
            duration_us,
            // It is not documented whether it includes a suppressed Init.
            runtime_us: runtime.duration_ms.map_or(0, microseconds).min(most_runtime_us),
            billed_ms,
            init_us,
            restore_us: metrics.restore_duration_ms.map_or(0, microseconds),
            produced_bytes: runtime.produced_bytes.map_or(0, whole),
            max_memory_used_mb,
            peak_kib: measured.map_or(0, |measured| peak_kib(&measured, max_memory_used_mb, memory_mb)),
            start_kib: measured.map_or(0, |measured| measured.start_kib.min(u64::from(memory_mb) * 1_024)),
            threads: measured.map_or(0, |measured| measured.threads),
            descriptors: measured.map_or(0, |measured| measured.descriptors),
            tmp_used_kib: measured.map_or(0, |measured| measured.tmp_used_kib),
            work: measured.map(|measured| complete(&measured, duration_us, memory_mb)),
        }
    }

    fn outcome(&self, max_memory_used_mb: u32, memory_mb: u32) -> Outcome {
        let records = [&self.report, &self.runtime_done];
        let error_has = |text: &str| {
            records
                .iter()
                .filter_map(|record| record.as_ref()?.error_type.as_deref())
                .any(|error| error.contains(text))
        };
        let status = records.iter().find_map(|record| record.as_ref()?.status.as_deref());
        let failed = match status {
            None => error_has("Error") || error_has("Runtime.") || error_has("Extension."),
            Some(status) => status != "success",
        };
        // Out of memory has several forms: a named error, an exit by a signal, or a timeout because the function
        // was slow at the limit.
        if error_has("OutOfMemory") || failed && max_memory_used_mb > 0 && max_memory_used_mb >= memory_mb {
            return Outcome::OutOfMemory;
        }
        match status {
            Some("timeout") => Outcome::Timeout,
            _ if failed => Outcome::Error,
            Some(_) => Outcome::Success,
            // A report without a status is one of a success (the documentation's own example has none).
            None if self.report.is_some() => Outcome::Success,
            None => Outcome::Unknown,
        }
    }
}

/// The highest resident memory, KiB. It is never above the memory size: a higher sum counts shared pages more than once.
/// The platform's figure is of the whole environment, so that of the function is not above it, if only a sum is known.
fn peak_kib(measured: &Measured, max_memory_used_mb: u32, memory_mb: u32) -> u64 {
    let platform_kib = u64::from(max_memory_used_mb) * 1_024;
    let peak_kib = match measured.peak_is_sum_above_kib {
        // The platform does not count mapped files that another environment has read first.
        Some(highest_kib) if platform_kib > 0 => measured.peak_kib.min(platform_kib.max(highest_kib)),
        _ => measured.peak_kib,
    };
    peak_kib.min(u64::from(memory_mb) * 1_024)
}

/// Whether a measurement represents an invocation of `reported_us`. If its end could not be read, the last sample must be
/// after four fifths of it.
fn represents(measured: &Measured, reported_us: Option<u64>) -> bool {
    measured.sampled_at_us.is_none_or(|sampled_at_us| {
        reported_us
            .is_some_and(|reported_us| sampled_at_us.saturating_mul(5) >= reported_us.saturating_mul(4))
    })
}

/// Adds what follows from the duration: inferred starved time, and idle time.
///
/// Idle is the wall time in which no thread was on a CPU or waited for one. With several busy threads, the wall time that
/// they cover is between the time of the busiest one and the sum. The effective number of threads gives the estimate.
fn complete(measured: &Measured, duration_us: u64, memory_mb: u32) -> Work {
    let mut work = measured.work;
    let busy_us = work.busy_us();
    if measured.threads_unseen {
        // The waits of ended threads are unknown. Whether the CPU rate was at the limit of the share is known.
        let cap_us = Megabytes(memory_mb).share() * duration_us as f64;
        let at_cap = busy_us as f64 >= CAP_FRACTION * cap_us;
        let inferred_us = if at_cap { duration_us.saturating_sub(busy_us) } else { 0 };
        work.starved_us = work.starved_us.max(inferred_us);
        let covered_us = (busy_us + work.starved_us).min(duration_us);
        work.idle_us = duration_us - covered_us;
        return work;
    }
    if measured.starved_inferred {
        // No thread waited longer than the duration of the invocation.
        let most_us = duration_us.saturating_mul(u64::from(measured.threads_seen.max(1)));
        work.starved_us = work.starved_us.min(most_us.saturating_sub(busy_us));
    }
    let thread_time_us = busy_us + work.starved_us;
    let side_by_side =
        u128::from(thread_time_us) * 1_000 / u128::from(work.effective_threads_milli.max(1_000));
    let covered_us =
        u64::try_from(side_by_side).unwrap_or(u64::MAX).max(work.top_busy_us + work.top_starved_us);
    work.idle_us = duration_us.saturating_sub(covered_us);
    work
}

/// Limits the CPU time of ended children, so that the sum is possible on all CPUs in `reported_us`.
///
/// That part is known in steps of 10 ms and rounded several times, so its error may be many times a short invocation. The
/// part from clocks is exact and is not changed. It may exceed the limit because of work after the response, or work of
/// the next invocation before its reading.
fn limit_ended_children(mut measured: Measured, reported_us: Option<u64>, memory: Megabytes) -> Measured {
    let most_us = reported_us.unwrap_or(u64::MAX).saturating_mul(memory.visible_vcpus().into());
    let work = &mut measured.work;
    let excess_us = work.busy_us().saturating_sub(most_us).min(measured.ended_children_us);
    let from_user_us = excess_us.min(work.user_us);
    work.user_us -= from_user_us;
    work.system_us = work.system_us.saturating_sub(excess_us - from_user_us);
    measured
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
fn microseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1_000.0).round() as u64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A stable id for a request id that is not a UUID (FNV-1a, 128 bits).
fn fingerprint(text: &str) -> RequestId {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    RequestId(text.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME)))
}

#[cfg(test)]
mod tests;
