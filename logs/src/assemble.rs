//! Joins the lines of one request to an invocation.
//!
//! The lines of a request may come in any order and more than once, also from several files. An asynchronous request that
//! failed is invoked again with the same request id, so that one request can have several reports.

use std::collections::HashMap;
use std::sync::Arc;

use tailor_sizing::model::memory_floor::FULL;
use tailor_sizing::telemetry::invocation::{Initialization, Invocation, Outcome, RequestId};
use tailor_sizing::units::Megabytes;

use crate::origin::Origin;
use crate::pending::PendingRequests;
use crate::problems::{Problem, Problems};
use crate::record::{Entry, Init, InitReport, LogBytes, Record, Report, Runtime};

/// Requests whose lines are waited for. Each needs a few hundred bytes.
const MAX_PENDING: usize = 65_536;

/// Maximum number of environments and functions that are kept.
const MAX_ENVIRONMENTS: usize = 65_536;

/// Lines of one kind that are kept of one request. Lambda invokes an asynchronous request three times.
const MAX_LINES: usize = 16;

/// Reports of one request with the same billed duration are one report when their times differ by less, microseconds. Tools
/// write the time of a line with different precision. Lambda waits a minute before it invokes a request again.
pub const SAME_REPORT_US: u64 = 30_000_000;

/// The time between the end of an Init and the first invocation from which the environment was initialized ahead,
/// microseconds.
const PROACTIVE_US: u64 = 1_000_000;

/// How much longer than its invocation an Init inside it may be, microseconds.
const INIT_TOLERANCE_US: u64 = 10_000;

/// Limits of what Lambda reports.
const MAX_TIME_US: u64 = 16 * 60 * 1_000_000;
const MEMORY_MB: std::ops::RangeInclusive<u32> = 128..=10_240;
const MAX_USED_MB: u32 = 32_768;

/// An invocation as the log shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedInvocation {
    /// The function and its log stream. Function and region are known.
    pub origin: Arc<Origin>,
    /// Function version: `$LATEST` or a number.
    pub version: String,
    /// AWS region.
    pub region: String,
    /// Memory size.
    pub memory: Megabytes,
    /// The runtime, such as `python3.13`; empty when unknown.
    pub runtime: String,
    /// The size of the log events since the report before in the same log stream; `None` when the input does not have all
    /// events.
    pub log_bytes: Option<LogBytes>,
    /// Whether the log has the time. Otherwise it is that of the file.
    pub has_time: bool,
    /// The numbers. CPU time, the peak of the function's processes and other measurements are not in logs.
    pub invocation: Invocation,
}

/// The runtimes that Inits have named, by account and function.
type Runtimes = HashMap<(String, String), Runtime>;

/// Joins lines to invocations.
#[derive(Debug, Default)]
pub struct Assembler {
    pending: PendingRequests<Pending>,
    environments: HashMap<Arc<Origin>, Environment>,
    /// The size of the log since the latest report, and the origin of their lines.
    log_bytes: Option<(Arc<Origin>, LogBytes)>,
    runtimes: Runtimes,
}

/// The lines of one request.
#[derive(Debug, Default)]
struct Pending {
    reports: Vec<Attempt>,
    starts: Vec<Start>,
    handlers: Vec<Handler>,
    timeouts: Vec<Option<u64>>,
    exits: Vec<(Option<u64>, bool)>,
}

#[derive(Debug)]
struct Attempt {
    at_us: Option<u64>,
    fallback_us: u64,
    origin: Arc<Origin>,
    report: Report,
    log_bytes: Option<LogBytes>,
    /// The Init inside the invocation, microseconds.
    inside_us: Option<u64>,
    initialization_type: String,
    init_started_us: Option<u64>,
    /// Whether it is the first report after the start of an Init.
    is_first: bool,
}

#[derive(Debug)]
struct Start {
    at_us: Option<u64>,
    version: String,
}

#[derive(Debug)]
struct Handler {
    at_us: Option<u64>,
    duration_us: Option<u64>,
    produced_bytes: Option<u64>,
}

/// What is known of the Init of an environment.
#[derive(Debug, Default)]
struct Environment {
    initialization_type: String,
    started_us: Option<u64>,
    /// The Init inside the invocation that is reported next, microseconds.
    inside_us: Option<u64>,
    /// Whether nothing was reported since the start of the Init.
    is_unreported: bool,
}

