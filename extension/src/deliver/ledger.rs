//! Joins what is known of each invocation, in any order.
//!
//! There are three sources for one invocation: our own INVOKE event, the platform's telemetry (which may come before it,
//! an hour later, twice or never) and the reading of the processes at the next INVOKE. They are joined by request id in a
//! bounded queue. Invocations that do not fit any more are counted as lost.
//!
//! Lambda retries a failed asynchronous invocation with the same request id, after a minute or more. Each attempt is an
//! invocation.

mod entry;
mod inits;
mod outcome;

use std::collections::VecDeque;

use agent_proto::batch::InitializationType;
use agent_proto::limits::max_time_us;
use tailor_sizing::telemetry::invocation::{Invocation, RequestId};

use crate::lambda::record_time::RecordTime;
use crate::lambda::telemetry::{EndRecord, InitReport};
use crate::measure::Measured;
use entry::{Entry, Measurement, megabytes};
use inits::{Inits, TIME_TOLERANCE_US};

/// The most open invocations. On demand one or two are open. On managed instances up to 64 run in one environment for each
/// vCPU; with more open invocations than this, the report of the oldest will not come.
const MAX_OPEN: usize = 1_024;

/// The number of finished requests whose ids are kept, so that repeated telemetry does not open them again. Older ones
/// are recognized by their time.
const MAX_FINISHED: usize = 512;

/// After this many later invocations, and this many microseconds after the first of them, a missing `platform.report` is
/// not expected any more. The platform buffers for 250 ms of running time, in which a fast function has several hundred
/// invocations.
const REPORT_TIMEOUT_INVOKES: u64 = 640;
const REPORT_TIMEOUT_US: u64 = 5_000_000;

/// All open invocations.
#[derive(Debug, Default)]
pub struct Ledger {
    open: VecDeque<Entry>,
    finished: VecDeque<Finished>,
    /// The time of the latest record of the requests whose ids are not kept any more, microseconds. An earlier record of
    /// an unknown request is a repeated one, because the platform delivers in the order of events.
    removed_us: u64,
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
    inits: Inits,
    /// The highest `maxMemoryUsedMB` so far; `None` before the first report.
    mark_mb: Option<u32>,
    /// Processes that the kernel killed for memory before any INVOKE event; `None` when it is not known.
    kills_in_init: Option<u64>,
}

/// What is kept of an invocation to recognize repeated records.
#[derive(Debug, Clone, Copy)]
struct Finished {
    request_id: RequestId,
    last_record_us: u64,
    /// Its report came, which is its last record.
    is_reported: bool,
}

impl Finished {
    /// Whether a record with this time is a repeated one.
    const fn has_record(self, time: RecordTime) -> bool {
        time.latest_us() <= self.last_record_us
    }

    /// Whether a record with this time is of a later attempt.
    const fn ended_before(self, time: RecordTime) -> bool {
        self.is_reported && time.earliest_us() > self.last_record_us.saturating_add(TIME_TOLERANCE_US)
    }
}

impl Ledger {
    /// A ledger for a function with this memory size, in an on-demand environment.
    #[must_use]
    pub fn new(memory_mb: u32) -> Self {
        Self { memory_mb, ..Self::default() }
    }

    /// The same in an environment that was initialized in another way.
    #[must_use]
    pub fn with_initialization(mut self, initialization_type: InitializationType) -> Self {
        self.inits.set_type(initialization_type);
        self
    }

    /// No telemetry comes: an invocation is finished when its processes are read.
    pub const fn expect_no_reports(&mut self) {
        self.no_reports = true;
    }

