//! The columns, in the order in which they are written. `docs/archive.md` describes them.

use tailor_sizing::telemetry::invocation::Work;

use crate::row::{Row, outcome};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A signed number of 64 bits.
    Integer,
    /// True or false.
    Boolean,
    /// Microseconds since the Unix epoch, UTC.
    Timestamp,
}

/// How the value of a column is taken from a row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value {
    Text(fn(&Row<'_>) -> String),
    Integer(fn(&Row<'_>) -> Option<i64>),
    Boolean(fn(&Row<'_>) -> bool),
    Timestamp(fn(&Row<'_>) -> u64),
    /// The counter of [`Work`] with this number.
    Counter(usize),
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name, with the unit.
    pub name: &'static str,
    /// Whether a value can be absent.
    pub is_optional: bool,
    /// Whether its values repeat so often that a dictionary makes it smaller.
    pub(crate) has_dictionary: bool,
    pub(crate) value: Value,
}

impl Column {
    const fn new(name: &'static str, value: Value) -> Self {
        Self { name, is_optional: false, has_dictionary: false, value }
    }

    const fn optional(self) -> Self {
        Self { is_optional: true, ..self }
    }

    const fn dictionary(self) -> Self {
        Self { has_dictionary: true, ..self }
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.value {
            Value::Text(_) => Kind::Text,
            Value::Integer(_) | Value::Counter(_) => Kind::Integer,
            Value::Boolean(_) => Kind::Boolean,
            Value::Timestamp(_) => Kind::Timestamp,
        }
    }
}

/// The names of the counters of [`Work`], in their order. New ones come last.
const COUNTERS: [&str; Work::COUNTERS] = [
    "cpu_user_us",
    "cpu_system_us",
    "starved_us",
    "idle_us",
    "top_thread_busy_us",
    "top_thread_starved_us",
    "effective_threads_milli",
    "voluntary_switches",
    "involuntary_switches",
    "timeslices",
    "minor_faults",
    "major_faults",
    "sockets_opened",
    "network_rx_bytes",
    "network_tx_bytes",
    "disk_read_bytes",
    "disk_written_bytes",
    "unaccounted_cpu_us",
    "main_busy_us",
    "main_starved_us",
    "main_threads",
    "pool_busy_us",
    "pool_starved_us",
    "pool_threads",
    "collector_busy_us",
    "collector_starved_us",
    "collector_threads",
    "compiler_busy_us",
    "compiler_starved_us",
    "compiler_threads",
    "other_busy_us",
    "other_starved_us",
    "other_threads",
    "unseen_busy_us",
    "pressure_us",
    "quota_periods",
    "throttled_periods",
];

fn integer(value: u64) -> Option<i64> {
    Some(i64::try_from(value).unwrap_or(i64::MAX))
}

/// A value of which zero means that it is not known.
fn known(value: u64) -> Option<i64> {
    integer(value).filter(|value| *value > 0)
}

/// The columns of the environment and of the invocation, without the counters of its processes.
const FIRST: [Column; 30] = [
    Column::new("started_at", Value::Timestamp(|row| row.invocation.started_at_us)),
    Column::new("request_id", Value::Text(|row| row.invocation.request_id.to_string())),
    Column::new("region", Value::Text(|row| row.header.environment.region.clone())).dictionary(),
    Column::new("function", Value::Text(|row| row.header.environment.function.clone())).dictionary(),
    Column::new("version", Value::Text(|row| row.header.environment.version.clone())).dictionary(),
    Column::new("runtime", Value::Text(|row| row.header.environment.runtime.clone())).dictionary(),
    Column::new("architecture", Value::Text(|row| row.header.environment.architecture.as_str().to_owned()))
        .dictionary(),
    Column::new("memory_mb", Value::Integer(|row| integer(row.header.environment.memory.0.into())))
        .dictionary(),
    Column::new(
        "ephemeral_storage_mb",
        Value::Integer(|row| known(row.header.environment.ephemeral_mb.into())),
    )
    .optional()
    .dictionary(),
    Column::new("timeout_ms", Value::Integer(|row| known(row.header.environment.timeout_ms)))
        .optional()
        .dictionary(),
    Column::new("environment_id", Value::Text(|row| row.header.environment.id.to_string())).dictionary(),
    Column::new(
        "initialization_type",
        Value::Text(|row| row.header.environment.initialization_type.as_str().to_owned()),
    )
    .dictionary(),
    Column::new("source", Value::Text(|row| row.header.environment.extension_version.clone())).dictionary(),
    Column::new("batch_sequence", Value::Integer(|row| integer(row.header.sequence))),
    Column::new("outcome", Value::Text(|row| outcome(row.invocation.outcome).to_owned())).dictionary(),
    Column::new("initialization", Value::Text(|row| row.invocation.initialization.as_str().to_owned()))
        .dictionary(),
    Column::new("duration_us", Value::Integer(|row| integer(row.invocation.duration_us))),
    Column::new("handler_us", Value::Integer(|row| known(row.invocation.runtime_us))).optional(),
    Column::new("billed_ms", Value::Integer(|row| integer(row.invocation.billed_ms))),
    Column::new("init_us", Value::Integer(|row| integer(row.invocation.init_us))),
    Column::new("restore_us", Value::Integer(|row| integer(row.invocation.restore_us))),
    Column::new("cost_picodollars", Value::Integer(|row| row.cost_picodollars)).optional(),
    Column::new("response_bytes", Value::Integer(|row| integer(row.invocation.produced_bytes))),
    Column::new("max_memory_used_mb", Value::Integer(|row| known(row.invocation.max_memory_used_mb.into())))
        .optional(),
    Column::new("peak_memory_kib", Value::Integer(|row| known(row.invocation.peak_kib))).optional(),
    Column::new("start_memory_kib", Value::Integer(|row| known(row.invocation.start_kib))).optional(),
    Column::new("threads", Value::Integer(|row| integer(row.invocation.threads.into()))).dictionary(),
    Column::new("file_descriptors", Value::Integer(|row| integer(row.invocation.descriptors.into())))
        .dictionary(),
    Column::new("tmp_used_kib", Value::Integer(|row| integer(row.invocation.tmp_used_kib))),
    Column::new("is_estimated", Value::Boolean(|row| row.invocation.caveats.estimated)),
];

/// What is known only in part.
const CAVEATS: [Column; 4] = [
    Column::new("is_report_missing", Value::Boolean(|row| row.invocation.caveats.report_missing)),
    Column::new("is_starved_inferred", Value::Boolean(|row| row.invocation.caveats.starved_inferred)),
    Column::new("is_peak_sampled", Value::Boolean(|row| row.invocation.caveats.peak_sampled)),
    Column::new("is_cpu_estimated", Value::Boolean(|row| row.invocation.caveats.work_estimated)),
];

/// All columns of a file. The partition columns `day` and `account` are in the name of the object.
pub fn all() -> impl Iterator<Item = Column> {
    let counters = COUNTERS.iter().enumerate();
    let counters = counters.map(|(index, name)| Column::new(name, Value::Counter(index)).optional());
    FIRST.into_iter().chain(CAVEATS).chain(counters)
}
