//! Refuses values that no environment and no invocation can have.
//!
//! A key that sends batches can report anything about its functions. These limits keep one batch from making a cost or a
//! total that no valid batch can correct. The error names the field.

use agent_proto::batch::{Batch, BatchHeader, Environment};
use agent_proto::limits::{max_time_us, max_timeout_ms};
use tailor_sizing::telemetry::invocation::Invocation;
use tailor_sizing::telemetry::utilization::Interval;

use crate::http::error::ApiError;
use crate::render::text::is_invisible;

/// Maximum memory size of a function, MB, and of a managed instance.
const MAX_MEMORY_MB: u32 = 10_240;
const MAX_MANAGED_MEMORY_MB: u32 = 32_768;

/// Maximum number of vCPUs, of a managed instance.
const MAX_CPUS: u64 = 16;

/// Maximum number of threads and of processes in an environment.
const MAX_THREADS: u64 = 1_024;

/// Maximum of a memory value, KiB: twice the largest memory size, because shared pages count in several processes.
const MAX_MEMORY_KIB: u64 = 2 * MAX_MANAGED_MEMORY_MB as u64 * 1_024;

/// Maximum length of an interval, microseconds: 30 days. An instance runs for at most 14 days.
const MAX_INTERVAL_US: u64 = 30 * 24 * 3_600 * 1_000_000;

/// Maximum number of invocations at the same time in one environment of a managed instance.
const MAX_CONCURRENCY: u64 = 1_600;

/// Maximum of ephemeral storage, MB.
const MAX_EPHEMERAL_MB: u32 = 10_240;

/// Maximum of a running total or counter. Thousands of environments with it do not overflow a sum.
const MAX_COUNT: u64 = 1 << 48;

/// Maximum sequence of a batch: one each millisecond for 34 years.
const MAX_SEQUENCE: u64 = 1 << 40;

/// How far the start of an invocation may be after the collector's time, microseconds.
const LATEST_AHEAD_US: u64 = 24 * 3_600 * 1_000_000;

/// Checks a batch that arrived at `received_at_us`.
///
/// # Errors
/// 400 with the name of the first field that has an impossible value.
pub(super) fn check(batch: &Batch, received_at_us: u64) -> Result<(), ApiError> {
    check_environment(&batch.header.environment)?;
    let max_time_us = max_time_us(batch.header.environment.is_managed_instances());
    check_header(&batch.header, max_time_us)?;
    for (index, invocation) in batch.invocations.iter().enumerate() {
        check_invocation(invocation, max_time_us, received_at_us)
            .map_err(|problem| impossible(&format!("invocations[{index}].{problem}")))?;
    }
    Ok(())
}

fn impossible(problem: &str) -> ApiError {
    ApiError::bad_request("value", format!("impossible value: {problem}"))
}

fn check_environment(environment: &Environment) -> Result<(), ApiError> {
    let names = [
        ("account", &environment.account),
        ("region", &environment.region),
        ("function", &environment.function),
        ("version", &environment.version),
        ("runtime", &environment.runtime),
        ("extension_version", &environment.extension_version),
    ];
    for (field, text) in names {
        if text.chars().any(is_invisible) {
            let message = format!("environment.{field} has control or invisible characters");
            return Err(ApiError::bad_request("name", message));
        }
    }
    let is_managed_instances = environment.is_managed_instances();
    let max_memory_mb = if is_managed_instances { MAX_MANAGED_MEMORY_MB } else { MAX_MEMORY_MB };
    let problems = [
        at_most("memory_mb", environment.memory.0.into(), max_memory_mb.into()),
        at_most("ephemeral_mb", environment.ephemeral_mb.into(), MAX_EPHEMERAL_MB.into()),
        at_most("timeout_ms", environment.timeout_ms, max_timeout_ms(is_managed_instances)),
    ];
    first(problems).map_err(|problem| impossible(&format!("environment.{problem}")))
}