impl Assembler {
    /// Adds a line. `fallback_us` is the time of lines without one, microseconds since the Unix epoch. The oldest request is
    /// passed on when too many wait for lines.
    pub fn add(
        &mut self,
        entry: Entry,
        fallback_us: u64,
        problems: &mut Problems,
        sink: &mut dyn FnMut(ImportedInvocation),
    ) {
        let Entry { origin, at_us, log_bytes, record } = entry;
        self.add_log_bytes(&origin, log_bytes);
        match record {
            Record::Report(report) => self.report(origin, at_us, report, fallback_us, problems, sink),
            Record::Start { request_id, version } => {
                let start = Start { at_us, version };
                push(&mut self.request(request_id, problems, sink).starts, start);
            }
            Record::RuntimeDone { request_id, duration_us, produced_bytes } => {
                let handler = Handler { at_us, duration_us, produced_bytes };
                push(&mut self.request(request_id, problems, sink).handlers, handler);
            }
            Record::TimedOut { request_id } => {
                push(&mut self.request(request_id, problems, sink).timeouts, at_us);
            }
            Record::Exited { request_id, is_out_of_memory } => {
                push(&mut self.request(request_id, problems, sink).exits, (at_us, is_out_of_memory));
            }
            Record::InitStart(init) => self.init_start(origin, at_us, init),
            Record::InitReport(report) => self.init_report(origin, &report),
        }
    }

    /// Adds bytes to those of the next report. Streams that are mixed line by line share their bytes: a change of the stream
    /// starts anew only when its function is another one.
    fn add_log_bytes(&mut self, origin: &Arc<Origin>, log_bytes: Option<LogBytes>) {
        let Some(log_bytes) = log_bytes else { return };
        let mut sum = match self.log_bytes.take() {
            Some((before, counted)) if before.function == origin.function => counted,
            _ => LogBytes::default(),
        };
        sum.add(log_bytes);
        self.log_bytes = Some((Arc::clone(origin), sum));
    }

    /// Passes on all requests.
    pub fn finish(&mut self, problems: &mut Problems, sink: &mut dyn FnMut(ImportedInvocation)) {
        while let Some(request) = self.pending.remove_oldest() {
            pass_on(&self.runtimes, &request, problems, sink);
        }
        self.environments.clear();
    }

    fn request(
        &mut self,
        request_id: RequestId,
        problems: &mut Problems,
        sink: &mut dyn FnMut(ImportedInvocation),
    ) -> &mut Pending {
        let runtimes = &self.runtimes;
        self.pending.entry(request_id, MAX_PENDING, |oldest| pass_on(runtimes, &oldest, problems, sink))
    }

    fn report(
        &mut self,
        origin: Arc<Origin>,
        at_us: Option<u64>,
        report: Report,
        fallback_us: u64,
        problems: &mut Problems,
        sink: &mut dyn FnMut(ImportedInvocation),
    ) {
        let mut attempt = Attempt {
            log_bytes: self.log_bytes.take().map(|(_, bytes)| bytes),
            at_us,
            fallback_us,
            inside_us: None,
            initialization_type: String::new(),
            init_started_us: None,
            is_first: false,
            report,
            origin,
        };
        if let Some(environment) = self.environments.get_mut(&attempt.origin) {
            let fits = |inside_us: &u64| {
                attempt.report.init_us.is_none()
                    && (attempt.report.status == "timeout"
                        || *inside_us <= attempt.report.duration_us.saturating_add(INIT_TOLERANCE_US))
            };
            attempt.inside_us = environment.inside_us.take().filter(fits);
            attempt.initialization_type.clone_from(&environment.initialization_type);
            attempt.init_started_us = environment.started_us.take();
            attempt.is_first = std::mem::take(&mut environment.is_unreported);
        }
        let request = self.request(attempt.report.request_id, problems, sink);
        if !request.reports.iter().any(|known| known.is_same(&attempt)) {
            push(&mut request.reports, attempt);
        }
    }

    fn init_start(&mut self, origin: Arc<Origin>, at_us: Option<u64>, init: Init) {
        if !init.runtime.name.is_empty() || !init.runtime.region.is_empty() {
            if self.runtimes.len() >= MAX_ENVIRONMENTS {
                self.runtimes.clear();
            }
            self.runtimes.insert((origin.account.clone(), origin.function.clone()), init.runtime);
        }
        let environment = self.environment(origin);
        environment.initialization_type = init.initialization_type;
        environment.started_us = at_us;
        environment.is_unreported = true;
    }

    fn init_report(&mut self, origin: Arc<Origin>, report: &InitReport) {
        if report.phase == "invoke" {
            self.environment(origin).inside_us = Some(report.duration_us);
        }
    }

