//! Converts rows to columns and back. In a column, similar values are next to each other and need fewer bytes.

use super::{
    BatchError, Caveats, Initialization, Invocation, MAX_INVOCATIONS, Outcome, RequestId, Work, wire,
};

const COLD_START: u32 = 1;
const ESTIMATED: u32 = 2;
const REPORT_MISSING: u32 = 4;
const STARVED_INFERRED: u32 = 8;
const PEAK_SAMPLED: u32 = 16;
const WORK_KNOWN: u32 = 32;
const WORK_ESTIMATED: u32 = 64;

const REQUEST_ID_BYTES: usize = 16;

/// The columns of `rows`; the caller has checked that there are at most [`MAX_INVOCATIONS`].
pub(super) fn from_rows(rows: &[Invocation]) -> wire::Invocations {
    let mut previous_us = 0u64;
    let mut wire = wire::Invocations {
        count: u32::try_from(rows.len()).unwrap_or(u32::MAX),
        request_ids: rows.iter().flat_map(|row| row.request_id.0.to_be_bytes()).collect(),
        started_at_us_delta: rows
            .iter()
            .map(|row| {
                let delta = row.started_at_us.wrapping_sub(previous_us).cast_signed();
                previous_us = row.started_at_us;
                delta
            })
            .collect(),
        outcomes: rows.iter().map(|row| outcome_to_wire(row.outcome).into()).collect(),
        flags: rows.iter().map(flags).collect(),
        duration_us: column(rows, |row| row.duration_us),
        runtime_us: column(rows, |row| row.runtime_us),
        billed_ms: column(rows, |row| row.billed_ms),
        init_us: column(rows, |row| row.init_us),
        restore_us: column(rows, |row| row.restore_us),
        produced_bytes: column(rows, |row| row.produced_bytes),
        max_memory_used_mb: column(rows, |row| row.max_memory_used_mb),
        peak_kib: column(rows, |row| row.peak_kib),
        start_kib: column(rows, |row| row.start_kib),
        threads: column(rows, |row| row.threads),
        descriptors: column(rows, |row| row.descriptors),
        tmp_used_kib: column(rows, |row| row.tmp_used_kib),
        work: vec![],
        initializations: column(rows, |row| initialization_to_wire(row.initialization).into()),
    };
    let works: Vec<_> = rows.iter().map(|row| row.work.unwrap_or_default().counters()).collect();
    wire.work = (0..Work::COUNTERS)
        .map(|counter| wire::Column { values: column(&works, |work| work[counter]) })
        .collect();
    wire
}

/// One value per row, or nothing when all are the default.
fn column<R, T: Default + PartialEq>(rows: &[R], value: impl Fn(&R) -> T) -> Vec<T> {
    let values: Vec<T> = rows.iter().map(value).collect();
    if values.iter().all(|value| *value == T::default()) { vec![] } else { values }
}

/// The rows of `wire`.
pub(super) fn to_rows(wire: &wire::Invocations) -> Result<Vec<Invocation>, BatchError> {
    let count = usize::try_from(wire.count)
        .ok()
        .filter(|&count| count <= MAX_INVOCATIONS)
        .ok_or(BatchError::TooManyInvocations(wire.count))?;
    check_lengths(wire, count)?;
    let mut started_at_us = 0u64;
    let mut rows = Vec::with_capacity(count);
    for row in 0..count {
        let flags = at(&wire.flags, row);
        started_at_us = started_at_us
            .checked_add_signed(at(&wire.started_at_us_delta, row))
            .ok_or(BatchError::Time(row))?;
        rows.push(Invocation {
            request_id: request_id(&wire.request_ids, row),
            started_at_us,
            outcome: outcome_from_wire(at(&wire.outcomes, row)),
            initialization: initialization_from_wire(at(&wire.initializations, row), flags),
            caveats: Caveats {
                estimated: flags & ESTIMATED != 0,
                report_missing: flags & REPORT_MISSING != 0,
                starved_inferred: flags & STARVED_INFERRED != 0,
                peak_sampled: flags & PEAK_SAMPLED != 0,
                work_estimated: flags & WORK_ESTIMATED != 0,
            },
            duration_us: at(&wire.duration_us, row),
            runtime_us: at(&wire.runtime_us, row),
            billed_ms: at(&wire.billed_ms, row),
            init_us: at(&wire.init_us, row),
            restore_us: at(&wire.restore_us, row),
            produced_bytes: at(&wire.produced_bytes, row),
            max_memory_used_mb: at(&wire.max_memory_used_mb, row),
            peak_kib: at(&wire.peak_kib, row),
            start_kib: at(&wire.start_kib, row),
            threads: at(&wire.threads, row),
            descriptors: at(&wire.descriptors, row),
            tmp_used_kib: at(&wire.tmp_used_kib, row),
            work: (flags & WORK_KNOWN != 0)
                .then(|| Work::from_counters(wire.work.iter().map(|column| at(&column.values, row)))),
        });
    }
    Ok(rows)
}

