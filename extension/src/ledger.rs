//! Joining what is known of each invocation, whatever order it comes in.
//!
//! Three sources tell of one invocation: our own INVOKE event, the platform's telemetry (which may come
//! before it, an hour later, twice or never) and the reading of the processes at the next INVOKE. All are
//! joined by request id in a bounded ring; what is pushed out unfinished leaves with what is known of it.

use std::collections::VecDeque;

use tailor_sizing::telemetry::invocation::{Caveats, Invocation, Outcome, RequestId, Work};
use tailor_sizing::units::Megabytes;

use crate::process::Measured;
use crate::telemetry::Done;

/// Invocations that may be open at once. On demand one or two are; on managed instances up to 64 run in one
/// environment for each vCPU, and a report that is this late is not coming.
const MAX_OPEN: usize = 1_024;

/// Finished requests that are remembered, so that telemetry delivered twice does not open them again. What is
/// older is told by its time.
const REMEMBERED: usize = 512;

/// A missing `platform.report` is given up after so many later invocations and so long after the first of
/// them. It usually comes with the next thaw, but the platform buffers for 25 ms of running time at least, and
/// a fast function is invoked many times in that.
const REPORT_PATIENCE_INVOKES: u64 = 64;
const REPORT_PATIENCE_US: u64 = 5_000_000;

/// The same for an invocation of which we had no INVOKE event, as on managed instances, where others run beside
/// it: longer than any function may run, counted from when another one began.
const UNINVOKED_PATIENCE_US: u64 = 960_000_000;

/// Inits inside invocations that are remembered until their invocation is reported. One runs at a time.
const MAX_INITS: usize = 8;

/// The part of its share from which on a function counts as held back by it.
const AT_CAP: f64 = 0.8;

/// All open invocations.
#[derive(Debug, Default)]
pub struct Ledger {
    open: VecDeque<Entry>,
    finished: VecDeque<Finished>,
    /// The time of the latest record of any request that was finished so long ago that it is forgotten. Telemetry
    /// of an unknown request from before it is a repetition: the platform delivers in the order of events.
    forgotten_us: u64,
    stale: u64,
    /// Now by our own clock, as told last, microseconds since the Unix epoch.
    now_us: u64,
    /// INVOKE events seen; the age of an entry is counted in these.
    invokes: u64,
    memory_mb: u32,
    evicted: u64,
    /// The platform delivers no telemetry.
    no_reports: bool,
    inits: VecDeque<InitInside>,
}

/// An Init that ran inside an invocation, because the runtime had crashed in the one before ("suppressed").
#[derive(Debug, Clone, Copy)]
struct InitInside {
    ended_at_us: u64,
    took_us: u64,
}

#[derive(Debug, Clone, Copy)]
struct Finished {
    request_id: RequestId,
    told_us: u64,
}

/// Who tells of a request, and from when.
#[derive(Debug, Clone, Copy)]
enum Teller {
    /// Ourselves, now: what we tell of is no repetition.
    Us,
    /// The platform, with the record's own time.
    Platform(u64),
}

#[derive(Debug, Default)]
struct Entry {
    request_id: RequestId,
    started_at_us: u64,
    /// The time of the latest of the platform's records of it.
    told_us: u64,
    /// The value of `Ledger::invokes` at this entry's INVOKE; `None` when we never saw one.
    invoke: Option<u64>,
    /// When the next one began: since then the report may come.
    followed_at_us: Option<u64>,
    cold_start: bool,
    runtime_done: Option<Done>,
    report: Option<Done>,
    measurement: Measurement,
}

#[derive(Debug, Default)]
enum Measurement {
    /// Its processes have not been read yet.
    #[default]
    Pending,
    /// They cannot be: they died with the invocation, or nobody watched them.
    Impossible,
    Done(Measured),
}

impl Ledger {
    /// A ledger for a function of `memory_mb`.
    #[must_use]
    pub fn new(memory_mb: u32) -> Self {
        Self { memory_mb, ..Self::default() }
    }

    /// The platform delivers no telemetry: an invocation is finished when its processes are read.
    pub const fn expect_no_reports(&mut self) {
        self.no_reports = true;
    }

