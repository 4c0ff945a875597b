//! One invocation, from the first event about it until nothing more is expected.

use agent_proto::limits::max_time_us;
use tailor_sizing::telemetry::invocation::{Caveats, Initialization, Invocation, RequestId, Work};
use tailor_sizing::units::{Megabytes, round_to_u64};

use super::inits::Init;
use super::outcome::{MemoryEvidence, outcome};
use super::{Finished, REPORT_TIMEOUT_INVOKES, REPORT_TIMEOUT_US};
use crate::lambda::record_time::RecordTime;
use crate::lambda::telemetry::EndRecord;
use crate::measure::Measured;

/// The fraction of the CPU share from which a function counts as limited by it.
const CAP_FRACTION: f64 = 0.8;

/// The most threads that an environment has at the same time.
const MAX_THREADS: u32 = 1_024;

/// What is known of one invocation.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) request_id: RequestId,
    /// Microseconds since the Unix epoch; zero when it is unknown.
    pub(super) started_at_us: u64,
    /// The earliest time of the platform's latest record of it, microseconds since the Unix epoch.
    pub(super) last_record_us: u64,
    /// The value of `Ledger::invokes` at its INVOKE; `None` without one.
    pub(super) invoke: Option<u64>,
    /// Its INVOKE was the first of the environment.
    pub(super) is_first: bool,
    /// When the next invocation began, microseconds. The report may come from then on.
    pub(super) next_started_at_us: Option<u64>,
    pub(super) runtime_done: Option<EndRecord>,
    pub(super) report: Option<EndRecord>,
    pub(super) reported_at: RecordTime,
    /// `maxMemoryUsedMB` before the report came; `None` when it is unknown.
    pub(super) mark_before_mb: Option<u32>,
    pub(super) measurement: Measurement,
    /// Processes that the kernel killed for memory; `None` when it is unknown.
    pub(super) kills: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) enum Measurement {
    /// Its processes have not been read yet.
    #[default]
    Pending,
    /// They ended before they could be read.
    Impossible,
    Done(Box<Measured>),
}

impl Entry {
    pub(super) fn new(request_id: RequestId) -> Self {
        Self {
            request_id,
            started_at_us: 0,
            last_record_us: 0,
            invoke: None,
            is_first: false,
            next_started_at_us: None,
            runtime_done: None,
            report: None,
            reported_at: RecordTime::UNKNOWN,
            mark_before_mb: None,
            measurement: Measurement::Pending,
            kills: None,
        }
    }

    /// What is kept of it.
    pub(super) const fn finished(&self) -> Finished {
        let Self { request_id, last_record_us, .. } = *self;
        Finished { request_id, last_record_us, is_reported: self.report.is_some() }
    }

    /// Whether everything has come: the report, and the reading of the processes if one is expected.
    pub(super) const fn is_complete(&self, no_reports: bool) -> bool {
        let unmeasured = matches!(self.measurement, Measurement::Pending) && self.invoke.is_some();
        (self.report.is_some() || no_reports) && !unmeasured
    }

    /// Whether the report is not expected any more. Without an INVOKE event, as on managed instances, where invocations run
    /// at the same time, it is expected for `longest_us` from the start of the next invocation: no function runs longer.
    pub(super) fn is_given_up(&self, invokes: u64, now_us: u64, longest_us: u64) -> bool {
        let waited_us = self.next_started_at_us.map_or(0, |since| now_us.saturating_sub(since));
        match self.invoke {
            Some(own) => invokes - own > REPORT_TIMEOUT_INVOKES && waited_us >= REPORT_TIMEOUT_US,
            None => waited_us >= longest_us,
        }
    }

    /// The invocation with everything that is known of it at `now_us`. On managed instances the platform reports no billed
    /// duration.
    pub(super) fn to_invocation(
        &self,
        memory_mb: u32,
        init: &Init,
        is_managed_instances: bool,
        now_us: u64,
    ) -> Invocation {
        let metrics = self.report.as_ref().map(|report| report.metrics).unwrap_or_default();
        let runtime = self.runtime_done.as_ref().map(|done| done.metrics).unwrap_or_default();
        let Times { duration_us, handler_us, init_us, is_inside } = self.times(init);
        let measured = match &self.measurement {
            Measurement::Done(measured) => Some(**measured)
                .filter(|measured| represents(measured, handler_us))
                .map(|measured| limit_ended_children(measured, handler_us, Megabytes(memory_mb))),
            Measurement::Pending | Measurement::Impossible => None,
        };
        // Without a report the duration is at least the time of the busiest thread.
        let least_us = measured.map_or(0, |m| m.work.top_busy_us.saturating_add(m.work.top_starved_us));
        let duration_us = duration_us.unwrap_or_else(|| least_us.min(max_time_us(is_managed_instances)));
        let init_before_us = if is_inside { 0 } else { init_us };
        let billed_ms = metrics
            .billed_duration_ms
            .map_or_else(|| (duration_us + init_before_us).div_ceil(1_000), round_to_u64);
        // It is not documented whether it includes an Init inside the invocation.
        let most_runtime_us = if is_inside { duration_us.saturating_sub(init_us) } else { u64::MAX };
        let evidence = self.memory_evidence(memory_mb);
        Invocation {
            request_id: self.request_id,
            started_at_us: self.started_at_us(is_inside, duration_us, now_us),
            outcome: outcome(
                [self.report.as_ref(), self.runtime_done.as_ref()],
                init.error_type.as_deref(),
                &evidence,
            ),
            initialization: init.class,
            caveats: Caveats {
                estimated: handler_us.is_none(),
                report_missing: self.report.is_none()
                    || !is_managed_instances && metrics.billed_duration_ms.is_none(),
                starved_inferred: measured.is_some_and(|measured| measured.starved_inferred),
                peak_sampled: measured.is_some_and(|measured| measured.peak_sampled),
                work_estimated: measured.is_some_and(|measured| measured.sampled_at_us.is_some()),
            },
            duration_us,
            runtime_us: runtime.duration_ms.map_or(0, microseconds).min(most_runtime_us),
            billed_ms,
            init_us,
            restore_us: metrics.restore_duration_ms.map_or(0, microseconds),
            produced_bytes: runtime.produced_bytes.map_or(0, round_to_u64),
            max_memory_used_mb: evidence.mark_mb,
            peak_kib: measured.map_or(0, |measured| peak_kib(&measured, evidence.mark_mb, memory_mb)),
            start_kib: measured.map_or(0, |measured| measured.start_kib.min(u64::from(memory_mb) * 1_024)),
            threads: measured.map_or(0, |measured| measured.threads),
            descriptors: measured.map_or(0, |measured| measured.descriptors),
            tmp_used_kib: measured.map_or(0, |measured| measured.tmp_used_kib),
            work: measured.map(|measured| complete(&measured, handler_us.unwrap_or(duration_us), memory_mb)),
        }
    }

