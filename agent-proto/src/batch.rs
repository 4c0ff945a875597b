//! A batch as both sides use it, and its conversion to and from the wire.

use std::fmt;
use std::str::FromStr;

use prost::Message;
use tailor_sizing::telemetry::invocation::{Caveats, Initialization, Invocation, Outcome, RequestId, Work};
use tailor_sizing::telemetry::utilization::Interval;
use tailor_sizing::units::{Architecture, Megabytes, UnknownArchitecture};

pub use crate::wire::{Lost, Overhead};

use crate::limits::{ENVIRONMENT_ID_BYTES, MAX_BATCH_BYTES, MAX_INVOCATIONS, MAX_TEXT_BYTES};
use crate::wire;

/// What one execution environment measured since its last acknowledged batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Everything but the invocations.
    pub header: BatchHeader,
    /// The invocations, oldest first.
    pub invocations: Vec<Invocation>,
}

/// The environment that sent a batch, the sequence of the batch, and the running totals of the environment.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchHeader {
    /// The environment that made it.
    pub environment: Environment,
    /// Number of the batch: the environment counts its batches from 1.
    pub sequence: u64,
    /// When it was made, microseconds since the Unix epoch by the environment's clock.
    pub sent_at_us: u64,
    /// Running totals of what was lost.
    pub lost: Lost,
    /// Running totals of what the extension itself used.
    pub overhead: Overhead,
    /// Invocations that had begun and are in no batch yet.
    pub unsent: u64,
    /// What the environment used since its last batch; `None` where invocations do not run at the same time.
    pub interval: Option<Interval>,
}

/// Identity of one execution environment: random, new at every start and after every restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvironmentId(pub [u8; ENVIRONMENT_ID_BYTES]);

impl fmt::Display for EnvironmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The execution environment and the function it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Which environment.
    pub id: EnvironmentId,
    /// AWS account; empty when unknown.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Function name.
    pub function: String,
    /// Function version: `$LATEST` or a number.
    pub version: String,
    /// Memory size.
    pub memory: Megabytes,
    /// Instruction set.
    pub architecture: Architecture,
    /// Runtime, as the platform names it; empty when unknown.
    pub runtime: String,
    /// How Lambda initialized it.
    pub initialization_type: InitializationType,
    /// Version of the extension; see also [`Environment::imported_by`].
    pub extension_version: String,
    /// Ephemeral storage, MB; 0 when unknown.
    pub ephemeral_mb: u32,
    /// Function timeout, milliseconds; 0 when unknown.
    pub timeout_ms: u64,
}

/// The prefix of `extension_version` for invocations that were imported from logs.
const IMPORT: &str = "log-import/";