    /// Tells the time, microseconds since the Unix epoch by our own clock, before telemetry is told of.
    pub const fn at(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Our own INVOKE event.
    pub fn invoked(&mut self, request_id: &str, now_us: u64, cold_start: bool) {
        self.invokes += 1;
        let invoke = Some(self.invokes);
        self.at(now_us);
        self.followed();
        if let Some(entry) = self.entry(request_id, Teller::Us) {
            entry.invoke = invoke;
            entry.started_at_us = now_us;
            entry.cold_start = cold_start;
            entry.followed_at_us = None;
        }
    }

    /// Another invocation began: the ones before it may be reported from now on.
    fn followed(&mut self) {
        for entry in &mut self.open {
            entry.followed_at_us.get_or_insert(self.now_us);
        }
    }

    /// The processes were read at the end of the invocation; `None` when they were gone.
    pub fn measured(&mut self, request_id: &str, measured: Option<Measured>) {
        if let Some(entry) = self.entry(request_id, Teller::Us) {
            entry.measurement = measured.map_or(Measurement::Impossible, Measurement::Done);
        }
    }

    /// `platform.start`.
    pub fn started(&mut self, request_id: &str, time_us: u64) {
        if let Some(entry) = self.entry(request_id, Teller::Platform(time_us))
            && entry.started_at_us == 0
        {
            entry.started_at_us = time_us;
        }
    }

    /// `platform.runtimeDone`, recorded at `time_us`.
    pub fn runtime_done(&mut self, done: Done, time_us: u64) {
        if let Some(entry) = self.entry(&done.request_id, Teller::Platform(time_us)) {
            entry.runtime_done = Some(done);
        }
    }

    /// `platform.report`, recorded at `time_us`.
    pub fn reported(&mut self, report: Done, time_us: u64) {
        if let Some(entry) = self.entry(&report.request_id, Teller::Platform(time_us)) {
            entry.report = Some(report);
        }
    }

    /// `platform.initReport` of an Init inside an invocation, recorded at `time_us`. It does not say inside which.
    pub fn initialized_inside(&mut self, took_ms: f64, time_us: u64) {
        if self.inits.len() == MAX_INITS {
            self.inits.pop_front();
        }
        self.inits.push_back(InitInside { ended_at_us: time_us, took_us: microseconds(took_ms) });
    }

    /// Takes the invocations of which nothing more is to come.
    pub fn take_finished(&mut self) -> Vec<Invocation> {
        let (invokes, now_us) = (self.invokes, self.now_us);
        let no_reports = self.no_reports;
        self.take(|entry| entry.is_complete(no_reports) || entry.is_given_up(invokes, now_us))
    }

    /// Takes everything, as it is: the environment ends.
    pub fn take_all(&mut self) -> Vec<Invocation> {
        self.take(|_| true)
    }

    /// How many invocations have begun and are not finished.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// How many invocations were pushed out unfinished since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// How many records came so late since the last call that they cannot be told from repetitions.
    pub fn take_stale(&mut self) -> u64 {
        std::mem::take(&mut self.stale)
    }

    /// Whether a report is still awaited.
    #[must_use]
    pub fn awaits_report(&self) -> bool {
        self.open.iter().any(|entry| entry.report.is_none())
    }

    fn take(&mut self, wanted: impl Fn(&Entry) -> bool) -> Vec<Invocation> {
        let mut taken = vec![];
        let mut index = 0;
        while let Some(entry) = self.open.get(index) {
            if wanted(entry) {
                taken.extend(self.open.remove(index));
            } else {
                index += 1;
            }
        }
        taken.iter().map(|entry| self.close(entry)).collect()
    }

    fn close(&mut self, entry: &Entry) -> Invocation {
        if self.finished.len() == REMEMBERED
            && let Some(forgotten) = self.finished.pop_front()
        {
            self.forgotten_us = self.forgotten_us.max(forgotten.told_us);
        }
        let Entry { request_id, told_us, .. } = *entry;
        self.finished.push_back(Finished { request_id, told_us });
        let inside = self.inits.iter().position(|init| entry.contains(init));
        let init_inside_us = inside.and_then(|index| self.inits.remove(index)).map_or(0, |init| init.took_us);
        entry.to_invocation(self.memory_mb, init_inside_us)
    }

    /// The open entry of this request, made when it is new; `None` when the request is finished already or
    /// is not named.
    fn entry(&mut self, request_id: &str, teller: Teller) -> Option<&mut Entry> {
        if request_id.is_empty() {
            return None;
        }
        let request_id = RequestId::parse(request_id).unwrap_or_else(|| fingerprint(request_id));
        let found = self.open.iter().position(|entry| entry.request_id == request_id);
        let index = match found {
            Some(index) => index,
            None => self.open(request_id, teller)?,
        };
        let entry = self.open.get_mut(index)?;
        if let Teller::Platform(time_us) = teller {
            entry.told_us = entry.told_us.max(time_us);
        }
        Some(entry)
    }

    fn open(&mut self, request_id: RequestId, teller: Teller) -> Option<usize> {
        if self.finished.iter().any(|finished| finished.request_id == request_id) {
            return None;
        }
        if let Teller::Platform(time_us) = teller {
            if time_us <= self.forgotten_us {
                self.stale += 1;
                return None;
            }
            self.followed();
        }
        if self.open.len() == MAX_OPEN {
            // On managed instances alone, and only when reports are lost. What little is known of the
            // oldest is not worth guessing at; that there was one is.
            self.open.pop_front();
            self.evicted += 1;
        }
        self.open.push_back(Entry { request_id, ..Entry::default() });
        Some(self.open.len() - 1)
    }
}

impl Entry {
    /// Everything has come: the report, and the reading of the processes if there is to be one.
    const fn is_complete(&self, no_reports: bool) -> bool {
        let unmeasured = matches!(self.measurement, Measurement::Pending) && self.invoke.is_some();
        (self.report.is_some() || no_reports) && !unmeasured
    }