fn check_header(header: &BatchHeader, max_time_us: u64) -> Result<(), ApiError> {
    let problems = [
        at_most("sequence", header.sequence, MAX_SEQUENCE),
        at_most("unsent", header.unsent, MAX_COUNT),
        at_most("lost.invocations", header.lost.invocations, MAX_COUNT),
        at_most("lost.platform_records", header.lost.platform_records, MAX_COUNT),
        at_most("lost.undecodable_records", header.lost.undecodable_records, MAX_COUNT),
        at_most("lost.failed_deliveries", header.lost.failed_deliveries, MAX_COUNT),
        at_most("overhead.cpu_us", header.overhead.cpu_us, MAX_COUNT),
        at_most("overhead.resident_kib", header.overhead.resident_kib, MAX_MEMORY_KIB),
        at_most("overhead.sent_bytes", header.overhead.sent_bytes, MAX_COUNT),
        at_most("overhead.ticks", header.overhead.ticks, MAX_COUNT),
    ];
    first(problems).map_err(|problem| impossible(&problem))?;
    header.interval.as_ref().map_or(Ok(()), |interval| check_interval(interval, max_time_us))
}

fn check_interval(interval: &Interval, max_time_us: u64) -> Result<(), ApiError> {
    let Interval { duration_us, cpu_us, max_cpu_milli, peak_kib, max_concurrency } = *interval;
    let problems = [
        at_most("duration_us", duration_us, MAX_INTERVAL_US),
        at_most("cpu_us", cpu_us, MAX_CPUS.saturating_mul(duration_us.saturating_add(max_time_us))),
        at_most("max_cpu_milli", max_cpu_milli, MAX_CPUS * 1_000),
        at_most("peak_kib", peak_kib, MAX_MEMORY_KIB),
        at_most("max_concurrency", max_concurrency.into(), MAX_CONCURRENCY),
    ];
    first(problems).map_err(|problem| impossible(&format!("interval.{problem}")))
}

fn check_invocation(invocation: &Invocation, max_time_us: u64, received_at_us: u64) -> Result<(), String> {
    let problems = [
        at_most("started_at_us", invocation.started_at_us, received_at_us.saturating_add(LATEST_AHEAD_US)),
        at_most("duration_us", invocation.duration_us, max_time_us),
        at_most("runtime_us", invocation.runtime_us, max_time_us),
        at_most("billed_ms", invocation.billed_ms, max_time_us / 1_000),
        at_most("init_us", invocation.init_us, max_time_us),
        at_most("restore_us", invocation.restore_us, max_time_us),
        at_most("produced_bytes", invocation.produced_bytes, MAX_COUNT),
        at_most("max_memory_used_mb", invocation.max_memory_used_mb.into(), MAX_MANAGED_MEMORY_MB.into()),
        at_most("peak_kib", invocation.peak_kib, MAX_MEMORY_KIB),
        at_most("start_kib", invocation.start_kib, MAX_MEMORY_KIB),
        at_most("tmp_used_kib", invocation.tmp_used_kib, MAX_MEMORY_KIB),
    ];
    first(problems)?;
    let Some(work) = &invocation.work else { return Ok(()) };
    let problems = [
        at_most("work.user_us", work.user_us, MAX_CPUS * max_time_us),
        at_most("work.system_us", work.system_us, MAX_CPUS * max_time_us),
        at_most("work.starved_us", work.starved_us, MAX_THREADS * max_time_us),
        at_most("work.idle_us", work.idle_us, max_time_us),
        at_most("work.top_busy_us", work.top_busy_us, max_time_us),
        at_most("work.top_starved_us", work.top_starved_us, max_time_us),
    ];
    first(problems)?;
    let counts = work.counters();
    let largest = counts.into_iter().max().unwrap_or(0);
    at_most("work", largest, MAX_COUNT).map_or(Ok(()), Err)
}

fn at_most(field: &str, value: u64, limit: u64) -> Option<String> {
    (value > limit).then(|| format!("{field} is {value}, the most is {limit}"))
}

fn first(problems: impl IntoIterator<Item = Option<String>>) -> Result<(), String> {
    problems.into_iter().flatten().next().map_or(Ok(()), Err)
}