fn at<T: Copy + Default>(column: &[T], row: usize) -> T {
    column.get(row).copied().unwrap_or_default()
}

fn request_id(ids: &[u8], row: usize) -> RequestId {
    let id = ids.chunks_exact(REQUEST_ID_BYTES).nth(row).and_then(|id| id.try_into().ok());
    RequestId(id.map_or(0, u128::from_be_bytes))
}

fn check_lengths(wire: &wire::Invocations, expected: usize) -> Result<(), BatchError> {
    let lengths = [
        ("started_at_us_delta", wire.started_at_us_delta.len()),
        ("outcomes", wire.outcomes.len()),
        ("flags", wire.flags.len()),
        ("duration_us", wire.duration_us.len()),
        ("runtime_us", wire.runtime_us.len()),
        ("billed_ms", wire.billed_ms.len()),
        ("init_us", wire.init_us.len()),
        ("restore_us", wire.restore_us.len()),
        ("produced_bytes", wire.produced_bytes.len()),
        ("max_memory_used_mb", wire.max_memory_used_mb.len()),
        ("peak_kib", wire.peak_kib.len()),
        ("start_kib", wire.start_kib.len()),
        ("threads", wire.threads.len()),
        ("descriptors", wire.descriptors.len()),
        ("tmp_used_kib", wire.tmp_used_kib.len()),
        ("initializations", wire.initializations.len()),
    ];
    let works = wire.work.iter().map(|column| ("work", column.values.len()));
    for (column, found) in lengths.into_iter().chain(works) {
        if found != 0 && found != expected {
            return Err(BatchError::ColumnLength { column, found, expected });
        }
    }
    let ids = wire.request_ids.len();
    if ids != 0 && ids != expected * REQUEST_ID_BYTES {
        return Err(BatchError::ColumnLength {
            column: "request_ids",
            found: ids / REQUEST_ID_BYTES,
            expected,
        });
    }
    Ok(())
}

fn flags(row: &Invocation) -> u32 {
    let bit = |set: bool, bit: u32| if set { bit } else { 0 };
    bit(row.is_cold_start(), COLD_START)
        | bit(row.caveats.estimated, ESTIMATED)
        | bit(row.caveats.report_missing, REPORT_MISSING)
        | bit(row.caveats.starved_inferred, STARVED_INFERRED)
        | bit(row.caveats.peak_sampled, PEAK_SAMPLED)
        | bit(row.work.is_some(), WORK_KNOWN)
        | bit(row.caveats.work_estimated, WORK_ESTIMATED)
}

fn outcome_to_wire(outcome: Outcome) -> wire::Outcome {
    match outcome {
        Outcome::Unknown => wire::Outcome::Unknown,
        Outcome::Success => wire::Outcome::Success,
        Outcome::Error => wire::Outcome::Error,
        Outcome::Timeout => wire::Outcome::Timeout,
        Outcome::OutOfMemory => wire::Outcome::OutOfMemory,
    }
}

/// An outcome of a newer sender reads as unknown.
fn outcome_from_wire(number: i32) -> Outcome {
    match wire::Outcome::try_from(number) {
        Ok(wire::Outcome::Success) => Outcome::Success,
        Ok(wire::Outcome::Error) => Outcome::Error,
        Ok(wire::Outcome::Timeout) => Outcome::Timeout,
        Ok(wire::Outcome::OutOfMemory) => Outcome::OutOfMemory,
        Ok(wire::Outcome::Unknown) | Err(_) => Outcome::Unknown,
    }
}

fn initialization_to_wire(initialization: Initialization) -> wire::Initialization {
    match initialization {
        Initialization::Warm => wire::Initialization::Warm,
        Initialization::OnDemand => wire::Initialization::OnDemand,
        Initialization::Proactive => wire::Initialization::Proactive,
        Initialization::ProvisionedConcurrency => wire::Initialization::ProvisionedConcurrency,
        Initialization::SnapStart => wire::Initialization::SnapStart,
        Initialization::InsideInvocation => wire::Initialization::InsideInvocation,
    }
}

/// Earlier senders have the flag for a cold start only, and a newer one may have another class.
fn initialization_from_wire(number: i32, flags: u32) -> Initialization {
    match wire::Initialization::try_from(number) {
        Ok(wire::Initialization::OnDemand) => Initialization::OnDemand,
        Ok(wire::Initialization::Proactive) => Initialization::Proactive,
        Ok(wire::Initialization::ProvisionedConcurrency) => Initialization::ProvisionedConcurrency,
        Ok(wire::Initialization::SnapStart) => Initialization::SnapStart,
        Ok(wire::Initialization::InsideInvocation) => Initialization::InsideInvocation,
        Ok(wire::Initialization::Warm) | Err(_) if flags & COLD_START != 0 => Initialization::OnDemand,
        Ok(wire::Initialization::Warm) | Err(_) => Initialization::Warm,
    }
}