    /// Whether the report has had every chance to come.
    fn is_given_up(&self, invokes: u64, now_us: u64) -> bool {
        let waited_us = self.followed_at_us.map_or(0, |since| now_us.saturating_sub(since));
        match self.invoke {
            Some(own) => invokes - own > REPORT_PATIENCE_INVOKES && waited_us >= REPORT_PATIENCE_US,
            None => waited_us >= UNINVOKED_PATIENCE_US,
        }
    }

    /// Whether the Init ended within this invocation, which ended when the platform told of it last. An Init that the
    /// report names is not inside what it calls the duration.
    fn contains(&self, init: &InitInside) -> bool {
        let Some(Done { metrics, .. }) = &self.report else { return false };
        let duration_us = metrics.duration_ms.map_or(0, microseconds);
        let began_at_us = self.told_us.saturating_sub(duration_us);
        metrics.init_duration_ms.is_none()
            && (began_at_us..=self.told_us).contains(&init.ended_at_us)
            && init.took_us <= duration_us
    }

    /// `init_inside_us` is what an Init inside took. It is told as any other Init: no part of the duration, because it
    /// was over before our INVOKE, and of its time we know neither how much was work nor how much was waiting.
    fn to_invocation(&self, memory_mb: u32, init_inside_us: u64) -> Invocation {
        let metrics = self.report.as_ref().map(|report| report.metrics).unwrap_or_default();
        let runtime = self.runtime_done.as_ref().map(|done| done.metrics).unwrap_or_default();
        let told_us = metrics.duration_ms.or(runtime.duration_ms).map(microseconds);
        let told_us = told_us.map(|told_us| told_us.saturating_sub(init_inside_us));
        let measured = match &self.measurement {
            Measurement::Done(measured) => Some(*measured)
                .filter(|measured| stands_for(measured, told_us))
                .map(|measured| within(measured, told_us, Megabytes(memory_mb))),
            Measurement::Pending | Measurement::Impossible => None,
        };
        // Without the platform's word, the busiest thread's time is the least the invocation can have taken.
        let least_us = measured.map_or(0, |m| m.work.top_busy_us + m.work.top_starved_us);
        let duration_us = told_us.unwrap_or(least_us);
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
                estimated: told_us.is_none(),
                report_missing: self.report.is_none(),
                starved_inferred: measured.is_some_and(|measured| measured.starved_inferred),
                peak_sampled: measured.is_some_and(|measured| measured.peak_sampled),
                work_estimated: measured.is_some_and(|measured| measured.last_look_us.is_some()),
            },
            duration_us,
            // Whether it holds an Init inside is not documented.
            runtime_us: runtime.duration_ms.map_or(0, microseconds).min(most_runtime_us),
            billed_ms,
            init_us,
            restore_us: metrics.restore_duration_ms.map_or(0, microseconds),
            produced_bytes: runtime.produced_bytes.map_or(0, whole),
            max_memory_used_mb,
            peak_kib: measured.map_or(0, |measured| measured.peak_kib),
            start_kib: measured.map_or(0, |measured| measured.start_kib),
            threads: measured.map_or(0, |measured| measured.threads),
            descriptors: measured.map_or(0, |measured| measured.descriptors),
            tmp_used_kib: measured.map_or(0, |measured| measured.tmp_used_kib),
            work: measured.map(|measured| complete(&measured, duration_us, memory_mb)),
        }
    }

    fn outcome(&self, max_memory_used_mb: u32, memory_mb: u32) -> Outcome {
        let told = [&self.report, &self.runtime_done];
        let says = |text: &str| {
            told.iter()
                .filter_map(|done| done.as_ref()?.error_type.as_deref())
                .any(|error| error.contains(text))
        };
        let status = told.iter().find_map(|done| done.as_ref()?.status.as_deref());
        let failed = match status {
            None => says("Error") || says("Runtime.") || says("Extension."),
            Some(status) => status != "success",
        };
        // Runtimes die of memory in several ways: under their own name for it, by a signal that shows as
        // an exit, or by grinding against the limit until the timeout.
        if says("OutOfMemory") || failed && max_memory_used_mb > 0 && max_memory_used_mb >= memory_mb {
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

/// Whether a measurement stands for an invocation that took `told_us`: one that ended unseen was looked at last
/// when at least four fifths of it had passed.
fn stands_for(measured: &Measured, told_us: Option<u64>) -> bool {
    measured.last_look_us.is_none_or(|look_us| {
        told_us.is_some_and(|told_us| look_us.saturating_mul(5) >= told_us.saturating_mul(4))
    })
}

/// Completes the work with what follows from the duration: starved time that was not seen, and idle time.
///
/// Idle is what is left of the wall time when threads were neither on a CPU nor waiting for one. With several
/// busy threads the time they cover lies between that of the busiest one and the sum; the effective number of
/// threads says where.
fn complete(measured: &Measured, duration_us: u64, memory_mb: u32) -> Work {
    let mut work = measured.work;
    let busy_us = work.busy_us();
    if measured.threads_unseen {
        // The waits of threads that ended are gone; that the CPU rate was at the share's cap is not.
        let cap_us = Megabytes(memory_mb).share() * duration_us as f64;
        let at_cap = busy_us as f64 >= AT_CAP * cap_us;
        let wanted_us = if at_cap { duration_us.saturating_sub(busy_us) } else { 0 };
        work.starved_us = work.starved_us.max(wanted_us);
        let covered_us = (busy_us + work.starved_us).min(duration_us);
        work.idle_us = duration_us - covered_us;
        return work;
    }
    if measured.starved_inferred {
        // However many threads there were, each waited no longer than the invocation took.
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

/// Takes off the CPU time of ended children what all CPUs together cannot have done in the time, where that is told.
///
/// That part is known in steps of 10 ms, rounded several times over, and its error can be many times a short
/// invocation. What clocks say is not touched: it is exact, and where it is more than the time allows, the time is
/// what does not cover it (work after the answer, or of the next invocation before we could read).
fn within(mut measured: Measured, told_us: Option<u64>, memory: Megabytes) -> Measured {
    let most_us = told_us.unwrap_or(u64::MAX).saturating_mul(memory.visible_vcpus().into());
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

/// A stable id for a request whose own is not a UUID (FNV-1a, 128 bits).
fn fingerprint(text: &str) -> RequestId {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    RequestId(text.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME)))
}

#[cfg(test)]
mod tests;
