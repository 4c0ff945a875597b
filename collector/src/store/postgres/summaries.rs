//! Stored summaries of functions.

use super::compaction::{Owner, lock, of_function};
use super::connection::Connection;
use super::errors::Failure;
use super::rows::{Cells, NewRow, OF_FUNCTION, PREFIX, Writes, select};
use crate::store::damage::DamageLog;
use crate::store::rows::{
    Field, SUMMARY, SUMMARY_REPORT, column, damaged, from_sql, function_fields, to_ordered_sql,
};
use crate::store::summary::{ChangedFunction, Summary, SummaryKind, SummaryRow};
use crate::store::{FunctionKey, Tenant};

/// The functions whose summaries are out of date, the one that waits for the longest time first.
pub(super) async fn changed(connection: &Connection, limit: usize) -> Result<Vec<ChangedFunction>, Failure> {
    let sql = format!(
        "SELECT tenant, account, region, function, received_at_us FROM {PREFIX}function
         WHERE changed_at_us > 0 ORDER BY changed_at_us LIMIT $1"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = connection.query(&sql, &[&limit]).await?;
    let function = |row: &tokio_postgres::Row| {
        let (tenant, function) = Cells::of(row)?.owner()?;
        Ok(ChangedFunction { tenant, function, received_at_us: from_sql(row.try_get("received_at_us")?) })
    };
    rows.iter().map(function).collect()
}

/// Replaces the summaries of functions.
pub(super) async fn put(
    connection: &Connection,
    functions: &[(ChangedFunction, Vec<Summary>)],
    now_us: u64,
) -> Result<(), Failure> {
    let mut owners: Vec<Owner> =
        functions.iter().map(|(changed, _)| (changed.tenant.clone(), changed.function.clone())).collect();
    owners.sort_unstable();
    lock(connection, &owners).await?;
    for (changed, summaries) in functions {
        put_function(connection, changed, summaries, now_us).await?;
    }
    Ok(())
}

async fn put_function(
    connection: &Connection,
    changed: &ChangedFunction,
    summaries: &[Summary],
    now_us: u64,
) -> Result<(), Failure> {
    let owner = (changed.tenant.clone(), changed.function.clone());
    let sql = format!("SELECT hours, strategy FROM {PREFIX}summary_report WHERE {OF_FUNCTION}");
    let mut stored: Vec<(i64, String)> = vec![];
    for row in connection.query(&sql, &of_function(&owner)).await? {
        stored.push((row.try_get("hours")?, row.try_get("strategy")?));
    }
    let (mut rows, mut reports) = (Writes::default(), Writes::default());
    for Summary { kind, row, report } in summaries {
        let row = serde_json::to_string(row).map_err(damaged)?;
        let key = (to_ordered_sql(kind.hours), kind.strategy.clone());
        let (hours, strategy) = (Field::Integer(key.0), Field::Text(&key.1));
        let [tenant, account, region, function] = function_fields(&owner.0, &owner.1);
        let exists = stored.contains(&key);
        let fields = [tenant, hours, strategy, account, region, function, Field::Text(&row)];
        rows.add(exists, NewRow::new(&SUMMARY, &fields));
        let fields = [tenant, account, region, function, hours, strategy, Field::Blob(report)];
        reports.add(exists, NewRow::new(&SUMMARY_REPORT, &fields));
    }
    rows.run(connection, &SUMMARY).await?;
    reports.run(connection, &SUMMARY_REPORT).await?;
    stored.retain(|(hours, strategy)| {
        summaries.iter().all(|one| (to_ordered_sql(one.kind.hours), &one.kind.strategy) != (*hours, strategy))
    });
    for (hours, strategy) in &stored {
        for table in ["summary", "summary_report"] {
            let sql =
                format!("DELETE FROM {PREFIX}{table} WHERE {OF_FUNCTION} AND hours = $5 AND strategy = $6");
            let mut parameters = of_function(&owner);
            parameters.push(hours);
            parameters.push(strategy);
            connection.execute(&sql, &parameters).await?;
        }
    }
    // A function that changed since it was read waits at the end of the queue.
    let sql = format!(
        "UPDATE {PREFIX}function SET summarized_at_us = $6::bigint,
            changed_at_us = CASE WHEN received_at_us = $5 THEN 0 ELSE $6::bigint END
         WHERE {OF_FUNCTION}"
    );
    let (received, now) = (to_ordered_sql(changed.received_at_us), to_ordered_sql(now_us));
    let mut parameters = of_function(&owner);
    parameters.push(&received);
    parameters.push(&now);
    connection.execute(&sql, &parameters).await.map(drop)
}

/// The rows of one kind. A damaged row is left out; it is computed again.
pub(super) async fn rows(
    connection: &Connection,
    tenant: &Tenant,
    kind: &SummaryKind,
    damage: &DamageLog,
) -> Result<Vec<SummaryRow>, Failure> {
    let sql = format!("{} WHERE tenant = $1 AND hours = $2 AND strategy = $3", select(&SUMMARY));
    let mut summaries = vec![];
    connection
        .for_each(&sql, &[&tenant.0, &to_ordered_sql(kind.hours), &kind.strategy], |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&SUMMARY, damage) {
                // A summary of another version of the program may have other fields; it is computed again.
                summaries.extend(serde_json::from_str::<SummaryRow>(cells.text(column::summary::row)?).ok());
            }
            Ok(true)
        })
        .await?;
    Ok(summaries)
}

/// The reports of some functions, in their order.
pub(super) async fn reports(
    connection: &Connection,
    tenant: &Tenant,
    functions: &[FunctionKey],
    kind: &SummaryKind,
    damage: &DamageLog,
) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    let sql = format!("{} WHERE {OF_FUNCTION} AND hours = $5 AND strategy = $6", select(&SUMMARY_REPORT));
    let owners: Vec<Owner> = functions.iter().map(|key| (tenant.clone(), key.clone())).collect();
    let hours = to_ordered_sql(kind.hours);
    let each = owners.iter().map(|owner| {
        let mut parameters = of_function(owner);
        parameters.push(&hours);
        parameters.push(&kind.strategy);
        parameters
    });
    let found = connection.query_each(&sql, &each.collect::<Vec<_>>()).await?;
    let report = |rows: &Vec<tokio_postgres::Row>| {
        let Some(row) = rows.first() else { return Ok(None) };
        let cells = Cells::of(row)?;
        let is_valid = cells.verify(&SUMMARY_REPORT, damage);
        Ok(if is_valid { Some(cells.blob(column::summary_report::report)?.to_vec()) } else { None })
    };
    found.iter().map(report).collect()
}