/// Why a batch is rejected. Sending it again does not help.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Larger than [`MAX_BATCH_BYTES`].
    #[error("batch has {0} bytes, the most is {MAX_BATCH_BYTES}: send fewer invocations at a time")]
    TooLarge(usize),
    /// Not protobuf of this schema.
    #[error("batch is not a tailor.v1.Batch message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A required message or text is missing.
    #[error("batch has no `{0}`")]
    Missing(&'static str),
    /// A text field longer than [`MAX_TEXT_BYTES`].
    #[error("`{field}` has {bytes} bytes, the most is {MAX_TEXT_BYTES}")]
    TextTooLong {
        /// Which field.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// Environment id of another length.
    #[error("environment id has {0} bytes, it must have {ENVIRONMENT_ID_BYTES}")]
    EnvironmentId(usize),
    /// Architecture Lambda does not have.
    #[error(transparent)]
    Architecture(#[from] UnknownArchitecture),
    /// Sequences count from 1.
    #[error("batch sequence is 0: sequences count from 1")]
    Sequence,
    /// Memory size outside Lambda's range, managed instances included.
    #[error("memory size {0} MB is outside 128 to 32768")]
    Memory(u32),
    /// More than [`MAX_INVOCATIONS`] rows.
    #[error("batch has {0} invocations, the most is {MAX_INVOCATIONS}")]
    TooManyInvocations(u32),
    /// A column has another length than the batch, and is not empty.
    #[error("column `{column}` has {found} elements for {expected} invocations")]
    ColumnLength {
        /// Which column.
        column: &'static str,
        /// Its length.
        found: usize,
        /// The batch's row count.
        expected: usize,
    },
    /// A time before 1970 or beyond 64 bits.
    #[error("invocation {0} starts outside the range of time")]
    Time(usize),
}

impl Batch {
    /// The batch as protobuf bytes.
    ///
    /// # Errors
    /// [`BatchError::TooManyInvocations`] or [`BatchError::TooLarge`] when the collector would reject the batch.
    pub fn encode(&self) -> Result<Vec<u8>, BatchError> {
        if self.invocations.len() > MAX_INVOCATIONS {
            let count = u32::try_from(self.invocations.len()).unwrap_or(u32::MAX);
            return Err(BatchError::TooManyInvocations(count));
        }
        let message = wire::Batch {
            header: Some(self.header.to_wire()),
            invocations: Some(columns::from_rows(&self.invocations)),
        };
        let bytes = message.encode_to_vec();
        if bytes.len() > MAX_BATCH_BYTES { Err(BatchError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads protobuf bytes and checks every limit.
    ///
    /// # Errors
    /// Any [`BatchError`]. No bytes cause a panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() > MAX_BATCH_BYTES {
            return Err(BatchError::TooLarge(bytes.len()));
        }
        let message = wire::Batch::decode(bytes)?;
        Ok(Self {
            header: BatchHeader::from_wire(message.header.ok_or(BatchError::Missing("header"))?)?,
            invocations: columns::to_rows(&message.invocations.unwrap_or_default())?,
        })
    }
}

impl BatchHeader {
    /// The header alone as protobuf bytes, to store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    /// Reads what [`BatchHeader::encode`] wrote.
    ///
    /// # Errors
    /// Any [`BatchError`] of a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        Self::from_wire(wire::BatchHeader::decode(bytes)?)
    }

    fn to_wire(&self) -> wire::BatchHeader {
        wire::BatchHeader {
            environment: Some(self.environment.to_wire()),
            sequence: self.sequence,
            sent_at_us: self.sent_at_us,
            lost: Some(self.lost),
            overhead: Some(self.overhead),
            unsent: self.unsent,
            interval: self.interval.map(|interval| wire::Interval {
                duration_us: interval.duration_us,
                cpu_us: interval.cpu_us,
                max_cpu_milli: interval.max_cpu_milli,
                peak_kib: interval.peak_kib,
                max_concurrency: interval.max_concurrency,
            }),
        }
    }

    fn from_wire(wire: wire::BatchHeader) -> Result<Self, BatchError> {
        if wire.sequence == 0 {
            return Err(BatchError::Sequence);
        }
        let environment = wire.environment.ok_or(BatchError::Missing("environment"))?;
        Ok(Self {
            environment: Environment::from_wire(environment)?,
            sequence: wire.sequence,
            sent_at_us: wire.sent_at_us,
            lost: wire.lost.unwrap_or_default(),
            overhead: wire.overhead.unwrap_or_default(),
            unsent: wire.unsent,
            interval: wire.interval.map(|interval| Interval {
                duration_us: interval.duration_us,
                cpu_us: interval.cpu_us,
                max_cpu_milli: interval.max_cpu_milli,
                peak_kib: interval.peak_kib,
                max_concurrency: interval.max_concurrency,
            }),
        })
    }
}

/// How Lambda initialized the environment: `AWS_LAMBDA_INITIALIZATION_TYPE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitializationType {
    /// For a first invocation, or before one because Lambda expects it.
    OnDemand,
    /// Before invocations, for provisioned concurrency.
    ProvisionedConcurrency,
    /// Restored from a snapshot.
    SnapStart,
    /// On an instance that the account pays for.
    ManagedInstances,
    /// A type that this version does not know, or empty when it is unknown.
    Other(String),
}

impl InitializationType {
    /// The value of the environment variable and on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::OnDemand => "on-demand",
            Self::ProvisionedConcurrency => "provisioned-concurrency",
            Self::SnapStart => "snap-start",
            Self::ManagedInstances => "lambda-managed-instances",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for InitializationType {
    fn from(name: String) -> Self {
        match name.as_str() {
            "on-demand" => Self::OnDemand,
            "provisioned-concurrency" => Self::ProvisionedConcurrency,
            "snap-start" => Self::SnapStart,
            "lambda-managed-instances" => Self::ManagedInstances,
            _ => Self::Other(name),
        }
    }
}

/// The response that acknowledges everything up to `durable_sequence`.
#[must_use]
pub fn encode_ack(durable_sequence: u64) -> Vec<u8> {
    wire::Ack { durable_sequence }.encode_to_vec()
}

/// Reads the collector's response.
///
/// # Errors
/// [`BatchError::Malformed`] when it is not an acknowledgement.
pub fn decode_ack(bytes: &[u8]) -> Result<wire::Ack, BatchError> {
    Ok(wire::Ack::decode(bytes)?)
}

impl Environment {
    /// Whether it is on a managed instance: AWS bills the instance in place of invocations, and concurrent invocations share
    /// the memory. The function has no cost per invocation and no recommended size.
    #[must_use]
    pub fn is_managed_instances(&self) -> bool {
        self.initialization_type == InitializationType::ManagedInstances
    }

    /// The `extension_version` of an environment whose invocations `tailor import` read from logs. `version` is the version
    /// of `tailor`.
    #[must_use]
    pub fn imported_by(version: &str) -> String {
        format!("{IMPORT}{version}")
    }

    /// Whether its invocations were imported from logs: no extension measured them.
    #[must_use]
    pub fn is_imported(&self) -> bool {
        self.extension_version.starts_with(IMPORT)
    }

    fn to_wire(&self) -> wire::Environment {
        wire::Environment {
            id: self.id.0.to_vec(),
            account: self.account.clone(),
            region: self.region.clone(),
            function: self.function.clone(),
            version: self.version.clone(),
            memory_mb: self.memory.0,
            architecture: self.architecture.as_str().to_owned(),
            runtime: self.runtime.clone(),
            initialization_type: self.initialization_type.as_str().to_owned(),
            extension_version: self.extension_version.clone(),
            ephemeral_mb: self.ephemeral_mb,
            timeout_ms: self.timeout_ms,
        }
    }

    fn from_wire(wire: wire::Environment) -> Result<Self, BatchError> {
        for (field, text) in [
            ("environment.account", &wire.account),
            ("environment.region", &wire.region),
            ("environment.function", &wire.function),
            ("environment.version", &wire.version),
            ("environment.runtime", &wire.runtime),
            ("environment.initialization_type", &wire.initialization_type),
            ("environment.extension_version", &wire.extension_version),
        ] {
            check_text(field, text)?;
        }
        if wire.function.is_empty() {
            return Err(BatchError::Missing("environment.function"));
        }
        if wire.region.is_empty() {
            return Err(BatchError::Missing("environment.region"));
        }
        // Managed instances go to 32,768 MB; ordinary functions stop at 10,240.
        if !(128..=32_768).contains(&wire.memory_mb) {
            return Err(BatchError::Memory(wire.memory_mb));
        }
        let id = wire.id.try_into().map_err(|id: Vec<u8>| BatchError::EnvironmentId(id.len()))?;
        Ok(Self {
            id: EnvironmentId(id),
            account: wire.account,
            region: wire.region,
            function: wire.function,
            version: wire.version,
            memory: Megabytes(wire.memory_mb),
            architecture: Architecture::from_str(&wire.architecture)?,
            runtime: wire.runtime,
            initialization_type: wire.initialization_type.into(),
            extension_version: wire.extension_version,
            ephemeral_mb: wire.ephemeral_mb,
            timeout_ms: wire.timeout_ms,
        })
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), BatchError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(BatchError::TextTooLong { field, bytes: text.len() });
    }
    Ok(())
}

mod columns;

#[cfg(test)]
mod tests;
