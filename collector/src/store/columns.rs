//! The values of the columns of each table, in their order. Both stores write rows with them, so that a row, with its
//! checksum, is the same in both.
//!
//! Some values are encoded here and live as long as the call, so each function passes the values to `write`.

use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;

use super::recent::PackedRow;
use super::rows::{Field, encode_rollups, function_fields, to_ordered_sql, to_sql};
use super::{ChangeEvent, EnvironmentState, FunctionKey, NewBatch, SeriesKey, StoredKey, Tenant};

/// A row of the table `function`: the newest batch, and the number of stored single invocations.
pub(super) fn of_function<T>(
    tenant: &Tenant,
    key: &FunctionKey,
    (received_at_us, recent_invocations): (u64, u64),
    header: &[u8],
    write: impl FnOnce(&[Field<'_>]) -> T,
) -> T {
    let [tenant, account, region, function] = function_fields(tenant, key);
    write(&[
        tenant,
        function,
        account,
        region,
        Field::Integer(to_ordered_sql(received_at_us)),
        Field::Integer(to_ordered_sql(recent_invocations)),
        Field::Blob(header),
    ])
}

/// A row of the table `pending`, with the key of its function and the encoded header of the batch.
pub(super) fn of_pending<T>(
    batch: &NewBatch,
    key: &FunctionKey,
    header: &[u8],
    write: impl FnOnce(&[Field<'_>]) -> T,
) -> T {
    let [tenant, account, region, function] = function_fields(&batch.tenant, key);
    write(&[
        tenant,
        account,
        region,
        function,
        Field::Blob(&batch.header.environment.id.0),
        Field::Integer(to_sql(batch.header.sequence)),
        Field::Integer(to_ordered_sql(batch.received_at_us)),
        Field::Integer(to_ordered_sql(batch.last_at_us)),
        Field::Integer(to_ordered_sql(batch.invocations)),
        Field::Blob(header),
        Field::Blob(&encode_rollups(&batch.rollups)),
        Field::Blob(&batch.body),
    ])
}

/// A row of the table `environment`.
pub(super) fn of_environment<T>(
    tenant: &Tenant,
    state: &EnvironmentState,
    write: impl FnOnce(&[Field<'_>]) -> T,
) -> T {
    let environment = &state.header.environment;
    let key = FunctionKey::of(environment);
    let [tenant, account, region, function] = function_fields(tenant, &key);
    write(&[
        tenant,
        account,
        region,
        function,
        Field::Blob(&environment.id.0),
        Field::Integer(to_ordered_sql(state.received_at_us)),
        Field::Blob(&state.sequences.encode()),
        Field::Blob(&state.header.encode()),
    ])
}

/// A row of the table `rollup`.
pub(super) fn of_rollup<T>(
    tenant: &Tenant,
    key: &SeriesKey,
    (hours, hour): (u64, u64),
    content: &Rollup,
    write: impl FnOnce(&[Field<'_>]) -> T,
) -> T {
    let [tenant, account, region, function] = function_fields(tenant, &key.function);
    write(&[
        tenant,
        account,
        region,
        function,
        Field::Integer(to_sql(hours)),
        Field::Integer(to_sql(hour)),
        Field::Text(&key.version),
        Field::Integer(i64::from(key.memory.0)),
        Field::Text(key.architecture.as_str()),
        Field::Blob(&rollup::encode(content)),
    ])
}

/// A row of the table `recent`.
pub(super) fn of_recent<T>(
    tenant: &Tenant,
    key: &FunctionKey,
    row: &PackedRow,
    write: impl FnOnce(&[Field<'_>]) -> T,
) -> T {
    let [tenant, account, region, function] = function_fields(tenant, key);
    write(&[
        tenant,
        account,
        region,
        function,
        Field::Integer(to_ordered_sql(row.last_at_us)),
        Field::Blob(&row.part),
        Field::Integer(to_ordered_sql(row.invocations)),
        Field::Blob(&row.body),
    ])
}

/// A row of the table `change_event`.
pub(super) fn of_change<T>(tenant: &Tenant, event: &ChangeEvent, write: impl FnOnce(&[Field<'_>]) -> T) -> T {
    let [tenant, account, region, function] = function_fields(tenant, &event.function);
    write(&[
        tenant,
        account,
        region,
        function,
        Field::Text(&event.change_id),
        Field::Integer(to_sql(event.step)),
        Field::Integer(to_sql(event.at_us)),
        Field::Text(&event.kind),
        Field::Text(&event.detail.to_string()),
    ])
}

/// A row of the table `api_key`.
pub(super) fn of_api_key<T>(key: &StoredKey, write: impl FnOnce(&[Field<'_>]) -> T) -> T {
    let last_used_s = Field::Integer(to_ordered_sql(key.last_used_s));
    write(&[Field::Text(&key.digest), Field::Text(&key.text), last_used_s])
}