    fn environment(&mut self, origin: Arc<Origin>) -> &mut Environment {
        if self.environments.len() >= MAX_ENVIRONMENTS {
            self.environments.clear();
        }
        self.environments.entry(origin).or_default()
    }
}

/// Passes on the invocations of a request that has left the queue.
fn pass_on(
    runtimes: &Runtimes,
    request: &Pending,
    problems: &mut Problems,
    sink: &mut dyn FnMut(ImportedInvocation),
) {
    for (index, attempt) in request.reports.iter().enumerate() {
        match invocation(runtimes, request, index, attempt) {
            Ok(invocation) => sink(invocation),
            Err(problem) => {
                let Report { request_id, duration_us, memory_mb, .. } = &attempt.report;
                let memory = memory_mb.map_or_else(String::new, |memory_mb| format!(", {memory_mb} MB"));
                let duration_ms = *duration_us as f64 / 1_000.0;
                let example = format!("request {request_id}, {duration_ms} ms{memory}");
                problems.add(problem, example.as_bytes());
            }
        }
    }
}

fn invocation(
    runtimes: &Runtimes,
    request: &Pending,
    index: usize,
    attempt: &Attempt,
) -> Result<ImportedInvocation, Problem> {
    let Attempt { report, origin, .. } = attempt;
    let (Some(billed_ms), Some(memory_mb)) = (report.billed_ms, report.memory_mb) else {
        return Err(Problem::ManagedInstances);
    };
    check(report, billed_ms, memory_mb)?;
    if origin.function.is_empty() {
        return Err(Problem::UnknownFunction);
    }
    let runtime = runtimes.get(&(origin.account.clone(), origin.function.clone()));
    let region = match runtime {
        Some(runtime) if origin.region.is_empty() => runtime.region.clone(),
        _ => origin.region.clone(),
    };
    if region.is_empty() {
        return Err(Problem::UnknownRegion);
    }
    let start = request.latest(&request.starts, attempt, |start| start.at_us);
    let handler = request.latest(&request.handlers, attempt, |handler| handler.at_us);
    let started_us = attempt.started_us(start.and_then(|start| start.at_us));
    let (initialization, init_us) = attempt.initialization(started_us);
    let is_of = |at_us: &Option<u64>| request.nearest(*at_us) == Some(index);
    let exits: Vec<bool> = request
        .exits
        .iter()
        .filter(|(at_us, _)| is_of(at_us))
        .map(|(_, is_out_of_memory)| *is_out_of_memory)
        .collect();
    let version = [start.map(|start| &start.version), Some(&origin.version)];
    let version = version.into_iter().flatten().find(|version| !version.is_empty());
    Ok(ImportedInvocation {
        version: version.cloned().unwrap_or_else(|| "$LATEST".to_owned()),
        region,
        memory: Megabytes(memory_mb),
        runtime: runtime.map(|runtime| runtime.name.clone()).unwrap_or_default(),
        has_time: attempt.at_us.is_some(),
        log_bytes: attempt.log_bytes,
        origin: Arc::clone(origin),
        invocation: Invocation {
            request_id: report.request_id,
            started_at_us: started_us,
            outcome: outcome(report, memory_mb, request.timeouts.iter().any(is_of), &exits),
            initialization,
            duration_us: report.duration_us,
            runtime_us: handler.and_then(|handler| handler.duration_us).unwrap_or(0),
            billed_ms,
            init_us,
            restore_us: report.restore_us.unwrap_or(0),
            produced_bytes: handler.and_then(|handler| handler.produced_bytes).unwrap_or(0),
            max_memory_used_mb: report.max_memory_used_mb.unwrap_or(0),
            ..Invocation::default()
        },
    })
}

fn push<T>(list: &mut Vec<T>, line: T) {
    if list.len() < MAX_LINES {
        // Most requests have one line of a kind. A list begins with room for four, which is a kilobyte of each waiting request.
        if list.is_empty() {
            list.reserve_exact(1);
        }
        list.push(line);
    }
}

fn check(report: &Report, billed_ms: u64, memory_mb: u32) -> Result<(), Problem> {
    let times = [report.duration_us, report.init_us.unwrap_or(0), report.restore_us.unwrap_or(0)];
    let is_possible = times.into_iter().all(|us| us <= MAX_TIME_US)
        && billed_ms <= MAX_TIME_US / 1_000
        && MEMORY_MB.contains(&memory_mb)
        && report.max_memory_used_mb.unwrap_or(0) <= MAX_USED_MB;
    if is_possible { Ok(()) } else { Err(Problem::ImpossibleValue) }
}