    /// Sets the time by our own clock, microseconds since the Unix epoch. Call it before telemetry is added.
    pub const fn set_time(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// An INVOKE event; `now_us` is microseconds since the Unix epoch. `is_first` states that no other came before it in this
    /// environment.
    pub fn on_invoke(&mut self, request_id: &str, now_us: u64, is_first: bool) {
        self.invokes += 1;
        let invoke = Some(self.invokes);
        self.set_time(now_us);
        self.mark_next_invocation_started();
        // An earlier attempt had an INVOKE event of its own.
        if let Some(entry) = self.entry(request_id, None) {
            entry.invoke = invoke;
            entry.started_at_us = now_us;
            entry.is_first = is_first;
            entry.next_started_at_us = None;
        }
    }

    /// Another invocation began: the reports of the earlier ones may come from now on.
    fn mark_next_invocation_started(&mut self) {
        for entry in &mut self.open {
            entry.next_started_at_us.get_or_insert(self.now_us);
        }
    }

    /// The processes were read at the end of the invocation with the last INVOKE event; `None` when they had ended. `kills`
    /// is the number of processes that the kernel killed for memory meanwhile; `None` when it is not known.
    pub fn on_measured(&mut self, request_id: &str, measured: Option<Measured>, kills: Option<u64>) {
        if let Some(entry) = self.entry(request_id, Some(self.invokes)) {
            entry.measurement =
                measured.map_or(Measurement::Impossible, |measured| Measurement::Done(Box::new(measured)));
            entry.kills = kills;
        }
    }

    /// The kernel killed this number of processes for memory before any INVOKE event.
    pub const fn on_kills_in_init(&mut self, kills: Option<u64>) {
        self.kills_in_init = kills;
    }

    /// `platform.start`.
    pub fn on_start(&mut self, request_id: &str, time: RecordTime) {
        let time_us = time.known_us().unwrap_or(self.now_us);
        if let Some(entry) = self.entry_of_record(request_id, time, |entry| entry.started_at_us == 0) {
            entry.started_at_us = time_us;
        }
    }

    /// `platform.runtimeDone`, recorded at `time`. Returns whether it is of the invocation with the last INVOKE event.
    pub fn on_runtime_done(&mut self, record: EndRecord, time: RecordTime) -> bool {
        let last = Some(self.invokes);
        let entry = self.entry_of_record(&record.request_id, time, |entry| entry.runtime_done.is_none());
        let Some(entry) = entry else { return false };
        entry.runtime_done = Some(record);
        entry.invoke == last
    }

    /// `platform.report`, recorded at `time`. Returns whether it is of the invocation with the last INVOKE event.
    pub fn on_report(&mut self, record: EndRecord, time: RecordTime) -> bool {
        // A new environment used no memory before. One whose processes were ended may have used any amount.
        let before_mb = self.mark_mb.or_else(|| (!self.inits.is_inside()).then_some(0));
        let mark_mb = record.metrics.max_memory_used_mb.map(megabytes);
        let last = Some(self.invokes);
        let entry = self.entry_of_record(&record.request_id, time, |entry| entry.report.is_none());
        let Some(entry) = entry else { return false };
        entry.mark_before_mb = before_mb;
        entry.report = Some(record);
        entry.reported_at = time;
        let is_last = entry.invoke == last;
        self.mark_mb = self.mark_mb.max(mark_mb);
        is_last
    }

    /// `platform.initStart` of this phase.
    pub fn on_init_start(&mut self, phase: Option<&str>) {
        self.inits.on_start(phase);
    }

    /// `platform.initReport`, recorded at `time`. It has no request id.
    pub fn on_init_report(&mut self, report: &InitReport, time: RecordTime) {
        self.inits.on_report(report, time);
    }

    /// Whether the environment used all of its memory in an invocation that was reported.
    #[must_use]
    pub fn memory_was_full(&self) -> bool {
        self.mark_mb.is_some_and(|mark_mb| mark_mb >= self.memory_mb)
    }

    /// Takes the invocations for which nothing more is expected.
    pub fn take_finished(&mut self) -> Vec<Invocation> {
        let (invokes, now_us) = (self.invokes, self.now_us);
        let no_reports = self.no_reports;
        let longest_us = max_time_us(self.inits.is_managed_instances());
        self.take(|entry| entry.is_complete(no_reports) || entry.is_given_up(invokes, now_us, longest_us))
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

    /// Whether a report is still expected. An Init inside an invocation that fails has no INVOKE event: the invocation is
    /// known from its records only.
    #[must_use]
    pub fn awaits_report(&self) -> bool {
        let is_unseen = self.open.is_empty() && self.finished.is_empty() && self.inits.is_inside();
        !self.no_reports && (is_unseen || self.open.iter().any(|entry| entry.report.is_none()))
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
        taken.into_iter().map(|entry| self.close(entry)).collect()
    }

    fn close(&mut self, mut entry: Entry) -> Invocation {
        if self.finished.len() == MAX_FINISHED
            && let Some(removed) = self.finished.pop_front()
        {
            self.removed_us = self.removed_us.max(removed.last_record_us);
        }
        self.finished.push_back(entry.finished());
        if entry.invoke.is_none() {
            entry.kills = self.kills_in_init;
        }
        let init = self.inits.take_for(&entry);
        entry.to_invocation(self.memory_mb, &init, self.inits.is_managed_instances(), self.now_us)
    }

    /// The oldest open entry of this request that has this INVOKE event, or none yet; created if there is none. `None` without
    /// an id. Our own events are never repeated.
    fn entry(&mut self, request_id: &str, invoke: Option<u64>) -> Option<&mut Entry> {
        let request_id = parse_id(request_id)?;
        let is_its_attempt = |entry: &Entry| {
            entry.request_id == request_id && (entry.invoke.is_none() || entry.invoke == invoke)
        };
        let found = self.open.iter().position(is_its_attempt);
        let index = found.unwrap_or_else(|| self.open(request_id));
        self.open.get_mut(index)
    }

    /// The open entry to which a record of the platform belongs: the oldest one of its request that `lacks` it, created if
    /// there is none. `None` when the record is a repeated one, or without an id.
    fn entry_of_record(
        &mut self,
        request_id: &str,
        time: RecordTime,
        lacks: fn(&Entry) -> bool,
    ) -> Option<&mut Entry> {
        let request_id = parse_id(request_id)?;
        if self.finished.iter().any(|attempt| attempt.request_id == request_id && attempt.has_record(time)) {
            return None;
        }
        let accepts = |entry: &Entry| lacks(entry) && !entry.finished().ended_before(time);
        let is_its_attempt = |entry: &Entry| {
            entry.request_id == request_id && (accepts(entry) || entry.finished().has_record(time))
        };
        let index = match self.open.iter().position(is_its_attempt) {
            Some(index) => index,
            None => self.open_by_record(request_id, time)?,
        };
        let entry = self.open.get_mut(index).filter(|entry| accepts(entry))?;
        entry.last_record_us = entry.last_record_us.max(time.earliest_us());
        Some(entry)
    }

    /// Opens an entry for a record of the platform, unless it is a repeated one.
    fn open_by_record(&mut self, request_id: RequestId, time: RecordTime) -> Option<usize> {
        let mut known = self.open.iter().map(Entry::finished).chain(self.finished.iter().copied());
        if known.any(|attempt| attempt.request_id == request_id && !attempt.ended_before(time)) {
            return None;
        }
        // A record whose time is not certainly earlier is a new one: to lose it is worse than to count it twice.
        if time.latest_us() <= self.removed_us {
            self.stale += 1;
            return None;
        }
        self.mark_next_invocation_started();
        Some(self.open(request_id))
    }

    /// Opens an entry and returns its index.
    fn open(&mut self, request_id: RequestId) -> usize {
        if self.open.len() == MAX_OPEN {
            // Only on managed instances, when reports are lost. Too little is known of the oldest, so it is
            // counted as lost.
            self.open.pop_front();
            self.evicted += 1;
        }
        self.open.push_back(Entry::new(request_id));
        self.open.len() - 1
    }
}

/// The id of a request; `None` when it is empty.
fn parse_id(text: &str) -> Option<RequestId> {
    let id = || RequestId::parse(text).unwrap_or_else(|| fingerprint(text));
    (!text.is_empty()).then(id)
}

/// A stable id for a request id that is not a UUID (FNV-1a, 128 bits).
fn fingerprint(text: &str) -> RequestId {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    RequestId(text.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME)))
}

#[cfg(test)]
mod tests;
