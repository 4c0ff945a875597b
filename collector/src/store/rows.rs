//! Rows with checksums: the tables of both stores, and how values are encoded. A row, with its checksum, is the same in both.
//!
//! The last column of a table is `checksum`, a CRC-32 of the table's name and of all columns before it.

use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;

use super::{FunctionKey, StoreError, Tenant};

/// A table with checksums.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The columns that the checksum covers, in order. The first `keys` of them are the primary key.
    pub(super) columns: &'static [&'static str],
    pub(super) keys: usize,
}

/// Defines the tables, each with its key and its other columns, and the position of each column in a row that is read with
/// all of them.
macro_rules! tables {
    ($($table:ident = $name:ident [$($key:ident),+] [$($other:ident),+];)+) => {
        $(pub(super) static $table: Table = Table {
            name: stringify!($name),
            columns: &[$(stringify!($key),)+ $(stringify!($other)),+],
            keys: [$(stringify!($key)),+].len(),
        };)+

        /// All tables with checksums.
        pub(super) fn all_tables() -> [&'static Table; [$(stringify!($name)),+].len()] {
            [$(&$table),+]
        }

        /// The positions of columns, by table.
        #[allow(non_upper_case_globals, dead_code, reason = "the names are those of the columns")]
        pub(super) mod column {
            $(pub(in crate::store) mod $name {
                #[allow(non_camel_case_types)]
                enum Position { $($key,)+ $($other,)+ checksum }
                $(pub(in crate::store) const $key: usize = Position::$key as usize;)+
                $(pub(in crate::store) const $other: usize = Position::$other as usize;)+
                pub(in crate::store) const checksum: usize = Position::checksum as usize;
            })+
        }
    };
}

tables! {
    FUNCTION = function [tenant, function, account, region] [received_at_us, recent_invocations, header];
    PENDING = pending
        [tenant, account, region, function, environment, sequence]
        [received_at_us, last_at_us, invocations, header, rollups, body];
    ENVIRONMENT = environment
        [tenant, account, region, function, environment] [received_at_us, sequences, header];
    ENDED = ended [tenant, account, region, function, day] [body];
    ROLLUP = rollup
        [tenant, account, region, function, hours, hour, version, memory_mb, architecture] [body];
    RECENT = recent [tenant, account, region, function, last_at_us, part] [invocations, body];
    CHANGE_EVENT = change_event
        [tenant, account, region, function, change_id, step] [at_us, kind, detail];
    SUMMARY = summary [tenant, hours, strategy, account, region, function] [row];
    SUMMARY_REPORT = summary_report [tenant, account, region, function, hours, strategy] [report];
    API_KEY = api_key [digest] [text, last_used_s];
    PARTITION = archive_partition
        [tenant, day, account]
        [first_waiting, waiting_bytes, waiting_invocations, waiting_since_us, spooled_invocations,
         spooled_billed_ms, dropped_invocations, dropped_billed_ms];
    PART = archive_part [tenant, day, account, number] [invocations, billed_ms, body];
    FILE = archive_file
        [tenant, day, account, first]
        [last, digest, invocations, billed_ms, sealed_at_us, uploaded_at_us, object, bytes, sha256,
         uploaded_invocations, uploaded_billed_ms, has_parts];
}

/// The value of one column.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field<'a> {
    Text(&'a str),
    Integer(i64),
    Blob(&'a [u8]),
}

/// A value as it is stored. Damaged text need not be UTF-8.
#[derive(Debug, Clone, Copy)]
pub(super) enum StoredValue<'a> {
    Text(&'a [u8]),
    Integer(i64),
    Blob(&'a [u8]),
    /// No column is null or a float, unless it was damaged.
    Other,
}

impl<'a> From<Field<'a>> for StoredValue<'a> {
    fn from(field: Field<'a>) -> Self {
        match field {
            Field::Text(text) => Self::Text(text.as_bytes()),
            Field::Integer(integer) => Self::Integer(integer),
            Field::Blob(blob) => Self::Blob(blob),
        }
    }
}

/// The CRC-32 of a row.
pub(super) fn checksum<'a>(table: &Table, values: impl Iterator<Item = StoredValue<'a>>) -> i64 {
    let mut crc = flate2::Crc::new();
    crc.update(table.name.as_bytes());
    for value in values {
        let (kind, bytes) = match value {
            StoredValue::Text(bytes) => (b't', bytes),
            StoredValue::Blob(bytes) => (b'b', bytes),
            StoredValue::Integer(integer) => {
                crc.update(b"i");
                crc.update(&integer.to_le_bytes());
                continue;
            }
            StoredValue::Other => (b'?', &b""[..]),
        };
        crc.update(&[kind]);
        crc.update(&(bytes.len() as u64).to_le_bytes());
        crc.update(bytes);
    }
    i64::from(crc.sum())
}

/// The key columns of a function, in the order of all tables but [`FUNCTION`].
pub(super) fn function_fields<'a>(tenant: &'a Tenant, key: &'a FunctionKey) -> [Field<'a>; 4] {
    [Field::Text(&tenant.0), Field::Text(&key.account), Field::Text(&key.region), Field::Text(&key.name)]
}

/// Rollups by hour, as one value.
pub(super) fn encode_rollups(rollups: &[(u64, Rollup)]) -> Vec<u8> {
    let mut bytes = vec![];
    for (hour, rollup) in rollups {
        let body = rollup::encode(rollup);
        bytes.extend_from_slice(&hour.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&body);
    }
    bytes
}

/// Reads what [`encode_rollups`] wrote.
pub(super) fn decode_rollups(mut bytes: &[u8]) -> Result<Vec<(u64, Rollup)>, StoreError> {
    let mut rollups = vec![];
    while let Some((head, rest)) = bytes.split_first_chunk::<16>() {
        let (hour, length) = head.split_at(8);
        let integer = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let length = usize::try_from(integer(length)).map_err(damaged)?;
        let (body, rest) = rest.split_at_checked(length).ok_or_else(|| damaged("rollups are cut"))?;
        rollups.push((integer(hour), rollup::decode(body).map_err(damaged)?));
        bytes = rest;
    }
    if bytes.is_empty() { Ok(rollups) } else { Err(damaged("rollups are cut")) }
}

/// The error for stored data that cannot be decoded.
pub(super) fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

/// The integers of the stores are signed. A sequence above `i64::MAX` becomes a negative one and back, so that none collide.
pub(super) const fn to_sql(value: u64) -> i64 {
    i64::from_ne_bytes(value.to_ne_bytes())
}

/// The reverse of [`to_sql`].
pub(super) const fn from_sql(value: i64) -> u64 {
    u64::from_ne_bytes(value.to_ne_bytes())
}

/// A value for comparisons in SQL, which order signed integers: values above `i64::MAX` are limited to it.
pub(super) fn to_ordered_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