impl Pending {
    /// The latest line that was written before the end of an attempt. Without times, the only one.
    fn latest<'a, T>(
        &self,
        lines: &'a [T],
        attempt: &Attempt,
        at_us: impl Fn(&T) -> Option<u64>,
    ) -> Option<&'a T> {
        // The line of the end and that of the report may have the same time, which tools round.
        const TOLERANCE_US: u64 = 1_000_000;
        let Some(end_us) = attempt.at_us else { return lines.first() };
        let before = lines
            .iter()
            .filter(|line| at_us(line).is_none_or(|at_us| at_us <= end_us.saturating_add(TOLERANCE_US)));
        before.max_by_key(|line| at_us(line))
    }

    /// The attempt that a line without a number of its own belongs to.
    fn nearest(&self, at_us: Option<u64>) -> Option<usize> {
        let Some(at_us) = at_us else { return (!self.reports.is_empty()).then_some(0) };
        let distance = |attempt: &Attempt| attempt.at_us.map_or(u64::MAX, |end_us| end_us.abs_diff(at_us));
        let nearest = self.reports.iter().enumerate().min_by_key(|(_, attempt)| distance(attempt));
        nearest.map(|(index, _)| index)
    }
}

impl Attempt {
    fn is_same(&self, other: &Self) -> bool {
        self.report.billed_ms == other.report.billed_ms
            && match (self.at_us, other.at_us) {
                (Some(own), Some(other)) => own.abs_diff(other) < SAME_REPORT_US,
                _ => true,
            }
    }

    /// When the invocation began. The line `START` comes after an Init inside the invocation.
    fn started_us(&self, start_us: Option<u64>) -> u64 {
        let duration_us = self.report.duration_us;
        let began_us = self.at_us.map(|end_us| end_us.saturating_sub(duration_us));
        match (start_us, began_us) {
            (Some(start_us), Some(began_us)) if self.inside_us.is_some() => start_us.min(began_us),
            (Some(start_us), _) => start_us,
            (None, Some(began_us)) => began_us,
            (None, None) => self.fallback_us,
        }
    }

    /// The class of the initialization, and the duration of the Init that belongs to the invocation.
    fn initialization(&self, started_us: u64) -> (Initialization, u64) {
        if let Some(inside_us) = self.inside_us {
            return (Initialization::InsideInvocation, inside_us.min(self.report.duration_us));
        }
        let init_us = self.report.init_us;
        let is_restored = self.report.restore_us.is_some_and(|restore_us| restore_us > 0);
        let ready_us = self.init_started_us.map(|at_us| at_us.saturating_add(init_us.unwrap_or(0)));
        let was_ready = ready_us.is_some_and(|ready_us| started_us > ready_us.saturating_add(PROACTIVE_US));
        let class = match self.initialization_type.as_str() {
            _ if is_restored => Initialization::SnapStart,
            // Its reports have no Init duration.
            "provisioned-concurrency" if self.is_first || init_us.is_some() => {
                Initialization::ProvisionedConcurrency
            }
            _ if init_us.is_none() => Initialization::Warm,
            "snap-start" => Initialization::SnapStart,
            _ if was_ready => Initialization::Proactive,
            _ => Initialization::OnDemand,
        };
        (class, init_us.unwrap_or(0))
    }
}

/// How an invocation ended. Of the memory, a log has the highest use of the environment only, so that a failure with all of
/// the memory in use is an out-of-memory kill.
fn outcome(report: &Report, memory_mb: u32, has_timeout_line: bool, exits: &[bool]) -> Outcome {
    let used_mb = report.max_memory_used_mb.unwrap_or(0);
    let is_full = used_mb >= memory_mb;
    let is_nearly_full = f64::from(used_mb) >= FULL * f64::from(memory_mb);
    let error = report.error_type.as_str();
    let is_exit = !exits.is_empty() || error == "Runtime.ExitError";
    let name = error.rsplit(['.', ':', '/']).next().unwrap_or_default();
    let allocation_failed = matches!(name, "MemoryError" | "NoMemoryError");
    let is_timeout = report.status == "timeout" || has_timeout_line;
    let is_kill = exits.contains(&true)
        || error.contains("OutOfMemory")
        || (is_exit || allocation_failed) && is_nearly_full
        || is_timeout && is_full;
    if is_kill {
        Outcome::OutOfMemory
    } else if is_timeout {
        Outcome::Timeout
    } else if is_exit || !matches!(report.status.as_str(), "" | "success") {
        Outcome::Error
    } else {
        Outcome::Success
    }
}