    /// The durations that the platform reported. An Init inside the invocation is part of its duration. The processes were
    /// measured after it: it ended before our INVOKE.
    fn times(&self, init: &Init) -> Times {
        let of = |record: &Option<EndRecord>| record.as_ref().and_then(|record| record.metrics.duration_ms);
        let (reported_us, runtime_us) =
            (of(&self.report).map(microseconds), of(&self.runtime_done).map(microseconds));
        let is_inside = init.class == Initialization::InsideInvocation;
        if !is_inside {
            let duration_us = reported_us.or(runtime_us);
            return Times { duration_us, handler_us: duration_us, init_us: init.took_us, is_inside };
        }
        let duration_us = reported_us.or_else(|| Some(runtime_us?.saturating_add(init.took_us)));
        let init_us = duration_us.map_or(init.took_us, |duration_us| duration_us.min(init.took_us));
        Times { duration_us, handler_us: duration_us.map(|us| us - init_us), init_us, is_inside }
    }

    /// When it began. Our INVOKE event comes after an Init inside the invocation, which began before it. Without a known
    /// start, it follows from the last record, which is one of its end. Without such a record it is `now_us`.
    fn started_at_us(&self, init_is_inside: bool, duration_us: u64, now_us: u64) -> u64 {
        let began_at_us = |ended_us: u64| ended_us.saturating_sub(duration_us);
        match (self.started_at_us, self.last_record_us, self.reported_at.known_us()) {
            (0, 0, _) => now_us,
            (0, ended_us, _) => began_at_us(ended_us),
            (started_us, _, Some(ended_us)) if init_is_inside => began_at_us(ended_us).min(started_us),
            (started_us, ..) => started_us,
        }
    }

    fn memory_evidence(&self, memory_mb: u32) -> MemoryEvidence {
        let mark_mb = self.report.as_ref().and_then(|report| report.metrics.max_memory_used_mb);
        let measured = match &self.measurement {
            Measurement::Done(measured) if measured.peak_kib > 0 => Some(measured),
            _ => None,
        };
        let mb = |kib: u64| kib as f64 / 1_024.0;
        MemoryEvidence {
            memory_mb,
            mark_mb: mark_mb.map_or(0, megabytes),
            mark_before_mb: self.mark_before_mb,
            used_mb: measured.map(|measured| {
                let least_kib = measured.peak_is_sum_above_kib.unwrap_or(measured.peak_kib);
                mb(least_kib)..=mb(measured.peak_kib)
            }),
            kills: self.kills,
        }
    }
}

/// The durations of an invocation, microseconds; `None` when they are unknown.
struct Times {
    /// As its caller saw it.
    duration_us: Option<u64>,
    /// Without an Init inside it.
    handler_us: Option<u64>,
    /// The Init that belongs to it; zero without one.
    init_us: u64,
    is_inside: bool,
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
        let most_us = duration_us.saturating_mul(u64::from(measured.threads_seen.clamp(1, MAX_THREADS)));
        work.starved_us = work.starved_us.min(most_us.saturating_sub(busy_us));
        // The times of the busiest thread are scaled as well.
        work.top_busy_us = work.top_busy_us.min(duration_us);
        work.top_starved_us = work.top_starved_us.min(duration_us - work.top_busy_us);
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
    work.unseen_busy_us = work.unseen_busy_us.saturating_sub(excess_us);
    let from_user_us = excess_us.min(work.user_us);
    work.user_us -= from_user_us;
    work.system_us = work.system_us.saturating_sub(excess_us - from_user_us);
    measured
}

pub(super) fn microseconds(milliseconds: f64) -> u64 {
    round_to_u64(milliseconds * 1_000.0)
}

pub(super) fn megabytes(value: f64) -> u32 {
    u32::try_from(round_to_u64(value)).unwrap_or(u32::MAX)
}
